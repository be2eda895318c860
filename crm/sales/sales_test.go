package sales_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/money"
	"github.com/crmguard/crmguard/crm/sales"
)

var start = crmtest.Start()

func pipeline() *sales.Pipeline {
	return &sales.Pipeline{
		Meta: crm.Meta[sales.Pipeline]{ID: crm.ID[sales.Pipeline]{1}}, Name: "new business",
		Stages: []sales.Stage{{Name: "qualification", Probability: 1000}, {Name: "proposal", Probability: 4000}, {Name: "negotiation", Probability: 7500}},
	}
}

func opportunity() *sales.Opportunity {
	return &sales.Opportunity{
		Meta: crm.Meta[sales.Opportunity]{ID: crm.ID[sales.Opportunity]{2}}, Name: crm.NewText("renewal"), Customer: crmtest.CustomerID(1),
		Pipeline: pipeline().ID, Stage: "qualification", Probability: 1000, Amount: 1_000_005, Currency: "CNY", State: sales.OpportunityOpen,
	}
}

func product() *sales.Product {
	return &sales.Product{
		Meta: crm.Meta[sales.Product]{ID: crm.ID[sales.Product]{3}}, SKU: "L-1", Name: "licence", Unit: "piece", Price: 20000, Currency: "CNY",
		Tax: 1300, Stocked: true, MinStock: 5000, State: sales.ProductActive,
	}
}

func prices() *sales.PriceList {
	p := product().ID
	return &sales.PriceList{
		Name: "2026", Currency: "CNY", Starts: start, Ends: start.AddDate(1, 0, 0),
		Prices: []sales.Price{{Product: p, UnitPrice: 19000}, {Product: p, From: 100_000, UnitPrice: 15000}, {Product: p, From: 10_000, UnitPrice: 17000}},
	}
}

// TestStored: the types can be protected, under the names that package crm lists.
func TestStored(t *testing.T) {
	for want, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){
		crm.TypeOpportunity: guard.Schema[*sales.Opportunity], crm.TypePipeline: guard.Schema[*sales.Pipeline],
		crm.TypeProduct: guard.Schema[*sales.Product], crm.TypePriceList: guard.Schema[*sales.PriceList],
	} {
		if s, err := schema(nil); err != nil || s.Type != want {
			t.Errorf("%s: %q, %v", want, s.Type, err)
		}
	}
}

func TestProducts(t *testing.T) {
	type p = sales.Product
	crmtest.Edits(t, product, (*p).Validate,
		crmtest.Breaks(func(*p) {}),
		crmtest.Breaks(func(r *p) { r.SKU, r.Name, r.Unit = "", "", "" }, "sku required", "name required", "unit required"),
		crmtest.Breaks(func(r *p) { r.Price = -1 }, "price negative"),
		crmtest.Breaks(func(r *p) { r.Currency = "cny" }, "currency unknown_value"),
		crmtest.Breaks(func(r *p) { r.Tax = 10001 }, "tax out_of_range"),
		crmtest.Breaks(func(r *p) { r.Stocked = false }, "min_stock mismatch"),
		crmtest.Breaks(func(r *p) { r.State = crmtest.Secret }, "state unknown_value"),
	)
	crmtest.Fixed(t, product(), (*p).CheckUpdate, map[string]func(*p){
		"sku fixed": func(r *p) { r.SKU = "x" }, "currency fixed": func(r *p) { r.Currency = "EUR" },
	})
	old := product()
	old.State = sales.ProductDiscontinued
	if err := old.CheckUpdate(product()); err != nil {
		t.Error(err)
	}

	type l = sales.PriceList
	crmtest.Edits(t, prices, (*l).Validate,
		crmtest.Breaks(func(*l) {}),
		crmtest.Breaks(func(r *l) { r.Prices[1].From = 0 }, "prices.1 repeated"),
		crmtest.Breaks(func(r *l) { r.Prices[0].Product = crm.ID[p]{} }, "prices.0.product required"),
		crmtest.Breaks(func(r *l) { r.Prices[2].UnitPrice = -1 }, "prices.2.unit_price negative"),
		crmtest.Breaks(func(r *l) { r.Ends = r.Starts.Add(-1) }, "ends before_start"),
	)
	for _, c := range []struct {
		quantity int64
		at       time.Time
		price    int64
		ok       bool
	}{
		{1, start, 19000, true}, {9_999, start, 19000, true}, {10_000, start, 17000, true}, {500_000, start, 15000, true},
		{1, start.Add(-1), 0, false}, {1, start.AddDate(1, 0, 0), 0, false},
	} {
		if price, ok := prices().UnitPrice(product().ID, c.quantity, c.at); price != c.price || ok != c.ok {
			t.Errorf("%+v: %d, %v", c, price, ok)
		}
	}
	line, err := product().Line(12_500, "CNY", start, prices())
	if err != nil || line.UnitPrice != 17000 || line.Quantity != 12 || line.Milli != 500 || line.Tax != 1300 {
		t.Errorf("%+v, %v", line, err)
	}
	if line, err := product().Line(1000, "CNY", start.AddDate(2, 0, 0), prices()); err != nil || line.UnitPrice != 20000 {
		t.Errorf("no list counts any more: %+v, %v", line, err)
	}
	euro := prices()
	euro.Currency = "EUR"
	if line, err := product().Line(1000, "EUR", start, prices(), euro); err != nil || line.UnitPrice != 19000 {
		t.Errorf("the list in euros: %+v, %v", line, err)
	}
	_, err = product().Line(1000, "USD", start, euro)
	crmtest.Broken(t, "no price in that currency", err, "currency mismatch")
	_, err = old.Line(-1, "CNY", start)
	crmtest.Broken(t, "discontinued", err, "product bad_reference", "quantity negative")
}

func TestOpportunities(t *testing.T) {
	type o = sales.Opportunity
	crmtest.Edits(t, opportunity, (*o).Validate,
		crmtest.Breaks(func(*o) {}),
		crmtest.Breaks(func(r *o) { r.Name = crm.Text{} }, "name required"),
		crmtest.Breaks(func(r *o) {
			r.Customer, r.Pipeline, r.Stage = crm.ID[crm.Customer]{}, crm.ID[sales.Pipeline]{}, ""
		}, "customer required", "pipeline required", "stage required"),
		crmtest.Breaks(func(r *o) { r.Probability = 10001 }, "probability out_of_range"),
		crmtest.Breaks(func(r *o) { r.Currency = "" }, "currency required"),
		crmtest.Breaks(func(r *o) { r.State = crmtest.Secret }, "state unknown_value"),
		crmtest.Breaks(func(r *o) { r.ClosedAt = start }, "closed_at mismatch"),
		crmtest.Breaks(func(r *o) { r.LostReason = sales.LostPrice }, "lost_reason mismatch"),
		crmtest.Breaks(func(r *o) { r.State, r.ClosedAt, r.LostReason = sales.OpportunityLost, start, crmtest.Secret }, "lost_reason unknown_value"),
	)
	type p = sales.Pipeline
	crmtest.Edits(t, pipeline, (*p).Validate,
		crmtest.Breaks(func(*p) {}),
		crmtest.Breaks(func(r *p) { r.Stages = nil }, "stages required"),
		crmtest.Breaks(func(r *p) { r.Stages[1].Name = r.Stages[0].Name }, "stages.1.name repeated"),
		crmtest.Breaks(func(r *p) { r.Stages[2].Probability = -1 }, "stages.2.probability out_of_range"),
	)

	d := opportunity()
	if d.Weighted() != 100_001 { // 100,000.5 is rounded up
		t.Errorf("weighted %d", d.Weighted())
	}
	crmtest.Broken(t, "no such stage", d.Advance(pipeline(), crmtest.Secret, start), "stage unknown_value")
	another := pipeline()
	another.ID = crm.ID[p]{9}
	crmtest.Broken(t, "another pipeline", d.Advance(another, "proposal", start), "pipeline mismatch")
	if err := d.Advance(pipeline(), "negotiation", start); err != nil || d.Probability != 7500 || !d.StageSince.Equal(start) {
		t.Fatal(err)
	}
	crmtest.Broken(t, "lost for no reason", d.Move(sales.OpportunityLost, "", start), "lost_reason required")
	crmtest.Broken(t, "won for a reason", d.Move(sales.OpportunityWon, sales.LostPrice, start), "lost_reason mismatch")
	if err := d.Move(sales.OpportunityWon, "", start); err != nil || d.Weighted() != d.Amount {
		t.Fatal(err)
	}
	crmtest.Stays(t, "advanced when won", d.Advance(pipeline(), "proposal", start), "won", "stage")
	crmtest.Stays(t, "lost when won", d.Move(sales.OpportunityLost, sales.LostPrice, start), "won", "lost")
	crmtest.Fixed(t, d, (*o).CheckUpdate, map[string]func(*o){
		"amount fixed": func(r *o) { r.Amount++ }, "stage fixed": func(r *o) { r.Stage = "proposal" },
		"customer fixed": func(r *o) { r.Customer = crmtest.CustomerID(8) }, "lead fixed": func(r *o) { r.Lead = crm.NewID[crm.Lead]() },
	})
	if err := d.Move(sales.OpportunityOpen, "", start); err != nil || !d.ClosedAt.IsZero() {
		t.Errorf("opened again: %v", err)
	}

	// The funnel leaves out what is not open, not living, in another currency or pipeline.
	euro, gone, lost := opportunity(), opportunity(), opportunity()
	euro.Currency, gone.Deleted, lost.State = "EUR", true, sales.OpportunityLost
	bars, err := sales.Funnel(pipeline(), "CNY", []*o{d, opportunity(), opportunity(), euro, gone, lost})
	if want := []sales.Bar{{Stage: "qualification", Count: 2, Amount: 2_000_010, Weighted: 200_002}, {Stage: "proposal"}, {Stage: "negotiation", Count: 1, Amount: 1_000_005, Weighted: 750_004}}; err != nil || !slices.Equal(bars, want) {
		t.Errorf("%+v, %v", bars, err)
	}
	huge := opportunity()
	huge.Amount = math.MaxInt64
	if _, err := sales.Funnel(pipeline(), "CNY", []*o{huge, huge}); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a sum that does not fit: %v", err)
	}
}

// TestItem02LeadConversion: a qualified lead becomes a customer, a contact and an opportunity once, or joins those that are there, and carries its
// person along.
func TestItem02LeadConversion(t *testing.T) {
	ids := sales.Conversion{
		CustomerID: crmtest.CustomerID(90), ContactID: crm.ID[crm.Contact]{4}, Opportunity: crm.ID[sales.Opportunity]{5}, Pipeline: pipeline(),
		Amount: 5000, Currency: "CNY",
	}
	l := crmtest.Lead(2)
	out, err := sales.Convert(l, ids, start)
	if err != nil {
		t.Fatal(err)
	}
	if out.Customer.Person != l.Person || out.Contact.Person != l.Person || out.Opportunity.Person != l.Person || !out.Join.IsZero() ||
		!out.NewCustomer || !out.NewContact || out.Opportunity.Stage != "qualification" || out.Opportunity.Probability != 1000 ||
		out.Opportunity.Lead != l.ID || l.Deal != out.Opportunity.ID.UUID() || out.Opportunity.Owner != l.Owner {
		t.Errorf("%+v", out)
	}
	for _, r := range []interface{ Validate() error }{out.Customer, out.Contact, out.Opportunity, l} {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	_, err = sales.Convert(l, ids, start)
	crmtest.Stays(t, "twice", err, "converted", "converted")

	// Into an existing customer, with a new contact; without an opportunity.
	into := sales.Conversion{Customer: crmtest.Customer(5), ContactID: ids.ContactID}
	l = crmtest.Lead(2)
	out, err = sales.Convert(l, into, start)
	if err != nil || out.NewCustomer || !out.NewContact || out.Opportunity != nil || out.Contact.Person != l.Person || l.Customer != into.Customer.ID {
		t.Errorf("%+v, %v", out, err)
	}
	// Into an existing contact: no second one, and two ids of one human to be joined.
	into = ids
	into.Customer, into.Contact = crmtest.Customer(5), crmtest.Contact(5)
	l = crmtest.Lead(2)
	out, err = sales.Convert(l, into, start)
	if err != nil || out.NewContact || out.Contact != into.Contact || out.Join != into.Contact.Person || out.Opportunity.Person != into.Contact.Person {
		t.Errorf("%+v, %v", out, err)
	}

	for want, edit := range map[string]func(*sales.Conversion, *crm.Lead){
		"customer required": func(c *sales.Conversion, _ *crm.Lead) { c.Contact = crmtest.Contact(5) },
		"pipeline required": func(c *sales.Conversion, _ *crm.Lead) { c.Pipeline = nil },
		"name not_open":     func(_ *sales.Conversion, l *crm.Lead) { l.Name.SetExposed("张*", uint8(crm.Masked)) },
		"contact mismatch": func(c *sales.Conversion, _ *crm.Lead) {
			c.Customer, c.Contact = crmtest.Customer(5), crmtest.Contact(6)
		},
		"customer bad_reference": func(c *sales.Conversion, _ *crm.Lead) { c.Customer = crmtest.Customer(5); c.Customer.Deleted = true },
		"currency required":      func(c *sales.Conversion, _ *crm.Lead) { c.Currency = "" },
		"contact required":       func(c *sales.Conversion, _ *crm.Lead) { c.ContactID = crm.ID[crm.Contact]{} },
	} {
		c, l := ids, crmtest.Lead(2)
		edit(&c, l)
		_, err := sales.Convert(l, c, start)
		crmtest.Broken(t, want, err, want)
		if l.State != crm.LeadQualified || !l.Deal.IsZero() {
			t.Errorf("%s: a refused conversion changed the lead", want)
		}
	}
}

func ExampleConvert() {
	lead := crmtest.Lead(2)
	out, err := sales.Convert(lead, sales.Conversion{
		CustomerID: crm.NewID[crm.Customer](), ContactID: crm.NewID[crm.Contact](),
		Opportunity: crm.NewID[sales.Opportunity](), Pipeline: pipeline(), Amount: 2_000_00, Currency: "CNY",
	}, crmtest.Start())
	if err != nil {
		panic(err)
	}
	fmt.Println(out.Customer.Person == lead.Person, out.Contact.Person == lead.Person, out.Opportunity.Person == lead.Person)
	fmt.Println(lead.State, out.Opportunity.Stage, money.Format(out.Opportunity.Weighted(), "CNY"))
	// Output:
	// true true true
	// converted qualification 200.00
}

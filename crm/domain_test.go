package crm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
)

func TestFixturesAreValid(t *testing.T) {
	for i := range 50 {
		for _, r := range []interface{ Validate() error }{
			crmtest.Customer(i), crmtest.Contact(i), crmtest.Lead(i), crmtest.FollowUp(i),
			crmtest.Quote(i), crmtest.Contract(i), crmtest.Ticket(i), crmtest.Employee(i),
		} {
			if err := r.Validate(); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	if a, b := crmtest.Customer(7), crmtest.Customer(7); a.ID != b.ID || !a.Name.Equal(b.Name) {
		t.Error("a fixture differs between two calls")
	}
}

func TestHeader(t *testing.T) {
	c := crmtest.Customer(3)
	c.Version, c.Deleted = 4, true
	var d crm.Customer
	d.SetHeader(c.Header())
	if d.Meta != c.Meta {
		t.Fatalf("got %+v", d.Meta)
	}
}

// rules are the fields and rules of an *crm.InvalidError.
func rules(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *crm.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want an InvalidError", err)
	}
	var list []string
	for _, f := range invalid.Fields {
		list = append(list, f.Field+" "+f.Rule)
	}
	return list
}

// invalid checks that each edit of a fixture breaks exactly the named rules, and that no error repeats
// a value.
func invalid[T any](t *testing.T, fixture func() *T, validate func(*T) error, cases []invalidCase[T]) {
	t.Helper()
	for _, c := range cases {
		r := fixture()
		c.edit(r)
		err := validate(r)
		if got := rules(t, err); !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		} else if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("the error repeats a value: %v", err)
		}
	}
}

type invalidCase[T any] struct {
	want []string
	edit func(*T)
}

func text(s string) crm.Text { return crm.NewText(s) }

func masked(s string) crm.Text {
	var t crm.Text
	t.SetExposed(s, uint8(crm.Masked))
	return t
}

func TestCustomerRules(t *testing.T) {
	type c = crm.Customer
	invalid(t, func() *c { return crmtest.Customer(2) }, (*c).Validate, []invalidCase[c]{
		{nil, func(*c) {}},
		{nil, func(r *c) { r.Note = text("two\nlines\tand a tab") }},
		{nil, func(r *c) { r.Name, r.Email = masked("张*"), masked("z***") }},
		{nil, func(r *c) { r.Phone = text("001-530-295-7382x123") }},
		{[]string{"name required"}, func(r *c) { r.Name = crm.Text{} }},
		{[]string{"name required"}, func(r *c) { r.Name = text(" \t ") }},
		{[]string{"name too_long"}, func(r *c) { r.Name = text(strings.Repeat("名", 201)) }},
		{[]string{"name not_text"}, func(r *c) { r.Name = text("a\x00b") }},
		{[]string{"name not_text"}, func(r *c) { r.Name = text("a\nb") }},
		{[]string{"name not_text"}, func(r *c) { r.Name = text("SECRET\xff") }},
		{[]string{"note not_text"}, func(r *c) { r.Note = text("bell \a") }},
		{[]string{"email not_an_email"}, func(r *c) { r.Email = text("SECRET") }},
		{[]string{"email not_an_email"}, func(r *c) { r.Email = text("a@") }},
		{[]string{"email not_an_email"}, func(r *c) { r.Email = text("@b") }},
		{[]string{"email not_an_email"}, func(r *c) { r.Email = text("a@b@c") }},
		{[]string{"email not_an_email"}, func(r *c) { r.Email = text("a b@c") }},
		{[]string{"email too_long"}, func(r *c) { r.Email = text(strings.Repeat("a", 260) + "@b") }},
		{[]string{"kind required"}, func(r *c) { r.Kind = "" }},
		{[]string{"kind unknown_value"}, func(r *c) { r.Kind = "SECRET" }},
		{[]string{"stage unknown_value"}, func(r *c) { r.Stage = "SECRET" }},
		{[]string{"open_value negative"}, func(r *c) { r.OpenValue = -1 }},
		{[]string{"credit_limit negative"}, func(r *c) { r.CreditLimit = -1 }},
		{[]string{"currency required"}, func(r *c) { r.Currency = "" }},
		{[]string{"currency unknown_value"}, func(r *c) { r.Currency = "eur" }},
		{[]string{"currency unknown_value"}, func(r *c) { r.Currency = "EURO" }},
		{[]string{"team unknown_value"}, func(r *c) { r.Team = "east" }},
		{[]string{"team unknown_value"}, func(r *c) { r.Team = "/east" }},
		{[]string{"team unknown_value"}, func(r *c) { r.Team = "//" }},
		{[]string{"team unknown_value"}, func(r *c) { r.Team = "/ea%st/" }},
		{[]string{"last_follow_up out_of_range"}, func(r *c) { r.LastFollowUp = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{[]string{"name required", "email not_an_email", "open_value negative"}, func(r *c) {
			r.Name, r.Email, r.OpenValue = crm.Text{}, text("x"), -5
		}},
	})
}

func TestOtherRules(t *testing.T) {
	type k = crm.Contact
	invalid(t, func() *k { return crmtest.Contact(2) }, (*k).Validate, []invalidCase[k]{
		{nil, func(*k) {}},
		{[]string{"customer required"}, func(r *k) { r.Customer = crm.ID[crm.Customer]{} }},
		{[]string{"name required", "email not_an_email"}, func(r *k) { r.Name, r.Email = crm.Text{}, text("x") }},
	})
	type l = crm.Lead
	invalid(t, func() *l { return crmtest.Lead(2) }, (*l).Validate, []invalidCase[l]{
		{nil, func(*l) {}},
		{[]string{"name required"}, func(r *l) { r.Name = crm.Text{} }},
		{[]string{"state required"}, func(r *l) { r.State = "" }},
		{[]string{"customer mismatch"}, func(r *l) { r.State = crm.LeadConverted }},
		{[]string{"customer mismatch"}, func(r *l) { r.Customer = crmtest.CustomerID(1) }},
	})
	type f = crm.FollowUp
	invalid(t, func() *f { return crmtest.FollowUp(2) }, (*f).Validate, []invalidCase[f]{
		{nil, func(*f) {}},
		{nil, func(r *f) { r.SubjectType, r.Customer = crm.TypeLead, crm.ID[crm.Customer]{} }},
		{[]string{"subject_type unknown_value"}, func(r *f) { r.SubjectType = "employee" }},
		{[]string{"customer mismatch"}, func(r *f) { r.Customer = crmtest.CustomerID(5) }},
		{[]string{"customer required"}, func(r *f) { r.SubjectType, r.Customer = crm.TypeTicket, crm.ID[crm.Customer]{} }},
		{[]string{"channel unknown_value"}, func(r *f) { r.Channel = "fax" }},
		{[]string{"text required"}, func(r *f) { r.Text = crm.Text{} }},
		{[]string{"at required"}, func(r *f) { r.At = time.Time{} }},
		{[]string{"next_at before_start"}, func(r *f) { r.NextAt = r.At.Add(-time.Second) }},
	})
	type q = crm.Quote
	invalid(t, func() *q { return crmtest.Quote(2) }, (*q).Validate, []invalidCase[q]{
		{nil, func(*q) {}},
		{nil, func(r *q) { r.Lines = nil; r.Net, r.Tax, r.Total = 0, 0, 0 }},
		{[]string{"number required"}, func(r *q) { r.Number = "" }},
		{[]string{"total mismatch"}, func(r *q) { r.Total++ }},
		{[]string{"total mismatch"}, func(r *q) { r.Tax, r.Net = r.Net, r.Tax }},
		{[]string{"total mismatch"}, func(r *q) { r.Lines[0].Discount = 0 }},
		{[]string{"lines.0.product required"}, func(r *q) { r.Lines[0].Product = "" }},
		{[]string{"lines.1 negative"}, func(r *q) { r.Lines[1].Quantity = -1 }},
		{[]string{"lines.1 out_of_range"}, func(r *q) { r.Lines[1].Discount = 10001 }},
		{[]string{"lines.1 out_of_range"}, func(r *q) { r.Lines[1].Tax = -1 }},
		{[]string{"lines.1 out_of_range"}, func(r *q) { r.Lines[1].Quantity = math.MaxInt64 }},
		{[]string{"lines out_of_range"}, func(r *q) {
			r.Lines[0] = crm.Line{Product: "a", Quantity: 1, UnitPrice: math.MaxInt64}
			r.Lines[1] = r.Lines[0]
		}},
		{[]string{"currency required"}, func(r *q) { r.Currency = "" }},
		{[]string{"valid_until required", "sent_at required"}, func(r *q) { r.State, r.ValidUntil = crm.QuoteSent, time.Time{} }},
	})
	type c = crm.Contract
	invalid(t, func() *c { return crmtest.Contract(2) }, (*c).Validate, []invalidCase[c]{
		{nil, func(*c) {}},
		{[]string{"signatory_person required"}, func(r *c) { r.SignatoryPerson = crm.ID[crm.Person]{} }},
		{[]string{"ends before_start"}, func(r *c) { r.Ends = r.Starts.Add(-1) }},
		{[]string{"amount negative", "paid negative"}, func(r *c) { r.Amount, r.Paid = -1, -1 }},
		{[]string{"signatory required", "starts required", "ends required"}, func(r *c) {
			r.State, r.Signatory, r.Starts, r.Ends = crm.ContractActive, crm.Text{}, time.Time{}, time.Time{}
		}},
	})
	type k2 = crm.Ticket
	invalid(t, func() *k2 { return crmtest.Ticket(2) }, (*k2).Validate, []invalidCase[k2]{
		{nil, func(*k2) {}},
		{[]string{"subject required"}, func(r *k2) { r.Subject = crm.Text{} }},
		{[]string{"priority unknown_value"}, func(r *k2) { r.Priority = "max" }},
		{[]string{"resolved_at required", "closed_at mismatch"}, func(r *k2) { r.State = crm.TicketClosed }},
		{[]string{"reopened negative"}, func(r *k2) { r.Reopened = -1 }},
	})
	type e = crm.Employee
	invalid(t, func() *e { return crmtest.Employee(2) }, (*e).Validate, []invalidCase[e]{
		{nil, func(*e) {}},
		{nil, func(r *e) { r.Roles = nil }},
		{[]string{"email required"}, func(r *e) { r.Email = crm.Text{} }},
		{[]string{"owner bad_reference"}, func(r *e) { r.Owner = r.ID }},
		{[]string{"roles unknown_value"}, func(r *e) { r.Roles = []string{"sales", "sales"} }},
		{[]string{"roles unknown_value"}, func(r *e) { r.Roles = []string{"Sales"} }},
		{[]string{"roles too_long"}, func(r *e) {
			r.Roles = nil
			for i := range 21 {
				r.Roles = append(r.Roles, fmt.Sprint("role", i))
			}
		}},
		{[]string{"left before_start"}, func(r *e) { r.Left = r.Joined.Add(-1) }},
	})
}

// lifecycle tries every step between two states and compares with the table as it is written here.
func lifecycle[S ~string](t *testing.T, l crm.Lifecycle[S], want string) {
	t.Helper()
	allowed := strings.Fields(want)
	refused := 0
	for _, from := range append(l.States(), "SECRET") {
		for _, to := range append(l.States(), "SECRET") {
			err := l.Check(from, to)
			step := string(from) + ">" + string(to)
			if err == nil != slices.Contains(allowed, step) || err == nil != slices.Contains(l.Next(from), to) {
				t.Errorf("%s: %v", step, err)
			}
			if err == nil {
				continue
			}
			refused++
			var wrong *crm.TransitionError
			if !errors.As(err, &wrong) || strings.Contains(err.Error(), "SECRET") ||
				l.Has(from) && wrong.From != string(from) || l.Has(to) && wrong.To != string(to) {
				t.Errorf("%s: %v", step, err)
			}
		}
	}
	if refused <= len(allowed) {
		t.Errorf("%d refused, %d allowed", refused, len(allowed))
	}
	if !l.Has(l.Start()) {
		t.Error("the start is no state")
	}
}

func TestLifecycles(t *testing.T) {
	lifecycle(t, crm.LeadLifecycle(), `new>contacted new>qualified new>junk contacted>qualified contacted>junk
		qualified>contacted qualified>converted qualified>junk junk>new`)
	lifecycle(t, crm.QuoteLifecycle(), `draft>sent sent>accepted sent>declined sent>expired sent>withdrawn`)
	lifecycle(t, crm.ContractLifecycle(), `draft>approved approved>active approved>terminated active>ended active>terminated`)
	lifecycle(t, crm.TicketLifecycle(), `open>resolved open>waiting waiting>open waiting>resolved resolved>closed resolved>open closed>open`)
	lifecycle(t, crm.EmployeeLifecycle(), `invited>active invited>left active>suspended active>left suspended>active suspended>left left>invited`)
	lifecycle(t, crm.CustomerLifecycle(), `new>negotiation new>dormant new>lost
		negotiation>contracting negotiation>at_risk negotiation>dormant negotiation>lost
		contracting>won contracting>negotiation contracting>at_risk contracting>lost
		won>negotiation won>payment_overdue won>at_risk won>dormant
		payment_overdue>won payment_overdue>at_risk payment_overdue>lost
		at_risk>negotiation at_risk>contracting at_risk>won at_risk>payment_overdue at_risk>dormant at_risk>lost
		dormant>negotiation dormant>lost lost>negotiation`)
}

func TestConvert(t *testing.T) {
	at := crmtest.Start().Add(time.Hour)
	customer, contact := crmtest.CustomerID(90), crm.NewID[crm.Contact]()
	l := crmtest.Lead(2)
	c, k, err := l.Convert(customer, contact, at)
	if err != nil {
		t.Fatal(err)
	}
	if c.Person != l.Person || k.Person != l.Person || c.ID != customer || k.Customer != customer ||
		c.Kind != crm.CompanyCustomer || !c.Name.Equal(l.Company) || !c.Contact.Equal(l.Name) || !k.Name.Equal(l.Name) ||
		l.State != crm.LeadConverted || l.Customer != customer || !l.ConvertedAt.Equal(at) {
		t.Fatal("converted wrongly")
	}
	for _, r := range []interface{ Validate() error }{c, k, l} {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	var wrong *crm.TransitionError
	if _, _, err := l.Convert(customer, contact, at); !errors.As(err, &wrong) || wrong.From != "converted" {
		t.Errorf("converted twice: %v", err)
	}
	if _, _, err := crmtest.Lead(1).Convert(customer, contact, at); !errors.As(err, &wrong) {
		t.Errorf("a new lead: %v", err)
	}
	hidden := crmtest.Lead(2)
	hidden.Phone, hidden.Email = masked("138****"), masked("p***")
	if _, _, err := hidden.Convert(customer, contact, at); !slices.Equal(rules(t, err), []string{"phone not_open", "email not_open"}) {
		t.Errorf("a masked lead: %v", err)
	}
	if hidden.State != crm.LeadQualified {
		t.Error("a refused conversion changed the lead")
	}
	_, _, err = crmtest.Lead(2).Convert(crm.ID[crm.Customer]{}, contact, at)
	if !slices.Equal(rules(t, err), []string{"customer required"}) {
		t.Errorf("no id: %v", err)
	}
	if err := crmtest.Lead(2).Move(crm.LeadConverted, at); err == nil {
		t.Error("moved to converted without a customer")
	}
	person := crmtest.Lead(2)
	person.Company = crm.Text{}
	if c, _, err := person.Convert(customer, contact, at); err != nil || c.Kind != crm.PersonCustomer || !c.Name.Equal(person.Name) {
		t.Errorf("a lead without a company: %v", err)
	}
}

func TestLineAmounts(t *testing.T) {
	for _, test := range []struct {
		line     crm.Line
		net, tax int64
		ok       bool
	}{
		{crm.Line{Quantity: 3, UnitPrice: 19900, Discount: 500, Tax: 1300}, 56715, 7373, true},
		{crm.Line{Quantity: 1, UnitPrice: 1, Discount: 5000}, 1, 0, true}, // half up
		{crm.Line{Quantity: 1, UnitPrice: 3, Discount: 5000, Tax: 2500}, 2, 1, true},
		{crm.Line{Quantity: 1, UnitPrice: 1, Discount: 5001}, 0, 0, true},
		{crm.Line{Quantity: 5, UnitPrice: 100, Discount: 10000, Tax: 10000}, 0, 0, true},
		{crm.Line{}, 0, 0, true},
		{crm.Line{Quantity: 1, UnitPrice: math.MaxInt64}, math.MaxInt64, 0, true},
		{crm.Line{Quantity: 2, UnitPrice: math.MaxInt64}, 0, 0, false},
		{crm.Line{Quantity: math.MaxInt64, UnitPrice: math.MaxInt64}, 0, 0, false},
		{crm.Line{Quantity: -1, UnitPrice: 1}, 0, 0, false},
		{crm.Line{Quantity: 1, UnitPrice: -1}, 0, 0, false},
		{crm.Line{Quantity: 1, UnitPrice: 1, Discount: 10001}, 0, 0, false},
		{crm.Line{Quantity: 1, UnitPrice: 1, Discount: -1}, 0, 0, false},
		{crm.Line{Quantity: 1, UnitPrice: 1, Tax: 10001}, 0, 0, false},
	} {
		net, tax, ok := test.line.Amounts()
		if ok != test.ok || ok && (net != test.net || tax != test.tax) {
			t.Errorf("%+v: %d, %d, %v", test.line, net, tax, ok)
		}
	}
}

func TestQuote(t *testing.T) {
	q := crmtest.Quote(1)
	at := q.CreatedAt
	empty := crmtest.Quote(1)
	empty.Lines = nil
	if err := empty.Compute(); err != nil {
		t.Fatal(err)
	}
	if err := empty.Move(crm.QuoteSent, at); !slices.Equal(rules(t, err), []string{"lines required"}) || empty.State != crm.QuoteDraft {
		t.Errorf("an empty quote: %v", err)
	}
	if err := crmtest.Quote(1).Move(crm.QuoteSent, q.ValidUntil.Add(1)); !slices.Equal(rules(t, err), []string{"valid_until too_late"}) {
		t.Errorf("sent too late: %v", err)
	}
	draft := *q
	if err := q.Move(crm.QuoteSent, at); err != nil {
		t.Fatal(err)
	}
	if err := q.CheckUpdate(&draft); err != nil {
		t.Error(err)
	}
	if err := q.Move(crm.QuoteExpired, q.ValidUntil); !slices.Equal(rules(t, err), []string{"valid_until too_early"}) {
		t.Errorf("expired too early: %v", err)
	}
	if err := q.Move(crm.QuoteAccepted, q.ValidUntil.Add(1)); !slices.Equal(rules(t, err), []string{"valid_until too_late"}) {
		t.Errorf("accepted too late: %v", err)
	}
	for rule, edit := range map[string]func(*crm.Quote){
		"number fixed":      func(r *crm.Quote) { r.Number = "x" },
		"customer fixed":    func(r *crm.Quote) { r.Customer = crmtest.CustomerID(50) },
		"lines fixed":       func(r *crm.Quote) { r.Lines = slices.Clone(r.Lines); r.Lines[0].UnitPrice++ },
		"currency fixed":    func(r *crm.Quote) { r.Currency = "EUR" },
		"total fixed":       func(r *crm.Quote) { r.Total++ },
		"valid_until fixed": func(r *crm.Quote) { r.ValidUntil = r.ValidUntil.Add(time.Hour) },
		"sent_at fixed":     func(r *crm.Quote) { r.SentAt = r.SentAt.Add(time.Hour) },
	} {
		changed := *q
		edit(&changed)
		if got := rules(t, changed.CheckUpdate(q)); !slices.Equal(got, []string{rule}) {
			t.Errorf("%s: %q", rule, got)
		}
	}
	var wrong *crm.TransitionError
	if err := draft.CheckUpdate(q); !errors.As(err, &wrong) || wrong.From != "sent" || wrong.To != "draft" {
		t.Errorf("back to draft: %v", err)
	}
	sent := *q
	if err := q.Move(crm.QuoteAccepted, q.ValidUntil); err != nil || q.CheckUpdate(&sent) != nil {
		t.Errorf("accepted: %v", err)
	}
}

func TestContractAndTicket(t *testing.T) {
	c := crmtest.Contract(1)
	at := c.CreatedAt
	if err := c.Move(crm.ContractApproved, at); err != nil {
		t.Fatal(err)
	}
	for rule, edit := range map[string]func(*crm.Contract){
		"amount fixed":           func(r *crm.Contract) { r.Amount++ },
		"signatory fixed":        func(r *crm.Contract) { r.Signatory = text("another") },
		"signatory_person fixed": func(r *crm.Contract) { r.SignatoryPerson = crmtest.PersonID(60) },
		"ends fixed":             func(r *crm.Contract) { r.Ends = r.Ends.AddDate(1, 0, 0) },
	} {
		changed := *c
		edit(&changed)
		if got := rules(t, changed.CheckUpdate(c)); !slices.Equal(got, []string{rule}) {
			t.Errorf("%s: %q", rule, got)
		}
	}
	paid := *c
	paid.Paid, paid.Signatory = paid.Amount, masked("王*")
	if err := paid.CheckUpdate(c); err != nil || paid.Outstanding() != 0 {
		t.Errorf("a payment: %v", err)
	}
	var wrong *crm.TransitionError
	if err := c.Move(crm.ContractEnded, at); !errors.As(err, &wrong) || wrong.From != "approved" || wrong.To != "ended" {
		t.Errorf("ended before it was active: %v", err)
	}
	k := crmtest.Ticket(1)
	for _, to := range []crm.TicketState{crm.TicketResolved, crm.TicketClosed, crm.TicketOpen, crm.TicketResolved} {
		prev := *k
		if err := k.Move(to, at); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(k.Validate(), k.CheckUpdate(&prev)); err != nil {
			t.Fatal(err)
		}
	}
	if k.Reopened != 1 || !k.ClosedAt.IsZero() {
		t.Errorf("reopened %d times, closed %v", k.Reopened, k.ClosedAt)
	}
	e := crmtest.Employee(1)
	if err := e.Move(crm.EmployeeLeft, at); err != nil || e.Active() {
		t.Errorf("left: %v", err)
	}
	if err := e.Move(crm.EmployeeActive, at); !errors.As(err, &wrong) {
		t.Errorf("active without an invitation: %v", err)
	}
}

// TestPrinting checks that a record prints and marshals without its personal data.
func TestPrinting(t *testing.T) {
	c := crmtest.Customer(2)
	c.Name, c.Note = text("SECRET"), text("SECRET")
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", *c), fmt.Sprint(c.Name, &c.Note), string(b)} {
		if strings.Contains(s, "SECRET") || strings.Contains(s, "534543524554") {
			t.Errorf("printed: %s", s)
		}
	}
	var back crm.Customer
	if err := json.Unmarshal(b, &back); err == nil {
		t.Error("a printed record was read back")
	}
}

func Example() {
	lead := crmtest.Lead(0)
	customer, contact, err := lead.Convert(crmtest.CustomerID(0), crm.NewID[crm.Contact](), crmtest.Start())
	if err != nil {
		panic(err)
	}
	fmt.Println(customer.Kind, customer.Person == contact.Person, lead.State)
	fmt.Println(customer.Name, len(customer.Name.Expose()))
	fmt.Println(lead.Move(crm.LeadNew, crmtest.Start()))
	// Output:
	// company true converted
	// *** 13
	// crm: lead cannot go from converted to new
}

func ExampleQuote_Move() {
	q := crmtest.Quote(0)
	err := q.Move(crm.QuoteAccepted, crmtest.Start())
	fmt.Println(err)
	// Output: crm: quote cannot go from draft to accepted
}

// TestNoVerbShowsText: not even inside an unexported field, where fmt asks no method.
func TestNoVerbShowsText(t *testing.T) {
	type inside struct{ t crm.Text }
	v := struct {
		a inside
		b []inside
		c map[string]inside
	}{inside{crm.NewText("secret")}, []inside{{crm.NewText("secret")}}, map[string]inside{"k": {crm.NewText("secret")}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%e"} {
		if out := fmt.Sprintf(verb, v) + fmt.Sprintf(verb, &v); strings.Contains(out, "secret") || strings.Contains(out, "736563726574") {
			t.Errorf("%s: %s", verb, out)
		}
	}
}

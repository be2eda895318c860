package desk_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/trash"
)

func invalid(t testing.TB, err error, field, rule string) {
	t.Helper()
	var i *crm.InvalidError
	require.ErrorAs(t, err, &i)
	assert.Contains(t, i.Fields, crm.FieldError{Field: field, Rule: rule})
}

// lead makes one of c that is qualified.
func (o *office) lead(t testing.TB, c guard.Caller) *crm.Lead {
	t.Helper()
	l := &crm.Lead{Name: crm.NewText("王芳"), Company: crm.NewText("Acme"), Phone: crm.NewText("13911112222"), Note: crm.NewText("met at the fair"), State: crm.LeadQualified}
	_, err := o.Leads.Create(t.Context(), c, l)
	require.NoError(t, err)
	return l
}

// TestItem02Conversion: a lead becomes customer, contact and opportunity in one transaction, all of one person, or nothing happens.
func TestItem02Conversion(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		pipe, err := o.Pipelines.Create(ctx, o.admin, &sales.Pipeline{Name: "Sales", Stages: []sales.Stage{{Name: "first", Probability: 10}, {Name: "second", Probability: 50}}})
		require.NoError(t, err)
		l := o.lead(t, o.sales)
		q := desk.Conversion{Pipeline: pipe.Value.ID, Amount: 100, Currency: "CNY"}
		_, err = o.Convert(ctx, o.other, l.ID, 1, q)
		require.ErrorIs(t, err, crm.ErrNotFound)
		_, err = o.Convert(ctx, o.sales, l.ID, 7, q)
		require.ErrorIs(t, err, crm.ErrConflict)
		support := o.person("support", "/east/1/")
		_, err = o.Convert(ctx, support, l.ID, 1, q)
		require.Error(t, err)
		n, err := o.Customers.Count(ctx, o.system, guard.Query{})
		require.NoError(t, err)
		require.Zero(t, n, "a refusal leaves nothing")

		out, err := o.Convert(ctx, o.sales, l.ID, 1, q)
		require.NoError(t, err)
		got, err := o.Customers.Get(ctx, o.system, out.Customer.UUID())
		require.NoError(t, err)
		assert.Equal(t, "Acme", got.Value.Name.Expose())
		assert.Equal(t, "13911112222", got.Value.Phone.Expose(), "not its mask")
		assert.Equal(t, l.Person, got.Value.Person)
		assert.Equal(t, self(o.sales), got.Value.Owner)
		k, err := o.Contacts.Get(ctx, o.system, out.Contact.UUID())
		require.NoError(t, err)
		assert.Equal(t, l.Person, k.Value.Person)
		op, err := o.Opportunities.Get(ctx, o.sales, out.Opportunity.UUID())
		require.NoError(t, err)
		assert.Equal(t, "first", op.Value.Stage)
		now, err := o.Leads.Get(ctx, o.sales, l.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, crm.LeadConverted, now.Value.State)
		assert.Equal(t, out.Customer, now.Value.Customer)
		_, err = o.Convert(ctx, o.sales, l.ID, 2, q)
		require.Error(t, err, "once")
		assert.Equal(t, 1, o.count(t, "lead.convert", audit.Intended))

		// Two at once: one conversion.
		l = o.lead(t, o.sales)
		var wg sync.WaitGroup
		var done atomic.Int64
		for range 8 {
			wg.Go(func() {
				if _, err := o.Convert(ctx, o.sales, l.ID, 1, desk.Conversion{}); err == nil {
					done.Add(1)
				} else if !errors.Is(err, crm.ErrConflict) && !guard.Denied(err) { // a converted lead is final
					t.Errorf("convert: %v", err)
				}
			})
		}
		wg.Wait()
		assert.EqualValues(t, 1, done.Load())
		n, err = o.Contacts.Count(ctx, o.system, guard.Query{})
		require.NoError(t, err)
		assert.EqualValues(t, 2, n)
	})
}

// quote makes a draft of the sales person with a discount.
func (o *office) quote(t testing.TB, k *crm.Customer, discount int64) *crm.Quote {
	t.Helper()
	q := &crm.Quote{
		Number: "Q-1", Customer: k.ID, Currency: "CNY", State: crm.QuoteDraft, ValidUntil: o.clock().AddDate(0, 1, 0),
		Lines: []crm.Line{{Product: "Pump", Quantity: 2, UnitPrice: 10_000, Discount: discount}},
	}
	require.NoError(t, q.Compute())
	_, err := o.Quotes.Create(t.Context(), o.sales, q)
	require.NoError(t, err)
	return q
}

// TestItem04Approval: an offer below the price needs somebody else's approval, which nobody gives who made or changed it and no update sets.
func TestItem04Approval(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		k := o.customer(t, o.sales, "Buyer")
		q := o.quote(t, k, 3000)
		invalid(t, o.SendQuote(ctx, o.sales, q.ID, 1), "approver", "required")
		denied(t, o.ApproveQuote(ctx, o.sales, q.ID, 1))

		forged := *q
		forged.Approver, forged.ApprovedAt = self(o.manager), o.clock()
		_, err := o.Quotes.Update(ctx, o.sales, &forged)
		denied(t, err)
		made := *q
		made.Meta = crm.Meta[crm.Quote]{}
		made.Approver, made.ApprovedAt = self(o.manager), o.clock()
		_, err = o.Quotes.Create(ctx, o.sales, &made)
		denied(t, err)
		forged = *q
		forged.Actors = ""
		_, err = o.Quotes.Update(ctx, o.sales, &forged)
		denied(t, err)

		// A manager who changes it does not approve it; another does.
		edited := *q
		edited.Lines = []crm.Line{{Product: "Pump", Quantity: 3, UnitPrice: 10_000, Discount: 3000}}
		require.NoError(t, edited.Compute())
		_, err = o.Quotes.Update(ctx, o.manager, &edited)
		require.NoError(t, err)
		denied(t, o.ApproveQuote(ctx, o.manager, q.ID, 2))
		second := o.person("manager", "/east/")
		require.NoError(t, o.ApproveQuote(ctx, second, q.ID, 2))

		// What changes afterwards is not what was approved.
		v, err := o.Quotes.Get(ctx, o.sales, q.ID.UUID())
		require.NoError(t, err)
		changed := *v.Value
		changed.Lines = []crm.Line{{Product: "Pump", Quantity: 3, UnitPrice: 10_000, Discount: 9000}}
		require.NoError(t, changed.Compute())
		_, err = o.Quotes.Update(ctx, o.sales, &changed)
		invalid(t, err, "approved_at", "mismatch")
		changed.DropApproval(v.Value)
		_, err = o.Quotes.Update(ctx, o.sales, &changed)
		require.NoError(t, err)
		invalid(t, o.SendQuote(ctx, o.sales, q.ID, 4), "approver", "required")
		require.NoError(t, o.ApproveQuote(ctx, second, q.ID, 4))
		require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 5))

		next, err := o.ReviseQuote(ctx, o.sales, q.ID, 6)
		require.NoError(t, err)
		revised, err := o.Quotes.Get(ctx, o.sales, next.UUID())
		require.NoError(t, err)
		assert.EqualValues(t, 2, revised.Value.Revision)
		was, err := o.Quotes.Get(ctx, o.sales, q.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, crm.QuoteWithdrawn, was.Value.State)
		denied(t, o.SendQuote(ctx, o.sales, q.ID, 7)) // final
	})
}

// TestItem05Contract: accepting an offer makes a contract with the next number, which somebody else approves; of many at once no number is lost or
// given twice.
func TestItem05Contract(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		series, err := o.Series.Create(ctx, o.admin, &crm.Series{Name: "contract", Prefix: "C-", Digits: 4})
		require.NoError(t, err)
		draft := desk.Draft{Series: series.Value.ID, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)}
		k := o.customer(t, o.sales, "Buyer")
		var wg sync.WaitGroup
		numbers := make([]string, 6)
		for i := range numbers {
			q := o.quote(t, k, 0)
			require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 1))
			wg.Go(func() {
				c, err := o.AcceptQuote(ctx, o.sales, q.ID, 2, draft)
				if assert.NoError(t, err) {
					numbers[i] = c.Number
				}
			})
		}
		wg.Wait()
		assert.ElementsMatch(t, []string{"C-0001", "C-0002", "C-0003", "C-0004", "C-0005", "C-0006"}, numbers)

		page, err := o.Contracts.List(ctx, o.sales, guard.Query{})
		require.NoError(t, err)
		c := *page.Items[0].Value
		c.SignatoryPerson, c.Signatory = k.Person, crm.NewText("Ann Lee")
		signed, err := o.Contracts.Update(ctx, o.sales, &c)
		require.NoError(t, err)
		c = *signed.Value
		moved := c
		require.NoError(t, moved.Move(crm.ContractApproved, o.clock()))
		_, err = o.Contracts.Update(ctx, o.sales, &moved)
		require.Error(t, err, "no update approves")
		denied(t, o.ApproveContract(ctx, o.sales, c.ID, 2))
		require.NoError(t, o.ApproveContract(ctx, o.manager, c.ID, 2))
		got, err := o.Contracts.Get(ctx, o.sales, c.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, self(o.manager), got.Value.Approver)

		// An offer that was not sent is not accepted, and its number goes to the next.
		q := o.quote(t, k, 0)
		_, err = o.AcceptQuote(ctx, o.sales, q.ID, 1, draft)
		require.Error(t, err)
		require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 1))
		last, err := o.AcceptQuote(ctx, o.sales, q.ID, 2, draft)
		require.NoError(t, err)
		assert.Equal(t, "C-0007", last.Number)
	})
}

// TestItem06Payment: who reported a payment does not approve it, nothing is posted into a closed period, and none is closed with payments undecided.
func TestItem06Payment(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		p := &finance.Period{Name: "2026-03", Starts: begin, Ends: begin.AddDate(0, 1, 0), State: finance.PeriodOpen}
		require.NoError(t, o.OpenPeriod(ctx, o.finance, p))
		receipt := func(at time.Time) *finance.Receipt {
			r := &finance.Receipt{
				Contract: crm.ID[crm.Contract](crm.NewUUID()), Customer: crm.ID[crm.Customer](crm.NewUUID()), Amount: 500, Currency: "CNY", At: at,
				Method: finance.MethodBank, State: finance.ReceiptReported, Account: crm.NewText("6222021234567890123"),
			}
			_, err := o.Receipts.Create(ctx, o.finance, r)
			require.NoError(t, err)
			return r
		}
		in, out := receipt(begin.AddDate(0, 0, 1)), receipt(begin.AddDate(0, 2, 0))
		second := o.person("finance", "/money/")
		denied(t, o.DecideReceipt(ctx, o.finance, in.ID, 1, finance.ReceiptApproved))
		var closed *finance.ClosedError
		require.ErrorAs(t, o.DecideReceipt(ctx, second, out.ID, 1, finance.ReceiptApproved), &closed)
		o.pass(31 * 24 * time.Hour)
		invalid(t, o.ClosePeriod(ctx, second, p.ID, 1), "pending", "mismatch")
		require.NoError(t, o.DecideReceipt(ctx, second, in.ID, 1, finance.ReceiptApproved))
		late := receipt(begin.AddDate(0, 0, 2))
		require.NoError(t, o.DecideReceipt(ctx, second, late.ID, 1, finance.ReceiptRefused))
		require.NoError(t, o.ClosePeriod(ctx, second, p.ID, 1))
		last := receipt(begin.AddDate(0, 0, 3))
		require.ErrorAs(t, o.DecideReceipt(ctx, second, last.ID, 1, finance.ReceiptApproved), &closed)
		assert.Equal(t, "2026-03", closed.Period)
	})
}

// TestItem10Stock has 30 deliveries of 1 out of a stock of 10 at once: ten leave, and it never is below nothing.
func TestItem10Stock(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		w, product := o.warehouse(t, "W-1"), crm.ID[sales.Product](crm.NewUUID())
		move := func(n int64) *stock.Movement {
			return &stock.Movement{Warehouse: w.ID, Product: product, Kind: stock.KindCount, Quantity: n, At: o.clock()}
		}
		require.NoError(t, o.PostStock(ctx, o.manager, move(10_000)))
		denied(t, o.PostStock(ctx, o.finance, move(10_000)))
		var wg sync.WaitGroup
		var gone, busy atomic.Int64
		for range max(12, few(30)) {
			sale := o.order(t, stock.Sale, w, product, 1000)
			wg.Go(func() {
				var short *stock.ShortError
				for {
					switch err := o.FulfilOrder(ctx, o.manager, sale.ID, sale.Version, []int64{1000}); {
					case err == nil:
						gone.Add(1)
					case errors.Is(err, crm.ErrConflict): // many at once
						busy.Add(1)
						continue
					case errors.As(err, &short):
					default:
						t.Errorf("delivery: %v", err)
					}
					return
				}
			})
		}
		wg.Wait()
		assert.EqualValues(t, 10, gone.Load())
		sum, err := o.store.Group(ctx, crm.Query{Tenant: "default", Type: crm.TypeMovement, Where: crm.Everything{}, Limit: 1}, crm.Grouping{Sums: []string{"quantity"}})
		require.NoError(t, err)
		assert.Zero(t, sum[0].Sums[0])

		// Two movements are one act: both or none.
		err = o.PostStock(ctx, o.manager, move(1000), move(-2000))
		var short *stock.ShortError
		require.ErrorAs(t, err, &short)
		require.NoError(t, o.PostStock(ctx, o.manager, move(1000), move(-1000)))
	})
}

// warehouse makes one that is open.
func (o *office) warehouse(t testing.TB, code string) *stock.Warehouse {
	t.Helper()
	w := &stock.Warehouse{Code: code, Name: "Main", State: stock.WarehouseOpen}
	_, err := o.Warehouses.Create(t.Context(), o.manager, w)
	require.NoError(t, err)
	return w
}

// order makes one of the manager over a quantity of a product that is confirmed.
func (o *office) order(t testing.TB, kind stock.OrderKind, w *stock.Warehouse, product crm.ID[sales.Product], quantity int64) *stock.Order {
	t.Helper()
	v := &stock.Order{
		Kind: kind, Number: "S-1", Customer: crm.ID[crm.Customer](crm.NewUUID()), Warehouse: w.ID, Currency: "CNY", State: stock.OrderDraft,
		Items: []stock.Item{{Product: product, Quantity: quantity, UnitPrice: 100}},
	}
	require.NoError(t, v.Compute())
	_, err := o.Orders.Create(t.Context(), o.manager, v)
	require.NoError(t, err)
	require.NoError(t, o.MoveOrder(t.Context(), o.manager, v.ID, 1, stock.OrderConfirmed))
	got, err := o.Orders.Get(t.Context(), o.manager, v.ID.UUID())
	require.NoError(t, err)
	return got.Value
}

// TestItem14Bin: what belongs to a record goes and comes back with it, all of it or nothing, and what was in the bin for long is erased: record, ordinary
// keys and all.
func TestItem14Bin(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		k := o.customer(t, o.sales, "Gone")
		other := o.customer(t, o.sales, "Stays")
		contact := &crm.Contact{Customer: k.ID, Name: crm.NewText("Ann")}
		contact.Person = k.Person
		_, err := o.Contacts.Create(ctx, o.sales, contact)
		require.NoError(t, err)
		before := &crm.Contact{Customer: k.ID, Name: crm.NewText("Bob")}
		_, err = o.Contacts.Create(ctx, o.sales, before)
		require.NoError(t, err)
		require.NoError(t, o.Contacts.Delete(ctx, o.sales, before.ID.UUID(), 1))
		o.pass(time.Hour)

		root := trash.Ref{Type: crm.TypeCustomer, ID: k.ID.UUID()}
		_, err = o.Delete(ctx, o.other, root, 1)
		require.ErrorIs(t, err, crm.ErrNotFound)
		_, err = o.Delete(ctx, o.sales, root, 9)
		require.ErrorIs(t, err, crm.ErrConflict)
		gone, err := o.Delete(ctx, o.sales, root, 1)
		require.NoError(t, err)
		assert.Len(t, gone, 2)
		o.pass(time.Hour)
		back, err := o.Restore(ctx, o.sales, root, 2)
		require.NoError(t, err)
		assert.Equal(t, []trash.Ref{root, {Type: crm.TypeContact, ID: contact.ID.UUID()}}, back, "not what was deleted by itself")
		assert.Equal(t, 1, o.count(t, "customer.restore", audit.Intended))

		// A contact of somebody else below it: all or nothing.
		theirs := &crm.Contact{Customer: k.ID, Name: crm.NewText("Eve")}
		theirs.Owner, theirs.Team = self(o.other), "/east/2/"
		_, err = o.Contacts.Create(ctx, o.manager, theirs)
		require.NoError(t, err)
		_, err = o.Delete(ctx, o.sales, root, 3)
		denied(t, err)
		_, err = o.Customers.Get(ctx, o.sales, root.ID)
		require.NoError(t, err)
		_, err = o.Delete(ctx, o.manager, root, 3)
		require.NoError(t, err)

		// Nothing is purged before its time, or by who may not.
		out, err := o.Purge(ctx, o.system, 100)
		require.NoError(t, err)
		assert.Empty(t, out.Records)
		o.pass(31 * 24 * time.Hour)
		_, err = o.Purge(ctx, o.sales, 100)
		require.Error(t, err)
		row, err := o.store.Load(ctx, "default", crm.TypeCustomer, []crm.UUID{root.ID})
		require.NoError(t, err)
		require.NotEmpty(t, row[0].Sealed)
		sealed := row[0].Sealed[0].Data

		out, err = o.Purge(ctx, o.system, 100)
		require.NoError(t, err)
		assert.Len(t, out.Records, 4)
		assert.Contains(t, out.Destroyed, k.Person.UUID())
		assert.NotContains(t, out.Destroyed, other.Person.UUID())
		_, err = o.Customers.Get(ctx, o.system, root.ID)
		require.ErrorIs(t, err, crm.ErrNotFound)
		for _, c := range []guard.Caller{o.system, o.admin} {
			page, err := o.Customers.List(ctx, c, guard.Query{Bin: true})
			require.NoError(t, err)
			assert.Empty(t, page.Items)
			n, err := o.Customers.Count(ctx, c, guard.Query{Bin: true})
			require.NoError(t, err)
			assert.Zero(t, n)
		}
		require.ErrorIs(t, o.Customers.Restore(ctx, o.admin, root.ID, 6), crm.ErrNotFound)
		missing, err := o.keeper.MissingKeys(ctx, "default", [][]byte{sealed})
		require.NoError(t, err)
		assert.Empty(t, missing, "destroyed, not merely missing")
		_, err = o.keeper.OpenFor(ctx, "default", k.Person.UUID(), "x", nil, sealed)
		require.Error(t, err)
		v, err := o.Customers.Get(ctx, o.system, other.ID.UUID())
		require.NoError(t, err)
		assert.Equal(t, "Stays", v.Value.Name.Expose())
		assert.NotEmpty(t, o.count(t, "person.erase", audit.Allowed))

		// The rows are as the log says, purged ones too.
		check := guard.NewCheck("default", schemas(t)...)
		for i := uint64(0); ; i++ {
			list, err := o.log.Query(ctx, audit.Filter{}, i+1, 1)
			require.NoError(t, err)
			if len(list) == 0 || list[0].Index != i {
				break
			}
			check.Event(list[0])
		}
		rep, err := check.Rows(ctx, o.store, o.keeper)
		require.NoError(t, err)
		assert.Empty(t, rep.Findings)
	})
}

func schemas(t testing.TB) []crm.Schema {
	t.Helper()
	a, err := guard.Schema[*crm.Customer](nil)
	require.NoError(t, err)
	b, err := guard.Schema[*crm.Contact](nil)
	require.NoError(t, err)
	return []crm.Schema{a, b}
}

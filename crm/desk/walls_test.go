package desk_test

import (
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/money"
	"github.com/crmguard/crmguard/crm/project"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/worktime"
)

func step(t testing.TB, err error) {
	t.Helper()
	var s *crm.TransitionError
	require.ErrorAs(t, err, &s)
}

// TestWallQuote: what was sent is decided by an act at its time, and by no update.
func TestWallQuote(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	q := o.quote(t, k, 0)
	require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 1))
	v, err := o.Quotes.Get(ctx, o.sales, q.ID.UUID())
	require.NoError(t, err)

	o.pass(365 * 24 * time.Hour)
	late := *v.Value
	late.State = crm.QuoteAccepted
	_, err = o.Quotes.Update(ctx, o.sales, &late)
	invalid(t, err, "decided_at", "required")
	late.DecidedAt = late.ValidUntil // as if it had been in time
	_, err = o.Quotes.Update(ctx, o.sales, &late)
	denied(t, err)
	early := *v.Value
	early.State = crm.QuoteExpired
	_, err = o.Quotes.Update(ctx, o.sales, &early)
	invalid(t, err, "decided_at", "required")
	born := *o.quote(t, k, 0)
	born.Meta, born.Actors, born.SentAt = crm.Meta[crm.Quote]{}, "", o.clock() // so that an update need only name the state
	_, err = o.Quotes.Create(ctx, o.sales, &born)
	invalid(t, err, "sent_at", "mismatch")
	series, err := o.Series.Create(ctx, o.admin, &crm.Series{Name: "contract", Prefix: "C-", Digits: 4})
	require.NoError(t, err)
	_, err = o.AcceptQuote(ctx, o.sales, q.ID, 2, desk.Draft{Series: series.Value.ID, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)})
	invalid(t, err, "valid_until", "too_late")

	require.NoError(t, o.Quotes.Act(ctx, o.sales, "update", q.ID.UUID(), 2, func(q *crm.Quote) error { return q.Move(crm.QuoteExpired, o.clock()) }))
	v, err = o.Quotes.Get(ctx, o.sales, q.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, o.clock(), v.Value.DecidedAt)
}

// TestWallExpense: money goes back to who spent it by acts of others, in an open period, and by no update.
func TestWallExpense(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	second := o.person("finance", "/money/")
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	p := &finance.Period{Name: "2026-03", Starts: begin, Ends: begin.AddDate(0, 1, 0), State: finance.PeriodOpen}
	require.NoError(t, o.OpenPeriod(ctx, o.finance, p))
	e := &finance.Expense{Category: "travel", Amount: 9000, Currency: "CNY", SpentAt: o.clock(), State: finance.ExpenseDraft, Note: crm.NewText("to the fair")}
	_, err := o.Expenses.Create(ctx, o.finance, e)
	require.NoError(t, err)
	born := &finance.Expense{Category: "travel", Amount: 9000, Currency: "CNY", SpentAt: o.clock(), State: finance.ExpensePaid, PaidAt: o.clock()}
	_, err = o.Expenses.Create(ctx, o.finance, born)
	invalid(t, err, "state", "mismatch")
	require.NoError(t, o.MoveExpense(ctx, o.finance, e.ID, 1, finance.ExpenseSubmitted))
	denied(t, o.MoveExpense(ctx, o.finance, e.ID, 2, finance.ExpenseApproved))
	require.NoError(t, o.MoveExpense(ctx, second, e.ID, 2, finance.ExpenseApproved))

	v, err := o.Expenses.Get(ctx, o.finance, e.ID.UUID())
	require.NoError(t, err)
	paid := *v.Value
	paid.State, paid.PaidAt = finance.ExpensePaid, o.clock().AddDate(-5, 0, 0)
	_, err = o.Expenses.Update(ctx, o.finance, &paid)
	denied(t, err)
	paid.PaidAt = time.Time{}
	_, err = o.Expenses.Update(ctx, o.finance, &paid)
	invalid(t, err, "paid_at", "mismatch")
	invalid(t, o.MoveExpense(ctx, o.finance, e.ID, 3, finance.ExpensePaid), "by", "four_eyes")
	o.pass(31 * 24 * time.Hour)
	var closed *finance.ClosedError
	require.ErrorAs(t, o.MoveExpense(ctx, second, e.ID, 3, finance.ExpensePaid), &closed)
	next := &finance.Period{Name: "2026-04", Starts: p.Ends, Ends: p.Ends.AddDate(0, 1, 0), State: finance.PeriodOpen}
	require.NoError(t, o.OpenPeriod(ctx, o.finance, next))
	require.NoError(t, o.MoveExpense(ctx, second, e.ID, 3, finance.ExpensePaid))
	v, err = o.Expenses.Get(ctx, o.finance, e.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, o.clock(), v.Value.PaidAt)
	step(t, o.MoveExpense(ctx, second, e.ID, 4, "lent"))
}

// TestWallInvoice: an invoice gets number and time when it is issued, once, in an open period.
func TestWallInvoice(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	invoice := func() *finance.Invoice {
		i := &finance.Invoice{
			Kind: finance.KindInvoice, Customer: crm.ID[crm.Customer](crm.NewUUID()), Buyer: crm.NewText("Acme"), Currency: "CNY", State: finance.InvoiceDraft,
			Lines: []crm.Line{{Product: "Pump", Quantity: 1, UnitPrice: 1000}}, DueAt: o.clock().AddDate(1, 0, 0),
		}
		require.NoError(t, i.Compute())
		return i
	}
	born := invoice()
	born.State, born.Number, born.IssuedAt = finance.InvoiceIssued, "R-0001", o.clock().AddDate(-3, 0, 0)
	_, err := o.Invoices.Create(ctx, o.finance, born)
	step(t, err)
	named := invoice()
	named.Number = "R-0001"
	_, err = o.Invoices.Create(ctx, o.finance, named)
	denied(t, err)

	i, other := invoice(), invoice()
	for _, v := range []*finance.Invoice{i, other} {
		_, err = o.Invoices.Create(ctx, o.finance, v)
		require.NoError(t, err)
	}
	forged := *i
	forged.State, forged.Number, forged.IssuedAt = finance.InvoiceIssued, "R-0001", o.clock().AddDate(-3, 0, 0)
	_, err = o.Invoices.Update(ctx, o.finance, &forged)
	denied(t, err)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, o.OpenPeriod(ctx, o.finance, &finance.Period{Name: "2026-03", Starts: begin, Ends: begin.AddDate(0, 1, 0), State: finance.PeriodOpen}))
	var series [2]crm.ID[crm.Series]
	for n := range series {
		s, err := o.Series.Create(ctx, o.admin, &crm.Series{Name: "invoice", Prefix: "R-", Digits: 4})
		require.NoError(t, err)
		series[n] = s.Value.ID
	}
	number, err := o.IssueInvoice(ctx, o.finance, i.ID, 1, series[0])
	require.NoError(t, err)
	assert.Equal(t, "R-0001", number)
	_, err = o.IssueInvoice(ctx, o.finance, other.ID, 1, series[1])
	invalid(t, err, "number", "repeated")
	_, err = o.IssueInvoice(ctx, o.finance, i.ID, 2, series[0])
	require.Error(t, err, "once")
	o.pass(40 * 24 * time.Hour)
	_, err = o.IssueInvoice(ctx, o.finance, other.ID, 1, series[0])
	var closed *finance.ClosedError
	require.ErrorAs(t, err, &closed)
	v, err := o.Invoices.Get(ctx, o.finance, i.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, begin.Add(33*time.Hour), v.Value.IssuedAt)
}

// TestWallContract: who signs an approved contract signs it after the approval, and no two approved contracts have one number.
func TestWallContract(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	contract := func() *crm.Contract {
		return &crm.Contract{
			Number: "C-0001", Customer: k.ID, Amount: 1000, Currency: "CNY", State: crm.ContractDraft, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0),
			SignatoryPerson: k.Person, Signatory: crm.NewText("Ann Lee"), Parties: []crm.Party{{Role: crm.PartyBuyer, Customer: k.ID}},
		}
	}
	signed := contract()
	signed.Parties[0].SignedAt = o.clock().AddDate(-3, 0, 0)
	_, err := o.Contracts.Create(ctx, o.sales, signed)
	invalid(t, err, "parties.0", "too_early")
	c, twin := contract(), contract()
	for _, v := range []*crm.Contract{c, twin} {
		_, err = o.Contracts.Create(ctx, o.sales, v)
		require.NoError(t, err)
	}
	invalid(t, o.ApproveContract(ctx, o.manager, c.ID, 1), "number", "repeated")
	twin.Number = "C-0002"
	_, err = o.Contracts.Update(ctx, o.sales, twin)
	require.NoError(t, err)
	require.NoError(t, o.ApproveContract(ctx, o.manager, c.ID, 1))

	v, err := o.Contracts.Get(ctx, o.sales, c.ID.UUID())
	require.NoError(t, err)
	active := *v.Value
	active.State = crm.ContractActive
	_, err = o.Contracts.Update(ctx, o.sales, &active)
	invalid(t, err, "parties", "not_signed")
	active.Parties = []crm.Party{{Role: crm.PartyBuyer, Customer: k.ID, SignedAt: o.clock().AddDate(-3, 0, 0)}}
	_, err = o.Contracts.Update(ctx, o.sales, &active)
	invalid(t, err, "parties.0", "too_early")
	active.Parties[0].SignedAt = o.clock()
	_, err = o.Contracts.Update(ctx, o.sales, &active)
	denied(t, err)
	invalid(t, o.SignContract(ctx, o.sales, c.ID, 2, 1), "parties", "bad_reference")
	o.pass(time.Hour)
	require.NoError(t, o.SignContract(ctx, o.sales, c.ID, 2, 0))
	invalid(t, o.SignContract(ctx, o.sales, c.ID, 3, 0), "parties.0", "fixed")
	require.NoError(t, o.Contracts.Act(ctx, o.sales, "update", c.ID.UUID(), 3, func(c *crm.Contract) error { return c.Move(crm.ContractActive, o.clock()) }))
	v, err = o.Contracts.Get(ctx, o.sales, c.ID.UUID())
	require.NoError(t, err)
	ended := *v.Value
	ended.State = crm.ContractEnded
	_, err = o.Contracts.Update(ctx, o.sales, &ended)
	invalid(t, err, "closed_at", "required")
	ended.ClosedAt = o.clock()
	_, err = o.Contracts.Update(ctx, o.sales, &ended)
	denied(t, err)
}

// TestWallRevision: an offer has one next version, and of two versions that somebody made all the same one is accepted.
func TestWallRevision(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	q := o.quote(t, k, 0)
	require.NoError(t, o.SendQuote(ctx, o.sales, q.ID, 1))
	require.NoError(t, o.Quotes.Act(ctx, o.sales, "update", q.ID.UUID(), 2, func(q *crm.Quote) error { return q.Move(crm.QuoteDeclined, o.clock()) }))
	next, err := o.ReviseQuote(ctx, o.sales, q.ID, 3)
	require.NoError(t, err)
	_, err = o.ReviseQuote(ctx, o.sales, q.ID, 3)
	invalid(t, err, "revises", "repeated")

	again := *o.quote(t, k, 0)
	again.Meta, again.Actors, again.Revision, again.Revises = crm.Meta[crm.Quote]{}, "", 2, q.ID
	_, err = o.Quotes.Create(ctx, o.sales, &again)
	require.NoError(t, err)
	series, err := o.Series.Create(ctx, o.admin, &crm.Series{Name: "contract", Prefix: "C-", Digits: 4})
	require.NoError(t, err)
	draft := desk.Draft{Series: series.Value.ID, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)}
	v, err := o.Quotes.Get(ctx, o.sales, next.UUID())
	require.NoError(t, err)
	v.Value.ValidUntil = again.ValidUntil
	_, err = o.Quotes.Update(ctx, o.sales, v.Value)
	require.NoError(t, err)
	require.NoError(t, o.SendQuote(ctx, o.sales, next, 2))
	require.NoError(t, o.SendQuote(ctx, o.sales, again.ID, 1))
	_, err = o.AcceptQuote(ctx, o.sales, next, 3, draft)
	require.NoError(t, err)
	_, err = o.AcceptQuote(ctx, o.sales, again.ID, 2, draft)
	invalid(t, err, "revises", "repeated")
}

// TestWallLead: a lead is converted into what the conversion makes, and by no update.
func TestWallLead(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	nobody := crm.ID[crm.Customer](crm.NewUUID())
	_, err := o.Leads.Create(ctx, o.sales, &crm.Lead{Name: crm.NewText("Ann"), State: crm.LeadConverted, Customer: nobody, ConvertedAt: o.clock()})
	step(t, err)
	_, err = o.Leads.Create(ctx, o.sales, &crm.Lead{Name: crm.NewText("Ann"), State: crm.LeadNew, ConvertedAt: o.clock()})
	invalid(t, err, "converted_at", "mismatch")
	l := o.lead(t, o.sales)
	forged := *l
	forged.State = crm.LeadConverted
	_, err = o.Leads.Update(ctx, o.sales, &forged)
	invalid(t, err, "customer", "mismatch")
	forged.Customer, forged.ConvertedAt = nobody, o.clock()
	_, err = o.Leads.Update(ctx, o.sales, &forged)
	denied(t, err)
	out, err := o.Convert(ctx, o.sales, l.ID, 1, desk.Conversion{})
	require.NoError(t, err)
	v, err := o.Leads.Get(ctx, o.sales, l.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, out.Customer, v.Value.Customer)
}

// TestWallReversal: a receipt is reversed once and wholly, and what is approved fits its contract, so that its balance can be told.
func TestWallReversal(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	second := o.person("finance", "/money/")
	plan := o.plan(t, 500)[0]
	receipt := func(amount int64, change func(*finance.Receipt)) *finance.Receipt {
		t.Helper()
		r := &finance.Receipt{Contract: plan.Contract, Customer: plan.Customer, Amount: amount, Currency: "CNY", At: o.clock(), Method: finance.MethodBank, State: finance.ReceiptReported}
		if change != nil {
			change(r)
		}
		_, err := o.Receipts.Create(ctx, o.finance, r)
		require.NoError(t, err)
		return r
	}
	approve := func(r *finance.Receipt) error { return o.DecideReceipt(ctx, second, r.ID, 1, finance.ReceiptApproved) }
	of := func(id crm.ID[finance.Receipt]) func(*finance.Receipt) {
		return func(r *finance.Receipt) { r.Reverses = id }
	}
	first := receipt(500, func(r *finance.Receipt) { r.Instalment = plan.ID })
	invalid(t, approve(receipt(-500, of(first.ID))), "reverses", "bad_reference") // not approved yet
	require.NoError(t, approve(first))
	invalid(t, approve(receipt(-600, of(first.ID))), "amount", "mismatch")
	invalid(t, approve(receipt(-500, of(crm.ID[finance.Receipt](crm.NewUUID())))), "reverses", "bad_reference")
	invalid(t, approve(receipt(1, func(r *finance.Receipt) { r.Instalment = crm.ID[finance.Instalment](crm.NewUUID()) })), "instalment", "bad_reference")
	invalid(t, approve(receipt(1, func(r *finance.Receipt) { r.Instalment, r.Currency = plan.ID, "USD" })), "instalment", "bad_reference")
	require.NoError(t, approve(receipt(-500, of(first.ID))))
	invalid(t, approve(receipt(-500, of(first.ID))), "reverses", "repeated")

	page, err := o.Receipts.List(ctx, o.finance, guard.Query{Clauses: []crm.Clause{{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue("approved")}}}})
	require.NoError(t, err)
	var came []*finance.Receipt
	for i := range page.Items {
		came = append(came, page.Items[i].Value)
	}
	require.Len(t, came, 2)
	b, err := finance.Balance([]*finance.Instalment{plan}, came, o.clock())
	require.NoError(t, err)
	assert.EqualValues(t, 500, b.Outstanding)
}

// plan makes an approved contract over an amount, to be paid in two halves when it is 1000, else at once.
func (o *office) plan(t testing.TB, amount int64) []*finance.Instalment {
	t.Helper()
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	c := &crm.Contract{
		Number: "C-" + crm.NewUUID().String(), Customer: k.ID, Amount: amount, Currency: "CNY", State: crm.ContractDraft, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0),
		SignatoryPerson: k.Person, Signatory: crm.NewText("Ann Lee"),
	}
	_, err := o.Contracts.Create(ctx, o.sales, c)
	require.NoError(t, err)
	require.NoError(t, o.ApproveContract(ctx, o.manager, c.ID, 1))
	parts := []finance.Part{{DueAt: o.clock().AddDate(0, 1, 0), Weight: 1}}
	if amount == 1000 {
		parts = append(parts, finance.Part{DueAt: o.clock().AddDate(0, 2, 0), Weight: 1})
	}
	_, err = o.PlanPayments(ctx, o.finance, c.ID, 1, parts)
	require.ErrorIs(t, err, crm.ErrConflict)
	plan, err := o.PlanPayments(ctx, o.finance, c.ID, 2, parts)
	require.NoError(t, err)
	_, err = o.PlanPayments(ctx, o.finance, c.ID, 2, parts)
	require.ErrorIs(t, err, crm.ErrConflict, "once")
	return plan
}

// TestWallInstalment: the instalments of a contract come to its amount, whoever changes one.
func TestWallInstalment(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	plan := o.plan(t, 1000)
	less := *plan[0]
	less.Amount = 1
	_, err := o.Instalments.Update(ctx, o.finance, &less)
	denied(t, err)
	more := *plan[0]
	more.Meta, more.Number = crm.Meta[finance.Instalment]{}, 3
	_, err = o.Instalments.Create(ctx, o.finance, &more)
	denied(t, err)
	later := *plan[0]
	later.DueAt = later.DueAt.AddDate(0, 1, 0)
	_, err = o.Instalments.Update(ctx, o.finance, &later)
	require.NoError(t, err)
}

// TestWallPeriod: periods do not overlap.
func TestWallPeriod(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		period := func(starts, ends time.Time) *finance.Period {
			return &finance.Period{Name: "P", Starts: starts, Ends: ends, State: finance.PeriodOpen}
		}
		require.NoError(t, o.OpenPeriod(ctx, o.finance, period(begin, begin.AddDate(0, 1, 0))))
		invalid(t, o.OpenPeriod(ctx, o.finance, period(begin.AddDate(0, 0, 5), begin.AddDate(0, 0, 9))), "starts", "repeated")
		invalid(t, o.OpenPeriod(ctx, o.finance, period(begin.AddDate(0, -1, 0), begin.Add(time.Hour))), "starts", "repeated")
		_, err := o.Periods.Create(ctx, o.finance, period(begin, begin.AddDate(0, 1, 0)))
		denied(t, err)
		step(t, o.OpenPeriod(ctx, o.finance, &finance.Period{Name: "P", Starts: begin.AddDate(-1, 0, 0), Ends: begin.AddDate(-1, 1, 0), State: finance.PeriodClosed, ClosedAt: o.clock(), ClosedBy: self(o.finance)}))
		require.NoError(t, o.OpenPeriod(ctx, o.finance, period(begin.AddDate(0, 1, 0), begin.AddDate(0, 2, 0))), "one ends where the other begins")
	})
}

// TestWallWarehouse: goods are in warehouses that are there and open, and those with goods in them stay so.
func TestWallWarehouse(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		w, other, product := o.warehouse(t, "W-1"), o.warehouse(t, "W-2"), crm.ID[sales.Product](crm.NewUUID())
		count := func(w crm.ID[stock.Warehouse], n int64) *stock.Movement {
			return &stock.Movement{Warehouse: w, Product: product, Kind: stock.KindCount, Quantity: n, At: o.clock()}
		}
		_, err := o.Warehouses.Create(ctx, o.manager, &stock.Warehouse{Code: "W-3", Name: "Main", State: stock.WarehouseClosed})
		step(t, err)
		require.NoError(t, o.PostStock(ctx, o.manager, count(w.ID, 5000)))
		shut := *w
		shut.State = stock.WarehouseClosed
		_, err = o.Warehouses.Update(ctx, o.manager, &shut)
		denied(t, err)
		invalid(t, o.CloseWarehouse(ctx, o.manager, w.ID, 1), "state", "not_empty")
		invalid(t, o.PostStock(ctx, o.manager, count(crm.ID[stock.Warehouse](crm.NewUUID()), 1)), "warehouse", "bad_reference")

		ids := func() crm.ID[stock.Movement] { return crm.ID[stock.Movement](crm.NewUUID()) }
		halves, err := stock.Move(product, 5000, w.ID, other.ID, ids, o.clock())
		require.NoError(t, err)
		invalid(t, o.PostStock(ctx, o.manager, halves[1]), "other", "mismatch")
		invalid(t, o.PostStock(ctx, o.manager, halves[0]), "other", "mismatch")
		require.NoError(t, o.PostStock(ctx, o.manager, halves...))
		require.NoError(t, o.CloseWarehouse(ctx, o.manager, w.ID, 1))
		invalid(t, o.PostStock(ctx, o.manager, count(w.ID, 1)), "warehouse", "mismatch")
		require.NoError(t, o.OpenWarehouse(ctx, o.manager, w.ID, 2))
		require.NoError(t, o.PostStock(ctx, o.manager, count(w.ID, 1)))

		// Closed and used at once: one of the two.
		for i := range few(10) {
			w := o.warehouse(t, "X-"+strconv.Itoa(i))
			var wg sync.WaitGroup
			var closing, posting error
			wg.Go(func() { closing = o.CloseWarehouse(ctx, o.manager, w.ID, 1) })
			wg.Go(func() { posting = o.PostStock(ctx, o.manager, count(w.ID, 1)) })
			wg.Wait()
			if closing == nil {
				invalid(t, posting, "warehouse", "mismatch")
			} else {
				require.NoError(t, posting)
				invalid(t, closing, "state", "not_empty")
			}
		}
	})
}

// TestWallOrder: what moved of an order is in the ledger.
func TestWallOrder(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	w, product := o.warehouse(t, "W-1"), crm.ID[sales.Product](crm.NewUUID())
	v := o.order(t, stock.Purchase, w, product, 1000)
	done := *v
	done.Items = []stock.Item{v.Items[0]}
	done.Items[0].Moved, done.State = 1000, stock.OrderDone
	_, err := o.Orders.Update(ctx, o.manager, &done)
	denied(t, err)
	done.Items[0].Moved = 0
	_, err = o.Orders.Update(ctx, o.manager, &done)
	invalid(t, err, "state", "mismatch")
	born := *v
	born.Meta = crm.Meta[stock.Order]{}
	_, err = o.Orders.Create(ctx, o.manager, &born)
	step(t, err)
	for _, order := range []crm.ID[stock.Order]{crm.ID[stock.Order](crm.NewUUID()), v.ID} {
		in := &stock.Movement{Warehouse: w.ID, Product: product, Kind: stock.KindReceipt, Quantity: 1000, At: o.clock(), Order: order}
		invalid(t, o.PostStock(ctx, o.manager, in), "order", "mismatch")
	}
	invalid(t, o.FulfilOrder(ctx, o.manager, v.ID, 2, []int64{1001}), "quantities.0", "out_of_range")
	require.NoError(t, o.FulfilOrder(ctx, o.manager, v.ID, 2, []int64{400}))
	require.NoError(t, o.FulfilOrder(ctx, o.manager, v.ID, 3, []int64{600}))
	got, err := o.Orders.Get(ctx, o.manager, v.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, stock.OrderDone, got.Value.State)
	n, err := o.Movements.Count(ctx, o.manager, guard.Query{})
	require.NoError(t, err)
	assert.EqualValues(t, 2, n)
}

// TestWallTicket: when a ticket was answered, waited and solved is noted by acts, at their time.
func TestWallTicket(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	ticket := func(change func(*crm.Ticket)) (*crm.Ticket, error) {
		v := &crm.Ticket{Number: "T-1", Customer: k.ID, Subject: crm.NewText("Help"), Priority: crm.PriorityNormal, State: crm.TicketOpen}
		change(v)
		_, err := o.Tickets.Create(ctx, o.sales, v)
		return v, err
	}
	_, err := ticket(func(v *crm.Ticket) { v.RespondedAt = o.clock().AddDate(-1, 0, 0) })
	invalid(t, err, "responded_at", "mismatch")
	_, err = ticket(func(v *crm.Ticket) { v.State, v.ResolvedAt = crm.TicketResolved, o.clock() })
	step(t, err)
	v, err := ticket(func(*crm.Ticket) {})
	require.NoError(t, err)
	for name, change := range map[string]func(*crm.Ticket){
		"answered": func(v *crm.Ticket) { v.RespondedAt = o.clock().AddDate(-1, 0, 0) },
		"paused": func(v *crm.Ticket) {
			v.Pauses = []worktime.Pause{{From: o.clock().AddDate(-50, 0, 0), To: o.clock().AddDate(50, 0, 0)}}
		},
		"escalated": func(v *crm.Ticket) { v.Escalated = 9 },
		"resolved":  func(v *crm.Ticket) { v.State, v.ResolvedAt = crm.TicketResolved, o.clock() },
	} {
		next := *v
		change(&next)
		_, err := o.Tickets.Update(ctx, o.sales, &next)
		var d *authz.DeniedError
		require.ErrorAs(t, err, &d, name)
	}
	next := *v
	next.State = crm.TicketResolved
	_, err = o.Tickets.Update(ctx, o.sales, &next)
	invalid(t, err, "resolved_at", "required")

	o.pass(time.Hour)
	require.NoError(t, o.RespondTicket(ctx, o.sales, v.ID, 1))
	require.NoError(t, o.MoveTicket(ctx, o.sales, v.ID, 2, crm.TicketResolved))
	got, err := o.Tickets.Get(ctx, o.sales, v.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, o.clock(), got.Value.RespondedAt)
	again := *got.Value
	again.State = crm.TicketOpen // without a reopening
	_, err = o.Tickets.Update(ctx, o.sales, &again)
	invalid(t, err, "resolved_at", "mismatch")
	require.NoError(t, o.MoveTicket(ctx, o.sales, v.ID, 3, crm.TicketOpen))
}

// TestWallForm: a form is published by an act that looks at the version before and retires it.
func TestWallForm(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	made := func(f *form.Form) *form.Form {
		t.Helper()
		_, err := o.Forms.Create(ctx, o.admin, f)
		require.NoError(t, err)
		return f
	}
	base := func() *form.Form {
		return &form.Form{
			Key: "intake", Titles: map[string]string{"en": "Intake"}, Revision: 1, State: form.Draft,
			Fields: []form.Field{{Name: "id_number", Labels: map[string]string{"en": "Number"}, Kind: form.Text, Class: form.Sensitive}},
		}
	}
	born := base()
	born.State = form.Published
	_, err := o.Forms.Create(ctx, o.admin, born)
	step(t, err)
	first := made(base())
	update := *first
	update.State = form.Published
	_, err = o.Forms.Update(ctx, o.admin, &update)
	denied(t, err)
	require.NoError(t, o.PublishForm(ctx, o.admin, first.ID, 1))
	invalid(t, o.PublishForm(ctx, o.admin, made(base()).ID, 1), "key", "repeated")

	second := base()
	second.Revision, second.Before = 2, first.ID
	second.Fields[0].Class, second.Fields[0].Kind = form.Internal, form.Long
	made(second)
	err = o.PublishForm(ctx, o.admin, second.ID, 1)
	invalid(t, err, "fields.0.class", "lowered")
	invalid(t, err, "fields.0.kind", "fixed")
	second.Fields[0].Class, second.Fields[0].Kind = form.Sensitive, form.Text
	_, err = o.Forms.Update(ctx, o.admin, second)
	require.NoError(t, err)
	require.NoError(t, o.PublishForm(ctx, o.admin, second.ID, 2))
	got, err := o.Forms.Get(ctx, o.admin, first.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, form.Retired, got.Value.State)
	require.NoError(t, o.RetireForm(ctx, o.admin, second.ID, 3))
}

// TestWallInstance: a record begins a flow at its start, with nothing behind it.
func TestWallInstance(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	f := &flow.Flow{
		Key: "approval", Titles: map[string]string{"en": "Approval"}, For: crm.TypeQuote, Revision: 1, Status: flow.Draft,
		States: []flow.State{{Name: "new", Place: flow.Start}, {Name: "approved", Place: flow.End}},
		Steps:  []flow.Step{{Name: "approve", From: "new", To: "approved"}},
	}
	_, err := o.Flows.Create(ctx, o.admin, f)
	require.NoError(t, err)
	subject := crm.NewUUID()
	_, err = o.BeginFlow(ctx, o.sales, f.ID, crm.TypeQuote, subject)
	step(t, err)
	require.NoError(t, o.Flows.Act(ctx, o.admin, "update", f.ID.UUID(), 1, func(f *flow.Flow) error { return f.Move(flow.Published, o.clock()) }))
	forged := &flow.Instance{
		Flow: f.ID, SubjectType: crm.TypeQuote, Subject: subject, State: "approved", Since: o.clock(), EndedAt: o.clock(),
		History: []flow.Event{{At: o.clock(), What: flow.Started, By: self(o.sales)}, {At: o.clock(), What: flow.Agreed, By: self(o.manager), Step: "approve", From: "new"}},
	}
	_, err = o.Instances.Create(ctx, o.sales, forged)
	denied(t, err)
	tx := o.guard.Begin(o.sales, "instance.begin")
	invalid(t, o.Instances.CreateIn(ctx, tx, forged), "history", "mismatch")
	_, err = o.BeginFlow(ctx, o.sales, f.ID, crm.TypeLead, subject)
	invalid(t, err, "subject_type", "mismatch")
	i, err := o.BeginFlow(ctx, o.sales, f.ID, crm.TypeQuote, subject)
	require.NoError(t, err)
	assert.Equal(t, "new", i.State)
}

// TestWallAmount: no record has an amount that breaks the sums of all.
func TestWallAmount(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	for n, want := range map[int64]string{-1: "negative", money.Most + 1: "out_of_range", math.MaxInt64: "out_of_range"} {
		_, err := o.Customers.Create(ctx, o.sales, &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("A"), OpenValue: n, Currency: "CNY"})
		invalid(t, err, "open_value", want)
	}
	for range 12 {
		_, err := o.Customers.Create(ctx, o.sales, &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("A"), OpenValue: money.Most, Currency: "CNY"})
		require.NoError(t, err)
	}
	got, err := o.store.Group(ctx, crm.Query{Tenant: "default", Type: crm.TypeCustomer, Where: crm.Everything{}, Limit: 1}, crm.Grouping{Sums: []string{"open_value"}})
	require.NoError(t, err)
	assert.EqualValues(t, 12*money.Most, got[0].Sums[0])
	dear := &crm.Quote{Number: "Q-9", Customer: crm.ID[crm.Customer](crm.NewUUID()), Currency: "CNY", State: crm.QuoteDraft,
		Lines: []crm.Line{{Product: "Plant", Quantity: 1, UnitPrice: money.Most + 1}}}
	_, err = o.Quotes.Create(ctx, o.sales, dear)
	invalid(t, err, "lines", "out_of_range")
}

// TestWallTask: tasks do not wait for one another, also when two make them wait at once.
func TestWallTask(t *testing.T) {
	each(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		of := crm.ID[project.Project](crm.NewUUID())
		task := func() *project.Task {
			v := &project.Task{Project: of, Name: crm.NewText("Dig"), State: project.TaskOpen}
			_, err := o.Tasks.Create(ctx, o.manager, v)
			require.NoError(t, err)
			return v
		}
		a, b, c := task(), task(), task()
		born := &project.Task{Project: of, Name: crm.NewText("Dig"), State: project.TaskOpen, After: []crm.ID[project.Task]{a.ID}}
		_, err := o.Tasks.Create(ctx, o.manager, born)
		denied(t, err)
		next := *a
		next.After = []crm.ID[project.Task]{b.ID}
		_, err = o.Tasks.Update(ctx, o.manager, &next)
		denied(t, err)
		next.After, next.Orders = nil, 7
		_, err = o.Tasks.Update(ctx, o.manager, &next)
		denied(t, err)
		require.NoError(t, o.OrderTask(ctx, o.manager, a.ID, 1, b.ID))
		require.NoError(t, o.OrderTask(ctx, o.manager, b.ID, 1, c.ID))
		var cycle *project.CycleError
		require.ErrorAs(t, o.OrderTask(ctx, o.manager, c.ID, 1, a.ID), &cycle)
		invalid(t, o.OrderTask(ctx, o.manager, c.ID, 1, crm.ID[project.Task](crm.NewUUID())), "after", "bad_reference")
		require.ErrorIs(t, o.OrderTask(ctx, o.manager, a.ID, 1), crm.ErrConflict)

		// Each of two would be right by itself.
		for range few(10) {
			x, y := task(), task()
			errs := make([]error, 2)
			var wg sync.WaitGroup
			wg.Go(func() { errs[0] = o.OrderTask(ctx, o.manager, x.ID, 1, y.ID) })
			wg.Go(func() { errs[1] = o.OrderTask(ctx, o.manager, y.ID, 1, x.ID) })
			wg.Wait()
			if errs[0] == nil {
				errs[0] = errs[1]
			} else {
				require.NoError(t, errs[1])
			}
			require.ErrorAs(t, errs[0], &cycle)
		}
		var tasks []*project.Task
		page, err := o.Tasks.List(ctx, o.manager, guard.Query{Limit: 200})
		require.NoError(t, err)
		for i := range page.Items {
			tasks = append(tasks, page.Items[i].Value)
		}
		_, err = project.Order(tasks)
		require.NoError(t, err)
	})
}

// TestWallContractMoney: no update has a contract paid beyond its amount, and none ends before its time without a reason, by an update or by an act.
func TestWallContractMoney(t *testing.T) {
	o := newOffice(t, memstore.New())
	ctx := t.Context()
	k := o.customer(t, o.sales, "Buyer")
	c := &crm.Contract{Number: "C-1", Customer: k.ID, Amount: 10_000, Currency: "CNY", State: crm.ContractDraft, Starts: o.clock(), Ends: o.clock().AddDate(1, 0, 0)}
	c.Signatory, c.SignatoryPerson = crm.NewText("Ann Lee"), crm.ID[crm.Person](crm.NewUUID())
	over := *c
	over.Paid = 10_001
	_, err := o.Contracts.Create(ctx, o.sales, &over)
	invalid(t, err, "paid", "out_of_range")
	_, err = o.Contracts.Create(ctx, o.sales, c)
	require.NoError(t, err)
	require.NoError(t, o.ApproveContract(ctx, o.manager, c.ID, 1))
	v, err := o.Contracts.Get(ctx, o.admin, c.ID.UUID())
	require.NoError(t, err)
	more := *v.Value
	more.Paid = more.Amount + 1
	_, err = o.Contracts.Update(ctx, o.admin, &more)
	invalid(t, err, "paid", "out_of_range")
	more.Paid = more.Amount
	_, err = o.Contracts.Update(ctx, o.admin, &more)
	require.NoError(t, err)

	invalid(t, o.Contracts.Act(ctx, o.sales, authz.Update, c.ID.UUID(), 0, func(k *crm.Contract) error { return k.Move(crm.ContractTerminated, o.clock()) }), "end_reason", "required")
	invalid(t, o.Contracts.Act(ctx, o.sales, authz.Update, c.ID.UUID(), 0, func(k *crm.Contract) error { return k.Terminate("", o.clock()) }), "end_reason", "required")
	require.NoError(t, o.Contracts.Act(ctx, o.sales, authz.Update, c.ID.UUID(), 0, func(k *crm.Contract) error { return k.Terminate(crm.EndNotice, o.clock()) }))
}

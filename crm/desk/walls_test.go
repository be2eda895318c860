package desk_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
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
	p, err := o.Periods.Create(ctx, o.finance, &finance.Period{Name: "2026-03", Starts: begin, Ends: begin.AddDate(0, 1, 0), State: finance.PeriodOpen})
	require.NoError(t, err)
	e := &finance.Expense{Category: "travel", Amount: 9000, Currency: "CNY", SpentAt: o.clock(), State: finance.ExpenseDraft}
	_, err = o.Expenses.Create(ctx, o.finance, e)
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
	next := &finance.Period{Name: "2026-04", Starts: p.Value.Ends, Ends: p.Value.Ends.AddDate(0, 1, 0), State: finance.PeriodOpen}
	_, err = o.Periods.Create(ctx, o.finance, next)
	require.NoError(t, err)
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
	_, err = o.Periods.Create(ctx, o.finance, &finance.Period{Name: "2026-03", Starts: begin, Ends: begin.AddDate(0, 1, 0), State: finance.PeriodOpen})
	require.NoError(t, err)
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
	plan := &finance.Instalment{Contract: crm.ID[crm.Contract](crm.NewUUID()), Customer: crm.ID[crm.Customer](crm.NewUUID()), Number: 1, Amount: 500, Currency: "CNY", DueAt: o.clock()}
	_, err := o.Instalments.Create(ctx, o.finance, plan)
	require.NoError(t, err)
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

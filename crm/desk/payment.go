package desk

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
)

// DecideReceipt approves or refuses a payment that somebody else reported. An approval takes a period that is open when it is stored; a
// *finance.ClosedError says that there is none. Where no periods are kept, none is asked for.
//
// What is approved must fit what it belongs to, so that finance.Balance holds: a *crm.InvalidError has the rules of finance.Receipt.Fits for a reversal, and
// bad_reference for an instalment of another contract.
func (d *Desk) DecideReceipt(ctx context.Context, c guard.Caller, id crm.ID[finance.Receipt], version int64, to finance.ReceiptState) error {
	if d.r.Receipts == nil || d.r.Periods == nil {
		return ErrNoDoor
	}
	if version == 0 {
		return crm.ErrConflict
	}
	books, err := d.books(ctx, c)
	if err != nil {
		return err
	}
	tx := d.g.Begin(c, "receipt."+string(to))
	if err := act(ctx, tx, d.r.Receipts, "approve", id.UUID(), version, func(r *finance.Receipt) error {
		if to == finance.ReceiptApproved {
			open(tx, books, r.At)
			if err := d.fits(ctx, tx, c, r); err != nil {
				return err
			}
		}
		return r.Decide(by(c), to, books, d.now())
	}); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

// fits checks a receipt beside the instalment and the receipt that it names, and requires that no other reversal of that receipt is approved.
func (d *Desk) fits(ctx context.Context, tx *guard.Tx, c guard.Caller, r *finance.Receipt) error {
	bad := func(field string) error {
		return &crm.InvalidError{Type: crm.TypeReceipt, Fields: []crm.FieldError{{Field: field, Rule: "bad_reference"}}}
	}
	if !r.Instalment.IsZero() && r.Reverses.IsZero() { // a reversal goes where its receipt went
		if d.r.Instalments == nil {
			return ErrNoDoor
		}
		i, err := d.r.Instalments.Get(ctx, d.program(c, "receipt"), r.Instalment.UUID())
		if errors.Is(err, crm.ErrNotFound) || err == nil && (i.Value.Contract != r.Contract || i.Value.Currency != r.Currency) {
			return bad("instalment")
		}
		if err != nil {
			return err
		}
	}
	if r.Reverses.IsZero() {
		return nil
	}
	first, err := d.r.Receipts.Get(ctx, d.program(c, "receipt"), r.Reverses.UUID())
	if errors.Is(err, crm.ErrNotFound) {
		return bad("reverses")
	}
	if err != nil {
		return err
	}
	one(tx, crm.TypeReceipt, "reverses", is("reverses", r.Reverses.UUID()), word("state", string(finance.ReceiptApproved)))
	return r.Fits(first.Value)
}

// MoveExpense takes an expense to another state: it is submitted, taken back and corrected by its owner, approved or refused by who may and has no part in
// it, and paid by another than its owner, when an open period takes the money. Errors are those of finance.Expense.Move.
func (d *Desk) MoveExpense(ctx context.Context, c guard.Caller, id crm.ID[finance.Expense], version int64, to finance.ExpenseState) error {
	if d.r.Expenses == nil || d.r.Periods == nil {
		return ErrNoDoor
	}
	if version == 0 {
		return crm.ErrConflict
	}
	action := "update"
	if to == finance.ExpenseApproved || to == finance.ExpenseRefused {
		action = "approve"
	}
	var books finance.Books
	if to == finance.ExpensePaid {
		var err error
		if books, err = d.books(ctx, c); err != nil {
			return err
		}
	}
	if !finance.ExpenseLifecycle().Has(to) {
		return &crm.TransitionError{Type: crm.TypeExpense, From: "any", To: "unknown"}
	}
	now := d.now()
	tx := d.g.Begin(c, "expense."+string(to))
	if err := act(ctx, tx, d.r.Expenses, action, id.UUID(), version, func(e *finance.Expense) error {
		open(tx, books, now)
		return e.Move(to, by(c), books, now)
	}); err != nil {
		return err
	}
	_, err := tx.Commit(ctx)
	return err
}

// IssueInvoice gives a draft the next number of a series and its time, in a period that is open when it is stored. A *crm.InvalidError has the rule repeated
// for a number that another invoice has, as two series of one form give; other errors are those of finance.Invoice.Issue.
func (d *Desk) IssueInvoice(ctx context.Context, c guard.Caller, id crm.ID[finance.Invoice], version int64, series crm.ID[crm.Series]) (number string, err error) {
	if d.r.Invoices == nil || d.r.Periods == nil || d.r.Series == nil {
		return "", ErrNoDoor
	}
	if version == 0 {
		return "", crm.ErrConflict
	}
	err = persist(ctx, func() (*guard.Tx, error) {
		books, err := d.books(ctx, c)
		if err != nil {
			return nil, err
		}
		now := d.now()
		tx := d.g.Begin(c, "invoice.issue")
		if number, err = d.draw(ctx, tx, series); err != nil {
			return nil, err
		}
		open(tx, books, now)
		one(tx, crm.TypeInvoice, "number", word("number", number))
		return tx, act(ctx, tx, d.r.Invoices, "update", id.UUID(), version, func(i *finance.Invoice) error { return i.Issue(number, books, now) })
	})
	return number, err
}

// books reads the periods; nil when none are kept.
func (d *Desk) books(ctx context.Context, c guard.Caller) (finance.Books, error) {
	list, err := all(ctx, d.r.Periods, d.program(c, "books"))
	if len(list) == 0 {
		return nil, err
	}
	return finance.Books(list), err
}

// open requires that a time is in an open period, also when the act is stored.
func open(tx *guard.Tx, books finance.Books, at time.Time) {
	if books == nil {
		return
	}
	closed := &finance.ClosedError{Period: periodOf(books, at)}
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypePeriod, Clauses: []crm.Clause{
		word("state", string(finance.PeriodOpen)),
		{Column: "starts", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(at)}},
		{Column: "ends", Op: crm.Greater, Values: []crm.Value{crm.TimeValue(at)}},
	}}}, Least: true, Value: 1}, closed)
}

// periodOf names the period of a time; "" for none.
func periodOf(books finance.Books, at time.Time) string {
	for _, p := range books {
		if !at.Before(p.Starts) && at.Before(p.Ends) {
			return p.Name
		}
	}
	return ""
}

// OpenPeriod makes an accounting period that takes postings. One that overlaps another is a *crm.InvalidError with the rule repeated for starts.
func (d *Desk) OpenPeriod(ctx context.Context, c guard.Caller, p *finance.Period) error {
	if d.r.Periods == nil {
		return ErrNoDoor
	}
	tx := d.g.Begin(c, "period.create")
	if err := d.r.Periods.CreateIn(ctx, tx, p); err != nil {
		return err
	}
	one(tx, crm.TypePeriod, "starts",
		crm.Clause{Column: "starts", Op: crm.Less, Values: []crm.Value{crm.TimeValue(p.Ends)}},
		crm.Clause{Column: "ends", Op: crm.Greater, Values: []crm.Value{crm.TimeValue(p.Starts)}})
	_, err := tx.Commit(ctx)
	return err
}

// PlanPayments divides the amount of a contract into instalments, once: of a second plan it is crm.ErrConflict. Errors are those of finance.Plan.
func (d *Desk) PlanPayments(ctx context.Context, c guard.Caller, id crm.ID[crm.Contract], version int64, parts []finance.Part) ([]*finance.Instalment, error) {
	if d.r.Contracts == nil || d.r.Instalments == nil {
		return nil, ErrNoDoor
	}
	v, err := d.r.Contracts.Get(ctx, c, id.UUID())
	if err != nil {
		return nil, err
	}
	if v.Value.Version != version {
		return nil, crm.ErrConflict
	}
	plan, err := finance.Plan(v.Value, parts, func() crm.ID[finance.Instalment] { return crm.ID[finance.Instalment](crm.NewUUID()) }, d.now())
	if err != nil {
		return nil, err
	}
	tx := d.g.Begin(c, "contract.plan")
	// Nobody else has made one meanwhile.
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeInstalment, Clauses: []crm.Clause{is("contract", id.UUID())}}}, Value: int64(len(plan))}, crm.ErrConflict)
	for _, i := range plan {
		if err := d.r.Instalments.CreateIn(ctx, tx, i); err != nil {
			return nil, err
		}
	}
	_, err = tx.Commit(ctx)
	return plan, err
}

// ClosePeriod closes a period after its end, the oldest open one first, when no payment of it is undecided. Nothing is posted into it from then on.
func (d *Desk) ClosePeriod(ctx context.Context, c guard.Caller, id crm.ID[finance.Period], version int64) error {
	if d.r.Receipts == nil || d.r.Periods == nil {
		return ErrNoDoor
	}
	books, err := d.books(ctx, c)
	if err != nil {
		return err
	}
	tx := d.g.Begin(c, "period.close")
	if err := act(ctx, tx, d.r.Periods, "update", id.UUID(), version, func(p *finance.Period) error {
		var pending crm.InvalidError
		pending.Type, pending.Fields = crm.TypePeriod, []crm.FieldError{{Field: "pending", Rule: "mismatch"}}
		tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeReceipt, Clauses: []crm.Clause{
			word("state", string(finance.ReceiptReported)),
			{Column: "at", Op: crm.GreaterOrEqual, Values: []crm.Value{crm.TimeValue(p.Starts)}},
			{Column: "at", Op: crm.Less, Values: []crm.Value{crm.TimeValue(p.Ends)}},
		}}}, Value: 0}, &pending)
		return books.Close(p, 0, by(c), d.now())
	}); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

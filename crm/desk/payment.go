package desk

import (
	"context"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/guard"
)

// DecideReceipt approves or refuses a payment that somebody else reported. An approval takes a period that is open when it is stored; a
// *finance.ClosedError says that there is none. Where no periods are kept, none is asked for.
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
		}
		return r.Decide(by(c), to, books, d.now())
	}); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
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

package desk

import (
	"context"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// ApproveQuote notes that the caller agrees to the discounts of a draft. Nobody does who made or changed it: the policy refuses them.
func (d *Desk) ApproveQuote(ctx context.Context, c guard.Caller, id crm.ID[crm.Quote], version int64) error {
	if d.r.Quotes == nil {
		return ErrNoDoor
	}
	if version == 0 {
		return crm.ErrConflict // who approves has seen what
	}
	return d.r.Quotes.Act(ctx, c, "approve", id.UUID(), version, func(q *crm.Quote) error { return q.Approve(by(c), d.now()) })
}

// SendQuote notes that a draft was sent; its lines and terms are fixed then. One that lowers a price by more than Options.MostDiscount needs an
// approval first, else it is a *crm.InvalidError with the rule required for approver.
func (d *Desk) SendQuote(ctx context.Context, c guard.Caller, id crm.ID[crm.Quote], version int64) error {
	if d.r.Quotes == nil {
		return ErrNoDoor
	}
	return d.r.Quotes.Act(ctx, c, "update", id.UUID(), version, func(q *crm.Quote) error {
		if q.NeedsApproval(d.o.MostDiscount) {
			return &crm.InvalidError{Type: crm.TypeQuote, Fields: []crm.FieldError{{Field: "approver", Rule: "required"}}}
		}
		return q.Move(crm.QuoteSent, d.now())
	})
}

// ReviseQuote makes the next version of an offer, a draft, and withdraws the one before when it is still open, both in one transaction. An offer has one
// next version: of a second, a *crm.InvalidError with the rule repeated for revises. The note is copied as it is: see Options.Program.
func (d *Desk) ReviseQuote(ctx context.Context, c guard.Caller, id crm.ID[crm.Quote], version int64) (made crm.ID[crm.Quote], err error) {
	none := crm.ID[crm.Quote]{}
	if d.r.Quotes == nil {
		return none, ErrNoDoor
	}
	if _, err := d.r.Quotes.Authorize(ctx, c, "read", id.UUID()); err != nil {
		return none, err
	}
	full, err := d.r.Quotes.Get(ctx, d.program(c, "revision"), id.UUID())
	if err != nil {
		return none, err
	}
	if full.Value.Version != version {
		return none, crm.ErrConflict
	}
	old := *full.Value
	next, err := old.Revise(crm.ID[crm.Quote](crm.NewUUID()), d.now())
	if err != nil {
		return none, err
	}
	tx := d.g.Begin(c, "quote.revise")
	one(tx, crm.TypeQuote, "revises", is("revises", id.UUID()))
	if err := d.r.Quotes.CreateIn(ctx, tx, next); err != nil {
		return none, err
	}
	if old.State != full.Value.State {
		if err := act(ctx, tx, d.r.Quotes, "update", id.UUID(), version, func(q *crm.Quote) error { return q.Move(old.State, d.now()) }); err != nil {
			return none, err
		}
	}
	if _, err = tx.Commit(ctx); err != nil {
		return none, err
	}
	return next.ID, nil
}

// Draft is what a contract has that its quote has not.
type Draft struct {
	Series crm.ID[crm.Series] // that gives the number
	Starts time.Time
	Ends   time.Time
}

// one requires that at most one living record meets the clauses, else it is a *crm.InvalidError with the rule repeated for the field.
func one(tx *guard.Tx, typ, field string, clauses ...crm.Clause) {
	tx.Require(crm.Limit{Of: []crm.Measure{{Type: typ, Clauses: clauses}}, Value: 1},
		&crm.InvalidError{Type: typ, Fields: []crm.FieldError{{Field: field, Rule: "repeated"}}})
}

// AcceptQuote notes that the customer accepted an offer that was sent, and makes the draft of the contract over it with the next number of a
// series, all in one transaction: no number is lost or given twice. Of two next versions of one offer, however they came to be, one is accepted: of the
// second, a *crm.InvalidError with the rule repeated for revises, as for number of a contract whose number another has.
func (d *Desk) AcceptQuote(ctx context.Context, c guard.Caller, id crm.ID[crm.Quote], version int64, draft Draft) (k *crm.Contract, err error) {
	if d.r.Quotes == nil || d.r.Contracts == nil || d.r.Series == nil {
		return nil, ErrNoDoor
	}
	err = persist(ctx, func() (*guard.Tx, error) {
		tx := d.g.Begin(c, "quote.accept")
		number, err := d.draw(ctx, tx, draft.Series)
		if err != nil {
			return nil, err
		}
		err = act(ctx, tx, d.r.Quotes, "update", id.UUID(), version, func(q *crm.Quote) error {
			if err := q.Move(crm.QuoteAccepted, d.now()); err != nil {
				return err
			}
			if !q.Revises.IsZero() {
				one(tx, crm.TypeQuote, "revises", is("revises", q.Revises.UUID()), word("state", string(crm.QuoteAccepted)))
			}
			k, err = q.Contract(crm.ID[crm.Contract](crm.NewUUID()), number, draft.Starts, draft.Ends, d.now())
			return err
		})
		if err != nil {
			return nil, err
		}
		one(tx, crm.TypeContract, "number", word("number", k.Number))
		return tx, d.r.Contracts.CreateIn(ctx, tx, k)
	})
	return k, err
}

// draw takes the next number of a series.
func (d *Desk) draw(ctx context.Context, tx *guard.Tx, series crm.ID[crm.Series]) (number string, err error) {
	err = act(ctx, tx, d.r.Series, "update", series.UUID(), 0, func(s *crm.Series) error {
		number, err = s.Draw(d.now())
		return err
	})
	return number, err
}

// ApproveContract takes a draft to approved. Nobody does who made or changed it, and none is approved whose number another contract has: a
// *crm.InvalidError with the rule repeated.
func (d *Desk) ApproveContract(ctx context.Context, c guard.Caller, id crm.ID[crm.Contract], version int64) error {
	if d.r.Contracts == nil {
		return ErrNoDoor
	}
	if version == 0 {
		return crm.ErrConflict
	}
	tx := d.g.Begin(c, "contract.approve")
	if err := act(ctx, tx, d.r.Contracts, "approve", id.UUID(), version, func(k *crm.Contract) error {
		one(tx, crm.TypeContract, "number", word("number", k.Number))
		return k.Approve(by(c), d.now())
	}); err != nil {
		return err
	}
	_, err := tx.Commit(ctx)
	return err
}

// SignContract notes that a party of an approved contract has signed, now.
func (d *Desk) SignContract(ctx context.Context, c guard.Caller, id crm.ID[crm.Contract], version int64, party int) error {
	if d.r.Contracts == nil {
		return ErrNoDoor
	}
	return d.r.Contracts.Act(ctx, c, "update", id.UUID(), version, func(k *crm.Contract) error { return k.Sign(party, d.now()) })
}

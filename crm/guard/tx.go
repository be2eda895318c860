package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
)

// Tx is several writes, of records of one type or several, that happen together or not at all: the conversion of a lead, a claim
// within its quota, a delivery out of the stock that is there. Each write is decided on when it is added, as it would be by itself, and a
// refusal is logged then. Nothing is held or stored until Commit, and a Tx that is not committed leaves nothing behind.
//
// It is for one goroutine and for one Commit. A record is in it once.
type Tx struct {
	g        *Guard
	c        Caller
	event    audit.Event
	writes   []pending
	limits   []crm.Limit
	broken   []error
	done     bool
	now      time.Time // when all of it is deleted or restored
	callback []func()
}

// Begin begins a Tx of the caller. act names what is done as a whole, such as "lead.convert"; its one event says so.
func (g *Guard) Begin(c Caller, act string) *Tx {
	e := c.event("", "", authz.Decision{})
	e.Action, e.Activity = act, audit.Update
	return &Tx{g: g, c: c, event: e, now: g.now()}
}

// ErrTx says that a Tx is used in a way that it is not made for: a record twice, more than MaxBatch writes, or after its Commit.
var ErrTx = errors.New("guard: a transaction takes each record once, is not too large, and is committed once")

// add takes a write that was decided on.
func (tx *Tx) add(w pending, d authz.Decision) error {
	if tx.done || len(tx.writes) == MaxBatch || slices.ContainsFunc(tx.writes, func(o pending) bool { return o.row.Type == w.row.Type && o.row.ID == w.row.ID }) {
		return ErrTx
	}
	tx.writes = append(tx.writes, w)
	tx.event.Policy = d.Revision
	for _, control := range d.Controls {
		if !slices.Contains(tx.event.Controls, control) {
			tx.event.Controls = append(tx.event.Controls, control)
		}
	}
	return nil
}

// Require adds a limit that must hold when the writes are done; Commit returns otherwise when it does not. The tenant of the limit is the caller's.
// It counts all records, also those that the caller may not see: what it tells is that the limit does not hold.
func (tx *Tx) Require(l crm.Limit, otherwise error) {
	l.Tenant = tx.c.Subject.Tenant
	tx.limits = append(tx.limits, l)
	tx.broken = append(tx.broken, otherwise)
}

// Commit logs the act and stores all of it in one transaction; it returns the index of the event. Errors: crm.ErrConflict when a record was changed since it was added,
// crm.ErrDuplicate, what Require names, ErrTx; those of the log and the store mean, as ever, that nothing was
// stored, but for crm.ErrUnknown. Afterwards the values that were added have their new headers.
func (tx *Tx) Commit(ctx context.Context) (event uint64, err error) {
	if tx.done || len(tx.writes) == 0 {
		return 0, ErrTx
	}
	tx.done = true
	event, err = tx.g.commit(ctx, tx.c, tx.event, tx.writes, tx.limits)
	var le *crm.LimitError
	if errors.As(err, &le) && le.Index >= 0 && le.Index < len(tx.broken) {
		return 0, tx.broken[le.Index]
	}
	if err != nil {
		return 0, unwrapWrite(err)
	}
	for _, f := range tx.callback {
		f()
	}
	return event, nil
}

// CreateIn adds a new record to a Tx, by the rules of Create. The new header is set in v at once.
func (r *Records[T]) CreateIn(ctx context.Context, tx *Tx, v *T) error {
	d, refused, err := r.admit(ctx, tx.c, authz.Create, r.g.decider(tx.c, authz.Create), v)
	if err = errors.Join(refused, err); err != nil {
		return err
	}
	sealed, err := r.codec.Seal(ctx, r.g.keeper, r.recordOf(tx.c, v), v, nil)
	if err != nil {
		return fmt.Errorf("guard: %s: %w", r.typ, err)
	}
	w, err := r.build(ctx, tx.c, v, sealed, 0)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// UpdateIn adds an update to a Tx, by the rules of Update. v has its new header after the Commit.
func (r *Records[T]) UpdateIn(ctx context.Context, tx *Tx, v *T) error {
	next, w, d, err := r.revise(ctx, tx.c, v)
	if err != nil {
		return err
	}
	if err := tx.add(w, d); err != nil {
		return err
	}
	tx.callback = append(tx.callback, func() { *v = *next })
	return nil
}

// ActIn adds an act to a Tx, by the rules of Act.
func (r *Records[T]) ActIn(ctx context.Context, tx *Tx, a authz.Action, id crm.UUID, version int64, change func(v *T) error) error {
	w, d, err := r.act(ctx, tx.c, a, id, version, change)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// DeleteIn adds a deletion to a Tx, by the rules of Delete.
func (r *Records[T]) DeleteIn(ctx context.Context, tx *Tx, id crm.UUID, version int64) error {
	w, d, err := r.bin(ctx, tx.c, authz.Delete, id, version, true, tx.now)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// RestoreIn adds a restoration from the recycle bin to a Tx, by the rules of Restore.
func (r *Records[T]) RestoreIn(ctx context.Context, tx *Tx, id crm.UUID, version int64) error {
	w, d, err := r.bin(ctx, tx.c, authz.Restore, id, version, false, tx.now)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// PurgeIn adds a purge to a Tx, by the rules of Purge.
func (r *Records[T]) PurgeIn(ctx context.Context, tx *Tx, id crm.UUID, version int64) error {
	w, d, err := r.hollow(ctx, tx.c, id, version)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

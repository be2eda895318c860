package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	taken    map[place]struct{} // the records that are in it
	refused  place              // by the store, at Commit
	limits   []crm.Limit
	broken   []error
	done     bool
	now      time.Time        // when all of it is deleted or restored
	callback map[place]func() // of an update: sets the value that the caller gave
}

// place is a record by type and id.
type place struct {
	typ string
	id  crm.UUID
}

// Begin begins a Tx of the caller. act names what is done as a whole, such as "lead.convert"; its one event says so.
func (g *Guard) Begin(c Caller, act string) *Tx {
	e := c.event("", "", authz.Decision{})
	e.Action, e.Activity = act, audit.Update
	return &Tx{g: g, c: c, event: e, now: g.now(), taken: map[place]struct{}{}}
}

// ErrTx says that a Tx is used in a way that it is not made for: a record twice, more than MaxBatch writes, or after its Commit.
var ErrTx = errors.New("guard: a transaction takes each record once, is not too large, and is committed once")

// add takes a write that was decided on.
func (tx *Tx) add(w pending, d authz.Decision) error {
	at := place{w.row.Type, w.row.ID}
	if _, twice := tx.taken[at]; tx.done || len(tx.writes) == MaxBatch || twice {
		return ErrTx
	}
	tx.taken[at] = struct{}{}
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
	if event, err = tx.g.commit(ctx, tx.c, tx.event, tx.writes, tx.limits); err != nil {
		return 0, tx.explain(err)
	}
	for _, f := range tx.callback {
		f()
	}
	return event, nil
}

// explain turns an error of the store into that of Commit and notes which record it is about.
func (tx *Tx) explain(err error) error {
	var le *crm.LimitError
	if errors.As(err, &le) && le.Index >= 0 && le.Index < len(tx.broken) {
		return tx.broken[le.Index]
	}
	var we *crm.WriteError
	if errors.As(err, &we) && we.Index >= 0 && we.Index < len(tx.writes) {
		row := &tx.writes[we.Index].row
		tx.refused = place{row.Type, row.ID}
	}
	return unwrapWrite(err)
}

// Rehearse is Commit up to its end and back: the store writes all of it and takes it back, and what it would refuse it refuses. The log has the act
// with ".rehearsed" behind its name and the number of records, as something that was done, not as writes that are announced. Only the keys of new
// persons stay, with nothing under them. Errors are those of Commit.
func (tx *Tx) Rehearse(ctx context.Context) (event uint64, err error) {
	if tx.done || len(tx.writes) == 0 {
		return 0, ErrTx
	}
	tx.done = true
	above, err := tx.g.climb(ctx, tx.c, tx.writes)
	if err != nil {
		return 0, err
	}
	e := tx.event
	e.Action, e.Outcome, e.Count = e.Action+".rehearsed", audit.Allowed, int64(len(tx.writes))
	receipt, err := tx.g.log.Append(ctx, e)
	if err != nil {
		return 0, fmt.Errorf("guard: no log, no rehearsal: %w", err)
	}
	needs, whose := tx.g.needed(tx.c, tx.writes)
	batch := crm.Batch{Limits: slices.Concat(tx.limits, needs), Rehearse: true}
	for _, w := range slices.Concat(tx.writes, above) {
		batch.Writes = append(batch.Writes, crm.Write{Row: w.row, Expect: w.expect})
	}
	if _, err := tx.g.store.Apply(ctx, batch); err != nil {
		var le *crm.LimitError
		if errors.As(err, &le) && le.Index >= len(tx.limits) && le.Index < len(batch.Limits) {
			return 0, tx.g.unmet(ctx, needs[le.Index-len(tx.limits)], whose[le.Index-len(tx.limits)])
		}
		return 0, tx.explain(fmt.Errorf("guard: %w", err))
	}
	return receipt.Index, nil
}

// Refused tells which record it was that the store refused at Commit or Rehearse; ok is false when it was none.
func (tx *Tx) Refused() (typ string, id crm.UUID, ok bool) {
	return tx.refused.typ, tx.refused.id, tx.refused.typ != ""
}

// Copy returns a Tx of the same writes and limits, which may be added to and committed by itself: of the two, one. It is for who
// tries again without a record that the store refused; see Drop.
func (tx *Tx) Copy() *Tx {
	next := *tx
	next.event.Controls = slices.Clone(tx.event.Controls)
	next.writes, next.taken = slices.Clone(tx.writes), maps.Clone(tx.taken)
	next.limits, next.broken, next.callback = slices.Clone(tx.limits), slices.Clone(tx.broken), maps.Clone(tx.callback)
	next.done, next.refused = false, place{}
	return &next
}

// Drop takes a record out again, before the Commit. It tells whether it was in.
func (tx *Tx) Drop(typ string, id crm.UUID) bool {
	at := place{typ, id}
	if _, in := tx.taken[at]; tx.done || !in {
		return false
	}
	delete(tx.taken, at)
	delete(tx.callback, at)
	tx.writes = slices.DeleteFunc(tx.writes, func(w pending) bool { return w.row.Type == typ && w.row.ID == id })
	return true
}

// Len returns how many records are in it.
func (tx *Tx) Len() int { return len(tx.writes) }

// ImportIn adds new records to a Tx, by the rules of CreateAll. errs has an error for each record that was refused and is not in the Tx, and nil for
// each that is; err means that none is.
func (r *Records[P]) ImportIn(ctx context.Context, tx *Tx, vs []P) (errs []error, err error) {
	if tx.done || len(tx.writes)+len(vs) > MaxBatch {
		return nil, ErrTx
	}
	if _, ok := any(r.codec.New()).(actMade); ok {
		denial := &authz.DeniedError{Controls: []string{"fields.reserved"}}
		return nil, errors.Join(denial, r.deny(ctx, tx.c, authz.Import, nil, authz.Decision{Controls: denial.Controls}))
	}
	errs, writes, at, last, err := r.ready(ctx, tx.c, authz.Import, vs)
	if err != nil {
		return nil, err
	}
	tx.event.Activity = audit.Import
	for i, w := range writes {
		errs[at[i]] = tx.add(w, last)
	}
	return errs, nil
}

// CreateIn adds a new record to a Tx, by the rules of Create. The new header is set in v at once.
func (r *Records[P]) CreateIn(ctx context.Context, tx *Tx, v P) error {
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
func (r *Records[P]) UpdateIn(ctx context.Context, tx *Tx, v P) error {
	next, w, d, err := r.revise(ctx, tx.c, v)
	if err != nil {
		return err
	}
	if err := tx.add(w, d); err != nil {
		return err
	}
	if tx.callback == nil {
		tx.callback = map[place]func(){}
	}
	tx.callback[place{w.row.Type, w.row.ID}] = func() { r.codec.Set(v, next) }
	return nil
}

// ActIn adds an act to a Tx, by the rules of Act.
func (r *Records[P]) ActIn(ctx context.Context, tx *Tx, a authz.Action, id crm.UUID, version int64, change func(v P) error) error {
	w, d, err := r.act(ctx, tx.c, a, id, version, change)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// DeleteIn adds a deletion to a Tx, by the rules of Delete.
func (r *kind) DeleteIn(ctx context.Context, tx *Tx, id crm.UUID, version int64) error {
	w, d, err := r.bin(ctx, tx.c, authz.Delete, id, version, true, tx.now)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// RestoreIn adds a restoration from the recycle bin to a Tx, by the rules of Restore.
func (r *kind) RestoreIn(ctx context.Context, tx *Tx, id crm.UUID, version int64) error {
	w, d, err := r.bin(ctx, tx.c, authz.Restore, id, version, false, tx.now)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

// PurgeIn adds a purge to a Tx, by the rules of Purge.
func (r *kind) PurgeIn(ctx context.Context, tx *Tx, id crm.UUID, version int64) error {
	w, d, err := r.hollow(ctx, tx.c, id, version)
	if err != nil {
		return err
	}
	return tx.add(w, d)
}

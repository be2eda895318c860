package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// resealBatch is how many rows are read, sealed anew and written at once; resealTries how often a batch that
// concurrent writers get into is tried before it is halved.
const (
	resealBatch = 500
	resealTries = 3
)

// mostFailures is how many rows the error of Reseal names.
const mostFailures = 20

// reseal is the action of the log under which rows are written with the same values under newer keys.
const reseal authz.Action = "reseal"

// Reseal goes over all records of the type, living ones and the bin, and seals anew what is not under the
// newest keys and indexes: see encrypt's Renew and Reseal. Records keep their values and times, and get a
// version more when they change. The caller must be allowed to manage "keys"; no value is shown to
// anybody, so no policy of records is asked. progress, which may be nil, hears how many records have been
// looked at.
//
// Reading and writing go on beside it; a record that somebody writes meanwhile is read again, never put back. A
// pass that was cut off is simply begun again and passes over what is done. changed says how many
// records were written: 0 means that all of them, but for those of blocked persons, are as they
// should be. A record that does not authenticate or open is left as it is and named in err, beside ErrForged
// or the error of encrypt, when the pass is over; any other error ends the pass.
func (r *Records[P]) Reseal(ctx context.Context, c Caller, progress func(done int)) (changed int, err error) {
	d, err := r.g.authorize(ctx, c, authz.Manage, "keys")
	if err != nil {
		return 0, err
	}
	p := resealing[P]{r: r, c: c, d: d}
	q := crm.Query{
		Tenant: c.Subject.Tenant, Type: r.typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: resealBatch,
	} // by creation: an order that writing does not change
	for done := 0; ; {
		page, err := r.g.store.List(ctx, q)
		if err != nil {
			return p.changed, p.join(fmt.Errorf("guard: %w", err))
		}
		if err := p.pass(ctx, page.Rows); err != nil {
			return p.changed, p.join(err)
		}
		if done += len(page.Rows); progress != nil {
			progress(done)
		}
		if q.After = page.Next; q.After == "" {
			return p.changed, p.join(nil)
		}
	}
}

// resealing is one pass over the records of a type.
type resealing[P Record] struct {
	r       *Records[P]
	c       Caller
	d       authz.Decision
	changed int
	failed  []error // of the first rows that failed
	more    int     // that failed after them
}

// fail notes a row that is left as it is.
func (p *resealing[P]) fail(id crm.UUID, err error) {
	switch {
	case len(p.failed) == mostFailures:
		p.more++
	case errors.Is(err, ErrForged): // names the row
		p.failed = append(p.failed, err)
	default:
		p.failed = append(p.failed, fmt.Errorf("guard: %s %s: %w", p.r.typ, id, err))
	}
}

// join returns the failures of rows and the error that ended the pass.
func (p *resealing[P]) join(err error) error {
	all := p.failed
	if p.more > 0 {
		all = append(all, fmt.Errorf("guard: and %d more of type %s", p.more, p.r.typ))
	}
	return errors.Join(append(all, err)...)
}

// pass seals rows anew and writes those that changed. When the store refuses one, because somebody has
// written it, those that were to be written are read again.
func (p *resealing[P]) pass(ctx context.Context, rows []crm.Row) error {
	for try := 1; len(rows) > 0; try++ {
		writes, err := p.seal(ctx, rows)
		if err != nil || len(writes) == 0 {
			return err
		}
		err = p.r.commit(ctx, p.c, reseal, p.d, writes)
		if err == nil {
			p.changed += len(writes)
			return nil
		}
		var we *crm.WriteError
		if !errors.As(err, &we) || we.Index < 0 || we.Index >= len(writes) {
			return err
		}
		switch {
		case errors.Is(we.Err, crm.ErrConflict):
		case errors.Is(we.Err, crm.ErrDuplicate): // of a term that a newer normaliser makes of two values
			p.fail(writes[we.Index].row.ID, we.Err)
			writes = slices.Delete(writes, we.Index, we.Index+1)
		default:
			return err
		}
		if rows, err = p.again(ctx, writes); err != nil {
			return err
		}
		if half := len(rows) / 2; try >= resealTries && half > 0 {
			if err := p.pass(ctx, rows[:half]); err != nil {
				return err
			}
			rows = rows[half:]
		}
	}
	return nil
}

// again reads what the store holds now of rows that were to be written.
func (p *resealing[P]) again(ctx context.Context, writes []pending) ([]crm.Row, error) {
	ids := make([]crm.UUID, len(writes))
	for i := range writes {
		ids[i] = writes[i].row.ID
	}
	rows, err := p.r.g.store.Load(ctx, p.c.Subject.Tenant, p.r.typ, ids)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return slices.DeleteFunc(rows, func(row crm.Row) bool { return row.Version == 0 }), nil
}

// seal returns the writes of the rows that are not as they should be.
func (p *resealing[P]) seal(ctx context.Context, rows []crm.Row) ([]pending, error) {
	// Read after the rows, so that it is as new as they are; it saves a query for each.
	number, err := p.r.g.keeper.Erasures(ctx, p.c.Subject.Tenant)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	recs := make([]encrypt.Record, 0, len(rows))
	fields := make([][]encrypt.SealedField, 0, len(rows))
	values := make([]P, 0, len(rows))
	of := make([]*crm.Row, 0, len(rows))
	for i := range rows {
		row := &rows[i]
		v := p.r.codec.New()
		err := p.r.authentic(ctx, p.c.Subject.Tenant, rows[i:i+1])
		switch {
		case errors.Is(err, ErrForged):
			p.fail(row.ID, err)
			continue
		case err != nil:
			return nil, err
		}
		if err := p.r.hydrate(row, v); err != nil {
			return nil, err
		}
		rec := recordOf(row)
		rec.Erasure = number
		recs, fields, values, of = append(recs, rec), append(fields, sealedOf(row.Sealed)), append(values, v), append(of, row)
	}
	p.prepare(ctx, recs, fields, of)
	var writes []pending
	for i, row := range of {
		sealed, changed, err := p.r.codec.Reseal(ctx, p.r.g.keeper, recs[i], values[i], fields[i])
		switch {
		case err == nil:
		case errors.Is(err, encrypt.ErrBlocked):
			continue // since a moment ago
		case errors.Is(err, encrypt.ErrTampered), errors.Is(err, encrypt.ErrKeyMissing), errors.Is(err, encrypt.ErrRetired),
			errors.Is(err, encrypt.ErrNotClear):
			p.fail(row.ID, err)
			continue
		default:
			return nil, fmt.Errorf("guard: %s: %w", p.r.typ, err)
		}
		if !changed {
			continue
		}
		next := *row
		next.Version++
		next.Sealed = rowSealed(sealed.Fields)
		next.Persons = persons(personOf(row), sealed.Persons)
		w, err := p.r.seal(ctx, next, row.Version)
		if err != nil {
			return nil, err
		}
		writes = append(writes, w)
	}
	return writes, nil
}

// prepare brings the keys of all rows into the keeper's cache by a few queries, the old ones by an opening and
// the new ones by a sealing that nobody keeps; else each row would ask for its own. What goes wrong
// here goes wrong again with the row that it concerns.
func (p *resealing[P]) prepare(ctx context.Context, recs []encrypt.Record, fields [][]encrypt.SealedField, of []*crm.Row) {
	if len(recs) < 2 {
		return
	}
	values := make([]P, len(recs))
	for i := range values {
		values[i] = p.r.codec.New()
		if p.r.hydrate(of[i], values[i]) != nil {
			return
		}
	}
	states, err := p.r.codec.OpenAll(ctx, p.r.g.keeper, recs, fields, values, p.r.codec.SealedNames()...)
	if err != nil {
		return
	}
	var clear []encrypt.Record
	var opened []P
	for i := range recs {
		if !slices.ContainsFunc(states[i], func(s encrypt.State) bool { return s != encrypt.StateClear }) {
			clear, opened = append(clear, recs[i]), append(opened, values[i])
		}
	}
	_, _ = p.r.codec.SealAll(ctx, p.r.g.keeper, clear, opened)
}

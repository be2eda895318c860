package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
)

// Changed is a record in the order of changes, as its newest version is.
type Changed[P Record] struct {
	View[P]
	Seq     int64 // the number of the change
	Deleted bool  // it is in the recycle bin or was purged: View has its id and version, and no field
}

// Changes are some changes in their order.
type Changes[P Record] struct {
	Items []Changed[P]
	Next  int64 // since of the next reading: what is not seen by the caller is passed over too
	More  bool  // there may be more at once
}

// changes is how events name this reading.
const changes authz.Action = "changes"

// Changes returns the records that changed after since, at most limit (1 to 200), in the order in which their newest versions were committed.
// It is for who keeps a copy up to date: a record that changed twice is there once, with its newest version, and one that goes on changing moves behind
// the others. Numbers follow commits, so that who goes on at Next misses nothing.
//
// The caller gets what List gives, under the same decision of the policy and with the same fields. A record in the recycle bin is there
// by its id and version, where the caller may list it; a purged one, of which nobody knows any more whose it was, where the caller may list records of
// everybody. A record that the caller loses sight of because it changed hands is not told of. A reading that finds
// something is in the log, record by record; one that finds nothing leaves no event.
//
// Errors: *authz.DeniedError, and those of the store, the log and the keys.
func (r *Records[P]) Changes(ctx context.Context, c Caller, since int64, limit int) (Changes[P], error) {
	if limit < 1 || limit > 200 {
		return Changes[P]{}, errors.New("guard: a page has 1 to 200 records")
	}
	return again(func() (Changes[P], error) { return r.changes(ctx, c, since, limit) })
}

// Head returns the number of the newest change of any record of the type, for who begins to follow changes now: 0 when there is none. Nothing is read of the
// record. Error: *authz.DeniedError for who may not list.
func (r *kind) Head(ctx context.Context, c Caller) (int64, error) {
	d := r.g.decider(c, authz.List)
	if _, err := r.prepare(ctx, c, authz.List, d, Query{}); err != nil {
		return 0, err
	}
	return r.head(ctx, c)
}

func (r *kind) head(ctx context.Context, c Caller) (int64, error) {
	page, err := r.g.store.List(ctx, crm.Query{
		Tenant: c.Subject.Tenant, Type: r.typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Changes: true, Desc: true, Limit: 1,
	})
	if err != nil || len(page.Rows) == 0 {
		return 0, wrapStore(err)
	}
	return page.Rows[0].ChangeSeq, nil
}

func wrapStore(err error) error {
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

func (r *Records[P]) changes(ctx context.Context, c Caller, since int64, limit int) (Changes[P], error) {
	none := Changes[P]{Next: since}
	d := r.g.decider(c, authz.List)
	sq, err := r.prepare(ctx, c, authz.List, d, Query{})
	if err != nil {
		return none, err
	}
	// What is committed by now is seen below, or has changed again and has a higher number.
	head, err := r.head(ctx, c)
	if err != nil || head <= since {
		return none, err
	}
	sq.Changes, sq.Since, sq.Limit, sq.Deletion = true, since, limit, crm.LivingAndBin
	seen := sq
	seen.Clauses = []crm.Clause{{Column: "created_at", Op: crm.NotNull}}
	found, err := r.g.store.List(ctx, seen)
	if err != nil {
		return none, wrapStore(err)
	}
	sq.Where, sq.Deletion, sq.Clauses = crm.Everything{}, crm.InBin, []crm.Clause{{Column: "created_at", Op: crm.IsNull}}
	hollow, err := r.g.store.List(ctx, sq)
	if err != nil {
		return none, wrapStore(err)
	}
	out := Changes[P]{More: len(found.Rows) == limit || len(hollow.Rows) == limit}
	rows := append(found.Rows, hollow.Rows...)
	slices.SortFunc(rows, func(a, b crm.Row) int { return cmp.Compare(a.ChangeSeq, b.ChangeSeq) })
	if len(rows) > limit {
		rows, out.More = rows[:limit], true
	}
	if out.Next = max(since, head); out.More {
		out.Next = rows[len(rows)-1].ChangeSeq
	}
	if err := r.authentic(ctx, c.Subject.Tenant, rows); err != nil {
		return none, err
	}
	ds := make([]authz.Decision, 0, len(rows))
	kept := make([]crm.Row, 0, len(rows))
	for i := range rows {
		row := &rows[i]
		dec, err := d.decide(ctx, r.resource(row))
		if err != nil {
			return none, err
		}
		switch gone := r.purged(row); {
		case dec.Proceed(c.met()...) == nil:
		case gone:
			continue // it is for those who may list everybody's
		default:
			return none, errors.Join(errors.New("guard: changes and decision disagree"), r.deny(ctx, c, changes, row, dec))
		}
		if row.Deleted {
			dec.Fields = authz.Fields{} // nothing is opened
		}
		ds, kept = append(ds, dec), append(kept, *row)
	}
	if len(kept) == 0 {
		return out, nil
	}
	views, _, err := r.openAll(ctx, c, changes, kept, ds)
	if err != nil {
		return none, err
	}
	for i := range views {
		row := &kept[i]
		if row.Deleted {
			views[i].Value.SetHeader(crm.Header{ID: row.ID, Version: row.Version, Deleted: true})
		}
		out.Items = append(out.Items, Changed[P]{View: views[i], Seq: row.ChangeSeq, Deleted: row.Deleted})
	}
	return out, nil
}

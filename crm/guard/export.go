package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Exportable counts the records that Export would return and tells, in words of the policy, what it obliges to for that
// many, without exporting any. An *authz.DeniedError says that the caller may not export at all.
func (r *kind) Exportable(ctx context.Context, c Caller, q Query) (rows int64, needs []authz.Obligation, err error) {
	c, n, err := r.counted(ctx, c, q)
	if err != nil {
		return 0, nil, err
	}
	d, err := r.sample(ctx, c, r.g.decider(c, authz.Export))
	if err != nil {
		return 0, nil, err
	}
	if !d.Allowed {
		return 0, nil, errors.Join(d.Proceed(), r.deny(ctx, c, authz.Export, nil, d))
	}
	return n, slices.Clone(d.Obligations), nil
}

// counted counts the records that an export would return and puts their number into the request that the policy
// decides on: a caller's own number is not believed.
func (r *kind) counted(ctx context.Context, c Caller, q Query) (Caller, int64, error) {
	q.Limit, q.After = 1, ""
	sample, err := r.sample(ctx, c, r.g.decider(c, authz.Export))
	if err != nil {
		return c, 0, err
	}
	var denial error
	if !sample.Allowed {
		denial = sample.Proceed()
	}
	sq, err := r.prepared(ctx, c, authz.Export, q, sample, denial)
	if err != nil {
		return c, 0, err
	}
	e := c.event(r.typ, authz.Export, authz.Decision{})
	e.Action = r.typ + ".count"
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return c, 0, fmt.Errorf("guard: no log, no data: %w", err)
	}
	n, err := r.g.store.Count(ctx, sq)
	if err != nil {
		return c, 0, fmt.Errorf("guard: %w", err)
	}
	c.Environment.Rows, c.counted = int(n), true
	return c, n, nil
}

// exportPage is how many records are opened and logged at once where a query says nothing.
const exportPage = 500

// Export gives every record that q admits and the caller may export to write, page by page, each as the policy shows it
// in exports. It counts them first, for the policy may oblige an export of so many to more; what is added
// meanwhile is left out. Each page is in the log, record by record, before write gets it, and the next two are read and
// opened while it writes: after an error of write the log may name them too. rows is how many
// write has got, also with an error: *authz.DeniedError, and those of write.
//
// The reason of c is not kept here: keep it in the record that c.Under names.
func (r *Records[P]) Export(ctx context.Context, c Caller, q Query, write func(Page[P]) error) (rows int64, err error) {
	c, left, err := r.counted(ctx, c, q)
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait() // nothing goes on after the answer
	defer stop()
	found := make(chan exported[P], 1)
	opened := make(chan exported[P], 1)
	working.Go(func() { defer close(found); r.findAll(ctx, c, q, left, found) })
	working.Go(func() {
		defer close(opened)
		for b := range found {
			if b.err == nil {
				b.page, b.err = r.openBatch(ctx, c, b)
			}
			if !give(ctx, opened, b) || b.err != nil {
				return
			}
		}
	})
	for b := range opened {
		if b.err != nil {
			return rows, b.err
		}
		if err := write(b.page); err != nil {
			return rows, err
		}
		if rows += int64(len(b.page.Items)); b.page.Next == "" {
			return rows, nil
		}
	}
	return rows, ctx.Err()
}

// exported is a page of an export on its way.
type exported[P Record] struct {
	q    crm.Query
	d    *decider
	rows crm.Page
	ds   []authz.Decision
	page Page[P]
	err  error
}

// give sends a batch unless nobody wants it any more.
func give[P Record](ctx context.Context, to chan<- exported[P], b exported[P]) bool {
	select {
	case to <- b:
		return true
	case <-ctx.Done():
		return false
	}
}

// findAll reads the rows of an export, at most left, and decides on each.
func (r *Records[P]) findAll(ctx context.Context, c Caller, q Query, left int64, to chan<- exported[P]) {
	limit := q.Limit
	for {
		b := exported[P]{d: r.g.decider(c, authz.Export)}
		b.d.hide = q.Hide
		if b.q, b.err = r.prepare(ctx, c, authz.Export, b.d, q); b.err == nil {
			if limit == 0 {
				b.q.Limit = exportPage
			}
			b.q.Limit = int(min(int64(b.q.Limit), max(left, 1)))
			b.err = r.findBatch(ctx, c, &b)
		}
		if b.err == nil && int64(len(b.rows.Rows)) >= left {
			b.rows.Rows, b.rows.Next = b.rows.Rows[:left], ""
			b.ds = b.ds[:left]
		}
		if !give(ctx, to, b) || b.err != nil || b.rows.Next == "" {
			return
		}
		left -= int64(len(b.rows.Rows))
		q.After = b.rows.Next
	}
}

// findBatch reads and decides on the rows of one page.
func (r *Records[P]) findBatch(ctx context.Context, c Caller, b *exported[P]) (err error) {
	if b.rows, err = r.g.store.List(ctx, b.q); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	b.ds, err = r.decideAll(ctx, c, authz.Export, b.d, b.rows.Rows)
	return err
}

// openBatch logs and opens one page. When the key of a row has ended since it was read, the rows are read once more: they are under newer ones by then.
func (r *Records[P]) openBatch(ctx context.Context, c Caller, b exported[P]) (Page[P], error) {
	views, event, err := r.openAll(ctx, c, authz.Export, b.rows.Rows, b.ds)
	if errors.Is(err, encrypt.ErrRetired) {
		most := len(b.rows.Rows)
		if err := r.findBatch(ctx, c, &b); err != nil {
			return Page[P]{}, err
		}
		most = min(most, len(b.rows.Rows))
		views, event, err = r.openAll(ctx, c, authz.Export, b.rows.Rows[:most], b.ds[:most])
	}
	if err != nil {
		return Page[P]{}, err
	}
	return Page[P]{Items: views, Next: b.rows.Next, Event: event}, nil
}

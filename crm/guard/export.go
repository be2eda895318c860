package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/authz"
)

// Exportable counts the records that Export would return and tells, in words of the policy, what it obliges to for that
// many, without exporting any. An *authz.DeniedError says that the caller may not export at all.
func (r *Records[T]) Exportable(ctx context.Context, c Caller, q Query) (rows int64, needs []authz.Obligation, err error) {
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
func (r *Records[T]) counted(ctx context.Context, c Caller, q Query) (Caller, int64, error) {
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

// Export gives every record that q admits and the caller may export to write, page by page, each as the policy shows it
// in exports. It counts them first, for the policy may oblige an export of so many to more; what is added
// meanwhile is left out. Each page is in the log, record by record, before write gets it. rows is how many
// write has got, also with an error: *authz.DeniedError, and those of write.
//
// The reason of c is not kept here: keep it in the record that c.Under names.
func (r *Records[T]) Export(ctx context.Context, c Caller, q Query, write func(Page[T]) error) (rows int64, err error) {
	if q.Limit == 0 {
		q.Limit = 200
	}
	c, left, err := r.counted(ctx, c, q)
	if err != nil {
		return 0, err
	}
	d := r.g.decider(c, authz.Export)
	d.hide = q.Hide
	for {
		sq, err := r.prepare(ctx, c, authz.Export, d, q)
		if err != nil {
			return rows, err
		}
		page, err := again(func() (Page[T], error) {
			p, err := r.g.store.List(ctx, sq)
			if err != nil {
				return Page[T]{}, fmt.Errorf("guard: %w", err)
			}
			if int64(len(p.Rows)) >= left {
				p.Rows, p.Next = p.Rows[:left], ""
			}
			return r.page(ctx, c, authz.Export, d, p)
		})
		if err != nil {
			return rows, err
		}
		if err := write(page); err != nil {
			return rows, err
		}
		n := int64(len(page.Items))
		rows, left = rows+n, left-n
		if q.After = page.Next; page.Next == "" {
			return rows, nil
		}
	}
}

package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Authorize decides on an action on one record that neither opens nor changes it, such as share, and logs the answer.
// Errors are crm.ErrNotFound, also for a record that the caller may not read, and *authz.DeniedError.
func (r *Records[T]) Authorize(ctx context.Context, c Caller, a authz.Action, id crm.UUID) (crm.Header, error) {
	row, d, err := r.mayChange(ctx, c, a, id)
	if err != nil {
		return crm.Header{}, err
	}
	if row.Deleted {
		return crm.Header{}, crm.ErrNotFound
	}
	e := c.event(r.typ, a, d)
	e.Targets = []audit.Target{{Type: r.typ, ID: row.ID.String(), Version: uint64(row.Version)}}
	if _, err := r.g.log.Append(ctx, e); err != nil {
		return crm.Header{}, fmt.Errorf("guard: no log, no data: %w", err)
	}
	var v T
	if err := r.hydrate(row, &v); err != nil {
		return crm.Header{}, err
	}
	return r.header(&v), nil
}

// Act changes a record by an action that is no update, as approve and certify, where the policy allows that action on the
// version that is stored. change gets the record's clear fields, and the sealed ones are kept unopened; owner,
// team and person stay. Errors are those of Update, and those of change.
func (r *Records[T]) Act(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, change func(v *T) error) error {
	row, d, err := r.mayChange(ctx, c, a, id)
	if err != nil {
		return err
	}
	if row.Version != version {
		return crm.ErrConflict
	}
	if row.Deleted {
		return crm.ErrNotFound
	}
	var prev, v T
	for _, into := range []*T{&prev, &v} {
		if err := r.hydrate(row, into); err != nil {
			return err
		}
		for _, f := range r.sealed {
			if err := r.codec.Conceal(into, f.Name, encrypt.StateHidden); err != nil {
				return fmt.Errorf("guard: %w", err)
			}
		}
	}
	if err := change(&v); err != nil {
		return err
	}
	h := r.header(&prev)
	h.Version, h.UpdatedAt = row.Version+1, r.g.now().UTC()
	r.setHeader(&v, h)
	if w, ok := any(&v).(validator); ok {
		if err := w.Validate(); err != nil {
			return err
		}
	}
	if w, ok := any(&v).(updateChecker[T]); ok {
		if err := w.CheckUpdate(&prev); err != nil {
			return err
		}
	}
	if denial := r.writable(&v, &prev, d); denial != nil {
		return errors.Join(denial, r.deny(ctx, c, a, row, d))
	}
	values, err := r.codec.ClearValues(&v)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	next := *row
	next.Version++
	next.Clear = slices.Clone(row.Clear)
	for len(next.Clear) < len(values) {
		next.Clear = append(next.Clear, crm.Value{})
	}
	for i, value := range values {
		var ok bool
		if next.Clear[i], ok = crm.ValueOf(value); !ok {
			return fmt.Errorf("guard: type %s: column %s has no kind", r.typ, r.columns[i].Name)
		}
	}
	w, err := r.seal(ctx, next, row.Version)
	if err != nil {
		return err
	}
	return unwrapWrite(r.commit(ctx, c, a, d, []pending{w}))
}

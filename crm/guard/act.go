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
func (r *Records[P]) Authorize(ctx context.Context, c Caller, a authz.Action, id crm.UUID) (crm.Header, error) {
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
	v := r.codec.New()
	if err := r.hydrate(row, v); err != nil {
		return crm.Header{}, err
	}
	return v.Header(), nil
}

// Act changes a record by an action that is no update, as approve and certify, where the policy allows that action on the
// version that is stored; version is the one that the caller saw, or 0 for whichever is stored now. change gets the record's clear fields, and the sealed ones are kept unopened; its person
// stays, and so do owner and team unless the action is one of those that hand a record over: claim, assign, transfer, release, recycle,
// handover and enter. Fields that the type reserves are changed by Act only. Errors are those of Update, and those of change.
func (r *Records[P]) Act(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, change func(v P) error) error {
	w, d, err := r.act(ctx, c, a, id, version, change)
	if err != nil {
		return err
	}
	return unwrapWrite(r.commit(ctx, c, a, d, []pending{w}))
}

// handing are the actions that may change who has a record.
var handing = []authz.Action{authz.Claim, authz.Assign, authz.Transfer, authz.Release, authz.Recycle, authz.Handover, authz.Enter}

// act decides on an act and makes its write.
func (r *Records[P]) act(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, change func(v P) error) (pending, authz.Decision, error) {
	fail := func(d authz.Decision, err error) (pending, authz.Decision, error) { return pending{}, d, err }
	row, d, err := r.mayChange(ctx, c, a, id)
	if err != nil {
		return fail(d, err)
	}
	if version != 0 && row.Version != version {
		return fail(d, crm.ErrConflict)
	}
	if row.Deleted {
		return fail(d, crm.ErrNotFound)
	}
	prev, v := r.codec.New(), r.codec.New()
	for _, into := range []P{prev, v} {
		if err := r.hydrate(row, into); err != nil {
			return fail(d, err)
		}
		for _, f := range r.sealed {
			if err := r.codec.Conceal(into, f.Name, encrypt.StateHidden); err != nil {
				return fail(d, fmt.Errorf("guard: %w", err))
			}
		}
	}
	if err := change(v); err != nil {
		return fail(d, err)
	}
	h := prev.Header()
	if slices.Contains(handing, a) {
		now := v.Header()
		h.Owner, h.Team = now.Owner, now.Team
	}
	h.Version, h.UpdatedAt = row.Version+1, r.g.now().UTC()
	v.SetHeader(h)
	if a == authz.Update {
		if err := r.stamp(c, v); err != nil {
			return fail(d, err)
		}
	}
	if w, ok := any(v).(validator); ok {
		if err := w.Validate(); err != nil {
			return fail(d, err)
		}
	}
	if w, ok := any(v).(updateChecker[P]); ok {
		if err := w.CheckUpdate(prev); err != nil {
			return fail(d, err)
		}
	}
	if denial := r.writable(v, prev, false, d); denial != nil {
		return fail(d, errors.Join(denial, r.deny(ctx, c, a, row, d)))
	}
	values, err := r.codec.ClearValues(v)
	if err != nil {
		return fail(d, fmt.Errorf("guard: %w", err))
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
			return fail(d, fmt.Errorf("guard: type %s: column %s has no kind", r.typ, r.columns[i].Name))
		}
	}
	w, err := r.seal(ctx, next, row.Version)
	w.needs = r.needs(v, prev)
	return w, d, err
}

// Purge takes a record out of the recycle bin for good: nothing of it stays but its id, that it was there, and whose it was until Guard.Forget has seen to
// them. version is the one that the caller saw. Errors: crm.ErrNotFound, also for a record that is not in the bin, crm.ErrConflict,
// *authz.DeniedError, also where a person of the record is under a legal hold.
func (r *kind) Purge(ctx context.Context, c Caller, id crm.UUID, version int64) error {
	w, d, err := r.hollow(ctx, c, id, version)
	if err != nil {
		return err
	}
	return unwrapWrite(r.commit(ctx, c, authz.Purge, d, []pending{w}))
}

// hollow decides on a purge and makes its write: a row without anything in it, which says that the record is not merely missing. It names its persons, and
// has a time of change and none of creation, until they are forgotten.
func (r *kind) hollow(ctx context.Context, c Caller, id crm.UUID, version int64) (pending, authz.Decision, error) {
	row, d, err := r.mayChange(ctx, c, authz.Purge, id)
	if err != nil {
		return pending{}, d, err
	}
	if row.Version != version {
		return pending{}, d, crm.ErrConflict
	}
	if !row.Deleted {
		return pending{}, d, crm.ErrNotFound
	}
	for _, p := range row.Persons {
		held, err := r.g.keeper.Held(ctx, row.Tenant, p)
		if err != nil {
			return pending{}, d, fmt.Errorf("guard: %w", err)
		}
		if held {
			d.Controls = []string{"hold.free"}
			return pending{}, d, errors.Join(&authz.DeniedError{Controls: d.Controls}, r.deny(ctx, c, authz.Purge, row, d))
		}
	}
	next := crm.Row{
		Tenant: row.Tenant, Type: row.Type, ID: row.ID, Persons: row.Persons, Version: row.Version + 1, Deleted: true, Clear: make([]crm.Value, len(row.Clear)),
	}
	if i, ok := r.column["updated_at"]; ok && i < len(next.Clear) {
		next.Clear[i] = crm.TimeValue(r.g.now())
	}
	w, err := r.seal(ctx, next, row.Version)
	return w, d, err
}

// purged tells whether nothing is left of a record: it has no time of creation.
func (r *kind) purged(row *crm.Row) bool {
	i, ok := r.column["created_at"]
	return row.Deleted && ok && i < len(row.Clear) && row.Clear[i].Kind() == 0
}

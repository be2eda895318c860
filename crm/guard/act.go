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
// version that is stored; version is the one that the caller saw, or 0 for whichever is stored now. change gets the record's clear fields, and the sealed ones are kept unopened; its person
// stays, and so do owner and team unless the action is one of those that hand a record over: claim, assign, transfer, release, recycle,
// handover and enter. Fields that the type reserves are changed by Act only. Errors are those of Update, and those of change.
func (r *Records[T]) Act(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, change func(v *T) error) error {
	w, d, err := r.act(ctx, c, a, id, version, change)
	if err != nil {
		return err
	}
	return unwrapWrite(r.commit(ctx, c, a, d, []pending{w}))
}

// handing are the actions that may change who has a record.
var handing = []authz.Action{authz.Claim, authz.Assign, authz.Transfer, authz.Release, authz.Recycle, authz.Handover, authz.Enter}

// act decides on an act and makes its write.
func (r *Records[T]) act(ctx context.Context, c Caller, a authz.Action, id crm.UUID, version int64, change func(v *T) error) (pending, authz.Decision, error) {
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
	var prev, v T
	for _, into := range []*T{&prev, &v} {
		if err := r.hydrate(row, into); err != nil {
			return fail(d, err)
		}
		for _, f := range r.sealed {
			if err := r.codec.Conceal(into, f.Name, encrypt.StateHidden); err != nil {
				return fail(d, fmt.Errorf("guard: %w", err))
			}
		}
	}
	if err := change(&v); err != nil {
		return fail(d, err)
	}
	h := r.header(&prev)
	if slices.Contains(handing, a) {
		now := r.header(&v)
		h.Owner, h.Team = now.Owner, now.Team
	}
	h.Version, h.UpdatedAt = row.Version+1, r.g.now().UTC()
	r.setHeader(&v, h)
	if w, ok := any(&v).(validator); ok {
		if err := w.Validate(); err != nil {
			return fail(d, err)
		}
	}
	if w, ok := any(&v).(updateChecker[T]); ok {
		if err := w.CheckUpdate(&prev); err != nil {
			return fail(d, err)
		}
	}
	if denial := r.writable(&v, &prev, d); denial != nil {
		return fail(d, errors.Join(denial, r.deny(ctx, c, a, row, d)))
	}
	values, err := r.codec.ClearValues(&v)
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
	return w, d, err
}

// Purge takes a record out of the recycle bin for good: nothing of it stays but its id, and the fact that it was there. version is the
// one that the caller saw. It returns the persons whom the record named; see Guard.Forget. Errors: crm.ErrNotFound, also for
// a record that is not in the bin, crm.ErrConflict, *authz.DeniedError.
func (r *Records[T]) Purge(ctx context.Context, c Caller, id crm.UUID, version int64) (persons []crm.UUID, err error) {
	w, persons, d, err := r.hollow(ctx, c, id, version)
	if err != nil {
		return nil, err
	}
	if err := unwrapWrite(r.commit(ctx, c, authz.Purge, d, []pending{w})); err != nil {
		return nil, err
	}
	return persons, nil
}

// hollow decides on a purge and makes its write: a row without anything in it, which says that the record is not merely missing.
func (r *Records[T]) hollow(ctx context.Context, c Caller, id crm.UUID, version int64) (pending, []crm.UUID, authz.Decision, error) {
	row, d, err := r.mayChange(ctx, c, authz.Purge, id)
	if err != nil {
		return pending{}, nil, d, err
	}
	if row.Version != version {
		return pending{}, nil, d, crm.ErrConflict
	}
	if !row.Deleted {
		return pending{}, nil, d, crm.ErrNotFound
	}
	next := crm.Row{
		Tenant: row.Tenant, Type: row.Type, ID: row.ID, Version: row.Version + 1, Deleted: true, Clear: make([]crm.Value, len(row.Clear)),
	}
	w, err := r.seal(ctx, next, row.Version)
	return w, row.Persons, d, err
}

// purged tells whether nothing but the id is left of a record.
func purged(row *crm.Row) bool { return row.Deleted && len(row.Persons) == 0 }

// Forget destroys the keys of those of the persons whom no record names any more, so that what lies in backups and stray copies does not open
// either, and returns them. Where the keeper has a grace, they are blocked at once and destroyed by the first Forget after it, which needs no persons. It
// decides on the action purge for the function "person". The log has an event for each person before the keys go. Errors of a legal
// hold or of the brake on mass erasure are those of encrypt.Keeper.Erase; persons before that one are erased.
func (g *Guard) Forget(ctx context.Context, c Caller, persons ...crm.UUID) (erased []crm.UUID, err error) {
	d, err := g.authorize(ctx, c, authz.Purge, "person")
	if err != nil {
		return nil, err
	}
	due, err := g.keeper.Due(ctx, c.Subject.Tenant)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for _, p := range due { // asked for before
		if id := crm.UUID(p); !slices.Contains(persons, id) {
			persons = append(persons, id)
		}
	}
	for _, p := range persons {
		if p.IsZero() {
			continue
		}
		named, err := g.named(ctx, c.Subject.Tenant, p)
		if err != nil {
			return erased, err
		}
		if named {
			continue
		}
		e := c.event("person", authz.Erase, d)
		e.Activity = audit.Erase
		e.Targets = []audit.Target{{Type: "person", ID: p.String()}}
		if _, err := g.log.Append(ctx, e); err != nil {
			return erased, fmt.Errorf("guard: no log, no erasure: %w", err)
		}
		if _, err := g.keeper.Erase(ctx, c.Subject.Tenant, p, nil); err != nil {
			return erased, fmt.Errorf("guard: %w", err)
		}
		erased = append(erased, p)
	}
	return erased, nil
}

// named tells whether a record of any type names a person, or one who was joined to them.
func (g *Guard) named(ctx context.Context, tenant string, person crm.UUID) (bool, error) {
	joined, err := g.keeper.Joined(ctx, tenant, person)
	if err != nil {
		return false, fmt.Errorf("guard: %w", err)
	}
	all := []crm.UUID{person}
	for _, p := range joined {
		all = append(all, crm.UUID(p))
	}
	g.mu.Lock()
	types := slices.Clone(g.types)
	g.mu.Unlock()
	for _, typ := range types {
		n, err := g.store.Count(ctx, crm.Query{Tenant: tenant, Type: typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Persons: all, Limit: 1})
		if err != nil {
			return false, fmt.Errorf("guard: %w", err)
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
}

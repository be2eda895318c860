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

// Forgotten is what Forget did.
type Forgotten struct {
	Destroyed []crm.UUID // persons whose ordinary keys were destroyed
	Blocked   []crm.UUID // persons whose keys are blocked, and destroyed by a Forget after the keeper's grace
}

// Forget destroys the keys of persons whose last record was purged, so that what lies in backups and stray copies does not open either. It finds them in the rows
// that a purge left, so one that was cut off is made up for by the next. A person whom any record still names, in the bin too, stays. Keys of other
// retention classes than the ordinary one stay: what contracts and taxes need outlives a purge, as its fields say.
//
// It decides on the action purge for the function "person", and the log has an event for each person before the keys go. Legal holds and the brake on mass
// erasure (encrypt.ErrHeld, encrypt.ErrLimit) leave the persons for a later Forget; the others go on, and the errors are joined. Every type of the
// store must have a door here (For): else it cannot know whom records name, and does nothing. While the store's index of persons is being
// rebuilt it does nothing either: crm.ErrReindexing.
func (g *Guard) Forget(ctx context.Context, c Caller) (Forgotten, error) {
	var out Forgotten
	d, err := g.authorize(ctx, c, authz.Purge, "person")
	if err != nil {
		return out, err
	}
	types, err := g.everyType(ctx)
	if err != nil {
		return out, err
	}
	f := forgetting{g: g, c: c, d: d, types: types, out: &out, done: map[crm.UUID]bool{}}
	var errs []error
	for _, t := range types {
		s := t.schema
		if !named(s, "created_at") || !named(s, "updated_at") {
			continue
		}
		q := crm.Query{
			Tenant: c.Subject.Tenant, Type: s.Type, Where: crm.Everything{}, Deletion: crm.InBin, Limit: 200,
			Clauses: []crm.Clause{{Column: "created_at", Op: crm.IsNull}, {Column: "updated_at", Op: crm.NotNull}},
		}
		for {
			page, err := g.store.List(ctx, q)
			if err != nil {
				return out, fmt.Errorf("guard: %w", err)
			}
			for i := range page.Rows {
				if err := f.row(ctx, s, &page.Rows[i]); err != nil {
					errs = append(errs, err)
					if !errors.Is(err, encrypt.ErrHeld) && !errors.Is(err, encrypt.ErrLimit) {
						return out, errors.Join(errs...)
					}
				}
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
	}
	return out, errors.Join(errs...)
}

// named tells whether a schema has a column.
func named(s crm.Schema, column string) bool {
	return slices.ContainsFunc(s.Columns, func(c crm.Column) bool { return c.Name == column })
}

// everyType returns all types of the store.
func (g *Guard) everyType(ctx context.Context) ([]typeOf, error) {
	types, err := g.store.Types(ctx)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]typeOf, 0, len(types))
	for _, typ := range types {
		t, ok := g.types[typ]
		if !ok {
			return nil, fmt.Errorf("guard: type %s has no door here, so nobody can be forgotten", typ)
		}
		out = append(out, t)
	}
	return out, nil
}

// forgetting is one Forget.
type forgetting struct {
	g     *Guard
	c     Caller
	d     authz.Decision
	types []typeOf
	out   *Forgotten
	done  map[crm.UUID]bool // person -> nothing is left to be done
}

// row sees to the persons of a purged row, and takes them out of it when all are done.
func (f *forgetting) row(ctx context.Context, s crm.Schema, row *crm.Row) error {
	sum := digest(row, s.Columns)
	if err := f.g.keeper.VerifyMAC(ctx, row.Tenant, macLabel, sum, row.MAC); err != nil {
		if errors.Is(err, encrypt.ErrTampered) {
			return fmt.Errorf("%w: %s %s", ErrForged, s.Type, row.ID)
		}
		return fmt.Errorf("guard: %w", err)
	}
	all := true
	for _, p := range row.Persons {
		if _, seen := f.done[p]; !seen {
			done, err := f.person(ctx, p)
			if err != nil {
				return err
			}
			f.done[p] = done
		}
		all = all && f.done[p]
	}
	if !all {
		return nil
	}
	next := crm.Row{Tenant: row.Tenant, Type: row.Type, ID: row.ID, Version: row.Version + 1, Deleted: true, Clear: make([]crm.Value, len(row.Clear))}
	sum = digest(&next, s.Columns)
	var err error
	if next.MAC, err = f.g.keeper.MAC(ctx, next.Tenant, macLabel, sum); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	e := f.c.event(s.Type, authz.Purge, f.d)
	e.Action = s.Type + ".forgotten"
	_, err = f.g.commit(ctx, f.c, e, []pending{{row: next, expect: row.Version, digest: sum}}, nil)
	if errors.Is(err, crm.ErrConflict) {
		return nil // another one was faster
	}
	return err
}

// person destroys the keys of one whom no record names. done tells that nothing is left to be done.
func (f *forgetting) person(ctx context.Context, p crm.UUID) (done bool, err error) {
	has, err := f.named(ctx, p)
	if err != nil || has {
		return has, err
	}
	e := f.c.event("person", authz.Erase, f.d)
	e.Activity = audit.Erase
	e.Targets = []audit.Target{{Type: "person", ID: p.String()}}
	if _, err := f.g.log.Append(ctx, e); err != nil {
		return false, fmt.Errorf("guard: no log, no erasure: %w", err)
	}
	r, err := f.g.keeper.Erase(ctx, f.c.Subject.Tenant, p, nil)
	if err != nil {
		return false, fmt.Errorf("guard: person %s: %w", p, err)
	}
	if r.Due.IsZero() {
		f.out.Destroyed = append(f.out.Destroyed, p)
		return true, nil
	}
	// Nobody seals for them from now on. A record that was being made meanwhile brings them back.
	if has, err = f.named(ctx, p); err != nil {
		return false, err
	}
	if has {
		if err := f.g.keeper.Spare(ctx, f.c.Subject.Tenant, p); err != nil {
			return false, fmt.Errorf("guard: %w", err)
		}
		return true, nil
	}
	f.out.Blocked = append(f.out.Blocked, p)
	return false, nil
}

// named tells whether a record of any type names a person, or one who was joined to them.
func (f *forgetting) named(ctx context.Context, person crm.UUID) (bool, error) {
	joined, err := f.g.keeper.Joined(ctx, f.c.Subject.Tenant, person)
	if err != nil {
		return false, fmt.Errorf("guard: %w", err)
	}
	all := []crm.UUID{person}
	for _, p := range joined {
		all = append(all, crm.UUID(p))
	}
	for _, t := range f.types {
		s := t.schema
		q := crm.Query{Tenant: f.c.Subject.Tenant, Type: s.Type, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Persons: all, Limit: 1}
		if named(s, "created_at") {
			q.Clauses = []crm.Clause{{Column: "created_at", Op: crm.NotNull}} // not what was purged
		}
		n, err := f.g.store.Count(ctx, q)
		if err != nil {
			return false, fmt.Errorf("guard: %w", err)
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
}

package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/encrypt"
)

// Prospect is what an erasure would be about.
type Prospect struct {
	Persons []crm.UUID     // the one asked for, then those who were joined to them
	Records map[string]int // how many records name them, by type, in the bin too
	Refusal error          // with which Erase would refuse now: encrypt.ErrHeld or encrypt.ErrLimit; nil: it would not
}

// Types lists the types of Records, ascending.
func (p *Prospect) Types() []string {
	out := make([]string, 0, len(p.Records))
	for typ := range p.Records {
		out = append(out, typ)
	}
	slices.SortFunc(out, strings.Compare)
	return out
}

// WouldErase tells what Erase would be about, and changes nothing. It counts records that the caller need not be able to read, opens none and names none. It decides on the
// action read for the function "person", and the log names whom was asked about. Every type of the store must have a door here (For).
func (g *Guard) WouldErase(ctx context.Context, c Caller, person crm.UUID) (Prospect, error) {
	var out Prospect
	d, err := g.authorize(ctx, c, authz.Read, "person")
	if err != nil {
		return out, err
	}
	tenant := c.Subject.Tenant
	joined, err := g.keeper.Joined(ctx, tenant, person)
	if err != nil {
		return out, fmt.Errorf("guard: %w", err)
	}
	out.Persons = []crm.UUID{person}
	for _, p := range joined {
		if !slices.Contains(out.Persons, crm.UUID(p)) {
			out.Persons = append(out.Persons, crm.UUID(p))
		}
	}
	types, err := g.everyType(ctx)
	if err != nil {
		return out, err
	}
	e := c.event("person", authz.Read, d)
	for _, p := range out.Persons {
		e.Targets = append(e.Targets, audit.Target{Type: "person", ID: p.String()})
	}
	if _, err := g.log.Append(ctx, e); err != nil {
		return out, fmt.Errorf("guard: no log, no data: %w", err)
	}
	out.Records = map[string]int{}
	for _, t := range types {
		n, err := g.store.Count(ctx, ofPersons(tenant, t.schema, out.Persons))
		if err != nil {
			return out, fmt.Errorf("guard: %w", err)
		}
		if n > 0 {
			out.Records[t.schema.Type] = int(n)
		}
	}
	err = g.keeper.MayErase(ctx, tenant, person, nil)
	if errors.Is(err, encrypt.ErrHeld) || errors.Is(err, encrypt.ErrLimit) {
		out.Refusal, err = err, nil
	}
	if err != nil {
		err = fmt.Errorf("guard: %w", err)
	}
	return out, err
}

// ofPersons finds the rows of a type that name persons, living or in the bin, and not what was purged.
func ofPersons(tenant string, s crm.Schema, persons []crm.UUID) crm.Query {
	q := crm.Query{Tenant: tenant, Type: s.Type, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Persons: persons, Limit: 200}
	if named(s, "created_at") {
		q.Clauses = []crm.Clause{{Column: "created_at", Op: crm.NotNull}}
	}
	return q
}

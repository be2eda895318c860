package guard

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard/crm"
)

// needer is a domain type whose updates need something of other records: who leaves owns nothing.
type needer[P any] interface{ Needs(prev P) []crm.Need }

// needs is what the change from prev to v needs.
func (r *Records[P]) needs(v, prev P) []crm.Need {
	if w, ok := any(v).(needer[P]); ok {
		return w.Needs(prev)
	}
	return nil
}

// needed makes limits of what writes need. Types that have no door here have no records here.
func (g *Guard) needed(c Caller, writes []pending) (limits []crm.Limit, whose []crm.Need) {
	for _, w := range writes {
		for _, n := range w.needs {
			l := crm.Limit{Tenant: c.Subject.Tenant}
			g.mu.Lock()
			for _, m := range n.Of {
				if _, known := g.types[m.Type]; known {
					l.Of = append(l.Of, m)
				}
			}
			g.mu.Unlock()
			if len(l.Of) > 0 {
				limits, whose = append(limits, l), append(whose, n)
			}
		}
	}
	return limits, whose
}

// unmet counts what stood in the way, for the error.
func (g *Guard) unmet(ctx context.Context, l crm.Limit, n crm.Need) error {
	found := map[string]int64{}
	for _, m := range l.Of {
		k, err := g.store.Count(ctx, crm.Query{Tenant: l.Tenant, Type: m.Type, Where: crm.Everything{}, Limit: 1, Clauses: m.Clauses})
		if err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		found[m.Type] += k
	}
	return n.Refused(found)
}

package guard

import (
	"context"
	"slices"

	"github.com/crmguard/crmguard/authz"
)

// controlScope is the control that denies what a caller's scope does not name.
const controlScope = "scope"

// of is the policy as a caller has it.
func (g *Guard) of(c Caller) authz.Authorizer {
	if c.Scope == nil {
		return g.policy
	}
	return scoped{g.policy, c.Scope}
}

// scoped denies what is out of a scope, and asks the policy about the rest: it never allows more.
type scoped struct {
	policy authz.Authorizer
	scope  map[string][]authz.Action
}

func (s scoped) names(r authz.Request) bool {
	return slices.Contains(s.scope[r.Resource.Type], r.Action)
}

// Decide implements authz.Authorizer.
func (s scoped) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	d, err := s.policy.Decide(ctx, r)
	if err != nil || s.names(r) {
		return d, err
	}
	if d.Allowed {
		d.Controls = nil // those of a denial are the ones that deny
	}
	return authz.Decision{Controls: append(slices.Clone(d.Controls), controlScope), Revision: d.Revision}, nil
}

// Filter implements authz.Authorizer.
func (s scoped) Filter(ctx context.Context, r authz.Request) (authz.Filter, error) {
	if !s.names(r) {
		return authz.Filter{}, nil
	}
	return s.policy.Filter(ctx, r)
}

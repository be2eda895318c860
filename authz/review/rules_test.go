package review_test

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/authz"
)

var errRules = errors.New("the rules are out of order")

// rules are the rights of a small firm: admin may do everything, a manager what the team may, sales what is
// their own; nobody but admin deletes. A reveal needs a reason. They fail for the type "broken".
type rules struct{}

var (
	inactive  = authz.Decision{Controls: []string{"active.subject"}}
	elsewhere = authz.Decision{Controls: []string{"tenant.same"}}
	denied    = authz.Decision{Controls: []string{"rbac.grant"}}
	fields    = authz.Fields{ByClass: map[string]authz.Access{"personal": authz.Masked, "internal": authz.Open}}
	byAll     = authz.Decision{Allowed: true, Controls: []string{"rbac.all"}, Fields: authz.Fields{ByClass: map[string]authz.Access{"personal": authz.Open, "internal": authz.Open}}}
	byTeam    = authz.Decision{Allowed: true, Controls: []string{"rbac.team"}, Fields: fields}
	byOwn     = authz.Decision{Allowed: true, Controls: []string{"rbac.own"}, Fields: fields}
)

func (rules) Decide(_ context.Context, r authz.Request) (authz.Decision, error) {
	d := denied
	switch s := r.Subject; {
	case r.Resource.Type == "broken":
		return authz.Decision{}, errRules
	case !s.Active:
		return inactive, nil
	case s.Tenant != r.Resource.Tenant:
		return elsewhere, nil
	case r.Resource.Type != "customer" && r.Resource.Type != "ticket":
	case slices.Contains(s.Roles, "admin"):
		d = byAll
	case r.Action == authz.Delete:
	case slices.Contains(s.Roles, "manager") && s.Team != "" && strings.HasPrefix(r.Resource.Team, s.Team):
		d = byTeam
	case slices.Contains(s.Roles, "sales") && r.Resource.Owner == s.ID:
		d = byOwn
	}
	if d.Allowed && r.Action == authz.Reveal {
		d.Obligations = []authz.Obligation{authz.NeedReason}
	}
	return d, nil
}

func (rules) Filter(context.Context, authz.Request) (authz.Filter, error) { return authz.Filter{}, nil }

func people() []authz.Subject {
	return []authz.Subject{
		{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Team: "/east/1/", Active: true},
		{ID: "e2", Tenant: "t", Roles: []string{"manager"}, Team: "/east/", Active: true},
		{ID: "e3", Tenant: "t", Roles: []string{"admin"}, Active: true},
		{ID: "e4", Tenant: "t", Roles: []string{"sales"}, Team: "/east/1/", Active: true},
		{ID: "e5", Tenant: "t", Roles: []string{"manager"}, Team: "/west/", Active: true},
		{ID: "e6", Tenant: "t", Roles: []string{"admin"}},
		{ID: "e7", Tenant: "u", Roles: []string{"admin"}, Active: true},
		{ID: "e8", Tenant: "t", Active: true},
	}
}

var customer = authz.Resource{Tenant: "t", Type: "customer", ID: "c1", Owner: "e1", Team: "/east/1/"}

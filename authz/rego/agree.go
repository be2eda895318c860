package rego

import (
	"context"
	"sort"
	"time"

	"github.com/crmguard/crmguard/authz"
)

// agreeRequests is how many requests a policy that is not the shipped one is tried on when it is loaded.
const agreeRequests = 500

// agree draws requests, the same for every load, and refuses a policy whose plans or filters answer one otherwise than
// OPA does: an expression that means something else than was read would otherwise open what the policy closes.
func (p *policy) agree(ctx context.Context) error {
	s := &p.src.settings.Settings
	var roles []string
	for role := range s.Inherits {
		roles = append(roles, role)
	}
	sort.Strings(roles)
	d := draw(1)
	ids, types := []string{"a", "a", "b", "c", ""}, append(s.types(), "unknown")
	actions := append(append([]string(nil), s.Actions...), "unknown")
	states := []string{"open", ""}
	for _, list := range s.FrozenStates {
		states = append(states, list...)
	}
	sort.Strings(states)
	now := time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC)
	words := func(from ...string) []string { return from[:d.below(len(from)+1)] }
	when := func() time.Time { return now.Add(time.Duration(d.below(5)-2) * time.Hour) }
	some := func() []authz.Action { return []authz.Action{authz.Action(d.pick(actions)), authz.Read, authz.List} }
	for range agreeRequests {
		r := authz.Request{
			Subject: authz.Subject{ID: d.pick(ids), Tenant: "t", Active: d.below(8) > 0, Roles: []string{d.pick(roles)},
				Team: d.pick([]string{"/x/", "/x/y/", ""}), Level: d.below(3), Compartments: words("k", "l"), Pools: words("p", "q", "")},
			Action: authz.Action(d.pick(actions)),
			Resource: authz.Resource{Tenant: d.pick([]string{"t", "t", "t", "u"}), Type: d.pick(types), ID: d.pick([]string{"r", "q"}),
				Owner: d.pick(ids), Team: d.pick([]string{"/x/", "/x/y/", "/z/", ""}), State: d.pick(states), Level: d.below(3) * d.below(2),
				Compartments: words("k", "l"), Actors: words("b", "a"), Consents: words("marketing", "service"), Held: d.below(2) == 0,
				Amount: int64(d.below(3)) * 10_000_000, Pool: d.pick([]string{"p", "q", ""})},
			Environment: authz.Environment{Time: now, Purpose: d.pick([]string{"", "", "marketing"}), Rows: d.below(3) * 1500},
		}
		if d.below(8) == 0 {
			r.Environment.Time = time.Time{}
		}
		for range d.below(3) {
			r.Subject.Shares = append(r.Subject.Shares, authz.Sharing{Record: d.pick([]string{"r", "q"}), By: d.pick(ids), Actions: some(), Until: when()})
			r.Subject.Delegations = append(r.Subject.Delegations, authz.Delegation{From: d.pick(ids), Actions: some(), Until: when()})
			r.Subject.Emergencies = append(r.Subject.Emergencies, authz.Emergency{Type: d.pick(types), Approvers: words("b", "c", "a"), Until: when()})
		}
		if err := p.agreeOn(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (p *policy) agreeOn(ctx context.Context, r authz.Request) error {
	c := &call{req: r, timed: !r.Environment.Time.IsZero()}
	if c.timed {
		c.time = nanos(r.Environment.Time)
	}
	plan, err := p.plan(ctx, c)
	if err != nil {
		return refuse("%v", err)
	}
	want, err := p.evaluate(ctx, &r)
	if err != nil {
		return refuse("%v", err)
	}
	if plan.slow != nil {
		return refuse("%v (%s of %s)", plan.slow, r.Action, r.Resource.Type)
	}
	f, err := plan.filter(c)
	if err != nil {
		return refuse("%v (%s of %s)", err, r.Action, r.Resource.Type)
	}
	if !same(*plan.decide(&p.plans, c), want) || f.Admit()(&r.Resource) != want.Allowed {
		return refuse("a plan and OPA answer differently: %s of %s; controls %v", r.Action, r.Resource.Type, want.Controls)
	}
	return nil
}

// draw is a row of numbers that is the same each time.
type draw uint64

func (d *draw) below(n int) int {
	*d = *d*6364136223846793005 + 1442695040888963407
	return int(uint64(*d>>33) % uint64(n))
}

func (d *draw) pick(from []string) string { return from[d.below(len(from))] }

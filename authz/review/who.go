package review

import (
	"context"
	"fmt"
	"iter"

	"github.com/crmguard/crmguard/authz"
)

// Permission is one thing that one subject may do, and why.
type Permission struct {
	Subject  string // id
	Action   authz.Action
	Type     string // of the resource
	Resource string // its id; "" for the type
	Decision authz.Decision
}

// WhoCan returns which of the subjects may do what r asks for, in their order, each with the decision. The
// subject of r is not read. With an error there is no answer.
func WhoCan(ctx context.Context, az authz.Authorizer, subjects iter.Seq[authz.Subject], r authz.Request) ([]Permission, error) {
	var out []Permission
	for r.Subject = range subjects {
		var err error
		if out, err = ask(ctx, az, &r, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// WhatCan returns which of the actions the subject of r may do with which of the resources, resource by
// resource, each with the decision. The action and the resource of r are not read. [Samples] makes
// resources at each distance from a subject. With an error there is no answer.
func WhatCan(ctx context.Context, az authz.Authorizer, r authz.Request, resources []authz.Resource, actions ...authz.Action) ([]Permission, error) {
	var out []Permission
	for _, r.Resource = range resources {
		for _, r.Action = range actions {
			var err error
			if out, err = ask(ctx, az, &r, out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// ask adds what r asks for to out when it is permitted. A denial costs no allocation of its own.
func ask(ctx context.Context, az authz.Authorizer, r *authz.Request, out []Permission) ([]Permission, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("review: stopped: %w", err)
	}
	d, err := az.Decide(ctx, *r)
	if err != nil {
		return nil, fmt.Errorf("review: no decision: %w", err)
	}
	if d.Allowed {
		out = append(out, Permission{r.Subject.ID, r.Action, r.Resource.Type, r.Resource.ID, d})
	}
	return out, nil
}

// Samples returns resources of a type as s sees them, with the ids all, team, own and pool: somebody else's
// of another team, somebody else's of the team of s, their own, and one that is free in a pool of theirs. A subject without a
// team or a pool gets none for it.
func Samples(s authz.Subject, typ string) []authz.Resource {
	return samples(s, authz.Resource{Type: typ})
}

func samples(s authz.Subject, like authz.Resource) []authz.Resource {
	const elsewhere = "/elsewhere/"
	other := s.ID + "-other" // nobody has the id of s
	like.Tenant = s.Tenant
	all, team, own := like, like, like
	all.ID, all.Owner, all.Team = "all", other, elsewhere
	team.ID, team.Owner, team.Team = "team", other, s.Team
	own.ID, own.Owner, own.Team = "own", s.ID, elsewhere
	out := []authz.Resource{all, own}
	if s.Team != "" {
		out = []authz.Resource{all, team, own}
	}
	if len(s.Pools) > 0 {
		like.ID, like.Owner, like.Team, like.Pool = "pool", "", elsewhere, s.Pools[0]
		out = append(out, like)
	}
	return out
}

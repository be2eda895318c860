package rego

import (
	"context"
	"fmt"
	"sort"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/crmguard/crmguard/authz"
)

// lint refuses a policy of which a part cannot become a plan or a list's filter: it makes the plan of every action
// and type of the settings for somebody who has every role, so that every branch is looked at.
func (p *policy) lint(ctx context.Context) error {
	s := &p.src.settings.Settings
	var roles []string
	for role := range s.Inherits {
		roles = append(roles, role)
	}
	sort.Strings(roles)
	c := &call{req: authz.Request{Subject: authz.Subject{ID: "lint", Tenant: "lint", Roles: roles, Active: true, Team: "/"}}}
	k, err := p.facts.eval(ctx, c)
	if err != nil {
		return refuse("crm/facts: %v", err)
	}
	// Every role, whether it may be had together with the others or not.
	all := make([]*ast.Term, len(roles))
	for i, role := range roles {
		all[i] = ast.StringTerm(role)
	}
	facts := ast.NewObject([2]*ast.Term{ast.StringTerm("roles"), ast.SetTerm(all...)})
	k.group.value.Foreach(func(name, value *ast.Term) {
		if facts.Get(name) == nil {
			facts.Insert(name, value)
		}
	})
	for _, typ := range s.types() {
		for _, action := range s.Actions {
			plan, err := p.plans.build(ctx, authz.Action(action), typ, facts)
			if err != nil {
				return refuse("%v", err)
			}
			if plan.slow != nil {
				return refuse("%v (%s of %s)", plan.slow, action, typ)
			}
			c.req.Action, c.req.Resource = authz.Action(action), authz.Resource{Tenant: "lint", Type: typ}
			for i, test := range plan.tests {
				if plan.met&(1<<i) == 0 {
					continue // obligations and fields are not filtered by
				}
				if _, err := test.bind(c); err != nil {
					return refuse("%s: %v (%s of %s)", plan.members[i].name, err, action, typ)
				}
			}
		}
	}
	return nil
}

// types returns every type that a grant names.
func (s *settingsData) types() []string {
	seen := map[string]bool{}
	for _, types := range s.Grants {
		for t := range types {
			seen[t] = true
		}
	}
	out := make([]string, 0, len(seen))
	for t := range seen {
		out = append(out, t)
	}
	sort.Strings(out)
	return out
}

// Control is one control, ground or obligation of a policy, for people.
type Control struct {
	ID          string // as decisions name it
	Kind        string // "required", "control" or "ground"
	Title       string
	Description string
	Standard    string // such as "ISO 27001 A.5.15"; "" when the policy names none
	Where       string // file:line of the rule that decides
}

// Controls lists the controls and grounds of the policy, by their ids.
func (e *Engine) Controls() []Control {
	p := e.current.Load()
	var out []Control
	for _, m := range p.compiler.Modules {
		if m.Package.Path.String() != "data.crm.authz" {
			continue
		}
		for _, r := range m.Rules {
			name := string(r.Head.Name)
			if name != "met" && name != "grounds" || r.Head.Key == nil {
				continue
			}
			id, ok := r.Head.Key.Value.(ast.String)
			if !ok {
				continue
			}
			c := Control{ID: string(id), Kind: "control", Where: fmt.Sprintf("%s:%d", r.Location.File, r.Location.Row)}
			if name == "grounds" {
				c.Kind = "ground"
			}
			for _, req := range p.required {
				if req == c.ID && name == "met" {
					c.Kind = "required"
				}
			}
			p.describe(&c, r)
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// describe takes the texts of the first rule of another package that decides.
func (p *policy) describe(c *Control, r *ast.Rule) {
	ast.WalkRefs(r.Body, func(ref ast.Ref) bool {
		if c.Title != "" || !ref.HasPrefix(ast.MustParseRef("data.crm")) || len(ref) < 4 {
			return false
		}
		for _, m := range p.compiler.Modules {
			if !m.Package.Path.Equal(ref[:3]) {
				continue
			}
			for _, rule := range m.Rules {
				if string(rule.Head.Name) == string(ref[3].Value.(ast.String)) {
					c.Where = fmt.Sprintf("%s:%d", rule.Location.File, rule.Location.Row)
					break
				}
			}
			for _, a := range m.Annotations {
				if a.Scope == "package" {
					c.Title, c.Description = a.Title, a.Description
					if std, ok := a.Custom["control"].(string); ok {
						c.Standard = std
					}
				}
			}
		}
		return false
	})
}

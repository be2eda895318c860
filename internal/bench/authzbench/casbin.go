package authzbench

import (
	"fmt"
	"strings"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"github.com/crmguard/crmguard/authz"
)

// casbinEngine is the policy in Casbin: a line for each grant; depths and controls are functions of the matcher,
// after the comparisons that cost least.
type casbinEngine struct{ enforcer *casbin.Enforcer }

const casbinModel = `
[request_definition]
r = sub, typ, act, req
[policy_definition]
p = role, typ, act, depth
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.typ == p.typ && r.act == p.act && has(r.sub, p.role) && reaches(r.req, p.depth) && bounds(r.req)
`

func newCasbin(s *settings, h *hand) (*casbinEngine, error) {
	m, err := model.NewModelFromString(casbinModel)
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		return nil, err
	}
	e.AddFunction("has", func(args ...any) (any, error) {
		role := args[1].(string)
		return role == "anybody" || rolesOf(args[0].(*authz.Subject))&roleBit(role) != 0, nil
	})
	e.AddFunction("reaches", func(args ...any) (any, error) {
		r := args[0].(*authz.Request)
		switch args[1].(string) {
		case "all":
			return true, nil
		case "team":
			return strings.HasPrefix(r.Subject.Team, "/") && strings.HasPrefix(r.Resource.Team, r.Subject.Team), nil
		case "own":
			return r.Subject.ID != "" && r.Subject.ID == r.Resource.Owner, nil
		}
		return h.grounds(r, 0).share, nil
	})
	e.AddFunction("bounds", func(args ...any) (any, error) {
		r := args[0].(*authz.Request)
		return r.Subject.Active && r.Subject.Tenant == r.Resource.Tenant && h.cleared(r) && h.stepped(r) && h.mutable(r), nil
	})
	var lines [][]string
	for role, byType := range s.Grants {
		for typ, byAction := range byType {
			for action, depth := range byAction {
				lines = append(lines, []string{role, typ, action, depth})
			}
		}
	}
	for _, typ := range s.ShareableTypes {
		for _, action := range s.ShareableActions {
			lines = append(lines, []string{"anybody", typ, action, "share"})
		}
	}
	added, err := e.AddPolicies(lines)
	if err == nil && !added {
		err = fmt.Errorf("casbin: policies were not added")
	}
	return &casbinEngine{e}, err
}

func (e *casbinEngine) allowed(r *authz.Request) (bool, error) {
	return e.enforcer.Enforce(&r.Subject, r.Resource.Type, string(r.Action), r)
}

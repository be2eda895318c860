package authzbench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/batch"

	"github.com/crmguard/crmguard/authz"
)

// cedarEngine is the policy in Cedar: a permit for each role, type and depth, a forbid for each control.
type cedarEngine struct {
	policies *cedar.PolicySet
	fixed    cedar.EntityMap // roles and teams
}

func newCedar(s *settings) (*cedarEngine, error) {
	var text strings.Builder
	actions := func(list []string) string {
		out := make([]string, len(list))
		for i, a := range list {
			out[i] = fmt.Sprintf("Action::%q", a)
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	reach := map[string]string{
		"all": "", "own": " when { resource.owner == principal }", "team": " when { resource in principal.team }",
	}
	for _, role := range roles {
		for _, typ := range types {
			byDepth := map[string][]string{}
			for _, action := range s.Actions {
				if depth, ok := s.Grants[role][typ][action]; ok {
					byDepth[depth] = append(byDepth[depth], action)
				}
			}
			for _, depth := range []string{"own", "team", "all"} {
				if list := byDepth[depth]; len(list) > 0 {
					fmt.Fprintf(&text, "permit(principal in Role::%q, action in %s, resource is %s)%s;\n", role, actions(list), typ, reach[depth])
				}
			}
		}
	}
	for _, action := range s.ShareableActions {
		is := make([]string, len(s.ShareableTypes))
		for i, t := range s.ShareableTypes {
			is[i] = "resource is " + t
		}
		fmt.Fprintf(&text, "permit(principal, action == Action::%q, resource) when { (%s) && principal.shared_%s.contains(resource) };\n",
			action, strings.Join(is, " || "), action)
	}
	text.WriteString("forbid(principal, action, resource) unless { principal.active };\n")
	text.WriteString("forbid(principal, action, resource) unless { principal.tenant == resource.tenant };\n")
	text.WriteString("forbid(principal, action, resource) unless { resource.level >= 0 && resource.level <= principal.level };\n")
	fmt.Fprintf(&text, "forbid(principal, action in %s, resource) unless { principal.strong };\n", actions(s.Context.Device.Actions))
	for _, typ := range types {
		for _, state := range s.FrozenStates[typ] {
			fmt.Fprintf(&text, "forbid(principal, action in [Action::\"update\", Action::\"delete\"], resource is %s) when { resource.state == %q };\n",
				typ, state)
		}
	}
	policies, err := cedar.NewPolicySetFromBytes("policy.cedar", []byte(text.String()))
	if err != nil {
		return nil, err
	}
	e := &cedarEngine{policies: policies, fixed: cedar.EntityMap{}}
	for _, role := range roles {
		var up []cedar.EntityUID
		for _, u := range s.Inherits[role] {
			up = append(up, cedar.NewEntityUID("Role", cedar.String(u)))
		}
		uid := cedar.NewEntityUID("Role", cedar.String(role))
		e.fixed[uid] = cedar.Entity{UID: uid, Parents: cedar.NewEntityUIDSet(up...)}
	}
	for _, region := range []string{"/east/", "/west/", "/north/", "/south/"} {
		e.fixed[cedarTeam(region)] = cedar.Entity{UID: cedarTeam(region)}
		for i := range 4 {
			sub := cedarTeam(fmt.Sprintf("%s%d/", region, i+1))
			e.fixed[sub] = cedar.Entity{UID: sub, Parents: cedar.NewEntityUIDSet(cedarTeam(region))}
		}
	}
	return e, nil
}

func cedarTeam(path string) cedar.EntityUID { return cedar.NewEntityUID("Team", cedar.String(path)) }

func cedarSubject(s *authz.Subject) cedar.Entity {
	parents := make([]cedar.EntityUID, len(s.Roles))
	for i, role := range s.Roles {
		parents[i] = cedar.NewEntityUID("Role", cedar.String(role))
	}
	shared := func(action authz.Action) cedar.Value {
		var list []cedar.Value
		for i := range s.Shares {
			if slices.Contains(s.Shares[i].Actions, action) {
				for _, typ := range types { // a share names a record, not its type
					list = append(list, cedar.NewEntityUID(cedar.EntityType(typ), cedar.String(s.Shares[i].Record)))
				}
			}
		}
		return cedar.NewSet(list...)
	}
	return cedar.Entity{
		UID:     cedar.NewEntityUID("User", cedar.String(s.ID)),
		Parents: cedar.NewEntityUIDSet(parents...),
		Attributes: cedar.NewRecord(cedar.RecordMap{
			"active": cedar.Boolean(s.Active), "tenant": cedar.String(s.Tenant), "team": cedarTeam(s.Team),
			"level": cedar.Long(s.Level), "strong": cedar.Boolean(s.Device == "key"),
			"shared_list": shared(authz.List), "shared_read": shared(authz.Read), "shared_update": shared(authz.Update),
		}),
	}
}

func cedarResource(r *authz.Resource) cedar.Entity {
	return cedar.Entity{
		UID:     cedar.NewEntityUID(cedar.EntityType(r.Type), cedar.String(r.ID)),
		Parents: cedar.NewEntityUIDSet(cedarTeam(r.Team)),
		Attributes: cedar.NewRecord(cedar.RecordMap{
			"tenant": cedar.String(r.Tenant), "owner": cedar.NewEntityUID("User", cedar.String(r.Owner)),
			"level": cedar.Long(r.Level), "state": cedar.String(r.State),
		}),
	}
}

// cedarRequest is a request with its entities made.
type cedarRequest struct {
	request  cedar.Request
	entities *cedarEntities
}

// cedarEntities are the two of a request over the fixed ones.
type cedarEntities struct {
	subject, resource cedar.Entity
	fixed             cedar.EntityMap
}

func (e *cedarEntities) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	switch uid {
	case e.resource.UID:
		return e.resource, true
	case e.subject.UID:
		return e.subject, true
	}
	return e.fixed.Get(uid)
}

func (e *cedarEngine) request(r *authz.Request) cedarRequest {
	x := &cedarEntities{subject: cedarSubject(&r.Subject), resource: cedarResource(&r.Resource), fixed: e.fixed}
	return cedarRequest{
		request: cedar.Request{
			Principal: x.subject.UID, Action: cedar.NewEntityUID("Action", cedar.String(r.Action)), Resource: x.resource.UID,
			Context: cedar.NewRecord(nil),
		},
		entities: x,
	}
}

func (e *cedarEngine) allowed(r cedarRequest) (bool, error) {
	decision, diagnostic := cedar.Authorize(e.policies, r.entities, r.request)
	if len(diagnostic.Errors) > 0 {
		return false, fmt.Errorf("cedar: %s", diagnostic.Errors[0].Message)
	}
	return decision == cedar.Allow, nil
}

// list says which of many records one subject may see, by the batches of cedar-go.
type cedarList struct {
	engine   *cedarEngine
	entities cedar.EntityMap
	request  batch.Request
}

func (e *cedarEngine) list(rows []row, r authz.Request) *cedarList {
	l := &cedarList{engine: e, entities: e.fixed.Clone()}
	subject := cedarSubject(&r.Subject)
	l.entities[subject.UID] = subject
	uids := make([]cedar.Value, len(rows))
	for i := range rows {
		var res authz.Resource
		rows[i].resource(&res)
		x := cedarResource(&res)
		l.entities[x.UID] = x
		uids[i] = x.UID
	}
	l.request = batch.Request{
		Principal: subject.UID, Action: cedar.NewEntityUID("Action", cedar.String(r.Action)), Resource: batch.Variable("r"),
		Context: cedar.NewRecord(nil), Variables: batch.Variables{"r": uids},
	}
	return l
}

func (l *cedarList) run() (visible int, err error) {
	err = batch.Authorize(context.Background(), l.engine.policies, l.entities, l.request, func(r batch.Result) error {
		if r.Decision == cedar.Allow {
			visible++
		}
		return nil
	})
	return visible, err
}

// whoCan asks for many subjects and one record.
func (e *cedarEngine) whoCan(subjects []authz.Subject, r authz.Request) *cedarList {
	l := &cedarList{engine: e, entities: e.fixed.Clone()}
	resource := cedarResource(&r.Resource)
	l.entities[resource.UID] = resource
	uids := make([]cedar.Value, len(subjects))
	for i := range subjects {
		x := cedarSubject(&subjects[i])
		l.entities[x.UID] = x
		uids[i] = x.UID
	}
	l.request = batch.Request{
		Principal: batch.Variable("p"), Action: cedar.NewEntityUID("Action", cedar.String(r.Action)), Resource: resource.UID,
		Context: cedar.NewRecord(nil), Variables: batch.Variables{"p": uids},
	}
	return l
}

package authzbench

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/crmguard/crmguard/authz"
)

// opaEngine is a policy in plain OPA: prepared queries and maps as input.
type opaEngine struct{ decision, permitted opa.PreparedEvalQuery }

func newOPA(ctx context.Context, policy fs.FS) (*opaEngine, error) {
	data, err := dataOf(policy)
	if err != nil {
		return nil, err
	}
	var modules []func(*opa.Rego)
	err = fs.WalkDir(policy, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".rego") || strings.HasSuffix(name, "_test.rego") {
			return err
		}
		text, err := fs.ReadFile(policy, name)
		modules = append(modules, opa.Module(name, string(text)))
		return err
	})
	if err != nil {
		return nil, err
	}
	store := inmem.NewFromObject(data)
	prepare := func(query string) (opa.PreparedEvalQuery, error) {
		return opa.New(append([]func(*opa.Rego){opa.Query(query), opa.Store(store)}, modules...)...).PrepareForEval(ctx)
	}
	e := &opaEngine{}
	if e.decision, err = prepare("x = data.crm.authz.decision"); err != nil {
		return nil, err
	}
	e.permitted, err = prepare("x = data.crm.authz.permitted")
	return e, err
}

// opaInput writes a request as maps.
func opaInput(r *authz.Request) map[string]any {
	words := func(list []string) []any {
		out := make([]any, len(list))
		for i, s := range list {
			out[i] = s
		}
		return out
	}
	s, res := &r.Subject, &r.Resource
	shares := make([]any, len(s.Shares))
	for i := range s.Shares {
		actions := make([]any, len(s.Shares[i].Actions))
		for j, a := range s.Shares[i].Actions {
			actions[j] = string(a)
		}
		shares[i] = map[string]any{"record": s.Shares[i].Record, "by": s.Shares[i].By, "actions": actions, "until": until(s.Shares[i])}
	}
	env := map[string]any{"purpose": r.Environment.Purpose, "rows": r.Environment.Rows}
	if !r.Environment.Time.IsZero() {
		env["time"] = r.Environment.Time.UnixNano()
	}
	if r.Environment.Addr.IsValid() {
		env["address"] = r.Environment.Addr.String()
	}
	return map[string]any{
		"subject": map[string]any{
			"id": s.ID, "tenant": s.Tenant, "team": s.Team, "session": s.Session, "active": s.Active, "roles": words(s.Roles),
			"level": s.Level, "compartments": words(s.Compartments), "zone": s.Zone, "region": s.Region, "device": s.Device,
			"grants": []any{}, "shares": shares, "delegations": []any{}, "emergencies": []any{},
		},
		"action": string(r.Action),
		"resource": map[string]any{
			"tenant": res.Tenant, "type": res.Type, "id": res.ID, "owner": res.Owner, "team": res.Team, "state": res.State,
			"level": res.Level, "compartments": words(res.Compartments), "actors": words(res.Actors), "consents": words(res.Consents),
			"held": res.Held, "amount": res.Amount,
		},
		"environment": env,
	}
}

func until(s authz.Sharing) int64 {
	if s.Until.IsZero() {
		return 0
	}
	return s.Until.UnixNano()
}

// decide gives the whole answer, as OPA has it.
func (e *opaEngine) decide(ctx context.Context, input any) (map[string]any, error) {
	rs, err := e.decision.Eval(ctx, opa.EvalInput(input))
	if err != nil {
		return nil, err
	}
	if len(rs) == 1 {
		if m, ok := rs[0].Bindings["x"].(map[string]any); ok {
			return m, nil
		}
	}
	return nil, errors.New("opa: no decision")
}

// allowed only says yes or no.
func (e *opaEngine) allowed(ctx context.Context, input any) (bool, error) {
	rs, err := e.permitted.Eval(ctx, opa.EvalInput(input))
	return len(rs) == 1, err
}

// read turns an answer of decide into a decision.
func (e *opaEngine) read(m map[string]any, revision string) authz.Decision {
	words := func(name string) (out []string) {
		for _, w := range m[name].([]any) {
			out = append(out, w.(string))
		}
		return out
	}
	d := authz.Decision{Allowed: true, Revision: revision}
	met := words("met")
	for _, control := range words("required") {
		if !slices.Contains(met, control) {
			d.Allowed = false
			d.Controls = append(d.Controls, control)
		}
	}
	if !d.Allowed {
		slices.Sort(d.Controls)
		return d
	}
	d.Controls = append(met, words("grounds")...)
	slices.Sort(d.Controls)
	for _, o := range words("obligations") {
		d.Obligations = append(d.Obligations, authz.Obligation(o))
	}
	slices.Sort(d.Obligations)
	levels := map[any]authz.Access{"masked": authz.Masked, "open": authz.Open}
	fields := func(name string) map[string]authz.Access {
		out := map[string]authz.Access{}
		for _, x := range m[name].([]any) {
			pair := x.([]any)
			out[pair[0].(string)] = max(out[pair[0].(string)], levels[pair[1]])
		}
		return out
	}
	d.Fields = authz.Fields{ByClass: fields("by_class"), ByName: fields("by_name")}
	return d
}

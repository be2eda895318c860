package rego_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authztest"
	"github.com/crmguard/crmguard/authz/rego"
)

func engine(t testing.TB) *rego.Engine {
	t.Helper()
	e, err := rego.New(t.Context(), nil)
	require.NoError(t, err)
	return e
}

func TestAuthorizer(t *testing.T) {
	authztest.TestAuthorizer(t, engine(t))
}

// TestFilterAgreesWithDecide draws random requests and records and asks both ways.
func TestFilterAgreesWithDecide(t *testing.T) {
	e := engine(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	allowed, total := 0, 0
	for range 400 {
		r := authz.Request{
			Subject: authz.Subject{
				ID: pick("e1", "e2", ""), Tenant: pick("t", "t", "t", "u"), Active: rnd.IntN(10) > 0,
				Roles: []string{pick("admin", "manager", "sales", "marketing", "support", "finance", "auditor", "root")},
				Team:  pick("/east/", "/east/1/", "/", "", "east"),
			},
			Action: authz.Action(pick("list", "read", "search", "export", "update", "delete", "reveal", "shred")),
		}
		r.Resource = authz.Resource{Tenant: "t", Type: pick("customer", "quote", "contract", "ticket", "payroll")}
		f, err := e.Filter(t.Context(), r)
		if r.Action == authz.Update || r.Action == authz.Delete {
			if err != nil {
				continue // a negation over the record's state has no filter; Decide answers
			}
		}
		require.NoError(t, err)
		for range 12 {
			r.Resource.ID = "r1"
			r.Resource.Owner = pick("e1", "e2", "e3", "")
			r.Resource.Team = pick("/east/", "/east/1/", "/east/10/", "/west/", "")
			r.Resource.State = pick("draft", "accepted", "new", "")
			d, err := e.Decide(t.Context(), r)
			require.NoError(t, err)
			got := f.Match(func(name string) any {
				return map[string]any{
					"owner": r.Resource.Owner, "team": r.Resource.Team, "state": r.Resource.State, "id": r.Resource.ID,
				}[name]
			})
			require.Equal(t, d.Allowed, got, "%+v: filter %s", r, f)
			total++
			if got {
				allowed++
			}
		}
	}
	assert.Greater(t, allowed, total/20, "the draw must admit some")
	assert.Less(t, allowed, total-total/20, "the draw must refuse some")
}

// with returns the shipped policy with some files replaced.
func with(t *testing.T, files map[string]string) fs.FS {
	out := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(rego.Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(rego.Embedded(), name)
		out[name] = &fstest.MapFile{Data: b}
		return err
	}))
	for name, text := range files {
		if old, ok := out[name]; ok && strings.HasPrefix(text, "s/") {
			p := strings.Split(text, "/")
			require.Contains(t, string(old.Data), p[1])
			text = strings.Replace(string(old.Data), p[1], p[2], 1)
		}
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestRefusedPolicies(t *testing.T) {
	const head = "# METADATA\n# schemas:\n#   - input: schema.input\npackage crm.extra\n\n"
	for name, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"a misspelt attribute":     {map[string]string{"crm/extra/extra.rego": head + "p if input.resource.ownr == \"x\"\n"}, "undefined ref: input.resource.ownr"},
		"a wrong type":             {map[string]string{"crm/extra/extra.rego": head + "p if input.resource.owner == 3\n"}, "match error"},
		"a call out":               {map[string]string{"crm/extra/extra.rego": head + "p if http.send({\"url\": \"x\", \"method\": \"get\"})\n"}, "undefined function http.send"},
		"the clock":                {map[string]string{"crm/extra/extra.rego": head + "p if time.now_ns() > 0\n"}, "undefined function time.now_ns"},
		"randomness":               {map[string]string{"crm/extra/extra.rego": head + "p if rand.intn(\"x\", 2) > 0\n"}, "undefined function rand.intn"},
		"the process":              {map[string]string{"crm/extra/extra.rego": head + "p if opa.runtime().env\n"}, "undefined function opa.runtime"},
		"not strict":               {map[string]string{"crm/extra/extra.rego": head + "p if {\n\tx := 1\n}\n"}, "unused"},
		"no schema":                {map[string]string{"crm/extra/extra.rego": "package crm.extra\n\np if input.x\n"}, "no schemas annotation"},
		"another package":          {map[string]string{"crm/extra/extra.rego": strings.Replace(head, "crm.extra", "crm.other", 1)}, "not that of its folder"},
		"no syntax":                {map[string]string{"crm/extra/extra.rego": head + "p if {"}, "extra.rego:6"},
		"a stray file":             {map[string]string{"notes.txt": "x"}, "not a part of a policy"},
		"broken data":              {map[string]string{"data.json": "{"}, "data.json"},
		"an unknown key in data":   {map[string]string{"data.json": `s/"actions":/"actoins":/`}, "unknown field"},
		"an unknown depth":         {map[string]string{"data.json": `s/"all"/"everything"/`}, "unknown depth"},
		"an unknown level":         {map[string]string{"data.json": `s/"internal": "open"/"internal": "opne"/`}, "unknown level"},
		"a cycle of roles":         {map[string]string{"data.json": `s/"sales": []/"sales": ["manager"]/`}, "inherits itself"},
		"an unknown inherited one": {map[string]string{"data.json": `s/"sales": []/"sales": ["root"]/`}, "unknown role"},
		"no decision":              {map[string]string{"crm/authz/authz.rego": "# METADATA\n# schemas:\n#   - input: schema.input\npackage crm.authz\n\np := 1\n"}, "no permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rego.New(t.Context(), &rego.Options{Policy: with(t, c.files)})
			var le *rego.LoadError
			require.ErrorAs(t, err, &le)
			assert.Contains(t, err.Error(), c.says)
		})
	}
	_, err := rego.New(t.Context(), &rego.Options{Policy: with(t, nil)})
	require.NoError(t, err, "the unchanged copy loads")
	_, err = rego.New(t.Context(), &rego.Options{Policy: fstest.MapFS{}})
	require.Error(t, err)
}

// TestUnfilterable: a policy that reads the record in a way that cannot become a filter gives an
// error for lists, never a filter.
func TestUnfilterable(t *testing.T) {
	p := with(t, map[string]string{"crm/rbac/rbac.rego": `s/input.resource.owner == input.subject.id/contains(input.resource.owner, input.subject.id)/`})
	e, err := rego.New(t.Context(), &rego.Options{Policy: p})
	require.NoError(t, err)
	r := authz.Request{
		Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Active: true},
		Action:   authz.List,
		Resource: authz.Resource{Tenant: "t", Type: "customer"},
	}
	f, err := e.Filter(t.Context(), r)
	require.ErrorContains(t, err, "contains")
	assert.True(t, f.IsNone())
}

func TestCancelled(t *testing.T) {
	e := engine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := e.Decide(ctx, authz.Request{})
	if err == nil {
		assert.False(t, d.Allowed)
	}
}

func TestRevision(t *testing.T) {
	a := engine(t)
	b, err := rego.New(t.Context(), &rego.Options{Policy: with(t, map[string]string{"data.json": `s/"team"/"all"/`})})
	require.NoError(t, err)
	assert.Equal(t, a.Revision(), engine(t).Revision())
	assert.NotEqual(t, a.Revision(), b.Revision())
}

func ExampleNew() {
	ctx := context.Background()
	policy, err := rego.New(ctx, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := policy.Decide(ctx, authz.Request{
		Subject:  authz.Subject{ID: "lin", Tenant: "default", Roles: []string{"sales"}, Team: "/east/", Active: true},
		Action:   authz.Read,
		Resource: authz.Resource{Tenant: "default", Type: "customer", ID: "c1", Owner: "lin", Team: "/east/"},
	})
	fmt.Println(d.Allowed, err)
	fmt.Println(d.Controls)
	fmt.Println("phone:", d.Fields.Access("phone", "personal"))
	fmt.Println("ID number:", d.Fields.Access("id_number", "sensitive"))
	// Output:
	// true <nil>
	// [active.subject frozen.state access.granted rbac.own tenant.same]
	// phone: masked
	// ID number: hidden
}

func BenchmarkFilter(b *testing.B) {
	e := engine(b)
	r := authz.Request{
		Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Team: "/east/", Active: true},
		Action:   authz.List,
		Resource: authz.Resource{Tenant: "t", Type: "customer"},
	}
	for b.Loop() {
		if _, err := e.Filter(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

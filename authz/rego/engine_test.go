package rego_test

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authztest"
	"github.com/crmguard/crmguard/authz/rego"
)

// long ends a short run of a test that takes long and does one thing after the other.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long, and in one goroutine")
	}
}

func engine(t testing.TB) *rego.Engine {
	t.Helper()
	e, err := rego.New(t.Context(), nil)
	require.NoError(t, err)
	return e
}

func TestAuthorizer(t *testing.T) {
	authztest.TestAuthorizer(t, engine(t))
}

// with returns the shipped policy with some files replaced.
func with(t testing.TB, files map[string]string) fs.FS {
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
		if old, ok := out[name]; ok && len(text) > 2 && text[0] == 's' && (text[1] == '/' || text[1] == '~') {
			p := strings.Split(text, text[1:2])
			require.Contains(t, string(old.Data), p[1])
			text = strings.Replace(string(old.Data), p[1], p[2], 1)
		}
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestRefusedPolicies(t *testing.T) {
	long(t)
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
		"no decision":              {map[string]string{"crm/authz/authz.rego": "# METADATA\n# schemas:\n#   - input: schema.input\npackage crm.authz\n\np := 1\n"}, "crm.authz.decision is missing"},
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

// TestUnfilterable: a policy that reads the record in a way that cannot become a filter is refused, with rule and line.
func TestUnfilterable(t *testing.T) {
	long(t)
	for name, c := range map[string]struct{ from, to, says string }{
		"a string function":      {`input.resource.owner == input.subject.id`, `contains(input.resource.owner, input.subject.id)`, "rbac.rego:44: a call of contains"},
		"arithmetic":             {`input.resource.owner == input.subject.id`, `input.resource.amount + 1 > 2`, "a call of plus"},
		"every":                  {`input.resource.owner == input.subject.id`, "every a in input.resource.actors { a != input.subject.id }", "every"},
		"two attributes":         {`input.resource.owner == input.subject.id`, `input.resource.owner == input.resource.state`, "no form as a list's filter"},
		"a comprehension":        {`input.resource.owner == input.subject.id`, `{a | some a in input.resource.actors} == {input.subject.id}`, "rbac.rego:44"},
		"roles in a control":     {`input.resource.owner == input.subject.id`, `"admin" in input.subject.roles`, "a control may not read input.subject.roles"},
		"an address":             {`input.resource.owner == input.subject.id`, `input.environment.address == "::1"`, "a control may not read input.environment.address"},
		"one place in two lists": {`input.resource.owner == input.subject.id`, "some i\n\tinput.subject.shares[i].record == input.resource.id\n\tinput.subject.delegations[i].from == input.resource.owner", "one place in two lists"},
		"a with":                 {`input.resource.owner == input.subject.id`, "x := input.subject.id with input.subject.id as \"nobody\"\n\tinput.resource.owner == x", "a with modifier"},
		"the absence of a set":   {`input.resource.owner == input.subject.id`, "not odd\n}\n\nodd contains \"x\" if {\n\tinput.resource.held == true", "refused"},
		"an order of ids":        {`input.resource.owner == input.subject.id`, `input.resource.id > "5"`, "no form as a list's filter"},
		"a beginning of ids":     {`input.resource.owner == input.subject.id`, `not startswith(input.resource.id, "z")`, "no form as a list's filter"},
		"the whole subject":      {`input.resource.owner == input.subject.id`, `input.subject != {}`, "a control may not read input.subject"},
	} {
		t.Run(name, func(t *testing.T) {
			p := with(t, map[string]string{"crm/rbac/rbac.rego": "s~" + c.from + "~" + c.to})
			_, err := rego.New(t.Context(), &rego.Options{Policy: p})
			var le *rego.LoadError
			require.ErrorAs(t, err, &le)
			assert.Contains(t, err.Error(), c.says)
		})
	}
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
	rego.Alone(t)
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
	// [access.granted active.subject amount.limit consent.given context.device context.hours context.network context.region frozen.state hold.free mac.read mac.write purpose.allowed rbac.own role.reserved sod.dynamic sod.static tenant.same]
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

package rego

import (
	"encoding/json"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
)

func TestExtend(t *testing.T) {
	Alone(t)
	policy, err := Extend(Embedded(), `{"settings": {"grants": {"manager": {"patient": {"read": "team"}, "lead": null}}}}`)
	require.NoError(t, err)
	e, err := New(t.Context(), &Options{Policy: policy})
	require.NoError(t, err)
	ask := func(role, typ string) bool {
		d, err := e.Decide(t.Context(), authz.Request{
			Subject: authz.Subject{ID: "e1", Tenant: "default", Roles: []string{role}, Team: "/east/", Active: true}, Action: authz.Read,
			Resource: authz.Resource{Tenant: "default", Type: typ, Owner: "e2", Team: "/east/1/"},
		})
		require.NoError(t, err)
		return d.Allowed
	}
	assert.True(t, ask("manager", "patient"))
	assert.True(t, ask("manager", "customer"), "what is not patched stays")
	assert.False(t, ask("sales", "patient"))
	assert.False(t, ask("manager", "lead"), "null takes away")

	for name, patch := range map[string]string{"no JSON": "{", "no object": "[]", "null": "null"} {
		_, err := Extend(Embedded(), patch)
		var le *LoadError
		require.ErrorAs(t, err, &le, name)
	}
	_, err = Extend(fstest.MapFS{}, "{}")
	require.Error(t, err)
	policy, err = Extend(Embedded(), `{"settings": {"grants": {"manager": {"patient": {"read": "everything"}}}}}`)
	require.NoError(t, err)
	_, err = New(t.Context(), &Options{Policy: policy})
	require.Error(t, err, "a depth that there is not")
}

// TestMergePatch has the examples of RFC 7396, appendix A.
func TestMergePatch(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		var target, patch any
		require.NoError(t, json.Unmarshal([]byte(c[0]), &target))
		require.NoError(t, json.Unmarshal([]byte(c[1]), &patch))
		got, err := json.Marshal(merge(target, patch))
		require.NoError(t, err)
		assert.JSONEq(t, c[2], string(got), c[0]+" "+c[1])
	}
}

package rego

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
)

// changed returns the shipped policy with one text replaced in one file.
func changed(t *testing.T, file, from, to string) fs.FS {
	out := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(Embedded(), name)
		if name == file {
			require.Contains(t, string(b), from)
			b = []byte(strings.Replace(string(b), from, to, 1))
		}
		out[name] = &fstest.MapFile{Data: b}
		return err
	}))
	return out
}

// TestMemoIsLeftOut: a policy that reads time, address, purpose, session or the record's id is asked
// each time.
func TestMemoIsLeftOut(t *testing.T) {
	e, err := New(t.Context(), nil)
	require.NoError(t, err)
	assert.True(t, e.memorable)
	for _, read := range []string{
		"input.environment.time > 0", `input.environment.purpose == "sales"`, `input.environment.address != "1.2.3.4"`,
		`input.subject.session != ""`, `input.resource.id != "x"`, "count(input.environment) > 1", "count(input) > 1",
		"count(input.resource) > 1",
	} {
		p := changed(t, "crm/active/active.rego", "subject if {\n", "subject if {\n\t"+read+"\n")
		e, err := New(t.Context(), &Options{Policy: p})
		require.NoError(t, err, read)
		assert.False(t, e.memorable, read)
	}
}

func TestMemoGivesTheSameAnswer(t *testing.T) {
	e, err := New(t.Context(), nil)
	require.NoError(t, err)
	fresh, err := New(t.Context(), nil)
	require.NoError(t, err)
	fresh.memorable = false
	for _, roles := range [][]string{{"sales"}, {"manager"}, {"sales", "finance"}, {"sales\x00finance"}, nil} {
		for _, owner := range []string{"e1", "e2", ""} {
			for _, active := range []bool{true, false} {
				r := authz.Request{
					Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: roles, Team: "/east/", Active: active},
					Action:   authz.Read,
					Resource: authz.Resource{Tenant: "t", Type: "customer", ID: owner, Owner: owner, Team: "/east/1/", State: "new"},
				}
				want, err := fresh.Decide(t.Context(), r)
				require.NoError(t, err)
				wantFilter, err := fresh.Filter(t.Context(), r)
				require.NoError(t, err)
				for range 2 {
					got, err := e.Decide(t.Context(), r)
					require.NoError(t, err)
					assert.Equal(t, want, got)
					f, err := e.Filter(t.Context(), r)
					require.NoError(t, err)
					assert.Equal(t, wantFilter, f)
				}
			}
		}
	}
	m := &memo[int]{}
	for i := range 3 * memoSize {
		m.put(question{id: strings.Repeat("x", i%7), team: string(rune(i))}, i)
		require.LessOrEqual(t, len(m.all), memoSize)
	}
}

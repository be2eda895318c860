package rego_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
)

// exporting is the shipped policy, in which finance may also export contracts, 500 rows at once.
func exporting(t testing.TB) *rego.Engine {
	data := settingIn(t, setting(t, "grants.finance.contract.export", "all"), "export.rows.finance", 500)
	e, err := rego.New(t.Context(), &rego.Options{Policy: with(t, map[string]string{"data.json": data})})
	require.NoError(t, err)
	return e
}

// TestDiff: a changed grant shows in exactly the requests that it changes.
func TestDiff(t *testing.T) {
	rego.Alone(t)
	long(t)
	from, to := engine(t), exporting(t)
	for range rego.Diff(t.Context(), from, from, from.Corpus()) {
		t.Fatal("a policy differs from itself")
	}
	all := 0
	grounds, roles, actions := map[string]bool{}, map[string]bool{}, map[authz.Action]bool{}
	for r := range from.Corpus() {
		all++
		roles[r.Subject.Roles[0]], actions[r.Action] = true, true
		d, err := from.Decide(t.Context(), r)
		require.NoError(t, err)
		for _, c := range d.Controls {
			if d.Allowed && strings.HasPrefix(c, "rbac.") {
				grounds[c] = true
			}
		}
	}
	assert.Equal(t, map[string]bool{"rbac.own": true, "rbac.team": true, "rbac.pool": true, "rbac.all": true}, grounds, "permissions by each depth")
	assert.True(t, roles["system"] && roles["analyst"] && roles["admin"])
	assert.True(t, actions[authz.Erase] && actions[authz.Manage] && actions[authz.Aggregate])
	states := map[string]bool{}
	n := 0
	for c, err := range rego.Diff(t.Context(), from, to, to.Corpus()) {
		require.NoError(t, err)
		n++
		r := c.Request
		assert.Equal(t, []string{"finance", "contract", "export"}, []string{r.Subject.Roles[0], r.Resource.Type, string(r.Action)})
		assert.False(t, c.Old.Allowed)
		assert.True(t, c.New.Allowed)
		assert.Contains(t, c.New.Controls, "rbac.all")
		assert.Equal(t, []authz.Obligation{"reason", "rows:500", "watermark"}, c.New.Obligations)
		assert.Equal(t, from.Revision(), c.Old.Revision)
		assert.Equal(t, to.Revision(), c.New.Revision)
		states[r.Resource.State] = true
	}
	assert.Equal(t, 3*len(states), n, "each state, by the owner, in the team and by a stranger")
	assert.Len(t, states, 3)
	assert.Greater(t, all, 5000)
	t.Logf("%d of %d requests differ", n, all)

	for range rego.Diff(t.Context(), from, to, to.Corpus()) {
		break // who has seen enough may stop
	}
}

// TestReplay: what was recorded is made again; what was changed since is found.
func TestReplay(t *testing.T) {
	rego.Alone(t)
	e := engine(t)
	d := newDrawer(7, 40)
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	for n := range rounds {
		r := d.request()
		if n%50 == 0 {
			r.Resource.ID, r.Resource.Owner = "\x00\a\U000e0001<&>", "\u2028é"
		}
		answer, err := e.Decide(t.Context(), r)
		require.NoError(t, err)
		text, err := json.Marshal(rego.Record(r, answer))
		require.NoError(t, err)
		var kept rego.Entry
		require.NoError(t, json.Unmarshal(text, &kept))
		require.NoError(t, e.Replay(t.Context(), kept), "%s", text)
		if n%20 > 0 {
			continue
		}
		for name, change := range map[string]func(x *rego.Entry){
			"the answer":   func(x *rego.Entry) { x.Allowed = !x.Allowed },
			"the digest":   func(x *rego.Entry) { x.Answer = strings.Repeat("0", 64) },
			"no digest":    func(x *rego.Entry) { x.Answer = "" },
			"the controls": func(x *rego.Entry) { x.Controls = append([]string{"share"}, x.Controls...) },
		} {
			bad := kept
			change(&bad)
			require.ErrorIs(t, e.Replay(t.Context(), bad), rego.ErrReplay, name)
		}
		bad := kept
		bad.Revision = "x"
		require.ErrorIs(t, e.Replay(t.Context(), bad), rego.ErrRevision)
	}
	// A changed input that leads to another answer.
	r := authz.Request{
		Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Active: true},
		Action:   authz.Read,
		Resource: authz.Resource{Tenant: "t", Type: "customer", Owner: "e1"},
	}
	answer, err := e.Decide(t.Context(), r)
	require.NoError(t, err)
	require.True(t, answer.Allowed)
	entry := rego.Record(r, answer)
	for _, c := range [][2]string{{`"roles":["sales"]`, `"roles":["auditor"]`}, {`"active":true`, `"active":false`}, {`"owner":"e1"`, `"owner":"e2"`}} {
		bad := entry
		bad.Input = []byte(strings.Replace(string(entry.Input), c[0], c[1], 1))
		require.NotEqual(t, entry.Input, bad.Input)
		assert.ErrorIs(t, e.Replay(t.Context(), bad), rego.ErrReplay, c[1])
	}
	for _, text := range []string{``, `{}`, `null`, `{"action":"read"}`, string(entry.Input) + " {}"} {
		bad := entry
		bad.Input = []byte(text)
		assert.Error(t, e.Replay(t.Context(), bad), text)
	}
	assert.ErrorIs(t, exporting(t).Replay(t.Context(), entry), rego.ErrRevision)
}

// TestEntry compares an entry, which is kept for years, with the one that a file has.
func TestEntry(t *testing.T) {
	rego.Alone(t)
	now := time.Date(2026, 3, 2, 9, 30, 0, 123, time.UTC)
	r := authz.Request{
		Subject: authz.Subject{
			ID: "e1", Tenant: "t", Roles: []string{"sales", "support"}, Team: "/east/1/", Session: "s1", Active: true, Level: 1,
			Compartments: []string{"legal"}, Zone: "Asia/Shanghai", Region: "cn", Device: "managed", Pools: []string{"p1"},
			Grants:      []authz.Grant{{Role: "sales", Until: now.Add(time.Hour)}},
			Shares:      []authz.Sharing{{Record: "c1", By: "e2", Actions: []authz.Action{authz.Read}, Until: now.Add(time.Hour)}},
			Delegations: []authz.Delegation{{From: "e2", Actions: []authz.Action{authz.Read}, Until: now.Add(time.Hour)}},
			Emergencies: []authz.Emergency{{Type: "customer", Approvers: []string{"e8", "e9"}, Until: now.Add(time.Hour)}},
		},
		Action: authz.Read,
		Resource: authz.Resource{
			Tenant: "t", Type: "customer", ID: "c1", Owner: "e2", Team: "/east/2/", State: "new", Level: 1, Compartments: []string{"legal"},
			Actors: []string{"e2"}, Consents: []string{"marketing"}, Held: true, Amount: 5_000_000_000, Pool: "p1",
		},
		Environment: authz.Environment{Time: now, Addr: netip.MustParseAddr("10.1.2.3"), Purpose: "sales", Rows: 1},
	}
	d := authz.Decision{
		Allowed: true, Controls: []string{"access.granted", "share"}, Revision: strings.Repeat("0f", 32), Obligations: []authz.Obligation{"reason"},
		Fields: authz.Fields{ByClass: map[string]authz.Access{"personal": authz.Masked}, ByName: map[string]authz.Access{"name": authz.Open}},
	}
	text, err := json.MarshalIndent(rego.Record(r, d), "", "  ")
	require.NoError(t, err)
	golden(t, "testdata/entry.json", string(text)+"\n")
}

// golden compares a text with a file, which -update writes anew.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "go test ./authz/rego -run %s -update writes it", t.Name())
	assert.Equal(t, string(want), text, "read the difference, then go test ./authz/rego -run %s -update", t.Name())
}

// FuzzPlansAgree draws requests from a seed, with words of the fuzzer among them, and asks plan, OPA and filter.
func FuzzPlansAgree(f *testing.F) {
	for seed := range uint64(24) {
		r := newDrawer(seed, 3).request()
		role := ""
		if len(r.Subject.Roles) > 0 {
			role = r.Subject.Roles[0]
		}
		f.Add(seed, string(r.Action), r.Resource.Type, role, r.Resource.Team, r.Resource.State, int64(r.Resource.Level))
	}
	e := engine(f)
	f.Fuzz(func(t *testing.T, seed uint64, action, typ, role, team, state string, level int64) {
		d := newDrawer(seed, 2)
		for n := range 4 {
			r := d.request()
			if n%2 == 1 {
				r.Action, r.Resource.Type, r.Resource.Team, r.Subject.Team = authz.Action(action), typ, team, pick(d, team, r.Subject.Team)
				r.Subject.Roles = append(slices.Clone(r.Subject.Roles), role)
				r.Resource.State, r.Resource.Level, r.Resource.Amount = state, int(level), level
			}
			got, err := e.Decide(t.Context(), r)
			require.NoError(t, err)
			want, err := e.Evaluate(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, want, got, "%+v", r)
			list, err := e.Filter(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, want.Allowed, list.Admit()(&r.Resource), "%s: %+v", list, r)
		}
	})
}

var seeds = flag.Int("seeds", 0, "write so many inputs of FuzzPlansAgree that are allowed to testdata/fuzz")

// TestSeeds writes the committed corpus of FuzzPlansAgree: inputs of which the words of the fuzzer are allowed.
func TestSeeds(t *testing.T) {
	if *seeds == 0 {
		t.Skip("-seeds 20 writes them")
	}
	e := engine(t)
	dir := "testdata/fuzz/FuzzPlansAgree"
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for seed, n := rand.Uint64()>>1, 0; n < *seeds; seed++ {
		r := newDrawer(seed, 2).request()
		d, err := e.Decide(t.Context(), r)
		require.NoError(t, err)
		if !d.Allowed || len(r.Subject.Roles) == 0 {
			continue
		}
		text := fmt.Sprintf("go test fuzz v1\nuint64(%d)\nstring(%q)\nstring(%q)\nstring(%q)\nstring(%q)\nstring(%q)\nint64(%d)\n",
			seed, r.Action, r.Resource.Type, r.Subject.Roles[0], r.Resource.Team, r.Resource.State, r.Resource.Level)
		require.NoError(t, os.WriteFile(fmt.Sprintf("%s/allowed-%02d", dir, n), []byte(text), 0o644))
		n++
	}
}

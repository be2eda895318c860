package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
)

// changed returns an engine over the shipped policy with other settings, whose tests and lint are left out.
func changed(t testing.TB, opts Options, change func(s map[string]any)) *Engine {
	files := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(Embedded(), name)
		if name == "data.json" {
			var root map[string]any
			require.NoError(t, json.Unmarshal(text, &root))
			change(root["settings"].(map[string]any))
			text, err = json.Marshal(root)
		}
		if !strings.HasSuffix(name, "_test.rego") {
			files[name] = &fstest.MapFile{Data: text}
		}
		return err
	}))
	files["crm/x_test.rego"] = &fstest.MapFile{Data: []byte("package crm.x_test\n\ntest_it if true\n")}
	opts.Policy = files
	e, err := New(t.Context(), &opts)
	require.NoError(t, err)
	return e
}

func demanding(t testing.TB, opts Options) *Engine {
	return changed(t, opts, func(s map[string]any) {
		s["certified_roles"] = []string{"support", "finance"}
		c := s["context"].(map[string]any)
		c["hours"].(map[string]any)["actions"] = []string{"reveal"}
		c["network"].(map[string]any)["actions"] = []string{"export"}
		c["network"].(map[string]any)["trusted"] = []string{"10.0.0.0/8", "fe80::/10"}
	})
}

// ask decides, and demands that OPA decides the same.
func ask(t testing.TB, e *Engine, r authz.Request) authz.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), r)
	require.NoError(t, err)
	want, err := e.Evaluate(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, want, d, "%+v", r)
	return d
}

var noon = time.Date(2026, 3, 2, 12, 0, 30, 0, time.UTC) // a Monday

func reading(role string) authz.Request {
	return authz.Request{
		Subject:     authz.Subject{ID: "e1", Tenant: "t", Roles: []string{role}, Team: "/east/", Active: true, Zone: "UTC"},
		Action:      authz.Read,
		Resource:    authz.Resource{Tenant: "t", Type: "customer", ID: "c1", Owner: "e1", Team: "/east/", State: "new"},
		Environment: authz.Environment{Time: noon, Addr: netip.MustParseAddr("10.1.2.3")},
	}
}

// TestGrantEnds: a certification ends at its moment, although facts are kept for a minute, and a clock that jumps back finds
// the answer of then.
func TestGrantEnds(t *testing.T) {
	Alone(t)
	e := demanding(t, Options{Sample: -1})
	r := reading("support")
	end := noon.Add(7*time.Second + 3)
	r.Subject.Grants = []authz.Grant{{Role: "support", Until: end}, {Role: "finance", Until: noon.Add(time.Hour)}}
	at := func(when time.Time) bool {
		r.Environment.Time = when
		return ask(t, e, r).Allowed
	}
	assert.True(t, at(noon))
	assert.True(t, at(end.Add(-1)))
	assert.False(t, at(end))
	assert.False(t, at(end.Add(1)))
	assert.True(t, at(end.Add(-1)), "the clock jumped back")
	assert.True(t, at(noon.Add(-24*time.Hour)))
	assert.False(t, at(noon.Add(time.Minute)))
	assert.False(t, at(time.Time{}), "no time, no certification")
	assert.False(t, at(time.Unix(0, 1<<62).Add(1<<62)), "far away")
	assert.False(t, at(time.Unix(1<<60, 0)), "further than numbers go")
	assert.True(t, at(time.Unix(0, 0)))
	assert.True(t, at(time.Unix(-1, 0)), "before 1970 is 1970")
	r.Subject.Grants = nil
	assert.False(t, at(noon))
	r.Subject.Grants = []authz.Grant{{Role: "support", Until: time.Time{}}}
	assert.False(t, at(noon), "no end is no certification")
}

// TestHours: working hours begin and end at whole minutes in the subject's own zone.
func TestHours(t *testing.T) {
	Alone(t)
	e := demanding(t, Options{Sample: -1})
	for zone, utc := range map[string]time.Time{
		"UTC":              time.Date(2026, 3, 2, 7, 0, 0, 0, time.UTC),
		"Asia/Shanghai":    time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC),
		"Asia/Kathmandu":   time.Date(2026, 3, 2, 1, 15, 0, 0, time.UTC), // 05:45 ahead
		"America/New_York": time.Date(2026, 3, 9, 11, 0, 0, 0, time.UTC), // the Monday after the clocks changed
	} {
		r := reading("support")
		r.Action, r.Subject.Roles, r.Subject.Zone = authz.Reveal, []string{"sales"}, zone
		at := func(when time.Time) bool {
			r.Environment.Time = when
			return ask(t, e, r).Allowed
		}
		assert.False(t, at(utc.Add(-1)), zone)
		assert.True(t, at(utc), zone)
		assert.True(t, at(utc.Add(15*time.Hour-1)), zone)
		assert.False(t, at(utc.Add(15*time.Hour)), zone)
		assert.False(t, at(utc.Add(-24*time.Hour)), "Sunday, %s", zone)
	}
	for _, zone := range []string{"", "Local", "Mars/Olympus", "../../etc/passwd", "UTC\x00", strings.Repeat("z", 1<<20)} {
		r := reading("sales")
		r.Subject.Zone = zone
		assert.True(t, ask(t, e, r).Allowed, "what asks for no hours")
		r.Action = authz.Reveal
		d := ask(t, e, r)
		assert.False(t, d.Allowed)
		assert.Equal(t, []string{"context.hours"}, d.Controls)
	}
}

// TestUnknownCircumstances: without a time or an address, what demands them is denied, and nothing else.
func TestUnknownCircumstances(t *testing.T) {
	Alone(t)
	e := demanding(t, Options{Sample: -1})
	r := reading("admin")
	for _, addr := range []string{"10.1.2.3", "::ffff:10.1.2.3", "fe80::1%eth0", "fe80::1"} {
		r.Action, r.Environment.Addr = authz.Export, netip.MustParseAddr(addr)
		assert.True(t, ask(t, e, r).Allowed, addr)
	}
	r.Environment.Addr = netip.MustParseAddr("11.1.2.3")
	assert.False(t, ask(t, e, r).Allowed)
	r.Environment = authz.Environment{}
	for action, control := range map[authz.Action]string{
		authz.List: "", authz.Read: "", authz.Update: "", authz.Delete: "", authz.Reveal: "context.hours", authz.Export: "context.network",
	} {
		r.Action = action
		d := ask(t, e, r)
		assert.Equal(t, control == "", d.Allowed, action)
		if control != "" {
			assert.Equal(t, []string{control}, d.Controls)
		}
	}
	// What has an end needs the time too.
	r = reading("sales")
	r.Resource.Owner = "e2"
	r.Subject.Shares = []authz.Sharing{{Record: "c1", By: "e2", Actions: []authz.Action{authz.Read}, Until: noon.Add(time.Hour)}}
	assert.True(t, ask(t, e, r).Allowed)
	r.Environment.Time = time.Time{}
	assert.False(t, ask(t, e, r).Allowed)
}

// TestPlansBuilt: neither ids, records, times nor addresses make a plan.
func TestPlansBuilt(t *testing.T) {
	Alone(t)
	e := demanding(t, Options{Sample: -1})
	r := reading("manager")
	_, err := e.Decide(t.Context(), r)
	require.NoError(t, err)
	built := e.Planned()
	for n := range 300 {
		r.Subject.ID, r.Subject.Team, r.Subject.Session = fmt.Sprint("e", n), fmt.Sprint("/", n, "/"), fmt.Sprint("s", n)
		r.Resource.ID, r.Resource.Owner, r.Resource.Amount, r.Resource.Level = fmt.Sprint(n), fmt.Sprint("e", n%7), int64(n), n%2
		r.Environment.Time = noon.Add(time.Duration(n) * 17 * time.Minute)
		r.Environment.Addr = netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		r.Environment.Rows = n
		_, err := e.Decide(t.Context(), r)
		require.NoError(t, err)
	}
	assert.Equal(t, built, e.Planned())
	r.Subject.Roles = []string{"sales"}
	_, err = e.Decide(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, built+1, e.Planned())
}

// TestCachesBounded: whatever comes, no more is kept than was said, and the answers are right.
func TestCachesBounded(t *testing.T) {
	Alone(t)
	e := demanding(t, Options{Sample: -1, Plans: 8})
	p := e.current.Load()
	r := reading("sales")
	ctx := context.Background()
	size := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	rounds := 1000
	if testing.Short() {
		rounds = 300
	}
	for n := range rounds {
		r.Subject.ID = fmt.Sprint("e", n)
		r.Subject.Compartments = []string{fmt.Sprint("c", n)}
		r.Subject.Region = fmt.Sprint("r", n)
		r.Resource.Owner, r.Resource.Compartments = r.Subject.ID, r.Subject.Compartments
		r.Resource.Type, r.Action = "customer", authz.Read
		d, err := e.Decide(ctx, r)
		require.NoError(t, err)
		require.True(t, d.Allowed, "%v", d.Controls)
		r.Resource.Compartments = []string{"another"}
		d, err = e.Decide(ctx, r)
		require.NoError(t, err)
		require.Equal(t, []string{"mac.read"}, d.Controls)
		r.Resource.Type, r.Action = fmt.Sprint("type", n), authz.Action(fmt.Sprint("action", n))
		d, err = e.Decide(ctx, r)
		require.NoError(t, err)
		require.False(t, d.Allowed)
		if n == rounds/2 {
			before = size()
		}
	}
	assert.LessOrEqual(t, len(p.plans.all), 8)
	assert.LessOrEqual(t, len(p.facts.all), 8)
	assert.LessOrEqual(t, len(p.facts.groups), 8)
	for _, x := range p.plans.parts {
		assert.LessOrEqual(t, len(x.done), 8, x.name)
	}
	assert.LessOrEqual(t, len(p.plans.exprs), mostExprs)
	assert.Less(t, size(), before+(4<<20))
}

// TestOddRequests: what the policy does not know is denied, and nothing panics.
func TestOddRequests(t *testing.T) {
	Alone(t)
	if testing.Short() {
		t.Skip("long, and in one goroutine")
	}
	e := demanding(t, Options{Sample: -1})
	long := strings.Repeat("x", 1<<20)
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprint("role", i)
	}
	for name, change := range map[string]func(r *authz.Request){
		"no action":         func(r *authz.Request) { r.Action = "" },
		"unknown action":    func(r *authz.Request) { r.Action = "shred" },
		"NUL in the action": func(r *authz.Request) { r.Action = "read\x00" },
		"bytes as action":   func(r *authz.Request) { r.Action = "\xff\xfe" },
		"long action":       func(r *authz.Request) { r.Action = authz.Action(long) },
		"no type":           func(r *authz.Request) { r.Resource.Type = "" },
		"unknown type":      func(r *authz.Request) { r.Resource.Type = "payroll" },
		"long type":         func(r *authz.Request) { r.Resource.Type = long },
		"no role":           func(r *authz.Request) { r.Subject.Roles = nil },
		"unknown role":      func(r *authz.Request) { r.Subject.Roles = []string{"root"} },
		"NUL in the role":   func(r *authz.Request) { r.Subject.Roles = []string{"sales\x00"} },
		"bytes as role":     func(r *authz.Request) { r.Subject.Roles = []string{"\xff"} },
		"long role":         func(r *authz.Request) { r.Subject.Roles = []string{long} },
		"10,000 roles":      func(r *authz.Request) { r.Subject.Roles = many },
		"a Rego expression": func(r *authz.Request) { r.Subject.Roles = []string{`sales"] | data`, "data.settings.inherits"} },
		"no tenant":         func(r *authz.Request) { r.Subject.Tenant, r.Resource.Tenant = "", "" },
		"another tenant":    func(r *authz.Request) { r.Resource.Tenant = "t\x00" },
		"no id":             func(r *authz.Request) { r.Subject.ID, r.Resource.Owner = "", "" },
		"level below 0":     func(r *authz.Request) { r.Resource.Level = -1 },
		"clearance below 0": func(r *authz.Request) { r.Subject.Level = -1 },
		"level beyond":      func(r *authz.Request) { r.Resource.Level = 1 << 40; r.Subject.Level = 1 << 40; r.Action = authz.Update },
		"a compartment":     func(r *authz.Request) { r.Resource.Compartments = []string{"\x00"} },
		"10,000 actors":     func(r *authz.Request) { r.Action = authz.Approve; r.Resource.Actors = append(many, "e1") },
		"long ids": func(r *authz.Request) {
			r.Subject.ID, r.Resource.Owner, r.Resource.Team = long, long+"y", long
		},
		"nothing": func(r *authz.Request) { *r = authz.Request{} },
	} {
		t.Run(name, func(t *testing.T) {
			r := reading("sales")
			require.True(t, ask(t, e, r).Allowed)
			change(&r)
			d := ask(t, e, r)
			assert.False(t, d.Allowed)
			assert.NotEmpty(t, d.Controls)
			assert.Error(t, d.Proceed())
			f, err := e.Filter(t.Context(), r)
			require.NoError(t, err)
			assert.False(t, f.Admit()(&r.Resource) && r.Subject.Tenant != "" && r.Resource.Tenant == r.Subject.Tenant)
		})
	}
	// An obligation that nobody has heard of is one that nobody meets.
	unheard := changed(t, Options{Sample: -1}, func(s map[string]any) {
		s["obligations_of"].(map[string]any)["read"] = []string{"a_new_one"}
	})
	d := ask(t, unheard, reading("sales"))
	assert.True(t, d.Allowed)
	assert.Error(t, d.Proceed(authz.NeedReason, authz.NeedStepUp, authz.NeedSecond, authz.NeedWatermark, authz.NeedReview, authz.NeedGroups, authz.AtMost(0)))
}

// TestSampleCatches: a plan that is wrong is found out by the sample, and plans are not used any more.
// By default a check rests for 99 times as long as it took, however many decisions there are.
func TestSampleRests(t *testing.T) {
	e, err := New(t.Context(), nil)
	require.NoError(t, err)
	r := reading("sales")
	var checks int
	var resting bool
	began := time.Now()
	for time.Since(began) < 300*time.Millisecond {
		_, err := e.Decide(t.Context(), r)
		require.NoError(t, err)
		if now := e.busy.Load(); now != resting {
			if resting = now; now {
				checks++
			}
		}
	}
	assert.Positive(t, checks)
	assert.Less(t, checks, 200, "of the %d decisions that were due", e.turn.Load()/256)
	assert.Greater(t, e.turn.Load(), uint64(256))
}

func TestSampleCatches(t *testing.T) {
	var told atomic.Pointer[authz.Request]
	var times atomic.Int32
	e, err := New(t.Context(), &Options{Sample: 1, OnDifference: func(r authz.Request) { told.Store(&r); times.Add(1) }})
	require.NoError(t, err)
	r := reading("sales")
	r.Resource.Owner = "e2" // not one's own
	d, err := e.Decide(t.Context(), r)
	require.NoError(t, err)
	require.False(t, d.Allowed)
	require.Eventually(t, func() bool { return !e.busy.Load() }, 10*time.Second, time.Millisecond)
	require.Nil(t, told.Load())

	// The plan is made wrong: everything is met.
	p := e.current.Load()
	for _, n := range p.plans.all {
		plan := n.plan
		yes := (&expr{op: exprTrue}).finish()
		for i := range plan.tests {
			plan.tests[i] = yes
		}
		plan.lacking, plan.required = false, 0
		for _, control := range p.required {
			plan.fixed = append(plan.fixed, member{ask: askMet, name: control})
		}
		plan.variants.Store(nil)
	}
	d, err = e.Decide(t.Context(), r)
	require.NoError(t, err)
	require.True(t, d.Allowed, "the plan is wrong")
	require.Eventually(t, func() bool { return told.Load() != nil }, 10*time.Second, time.Millisecond)
	assert.Equal(t, r, *told.Load())
	for range 20 {
		d, err = e.Decide(t.Context(), r)
		require.NoError(t, err)
		assert.False(t, d.Allowed, "OPA is asked from now on")
	}
	_, err = e.Filter(t.Context(), r)
	require.Error(t, err)
	assert.EqualValues(t, 1, times.Load())
	require.NoError(t, e.Load(t.Context(), nil))
	d, err = e.Decide(t.Context(), r)
	require.NoError(t, err)
	assert.False(t, d.Allowed)
	_, err = e.Filter(t.Context(), r)
	assert.NoError(t, err, "a policy that is loaded anew is trusted again")
}

// TestParseInput: what inputText writes is read again; nothing else is.
func TestParseInput(t *testing.T) {
	r := reading("sales")
	r.Subject.Grants = []authz.Grant{{Role: "sales", Until: noon}}
	r.Subject.Shares = []authz.Sharing{{Record: "r<&>\u2028", By: "é", Actions: []authz.Action{"read"}, Until: time.Time{}}}
	text, err := inputText(&r)
	require.NoError(t, err)
	back, err := parseInput(text)
	require.NoError(t, err)
	again, err := inputText(&back)
	require.NoError(t, err)
	assert.JSONEq(t, string(text), string(again))
	_, err = parseInput([]byte(" " + strings.ReplaceAll(string(text), ",", " ,\n") + "\n"))
	require.NoError(t, err, "white space does not matter")
	for name, bad := range map[string]string{
		"nothing":          "",
		"null":             "null",
		"a list":           "[]",
		"more after it":    string(text) + "{}",
		"another case":     strings.Replace(string(text), `"action"`, `"Action"`, 1),
		"a name twice":     strings.Replace(string(text), `"action"`, `"action":"delete","action"`, 1),
		"a name more":      strings.Replace(string(text), `"action"`, `"x":1,"action"`, 1),
		"a name less":      strings.Replace(string(text), `"held":false,`, ``, 1),
		"a number too far": strings.Replace(string(text), `"amount":0`, `"amount":1e99`, 1),
		"a number as word": strings.Replace(string(text), `"amount":0`, `"amount":"0"`, 1),
		"another number":   strings.Replace(string(text), `"amount":0`, `"amount":0.0`, 1),
		"null as a list":   strings.Replace(string(text), `"actors":[]`, `"actors":null`, 1),
		"an address":       strings.Replace(string(text), `10.1.2.3`, `10.1.2.300`, 1),
		"zone of address":  strings.Replace(string(text), `10.1.2.3`, `fe80::1%x`, 1),
		"cut off":          string(text[:len(text)-1]),
		"pools alone":      strings.Replace(string(text), `"pool":"",`, ``, 1),
		"a pool alone":     strings.Replace(string(text), `"pools":[],`, ``, 1),
	} {
		require.NotEqual(t, string(text), bad, name)
		_, err := parseInput([]byte(bad))
		assert.Error(t, err, name)
	}
}

// TestInputBeforePools: what was kept before requests had pools is read as one without any.
func TestInputBeforePools(t *testing.T) {
	text, err := os.ReadFile("testdata/entry_before_pools.json")
	require.NoError(t, err)
	var entry Entry
	require.NoError(t, json.Unmarshal(text, &entry))
	r, err := parseInput(entry.Input)
	require.NoError(t, err)
	assert.Equal(t, "e2", r.Resource.Owner)
	assert.Empty(t, r.Subject.Pools)
	assert.Empty(t, r.Resource.Pool)
	for _, c := range [][2]string{{`"owner": "e2",`, ``}, {`"owner": "e2",`, `"owner": "e2", "pool": "p1",`}, {`"region": "cn",`, `"region": "cn", "pools": [],`}} {
		bad := strings.Replace(string(entry.Input), c[0], c[1], 1)
		require.NotEqual(t, string(entry.Input), bad)
		_, err := parseInput([]byte(bad))
		assert.Error(t, err, c[1])
	}
}

// FuzzReplay reads entries of all kinds. Nothing panics, and what is read says the same when it is written again.
func FuzzReplay(f *testing.F) {
	e, err := New(f.Context(), nil)
	require.NoError(f, err)
	for _, role := range []string{"sales", "auditor", "\xff\x00"} {
		r := reading(role)
		d, err := e.Decide(f.Context(), r)
		require.NoError(f, err)
		entry, err := json.Marshal(Record(r, d))
		require.NoError(f, err)
		f.Add(entry)
	}
	f.Add([]byte(`{"revision":"` + e.Revision() + `","input":{},"answer":"","allowed":false}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var entry Entry
		if json.Unmarshal(text, &entry) != nil {
			return
		}
		entry.Revision = e.Revision()
		switch err := e.Replay(t.Context(), entry); {
		case err == nil:
			r, err := parseInput(entry.Input)
			require.NoError(t, err)
			d, err := e.Decide(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, entry.Allowed, d.Allowed)
		case !errors.Is(err, ErrReplay):
			require.Contains(t, err.Error(), "authz/rego: ")
		}
		r, err := parseInput(entry.Input)
		if err != nil {
			return
		}
		again, err := inputText(&r)
		require.NoError(t, err)
		require.True(t, sameInput(again, entry.Input), "%s\n%s", entry.Input, again)
	})
}

package rego_test

import (
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
	"github.com/crmguard/crmguard/internal/realtest"
	_ "modernc.org/sqlite"
)

var agreeFor = flag.Duration("agree", 0, "how long TestPlansAgree draws requests; 0: a few thousand of them")

// drawer draws requests in which everything that a policy reads varies, attributes that do not fit included.
type drawer struct {
	*rand.Rand
	roles, types, actions []string
	subjects              []authz.Subject // a few, as in life, so that plans are met again
}

func newDrawer(seed uint64, subjects int) *drawer {
	d := &drawer{
		Rand:  rand.New(rand.NewPCG(seed, 2)),
		roles: []string{"admin", "manager", "sales", "marketing", "support", "finance", "auditor", "analyst", "system", "root"},
		types: []string{"customer", "quote", "contract", "lead", "ticket", "export", "emergency", "account", "invoice", "ownership", "payroll"},
		actions: []string{"list", "read", "browse", "claim", "search", "create", "export", "update", "delete", "reveal", "approve", "certify", "share", "declassify", "aggregate", "erase",
			"assign", "transfer", "release", "recycle", "handover", "enter", "lock", "purge", "check", "merge", "shred"},
	}
	for range subjects {
		d.subjects = append(d.subjects, authz.Subject{
			Roles: some(d, d.roles...), Level: max(0, d.IntN(6)-3), Compartments: some(d, "legal", "board"),
			Zone: pick(d, "Asia/Shanghai", "UTC", "Mars/Olympus", ""), Region: pick(d, "cn", "eu", ""), Device: pick(d, "managed", ""),
			Pools: some(d, "p1", "p2", ""),
		})
		if s := &d.subjects[len(d.subjects)-1]; d.IntN(4) > 0 {
			s.Roles, s.Level = []string{pick(d, d.roles[:7]...)}, 0 // the usual one
		}
	}
	return d
}

func pick[T any](d *drawer, from ...T) T { return from[d.IntN(len(from))] }

func some[T any](d *drawer, from ...T) []T {
	var out []T
	for _, x := range from {
		if d.IntN(3) == 0 {
			out = append(out, x)
		}
	}
	return out
}

var start = time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC) // a Monday

func (d *drawer) request() authz.Request {
	when := func() time.Time { return start.Add(time.Duration(d.IntN(7)-3) * time.Hour) }
	actions := func() []authz.Action {
		return some(d, authz.Read, authz.List, authz.Update, authz.Share, authz.Transfer)
	}
	ids := []string{"e1", "e1", "e2", "e3", ""}
	subject := pick(d, d.subjects...)
	subject.ID, subject.Tenant, subject.Active = pick(d, "e1", "e1", "e2", "system", ""), pick(d, "t", "t", "t", "t", "t", "u", ""), d.IntN(12) > 0
	subject.Team = pick(d, "/east/", "/east/1/", "/", "", "east")
	r := authz.Request{
		Subject: subject,
		Action:  authz.Action(pick(d, d.actions[d.IntN(1+d.IntN(len(d.actions)))], "list", "read")),
		Resource: authz.Resource{
			Tenant: pick(d, "t", "t", "t", "t", "t", "u", ""), Type: pick(d, d.types...), ID: pick(d, "r1", "r2"),
			Owner: pick(d, ids...), Team: pick(d, "/east/", "/east/1/", "/east/10/", "/west/", ""),
			State: pick(d, "draft", "accepted", "ended", "new", ""), Level: max(0, d.IntN(8)-5), Compartments: pick(d, nil, nil, some(d, "legal", "board", "hr")),
			Actors: some(d, "e1", "e2"), Consents: some(d, "marketing", "service"), Held: d.IntN(4) == 0, Amount: int64(d.IntN(4)) * 10_000_000, Pool: pick(d, "p1", "p2", "", ""),
		},
		Environment: authz.Environment{Purpose: pick(d, "", "", "", "sales", "marketing"), Rows: pick(d, 0, 1, 600, 5000)},
	}
	if d.IntN(10) > 0 {
		r.Environment.Time = when()
	}
	if d.IntN(3) > 0 {
		r.Environment.Addr = pick(d, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("::1"))
	}
	if d.IntN(2) == 0 { // as most are in life: somebody at work, with a record of their own or of their team
		r.Subject.ID, r.Subject.Tenant, r.Subject.Active, r.Subject.Level = "e1", "t", true, 0
		r.Resource.Tenant, r.Resource.Owner, r.Resource.Level, r.Resource.Compartments = "t", pick(d, "e1", "e2"), 0, nil
		r.Subject.Team, r.Resource.Team = "/east/", pick(d, "/east/", "/east/1/", "/west/")
		r.Resource.Type, r.Environment.Purpose = pick(d, d.types[:4]...), ""
	}
	for range d.IntN(3) {
		r.Subject.Grants = append(r.Subject.Grants, authz.Grant{Role: pick(d, d.roles...), Until: when()})
		r.Subject.Shares = append(r.Subject.Shares, authz.Sharing{Record: pick(d, "r1", "r2", ""), By: pick(d, ids...), Actions: actions(), Until: when()})
		r.Subject.Delegations = append(r.Subject.Delegations, authz.Delegation{From: pick(d, ids...), Actions: actions(), Until: when()})
		r.Subject.Emergencies = append(r.Subject.Emergencies, authz.Emergency{Type: pick(d, d.types...), Approvers: some(d, "e1", "e2", "e3"), Until: when()})
	}
	return r
}

// store is a table of records in a real database that a filter is asked of.
type store struct {
	db      *sql.DB
	dialect cond.Dialect
}

const storeTable = `CREATE TABLE records (n INTEGER PRIMARY KEY, id TEXT NOT NULL, owner TEXT NOT NULL, team TEXT NOT NULL,
	state TEXT NOT NULL, pool TEXT NOT NULL, level BIGINT NOT NULL, amount BIGINT NOT NULL, held BOOLEAN NOT NULL,
	compartments TEXT NOT NULL, actors TEXT NOT NULL, consents TEXT NOT NULL)`

func (s store) put(t *testing.T, n int, r *authz.Resource) {
	insert := `INSERT INTO records VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`
	if s.dialect == cond.Dollar {
		insert = `INSERT INTO records VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)`
	}
	words := func(list []string) string {
		text, err := cond.Words(list)
		require.NoError(t, err)
		return text
	}
	_, err := s.db.Exec(insert, n, r.ID, r.Owner, r.Team, r.State, r.Pool, r.Level, r.Amount, r.Held, words(r.Compartments), words(r.Actors), words(r.Consents))
	require.NoError(t, err)
}

func (s store) admitted(t *testing.T, f authz.Filter) map[int]bool {
	text, args, err := f.SQL(s.dialect, func(name string) (string, error) { return `"` + name + `"`, nil })
	require.NoError(t, err)
	rows, err := s.db.Query("SELECT n FROM records WHERE "+text, args...)
	require.NoError(t, err, text)
	defer rows.Close()
	out := map[int]bool{}
	for rows.Next() {
		var n int
		require.NoError(t, rows.Scan(&n))
		out[n] = true
	}
	require.NoError(t, rows.Err())
	return out
}

// TestPlansAgree draws requests and records and asks plans, OPA, the filter as a function, and the filter in SQLite
// and PostgreSQL. All must agree.
func TestPlansAgree(t *testing.T) {
	lite, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	lite.SetMaxOpenConns(1)
	defer lite.Close()
	stores := map[string]store{"SQLite": {lite, cond.Question}}
	t.Run("SQLite", func(t *testing.T) { agree(t, stores) })
	t.Run("SQLite and PostgreSQL", func(t *testing.T) {
		pg := realtest.Postgres(t).DB
		_, err := lite.Exec("DROP TABLE IF EXISTS records")
		require.NoError(t, err)
		stores["PostgreSQL"] = store{pg, cond.Dollar}
		agree(t, stores)
	})
}

func agree(t *testing.T, stores map[string]store) {
	e := engine(t)
	seed := uint64(1)
	if *agreeFor > 0 {
		seed = uint64(time.Now().UnixNano())
	}
	subjects := 6
	if *agreeFor > 0 {
		subjects = 60
	}
	d := newDrawer(seed, subjects)
	var records []authz.Resource
	for range 120 {
		records = append(records, d.request().Resource)
	}
	for _, s := range stores {
		_, err := s.db.Exec(storeTable)
		require.NoError(t, err)
		for n := range records {
			s.put(t, n, &records[n])
		}
	}
	began := time.Now()
	decisions, lists, allowed := 0, 0, 0
	for n := 0; *agreeFor > 0 && time.Since(began) < *agreeFor || *agreeFor == 0 && n < 2400/len(stores); n++ {
		r := d.request()
		if testing.Short() && n > 600 {
			break
		}
		got, err := e.Decide(t.Context(), r)
		require.NoError(t, err)
		want, err := e.Evaluate(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, want, got, "seed %d: %+v", seed, r)
		decisions++
		if got.Allowed {
			allowed++
		}
		if n%8 > 0 {
			continue
		}
		f, err := e.Filter(t.Context(), r)
		require.NoError(t, err, "%+v", r)
		admit := f.Admit()
		found := map[string]map[int]bool{}
		for name, s := range stores {
			found[name] = s.admitted(t, f)
		}
		for i := range records {
			tenant, typ := r.Resource.Tenant, r.Resource.Type
			r.Resource = records[i]
			r.Resource.Tenant, r.Resource.Type = tenant, typ
			one, err := e.Decide(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, one.Allowed, admit(&r.Resource), "seed %d: filter %s: %+v", seed, f, r)
			for name := range stores {
				require.Equal(t, one.Allowed, found[name][i], "seed %d: %s: filter %s: %+v", seed, name, f, r)
			}
		}
		lists++
	}
	fmt.Fprintf(os.Stderr, "plans, OPA and filters in %d databases agree: %d decisions (%d allowed, %.0f %%), %d lists of %d records\n",
		len(stores), decisions, allowed, 100*float64(allowed)/float64(decisions), lists, len(records))
	require.Greater(t, allowed, decisions/20, "a good share of the requests is allowed")
}

package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/authz/authn/lockout/lockouttest"
	"github.com/crmguard/crmguard/authz/authn/lockout/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"

	_ "modernc.org/sqlite"
)

func open(t testing.TB, db *sql.DB, d, tenant string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), db, d, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sqlite(t testing.TB) *sql.DB {
	t.Helper()
	w, r, err := dialect.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "l.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}

func TestSQLite(t *testing.T) {
	lockouttest.TestStore(t, func(t testing.TB) lockout.Store { return open(t, sqlite(t), "sqlite", "default") })
}

func TestPostgres(t *testing.T) {
	lockouttest.TestStore(t, func(t testing.TB) lockout.Store { return open(t, realtest.Postgres(t).DB, "postgres", "default") })
}

// TestTenants: a tenant counts and sweeps its own only.
func TestTenants(t *testing.T) {
	db := sqlite(t)
	a, b := open(t, db, "sqlite", "a"), open(t, db, "sqlite", "b")
	k := lockout.Key{Kind: lockout.InTotal}
	set := func(rows []lockout.Row) bool { rows[0] = lockout.Row{Failures: 1, Ends: 5}; return true }
	if err := a.Update(t.Context(), []lockout.Key{k}, set); err != nil {
		t.Fatal(err)
	}
	if err := b.Sweep(t.Context(), 100, 0); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[*sqlstore.Store]uint32{a: 1, b: 0} {
		if r, err := s.Read(t.Context(), []lockout.Key{k}); err != nil || r[0].Failures != want {
			t.Errorf("%v, %v", r, err)
		}
	}
	for d, tenant := range map[string]string{"mysql": "a", "sqlite": ""} {
		if _, err := sqlstore.Open(t.Context(), db, d, tenant); err == nil {
			t.Errorf("%s, %q: no error", d, tenant)
		}
	}
}

// TestAway: a database that is gone refuses every try, and its error says nothing of whom.
func TestAway(t *testing.T) {
	db := sqlite(t)
	g, err := lockout.New(open(t, db, "sqlite", "a"), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := lockout.Attempt{Account: "zhang", Source: netip.MustParseAddr("192.0.2.1")}
	p, err := g.Begin(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, begin := g.Begin(t.Context(), a)
	_, locks := g.Locks(t.Context(), "zhang")
	_, release := g.Release(t.Context(), "zhang")
	for what, err := range map[string]error{"begin": begin, "locks": locks, "release": release, "succeed": p.Succeed(t.Context()), "undo": p.Undo(t.Context()), "sweep": g.Sweep(t.Context())} {
		if err == nil || strings.Contains(err.Error(), "zhang") || strings.Contains(err.Error(), "192.0") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// parallel begins 60 tries by turns and returns how many are allowed.
func parallel(t *testing.T, account func(int) string, guards ...*lockout.Guard) int64 {
	t.Helper()
	var allowed atomic.Int64
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			_, err := guards[i%len(guards)].Begin(t.Context(), lockout.Attempt{Account: account(i), Source: netip.MustParseAddr("192.0.2.1")})
			var r *lockout.RefusedError
			if err == nil {
				allowed.Add(1)
			} else if !errors.As(err, &r) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return allowed.Load()
}

// TestTwoHandles: of parallel tries through two handles of one file, as of two processes, four are allowed.
func TestTwoHandles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	var guards []*lockout.Guard
	for range 2 {
		w, r, err := dialect.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		g, err := lockout.New(open(t, w, "sqlite", "a"), make([]byte, 32), nil)
		if err != nil {
			t.Fatal(err)
		}
		guards = append(guards, g)
	}
	if n := parallel(t, one, guards...); n != 4 {
		t.Errorf("%d tries are allowed", n)
	}
	if n := parallel(t, many, guards...); n != 20 { // after zhang, the 21st
		t.Errorf("%d tries at many accounts are allowed", n)
	}
}

func one(int) string { return "zhang" }

func many(i int) string { return fmt.Sprint("person ", i) }

// TestPostgresCrash: while the server is down every try is refused; what was counted before is there after.
func TestPostgresCrash(t *testing.T) {
	server := realtest.Postgres(t)
	g, err := lockout.New(open(t, server.DB, "postgres", "a"), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	a := lockout.Attempt{Account: "zhang", Source: netip.MustParseAddr("192.0.2.1")}
	var pass *lockout.Pass
	for range 4 {
		if pass, err = g.Begin(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	server.Kill(t)
	var r *lockout.RefusedError
	for range 2 {
		if p, err := g.Begin(t.Context(), a); p != nil || err == nil || errors.As(err, &r) || strings.Contains(err.Error(), "zhang") {
			t.Errorf("%v", err)
		}
	}
	if err := pass.Succeed(t.Context()); err == nil {
		t.Error("a success that was not stored")
	}
	server.Start(t)
	if _, err := g.Begin(t.Context(), a); !errors.As(err, &r) || r.Need != lockout.Wait {
		t.Errorf("after the crash: %v", err)
	}
	if n, err := g.Release(t.Context(), "zhang"); n != 2 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if n := parallel(t, one, g); n != 4 {
		t.Errorf("%d tries are allowed", n)
	}
}

// TestNoNames: neither names nor addresses nor devices lie in the file.
func TestNoNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l.db")
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	g, err := lockout.New(open(t, w, "sqlite", "a"), make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"", "device-token"} {
		if _, err := g.Begin(t.Context(), lockout.Attempt{Account: "zhangwei", Source: netip.MustParseAddr("192.0.2.77"), Device: device}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), "authn_lockout") {
		t.Fatal("not the database", err)
	}
	for _, s := range []string{"zhangwei", "192.0.2.77", "\xc0\x00\x02\x4d", "device-token"} {
		if strings.Contains(string(b), s) {
			t.Errorf("%q lies there", s)
		}
	}
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", filepath.Join(dir, "lockout.db"))
	if err != nil {
		panic(err)
	}
	defer db.Close()
	store, err := sqlstore.Open(ctx, db, "sqlite", "default")
	if err != nil {
		panic(err)
	}
	guard, err := lockout.New(store, make([]byte, 32), nil) // a key from a file of mode 0600
	if err != nil {
		panic(err)
	}
	for range 5 {
		_, err = guard.Begin(ctx, lockout.Attempt{Account: "zhang@example.com", Source: netip.MustParseAddr("192.0.2.1")})
	}
	fmt.Println(err)
	// Output: lockout: too many failures
}

package sqlrecords_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/records"
	"github.com/crmguard/crmguard/authz/authn/records/recordstest"
	"github.com/crmguard/crmguard/authz/authn/records/sqlrecords"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"

	_ "modernc.org/sqlite"
)

func open(t testing.TB, db *sql.DB, d, tenant string) *sqlrecords.Store {
	t.Helper()
	s, err := sqlrecords.Open(t.Context(), db, d, tenant)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sqlite(t testing.TB) *sql.DB {
	t.Helper()
	w, r, err := dialect.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "r.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}

func TestSQLite(t *testing.T) {
	recordstest.TestStore(t, func(t testing.TB) records.Store { return open(t, sqlite(t), "sqlite", "default") })
}

func TestPostgres(t *testing.T) {
	recordstest.TestStore(t, func(t testing.TB) records.Store { return open(t, realtest.Postgres(t).DB, "postgres", "default") })
}

// TestTenants: a tenant sees its own only.
func TestTenants(t *testing.T) {
	db := sqlite(t)
	a, b := open(t, db, "sqlite", "a"), open(t, db, "sqlite", "b")
	if done, err := a.Swap(t.Context(), "k", "x", nil, []byte("1")); err != nil || !done {
		t.Fatal(done, err)
	}
	if r, err := b.Load(t.Context(), "k", "x"); err != nil || r != nil {
		t.Errorf("%q, %v", r, err)
	}
	if done, err := b.Swap(t.Context(), "k", "x", []byte("1"), nil); err != nil || done {
		t.Error(done, err)
	}
	for d, tenant := range map[string]string{"mysql": "a", "sqlite": ""} {
		if _, err := sqlrecords.Open(t.Context(), db, d, tenant); err == nil {
			t.Errorf("%s, %q: no error", d, tenant)
		}
	}
}

// TestAway: a database that is gone is an error, which says no value.
func TestAway(t *testing.T) {
	db := sqlite(t)
	s := open(t, db, "sqlite", "a")
	db.Close()
	_, err := s.Load(t.Context(), "k", "person-x")
	_, err2 := s.Swap(t.Context(), "k", "person-x", nil, []byte("1"))
	for _, err := range []error{err, err2} {
		if err == nil || strings.Contains(err.Error(), "person-x") {
			t.Error(err)
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
	db, err := sql.Open("sqlite", filepath.Join(dir, "crm.db"))
	if err != nil {
		panic(err)
	}
	defer db.Close()
	s, err := sqlrecords.Open(ctx, db, "sqlite", "default")
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Swap(ctx, "totp", "01a2", nil, []byte("a record")))
	// Output: true <nil>
}

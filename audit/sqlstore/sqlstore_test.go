package sqlstore_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

const origin = "crm.example.com/log"

// place says where a database is. It goes to other processes.
type place struct{ Dialect, Database string }

// handles opens the place as a program of its own would.
func (p place) handles(ctx context.Context) (w, r *sql.DB, err error) {
	if p.Dialect == "sqlite" {
		return dialect.OpenSQLite(ctx, p.Database)
	}
	w, err = sql.Open("pgx", p.Database)
	return w, w, err
}

// db opens the place for a test.
func (p place) db(t testing.TB) (w, r *sql.DB) {
	t.Helper()
	w, r, err := p.handles(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	return w, r
}

// store opens the log of the place for a test.
func (p place) store(t testing.TB, opts *sqlstore.Options) *sqlstore.Store {
	t.Helper()
	w, r := p.db(t)
	var o sqlstore.Options
	if opts != nil {
		o = *opts
	}
	o.Reads = r
	s, err := sqlstore.Open(context.Background(), w, p.Dialect, &o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// places are a file of SQLite's and a database of PostgreSQL's.
func places(t *testing.T, test func(t *testing.T, at place)) {
	t.Run("SQLite", func(t *testing.T) { test(t, place{"sqlite", filepath.Join(t.TempDir(), "log.db")}) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, place{"postgres", realtest.Postgres(t).DSN}) })
}

// fresh gives the suites a new log each time: another name in one database.
func fresh(at place) func(testing.TB) (driver.Store, func() driver.Store) {
	n := 0
	return func(t testing.TB) (driver.Store, func() driver.Store) {
		n++
		opts := &sqlstore.Options{Log: string(rune('a' + n))}
		return at.store(t, opts), func() driver.Store { return at.store(t, opts) }
	}
}

func TestStore(t *testing.T) {
	places(t, func(t *testing.T, at place) { audittest.TestStore(t, fresh(at)) })
	t.Run("SQLite in memory", func(t *testing.T) {
		audittest.TestStore(t, func(t testing.TB) (driver.Store, func() driver.Store) {
			db, err := sql.Open("sqlite", ":memory:")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			db.SetMaxOpenConns(1)
			again := func() driver.Store {
				s, err := sqlstore.Open(context.Background(), db, "sqlite", nil)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			return again(), again
		})
	})
}

func TestQueries(t *testing.T) {
	places(t, func(t *testing.T, at place) { audittest.TestQueries(t, fresh(at)) })
}

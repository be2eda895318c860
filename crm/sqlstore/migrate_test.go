package sqlstore_test

import (
	"database/sql"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// TestMigrateBackAndForth takes a database with rows to the version before and forward again, from each of the states that a
// program may have left.
func TestMigrateBackAndForth(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		wantReindexing(t, st, false) // a fresh database has nothing to be rebuilt
		fill(t, st)
		want, found, schema := keysIn(t, r), search(t, st), schemaOf(t, r, d)
		for name, between := range map[string]func(){
			"nothing": func() {},
			"a Reindex of the older program that was interrupted": func() {
				exec(t, w, "CREATE TABLE crm_reindex (type TEXT NOT NULL PRIMARY KEY, row_id BIGINT NOT NULL)",
					"INSERT INTO crm_reindex (type, row_id) VALUES ('thing', 399), ('order', 5)")
				if d == dialect.Postgres {
					exec(t, w, `ALTER TABLE crm_reindex ALTER COLUMN type TYPE TEXT COLLATE "C"`)
				}
			},
			"a restore of it": func() {
				for _, table := range []string{"crm_tokens", "crm_uniques"} { // see lose
					exec(t, w, map[dialect.Dialect]string{dialect.SQLite: "DROP TABLE ", dialect.Postgres: "TRUNCATE "}[d]+table)
				}
			},
			"a migration that was begun again and taken back": func() {
				wantReindexing(t, openStore(t, w, r, d), true)
				rollback(t, w, d, 1)
			},
		} {
			rollback(t, w, d, 1)
			if _, err := w.Exec("SELECT * FROM crm_persons"); err == nil {
				t.Fatalf("%s: the index is still there", name)
			}
			between()
			again := openStore(t, w, r, d)
			wantReindexing(t, again, true)
			wantReindexing(t, openStore(t, w, r, d), true) // the next start knows too
			if err := again.Reindex(t.Context(), nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantReindexing(t, again, false)
			wantReindexing(t, openStore(t, w, r, d), false)
			wantKeys(t, r, want)
			if got := schemaOf(t, r, d); !slices.Equal(got, schema) {
				t.Fatalf("%s: the schema became\n%s\nand was\n%s", name, strings.Join(got, "\n"), strings.Join(schema, "\n"))
			}
			if got := search(t, st); !slices.Equal(got, found) {
				t.Fatalf("%s: %d rows are found, want %d", name, len(got), len(found))
			}
		}
		rollback(t, w, d, 3) // where it is
		wantKeys(t, r, want)
		for _, to := range []int{-1, 0, 4} {
			if err := sqlstore.Rollback(t.Context(), w, d, to); err == nil {
				t.Fatalf("rolled back to %d", to)
			}
		}
		wantKeys(t, r, want)
		create(t, st, 1000, 1010)
	})
}

func rollback(t testing.TB, w *sql.DB, d dialect.Dialect, to int) {
	t.Helper()
	if err := sqlstore.Rollback(t.Context(), w, d, to); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateFirst takes over the tables of the first version, which Rollback makes again.
func TestMigrateFirst(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		first, err := os.ReadFile("migrations/" + string(d) + "/00001_rows.sql")
		if err != nil {
			t.Fatal(err)
		}
		if err := dialect.Migrate(t.Context(), w, d, fstest.MapFS{"00001_rows.sql": {Data: first}}, "crm_schema"); err != nil {
			t.Fatal(err)
		}
		schema := schemaOf(t, r, d)
		st := openStore(t, w, r, d)
		wantReindexing(t, st, false)
		rollback(t, w, d, 1)
		if got := schemaOf(t, r, d); !slices.Equal(got, schema) {
			t.Fatalf("the schema became\n%s\nand was\n%s", strings.Join(got, "\n"), strings.Join(schema, "\n"))
		}
		st = openStore(t, w, r, d)
		declare(t, st)
		create(t, st, 0, 10)
		// A restore may bring the note of the first version into tables of the last.
		exec(t, w, "DELETE FROM crm_schema WHERE version_id >= 2")
		st = openStore(t, w, r, d)
		wantReindexing(t, st, true)
		if err := st.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		declare(t, st)
		n, err := st.Count(t.Context(), crm.Query{
			Tenant: "default", Type: "thing", Where: crm.Everything{}, Persons: []crm.UUID{crmtest.PersonID(4).UUID(), crmtest.PersonID(5).UUID()},
		})
		if err != nil || n != 2 {
			t.Fatalf("%d rows of two persons, %v", n, err)
		}
	})
}

// TestNewerRefused opens a database that a later program has migrated.
func TestNewerRefused(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		fill(t, st)
		want := keysIn(t, r)
		exec(t, w, d.Rebind("INSERT INTO crm_schema (version_id, is_applied) VALUES (7, "+map[dialect.Dialect]string{dialect.SQLite: "1", dialect.Postgres: "TRUE"}[d]+")"))
		for name, call := range map[string]func() error{
			"Open":     func() error { _, err := sqlstore.Open(t.Context(), w, r, d); return err },
			"Rollback": func() error { return sqlstore.Rollback(t.Context(), w, d, 1) },
		} {
			var newer *sqlstore.NewerError
			if err := call(); !errors.As(err, &newer) || newer.Version != 7 || newer.Known != 3 {
				t.Errorf("%s: %v", name, err)
			} else if err.Error() != "crm/sqlstore: the tables are of version 7, newer than 3" {
				t.Errorf("%s: the error is %q", name, err)
			}
		}
		wantKeys(t, r, want)
		exec(t, w, "DELETE FROM crm_schema WHERE version_id = 7")
		wantReindexing(t, openStore(t, w, r, d), false)
		w.Close()
		if err := sqlstore.Rollback(t.Context(), w, d, 1); err == nil {
			t.Error("rolled back behind a closed handle")
		}
	})
	if err := sqlstore.Rollback(t.Context(), nil, "oracle", 1); err == nil {
		t.Error("rolled back an unknown dialect")
	}
}

package sqlstore_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/authz/authn/once/oncetest"
	"github.com/crmguard/crmguard/authz/authn/once/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func TestSQLite(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "once.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	testStore(t, w, "sqlite")
}

func TestPostgres(t *testing.T) { testStore(t, realtest.Postgres(t).DB, "postgres") }

func testStore(t *testing.T, db *sql.DB, dialectName string) {
	oncetest.TestStore(t, func(t testing.TB) once.Store {
		s, err := sqlstore.Open(t.Context(), db, dialectName)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "DELETE FROM authn_once"); err != nil {
			t.Fatal(err)
		}
		return s
	})
	if _, err := sqlstore.Open(t.Context(), db, "oracle"); err == nil {
		t.Error("an unknown dialect")
	}
}

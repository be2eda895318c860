package sqlstore_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/authz/authn/webauthn/sqlstore"
	"github.com/crmguard/crmguard/authz/authn/webauthn/webauthntest"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func TestSQLite(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "passkeys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	testStore(t, w, "sqlite", &sqlstore.Options{Reads: r})
}

func TestPostgres(t *testing.T) { testStore(t, realtest.Postgres(t).DB, "postgres", nil) }

func testStore(t *testing.T, db *sql.DB, dialectName string, opts *sqlstore.Options) {
	webauthntest.TestStore(t, func(t testing.TB) webauthn.Store {
		s, err := sqlstore.Open(t.Context(), db, dialectName, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"authn_passkey", "authn_passkey_user"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
	if _, err := sqlstore.Open(t.Context(), db, "oracle", nil); err == nil {
		t.Error("an unknown dialect")
	}
}

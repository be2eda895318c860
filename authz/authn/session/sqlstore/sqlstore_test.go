package sqlstore_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/session/sessiontest"
	"github.com/crmguard/crmguard/authz/authn/session/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func TestSQLite(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	testStore(t, w, "sqlite", &sqlstore.Options{Reads: r})
}

func TestPostgres(t *testing.T) {
	testStore(t, realtest.Postgres(t).DB, "postgres", nil)
}

func testStore(t *testing.T, db *sql.DB, dialectName string, opts *sqlstore.Options) {
	sessiontest.TestStore(t, func(t testing.TB) session.Store {
		s, err := sqlstore.Open(t.Context(), db, dialectName, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"authn_session", "authn_epoch"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
}

func TestOpenRefuses(t *testing.T) {
	if _, err := sqlstore.Open(t.Context(), nil, "oracle", nil); err == nil {
		t.Error("an unknown dialect")
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "below", "none.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := sqlstore.Open(t.Context(), db, "sqlite", nil); err == nil {
		t.Error("a database that cannot be opened")
	}
}

// TestErrorsHoldNoValues: what the database says of a statement stays inside.
func TestErrorsHoldNoValues(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := sqlstore.Open(t.Context(), w, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	_, _, err = s.Find(t.Context(), []byte("secret"))
	if err == nil || errors.Is(err, session.ErrNone) || strings.Contains(err.Error(), "secret") || !strings.HasPrefix(err.Error(), "authn/session/sqlstore: find") {
		t.Errorf("%v", err)
	}
	if _, err := s.End(t.Context(), session.Ending{Tenant: "acme", Person: "secret"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

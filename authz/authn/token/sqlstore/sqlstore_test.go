package sqlstore_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/authz/authn/token/sqlstore"
	"github.com/crmguard/crmguard/authz/authn/token/tokentest"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func TestSQLite(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "tokens.db"))
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
	tokentest.TestStore(t, func(t testing.TB) token.Store {
		s, err := sqlstore.Open(t.Context(), db, dialectName, opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "DELETE FROM authn_token"); err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestDamagedRow: a row that is not as it was written is an error of its own, and nothing of it gets out.
func TestDamagedRow(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "tokens.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	s, err := sqlstore.Open(t.Context(), w, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ scopes, sources string }{{"secret", "[]"}, {"[]", `["secret"]`}, {`{"secret":1}`, "null"}} {
		id := strings.Repeat("x", i+1)
		if _, err := w.Exec("INSERT INTO authn_token VALUES (?,'acme','svc','n','', ?, ?, 1, 2, 0, 0, x'00', x'00')", id, c.scopes, c.sources); err != nil {
			t.Fatal(err)
		}
		got, err := s.Find(t.Context(), id)
		if !errors.Is(err, token.ErrForged) || got.ID != "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
	if _, err := s.List(t.Context(), token.Query{Tenant: "acme"}); !errors.Is(err, token.ErrForged) {
		t.Errorf("%v", err)
	}
	if _, err := sqlstore.Open(t.Context(), nil, "oracle", nil); err == nil {
		t.Error("an unknown dialect")
	}
}

package sqlstore_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/fstest"
	"time"

	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func openSQLite(t testing.TB, path string) *sqlstore.Store {
	t.Helper()
	w, r, err := dialect.OpenSQLite(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	s, err := sqlstore.Open(context.Background(), w, "sqlite", &sqlstore.Options{Reads: r})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLite(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "keys.db"))
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

// testStore runs the suite in one database, emptied before each part.
func testStore(t *testing.T, db *sql.DB, dialectName string, opts *sqlstore.Options) {
	encrypttest.TestKeyStore(t, func(t testing.TB) keys.Store {
		s, err := sqlstore.Open(t.Context(), db, dialectName, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"encrypt_key", "encrypt_erasure", "encrypt_fence"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
}

// Tables of the first version are taken over with all that is in them.
func TestMigration(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	t.Run("sqlite", func(t *testing.T) { testMigration(t, w, dialect.SQLite) })
	t.Run("postgres", func(t *testing.T) { testMigration(t, realtest.Postgres(t).DB, dialect.Postgres) })
}

func testMigration(t *testing.T, db *sql.DB, d dialect.Dialect) {
	first, err := os.ReadFile("migrations/" + string(d) + "/00001_keys.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := dialect.Migrate(t.Context(), db, d, fstest.MapFS{"00001_keys.sql": {Data: first}}, "encrypt_schema"); err != nil {
		t.Fatal(err)
	}
	want := []keys.Record{
		{Tenant: "acme", ID: keyID(1), Kind: keys.EpochKey, Version: 1, Purpose: "kek", Wrapped: []byte("e")},
		{Tenant: "acme", ID: keyID(2), Kind: keys.PersonKey, Person: [16]byte{7}, Retention: keys.Tax, Epoch: keyID(1), Wrapped: []byte("w"), Commitment: []byte("c")},
		{Tenant: "acme", ID: keyID(3), Kind: keys.Tombstone, Retention: keys.Ordinary, Wrapped: []byte("m"), Commitment: []byte("o"), Number: 2},
	}
	for i := range want {
		r := &want[i]
		r.Created = time.Unix(1772366400, 0).UTC()
		if _, err := db.Exec(d.Rebind("INSERT INTO encrypt_key VALUES "+dialect.Placeholders(1, 13)), r.Tenant, r.ID[:], r.Slot(), string(r.Kind), r.Version, r.Purpose,
			r.Person[:], string(r.Retention), r.Epoch[:], r.Wrapped, append([]byte{}, r.Commitment...), r.Created.Unix(), r.Number); err != nil {
			t.Fatal(err)
		}
	}
	s, err := sqlstore.Open(t.Context(), db, string(d), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Find(t.Context(), "acme", keys.Query{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if len(got[i].Commitment) == 0 {
			got[i].Commitment = nil
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestOpenRefusesDialect(t *testing.T) {
	if _, err := sqlstore.Open(context.Background(), nil, "oracle", nil); err == nil {
		t.Fatal("opened an unknown dialect")
	}
}

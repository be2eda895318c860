package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

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
		for _, table := range []string{"encrypt_key", "encrypt_erasure"} {
			if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
}

func TestOpenRefusesDialect(t *testing.T) {
	if _, err := sqlstore.Open(context.Background(), nil, "oracle", nil); err == nil {
		t.Fatal("opened an unknown dialect")
	}
}

// A destroyed key leaves neither the file nor the write-ahead log with its bytes.
func TestErasureLeavesNoTrace(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "keys.db")
	s := openSQLite(t, path)
	needle := []byte("wrapped-key-of-somebody-0123456789")
	person := keys.Record{
		ID: keys.ID{2}, Kind: keys.PersonKey, Person: [16]byte{1}, Retention: keys.Ordinary,
		Epoch: keys.ID{1}, Wrapped: needle, Commitment: []byte("c"),
	}
	epoch := keys.Record{ID: keys.ID{1}, Kind: keys.EpochKey, Version: 1, Wrapped: []byte("e")}
	if err := s.Add(ctx, "acme", []keys.Record{epoch, person}); err != nil {
		t.Fatal(err)
	}
	files := func() (all []byte) {
		for _, f := range []string{path, path + "-wal"} {
			b, err := os.ReadFile(f)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	if !bytes.Contains(files(), needle) {
		t.Fatal("the search finds nothing even before the erasure")
	}
	tomb := keys.Record{ID: person.ID, Kind: keys.Tombstone, Retention: keys.Ordinary, Wrapped: []byte("m"), Commitment: []byte("o")}
	if _, err := s.Erase(ctx, "acme", []keys.Record{tomb}); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(files(), needle) {
		t.Fatal("the destroyed key is still in a file")
	}
}

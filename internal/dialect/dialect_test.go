package dialect_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/crmguard/crmguard/internal/dialect"

	_ "modernc.org/sqlite"
)

func TestRebind(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1":                "SELECT 1",
		"a = ? AND b = ?":         "a = $1 AND b = $2",
		"a = '?' AND b = ?":       "a = '?' AND b = $1",
		"a = 'it''s ?' AND b = ?": "a = 'it''s ?' AND b = $1",
		`"a?" = ?`:                `"a?" = $1`,
		`"a""?" = ?`:              `"a""?" = $1`,
		"? -- really?\n AND ?":    "$1 -- really?\n AND $2",
		"? -- really?":            "$1 -- really?",
		"? /* why? */ ?":          "$1 /* why? */ $2",
		"? /* why?":               "$1 /* why?",
		"? 'open ?":               "$1 'open ?",
		"(?,?,?,?,?,?,?,?,?,?,?)": "($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)",
		"a - ? / ?":               "a - $1 / $2",
	} {
		if got := dialect.Postgres.Rebind(query); got != want {
			t.Errorf("%q became %q, want %q", query, got, want)
		}
		if got := dialect.SQLite.Rebind(query); got != query {
			t.Errorf("SQLite: %q became %q", query, got)
		}
	}
}

func TestQuote(t *testing.T) {
	for name, want := range map[string]string{"a": `"a"`, `a"b`: `"a""b"`, "": `""`, "order": `"order"`} {
		if got := dialect.Postgres.Quote(name); got != want {
			t.Errorf("%q became %s, want %s", name, got, want)
		}
	}
	for _, test := range []struct {
		n, m int
		want string
	}{{0, 3, ""}, {2, 0, ""}, {1, 1, "(?)"}, {2, 3, "(?,?,?),(?,?,?)"}} {
		if got := dialect.Placeholders(test.n, test.m); got != test.want {
			t.Errorf("Placeholders(%d, %d) = %s", test.n, test.m, got)
		}
	}
	for _, name := range []string{"", "mysql", "SQLite", "postgres "} {
		if _, err := dialect.Parse(name); err == nil {
			t.Errorf("%q is a dialect", name)
		}
	}
}

type state string

func (s state) Error() string    { return "server says secret" }
func (s state) SQLState() string { return string(s) }

type code int

func (c code) Error() string { return "sqlite says secret" }
func (c code) Code() int     { return int(c) }

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err                           error
		retryable, unique, away, lost bool
	}{
		{nil, false, false, false, false},
		{errors.New("something"), false, false, false, false},
		{state("40001"), true, false, true, false},
		{state("40P01"), true, false, true, false},
		{state("40003"), false, false, true, true},
		{state("23505"), false, true, false, false},
		{state("23503"), false, false, false, false},
		{state("22P02"), false, false, false, false},
		{state("42601"), false, false, false, false},
		{state("57014"), false, false, false, false},
		{state("57P01"), false, false, true, true},
		{state("08006"), false, false, true, true},
		{state("53100"), false, false, true, false},
		{state("53300"), false, false, true, false},
		{state("28P01"), false, false, true, false},
		{state("25006"), false, false, true, false},
		{code(5), true, false, true, false},
		{code(517), true, false, true, false},
		{code(6), true, false, true, false},
		{code(13), false, false, true, false},
		{code(10), false, false, true, false},
		{code(778), false, false, true, false},
		{code(8), false, false, true, false},
		{code(1), false, false, false, false},
		{code(2067), false, true, false, false},
		{code(1555), false, true, false, false},
		{code(275), false, false, false, false}, // a check
		{driver.ErrBadConn, false, false, true, true},
		{io.ErrUnexpectedEOF, false, false, true, true},
		{context.Canceled, false, false, false, false},
		{context.DeadlineExceeded, false, false, false, false},
		{errors.New("database is locked"), true, false, true, false},
		{errors.New("UNIQUE constraint failed: t.a"), false, true, false, false},
	} {
		err := test.err
		if err != nil {
			err = fmt.Errorf("wrapped: %w", err)
		}
		if got := dialect.IsRetryable(err); got != test.retryable {
			t.Errorf("IsRetryable(%v) = %v", test.err, got)
		}
		if got := dialect.IsUnique(err); got != test.unique {
			t.Errorf("IsUnique(%v) = %v", test.err, got)
		}
		if got := dialect.IsUnavailable(err); got != test.away {
			t.Errorf("IsUnavailable(%v %s) = %v", test.err, dialect.Code(err), got)
		}
		if got := dialect.IsLost(err); got != test.lost {
			t.Errorf("IsLost(%v %s) = %v", test.err, dialect.Code(err), got)
		}
	}
}

func TestIsDamaged(t *testing.T) {
	for err, want := range map[error]bool{
		state("XX001"): true, state("XX002"): true, code(11): true, code(779): true, code(26): true,
		state("XX000"): false, code(10): false, code(5): false, io.EOF: false,
	} {
		if got := dialect.IsDamaged(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("IsDamaged(%v %s) = %v", err, dialect.Code(err), got)
		}
	}
	if dialect.IsDamaged(nil) {
		t.Error("nil is damage")
	}
}

func TestOpenSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?%41#.db")
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := w.Exec("CREATE TABLE t (a INTEGER)"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Exec("INSERT INTO t VALUES (1)"); err == nil {
		t.Error("the reading handle writes")
	}
	for _, bad := range []string{filepath.Join(path, "below a file"), t.TempDir()} {
		if _, _, err := dialect.OpenSQLite(t.Context(), bad); err == nil {
			t.Errorf("%s was opened", filepath.Base(bad))
		}
	}
}

func TestMigrate(t *testing.T) {
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "m.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	one := fstest.MapFS{"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (x INTEGER);\n-- +goose Down\nDROP TABLE a;\n")}}
	two := fstest.MapFS{"00001_b.sql": {Data: []byte("-- +goose Up\nCREATE TABLE b (x INTEGER);\n-- +goose Down\nDROP TABLE b;\n")}}
	for range 2 {
		for table, files := range map[string]fstest.MapFS{"one": one, "two": two} {
			if err := dialect.Migrate(t.Context(), w, dialect.SQLite, files, table); err != nil {
				t.Fatal(err)
			}
		}
	}
	further := fstest.MapFS{
		"00001_a.sql": one["00001_a.sql"],
		"00002_d.sql": {Data: []byte("-- +goose Up\nCREATE TABLE d (x INTEGER);\n-- +goose Down\nDROP TABLE d;\n")},
	}
	var newer *dialect.NewerError
	for range 2 {
		if err := dialect.Migrate(t.Context(), w, dialect.SQLite, further, "one"); err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func() error{
			"Migrate":  func() error { return dialect.Migrate(t.Context(), w, dialect.SQLite, one, "one") },
			"Rollback": func() error { return dialect.Rollback(t.Context(), w, dialect.SQLite, one, "one", 1) },
		} {
			if err := call(); !errors.As(err, &newer) || err.Error() != "dialect: one is at version 2, newer than 1" {
				t.Fatalf("%s of a newer database: %v", name, err)
			}
		}
		if _, err := w.Exec("SELECT x FROM d"); err != nil {
			t.Fatal(err)
		}
		for _, to := range []int64{-1, 0, 3} {
			if err := dialect.Rollback(t.Context(), w, dialect.SQLite, further, "one", to); !errors.Is(err, dialect.ErrNoVersion) {
				t.Fatalf("back to %d: %v", to, err)
			}
		}
		for _, to := range []int64{2, 1, 1} {
			if err := dialect.Rollback(t.Context(), w, dialect.SQLite, further, "one", to); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Exec("SELECT x FROM d"); err == nil {
			t.Error("what was rolled back is still there")
		}
	}
	if _, err := w.Exec("SELECT a.x FROM a, b"); err != nil {
		t.Error("a migration that stays, or another's, is gone")
	}
	broken := fstest.MapFS{
		"00001_a.sql": one["00001_a.sql"],
		"00002_c.sql": {Data: []byte("-- +goose Up\nCREATE TABLE c (x INTEGER);\nSECRET;\n")},
	}
	err = dialect.Migrate(t.Context(), w, dialect.SQLite, broken, "one")
	var failed *dialect.MigrationError
	if !errors.As(err, &failed) || err.Error() != "dialect: migration 2 of one failed (sqlite 1)" {
		t.Fatalf("got %v", err)
	}
	if _, err := w.Exec("SELECT x FROM c"); err == nil {
		t.Error("a failed migration left a table")
	}
}

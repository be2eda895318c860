package drill_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/drill"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

var (
	signer = backuptest.Signer()
	pin    = signer.Public().(ed25519.PublicKey)
)

// shop is a database with references, a repository of it with three snapshots, and how to drill it.
type shop struct {
	bucket *backuptest.Bucket
	repo   *backup.Repository
	open   func(context.Context) (drill.Scratch, error)
	folder string // where scratch files lie; empty for PostgreSQL
	db     *sql.DB
}

func ddl(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

var tables = []string{`CREATE TABLE customers (id BIGINT PRIMARY KEY, name TEXT NOT NULL)`,
	`CREATE TABLE contacts (id BIGINT PRIMARY KEY, customer BIGINT NOT NULL REFERENCES customers (id))`}

func newShop(t testing.TB, source *sqlsource.Database, db *sql.DB) *shop {
	t.Helper()
	s := &shop{bucket: &backuptest.Bucket{}, db: db}
	ddl(t, db, tables...)
	for i := range 500 {
		ddl(t, db, fmt.Sprintf(`INSERT INTO customers VALUES (%d, 'customer %d')`, i, i), fmt.Sprintf(`INSERT INTO contacts VALUES (%d, %d)`, i, i))
	}
	var err error
	s.repo, err = backup.Open(t.Context(), s.bucket, pin, &backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		ddl(t, db, fmt.Sprintf(`UPDATE customers SET name = 'step' WHERE id = %d`, i))
		if _, err := s.repo.Backup(t.Context(), source, &backup.BackupOptions{Chain: &policy.Chain{}}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func sqliteShop(t testing.TB) *shop {
	t.Helper()
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(w.Close(), r.Close()) })
	s := newShop(t, sqlsource.SQLite(w, nil), w)
	s.folder = t.TempDir()
	s.open = func(ctx context.Context) (drill.Scratch, error) { return sqlsource.ScratchSQLite(ctx, s.folder, nil) }
	return s
}

func (s *shop) run(t testing.TB, change func(*drill.Options)) (*drill.Report, []byte) {
	t.Helper()
	o := &drill.Options{Open: s.open, Key: backuptest.Key(t), Signer: signer}
	if change != nil {
		change(o)
	}
	rep, file, err := drill.Run(t.Context(), s.repo, o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := drill.Verify(file, pin)
	if err != nil || again.Passed != rep.Passed || again.Snapshot != rep.Snapshot {
		t.Fatalf("the report does not verify: %v", err)
	}
	if s.folder != "" {
		if left, err := os.ReadDir(s.folder); err != nil || len(left) > 0 {
			t.Fatalf("the scratch store is left: %v %v", left, err)
		}
	}
	return rep, file
}

func count(ctx context.Context, s drill.Scratch) error {
	var n int
	if err := s.(*sqlsource.Scratch).DB.QueryRowContext(ctx, "SELECT count(*) FROM contacts").Scan(&n); err != nil {
		return err
	}
	if n != 500 {
		return fmt.Errorf("%d contacts", n)
	}
	return nil
}

// TestDrill: a drill restores into a scratch database, compares every row and reports, on SQLite and PostgreSQL.
//
//crm:item 39
func TestDrill(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		s := sqliteShop(t)
		rep, file := s.run(t, func(o *drill.Options) { o.Check, o.Limit = count, time.Hour })
		if !rep.Passed || rep.Rows != 1000 || rep.Builds != 2 || rep.Restored <= 0 || len(rep.Tables) != 2 || len(rep.Steps) != 8 {
			t.Fatalf("%s", file)
		}
		t.Logf("%s", file)
		all, err := s.repo.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if rep, _ := s.run(t, func(o *drill.Options) { o.Snapshot = all[0].ID }); !rep.Passed || rep.Snapshot != all[0].ID {
			t.Fatalf("%+v", rep)
		}
		seen := map[string]bool{}
		for range 12 {
			rep, _ := s.run(t, func(o *drill.Options) { o.Random = true })
			seen[rep.Snapshot] = rep.Passed
		}
		if len(seen) < 2 {
			t.Error("a random snapshot is always the same")
		}
	})
	t.Run("postgres", func(t *testing.T) {
		p := realtest.Postgres(t)
		s := newShop(t, sqlsource.Postgres(p.DB, nil), p.DB)
		s.open = func(ctx context.Context) (drill.Scratch, error) {
			open := func(name string) (*sql.DB, error) {
				u, err := url.Parse(p.DSN)
				if err != nil {
					return nil, err
				}
				u.Path = "/" + name
				return sql.Open("pgx", u.String())
			}
			return sqlsource.ScratchPostgres(ctx, p.DB, open, &sqlsource.Options{Prepare: func(ctx context.Context, db *sql.DB) error {
				for _, q := range tables {
					if _, err := db.ExecContext(ctx, q); err != nil {
						return err
					}
				}
				return nil
			}})
		}
		rep, file := s.run(t, func(o *drill.Options) { o.Check = count })
		if !rep.Passed || rep.Rows != 1000 {
			t.Fatalf("%s", file)
		}
		var left int
		if err := p.DB.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_database WHERE datname LIKE 'crmguard_drill_%'").Scan(&left); err != nil || left > 0 {
			t.Fatal("the scratch database is left", err)
		}
	})
}

// TestBroken drills on backups that are broken, each in another way: the report is red, and says at which step.
//
//crm:item 39
func TestBroken(t *testing.T) {
	s := sqliteShop(t)
	var names []string
	for o, err := range s.bucket.List(t.Context(), "segments/") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	whole := s.bucket.Clone()
	other, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	step := func(rep *drill.Report) string {
		if rep.Passed {
			return "passed"
		}
		last := rep.Steps[len(rep.Steps)-1]
		if last.Passed || last.Fault == "" {
			t.Errorf("a red report without a fault: %+v", rep)
		}
		return last.Name
	}
	for i, name := range names {
		b := whole.Clone()
		d, err := b.Get(t.Context(), name, 0, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		d[len(d)/2] ^= 1
		b.Set(name, d)
		for _, gone := range []bool{false, true} {
			if gone {
				if err := b.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			s.repo, err = backup.Open(t.Context(), b, pin, nil)
			if err != nil {
				t.Fatal(err)
			}
			if rep, _ := s.run(t, nil); step(rep) == "passed" {
				t.Errorf("segment %d damaged: passed", i)
			}
		}
	}
	if s.repo, err = backup.Open(t.Context(), whole, pin, nil); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		change func(*drill.Options)
		want   string
	}{
		"another key":  {func(o *drill.Options) { o.Key = other }, "restore"},
		"no such one":  {func(o *drill.Options) { o.Snapshot = strings.Repeat("0", 32) }, "find"},
		"no store":     {func(o *drill.Options) { o.Open = func(context.Context) (drill.Scratch, error) { return nil, boom } }, "open"},
		"the check":    {func(o *drill.Options) { o.Check = func(context.Context, drill.Scratch) error { return boom } }, "check"},
		"too slow":     {func(o *drill.Options) { o.Limit = 1 }, "time"},
		"rows changed": {func(o *drill.Options) { o.Open = changed(s, `UPDATE customers SET name = 'x' WHERE id = 7`) }, "compare"},
		"rows gone":    {func(o *drill.Options) { o.Open = changed(s, `DELETE FROM contacts`) }, "compare"},
	} {
		rep, file := s.run(t, c.change)
		if got := step(rep); got != c.want {
			t.Errorf("%s: %s\n%s", name, got, file)
		}
	}
	for _, o := range []*drill.Options{nil, {}, {Open: s.open, Key: other}, {Open: s.open, Signer: signer}} {
		if _, _, err := drill.Run(t.Context(), s.repo, o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	// References that point nowhere are backed up as they are, and found.
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(w.Close(), r.Close()) })
	s2 := newShop(t, sqlsource.SQLite(w, nil), w)
	s2.open = s.open
	ddl(t, w, `PRAGMA foreign_keys = OFF`, `DELETE FROM customers WHERE id = 9`)
	if _, err := s2.repo.Backup(t.Context(), sqlsource.SQLite(w, nil), nil); err != nil {
		t.Fatal(err)
	}
	if rep, _ := s2.run(t, nil); step(rep) != "integrity" {
		t.Errorf("%+v", rep)
	}
	// Tombstones that nobody replays.
	if err := s2.repo.PutTombstones(t.Context(), backup.Tombstones{Number: 1, Records: [][]byte{{1}}}); err != nil {
		t.Fatal(err)
	}
	if rep, _ := s2.run(t, nil); step(rep) != "restore" {
		t.Errorf("%+v", rep)
	}
}

// changed is a scratch store that does something of its own after it was restored.
func changed(s *shop, q string) func(context.Context) (drill.Scratch, error) {
	return func(ctx context.Context) (drill.Scratch, error) {
		x, err := s.open(ctx)
		return tricky{x.(*sqlsource.Scratch), q}, err
	}
}

type tricky struct {
	*sqlsource.Scratch
	q string
}

func (x tricky) Load(ctx context.Context, r *backup.Reader) error {
	if err := x.Scratch.Load(ctx, r); err != nil {
		return err
	}
	_, err := x.DB.ExecContext(ctx, x.q)
	return err
}

// TestForged changes each byte of a report, and cuts it everywhere.
func TestForged(t *testing.T) {
	s := sqliteShop(t)
	_, file := s.run(t, nil)
	for i := range file {
		for _, bit := range []byte{1, 0x20} {
			f := append([]byte(nil), file...)
			f[i] ^= bit
			if _, err := drill.Verify(f, pin); err == nil {
				t.Fatalf("byte %d flipped: it verifies", i)
			}
		}
		if _, err := drill.Verify(file[:i], pin); err == nil {
			t.Fatalf("cut to %d: it verifies", i)
		}
	}
	if _, err := drill.Verify(append(file, '\n'), pin); !errors.Is(err, drill.ErrForged) {
		t.Error(err)
	}
	if _, err := drill.Verify(file, make(ed25519.PublicKey, 32)); !errors.Is(err, drill.ErrForged) {
		t.Error(err)
	}
	if _, err := drill.Verify([]byte("crmguard-drill-2\n"), pin); !errors.Is(err, drill.ErrVersion) {
		t.Error(err)
	}
}

// TestGolden reads a report of each version for ever.
func TestGolden(t *testing.T) {
	file := "testdata/report-1.txt"
	if os.Getenv("CRMGUARD_WRITE_GOLDEN") != "" {
		s := sqliteShop(t)
		_, b := s.run(t, func(o *drill.Options) { o.Limit = time.Minute })
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := drill.Verify(b, pin); err != nil || !rep.Passed || rep.Rows != 1000 || rep.Limit != 60 {
		t.Fatal(rep, err)
	}
}

func ExampleVerify() {
	b, err := os.ReadFile("testdata/report-1.txt")
	if err != nil {
		fmt.Println(err)
		return
	}
	rep, err := drill.Verify(b, pin)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(rep.Passed, rep.Rows, len(rep.Steps))
	// Output: true 1000 7
}

package records_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/records"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// shop is a store of customers with contacts and contracts, and a repository with three snapshots, before each of which ten records of 1,000
// changed.
type shop struct {
	db     *sql.DB
	d      dialect.Dialect
	source *sqlsource.Database
	repo   *backup.Repository
	snaps  []backup.Snapshot
	prefix string // of table names in snapshots
}

var schema = []string{
	`CREATE TABLE customers (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, phone BYTEA, city TEXT, change_seq BIGINT NOT NULL)`,
	`CREATE TABLE contacts (id BIGINT PRIMARY KEY, customer BIGINT NOT NULL REFERENCES customers (id) ON DELETE CASCADE, name TEXT, at TIMESTAMPTZ, change_seq BIGINT NOT NULL)`,
	`CREATE TABLE contracts (id BIGINT PRIMARY KEY, customer BIGINT NOT NULL REFERENCES customers (id) ON DELETE CASCADE, amount BIGINT, note TEXT, change_seq BIGINT NOT NULL)`,
}

func newShop(t testing.TB, db *sql.DB, d dialect.Dialect) *shop {
	t.Helper()
	s := &shop{db: db, d: d}
	opts := &sqlsource.Options{Changes: "change_seq"}
	if d == dialect.SQLite {
		s.source = sqlsource.SQLite(db, opts)
	} else {
		s.source, s.prefix = sqlsource.Postgres(db, opts), "public."
	}
	for _, q := range schema {
		if d == dialect.SQLite {
			q = strings.NewReplacer("BYTEA", "BLOB", "TIMESTAMPTZ", "TEXT", "BIGINT PRIMARY", "INTEGER PRIMARY").Replace(q)
		}
		s.exec(t, q)
	}
	n := 1000
	if testing.Short() {
		n = 150
	}
	for i := range n {
		s.exec(t, fmt.Sprintf(`INSERT INTO customers VALUES (%d, 'customer %d', NULL, 'Berlin', %d)`, i, i, i+1))
		s.exec(t, fmt.Sprintf(`INSERT INTO contacts VALUES (%d, %d, 'contact %d', '2026-01-02 03:04:05+00', %d)`, 10*i, i, i, i+1))
		s.exec(t, fmt.Sprintf(`INSERT INTO contracts VALUES (%d, %d, %d, 'a \ back%cslash', %d)`, i, i, 100*i, 9, i+1))
	}
	signer := backuptest.Signer()
	var err error
	s.repo, err = backup.Open(t.Context(), &backuptest.Bucket{}, signer.Public().(ed25519.PublicKey),
		&backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		for i := range 10 {
			s.exec(t, fmt.Sprintf(`UPDATE customers SET name = 'customer %d of %d', city = 'City %d', change_seq = (SELECT max(change_seq) + 1 FROM customers) WHERE id = %d`, i, n, n, i))
			s.exec(t, fmt.Sprintf(`UPDATE contracts SET amount = %d, change_seq = (SELECT max(change_seq) + 1 FROM contracts) WHERE id = %d`, n, i))
		}
		snap, err := s.repo.Backup(t.Context(), s.source, &backup.BackupOptions{Chain: &policy.Chain{}})
		if err != nil {
			t.Fatal(err)
		}
		s.snaps = append(s.snaps, snap)
	}
	return s
}

func (s *shop) exec(t testing.TB, q string) {
	t.Helper()
	if _, err := s.db.ExecContext(t.Context(), q); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// all is everything that the store has, but for change numbers.
func (s *shop) all(t testing.TB) (rows []string) {
	t.Helper()
	for _, q := range []string{"SELECT 'customer', id, name, city, 0 FROM customers ORDER BY id",
		"SELECT 'contact', id, name, CAST(at AS TEXT), customer FROM contacts ORDER BY id", "SELECT 'contract', id, note, CAST(amount AS TEXT), customer FROM contracts ORDER BY id"} {
		r, err := s.db.QueryContext(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			var kind string
			var id, ref int64
			var a, b sql.NullString
			if err := r.Scan(&kind, &id, &a, &b, &ref); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, fmt.Sprintf("%s %d %q %q %d", kind, id, a.String, b.String, ref))
		}
		if err := errors.Join(r.Err(), r.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// record reads customer id as of a snapshot, with all that names it.
func (s *shop) record(t testing.TB, snapshot int, id int64) []backup.Record {
	t.Helper()
	all, err := s.repo.Record(t.Context(), s.snaps[snapshot].ID, s.prefix+"customers", []any{id}, backuptest.Key(t), &backup.RecordOptions{Children: 1})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s *shop) plan(t testing.TB, all []backup.Record, o *records.Options) *records.Plan {
	t.Helper()
	if o == nil {
		o = &records.Options{}
	}
	o.Ignore = []string{"change_seq"}
	before := s.all(t)
	p, err := records.Make(t.Context(), s.source.Live(), all, o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(before, s.all(t)) {
		t.Fatal("planning wrote")
	}
	return p
}

// text is a plan as a person reads it.
func text(p *records.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%s %v %s", strings.TrimPrefix(s.Table, "public."), s.Key, s.Action)
		for _, f := range s.Fields {
			if s.Action == records.Update || s.Action == records.Skipped {
				fmt.Fprintf(&b, " %s: %v -> %v (%t)", f.Column, f.Live, f.Snapshot, f.Write)
			}
		}
		if s.Err != nil {
			fmt.Fprintf(&b, ": %v", s.Err)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func both(t *testing.T, do func(t *testing.T, s *shop)) {
	t.Run("sqlite", func(t *testing.T) {
		w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = errors.Join(w.Close(), r.Close()) })
		do(t, newShop(t, w, dialect.SQLite))
	})
	t.Run("postgres", func(t *testing.T) {
		do(t, newShop(t, realtest.Postgres(t).DB, dialect.Postgres))
	})
}

// TestWriteBack restores record 7 as of the second of three backups with its contacts and contracts, the plan shown first.
func TestWriteBack(t *testing.T) {
	both(t, func(t *testing.T, s *shop) {
		s.exec(t, `DELETE FROM contacts WHERE customer = 7`)
		p := s.plan(t, s.record(t, 1, 7), &records.Options{Conflict: records.Overwrite})
		t.Logf("the plan:\n%s", text(p))
		want := "customers [7] update name: customer 7 of 3 -> customer 7 of 2 (true) city: City 3 -> City 2 (true)\n" +
			"contacts [70] create\ncontracts [7] update amount: 3 -> 2 (true)\n"
		if text(p) != want {
			t.Fatalf("the plan is\n%swant\n%s", text(p), want)
		}
		before := s.all(t)
		if err := p.Apply(t.Context(), s.source.Live()); err != nil {
			t.Fatal(err)
		}
		after := s.all(t)
		var differ []string
		for _, row := range after {
			if !slices.Contains(before, row) {
				differ = append(differ, row)
			}
		}
		if len(differ) != 3 || differ[0] != `customer 7 "customer 7 of 2" "City 2" 0` || !strings.HasPrefix(differ[1], `contact 70 "contact 7" "2026-01-02 03:04:05`) ||
			differ[2] != `contract 7 "a \\ back\tslash" "2" 7` && differ[2] != "contract 7 \"a \\\\ back\\tslash\" \"2\" 7" {
			t.Fatalf("%d rows differ: %q", len(differ), differ)
		}
		// It is the same now, and the next backup, by change numbers, has it.
		if got := text(s.plan(t, s.record(t, 1, 7), nil)); strings.Count(got, " same") != 3 {
			t.Fatal(got)
		}
		snap, err := s.repo.Backup(t.Context(), s.source, &backup.BackupOptions{Chain: &policy.Chain{}})
		if err != nil {
			t.Fatal(err)
		}
		s.snaps = append(s.snaps, snap)
		if got := s.record(t, 3, 7); got[0].Row[1] != "customer 7 of 2" || len(got) != 3 {
			t.Fatal("the next backup has not what was written back")
		}
		if err := p.Apply(t.Context(), s.source.Live()); !errors.Is(err, records.ErrChanged) {
			t.Fatalf("applied twice: %v", err)
		}
	})
}

func TestConflicts(t *testing.T) {
	both(t, func(t *testing.T, s *shop) {
		live := s.source.Live()
		// Skip, the default: what is there is left, and the plan says how it differs.
		p := s.plan(t, s.record(t, 0, 3)[:1], nil)
		if got := text(p); got != "customers [3] skipped name: customer 3 of 3 -> customer 3 of 1 (false) city: City 3 -> City 1 (false)\n" {
			t.Error(got)
		}
		before := s.all(t)
		if err := p.Apply(t.Context(), live); err != nil || !slices.Equal(before, s.all(t)) {
			t.Error("skipped and written", err)
		}
		// Chosen fields.
		p = s.plan(t, s.record(t, 0, 3)[:1], &records.Options{Conflict: records.Overwrite, Fields: []string{"city"}})
		if got := text(p); got != "customers [3] update name: customer 3 of 3 -> customer 3 of 1 (false) city: City 3 -> City 1 (true)\n" {
			t.Error(got)
		}
		if err := p.Apply(t.Context(), live); err != nil {
			t.Error(err)
		}
		if all := s.all(t); !slices.Contains(all, `customer 3 "customer 3 of 3" "City 1" 0`) {
			t.Error("chosen fields")
		}
		// Both: copies refer to copies.
		next := int64(5000)
		p = s.plan(t, s.record(t, 0, 4), &records.Options{Conflict: records.KeepBoth, NewKey: func(context.Context, backup.Record) ([]any, error) {
			next++
			return []any{next}, nil
		}})
		if got := text(p); got != "customers [4] copy\ncontacts [40] same\ncontracts [4] copy\n" {
			t.Error(got)
		}
		if err := p.Apply(t.Context(), live); err != nil {
			t.Error(err)
		}
		all := s.all(t)
		for _, want := range []string{`customer 4 "customer 4 of 3" "City 3" 0`, `customer 5001 "customer 4 of 1" "City 1" 0`,
			"contract 5002 \"a \\\\ back\\tslash\" \"1\" 5001"} {
			if !slices.Contains(all, want) {
				t.Errorf("no %s", want)
			}
		}
	})
}

func TestRefused(t *testing.T) {
	both(t, func(t *testing.T, s *shop) {
		live := s.source.Live()
		erased := errors.New("erased")
		// A person who was erased does not come back; what refers to the record finds it missing.
		s.exec(t, `DELETE FROM customers WHERE id = 5`)
		refuse := func(_ context.Context, r backup.Record) error {
			if strings.HasSuffix(r.Table, "customers") && r.Row[0] == int64(5) {
				return erased
			}
			return nil
		}
		p := s.plan(t, s.record(t, 2, 5), &records.Options{Conflict: records.Overwrite, Refuse: refuse})
		if len(p.Steps) != 3 || !errors.Is(p.Steps[0].Err, erased) || !errors.Is(p.Steps[1].Err, records.ErrParent) || !errors.Is(p.Steps[2].Err, records.ErrParent) {
			t.Error(text(p))
		}
		before := s.all(t)
		if err := p.Apply(t.Context(), live); err != nil || !slices.Equal(before, s.all(t)) {
			t.Error("refused and written", err)
		}
		// A contract whose customer is missing, and with it.
		contract, err := s.repo.Record(t.Context(), "", s.prefix+"contracts", []any{int64(5)}, backuptest.Key(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := s.plan(t, contract, nil); !errors.Is(p.Steps[0].Err, records.ErrParent) {
			t.Error(text(p))
		}
		if contract, err = s.repo.Record(t.Context(), "", s.prefix+"contracts", []any{int64(5)}, backuptest.Key(t), &backup.RecordOptions{Parents: 1}); err != nil {
			t.Fatal(err)
		}
		p = s.plan(t, contract, nil)
		if got := text(p); got != "customers [5] create\ncontracts [5] create\n" {
			t.Error(got)
		}
		// Somebody is faster.
		s.exec(t, `INSERT INTO customers VALUES (5, 'somebody else', NULL, NULL, 99999)`)
		before = s.all(t)
		if err := p.Apply(t.Context(), live); !errors.Is(err, records.ErrChanged) || !slices.Equal(before, s.all(t)) {
			t.Error(err)
		}
		p = s.plan(t, s.record(t, 0, 6), &records.Options{Conflict: records.Overwrite})
		s.exec(t, `UPDATE contracts SET note = 'new' WHERE id = 6`)
		before = s.all(t)
		if err := p.Apply(t.Context(), live); !errors.Is(err, records.ErrChanged) || !slices.Equal(before, s.all(t)) {
			t.Error(err)
		}
		// A rule of the store: nothing of the plan is kept, and the values are not in the error.
		s.exec(t, `UPDATE customers SET name = 'customer 8 of 1' WHERE id = 100`)
		p = s.plan(t, s.record(t, 0, 8), &records.Options{Conflict: records.Overwrite})
		before = s.all(t)
		if err := p.Apply(t.Context(), live); err == nil || strings.Contains(err.Error(), "customer 8") || !slices.Equal(before, s.all(t)) {
			t.Error(err)
		}
		// What was deleted in the snapshot, and another schema.
		gone := s.record(t, 0, 9)[:1]
		gone[0].Row = nil
		if p := s.plan(t, gone, nil); !errors.Is(p.Steps[0].Err, records.ErrGone) {
			t.Error(text(p))
		}
		s.exec(t, `ALTER TABLE customers DROP COLUMN city`)
		if p, err := records.Make(t.Context(), live, s.record(t, 0, 9)[:1], nil); err != nil || !errors.Is(p.Steps[0].Err, records.ErrForm) {
			t.Error(text(p), err)
		}
		for name, o := range map[string]*records.Options{
			"no new key": {Conflict: records.KeepBoth}, "unknown field": {Fields: []string{"nope"}}, "a key": {Fields: []string{"id"}},
		} {
			if _, err := records.Make(t.Context(), live, s.record(t, 0, 9), o); err == nil {
				t.Errorf("%s is accepted", name)
			}
		}
		if _, err := records.Make(t.Context(), live, nil, nil); err == nil {
			t.Error("nothing is accepted")
		}
	})
}

package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func keys(t testing.TB) []string { return []string{audittest.Signer(t, origin).VerifierKey()} }

// history writes a log of so many batches and returns its head.
func history(t testing.TB, store driver.Store, batches int) (pin []byte) {
	t.Helper()
	ctx := context.Background()
	l, err := audit.Open(ctx, store, audittest.Signer(t, origin), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range batches {
		var list []audit.Event
		for j := range 1 + i%3 {
			list = append(list, event(10*i+j))
		}
		if _, err := l.AppendAll(ctx, list); err != nil {
			t.Fatal(err)
		}
	}
	c, err := l.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return c.Note
}

type row struct {
	first, events, crc int64
	data               []byte
}

// fix makes the checksum right, as a forger would.
func (r row) fix() row {
	b := binary.BigEndian.AppendUint64(nil, uint64(r.first))
	b = binary.BigEndian.AppendUint32(b, uint32(r.events))
	r.crc = int64(crc32.Checksum(append(b, r.data...), crc32.MakeTable(crc32.Castagnoli)))
	return r
}

// table is the table of batches of one database, for a forger.
type table struct {
	t  *testing.T
	db *sql.DB
	d  dialect.Dialect
}

func (tb table) exec(text string, args ...any) {
	tb.t.Helper()
	if _, err := tb.db.Exec(tb.d.Rebind(text), args...); err != nil {
		tb.t.Fatal(err)
	}
}

func (tb table) rows(log string) (list []row) {
	tb.t.Helper()
	rows, err := tb.db.Query(tb.d.Rebind("SELECT first, events, crc, data FROM audit_batches WHERE log = ? ORDER BY first"), log)
	if err != nil {
		tb.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.first, &r.events, &r.crc, &r.data); err != nil {
			tb.t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// set makes these the rows of the log "log".
func (tb table) set(list []row) {
	tb.t.Helper()
	tx, err := tb.db.Begin()
	if err != nil {
		tb.t.Fatal(err)
	}
	defer tx.Rollback()
	var args []any
	for _, r := range list {
		args = append(args, "log", r.first, r.events, r.crc, r.data)
	}
	_, err = tx.Exec("DELETE FROM audit_batches WHERE log = 'log'")
	if err == nil {
		_, err = tx.Exec(tb.d.Rebind("INSERT INTO audit_batches (log, first, events, crc, data) VALUES "+dialect.Placeholders(len(list), 5)), args...)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		tb.t.Fatal(err)
	}
}

// Whatever is done to a row is found.
func TestTamper(t *testing.T) {
	ctx := context.Background()
	places(t, func(t *testing.T, at place) {
		store := at.store(t, nil)
		pin := history(t, store, 8)
		other := history(t, at.store(t, &sqlstore.Options{Log: "other"}), 4)
		w, _ := at.db(t)
		tb := table{t, w, dialect.Dialect(at.Dialect)}
		whole, foreign := tb.rows("log"), tb.rows("other")
		if len(whole) != 9 || len(foreign) != 5 || bytes.Equal(pin, other) {
			t.Fatal(len(whole), len(foreign))
		}
		checks := 0
		check := func(good bool, want ...audit.State) {
			t.Helper()
			var v audit.Verdict
			for _, pins := range [][][]byte{{pin}, nil} {
				var err error
				if v, err = audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Pins: pins}); err != nil {
					t.Fatal(err)
				}
				if good && v.State != audit.Unanchored && v.State != audit.Pinned || !good && (v.OK() || v.State == audit.Unanchored) {
					t.Fatalf("pins %d: %v", len(pins), v)
				}
			}
			for _, s := range want {
				if v.State != s {
					t.Fatalf("%v, want %v", v, s)
				}
			}
			if checks++; !good && checks%10 != 0 {
				return
			}
			if l, err := audit.Open(ctx, store, audittest.Signer(t, origin), nil); (err == nil) != good {
				t.Fatalf("open: %v", err)
			} else if err == nil {
				l.Close()
			}
		}
		check(true)
		found := 0
		try := func(list []row, want ...audit.State) {
			t.Helper()
			tb.set(list)
			check(false, want...)
			found++
		}
		with := func(i int, f func(*row)) []row {
			list := append([]row(nil), whole...)
			list[i].data = bytes.Clone(list[i].data)
			f(&list[i])
			return list
		}
		for i := range whole {
			step := max(1, len(whole[i].data)/5)
			if os.Getenv("CRMGUARD_SOAK") != "" {
				step = 1
			}
			for off := 0; off < len(whole[i].data); off += step {
				flip := func(r *row) { r.data[off] ^= 1 << (off % 8) }
				try(with(i, flip), audit.Altered)
				try(with(i, func(r *row) { flip(r); *r = r.fix() }))
			}
			try(with(i, func(r *row) { r.crc ^= 1 << i }), audit.Altered)
			try(with(i, func(r *row) { r.crc = -1 }), audit.Altered)
			for _, f := range []func(*row){
				func(r *row) { r.events++ },
				func(r *row) { r.events = 0 },
				func(r *row) { r.events = -r.events },
				func(r *row) { r.events = 1 << 40 },
				func(r *row) { r.first = -1 },
				func(r *row) { r.first += 1 << 62 },
				func(r *row) { r.data = []byte{} },
				func(r *row) { r.data = r.data[:len(r.data)-1] },
				func(r *row) { r.data = append(r.data, 0) },
			} {
				try(with(i, f))
				try(with(i, func(r *row) { f(r); *r = r.fix() }))
			}
			less := append(append([]row(nil), whole[:i]...), whole[i+1:]...)
			switch i {
			case len(whole) - 1:
				try(less, audit.Truncated) // the copy of the checkpoint tells
			default:
				try(less, audit.Altered)
			}
			for j := range i {
				list := append([]row(nil), whole...)
				list[i].data, list[j].data = whole[j].data, whole[i].data
				try(list, audit.Altered)
				list[i], list[j] = list[i].fix(), list[j].fix()
				try(list)
			}
		}
		end := whole[len(whole)-1].first + whole[len(whole)-1].events
		for _, f := range foreign {
			try(append(append([]row(nil), whole...), row{first: end, events: f.events, data: f.data}.fix()))
			list := append([]row(nil), whole...)
			list[4].data, list[4].events = f.data, f.events
			list[4] = list[4].fix()
			try(list)
			overlap := whole[5]
			if overlap.events == 1 {
				overlap = whole[6]
			}
			try(append(append([]row(nil), whole...), row{first: overlap.first + 1, events: f.events, data: f.data}.fix()), audit.Altered)
			try(append(append([]row(nil), whole...), row{first: -5, events: f.events, data: f.data}.fix()))
			try(append(append([]row(nil), whole...), row{first: end + 7, events: f.events, data: f.data}.fix()), audit.Altered)
		}
		try(foreign)
		tb.exec("DELETE FROM audit_batches WHERE log = 'log'")
		if v, err := audit.Verify(ctx, store, keys(t), nil); err != nil || v.OK() || v.State == audit.Unanchored {
			t.Fatal(v, err)
		}
		tb.set(whole)
		check(true)

		var head []byte
		if err := w.QueryRow("SELECT note FROM audit_head WHERE log = 'log'").Scan(&head); err != nil {
			t.Fatal(err)
		}
		for off := range head {
			b := bytes.Clone(head)
			b[off] ^= 1 << (off % 8)
			tb.exec("UPDATE audit_head SET note = ? WHERE log = 'log'", b)
			v, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Pins: [][]byte{pin}})
			if err != nil || v.OK() {
				t.Fatalf("head, byte %d: %v, %v", off, v, err)
			}
			found++
		}
		tb.exec("UPDATE audit_head SET note = (SELECT note FROM audit_head WHERE log = 'other') WHERE log = 'log'")
		check(false)
		tb.exec("UPDATE audit_head SET note = ? WHERE log = 'log'", head)
		check(true)
		t.Logf("%d ways of tampering, all found", found)
	})
}

// Damage of the database's own file is an error or a bad verdict, or hits
// nothing that counts; never a panic.
func TestDamagedFile(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "log.db")
	w, r, err := dialect.OpenSQLite(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlstore.Open(ctx, w, "sqlite", nil)
	if err != nil {
		t.Fatal(err)
	}
	pin := history(t, store, 40)
	r.Close()
	w.Close() // the write-ahead log is copied back
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]int{}
	step := len(whole) / 150
	if os.Getenv("CRMGUARD_SOAK") != "" {
		step = 7
	}
	for off := 0; off < len(whole); off += step {
		b := bytes.Clone(whole)
		b[off] ^= 1 << (off % 8)
		if off%2 == 0 {
			clear(b[off:min(off+100, len(b))])
		}
		p := filepath.Join(dir, fmt.Sprint(off, ".db"))
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		verdict := func() string {
			db, err := sql.Open("sqlite", "file:"+p+"?mode=ro")
			if err != nil {
				return "error"
			}
			defer db.Close()
			s, err := sqlstore.Open(ctx, db, "sqlite", nil)
			if err != nil {
				return "error"
			}
			v, err := audit.Verify(ctx, s, keys(t), &audit.VerifyOptions{Pins: [][]byte{pin}})
			if err != nil {
				return "error"
			}
			return v.State.String()
		}()
		states[verdict]++
		os.Remove(p)
	}
	t.Logf("%v", states)
	if states["Altered"] == 0 || states["Unanchored"] > 0 {
		t.Fatal("the file is not hit")
	}
}

// The log of version 1 in files, taken over batch by batch, is the same log.
func TestTakeOver(t *testing.T) {
	ctx := context.Background()
	for _, version := range []string{"v1", "v1-pruned"} {
		files, err := filestore.Open(filepath.Join("../testdata", version, "log"), nil)
		if err != nil {
			t.Fatal(err)
		}
		places(t, func(t *testing.T, at place) {
			store := at.store(t, nil)
			w, err := store.Writer(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var old, now [][]byte
			for b, err := range files.Batches(ctx, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Append(ctx, b); err != nil {
					t.Fatal(err)
				}
				old = append(old, bytes.Clone(b.Data))
			}
			w.Close()
			for b, err := range store.Batches(ctx, 0) {
				if err != nil {
					t.Fatal(err)
				}
				now = append(now, b.Data)
			}
			if len(old) == 0 || len(now) != len(old) || !bytes.Equal(bytes.Join(old, nil), bytes.Join(now, nil)) {
				t.Fatalf("%d batches became %d", len(old), len(now))
			}
		})
	}
}

// Tables that a later version has changed are refused.
func TestFormat(t *testing.T) {
	ctx := context.Background()
	places(t, func(t *testing.T, at place) {
		store := at.store(t, nil)
		w, _ := at.db(t)
		if _, err := w.Exec("INSERT INTO audit_schema (version_id, is_applied) VALUES (2, " + map[string]string{"sqlite": "1", "postgres": "true"}[at.Dialect] + ")"); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Writer(ctx); !errors.Is(err, driver.ErrFormat) {
			t.Errorf("writer: %v", err)
		}
		if _, err := sqlstore.Open(ctx, w, at.Dialect, nil); !errors.Is(err, driver.ErrFormat) {
			t.Errorf("open: %v", err)
		}
	})
}

var update = flag.Bool("update", false, "write the golden files anew: only for a new version of the tables")

// The tables stay what they are: testdata/schema-*.txt.
func TestSchema(t *testing.T) {
	lines := func(t *testing.T, db *sql.DB, query string) string {
		t.Helper()
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var b strings.Builder
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			b.WriteString(s + "\n")
		}
		return b.String()
	}
	golden := func(t *testing.T, name, got string) {
		t.Helper()
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != got {
			t.Fatalf("%v: the tables are\n%s\nwant\n%s", err, got, want)
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		at := place{"sqlite", filepath.Join(t.TempDir(), "log.db")}
		at.store(t, nil)
		w, _ := at.db(t)
		golden(t, "schema-sqlite.txt", lines(t, w, "SELECT sql FROM sqlite_master WHERE name LIKE 'audit_%' AND name <> 'audit_schema' AND sql <> '' ORDER BY name"))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		at := place{"postgres", realtest.Postgres(t).DSN}
		at.store(t, nil)
		w, _ := at.db(t)
		golden(t, "schema-postgres.txt", lines(t, w, `
			SELECT line FROM (
			SELECT table_name AS t, 1 AS k, ordinal_position AS n, table_name || ' ' || column_name || ' ' || data_type ||
				CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END AS line
			FROM information_schema.columns WHERE table_name IN ('audit_batches', 'audit_head', 'audit_writer')
			UNION ALL SELECT tablename, 2, 0, indexdef FROM pg_indexes WHERE tablename IN ('audit_batches', 'audit_head', 'audit_writer')) x
			ORDER BY t COLLATE "C", k, n`))
	})
}

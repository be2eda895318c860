package sqlstore_test

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// indexed are the types and tenants of fill.
var (
	indexedTypes   = []string{"thing", "order", "visit"}
	indexedTenants = []string{"default", "other"}
)

// fill stores 400 rows of three types and two tenants: some in the recycle bin, some that came back, some
// whose tokens changed, some without tokens, and an empty fourth type.
func fill(t testing.TB, st *sqlstore.Store) {
	t.Helper()
	schema := crmtest.Schema()
	if err := st.Declare(t.Context(), schema, crm.Schema{Type: "order"}, crm.Schema{Type: "visit"}, crm.Schema{Type: "empty"}); err != nil {
		t.Fatal(err)
	}
	var b crm.Batch
	add := func(row crm.Row, expect int64) {
		row.Version = expect + 1
		b.Writes = append(b.Writes, crm.Write{Row: row, Expect: expect})
	}
	apply := func() {
		t.Helper()
		if _, err := st.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Writes = nil
	}
	row := func(i int) crm.Row {
		r := crmtest.Row(indexedTenants[i%2], i)
		if r.Type = indexedTypes[i/5%3]; r.Type != "thing" {
			r.Clear = nil
		}
		if i%11 == 0 { // sealed, and not searched
			r.Sealed[0].Tokens, r.Sealed[1].Tokens = nil, nil
		}
		if i%13 == 0 {
			r.Sealed = nil
		}
		switch i % 4 { // of one person, of several, of nobody
		case 1:
			r.Persons = append(r.Persons, crmtest.PersonID(1000).UUID(), crmtest.PersonID(1000+i).UUID())
		case 2:
			r.Persons[0] = crm.UUID{}
		case 3:
			r.Persons = nil
		}
		if i%5 == 0 && len(r.Sealed) > 0 { // the same token in both fields
			r.Sealed[1].Tokens = append(r.Sealed[1].Tokens, r.Sealed[0].Tokens...)
		}
		return r
	}
	for i := range 400 {
		add(row(i), 0)
	}
	apply()
	for i := 0; i < 400; i += 7 {
		r := row(i)
		r.Deleted = true
		add(r, 1)
	}
	apply()
	for i := 0; i < 400; i += 7 {
		r := row(i)
		switch i / 7 % 3 {
		case 0: // restored
			add(r, 2)
		case 1: // erased
			r.Deleted, r.Sealed = true, nil
			add(r, 2)
		}
	}
	for i := 3; i < 400; i += 50 { // other tokens
		if r := row(i); i%7 != 0 {
			r.Sealed = row(i + 1000).Sealed
			add(r, 1)
		}
	}
	// It has the unique token of a row in the recycle bin, which is of the same type and tenant.
	r := row(44)
	r.Sealed = row(14).Sealed
	add(r, 1)
	apply()
}

// indexes are the tables that Reindex makes, with the column of their key.
var indexes = [...][2]string{{"crm_tokens", "token"}, {"crm_uniques", "token"}, {"crm_persons", "person"}}

// keysIn returns the indexes in the order of their keys.
func keysIn(t testing.TB, db *sql.DB) (all [len(indexes)][]string) {
	t.Helper()
	for i, index := range indexes {
		table := index[0]
		if both := "(SELECT * FROM crm_tokens UNION ALL SELECT * FROM crm_recent) x"; i == 0 {
			if _, err := db.Exec("SELECT 1 FROM " + both + " LIMIT 1"); err == nil { // of SQLite only, and not of its first versions
				table = both
			}
		}
		rows, err := db.Query("SELECT space, " + index[1] + ", row_id FROM " + table + " ORDER BY space, " + index[1] + ", row_id")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var in, number int64
			var key any
			if err := rows.Scan(&in, &key, &number); err != nil {
				t.Fatal(err)
			}
			all[i] = append(all[i], fmt.Sprintf("%d %x %d", in, key, number))
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	return all
}

func wantKeys(t testing.TB, db *sql.DB, want [len(indexes)][]string) {
	t.Helper()
	got := keysIn(t, db)
	for i, index := range indexes {
		if !slices.Equal(got[i], want[i]) {
			t.Fatalf("%s has %d rows, want %d, or others", index[0], len(got[i]), len(want[i]))
		}
	}
}

func wantReindexing(t testing.TB, st *sqlstore.Store, want bool) {
	t.Helper()
	if got, err := st.Reindexing(t.Context()); err != nil || got != want {
		t.Fatalf("Reindexing is %v, %v, want %v", got, err, want)
	}
}

// lose leaves the indexes as a restore does: SQLite has none, PostgreSQL has those of the migrations.
func lose(t testing.TB, db *sql.DB, d dialect.Dialect) {
	t.Helper()
	exec(t, db, "DROP TABLE IF EXISTS crm_reindex")
	for _, index := range indexes {
		q := "DROP TABLE " + index[0]
		if d == dialect.Postgres {
			q = "TRUNCATE " + index[0]
		}
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
}

// search returns which rows of each type and tenant some tokens and persons find.
func search(t testing.TB, st *sqlstore.Store) (found []string) {
	t.Helper()
	for _, typ := range indexedTypes {
		for _, tenant := range indexedTenants {
			for g := range 40 {
				for _, deletion := range []crm.Deletion{crm.Living, crm.InBin} {
					page, err := st.List(t.Context(), crm.Query{
						Tenant: tenant, Type: typ, Where: crm.Everything{}, Deletion: deletion, Limit: 100,
						Tokens: []int64{crmtest.TokenOf(g, 1), crmtest.TokenOf(g, 9)},
					})
					if err != nil {
						t.Fatal(err)
					}
					for _, r := range page.Rows {
						found = append(found, fmt.Sprintf("%s %s %d %d %s", typ, tenant, g, deletion, r.ID))
					}
				}
			}
			page, err := st.List(t.Context(), crm.Query{
				Tenant: tenant, Type: typ, Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1000,
				Persons: []crm.UUID{crmtest.PersonID(1000).UUID(), crmtest.PersonID(4).UUID()},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Rows {
				found = append(found, fmt.Sprintf("%s %s person %s", typ, tenant, r.ID))
			}
		}
	}
	return found
}

// schemaOf describes all tables and indexes but those of types.
func schemaOf(t testing.TB, db *sql.DB, d dialect.Dialect) []string {
	t.Helper()
	q := "SELECT type || ' ' || name || ' ' || COALESCE(sql, '') FROM sqlite_master WHERE tbl_name NOT LIKE 'crm_rows_%' AND tbl_name NOT LIKE 'sqlite_stat_'"
	if d == dialect.Postgres {
		q = `SELECT table_name || ' ' || ordinal_position || ' ' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' ||
				COALESCE(column_default, '') || ' ' || COALESCE(collation_name, '')
			FROM information_schema.columns WHERE table_schema = current_schema() AND table_name NOT LIKE 'crm_rows_%'
			UNION ALL SELECT tablename || ' ' || indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename NOT LIKE 'crm_rows_%'
			UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
			WHERE connamespace = current_schema()::regnamespace AND conrelid::regclass::text NOT LIKE 'crm_rows_%'`
	}
	rows, err := db.Query(q)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func TestReindex(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		filled := openStore(t, w, r, d)
		fill(t, filled)
		wantReindexing(t, filled, false)
		want, found, schema := keysIn(t, r), search(t, filled), schemaOf(t, r, d)
		if len(want[0]) < 1500 || len(want[1]) < 250 || len(want[2]) < 250 || len(found) < 300 || len(schema) < 10 {
			t.Fatalf("%d tokens, %d uniques, %d persons, %d found, %d in the schema", len(want[0]), len(want[1]), len(want[2]), len(found), len(schema))
		}
		for _, cost := range []int{1, 100, 500_000} {
			for _, missing := range []bool{false, true}[:min(cost, 2)] {
				lose(t, w, d)
				if missing && d == dialect.Postgres { // not what a restore leaves
					if _, err := w.Exec("DROP TABLE crm_uniques; DROP TABLE crm_tokens; DROP TABLE crm_persons"); err != nil {
						t.Fatal(err)
					}
				}
				st := openStore(t, w, r, d) // no type is declared
				wantReindexing(t, st, missing || d == dialect.SQLite)
				back := sqlstore.SetReindexCost(cost)
				var last, of int64
				calls := 0
				err := st.Reindex(t.Context(), func(done, total int64) {
					if calls++; done < last || done > total || total != 400 {
						t.Errorf("%d of %d rows after %d", done, total, last)
					}
					last, of = done, total
				})
				back()
				if err != nil || last != of {
					t.Fatalf("%v, %d of %d rows", err, last, of)
				}
				if cost == 1 && calls != 401 || cost == 500_000 && calls != 1 || cost == 100 && calls < 20 {
					t.Errorf("cost %d: %d transactions", cost, calls)
				}
				wantKeys(t, r, want)
				wantReindexing(t, st, false)
				if got := schemaOf(t, r, d); !slices.Equal(got, schema) {
					t.Fatalf("the schema became\n%s\nand was\n%s", strings.Join(got, "\n"), strings.Join(schema, "\n"))
				}
			}
		}
		if got := search(t, filled); !slices.Equal(got, found) {
			t.Fatalf("tokens find %d rows, want %d", len(got), len(found))
		}
		// A store that has its tokens keeps them, but for those of no row.
		exec(t, w, "INSERT INTO crm_tokens (space, token, row_id) VALUES (1, 5, 5000), (99, 1, 1)")
		if _, err := w.Exec(d.Rebind("INSERT INTO crm_persons (space, person, row_id) VALUES (1, ?, 1)"), make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		if err := filled.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, r, want)
		// The rebuilt tables are written to as before.
		row := crmtest.Row("default", 6)
		row.Type, row.Clear = "order", nil
		row.ID[15]++
		var write *crm.WriteError
		_, err := filled.Apply(t.Context(), crm.Batch{Writes: []crm.Write{{Row: row}}})
		if !errors.As(err, &write) || !errors.Is(err, crm.ErrDuplicate) {
			t.Fatalf("a unique token twice: %v", err)
		}
	})
}

// TestReindexFresh compares with the schema of a store in which nothing was rebuilt, and has no rows.
func TestReindexFresh(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		schema := schemaOf(t, r, d)
		if _, err := w.Exec("DROP TABLE crm_tokens"); err != nil {
			t.Fatal(err)
		}
		wantReindexing(t, st, true)
		if err := st.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := schemaOf(t, r, d); !slices.Equal(got, schema) {
			t.Fatalf("the schema became\n%s\nand was\n%s", strings.Join(got, "\n"), strings.Join(schema, "\n"))
		}
		declare(t, st)
		create(t, st, 0, 10)
	})
}

// TestReindexInterrupted ends a run after each of its transactions, and takes it up.
func TestReindexInterrupted(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		fill(t, openStore(t, w, r, d))
		want := keysIn(t, r)
		lose(t, w, d)
		defer sqlstore.SetReindexCost(150)()
		var last int64
		for runs := 1; ; runs++ {
			st := openStore(t, w, r, d)
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			before := last
			err := st.Reindex(ctx, func(done, total int64) {
				if calls++; done < before || total != 400 {
					t.Errorf("%d of %d rows after %d", done, total, before)
				}
				last = done
				cancel()
			})
			cancel()
			if calls != 1 || runs > 100 {
				t.Fatalf("%d transactions in run %d", calls, runs)
			}
			if err == nil {
				if runs < 15 || last != 400 {
					t.Fatalf("%d runs, %d rows", runs, last)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			wantReindexing(t, st, true)
			declare(t, st)
			wantRefused(t, st)
		}
		wantKeys(t, r, want)
		wantReindexing(t, openStore(t, w, r, d), false)
		st := openStore(t, w, r, d)
		declare(t, st)
		if n, err := st.Count(t.Context(), byPerson()); err != nil || n == 0 {
			t.Fatalf("%d rows of a person, %v", n, err)
		}
		// What another restore left tells nothing.
		ctx, cancel := context.WithCancel(t.Context())
		if err := openStore(t, w, r, d).Reindex(ctx, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		exec(t, w, "DROP TABLE crm_tokens")
		if err := openStore(t, w, r, d).Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, r, want)
		// Before the first transaction, nothing changes.
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if err := openStore(t, w, r, d).Reindex(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		wantKeys(t, r, want)
	})
}

// byPerson asks for what names the person of the first row.
func byPerson() crm.Query {
	return crm.Query{Tenant: indexedTenants[0], Type: "thing", Where: crm.Everything{}, Persons: []crm.UUID{crmtest.PersonID(0).UUID()}, Limit: 10}
}

// wantRefused expects that nobody's rows are asked of an index that is not whole.
func wantRefused(t *testing.T, st *sqlstore.Store) {
	t.Helper()
	q := byPerson()
	if n, err := st.Count(t.Context(), q); !errors.Is(err, crm.ErrReindexing) {
		t.Fatalf("count: %d, %v", n, err)
	}
	if page, err := st.List(t.Context(), q); !errors.Is(err, crm.ErrReindexing) {
		t.Fatalf("list: %d rows, %v", len(page.Rows), err)
	}
	if groups, err := st.Group(t.Context(), q, crm.Grouping{}); !errors.Is(err, crm.ErrReindexing) {
		t.Fatalf("group: %v, %v", groups, err)
	}
	q.Persons = nil
	if n, err := st.Count(t.Context(), q); err != nil || n == 0 {
		t.Fatalf("count of all: %d, %v", n, err)
	}
}

// TestReindexFails makes the database refuse a statement of the first transaction, of one in the middle
// and of the last, and the note of progress.
func TestReindexFails(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		fill(t, st)
		want := keysIn(t, r)
		defer sqlstore.SetReindexCost(150)()
		for _, test := range []struct {
			table string
			row   int
			after int64 // it fails after so many rows at least
		}{
			{"crm_tokens", 2, 0}, {"crm_tokens", 200, 0}, {"crm_tokens", 398, 100},
			{"crm_uniques", 2, 0}, {"crm_uniques", 200, 0}, {"crm_uniques", 398, 100},
			{"crm_persons", 2, 0}, {"crm_persons", 200, 0}, {"crm_persons", 397, 100}, {"crm_reindex", 0, 10},
		} {
			arm, disarm := trap(d, test.table, test.row)
			if test.table != "crm_reindex" {
				exec(t, w, arm...)
			}
			var before int64
			err := st.Reindex(t.Context(), func(done, _ int64) {
				if before = done; test.table == "crm_reindex" { // it exists only now
					exec(t, w, arm...)
				}
			})
			if err == nil || strings.Contains(err.Error(), "trapped") || before < test.after || before == 400 {
				t.Fatalf("%v: %v, after %d rows", test, err, before)
			}
			wantReindexing(t, st, true)
			err = st.Reindex(t.Context(), func(done, _ int64) { t.Errorf("%v: %d rows beside the trap", test, done) })
			if err == nil {
				t.Fatalf("%v: the trap is gone", test)
			}
			exec(t, w, disarm...)
			var first int64
			if err := st.Reindex(t.Context(), func(done, _ int64) { first = cmp.Or(first, done) }); err != nil {
				t.Fatal(err)
			}
			if first <= before {
				t.Errorf("%v: taken up at %d rows, after %d", test, first, before)
			}
			wantKeys(t, r, want)
			wantReindexing(t, st, false)
		}
	})
}

func exec(t testing.TB, db *sql.DB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
}

// trap returns statements that make a table refuse rows from a row_id on, and that end it.
func trap(d dialect.Dialect, table string, row int) (arm, disarm []string) {
	if d == dialect.SQLite {
		for i, event := range []string{"INSERT", "UPDATE"} {
			name := fmt.Sprintf("trap%d", i)
			arm = append(arm, fmt.Sprintf("CREATE TRIGGER %s BEFORE %s ON %s WHEN NEW.row_id >= %d BEGIN SELECT RAISE(ABORT, 'trapped'); END",
				name, event, table, row))
			disarm = append(disarm, "DROP TRIGGER "+name)
		}
		return arm, disarm
	}
	return []string{
		"CREATE OR REPLACE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$",
		fmt.Sprintf("CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON %s FOR EACH ROW WHEN (NEW.row_id >= %d) EXECUTE FUNCTION trap()", table, row),
	}, []string{"DROP TRIGGER trap ON " + table}
}

// TestReindexRefused checks that rows that no store wrote stop it, and are named without their content.
func TestReindexRefused(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		fill(t, st)
		want := keysIn(t, r)
		var body []byte
		if err := w.QueryRow("SELECT body FROM crm_rows_order WHERE row_id = 203").Scan(&body); err != nil {
			t.Fatal(err)
		}
		refused := func(name string, reason error, rowID int64) {
			t.Helper()
			lose(t, w, d)
			var row *sqlstore.RowError
			err := st.Reindex(t.Context(), nil)
			if !errors.As(err, &row) || row.Type != "order" || row.RowID != rowID || !errors.Is(err, reason) {
				t.Fatalf("%s: %v", name, err)
			}
			if err.Error() != fmt.Sprintf("crm/sqlstore: reindex: row %d of order: %v", rowID, reason) {
				t.Fatalf("%s: the error is %q", name, err)
			}
			wantReindexing(t, st, true)
		}
		defer sqlstore.SetReindexCost(150)()
		set := func(b []byte) {
			t.Helper()
			if _, err := w.Exec(d.Rebind("UPDATE crm_rows_order SET body = ? WHERE row_id = 203"), b); err != nil {
				t.Fatal(err)
			}
		}
		for name, torn := range map[string][]byte{
			"empty": {}, "torn": body[:len(body)-7], "longer": append(bytes.Clone(body), 0), "another format": append([]byte{2}, body[1:]...),
		} {
			set(torn)
			refused(name, crm.ErrDamaged, 203)
		}
		if d == dialect.SQLite {
			set(body)
			exec(t, w, "UPDATE crm_rows_order SET deleted = 'secret' WHERE row_id = 203")
			refused("text for a number", crm.ErrDamaged, 203)
			exec(t, w, "UPDATE crm_rows_order SET deleted = 0 WHERE row_id = 203")
		}
		// Two living rows with the same unique token, in one transaction and in two.
		for _, cost := range []int{150, 500_000} {
			back := sqlstore.SetReindexCost(cost)
			exec(t, w, "UPDATE crm_rows_order SET body = (SELECT body FROM crm_rows_order WHERE row_id = 7) WHERE row_id = 203")
			refused("duplicate", crm.ErrDuplicate, 203)
			back()
		}
		set(body)
		if err := st.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, r, want)
	})
}

// TestReindexBesideWriters lets a store write between the transactions.
func TestReindexBesideWriters(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		fill(t, st)
		lose(t, w, d)
		defer sqlstore.SetReindexCost(150)()
		n := 500
		err := st.Reindex(t.Context(), func(done, total int64) {
			if n == 600 || done == total {
				return
			}
			row := crmtest.Row("default", n)
			row.Type, row.Clear = "visit", nil
			old := crmtest.Row("default", (n-500)*30) // a thing, up to 390
			rows, err := st.Load(t.Context(), "default", "thing", []crm.UUID{old.ID})
			if err != nil {
				t.Error(err)
			}
			b := crm.Batch{Writes: []crm.Write{{Row: row}}}
			if v := rows[0].Version; v != 0 {
				old.Version, old.Sealed = v+1, old.Sealed[:1]
				b.Writes = append(b.Writes, crm.Write{Row: old, Expect: v})
			}
			if _, err := st.Apply(t.Context(), b); err != nil {
				t.Error(err)
			}
			n++
		})
		if err != nil || n < 510 {
			t.Fatalf("%v, %d writes", err, n-500)
		}
		got := keysIn(t, r)
		if err := st.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, r, got)
	})
}

// TestReindexTwice runs it twice at once: the transactions take turns.
func TestReindexTwice(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		fill(t, st)
		want := keysIn(t, r)
		lose(t, w, d)
		defer sqlstore.SetReindexCost(50)()
		errs := make(chan error)
		for range 3 {
			go func() { errs <- st.Reindex(t.Context(), nil) }()
		}
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		wantKeys(t, r, want)
		wantReindexing(t, st, false)
	})
}

func TestReindexUnavailable(t *testing.T) {
	p := realtest.Postgres(t)
	st := openStore(t, p.DB, p.DB, dialect.Postgres)
	fill(t, st)
	want := keysIn(t, p.DB)
	back := sqlstore.SetReindexCost(150)
	defer back()
	err := st.Reindex(t.Context(), func(done, _ int64) {
		if done > 200 {
			p.Kill(t)
		}
	})
	if !errors.Is(err, crm.ErrUnavailable) {
		t.Fatalf("a server that is gone: %v", err)
	}
	if _, err := st.Reindexing(t.Context()); !errors.Is(err, crm.ErrUnavailable) {
		t.Fatalf("a server that is gone: %v", err)
	}
	p.Start(t)
	wantReindexing(t, st, true)
	first := int64(0)
	if err := st.Reindex(t.Context(), func(done, _ int64) { first = cmp.Or(first, done) }); err != nil {
		t.Fatal(err)
	}
	if first <= 200 {
		t.Errorf("it was not taken up, but read %d rows", first)
	}
	wantKeys(t, p.DB, want)
}

// TestReindexSpeed logs how long 10,000 rows of six tokens each take, 100,000 with CRMGUARD_SOAK.
func TestReindexSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement")
	}
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		rows := 10_000
		if os.Getenv("CRMGUARD_SOAK") != "" {
			rows = 100_000
		}
		st := openStore(t, w, r, d)
		declare(t, st)
		for i := 0; i < rows; i += 1000 {
			create(t, st, i, i+1000)
		}
		want := keysIn(t, r)
		lose(t, w, d)
		start, cpu := time.Now(), processor(t)
		if err := st.Reindex(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		took, used := time.Since(start), processor(t)-cpu
		wantKeys(t, r, want)
		t.Logf("%d rows, %d tokens: %v (%.0f rows/s), of this process's processor time %v (%.0f rows/s)",
			rows, len(want[0]), took.Round(time.Millisecond), float64(rows)/took.Seconds(), used.Round(time.Millisecond), float64(rows)/used.Seconds())
	})
}

// processor returns the processor time that this process used.
func processor(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"

	_ "modernc.org/sqlite"
)

// openSQLite returns the handles of a fresh file.
func openSQLite(t testing.TB) (w, r *sql.DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "crm #1?.db")
	w, r, err := dialect.OpenSQLite(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return w, r, path
}

func openStore(t testing.TB, w, r *sql.DB, d dialect.Dialect) *sqlstore.Store {
	t.Helper()
	st, err := sqlstore.Open(context.Background(), w, r, d)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestSQLite(t *testing.T) {
	crmtest.TestStore(t, func(t testing.TB) crm.Store {
		w, r, _ := openSQLite(t)
		return openStore(t, w, r, dialect.SQLite)
	})
}

func TestPostgres(t *testing.T) {
	crmtest.TestStore(t, func(t testing.TB) crm.Store {
		p := realtest.Postgres(t)
		return openStore(t, p.DB, p.DB, dialect.Postgres)
	})
}

// each runs a test on both databases.
func each(t *testing.T, test func(t *testing.T, w, r *sql.DB, d dialect.Dialect)) {
	t.Run("SQLite", func(t *testing.T) {
		w, r, _ := openSQLite(t)
		test(t, w, r, dialect.SQLite)
	})
	t.Run("Postgres", func(t *testing.T) {
		p := realtest.Postgres(t)
		test(t, p.DB, p.DB, dialect.Postgres)
	})
}

func declare(t testing.TB, st *sqlstore.Store) {
	t.Helper()
	if err := st.Declare(t.Context(), crmtest.Schema()); err != nil {
		t.Fatal(err)
	}
}

// create stores rows from to to-1 in one batch.
func create(t testing.TB, st crm.Store, from, to int) {
	t.Helper()
	if err := tryCreate(t.Context(), st, from, to); err != nil {
		t.Fatal(err)
	}
}

func tryCreate(ctx context.Context, st crm.Store, from, to int) error {
	var b crm.Batch
	for i := from; i < to; i++ {
		b.Writes = append(b.Writes, crm.Write{Row: crmtest.Row("default", i)})
	}
	_, err := st.Apply(ctx, b)
	return err
}

func count(t testing.TB, st crm.Store) int64 {
	t.Helper()
	n, err := st.Count(t.Context(), crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestReopen(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		first := openStore(t, w, r, d)
		declare(t, first)
		create(t, first, 0, 5)
		second := openStore(t, w, r, d) // another program, or the next start
		if _, err := second.Load(t.Context(), "default", "thing", nil); err == nil {
			t.Fatal("a type is known before it is declared")
		}
		less := crmtest.Schema()
		less.Columns = less.Columns[1:]
		var req *crm.RequestError
		if err := second.Declare(t.Context(), less); !errors.As(err, &req) || req.Part != "schema" {
			t.Fatalf("a column less than stored: %v", err)
		}
		declare(t, second)
		create(t, second, 5, 10)
		create(t, first, 10, 12)
		if a, b := count(t, first), count(t, second); a != 12 || b != 12 {
			t.Fatalf("the two count %d and %d", a, b)
		}
	})
}

func TestTwoProgramsDeclare(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		openStore(t, w, r, d)
		errs := make(chan error)
		for range 4 {
			go func() {
				st, err := sqlstore.Open(t.Context(), w, r, d)
				if err == nil {
					err = st.Declare(t.Context(), crmtest.Schema(), crm.Schema{Type: "other"})
				}
				errs <- err
			}()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestListUsesIndex checks that SQLite walks an index for every page, later ones and those of rows
// without a value too, and never sorts.
func TestListUsesIndex(t *testing.T) {
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	create(t, st, 0, 300)
	for _, column := range []string{"", "owner", "stage", "amount", "due"} {
		for _, desc := range []bool{false, true} {
			q := crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Sort: column, Desc: desc, Limit: 50}
			for {
				texts, args, err := st.Statements(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for i := range texts {
					plan := explain(t, r, texts[i], args[i])
					if strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "SCAN") || !strings.Contains(plan, "USING INDEX") {
						t.Fatalf("sort %q, desc %v: %s", column, desc, plan)
					}
				}
				page, err := st.List(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if q.After = page.Next; page.Next == "" {
					break
				}
			}
		}
	}
	texts, args, err := st.Statements(t.Context(), crm.Query{
		Tenant: "default", Type: "thing", Where: crm.Everything{}, Sort: "owner", Tokens: []int64{1, 2}, Limit: 50,
	})
	if err != nil {
		t.Fatal(err)
	}
	if plan := explain(t, r, texts[0], args[0]); !strings.Contains(plan, "SEARCH crm_tokens USING PRIMARY KEY (space=? AND token=?)") ||
		!strings.Contains(plan, "SEARCH t USING INTEGER PRIMARY KEY") {
		t.Fatalf("a search by token: %s", plan)
	}
	q := crm.Query{
		Tenant: "default", Type: "thing", Where: crm.Everything{}, Sort: "owner", Persons: []crm.UUID{crmtest.PersonID(3).UUID(), crmtest.PersonID(4).UUID()}, Limit: 50,
	}
	for _, q.Tokens = range [][]int64{nil, {1, 2}} {
		texts, args, err := st.Statements(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if plan := explain(t, r, texts[0], args[0]); !strings.Contains(plan, "SEARCH crm_persons USING PRIMARY KEY (space=? AND person=?)") ||
			!strings.Contains(plan, "SEARCH t USING INTEGER PRIMARY KEY") || strings.Contains(plan, "SCAN t") {
			t.Fatalf("a search by person: %s", plan)
		}
	}
	// In the order of rows a search by tokens merges what it reads and ends with its page.
	for _, tokens := range [][]int64{{1}, {2, 1, 2}, {5, 4, 3, 2, 1}} {
		texts, args, err := st.Statements(t.Context(), crm.Query{
			Tenant: "default", Type: "thing", Where: crm.Everything{}, Tokens: tokens, Limit: 50,
		})
		if err != nil {
			t.Fatal(err)
		}
		if plan := explain(t, r, texts[0], args[0]); strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "SCAN crm_") ||
			!strings.Contains(plan, "SEARCH t USING INTEGER PRIMARY KEY") {
			t.Fatalf("a search by %d tokens: %s", len(tokens), plan)
		}
	}
}

// TestMergedTokens compares pages of searches by several tokens, whose rows overlap, with what the rows carry, in both directions.
func TestMergedTokens(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		declare(t, st)
		rnd := rand.New(rand.NewPCG(1, 2))
		carry := map[crm.UUID][]int64{}
		var order []crm.UUID
		batch := crm.Batch{}
		for i := range 200 {
			row := crmtest.Row("default", i)
			row.Sealed = []crm.SealedField{{Name: "f", Data: []byte{1}}}
			for _, n := range rnd.Perm(20)[:rnd.IntN(4)] {
				row.Sealed[0].Tokens = append(row.Sealed[0].Tokens, crm.Token{Value: int64(n)})
				carry[row.ID] = append(carry[row.ID], int64(n))
			}
			order = append(order, row.ID)
			batch.Writes = append(batch.Writes, crm.Write{Row: row})
		}
		if _, err := st.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		for n := range 40 {
			q := crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Desc: n%2 == 1, Limit: 1 + rnd.IntN(9)}
			for range 1 + rnd.IntN(18) { // some more than are merged
				q.Tokens = append(q.Tokens, rnd.Int64N(25))
			}
			var want, got []crm.UUID
			for _, id := range order {
				if slices.ContainsFunc(carry[id], func(t int64) bool { return slices.Contains(q.Tokens, t) }) {
					want = append(want, id)
				}
			}
			if q.Desc {
				slices.Reverse(want)
			}
			for {
				page, err := st.List(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range page.Rows {
					got = append(got, row.ID)
				}
				if q.After = page.Next; page.Next == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("tokens %v, desc %v: %d rows of %d", q.Tokens, q.Desc, len(got), len(want))
			}
			if n, err := st.Count(t.Context(), crm.Query{Tenant: q.Tenant, Type: q.Type, Where: q.Where, Tokens: q.Tokens}); err != nil || int(n) != len(want) {
				t.Fatalf("%d counted, %v", n, err)
			}
		}
	})
}

func explain(t *testing.T, db *sql.DB, text string, args []any) string {
	t.Helper()
	rows, err := db.Query("EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(steps, "; ")
}

// TestDamaged checks that rows that no store wrote are a typed error, without their content.
func TestDamaged(t *testing.T) {
	each(t, func(t *testing.T, w, r *sql.DB, d dialect.Dialect) {
		st := openStore(t, w, r, d)
		declare(t, st)
		create(t, st, 0, 2)
		row := crmtest.Row("default", 0)
		for name, q := range map[string]string{
			"empty body":   "UPDATE crm_rows_thing SET body = ?",
			"unknown body": "UPDATE crm_rows_thing SET body = ?",
		} {
			body := []byte{}
			if name == "unknown body" {
				body = []byte("\x02secret")
			}
			if _, err := w.Exec(d.Rebind(q), body); err != nil {
				t.Fatal(err)
			}
			_, err := st.Load(t.Context(), "default", "thing", []crm.UUID{row.ID})
			if !errors.Is(err, crm.ErrDamaged) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: Load gave %v", name, err)
			}
			_, err = st.List(t.Context(), crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Limit: 5})
			if !errors.Is(err, crm.ErrDamaged) {
				t.Errorf("%s: List gave %v", name, err)
			}
			row.Version = 2
			if _, err := st.Apply(t.Context(), crm.Batch{Writes: []crm.Write{{Row: row, Expect: 1}}}); !errors.Is(err, crm.ErrDamaged) {
				t.Errorf("%s: Apply gave %v", name, err)
			}
		}
		if d != dialect.SQLite {
			return
		}
		if _, err := w.Exec("UPDATE crm_rows_thing SET c_amount = 'secret'"); err != nil {
			t.Fatal(err)
		}
		_, err := st.Load(t.Context(), "default", "thing", []crm.UUID{row.ID})
		if !errors.Is(err, crm.ErrDamaged) || strings.Contains(err.Error(), "secret") {
			t.Errorf("text in a column of numbers: %v", err)
		}
	})
}

func TestSQLiteLocked(t *testing.T) {
	w, r, path := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	other, otherR, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close(); otherR.Close() })
	if _, err := w.Exec("PRAGMA busy_timeout = 50"); err != nil { // one connection: it stays
		t.Fatal(err)
	}
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := tryCreate(ctx, st, 0, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("locked, with a deadline: %v", err)
	}
	if err := tryCreate(t.Context(), st, 0, 1); !errors.Is(err, crm.ErrUnavailable) {
		t.Fatalf("locked: %v", err)
	}
	if n := count(t, st); n != 0 { // readers go on
		t.Fatalf("%d rows", n)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	create(t, st, 0, 1)
}

func TestSQLiteFull(t *testing.T) {
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	create(t, st, 0, 100)
	var pages int
	if err := w.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+2)); err != nil {
		t.Fatal(err)
	}
	err := tryCreate(t.Context(), st, 100, 1000)
	if !errors.Is(err, crm.ErrUnavailable) {
		t.Fatalf("full: %v", err)
	}
	if n := count(t, st); n != 100 {
		t.Fatalf("%d rows after a failed batch", n)
	}
	if _, err := w.Exec("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	create(t, st, 100, 1000)
	if n := count(t, st); n != 1000 {
		t.Fatalf("%d rows", n)
	}
}

func TestSQLiteClosedAndGarbled(t *testing.T) {
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	w.Close()
	r.Close()
	if err := tryCreate(t.Context(), st, 0, 1); !errors.Is(err, crm.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	path := filepath.Join(t.TempDir(), "garbled.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dialect.OpenSQLite(t.Context(), path); err == nil {
		t.Error("a file that is no database was opened")
	}
	if _, err := sqlstore.Open(t.Context(), w, r, "oracle"); err == nil {
		t.Error("an unknown dialect was accepted")
	}
}

func TestPostgresGone(t *testing.T) {
	p := realtest.Postgres(t)
	st := openStore(t, p.DB, p.DB, dialect.Postgres)
	declare(t, st)
	create(t, st, 0, 3)
	for name, end := range map[string]func(testing.TB){"stop": p.Stop, "kill": p.Kill} {
		end(t)
		for call, err := range map[string]error{
			"Apply": tryCreate(t.Context(), st, 3, 4),
			"Load": func() error {
				_, err := st.Load(t.Context(), "default", "thing", []crm.UUID{crmtest.Row("", 0).ID})
				return err
			}(),
			"List": func() error {
				_, err := st.List(t.Context(), crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Limit: 1})
				return err
			}(),
			"Prune": st.Prune(t.Context(), "log", 1),
		} {
			if !errors.Is(err, crm.ErrUnavailable) {
				t.Errorf("%s, %s: %v", name, call, err)
			} else if strings.Contains(err.Error(), "crmguard-pg") || strings.Contains(err.Error(), "postgres") || strings.Contains(err.Error(), "SELECT") {
				t.Errorf("%s, %s: the error says too much: %v", name, call, err)
			}
		}
		if _, err := sqlstore.Open(t.Context(), p.DB, p.DB, dialect.Postgres); !errors.Is(err, crm.ErrUnavailable) {
			t.Errorf("%s, Open: %v", name, err)
		}
		p.Start(t)
		if n := count(t, st); n != 3 {
			t.Errorf("%s: %d rows afterwards", name, n)
		}
	}
	create(t, st, 3, 4)
}

// TestPostgresKilledWhileWriting kills the server under load: what was acknowledged is there, what
// was refused is not, and what is unknown is one or the other, as Applied says.
func TestPostgresKilledWhileWriting(t *testing.T) {
	p := realtest.Postgres(t)
	st := openStore(t, p.DB, p.DB, dialect.Postgres)
	declare(t, st)
	const writers = 4
	type outcome struct {
		event uint64
		err   error
	}
	outcomes := make(chan outcome, 100000)
	started := make(chan struct{}, writers)
	for k := range writers {
		go func() {
			for i := 0; ; i++ {
				n := k*10000 + i
				_, err := st.Apply(t.Context(), crm.Batch{
					Writes: []crm.Write{{Row: crmtest.Row("default", n)}}, Log: "log", Event: uint64(n),
				})
				outcomes <- outcome{uint64(n), err}
				if i == 20 {
					started <- struct{}{}
				}
				if err != nil {
					outcomes <- outcome{}
					return
				}
			}
		}()
	}
	for range writers {
		<-started
	}
	p.Kill(t)
	var all []outcome
	for ended := 0; ended < writers; {
		o := <-outcomes
		if o == (outcome{}) {
			ended++
			continue
		}
		all = append(all, o)
	}
	p.Start(t)
	events, err := st.Applied(t.Context(), "log", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		applied := slices.Contains(events, o.event)
		rows, err := st.Load(t.Context(), "default", "thing", []crm.UUID{crmtest.Row("default", int(o.event)).ID})
		if err != nil {
			t.Fatal(err)
		}
		if stored := rows[0].Version == 1; stored != applied {
			t.Errorf("event %d: applied is %v, stored is %v", o.event, applied, stored)
		}
		switch {
		case o.err == nil && !applied:
			t.Errorf("event %d was acknowledged and is lost", o.event)
		case errors.Is(o.err, crm.ErrUnavailable) && applied:
			t.Errorf("event %d was refused and is stored", o.event)
		case o.err != nil && !errors.Is(o.err, crm.ErrUnavailable) && !errors.Is(o.err, crm.ErrUnknown):
			t.Errorf("event %d: %v", o.event, o.err)
		}
	}
}

func BenchmarkApplySQLite(b *testing.B) {
	w, r, _ := openSQLite(b)
	benchmarkApply(b, openStore(b, w, r, dialect.SQLite))
}

func BenchmarkApplyPostgres(b *testing.B) {
	p := realtest.Postgres(b)
	benchmarkApply(b, openStore(b, p.DB, p.DB, dialect.Postgres))
}

// benchmarkApply stores batches of 1,000 rows with six tokens each.
func benchmarkApply(b *testing.B, st *sqlstore.Store) {
	if err := st.Declare(b.Context(), crmtest.Schema()); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		var batch crm.Batch
		for range 1000 {
			batch.Writes = append(batch.Writes, crm.Write{Row: crmtest.Row("default", n)})
			n++
		}
		b.StartTimer()
		if _, err := st.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

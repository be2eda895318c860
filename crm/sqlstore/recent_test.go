package sqlstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// TestSQLiteMoving holds the store to the suite while tokens move all the time.
func TestSQLiteMoving(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector")
	}
	defer sqlstore.SetRecent(5, 2)()
	crmtest.TestStore(t, func(t testing.TB) crm.Store {
		w, r, _ := openSQLite(t)
		return openStore(t, w, r, dialect.SQLite)
	})
}

// carrying is what a test knows of the rows that carry tokens.
type carrying struct {
	t       *testing.T
	w, r    *sql.DB
	rnd     *rand.Rand
	rows    map[crm.UUID]crm.Row
	created int
}

// row returns the next row or another version of one, with some of few tokens.
func (c *carrying) row(id crm.UUID) crm.Write {
	old, there := c.rows[id]
	row := crmtest.Row("default", c.created)
	if there {
		row.ID, row.Version = id, old.Version+1
		row.Deleted = c.rnd.IntN(4) == 0
	} else {
		c.created++
	}
	row.Sealed = []crm.SealedField{{Name: "f", Data: []byte{1}}}
	for _, n := range c.rnd.Perm(40)[:c.rnd.IntN(6)] {
		row.Sealed[0].Tokens = append(row.Sealed[0].Tokens, crm.Token{Value: int64(n-20) << 40})
	}
	return crm.Write{Row: row, Expect: old.Version}
}

// batch makes a batch of new rows and changes.
func (c *carrying) batch(n int) crm.Batch {
	var b crm.Batch
	ids := slices.SortedFunc(maps.Keys(c.rows), func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) })
	changed := map[crm.UUID]bool{}
	for range n {
		id := crm.UUID{}
		if len(ids) > 0 && c.rnd.IntN(3) == 0 {
			id = ids[c.rnd.IntN(len(ids))]
		}
		if !changed[id] {
			changed[id] = !id.IsZero()
			b.Writes = append(b.Writes, c.row(id))
		}
	}
	return b
}

func (c *carrying) keep(b crm.Batch) {
	for _, w := range b.Writes {
		c.rows[w.Row.ID] = w.Row
	}
}

// carriers are the ids of the rows that carry a token, in their order.
func (c *carrying) carriers(token int64) (ids []crm.UUID) {
	for id, row := range c.rows {
		if slices.ContainsFunc(row.Sealed[0].Tokens, func(t crm.Token) bool { return t.Value == token }) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// check compares what the store finds with what is known.
func (c *carrying) check(st *sqlstore.Store, most int) {
	c.t.Helper()
	var tokens []int64
	for n := range int64(41) { // one more than there are
		tokens = append(tokens, (n-20)<<40)
	}
	got, err := st.Carriers(c.t.Context(), "default", "thing", tokens, most)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, token := range tokens {
		want := c.carriers(token)
		if len(want) > most {
			want = nil
		}
		if !slices.Equal(got[token], want) {
			c.t.Fatalf("token %d: %d carriers of at most %d, want %d", token>>40, len(got[token]), most, len(want))
		}
	}
	some := tokens[c.rnd.IntN(20):][:1+c.rnd.IntN(20)]
	want := map[crm.UUID]bool{}
	for _, token := range some {
		for _, id := range c.carriers(token) {
			want[id] = true
		}
	}
	q := crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}, Deletion: crm.LivingAndBin, Tokens: some, Limit: 7}
	if n, err := st.Count(c.t.Context(), q); err != nil || n != int64(len(want)) {
		c.t.Fatalf("%d rows counted, want %d, %v", n, len(want), err)
	}
	for _, q.Sort = range []string{"", "owner"} {
		found := map[crm.UUID]bool{}
		for q.After = ""; ; {
			page, err := st.List(c.t.Context(), q)
			if err != nil {
				c.t.Fatal(err)
			}
			for _, row := range page.Rows {
				if found[row.ID] || !want[row.ID] {
					c.t.Fatalf("sorted by %q a row is listed that is there twice or should not be", q.Sort)
				}
				found[row.ID] = true
			}
			if q.After = page.Next; page.Next == "" {
				break
			}
		}
		if len(found) != len(want) {
			c.t.Fatalf("sorted by %q %d rows, want %d", q.Sort, len(found), len(want))
		}
	}
}

// tables counts the tokens in both tables, and those that lie in both.
func (c *carrying) tables() (recent, settled, both int) {
	c.t.Helper()
	err := c.r.QueryRow("SELECT (SELECT COUNT(*) FROM crm_recent), (SELECT COUNT(*) FROM crm_tokens), "+
		"(SELECT COUNT(*) FROM crm_recent JOIN crm_tokens USING (space, token, row_id))").Scan(&recent, &settled, &both)
	if err != nil {
		c.t.Fatal(err)
	}
	return recent, settled, both
}

// TestRecent writes batches of all kinds with tokens that move between the tables, and finds after each what the rows carry; stores that are opened
// anew, several at once, and batches that are refused or rehearsed change nothing of that.
func TestRecent(t *testing.T) {
	const most, least, batch = 60, 9, 25
	defer sqlstore.SetRecent(most, least)()
	w, r, _ := openSQLite(t)
	c := &carrying{t: t, w: w, r: r, rnd: rand.New(rand.NewPCG(3, 4)), rows: map[crm.UUID]crm.Row{}}
	stores := []*sqlstore.Store{openStore(t, w, r, dialect.SQLite), openStore(t, w, r, dialect.SQLite)}
	for _, st := range stores {
		declare(t, st)
	}
	moved, batches := 0, 120
	if testing.Short() {
		batches = 40
	}
	for n := range batches {
		if n%30 == 29 {
			stores[0] = openStore(t, w, r, dialect.SQLite)
			declare(t, stores[0])
		}
		st := stores[0]
		if n%5 == 4 {
			st = stores[1]
		}
		b := c.batch(1 + c.rnd.IntN(batch))
		switch n % 6 {
		case 2:
			refused := b
			late := crm.Write{Row: c.row(crm.UUID{}).Row, Expect: 9}
			late.Row.Version = 10
			refused.Writes = append(slices.Clone(b.Writes), late)
			if _, err := st.Apply(t.Context(), refused); !errors.Is(err, crm.ErrConflict) {
				t.Fatalf("a write on a version that is not there: %v", err)
			}
		case 3:
			rehearsed := b
			rehearsed.Rehearse = true
			if _, err := st.Apply(t.Context(), rehearsed); err != nil {
				t.Fatal(err)
			}
		case 4:
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := st.Apply(ctx, b); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		c.check(st, 1+c.rnd.IntN(12))
		if _, err := st.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		c.keep(b)
		for _, st := range stores {
			c.check(st, 1+c.rnd.IntN(12))
		}
		recent, settled, both := c.tables()
		if both != 0 || recent > 2*(most+least)+5*batch {
			t.Fatalf("%d recent tokens, %d of them in both tables", recent, both)
		}
		if settled > moved {
			moved = settled
		}
	}
	if moved < 2*batches {
		t.Fatalf("only %d tokens ever moved", moved)
	}
	// Back at version 2 a program that knows crm_tokens alone finds all.
	recent, settled, _ := c.tables()
	rollback(t, w, dialect.SQLite, 2)
	var n int
	if err := r.QueryRow("SELECT COUNT(*) FROM crm_tokens").Scan(&n); err != nil || n != recent+settled {
		t.Fatalf("%d tokens, want %d and %d, %v", n, recent, settled, err)
	}
	c.check(func() *sqlstore.Store { st := openStore(t, w, r, dialect.SQLite); declare(t, st); return st }(), 5)
}

// TestRecentIsBounded: single writes leave no more behind than is kept, and empty tokens do not stop the rounds.
func TestRecentIsBounded(t *testing.T) {
	const most, least = 50, 10
	defer sqlstore.SetRecent(most, least)()
	w, r, _ := openSQLite(t)
	c := &carrying{t: t, w: w, r: r, rnd: rand.New(rand.NewPCG(5, 6)), rows: map[crm.UUID]crm.Row{}}
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	for range 400 {
		b := crm.Batch{Writes: []crm.Write{c.row(crm.UUID{})}}
		if _, err := st.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		c.keep(b)
		if recent, _, both := c.tables(); recent >= most+least+5 || both != 0 {
			t.Fatalf("%d recent tokens, %d in both tables", recent, both)
		}
	}
	c.check(st, 100)
	if _, settled, _ := c.tables(); settled < 700 {
		t.Fatalf("%d tokens have moved", settled)
	}
}

// TestRecentUsesIndex checks that neither moving nor searching reads a whole table.
func TestRecentUsesIndex(t *testing.T) {
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	create(t, st, 0, 50)
	for _, text := range append(sqlstore.MoveStatements(), st.CarriedStatement(3)) {
		plan := explain(t, r, text, slices.Repeat([]any{int64(1)}, strings.Count(text, "?")))
		if strings.Contains(plan, "SCAN crm_") || strings.Contains(plan, "SCAN x") || strings.Contains(plan, "TEMP B-TREE") ||
			strings.Count(plan, "PRIMARY KEY (") == 0 {
			t.Errorf("%s\n%s", text, plan)
		}
	}
}

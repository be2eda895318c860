package cond_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/authz/cond"
)

// TestMatchAgreesWithSQL draws random conditions and rows, nulls included, and asks SQLite.
func TestMatchAgreesWithSQL(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	defer db.Close()
	_, err = db.Exec(`CREATE TABLE r (id INTEGER PRIMARY KEY, owner TEXT, team TEXT, amount INTEGER, marks TEXT NOT NULL, held INTEGER NOT NULL)`)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(3, 4))
	words := []any{"a", "b", "/东/", "/东/1/", "/西/", "/east/", "/east/1/", "~", "", nil}
	type row struct {
		owner, team, amount any
		marks               []string
		held                bool
	}
	sets := [][]string{nil, {"a"}, {"b"}, {"a", "b"}, {"ab"}, {"a", "b", "c"}, {"a", "a"}}
	rows := make([]row, 60)
	for i := range rows {
		rows[i] = row{words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], nil,
			sets[rnd.IntN(len(sets))], rnd.IntN(2) == 0}
		if rnd.IntN(4) > 0 {
			rows[i].amount = int64(rnd.IntN(5))
		}
		marks, err := cond.Words(rows[i].marks)
		require.NoError(t, err)
		_, err = db.Exec(`INSERT INTO r VALUES (?,?,?,?,?,?)`, i, rows[i].owner, rows[i].team, rows[i].amount, marks, rows[i].held)
		require.NoError(t, err)
	}
	word := func() string {
		for {
			if s, ok := words[rnd.IntN(len(words))].(string); ok {
				return s
			}
		}
	}
	attr := func() string { return []string{"owner", "team"}[rnd.IntN(2)] }
	var draw func(depth int) cond.Cond
	draw = func(depth int) cond.Cond {
		n := 12
		if depth == 0 {
			n = 9
		}
		switch rnd.IntN(n) {
		case 0:
			return cond.Eq(attr(), word())
		case 1:
			return cond.HasPrefix(attr(), word())
		case 2:
			return cond.AnyOf(attr(), word(), word())
		case 3:
			return cond.Present(attr())
		case 4, 5:
			c, err := cond.Compare("amount", []string{"=", "!=", "<", "<=", ">", ">="}[rnd.IntN(6)], int64(rnd.IntN(5)))
			require.NoError(t, err)
			return c
		case 6:
			return cond.Has("marks", []string{"a", "b", "ab", "z"}[rnd.IntN(4)])
		case 7:
			return cond.Within("marks", [][]string{{}, {"a"}, {"a", "b"}, {"ab", "c"}}[rnd.IntN(4)]...)
		case 8:
			return cond.Eq("held", rnd.IntN(2) == 0)
		case 9:
			return cond.And(draw(depth-1), draw(depth-1))
		case 10:
			return cond.Or(draw(depth-1), draw(depth-1))
		default:
			return cond.Not(draw(depth - 1))
		}
	}
	column := func(name string) (string, error) { return `"` + name + `"`, nil }
	for range 3000 {
		c := draw(3)
		text, args, err := c.SQL(cond.Question, column)
		require.NoError(t, err)
		want := map[int]bool{}
		found, err := db.Query("SELECT id FROM r WHERE "+text, args...)
		require.NoError(t, err, text)
		for found.Next() {
			var id int
			require.NoError(t, found.Scan(&id))
			want[id] = true
		}
		require.NoError(t, found.Close())
		compiled := cond.Compile(c, func(name string) cond.Getter[row] {
			switch name {
			case "owner":
				return cond.Getter[row]{String: func(r *row) string { return r.owner.(string) }}
			case "team":
				return cond.Getter[row]{String: func(r *row) string { return r.team.(string) }}
			case "amount":
				return cond.Getter[row]{Int: func(r *row) int64 { return r.amount.(int64) }}
			case "held":
				return cond.Getter[row]{Bool: func(r *row) bool { return r.held }}
			}
			return cond.Getter[row]{Words: func(r *row) []string { return r.marks }}
		})
		for i, r := range rows {
			got := c.Match(func(name string) any {
				return map[string]any{"owner": r.owner, "team": r.team, "amount": r.amount, "marks": r.marks, "held": r.held}[name]
			})
			require.Equal(t, want[i], got, "%s on %v", c, r)
			if r.owner != nil && r.team != nil && r.amount != nil {
				require.Equal(t, want[i], compiled(&r), "%s on %v", c, r)
			}
		}
	}
}

func TestSQLRefusesUnknownColumns(t *testing.T) {
	no := errors.New("no such column")
	for _, c := range []cond.Cond{
		cond.Eq("x", "y"), cond.Not(cond.Eq("x", "y")),
		cond.And(cond.Eq("x", "1"), cond.Eq("x", "2")), cond.Or(cond.Eq("x", "1"), cond.HasPrefix("x", "2")),
	} {
		_, _, err := c.SQL(cond.Question, func(string) (string, error) { return "", no })
		require.ErrorIs(t, err, no)
	}
	_, err := cond.Compare("x", "; DROP", 1)
	require.Error(t, err)
}

func ExampleCond() {
	c := cond.Or(cond.Eq("owner", "lin"), cond.HasPrefix("team", "/east/"), cond.Not(cond.Within("compartments", "board")))
	column := func(name string) (string, error) { return "c_" + name, nil }
	text, args, _ := c.SQL(cond.Dollar, column)
	fmt.Println(c)
	fmt.Println(text, args)
	tree, _ := json.Marshal(cond.Eq("owner", "lin").UCAST())
	fmt.Println(string(tree))
	// Output:
	// (owner = "lin" or team begins with "/east/" or not compartments within [board])
	// (c_owner = $1 OR (c_team >= $2 AND c_team < $3) OR NOT (replace(c_compartments,$4,'') = '')) [lin /east/ /east0 <board>]
	// {"type":"field","operator":"eq","field":"owner","value":"lin"}
}

package authz_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard/authz"
)

func TestZeroValuesDeny(t *testing.T) {
	var d authz.Decision
	var de *authz.DeniedError
	require.ErrorAs(t, d.Proceed(), &de)
	assert.Equal(t, authz.Hidden, d.Fields.Access("x", "public"))
	var f authz.Filter
	assert.True(t, f.IsNone())
	assert.False(t, f.Match(func(string) any { return "x" }))
	text, _, err := f.SQL(nil)
	require.NoError(t, err)
	assert.Equal(t, "1=0", text)
	assert.True(t, authz.When(authz.Cond{}).IsNone())
	assert.True(t, authz.When(authz.Or()).IsNone())
	assert.True(t, authz.When(authz.AnyOf("x")).IsNone())
	assert.True(t, authz.When(authz.And()).IsAll())
}

func TestProceed(t *testing.T) {
	d := authz.Decision{Allowed: true, Obligations: []authz.Obligation{authz.NeedReason, "a_new_one"}}
	require.NoError(t, d.Proceed(authz.NeedReason, "a_new_one"))
	var de *authz.DeniedError
	require.ErrorAs(t, d.Proceed(), &de)
	require.ErrorAs(t, d.Proceed(authz.NeedReason), &de)
	assert.Equal(t, []authz.Obligation{"a_new_one"}, de.Unmet)
	d.Allowed = false
	require.Error(t, d.Proceed(authz.NeedReason, "a_new_one"))
}

// TestMatchAgreesWithSQL draws random conditions and rows, nulls included, and asks SQLite.
func TestMatchAgreesWithSQL(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	defer db.Close()
	_, err = db.Exec(`CREATE TABLE r (id INTEGER PRIMARY KEY, owner TEXT, team TEXT, amount INTEGER)`)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(3, 4))
	words := []any{"a", "b", "/东/", "/东/1/", "/西/", "/east/", "/east/1/", "~", "", nil}
	type row struct{ owner, team, amount any }
	rows := make([]row, 60)
	for i := range rows {
		rows[i] = row{words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], nil}
		if rnd.IntN(4) > 0 {
			rows[i].amount = int64(rnd.IntN(5))
		}
		_, err := db.Exec(`INSERT INTO r VALUES (?,?,?,?)`, i, rows[i].owner, rows[i].team, rows[i].amount)
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
	var draw func(depth int) authz.Cond
	draw = func(depth int) authz.Cond {
		n := 9
		if depth == 0 {
			n = 6
		}
		switch rnd.IntN(n) {
		case 0:
			return authz.Eq(attr(), word())
		case 1:
			return authz.HasPrefix(attr(), word())
		case 2:
			return authz.AnyOf(attr(), word(), word())
		case 3:
			return authz.Present(attr())
		case 4, 5:
			c, err := authz.Compare("amount", []string{"=", "!=", "<", "<=", ">", ">="}[rnd.IntN(6)], int64(rnd.IntN(5)))
			require.NoError(t, err)
			return c
		case 6:
			return authz.And(draw(depth-1), draw(depth-1))
		case 7:
			return authz.Or(draw(depth-1), draw(depth-1))
		default:
			return authz.Not(draw(depth - 1))
		}
	}
	column := func(name string) (string, error) { return `"` + name + `"`, nil }
	for range 3000 {
		f := authz.When(draw(3))
		text, args, err := f.SQL(column)
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
		for i, r := range rows {
			got := f.Match(func(name string) any {
				return map[string]any{"owner": r.owner, "team": r.team, "amount": r.amount}[name]
			})
			require.Equal(t, want[i], got, "%s on %v", f, r)
		}
	}
}

func TestSQLRefusesUnknownColumns(t *testing.T) {
	no := errors.New("no such column")
	for _, c := range []authz.Cond{
		authz.Eq("x", "y"), authz.Not(authz.Eq("x", "y")),
		authz.And(authz.Eq("x", "1"), authz.Eq("x", "2")), authz.Or(authz.Eq("x", "1"), authz.HasPrefix("x", "2")),
	} {
		_, _, err := authz.When(c).SQL(func(string) (string, error) { return "", no })
		require.ErrorIs(t, err, no)
	}
	_, err := authz.Compare("x", "; DROP", 1)
	require.Error(t, err)
}

func ExampleFilter() {
	f := authz.When(authz.Or(authz.Eq("owner", "lin"), authz.HasPrefix("team", "/east/")))
	text, args, _ := f.SQL(func(name string) (string, error) { return "c_" + name, nil })
	fmt.Println(f)
	fmt.Println(text, args)
	// Output:
	// (owner = "lin" or team begins with "/east/")
	// (c_owner = ? OR (c_team >= ? AND c_team < ?)) [lin /east/ /east0]
}

func ExampleDecision_Proceed() {
	d := authz.Decision{Allowed: true, Obligations: []authz.Obligation{authz.NeedReason}}
	fmt.Println(d.Proceed())
	fmt.Println(d.Proceed(authz.NeedReason))
	// Output:
	// authz: denied: not met: reason
	// <nil>
}

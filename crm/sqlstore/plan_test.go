package sqlstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/internal/dialect"
)

// TestPlans: a page of what few rows have is read from the index of that and sorted, also where nobody has it; a page of what many have in the order that
// was asked for. Other connections than the one that made the statistics know them.
func TestPlans(t *testing.T) {
	if testing.Short() {
		t.Skip("long under the race detector")
	}
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	r.SetMaxOpenConns(1) // one that was there before
	count(t, st)
	const rows = 12_600
	for from := 0; from < rows; from += 900 {
		var b crm.Batch
		for i := from; i < from+900; i++ {
			row := crmtest.Row("default", i)
			owner := "many"
			if i%3 == 0 {
				owner = fmt.Sprint("few ", i/9)
			}
			for k, c := range crmtest.Schema().Columns {
				switch c.Name {
				case "owner":
					row.Clear[k] = crm.StringValue(owner)
				case "amount":
					row.Clear[k] = crm.IntValue(int64(i * 7919 % 10007))
				}
			}
			b.Writes = append(b.Writes, crm.Write{Row: row})
		}
		if _, err := st.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for owner, sorts := range map[string]bool{"few 7": true, "nobody": true, "many": false} {
		q := crm.Query{
			Tenant: "default", Type: "thing", Where: crm.Everything{}, Sort: "amount", Desc: true, Limit: 50,
			Clauses: []crm.Clause{{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(owner)}}},
		}
		texts, args, err := st.Statements(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		plan := explain(t, r, texts[0], args[0])
		if byOwner := strings.Contains(plan, "(space=? AND c_owner=?)"); byOwner != sorts || strings.Contains(plan, "TEMP B-TREE") != sorts {
			t.Errorf("%s: %s", owner, plan)
		}
		page, err := st.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"few 7": 3, "nobody": 0, "many": 50}[owner]
		if len(page.Rows) != want {
			t.Errorf("%s: %d rows, want %d", owner, len(page.Rows), want)
		}
	}
}

// TestBinUsesIndex: the recycle bin is not looked for among the living.
func TestBinUsesIndex(t *testing.T) {
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	create(t, st, 0, 900)
	create(t, st, 900, 1800)
	for _, column := range []string{"", "amount"} {
		for _, clauses := range [][]crm.Clause{nil, {{Column: "due", Op: crm.NotNull}}, {{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue("x")}}}} {
			texts, args, err := st.Statements(t.Context(), crm.Query{
				Tenant: "default", Type: "thing", Where: crm.Everything{}, Deletion: crm.InBin, Sort: column, Limit: 50, Clauses: clauses,
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range texts {
				if plan := explain(t, r, texts[i], args[i]); !strings.Contains(plan, "_bin (space=?") {
					t.Errorf("sorted by %q with %d clauses: %s", column, len(clauses), plan)
				}
			}
		}
	}
}

// TestStatisticsHoldNoValues: what is kept for plans are numbers, no samples of keys, which would outlive who they are of.
func TestStatisticsHoldNoValues(t *testing.T) {
	w, r, _ := openSQLite(t)
	st := openStore(t, w, r, dialect.SQLite)
	declare(t, st)
	create(t, st, 0, 900)
	create(t, st, 900, 1800)
	openStore(t, w, r, dialect.SQLite)
	var stats, samples int
	if err := r.QueryRow("SELECT (SELECT COUNT(*) FROM sqlite_stat1), (SELECT COUNT(*) FROM sqlite_stat4)").Scan(&stats, &samples); err != nil {
		t.Fatal(err)
	}
	if stats < 8 || samples != 0 {
		t.Fatalf("%d statistics, %d samples", stats, samples)
	}
	var bad int
	if err := r.QueryRow("SELECT COUNT(*) FROM sqlite_stat1 WHERE stat GLOB '*[^0-9 a-z]*'").Scan(&bad); err != nil || bad != 0 {
		t.Fatalf("%d statistics have more than numbers in them, %v", bad, err)
	}
}

package crmtest

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// grouped is what Group has to make of rows.
func grouped(rows []crm.Row, g crm.Grouping) []crm.Group {
	place := func(name string) int {
		return slices.IndexFunc(Schema().Columns, func(c crm.Column) bool { return c.Name == name })
	}
	var groups []crm.Group
	if len(g.By) == 0 {
		groups = []crm.Group{{Sums: make([]int64, len(g.Sums))}}
	}
	for _, r := range rows {
		var keys []crm.Value
		for _, name := range g.By {
			keys = append(keys, r.Clear[place(name)])
		}
		i := slices.IndexFunc(groups, func(o crm.Group) bool { return slices.Equal(o.Keys, keys) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, crm.Group{Keys: keys, Sums: make([]int64, len(g.Sums))})
		}
		groups[i].Count++
		for k, name := range g.Sums {
			groups[i].Sums[k] += r.Clear[place(name)].Int()
		}
	}
	slices.SortFunc(groups, func(a, b crm.Group) int {
		return slices.CompareFunc(a.Keys, b.Keys, func(x, y crm.Value) int {
			return cmp.Or(cmp.Compare(x.Kind(), y.Kind()), cmp.Compare(x.Int(), y.Int()), strings.Compare(x.Str(), y.Str()))
		})
	})
	return groups
}

func sameGroups(a, b []crm.Group) bool {
	return slices.EqualFunc(a, b, func(x, y crm.Group) bool {
		return x.Count == y.Count && slices.Equal(x.Keys, y.Keys) && slices.Equal(x.Sums, y.Sums)
	})
}

// groupings are the ways to group rows of Schema that the suite goes through.
func groupings() (list []crm.Grouping) {
	by := [][]string{
		nil, {"owner"}, {"stage"}, {"amount"}, {"primary"}, {"due"}, {"stage", "primary"}, {"primary", "stage"}, {"due", "amount", "stage"},
		{"stage", "stage"},
	}
	for _, columns := range by {
		for _, sums := range [][]string{nil, {"amount"}, {"amount", "amount"}} {
			list = append(list, crm.Grouping{By: columns, Sums: sums})
		}
	}
	return list
}

// group checks keys of each kind, their order, counts, sums and all filters, against the rows that a list gives.
func (s suite) group(t *testing.T) {
	st := s.store(t, 150)
	for i := 0; i < 150; i += 9 {
		row := Row(tenant, i)
		row.Version, row.Deleted = 2, true
		apply(t, st, one(row))
	}
	apply(t, st, one(Row("other", 3)))
	check := func(what string, q crm.Query) {
		t.Helper()
		rows := pages(t, st, q)
		for _, g := range groupings() {
			want := grouped(rows, g)
			paged := q // paging plays no part
			paged.Limit, paged.Sort, paged.Desc, paged.After = 0, "stranger", true, "x"
			got, err := st.Group(t.Context(), paged, g)
			if err != nil || !sameGroups(got, want) {
				t.Fatalf("%s, by %v, sums %v: %v\n got %v\nwant %v", what, g.By, g.Sums, err, got, want)
			}
			var n int64
			for _, group := range got {
				n += group.Count
			}
			if counted, err := st.Count(t.Context(), q); err != nil || counted != n {
				t.Fatalf("%s: counted %d, %v, grouped %d", what, counted, err, n)
			}
		}
	}
	check("all", all())
	for d := crm.Living; d <= crm.LivingAndBin; d++ {
		q := all()
		q.Deletion = d
		check(fmt.Sprintf("deletion %d", d), q)
	}
	q := all()
	q.Clauses = stage("won")
	check("a clause", q)
	q.Clauses = stage("nothing")
	check("no rows", q)
	q = all()
	q.Tokens = []int64{TokenOf(2, 0), TokenOf(3, 4)}
	check("tokens", q)
	q.Tokens = []int64{}
	check("an empty list of tokens", q)
	q = all()
	q.IDs = []crm.UUID{Row(tenant, 5).ID, Row(tenant, 3).ID, Row(tenant, 5).ID}
	check("ids", q)
	q.IDs = []crm.UUID{}
	check("an empty list of ids", q)
	q = all()
	q.Tenant = "nobody"
	check("an unknown tenant", q)
	r := rand.New(Random(2))
	for range 20 {
		q := all()
		q.Where = randomCondition(r, 3)
		check("a condition", q)
	}
	// Texts are apart and in the order of their bytes, whatever a language thinks of them.
	words := []string{"", "A", "B", "Z", "a", "a b", "a_", "aa", "b", "e", "z", "É", "é", "e\u0301", "ß", "ä", "一", "负", "😀", "\uffff"}
	for i, w := range words {
		row := Row("words", i)
		row.Clear[1] = crm.StringValue(w)
		apply(t, st, one(row))
	}
	slices.Sort(words)
	q = all()
	q.Tenant = "words"
	groups, err := st.Group(t.Context(), q, crm.Grouping{By: []string{"stage"}})
	if err != nil || !slices.EqualFunc(groups, words, func(g crm.Group, w string) bool { return g.Keys[0].Str() == w && g.Count == 1 }) {
		t.Fatalf("texts in the wrong order: %v, %v", groups, err)
	}
}

func (s suite) groupSums(t *testing.T) {
	st := s.store(t, 0)
	apply(t, st, crm.Batch{Writes: []crm.Write{
		{Row: entry(0, "fits", math.MaxInt64)}, {Row: entry(1, "fits", math.MaxInt64)}, {Row: entry(2, "fits", math.MinInt64)},
		{Row: entry(3, "low", math.MinInt64)}, {Row: entry(4, "one", -1)},
	}})
	want := []crm.Group{
		{Keys: []crm.Value{crm.StringValue("fits")}, Count: 3, Sums: []int64{math.MaxInt64 - 1}},
		{Keys: []crm.Value{crm.StringValue("low")}, Count: 1, Sums: []int64{math.MinInt64}},
		{Keys: []crm.Value{crm.StringValue("one")}, Count: 1, Sums: []int64{-1}},
	}
	g := crm.Grouping{By: []string{"stage"}, Sums: []string{"amount"}}
	if got, err := st.Group(t.Context(), all(), g); err != nil || !sameGroups(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
	apply(t, st, one(entry(5, "low", -1)))
	_, err := st.Group(t.Context(), all(), g)
	wantRequest(t, err, "sum")
	apply(t, st, crm.Batch{Writes: []crm.Write{{Row: entry(6, "low", 1)}, {Row: entry(7, "fits", 1)}, {Row: entry(8, "fits", 1)}}})
	_, err = st.Group(t.Context(), all(), g)
	wantRequest(t, err, "sum")
	g.Sums = nil
	if got, err := st.Group(t.Context(), all(), g); err != nil || len(got) != 3 {
		t.Fatalf("nothing summed: %v, %v", got, err)
	}
}

// manyGroups makes as many groups as there may be, and one more.
func (s suite) manyGroups(t *testing.T) {
	st := s.store(t, 0)
	for i := 0; i < crm.MaxGroups; i += 1000 {
		var b crm.Batch
		for k := i; k < i+1000; k++ {
			row := crm.Row{Tenant: tenant, Type: "thing", ID: Row(tenant, k).ID, Version: 1, Clear: make([]crm.Value, 5)}
			row.Clear[2], row.Clear[3] = crm.IntValue(int64(k)), crm.BoolValue(k < 10)
			b.Writes = append(b.Writes, crm.Write{Row: row})
		}
		apply(t, st, b)
	}
	g := crm.Grouping{By: []string{"amount"}}
	got, err := st.Group(t.Context(), all(), g)
	if err != nil || len(got) != crm.MaxGroups || got[0].Keys[0].Int() != 0 || got[crm.MaxGroups-1].Keys[0].Int() != crm.MaxGroups-1 {
		t.Fatalf("%d groups, %v", len(got), err)
	}
	apply(t, st, one(crm.Row{Tenant: tenant, Type: "thing", ID: crm.NewUUID(), Version: 1, Clear: make([]crm.Value, 5)}))
	_, err = st.Group(t.Context(), all(), g)
	wantRequest(t, err, "group")
	q := all()
	q.Clauses = []crm.Clause{{Column: "primary", Op: crm.Equal, Values: []crm.Value{crm.BoolValue(true)}}}
	if got, err := st.Group(t.Context(), q, g); err != nil || len(got) != 10 {
		t.Fatalf("a few of many: %d groups, %v", len(got), err)
	}
}

func (s suite) badGroups(t *testing.T) {
	st := s.store(t, 3)
	for name, test := range map[string]struct {
		part string
		edit func(*crm.Query, *crm.Grouping)
	}{
		"no tenant":       {"tenant", func(q *crm.Query, _ *crm.Grouping) { q.Tenant = "" }},
		"unknown type":    {"type", func(q *crm.Query, _ *crm.Grouping) { q.Type = "stranger" }},
		"no condition":    {"where", func(q *crm.Query, _ *crm.Grouping) { q.Where = nil }},
		"deletion":        {"deletion", func(q *crm.Query, _ *crm.Grouping) { q.Deletion = 9 }},
		"no operator":     {"clause", func(q *crm.Query, _ *crm.Grouping) { q.Clauses = []crm.Clause{{Column: "owner"}} }},
		"four columns":    {"group", func(_ *crm.Query, g *crm.Grouping) { g.By = []string{"owner", "stage", "amount", "due"} }},
		"eleven sums":     {"group", func(_ *crm.Query, g *crm.Grouping) { g.Sums = slices.Repeat([]string{"amount"}, 11) }},
		"by nothing":      {"column", func(_ *crm.Query, g *crm.Grouping) { g.By = []string{""} }},
		"by a stranger":   {"column", func(_ *crm.Query, g *crm.Grouping) { g.By = []string{"stranger"} }},
		"by the id":       {"column", func(_ *crm.Query, g *crm.Grouping) { g.By = []string{crm.ColumnID} }},
		"by SQL":          {"column", func(_ *crm.Query, g *crm.Grouping) { g.By = []string{`owner" DESC, "owner`} }},
		"sum of nothing":  {"column", func(_ *crm.Query, g *crm.Grouping) { g.Sums = []string{""} }},
		"sum of text":     {"column", func(_ *crm.Query, g *crm.Grouping) { g.Sums = []string{"stage"} }},
		"sum of booleans": {"column", func(_ *crm.Query, g *crm.Grouping) { g.Sums = []string{"primary"} }},
		"sum of times":    {"column", func(_ *crm.Query, g *crm.Grouping) { g.Sums = []string{"due"} }},
	} {
		q, g := all(), crm.Grouping{By: []string{"stage"}, Sums: []string{"amount"}}
		test.edit(&q, &g)
		_, err := st.Group(t.Context(), q, g)
		var r *crm.RequestError
		if !errors.As(err, &r) || r.Part != test.part {
			t.Errorf("%s: %v, want a RequestError about %s", name, err, test.part)
		} else if strings.Contains(err.Error(), "stranger") || strings.Contains(err.Error(), "DESC") {
			t.Errorf("%s: the error repeats what was asked", name)
		}
	}
	most := crm.Grouping{By: []string{"owner", "stage", "due"}, Sums: slices.Repeat([]string{"amount"}, 10)}
	if got, err := st.Group(t.Context(), all(), most); err != nil || !sameGroups(got, grouped(pages(t, st, all()), most)) {
		t.Errorf("the most columns and sums: %v, %v", got, err)
	}
}

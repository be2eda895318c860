package crmtest

import (
	"slices"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// persons finds rows by whom they name, first or behind, as rows change, and together with all other filters.
func (s suite) persons(t *testing.T) {
	st := s.store(t, 0)
	const n = 60
	person := func(i int) crm.UUID { return PersonID(i).UUID() }
	row := func(i int) crm.Row { // of person i, and of 100 + i%4 and 200 + i%3 besides
		r := Row(tenant, i)
		r.Persons = append(r.Persons, person(100+i%4), person(200+i%3))
		return r
	}
	var b crm.Batch
	for i := range n {
		b.Writes = append(b.Writes, crm.Write{Row: row(i)})
	}
	elsewhere := row(3)
	elsewhere.Tenant = "other"
	b.Writes = append(b.Writes, crm.Write{Row: elsewhere})
	apply(t, st, b)

	// find checks a query against what a list without persons has, page by page, counted and grouped.
	find := func(what string, q crm.Query) []crm.UUID {
		t.Helper()
		whole := q
		whole.Persons = nil
		want := slices.DeleteFunc(pages(t, st, whole), func(r crm.Row) bool {
			return !slices.ContainsFunc(r.Persons, func(p crm.UUID) bool { return !p.IsZero() && slices.Contains(q.Persons, p) })
		})
		for _, limit := range []int{1, 7, 1000} {
			q.Limit = limit
			if got := ids(pages(t, st, q)); !slices.Equal(got, ids(want)) {
				t.Fatalf("%s, limit %d: %d rows, want %d", what, limit, len(got), len(want))
			}
		}
		if c, err := st.Count(t.Context(), q); err != nil || c != int64(len(want)) {
			t.Fatalf("%s: counted %d, %v, want %d", what, c, err, len(want))
		}
		g := crm.Grouping{By: []string{"stage"}, Sums: []string{"amount"}}
		if got, err := st.Group(t.Context(), q, g); err != nil || !sameGroups(got, grouped(want, g)) {
			t.Fatalf("%s: grouped %v, %v", what, got, err)
		}
		return ids(want)
	}
	of := func(persons ...crm.UUID) crm.Query {
		q := all()
		q.Persons = persons
		return q
	}
	for what, test := range map[string]struct {
		q    crm.Query
		rows int
	}{
		"the record's own":     {of(person(7)), 1},
		"the second":           {of(person(101)), n / 4},
		"the last":             {of(person(202)), n / 3},
		"several":              {of(person(7), person(100), person(200)), n/4 + n/3 - n/12 + 1},
		"one twice":            {of(person(100), person(100), person(100)), n / 4},
		"a stranger":           {of(person(999)), 0},
		"a stranger and a one": {of(person(999), person(8)), 1},
		"nobody":               {of(crm.UUID{}), 0},
		"an empty list":        {of([]crm.UUID{}...), 0},
	} {
		if test.q.Persons == nil {
			test.q.Persons = []crm.UUID{}
		}
		if got := find(what, test.q); len(got) != test.rows {
			t.Errorf("%s: %d rows, want %d", what, len(got), test.rows)
		}
	}
	q := of(person(101), person(200))
	q.Sort, q.Desc = "amount", true
	find("sorted", q)
	q.Clauses = stage("won")
	find("a clause", q)
	q = of(person(101), person(200))
	q.Tokens = []int64{TokenOf(2, 0), TokenOf(3, 4), TokenOf(5, 9)}
	if got := find("tokens", q); len(got) == 0 || len(got) >= 20 {
		t.Errorf("tokens and persons gave %d rows", len(got))
	}
	q.Sort = "due"
	find("tokens, sorted", q)
	q.IDs = []crm.UUID{row(5).ID, row(21).ID, row(22).ID, row(23).ID, row(24).ID}
	find("tokens and ids", q)
	q = of(person(3))
	q.Tenant = "other"
	if got := find("another tenant", q); len(got) != 1 {
		t.Errorf("another tenant has %d rows", len(got))
	}
	q.Tenant = "nobody"
	find("an unknown tenant", q)

	// Rows change whom they name, go into the bin, and come back.
	change := row(5)
	change.Version, change.Persons = 2, []crm.UUID{person(5), person(101), person(300)} // no more 202
	bare := row(6)
	bare.Version, bare.Persons = 2, nil
	nobody := row(7)
	nobody.Version, nobody.Persons = 2, []crm.UUID{{}, person(103)}
	gone := row(9)
	gone.Version, gone.Deleted = 2, true
	apply(t, st, crm.Batch{Writes: []crm.Write{
		{Row: change, Expect: 1}, {Row: bare, Expect: 1}, {Row: nobody, Expect: 1}, {Row: gone, Expect: 1},
	}})
	for what, test := range map[string]struct {
		q    crm.Query
		rows int
	}{
		"a new person":       {of(person(300)), 1},
		"a dropped person":   {of(person(202)), n/3 - 1},
		"a kept person":      {of(person(101)), n/4 - 1}, // row 9 is in the bin
		"its own, no more":   {of(person(6), person(7)), 0},
		"beside nobody":      {of(person(103)), n / 4},
		"nobody, twice":      {of(crm.UUID{}, crm.UUID{}), 0},
		"of one in the bin":  {of(person(9)), 0},
		"of many, none left": {of(person(6), person(7), person(9)), 0},
	} {
		if got := find(what, test.q); len(got) != test.rows {
			t.Errorf("%s: %d rows, want %d", what, len(got), test.rows)
		}
	}
	q = of(person(9))
	q.Deletion = crm.InBin
	if got := find("the bin", q); !slices.Equal(got, []crm.UUID{gone.ID}) {
		t.Errorf("the bin has %d rows", len(got))
	}
	q.Deletion = crm.LivingAndBin
	q.Persons = append(q.Persons, person(8))
	if got := find("living and bin", q); len(got) != 2 {
		t.Errorf("living and bin: %d rows", len(got))
	}
	gone.Version, gone.Deleted = 3, false
	apply(t, st, one(gone))
	if got := find("restored", of(person(9))); len(got) != 1 {
		t.Errorf("restored: %d rows", len(got))
	}
	stale := row(8)
	stale.Version, stale.Persons = 5, []crm.UUID{person(400)}
	_, err := st.Apply(t.Context(), one(stale))
	wantWrite(t, err, 0, crm.ErrConflict)
	find("a refused write", of(person(400)))
}

package crmtest

import (
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// wantLimit checks that err is a *crm.LimitError for a limit.
func wantLimit(t testing.TB, err error, index int) {
	t.Helper()
	var l *crm.LimitError
	if !errors.As(err, &l) || l.Index != index {
		t.Fatalf("got %v, want limit %d", err, index)
	}
}

// stage meets the rows of a stage.
func stage(s string) []crm.Clause {
	return []crm.Clause{{Column: "stage", Op: crm.Equal, Values: []crm.Value{crm.StringValue(s)}}}
}

// atMost allows n rows of a stage.
func atMost(n int64, of string) crm.Limit {
	return crm.Limit{Tenant: tenant, Of: []crm.Measure{{Type: "thing", Clauses: stage(of)}}, Value: n}
}

// notBelow wants a sum of all amounts.
func notBelow(n int64) crm.Limit {
	return crm.Limit{Tenant: tenant, Of: []crm.Measure{{Type: "thing", Sum: "amount"}}, Least: true, Value: n}
}

// entry is the i-th row, of a stage and an amount.
func entry(i int, stage string, amount int64) crm.Row {
	row := Row(tenant, i)
	row.Clear[1], row.Clear[2] = crm.StringValue(stage), crm.IntValue(amount)
	return row
}

// limitCount caps how many rows meet a clause.
func (s suite) limitCount(t *testing.T) {
	st := s.store(t, 0)
	put := func(row crm.Row, limits ...crm.Limit) error {
		b := one(row)
		b.Limits = limits
		_, err := st.Apply(t.Context(), b)
		return err
	}
	for i := range 3 {
		if err := put(entry(i, "claimed", 0), atMost(3, "claimed")); err != nil {
			t.Fatalf("row %d of 3: %v", i, err)
		}
	}
	wantLimit(t, put(entry(3, "claimed", 0), atMost(3, "claimed")), 0)
	if err := put(entry(3, "open", 0), atMost(3, "claimed")); err != nil {
		t.Fatalf("a row that is not counted: %v", err)
	}
	wantLimit(t, put(entry(4, "open", 0), atMost(2, "open"), atMost(2, "claimed"), atMost(0, "open")), 1)
	again := entry(1, "claimed", 5)
	again.Version = 2
	if err := put(again, atMost(3, "claimed")); err != nil {
		t.Fatalf("a row that is counted already: %v", err)
	}
	moved := entry(3, "claimed", 0)
	moved.Version = 2
	wantLimit(t, put(moved, atMost(3, "claimed")), 0)

	// The same batch makes room: a row that goes to the bin, and one that changes.
	gone := entry(0, "claimed", 0)
	gone.Version, gone.Deleted = 2, true
	apply(t, st, crm.Batch{
		Writes: []crm.Write{{Row: moved, Expect: 1}, {Row: gone, Expect: 1}}, Limits: []crm.Limit{atMost(3, "claimed")},
	})
	left := entry(2, "left", 0)
	left.Version = 2
	apply(t, st, crm.Batch{
		Writes: []crm.Write{{Row: entry(5, "claimed", 0)}, {Row: left, Expect: 1}}, Limits: []crm.Limit{atMost(3, "claimed")},
	})
	gone.Version, gone.Deleted = 3, false // restoring counts again
	wantLimit(t, put(gone, atMost(3, "claimed")), 0)

	// A limit holds for the tenant that it names, not for others.
	other := Row("other", 1)
	other.Clear[1] = crm.StringValue("claimed")
	if err := put(other, atMost(3, "claimed")); err != nil {
		t.Fatalf("another tenant's row: %v", err)
	}
	wide := atMost(0, "claimed")
	wide.Tenant = "nobody"
	other.Version = 2
	if err := put(other, wide); err != nil {
		t.Fatalf("a tenant without rows: %v", err)
	}
	wide.Least, wide.Value = true, 1
	other.Version = 3
	wantLimit(t, put(other, wide), 0)
	fresh := Row("fresh", 1) // the first row of its tenant is counted
	fresh.Clear[1] = crm.StringValue("claimed")
	wide.Tenant = "fresh"
	if err := put(fresh, wide); err != nil {
		t.Fatalf("the first row of a tenant: %v", err)
	}
}

// limitSum holds a ledger above zero and adds measures of two types.
func (s suite) limitSum(t *testing.T) {
	st := s.store(t, 0)
	other := Schema()
	other.Type = "other"
	if err := st.Declare(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	put := func(row crm.Row, limits ...crm.Limit) error {
		b := one(row)
		b.Limits = limits
		_, err := st.Apply(t.Context(), b)
		return err
	}
	if err := put(entry(0, "in", 100), notBelow(0)); err != nil {
		t.Fatal(err)
	}
	null := entry(1, "in", 0)
	null.Clear[2] = crm.Value{}
	if err := put(null, notBelow(100)); err != nil {
		t.Fatalf("null is 0: %v", err)
	}
	wantLimit(t, put(entry(2, "out", -101), notBelow(0)), 0)
	if err := put(entry(2, "out", -100), notBelow(0)); err != nil {
		t.Fatalf("down to 0: %v", err)
	}
	wantLimit(t, put(entry(3, "out", -1), notBelow(0)), 0)
	if err := put(entry(3, "out", -1), notBelow(-1)); err != nil {
		t.Fatalf("down to -1: %v", err)
	}
	// What is in the bin counts no more: the balance is judged as it is left.
	gone := entry(0, "in", 100)
	gone.Version, gone.Deleted = 2, true
	wantLimit(t, put(gone, notBelow(-100)), 0)

	both := func(n int64) crm.Limit {
		return crm.Limit{Tenant: tenant, Value: n, Of: []crm.Measure{
			{Type: "thing", Clauses: stage("out"), Sum: "amount"}, {Type: "other", Sum: "amount"}, {Type: "other"},
		}}
	}
	row := entry(7, "in", 150)
	row.Type = "other" // -101 + 150 + 1
	wantLimit(t, put(row, both(49)), 0)
	if err := put(row, both(50)); err != nil {
		t.Fatalf("measures of two types: %v", err)
	}

	// The order of adding decides nothing, the result does.
	big := func(i int, n int64) crm.Row { return entry(i, "big", n) }
	apply(t, st, crm.Batch{Writes: []crm.Write{
		{Row: big(20, math.MaxInt64)}, {Row: big(21, math.MaxInt64)}, {Row: big(22, math.MinInt64)}, {Row: big(23, math.MinInt64)},
	}})
	sum := func(value int64) crm.Limit {
		return crm.Limit{Tenant: tenant, Value: value, Of: []crm.Measure{{Type: "thing", Clauses: stage("big"), Sum: "amount"}}}
	}
	wantLimit(t, put(entry(30, "x", 0), sum(-3)), 0)
	if err := put(entry(30, "x", 0), sum(-2)); err != nil {
		t.Fatalf("a sum of large numbers: %v", err)
	}
	wantRequest(t, put(big(24, math.MinInt64), sum(0)), "sum")
	wantRequest(t, put(big(24, math.MinInt64), sum(-1)), "sum")
	if got := loadOne(t, st, big(24, 0)); got.Version != 0 {
		t.Fatal("a sum that does not fit left a row")
	}
	twice := sum(math.MaxInt64)
	twice.Of = []crm.Measure{{Type: "thing", Clauses: stage("big"), Sum: "amount"}, {Type: "thing", Clauses: []crm.Clause{
		{Column: "amount", Op: crm.Equal, Values: []crm.Value{crm.IntValue(math.MaxInt64)}},
	}, Sum: "amount"}}
	wantRequest(t, put(entry(31, "x", 0), twice), "sum") // each fits, both do not: -2 + 2 (2^63 - 1)
}

// limitAtomic checks that a limit which one write breaks undoes all.
func (s suite) limitAtomic(t *testing.T) {
	st := s.store(t, 2)
	before := pages(t, st, all())
	change := Row(tenant, 0)
	change.Version = 2
	change.Sealed[0].Tokens = append(change.Sealed[0].Tokens, crm.Token{Value: 4711, Unique: true})
	b := crm.Batch{
		Writes: []crm.Write{{Row: Row(tenant, 5)}, {Row: change, Expect: 1}, {Row: entry(6, "claimed", 0)}, {Row: Row("new tenant", 7)}},
		Limits: []crm.Limit{atMost(1, "claimed"), atMost(0, "claimed")},
		Log:    "log", Event: 9,
	}
	_, err := st.Apply(t.Context(), b)
	wantLimit(t, err, 1)
	after := pages(t, st, all())
	if !slices.EqualFunc(before, after, func(a, b crm.Row) bool { return sameRow(a, b) && a.ChangeSeq == b.ChangeSeq }) {
		t.Fatal("a refused batch left a trace")
	}
	if got := loadOne(t, st, Row("new tenant", 7)); got.Version != 0 {
		t.Fatal("a refused batch left a row of another tenant")
	}
	if events, err := st.Applied(t.Context(), "log", 0); err != nil || len(events) != 0 {
		t.Fatalf("a refused batch counts as applied: %v, %v", events, err)
	}
	q := all()
	q.Tokens = []int64{TokenOf(5, 9), TokenOf(6, 9), 4711}
	if n, err := st.Count(t.Context(), q); err != nil || n != 0 {
		t.Fatalf("a refused batch left tokens: %d, %v", n, err)
	}
	// An earlier reason goes first.
	stale := b
	stale.Writes = append(slices.Clone(b.Writes), crm.Write{Row: Row(tenant, 1)})
	_, err = st.Apply(t.Context(), stale)
	wantWrite(t, err, 4, crm.ErrConflict)
	b.Limits = b.Limits[:1]
	seq := apply(t, st, b) // the same batch, the unique token too
	if got := loadOne(t, st, Row(tenant, 5)).ChangeSeq; got != seq {
		t.Fatalf("ChangeSeq %d, want %d", got, seq)
	}
}

// concurrentLimit lets many claim a few places, and spend one balance.
func (s suite) concurrentLimit(t *testing.T) {
	st := s.store(t, 0)
	const writers, places = 50, 5
	race := func(what string, row func(i int) crm.Row, limit crm.Limit) {
		t.Helper()
		var wg sync.WaitGroup
		errs := make([]error, writers)
		for i := range writers {
			wg.Go(func() {
				b := one(row(i))
				b.Limits = []crm.Limit{limit}
				_, errs[i] = st.Apply(t.Context(), b)
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			var l *crm.LimitError
			if err == nil {
				won++
			} else if !errors.As(err, &l) {
				t.Fatalf("%s: a loser got %v", what, err)
			}
		}
		if won != places {
			t.Fatalf("%s: %d writers won, want %d", what, won, places)
		}
	}
	race("places", func(i int) crm.Row { return entry(i, "claimed", 0) }, atMost(places, "claimed"))
	if n := len(pages(t, st, all())); n != places {
		t.Fatalf("%d rows, want %d", n, places)
	}
	apply(t, st, one(entry(100, "in", 10*places+9)))
	race("balance", func(i int) crm.Row { return entry(200+i, "out", -10) }, notBelow(0))
}

func (s suite) badLimits(t *testing.T) {
	st := s.store(t, 1)
	for name, test := range map[string]struct {
		part string
		edit func(*crm.Batch)
	}{
		"no tenant":         {"tenant", func(b *crm.Batch) { b.Limits[1].Tenant = "" }},
		"no measure":        {"limits", func(b *crm.Batch) { b.Limits[1].Of = nil }},
		"11 measures":       {"limits", func(b *crm.Batch) { b.Limits[1].Of = slices.Repeat(b.Limits[0].Of, 11) }},
		"101 limits":        {"limits", func(b *crm.Batch) { b.Limits = slices.Repeat(b.Limits[:1], 101) }},
		"no type":           {"type", func(b *crm.Batch) { b.Limits[1].Of[0].Type = "" }},
		"unknown type":      {"type", func(b *crm.Batch) { b.Limits[1].Of[0].Type = "stranger" }},
		"unknown column":    {"column", func(b *crm.Batch) { b.Limits[1].Of[0].Clauses[0].Column = "stranger" }},
		"sum of nothing":    {"column", func(b *crm.Batch) { b.Limits[1].Of[0].Sum = "stranger" }},
		"sum of SQL":        {"column", func(b *crm.Batch) { b.Limits[1].Of[0].Sum = `amount") + SUM("amount` }},
		"sum of text":       {"column", func(b *crm.Batch) { b.Limits[1].Of[0].Sum = "owner" }},
		"sum of booleans":   {"column", func(b *crm.Batch) { b.Limits[1].Of[0].Sum = "primary" }},
		"sum of times":      {"column", func(b *crm.Batch) { b.Limits[1].Of[0].Sum = "due" }},
		"unknown operator":  {"clause", func(b *crm.Batch) { b.Limits[1].Of[0].Clauses[0].Op = 99 }},
		"wrong kind":        {"clause", func(b *crm.Batch) { b.Limits[1].Of[0].Clauses[0].Values[0] = crm.IntValue(1) }},
		"too many clauses":  {"clause", func(b *crm.Batch) { b.Limits[1].Of[0].Clauses = slices.Repeat(stage("x"), 101) }},
		"limits, no writes": {"batch", func(b *crm.Batch) { b.Writes = nil }},
	} {
		b := one(Row(tenant, 5))
		b.Limits = []crm.Limit{atMost(10, "won"), atMost(10, "won")}
		test.edit(&b)
		_, err := st.Apply(t.Context(), b)
		var r *crm.RequestError
		if !errors.As(err, &r) || r.Part != test.part {
			t.Errorf("%s: %v, want a RequestError about %s", name, err, test.part)
		}
	}
	b := one(Row(tenant, 5))
	b.Limits = slices.Repeat([]crm.Limit{{Tenant: tenant, Of: slices.Repeat(atMost(10, "won").Of, 10), Value: 10}}, 100)
	apply(t, st, b)
	if got := pages(t, st, all()); len(got) != 2 {
		t.Fatalf("%d rows, want 2", len(got))
	}
}

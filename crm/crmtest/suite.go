package crmtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// suite is one run of TestStore.
type suite struct {
	open func(testing.TB) crm.Store
}

// TestStore holds a crm.Store to what its documentation says. open returns a fresh, empty store each
// time. Every implementation runs the same tests.
func TestStore(t *testing.T, open func(testing.TB) crm.Store) {
	s := suite{open}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Create", s.create},
		{"Load", s.load},
		{"Update", s.update},
		{"Bin", s.bin},
		{"Copies", s.copies},
		{"List", s.list},
		{"ListWhileWriting", s.listWhileWriting},
		{"Clauses", s.clauses},
		{"Conditions", s.conditions},
		{"Tokens", s.tokens},
		{"Carriers", s.carriers},
		{"Persons", s.persons},
		{"Unique", s.unique},
		{"UniqueInBatch", s.uniqueInBatch},
		{"ChangeSeq", s.changeSeq},
		{"Changes", s.changes},
		{"ChangesWhileWriting", s.changesWhileWriting},
		{"Atomic", s.atomic},
		{"Applied", s.applied},
		{"Rehearse", s.rehearse},
		{"LimitCount", s.limitCount},
		{"LimitSum", s.limitSum},
		{"LimitAtomic", s.limitAtomic},
		{"ConcurrentLimit", s.concurrentLimit},
		{"BadLimits", s.badLimits},
		{"Group", s.group},
		{"GroupSums", s.groupSums},
		{"ManyGroups", s.manyGroups},
		{"BadGroups", s.badGroups},
		{"Declare", s.declare},
		{"Tenants", s.tenants},
		{"Types", s.types},
		{"ConcurrentWriters", s.concurrentWriters},
		{"ConcurrentUnique", s.concurrentUnique},
		{"ReadWhole", s.readWhole},
		{"BadRequests", s.badRequests},
		{"BadRows", s.badRows},
		{"Cursors", s.cursors},
		{"Cancelled", s.cancelled},
	} {
		t.Run(test.name, test.run)
	}
}

const tenant = "default"

// store returns a store with the type of Row declared and rows 0 to n-1 in it.
func (s suite) store(t *testing.T, n int) crm.Store {
	t.Helper()
	st := s.open(t)
	if err := st.Declare(t.Context(), Schema()); err != nil {
		t.Fatalf("Declare: %v", err)
	}
	for i := 0; i < n; i += 1000 {
		var b crm.Batch
		for k := i; k < min(n, i+1000); k++ {
			b.Writes = append(b.Writes, crm.Write{Row: Row(tenant, k)})
		}
		apply(t, st, b)
	}
	return st
}

func apply(t testing.TB, st crm.Store, b crm.Batch) int64 {
	t.Helper()
	seq, err := st.Apply(t.Context(), b)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return seq
}

// one is a batch of one write over the version before the row's.
func one(row crm.Row) crm.Batch {
	return crm.Batch{Writes: []crm.Write{{Row: row, Expect: row.Version - 1}}}
}

func loadOne(t testing.TB, st crm.Store, row crm.Row) crm.Row {
	t.Helper()
	rows, err := st.Load(t.Context(), row.Tenant, row.Type, []crm.UUID{row.ID})
	if err != nil || len(rows) != 1 {
		t.Fatalf("Load: %d rows, %v", len(rows), err)
	}
	return rows[0]
}

// sameRow compares all of two rows but ChangeSeq.
func sameRow(a, b crm.Row) bool {
	return a.Tenant == b.Tenant && a.Type == b.Type && a.ID == b.ID && slices.Equal(a.Persons, b.Persons) &&
		a.Version == b.Version && a.Deleted == b.Deleted && slices.Equal(a.Clear, b.Clear) && string(a.MAC) == string(b.MAC) &&
		slices.EqualFunc(a.Sealed, b.Sealed, func(f, g crm.SealedField) bool {
			return f.Name == g.Name && string(f.Data) == string(g.Data) && slices.Equal(f.Tokens, g.Tokens)
		})
}

func all() crm.Query {
	return crm.Query{Tenant: tenant, Type: "thing", Where: crm.Everything{}, Limit: 1000}
}

// pages follows q to its end and returns all rows.
func pages(t testing.TB, st crm.Store, q crm.Query) []crm.Row {
	t.Helper()
	var rows []crm.Row
	for range 10000 {
		p, err := st.List(t.Context(), q)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if len(p.Rows) > q.Limit {
			t.Fatalf("a page of %d rows, limit %d", len(p.Rows), q.Limit)
		}
		rows = append(rows, p.Rows...)
		if p.Next == "" {
			return rows
		}
		q.After = p.Next
	}
	t.Fatal("a list without end")
	return nil
}

func ids(rows []crm.Row) []crm.UUID {
	var list []crm.UUID
	for _, r := range rows {
		list = append(list, r.ID)
	}
	return list
}

// wantWrite checks that err is a *crm.WriteError for a write and a reason.
func wantWrite(t testing.TB, err error, index int, reason error) {
	t.Helper()
	var w *crm.WriteError
	if !errors.As(err, &w) || w.Index != index || !errors.Is(err, reason) {
		t.Fatalf("got %v, want write %d: %v", err, index, reason)
	}
}

// wantRequest checks that err is a *crm.RequestError about a part.
func wantRequest(t testing.TB, err error, part string) {
	t.Helper()
	var r *crm.RequestError
	if !errors.As(err, &r) || r.Part != part {
		t.Fatalf("got %v, want a RequestError about %s", err, part)
	}
}

func (s suite) create(t *testing.T) {
	st := s.store(t, 0)
	for i := range 20 {
		row := Row(tenant, i)
		apply(t, st, one(row))
		got := loadOne(t, st, row)
		if !sameRow(got, row) {
			t.Fatalf("row %d came back changed:\n got %+v\nwant %+v", i, got, row)
		}
		if got.ChangeSeq <= 0 {
			t.Fatalf("row %d has no ChangeSeq", i)
		}
	}
	_, err := st.Apply(t.Context(), one(Row(tenant, 3)))
	wantWrite(t, err, 0, crm.ErrConflict)

	bare := crm.Row{Tenant: tenant, Type: "thing", ID: crm.NewUUID(), Version: 1, Clear: make([]crm.Value, 5)}
	apply(t, st, one(bare))
	if got := loadOne(t, st, bare); !sameRow(got, bare) {
		t.Fatalf("a row of nulls came back as %+v", got)
	}
	edges := Row(tenant, 100)
	edges.Clear = []crm.Value{
		crm.StringValue(""), crm.StringValue("quote ' \" ? $1 \\ \n\t 😀"), crm.IntValue(-1 << 63), crm.BoolValue(false),
		crm.TimeValue(Start().AddDate(-200, 0, 0)),
	}
	apply(t, st, one(edges))
	if got := loadOne(t, st, edges); !sameRow(got, edges) {
		t.Fatalf("values at the edges came back as %+v", got.Clear)
	}
}

func (s suite) load(t *testing.T) {
	st := s.store(t, 5)
	missing := crm.NewUUID()
	want := []crm.UUID{Row(tenant, 4).ID, missing, Row(tenant, 0).ID, Row(tenant, 4).ID}
	rows, err := st.Load(t.Context(), tenant, "thing", want)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ids(rows), want) {
		t.Fatal("rows are not in the order of ids")
	}
	for i, v := range []int64{1, 0, 1, 1} {
		if rows[i].Version != v {
			t.Fatalf("row %d has version %d, want %d", i, rows[i].Version, v)
		}
	}
	if !sameRow(rows[0], rows[3]) {
		t.Fatal("the same id gave two rows")
	}
	if rows, err := st.Load(t.Context(), tenant, "thing", nil); err != nil || len(rows) != 0 {
		t.Fatalf("no ids gave %d rows, %v", len(rows), err)
	}
	many := make([]crm.UUID, 1500)
	for i := range many {
		many[i] = Row(tenant, i).ID
	}
	rows, err = st.Load(t.Context(), tenant, "thing", many)
	if err != nil || len(rows) != 1500 || rows[4].Version != 1 || rows[5].Version != 0 {
		t.Fatalf("a long Load: %d rows, %v", len(rows), err)
	}
}

func (s suite) update(t *testing.T) {
	st := s.store(t, 3)
	row := Row(tenant, 1)
	for v := int64(2); v <= 5; v++ {
		row.Version = v
		row.Clear[2] = crm.IntValue(v)
		row.Sealed[0].Data = []byte{byte(v)}
		row.Sealed[0].Tokens = []crm.Token{{Value: v}}
		row.Persons = []crm.UUID{PersonID(90).UUID(), PersonID(50 + int(v)).UUID(), PersonID(70).UUID()} // ids ascend
		apply(t, st, one(row))
		if got := loadOne(t, st, row); !sameRow(got, row) {
			t.Fatalf("version %d came back as %+v", v, got)
		}
	}
	for _, expect := range []int64{0, 1, 4, 6} {
		stale := row
		stale.Version = expect + 1
		_, err := st.Apply(t.Context(), crm.Batch{Writes: []crm.Write{{Row: stale, Expect: expect}}})
		wantWrite(t, err, 0, crm.ErrConflict)
	}
	absent := Row(tenant, 9)
	absent.Version = 2
	_, err := st.Apply(t.Context(), one(absent))
	wantWrite(t, err, 0, crm.ErrConflict)
	if got := loadOne(t, st, row); !sameRow(got, row) {
		t.Fatal("a refused write left a trace")
	}
	if got := ids(pages(t, st, all())); !slices.Equal(got, []crm.UUID{Row(tenant, 0).ID, row.ID, Row(tenant, 2).ID}) {
		t.Fatal("an update moved a row in the order of creation")
	}
}

func (s suite) bin(t *testing.T) {
	st := s.store(t, 4)
	row := Row(tenant, 2)
	row.Version, row.Deleted = 2, true
	apply(t, st, one(row))
	if got := loadOne(t, st, row); !sameRow(got, row) {
		t.Fatalf("a deleted row loads as %+v", got)
	}
	counts := func(living, bin, both int64) {
		t.Helper()
		for d, want := range map[crm.Deletion]int64{crm.Living: living, crm.InBin: bin, crm.LivingAndBin: both} {
			q := all()
			q.Deletion = d
			if got := int64(len(pages(t, st, q))); got != want {
				t.Fatalf("Deletion %d lists %d rows, want %d", d, got, want)
			}
			if got, err := st.Count(t.Context(), q); err != nil || got != want {
				t.Fatalf("Deletion %d counts %d, %v, want %d", d, got, err, want)
			}
			q.Tokens = []int64{TokenOf(2, 9)}
			if got, err := st.Count(t.Context(), q); err != nil || (got == 1) != (slices.ContainsFunc(pages(t, st, q), func(r crm.Row) bool { return r.ID == row.ID })) {
				t.Fatalf("Deletion %d: tokens count %d, %v", d, got, err)
			}
		}
	}
	counts(3, 1, 4)
	row.Version, row.Deleted = 3, false
	apply(t, st, one(row))
	counts(4, 0, 4)
	born := Row(tenant, 7)
	born.Deleted = true
	apply(t, st, one(born))
	counts(4, 1, 5)
}

// copies checks that rows share no memory with the store.
func (s suite) copies(t *testing.T) {
	st := s.store(t, 0)
	row, want := Row(tenant, 1), Row(tenant, 1)
	apply(t, st, one(row))
	spoil := func(r crm.Row) {
		r.Clear[0] = crm.StringValue("spoilt")
		r.Sealed[0].Data[0] ^= 1
		r.Sealed[0].Tokens[0].Value++
		r.Sealed[0].Name = "spoilt"
		r.Persons[0][0] ^= 1
		r.MAC[0] ^= 1
	}
	spoil(row)
	spoil(loadOne(t, st, want))
	spoil(pages(t, st, all())[0])
	if got := loadOne(t, st, want); !sameRow(got, want) {
		t.Fatalf("the stored row changed: %+v", got)
	}
}

// expected sorts rows as a list does, with null last in both directions.
func expected(rows []crm.Row, column int, desc bool) []crm.UUID {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b crm.Row) int {
		var n int
		if column >= 0 {
			x, y := a.Clear[column], b.Clear[column]
			if (x.Kind() == 0) != (y.Kind() == 0) {
				if x.Kind() == 0 {
					return 1
				}
				return -1
			}
			n = cmp.Or(cmp.Compare(x.Int(), y.Int()), strings.Compare(x.Str(), y.Str()))
		}
		n = cmp.Or(n, cmp.Compare(a.ChangeSeq, b.ChangeSeq))
		if desc {
			return -n
		}
		return n
	})
	return ids(rows)
}

func (s suite) list(t *testing.T) {
	const n = 120
	st := s.store(t, n)
	rows := pages(t, st, all())
	if len(rows) != n {
		t.Fatalf("%d rows, want %d", len(rows), n)
	}
	for column := -1; column < len(Schema().Columns); column++ {
		for _, desc := range []bool{false, true} {
			want := expected(rows, column, desc)
			for _, limit := range []int{1, 7, n - 1, n, 1000} {
				q := all()
				q.Desc, q.Limit = desc, limit
				if column >= 0 {
					q.Sort = Schema().Columns[column].Name
				}
				if got := ids(pages(t, st, q)); !slices.Equal(got, want) {
					t.Fatalf("sort %q, desc %v, limit %d: wrong order", q.Sort, desc, limit)
				}
			}
		}
	}
	q := all()
	q.IDs = []crm.UUID{Row(tenant, 5).ID, Row(tenant, 3).ID, Row(tenant, 5).ID, crm.NewUUID()}
	if got := ids(pages(t, st, q)); !slices.Equal(got, []crm.UUID{Row(tenant, 3).ID, Row(tenant, 5).ID}) {
		t.Fatalf("a list of ids gave %d rows", len(got))
	}
	q.IDs = []crm.UUID{}
	if got := pages(t, st, q); len(got) != 0 {
		t.Fatalf("an empty list of ids gave %d rows", len(got))
	}
}

// listWhileWriting checks that rows which do not move are listed once, whatever is written beside.
func (s suite) listWhileWriting(t *testing.T) {
	const n = 60
	st := s.store(t, n)
	q := all()
	q.Sort, q.Limit = "amount", 7
	seen := map[crm.UUID]int{}
	next := n
	for {
		p, err := st.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Rows {
			seen[r.ID]++
		}
		apply(t, st, one(Row(tenant, next)))
		next++
		if q.After = p.Next; p.Next == "" {
			break
		}
	}
	for i := range n {
		if got := seen[Row(tenant, i).ID]; got != 1 {
			t.Fatalf("row %d was listed %d times", i, got)
		}
	}
}

func (s suite) clauses(t *testing.T) {
	const n = 90
	st := s.store(t, n)
	rows := pages(t, st, all())
	str, num := crm.StringValue, crm.IntValue
	due := crm.TimeValue(Start())
	for _, test := range []struct {
		column string
		op     crm.Op
		values []crm.Value
		meets  func(v crm.Value) bool
	}{
		{"stage", crm.Equal, []crm.Value{str("won")}, func(v crm.Value) bool { return v.Str() == "won" }},
		{"stage", crm.Equal, []crm.Value{str("")}, func(crm.Value) bool { return false }},
		{"stage", crm.NotEqual, []crm.Value{str("won")}, func(v crm.Value) bool { return v.Str() != "won" }},
		{"stage", crm.Less, []crm.Value{str("new")}, func(v crm.Value) bool { return v.Str() < "new" }},
		{"stage", crm.GreaterOrEqual, []crm.Value{str("won")}, func(v crm.Value) bool { return v.Str() >= "won" }},
		{"stage", crm.In, []crm.Value{str("won"), str("负责"), str("nothing")}, func(v crm.Value) bool { return v.Str() == "won" || v.Str() == "负责" }},
		{"stage", crm.Prefix, []crm.Value{str("w")}, func(v crm.Value) bool { return strings.HasPrefix(v.Str(), "w") }},
		{"stage", crm.Prefix, []crm.Value{str("a_")}, func(v crm.Value) bool { return strings.HasPrefix(v.Str(), "a_") }},
		{"stage", crm.Prefix, []crm.Value{str("%")}, func(crm.Value) bool { return false }},
		{"stage", crm.Prefix, []crm.Value{str("负")}, func(v crm.Value) bool { return v.Str() == "负责" }},
		{"stage", crm.Prefix, []crm.Value{str("\U0010ffff")}, func(crm.Value) bool { return false }},
		{"stage", crm.Prefix, []crm.Value{str("")}, func(crm.Value) bool { return true }},
		{"stage", crm.IsNull, nil, nil},
		{"stage", crm.NotNull, nil, func(crm.Value) bool { return true }},
		{"amount", crm.Equal, []crm.Value{num(0)}, func(v crm.Value) bool { return v.Int() == 0 }},
		{"amount", crm.Less, []crm.Value{num(-1000)}, func(v crm.Value) bool { return v.Int() < -1000 }},
		{"amount", crm.LessOrEqual, []crm.Value{num(-1000)}, func(v crm.Value) bool { return v.Int() <= -1000 }},
		{"amount", crm.Greater, []crm.Value{num(2000)}, func(v crm.Value) bool { return v.Int() > 2000 }},
		{"amount", crm.In, []crm.Value{num(1000)}, func(v crm.Value) bool { return v.Int() == 1000 }},
		{"amount", crm.IsNull, nil, nil},
		{"primary", crm.Equal, []crm.Value{crm.BoolValue(true)}, func(v crm.Value) bool { return v.Int() == 1 }},
		{"primary", crm.NotEqual, []crm.Value{crm.BoolValue(true)}, func(v crm.Value) bool { return v.Int() == 0 }},
		{"due", crm.Equal, []crm.Value{due}, func(v crm.Value) bool { return v == due }},
		{"due", crm.Greater, []crm.Value{due}, func(v crm.Value) bool { return v.Int() > due.Int() }},
		{"due", crm.LessOrEqual, []crm.Value{due}, func(v crm.Value) bool { return v.Int() <= due.Int() }},
	} {
		column := slices.IndexFunc(Schema().Columns, func(c crm.Column) bool { return c.Name == test.column })
		var want []crm.UUID
		for _, r := range rows {
			v := r.Clear[column]
			if v.Kind() == 0 && test.op == crm.IsNull || v.Kind() != 0 && test.meets != nil && test.meets(v) {
				want = append(want, r.ID)
			}
		}
		q := all()
		q.Clauses = []crm.Clause{{Column: test.column, Op: test.op, Values: test.values}}
		q.Limit = 9
		if got := ids(pages(t, st, q)); !slices.Equal(got, want) {
			t.Errorf("%s, operator %d: %d rows, want %d", test.column, test.op, len(got), len(want))
		}
		if got, err := st.Count(t.Context(), q); err != nil || got != int64(len(want)) {
			t.Errorf("%s, operator %d: counted %d, %v, want %d", test.column, test.op, got, err, len(want))
		}
		for _, most := range []int64{1, 3, 1000} {
			q.Most = most
			if got, err := st.Count(t.Context(), q); err != nil || got != min(most, int64(len(want))) {
				t.Errorf("%s, operator %d: counted %d of at most %d, %v, want %d", test.column, test.op, got, most, err, len(want))
			}
		}
	}
	q := all()
	q.Clauses = []crm.Clause{
		{Column: "primary", Op: crm.Equal, Values: []crm.Value{crm.BoolValue(true)}},
		{Column: "amount", Op: crm.Greater, Values: []crm.Value{num(0)}},
	}
	for _, r := range pages(t, st, q) {
		if r.Clear[3].Int() != 1 || r.Clear[2].Int() <= 0 {
			t.Fatal("only one of two clauses was heeded")
		}
	}
}

// conditions checks that a condition in SQL admits the rows that Match does.
func (s suite) conditions(t *testing.T) {
	const n = 80
	st := s.store(t, n)
	rows := pages(t, st, all())
	r := rand.New(Random(1))
	for range 150 {
		c := randomCondition(r, 3)
		var want []crm.Row
		for _, row := range rows {
			if c.Match(func(name string) any {
				i := slices.IndexFunc(Schema().Columns, func(c crm.Column) bool { return c.Name == name })
				return row.Clear[i].Any()
			}) {
				want = append(want, row)
			}
		}
		q := all()
		q.Where, q.Sort, q.Desc, q.Limit = c, "amount", r.IntN(2) == 0, 11
		if got := ids(pages(t, st, q)); !slices.Equal(got, expected(want, 2, q.Desc)) {
			text, _, _ := c.SQL(func(name string) (string, error) { return name, nil })
			t.Fatalf("%s: %d rows, Match admits %d", text, len(got), len(want))
		}
		if got, err := st.Count(t.Context(), q); err != nil || got != int64(len(want)) {
			t.Fatalf("counted %d, %v, Match admits %d", got, err, len(want))
		}
	}
	q := all()
	q.Where = condition{op: "null", name: "nothing"}
	if _, err := st.List(t.Context(), q); err == nil {
		if p, _ := st.List(t.Context(), q); len(p.Rows) != n {
			t.Fatal("a condition on an unknown column was half heeded")
		}
	}
}

func (s suite) carriers(t *testing.T) {
	const n = 40
	st := s.store(t, n)
	ask := func(most int, tokens ...int64) map[int64][]crm.UUID {
		t.Helper()
		got, err := st.Carriers(t.Context(), tenant, Row(tenant, 0).Type, tokens, most)
		if err != nil {
			t.Fatal(err)
		}
		for token, list := range got { // as List finds them, each by itself
			q := all()
			q.Deletion, q.Tokens, q.Limit = crm.LivingAndBin, []int64{token}, 100
			want := ids(pages(t, st, q))
			slices.SortFunc(want, func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) })
			if !slices.Equal(list, want) {
				t.Fatalf("token %d is carried by %d rows, listed are %d", token, len(list), len(want))
			}
		}
		return got
	}
	ten, one7 := TokenOf(2, 0), TokenOf(7, 9) // of ten rows, of one
	for _, test := range []struct {
		most   int
		tokens []int64
		want   []int64
	}{
		{10, []int64{ten, one7, 12345}, []int64{ten, one7}},
		{9, []int64{ten, one7, 12345}, []int64{one7}},
		{10, []int64{ten, ten, ten}, []int64{ten}},
		{1, []int64{12345}, nil},
		{1, nil, nil},
		{1000, []int64{TokenOf(2, 0), TokenOf(2, 1), TokenOf(2, 2), TokenOf(2, 3), one7}, []int64{TokenOf(2, 0), TokenOf(2, 1), TokenOf(2, 2), TokenOf(2, 3), one7}},
	} {
		got := slices.Sorted(maps.Keys(ask(test.most, test.tokens...)))
		want := slices.Sorted(slices.Values(test.want))
		if !slices.Equal(got, want) {
			t.Fatalf("%v of at most %d rows: %v, want %v", test.tokens, test.most, got, want)
		}
	}
	bin := Row(tenant, 0)
	bin.Version, bin.Deleted = 2, true
	apply(t, st, one(bin))
	if got := ask(10, ten)[ten]; len(got) != 10 {
		t.Fatalf("with one row in the bin %d carry the token, not 10", len(got))
	}
	if got := ask(9, ten); len(got) != 0 {
		t.Fatal("a row in the bin is not counted")
	}
	many := make([]int64, 10_000) // in several statements
	for i := range many {
		many[i] = int64(1_000_000 + i)
	}
	many[1], many[5_000], many[9_999] = ten, one7, TokenOf(2, 1)
	if got := ask(10, many...); len(got) != 3 {
		t.Fatalf("%d of three tokens among 10,000", len(got))
	}
	if got, err := st.Carriers(t.Context(), "another", Row(tenant, 0).Type, []int64{ten}, 10); err != nil || len(got) != 0 {
		t.Fatalf("another tenant: %d, %v", len(got), err)
	}
	var bad *crm.RequestError
	for name, ask := range map[string]func() error{
		"no tenant":   func() error { _, err := st.Carriers(t.Context(), "", bin.Type, []int64{ten}, 10); return err },
		"no type":     func() error { _, err := st.Carriers(t.Context(), tenant, "nothing", []int64{ten}, 10); return err },
		"too many":    func() error { _, err := st.Carriers(t.Context(), tenant, bin.Type, append(many, 1), 10); return err },
		"most 0":      func() error { _, err := st.Carriers(t.Context(), tenant, bin.Type, []int64{ten}, 0); return err },
		"most 1,001":  func() error { _, err := st.Carriers(t.Context(), tenant, bin.Type, []int64{ten}, 1001); return err },
		"most, below": func() error { _, err := st.Carriers(t.Context(), tenant, bin.Type, []int64{ten}, -1); return err },
	} {
		if err := ask(); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (s suite) tokens(t *testing.T) {
	const n = 40
	st := s.store(t, n)
	find := func(tokens ...int64) []crm.UUID {
		t.Helper()
		q := all()
		q.Tokens, q.Limit = tokens, 3
		got := ids(pages(t, st, q))
		if c, err := st.Count(t.Context(), q); err != nil || c != int64(len(got)) {
			t.Fatalf("counted %d, %v, listed %d", c, err, len(got))
		}
		return got
	}
	if got := find(TokenOf(2, 0)); len(got) != 10 || got[0] != Row(tenant, 20).ID {
		t.Fatalf("one token gave %d rows", len(got))
	}
	if got := find(TokenOf(2, 0), TokenOf(2, 1), TokenOf(3, 4)); len(got) != 20 {
		t.Fatalf("three tokens of two groups gave %d rows", len(got))
	}
	if got := find(TokenOf(7, 9)); !slices.Equal(got, []crm.UUID{Row(tenant, 7).ID}) {
		t.Fatalf("a unique token gave %d rows", len(got))
	}
	if got := find(12345); len(got) != 0 {
		t.Fatalf("an unknown token gave %d rows", len(got))
	}
	if got := find(); len(got) != n { // nil: no filter
		t.Fatalf("no tokens gave %d rows", len(got))
	}
	q := all()
	q.Tokens = []int64{}
	if got := pages(t, st, q); len(got) != 0 {
		t.Fatalf("an empty list of tokens gave %d rows", len(got))
	}
	row := Row(tenant, 21)
	row.Version = 2
	for i := range row.Sealed {
		row.Sealed[i].Tokens = nil
	}
	row.Sealed[1].Tokens = []crm.Token{{Value: 777}, {Value: 777}, {Value: TokenOf(2, 3)}}
	apply(t, st, one(row))
	if got := find(777); !slices.Equal(got, []crm.UUID{row.ID}) {
		t.Fatalf("a new token gave %d rows", len(got))
	}
	if got := find(TokenOf(2, 0)); len(got) != 9 || slices.Contains(got, row.ID) {
		t.Fatalf("a dropped token still gives the row")
	}
	if got := find(TokenOf(2, 3)); len(got) != 10 {
		t.Fatalf("a kept token gives %d rows", len(got))
	}
	if got := loadOne(t, st, row); !sameRow(got, row) {
		t.Fatalf("tokens came back as %+v", got.Sealed)
	}
	q.Tokens = []int64{TokenOf(2, 3)}
	q.Sort, q.Desc, q.Limit = "amount", true, 4
	var group []crm.Row
	for _, r := range pages(t, st, all()) {
		if slices.Contains(find(TokenOf(2, 3)), r.ID) {
			group = append(group, r)
		}
	}
	for i := range group { // row 21 keeps its place in the order of creation
		group[i].ChangeSeq = int64(i)
	}
	if got := ids(pages(t, st, q)); !slices.Equal(got, expected(group, 2, true)) {
		t.Fatal("rows of a token are in the wrong order")
	}
}

func (s suite) unique(t *testing.T) {
	st := s.store(t, 3)
	rival := Row(tenant, 5)
	rival.Sealed[1].Tokens = append(rival.Sealed[1].Tokens, crm.Token{Value: TokenOf(1, 9), Unique: true})
	_, err := st.Apply(t.Context(), one(rival))
	wantWrite(t, err, 0, crm.ErrDuplicate)
	if strings.Contains(err.Error(), fmt.Sprint(TokenOf(1, 9))) {
		t.Fatal("the error names the token")
	}
	plain := Row(tenant, 6) // the same value, but not unique to this row
	plain.Sealed[1].Tokens = append(plain.Sealed[1].Tokens, crm.Token{Value: TokenOf(1, 9)})
	apply(t, st, one(plain))

	holder := Row(tenant, 1)
	holder.Version, holder.Deleted = 2, true
	apply(t, st, one(holder))
	apply(t, st, one(rival)) // the holder is in the bin
	holder.Version, holder.Deleted = 3, false
	_, err = st.Apply(t.Context(), one(holder)) // restoring checks again
	wantWrite(t, err, 0, crm.ErrDuplicate)
	if got := loadOne(t, st, holder); !got.Deleted || got.Version != 2 {
		t.Fatal("a refused restore left a trace")
	}
	rival.Version = 2
	rival.Sealed[1].Tokens = rival.Sealed[1].Tokens[:1]
	apply(t, st, one(rival)) // gives the value up
	apply(t, st, one(holder))
	again := holder
	again.Version = 4
	apply(t, st, one(again)) // a row is no rival of itself
	rival.Version = 3
	rival.Sealed[1].Tokens = append(rival.Sealed[1].Tokens, crm.Token{Value: TokenOf(1, 9), Unique: true})
	_, err = st.Apply(t.Context(), one(rival))
	wantWrite(t, err, 0, crm.ErrDuplicate)
}

// uniqueInBatch checks that a batch is judged by what it leaves behind.
func (s suite) uniqueInBatch(t *testing.T) {
	st := s.store(t, 2)
	row := func(i, of int, version int64) crm.Write {
		r := Row(tenant, i)
		r.Version = version
		r.Sealed[0].Tokens = []crm.Token{{Value: TokenOf(of, 9), Unique: true}}
		return crm.Write{Row: r, Expect: version - 1}
	}
	apply(t, st, crm.Batch{Writes: []crm.Write{row(0, 1, 2), row(1, 0, 2)}}) // they swap
	_, err := st.Apply(t.Context(), crm.Batch{Writes: []crm.Write{row(7, 7, 1), row(8, 8, 1), row(9, 7, 1)}})
	wantWrite(t, err, 2, crm.ErrDuplicate)
	_, err = st.Apply(t.Context(), crm.Batch{Writes: []crm.Write{row(7, 7, 1), row(8, 0, 1), row(9, 1, 1)}})
	wantWrite(t, err, 1, crm.ErrDuplicate)
	gone := row(1, 0, 3)
	gone.Row.Deleted = true
	apply(t, st, crm.Batch{Writes: []crm.Write{row(8, 0, 1), gone}})
}

func (s suite) changeSeq(t *testing.T) {
	st := s.store(t, 0)
	var last int64
	for i := range 5 {
		var b crm.Batch
		for k := range 3 {
			b.Writes = append(b.Writes, crm.Write{Row: Row(tenant, 3*i+k)})
		}
		seq := apply(t, st, b)
		if seq <= last {
			t.Fatalf("batch %d got %d after %d", i, seq, last)
		}
		last = seq + 2
		for k, w := range b.Writes {
			if got := loadOne(t, st, w.Row).ChangeSeq; got != seq+int64(k) {
				t.Fatalf("write %d has ChangeSeq %d, want %d", k, got, seq+int64(k))
			}
		}
	}
	row := Row(tenant, 0)
	row.Version = 2
	if seq := apply(t, st, one(row)); seq <= last || loadOne(t, st, row).ChangeSeq != seq {
		t.Fatal("an update did not raise ChangeSeq")
	}
	if _, err := st.Apply(t.Context(), one(row)); err == nil {
		t.Fatal("a stale write was accepted")
	}
}

func (s suite) atomic(t *testing.T) {
	st := s.store(t, 2)
	before := pages(t, st, all())
	change := Row(tenant, 0)
	change.Version = 2
	for name, bad := range map[string]crm.Write{
		"conflict":  {Row: Row(tenant, 1)},
		"duplicate": {Row: func() crm.Row { r := Row(tenant, 8); r.Sealed[0].Tokens = Row(tenant, 1).Sealed[0].Tokens; return r }()},
	} {
		b := crm.Batch{
			Writes: []crm.Write{{Row: Row(tenant, 5)}, {Row: change, Expect: 1}, bad, {Row: Row(tenant, 6)}},
			Log:    "log", Event: 9,
		}
		_, err := st.Apply(t.Context(), b)
		reason := crm.ErrConflict
		if name == "duplicate" {
			reason = crm.ErrDuplicate
		}
		wantWrite(t, err, 2, reason)
	}
	after := pages(t, st, all())
	if !slices.EqualFunc(before, after, func(a, b crm.Row) bool { return sameRow(a, b) && a.ChangeSeq == b.ChangeSeq }) {
		t.Fatal("a refused batch left a trace")
	}
	if events, err := st.Applied(t.Context(), "log", 0); err != nil || len(events) != 0 {
		t.Fatalf("a refused batch counts as applied: %v, %v", events, err)
	}
	q := all()
	q.Tokens = []int64{TokenOf(5, 9), TokenOf(6, 9)}
	if n, err := st.Count(t.Context(), q); err != nil || n != 0 {
		t.Fatalf("a refused batch left tokens: %d, %v", n, err)
	}
}

func (s suite) applied(t *testing.T) {
	st := s.store(t, 0)
	for i, e := range []uint64{7, 3, 12, 1<<63 - 1} {
		b := one(Row(tenant, i))
		b.Log, b.Event = "main", e
		apply(t, st, b)
	}
	other := one(Row(tenant, 10))
	other.Log, other.Event = "other", 3
	apply(t, st, other)
	check := func(log string, from uint64, want ...uint64) {
		t.Helper()
		if got, err := st.Applied(t.Context(), log, from); err != nil || !slices.Equal(got, want) {
			t.Fatalf("Applied(%s, %d) = %v, %v, want %v", log, from, got, err, want)
		}
	}
	check("main", 0, 3, 7, 12, 1<<63-1)
	check("main", 7, 7, 12, 1<<63-1)
	check("main", 8, 12, 1<<63-1)
	check("other", 0, 3)
	check("none", 0)

	twice := one(Row(tenant, 11))
	twice.Log, twice.Event = "main", 7
	_, err := st.Apply(t.Context(), twice)
	wantRequest(t, err, "event")
	if got := loadOne(t, st, Row(tenant, 11)); got.Version != 0 {
		t.Fatal("an event that was applied already wrote again")
	}
	if err := st.Prune(t.Context(), "main", 12); err != nil {
		t.Fatal(err)
	}
	check("main", 0, 12, 1<<63-1)
	check("other", 0, 3)
	if err := st.Prune(t.Context(), "none", 12); err != nil {
		t.Fatal(err)
	}
	_, err = st.Applied(t.Context(), "", 0)
	wantRequest(t, err, "event")
	wantRequest(t, st.Prune(t.Context(), "main", 1<<63), "event")
	huge := one(Row(tenant, 12))
	huge.Log, huge.Event = "main", 1<<63
	_, err = st.Apply(t.Context(), huge)
	wantRequest(t, err, "event")
}

func (s suite) declare(t *testing.T) {
	st := s.store(t, 3)
	ctx := t.Context()
	if err := st.Declare(ctx, Schema()); err != nil {
		t.Fatalf("declared twice: %v", err)
	}
	wider := Schema()
	wider.Columns = append([]crm.Column{{Name: "added", Kind: crm.KindInt, Indexed: true}}, wider.Columns...)
	slices.Reverse(wider.Columns[1:])
	if err := st.Declare(ctx, wider); err != nil {
		t.Fatalf("declared with one more column, in another order: %v", err)
	}
	old, was := loadOne(t, st, Row(tenant, 1)), Row(tenant, 1).Clear
	want := []crm.Value{{}, was[4], was[3], was[2], was[1], was[0]}
	if !slices.Equal(old.Clear, want) {
		t.Fatalf("an old row reads as %v, want %v", old.Clear, want)
	}
	row := Row(tenant, 9)
	row.Clear = []crm.Value{crm.IntValue(5), {}, {}, {}, {}, {}}
	apply(t, st, one(row))
	q := all()
	q.Sort = "added"
	if got := pages(t, st, q); len(got) != 4 || got[0].ID != row.ID {
		t.Fatal("the new column does not sort")
	}
	wantRequest(t, st.Declare(ctx, Schema()), "schema") // a column is gone
	changed := wider
	changed.Columns = slices.Clone(wider.Columns)
	changed.Columns[0].Kind = crm.KindString
	wantRequest(t, st.Declare(ctx, changed), "schema")
	if got := loadOne(t, st, row); !sameRow(got, row) {
		t.Fatal("a refused declaration left a trace")
	}
	for name, bad := range map[string]crm.Schema{
		"no name":       {},
		"capital":       {Type: "Thing"},
		"quote":         {Type: `a"b`},
		"digit first":   {Type: "1a"},
		"long":          {Type: strings.Repeat("a", 41)},
		"column name":   {Type: "a", Columns: []crm.Column{{Name: "x y", Kind: crm.KindInt}}},
		"column twice":  {Type: "a", Columns: []crm.Column{{Name: "x", Kind: crm.KindInt}, {Name: "x", Kind: crm.KindInt}}},
		"no kind":       {Type: "a", Columns: []crm.Column{{Name: "x"}}},
		"unknown kind":  {Type: "a", Columns: []crm.Column{{Name: "x", Kind: 99}}},
		"many columns":  {Type: "a", Columns: make([]crm.Column, 101)},
		"reserved word": {Type: "select;"},
	} {
		var r *crm.RequestError
		if err := st.Declare(ctx, bad); !errors.As(err, &r) || r.Part != "schema" {
			t.Errorf("%s: %v", name, err)
		}
	}
	words := crm.Schema{Type: "select", Columns: []crm.Column{{Name: "order", Kind: crm.KindString, Indexed: true}, {Name: "from", Kind: crm.KindBool}}}
	if err := st.Declare(ctx, words, crm.Schema{Type: "no_columns"}); err != nil {
		t.Fatalf("words of SQL as names: %v", err)
	}
	w := crm.Row{Tenant: tenant, Type: "select", ID: crm.NewUUID(), Version: 1, Clear: []crm.Value{crm.StringValue("x"), {}}}
	apply(t, st, one(w))
	apply(t, st, one(crm.Row{Tenant: tenant, Type: "no_columns", ID: crm.NewUUID(), Version: 1}))
	apply(t, st, one(func() crm.Row { w.Version = 2; return w }()))
	if got := loadOne(t, st, w); !sameRow(got, w) {
		t.Fatal("words of SQL as names: row changed")
	}
}

func (s suite) tenants(t *testing.T) {
	st := s.store(t, 0)
	names := []string{"a", "b", "a'; DROP TABLE crm_tokens; --", "租户"}
	for _, name := range names { // the same ids and tokens in each
		var b crm.Batch
		for i := range 3 {
			b.Writes = append(b.Writes, crm.Write{Row: Row(name, i)})
		}
		apply(t, st, b)
	}
	for _, name := range names {
		row := Row(name, 1)
		row.Version, row.Clear[0] = 2, crm.StringValue(name)
		apply(t, st, one(row))
	}
	for _, name := range names {
		if got := loadOne(t, st, Row(name, 1)); got.Clear[0].Str() != name || got.Tenant != name {
			t.Fatalf("tenant %s reads the row of another", name)
		}
		q := all()
		q.Tenant = name
		q.Tokens = []int64{TokenOf(0, 0)}
		rows := pages(t, st, q)
		if len(rows) != 3 || slices.ContainsFunc(rows, func(r crm.Row) bool { return r.Tenant != name }) {
			t.Fatalf("tenant %s lists %d rows", name, len(rows))
		}
		if n, err := st.Count(t.Context(), q); err != nil || n != 3 {
			t.Fatalf("tenant %s counts %d, %v", name, n, err)
		}
	}
	q := all()
	q.Tenant = "nobody"
	if got := pages(t, st, q); len(got) != 0 {
		t.Fatalf("an unknown tenant has %d rows", len(got))
	}
	mixed := crm.Batch{Writes: []crm.Write{{Row: Row("a", 8)}, {Row: Row("b", 8)}}}
	apply(t, st, mixed)
	if got := loadOne(t, st, Row("b", 8)); got.Version != 1 {
		t.Fatal("a batch over two tenants lost a row")
	}
}

func (s suite) types(t *testing.T) {
	st := s.store(t, 2)
	other := Schema()
	other.Type = "other"
	if err := st.Declare(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	row := Row(tenant, 0) // the same id and tokens in another type
	row.Type = "other"
	apply(t, st, one(row))
	q := all()
	q.Type = "other"
	if got := pages(t, st, q); len(got) != 1 || got[0].Type != "other" {
		t.Fatalf("the other type lists %d rows", len(got))
	}
	if got := pages(t, st, all()); len(got) != 2 {
		t.Fatalf("the first type lists %d rows", len(got))
	}
}

func (s suite) concurrentWriters(t *testing.T) {
	st := s.store(t, 1)
	const writers, rounds = 8, 5
	for version := int64(2); version < 2+rounds; version++ {
		var wg sync.WaitGroup
		errs := make([]error, writers)
		for i := range writers {
			wg.Go(func() {
				row := Row(tenant, 0)
				row.Version, row.Clear[2] = version, crm.IntValue(int64(i))
				_, errs[i] = st.Apply(t.Context(), one(row))
			})
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatal("two writers won")
			case !errors.Is(err, crm.ErrConflict):
				t.Fatalf("a loser got %v", err)
			}
		}
		if winner < 0 {
			t.Fatal("nobody won")
		}
		if got := loadOne(t, st, Row(tenant, 0)); got.Version != version || got.Clear[2].Int() != int64(winner) {
			t.Fatal("the stored row is not the winner's")
		}
	}
}

func (s suite) concurrentUnique(t *testing.T) {
	st := s.store(t, 0)
	const writers = 8
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			row := Row(tenant, i)
			row.Sealed[0].Tokens = []crm.Token{{Value: 1, Unique: true}}
			_, errs[i] = st.Apply(t.Context(), one(row))
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, crm.ErrDuplicate) {
			t.Fatalf("a loser got %v", err)
		}
	}
	if won != 1 {
		t.Fatalf("%d writers got the unique value", won)
	}
}

// readWhole checks that a reader never sees parts of two versions, nor change numbers that go back.
func (s suite) readWhole(t *testing.T) {
	st := s.store(t, 2)
	const last = 40
	done := make(chan struct{})
	go func() {
		defer close(done)
		for v := int64(2); v <= last; v++ {
			var b crm.Batch
			for i := range 2 {
				row := Row(tenant, i)
				row.Version, row.Clear[2], row.Sealed[0].Data = v, crm.IntValue(v), []byte{byte(v)}
				b.Writes = append(b.Writes, crm.Write{Row: row, Expect: v - 1})
			}
			if _, err := st.Apply(t.Context(), b); err != nil {
				t.Errorf("Apply: %v", err)
				return
			}
		}
	}()
	var seen int64
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		p, err := st.List(t.Context(), all())
		if err != nil || len(p.Rows) != 2 {
			t.Fatalf("List: %d rows, %v", len(p.Rows), err)
		}
		for _, r := range p.Rows {
			if r.Version > 1 && (r.Clear[2].Int() != r.Version || r.Sealed[0].Data[0] != byte(r.Version)) {
				t.Fatal("a row of two versions")
			}
		}
		if p.Rows[0].Version != p.Rows[1].Version {
			t.Fatal("half a batch")
		}
		if p.Rows[0].Version < seen {
			t.Fatal("a version went back")
		}
		seen = p.Rows[0].Version
	}
	if seen != last && !t.Failed() {
		t.Fatalf("the last version seen is %d", seen)
	}
}

func (s suite) badRequests(t *testing.T) {
	st := s.store(t, 3)
	for name, test := range map[string]struct {
		part string
		edit func(*crm.Query)
	}{
		"no tenant":        {"tenant", func(q *crm.Query) { q.Tenant = "" }},
		"long tenant":      {"tenant", func(q *crm.Query) { q.Tenant = strings.Repeat("t", 201) }},
		"zero byte":        {"tenant", func(q *crm.Query) { q.Tenant = "a\x00" }},
		"no type":          {"type", func(q *crm.Query) { q.Type = "" }},
		"unknown type":     {"type", func(q *crm.Query) { q.Type = "stranger" }},
		"no condition":     {"where", func(q *crm.Query) { q.Where = nil }},
		"limit 0":          {"limit", func(q *crm.Query) { q.Limit = 0 }},
		"limit -1":         {"limit", func(q *crm.Query) { q.Limit = -1 }},
		"limit 1001":       {"limit", func(q *crm.Query) { q.Limit = 1001 }},
		"unknown sort":     {"sort", func(q *crm.Query) { q.Sort = "stranger" }},
		"sort by SQL":      {"sort", func(q *crm.Query) { q.Sort = `owner" DESC, "owner` }},
		"deletion":         {"deletion", func(q *crm.Query) { q.Deletion = 9 }},
		"unknown column":   {"column", func(q *crm.Query) { q.Clauses = []crm.Clause{{Column: "stranger", Op: crm.IsNull}} }},
		"no operator":      {"clause", func(q *crm.Query) { q.Clauses = []crm.Clause{{Column: "owner"}} }},
		"unknown operator": {"clause", func(q *crm.Query) { q.Clauses = []crm.Clause{{Column: "owner", Op: 99}} }},
		"no value":         {"clause", func(q *crm.Query) { q.Clauses = []crm.Clause{{Column: "owner", Op: crm.Equal}} }},
		"null value": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "owner", Op: crm.Equal, Values: make([]crm.Value, 1)}}
		}},
		"two values": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "amount", Op: crm.Less, Values: []crm.Value{crm.IntValue(1), crm.IntValue(2)}}}
		}},
		"wrong kind": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "amount", Op: crm.Equal, Values: []crm.Value{crm.StringValue("1")}}}
		}},
		"value for null": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "owner", Op: crm.IsNull, Values: []crm.Value{crm.StringValue("1")}}}
		}},
		"in nothing": {"clause", func(q *crm.Query) { q.Clauses = []crm.Clause{{Column: "owner", Op: crm.In}} }},
		"in too many": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "amount", Op: crm.In, Values: slices.Repeat([]crm.Value{crm.IntValue(1)}, 1001)}}
		}},
		"prefix of number": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "amount", Op: crm.Prefix, Values: []crm.Value{crm.IntValue(1)}}}
		}},
		"prefix not UTF-8": {"clause", func(q *crm.Query) {
			q.Clauses = []crm.Clause{{Column: "owner", Op: crm.Prefix, Values: []crm.Value{crm.StringValue("\xff")}}}
		}},
		"too many clauses":  {"clause", func(q *crm.Query) { q.Clauses = slices.Repeat([]crm.Clause{{Column: "owner", Op: crm.NotNull}}, 101) }},
		"too many tokens":   {"tokens", func(q *crm.Query) { q.Tokens = make([]int64, 10001) }},
		"too many ids":      {"ids", func(q *crm.Query) { q.IDs = make([]crm.UUID, 10001) }},
		"too many persons":  {"persons", func(q *crm.Query) { q.Persons = make([]crm.UUID, 1001) }},
		"negative most":     {"most", func(q *crm.Query) { q.Most = -1 }},
		"cursor not base64": {"cursor", func(q *crm.Query) { q.After = "!" }},
	} {
		q := all()
		test.edit(&q)
		_, err := st.List(t.Context(), q)
		var r *crm.RequestError
		if !errors.As(err, &r) || r.Part != test.part {
			t.Errorf("%s: List gave %v, want a RequestError about %s", name, err, test.part)
		} else if strings.Contains(err.Error(), "stranger") || strings.Contains(err.Error(), "DESC") {
			t.Errorf("%s: the error repeats what was asked", name)
		}
		if _, err := st.Count(t.Context(), q); err == nil && !slices.Contains([]string{"limit", "sort", "cursor"}, test.part) {
			t.Errorf("%s: Count answered", name)
		}
	}
	_, err := st.Load(t.Context(), tenant, "stranger", nil)
	wantRequest(t, err, "type")
	_, err = st.Load(t.Context(), "", "thing", nil)
	wantRequest(t, err, "tenant")
	most := all()
	most.Tokens, most.IDs = slices.Repeat([]int64{TokenOf(0, 0)}, 10000), slices.Repeat([]crm.UUID{Row(tenant, 1).ID}, 10000)
	most.Persons = slices.Repeat([]crm.UUID{Row(tenant, 1).Persons[0]}, 1000)
	if got := pages(t, st, most); len(got) != 1 {
		t.Fatalf("the longest lists gave %d rows", len(got))
	}
}

func (s suite) badRows(t *testing.T) {
	st := s.store(t, 1)
	for name, test := range map[string]struct {
		part string
		edit func(*crm.Write)
	}{
		"no tenant":       {"tenant", func(w *crm.Write) { w.Row.Tenant = "" }},
		"unknown type":    {"type", func(w *crm.Write) { w.Row.Type = "stranger" }},
		"no id":           {"row", func(w *crm.Write) { w.Row.ID = crm.UUID{} }},
		"version 0":       {"row", func(w *crm.Write) { w.Row.Version = 0 }},
		"version leaps":   {"row", func(w *crm.Write) { w.Row.Version = 3 }},
		"negative":        {"row", func(w *crm.Write) { w.Expect, w.Row.Version = -1, 0 }},
		"too few values":  {"row", func(w *crm.Write) { w.Row.Clear = w.Row.Clear[:4] }},
		"too many values": {"row", func(w *crm.Write) { w.Row.Clear = append(w.Row.Clear, crm.IntValue(1)) }},
		"wrong kind":      {"row", func(w *crm.Write) { w.Row.Clear[2] = crm.StringValue("1") }},
		"not UTF-8":       {"row", func(w *crm.Write) { w.Row.Clear[0] = crm.StringValue("\xff") }},
		"zero byte":       {"row", func(w *crm.Write) { w.Row.Clear[0] = crm.StringValue("a\x00b") }},
		"fields unsorted": {"row", func(w *crm.Write) { slices.Reverse(w.Row.Sealed) }},
		"field twice":     {"row", func(w *crm.Write) { w.Row.Sealed[1].Name = w.Row.Sealed[0].Name }},
		"no field name":   {"row", func(w *crm.Write) { w.Row.Sealed[0].Name = "" }},
		"persons unsorted": {"row", func(w *crm.Write) {
			w.Row.Persons = []crm.UUID{PersonID(1).UUID(), PersonID(3).UUID(), PersonID(2).UUID()}
		}},
		"person twice":    {"row", func(w *crm.Write) { w.Row.Persons = append(w.Row.Persons, w.Row.Persons[0]) }},
		"too large":       {"row", func(w *crm.Write) { w.Row.Sealed[0].Data = make([]byte, 16<<20+1) }},
		"too many tokens": {"row", func(w *crm.Write) { w.Row.Sealed[0].Tokens = make([]crm.Token, 10001) }},
	} {
		w := crm.Write{Row: Row(tenant, 5)}
		test.edit(&w)
		_, err := st.Apply(t.Context(), crm.Batch{Writes: []crm.Write{{Row: Row(tenant, 4)}, w}})
		var we *crm.WriteError
		var r *crm.RequestError
		if !errors.As(err, &we) || we.Index != 1 || !errors.As(err, &r) || r.Part != test.part {
			t.Errorf("%s: %v, want write 1 and a RequestError about %s", name, err, test.part)
		}
	}
	for name, b := range map[string]crm.Batch{
		"empty":    {},
		"too many": {Writes: make([]crm.Write, 1001)},
	} {
		var r *crm.RequestError
		if _, err := st.Apply(t.Context(), b); !errors.As(err, &r) || r.Part != "batch" {
			t.Errorf("%s: %v", name, err)
		}
	}
	again := Row(tenant, 5)
	again.Version = 2
	_, err := st.Apply(t.Context(), crm.Batch{Writes: []crm.Write{{Row: Row(tenant, 5)}, {Row: again, Expect: 1}}})
	wantRequest(t, err, "row")
	if got := pages(t, st, all()); len(got) != 1 {
		t.Fatalf("refused rows left %d rows", len(got))
	}
}

// cursors checks that a cursor that was cut, changed or taken from another list is refused.
func (s suite) cursors(t *testing.T) {
	st := s.store(t, 30)
	for _, sort := range []string{"", "stage", "amount", "primary", "due"} {
		q := all()
		q.Sort, q.Limit = sort, 5
		p, err := st.List(t.Context(), q)
		if err != nil || p.Next == "" {
			t.Fatalf("List: %v", err)
		}
		for name, garbled := range map[string]string{
			"cut":       p.Next[:len(p.Next)-1],
			"longer":    p.Next + "A",
			"blank":     " ",
			"quote":     "'",
			"changed":   "B" + p.Next[1:],
			"very long": strings.Repeat(p.Next, 1000),
		} {
			bad := q
			bad.After = garbled
			var r *crm.RequestError
			if _, err := st.List(t.Context(), bad); !errors.As(err, &r) || r.Part != "cursor" {
				t.Errorf("sort %q, %s: %v", sort, name, err)
			}
		}
		for i := range p.Next { // each character another
			b := []byte(p.Next)
			b[i] = "BA"[btoi(b[i] == 'B')]
			bad := q
			bad.After = string(b)
			if bad.After == p.Next {
				continue
			}
			if _, err := st.List(t.Context(), bad); err == nil {
				t.Fatalf("sort %q: a cursor with character %d changed was accepted", sort, i)
			}
		}
		for name, edit := range map[string]func(*crm.Query){
			"direction": func(q *crm.Query) { q.Desc = true },
			"sort":      func(q *crm.Query) { q.Sort = "owner" },
			"tenant":    func(q *crm.Query) { q.Tenant = "other" },
		} {
			bad := q
			bad.After = p.Next
			edit(&bad)
			var r *crm.RequestError
			if _, err := st.List(t.Context(), bad); !errors.As(err, &r) || r.Part != "cursor" {
				t.Errorf("sort %q: a cursor of another %s gave %v", sort, name, err)
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s suite) cancelled(t *testing.T) {
	st := s.store(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Declare": func() error { return st.Declare(ctx, Schema()) },
		"Load":    func() error { _, err := st.Load(ctx, tenant, "thing", []crm.UUID{Row(tenant, 0).ID}); return err },
		"List":    func() error { _, err := st.List(ctx, all()); return err },
		"Count":   func() error { _, err := st.Count(ctx, all()); return err },
		"Carriers": func() error {
			_, err := st.Carriers(ctx, tenant, "thing", []int64{1}, 1)
			return err
		},
		"Group":   func() error { _, err := st.Group(ctx, all(), crm.Grouping{}); return err },
		"Apply":   func() error { _, err := st.Apply(ctx, one(Row(tenant, 5))); return err },
		"Applied": func() error { _, err := st.Applied(ctx, "log", 0); return err },
		"Prune":   func() error { return st.Prune(ctx, "log", 1) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	if got := loadOne(t, st, Row(tenant, 5)); got.Version != 0 {
		t.Fatal("a cancelled write was stored")
	}
}

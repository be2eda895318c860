package crmtest

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// follow reads all changes above a number, page by page.
func follow(t testing.TB, st crm.Store, since int64, limit int) []crm.Row {
	t.Helper()
	var rows []crm.Row
	q := all()
	q.Changes, q.Since, q.Limit, q.Deletion = true, since, limit, crm.LivingAndBin
	for {
		p, err := st.List(t.Context(), q)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if p.Next != "" || len(p.Rows) > limit {
			t.Fatalf("a page of changes has a cursor or %d rows, limit %d", len(p.Rows), limit)
		}
		rows = append(rows, p.Rows...)
		if len(p.Rows) < limit {
			return rows
		}
		q.Since = p.Rows[limit-1].ChangeSeq
	}
}

// changes reads rows in the order of their changes.
func (s suite) changes(t *testing.T) {
	st := s.store(t, 0)
	const n = 12
	var want []crm.UUID
	for i := range n {
		apply(t, st, one(Row(tenant, i)))
		want = append(want, Row(tenant, i).ID)
	}
	middle := loadOne(t, st, Row(tenant, 6)).ChangeSeq
	next := func(i int, deleted bool) {
		r := loadOne(t, st, Row(tenant, i))
		r.Version++
		r.Deleted = deleted
		apply(t, st, one(r))
		want = append(slices.DeleteFunc(want, func(id crm.UUID) bool { return id == r.ID }), r.ID)
	}
	next(2, false)
	next(9, true)
	next(0, false)
	next(2, false)
	for _, limit := range []int{1, 3, n, 1000} {
		rows := follow(t, st, 0, limit)
		if !slices.Equal(ids(rows), want) {
			t.Fatalf("limit %d: the order is not that of changes", limit)
		}
		for i := 1; i < len(rows); i++ {
			if rows[i].ChangeSeq <= rows[i-1].ChangeSeq {
				t.Fatalf("limit %d: numbers do not grow", limit)
			}
		}
	}
	after := follow(t, st, middle, 1000)
	if len(after) != 7 || slices.ContainsFunc(after, func(r crm.Row) bool { return r.ChangeSeq <= middle }) {
		t.Errorf("%d rows changed after the seventh", len(after))
	}
	rows := follow(t, st, 0, 1000)
	last := rows[len(rows)-1].ChangeSeq
	if got := follow(t, st, last, 1000); len(got) != 0 {
		t.Errorf("%d rows above the last number", len(got))
	}
	q := all()
	q.Changes, q.Desc, q.Limit, q.Deletion = true, true, 1, crm.LivingAndBin
	if p, err := st.List(t.Context(), q); err != nil || len(p.Rows) != 1 || p.Rows[0].ChangeSeq != last {
		t.Errorf("the newest change is %v, %v", p.Rows, err)
	}
	// Filters hold, and rows in the bin are left out where they are not asked for.
	q = all()
	q.Changes, q.Since, q.Clauses = true, middle, stage("won")
	p, err := st.List(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Rows {
		if r.Deleted || r.ChangeSeq <= middle {
			t.Error("a row that the query does not admit")
		}
	}
	if c, err := st.Count(t.Context(), q); err != nil || c != int64(len(p.Rows)) {
		t.Errorf("counted %d of %d, %v", c, len(p.Rows), err)
	}
	q.Tenant = "nobody"
	if p, err := st.List(t.Context(), q); err != nil || len(p.Rows) != 0 {
		t.Errorf("an unknown tenant has %d changes, %v", len(p.Rows), err)
	}
	for what, edit := range map[string]func(q *crm.Query){
		"negative":        func(q *crm.Query) { q.Changes, q.Since = true, -1 },
		"not changes":     func(q *crm.Query) { q.Since = 1 },
		"another order":   func(q *crm.Query) { q.Changes, q.Sort = true, "amount" },
		"with a cursor":   func(q *crm.Query) { q.Changes, q.After = true, "AAAA" },
		"nothing a page":  func(q *crm.Query) { q.Changes, q.Limit = true, 0 },
		"without a where": func(q *crm.Query) { q.Changes, q.Where = true, nil },
	} {
		q := all()
		edit(&q)
		var bad *crm.RequestError
		if _, err := st.List(t.Context(), q); !errors.As(err, &bad) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// changesWhileWriting follows changes beside writers of several rows: whoever goes on behind the last number that was seen misses none.
func (s suite) changesWhileWriting(t *testing.T) {
	st := s.store(t, 0)
	const writers, each = 4, 12
	var wg sync.WaitGroup
	done := make(chan struct{})
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				var b crm.Batch
				for k := range 1 + i%3 {
					b.Writes = append(b.Writes, crm.Write{Row: Row(tenant, w*1000+i*10+k)})
				}
				if _, err := st.Apply(t.Context(), b); err != nil {
					t.Errorf("Apply: %v", err)
				}
			}
		}()
	}
	go func() { wg.Wait(); close(done) }()
	seen := map[crm.UUID]bool{}
	var since int64
	for last := false; ; {
		for _, r := range follow(t, st, since, 5) {
			if r.ChangeSeq <= since || seen[r.ID] {
				t.Fatalf("a change came twice or late")
			}
			since, seen[r.ID] = r.ChangeSeq, true
		}
		if last {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if n, err := st.Count(t.Context(), all()); err != nil || n != int64(len(seen)) {
		t.Errorf("followed %d of %d rows, %v", len(seen), n, err)
	}
}

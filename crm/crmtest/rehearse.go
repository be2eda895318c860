package crmtest

import (
	"errors"
	"testing"

	"github.com/crmguard/crmguard/crm"
)

// rehearse applies batches that are taken back: what would be refused is refused alike, and nothing stays of any.
func (s suite) rehearse(t *testing.T) {
	st := s.store(t, 2)
	try := func(b crm.Batch) (int64, error) {
		b.Rehearse = true
		return st.Apply(t.Context(), b)
	}
	fresh, changed := Row(tenant, 5), Row(tenant, 0)
	changed.Version = 2
	good := crm.Batch{Writes: []crm.Write{{Row: fresh}, {Row: changed, Expect: 1}}, Limits: []crm.Limit{atMost(100, "open")}}
	first, err := try(good)
	if err != nil {
		t.Fatalf("a batch that would be stored: %v", err)
	}
	unchanged := func(when string) {
		t.Helper()
		if row := loadOne(t, st, fresh); row.Version != 0 {
			t.Fatalf("%s: a new row stayed", when)
		}
		if row := loadOne(t, st, changed); row.Version != 1 {
			t.Fatalf("%s: a changed row stayed", when)
		}
		n, err := st.Count(t.Context(), crm.Query{Tenant: tenant, Type: "thing", Where: crm.Everything{}, Deletion: crm.LivingAndBin, Limit: 1})
		if err != nil || n != 2 {
			t.Fatalf("%s: %d rows, %v", when, n, err)
		}
	}
	unchanged("after a good batch")
	other := Row("elsewhere", 1) // the first row of its tenant
	if _, err := try(one(other)); err != nil {
		t.Fatalf("the first row of a tenant: %v", err)
	}

	// The same refusals as without the flag.
	var w *crm.WriteError
	if _, err := try(crm.Batch{Writes: []crm.Write{{Row: fresh}, {Row: Row(tenant, 1)}}}); !errors.As(err, &w) || w.Index != 1 || !errors.Is(err, crm.ErrConflict) {
		t.Fatalf("a row that exists: %v", err)
	}
	stale := changed
	stale.Version = 3
	if _, err := try(one(stale)); !errors.As(err, &w) || !errors.Is(err, crm.ErrConflict) {
		t.Fatalf("another version: %v", err)
	}
	_, err = try(crm.Batch{Writes: []crm.Write{{Row: entry(7, "claimed", 0)}}, Limits: []crm.Limit{atMost(0, "claimed")}})
	wantLimit(t, err, 0)
	var bad *crm.RequestError
	if _, err := try(crm.Batch{Writes: good.Writes, Log: "log", Event: 3}); !errors.As(err, &bad) || bad.Part != "batch" {
		t.Fatalf("a rehearsal with an event: %v", err)
	}
	if applied, err := st.Applied(t.Context(), "log", 0); err != nil || len(applied) != 0 {
		t.Fatalf("applied: %v, %v", applied, err)
	}
	unchanged("after the refusals")

	// What was rehearsed can be stored, under the number that was told.
	if seq := apply(t, st, good); seq != first {
		t.Fatalf("stored as %d, rehearsed as %d", seq, first)
	}
	if seq := apply(t, st, one(other)); seq != first+2 {
		t.Fatalf("stored as %d after %d", seq, first)
	}
	if row := loadOne(t, st, fresh); row.Version != 1 {
		t.Fatal("it is not stored")
	}
}

// Package intaketest checks stores of intake keys.
package intaketest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/encrypt/intake"
)

// record makes a record that a store can tell from others; its bytes mean nothing.
func record(n int) intake.Record {
	return intake.Record{
		ID:     intake.ID{byte(n), byte(n >> 8), 0xff},
		Public: bytes.Repeat([]byte{byte(n), 0, 0xff}, 500),
		Sealed: []byte(fmt.Sprintf("sealed\x00%d", n)),
	}
}

// TestStore checks a Store. open returns an empty one each time.
func TestStore(t *testing.T, open func(testing.TB) intake.Store) {
	ctx := context.Background()
	list := func(t *testing.T, s intake.Store, tenant string) map[intake.ID]intake.Record {
		t.Helper()
		records, err := s.List(ctx, tenant)
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		out := make(map[intake.ID]intake.Record)
		for _, r := range records {
			if _, twice := out[r.ID]; twice {
				t.Fatalf("record %s twice", r.ID)
			}
			out[r.ID] = r
		}
		return out
	}
	same := func(t *testing.T, got, want intake.Record) {
		t.Helper()
		if got.ID != want.ID || !bytes.Equal(got.Public, want.Public) || !bytes.Equal(got.Sealed, want.Sealed) {
			t.Fatalf("record %s came back changed", want.ID)
		}
	}

	t.Run("empty", func(t *testing.T) {
		s := open(t)
		if got := list(t, s, "acme"); len(got) != 0 {
			t.Fatalf("%d records", len(got))
		}
		if err := s.Delete(ctx, "acme", intake.ID{1}); err != nil {
			t.Fatalf("delete of nothing: %v", err)
		}
	})
	t.Run("add, list, delete", func(t *testing.T) {
		s := open(t)
		for n := range 20 {
			if err := s.Add(ctx, "acme", record(n)); err != nil {
				t.Fatal(err)
			}
		}
		got := list(t, s, "acme")
		if len(got) != 20 {
			t.Fatalf("%d records", len(got))
		}
		for n := range 20 {
			same(t, got[record(n).ID], record(n))
		}
		for range 2 {
			if err := s.Delete(ctx, "acme", record(7).ID); err != nil {
				t.Fatal(err)
			}
		}
		got = list(t, s, "acme")
		if _, there := got[record(7).ID]; there || len(got) != 19 {
			t.Fatalf("after deletion %d records", len(got))
		}
		if err := s.Add(ctx, "acme", record(7)); err != nil {
			t.Fatalf("add after deletion: %v", err)
		}
	})
	t.Run("no overwriting", func(t *testing.T) {
		s := open(t)
		if err := s.Add(ctx, "acme", record(1)); err != nil {
			t.Fatal(err)
		}
		other := record(1)
		other.Sealed = []byte("other")
		if err := s.Add(ctx, "acme", other); err == nil {
			t.Fatal("a record was added over another")
		}
		same(t, list(t, s, "acme")[record(1).ID], record(1))
	})
	t.Run("tenants", func(t *testing.T) {
		s := open(t)
		for _, tenant := range []string{"acme", "acm", "ACME", "acme2"} {
			if err := s.Add(ctx, tenant, record(1)); err != nil {
				t.Fatalf("%s: %v", tenant, err)
			}
		}
		if err := s.Delete(ctx, "acme", record(1).ID); err != nil {
			t.Fatal(err)
		}
		for tenant, want := range map[string]int{"acme": 0, "acm": 1, "ACME": 1, "acme2": 1, "": 0} {
			if got := list(t, s, tenant); len(got) != want {
				t.Fatalf("%q has %d records", tenant, len(got))
			}
		}
	})
	t.Run("own bytes", func(t *testing.T) {
		s := open(t)
		r := record(1)
		if err := s.Add(ctx, "acme", r); err != nil {
			t.Fatal(err)
		}
		clear(r.Public)
		clear(r.Sealed)
		got := list(t, s, "acme")[record(1).ID]
		same(t, got, record(1))
		clear(got.Sealed)
		same(t, list(t, s, "acme")[record(1).ID], record(1))
	})
	t.Run("concurrent", func(t *testing.T) {
		s := open(t)
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				if err := s.Add(ctx, "acme", record(n)); err != nil {
					t.Error(err)
				}
				if _, err := s.List(ctx, "acme"); err != nil {
					t.Error(err)
				}
				if n%2 == 0 {
					if err := s.Delete(ctx, "acme", record(n).ID); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := list(t, s, "acme"); len(got) != 8 {
			t.Fatalf("%d records", len(got))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s := open(t)
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.Add(cancelled, "acme", record(1)); err == nil {
			t.Fatal("add with a cancelled context")
		}
		if _, err := s.List(cancelled, "acme"); err == nil {
			t.Fatal("list with a cancelled context")
		}
		if got := list(t, s, "acme"); len(got) != 0 {
			t.Fatal("something was added")
		}
	})
}

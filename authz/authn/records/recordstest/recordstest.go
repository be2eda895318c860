// Package recordstest is the suite for implementations of records.Store.
package recordstest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/records"
)

// TestStore holds a store against the interface. open returns an empty one.
func TestStore(t *testing.T, open func(testing.TB) records.Store) {
	t.Run("swap", func(t *testing.T) {
		s, ctx := open(t), t.Context()
		one, two := []byte{0, 1, 255}, []byte("two")
		load := func(kind, account string, want []byte) {
			t.Helper()
			if got, err := s.Load(ctx, kind, account); err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("%s of %q: %x, %v; want %x", kind, account, got, err, want)
			}
		}
		swap := func(kind, account string, prev, next []byte, want bool) {
			t.Helper()
			if done, err := s.Swap(ctx, kind, account, prev, next); err != nil || done != want {
				t.Errorf("%s of %q, %x for %x: %v, %v", kind, account, next, prev, done, err)
			}
		}
		load("totp", "a", nil)
		swap("totp", "a", one, two, false) // nothing is there
		swap("totp", "a", one, nil, false)
		swap("totp", "a", nil, one, true)
		load("totp", "a", one)
		swap("totp", "a", nil, two, false)
		swap("totp", "a", two, one, false)
		swap("totp", "a", one[:2], two, false)
		swap("totp", "a", two, nil, false)
		load("totp", "a", one)
		load("password", "a", nil) // of another kind, of another account, of another case
		load("totp", "b", nil)
		load("totp", "A", nil)
		load("totp", "a ", nil)
		swap("password", "a", nil, two, true)
		swap("totp", "a", one, two, true)
		swap("totp", "a", two, two, true)
		load("totp", "a", two)
		swap("totp", "a", two, nil, true)
		swap("totp", "a", two, nil, false)
		load("totp", "a", nil)
		load("password", "a", two)
		swap("totp", "a", nil, one, true)
	})
	t.Run("empty", func(t *testing.T) {
		s := open(t)
		for i, c := range [][2][]byte{{nil, nil}, {nil, {}}, {{}, nil}, {{}, {1}}, {{1}, {}}} {
			if done, err := s.Swap(t.Context(), "k", "a", c[0], c[1]); done || !errors.Is(err, records.ErrEmpty) {
				t.Errorf("%d: %v, %v", i, done, err)
			}
		}
	})
	t.Run("copies", func(t *testing.T) {
		s, b := open(t), []byte("abc")
		if done, err := s.Swap(t.Context(), "k", "a", nil, b); err != nil || !done {
			t.Fatal(done, err)
		}
		b[0] = 'x'
		got, err := s.Load(t.Context(), "k", "a")
		if err != nil || string(got) != "abc" {
			t.Fatalf("%q, %v", got, err)
		}
		got[0] = 'x'
		if got, err := s.Load(t.Context(), "k", "a"); err != nil || string(got) != "abc" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("parallel", func(t *testing.T) {
		s := open(t)
		for round, prev := range [][]byte{nil, []byte("0")} { // the first of all, and a change
			var won atomic.Int64
			var winner atomic.Value
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					next := fmt.Appendf(nil, "%d by %d", round, i)
					done, err := s.Swap(t.Context(), "k", "a", prev, next)
					if err != nil {
						t.Error(err)
					}
					if done {
						won.Add(1)
						winner.Store(next)
					}
				})
			}
			all.Wait()
			if won.Load() != 1 {
				t.Fatalf("%d of 20 swapped", won.Load())
			}
			got, err := s.Load(t.Context(), "k", "a")
			if err != nil || !bytes.Equal(got, winner.Load().([]byte)) {
				t.Errorf("%q, %v; want %q", got, err, winner.Load())
			}
			if done, err := s.Swap(t.Context(), "k", "a", got, []byte("0")); err != nil || !done {
				t.Fatal(done, err)
			}
		}
	})
}

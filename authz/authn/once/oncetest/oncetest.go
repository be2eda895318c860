// Package oncetest is the conformance suite of once.Store.
package oncetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/once"
)

var base = time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)

// TestStore holds a store against what once.Store promises. open returns an empty one.
func TestStore(t *testing.T, open func(testing.TB) once.Store) {
	put := func(t *testing.T, s once.Store, key, value string) {
		t.Helper()
		if err := s.Put(t.Context(), once.Key(key), []byte(value), base, base.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	none := func(t *testing.T, s once.Store, key string, now time.Time) {
		t.Helper()
		if v, err := s.Take(t.Context(), once.Key(key), now); !errors.Is(err, once.ErrNone) || v != nil {
			t.Errorf("took %q, %v", v, err)
		}
	}
	t.Run("Once", func(t *testing.T) {
		s := open(t)
		put(t, s, "a", "\x00value")
		put(t, s, "b", "")
		none(t, s, "c", base)
		if v, err := s.Take(t.Context(), once.Key("a"), base.Add(time.Minute-time.Millisecond)); err != nil || !bytes.Equal(v, []byte("\x00value")) {
			t.Fatalf("%q, %v", v, err)
		}
		none(t, s, "a", base)
		if v, err := s.Take(t.Context(), once.Key("b"), base); err != nil || len(v) != 0 {
			t.Fatalf("%q, %v", v, err)
		}
		none(t, s, "b", base)
	})
	t.Run("Get", func(t *testing.T) {
		s := open(t)
		put(t, s, "a", "\x00value")
		for _, tc := range []struct {
			key  string
			now  time.Time
			want bool
		}{{"a", base, true}, {"b", base, false}, {"a", base.Add(time.Minute - time.Millisecond), true}, {"a", base.Add(time.Minute), false}, {"a", base, true}} {
			switch got, err := s.Get(t.Context(), once.Key(tc.key), tc.now); {
			case tc.want && (err != nil || string(got) != "\x00value"), !tc.want && (!errors.Is(err, once.ErrNone) || got != nil):
				t.Errorf("%s at %v: %q, %v", tc.key, tc.now, got, err)
			}
		}
		if v, err := s.Take(t.Context(), once.Key("a"), base); err != nil || string(v) != "\x00value" {
			t.Fatalf("it was not left: %q, %v", v, err)
		}
		if got, err := s.Get(t.Context(), once.Key("a"), base); !errors.Is(err, once.ErrNone) {
			t.Errorf("what was taken: %q, %v", got, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Get(ctx, once.Key("a"), base); err == nil || errors.Is(err, once.ErrNone) {
			t.Error("an ended context")
		}
	})
	t.Run("Taken", func(t *testing.T) {
		s := open(t)
		put(t, s, "a", "first")
		if err := s.Put(t.Context(), once.Key("a"), []byte("second"), base.Add(time.Minute-time.Millisecond),
			base.Add(time.Hour)); !errors.Is(err, once.ErrTaken) {
			t.Fatalf("%v", err)
		}
		if err := s.Put(t.Context(), once.Key("a"), []byte("third"), base.Add(time.Minute), base.Add(time.Hour)); err != nil {
			t.Fatalf("over an expired one: %v", err)
		}
		if v, err := s.Take(t.Context(), once.Key("a"), base.Add(time.Minute)); err != nil || string(v) != "third" {
			t.Fatalf("%q, %v", v, err)
		}
	})
	t.Run("Expired", func(t *testing.T) {
		s := open(t)
		put(t, s, "a", "value")
		none(t, s, "a", base.Add(time.Minute))
		none(t, s, "a", base) // a late try has used it up
	})
	t.Run("Sweep", func(t *testing.T) {
		s := open(t)
		put(t, s, "a", "value")
		put(t, s, "b", "value")
		if err := s.Put(t.Context(), once.Key("c"), nil, base, base.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			after time.Duration
			want  int
		}{{time.Minute - 1e6, 0}, {time.Minute, 2}, {time.Minute, 0}, {time.Hour, 1}} {
			if n, err := s.Sweep(t.Context(), base.Add(c.after)); err != nil || n != c.want {
				t.Fatalf("after %v: %d, %v", c.after, n, err)
			}
		}
	})
	t.Run("OneWinner", func(t *testing.T) {
		s := open(t)
		var taken, put atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				switch err := s.Put(t.Context(), once.Key("a"), []byte("value"), base, base.Add(time.Minute)); {
				case err == nil:
					put.Add(1)
				case !errors.Is(err, once.ErrTaken):
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		for range 16 {
			wg.Go(func() {
				switch _, err := s.Take(t.Context(), once.Key("a"), base); {
				case err == nil:
					taken.Add(1)
				case !errors.Is(err, once.ErrNone):
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if put.Load() != 1 || taken.Load() != 1 {
			t.Errorf("put by %d, taken by %d", put.Load(), taken.Load())
		}
	})
	t.Run("Cancelled", func(t *testing.T) {
		s := open(t)
		put(t, s, "a", "value")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Take(ctx, once.Key("a"), base); err == nil || errors.Is(err, once.ErrNone) {
			t.Errorf("Take: %v", err)
		}
		if err := s.Put(ctx, once.Key("b"), nil, base, base.Add(time.Minute)); err == nil || errors.Is(err, once.ErrTaken) {
			t.Errorf("Put: %v", err)
		}
		if _, err := s.Sweep(ctx, base.Add(time.Hour)); err == nil {
			t.Error("Sweep")
		}
		if v, err := s.Take(t.Context(), once.Key("a"), base); err != nil || string(v) != "value" {
			t.Errorf("a call that was given up has changed something: %q, %v", v, err)
		}
	})
}

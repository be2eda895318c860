// Package webauthntest is the conformance suite of webauthn.Store.
package webauthntest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/webauthn"
)

var base = time.Date(2026, 11, 27, 9, 0, 0, 123e6, time.UTC)

func record(tenant, person, id string, minutes int) webauthn.Record {
	return webauthn.Record{
		ID: []byte{0, 0xff, id[0]}, Tenant: tenant, Person: person, Handle: []byte(tenant + person), Name: []byte("sealed"), PublicKey: []byte{1, 0, 2}, Model: make([]byte, 16), Format: "none",
		Transports: "internal,usb", BackupEligible: true, Count: 5, Created: base.Add(time.Duration(minutes) * time.Minute), MAC: []byte{9},
	}
}

// TestStore holds a store against what webauthn.Store promises. open returns an empty one.
func TestStore(t *testing.T, open func(testing.TB) webauthn.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, webauthn.Store)
	}{
		{"Handle", handle}, {"RoundTrip", roundTrip}, {"Most", most}, {"Use", use}, {"RenameRemove", renameRemove},
		{"Cancelled", cancelled}, {"Parallel", parallel},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func add(t *testing.T, s webauthn.Store, all ...webauthn.Record) {
	t.Helper()
	for _, r := range all {
		if err := s.Add(t.Context(), r, 20); err != nil {
			t.Fatal(err)
		}
	}
}

func find(t *testing.T, s webauthn.Store, id string) webauthn.Record {
	t.Helper()
	r, err := s.Find(t.Context(), []byte{0, 0xff, id[0]})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func handle(t *testing.T, s webauthn.Store) {
	for _, c := range []struct{ tenant, person, fresh, want string }{
		{"acme", "ann", "one", "one"}, {"acme", "ann", "two", "one"}, {"acme", "bob", "two", "two"}, {"other", "ann", "three", "three"},
		{"acme", "ann", "", "one"},
	} {
		if got, err := s.Handle(t.Context(), c.tenant, c.person, []byte(c.fresh)); err != nil || string(got) != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func roundTrip(t *testing.T, s webauthn.Store) {
	a, b, c := record("acme", "ann", "a", 2), record("acme", "ann", "b", 1), record("acme", "bob", "c", 0)
	b.BackupEligible, b.Transports, b.Count = false, "", 1<<32-1
	add(t, s, a, b, c)
	for _, want := range []webauthn.Record{a, b, c} {
		got, err := s.Find(t.Context(), want.ID)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		got.PublicKey[0]++ // the store's own copy stays
	}
	if all, err := s.List(t.Context(), "acme", "ann"); err != nil || !reflect.DeepEqual(all, []webauthn.Record{b, a}) {
		t.Fatalf("%+v, %v", all, err)
	}
	if all, err := s.List(t.Context(), "other", "ann"); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, id := range [][]byte{nil, {}, {0, 0xff}, {0, 0xff, 'a', 0}, []byte("a")} {
		if r, err := s.Find(t.Context(), id); !errors.Is(err, webauthn.ErrUnknown) || r.ID != nil {
			t.Errorf("%x: %+v, %v", id, r, err)
		}
	}
	for _, r := range []webauthn.Record{record("acme", "ann", "a", 9), record("other", "thief", "a", 9)} {
		if err := s.Add(t.Context(), r, 20); !errors.Is(err, webauthn.ErrExists) {
			t.Errorf("again: %v", err)
		}
	}
}

func most(t *testing.T, s webauthn.Store) {
	for i := range 3 {
		if err := s.Add(t.Context(), record("acme", "ann", fmt.Sprint(i), i), 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(t.Context(), record("acme", "ann", "x", 9), 3); !errors.Is(err, webauthn.ErrTooMany) {
		t.Fatalf("%v", err)
	}
	if err := s.Add(t.Context(), record("acme", "bob", "x", 9), 3); err != nil {
		t.Fatal(err)
	}
}

func use(t *testing.T, s webauthn.Store) {
	a, b := record("acme", "ann", "a", 0), record("acme", "ann", "b", 0)
	b.Count = 0
	add(t, s, a, b)
	for i, c := range []struct {
		id    string
		count uint32
		ok    bool
	}{
		{"b", 0, true}, {"b", 0, true}, {"b", 1, true}, {"b", 0, false}, {"b", 2, false}, // cloned stays cloned
		{"a", 6, true}, {"a", 4000000000, true}, {"a", 4000000000, false}, {"a", 4000000001, false},
	} {
		at := base.Add(time.Duration(i) * time.Hour)
		before := find(t, s, c.id)
		err := s.Use(t.Context(), before.ID, c.count, true, at)
		after := find(t, s, c.id)
		if c.ok {
			if err != nil || after.Count != c.count || !after.Used.Equal(at) || !after.BackedUp || !after.Cloned.IsZero() {
				t.Errorf("step %d: %v, %+v", i, err, after)
			}
			continue
		}
		if !errors.Is(err, webauthn.ErrCount) || after.Count != before.Count || !after.Used.Equal(before.Used) || after.Cloned.IsZero() ||
			!before.Cloned.IsZero() && !after.Cloned.Equal(before.Cloned) {
			t.Errorf("step %d: %v, %+v", i, err, after)
		}
	}
	if err := s.Use(t.Context(), []byte("none"), 1, false, base); !errors.Is(err, webauthn.ErrUnknown) {
		t.Errorf("%v", err)
	}
}

func renameRemove(t *testing.T, s webauthn.Store) {
	ctx := t.Context()
	a := record("acme", "ann", "a", 0)
	add(t, s, a)
	for _, c := range [][3]string{{"acme", "bob", "a"}, {"other", "ann", "a"}, {"acme", "ann", "b"}} {
		id := []byte{0, 0xff, c[2][0]}
		if err := s.Rename(ctx, c[0], c[1], id, []byte("x")); !errors.Is(err, webauthn.ErrUnknown) {
			t.Errorf("%v renamed: %v", c, err)
		}
		if err := s.Remove(ctx, c[0], c[1], id); !errors.Is(err, webauthn.ErrUnknown) {
			t.Errorf("%v removed: %v", c, err)
		}
	}
	if err := s.Rename(ctx, "acme", "ann", a.ID, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := find(t, s, "a"); !bytes.Equal(got.Name, []byte("new")) {
		t.Errorf("%+v", got)
	}
	if err := s.Remove(ctx, "acme", "ann", a.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(ctx, a.ID); !errors.Is(err, webauthn.ErrUnknown) {
		t.Errorf("%v", err)
	}
	if err := s.Use(ctx, a.ID, 9, false, base); !errors.Is(err, webauthn.ErrUnknown) {
		t.Errorf("%v", err)
	}
}

func cancelled(t *testing.T, s webauthn.Store) {
	a := record("acme", "ann", "a", 0)
	add(t, s, a)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, call := range map[string]func() error{
		"Handle": func() error { _, err := s.Handle(ctx, "acme", "ann", []byte("x")); return err },
		"Add":    func() error { return s.Add(ctx, record("acme", "ann", "b", 0), 20) },
		"Find":   func() error { _, err := s.Find(ctx, a.ID); return err },
		"List":   func() error { _, err := s.List(ctx, "acme", "ann"); return err },
		"Use":    func() error { return s.Use(ctx, a.ID, 9, false, base) },
		"Rename": func() error { return s.Rename(ctx, "acme", "ann", a.ID, []byte("x")) },
		"Remove": func() error { return s.Remove(ctx, "acme", "ann", a.ID) },
	} {
		if err := call(); err == nil || errors.Is(err, webauthn.ErrUnknown) || errors.Is(err, webauthn.ErrCount) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := find(t, s, "a"); !reflect.DeepEqual(got, a) {
		t.Errorf("a call that was given up has changed something: %+v", got)
	}
}

// parallel: two sign-ins of one count are one and a clone.
func parallel(t *testing.T, s webauthn.Store) {
	a := record("acme", "ann", "a", 0)
	add(t, s, a)
	var used, refused, added atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			switch err := s.Use(t.Context(), a.ID, 6, false, base); {
			case err == nil:
				used.Add(1)
			case errors.Is(err, webauthn.ErrCount):
				refused.Add(1)
			default:
				t.Errorf("%v", err)
			}
			switch err := s.Add(t.Context(), record("acme", "ann", string(rune('b'+i)), i), 3); {
			case err == nil:
				added.Add(1)
			case !errors.Is(err, webauthn.ErrTooMany):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if used.Load() != 1 || refused.Load() != 15 || added.Load() != 2 {
		t.Errorf("used %d, refused %d, added %d", used.Load(), refused.Load(), added.Load())
	}
}

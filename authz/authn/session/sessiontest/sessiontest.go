// Package sessiontest is the conformance suite of session.Store.
package sessiontest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/session"
)

var base = time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)

// record makes a session of a person, used last so many minutes after base.
func record(tenant, person, id string, minutes int) session.Record {
	hash := sha256.Sum256([]byte(tenant + "/" + id))
	return session.Record{
		Tenant: tenant, Person: person, ID: id, Hash: hash[:], Epoch: 1, Version: 1, Seen: base.Add(time.Duration(minutes) * time.Minute),
		Expires: base.Add(time.Duration(minutes+30) * time.Minute), Body: []byte{0, 1, 0xff, byte(minutes)},
	}
}

// TestStore holds a store against what session.Store promises. open returns an empty one.
func TestStore(t *testing.T, open func(testing.TB) session.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, session.Store)
	}{
		{"RoundTrip", roundTrip},
		{"None", none},
		{"Epoch", epochs},
		{"Keep", keep},
		{"Replace", replace},
		{"End", end},
		{"EndRefuses", endRefuses},
		{"Sweep", sweep},
		{"Cancelled", cancelled},
		{"OneRotationWins", oneRotationWins},
		{"KeepUnderLoad", keepUnderLoad},
		{"NoneComesInAfterEnd", noneComesInAfterEnd},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func add(t *testing.T, s session.Store, keep int, all ...session.Record) {
	t.Helper()
	for _, r := range all {
		if _, err := s.Add(t.Context(), r, keep); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(t *testing.T, s session.Store, tenant, person string) (out []string) {
	t.Helper()
	all, err := s.List(t.Context(), tenant, person)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		out = append(out, r.ID)
	}
	return out
}

func want(t *testing.T, s session.Store, tenant, person string, want ...string) {
	t.Helper()
	if got := ids(t, s, tenant, person); !slices.Equal(got, want) {
		t.Fatalf("sessions of %s: %v, want %v", person, got, want)
	}
}

func roundTrip(t *testing.T, s session.Store) {
	a, b := record("acme", "ann", "a", 1), record("acme", "ann", "b", 2)
	b.External = bytes.Repeat([]byte{7}, 32)
	add(t, s, 5, a, b, record("acme", "bob", "c", 3), record("other", "ann", "a", 4))
	for _, r := range []session.Record{a, b} {
		got, epoch, err := s.Find(t.Context(), []byte("another"), r.Hash)
		if err != nil || epoch != 1 || !reflect.DeepEqual(got, r) {
			t.Fatalf("found %+v, %d, %v; want %+v", got, epoch, err, r)
		}
		got.Body[0]++ // the store's own copy stays
	}
	all, err := s.List(t.Context(), "acme", "ann")
	if err != nil || !reflect.DeepEqual(all, []session.Record{b, a}) {
		t.Fatalf("list: %+v, %v", all, err)
	}
	want(t, s, "other", "ann", "a")
	want(t, s, "other", "bob")
}

func none(t *testing.T, s session.Store) {
	add(t, s, 5, record("acme", "ann", "a", 1))
	for _, hashes := range [][][]byte{nil, {{}}, {nil}, {make([]byte, 32)}, {record("acme", "ann", "a", 1).Hash[:31]}, {[]byte("a"), []byte("b")}} {
		if r, _, err := s.Find(t.Context(), hashes...); !errors.Is(err, session.ErrNone) || r.ID != "" {
			t.Errorf("%x: %+v, %v", hashes, r, err)
		}
	}
}

func epochs(t *testing.T, s session.Store) {
	ctx := t.Context()
	add(t, s, 5, record("acme", "ann", "a", 1), record("acme", "bob", "b", 1))
	if _, err := s.End(ctx, session.Ending{Tenant: "acme", Person: "ann", ID: "none", Raise: true}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant, person string
		want           uint64
	}{{"acme", "ann", 2}, {"acme", "bob", 1}, {"other", "ann", 1}, {"acme", "nobody", 1}} {
		if got, err := s.Epoch(ctx, c.tenant, c.person); err != nil || got != c.want {
			t.Errorf("%s of %s: epoch %d, %v", c.person, c.tenant, got, err)
		}
	}
	if _, epoch, err := s.Find(ctx, record("acme", "ann", "a", 1).Hash); err != nil || epoch != 2 {
		t.Errorf("found with epoch %d, %v", epoch, err)
	}
	for _, epoch := range []uint64{0, 1, 3} {
		r := record("acme", "ann", "late", 9)
		r.Epoch = epoch
		if _, err := s.Add(ctx, r, 5); !errors.Is(err, session.ErrStale) {
			t.Errorf("added under epoch %d: %v", epoch, err)
		}
	}
	r := record("acme", "ann", "new", 9)
	r.Epoch = 2
	add(t, s, 5, r)
	want(t, s, "acme", "ann", "new", "a")
}

func keep(t *testing.T, s session.Store) {
	add(t, s, 3, record("acme", "ann", "old", 1), record("acme", "ann", "older", 0), record("acme", "ann", "b", 5), record("acme", "bob", "x", 0))
	ended, err := s.Add(t.Context(), record("acme", "ann", "c", 6), 3)
	if err != nil || !slices.Equal(ended, []string{"older"}) {
		t.Fatalf("ended %v, %v", ended, err)
	}
	want(t, s, "acme", "ann", "c", "b", "old")
	ended, err = s.Add(t.Context(), record("acme", "ann", "d", 7), 1)
	if err != nil || !slices.Equal(ended, []string{"c", "b", "old"}) {
		t.Fatalf("ended %v, %v", ended, err)
	}
	want(t, s, "acme", "ann", "d")
	want(t, s, "acme", "bob", "x")
}

func replace(t *testing.T, s session.Store) {
	ctx := t.Context()
	a := record("acme", "ann", "a", 1)
	add(t, s, 5, a)
	b := a
	fresh := sha256.Sum256([]byte("fresh"))
	b.Hash, b.Version, b.Body, b.Seen, b.Expires = fresh[:], 2, []byte("new"), a.Seen.Add(time.Hour), a.Expires.Add(time.Hour)
	if err := s.Replace(ctx, b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Find(ctx, a.Hash); !errors.Is(err, session.ErrNone) {
		t.Fatalf("the hash before the rotation is found: %v", err)
	}
	if got, _, err := s.Find(ctx, b.Hash); err != nil || !reflect.DeepEqual(got, b) {
		t.Fatalf("%+v, %v", got, err)
	}
	for what, change := range map[string]func(*session.Record){
		"the same again":   func(*session.Record) {},
		"a version passed": func(r *session.Record) { r.Version = 1 },
		"one beyond":       func(r *session.Record) { r.Version = 4 },
		"another id":       func(r *session.Record) { r.ID, r.Version = "b", 3 },
		"another tenant":   func(r *session.Record) { r.Tenant, r.Version = "other", 3 },
		"another person":   func(r *session.Record) { r.Person, r.Version = "bob", 3 },
	} {
		r := b
		r.Body = []byte("wrong")
		change(&r)
		if err := s.Replace(ctx, r); !errors.Is(err, session.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, _, err := s.Find(ctx, b.Hash); err != nil || !reflect.DeepEqual(got, b) {
		t.Fatalf("a refused change has changed it: %+v, %v", got, err)
	}
}

func end(t *testing.T, s session.Store) {
	ctx := t.Context()
	external := bytes.Repeat([]byte{9}, 32)
	fill := func() {
		t.Helper()
		if _, err := s.Sweep(ctx, base.Add(1000*time.Hour)); err != nil {
			t.Fatal(err)
		}
		a := record("acme", "ann", "a", 4)
		a.External = external
		for _, r := range []session.Record{a, record("acme", "ann", "b", 3), record("acme", "ann", "c", 2), record("acme", "bob", "d", 1),
			record("other", "ann", "e", 1)} {
			var err error
			if r.Epoch, err = s.Epoch(ctx, r.Tenant, r.Person); err != nil {
				t.Fatal(err)
			}
			add(t, s, 9, r)
		}
	}
	for _, c := range []struct {
		what  string
		e     session.Ending
		ended []string
		left  []string // of ann
	}{
		{"one", session.Ending{Person: "ann", ID: "b"}, []string{"b"}, []string{"a", "c"}},
		{"one of another person", session.Ending{Person: "ann", ID: "d"}, nil, []string{"a", "b", "c"}},
		{"one of another tenant", session.Ending{Person: "ann", ID: "e"}, nil, []string{"a", "b", "c"}},
		{"all but one", session.Ending{Person: "ann", Except: "b"}, []string{"a", "c"}, []string{"b"}},
		{"all", session.Ending{Person: "ann"}, []string{"a", "b", "c"}, nil},
		{"all, raised", session.Ending{Person: "ann", Raise: true}, []string{"a", "b", "c"}, nil},
		{"those of a provider", session.Ending{External: external}, []string{"a"}, []string{"b", "c"}},
		{"those of a provider, of somebody else", session.Ending{Person: "bob", External: external}, nil, []string{"a", "b", "c"}},
		{"those of another provider", session.Ending{External: make([]byte, 32)}, nil, []string{"a", "b", "c"}},
	} {
		fill()
		c.e.Tenant = "acme"
		before, _ := s.Epoch(ctx, "acme", c.e.Person)
		ended, err := s.End(ctx, c.e)
		slices.Sort(ended)
		if err != nil || !slices.Equal(ended, c.ended) {
			t.Fatalf("%s: ended %v, %v", c.what, ended, err)
		}
		want(t, s, "acme", "ann", c.left...)
		want(t, s, "acme", "bob", "d")
		want(t, s, "other", "ann", "e")
		after, _ := s.Epoch(ctx, "acme", c.e.Person)
		if c.e.Raise != (after == before+1) || !c.e.Raise && after != before {
			t.Errorf("%s: epoch %d, then %d", c.what, before, after)
		}
		for _, id := range ended {
			r := record("acme", "ann", id, 5)
			if _, _, err := s.Find(ctx, r.Hash); !errors.Is(err, session.ErrNone) {
				t.Errorf("%s: %s is found: %v", c.what, id, err)
			}
			r.Version = 2
			if err := s.Replace(ctx, r); !errors.Is(err, session.ErrNone) {
				t.Errorf("%s: %s is replaced: %v", c.what, id, err)
			}
		}
	}
}

func endRefuses(t *testing.T, s session.Store) {
	add(t, s, 9, record("acme", "ann", "a", 1))
	for what, e := range map[string]session.Ending{
		"nobody's":            {Tenant: "acme"},
		"an id of nobody":     {Tenant: "acme", ID: "a"},
		"all but one":         {Tenant: "acme", Except: "b"},
		"a raise for nobody":  {Tenant: "acme", External: []byte("x"), Raise: true},
		"a raise for no body": {Tenant: "acme", Raise: true},
	} {
		if ended, err := s.End(t.Context(), e); !errors.Is(err, session.ErrNone) || len(ended) > 0 {
			t.Errorf("%s: %v, %v", what, ended, err)
		}
	}
	want(t, s, "acme", "ann", "a")
}

func sweep(t *testing.T, s session.Store) {
	add(t, s, 9, record("acme", "ann", "a", 0), record("acme", "ann", "b", 1), record("acme", "bob", "c", 2))
	for _, c := range []struct {
		minutes, want int
	}{{29, 0}, {30, 1}, {30, 0}, {31, 1}, {100, 1}, {100, 0}} {
		if n, err := s.Sweep(t.Context(), base.Add(time.Duration(c.minutes)*time.Minute)); err != nil || n != c.want {
			t.Fatalf("after %d minutes: %d, %v; want %d", c.minutes, n, err, c.want)
		}
	}
	if _, _, err := s.Find(t.Context(), record("acme", "ann", "b", 1).Hash); !errors.Is(err, session.ErrNone) {
		t.Fatalf("swept and found: %v", err)
	}
}

func cancelled(t *testing.T, s session.Store) {
	r := record("acme", "ann", "a", 0)
	add(t, s, 9, r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	next := r
	next.Version = 2
	for what, call := range map[string]func() error{
		"Epoch":   func() error { _, err := s.Epoch(ctx, "acme", "ann"); return err },
		"Add":     func() error { _, err := s.Add(ctx, record("acme", "ann", "b", 0), 9); return err },
		"Find":    func() error { _, _, err := s.Find(ctx, r.Hash); return err },
		"Replace": func() error { return s.Replace(ctx, next) },
		"List":    func() error { _, err := s.List(ctx, "acme", "ann"); return err },
		"End":     func() error { _, err := s.End(ctx, session.Ending{Tenant: "acme", Person: "ann"}); return err },
		"Sweep":   func() error { _, err := s.Sweep(ctx, base.Add(time.Hour)); return err },
	} {
		if err := call(); err == nil || errors.Is(err, session.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, _, err := s.Find(t.Context(), r.Hash); err != nil || got.Version != 1 {
		t.Errorf("a call that was given up has changed something: %+v, %v", got, err)
	}
}

// parallel runs f n times at once.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func oneRotationWins(t *testing.T, s session.Store) {
	r := record("acme", "ann", "a", 0)
	add(t, s, 9, r)
	var mu sync.Mutex
	won := 0
	var winner []byte
	parallel(16, func(i int) {
		next := r
		hash := sha256.Sum256([]byte(fmt.Sprint("rotated", i)))
		next.Hash, next.Version = hash[:], 2
		err := s.Replace(t.Context(), next)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			won++
			winner = next.Hash
		case !errors.Is(err, session.ErrNone):
			t.Errorf("%v", err)
		}
	})
	if won != 1 {
		t.Fatalf("%d rotations of one version", won)
	}
	if _, _, err := s.Find(t.Context(), winner); err != nil {
		t.Fatal(err)
	}
	want(t, s, "acme", "ann", "a")
}

func keepUnderLoad(t *testing.T, s session.Store) {
	parallel(16, func(i int) {
		if _, err := s.Add(t.Context(), record("acme", "ann", fmt.Sprint("s", i), i), 3); err != nil {
			t.Errorf("%v", err)
		}
	})
	if n := len(ids(t, s, "acme", "ann")); n != 3 {
		t.Fatalf("%d sessions are left of 16, want 3", n)
	}
}

func noneComesInAfterEnd(t *testing.T, s session.Store) {
	parallel(16, func(i int) {
		if i == 8 {
			if _, err := s.End(t.Context(), session.Ending{Tenant: "acme", Person: "ann", Raise: true}); err != nil {
				t.Errorf("%v", err)
			}
			return
		}
		_, err := s.Add(t.Context(), record("acme", "ann", fmt.Sprint("s", i), i), 99)
		if err != nil && !errors.Is(err, session.ErrStale) {
			t.Errorf("%v", err)
		}
	})
	want(t, s, "acme", "ann")
}

// Package tokentest is the conformance suite of token.Store.
package tokentest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/token"
)

var base = time.Date(2026, 11, 27, 9, 0, 0, 123e6, time.UTC)

func record(tenant, account, id string) token.Record {
	return token.Record{
		ID: id, Tenant: tenant, Account: account, Name: "export % _ '", By: "root", Scopes: []string{"export", "read"},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Created: base, Expires: base.Add(24 * time.Hour), Hash: []byte{0, 1, 2, 0xff}, MAC: []byte{3, 0},
	}
}

// TestStore holds a store against what token.Store promises. open returns an empty one.
func TestStore(t *testing.T, open func(testing.TB) token.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, token.Store)
	}{
		{"RoundTrip", roundTrip}, {"Taken", taken}, {"Use", use}, {"List", list}, {"Revoke", revoke}, {"RevokeNothing", revokeNothing},
		{"Cancelled", cancelled}, {"Parallel", parallel},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func add(t *testing.T, s token.Store, all ...token.Record) {
	t.Helper()
	for _, r := range all {
		if err := s.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func roundTrip(t *testing.T, s token.Store) {
	a, b := record("acme", "svc", "aaaa"), record("acme", "svc", "aabb")
	b.Sources, b.By, b.Used = nil, "", base.Add(-time.Hour)
	add(t, s, a, b)
	for _, want := range []token.Record{a, b} {
		got, err := s.Find(t.Context(), want.ID)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		got.Hash[0]++
		got.Scopes[0] = "all" // the store's own copy stays
	}
	if got, err := s.Find(t.Context(), "aaaa"); err != nil || !reflect.DeepEqual(got, a) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, id := range []string{"", "aa", "AAAA", "aaaa ", "a%"} {
		if got, err := s.Find(t.Context(), id); !errors.Is(err, token.ErrNone) || got.ID != "" {
			t.Errorf("%q: %+v, %v", id, got, err)
		}
	}
}

func taken(t *testing.T, s token.Store) {
	a := record("acme", "svc", "aaaa")
	add(t, s, a)
	for _, tenant := range []string{"acme", "other"} {
		r := record(tenant, "thief", "aaaa")
		if err := s.Add(t.Context(), r); !errors.Is(err, token.ErrExists) {
			t.Errorf("of %s: %v", tenant, err)
		}
	}
	if got, err := s.Find(t.Context(), "aaaa"); err != nil || !reflect.DeepEqual(got, a) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func use(t *testing.T, s token.Store) {
	add(t, s, record("acme", "svc", "aaaa"), record("acme", "svc", "bbbb"))
	for _, c := range []struct{ at, want time.Duration }{{time.Hour, time.Hour}, {0, time.Hour}, {2 * time.Hour, 2 * time.Hour}} {
		if err := s.Use(t.Context(), "aaaa", base.Add(c.at)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Find(t.Context(), "aaaa"); err != nil || !got.Used.Equal(base.Add(c.want)) {
			t.Fatalf("used %v, %v", got.Used, err)
		}
	}
	if got, _ := s.Find(t.Context(), "bbbb"); !got.Used.IsZero() {
		t.Errorf("another one: %v", got.Used)
	}
	if err := s.Use(t.Context(), "cccc", base); err != nil {
		t.Errorf("none: %v", err)
	}
}

func idsOf(all []token.Record) (ids []string) {
	for _, r := range all {
		ids = append(ids, r.ID)
	}
	return ids
}

func list(t *testing.T, s token.Store) {
	add(t, s, record("acme", "svc", "bbaa"), record("acme", "svc", "aaaa"), record("acme", "job", "aabb"), record("other", "svc", "aacc"))
	for _, c := range []struct {
		q    token.Query
		want []string
	}{
		{token.Query{Tenant: "acme"}, []string{"aaaa", "aabb", "bbaa"}},
		{token.Query{Tenant: "acme", Prefix: "aa"}, []string{"aaaa", "aabb"}},
		{token.Query{Tenant: "acme", Account: "svc"}, []string{"aaaa", "bbaa"}},
		{token.Query{Tenant: "acme", Account: "svc", Prefix: "aa"}, []string{"aaaa"}},
		{token.Query{Tenant: "acme", Prefix: "aaaaa"}, nil},
		{token.Query{Tenant: "acme", Prefix: "%"}, nil},
		{token.Query{Tenant: "acme", Prefix: "a_"}, nil},
		{token.Query{Tenant: "acme", Prefix: "AA"}, nil},
		{token.Query{Tenant: "acme", Account: "' OR ''='"}, nil},
		{token.Query{}, nil},
	} {
		all, err := s.List(t.Context(), c.q)
		if got := idsOf(all); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %v", c.q, got, err)
		}
	}
}

func revoke(t *testing.T, s token.Store) {
	add(t, s, record("acme", "svc", "bbbb"), record("acme", "svc", "aaaa"), record("acme", "job", "cccc"), record("other", "svc", "dddd"))
	for _, c := range []struct {
		q    token.Query
		want []string
	}{
		{token.Query{Tenant: "acme", Prefix: "aaa"}, nil},
		{token.Query{Tenant: "other", Prefix: "aaaa"}, nil},
		{token.Query{Tenant: "acme", Account: "job", Prefix: "aaaa"}, nil},
		{token.Query{Tenant: "acme", Prefix: "cccc"}, []string{"cccc"}},
		{token.Query{Tenant: "acme", Prefix: "cccc"}, nil},
		{token.Query{Tenant: "acme", Account: "svc"}, []string{"aaaa", "bbbb"}},
		{token.Query{Tenant: "acme", Account: "svc"}, nil},
	} {
		if got, err := s.Revoke(t.Context(), c.q, base); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %v", c.q, got, err)
		}
	}
	want := record("acme", "svc", "aaaa")
	want.Revoked, want.Hash = base, nil
	if got, err := s.Find(t.Context(), "aaaa"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Find(t.Context(), "dddd"); err != nil || !got.Revoked.IsZero() || len(got.Hash) == 0 {
		t.Errorf("another tenant's: %+v, %v", got, err)
	}
	if err := s.Add(t.Context(), record("acme", "svc", "aaaa")); !errors.Is(err, token.ErrExists) {
		t.Errorf("a revoked id comes back: %v", err)
	}
}

func revokeNothing(t *testing.T, s token.Store) {
	add(t, s, record("acme", "svc", "aaaa"), record("", "", "bbbb"))
	for _, q := range []token.Query{{}, {Tenant: "acme"}} {
		if got, err := s.Revoke(t.Context(), q, base); err != nil || len(got) > 0 {
			t.Errorf("%+v: %v, %v", q, got, err)
		}
	}
}

func cancelled(t *testing.T, s token.Store) {
	add(t, s, record("acme", "svc", "aaaa"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, call := range map[string]func() error{
		"Add":    func() error { return s.Add(ctx, record("acme", "svc", "bbbb")) },
		"Find":   func() error { _, err := s.Find(ctx, "aaaa"); return err },
		"Use":    func() error { return s.Use(ctx, "aaaa", base.Add(time.Hour)) },
		"List":   func() error { _, err := s.List(ctx, token.Query{Tenant: "acme"}); return err },
		"Revoke": func() error { _, err := s.Revoke(ctx, token.Query{Tenant: "acme", Account: "svc"}, base); return err },
	} {
		if err := call(); err == nil || errors.Is(err, token.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := s.Find(t.Context(), "aaaa"); err != nil || !reflect.DeepEqual(got, record("acme", "svc", "aaaa")) {
		t.Errorf("a call that was given up has changed something: %+v, %v", got, err)
	}
}

func parallel(t *testing.T, s token.Store) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	added, revoked := 0, 0
	for i := range 16 {
		wg.Go(func() {
			err := s.Add(t.Context(), record(fmt.Sprint("tenant", i), "svc", "aaaa"))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				added++
			} else if !errors.Is(err, token.ErrExists) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	r, err := s.Find(t.Context(), "aaaa")
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		wg.Go(func() {
			ids, err := s.Revoke(t.Context(), token.Query{Tenant: r.Tenant, Prefix: "aaaa"}, base)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%v", err)
			}
			revoked += len(ids)
		})
	}
	wg.Wait()
	if added != 1 || revoked != 1 {
		t.Errorf("%d added, %d revoked", added, revoked)
	}
}

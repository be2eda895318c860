package lockout_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/authz/authn/lockout/lockouttest"
)

func TestMemory(t *testing.T) {
	lockouttest.TestStore(t, func(testing.TB) lockout.Store { return &lockout.Memory{} })
}

func newGuard(t testing.TB, s lockout.Store, o lockout.Options) *lockout.Guard {
	t.Helper()
	g, err := lockout.New(s, bytes.Repeat([]byte{0x2a}, 32), &o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestFlood: tries of new names from 10,000 sources do not grow the store without bound, nor wash out an account that
// is under attack.
func TestFlood(t *testing.T) {
	c, s := lockouttest.NewClock(), &lockout.Memory{}
	g := newGuard(t, s, lockout.Options{Now: c.Now, MaxRows: 2000})
	source := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	victim := func(i int) error {
		_, err := g.Begin(t.Context(), lockout.Attempt{Account: "zhang", Source: source(i)})
		return err
	}
	for i := range 60 {
		if err := victim(i); err != nil {
			t.Fatal(err)
		}
	}
	most := 0
	for i := range 30_000 {
		if _, err := g.Begin(t.Context(), lockout.Attempt{Account: fmt.Sprint("name ", i), Source: source(i % 10_000)}); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 { // counting is slow
			most = max(most, s.Len())
		}
	}
	if most > 2000+3*1000 || most < 2000 {
		t.Errorf("%d rows at the most", most)
	}
	var r *lockout.RefusedError
	for i := range 41 {
		if err := victim(100_000 + i); (err != nil) != (i == 40) || err != nil && (!errors.As(err, &r) || r.Need != lockout.StrongerFactor) {
			t.Errorf("try %d: %v", 60+i+1, err)
		}
	}
	c.Pass(31 * 24 * time.Hour)
	if err := g.Sweep(t.Context()); err != nil || s.Len() != 0 {
		t.Errorf("%d rows are left, %v", s.Len(), err)
	}
}

func TestOptions(t *testing.T) {
	key := make([]byte, 32)
	for what, o := range map[string]lockout.Options{
		"negative failures": {Failures: -1}, "many failures": {Failures: 100}, "more than NIST": {Total: 101}, "negative total": {Total: -1},
		"short lock": {Lock: time.Millisecond}, "long lock": {Lock: 25 * time.Hour}, "negative lock": {Lock: -1}, "short soft lock": {SoftLock: 1},
		"long soft lock": {SoftLock: 31 * 24 * time.Hour}, "forgets the lock": {Forget: time.Minute}, "few rows": {MaxRows: 999},
		"negative accounts": {Accounts: -1}, "many accounts": {Accounts: 1001},
	} {
		if _, err := lockout.New(&lockout.Memory{}, key, &o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := lockout.New(&lockout.Memory{}, key[:31], nil); err == nil {
		t.Error("a short key: no error")
	}
	if _, err := lockout.New(nil, key, nil); err == nil {
		t.Error("no store: no error")
	}
	c := lockouttest.NewClock()
	g := newGuard(t, &lockout.Memory{}, lockout.Options{Now: c.Now, Failures: 5, Lock: time.Minute})
	a := lockout.Attempt{Account: "zhang", Source: netip.MustParseAddr("192.0.2.1")}
	for i := range 7 {
		_, err := g.Begin(t.Context(), a)
		var r *lockout.RefusedError
		if (i == 6) != errors.As(err, &r) || r != nil && r.Until.Sub(c.Now()) != time.Minute {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// gated is a store where everybody reads before anybody goes on.
type gated struct {
	lockout.Memory
	all sync.WaitGroup
}

func (g *gated) Read(ctx context.Context, keys []lockout.Key) ([]lockout.Row, error) {
	rows, err := g.Memory.Read(ctx, keys)
	g.all.Done()
	g.all.Wait()
	return rows, err
}

// TestReadIsNoReservation: of twenty tries that all saw no lock when they began, four are allowed.
func TestReadIsNoReservation(t *testing.T) {
	const tries = 20
	s := &gated{}
	s.all.Add(tries)
	g := newGuard(t, s, lockout.Options{})
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range tries {
		all.Go(func() {
			p, err := g.Begin(t.Context(), lockout.Attempt{Account: "zhang", Source: netip.MustParseAddr("192.0.2.1")})
			var r *lockout.RefusedError
			if err == nil {
				allowed.Add(1)
			} else if !errors.As(err, &r) || p != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if allowed.Load() != 4 {
		t.Errorf("%d tries are allowed", allowed.Load())
	}
}

// keeping is a store that tells its rows.
type keeping struct {
	lockout.Memory
	text strings.Builder
}

func (k *keeping) Update(ctx context.Context, keys []lockout.Key, change func([]lockout.Row) bool) error {
	return k.Memory.Update(ctx, keys, func(rows []lockout.Row) bool {
		done := change(rows)
		for i, key := range keys {
			fmt.Fprintf(&k.text, "%d %x %x %d %d %d %d\n", key.Kind, key.Account, key.Other, rows[i].Failures, rows[i].Level, rows[i].Until, rows[i].Ends)
		}
		return done
	})
}

// TestGolden: the rows of version 1, as they were when the version was fixed: four tries from one source, one from a
// device, one with a stronger factor, one from an IPv6 address.
func TestGolden(t *testing.T) {
	s, c := &keeping{}, lockouttest.NewClock()
	fmt.Fprintf(&s.text, "# Rows of version 1: docs/formats/authn.md. kind account other failures level until ends\nkey %s\n", hex.EncodeToString(bytes.Repeat([]byte{0x2a}, 32)))
	g := newGuard(t, s, lockout.Options{Now: c.Now})
	a := lockout.Attempt{Account: " Zhang@Example.com", Source: netip.MustParseAddr("192.0.2.1")}
	device, strong, six := a, a, a
	device.Device, strong.Stronger, six.Source = "token", true, netip.MustParseAddr("2001:db8:1:2::3")
	for _, a := range []lockout.Attempt{a, a, a, a, device, strong, six} {
		if _, err := g.Begin(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	const name = "testdata/rows-v1.txt"
	if os.Getenv("CRMGUARD_UPDATE") != "" {
		if err := os.WriteFile(name, []byte(s.text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || s.text.String() != string(want) {
		t.Errorf("%s\n%v", s.text.String(), err)
	}
}

// FuzzSource: an address has one source, itself in it, and never panics; unequal ones of IPv4 have unequal sources.
func FuzzSource(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, []byte{192, 0, 2, 2})
	f.Add([]byte("\x20\x01\x0d\xb8\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"), []byte("\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x01"))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a, okA := netip.AddrFromSlice(x)
		b, okB := netip.AddrFromSlice(y)
		if !okA || !okB || a.Unmap().IsUnspecified() || b.Unmap().IsUnspecified() {
			return
		}
		g := newGuard(t, &lockout.Memory{}, lockout.Options{})
		for range 4 {
			if _, err := g.Begin(t.Context(), lockout.Attempt{Account: "a", Source: a}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.Begin(t.Context(), lockout.Attempt{Account: "a", Source: a}); err == nil {
			t.Fatal("the fifth")
		}
		if _, err := g.Begin(t.Context(), lockout.Attempt{Account: "a", Source: b}); err != nil && a.Is4() && b.Is4() && a != b {
			t.Fatal(a, b)
		}
	})
}

func ExampleGuard() {
	ctx := context.Background()
	guard, err := lockout.New(&lockout.Memory{}, bytes.Repeat([]byte{7}, 32), nil)
	if err != nil {
		panic(err)
	}
	attacker := lockout.Attempt{Account: "zhang@example.com", Source: netip.MustParseAddr("192.0.2.66")}
	for range 4 {
		if _, err := guard.Begin(ctx, attacker); err != nil { // then verify a password: wrong, and nothing more to do
			panic(err)
		}
	}
	_, err = guard.Begin(ctx, attacker)
	fmt.Println(err)
	owner := lockout.Attempt{Account: "zhang@example.com", Source: netip.MustParseAddr("192.0.2.66"), Device: "token from a cookie"}
	pass, err := guard.Begin(ctx, owner) // the same network, but a known device
	if err != nil {
		panic(err)
	}
	fmt.Println(pass.Succeed(ctx))
	// Output:
	// lockout: too many failures
	// <nil>
}

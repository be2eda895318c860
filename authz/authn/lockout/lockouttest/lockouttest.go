// Package lockouttest is the suite for implementations of lockout.Store. It runs a Guard on each, so that the rules are
// shown to hold there.
package lockouttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/lockout"
)

// Clock is set by tests.
type Clock struct{ seconds atomic.Int64 }

// NewClock starts in the year 2026.
func NewClock() *Clock {
	c := &Clock{}
	c.seconds.Store(1_795_750_000)
	return c
}

// Now is the time.
func (c *Clock) Now() time.Time { return time.Unix(c.seconds.Load(), 0) }

// Pass lets time pass.
func (c *Clock) Pass(d time.Duration) { c.seconds.Add(int64(d / time.Second)) }

func hash(b byte) (h lockout.Hash) {
	for i := range h {
		h[i] = b
	}
	return h
}

// TestStore holds a store against the interface. open returns an empty one.
func TestStore(t *testing.T, open func(testing.TB) lockout.Store) {
	t.Run("rows", func(t *testing.T) { testRows(t, open(t)) })
	t.Run("sweep", func(t *testing.T) { testSweep(t, open(t)) })
	t.Run("atomic", func(t *testing.T) { testAtomic(t, open(t)) })
	for name, test := range map[string]func(testing.TB, *guard){
		"source": testSource, "same for unknown": testUnknown, "sources": testSources, "device": testDevice, "total": testTotal, "stronger": testStronger,
		"succeed": testSucceed, "undo": testUndo, "release": testRelease, "parallel": testParallel, "accounts": testAccounts,
		"accounts that sign in": testAccountsSignIn, "accounts in a day": testAccountsDay,
	} {
		t.Run(name, func(t *testing.T) {
			c := NewClock()
			g, err := lockout.New(open(t), bytes.Repeat([]byte{1}, 32), &lockout.Options{Now: c.Now})
			if err != nil {
				t.Fatal(err)
			}
			test(t, &guard{Guard: g, clock: c})
		})
	}
}

func update(t testing.TB, s lockout.Store, rows map[lockout.Key]lockout.Row) {
	t.Helper()
	keys := slices.SortedFunc(maps.Keys(rows), lockout.Key.Compare)
	err := s.Update(t.Context(), keys, func(found []lockout.Row) bool {
		for i, k := range keys {
			found[i] = rows[k]
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testRows(t *testing.T, s lockout.Store) {
	a := lockout.Key{Kind: lockout.BySource, Account: hash(1), Other: hash(2)}
	b := lockout.Key{Kind: lockout.InTotal, Account: hash(1)}
	other := lockout.Key{Kind: lockout.BySource, Account: hash(3), Other: hash(2)}
	check := func(what string, account lockout.Hash, want map[lockout.Key]lockout.Row) {
		t.Helper()
		got, err := s.Rows(t.Context(), account)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
		read, err := s.Read(t.Context(), []lockout.Key{b, a}) // in this order
		if err != nil || account == hash(1) && (len(read) != 2 || read[0] != want[b] || read[1] != want[a]) {
			t.Errorf("%s: %v, %v; want %v", what, read, err, want)
		}
	}
	type rows = map[lockout.Key]lockout.Row
	one, two := lockout.Row{Failures: 1, Ends: 50}, lockout.Row{Failures: 1 << 31, Level: 32, Until: 1 << 40, Ends: 1<<40 + 1}
	check("empty", hash(1), rows{})
	update(t, s, rows{a: one, other: one})
	check("one", hash(1), rows{a: one})
	update(t, s, rows{a: two, b: one})
	check("two", hash(1), rows{a: two, b: one})
	err := s.Update(t.Context(), []lockout.Key{a, b}, func(found []lockout.Row) bool {
		if len(found) != 2 || found[0] != two || found[1] != one {
			t.Errorf("%v", found)
		}
		clear(found)
		return false
	})
	if err != nil {
		t.Error(err)
	}
	check("not changed", hash(1), rows{a: two, b: one})
	update(t, s, rows{a: {}})
	check("deleted", hash(1), rows{b: one})
	update(t, s, rows{a: {}})
	check("deleted twice", hash(1), rows{b: one})
	err = s.Update(t.Context(), []lockout.Key{a}, func(found []lockout.Row) bool { return false })
	if err != nil {
		t.Error(err)
	}
	check("looked at", hash(1), rows{b: one})
	check("another account", hash(3), rows{other: one})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, []lockout.Key{a}, func([]lockout.Row) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func testSweep(t *testing.T, s lockout.Store) {
	key := func(n int) lockout.Key {
		k := lockout.Key{Kind: lockout.BySource, Account: hash(byte(n / 10))}
		k.Other[0] = byte(n)
		return k
	}
	all := map[lockout.Key]lockout.Row{}
	for n := range 40 {
		all[key(n)] = lockout.Row{Failures: uint32(1 + n%4), Ends: int64(100 + n)}
	}
	update(t, s, all)
	left := func(want func(n int) bool) {
		t.Helper()
		for n := range 40 {
			r, err := s.Read(t.Context(), []lockout.Key{key(n)})
			if err != nil || (r[0] != lockout.Row{}) != want(n) {
				t.Errorf("row %d: %v, %v", n, r, err)
			}
		}
	}
	sweep := func(now int64, most int) {
		t.Helper()
		if err := s.Sweep(t.Context(), now, most); err != nil {
			t.Fatal(err)
		}
	}
	sweep(99, 40)
	left(func(int) bool { return true })
	sweep(103, 100)
	left(func(n int) bool { return n > 3 })
	sweep(103, 27) // the nine with one failure
	left(func(n int) bool { return n > 3 && n%4 != 0 })
	sweep(103, 25) // two of those with two failures, the first to end
	left(func(n int) bool { return n > 3 && n%4 != 0 && n != 5 && n != 9 })
	sweep(1000, 25)
	left(func(int) bool { return false })
}

// testAtomic: no update is lost, none comes between, and two that share rows do not block each other for good.
func testAtomic(t *testing.T, s lockout.Store) {
	const each, workers = 10, 8
	a := lockout.Key{Kind: lockout.InTotal, Account: hash(1)}
	var all sync.WaitGroup
	for w := range workers {
		b := lockout.Key{Kind: lockout.InTotal, Account: hash(byte(w % 2 * 2))} // below or above a
		keys := slices.SortedFunc(slices.Values([]lockout.Key{a, b}), lockout.Key.Compare)
		all.Go(func() {
			for range each {
				err := s.Update(t.Context(), keys, func(rows []lockout.Row) bool {
					for i := range rows {
						rows[i].Failures++
						rows[i].Ends = 100
					}
					return true
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r, err := s.Read(t.Context(), []lockout.Key{a})
	if err != nil || r[0].Failures != each*workers {
		t.Errorf("%v, %v", r, err)
	}
}

// guard is a Guard with the words of the tests.
type guard struct {
	*lockout.Guard
	clock *Clock
}

func from(source string) lockout.Attempt {
	return lockout.Attempt{Account: "zhang", Source: netip.MustParseAddr(source)}
}

// fails begins n tries that fail, each of which must be allowed.
func (g *guard) fails(t testing.TB, what string, n int, a lockout.Attempt) {
	t.Helper()
	for i := range n {
		if _, err := g.Begin(t.Context(), a); err != nil {
			t.Fatalf("%s: try %d: %v", what, i+1, err)
		}
	}
}

// refused says that a try is refused, and for how long.
func (g *guard) refused(t testing.TB, what string, a lockout.Attempt, need lockout.Need, rest time.Duration) {
	t.Helper()
	for range 2 { // which does not make it longer
		p, err := g.Begin(t.Context(), a)
		var r *lockout.RefusedError
		if !errors.As(err, &r) || p != nil || r.Need != need || r.Until.Sub(g.clock.Now()) != rest {
			t.Fatalf("%s: %v, %+v; want %v for %v", what, err, r, need, rest)
		}
	}
}

func (g *guard) begin(t testing.TB, a lockout.Attempt) *lockout.Pass {
	t.Helper()
	p, err := g.Begin(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testSource: three failures lock nothing, the fourth locks for 15 minutes, each further one for twice as long, up to a
// day; a day after a lock has ended all is forgotten.
func testSource(t testing.TB, g *guard) {
	a := from("192.0.2.1")
	g.fails(t, "the first", 4, a)
	lock := 15 * time.Minute
	for i := range 9 {
		g.refused(t, fmt.Sprintf("lock %d", i), a, lockout.Wait, lock)
		g.clock.Pass(lock - time.Second)
		g.refused(t, "its last second", a, lockout.Wait, time.Second)
		g.clock.Pass(time.Second)
		g.fails(t, "after it", 1, a)
		lock = min(2*lock, 24*time.Hour)
	}
	g.refused(t, "the longest", a, lockout.Wait, 24*time.Hour)
	g.fails(t, "another source", 4, from("192.0.2.2"))
	g.clock.Pass(48*time.Hour - time.Second)
	g.fails(t, "not forgotten", 1, a)
	g.refused(t, "not forgotten", a, lockout.Wait, 24*time.Hour)
	g.clock.Pass(48 * time.Hour)
	g.fails(t, "forgotten", 4, a)
	g.refused(t, "as at the beginning", a, lockout.Wait, 15*time.Minute)
}

// testUnknown: names are what was typed; writing one in another way is no new name.
func testUnknown(t testing.TB, g *guard) {
	for _, name := range []string{"nobody at all", "", "Ｎｏｂｏｄｙ"} {
		a := lockout.Attempt{Account: name, Source: netip.MustParseAddr("192.0.2.1")}
		g.fails(t, name, 4, a)
		g.refused(t, name, a, lockout.Wait, 15*time.Minute)
		a.Account += "x"
		g.fails(t, "another name", 1, a)
	}
	for _, name := range []string{"NOBODY", " nobody\t", "NoBody at ALL"} {
		g.refused(t, name, lockout.Attempt{Account: name, Source: netip.MustParseAddr("192.0.2.1")}, lockout.Wait, 15*time.Minute)
	}
}

// testSources: which addresses are one source.
func testSources(t testing.TB, g *guard) {
	for _, c := range []struct {
		locked      string
		same, other []string
	}{
		{"192.0.2.1", []string{"::ffff:192.0.2.1", "64:ff9b::192.0.2.1"}, []string{"192.0.2.2", "::192.0.2.1", "64:ff9b::192.0.2.3"}},
		{"2001:db8:1:2::1", []string{"2001:db8:1:2::2", "2001:db8:1:2:ffff:ffff:ffff:ffff"}, []string{"2001:db8:1:3::1", "2001:db8:2:2::1"}},
		{"fe80::1%eth0", []string{"fe80::1", "fe80::2%eth1"}, []string{"fe80:0:0:1::1"}},
	} {
		g.fails(t, c.locked, 4, from(c.locked))
		for _, s := range append(c.same, c.locked) {
			g.refused(t, s+" beside "+c.locked, from(s), lockout.Wait, 15*time.Minute)
		}
		for _, s := range c.other {
			g.fails(t, s+" beside "+c.locked, 1, from(s))
		}
	}
	for _, a := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if p, err := g.Begin(t.Context(), lockout.Attempt{Account: "zhang", Source: a}); !errors.Is(err, lockout.ErrSource) || p != nil {
			t.Errorf("%v: %v", a, err)
		}
	}
}

// testDevice: nobody but its user touches the counter of a known device, and that one touches no other.
func testDevice(t testing.TB, g *guard) {
	known := from("192.0.2.1")
	known.Device = "token of the owner's device"
	for i := range 120 { // from as many sources: the soft lock too
		_, err := g.Begin(t.Context(), from(fmt.Sprintf("198.51.100.%d", i)))
		if (err != nil) != (i >= 100) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	g.fails(t, "the owner's own source", 0, from("192.0.2.1"))
	ok(t, g.begin(t, known).Succeed(t.Context()))
	g.fails(t, "the owner mistypes", 3, known)
	ok(t, g.begin(t, known).Succeed(t.Context()))
	g.refused(t, "a success of the owner opens nothing", from("198.51.100.1"), lockout.StrongerFactor, 24*time.Hour)
	g.fails(t, "the owner mistypes", 4, known)
	g.refused(t, "and waits at this device", known, lockout.Wait, 15*time.Minute)
	second := known
	second.Device = "another device of the owner"
	ok(t, g.begin(t, second).Succeed(t.Context()))
	moved := known
	moved.Account = "li"
	g.fails(t, "the device is known for one account", 4, moved)
	elsewhere := known
	elsewhere.Source = netip.MustParseAddr("203.0.113.9")
	g.refused(t, "the device elsewhere", elsewhere, lockout.Wait, 15*time.Minute)
}

// testTotal: a hundred failures from unknown devices, whatever their sources; then a day of the soft lock, two, four.
func testTotal(t testing.TB, g *guard) {
	source := 0
	next := func() lockout.Attempt { source++; return from(fmt.Sprintf("198.51.%d.%d", source/250, source%250)) }
	for range 33 {
		g.fails(t, "three each", 3, next())
	}
	g.fails(t, "the hundredth", 1, next())
	for _, days := range []int{1, 2, 4, 8, 16, 30, 30} {
		long := time.Duration(days) * 24 * time.Hour
		g.refused(t, "from anywhere", next(), lockout.StrongerFactor, long)
		g.fails(t, "another account", 1, lockout.Attempt{Account: "li", Source: next().Source})
		g.clock.Pass(long)
		g.fails(t, "one more", 1, next())
	}
	g.clock.Pass(31 * 24 * time.Hour)
	g.fails(t, "forgotten", 1, next())
	g.fails(t, "forgotten", 1, next())
}

// testStronger: what cannot be guessed is not locked by what is, and locks by itself.
func testStronger(t testing.TB, g *guard) {
	a := from("192.0.2.1")
	strong := a
	strong.Stronger = true
	g.fails(t, "passwords", 4, a)
	for i := range 96 {
		g.fails(t, "passwords", 1, from(fmt.Sprintf("198.51.100.%d", i)))
	}
	g.refused(t, "passwords", a, lockout.Wait, 15*time.Minute)
	ok(t, g.begin(t, strong).Succeed(t.Context()))
	g.fails(t, "stronger ones", 4, strong)
	g.refused(t, "stronger ones", strong, lockout.Wait, 15*time.Minute)
	g.refused(t, "the soft lock stays", from("203.0.113.1"), lockout.StrongerFactor, 24*time.Hour)
}

// testSucceed: a success ends what was counted before it from there, and takes back its own try in total.
func testSucceed(t testing.TB, g *guard) {
	a := from("192.0.2.1")
	for range 32 { // 128 tries, 96 failures
		g.fails(t, "mistyped", 3, a)
		ok(t, g.begin(t, a).Succeed(t.Context()))
	}
	g.fails(t, "the hundredth in total", 4, a)
	g.refused(t, "which stay", from("192.0.2.2"), lockout.StrongerFactor, 24*time.Hour)
	g.refused(t, "locked", a, lockout.Wait, 15*time.Minute)
	g.fails(t, "another account", 4, lockout.Attempt{Account: "li", Source: a.Source})
	li := lockout.Attempt{Account: "li", Source: netip.MustParseAddr("192.0.2.9")}
	ok(t, g.begin(t, li).Succeed(t.Context()))
	g.refused(t, "a success elsewhere", lockout.Attempt{Account: "li", Source: a.Source}, lockout.Wait, 15*time.Minute)
	g.refused(t, "a success of another", a, lockout.Wait, 15*time.Minute)
}

// testUndo: a try that could not be made counts nothing, also where it had locked.
func testUndo(t testing.TB, g *guard) {
	a := from("192.0.2.1")
	for range 30 {
		ok(t, g.begin(t, a).Undo(t.Context()))
	}
	if rows, err := g.Locks(t.Context(), "zhang"); err != nil || len(rows) != 0 {
		t.Errorf("%v, %v", rows, err)
	}
	g.fails(t, "three", 3, a)
	p := g.begin(t, a)
	g.refused(t, "reserved", a, lockout.Wait, 15*time.Minute)
	ok(t, p.Undo(t.Context()))
	g.fails(t, "the fourth", 1, a)
	g.refused(t, "locked", a, lockout.Wait, 15*time.Minute)
	g.clock.Pass(15 * time.Minute)
	for range 3 { // does not make the next lock longer
		ok(t, g.begin(t, a).Undo(t.Context()))
	}
	g.fails(t, "the fifth", 1, a)
	g.refused(t, "locked", a, lockout.Wait, 30*time.Minute)

	b := from("192.0.2.2")
	g.fails(t, "two", 2, b)
	third := g.begin(t, b)
	g.fails(t, "the fourth, which locks", 1, b)
	ok(t, third.Undo(t.Context()))
	g.refused(t, "a lock of another try stays", b, lockout.Wait, 15*time.Minute)
	c := from("192.0.2.3")
	first, second := g.begin(t, c), g.begin(t, c)
	ok(t, first.Succeed(t.Context()))
	ok(t, second.Undo(t.Context()))
	g.fails(t, "nothing below zero", 4, c)
	g.refused(t, "locked", c, lockout.Wait, 15*time.Minute)
}

// testRelease: an administrator sees the locks and ends them, of one account.
func testRelease(t testing.TB, g *guard) {
	a, device := from("192.0.2.1"), from("192.0.2.1")
	device.Device = "token"
	li := lockout.Attempt{Account: "li", Source: a.Source}
	g.fails(t, "source", 4, a)
	g.fails(t, "device", 4, device)
	g.fails(t, "li", 4, li)
	want := []lockout.Lock{
		{Kind: lockout.BySource, Failures: 4, Until: g.clock.Now().Add(15 * time.Minute)},
		{Kind: lockout.ByDevice, Failures: 4, Until: g.clock.Now().Add(15 * time.Minute)},
	}
	if got, err := g.Locks(t.Context(), " Zhang"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, rows := range []int{3, 0} { // with the total
		if n, err := g.Release(t.Context(), "ZHANG"); n != rows || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if got, err := g.Locks(t.Context(), "zhang"); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	g.fails(t, "source", 4, a)
	g.fails(t, "device", 4, device)
	g.refused(t, "li", li, lockout.Wait, 15*time.Minute)
}

// testParallel: of a hundred parallel tries four are allowed from one source; of 300 from as many sources a hundred.
func testParallel(t testing.TB, g *guard) {
	run := func(n int, at func(i int) lockout.Attempt) (allowed int64) {
		var count atomic.Int64
		var all sync.WaitGroup
		turns := make(chan struct{}, 20)
		for i := range n {
			turns <- struct{}{}
			all.Go(func() {
				defer func() { <-turns }()
				var r *lockout.RefusedError
				if _, err := g.Begin(t.Context(), at(i)); err == nil {
					count.Add(1)
				} else if !errors.As(err, &r) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		return count.Load()
	}
	if n := run(100, func(int) lockout.Attempt { return from("192.0.2.1") }); n != 4 {
		t.Errorf("%d tries from one source", n)
	}
	li := func(i int) lockout.Attempt {
		return lockout.Attempt{Account: "li", Source: netip.AddrFrom4([4]byte{198, 51, byte(i / 250), byte(i % 250)})}
	}
	if n := run(300, li); n != 100 {
		t.Errorf("%d tries from 300 sources", n)
	}
}

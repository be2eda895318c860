package lockouttest

import (
	"fmt"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/lockout"
)

func of(account, source string) lockout.Attempt {
	a := from(source)
	a.Account = account
	return a
}

func name(i int) string { return fmt.Sprintf("person%d@example.com", i) }

// testAccounts: one source may fail at twenty accounts. Then unknown devices there need more, whatever the account, and
// for twice as long with each further account; known devices, stronger factors and other sources do not.
func testAccounts(t testing.TB, g *guard) {
	const here, beside = "192.0.2.1", "192.0.2.2"
	for i := range 20 {
		g.fails(t, name(i), 2, of(name(i), here)) // two at one are one account
	}
	g.fails(t, "one of the twenty", 1, of(name(0), here))
	g.fails(t, "the 21st", 1, of(name(20), here))
	lock := 15 * time.Minute
	for i := 21; i < 24; i++ {
		g.refused(t, "a further account", of(name(i), here), lockout.StrongerFactor, lock)
		g.refused(t, "one of the twenty", of(name(1), here), lockout.StrongerFactor, lock)
		g.refused(t, "a name that nobody has", of("nobody", here), lockout.StrongerFactor, lock)
		known, strong := of(name(i), here), of(name(i), here)
		known.Device, strong.Stronger = "token", true
		ok(t, g.begin(t, known).Succeed(t.Context()))
		ok(t, g.begin(t, strong).Succeed(t.Context()))
		ok(t, g.begin(t, of(name(i), beside)).Succeed(t.Context()))
		g.refused(t, "after successes of others", of(name(i), here), lockout.StrongerFactor, lock)
		g.clock.Pass(lock)
		g.fails(t, "when the lock is over", 1, of(name(i), here))
		lock *= 2
	}
	six := "2001:db8:1:2::"
	for i := range 21 {
		g.fails(t, "IPv6", 1, of(name(100+i), fmt.Sprint(six, i+1)))
	}
	g.refused(t, "the same /64", of(name(200), six+"ffff"), lockout.StrongerFactor, 15*time.Minute)
	g.fails(t, "another /64", 1, of(name(200), "2001:db8:1:3::1"))
}

// testAccountsSignIn: who mistypes and then signs in is no longer counted, nor who was not looked at; but nobody's success
// takes another's failures out.
func testAccountsSignIn(t testing.TB, g *guard) {
	const here = "192.0.2.1"
	for i := range 50 { // an office
		g.fails(t, name(i), 2, of(name(i), here))
		ok(t, g.begin(t, of(name(i), here)).Succeed(t.Context()))
		ok(t, g.begin(t, of("waits for a code", here)).Undo(t.Context()))
	}
	for i := range 20 {
		first := g.begin(t, of(name(100+i), here))
		second := g.begin(t, of(name(100+i), here))
		ok(t, first.Undo(t.Context())) // and the second still counts
		if i%2 == 0 {
			ok(t, second.Undo(t.Context())) // now none does
			g.fails(t, "again", 1, of(name(100+i), here))
		}
		ok(t, g.begin(t, of("mine", here)).Succeed(t.Context()))
	}
	last := g.begin(t, of("right at once", here)) // the 21st, under way
	g.refused(t, "while it is", of(name(200), here), lockout.StrongerFactor, 15*time.Minute)
	ok(t, last.Succeed(t.Context()))
	g.fails(t, "the 21st", 1, of(name(200), here))
	g.refused(t, "a success of one account took no other out", of(name(201), here), lockout.StrongerFactor, 15*time.Minute)
	_, err := g.Release(t.Context(), name(200))
	ok(t, err)
	g.refused(t, "nor does the release of one", of(name(200), here), lockout.StrongerFactor, 15*time.Minute)
}

// testAccountsDay: the count is of a day, also where somebody fails each hour; a lock is remembered for a day more.
func testAccountsDay(t testing.TB, g *guard) {
	const here = "192.0.2.1"
	for i := range 60 {
		g.fails(t, name(i), 1, of(name(i), here))
		g.clock.Pass(75 * time.Minute)
	}
	g.clock.Pass(24 * time.Hour)
	for i := range 21 {
		g.fails(t, name(i), 1, of(name(100+i), here))
	}
	g.refused(t, "the 22nd", of(name(200), here), lockout.StrongerFactor, 15*time.Minute)
	g.clock.Pass(24 * time.Hour)
	g.fails(t, "a day later", 1, of(name(200), here))
	g.refused(t, "it is remembered", of(name(201), here), lockout.StrongerFactor, 30*time.Minute)
	g.clock.Pass(30*time.Minute + 24*time.Hour)
	for i := range 21 {
		g.fails(t, "as at the beginning", 1, of(name(300+i), here))
	}
	g.refused(t, "as at the beginning", of(name(400), here), lockout.StrongerFactor, 15*time.Minute)
}

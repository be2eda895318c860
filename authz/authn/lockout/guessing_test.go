package lockout_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/keyring"
	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/authz/authn/lockout/lockouttest"
	"github.com/crmguard/crmguard/authz/authn/password"
)

// door signs in as a composition does: reserve, verify, tell the result.
type door struct {
	guard   *lockout.Guard // nil = without a lockout
	hasher  *password.Hasher
	records map[string][]byte
}

func (d *door) signIn(ctx context.Context, a lockout.Attempt, pw string) error {
	if d.guard == nil {
		if _, err := d.hasher.Verify(ctx, a.Account, d.records[a.Account], pw); err != nil {
			return authn.Refuse(err)
		}
		return nil
	}
	pass, err := d.guard.Begin(ctx, a)
	if err != nil {
		return authn.Refuse(err)
	}
	if !a.Stronger { // a passkey is right in this test
		_, err = d.hasher.Verify(ctx, a.Account, d.records[a.Account], pw)
	}
	switch {
	case errors.Is(err, password.ErrWrong):
		return authn.Refuse(err)
	case err != nil:
		return authn.Refuse(errors.Join(err, pass.Undo(ctx)))
	}
	if err := pass.Succeed(ctx); err != nil {
		return authn.Refuse(err)
	}
	return nil
}

// TestGuessing: 10,000 tries from 50 sources against 100 accounts while their owners go on working. Half of the tries
// go at five accounts whose passwords the attacker would find within a thousand tries; without the lockout it does.
// With it none is opened, and no owner is locked out: a known device always gets in, a new one by password or, at the
// worst, by passkey.
//
//crm:item 29
func TestGuessing(t *testing.T) {
	ctx := t.Context()
	keys, err := keyring.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := password.New(ctx, keys, &password.Options{Params: password.Params{Memory: 16, Time: 1, Threads: 1}, InsecureParams: true})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := password.NewRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	// What an attacker tries who knows the rules, most likely first.
	var guesses []string
	for _, noun := range []string{"kettle", "harbour", "lantern", "walnut", "violin", "meadow", "copper", "glacier", "saddle", "thimble"} {
		for n := range 100 {
			g := fmt.Sprintf("my %s number %d", noun, 7*n+13)
			if err := rules.Check(g, password.Choice{SecondFactor: true}); err != nil {
				t.Fatalf("%q: %v", g, err)
			}
			guesses = append(guesses, g)
		}
	}
	const accounts, sources, tries, guessable = 100, 50, 10_000, 5
	name := func(i int) string { return fmt.Sprintf("person%d@example.com", i) }
	records, passwords := map[string][]byte{}, make([]string, accounts)
	for i := range accounts {
		passwords[i] = fmt.Sprintf("%d owls, a %d of tin", 31*i+7, 17*i)
		if i < guessable {
			passwords[i] = guesses[199+150*i] // the 200th to the 800th guess
		}
		if records[name(i)], err = hasher.Hash(ctx, name(i), passwords[i]); err != nil {
			t.Fatal(err)
		}
	}
	source := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i%sources)}) }

	run := func(guarded bool) (opened map[int]bool, reasons map[string]int) {
		c := lockouttest.NewClock()
		d := &door{hasher: hasher, records: records}
		if guarded {
			d.guard = newGuard(t, &lockout.Memory{}, lockout.Options{Now: c.Now})
		}
		opened, reasons = map[int]bool{}, map[string]int{}
		tried := map[string]int{} // how many guesses at a name were answered: a refused one is not lost
		for n := range tries {
			c.Pass(time.Second)
			target := n / 2 % guessable // the five, each with a thousand guesses
			if n%2 == 1 {
				target = n / 2 % accounts // all, each with fifty
			}
			from := n + n/100 // each source at each account
			if n < tries/5 {
				from %= 5 // at first from a few
			}
			a := lockout.Attempt{Account: name(target), Source: source(from)}
			if n%20 == 19 {
				a.Account = fmt.Sprintf("nobody%d@example.com", target) // names that are not
			}
			err := d.signIn(ctx, a, guesses[tried[a.Account]%len(guesses)])
			if errors.Is(authn.Reason(err), password.ErrWrong) {
				tried[a.Account]++
			}
			switch {
			case err == nil:
				opened[target] = true
			case !errors.Is(err, authn.ErrRefused) || err.Error() != authn.ErrRefused.Error():
				t.Fatalf("another answer: %v", err)
			default:
				reasons[authn.Reason(err).Error()]++
			}
			if !guarded || n%33 != 0 {
				continue
			}
			// An owner at work: some behind an address of the attacker, each third time mistyping first.
			owner := n / 33 % accounts
			at := lockout.Attempt{Account: name(owner), Source: netip.AddrFrom4([4]byte{203, 0, 113, byte(owner)}), Device: fmt.Sprint("device of ", owner)}
			if owner%4 == 0 {
				at.Source = source(owner)
			}
			if owner%3 == 0 {
				if err := d.signIn(ctx, at, passwords[owner]+"x"); !errors.Is(authn.Reason(err), password.ErrWrong) {
					t.Fatalf("owner %d mistypes on a known device: %v", owner, authn.Reason(err))
				}
			}
			if err := d.signIn(ctx, at, passwords[owner]); err != nil {
				t.Fatalf("owner %d is locked out on a known device: %v", owner, authn.Reason(err))
			}
			if n%10 == 0 { // on a new device
				at.Device = ""
				var r *lockout.RefusedError
				if err := d.signIn(ctx, at, passwords[owner]); errors.As(authn.Reason(err), &r) {
					at.Stronger = true
					err = d.signIn(ctx, at, "")
					if err != nil {
						t.Fatalf("owner %d is locked out on a new device: %v", owner, authn.Reason(err))
					}
					reasons["owners who needed a passkey"]++
				} else if err != nil {
					t.Fatalf("owner %d on a new device: %v", owner, authn.Reason(err))
				}
			}
		}
		return opened, reasons
	}
	if opened, reasons := run(false); len(opened) != guessable {
		t.Errorf("without a lockout %v are opened: the attack is none; %v", opened, reasons)
	}
	opened, reasons := run(true)
	t.Log(reasons)
	if len(opened) != 0 {
		t.Errorf("%v are opened", opened)
	}
	for _, reason := range []string{"password: wrong", "lockout: too many failures", "lockout: an unknown device needs a stronger factor", "owners who needed a passkey"} {
		if reasons[reason] == 0 {
			t.Errorf("nobody met %q", reason)
		}
	}
}

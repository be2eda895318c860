package session

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
)

// Limits of the sessions of a role. A zero field is the default.
type Limits struct {
	Idle     time.Duration // without use; 0 = 30 minutes; at least a minute
	Absolute time.Duration // at all; 0 = 12 hours; at most 30 days
	Sessions int           // at once, of one person; 0 = 5. A sign-in beyond it ends the one unused for longest
}

var defaultLimits = Limits{Idle: 30 * time.Minute, Absolute: 12 * time.Hour, Sessions: 5}

func (l Limits) check() error {
	if l.Idle < 0 || l.Idle > 0 && l.Idle < time.Minute || l.Absolute < 0 || l.Absolute > 30*24*time.Hour || l.Sessions < 0 {
		return errors.New("session: limits out of range")
	}
	return nil
}

func (l Limits) or(d Limits) Limits {
	if l.Idle == 0 {
		l.Idle = d.Idle
	}
	if l.Absolute == 0 {
		l.Absolute = d.Absolute
	}
	if l.Sessions == 0 {
		l.Sessions = d.Sessions
	}
	return l
}

// limitsOf returns the strictest limits of the roles; of none or unknown ones, the defaults.
func (o *Options) limitsOf(roles []string) Limits {
	base := o.Limits.or(defaultLimits)
	out, any := Limits{}, false
	for _, r := range roles {
		l, ok := o.ByRole[r]
		if !ok {
			l = base
		}
		l = l.or(base)
		if !any {
			out, any = l, true
			continue
		}
		out = Limits{min(out.Idle, l.Idle), min(out.Absolute, l.Absolute), min(out.Sessions, l.Sessions)}
	}
	if !any {
		return base
	}
	return out
}

// Act is something for which a person steps up.
type Act string

// The acts that want a fresh proof by default.
const (
	Reveal  Act = "reveal"  // a masked field in clear
	Export  Act = "export"  // many records leave
	Erasure Act = "erasure" // of a person's data
	Keys    Act = "keys"    // use or change of keys
	Roles   Act = "roles"   // of other people
	Restore Act = "restore" // of a backup
	Factors Act = "factors" // a person's own passkeys, password and codes
)

// Rule says what an act wants. A zero field is the default.
type Rule struct {
	Within  time.Duration  // how old a proof may be; 0 = 5 minutes
	Methods []authn.Method // that count; nil = passkey, TOTP, password, certificate
	Fresh   authn.Level    // that the fresh ones reach together; 0 = AAL1, one method
	Level   authn.Level    // that the session has reached altogether; 0 = AAL2
}

func (r Rule) or() Rule {
	if r.Within == 0 {
		r.Within = 5 * time.Minute
	}
	if r.Methods == nil {
		r.Methods = []authn.Method{authn.Passkey, authn.TOTP, authn.Password, authn.Certificate}
	}
	if r.Fresh == authn.NoLevel {
		r.Fresh = authn.AAL1
	}
	if r.Level == authn.NoLevel {
		r.Level = authn.AAL2
	}
	return r
}

func (r Rule) check() error {
	if r.Within < 0 || r.Within > time.Hour || r.Fresh > authn.AAL2 || r.Level > authn.AAL2 {
		return errors.New("session: a rule out of range")
	}
	for _, m := range r.Methods {
		if !m.Valid() || m.Weak() {
			return fmt.Errorf("session: %q does not count for a step-up", m)
		}
	}
	return nil
}

// ErrStepUp: the person has to show a method again first. It is no refusal: the session goes on.
var ErrStepUp = errors.New("session: step up first")

// meets tells whether proofs meet a rule at a time.
func (r Rule) meets(proofs []Proof, now time.Time) bool {
	var fresh, all []authn.Method
	for _, p := range proofs {
		all = append(all, p.Method)
		// A proof from the future, by another machine's clock, is as good as one of now within the same window.
		if age := now.Sub(p.At); age < r.Within && age > -r.Within && slices.Contains(r.Methods, p.Method) {
			fresh = append(fresh, p.Method)
		}
	}
	return authn.LevelOf(fresh...) >= r.Fresh && authn.LevelOf(all...) >= r.Level
}

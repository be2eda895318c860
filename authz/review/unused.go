package review

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz"
)

// Grant is a right that somebody was given. An empty subject, type or action stands for any, so that the
// same report finds roles that a person never uses and rights of a role that nobody uses.
type Grant struct {
	Subject string
	Role    string // or the control or ground that the log names for it
	Type    string
	Action  authz.Action
	Since   time.Time // when it was given; zero: long ago
}

// Use is one permitted use of a right, as a log has it.
type Use struct {
	Subject string
	Role    string // or the control or ground that permitted it
	Type    string
	Action  authz.Action
	Time    time.Time
}

// Idle is a grant that has not been used for a while.
type Idle struct {
	Grant
	Last time.Time // its last use; zero: never
}

// Unused returns the grants that were not used within the window before now, the longest unused first. A
// grant that is younger than the window is none of them. An error of uses ends it without an answer: a log
// that was read in part would call used rights unused.
func Unused(grants []Grant, uses iter.Seq2[Use, error], now time.Time, window time.Duration) ([]Idle, error) {
	type key struct {
		subject, role, typ string
		action             authz.Action
	}
	last := make(map[key]time.Time, len(grants))
	for _, g := range grants {
		last[key{g.Subject, g.Role, g.Type, g.Action}] = time.Time{}
	}
	for u, err := range uses {
		if err != nil {
			return nil, fmt.Errorf("review: uses: %w", err)
		}
		for wide := range 8 { // each of subject, type and action as it is, or any
			k := key{u.Subject, u.Role, u.Type, u.Action}
			if wide&1 != 0 {
				k.subject = ""
			}
			if wide&2 != 0 {
				k.typ = ""
			}
			if wide&4 != 0 {
				k.action = ""
			}
			if t, ok := last[k]; ok && u.Time.After(t) {
				last[k] = u.Time
			}
		}
	}
	from := now.Add(-window)
	var out []Idle
	for _, g := range grants {
		if t := last[key{g.Subject, g.Role, g.Type, g.Action}]; t.Before(from) && !g.Since.After(from) {
			out = append(out, Idle{g, t})
		}
	}
	slices.SortStableFunc(out, func(a, b Idle) int {
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Role, b.Role),
			cmp.Compare(a.Type, b.Type), cmp.Compare(a.Action, b.Action))
	})
	return out, nil
}

// Package keep says what an audit log keeps of which actions, and how: the
// rules of audit.Options.
package keep

import (
	"errors"
	"fmt"
	"strings"
)

// Level is how much of an event is kept.
type Level uint8

// The levels, from most to least.
const (
	Full     Level = iota // all of it
	Request               // all but the personal details
	Metadata              // who did what to which records, when and how it ended; no fields, purpose, note, details, versions and digests
	None                  // nothing: the event is not logged
)

var names = [...]string{"full", "request", "metadata", "none"}

// String returns the name in lower case.
func (l Level) String() string {
	if int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("Level(%d)", uint8(l))
}

// Rule says how the events of some actions are logged. The first rule that
// matches counts; events that none matches are kept in full and durable before
// Append returns.
//
// Some events a rule does not weaken. An announced write, Intended or Aborted,
// is always kept in full and durable, for its rows are checked against it. What
// is denied, and activities Erase, Configure, Grant and Revoke, keep at least
// their metadata and are always durable.
type Rule struct {
	Action   string // the action, or its beginning and "*", as "customer.*"; required
	Level    Level  // what is kept; zero: Full
	Buffered bool   // Append returns as soon as the event is queued, and waits while Options.Queue events are; its receipt is zero
	Shed     bool   // with Buffered: Append does not wait but gives the event up; how many were is logged as the event "audit.gap" with the next batch
}

// String returns the rule as the log tells of it, "page.* metadata buffered shed".
func (r Rule) String() string {
	s := r.Action + " " + r.Level.String()
	if r.Buffered {
		s += " buffered"
	}
	if r.Shed {
		s += " shed"
	}
	return s
}

// Check returns an error when the rule makes no sense.
func (r Rule) Check() error {
	begin := strings.TrimSuffix(r.Action, "*")
	switch {
	case r.Action == "" || strings.Contains(begin, "*"):
		return errors.New("a rule names an action, or the beginning of some and a star at its end")
	case r.Level > None:
		return errors.New("a rule has an unknown level")
	case r.Shed && !r.Buffered:
		return errors.New("a rule sheds and does not buffer")
	}
	return nil
}

// Match reports whether the rule is about an action.
func (r Rule) Match(action string) bool {
	begin, ok := strings.CutSuffix(r.Action, "*")
	return r.Action == action || ok && strings.HasPrefix(action, begin)
}

package crm

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard/crm/money"
)

// The longest values, in characters.
const (
	MaxName = 200
	MaxLine = 500   // one line: titles, places, addresses
	MaxText = 20000 // notes and bodies
)

// Checks collects the broken rules of one record, for a Validate or a CheckUpdate. Its methods name fields and rules
// as [FieldError] describes them. The zero value with a Type is ready.
type Checks struct {
	Type   string // the record's type
	fields []FieldError
}

// Add notes that a field breaks a rule.
func (c *Checks) Add(field, rule string) {
	c.fields = append(c.fields, FieldError{Field: field, Rule: rule})
}

// Err returns an *InvalidError with what was noted, or nil.
func (c *Checks) Err() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &InvalidError{Type: c.Type, Fields: c.fields}
}

// Text checks a personal field as Str does. One that is not clear was not opened and is not changed by storing
// the record, so only its presence counts.
func (c *Checks) Text(field string, t Text, required bool, longest int) {
	if t.State() != Clear {
		return
	}
	c.Str(field, t.Expose(), required, longest)
}

// Str checks a string: one line unless it may be as long as a text.
func (c *Checks) Str(field, s string, required bool, longest int) {
	switch {
	case strings.TrimSpace(s) == "":
		if required {
			c.Add(field, "required")
		}
		return
	case len(s) > longest && utf8.RuneCountInString(s) > longest:
		c.Add(field, "too_long")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return control(r, longest == MaxText) }):
		c.Add(field, "not_text")
	}
}

// control tells whether r has no place in a field; line breaks and tabs have one in longer texts.
func control(r rune, long bool) bool {
	if long && (r == '\n' || r == '\r' || r == '\t') {
		return false
	}
	return unicode.IsControl(r)
}

// Email checks the shape only: something, one @, something with no space in either. Whether the
// address exists is shown by mail, not by a pattern.
func (c *Checks) Email(field string, t Text, required bool) {
	n := len(c.fields)
	c.Text(field, t, required, 254)
	if len(c.fields) > n || t.State() != Clear || t.IsEmpty() {
		return
	}
	local, domain, ok := strings.Cut(t.Expose(), "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") ||
		strings.ContainsFunc(t.Expose(), unicode.IsSpace) {
		c.Add(field, "not_an_email")
	}
}

// NotNegative notes negative for n below 0, and out_of_range for more than money.Most, so that one record does not break the sums of all.
func (c *Checks) NotNegative(field string, n int64) {
	switch {
	case n < 0:
		c.Add(field, "negative")
	case n > money.Most:
		c.Add(field, "out_of_range")
	}
}

// Range notes out_of_range for n outside low to high.
func (c *Checks) Range(field string, n, low, high int64) {
	if n < low || n > high {
		c.Add(field, "out_of_range")
	}
}

// Currency wants three capital letters (ISO 4217) as soon as there is an amount.
func (c *Checks) Currency(field, s string, required bool) {
	if s == "" {
		if required {
			c.Add(field, "required")
		}
		return
	}
	if len(s) != 3 || strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		c.Add(field, "unknown_value")
	}
}

// Team wants "" or a path such as "/east/1/".
func (c *Checks) Team(s string) {
	if s == "" {
		return
	}
	if len(s) > MaxName || len(s) < 3 || s[0] != '/' || s[len(s)-1] != '/' || strings.Contains(s, "//") ||
		strings.ContainsFunc(s, func(r rune) bool {
			return r != '/' && r != '-' && r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
		}) {
		c.Add("team", "unknown_value")
	}
}

// Order wants end to be at or after start when both are set, else it notes before_start.
func (c *Checks) Order(field string, start, end time.Time) {
	if !start.IsZero() && !end.IsZero() && end.Before(start) {
		c.Add(field, "before_start")
	}
}

// Time refuses what a column of microseconds since 1970 cannot hold.
func (c *Checks) Time(field string, t time.Time) {
	if !t.IsZero() && (t.Year() < 1 || t.Year() > 9999) {
		c.Add(field, "out_of_range")
	}
}

// Required notes required for a value that is zero.
func (c *Checks) Required(field string, zero bool) {
	if zero {
		c.Add(field, "required")
	}
}

// OneOf wants s to be one of the known values.
func (c *Checks) OneOf(field, s string, known ...string) { oneOf(c, field, s, known...) }

// State wants s to be a state of a table.
func (l Lifecycle[S]) State(c *Checks, field string, s S) { oneOf(c, field, s, l.states...) }

func oneOf[S ~string](c *Checks, field string, s S, known ...S) {
	if !slices.Contains(known, s) {
		if s == "" {
			c.Add(field, "required")
			return
		}
		c.Add(field, "unknown_value")
	}
}

// Unchanged notes fixed for a field that may no longer change and does.
func (c *Checks) Unchanged(field string, same bool) {
	if !same {
		c.Add(field, "fixed")
	}
}

// SameTime is Unchanged for a time, compared as a store does: in microseconds.
func (c *Checks) SameTime(field string, a, b time.Time) { c.Unchanged(field, sameTime(a, b)) }

// RuleUnread is the rule of a personal field that may no longer change and that cannot be compared, because the stored one was not opened. Package guard
// opens it for who may read it and asks again; it is in no error that leaves there.
const RuleUnread = "unread"

// SameText is Unchanged for a personal field: a is that of the new record, where one that is not clear keeps what is stored, and b the stored one. When b is
// Sealed, the rule is RuleUnread.
func (c *Checks) SameText(field string, a, b Text) {
	switch {
	case a.State() != Clear:
	case b.State() == Sealed:
		c.Add(field, RuleUnread)
	default:
		c.Unchanged(field, a.Equal(b))
	}
}

// sameTime compares in microseconds.
func sameTime(a, b time.Time) bool {
	return a.IsZero() == b.IsZero() && a.UnixMicro() == b.UnixMicro()
}

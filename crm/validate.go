package crm

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The longest values, in characters.
const (
	maxName = 200
	maxLine = 500   // one line: titles, places, addresses
	maxText = 20000 // notes and bodies
)

// checks collects the broken rules of one record.
type checks struct {
	typ    string
	fields []FieldError
}

func (c *checks) add(field, rule string) {
	c.fields = append(c.fields, FieldError{Field: field, Rule: rule})
}

func (c *checks) err() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &InvalidError{Type: c.typ, Fields: c.fields}
}

// text checks a personal field. One that is not clear was not opened and is not changed by storing
// the record, so only its presence counts.
func (c *checks) text(field string, t Text, required bool, longest int) {
	if t.State() != Clear {
		return
	}
	c.str(field, t.Expose(), required, longest)
}

// str checks a string: one line unless it may be as long as a text.
func (c *checks) str(field, s string, required bool, longest int) {
	switch {
	case strings.TrimSpace(s) == "":
		if required {
			c.add(field, "required")
		}
		return
	case len(s) > longest && utf8.RuneCountInString(s) > longest:
		c.add(field, "too_long")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return control(r, longest == maxText) }):
		c.add(field, "not_text")
	}
}

// control tells whether r has no place in a field; line breaks and tabs have one in longer texts.
func control(r rune, long bool) bool {
	if long && (r == '\n' || r == '\r' || r == '\t') {
		return false
	}
	return unicode.IsControl(r)
}

// email checks the shape only: something, one @, something with no space in either. Whether the
// address exists is shown by mail, not by a pattern.
func (c *checks) email(field string, t Text, required bool) {
	n := len(c.fields)
	c.text(field, t, required, 254)
	if len(c.fields) > n || t.State() != Clear || t.IsEmpty() {
		return
	}
	local, domain, ok := strings.Cut(t.Expose(), "@")
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") ||
		strings.ContainsFunc(t.Expose(), unicode.IsSpace) {
		c.add(field, "not_an_email")
	}
}

func (c *checks) notNegative(field string, n int64) {
	if n < 0 {
		c.add(field, "negative")
	}
}

// currency wants three capital letters (ISO 4217) as soon as there is an amount.
func (c *checks) currency(field, s string, required bool) {
	if s == "" {
		if required {
			c.add(field, "required")
		}
		return
	}
	if len(s) != 3 || strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		c.add(field, "unknown_value")
	}
}

// team wants "" or a path such as "/east/1/".
func (c *checks) team(s string) {
	if s == "" {
		return
	}
	if len(s) > maxName || len(s) < 3 || s[0] != '/' || s[len(s)-1] != '/' || strings.Contains(s, "//") ||
		strings.ContainsFunc(s, func(r rune) bool {
			return r != '/' && r != '-' && r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
		}) {
		c.add("team", "unknown_value")
	}
}

// order wants end to be at or after start when both are set.
func (c *checks) order(field string, start, end time.Time) {
	if !start.IsZero() && !end.IsZero() && end.Before(start) {
		c.add(field, "before_start")
	}
}

// times refuses what a column of microseconds since 1970 cannot hold.
func (c *checks) times(field string, t time.Time) {
	if !t.IsZero() && (t.Year() < 1 || t.Year() > 9999) {
		c.add(field, "out_of_range")
	}
}

func (c *checks) reference(field string, zero bool) {
	if zero {
		c.add(field, "required")
	}
}

func oneOf[S ~string](c *checks, field string, s S, known ...S) {
	if !slices.Contains(known, s) {
		if s == "" {
			c.add(field, "required")
			return
		}
		c.add(field, "unknown_value")
	}
}

// unchanged notes a field that may no longer change.
func (c *checks) unchanged(field string, same bool) {
	if !same {
		c.add(field, "fixed")
	}
}

// sameTime compares as a store does, in microseconds.
func sameTime(a, b time.Time) bool {
	return a.IsZero() == b.IsZero() && a.UnixMicro() == b.UnixMicro()
}

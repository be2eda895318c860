package crm

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no such record, or the asker may not know of it.
	ErrNotFound = errors.New("crm: not found")
	// ErrConflict: the record was changed by another in the meantime.
	ErrConflict = errors.New("crm: changed in the meantime")
	// ErrDuplicate: a living record holds the same unique value.
	ErrDuplicate = errors.New("crm: unique value is taken")
)

// InvalidError lists the fields of a record that break a rule. It names fields and rules, never values.
type InvalidError struct {
	Type   string
	Fields []FieldError
}

// FieldError is one broken rule. Rule is a stable word that catalogues translate: required, too_long,
// not_an_email, negative, unknown_value, before_start, mismatch, bad_reference.
type FieldError struct {
	Field string
	Rule  string
}

// Error lists fields and rules.
func (e *InvalidError) Error() string {
	var b strings.Builder
	b.WriteString("crm: invalid " + e.Type + ": ")
	for i, f := range e.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.Field + " " + f.Rule)
	}
	return b.String()
}

// TransitionError is a lifecycle step that the transition table does not have.
type TransitionError struct {
	Type string // the record's type
	From string // its state
	To   string // the state that was asked for
}

// Error names both states.
func (e *TransitionError) Error() string {
	return fmt.Sprintf("crm: %s cannot go from %s to %s", e.Type, e.From, e.To)
}

// WriteError says which write of a Batch was refused.
type WriteError struct {
	Index int // in Batch.Writes
	Err   error
}

// Error names the write by its place.
func (e *WriteError) Error() string { return fmt.Sprintf("crm: write %d: %v", e.Index, e.Err) }

// Unwrap returns the reason.
func (e *WriteError) Unwrap() error { return e.Err }

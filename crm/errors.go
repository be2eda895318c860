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
	// ErrUnavailable: the store cannot be reached, is locked, or has no room. Nothing was written.
	ErrUnavailable = errors.New("crm: store is unavailable")
	// ErrUnknown: the connection was lost during the commit, so the batch may or may not be stored.
	// Store.Applied tells which, once the store answers again.
	ErrUnknown = errors.New("crm: outcome of the commit is unknown")
	// ErrReindexing: the index that was asked is being rebuilt, so rows may be missing from it. Nothing was read.
	ErrReindexing = errors.New("crm: index is being rebuilt")
	// ErrDamaged: what is stored is not what a store writes. Somebody else wrote it, or the disk lies.
	ErrDamaged = errors.New("crm: stored data is damaged")
)

// InvalidError lists the fields of a record that break a rule. It names fields and rules, never values.
type InvalidError struct {
	Type   string
	Fields []FieldError
}

// FieldError is one broken rule. Field is the field's name, or "lines.3.product" for a part of one.
// Rule is a stable word that catalogues translate:
//
//   - of a value: required, too_long, not_text (control characters or no UTF-8), not_an_email, not_a_number, not_a_date, not_hours, negative,
//     out_of_range, unknown_value, before_start, too_early, too_late
//   - beside others: mismatch, bad_reference, repeated (it is there twice), not_in_order, not_empty, cycle (it would be above itself)
//   - of a change: fixed (may no longer change), lowered (a class), not_open (the value was not opened, so it cannot be copied)
//   - of who acts: four_eyes (somebody else has to do it), not_approver, no_approver (nobody could), not_signed (by a party)
//   - of a flow: unreachable, endless, unmet (a condition)
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

// LimitError says which limit of a Batch did not hold. Nothing was written.
type LimitError struct {
	Index int // in Batch.Limits
}

// Error names the limit by its place.
func (e *LimitError) Error() string { return fmt.Sprintf("crm: limit %d does not hold", e.Index) }

// RequestError is a request that no store can carry out, whoever asks. Part is a stable word: schema,
// tenant, type, where, column, clause, tokens, ids, persons, deletion, sort, cursor, limit, batch, row, event, limits (of a batch),
// group, sum. Reason never repeats what was asked.
type RequestError struct {
	Part   string
	Reason string
}

// Error names the part.
func (e *RequestError) Error() string {
	return "crm: bad request to the store: " + e.Part + ": " + e.Reason
}

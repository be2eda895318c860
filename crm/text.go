package crm

import (
	"encoding/json"
	"errors"
	"log/slog"
)

// State says what a reader holds of a field.
type State uint8

// The states of a field. Their numbers are shared with the field codec.
const (
	Clear  State = iota // the value itself
	Masked              // a mask of it, such as 138****5678
	Hidden              // nothing: the policy hides the field, whether or not it has a value
	Sealed              // nothing: the field was not opened
	Erased              // nothing: the person's key was destroyed
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Clear:
		return "clear"
	case Masked:
		return "masked"
	case Hidden:
		return "hidden"
	case Sealed:
		return "sealed"
	case Erased:
		return "erased"
	}
	return "unknown"
}

// redacted is what a Text prints and marshals as.
const redacted = "***"

// Text is a piece of personal data. Every way of printing it, %v and %#v of a struct around it
// included, gives ***; Expose is the only way to its value. The zero Text is empty and clear.
//
// A Text is a value: copying is cheap, and it never changes under its holder.
type Text struct {
	// The value lies behind a pointer because fmt prints unexported fields of nested structs by
	// reflection, without asking String; and behind one to a string, because %s follows those to structs.
	value *string // nil = nothing
	state State
}

// NewText holds s.
func NewText(s string) (t Text) {
	t.SetExposed(s, uint8(Clear))
	return t
}

// Expose returns the value, or its mask when the Text is masked; it is empty in the other states.
// Whoever calls it answers for where the value goes.
func (t Text) Expose() string {
	if t.value == nil {
		return ""
	}
	return *t.value
}

// State says what Expose gives.
func (t Text) State() State { return t.state }

// IsEmpty tells whether the Text is clear and has no value.
func (t Text) IsEmpty() bool { return t.state == Clear && t.value == nil }

// Equal compares value and state.
func (t Text) Equal(u Text) bool { return t.Expose() == u.Expose() && t.State() == u.State() }

// String returns ***, or "" for an empty Text.
func (t Text) String() string {
	if t.IsEmpty() {
		return ""
	}
	return redacted
}

// GoString returns ***, also for %#v.
func (t Text) GoString() string { return redacted }

// LogValue returns ***.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON writes "***", or "" for an empty Text.
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON reads a string as a clear value. The redaction itself is refused, so that a printed
// record cannot be read back as if it were data.
func (t *Text) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("crm: a personal field is not a string")
	}
	if s == redacted {
		return errors.New("crm: a personal field is redacted")
	}
	*t = NewText(s)
	return nil
}

// ExposedState is State for the field codec, which knows a Text by its methods only.
func (t Text) ExposedState() uint8 { return uint8(t.State()) }

// SetExposed sets value and state; the field codec and guard use it.
func (t *Text) SetExposed(value string, state uint8) {
	*t = Text{state: State(state)}
	if value != "" {
		s := value // only what is kept goes to the heap
		t.value = &s
	}
}

package encrypt

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"log/slog"
)

// Text is a personal text in a record of yours. It prints, logs and marshals as ***, whatever it holds,
// so that it gets nowhere by accident; Expose says that it is meant. It remembers why it shows nothing
// (masked, hidden, sealed, erased), so that writing a record back never destroys what was not shown.
//
// Compare texts by what Expose returns: == compares where they lie.
type Text struct {
	// The value lies behind a pointer because fmt and dumps show the unexported fields of a struct around a
	// Text by reflection, without asking String; and behind one to a string, because fmt follows those to
	// structs.
	value *string // nil = nothing
	state State
}

const redacted = "***"

// NewText returns a text in the clear.
func NewText(s string) (t Text) {
	t.SetExposed(s, uint8(StateClear))
	return t
}

// Expose returns what the text shows: the value, its mask, or nothing. See ExposedState.
func (t Text) Expose() string {
	if t.value == nil {
		return ""
	}
	return *t.value
}

// ExposedState returns the [State] by its number.
func (t Text) ExposedState() uint8 { return uint8(t.state) }

// SetExposed is for codecs.
func (t *Text) SetExposed(value string, state uint8) {
	*t = Text{state: State(state)}
	if value != "" {
		s := value // only what is kept goes to the heap
		t.value = &s
	}
}

// String returns ***, and nothing for an absent text.
func (t Text) String() string {
	if t == (Text{}) {
		return ""
	}
	return redacted
}

// GoString returns what String does.
func (t Text) GoString() string { return t.String() }

// LogValue logs what String returns.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON writes what String returns.
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// MarshalText writes what String returns.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

var errPlain = errors.New("encrypt: a protected text is neither read nor stored in the clear; seal it")

// UnmarshalJSON takes a text from outside, in the clear. The redaction itself is refused, so that a record that was
// printed is not read back as data.
func (t *Text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return errors.New("encrypt: a text is a JSON string")
	}
	if s == redacted {
		return errors.New("encrypt: a redacted text is no value")
	}
	*t = NewText(s)
	return nil
}

// Value refuses: a database gets what [Codec.Seal] returns.
func (t Text) Value() (driver.Value, error) { return nil, errPlain }

// Scan refuses: what a database holds is opened by [Codec.Open].
func (t *Text) Scan(any) error { return errPlain }

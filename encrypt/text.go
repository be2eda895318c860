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
type Text struct {
	// The value lies behind a pointer because fmt and dumps show the unexported fields of a struct around a
	// Text by reflection, without asking String. nil is absent and clear.
	p *textValue
}

type textValue struct {
	value string
	state State
}

const redacted = "***"

// NewText returns a text in the clear.
func NewText(s string) Text {
	if s == "" {
		return Text{}
	}
	return Text{&textValue{value: s}}
}

// Expose returns what the text shows: the value, its mask, or nothing. See ExposedState.
func (t Text) Expose() string {
	if t.p == nil {
		return ""
	}
	return t.p.value
}

// ExposedState returns the [State] by its number.
func (t Text) ExposedState() uint8 {
	if t.p == nil {
		return uint8(StateClear)
	}
	return uint8(t.p.state)
}

// SetExposed is for codecs.
func (t *Text) SetExposed(value string, state uint8) {
	if value == "" && State(state) == StateClear {
		t.p = nil
		return
	}
	if value == "" && int(state) < len(nothing) {
		t.p = &nothing[state]
		return
	}
	t.p = &textValue{value, State(state)}
}

// nothing are the texts that show nothing, by state. They never change.
var nothing = [...]textValue{{}, {state: StateMasked}, {state: StateHidden}, {state: StateSealed}, {state: StateErased}}

// String returns ***, and nothing for an absent text.
func (t Text) String() string {
	if t.p == nil {
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

// UnmarshalJSON takes a text from outside, in the clear.
func (t *Text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return errors.New("encrypt: a text is a JSON string")
	}
	*t = NewText(s)
	return nil
}

// Value refuses: a database gets what [Codec.Seal] returns.
func (t Text) Value() (driver.Value, error) { return nil, errPlain }

// Scan refuses: what a database holds is opened by [Codec.Open].
func (t *Text) Scan(any) error { return errPlain }

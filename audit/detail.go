package audit

import (
	"context"
)

// Detail is one personal value of an event. The event holds a salted
// commitment; value and salt lie beside it, sealed under the key of the
// person. When that key is destroyed nobody can read or guess the value, and
// every proof still holds.
type Detail struct {
	Name       string   // what the value is, as "search.term"
	Person     [16]byte // whose data it is
	Commitment [32]byte // set by Append and on entries read back

	value  string
	known  bool
	sealed []byte
}

// Personal returns a detail that names whose data value is.
func Personal(name string, person [16]byte, value string) Detail {
	return Detail{Name: name, Person: person, value: value, known: true}
}

// Value returns the value, and whether it is known: details of an entry are
// sealed until Log.Reveal opens them.
func (d Detail) Value() (string, bool) { return d.value, d.known }

// String returns the name only.
func (d Detail) String() string { return d.Name + "=***" }

// GoString returns the name only.
func (d Detail) GoString() string { return d.String() }

// Sealer seals the openings of details under the key of a person. ad is
// authenticated with the plaintext. OpenOpening returns an error that wraps
// ErrErased when, and only when, the key of the person was destroyed on
// purpose; any other error leaves the detail unchecked.
type Sealer interface {
	SealOpening(ctx context.Context, tenant string, person [16]byte, ad, plaintext []byte) ([]byte, error)
	OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error)
}

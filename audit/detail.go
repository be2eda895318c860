package audit

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Detail is one personal value of an event. The event holds a salted
// commitment; value and salt lie beside it, sealed under the key of the
// person. When that key is destroyed nobody can read or guess the value, and
// every proof still holds.
type Detail struct {
	Name       string   // what the value is, as "search.term"
	Person     [16]byte // whose data it is
	Commitment [32]byte // set on entries read back

	value  string
	known  bool
	sealed []byte
}

// Personal returns a detail of the person whose data value is. The value has
// at most 65,535 bytes.
func Personal(name string, person [16]byte, value string) Detail {
	return Detail{Name: name, Person: person, value: value, known: true}
}

// Value returns the value, and whether it is known: details of an entry are
// sealed until Log.Reveal opens them, and stay so when the person is erased.
func (d Detail) Value() (value string, known bool) { return d.value, d.known }

// String returns the name and hides the value.
func (d Detail) String() string { return d.Name + "=***" }

// GoString returns the name and hides the value.
func (d Detail) GoString() string { return d.String() }

// Sealer seals the openings of details under the key of a person and opens
// them again. ad is authenticated with the plaintext. OpenOpening returns an
// error that wraps ErrErased when, and only when, the key of the person was
// destroyed on purpose, and one that wraps ErrUnavailable when the key cannot
// be had at present. Any other error means that sealed is not what
// SealOpening returned, or that a key is gone that should be there: Verify
// calls that Withheld.
type Sealer interface {
	SealOpening(ctx context.Context, tenant string, person [16]byte, ad, plaintext []byte) ([]byte, error)
	OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error)
}

const (
	saltSize     = 32
	maxValue     = 65535
	labelOpening = "crmguard audit opening v1"
	labelCommit  = "crmguard audit commitment v1"
)

// openingAD is what a sealed opening is bound to. The commitment has a salt of
// its own, so an opening fits one detail of one event.
func openingAD(commitment [32]byte) []byte {
	ad := make([]byte, 0, len(labelOpening)+len(commitment))
	return append(append(ad, labelOpening...), commitment[:]...)
}

// commit returns HMAC-SHA256 under the salt over label, name, person and
// value, each with its length.
func commit(salt []byte, name string, person [16]byte, value []byte) (c [32]byte) {
	// HMAC is H(key^opad || H(key^ipad || message)), RFC 2104, for a key of at
	// most one block. Of one piece in a space on the stack it costs a third.
	var space [512]byte
	b := space[:sha256.BlockSize]
	copy(b, salt)
	for i := range b {
		b[i] ^= 0x36
	}
	b = appendPart(b, labelCommit)
	b = appendPart(b, name)
	b = appendPart(b, person[:])
	b = appendPart(b, value)
	inner := sha256.Sum256(b)
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(outer[:], salt)
	for i := range sha256.BlockSize {
		outer[i] ^= 0x5c
	}
	copy(outer[sha256.BlockSize:], inner[:])
	return sha256.Sum256(outer[:])
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}

// seal makes commitment and opening.
func (d *Detail) seal(ctx context.Context, sealer Sealer, tenant string) error {
	if len(d.value) > maxValue {
		return fmt.Errorf("%w: the value of a detail is too long", ErrInvalid)
	}
	opening := make([]byte, saltSize, saltSize+len(d.value))
	rand.Read(opening) // never fails
	opening = append(opening, d.value...)
	d.Commitment = commit(opening[:saltSize], d.Name, d.Person, opening[saltSize:])
	var err error
	d.sealed, err = sealer.SealOpening(ctx, tenant, d.Person, openingAD(d.Commitment), opening)
	if err == nil && len(d.sealed) == 0 {
		err = errors.New("audit: sealer returned nothing")
	}
	return err
}

var errOpening = errors.New("audit: opening does not match its commitment")

// open sets the value from the sealed opening, and returns salt and value.
func (d *Detail) open(ctx context.Context, sealer Sealer, tenant string) ([]byte, error) {
	opening, err := sealer.OpenOpening(ctx, tenant, d.Person, openingAD(d.Commitment), d.sealed)
	if err != nil {
		return nil, err
	}
	if len(opening) < saltSize || !hmac.Equal(d.Commitment[:], sum(commit(opening[:saltSize], d.Name, d.Person, opening[saltSize:]))) {
		return nil, errOpening
	}
	d.value, d.known = string(opening[saltSize:]), true
	return opening, nil
}

func sum(c [32]byte) []byte { return c[:] }

package crm

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"time"
)

// UUID is a 128-bit identifier, RFC 9562. The zero UUID means "none".
type UUID [16]byte

// ID is the UUID of a T, so that a customer's id cannot be passed where a contact's is wanted.
// The zero ID means "none".
type ID[T any] UUID

// Person is the human whose data a record holds. It has no fields: only its id is used, as ID[Person].
type Person struct{}

var errID = errors.New("crm: not a UUID")

// NewID returns a fresh id: a UUID of version 7, whose first 48 bits are the time in milliseconds, so
// that ids sort by creation.
func NewID[T any]() ID[T] { return ID[T](newUUID(time.Now(), rand.Reader)) }

// IDAt returns the version 7 id of time t with randomness read from random. It serves deterministic
// demo data and tests; use NewID elsewhere.
func IDAt[T any](t time.Time, random io.Reader) ID[T] { return ID[T](newUUID(t, random)) }

// NewUUID returns a fresh UUID of version 7.
func NewUUID() UUID { return newUUID(time.Now(), rand.Reader) }

// newUUID makes a version 7 UUID (RFC 9562 section 5.7). A short read of random would repeat ids, so
// it panics; crypto/rand never fails.
func newUUID(t time.Time, random io.Reader) UUID {
	var u UUID
	if _, err := io.ReadFull(random, u[6:]); err != nil {
		panic("crm: no randomness for an id")
	}
	ms := uint64(t.UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	return u
}

// ParseID reads the 36-character form of an id.
func ParseID[T any](s string) (ID[T], error) {
	u, err := ParseUUID(s)
	return ID[T](u), err
}

// ParseUUID reads the 36-character form, in either letter case.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, errID
	}
	var hexed [32]byte
	n := 0
	for i := range len(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		hexed[n] = s[i]
		n++
	}
	if _, err := hex.Decode(u[:], hexed[:]); err != nil {
		return UUID{}, errID
	}
	return u, nil
}

// IsZero tells whether u is no id at all.
func (u UUID) IsZero() bool { return u == UUID{} }

// Time returns the creation time of a version 7 UUID, with a resolution of a millisecond.
func (u UUID) Time() time.Time {
	var ms int64
	for i := range 6 {
		ms = ms<<8 | int64(u[i])
	}
	return time.UnixMilli(ms).UTC()
}

// String returns the 36-character form, or "" for the zero UUID.
func (u UUID) String() string {
	if u.IsZero() {
		return ""
	}
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// MarshalText writes the 36-character form, or nothing for the zero UUID.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads the 36-character form; empty text gives the zero UUID.
func (u *UUID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*u = UUID{}
		return nil
	}
	v, err := ParseUUID(string(b))
	if err == nil {
		*u = v
	}
	return err
}

// UUID returns the id without its type.
func (id ID[T]) UUID() UUID { return UUID(id) }

// IsZero tells whether id is none.
func (id ID[T]) IsZero() bool { return UUID(id).IsZero() }

// String returns the 36-character form, or "" for none.
func (id ID[T]) String() string { return UUID(id).String() }

// MarshalText is that of UUID.
func (id ID[T]) MarshalText() ([]byte, error) { return UUID(id).MarshalText() }

// UnmarshalText is that of UUID.
func (id *ID[T]) UnmarshalText(b []byte) error { return (*UUID)(id).UnmarshalText(b) }

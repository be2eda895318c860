// Package encrypt seals the personal fields of records so that they can be searched, masked, rotated
// and erased.
//
// A [Codec] compiles the protect tags of a struct; a [Keeper] holds the keys: a KEK that never leaves
// its service wraps one epoch key per tenant, which wraps a random key per person and retention
// class. Every value is AES-256-GCM under a subkey of its person's key and bound to tenant, person,
// type, record, field and class: moved anywhere else it does not open. Destroying a person's keys
// destroys the values in every copy. The formats are written in docs/formats/encrypt.md.
//
// # Tags
//
//	protect:"CLASS[,WORD]..."     or     protect:"-"   (not stored)
//
// CLASS is public, internal, personal, sensitive or financial. The first two are clear columns; the
// others are always sealed. The words:
//
//	seal                    seal a public or internal field as well
//	clear                   say again that it is a clear column
//	person=GoField          whose data it is: a field of 16 bytes; default: the record's own person
//	retention=CLASS         ordinary (default), contract, tax, evidence
//	index=exact:NORMALISER  a blind index for equality
//	unique=exact:NORMALISER the same, and no two living records may share a term
//	mask=NAME               how a masked value looks
//
// The stored name is the json name, else the Go name in lower snake case; it is part of every
// ciphertext and must not change. Embedded structs are flattened. Strings, integers up to 64 signed
// bits, bool, time.Time, ids of 16 bytes with MarshalText, pointers to these and types named after
// these are stored as such, []byte only sealed, everything else as JSON. A text type is known by its
// methods Expose() string, ExposedState() uint8 and SetExposed(string, uint8); it remembers why it
// shows nothing and is never overwritten by a mask.
//
// # Errors and outages
//
// Everything that fails to authenticate is [ErrTampered], without a hint why. An erased field is a
// state and no error. When the key service is away, cached keys serve reads and, for a shorter time,
// writes; then [ErrKMSUnavailable]. A missing key is [ErrKeyMissing], never taken for an erasure.
//
// # What it does not protect
//
// The length of a value, whether a text is present, who shares a value of an indexed field within a
// tenant, and which records belong to one person are visible to whoever reads the store. Whoever
// controls this process or the KEK's credentials reads what it may read. Memory is not locked, and Go
// cannot promise to wipe keys from it.
package encrypt

package keys

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers branch on. Their texts, and those of errors that wrap them, never hold a
// plaintext, a key, a term or a personal value.
var (
	// ErrTampered is the one answer to every authentication failure: a changed, truncated or moved
	// value, a wrong key, a forged key record.
	ErrTampered = errors.New("encrypt: authentication failed")
	// ErrErased says that the key was destroyed and that an authentic tombstone proves it.
	ErrErased = errors.New("encrypt: person erased")
	// ErrKeyMissing says that a key record is gone and no tombstone explains it: an alarm.
	ErrKeyMissing = errors.New("encrypt: key record missing")
	// ErrKMSUnavailable says that the KEK could not be reached, is sealed or timed out, and that no
	// cached key may be used any longer. Nothing is lost; try again later.
	ErrKMSUnavailable = errors.New("encrypt: key service unavailable")
	// ErrAuth says that the key service refused our login or permissions.
	ErrAuth = errors.New("encrypt: key service refused access")
	// ErrRetired says that a key was ended by a rotation.
	ErrRetired = errors.New("encrypt: key retired")
	// ErrBlocked says that the person's keys are blocked: an erasure was asked for and has not happened yet.
	ErrBlocked = errors.New("encrypt: person blocked before erasure")
	// ErrHeld says that a legal hold forbids the erasure.
	ErrHeld = errors.New("encrypt: person under legal hold")
	// ErrLimit says that more persons would be erased in a day than the limit allows without approval.
	ErrLimit = errors.New("encrypt: erasures of the day exceed the limit")
	// ErrTraces says that an erasure is done and stays done, but that old bytes of the wrapped keys are
	// still in the store's own files, because a reader is in the way. It comes with a valid result.
	ErrTraces = errors.New("encrypt: old bytes of destroyed keys remain")
	// ErrUnsupported says that a field has no index that could answer the query. It is never
	// replaced by an empty result.
	ErrUnsupported = errors.New("encrypt: query not supported by any index")
	// ErrAlgorithm says that an algorithm is refused; the text says why and what to use instead.
	ErrAlgorithm = errors.New("encrypt: algorithm refused")
	// ErrNotClear says that a field is masked, hidden, sealed or erased, and that no previous
	// ciphertext was given that could be kept in its place.
	ErrNotClear = errors.New("encrypt: field is not clear")
)

// DamagedError is an [ErrTampered] that names the key records that do not open.
type DamagedError struct {
	Records []Damaged
}

// Damaged is one of them.
type Damaged struct {
	ID        ID
	Person    [16]byte
	Retention Retention
}

// Error names the first ids.
func (e *DamagedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %d key records do not open:", ErrTampered, len(e.Records))
	for i := range e.Records {
		if i == 16 {
			b.WriteString(" and others")
			break
		}
		b.WriteString(" " + e.Records[i].ID.String())
	}
	return b.String()
}

// Unwrap returns ErrTampered.
func (e *DamagedError) Unwrap() error { return ErrTampered }

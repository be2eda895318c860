package encrypt

import "github.com/crmguard/crmguard/encrypt/keys"

// Errors that callers branch on, the same values as in package keys. Their texts, and those of errors
// that wrap them, never hold a plaintext, a key, a term or a personal value.
var (
	ErrTampered       = keys.ErrTampered       // the one answer to every authentication failure
	ErrErased         = keys.ErrErased         // the key was destroyed, and an authentic tombstone proves it
	ErrKeyMissing     = keys.ErrKeyMissing     // a key record is gone and no tombstone explains it: an alarm
	ErrKMSUnavailable = keys.ErrKMSUnavailable // the key service is away, and cached keys serve no longer
	ErrAuth           = keys.ErrAuth           // the key service refused our login or permissions
	ErrRetired        = keys.ErrRetired        // the key was ended by a rotation
	ErrBlocked        = keys.ErrBlocked        // an erasure of the person was asked for and has not happened yet
	ErrHeld           = keys.ErrHeld           // a legal hold forbids the erasure
	ErrLimit          = keys.ErrLimit          // too many erasures in a day without approval
	ErrTraces         = keys.ErrTraces         // erased, but old bytes of the wrapped keys are still to be overwritten
	ErrUnsupported    = keys.ErrUnsupported    // no index can answer the query; never an empty result instead
	ErrNotClear       = keys.ErrNotClear       // a field that is not clear has no previous ciphertext to keep
	ErrAlgorithm      = keys.ErrAlgorithm      // a weak or unknown algorithm
)

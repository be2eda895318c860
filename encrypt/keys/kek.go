package keys

import "context"

// KEK is a key encryption key: it wraps epoch keys and never leaves its service. It is asked once
// per tenant and epoch, not per value.
//
// Errors: [ErrKMSUnavailable] when the service cannot answer now, [ErrAuth] when it refuses us,
// [ErrTampered] when wrapped or ad is not what Wrap saw. Implementations are safe for concurrent
// use and pass encrypttest.TestKEK.
type KEK interface {
	// ID is a stable name for records and pages, such as "local:dev" or "vault:crm".
	ID() string
	// Wrap encrypts plaintext (at most 64 KiB) and authenticates ad.
	Wrap(ctx context.Context, plaintext, ad []byte) (wrapped []byte, err error)
	// Unwrap opens what Wrap made, by any live version of the key.
	Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error)
}

// Rotator is a KEK that can make a new version of itself. Versions made before still unwrap.
type Rotator interface {
	Rotate(ctx context.Context) error
}

// Trimmer is a KEK that can end its old versions. That is what makes stray copies of destroyed keys
// worthless: see the threat model in docs/formats/encrypt.md.
type Trimmer interface {
	// Trim ends every version older than the oldest that wrapped one of living. Without living
	// it ends nothing. What an ended version wrapped does not unwrap again: [ErrRetired].
	Trim(ctx context.Context, living [][]byte) error
}

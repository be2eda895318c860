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

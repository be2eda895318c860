package algorithm

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// The ciphers of New.
const (
	AES128GCM         = "AES-128-GCM"
	AES192GCM         = "AES-192-GCM"
	AES256GCM         = "AES-256-GCM"
	AES128GCMSIV      = "AES-128-GCM-SIV"
	AES256GCMSIV      = "AES-256-GCM-SIV"
	XChaCha20Poly1305 = "XChaCha20-Poly1305"
	XAES256GCM        = "XAES-256-GCM"
)

// suites says how long keys and nonces are, in bytes.
var suites = map[string]struct{ key, nonce int }{
	AES128GCM:         {16, 12},
	AES192GCM:         {24, 12},
	AES256GCM:         {32, 12},
	AES128GCMSIV:      {16, 12},
	AES256GCMSIV:      {32, 12},
	XChaCha20Poly1305: {32, 24},
	XAES256GCM:        {32, 24},
}

// New returns the cipher of that name under key. Names are those of the constants; other spellings
// ("aes_256_gcm") are understood. Open returns keys.ErrTampered for every failure, a nonce of
// another length among them; Seal panics at such a nonce, as crypto/cipher does. Errors:
// keys.ErrAlgorithm, and a wrong key length.
func New(name string, key []byte) (cipher.AEAD, error) {
	canonical, err := canonicalAEAD(name)
	if err != nil {
		return nil, err
	}
	suite := suites[canonical]
	if len(key) != suite.key {
		return nil, fmt.Errorf("algorithm: a key of %s has %d bytes", canonical, suite.key)
	}
	var a cipher.AEAD
	switch canonical {
	case XChaCha20Poly1305:
		a, err = chacha20poly1305.NewX(key)
	case XAES256GCM:
		a, err = newXAES(key)
	case AES128GCMSIV, AES256GCMSIV:
		a, err = newGCMSIV(key)
	default:
		a, err = newGCM(key)
	}
	if err != nil {
		return nil, fmt.Errorf("algorithm: cannot make %s", canonical)
	}
	return checked{a}, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// canonicalAEAD finds the constant that name means.
func canonicalAEAD(name string) (string, error) {
	if _, ok := suites[name]; ok {
		return name, nil
	}
	if err := Check(name); err != nil {
		return "", err
	}
	folded := fold(name)
	for canonical := range suites {
		if fold(canonical) == folded {
			return canonical, nil
		}
	}
	return "", refuse(name, "is no cipher of this package, or names no key size", AES256GCM)
}

// checked has one answer to every failure.
type checked struct{ cipher.AEAD }

func (c checked) Open(dst, nonce, ciphertext, ad []byte) ([]byte, error) {
	if len(nonce) != c.NonceSize() || len(ciphertext) < c.Overhead() {
		return nil, keys.ErrTampered
	}
	out, err := c.AEAD.Open(dst, nonce, ciphertext, ad)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

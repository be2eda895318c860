// Package keyring seals small secrets under AES-256-GCM keys held in memory, the newest of which seals. It is a sealer
// for packages password and totp where there is no keeper of keys (package encrypt) to compose them with. Keys come
// from a file of mode 0600 or a secret store, never from the database whose secrets they seal.
//
// A sealed text is the key's id (4 bytes), a random nonce (12), the ciphertext and the tag (16). The id is the
// beginning of HMAC-SHA-256(key, "crmguard keyring v1 id"). docs/formats/authn.md has it in full.
package keyring

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
)

const (
	idSize    = 4
	nonceSize = 12
	tagSize   = 16
)

// Overhead is how many bytes longer than its text a sealed text is.
const Overhead = idSize + nonceSize + tagSize

// ErrSealed means that a sealed text does not open: another key, other associated data, or changed bytes. Which of them
// it is is not told.
var ErrSealed = errors.New("keyring: sealed text does not open")

// Keyring seals and opens. It is safe for concurrent use.
type Keyring struct{ keys []key }

type key struct {
	id   []byte
	aead cipher.AEAD
}

// New returns a keyring that seals under newest and opens what any of the keys sealed. Each has 32 random bytes. To
// rotate, put a new key first, let everything be sealed anew (Open says what is stale), and leave the old one out.
func New(newest []byte, older ...[]byte) (*Keyring, error) {
	k := &Keyring{}
	for _, secret := range append([][]byte{newest}, older...) {
		if len(secret) != 32 {
			return nil, errors.New("keyring: a key has 32 bytes")
		}
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, errors.New("keyring: a key has 32 bytes")
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("crmguard keyring v1 id"))
		id := mac.Sum(nil)[:idSize]
		for _, other := range k.keys {
			if bytes.Equal(other.id, id) {
				return nil, errors.New("keyring: a key is given twice")
			}
		}
		k.keys = append(k.keys, key{id, aead})
	}
	return k, nil
}

// Seal encrypts under the newest key and binds the associated data.
func (k *Keyring) Seal(_ context.Context, plaintext, ad []byte) ([]byte, error) {
	out := make([]byte, idSize+nonceSize, Overhead+len(plaintext))
	copy(out, k.keys[0].id)
	if _, err := rand.Read(out[idSize:]); err != nil {
		return nil, err
	}
	return k.keys[0].aead.Seal(out, out[idSize:], plaintext, ad), nil
}

// Open decrypts what Seal made with the same associated data. stale tells that it was sealed under a key that is no
// longer the newest. The error is [ErrSealed].
func (k *Keyring) Open(_ context.Context, sealed, ad []byte) (plaintext []byte, stale bool, err error) {
	if len(sealed) < Overhead {
		return nil, false, ErrSealed
	}
	for i, key := range k.keys {
		if !bytes.Equal(key.id, sealed[:idSize]) {
			continue
		}
		plaintext, err := key.aead.Open(nil, sealed[idSize:idSize+nonceSize], sealed[idSize+nonceSize:], ad)
		if err != nil {
			return nil, false, ErrSealed
		}
		return plaintext, i > 0, nil
	}
	return nil, false, ErrSealed
}

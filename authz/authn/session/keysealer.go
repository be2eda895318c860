package session

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
)

// keySealer is a Sealer under one key.
type keySealer struct{ key []byte }

// NewKeySealer returns a [Sealer] for a program that has no keys of single persons: AES-256-GCM under a subkey of key
// (at least 32 bytes) for each tenant and person. Erasing a person then means deleting their sessions.
func NewKeySealer(key []byte) (Sealer, error) {
	if len(key) < 32 {
		return nil, errors.New("session: a key has at least 32 bytes")
	}
	return &keySealer{append([]byte(nil), key...)}, nil
}

func (s *keySealer) aead(tenant, person string) (cipher.AEAD, error) {
	sub := mac(s.key, []byte("crmguard session 1 sealer"), []byte(tenant), []byte(person))
	key, err := hkdf.Expand(sha256.New, sub, "aes", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal implements Sealer.
func (s *keySealer) Seal(_ context.Context, tenant, person string, plaintext, context []byte) ([]byte, error) {
	a, err := s.aead(tenant, person)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, plaintext, context), nil
}

// Open implements Sealer.
func (s *keySealer) Open(_ context.Context, tenant, person string, sealed, context []byte) ([]byte, error) {
	a, err := s.aead(tenant, person)
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, nil, sealed, context)
	if err != nil {
		return nil, errors.New("session: sealed by another key, for another person, or damaged")
	}
	return plain, nil
}

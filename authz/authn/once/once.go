// Package once keeps what may be used a single time before it expires: challenges, states of a sign-in at a provider,
// ids of messages that are not to be taken twice. It imports the standard library only.
//
// A [Store] is found by a key of 32 bytes, which callers make by hashing a secret ([Key]), so that who reads the
// store can finish nobody's sign-in. [Memory] serves one process; once/sqlstore serves several. Both pass
// oncetest.TestStore. Run Sweep now and then: who begins something and never ends it leaves a row.
package once

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// Errors of stores.
var (
	ErrNone  = errors.New("once: unknown, expired, or taken already")
	ErrTaken = errors.New("once: there is one of this key already")
)

// Store keeps values for a single use.
type Store interface {
	// Put keeps a value until it expires. Errors: ErrTaken when the key is there and has not expired at now.
	Put(ctx context.Context, key [32]byte, value []byte, now, expires time.Time) error
	// Take returns a value and removes it: of many calls at once one gets it. Errors: ErrNone.
	Take(ctx context.Context, key [32]byte, now time.Time) ([]byte, error)
	// Get returns a value and leaves it. Errors: ErrNone.
	Get(ctx context.Context, key [32]byte, now time.Time) ([]byte, error)
	// Sweep removes what has expired, and returns how many that were.
	Sweep(ctx context.Context, now time.Time) (int, error)
}

// Key hashes a secret of at least 128 random bits, or the parts of a name.
func Key(parts ...string) (key [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256([]byte(p)) // so that no part runs into the next
		h.Write(sum[:])
	}
	h.Sum(key[:0])
	return key
}

// Memory is a Store in memory, safe for concurrent use. The zero Memory is empty and ready.
type Memory struct {
	mu  sync.Mutex
	all map[[32]byte]entry
}

type entry struct {
	value   []byte
	expires time.Time
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, key [32]byte, value []byte, now, expires time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if e, ok := m.all[key]; ok && now.Before(e.expires) {
		return ErrTaken
	}
	if m.all == nil {
		m.all = map[[32]byte]entry{}
	}
	m.all[key] = entry{bytes.Clone(value), expires}
	return nil
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key [32]byte, now time.Time) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e, ok := m.all[key]
	if !ok || !now.Before(e.expires) {
		return nil, ErrNone
	}
	return bytes.Clone(e.value), nil
}

// Take implements Store.
func (m *Memory) Take(ctx context.Context, key [32]byte, now time.Time) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e, ok := m.all[key]
	delete(m.all, key)
	if !ok || !now.Before(e.expires) {
		return nil, ErrNone
	}
	return e.value, nil
}

// Sweep implements Store.
func (m *Memory) Sweep(ctx context.Context, now time.Time) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for key, e := range m.all {
		if !now.Before(e.expires) {
			delete(m.all, key)
			n++
		}
	}
	return n, nil
}

// Package records keeps what packages password, totp and recovery make: one opaque record for an account and a kind,
// replaced by compare-and-set. [Memory] is for tests and single runs, package records/sqlrecords for databases; both
// pass recordstest.
//
// [Of] binds a store to a kind, which makes the small interface that a package asks for:
//
//	totp.New(sealer, records.Of(store, "totp"), nil)
package records

import (
	"bytes"
	"context"
	"errors"
	"sync"
)

// Store keeps records.
type Store interface {
	// Load returns the record, nil when there is none.
	Load(ctx context.Context, kind, account string) ([]byte, error)
	// Swap stores next where prev is stored still, and tells whether it was, in one step that nothing comes between. A
	// nil prev stands for no record, a nil next removes; one of them is not nil. Empty records are refused with
	// [ErrEmpty].
	Swap(ctx context.Context, kind, account string, prev, next []byte) (bool, error)
}

// ErrEmpty refuses a record of no bytes, and a swap of nothing for nothing.
var ErrEmpty = errors.New("records: empty record")

// Check returns ErrEmpty for what Swap does not take. Stores call it.
func Check(prev, next []byte) error {
	if prev != nil && len(prev) == 0 || next != nil && len(next) == 0 || prev == nil && next == nil {
		return ErrEmpty
	}
	return nil
}

// Kind is a store of one kind of record.
type Kind struct {
	store Store
	kind  string
}

// Of returns the records of a kind, such as "password", "totp" or "recovery".
func Of(store Store, kind string) Kind { return Kind{store, kind} }

// Load returns the account's record, nil when there is none.
func (k Kind) Load(ctx context.Context, account string) ([]byte, error) {
	return k.store.Load(ctx, k.kind, account)
}

// Swap is Store.Swap for the kind.
func (k Kind) Swap(ctx context.Context, account string, prev, next []byte) (bool, error) {
	return k.store.Swap(ctx, k.kind, account, prev, next)
}

// Memory is a Store in memory. Its zero value is ready, and it is safe for concurrent use.
type Memory struct {
	mu  sync.Mutex
	all map[[2]string][]byte
}

// Load returns a copy.
func (m *Memory) Load(ctx context.Context, kind, account string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.all[[2]string{kind, account}]), nil
}

// Swap keeps a copy.
func (m *Memory) Swap(ctx context.Context, kind, account string, prev, next []byte) (bool, error) {
	if err := errors.Join(ctx.Err(), Check(prev, next)); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at := [2]string{kind, account}
	stored, ok := m.all[at]
	if ok != (prev != nil) || !bytes.Equal(stored, prev) {
		return false, nil
	}
	if next == nil {
		delete(m.all, at)
		return true, nil
	}
	if m.all == nil {
		m.all = map[[2]string][]byte{}
	}
	m.all[at] = bytes.Clone(next)
	return true, nil
}

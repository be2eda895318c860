// Package memstore keeps passkeys in memory: for one process, and until it ends. It passes webauthntest.TestStore.
package memstore

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz/authn/webauthn"
)

type person struct{ tenant, id string }

// Store is a webauthn.Store in memory, safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	handles map[person][]byte
	all     []webauthn.Record // as they were added
}

// New returns an empty store.
func New() *Store { return &Store{handles: map[person][]byte{}} }

func clone(r webauthn.Record) webauthn.Record {
	for _, b := range []*[]byte{&r.ID, &r.Handle, &r.Name, &r.PublicKey, &r.Model, &r.MAC} {
		*b = bytes.Clone(*b)
	}
	return r
}

func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	s.mu.Lock()
	return s.mu.Unlock, ctx.Err()
}

func (s *Store) index(id []byte) int {
	return slices.IndexFunc(s.all, func(r webauthn.Record) bool { return bytes.Equal(r.ID, id) })
}

// Handle implements webauthn.Store.
func (s *Store) Handle(ctx context.Context, tenant, id string, fresh []byte) ([]byte, error) {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return nil, err
	}
	key := person{tenant, id}
	if s.handles[key] == nil {
		s.handles[key] = bytes.Clone(fresh)
	}
	return bytes.Clone(s.handles[key]), nil
}

// Add implements webauthn.Store.
func (s *Store) Add(ctx context.Context, r webauthn.Record, most int) error {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	if s.index(r.ID) >= 0 {
		return webauthn.ErrExists
	}
	if len(s.of(r.Tenant, r.Person)) >= most {
		return webauthn.ErrTooMany
	}
	s.all = append(s.all, clone(r))
	return nil
}

// Find implements webauthn.Store.
func (s *Store) Find(ctx context.Context, id []byte) (webauthn.Record, error) {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return webauthn.Record{}, err
	}
	i := s.index(id)
	if i < 0 {
		return webauthn.Record{}, webauthn.ErrUnknown
	}
	return clone(s.all[i]), nil
}

func (s *Store) of(tenant, id string) (out []webauthn.Record) {
	for _, r := range s.all {
		if r.Tenant == tenant && r.Person == id {
			out = append(out, clone(r))
		}
	}
	slices.SortStableFunc(out, func(a, b webauthn.Record) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return bytes.Compare(a.ID, b.ID)
	})
	return out
}

// List implements webauthn.Store.
func (s *Store) List(ctx context.Context, tenant, id string) ([]webauthn.Record, error) {
	unlock, err := s.lock(ctx)
	defer unlock()
	return s.of(tenant, id), err
}

// Use implements webauthn.Store.
func (s *Store) Use(ctx context.Context, id []byte, count uint32, backedUp bool, at time.Time) error {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	i := s.index(id)
	if i < 0 {
		return webauthn.ErrUnknown
	}
	r := &s.all[i]
	if !r.Cloned.IsZero() {
		return webauthn.ErrCount
	}
	if count <= r.Count && (count != 0 || r.Count != 0) {
		r.Cloned = at
		return webauthn.ErrCount
	}
	r.Count, r.BackedUp, r.Used = count, backedUp, at
	return nil
}

// mine returns the place of a person's credential, or -1.
func (s *Store) mine(tenant, id string, credential []byte) int {
	i := s.index(credential)
	if i >= 0 && (s.all[i].Tenant != tenant || s.all[i].Person != id) {
		return -1
	}
	return i
}

// Rename implements webauthn.Store.
func (s *Store) Rename(ctx context.Context, tenant, id string, credential, name []byte) error {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	i := s.mine(tenant, id, credential)
	if i < 0 {
		return webauthn.ErrUnknown
	}
	s.all[i].Name = bytes.Clone(name)
	return nil
}

// Remove implements webauthn.Store.
func (s *Store) Remove(ctx context.Context, tenant, id string, credential []byte) error {
	unlock, err := s.lock(ctx)
	defer unlock()
	if err != nil {
		return err
	}
	i := s.mine(tenant, id, credential)
	if i < 0 {
		return webauthn.ErrUnknown
	}
	s.all = slices.Delete(s.all, i, i+1)
	return nil
}

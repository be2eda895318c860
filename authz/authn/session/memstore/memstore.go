// Package memstore keeps sessions in memory: for one process, and until it ends. It passes sessiontest.TestStore.
package memstore

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz/authn/session"
)

type person struct{ tenant, id string }

// Store is a session.Store in memory, safe for concurrent use.
type Store struct {
	mu     sync.Mutex
	byID   map[person]session.Record // tenant and id of the session
	byHash map[string]person
	epochs map[person]uint64 // only those that were raised
}

// New returns an empty store.
func New() *Store {
	return &Store{byID: map[person]session.Record{}, byHash: map[string]person{}, epochs: map[person]uint64{}}
}

func (s *Store) epoch(tenant, id string) uint64 { return max(1, s.epochs[person{tenant, id}]) }

// Epoch implements session.Store.
func (s *Store) Epoch(ctx context.Context, tenant, id string) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch(tenant, id), ctx.Err()
}

func clone(r session.Record) session.Record {
	r.Hash, r.External, r.Body = bytes.Clone(r.Hash), bytes.Clone(r.External), bytes.Clone(r.Body)
	return r
}

func (s *Store) put(r session.Record) {
	key := person{r.Tenant, r.ID}
	if old, ok := s.byID[key]; ok {
		delete(s.byHash, string(old.Hash))
	}
	s.byID[key] = clone(r)
	s.byHash[string(r.Hash)] = key
}

func (s *Store) remove(r session.Record) {
	delete(s.byID, person{r.Tenant, r.ID})
	delete(s.byHash, string(r.Hash))
}

// of returns the sessions of a person, the ones used last first.
func (s *Store) of(tenant, id string) (out []session.Record) {
	for _, r := range s.byID {
		if r.Tenant == tenant && r.Person == id {
			out = append(out, clone(r))
		}
	}
	slices.SortFunc(out, func(a, b session.Record) int {
		if c := b.Seen.Compare(a.Seen); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.ID), []byte(b.ID))
	})
	return out
}

// Add implements session.Store.
func (s *Store) Add(ctx context.Context, r session.Record, keep int) (ended []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.epoch(r.Tenant, r.Person) != r.Epoch {
		return nil, session.ErrStale
	}
	for i, old := range s.of(r.Tenant, r.Person) {
		if i >= keep-1 {
			s.remove(old)
			ended = append(ended, old.ID)
		}
	}
	s.put(r)
	return ended, nil
}

// Find implements session.Store.
func (s *Store) Find(ctx context.Context, hashes ...[]byte) (session.Record, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return session.Record{}, 0, err
	}
	for _, h := range hashes {
		if key, ok := s.byHash[string(h)]; ok {
			r := s.byID[key]
			return clone(r), s.epoch(r.Tenant, r.Person), nil
		}
	}
	return session.Record{}, 0, session.ErrNone
}

// Replace implements session.Store.
func (s *Store) Replace(ctx context.Context, r session.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	old, ok := s.byID[person{r.Tenant, r.ID}]
	if !ok || old.Person != r.Person || old.Version != r.Version-1 {
		return session.ErrNone
	}
	s.put(r)
	return nil
}

// List implements session.Store.
func (s *Store) List(ctx context.Context, tenant, id string) ([]session.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(tenant, id), ctx.Err()
}

// End implements session.Store.
func (s *Store) End(ctx context.Context, e session.Ending) (ended []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if e.Person == "" && len(e.External) == 0 || e.Raise && e.Person == "" {
		return nil, session.ErrNone
	}
	if e.Raise {
		s.epochs[person{e.Tenant, e.Person}] = s.epoch(e.Tenant, e.Person) + 1
	}
	for _, r := range s.byID {
		if r.Tenant != e.Tenant || e.Person != "" && r.Person != e.Person || e.ID != "" && r.ID != e.ID || e.Except != "" && r.ID == e.Except ||
			len(e.External) > 0 && !bytes.Equal(r.External, e.External) {
			continue
		}
		s.remove(r)
		ended = append(ended, r.ID)
	}
	slices.Sort(ended)
	return ended, nil
}

// Sweep implements session.Store.
func (s *Store) Sweep(ctx context.Context, at time.Time) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for _, r := range s.byID {
		if !at.Before(r.Expires) {
			s.remove(r)
			n++
		}
	}
	return n, nil
}

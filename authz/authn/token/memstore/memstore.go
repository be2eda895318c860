// Package memstore keeps tokens in memory: for one process, and until it ends. It passes tokentest.TestStore.
package memstore

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz/authn/token"
)

// Store is a token.Store in memory, safe for concurrent use.
type Store struct {
	mu  sync.Mutex
	all map[string]token.Record
}

// New returns an empty store.
func New() *Store { return &Store{all: map[string]token.Record{}} }

func clone(r token.Record) token.Record {
	r.Scopes, r.Sources, r.Hash, r.MAC = slices.Clone(r.Scopes), slices.Clone(r.Sources), bytes.Clone(r.Hash), bytes.Clone(r.MAC)
	return r
}

// Add implements token.Store.
func (s *Store) Add(ctx context.Context, r token.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := s.all[r.ID]; ok {
		return token.ErrExists
	}
	s.all[r.ID] = clone(r)
	return nil
}

// Find implements token.Store.
func (s *Store) Find(ctx context.Context, id string) (token.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return token.Record{}, err
	}
	r, ok := s.all[id]
	if !ok {
		return token.Record{}, token.ErrNone
	}
	return clone(r), nil
}

// Use implements token.Store.
func (s *Store) Use(ctx context.Context, id string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if r, ok := s.all[id]; ok && at.After(r.Used) {
		r.Used = at
		s.all[id] = r
	}
	return nil
}

func (s *Store) match(q token.Query, whole bool) (out []token.Record) {
	for _, r := range s.all {
		if r.Tenant == q.Tenant && (q.Account == "" || r.Account == q.Account) &&
			(q.Prefix == "" || r.ID == q.Prefix || !whole && strings.HasPrefix(r.ID, q.Prefix)) {
			out = append(out, clone(r))
		}
	}
	slices.SortFunc(out, func(a, b token.Record) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// List implements token.Store.
func (s *Store) List(ctx context.Context, q token.Query) ([]token.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.match(q, false), ctx.Err()
}

// Revoke implements token.Store.
func (s *Store) Revoke(ctx context.Context, q token.Query, at time.Time) (ids []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil || q.Account == "" && q.Prefix == "" {
		return nil, err
	}
	for _, r := range s.match(q, true) {
		if r.Revoked.IsZero() {
			r.Revoked, r.Hash = at, nil
			s.all[r.ID] = r
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}

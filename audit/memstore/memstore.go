// Package memstore keeps an audit log in memory: a real store for tests and
// short-lived programs.
package memstore

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sort"
	"sync"

	"github.com/crmguard/crmguard/audit/driver"
)

// Store is a log in memory. The zero value is not ready; use New.
type Store struct {
	mu      sync.Mutex
	batches []driver.Batch
	head    []byte
	locked  bool
}

// New returns an empty store.
func New() *Store { return &Store{} }

// Batches implements driver.Store.
func (s *Store) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		s.mu.Lock()
		all := s.batches // appends never change what is there
		s.mu.Unlock()
		i := sort.Search(len(all), func(i int) bool { return all[i].First+uint64(all[i].Count) > from })
		for _, b := range all[i:] {
			if err := ctx.Err(); err != nil {
				yield(driver.Batch{}, err)
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// Head implements driver.Store.
func (s *Store) Head(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.head), ctx.Err()
}

// Writer implements driver.Store.
func (s *Store) Writer(ctx context.Context) (driver.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return nil, driver.ErrLocked
	}
	s.locked = true
	return &writer{s: s}, nil
}

type writer struct {
	s      *Store
	closed bool
}

var errClosed = errors.New("memstore: writer is closed")

func (w *writer) Append(ctx context.Context, b driver.Batch) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.closed {
		return errClosed
	}
	if b.Count == 0 {
		return errors.New("memstore: empty batch")
	}
	var next uint64
	if n := len(w.s.batches); n > 0 {
		next = w.s.batches[n-1].First + uint64(w.s.batches[n-1].Count)
	}
	if b.First != next {
		return errors.New("memstore: batch does not follow the last one")
	}
	b.Data = bytes.Clone(b.Data)
	w.s.batches = append(w.s.batches, b)
	return nil
}

// Prune implements driver.Pruner. All batches are one stretch.
func (w *writer) Prune(ctx context.Context, _, to uint64, replace func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error]) error {
	w.s.mu.Lock()
	closed, old := w.closed, w.s.batches
	w.s.mu.Unlock()
	if closed {
		return errClosed
	}
	n := sort.Search(len(old), func(i int) bool { return old[i].First >= to })
	var list []driver.Batch
	var next uint64
	for b, err := range replace(func(yield func(driver.Batch, error) bool) {
		for _, b := range old[:n] {
			if !yield(b, ctx.Err()) {
				return
			}
		}
	}) {
		if err != nil {
			return err
		}
		if b.First != next || b.Count == 0 {
			return errors.New("memstore: the new batches do not cover the old ones")
		}
		next = b.First + uint64(b.Count)
		b.Data = bytes.Clone(b.Data)
		list = append(list, b)
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	end := uint64(0)
	if len(old) > 0 {
		end = old[len(old)-1].First + uint64(old[len(old)-1].Count)
	}
	if n < len(old) {
		end = old[n].First
	}
	if next != end {
		return errors.New("memstore: the new batches do not cover the old ones")
	}
	// What was appended meanwhile stays behind it.
	w.s.batches = append(list, w.s.batches[n:]...)
	return nil
}

func (w *writer) SetHead(ctx context.Context, note []byte) error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.closed {
		return errClosed
	}
	w.s.head = bytes.Clone(note)
	return nil
}

func (w *writer) Torn() []byte { return nil }

func (w *writer) Close() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if !w.closed {
		w.closed, w.s.locked = true, false
	}
	return nil
}

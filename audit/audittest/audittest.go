// Package audittest has the suite that every store of package audit passes,
// and a sealer for tests.
package audittest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
)

// Signer returns a signer for the log called name whose key is made from the
// name, so that runs are alike. Never use it outside tests.
func Signer(t testing.TB, name string) audit.Signer {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	s, err := audit.NewEd25519Signer(name, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Sealer is an audit.Sealer with a random key for each person in memory, whose
// persons can be erased.
type Sealer struct {
	mu     sync.RWMutex
	keys   map[[16]byte]cipher.AEAD
	erased map[[16]byte]bool
	down   bool
}

// NewSealer returns a sealer without keys.
func NewSealer() *Sealer {
	return &Sealer{keys: map[[16]byte]cipher.AEAD{}, erased: map[[16]byte]bool{}}
}

// Erase destroys the key of a person.
func (s *Sealer) Erase(person [16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, person)
	s.erased[person] = true
}

// SetDown makes the sealer unavailable, or available again.
func (s *Sealer) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *Sealer) key(person [16]byte, make bool) (cipher.AEAD, error) {
	s.mu.RLock()
	k, ok, down, erased := s.keys[person], s.keys[person] != nil, s.down, s.erased[person]
	s.mu.RUnlock()
	if ok && !down && !erased {
		return k, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fmt.Errorf("audittest: %w", audit.ErrUnavailable)
	}
	if s.erased[person] {
		return nil, fmt.Errorf("audittest: %w", audit.ErrErased)
	}
	k, ok = s.keys[person]
	if !ok && !make {
		return nil, errors.New("audittest: no key")
	}
	if !ok {
		var raw [32]byte
		rand.Read(raw[:])
		block, err := aes.NewCipher(raw[:])
		if err != nil {
			return nil, err
		}
		if k, err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
		s.keys[person] = k
	}
	return k, nil
}

// SealOpening implements audit.Sealer.
func (s *Sealer) SealOpening(_ context.Context, tenant string, person [16]byte, ad, plaintext []byte) ([]byte, error) {
	k, err := s.key(person, true)
	if err != nil {
		return nil, err
	}
	return k.Seal(nil, nil, plaintext, bind(tenant, ad)), nil
}

func bind(tenant string, ad []byte) []byte {
	b := make([]byte, 0, len(tenant)+1+len(ad))
	return append(append(append(b, tenant...), 0), ad...)
}

// OpenOpening implements audit.Sealer.
func (s *Sealer) OpenOpening(_ context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	k, err := s.key(person, false)
	if err != nil {
		return nil, err
	}
	return k.Open(nil, nil, sealed, bind(tenant, ad))
}

// TestStore is the suite. open returns an empty store; again returns another
// store over the same log, as another process would have it, or nil when the
// store cannot be had twice.
func TestStore(t *testing.T, open func(testing.TB) (store driver.Store, again func() driver.Store)) {
	ctx := context.Background()
	fill := func(t *testing.T, s driver.Store, counts ...uint32) driver.Writer {
		t.Helper()
		w, err := s.Writer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		first := uint64(0)
		for _, n := range counts {
			if err := w.Append(ctx, driver.Batch{First: first, Count: n, Data: data(first, n)}); err != nil {
				t.Fatal(err)
			}
			first += uint64(n)
		}
		return w
	}
	check := func(t *testing.T, s driver.Store, from uint64, want ...uint64) {
		t.Helper()
		i := 0
		for b, err := range s.Batches(ctx, from) {
			if err != nil {
				t.Fatal(err)
			}
			if i >= len(want) || b.First != want[i] || !bytes.Equal(b.Data, data(b.First, b.Count)) {
				t.Fatalf("from %d: batch %d begins at %d with %d bytes, want begins %v", from, i, b.First, len(b.Data), want)
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("from %d: %d batches, want %d", from, i, len(want))
		}
	}

	t.Run("empty", func(t *testing.T) {
		s, _ := open(t)
		check(t, s, 0)
		check(t, s, 7)
		if h, err := s.Head(ctx); err != nil || h != nil {
			t.Fatalf("head of an empty store: %q, %v", h, err)
		}
	})
	t.Run("batches", func(t *testing.T) {
		s, again := open(t)
		w := fill(t, s, 3, 1, 200, 5)
		stores := []driver.Store{s}
		if again != nil {
			stores = append(stores, again())
		}
		for _, s := range stores {
			check(t, s, 0, 0, 3, 4, 204)
			check(t, s, 2, 0, 3, 4, 204)
			check(t, s, 3, 3, 4, 204)
			check(t, s, 4, 4, 204)
			check(t, s, 203, 4, 204)
			check(t, s, 208, 204)
			check(t, s, 209)
		}
		if w.Torn() != nil {
			t.Fatal("something was torn")
		}
	})
	t.Run("many batches", func(t *testing.T) {
		s, again := open(t)
		counts := make([]uint32, 700)
		for i := range counts {
			counts[i] = uint32(1 + i%7)
		}
		fill(t, s, counts...)
		stores := []driver.Store{s}
		if again != nil {
			stores = append(stores, again(), again())
		}
		for _, s := range stores {
			first := uint64(0)
			for i, n := range counts {
				if i%97 == 0 {
					for b, err := range s.Batches(ctx, first+uint64(n)-1) {
						if err != nil || b.First != first {
							t.Fatalf("batch %d: begins at %d, %v", i, b.First, err)
						}
						break
					}
				}
				first += uint64(n)
			}
			check(t, s, first-1, first-uint64(counts[len(counts)-1]))
		}
	})
	t.Run("refused", func(t *testing.T) {
		s, _ := open(t)
		w := fill(t, s, 2)
		for name, b := range map[string]driver.Batch{
			"gap":    {First: 3, Count: 1, Data: data(3, 1)},
			"again":  {First: 0, Count: 2, Data: data(0, 2)},
			"inside": {First: 1, Count: 2, Data: data(1, 2)},
			"empty":  {First: 2, Count: 0},
		} {
			if err := w.Append(ctx, b); err == nil {
				t.Errorf("%s: taken", name)
			}
		}
		check(t, s, 0, 0)
		if err := w.Append(ctx, driver.Batch{First: 2, Count: 1, Data: data(2, 1)}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("one writer", func(t *testing.T) {
		s, again := open(t)
		w := fill(t, s, 1)
		stores := []driver.Store{s}
		if again != nil {
			stores = append(stores, again())
		}
		for _, s := range stores {
			if w, err := s.Writer(ctx); !errors.Is(err, driver.ErrLocked) {
				t.Fatalf("second writer: %v, %v", w, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.Append(ctx, driver.Batch{First: 1, Count: 1, Data: data(1, 1)}); err == nil {
			t.Fatal("a closed writer appends")
		}
		for _, s := range stores {
			w, err := s.Writer(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Append(ctx, driver.Batch{First: 0, Count: 1, Data: data(0, 1)}); err == nil {
				t.Fatal("a new writer does not know the end")
			}
			w.Close()
		}
	})
	t.Run("head", func(t *testing.T) {
		s, again := open(t)
		w := fill(t, s, 1)
		for _, note := range []string{"a longer first head", "second"} {
			if err := w.SetHead(ctx, []byte(note)); err != nil {
				t.Fatal(err)
			}
			h, err := s.Head(ctx)
			if again != nil && err == nil {
				h, err = again().Head(ctx)
			}
			if err != nil || string(h) != note {
				t.Fatalf("head %q, %v", h, err)
			}
		}
	})
	t.Run("prefix beside a writer", func(t *testing.T) {
		s, again := open(t)
		w := fill(t, s, 1)
		reader := s
		if again != nil {
			reader = again()
		}
		stop := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			defer close(done)
			for {
				next := uint64(0)
				for b, err := range reader.Batches(ctx, 0) {
					if err == nil && (b.First != next || !bytes.Equal(b.Data, data(b.First, b.Count))) {
						err = fmt.Errorf("batch at %d begins at %d", next, b.First)
					}
					if err != nil {
						done <- err
						return
					}
					next += uint64(b.Count)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		for i := uint64(1); i < 400; i += 2 {
			if err := w.Append(ctx, driver.Batch{First: i, Count: 2, Data: data(i, 2)}); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("prune", func(t *testing.T) {
		s, again := open(t)
		w := fill(t, s, 3, 1, 200, 5, 7, 4)
		p, ok := w.(driver.Pruner)
		if !ok {
			t.Skip("the store cannot prune")
		}
		// What ends at 204 or before it is joined into one batch.
		join := func(old iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error] {
			return func(yield func(driver.Batch, error) bool) {
				var joined driver.Batch
				for b, err := range old {
					if err != nil {
						yield(b, err)
						return
					}
					if b.First+uint64(b.Count) <= 204 {
						if joined.Count == 0 {
							joined.First = b.First
						}
						joined.Count += b.Count
						continue
					}
					if joined.Count > 0 {
						joined.Data = data(joined.First, joined.Count)
						if !yield(joined, nil) {
							return
						}
						joined.Count = 0
					}
					if !yield(b, nil) {
						return
					}
				}
				if joined.Count > 0 {
					joined.Data = data(joined.First, joined.Count)
					yield(joined, nil)
				}
			}
		}
		if err := p.Prune(ctx, 0, 204, func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error] {
			return func(yield func(driver.Batch, error) bool) { yield(driver.Batch{}, errors.New("no")) }
		}); err == nil {
			t.Fatal("an error of replace is lost")
		}
		check(t, s, 0, 0, 3, 4, 204, 209, 216)
		if err := p.Prune(ctx, 0, 204, func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error] {
			return func(yield func(driver.Batch, error) bool) {
				yield(driver.Batch{First: 0, Count: 1, Data: data(0, 1)}, nil)
			}
		}); err == nil {
			t.Fatal("events are lost")
		}
		check(t, s, 0, 0, 3, 4, 204, 209, 216)
		if err := p.Prune(ctx, 0, 204, join); err != nil {
			t.Fatal(err)
		}
		if err := w.Append(ctx, driver.Batch{First: 220, Count: 2, Data: data(220, 2)}); err != nil {
			t.Fatal(err)
		}
		stores := []driver.Store{s}
		if again != nil {
			stores = append(stores, again())
		}
		for _, s := range stores {
			kept := []uint64{204, 209, 216, 220}
			check(t, s, 204, kept...)
			check(t, s, 212, kept[1:]...)
			next := uint64(0)
			for b, err := range s.Batches(ctx, 0) { // how much is joined is up to the store
				if err != nil || b.First != next || !bytes.Equal(b.Data, data(b.First, b.Count)) {
					t.Fatal(b.First, next, err)
				}
				next = b.First + uint64(b.Count)
			}
			if next != 222 {
				t.Fatal(next)
			}
		}
	})
	t.Run("context", func(t *testing.T) {
		s, _ := open(t)
		w := fill(t, s, 1, 1)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		for _, err := range s.Batches(gone, 0) {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("batches: %v", err)
			}
		}
		if _, err := s.Head(gone); !errors.Is(err, context.Canceled) {
			t.Fatalf("head: %v", err)
		}
		w.Close()
		if _, err := s.Writer(gone); err == nil {
			t.Fatal("writer under a context that ended")
		}
	})
}

// data returns bytes that tell batches apart.
func data(first uint64, count uint32) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("event %d;", first)), int(count)*11)
}

// Package encrypttest holds the suites that every keys.KEK and keys.Store passes, and a KEK
// that fails on demand.
package encrypttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// TestKEK checks a KEK. open returns the same key each time, as a restarted process would get it.
func TestKEK(t *testing.T, open func(testing.TB) keys.KEK) {
	ctx := context.Background()
	secret, ad := []byte("a key of thirty-two random bytes"), []byte("tenant and epoch")
	wrap := func(t *testing.T, k keys.KEK, plain, ad []byte) []byte {
		t.Helper()
		w, err := k.Wrap(ctx, plain, ad)
		if err != nil {
			t.Fatalf("wrap: %v", err)
		}
		return w
	}
	t.Run("round trip", func(t *testing.T) {
		k := open(t)
		for _, n := range []int{0, 1, 32, 4096, 1 << 16} {
			for _, ad := range [][]byte{nil, ad} {
				plain := bytes.Repeat([]byte{7}, n)
				got, err := k.Unwrap(ctx, wrap(t, k, plain, ad), ad)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("%d bytes: %v", n, err)
				}
			}
		}
	})
	t.Run("another process", func(t *testing.T) {
		w := wrap(t, open(t), secret, ad)
		again := open(t)
		if got, err := again.Unwrap(ctx, w, ad); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("unwrap: %v", err)
		}
		if open(t).ID() != again.ID() || again.ID() == "" {
			t.Fatal("the id is not stable")
		}
	})
	t.Run("hides and randomises", func(t *testing.T) {
		k := open(t)
		a, b := wrap(t, k, secret, ad), wrap(t, k, secret, ad)
		if bytes.Contains(a, secret) || bytes.Equal(a, b) {
			t.Fatal("wrapped keys show what they hold")
		}
	})
	t.Run("wrong associated data", func(t *testing.T) {
		k := open(t)
		w := wrap(t, k, secret, ad)
		for _, other := range [][]byte{nil, []byte("tenant and epocH"), append([]byte("x"), ad...)} {
			if _, err := k.Unwrap(ctx, w, other); !errors.Is(err, keys.ErrTampered) {
				t.Fatalf("got %v, want ErrTampered", err)
			}
		}
	})
	t.Run("damaged", func(t *testing.T) {
		k := open(t)
		w := wrap(t, k, secret, ad)
		for i := 0; i < len(w); i += 1 + len(w)/40 {
			bad := bytes.Clone(w)
			bad[i] ^= 1
			if _, err := k.Unwrap(ctx, bad, ad); err == nil {
				t.Fatalf("byte %d changed: opened", i)
			} else if bytes.Contains([]byte(err.Error()), secret) {
				t.Fatal("the error shows the key")
			}
		}
		for _, bad := range [][]byte{nil, {}, []byte("x"), w[:len(w)-1], w[:len(w)/2]} {
			if _, err := k.Unwrap(ctx, bad, ad); !errors.Is(err, keys.ErrTampered) {
				t.Fatalf("cut to %d bytes: got %v, want ErrTampered", len(bad), err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		k := open(t)
		w := wrap(t, k, secret, ad)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := k.Wrap(gone, secret, ad); err == nil {
			t.Fatal("wrapped for a cancelled caller")
		}
		if _, err := k.Unwrap(gone, w, ad); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
	})
	t.Run("concurrent", func(t *testing.T) {
		k := open(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				plain := fmt.Appendf(nil, "key %d", i)
				w, err := k.Wrap(ctx, plain, ad)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := k.Unwrap(ctx, w, ad); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("unwrap: %v", err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("rotation", func(t *testing.T) {
		k, other := open(t), open(t)
		r, ok := k.(keys.Rotator)
		if !ok {
			t.Skip("no Rotator")
		}
		before := wrap(t, k, secret, ad)
		if err := r.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		after := wrap(t, k, secret, ad)
		for _, k := range []keys.KEK{k, other, open(t)} {
			for _, w := range [][]byte{before, after} {
				if got, err := k.Unwrap(ctx, w, ad); err != nil || !bytes.Equal(got, secret) {
					t.Fatalf("after a rotation: %v", err)
				}
			}
		}
	})
	t.Run("trim", func(t *testing.T) { testTrim(t, open) })
}

// testTrim ends versions of the key, and is therefore the last part of the suite.
func testTrim(t *testing.T, open func(testing.TB) keys.KEK) {
	ctx := context.Background()
	secret, ad := []byte("a key of thirty-two random bytes"), []byte("tenant and epoch")
	k, other := open(t), open(t)
	trimmer, ok := k.(keys.Trimmer)
	if !ok {
		t.Skip("no Trimmer")
	}
	rotator, ok := k.(keys.Rotator)
	if !ok {
		t.Skip("no Rotator")
	}
	wrapped := make([][]byte, 3) // by three versions
	for i := range wrapped {
		if i > 0 {
			if err := rotator.Rotate(ctx); err != nil {
				t.Fatalf("rotate: %v", err)
			}
		}
		var err error
		if wrapped[i], err = k.Wrap(ctx, secret, ad); err != nil {
			t.Fatalf("wrap: %v", err)
		}
	}
	oldest, middle, newest := wrapped[0], wrapped[1], wrapped[2]
	// opens checks that the versions from first on open, and that those before are ended, for everybody.
	opens := func(when string, first int) {
		t.Helper()
		for n, k := range []keys.KEK{k, other, open(t)} {
			for i, w := range wrapped {
				got, err := k.Unwrap(ctx, w, ad)
				switch {
				case i >= first && (err != nil || !bytes.Equal(got, secret)):
					t.Fatalf("%s: process %d, version %d: %v", when, n, i, err)
				case i < first && !errors.Is(err, keys.ErrRetired):
					t.Fatalf("%s: process %d, version %d: got %v, want ErrRetired", when, n, i, err)
				}
			}
		}
	}
	trim := func(living ...[]byte) {
		t.Helper()
		if err := trimmer.Trim(ctx, living); err != nil {
			t.Fatalf("trim: %v", err)
		}
	}
	refuse := func(living ...[]byte) {
		t.Helper()
		err := trimmer.Trim(ctx, living)
		if err == nil {
			t.Fatal("trimmed for living keys that are none")
		}
		if bytes.Contains([]byte(err.Error()), newest) {
			t.Fatal("the error shows a wrapped key")
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := trimmer.Trim(gone, [][]byte{newest}); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: got %v, want context.Canceled", err)
	}
	trim()
	opens("nothing is living", 0)
	trim(newest, oldest)
	opens("the oldest is living", 0)
	for _, garbage := range [][]byte{nil, {}, []byte("x"), []byte("no wrapped key at all, but a longer text"), newest[:3]} {
		refuse(newest, garbage)
		refuse(garbage, newest)
	}
	opens("something living is no wrapped key", 0)

	trim(newest, middle, newest)
	opens("the middle one is living", 1)
	trim(newest, middle)
	trim()
	opens("the same again", 1)
	refuse(newest, oldest) // its version has ended

	again, err := other.Wrap(ctx, secret, ad)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	trim(again, newest)
	opens("only the newest is living", 2)
	if err := rotator.Rotate(ctx); err != nil {
		t.Fatalf("rotate after trim: %v", err)
	}
	last, err := other.Wrap(ctx, secret, ad)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	wrapped = append(wrapped, last)
	trim(last)
	opens("another process wrapped it after a rotation", 3)
}

// Fault says how a FaultKEK fails.
type Fault int

// The faults.
const (
	None     Fault = iota
	Away           // unreachable: keys.ErrKMSUnavailable at once
	Sealed         // the same, as a sealed Vault says it
	Refused        // keys.ErrAuth
	Hanging        // no answer until the context ends
	WrongKey       // answers with other bytes than were wrapped
)

// FaultKEK passes calls on to another KEK, slowly or not at all. It counts them. Rotate and Trim are
// errors.ErrUnsupported when the other KEK lacks them.
type FaultKEK struct {
	inner keys.KEK

	mu    sync.Mutex
	fault Fault
	delay time.Duration
	every int
	since int // calls since Flap
	calls int
}

// NewFaultKEK returns a FaultKEK without a fault.
func NewFaultKEK(inner keys.KEK) *FaultKEK { return &FaultKEK{inner: inner} }

// Set changes the fault for all calls that begin later.
func (f *FaultKEK) Set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Flap makes every n-th later call fail as if it were Away, whatever the fault. 0 ends that.
func (f *FaultKEK) Flap(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.every, f.since = n, 0
}

// Slow makes each later call take at least d.
func (f *FaultKEK) Slow(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Calls returns how many calls began so far.
func (f *FaultKEK) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *FaultKEK) begin(ctx context.Context) (Fault, error) {
	f.mu.Lock()
	fault, delay := f.fault, f.delay
	f.calls++
	f.since++
	if f.every > 0 && f.since%f.every == 0 {
		fault = Away
	}
	f.mu.Unlock()
	if delay > 0 {
		pause := time.NewTimer(delay)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fault, ctx.Err()
		}
	}
	switch fault {
	case Away:
		return fault, fmt.Errorf("%w: away", keys.ErrKMSUnavailable)
	case Sealed:
		return fault, fmt.Errorf("%w: sealed", keys.ErrKMSUnavailable)
	case Refused:
		return fault, keys.ErrAuth
	case Hanging:
		<-ctx.Done()
		return fault, ctx.Err()
	}
	return fault, nil
}

// ID implements keys.KEK.
func (f *FaultKEK) ID() string { return f.inner.ID() }

// Wrap implements keys.KEK.
func (f *FaultKEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if _, err := f.begin(ctx); err != nil {
		return nil, err
	}
	return f.inner.Wrap(ctx, plaintext, ad)
}

// Unwrap implements keys.KEK.
func (f *FaultKEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	fault, err := f.begin(ctx)
	if err != nil {
		return nil, err
	}
	out, err := f.inner.Unwrap(ctx, wrapped, ad)
	if err == nil && fault == WrongKey {
		for i := range out {
			out[i] ^= 0x55
		}
	}
	return out, err
}

// Rotate implements keys.Rotator.
func (f *FaultKEK) Rotate(ctx context.Context) error {
	if _, err := f.begin(ctx); err != nil {
		return err
	}
	r, ok := f.inner.(keys.Rotator)
	if !ok {
		return fmt.Errorf("encrypttest: rotation: %w", errors.ErrUnsupported)
	}
	return r.Rotate(ctx)
}

// Trim implements keys.Trimmer.
func (f *FaultKEK) Trim(ctx context.Context, living [][]byte) error {
	if _, err := f.begin(ctx); err != nil {
		return err
	}
	r, ok := f.inner.(keys.Trimmer)
	if !ok {
		return fmt.Errorf("encrypttest: trimming: %w", errors.ErrUnsupported)
	}
	return r.Trim(ctx, living)
}

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

	"github.com/crmguard/crmguard/encrypt"
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
			if _, err := k.Unwrap(ctx, w, other); !errors.Is(err, encrypt.ErrTampered) {
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
			if _, err := k.Unwrap(ctx, bad, ad); !errors.Is(err, encrypt.ErrTampered) {
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
}

// Fault says how a FaultKEK fails.
type Fault int

// The faults.
const (
	None     Fault = iota
	Away           // unreachable: encrypt.ErrKMSUnavailable at once
	Sealed         // the same, as a sealed Vault says it
	Refused        // encrypt.ErrAuth
	Hanging        // no answer until the context ends
	WrongKey       // answers with other bytes than were wrapped
)

// FaultKEK passes calls on to another KEK, slowly or not at all. It counts them.
type FaultKEK struct {
	inner keys.KEK

	mu    sync.Mutex
	fault Fault
	delay time.Duration
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
		return fault, fmt.Errorf("%w: away", encrypt.ErrKMSUnavailable)
	case Sealed:
		return fault, fmt.Errorf("%w: sealed", encrypt.ErrKMSUnavailable)
	case Refused:
		return fault, encrypt.ErrAuth
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

// Rotate implements keys.Rotator, when the inner KEK does.
func (f *FaultKEK) Rotate(ctx context.Context) error {
	if _, err := f.begin(ctx); err != nil {
		return err
	}
	if r, ok := f.inner.(keys.Rotator); ok {
		return r.Rotate(ctx)
	}
	return nil
}

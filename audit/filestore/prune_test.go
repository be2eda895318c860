package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
)

const origin = "crm.example.com/log"

// old writes a log of several segments whose events are two hundred days old.
func old(t testing.TB, dir string, events int) (*audit.Log, *filestore.Store) {
	t.Helper()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	store := open(t, dir, &filestore.Options{SegmentBytes: 4000})
	l, err := audit.Open(context.Background(), store, audittest.Signer(t, origin), &audit.Options{Clock: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if _, err := l.Append(context.Background(), audit.Event{Action: "customer.read", Outcome: audit.Allowed, Actor: fmt.Sprint("emp-", i)}); err != nil {
			t.Fatal(err)
		}
	}
	at = at.Add(200 * 24 * time.Hour)
	return l, store
}

// A crash at each step of a pruning leaves a log that opens, verifies and can
// be pruned to the end.
func TestPruneCrash(t *testing.T) {
	ctx := context.Background()
	crash := errors.New("crash")
	steps := map[string]int{}
	for stop := 0; ; stop++ {
		dir := filepath.Join(t.TempDir(), "log")
		l, _ := old(t, dir, 40)
		head, err := l.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		filestore.SetStep(func(name string) error {
			if n++; n > stop {
				steps[name]++
				return crash
			}
			return nil
		})
		_, err = l.Prune(ctx, 41)
		filestore.SetStep(nil)
		if err != nil && !errors.Is(err, crash) {
			t.Fatal(err)
		}
		done := err == nil
		l.Close()
		if !done { // what the crash left half written
			if err := os.WriteFile(filepath.Join(dir, "00000000000000000000.seg.new"), []byte("CGLO"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		check := func(min, max uint64) {
			t.Helper()
			v, err := audit.Verify(ctx, open(t, dir, nil), []string{audittest.Signer(t, origin).VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{head.Note}, EverySignature: true})
			if err != nil || v.State != audit.Pinned || v.Pruned < min || v.Pruned > max {
				t.Fatalf("stopped at %d: %v, %v", stop, v, err)
			}
		}
		check(0, 41)
		l, err = audit.Open(ctx, open(t, dir, &filestore.Options{SegmentBytes: 4000}), audittest.Signer(t, origin), &audit.Options{PinnedHead: head.Note})
		if err != nil {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.seg.new")); len(left) != 0 {
			t.Fatal(left)
		}
		if n, err := l.Prune(ctx, 41); err != nil || n != 41 {
			t.Fatal(n, err)
		}
		if _, err := l.Append(ctx, audit.Event{Action: "x", Outcome: audit.Allowed}); err != nil {
			t.Fatal(err)
		}
		l.Close()
		check(41, 41)
		if done {
			if stop < 10 || len(steps) != 5 {
				t.Fatalf("%d steps: %v", stop, steps)
			}
			t.Logf("crashed at each of %d steps: %v", stop, steps)
			return
		}
	}
}

// Readers that are at work while a pruning rewrites segments see a whole log
// each time, with or without the events.
func TestPruneBesideReaders(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "log")
	l, store := old(t, dir, 150)
	defer l.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	read := func(s driver.Store, from uint64) {
		defer wg.Done()
		for {
			next := uint64(0)
			for b, err := range s.Batches(ctx, from) {
				if err != nil || next != 0 && b.First != next || next == 0 && b.First > from {
					t.Errorf("from %d: batch at %d, expected %d: %v", from, b.First, next, err)
					return
				}
				next = b.First + uint64(b.Count)
			}
			if next < 151 {
				t.Errorf("from %d: ended at %d", from, next)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}
	other := open(t, dir, nil)
	wg.Add(4)
	go read(store, 0)
	go read(store, 77)
	go read(other, 0)
	go read(other, 120)
	for n := uint64(10); n <= 140; n += 13 {
		if got, err := l.Prune(ctx, n); err != nil || got != n {
			t.Error(got, err)
		}
		if _, err := l.Append(ctx, audit.Event{Action: "x", Outcome: audit.Allowed}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	v, err := audit.Verify(ctx, store, []string{audittest.Signer(t, origin).VerifierKey()}, nil)
	if err != nil || v.State != audit.Unanchored || v.Pruned != 140 {
		t.Fatal(v, err)
	}
}

package audit_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/memstore"
)

const origin = "crm.example.com/log"

var ctx = context.Background()

func clock() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC) }

func openLog(t testing.TB, store driver.Store, opts *audit.Options) *audit.Log {
	t.Helper()
	var o audit.Options
	if opts != nil {
		o = *opts
	}
	if o.Clock == nil {
		o.Clock = clock
	}
	l, err := audit.Open(ctx, store, audittest.Signer(t, origin), &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func fileStore(t testing.TB, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keys(t testing.TB) []string { return []string{audittest.Signer(t, origin).VerifierKey()} }

func verify(t testing.TB, store driver.Store, opts *audit.VerifyOptions) audit.Verdict {
	t.Helper()
	v, err := audit.Verify(ctx, store, keys(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func head(t testing.TB, l *audit.Log) []byte {
	t.Helper()
	c, err := l.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c.Note
}

// full is an event that uses every field.
func full(i int) audit.Event {
	return audit.Event{
		Time: clock().Add(time.Duration(i) * time.Second), Action: "customer.update", Activity: audit.Update,
		Outcome: audit.Intended, Actor: fmt.Sprintf("emp-%d", i%7), Session: "s-1", Tenant: "default",
		Targets: []audit.Target{
			{Type: "customer", ID: fmt.Sprintf("0190b2a0-0000-7000-8000-%012x", i), Version: uint64(i), Digest: []byte{1, 2, 3}},
			{Type: "contact", ID: "not-a-uuid"}, {Type: "customer", ID: ""}},
		Fields: []string{"name", "phone"}, Purpose: "support", Decision: "d-9", Policy: "p-1",
		Controls: []string{"rbac", "owner"}, Ref: uint64(i), HasRef: true, Count: -5, Note: "retry"}
}

func read(i int) audit.Event {
	return audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: "emp-1", Tenant: "default",
		Targets: []audit.Target{{Type: "customer", ID: fmt.Sprint("c", i)}}}
}

func TestAppendAndRead(t *testing.T) {
	for name, store := range map[string]driver.Store{"memory": memstore.New(), "file": fileStore(t, filepath.Join(t.TempDir(), "log"))} {
		t.Run(name, func(t *testing.T) {
			l := openLog(t, store, nil)
			var want []audit.Receipt
			for i := range 20 {
				r, err := l.Append(ctx, full(i))
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, r)
			}
			rs, err := l.AppendAll(ctx, []audit.Event{read(1), read(2), read(3)})
			if err != nil || len(rs) != 3 || rs[2].Index != 23 || l.Size() != 24 {
				t.Fatalf("%v, %v, size %d", rs, err, l.Size())
			}
			check := func(l *audit.Log) {
				t.Helper()
				n := uint64(0)
				for e, err := range l.Events(ctx, 0) {
					if err != nil || e.Index != n {
						t.Fatalf("event %d: %d, %v", n, e.Index, err)
					}
					if n >= 1 && n <= 20 {
						if e.Receipt != want[n-1] {
							t.Fatalf("event %d: receipt differs", n)
						}
						if got, want := fmt.Sprintf("%+v", e.Event), fmt.Sprintf("%+v", full(int(n)-1)); got != want {
							t.Fatalf("event %d:\n%s\n%s", n, got, want)
						}
					}
					n++
				}
				if n != 24 {
					t.Fatalf("%d events", n)
				}
			}
			check(l)
			for e, err := range l.Events(ctx, 22) {
				if err != nil || e.Index != 22 {
					t.Fatal(e.Index, err)
				}
				break
			}
			pin := head(t, l)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(ctx, read(1)); !errors.Is(err, audit.ErrClosed) {
				t.Fatalf("append after close: %v", err)
			}
			l = openLog(t, store, &audit.Options{PinnedHead: pin})
			check(l)
			if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}, EverySignature: true}); v.State != audit.Pinned || !v.OK() || v.Size != 24 || v.Pinned != 24 {
				t.Fatal(v)
			}
			if v := verify(t, store, nil); v.State != audit.Unanchored || v.OK() {
				t.Fatal(v)
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	l := openLog(t, memstore.New(), &audit.Options{Sealer: audittest.NewSealer()})
	for name, change := range map[string]func(*audit.Event){
		"no action":            func(e *audit.Event) { e.Action = "" },
		"no outcome":           func(e *audit.Event) { e.Outcome = 0 },
		"outcome":              func(e *audit.Event) { e.Outcome = 6 },
		"activity":             func(e *audit.Event) { e.Activity = 200 },
		"early":                func(e *audit.Event) { e.Time = time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC) },
		"late":                 func(e *audit.Event) { e.Time = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) },
		"newline":              func(e *audit.Event) { e.Actor = "a\nb" },
		"not UTF-8":            func(e *audit.Event) { e.Note = "\xff" },
		"empty field":          func(e *audit.Event) { e.Fields = []string{""} },
		"control in a control": func(e *audit.Event) { e.Controls = []string{"a\x7f"} },
		"target without type":  func(e *audit.Event) { e.Targets = []audit.Target{{ID: "x"}} },
		"target id":            func(e *audit.Event) { e.Targets = []audit.Target{{Type: "t", ID: "\x00"}} },
		"digest":               func(e *audit.Event) { e.Targets = []audit.Target{{Type: "t", Digest: make([]byte, 65)}} },
		"ref":                  func(e *audit.Event) { e.HasRef = false },
		"too large":            func(e *audit.Event) { e.Note = strings.Repeat("x", 65536) },
		"detail by hand":       func(e *audit.Event) { e.Details = []audit.Detail{{Name: "x"}} },
		"detail without name":  func(e *audit.Event) { e.Details = []audit.Detail{audit.Personal("", [16]byte{1}, "v")} },
		"long value": func(e *audit.Event) {
			e.Details = []audit.Detail{audit.Personal("x", [16]byte{1}, strings.Repeat("v", 65536))}
		},
	} {
		e := full(1)
		change(&e)
		if _, err := l.Append(ctx, e); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Size() != 1 {
		t.Fatalf("size %d", l.Size())
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.Append(gone, full(1)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if rs, err := l.AppendAll(ctx, nil); err != nil || rs != nil {
		t.Fatal(rs, err)
	}
	// A bulk write of 1,000 records fits.
	e := full(1)
	e.Targets = nil
	for i := range 1000 {
		e.Targets = append(e.Targets, audit.Target{Type: "customer", ID: fmt.Sprintf("0190b2a0-0000-7000-8000-%012x", i), Version: 300, Digest: make([]byte, 32)})
	}
	if _, err := l.Append(ctx, e); err != nil {
		t.Fatal(err)
	}
}

func TestConcurrent(t *testing.T) {
	store := fileStore(t, filepath.Join(t.TempDir(), "log"))
	var batches int
	l := openLog(t, store, &audit.Options{CheckpointEvery: time.Millisecond, OnCheckpoint: func(audit.Checkpoint) {},
		OnCommit: func(events, bytes int, took time.Duration, err error) { batches++ }})
	var wg sync.WaitGroup
	seen := make([]uint64, 16)
	for w := range seen {
		wg.Go(func() {
			for i := range 50 {
				r, err := l.Append(ctx, read(i))
				if err != nil || r.Index <= seen[w] {
					t.Errorf("%d after %d: %v", r.Index, seen[w], err)
					return
				}
				seen[w] = r.Index
				if i%10 == 0 {
					if v, err := audit.Verify(ctx, store, keys(t), nil); err != nil || v.State != audit.Unanchored || v.Size <= r.Index {
						t.Errorf("beside the writer: %v, %v", v, err)
					}
					if es, err := l.Query(ctx, audit.Filter{TargetType: "customer", TargetID: fmt.Sprint("c", i)}, l.Size(), 3); err != nil || len(es) == 0 {
						t.Errorf("query: %d, %v", len(es), err)
					}
				}
			}
		})
	}
	wg.Wait()
	pin := head(t, l)
	l.Close()
	if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Pinned || v.Size != 801 {
		t.Fatal(v)
	}
	if batches == 0 || batches > 802 {
		t.Fatalf("%d batches", batches)
	}
}

func TestSecondWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	openLog(t, fileStore(t, dir), nil)
	if _, err := audit.Open(ctx, fileStore(t, dir), audittest.Signer(t, origin), nil); !errors.Is(err, audit.ErrLocked) {
		t.Fatal(err)
	}
}

func TestTruncatedIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openLog(t, fileStore(t, dir), nil)
	early := head(t, l)
	path := filepath.Join(dir, "00000000000000000000.seg")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := l.Append(ctx, full(i)); err != nil {
			t.Fatal(err)
		}
	}
	pin := head(t, l)
	l.Close()
	signer := audittest.Signer(t, origin)
	beside, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil || string(beside) != string(pin) {
		t.Fatalf("the copy beside the log is not the last checkpoint: %v", err)
	}
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Open(ctx, fileStore(t, dir), signer, nil); !errors.Is(err, audit.ErrTruncated) {
		t.Fatalf("shorter than the checkpoint beside it: %v", err)
	}
	if v := verify(t, fileStore(t, dir), nil); v.State != audit.Truncated || v.At != 1 {
		t.Fatal(v)
	}
	os.Remove(filepath.Join(dir, "checkpoint"))
	if _, err := audit.Open(ctx, fileStore(t, dir), signer, &audit.Options{PinnedHead: pin}); !errors.Is(err, audit.ErrTruncated) {
		t.Fatalf("shorter than the pinned head: %v", err)
	}
	if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{early, pin}}); v.State != audit.Truncated || v.At != 1 {
		t.Fatal(v)
	}
	if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{early}}); v.State != audit.Pinned {
		t.Fatal(v)
	}
	os.RemoveAll(dir)
	if _, err := audit.Open(ctx, fileStore(t, dir), signer, &audit.Options{PinnedHead: pin}); !errors.Is(err, audit.ErrTruncated) {
		t.Fatalf("gone: %v", err)
	}
	if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Missing {
		t.Fatal(v)
	}
	if _, err := audit.Open(ctx, fileStore(t, dir), signer, &audit.Options{PinnedHead: []byte("x\n")}); err == nil {
		t.Fatal("a malformed head is taken")
	}
	// A history of the same name and key that does not contain the head.
	openLog(t, fileStore(t, dir), nil).Close()
	if _, err := audit.Open(ctx, fileStore(t, dir), signer, &audit.Options{PinnedHead: pin}); !errors.Is(err, audit.ErrTampered) {
		t.Fatalf("another log: %v", err)
	}
	if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Foreign {
		t.Fatal(v)
	}
}

func TestRecovery(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := openLog(t, fileStore(t, dir), nil)
	if _, err := l.Append(ctx, full(1)); err != nil {
		t.Fatal(err)
	}
	pin := head(t, l)
	l.Close()
	f, err := os.OpenFile(filepath.Join(dir, "00000000000000000000.seg"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("CGBA\x00\x00")
	f.Close()
	if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Truncated || v.At != 2 {
		t.Fatal(v)
	}
	l = openLog(t, fileStore(t, dir), &audit.Options{PinnedHead: pin})
	es, err := l.Query(ctx, audit.Filter{Action: "audit.recovered"}, l.Size(), 5)
	if err != nil || len(es) != 1 || es[0].Index != 2 || es[0].Event.Count != 6 || len(es[0].Event.Targets[0].Digest) != 32 {
		t.Fatalf("%+v, %v", es, err)
	}
	if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Pinned || v.Size != 3 {
		t.Fatal(v)
	}
}

// broken wraps a store whose writer fails after some appends.
type broken struct {
	driver.Store
	after *int
	err   error
}

type brokenWriter struct {
	driver.Writer
	b broken
}

func (b broken) Writer(ctx context.Context) (driver.Writer, error) {
	w, err := b.Store.Writer(ctx)
	return brokenWriter{w, b}, err
}

func (w brokenWriter) Append(ctx context.Context, b driver.Batch) error {
	if *w.b.after--; *w.b.after < 0 {
		return w.b.err
	}
	return w.Writer.Append(ctx, b)
}

func TestFailsClosed(t *testing.T) {
	after := 2
	inner := memstore.New()
	l := openLog(t, broken{inner, &after, errors.New("no space left on device")}, nil)
	if _, err := l.Append(ctx, full(1)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := l.Append(ctx, full(2)); !errors.Is(err, audit.ErrUnavailable) {
			t.Fatal(err)
		}
		after = 100 // it stays closed though the disk has room again
	}
	if !errors.Is(l.Err(), audit.ErrUnavailable) || l.Size() != 2 {
		t.Fatal(l.Err(), l.Size())
	}
	if err := l.Close(); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatal(err)
	}
	l = openLog(t, inner, nil)
	if _, err := l.Append(ctx, full(2)); err != nil {
		t.Fatal(err)
	}
}

type moody struct {
	audit.Signer
	mu   sync.Mutex
	down bool
}

func (m *moody) Sign(ctx context.Context, msg []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, errors.New("signer is gone")
	}
	return m.Signer.Sign(ctx, msg)
}

func TestSignerGone(t *testing.T) {
	m := &moody{Signer: audittest.Signer(t, origin)}
	store := memstore.New()
	l, err := audit.Open(ctx, store, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	set := func(down bool) { m.mu.Lock(); m.down = down; m.mu.Unlock() }
	set(true)
	if _, err := l.Append(ctx, full(1)); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatal(err)
	}
	set(false)
	if r, err := l.Append(ctx, full(1)); err != nil || r.Index != 1 {
		t.Fatal(r, err)
	}
	if v := verify(t, store, nil); v.State != audit.Unanchored || v.Size != 2 {
		t.Fatal(v)
	}
}

func TestKeyChange(t *testing.T) {
	store := memstore.New()
	path := filepath.Join(t.TempDir(), "key")
	old, err := audit.OpenSigningKey(path, origin)
	if err != nil {
		t.Fatal(err)
	}
	again, err := audit.OpenSigningKey(path, origin)
	if err != nil || again.VerifierKey() != old.VerifierKey() {
		t.Fatal(err)
	}
	if _, err := audit.OpenSigningKey(path, "other"); err == nil {
		t.Fatal("the key of another log is taken")
	}
	if s := fmt.Sprintf("%v %+v %#v %s", old, old, old, old); strings.Contains(s, "PRIVATE") || strings.Contains(s, "key:") {
		t.Fatal(s)
	}
	l, err := audit.Open(ctx, store, old, nil)
	if err != nil {
		t.Fatal(err)
	}
	pin := head(t, l)
	l.Close()
	now := audittest.Signer(t, origin)
	if _, err := audit.Open(ctx, store, now, nil); !errors.Is(err, audit.ErrTampered) {
		t.Fatalf("old key not given: %v", err)
	}
	l, err = audit.Open(ctx, store, now, &audit.Options{OldKeys: []string{old.VerifierKey()}, PinnedHead: pin})
	if err != nil {
		t.Fatal(err)
	}
	es, err := l.Query(ctx, audit.Filter{Action: "audit.key"}, math.MaxUint64, 9)
	if err != nil || len(es) != 1 || es[0].Index != 1 {
		t.Fatal(es, err)
	}
	l.Close()
	both := []string{now.VerifierKey(), old.VerifierKey()}
	if v, err := audit.Verify(ctx, store, both, &audit.VerifyOptions{Pins: [][]byte{pin}, EverySignature: true}); err != nil || v.State != audit.Pinned {
		t.Fatal(v, err)
	}
	if v, err := audit.Verify(ctx, store, both[:1], nil); err != nil || v.State != audit.KeyUnknown || v.At != 0 {
		t.Fatal(v, err)
	}
	if v, err := audit.Verify(ctx, store, both[1:], nil); err != nil || v.State != audit.KeyUnknown || v.At != 1 {
		t.Fatal(v, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.OpenSigningKey(path, origin); err == nil {
		t.Fatal("a key that others may read is taken")
	}
	for _, bad := range [][]string{nil, {""}, {"x"}, {now.VerifierKey(), strings.Replace(now.VerifierKey(), "crm", "erp", 1)}} {
		if v, err := audit.Verify(ctx, store, bad, nil); err == nil || v.OK() {
			t.Fatalf("keys %q: %v", bad, v)
		}
	}
	if _, err := audit.NewEd25519Signer("a b", ed25519.NewKeyFromSeed(make([]byte, 32))); err == nil {
		t.Fatal("a name with a space is taken")
	}
	if _, err := audit.NewEd25519Signer("ab", nil); err == nil {
		t.Fatal("no key is taken")
	}
}

func TestDetails(t *testing.T) {
	store, sealer := memstore.New(), audittest.NewSealer()
	l := openLog(t, store, &audit.Options{Sealer: sealer})
	alice, bob := [16]byte{1}, [16]byte{2}
	e := full(1)
	e.Details = []audit.Detail{audit.Personal("search.term", alice, "+86 138 0000 0000"), audit.Personal("reason", bob, "")}
	if s := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(s, "138") {
		t.Fatal(s)
	}
	r, err := l.Append(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	r2, err := l.Append(ctx, e)
	if err != nil {
		t.Fatal(err)
	}
	get := func(i uint64) audit.Entry {
		t.Helper()
		next, stop := iter.Pull2(l.Events(ctx, i))
		defer stop()
		e, err, _ := next()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	first, second := get(r.Index), get(r2.Index)
	if first.Event.Details[0].Commitment == second.Event.Details[0].Commitment {
		t.Fatal("equal values have equal commitments")
	}
	if _, known := first.Event.Details[0].Value(); known {
		t.Fatal("known without opening")
	}
	ds, err := l.Reveal(ctx, first)
	if err != nil || len(ds) != 2 {
		t.Fatal(err)
	}
	if v, known := ds[0].Value(); !known || v != "+86 138 0000 0000" {
		t.Fatal(v, known)
	}
	opts := &audit.VerifyOptions{Pins: [][]byte{head(t, l)}, Sealer: sealer}
	if v := verify(t, store, opts); !v.OK() || v.Opened != 4 || v.Erased != 0 || v.Unchecked != 0 {
		t.Fatal(v)
	}
	sealer.Erase(alice)
	if v := verify(t, store, opts); !v.OK() || v.Opened != 2 || v.Erased != 2 {
		t.Fatal(v)
	}
	ds, err = l.Reveal(ctx, second)
	if err != nil {
		t.Fatal(err)
	}
	if _, known := ds[0].Value(); known {
		t.Fatal("erased and known")
	}
	sealer.SetDown(true)
	if v := verify(t, store, opts); !v.OK() || v.Unchecked != 4 {
		t.Fatal(v)
	}
	if _, err := l.Reveal(ctx, first); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := l.Append(ctx, e); !errors.Is(err, audit.ErrUnavailable) {
		t.Fatal(err)
	}
	opts.Sealer = audittest.NewSealer() // the keys are gone, and nobody says why
	if v := verify(t, store, opts); v.State != audit.Withheld || v.At != 1 || v.OK() {
		t.Fatal(v)
	}
	opts.Sealer = nil
	if v := verify(t, store, opts); !v.OK() || v.Unchecked != 4 {
		t.Fatal(v)
	}
	plain := openLog(t, memstore.New(), nil)
	if _, err := plain.Append(ctx, e); !errors.Is(err, audit.ErrInvalid) {
		t.Fatal(err)
	}
}

func TestQuery(t *testing.T) {
	store := memstore.New()
	l := openLog(t, store, nil)
	var all []audit.Event
	for i := range 3000 {
		e := full(i)
		e.Actor, e.Tenant = fmt.Sprint("emp-", i%7), fmt.Sprint("t", i%2)
		e.Action = []string{"customer.read", "customer.update", "quote.read"}[i%3]
		e.Targets = []audit.Target{{Type: "customer", ID: fmt.Sprint(i % 50)}, {Type: "customer", ID: fmt.Sprint(i % 50)}, {Type: "quote", ID: fmt.Sprint(i % 11)}}
		all = append(all, e)
	}
	for i := 0; i < len(all); i += 100 {
		if _, err := l.AppendAll(ctx, all[i:i+100]); err != nil {
			t.Fatal(err)
		}
	}
	at := func(i int) time.Time { return full(i).Time }
	check := func(l *audit.Log) {
		t.Helper()
		for name, c := range map[string]struct {
			f     audit.Filter
			match func(i int) bool
		}{
			"target":       {audit.Filter{TargetType: "customer", TargetID: "7"}, func(i int) bool { return i%50 == 7 }},
			"target+actor": {audit.Filter{TargetType: "quote", TargetID: "3", Actor: "emp-2"}, func(i int) bool { return i%11 == 3 && i%7 == 2 }},
			"actor":        {audit.Filter{Actor: "emp-6"}, func(i int) bool { return i%7 == 6 }},
			"action":       {audit.Filter{Action: "quote.read", Tenant: "t1"}, func(i int) bool { return i%3 == 2 && i%2 == 1 }},
			"tenant":       {audit.Filter{Tenant: "t0"}, func(i int) bool { return i%2 == 0 }},
			"time":         {audit.Filter{From: at(100), To: at(130)}, func(i int) bool { return i >= 100 && i < 130 }},
			"from":         {audit.Filter{Actor: "emp-1", From: at(2900), To: time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)}, func(i int) bool { return i%7 == 1 && i >= 2900 }},
			"type":         {audit.Filter{TargetType: "quote"}, func(i int) bool { return true }},
			"id":           {audit.Filter{TargetID: "49"}, func(i int) bool { return i%50 == 49 }},
			"nobody":       {audit.Filter{Actor: "emp-9"}, func(i int) bool { return false }},
			"far":          {audit.Filter{From: time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)}, func(i int) bool { return false }},
		} {
			var want, got []uint64
			for i := len(all) - 1; i >= 0; i-- {
				if c.match(i) {
					want = append(want, uint64(i)+1)
				}
			}
			for before := uint64(math.MaxUint64); ; {
				es, err := l.Query(ctx, c.f, before, 13)
				if err != nil || len(es) > 13 {
					t.Fatal(name, len(es), err)
				}
				for _, e := range es {
					if fmt.Sprintf("%+v", e.Event) != fmt.Sprintf("%+v", all[e.Index-1]) {
						t.Fatalf("%s: event %d differs", name, e.Index)
					}
					got = append(got, e.Index)
				}
				if len(es) < 13 {
					break
				}
				before = es[12].Index
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %d entries, want %d", name, len(got), len(want))
			}
		}
	}
	check(l)
	l.Close()
	check(openLog(t, store, nil))
	if es, err := l.Query(ctx, audit.Filter{}, 5, 0); err != nil || es != nil {
		t.Fatal(es, err)
	}
}

// What only the log itself may write is refused by each way in, and a log of others' events keeps its pruning apart.
func TestReserved(t *testing.T) {
	l := openLog(t, memstore.New(), nil)
	for _, action := range []string{"audit.pruned", "audit.recovered", "audit.x"} {
		e := audit.Event{Action: action, Activity: audit.Delete, Actor: "audit", Outcome: audit.Allowed, Count: 1}
		_, err := l.Append(ctx, e)
		_, err2 := l.AppendAll(ctx, []audit.Event{read(1), e})
		_, err3 := l.AppendAsync(ctx, e)
		for _, err := range []error{err, err2, err3} {
			if !errors.Is(err, audit.ErrInvalid) {
				t.Errorf("%s: %v", action, err)
			}
		}
		e.Actor = "emp-1"
		if _, err := l.Append(ctx, e); err != nil { // it is not believed
			t.Error(err)
		}
	}
}

// A store that has read a log says what a fresh one does when the log is gone.
func TestGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	store := fileStore(t, dir)
	l := openLog(t, store, nil)
	if _, err := l.Append(ctx, read(1)); err != nil {
		t.Fatal(err)
	}
	pin := head(t, l)
	l.Close()
	if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}}); !v.OK() {
		t.Fatal(v)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Missing {
		t.Error(v)
	}
	if _, err := audit.Open(ctx, store, audittest.Signer(t, origin), &audit.Options{PinnedHead: pin}); !errors.Is(err, audit.ErrTruncated) {
		t.Error(err)
	}
}

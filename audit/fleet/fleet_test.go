package fleet_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/fleet"
	"github.com/crmguard/crmguard/audit/memstore"
)

var ctx = context.Background()

func signer(t testing.TB, name string, seed byte) audit.Signer {
	t.Helper()
	s, err := audit.NewEd25519Signer(name, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openLog(t testing.TB, store driver.Store, s audit.Signer, opts *audit.Options) *audit.Log {
	t.Helper()
	l, err := audit.Open(ctx, store, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *audit.Log, n int) []byte {
	t.Helper()
	for range n {
		if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: "e1"}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := l.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c.Note
}

const ledgerName = "crm.example.com/logs"

// world is a log of logs over the logs a, b and c in folders.
type world struct {
	t      *testing.T
	dir    string
	store  *memstore.Store
	log    *audit.Log
	ledger *fleet.Ledger
	logs   map[string]*audit.Log
}

func name(s string) string { return "crm.example.com/" + s }

func (w *world) folder(s string) string { return filepath.Join(w.dir, s) }

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), store: memstore.New(), logs: map[string]*audit.Log{}}
	w.log = openLog(t, w.store, signer(t, ledgerName, 1), nil)
	w.open()
	for i, s := range []string{"a", "b", "c"} {
		store, err := filestore.Open(w.folder(s), nil)
		if err != nil {
			t.Fatal(err)
		}
		key := signer(t, name(s), byte(10+i))
		w.logs[s] = openLog(t, store, key, nil)
		if err := w.ledger.Enroll(ctx, key.VerifierKey()); err != nil {
			t.Fatal(err)
		}
		if err := w.ledger.Record(ctx, add(t, w.logs[s], 3)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.ledger, err = fleet.Open(ctx, w.log, &fleet.Options{Every: -1}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) verify() fleet.Report {
	w.t.Helper()
	c, err := w.log.Checkpoint(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := fleet.Verify(ctx, w.store, []string{signer(w.t, ledgerName, 1).VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{c.Note}},
		func(origin string) (driver.Store, error) {
			dir := w.folder(strings.TrimPrefix(origin, name("")))
			if _, err := os.Stat(dir); err != nil {
				return nil, err
			}
			return filestore.Open(dir, nil)
		})
	if err != nil {
		w.t.Fatal(err)
	}
	if !r.Ledger.OK() {
		w.t.Fatal(r.Ledger)
	}
	return r
}

func (w *world) want(r fleet.Report, states ...audit.State) {
	w.t.Helper()
	if len(r.Logs) != len(states) {
		w.t.Fatalf("%d logs", len(r.Logs))
	}
	for i, s := range states {
		if r.Logs[i].Verdict.State != s {
			w.t.Errorf("%s: %v, want %v", r.Logs[i].Origin, r.Logs[i].Verdict, s)
		}
	}
}

func TestLostInstances(t *testing.T) {
	w := newWorld(t)
	r := w.verify()
	w.want(r, audit.Pinned, audit.Pinned, audit.Pinned)
	if !r.OK() || r.Logs[0].Heads != 1 || r.Logs[0].Verdict.Size != 4 {
		t.Fatal(r)
	}
	before := t.TempDir()
	if err := os.CopyFS(before, os.DirFS(w.folder("b"))); err != nil {
		t.Fatal(err)
	}
	w.open() // it knows what it knew
	if err := w.ledger.Record(ctx, add(t, w.logs["b"], 2)); err != nil {
		t.Fatal(err)
	}
	for _, l := range w.logs {
		l.Close()
	}
	// One is lost with its folder, one has an older copy in its place.
	if err := errors.Join(os.RemoveAll(w.folder("a")), os.RemoveAll(w.folder("b")), os.CopyFS(w.folder("b"), os.DirFS(before))); err != nil {
		t.Fatal(err)
	}
	r = w.verify()
	w.want(r, audit.Missing, audit.Truncated, audit.Pinned)
	if r.OK() {
		t.Error("good with a log that is lost")
	}
	// An empty folder is not better than none.
	if err := os.MkdirAll(w.folder("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.want(w.verify(), audit.Missing, audit.Truncated, audit.Pinned)

	// A log that is retired and gone is still missing: it has to be kept.
	if err := w.ledger.Retire(ctx, name("a")); err != nil {
		t.Fatal(err)
	}
	if r = w.verify(); !r.Logs[0].Retired || r.Logs[0].Verdict.State != audit.Missing {
		t.Error(r.Logs[0])
	}
}

func TestRecord(t *testing.T) {
	w := newWorld(t)
	good := add(t, w.logs["a"], 1)
	for what, tc := range map[string]struct {
		msg  []byte
		want error
	}{
		"nothing":         {nil, fleet.ErrHead},
		"garbage":         {[]byte("crm.example.com/a\nx\n"), fleet.ErrHead},
		"unknown":         {add(t, openLog(t, memstore.New(), signer(t, name("d"), 9), nil), 1), fleet.ErrUnknown},
		"a foreign key":   {add(t, openLog(t, memstore.New(), signer(t, name("a"), 9), nil), 9), fleet.ErrHead},
		"too long":        {append(bytes.Clone(good), bytes.Repeat([]byte("— x AAAA\n"), 2000)...), fleet.ErrHead},
		"another history": {add(t, openLog(t, memstore.New(), signer(t, name("a"), 10), nil), 3), fleet.ErrForked},
	} {
		if err := w.ledger.Record(ctx, tc.msg); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.want(w.verify(), audit.Foreign, audit.Pinned, audit.Pinned) // a second log under the key of a

	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 2
		if err := w.ledger.Record(ctx, bad); err == nil && at < len(good)-4 { // the last bits of base64 say nothing
			t.Fatalf("byte %d changed: taken", at)
		}
	}
	size := w.log.Size()
	if err := w.ledger.Record(ctx, good); err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.Record(ctx, good); err != nil || w.log.Size() > size+1 {
		t.Error("the same head is written twice", err)
	}
}

func TestEvery(t *testing.T) {
	w := newWorld(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	g, err := fleet.Open(ctx, w.log, &fleet.Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	now = time.Now().Add(2 * time.Minute) // after what is recorded
	sizes := []uint64{w.log.Size()}
	for _, after := range []time.Duration{0, 30 * time.Second, 31 * time.Second} {
		now = now.Add(after)
		if err := g.Record(ctx, add(t, w.logs["a"], 1)); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, w.log.Size())
	}
	if sizes[1] != sizes[0]+1 || sizes[2] != sizes[1] || sizes[3] != sizes[2]+1 {
		t.Error(sizes)
	}
}

func TestEnroll(t *testing.T) {
	w := newWorld(t)
	a, second := signer(t, name("a"), 10).VerifierKey(), signer(t, name("a"), 20)
	for what, keys := range map[string][]string{
		"no key": nil, "garbage": {"x"}, "twice": {a, a}, "two names": {a, signer(t, name("b"), 11).VerifierKey()},
	} {
		if err := w.ledger.Enroll(ctx, keys...); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := w.ledger.Enroll(ctx, second.VerifierKey()); !errors.Is(err, fleet.ErrEnrolled) {
		t.Errorf("the old key is lacking: %v", err)
	}
	// A new key, the old one beside it.
	if err := w.ledger.Enroll(ctx, a, second.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	w.logs["a"].Close()
	store, err := filestore.Open(w.folder("a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := openLog(t, store, second, &audit.Options{OldKeys: []string{a}})
	if err := w.ledger.Record(ctx, add(t, l, 1)); err != nil {
		t.Fatal(err)
	}
	w.want(w.verify(), audit.Pinned, audit.Pinned, audit.Pinned)
	w.open()
	if err := w.ledger.Record(ctx, add(t, l, 1)); err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.Retire(ctx, name("nobody")); !errors.Is(err, fleet.ErrUnknown) {
		t.Error(err)
	}
	if err := w.ledger.Retire(ctx, name("a")); err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.Record(ctx, add(t, l, 1)); !errors.Is(err, fleet.ErrUnknown) {
		t.Errorf("a retired log goes on: %v", err)
	}
	if err := w.ledger.Retire(ctx, name("a")); !errors.Is(err, fleet.ErrUnknown) {
		t.Error("retired twice", err)
	}
	if err := w.ledger.Enroll(ctx, a, second.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	if err := w.ledger.Record(ctx, add(t, l, 1)); err != nil {
		t.Error("it does not come back", err)
	}
}

func TestHTTP(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(w.ledger)
	defer server.Close()
	var failed []error
	push := fleet.Push(nil, server.URL, time.Second, func(err error) { failed = append(failed, err) })
	head := func(l *audit.Log) audit.Checkpoint {
		c, err := l.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	add(t, w.logs["a"], 4)
	push(head(w.logs["a"]))
	if r := w.verify(); r.Logs[0].Heads != 2 || len(failed) != 0 {
		t.Fatal(r.Logs[0], failed)
	}
	stranger := openLog(t, memstore.New(), signer(t, name("d"), 9), nil)
	add(t, stranger, 1)
	push(head(stranger))
	fork := openLog(t, memstore.New(), signer(t, name("a"), 10), nil)
	add(t, fork, 7)
	push(head(fork))
	push(audit.Checkpoint{Note: []byte("x")})
	for i, want := range []error{fleet.ErrUnknown, fleet.ErrForked, fleet.ErrHead} {
		if len(failed) <= i || !errors.Is(failed[i], want) {
			t.Fatal(i, failed)
		}
	}
	resp, err := http.Get(server.URL)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Error(resp.StatusCode, err)
	}
	resp.Body.Close()
	resp, err = http.Post(server.URL, "text/plain", io.LimitReader(zeros{}, 1<<20))
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Error("a long body", resp.StatusCode, err)
	}
	resp.Body.Close()
	w.log.Close()
	add(t, w.logs["b"], 1)
	push(head(w.logs["b"]))
	server.Close()
	push(head(w.logs["b"]))
	fleet.Push(nil, "http://[", 0, nil)(head(w.logs["b"]))
	if len(failed) != 5 {
		t.Error("a ledger that is closed, or not there:", failed)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// What the log of logs says is proven before it is believed.
func TestLedgerOutOfOrder(t *testing.T) {
	w := newWorld(t)
	keys := []string{signer(t, ledgerName, 1).VerifierKey()}
	none := func(string) (driver.Store, error) { return nil, fs.ErrNotExist }
	if r, err := fleet.Verify(ctx, memstore.New(), keys, nil, none); err != nil || r.OK() || r.Ledger.State != audit.Missing {
		t.Error(r, err)
	}
	if r, err := fleet.Verify(ctx, w.store, keys, nil, none); err != nil || r.OK() || r.Ledger.State != audit.Unanchored || len(r.Logs) != 3 {
		t.Error(r, err)
	}
	if r, err := fleet.Verify(ctx, w.store, []string{signer(t, ledgerName, 2).VerifierKey()}, nil, none); err != nil || r.Ledger.State != audit.KeyUnknown {
		t.Error(r, err)
	}
	// Somebody with the key of the log of logs writes what it never writes.
	for what, e := range map[string]audit.Event{
		"a head of nobody":    {Action: "log.head", Note: "eA=="},
		"a head that is none": {Action: "log.head", Note: "?"},
		"keys that are none":  {Action: "log.enrolled", Note: "x"},
		"nobody ends":         {Action: "log.retired"},
	} {
		store := memstore.New()
		l := openLog(t, store, signer(t, ledgerName, 1), nil)
		e.Outcome, e.Actor, e.Targets = audit.Allowed, "x", []audit.Target{{Type: "log", ID: "y"}}
		if _, err := l.Append(ctx, e); err != nil {
			t.Fatal(err)
		}
		c, err := l.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fleet.Open(ctx, l, nil); err == nil {
			t.Errorf("%s: opened", what)
		}
		if r, err := fleet.Verify(ctx, store, keys, &audit.VerifyOptions{Pins: [][]byte{c.Note}}, none); err == nil {
			t.Errorf("%s: %v", what, r)
		}
	}
}

// A log of logs is not pruned: the logs in it would be forgotten.
func TestPrunedLedger(t *testing.T) {
	store, key := memstore.New(), signer(t, ledgerName, 1)
	at := time.Now().Add(-400 * 24 * time.Hour)
	l := openLog(t, store, key, &audit.Options{Clock: func() time.Time { return at }, Hold: fleet.Hold})
	g, err := fleet.Open(ctx, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Enroll(ctx, signer(t, name("a"), 10).VerifierKey()); err != nil {
		t.Fatal(err)
	}
	at = time.Now()
	if _, err := l.Prune(ctx, l.Size()); !errors.Is(err, audit.ErrHeld) {
		t.Fatal(err)
	}
	l.Close()
	l = openLog(t, store, key, nil)
	if n, err := l.Prune(ctx, l.Size()); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if _, err := fleet.Open(ctx, l, nil); !errors.Is(err, fleet.ErrPruned) {
		t.Error(err)
	}
	r, err := fleet.Verify(ctx, store, []string{key.VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{add(t, l, 1)}},
		func(string) (driver.Store, error) { return nil, fs.ErrNotExist })
	if !errors.Is(err, fleet.ErrPruned) || r.OK() {
		t.Error(r, err)
	}
}

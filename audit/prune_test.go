package audit_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/audit/memstore"
)

// timed is a clock that a test moves.
type timed struct{ at time.Time }

func (c *timed) now() time.Time { return c.at }

const day = 24 * time.Hour

// aged writes 60 old events with details, and 40 young ones.
func aged(t testing.TB, store driver.Store, opts audit.Options) (*audit.Log, *timed) {
	t.Helper()
	c := &timed{clock().Add(-300 * day)}
	opts.Clock, opts.Sealer = c.now, clearSealer{}
	l := openLog(t, store, &opts)
	add := func(n int) {
		for i := range n {
			e := read(i)
			e.Time = c.at
			e.Details = []audit.Detail{audit.Personal("reason", [16]byte{1}, "a personal reason")}
			if _, err := l.AppendAll(ctx, []audit.Event{e, read(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(30)
	c.at = clock()
	add(20)
	return l, c
}

func TestPrune(t *testing.T) {
	small, err := filestore.Open(filepath.Join(t.TempDir(), "log"), &filestore.Options{SegmentBytes: 5000})
	if err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]driver.Store{"memory": memstore.New(), "file": fileStore(t, filepath.Join(t.TempDir(), "log")), "small segments": small} {
		t.Run(name, func(t *testing.T) {
			l, c := aged(t, store, audit.Options{})
			leaves := leavesOf(t, store)
			var old [][]byte // heads and receipts from before
			for _, i := range []uint64{0, 9, 41, 60, 90} {
				r, err := l.Tree().Receipt(ctx, i)
				if err != nil {
					t.Fatal(err)
				}
				old = append(old, r)
			}
			pins := [][]byte{head(t, l)}
			for _, b := range batchesOf(t, store) {
				if b.First < 30 {
					pins = append(pins, batchNote(t, b))
				}
			}
			// Inside a batch: the cut is at its beginning.
			n, err := l.Prune(ctx, 20)
			if err != nil || n != 19 || l.Pruned() != 19 || l.Size() != 102 {
				t.Fatal(n, err, l.Size())
			}
			if n, err = l.Prune(ctx, 19); err != nil || n != 19 || l.Size() != 102 { // nothing to do, nothing logged
				t.Fatal(n, err)
			}
			if n, err = l.Prune(ctx, 45); err != nil || n != 45 {
				t.Fatal(n, err)
			}
			check := func(l *audit.Log) {
				t.Helper()
				first := true
				for e, err := range l.Events(ctx, 0) {
					if err != nil || first && e.Index != 45 {
						t.Fatal(e.Index, err)
					}
					first = false
				}
				for _, f := range []audit.Filter{{}, {Actor: "emp-1"}, {Tenant: "default"}, {TargetType: "customer", TargetID: "c3"}} {
					es, err := l.Query(ctx, f, l.Size(), 1000)
					if err != nil || len(es) == 0 || es[len(es)-1].Index < 45 {
						t.Fatal(f, len(es), err)
					}
				}
				checkTree(t, l.Tree(), append(leaves, leavesOf(t, store)[len(leavesOf(t, store))-2:]...), 7)
				if _, err := l.Append(ctx, read(1)); err != nil {
					t.Fatal(err)
				}
			}
			check(l)
			for _, r := range old {
				if _, _, err := audit.VerifyReceipt(r, keys(t)); err != nil {
					t.Fatal(err)
				}
			}
			r, err := l.Tree().Receipt(ctx, 9) // of an event that is gone
			if err != nil {
				t.Fatal(err)
			}
			e, _, err := audit.VerifyReceipt(r, keys(t))
			if err != nil || e.Index != 9 || e.Leaf != leaves[9] || e.Event.Action != "" {
				t.Fatal(e, err)
			}
			for range 2 {
				for _, p := range pins { // heads before and behind the cut
					v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{p}, EverySignature: true, Sealer: clearSealer{}})
					if v.State != audit.Pinned || v.Pruned != 45 {
						t.Fatal(v)
					}
				}
				l.Close()
				l = openLog(t, store, &audit.Options{PinnedHead: pins[0], Clock: c.now})
				if l.Pruned() != 45 {
					t.Fatal(l.Pruned())
				}
			}
			v := verify(t, store, nil)
			if v.State != audit.Unanchored || !strings.Contains(v.String(), "the first 45 pruned") {
				t.Fatal(v)
			}
			l.Close()
			if f, ok := store.(*filestore.Store); ok && f != nil { // the contents are gone from the disk
				personal := 0
				for _, b := range batchesOf(t, store) {
					personal += bytes.Count(b.Data, []byte("a personal reason"))
				}
				if personal != 50-22 {
					t.Fatalf("%d openings are left", personal)
				}
			}
		})
	}
}

// What must be kept is kept, and then nothing goes and nothing is logged.
func TestPruneHeld(t *testing.T) {
	held := errors.New("case 17")
	hold := func(_ context.Context, e audit.Entry) error {
		if len(e.Event.Details) > 0 && e.Event.Details[0].Person == [16]byte{1} && e.Index == 33 {
			return held
		}
		return nil
	}
	l, _ := aged(t, memstore.New(), audit.Options{Hold: hold})
	for _, n := range []uint64{34, 62} {
		if got, err := l.Prune(ctx, n+1); !errors.Is(err, audit.ErrHeld) || !errors.Is(err, held) || got != 0 || l.Size() != 101 {
			t.Fatal(n, got, err)
		}
	}
	if n, err := l.Prune(ctx, 33); err != nil || n != 33 {
		t.Fatal(n, err)
	}
	l, c := aged(t, memstore.New(), audit.Options{})
	if _, err := l.Prune(ctx, 70); !errors.Is(err, audit.ErrHeld) { // 61 on are young
		t.Fatal(err)
	}
	if _, err := l.Prune(ctx, 1000); !errors.Is(err, audit.ErrInvalid) {
		t.Fatal(err)
	}
	c.at = c.at.Add(-120 * day) // the old ones are 180 days old now
	if _, err := l.Prune(ctx, 61); !errors.Is(err, audit.ErrHeld) {
		t.Fatal(err)
	}
	c.at = c.at.Add(5 * day)
	if n, err := l.Prune(ctx, 61); err != nil || n != 61 {
		t.Fatal(n, err)
	}
	l, _ = aged(t, memstore.New(), audit.Options{Retention: 301 * day})
	if _, err := l.Prune(ctx, 2); !errors.Is(err, audit.ErrHeld) {
		t.Fatal(err)
	}
	if _, err := audit.Open(ctx, memstore.New(), signerOf(t), &audit.Options{Retention: 183 * day}); !errors.Is(err, audit.ErrInvalid) {
		t.Fatal(err)
	}
	// An event that claims to be old was signed late.
	store := memstore.New()
	l = openLog(t, store, nil)
	e := read(1)
	e.Time = clock().Add(-1000 * day)
	if _, err := l.Append(ctx, e); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prune(ctx, 2); !errors.Is(err, audit.ErrHeld) {
		t.Fatal(err)
	}
	// A store that cannot prune.
	l = openLog(t, plain{memstore.New()}, nil)
	if _, err := l.Prune(ctx, 1); !errors.Is(err, audit.ErrInvalid) {
		t.Fatal(err)
	}
}

// plain hides what a store can do besides.
type plain struct{ driver.Store }

func (p plain) Writer(ctx context.Context) (driver.Writer, error) {
	w, err := p.Store.Writer(ctx)
	return struct{ driver.Writer }{w}, err
}

func signerOf(t testing.TB) audit.Signer {
	s, err := audit.OpenSigningKey(filepath.Join(t.TempDir(), "key"), origin)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whoever takes events out without the log saying so is found, and so is each
// change of what a pruning left.
func TestPruneTampered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	store := fileStore(t, dir)
	l, _ := aged(t, store, audit.Options{})
	pin := head(t, l)
	whole := batchesOf(t, store)
	if _, err := l.Prune(ctx, 45); err != nil {
		t.Fatal(err)
	}
	l.Close()
	pruned := batchesOf(t, store)
	if pruned[0].First != 0 || pruned[0].Count != 45 || pruned[1].First != 45 {
		t.Fatal(pruned[0].First, pruned[0].Count)
	}
	var id [16]byte
	f, _, _ := audit.NextFrame(whole[0].Data)
	copy(id[:], f.Event[1:])
	leaves := func(from, n int) []byte {
		var b []byte
		for _, h := range leavesOf(t, forged{memstore.New(), whole})[from : from+n] {
			b = append(b, h[:]...)
		}
		return audit.AppendPruned(nil, id, b)
	}
	batch := func(first, n int) driver.Batch {
		return driver.Batch{First: uint64(first), Count: uint32(n), Data: leaves(first, n)}
	}
	if !bytes.Equal(pruned[0].Data, leaves(0, 45)) {
		t.Fatal("the hashes of the pruned events")
	}
	join := func(parts ...any) (list []driver.Batch) {
		for _, p := range parts {
			switch p := p.(type) {
			case driver.Batch:
				list = append(list, p)
			case []driver.Batch:
				list = append(list, p...)
			}
		}
		return list
	}
	from := func(first uint64) int { // in pruned
		for i, b := range pruned {
			if b.First == first {
				return i
			}
		}
		t.Fatal(first)
		return 0
	}
	foreign := batch(0, 45)
	foreign.Data = bytes.ReplaceAll(bytes.Clone(foreign.Data), id[:], make([]byte, 16))
	audit.SealFrame(foreign.Data)
	short := batch(0, 45)
	short.Data = leaves(0, 44)
	long := batch(0, 45)
	long.Data = append(leaves(0, 45), leaves(45, 1)...)
	other := batch(0, 45)
	copy(other.Data[200:], "another leaf")
	audit.SealFrame(other.Data)
	for name, c := range map[string]struct {
		list  []driver.Batch
		state audit.State
	}{
		"as it is":                {pruned, audit.Pinned},
		"less than logged":        {join(batch(0, 45), pruned[1:]), audit.Pinned},
		"half done":               {join(batch(0, 9), whole[5:]), audit.Withheld},
		"in two parts":            {join(batch(0, 20), batch(20, 25), pruned[1:]), audit.Pinned},
		"more than logged":        {join(batch(0, 47), pruned[2:]), audit.Withheld},
		"nothing logged":          {join(batch(0, 45), whole[23:]), audit.Withheld},
		"in the middle":           {join(pruned[:from(51)], batch(51, 2), pruned[from(53):]), audit.Altered},
		"all gone":                {join(batch(0, 45)), audit.Truncated},
		"hashes of another log":   {join(foreign, pruned[1:]), audit.Foreign},
		"a hash too few":          {join(short, pruned[1:]), audit.Altered},
		"a hash too many":         {join(long, pruned[1:]), audit.Altered},
		"another hash":            {join(other, pruned[1:]), audit.Altered},
		"a batch of them dropped": {pruned[1:], audit.Reordered},
	} {
		pins := [][]byte{pin}
		if c.state == audit.Truncated {
			pins = nil
		}
		v := verify(t, forged{memstore.New(), c.list}, &audit.VerifyOptions{Pins: pins})
		if v.State != c.state || v.OK() != (c.state == audit.Pinned) {
			t.Errorf("%s: %v, want %v", name, v, c.state)
		}
		_, err := audit.Open(ctx, forged{memstore.New(), c.list}, audittest.Signer(t, origin), &audit.Options{Clock: clock})
		if (err == nil) != v.OK() {
			t.Errorf("%s: open: %v", name, err)
		}
	}
	// Each byte of the pruned segment, and each cut of it.
	path := filepath.Join(dir, "00000000000000000000.seg")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := 24 + 28 + len(pruned[0].Data)
	step := 7
	if os.Getenv("CRMGUARD_SOAK") != "" {
		step = 1
	}
	for off := 0; off < end; off += step {
		b := bytes.Clone(file)
		b[off] ^= 1 << (off % 8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}}); v.State != audit.Altered || v.OK() {
			t.Fatalf("byte %d: %v", off, v)
		}
		if err := os.WriteFile(path, file[:off], 0o600); err != nil {
			t.Fatal(err)
		}
		if v := verify(t, fileStore(t, dir), &audit.VerifyOptions{Pins: [][]byte{pin}}); v.OK() || v.State == audit.Unanchored {
			t.Fatalf("cut at %d: %v", off, v)
		}
	}
}

// A head beside the log that was not copied since its events were pruned is one of the log, and a wrong one is not.
func TestPruneBehindHead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	store, err := filestore.Open(dir, &filestore.Options{SegmentBytes: 5000})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := aged(t, store, audit.Options{CheckpointEvery: time.Hour})
	notes := map[uint64][]byte{}
	for _, b := range batchesOf(t, store) {
		notes[b.First+uint64(b.Count)] = batchNote(t, b)
	}
	cut, err := l.Prune(ctx, 45)
	if err != nil {
		t.Fatal(err)
	}
	pin := head(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "checkpoint")
	tried := 0
	for size := uint64(1); size <= l.Size(); size++ {
		note, ok := notes[size]
		if !ok {
			continue
		}
		if err := os.WriteFile(path, note, 0o600); err != nil {
			t.Fatal(err)
		}
		if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}, Sealer: clearSealer{}}); !v.OK() {
			t.Errorf("head of %d, %d pruned: %v", size, cut, v)
		}
		if tried++; size > cut || tried > 2 {
			continue
		}
		for at := 0; at < len(note)-5; at += 3 { // another size, root, id, time or signature; base64 ends in bits that say nothing
			bad := bytes.Clone(note)
			bad[at] ^= 1
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}, Sealer: clearSealer{}}); v.OK() {
				t.Fatalf("head of %d with byte %d changed: %v", size, at, v)
			}
		}
	}
}

// besides calls after once, when so many batches were read.
type besides struct {
	driver.Store
	batches int
	after   func()
}

func (s *besides) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		for b, err := range s.Store.Batches(ctx, from) {
			if !yield(b, err) {
				return
			}
			if s.batches--; s.batches == 0 {
				s.after()
			}
		}
	}
}

// A verification that a pruning overtakes, wherever, finds the log whole.
func TestVerifyBesidePrune(t *testing.T) {
	overtaken := 0
	for at := 1; at < 40; at += 3 {
		for name, size := range map[string]int64{"small segments": 3000, "one segment": 0, "memory": -1} {
			var store driver.Store = memstore.New()
			if size >= 0 {
				var err error
				if store, err = filestore.Open(filepath.Join(t.TempDir(), "log"), &filestore.Options{SegmentBytes: size}); err != nil {
					t.Fatal(err)
				}
			}
			l, _ := aged(t, store, audit.Options{})
			pin := head(t, l)
			read := uint64(0)
			v := verify(t, &besides{store, at, func() {
				if _, err := l.Prune(ctx, 45); err != nil {
					t.Fatal(err)
				}
			}}, &audit.VerifyOptions{Pins: [][]byte{pin}, Sealer: clearSealer{}, OnEvent: func(audit.Entry) { read++ }})
			if !v.OK() {
				t.Errorf("%s, after %d batches: %v", name, at, v)
			}
			if v.Pruned > 0 && read+v.Pruned > v.Size {
				overtaken++
			}
			l.Close()
		}
	}
	if overtaken == 0 {
		t.Error("no verification was overtaken")
	}
	t.Logf("%d of 39 were overtaken", overtaken)
}

// A checked start before what was pruned since is no verdict: the log must be read from its beginning.
func TestPruneBeyondStart(t *testing.T) {
	for n := range 4 {
		store, c := memstore.New(), &timed{clock().Add(-300 * day)}
		l := openLog(t, store, &audit.Options{Clock: c.now, Sealer: clearSealer{}})
		add := func(batches int) []byte {
			for range batches {
				if _, err := l.AppendAll(ctx, []audit.Event{read(1), read(2)}); err != nil {
					t.Fatal(err)
				}
			}
			return head(t, l)
		}
		v := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{add(1 + n)}})
		if v.Resume == nil {
			t.Fatal(v)
		}
		add(6)
		c.at = clock()
		if cut, err := l.Prune(ctx, 11); err != nil || cut < v.Size {
			t.Fatal(cut, err)
		}
		_, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Start: v.Resume})
		if err == nil || !strings.Contains(err.Error(), "from its beginning") {
			t.Error(n, err)
		}
	}
}

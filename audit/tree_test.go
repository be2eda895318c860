package audit_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/memstore"
)

// grow appends n short events in batches of several sizes.
func grow(t testing.TB, l *audit.Log, n int) {
	t.Helper()
	for i := 0; i < n; {
		k := min(1+i%97, n-i)
		es := make([]audit.Event, k)
		for j := range es {
			es[j] = read(i + j)
		}
		if _, err := l.AppendAll(ctx, es); err != nil {
			t.Fatal(err)
		}
		i += k
	}
}

// checkTree checks proofs of a tree against leaves that were hashed apart from
// it and roots that tlog computes.
func checkTree(t *testing.T, tree *audit.Tree, leaves []tlog.Hash, step int) {
	t.Helper()
	size := int64(tree.Checkpoint().Size)
	root := tree.Checkpoint().Root
	for i := int64(0); i < size; i += int64(step) {
		p, err := tree.Inclusion(ctx, uint64(i))
		if err != nil {
			t.Fatal(i, err)
		}
		if err := tlog.CheckRecord(p, size, root, i, leaves[i]); err != nil {
			t.Fatalf("size %d index %d: %v", size, i, err)
		}
		if want, err := tlog.ProveRecord(size, i, tree); err != nil || !slices.Equal(p, want) {
			t.Fatalf("size %d index %d: not the proof of package tlog, %v", size, i, err)
		}
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(list []int64) (hs []tlog.Hash, err error) {
		for _, i := range list {
			hs = append(hs, stored[i])
		}
		return hs, nil
	})
	for i := int64(0); i < size; i++ {
		hs, err := tlog.StoredHashesForRecordHash(i, leaves[i], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hs...)
		if (i+1)%int64(step) != 0 && i+1 != size {
			continue
		}
		old, err := tlog.TreeHash(i+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tree.Consistency(ctx, uint64(i+1))
		if err != nil {
			t.Fatal(i, err)
		}
		if err := tlog.CheckTree(p, size, root, i+1, old); err != nil {
			t.Fatalf("from %d to %d: %v", i+1, size, err)
		}
		if i+1 == size && old != root {
			t.Fatal("root")
		}
	}
}

func leavesOf(t testing.TB, store driver.Store) (leaves []tlog.Hash) {
	for _, b := range batchesOf(t, store) {
		for data := b.Data; len(data) > 0; {
			f, rest, err := audit.NextFrame(data)
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind == 1 {
				leaves = append(leaves, tlog.RecordHash(f.Event))
			}
			data = rest
		}
	}
	return leaves
}

func TestTree(t *testing.T) {
	for _, n := range []int{1, 2, 5, 255, 256, 257, 511, 512, 513, 1500} {
		store := memstore.New()
		l := openLog(t, store, nil)
		grow(t, l, n-1)
		leaves := leavesOf(t, store)
		if len(leaves) != n {
			t.Fatal(len(leaves))
		}
		early := l.Tree()
		checkTree(t, early, leaves, 1+n/40)
		grow(t, l, 300) // the tree stays what it was
		checkTree(t, early, leaves, 1+n/7)
		checkTree(t, l.Tree(), leavesOf(t, store), 37)
		l.Close()
		again := openLog(t, store, nil)
		checkTree(t, again.Tree(), leavesOf(t, store), 41)
		v := verify(t, store, nil)
		checkTree(t, v.Tree, leavesOf(t, store), 43)
	}
	store := memstore.New()
	l := openLog(t, store, nil)
	for range 70 { // every index of every small size
		checkTree(t, l.Tree(), leavesOf(t, store), 1)
		grow(t, l, 1)
	}
	l = openLog(t, memstore.New(), nil)
	for _, i := range []uint64{1, 1 << 40} {
		if _, err := l.Tree().Inclusion(ctx, i); !errors.Is(err, audit.ErrInvalid) {
			t.Fatal(err)
		}
		if _, err := l.Tree().Consistency(ctx, i+1); !errors.Is(err, audit.ErrInvalid) {
			t.Fatal(err)
		}
	}
}

// Bytes that change under an open log are found by the proof that needs them.
func TestTreeTampered(t *testing.T) {
	store := &patched{Store: memstore.New()}
	l := openLog(t, store, nil)
	grow(t, l, 700)
	store.from = 300
	if _, err := l.Tree().Inclusion(ctx, 310); !errors.Is(err, audit.ErrTampered) {
		t.Fatal(err)
	}
	if _, err := l.Tree().Receipt(ctx, 310); !errors.Is(err, audit.ErrTampered) {
		t.Fatal(err)
	}
}

// patched is a store whose events from one on are those of a forger: the
// frames are whole, the content is not what was logged.
type patched struct {
	driver.Store
	from uint64
}

func (p *patched) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		for b, err := range p.Store.Batches(ctx, from) {
			if p.from > 0 && b.First >= p.from {
				b.Data = bytes.ReplaceAll(bytes.Clone(b.Data), []byte("emp-1"), []byte("emp-2"))
				for data := b.Data; len(data) > 0; {
					n := 8 + binary.BigEndian.Uint32(data)
					audit.SealFrame(data[:n])
					data = data[n:]
				}
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func TestReceipt(t *testing.T) {
	store := fileStore(t, filepath.Join(t.TempDir(), "log"))
	l := openLog(t, store, nil)
	grow(t, l, 300)
	r, err := l.Append(ctx, full(7))
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := l.Tree().Receipt(ctx, r.Index)
	if err != nil {
		t.Fatal(err)
	}
	e, c, err := audit.VerifyReceipt(receipt, keys(t))
	if err != nil || e.Index != r.Index || e.Leaf != r.Leaf || c.Size != l.Size() {
		t.Fatal(e, c, err)
	}
	if got, want := fmt.Sprintf("%+v", e.Event), fmt.Sprintf("%+v", full(7)); got != want {
		t.Fatalf("%s\n%s", got, want)
	}
	// No byte can be changed, none cut, nothing added before the note.
	for off := range receipt {
		for _, bit := range []byte{1, 0x20} {
			b := bytes.Clone(receipt)
			b[off] ^= bit
			if e2, _, err := audit.VerifyReceipt(b, keys(t)); err == nil && (!bytes.Equal(canonicalReceipt(b), canonicalReceipt(receipt)) || e2.Leaf != e.Leaf) {
				t.Fatalf("byte %d bit %d: %+v", off, bit, e2)
			}
		}
		if _, _, err := audit.VerifyReceipt(receipt[:off], keys(t)); err == nil {
			t.Fatalf("cut at %d", off)
		}
	}
	lines := strings.SplitAfter(string(receipt), "\n")
	for name, b := range map[string]string{
		"hash dropped":   strings.Join(append(append([]string(nil), lines[:3]...), lines[4:]...), ""),
		"hash doubled":   strings.Join(append(append([]string(nil), lines[:4]...), lines[3:]...), ""),
		"hashes swapped": strings.Join(append(append([]string(nil), lines[0], lines[1], lines[2], lines[4], lines[3]), lines[5:]...), ""),
		"other index":    strings.Replace(string(receipt), "index 301", "index 300", 1),
		"zero in front":  strings.Replace(string(receipt), "index 301", "index 0301", 1),
	} {
		if _, _, err := audit.VerifyReceipt([]byte(b), keys(t)); err == nil {
			t.Fatal(name)
		}
	}
	other := audittest.Signer(t, "erp.example.com/log").VerifierKey()
	if _, _, err := audit.VerifyReceipt(receipt, []string{other}); !errors.Is(err, audit.ErrTampered) {
		t.Fatal(err)
	}
	if _, _, err := audit.VerifyReceipt(receipt, nil); err == nil {
		t.Fatal("no key")
	}
}

func canonicalReceipt(b []byte) []byte { return b[:max(0, bytes.LastIndex(b, []byte("\n\n")))] }

// A receipt that an old key signed verifies when that key is among those given.
func TestReceiptRotation(t *testing.T) {
	store := memstore.New()
	old, err := audit.NewEd25519Signer(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(ctx, store, old, &audit.Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	before, err := l.Tree().Receipt(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	now := audittest.Signer(t, origin)
	l = openLog(t, store, &audit.Options{OldKeys: []string{old.VerifierKey()}})
	after, err := l.Tree().Receipt(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	both := []string{now.VerifierKey(), old.VerifierKey()}
	for i, r := range [][]byte{before, after} {
		if e, _, err := audit.VerifyReceipt(r, both); err != nil || e.Event.Action != "audit.created" {
			t.Fatal(i, err)
		}
		if _, _, err := audit.VerifyReceipt(r, both[1-i:2-i]); err != nil {
			t.Fatal(i, err)
		}
		if _, _, err := audit.VerifyReceipt(r, both[i:i+1]); err == nil {
			t.Fatal(i, "verified by the wrong key")
		}
	}
}

// A run that begins at a checked head reads the tail only, says so, and finds
// what a whole run would find there.
func TestVerifyResume(t *testing.T) {
	store := fileStore(t, filepath.Join(t.TempDir(), "log"))
	l := openLog(t, store, nil)
	grow(t, l, 400)
	pin := head(t, l)
	l.Close()
	first := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}})
	if !first.OK() || first.Resume == nil || first.Unread != 0 {
		t.Fatal(first)
	}
	// Nothing new: nothing is read, and that is said.
	v := verify(t, store, &audit.VerifyOptions{Start: first.Resume})
	if v.State != audit.Pinned || v.Unread != 401 || v.Size != 401 || v.Tree != nil || !bytes.Equal(v.Resume, first.Resume) {
		t.Fatal(v)
	}
	l = openLog(t, store, nil)
	grow(t, l, 333)
	l.Close()
	seen := 0
	v = verify(t, store, &audit.VerifyOptions{Start: first.Resume, Pins: [][]byte{pin}, OnEvent: func(e audit.Entry) { seen++ }, EverySignature: true})
	whole := verify(t, store, &audit.VerifyOptions{Pins: [][]byte{pin}})
	if !v.OK() || v.Unread != 401 || v.Size != 734 || v.Root != whole.Root || seen != 333 || !bytes.Equal(v.Resume, whole.Resume) {
		t.Fatal(v, seen)
	}
	if !strings.Contains(v.String(), "the first 401 not read again") {
		t.Fatal(v)
	}
	for off := range first.Resume { // no byte of the start can be changed
		b := bytes.Clone(first.Resume)
		b[off] ^= 2
		if v, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Start: b}); err == nil && v.OK() && off < bytes.LastIndex(b, []byte("\n\n")) {
			t.Fatalf("byte %d: %v", off, v)
		}
	}
	list := batchesOf(t, store)
	at := 0
	for list[at].First < 401 {
		at++
	}
	for name, c := range map[string]struct {
		list  []driver.Batch
		state audit.State
	}{
		"cut before the start": {list[:at-2], audit.Truncated},
		"cut at the start":     {list[:at], audit.Pinned},
		"nothing":              {nil, audit.Truncated},
		"batch left out":       {append(append([]driver.Batch(nil), list[:at]...), list[at+1:]...), audit.Reordered},
	} {
		v := verify(t, forged{memstore.New(), c.list}, &audit.VerifyOptions{Start: first.Resume})
		if v.State != c.state || (v.OK() != (c.state == audit.Pinned)) || (v.Resume != nil) != v.OK() {
			t.Fatalf("%s: %v", name, v)
		}
	}
	// Another history, or another log, behind the same name.
	fork := memstore.New()
	l = openLog(t, fork, nil)
	grow(t, l, 500)
	l.Close()
	if v := verify(t, fork, &audit.VerifyOptions{Start: first.Resume}); v.OK() {
		t.Fatal(v)
	}
}

// cosign adds a C2SP cosignature of a witness, made by hand.
func cosign(note []byte, name string, key ed25519.PrivateKey, sec uint64) []byte {
	text := note[:bytes.Index(note, []byte("\n\n"))+1]
	pub := key.Public().(ed25519.PublicKey)
	id := sha256.Sum256(append([]byte(name+"\n\x04"), pub...))
	sig := ed25519.Sign(key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", sec, text))
	raw := append(binary.BigEndian.AppendUint64(id[:4:4], sec), sig...)
	return fmt.Appendf(bytes.Clone(note), "— %s %s\n", name, base64.StdEncoding.EncodeToString(raw))
}

func witnessKey(name string, key ed25519.PrivateKey) string {
	pub := append([]byte{4}, key.Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte(name+"\n"), pub...))
	return fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(pub))
}

func TestWitnesses(t *testing.T) {
	store := memstore.New()
	l := openLog(t, store, nil)
	grow(t, l, 20)
	pin := head(t, l)
	grow(t, l, 5)
	later := head(t, l)
	l.Close()
	var ks []ed25519.PrivateKey
	var names, vkeys []string
	for i := range 3 {
		ks = append(ks, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(100 + i)}, 32)))
		names = append(names, fmt.Sprintf("witness%d.example.com", i))
		vkeys = append(vkeys, witnessKey(names[i], ks[i]))
	}
	one := cosign(pin, names[0], ks[0], 1_780_000_000)
	two := cosign(one, names[2], ks[2], 1_780_000_001)
	wrong := cosign(one, names[2], ks[1], 1_780_000_001) // the key of another
	twice := cosign(one, names[0], ks[0], 1_780_000_005)
	flipped := bytes.Clone(two)
	if at := len(flipped) - 30; flipped[at] == 'A' { // it stays base64
		flipped[at] = 'B'
	} else {
		flipped[at] = 'A'
	}
	for name, c := range map[string]struct {
		pins   [][]byte
		quorum int
		state  audit.State
		at     uint64
	}{
		"none signed":         {[][]byte{pin}, 1, audit.Pinned, 0},
		"one of three":        {[][]byte{one}, 1, audit.Anchored, 21},
		"two of three":        {[][]byte{two}, 2, audit.Anchored, 21},
		"one where two must":  {[][]byte{one, later}, 2, audit.Pinned, 0},
		"all must":            {[][]byte{two}, 0, audit.Pinned, 0},
		"wrong key":           {[][]byte{wrong}, 2, audit.Pinned, 0},
		"one signs twice":     {[][]byte{twice}, 2, audit.Pinned, 0},
		"flipped":             {[][]byte{flipped}, 2, audit.Pinned, 0},
		"votes do not add up": {[][]byte{one, cosign(later, names[2], ks[2], 5)}, 2, audit.Pinned, 0},
		"no pin":              {nil, 1, audit.Unanchored, 0},
	} {
		v := verify(t, store, &audit.VerifyOptions{Pins: c.pins, Witnesses: vkeys, Quorum: c.quorum})
		if v.State != c.state || v.Witnessed != c.at || v.OK() != (c.state != audit.Unanchored) {
			t.Fatalf("%s: %v", name, v)
		}
	}
	// A witnessed copy beside the log counts, and is no pin.
	w, err := store.Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.SetHead(ctx, cosign(later, names[1], ks[1], 1_780_000_009))
	w.Close()
	if v := verify(t, store, &audit.VerifyOptions{Witnesses: vkeys, Quorum: 1}); v.State != audit.Unanchored || v.Witnessed != 26 || v.OK() {
		t.Fatal(v)
	}
	if v := verify(t, store, &audit.VerifyOptions{Witnesses: vkeys, Quorum: 1, Pins: [][]byte{pin}}); v.State != audit.Anchored || v.Witnessed != 26 {
		t.Fatal(v)
	}
	for _, bad := range [][]string{{"x"}, {vkeys[0], vkeys[0]}, {keys(t)[0]}, {strings.Replace(vkeys[0], "witness0", "witness9", 1)}} {
		if v, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Witnesses: bad}); err == nil || v.OK() {
			t.Fatal(bad, v)
		}
	}
	if _, err := audit.Verify(ctx, store, keys(t), &audit.VerifyOptions{Witnesses: vkeys, Quorum: 4}); err == nil {
		t.Fatal("a quorum of four of three")
	}
}

// The index stays within its bound and finds what is behind its postings.
func TestIndexBound(t *testing.T) {
	x := audit.NewTestIndex()
	const n = 400_000
	rare := map[uint64]bool{}
	for i := range uint64(n) {
		key := rand.Uint64()
		if i%50_021 == 7 {
			key = 42
			rare[i] = true
		}
		x.Add(i, []uint64{key, 1})
	}
	if x.Floor() == 0 || x.Bytes() > 16<<20 {
		t.Fatalf("floor %d, %d bytes", x.Floor(), x.Bytes())
	}
	stretches, covered := 0, uint64(0)
	for before := uint64(n); before > 0; {
		from, end := x.Before(42, before)
		if end == 0 {
			break
		}
		stretches++
		covered += end - from
		for i := range rare {
			if i >= from && i < end {
				delete(rare, i)
			}
		}
		before = from
	}
	if len(rare) != 0 {
		t.Fatalf("not found: %v", rare)
	}
	if covered > n/2 {
		t.Fatalf("%d stretches with %d of %d events for 8 rare ones", stretches, covered, n)
	}
}

// remote is a key that lies elsewhere.
type remote struct {
	crypto.Signer
	wrong bool
}

func (r *remote) Sign(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := r.Signer.Sign(rand, msg, opts)
	if r.wrong {
		sig[3] ^= 1
	}
	return sig, err
}

func TestRemoteSigner(t *testing.T) {
	key := &remote{Signer: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))}
	s, err := audit.NewEd25519Signer(origin, key)
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New()
	l, err := audit.Open(ctx, store, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	key.wrong = true // nothing is written under a signature that does not verify
	if _, err := l.Append(ctx, read(1)); !errors.Is(err, audit.ErrUnavailable) || l.Size() != 1 {
		t.Fatal(err, l.Size())
	}
	key.wrong = false
	if _, err := l.Append(ctx, read(1)); err != nil {
		t.Fatal(err)
	}
	pin := head(t, l)
	l.Close()
	v, err := audit.Verify(ctx, store, []string{s.VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{pin}, EverySignature: true})
	if err != nil || !v.OK() || v.Size != 2 {
		t.Fatal(v, err)
	}
	if _, err := audit.NewEd25519Signer(origin, ed25519.PrivateKey{1, 2}); err == nil {
		t.Fatal("a short key is taken")
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.NewEd25519Signer(origin, ec); err == nil {
		t.Fatal("a key of another kind is taken")
	}
}

package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// A tile is a subtree of 256 leaves. The hashes from tiles upwards are kept in
// memory, a quarter of a byte for an event; those within a tile are computed
// from the stored events when a proof needs them, and the newest and last used
// tiles are kept.
const (
	tileLevel = 8
	tileSize  = 1 << tileLevel
	maxTiles  = 4096 // kept at most, 16 KB each
)

// hashes answers for the hashes of the tree of a log.
type hashes struct {
	store driver.Store

	mu    sync.RWMutex
	upper [63 - tileLevel][]tlog.Hash // level-8 -> the complete subtrees of that level
	last  [tileLevel][]tlog.Hash      // the same within the tile that is not whole yet
	tiles []*tile                     // by number, nil for those that are not kept
	kept  int
	hand  int // where the search for one to give up goes on
}

// tile holds the hashes of its levels, from the leaves up.
type tile [2*tileSize - 2]tlog.Hash

// tileOff is where a level begins.
func tileOff(l int) int { return 2*tileSize - 2*tileSize>>l }

func newTile(leaves []tlog.Hash) *tile {
	t := new(tile)
	copy(t[:], leaves)
	for l := 1; l < tileLevel; l++ {
		for i := range tileSize >> l {
			t[tileOff(l)+i] = tlog.NodeHash(t[tileOff(l-1)+2*i], t[tileOff(l-1)+2*i+1])
		}
	}
	return t
}

func (t *tile) root() tlog.Hash { return tlog.NodeHash(t[len(t)-2], t[len(t)-1]) }

func newHashes(store driver.Store) *hashes {
	return &hashes{store: store}
}

// add takes the subtrees that the next leaf completes, by level. The caller
// holds mu.
func (h *hashes) add(done []tlog.Hash) {
	if len(done) <= tileLevel {
		for l := range done {
			h.last[l] = append(h.last[l], done[l])
		}
		return
	}
	for l := range h.last {
		h.last[l] = h.last[l][:0]
	}
	for i, x := range done[tileLevel:] {
		h.upper[i] = append(h.upper[i], x)
	}
}

// keep notes a tile, in the place of another when there are too many.
func (h *hashes) keep(n int64, t *tile) {
	if int(n) >= len(h.tiles) {
		h.tiles = append(h.tiles, make([]*tile, len(h.upper[0])-len(h.tiles))...)
	}
	for h.kept >= maxTiles {
		h.hand = (h.hand + 1) % len(h.tiles)
		if h.tiles[h.hand] != nil {
			h.tiles[h.hand] = nil
			h.kept--
		}
	}
	if h.tiles[n] == nil {
		h.kept++
	}
	h.tiles[n] = t
}

// read returns hashes by their index in the order of package tlog. All of them
// are complete.
func (h *hashes) read(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	h.mu.RLock()
	defer h.mu.RUnlock()
	for i, x := range indexes {
		l, n := tlog.SplitStoredHashIndex(x)
		var err error
		if list[i], err = h.node(ctx, l, n); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// node returns the hash of subtree n of level l, which is complete. The caller
// holds mu for reading.
func (h *hashes) node(ctx context.Context, l int, n int64) (tlog.Hash, error) {
	if l >= tileLevel {
		if n >= int64(len(h.upper[l-tileLevel])) {
			return tlog.Hash{}, errTree
		}
		return h.upper[l-tileLevel][n], nil
	}
	in := n >> (tileLevel - l)
	at := int(n - in<<(tileLevel-l))
	if in == int64(len(h.upper[0])) {
		if at >= len(h.last[l]) {
			return tlog.Hash{}, errTree
		}
		return h.last[l][at], nil
	}
	var t *tile
	if in < int64(len(h.tiles)) {
		t = h.tiles[in]
	}
	if t == nil {
		h.mu.RUnlock()
		var err error
		t, err = h.load(ctx, in)
		h.mu.RLock()
		if err != nil {
			return tlog.Hash{}, err
		}
	}
	return t[tileOff(l)+at], nil
}

var errTree = errors.New("audit: hash is not in the tree")

// load computes a tile from the stored events and checks it.
func (h *hashes) load(ctx context.Context, n int64) (*tile, error) {
	h.mu.RLock()
	if n >= int64(len(h.upper[0])) {
		h.mu.RUnlock()
		return nil, errTree
	}
	want := h.upper[0][n]
	h.mu.RUnlock()
	leaves, err := leavesOf(ctx, h.store, uint64(n)*tileSize, tileSize)
	if err != nil {
		return nil, err
	}
	t := newTile(leaves)
	if t.root() != want {
		return nil, fmt.Errorf("%w: events %d to %d", errBatch, n*tileSize, (n+1)*tileSize-1)
	}
	h.mu.Lock()
	h.keep(n, t)
	h.mu.Unlock()
	return t, nil
}

// leavesOf returns the leaf hashes of count stored events.
func leavesOf(ctx context.Context, store driver.Store, from uint64, count int) ([]tlog.Hash, error) {
	leaves := make([]tlog.Hash, 0, count)
	for it, err := range records(ctx, store, from, from+uint64(count)) {
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, it.leaf)
	}
	return leaves, nil
}

// record is a stored event, of which only the leaf hash is there when it is
// pruned.
type record struct {
	index uint64
	leaf  tlog.Hash
	event []byte // nil when pruned; valid until the next step
}

// records yields the stored events of [from, to), all of them or an error.
func records(ctx context.Context, store driver.Store, from, to uint64) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		next := from
		var scratch []byte
		if from >= to {
			return
		}
		for b, err := range store.Batches(ctx, from) {
			if err == nil && b.First > next {
				break
			}
			if err != nil {
				yield(record{}, err)
				return
			}
			data, n, end := b.Data, b.First, b.First+uint64(b.Count)
			for n < end {
				f, rest, err := nextFrame(data)
				data = rest
				switch {
				case err == nil && f.kind == kindEvent:
					if n >= from {
						r := record{index: n, event: f.event}
						r.leaf, scratch = leafHash(scratch, f.event)
						if !yield(r, nil) {
							return
						}
						next = n + 1
					}
					n++
				case err == nil && f.kind == kindPruned:
					for p := f.leaves; len(p) > 0 && n < end && next < to; p = p[sha256.Size:] {
						if n >= from {
							if !yield(record{index: n, leaf: tlog.Hash(p[:sha256.Size])}, nil) {
								return
							}
							next = n + 1
						}
						n++
					}
				default:
					if err == nil || errors.Is(err, errFrame) {
						err = fmt.Errorf("%w: event %d", errBatch, n)
					}
					yield(record{}, err)
					return
				}
				if next >= to {
					return
				}
			}
		}
		yield(record{}, fmt.Errorf("%w: event %d is not there", errBatch, next))
	}
}

// Tree makes proofs over the events of a log up to a checkpoint. It stays
// usable while the log grows, and may be used from many goroutines.
type Tree struct {
	h *hashes
	c Checkpoint

	once  sync.Once
	right []tlog.Hash // for each level the last subtree, complete or not
	err   error
}

// Checkpoint returns the signed head that the proofs lead to.
func (t *Tree) Checkpoint() Checkpoint {
	c := t.c
	c.Note = bytes.Clone(c.Note)
	return c
}

// treeReader is the tree under one context.
type treeReader struct {
	ctx context.Context
	h   *hashes
}

func (r treeReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) { return r.h.read(r.ctx, indexes) }

// ReadHashes implements tlog.HashReader, for proofs of other kinds and tiles.
func (t *Tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	for _, i := range indexes {
		if i < 0 {
			return nil, errors.New("audit: no hash has a negative index")
		}
	}
	return t.h.read(context.Background(), indexes)
}

// edge finds the last subtree of each level, which most proofs need and which
// package tlog would hash anew for each.
func (t *Tree) edge(ctx context.Context) ([]tlog.Hash, error) {
	t.once.Do(func() {
		t.h.mu.RLock()
		defer t.h.mu.RUnlock()
		last := int64(t.c.Size) - 1
		var at tlog.Hash
		for l := 0; ; l, last = l+1, last>>1 {
			if l == 0 {
				at, t.err = t.h.node(context.WithoutCancel(ctx), 0, last)
			}
			if t.right = append(t.right, at); last == 0 || t.err != nil {
				return
			}
			if last&1 != 0 {
				var left tlog.Hash
				left, t.err = t.h.node(context.WithoutCancel(ctx), l, last-1)
				at = tlog.NodeHash(left, at)
			}
		}
	})
	return t.right, t.err
}

// Inclusion proves that event index is in the tree. tlog.CheckRecord checks it.
func (t *Tree) Inclusion(ctx context.Context, index uint64) (tlog.RecordProof, error) {
	if index >= t.c.Size {
		return nil, fmt.Errorf("%w: the tree has %d events", ErrInvalid, t.c.Size)
	}
	right, err := t.edge(ctx)
	if err != nil {
		return nil, err
	}
	proof := make(tlog.RecordProof, 0, len(right))
	t.h.mu.RLock()
	defer t.h.mu.RUnlock()
	n, last := int64(index), int64(t.c.Size)-1
	for l := 0; last > 0; l, n, last = l+1, n>>1, last>>1 {
		switch sibling := n ^ 1; {
		case sibling == last:
			proof = append(proof, right[l])
		case sibling < last:
			h, err := t.h.node(ctx, l, sibling)
			if err != nil {
				return nil, err
			}
			proof = append(proof, h)
		}
	}
	return proof, nil
}

// Consistency proves that the tree begins with the first old events as they
// were when the log had no others. tlog.CheckTree checks it.
func (t *Tree) Consistency(ctx context.Context, old uint64) (tlog.TreeProof, error) {
	if old < 1 || old > t.c.Size {
		return nil, fmt.Errorf("%w: the tree has %d events", ErrInvalid, t.c.Size)
	}
	return tlog.ProveTree(int64(t.c.Size), int64(old), treeReader{ctx, t.h})
}

// Records yields index and canonical bytes of the events from index from on,
// in order. The bytes of pruned events are nil; others are valid until the next
// step.
func (t *Tree) Records(ctx context.Context, from uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for r, err := range records(ctx, t.h.store, from, t.c.Size) {
			if !yield(r.event, err) {
				return
			}
		}
	}
}

// proofHeader is the first line of a C2SP tlog-proof.
const proofHeader = "c2sp.org/tlog-proof@v1\n"

// Receipt returns a C2SP tlog-proof of event index: the event itself, its
// inclusion proof and the checkpoint. VerifyReceipt checks it without the log.
// Of a pruned event it has the leaf hash instead.
func (t *Tree) Receipt(ctx context.Context, index uint64) ([]byte, error) {
	proof, err := t.Inclusion(ctx, index)
	if err != nil {
		return nil, err
	}
	b := []byte(proofHeader + "extra ")
	for r, err := range records(ctx, t.h.store, index, index+1) {
		if err != nil {
			return nil, err
		}
		if tlog.CheckRecord(proof, int64(t.c.Size), t.c.Root, int64(index), r.leaf) != nil {
			return nil, fmt.Errorf("%w: event %d", errBatch, index)
		}
		if r.event != nil {
			b = base64.StdEncoding.AppendEncode(b, r.event)
		} else {
			b = base64.StdEncoding.AppendEncode(b, r.leaf[:])
		}
	}
	b = strconv.AppendUint(append(b, "\nindex "...), index, 10)
	b = append(b, '\n')
	for _, h := range proof {
		b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
	}
	return append(append(b, '\n'), t.c.Note...), nil
}

var errReceipt = errors.New("audit: bytes are not a receipt")

// receipt is a parsed C2SP tlog-proof.
type receipt struct {
	extra []byte
	index uint64
	proof tlog.RecordProof
	note  []byte
}

// parseReceipt reads what Receipt writes, in its one spelling.
func parseReceipt(b []byte) (r receipt, err error) {
	if len(b) > 2*maxEvent+maxNote {
		return r, errReceipt
	}
	head, note, ok := bytes.Cut(b, []byte("\n\n"))
	text, ok2 := strings.CutPrefix(string(head)+"\n", proofHeader)
	if !ok || !ok2 {
		return r, errReceipt
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 || len(lines) > 2+64 {
		return r, errReceipt
	}
	extra, ok := strings.CutPrefix(lines[0], "extra ")
	index, ok2 := strings.CutPrefix(lines[1], "index ")
	if !ok || !ok2 {
		return r, errReceipt
	}
	if r.extra, err = base64.StdEncoding.DecodeString(extra); err != nil || base64.StdEncoding.EncodeToString(r.extra) != extra {
		return r, errReceipt
	}
	if r.index, err = strconv.ParseUint(index, 10, 63); err != nil || strconv.FormatUint(r.index, 10) != index {
		return r, errReceipt
	}
	for _, s := range lines[2:] {
		h, err := tlog.ParseHash(s)
		if err != nil || h.String() != s {
			return r, errReceipt
		}
		r.proof = append(r.proof, h)
	}
	r.note = note
	return r, nil
}

// VerifyReceipt checks a receipt of Tree.Receipt with the verifier keys of the
// log, old and new, and nothing else. It returns the event with its place and
// the checkpoint that covers it; of an event that was pruned when the receipt
// was made, the place and the leaf hash only. An error says that the receipt
// proves nothing.
func VerifyReceipt(data []byte, keys []string) (Entry, Checkpoint, error) {
	ring, err := newKeyring(keys)
	if err != nil {
		return Entry{}, Checkpoint{}, err
	}
	r, err := parseReceipt(data)
	if err != nil {
		return Entry{}, Checkpoint{}, err
	}
	c, err := parseCheckpoint(r.note)
	if err != nil || c.Origin != ring.origin || !ring.check(r.note) {
		return Entry{}, Checkpoint{}, fmt.Errorf("%w: its checkpoint is not signed by a given key", ErrTampered)
	}
	e := Entry{Receipt: Receipt{Index: r.index}}
	if len(r.extra) == sha256.Size {
		e.Leaf = tlog.Hash(r.extra)
	} else {
		var id [16]byte
		var index uint64
		if id, index, e.Event, err = parseEvent(r.extra); errors.Is(err, driver.ErrFormat) {
			return Entry{}, Checkpoint{}, err
		}
		if err != nil || id != c.ID || index != r.index {
			return Entry{}, Checkpoint{}, fmt.Errorf("%w: the event of the receipt is not the one it proves", ErrTampered)
		}
		e.Leaf, _ = leafHash(nil, r.extra)
	}
	if r.index >= c.Size || tlog.CheckRecord(r.proof, int64(c.Size), c.Root, int64(r.index), e.Leaf) != nil {
		return Entry{}, Checkpoint{}, fmt.Errorf("%w: the proof of the receipt does not hold", ErrTampered)
	}
	return e, c, nil
}

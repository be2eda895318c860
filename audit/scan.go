package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// fault is what is wrong with a log, and where.
type fault struct {
	state  State
	at     int64 // -1: no event is named
	reason string
}

func faultAt(s State, at uint64, reason string) *fault { return &fault{s, int64(at), reason} }

// scan follows a log from its first event and checks everything that needs no
// opened detail and no signature (but see every).
type scan struct {
	keys    *keyring
	pins    []Checkpoint // signatures checked, in order of size
	every   bool         // check the signature of each checkpoint
	onEvent func(index uint64, f *frame, leaf tlog.Hash) (*fault, error)
	hashes  *hashes // is fed when not nil

	id     [16]byte
	chain  tlog.Hash
	tree   edge
	size   uint64 // events found consistent, up to the last good checkpoint
	last   Checkpoint
	met    uint64    // size of the largest pin that was met
	head   []byte    // copy of a checkpoint that lies beside the log, nil: none
	headAt uint64    // its size
	headOK bool      // whether the log has this very checkpoint
	torn   bool      // the log ends inside a batch
	from   uint64    // events before it were checked by an earlier run
	pruned uint64    // events at the start of which only the leaf hashes are there
	late   bool      // pruned events follow others, see settle
	lateAt uint64    // where
	logged uint64    // up to where a pruning is logged
	buf    tlog.Hash // root of the batch at hand

	prunedRoot tlog.Hash // of the first pruned events

	scratch []byte // space for hashing
	text    []byte // space for the text of a checkpoint
}

// run reads the whole log. The error is one of reading, not of the log.
func (s *scan) run(ctx context.Context, store driver.Store) (*fault, error) {
	var before *fault // what there is to say before the first batch
	flt, err := s.read(ctx, s.batches(ctx, store, &before))
	if flt == nil && err == nil {
		flt = before
	}
	if flt == nil && err == nil && !s.torn && s.pruned > s.logged {
		// A pruning beside us is logged behind what was there when we began.
		flt, err = s.read(ctx, store.Batches(ctx, s.size))
	}
	if flt == nil && err == nil && s.late {
		return s.settle(ctx, store)
	}
	return flt, err
}

func (s *scan) read(ctx context.Context, batches iter.Seq2[driver.Batch, error]) (*fault, error) {
	for b, err := range batches {
		switch {
		case errors.Is(err, driver.ErrTorn):
			s.torn = true
			return nil, nil
		case errors.Is(err, driver.ErrDamaged):
			return faultAt(Altered, s.size, "the stored bytes of a batch are damaged"), nil
		case err != nil:
			return nil, err
		}
		if f, err := s.batch(b); f != nil || err != nil {
			return f, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (s *scan) batch(b driver.Batch) (*fault, error) {
	if b.First != s.size {
		return faultAt(Reordered, s.size, "the batch here begins with another event"), nil
	}
	data, index := b.Data, b.First
	var f frame
	for range b.Count {
		var rest []byte
		var err error
		f, rest, err = nextFrame(data)
		if err == nil && f.kind == kindPruned && index == b.First {
			return s.prunedBatch(b)
		}
		if err == nil && f.kind != kindEvent {
			err = errFrame
		}
		if errors.Is(err, errFrame) {
			return faultAt(Altered, index, "the frame of the event is damaged"), nil
		}
		if err != nil {
			return nil, err
		}
		if index == 0 {
			copy(s.id[:], f.event[offID:])
			s.chain = chainZero(s.id, s.keys.origin)
		}
		var leaf tlog.Hash
		leaf, s.scratch = leafHash(s.scratch, f.event)
		chain := chainNext(s.chain, leaf)
		if f.chain != chain || binary.BigEndian.Uint64(f.event[offIndex:]) != index || !bytes.Equal(f.event[offID:offIndex], s.id[:]) {
			return s.place(index, &f, chain, rest), nil
		}
		if f.event[0] != eventVersion {
			return nil, fmt.Errorf("%w: version of event %d", driver.ErrFormat, index)
		}
		if flt := s.leaf(index, leaf, chain); flt != nil {
			return flt, nil
		}
		if !spelled(f.event) {
			return faultAt(Altered, index, "the event is malformed"), nil
		}
		if s.pruned > s.logged && f.event[offActivity] == byte(Delete) {
			_, _, e, err := parseEvent(f.event)
			if err == nil && e.Actor == logActor && e.Action == actionPruned && e.Count > 0 {
				s.logged = max(s.logged, uint64(e.Count))
			}
		}
		if s.onEvent != nil {
			if flt, err := s.onEvent(index, &f, leaf); flt != nil || err != nil {
				return flt, err
			}
		}
		data = rest
		index++
	}
	return s.checkpoint(b.First, index, data)
}

// leaf takes the leaf at index, which leads the chain to chain.
func (s *scan) leaf(index uint64, leaf, chain tlog.Hash) *fault {
	s.chain = chain
	if flt := s.pinnedUpTo(index); flt != nil {
		return flt
	}
	s.tree.add(leaf)
	if s.hashes != nil {
		s.hashes.add(s.tree.completed()) // nobody else has it yet
	}
	return nil
}

// prunedBatch takes a batch that has leaf hashes in the place of events.
func (s *scan) prunedBatch(b driver.Batch) (*fault, error) {
	if s.from > 0 {
		return faultAt(Altered, b.First, inTheMiddle), nil
	}
	if s.pruned != b.First && !s.late {
		s.late, s.lateAt = true, b.First
	}
	data, index, end := b.Data, b.First, b.First+uint64(b.Count)
	var err error
	for index < end {
		f, rest, err := nextFrame(data)
		if err == nil && f.kind != kindPruned {
			err = errFrame
		}
		if errors.Is(err, errFrame) || (err == nil && uint64(len(f.leaves)/sha256.Size) > end-index) {
			return faultAt(Altered, index, "the hashes of pruned events are damaged"), nil
		}
		if err != nil {
			return nil, err
		}
		if index == 0 {
			copy(s.id[:], f.id)
			s.chain = chainZero(s.id, s.keys.origin)
		}
		if !bytes.Equal(f.id, s.id[:]) {
			return faultAt(Foreign, index, "the hashes of pruned events are of another log"), nil
		}
		for p := f.leaves; len(p) > 0; p = p[sha256.Size:] {
			s.prunedHead(index)
			leaf := tlog.Hash(p[:sha256.Size])
			if flt := s.leaf(index, leaf, chainNext(s.chain, leaf)); flt != nil {
				return flt, nil
			}
			index++
		}
		data = rest
	}
	if len(data) != 0 {
		return faultAt(Altered, b.First, "the hashes of pruned events are damaged"), nil
	}
	s.size, s.pruned = end, end
	s.prunedRoot, err = s.tree.root()
	if err != nil {
		return nil, err
	}
	s.prunedHead(end)
	return s.pinnedUpTo(end), nil
}

const inTheMiddle = "events are taken out in the middle of the log"

// settle looks again at a log that had events before pruned ones: a pruning beside us, which goes from the beginning, has
// overtaken us when all of those are pruned by now, with the same leaf hashes.
func (s *scan) settle(ctx context.Context, store driver.Store) (*fault, error) {
	again := scan{keys: s.keys, pins: []Checkpoint{{ID: s.id, Size: s.pruned, Root: s.prunedRoot}}}
	for b, err := range store.Batches(ctx, 0) {
		if err != nil {
			return nil, err
		}
		if f, _, err := nextFrame(b.Data); err != nil || f.kind != kindPruned {
			break
		}
		if flt, err := again.batch(b); flt != nil || err != nil {
			return flt, err
		}
		if again.met == s.pruned {
			return nil, nil
		}
	}
	return faultAt(Altered, s.lateAt, inTheMiddle), nil
}

// prunedHead checks the head beside the log when it has n events and they are pruned: the checkpoint that it is a copy of
// went with them, so its root and signature speak for it.
func (s *scan) prunedHead(n uint64) {
	if s.head == nil || n != s.headAt || n == 0 {
		return
	}
	c, err := parseCheckpoint(s.head)
	root, rerr := s.tree.root()
	s.headOK = err == nil && rerr == nil && c.ID == s.id && c.Root == root && s.keys.check(s.head)
}

// place checks that the event belongs here.
func (s *scan) place(index uint64, f *frame, chain tlog.Hash, rest []byte) *fault {
	id, at := f.event[offID:offIndex], binary.BigEndian.Uint64(f.event[offIndex:])
	switch {
	case !bytes.Equal(id, s.id[:]):
		return faultAt(Foreign, index, "the event was written in another log")
	case at != index:
		return faultAt(Reordered, index, fmt.Sprintf("event %d stands here", at))
	case f.chain != chain:
		if index == 0 {
			for len(rest) > 0 { // whose log is this?
				g, r, err := nextFrame(rest)
				if err != nil {
					break
				}
				if c, err := parseCheckpoint(g.note); err == nil && c.Origin != s.keys.origin {
					return faultAt(Foreign, index, "the log has another name")
				}
				rest = r
			}
		}
		return faultAt(Altered, index, "the event does not match the hash chain")
	}
	return nil
}

// checkpoint checks the end of a batch of the events first to size-1.
func (s *scan) checkpoint(first, size uint64, data []byte) (*fault, error) {
	f, rest, err := nextFrame(data)
	if errors.Is(err, errFrame) || (err == nil && (f.kind != kindCheckpoint || len(rest) != 0)) {
		return faultAt(Altered, first, "the checkpoint frame of the batch is damaged"), nil
	}
	if err != nil {
		return nil, err
	}
	if s.buf, err = s.tree.root(); err != nil {
		return nil, err
	}
	c := Checkpoint{Origin: s.keys.origin, Size: size, Root: s.buf, Chain: s.chain, ID: s.id}
	s.text = c.appendHead(s.text[:0])
	if ms, ok := timeAfter(f.note, s.text); ok {
		// All of it is as computed, and spelled as it must be.
		c.Time, c.Note = time.UnixMilli(ms).UTC(), append(s.last.Note[:0], f.note...)
	} else if c, err = parseCheckpoint(f.note); err != nil {
		return faultAt(Altered, first, "the checkpoint of the batch is malformed"), nil
	}
	if c.Origin != s.keys.origin || c.ID != s.id {
		return faultAt(Foreign, first, "the checkpoint of the batch is of another log"), nil
	}
	if c.Size != size || c.Root != s.buf || c.Chain != s.chain {
		return faultAt(Altered, first, "the events of the batch do not match its checkpoint"), nil
	}
	if !s.keys.signedBy(f.note) {
		return faultAt(KeyUnknown, first, "the checkpoint of the batch is signed by a key that was not given"), nil
	}
	if s.every && !s.keys.check(f.note) {
		return faultAt(Altered, first, "the signature of the checkpoint of the batch is wrong"), nil
	}
	if size == s.headAt {
		s.headOK = cosigned(s.head, f.note)
	}
	s.size, s.last = size, c
	if flt := s.pinnedUpTo(size); flt != nil {
		return flt, nil
	}
	return nil, nil
}

// pinnedUpTo checks the pins of size n, when the tree has that size.
func (s *scan) pinnedUpTo(n uint64) *fault {
	for len(s.pins) > 0 && s.pins[0].Size == n {
		p := &s.pins[0]
		root, err := s.tree.root()
		if err != nil || p.ID != s.id {
			return &fault{Foreign, -1, "the given head is of another log"}
		}
		if root != p.Root {
			return &fault{Forked, -1, fmt.Sprintf("the given head of size %d has another history", n)}
		}
		s.met, s.pins = n, s.pins[1:]
	}
	return nil
}

// finish judges what run has seen.
func (s *scan) finish() *fault {
	switch {
	case s.size == 0 && !s.torn:
		return &fault{Missing, -1, "there is no log"}
	case len(s.pins) > 0 && s.size > 0 && s.pins[0].ID != s.id:
		return &fault{Foreign, -1, "the given head is of another log"}
	case len(s.pins) > 0:
		return faultAt(Truncated, s.size, fmt.Sprintf("a given head has %d events", s.pins[len(s.pins)-1].Size))
	case s.torn:
		return faultAt(Truncated, s.size, "the log ends inside a batch")
	case s.last.Size < s.size:
		return faultAt(Truncated, s.size, "nothing follows the pruned events")
	case s.pruned > s.logged:
		return faultAt(Withheld, s.logged, "events were taken out without a pruning in the log")
	case s.headAt > s.size:
		return faultAt(Truncated, s.size, fmt.Sprintf("the checkpoint beside the log has %d events", s.headAt))
	case s.head != nil && !s.headOK:
		return &fault{Altered, -1, "the checkpoint beside the log is not one of the log"}
	}
	return nil
}

// setHead takes the copy of a checkpoint that lies beside the log.
func (s *scan) setHead(head []byte) *fault {
	if head == nil {
		return nil
	}
	c, err := parseCheckpoint(head)
	if err != nil {
		return &fault{Altered, -1, "the checkpoint beside the log is malformed"}
	}
	s.head, s.headAt = head, c.Size
	return nil
}

// parsePins checks the signatures of heads that were kept elsewhere.
func parsePins(keys *keyring, pins [][]byte) ([]Checkpoint, error) {
	var list []Checkpoint
	for _, p := range pins {
		c, err := parseCheckpoint(p)
		if err != nil || c.Origin != keys.origin || !keys.check(p) {
			return nil, errors.New("audit: a given head is not a checkpoint signed by a given key")
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Checkpoint) int {
		switch {
		case a.Size < b.Size:
			return -1
		case a.Size > b.Size:
			return 1
		}
		return 0
	})
	return list, nil
}

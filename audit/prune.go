package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/crmguard/crmguard/audit/driver"
)

// minRetention is the legal floor: six months, the longest there are.
const minRetention = 184 * 24 * time.Hour

// Prune takes the events below index out of the log, as far as whole batches
// go, and returns how many are gone from the beginning then. Their leaf hashes
// stay, 32 bytes for each, so that the tree, the chain, every proof, receipt
// and head keeps its worth; contents, openings and personal details go.
//
// It returns ErrHeld, and takes nothing out, when an event below index is
// younger than Options.Retention by its own time or by the checkpoint that was
// signed over it, or when Options.Hold holds one. The pruning is logged as the
// event "audit.pruned" before anything goes; a log whose events are gone
// without it does not verify.
func (l *Log) Prune(ctx context.Context, index uint64) (uint64, error) {
	l.pruning.Lock()
	defer l.pruning.Unlock()
	p, ok := l.writer.(driver.Pruner)
	if !ok {
		return 0, fmt.Errorf("%w: the store cannot prune", ErrInvalid)
	}
	from := l.Pruned()
	if size := l.Size(); index > size {
		return from, fmt.Errorf("%w: the log has %d events", ErrInvalid, size)
	}
	cut, err := l.prunable(ctx, from, index)
	if err != nil || cut <= from {
		return from, err
	}
	if _, err := l.append(ctx, Event{Action: actionPruned, Activity: Delete, Outcome: Allowed, Actor: logActor, Count: int64(cut),
		Note: "the contents of all events before number Count are taken out"}); err != nil {
		return from, err
	}
	l.mu.Lock()
	l.pruned = cut // readers pass over them from here on
	l.mu.Unlock()
	err = p.Prune(ctx, from, cut, func(bs iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error] {
		return prunedBatches(bs, l.id, cut)
	})
	return cut, err
}

// prunable returns where the last batch ends that ends at index or before it.
func (l *Log) prunable(ctx context.Context, from, index uint64) (cut uint64, err error) {
	limit := l.opts.Clock().Add(-l.opts.Retention)
	cut = from
	for b, err := range l.store.Batches(ctx, from) {
		if err != nil {
			return 0, err
		}
		if b.First+uint64(b.Count) > index {
			return cut, nil
		}
		var held error
		whole := entries(b, from, b.First+uint64(b.Count), from, func(e Entry, err error) bool {
			switch {
			case err != nil:
				held = err
			case e.Event.Time.After(limit):
				held = fmt.Errorf("%w: event %d is younger than the retention", ErrHeld, e.Index)
			case l.opts.Hold != nil:
				if err := l.opts.Hold(ctx, e); err != nil {
					held = fmt.Errorf("%w: event %d: %w", ErrHeld, e.Index, err)
				}
			}
			return held == nil
		})
		if !whole {
			return 0, held
		}
		if b.First+uint64(b.Count) > from {
			at, err := signedAt(b)
			if err != nil {
				return 0, err
			}
			if at.After(limit) {
				return 0, fmt.Errorf("%w: event %d is younger than the retention", ErrHeld, b.First)
			}
			cut = b.First + uint64(b.Count)
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	return cut, nil
}

// signedAt returns the time of the checkpoint of a batch.
func signedAt(b driver.Batch) (time.Time, error) {
	for data := b.Data; len(data) > 0; {
		f, rest, err := nextFrame(data)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: event %d", errBatch, b.First)
		}
		if data = rest; f.kind == kindCheckpoint {
			c, err := parseCheckpoint(f.note)
			if err != nil {
				return time.Time{}, fmt.Errorf("%w: event %d", errBatch, b.First)
			}
			return c.Time, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: event %d", errBatch, b.First)
}

// prunedBatchLeaves is how many events one pruned batch holds at most.
const prunedBatchLeaves = 1 << 16

// prunedBatches yields bs with leaf hashes in the place of the events of the
// batches that end at cut or before it.
func prunedBatches(bs iter.Seq2[driver.Batch, error], id [16]byte, cut uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		var leaves, scratch []byte
		var first uint64
		flush := func() bool {
			for len(leaves) > 0 {
				n := min(len(leaves)/sha256.Size, prunedBatchLeaves)
				if !yield(driver.Batch{First: first, Count: uint32(n), Data: appendPruned(nil, id, leaves[:n*sha256.Size])}, nil) {
					return false
				}
				first += uint64(n)
				leaves = leaves[n*sha256.Size:]
			}
			leaves = nil
			return true
		}
		for b, err := range bs {
			if err == nil && b.First+uint64(b.Count) <= cut {
				if len(leaves) == 0 {
					first = b.First
				}
				leaves, scratch, err = batchLeaves(leaves, scratch, b)
				if err == nil && len(leaves) >= prunedBatchLeaves*sha256.Size && !flush() {
					return
				}
				if err == nil {
					continue
				}
			}
			if err != nil {
				yield(driver.Batch{}, err)
				return
			}
			if !flush() || !yield(b, nil) {
				return
			}
		}
		flush()
	}
}

// batchLeaves appends the leaf hashes of a batch, each checked to be of the
// event that belongs there.
func batchLeaves(leaves, scratch []byte, b driver.Batch) ([]byte, []byte, error) {
	data, n, end := b.Data, b.First, b.First+uint64(b.Count)
	for n < end {
		f, rest, err := nextFrame(data)
		switch {
		case err == nil && f.kind == kindEvent && binary.BigEndian.Uint64(f.event[offIndex:]) == n:
			leaf, space := leafHash(scratch, f.event)
			leaves, scratch = append(leaves, leaf[:]...), space
			n++
		case err == nil && f.kind == kindPruned && uint64(len(f.leaves)/sha256.Size) <= end-n:
			leaves = append(leaves, f.leaves...)
			n += uint64(len(f.leaves) / sha256.Size)
		case err == nil || errors.Is(err, errFrame):
			return leaves, scratch, fmt.Errorf("%w: event %d", errBatch, n)
		default:
			return leaves, scratch, err
		}
		data = rest
	}
	return leaves, scratch, nil
}

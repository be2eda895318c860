// Package driver is the seam between package audit and the places where a log
// is kept. Only implementations of a store import it; users pass what
// filestore.Open, sqlstore.Open or memstore.New returns to audit.Open and audit.Verify.
//
// A store keeps batches. It does not look into a batch, never changes one, and
// gives back exactly the bytes it was given. Package audittest has the suite
// that each store passes.
package driver

import (
	"context"
	"errors"
	"iter"
)

// Errors that a store reports. All may be wrapped.
var (
	// ErrLocked says that another writer, in this process or in another one,
	// has the log open.
	ErrLocked = errors.New("audit: another writer has the log open")
	// ErrDamaged says that bytes which a complete append had written can no
	// longer be taken apart into batches. Everything yielded before it stands.
	ErrDamaged = errors.New("audit: stored bytes are damaged")
	// ErrTorn says that the store ends inside a batch and no writer is at
	// work: a crash left an unfinished append, or somebody cut the log.
	// Everything yielded before it stands.
	ErrTorn = errors.New("audit: the log ends inside a batch")
	// ErrFormat says that the store was written by a later version.
	ErrFormat = errors.New("audit: store of an unknown format")
)

// Batch is what one append wrote: events and the checkpoint over all events up
// to its end.
type Batch struct {
	First uint64 // index of the first event
	Count uint32 // number of events, never 0
	Data  []byte // frames, as docs/formats/audit.md describes them
}

// Store keeps one log. Its methods may be called at the same time from many
// goroutines, and beside a writer of the same or another process.
type Store interface {
	// Batches yields the batches in order, beginning with the one that holds
	// event from, and ends after the last complete one. Beside a writer the
	// result is a prefix that ends with a whole batch. Data is valid until the
	// next step and must not be changed. An error ends the sequence; see ErrDamaged and ErrTorn.
	Batches(ctx context.Context, from uint64) iter.Seq2[Batch, error]
	// Head returns the checkpoint that SetHead stored last, nil when none was.
	Head(ctx context.Context) ([]byte, error)
	// Writer makes the caller the only writer until Close, or returns
	// ErrLocked. An unfinished append at the end of the log, which nobody can
	// have been told is durable, is taken out first; see Writer.Torn.
	Writer(ctx context.Context) (Writer, error)
}

// Writer appends to a store.
type Writer interface {
	// Append writes a batch and returns when it is durable. After an error
	// the state of the end of the log is unknown, and each later Append
	// returns an error as well. Data is not kept.
	Append(ctx context.Context, b Batch) error
	// SetHead stores a copy of the newest checkpoint apart from the batches.
	SetHead(ctx context.Context, note []byte) error
	// Torn returns the bytes that opening took from the end, nil when none.
	Torn() []byte
	// Close gives up the place of the writer.
	Close() error
}

// Pruner is a Writer that can put less in the place of old batches.
type Pruner interface {
	// Prune replaces the stored batches that hold events from index from to
	// to-1, and such as lie with them, in stretches as the store keeps them and
	// in order. It gives replace the batches of a stretch and stores what that
	// yields in their place, the same events in batches of the same or other
	// boundaries: all of a stretch or, when replace yields an error or a crash
	// comes, nothing of it. Readers at work see the old or the new batches of a
	// stretch. Appends may go on meanwhile; their batches are in no stretch.
	Prune(ctx context.Context, from, to uint64, replace func(iter.Seq2[Batch, error]) iter.Seq2[Batch, error]) error
}

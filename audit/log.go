package audit

import (
	"context"
	"errors"
	"iter"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// Errors that callers tell apart. All may be wrapped.
var (
	// ErrUnavailable says that the log cannot take events any more: a write
	// or a sync failed, the disk is full, or the signer is gone. It stays so
	// until the log is opened anew.
	ErrUnavailable = errors.New("audit: log is unavailable")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("audit: log is closed")
	// ErrLocked says that another writer has the log open.
	ErrLocked = driver.ErrLocked
	// ErrTruncated says that the log is shorter than a checkpoint it has signed.
	ErrTruncated = errors.New("audit: log is shorter than a known checkpoint")
	// ErrTampered says that the log does not verify.
	ErrTampered = errors.New("audit: log does not verify")
	// ErrInvalid says that an event cannot be logged as it is.
	ErrInvalid = errors.New("audit: event is invalid")
	// ErrErased is what a Sealer returns for a person whose key was destroyed.
	ErrErased = errors.New("audit: person is erased")
)

// Options of Open. Nil means the zero value of each field.
type Options struct {
	Sealer          Sealer           // seals personal details; nil: events with details are refused
	PinnedHead      []byte           // checkpoint kept elsewhere that the log must contain; nil: none
	OldKeys         []string         // verifier keys of earlier signers; nil: none
	Clock           func() time.Time // nil: time.Now
	CheckpointEvery time.Duration    // how often the newest checkpoint is copied out; 0: one second
	OnCheckpoint    func(Checkpoint) // gets each copy, outside the path of appends; nil: none
	OnCommit        func(Commit)     // gets the figures of each batch, must not block; nil: none
}

// Commit has the figures of one batch.
type Commit struct {
	Events, Bytes int
	Took          time.Duration // time of write and sync
	Err           error         // nil when the batch is durable
}

// Log appends events to a store. Its methods may be called from many
// goroutines.
type Log struct{}

// Receipt says where a durable event lies.
type Receipt struct {
	Index uint64    // position in the log, from 0
	Leaf  tlog.Hash // RFC 6962 leaf hash of the event
	Chain tlog.Hash // head of the hash chain after the event
}

// Entry is an event read back.
type Entry struct {
	Receipt
	Event Event
}

// Checkpoint is a signed head of the log.
type Checkpoint struct {
	Origin string    // name of the log
	Size   uint64    // number of events
	Root   tlog.Hash // RFC 6962 root hash of them
	Chain  tlog.Hash // head of the hash chain
	ID     [16]byte  // random id of the log
	Time   time.Time // when it was signed, to the millisecond
	Note   []byte    // the C2SP signed note
}

// Filter selects events. A zero field matches everything.
type Filter struct {
	Tenant, Actor, Action string
	TargetType, TargetID  string    // TargetID needs TargetType
	From, To              time.Time // From is included, To is not
}

// Open opens the log of store for appending and makes it when there is none.
func Open(ctx context.Context, store driver.Store, signer Signer, opts *Options) (*Log, error) {
	return nil, errors.New("audit: not ready")
}

// Append logs e and returns when it is durable.
func (l *Log) Append(ctx context.Context, e Event) (Receipt, error) { return Receipt{}, ErrClosed }

// AppendAll logs all events in one sync, all or none.
func (l *Log) AppendAll(ctx context.Context, es []Event) ([]Receipt, error) { return nil, ErrClosed }

// Events yields the durable events from index from on.
func (l *Log) Events(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(func(Entry, error) bool) {}
}

// Query returns the newest events below index before that match f, newest
// first, at most limit.
func (l *Log) Query(ctx context.Context, f Filter, before uint64, limit int) ([]Entry, error) {
	return nil, ErrClosed
}

// Reveal opens the details of an entry.
func (l *Log) Reveal(ctx context.Context, e Entry) ([]Detail, error) { return nil, ErrClosed }

// Checkpoint returns the newest signed head.
func (l *Log) Checkpoint(ctx context.Context) (Checkpoint, error) { return Checkpoint{}, ErrClosed }

// Size returns the number of durable events.
func (l *Log) Size() uint64 { return 0 }

// Err returns nil while the log takes events.
func (l *Log) Err() error { return nil }

// Close ends the log.
func (l *Log) Close() error { return nil }

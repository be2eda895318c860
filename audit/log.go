package audit

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// Errors that callers tell apart. All may be wrapped.
var (
	// ErrUnavailable says that the log did not take an event: a write or a
	// sync failed, the disk is full, or the signer did not sign. After a
	// failed write it stays so until the log is opened anew.
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
	// ErrHeld says that events must be kept: they are too young, or held.
	ErrHeld = errors.New("audit: events must be kept")
	// ErrErased is what a Sealer returns for a person whose key was destroyed.
	ErrErased = errors.New("audit: person is erased")
)

// Options of Open. Nil means the zero value of each field.
type Options struct {
	Sealer          Sealer                                                 // seals personal details; nil: events with details are refused
	PinnedHead      []byte                                                 // checkpoint kept elsewhere that the log must contain; nil: none
	OldKeys         []string                                               // verifier keys of earlier signers; nil: none
	Clock           func() time.Time                                       // nil: time.Now
	CheckpointEvery time.Duration                                          // how often the newest checkpoint is copied out; 0: one second
	OnCheckpoint    func(Checkpoint)                                       // gets each copy, beside the path of appends, one at a time; nil: none
	Retention       time.Duration                                          // how long Prune keeps events at least; 0: 184 days, six months; less is refused
	Hold            func(context.Context, Entry) error                     // asked by Prune for each event: an error says why it is under a legal hold; nil: none is
	OnCommit        func(events, bytes int, took time.Duration, err error) // gets the figures of each write and sync, must not block; nil: none
}

// Receipt says where a durable event lies.
type Receipt struct {
	Index uint64    // position in the log, from 0
	Leaf  tlog.Hash // RFC 6962 leaf hash of the event
	Chain tlog.Hash // head of the hash chain after the event
}

// Checkpoint is a signed head of the log.
type Checkpoint struct {
	Origin string    // name of the log
	Size   uint64    // number of events
	Root   tlog.Hash // RFC 6962 root hash of them
	Chain  tlog.Hash // head of the hash chain
	ID     [16]byte  // random id of the log
	Time   time.Time // when it was signed, to the millisecond
	Note   []byte    // the C2SP signed note; keep this to pin the log
}

// Log appends events to a store. Its methods may be called from many
// goroutines.
type Log struct {
	store  driver.Store
	writer driver.Writer
	signer Signer
	key    note.Verifier
	opts   Options
	id     [16]byte
	index  *index

	queue struct {
		sync.Mutex
		list   []*request
		closed bool
		err    error // why no more events are taken
	}
	wake chan struct{}
	done chan struct{} // the committer has ended
	copy struct {
		wake chan struct{}
		stop chan struct{}
		done chan struct{}
	}

	hashes  *hashes
	pruning sync.Mutex // held by Prune

	mu     sync.RWMutex // guards the durable state and index
	last   Checkpoint
	pruned uint64

	// Of the committer alone.
	chain   tlog.Hash
	tree    *edge
	spare   *edge
	batch   []byte
	whole   []wholeTile
	scratch []byte

	close     sync.Once
	closedErr error
}

// wholeTile says what the event that ended a tile of the tree completed.
type wholeTile struct {
	index uint64
	upper []tlog.Hash
}

// request is what one call wants appended. The committer takes it and answers
// once on done, which has room for the answer.
type request struct {
	items    []item
	receipts []Receipt
	bytes    int
	done     chan error
}

// item is one event on its way: a frame that lacks index, chain and CRC.
type item struct {
	frame []byte
	size  int // of the event
	time  int64
	keys  []uint64
}

// Open opens the log of store for appending, makes it when there is none, and
// checks it: all hashes, the last signature and opts.PinnedHead.
//
// It returns ErrLocked when another writer is at work, ErrTruncated when the
// log is shorter than a checkpoint that is known, ErrTampered when it does not
// verify, and ErrUnavailable when the first write fails. What a crash left
// unfinished at the end, and nobody was told is durable, is taken out; that is
// logged as the event "audit.recovered".
func Open(ctx context.Context, store driver.Store, signer Signer, opts *Options) (*Log, error) {
	l := &Log{store: store, signer: signer, index: newIndex(), hashes: newHashes(store), tree: new(edge), spare: new(edge)}
	if opts != nil {
		l.opts = *opts
	}
	if l.opts.Clock == nil {
		l.opts.Clock = time.Now
	}
	if l.opts.CheckpointEvery <= 0 {
		l.opts.CheckpointEvery = time.Second
	}
	if l.opts.Retention == 0 {
		l.opts.Retention = minRetention
	}
	if l.opts.Retention < minRetention {
		return nil, fmt.Errorf("%w: a retention of less than six months", ErrInvalid)
	}
	keys, err := newKeyring(append([]string{signer.VerifierKey()}, l.opts.OldKeys...))
	if err != nil {
		return nil, err
	}
	l.key = keys.list[0]
	var pins []Checkpoint
	if l.opts.PinnedHead != nil {
		if pins, err = parsePins(keys, [][]byte{l.opts.PinnedHead}); err != nil {
			return nil, err
		}
	}
	if l.writer, err = store.Writer(ctx); err != nil {
		return nil, err
	}
	fresh, err := l.load(ctx, keys, pins)
	if err != nil {
		l.writer.Close()
		return nil, err
	}
	l.wake = make(chan struct{}, 1)
	l.done = make(chan struct{})
	l.copy.wake = make(chan struct{}, 1)
	l.copy.stop = make(chan struct{})
	l.copy.done = make(chan struct{})
	go l.committer()
	go l.copier()
	l.copy.wake <- struct{}{} // a crash may have left an old copy
	if err := l.announce(ctx, keys, fresh); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// load reads and checks what is there.
func (l *Log) load(ctx context.Context, keys *keyring, pins []Checkpoint) (fresh bool, err error) {
	head, err := l.store.Head(ctx)
	if err != nil {
		return false, err
	}
	s := &scan{keys: keys, pins: pins, hashes: l.hashes}
	var space []uint64
	s.onEvent = func(n uint64, f *frame, _ tlog.Hash) (*fault, error) {
		var ok bool
		if space, ok = l.index.addRaw(n, f.event, space); !ok {
			return faultAt(Altered, n, "the event is malformed"), nil
		}
		return nil, nil
	}
	flt := s.setHead(head)
	beside := flt
	if flt, err = s.run(ctx, l.store); err != nil {
		return false, err
	}
	if flt == nil && s.last.Size > 0 && !keys.check(s.last.Note) {
		flt = &fault{Altered, -1, "the signature of the last checkpoint is wrong"}
	}
	if flt == nil {
		flt = s.finish()
	}
	if flt == nil {
		flt = beside
	}
	if flt != nil && flt.state == Missing {
		if len(pins) > 0 || head != nil {
			return false, fmt.Errorf("%w: there is no log", ErrTruncated)
		}
		rand.Read(l.id[:]) // never fails
		l.chain = chainZero(l.id, keys.origin)
		return true, nil
	}
	if flt != nil {
		cause := ErrTampered
		if flt.state == Truncated {
			cause = ErrTruncated
		}
		if flt.at >= 0 {
			return false, fmt.Errorf("%w: %v at event %d: %s", cause, flt.state, flt.at, flt.reason)
		}
		return false, fmt.Errorf("%w: %v: %s", cause, flt.state, flt.reason)
	}
	l.id, l.chain, l.last, l.pruned = s.id, s.chain, s.last, s.pruned
	*l.tree = s.tree
	return false, nil
}

// The actor and actions of events about the log itself.
const (
	logActor     = "audit"
	actionPruned = "audit.pruned"
)

// announce logs what happened to the log itself.
func (l *Log) announce(ctx context.Context, keys *keyring, fresh bool) error {
	var list []Event
	if fresh {
		list = append(list, Event{Action: "audit.created", Activity: Create})
	}
	if torn := l.writer.Torn(); torn != nil {
		sum := sha256.Sum256(torn)
		list = append(list, Event{Action: "audit.recovered", Activity: Other, Count: int64(len(torn)),
			Targets: []Target{{Type: "audit.tail", ID: "torn", Digest: sum[:]}},
			Note:    "an unfinished write at the end was taken out; Count is its bytes"})
	}
	if !fresh {
		current := &keyring{origin: keys.origin, list: keys.list[:1], hashes: keys.hashes[:1]}
		if !current.signedBy(l.last.Note) {
			list = append(list, Event{Action: "audit.key", Activity: Configure,
				Note: fmt.Sprintf("checkpoints are signed by key %08x from here on", l.key.KeyHash())})
		}
	}
	if len(list) == 0 {
		return nil
	}
	for i := range list {
		list[i].Actor, list[i].Outcome = logActor, Allowed
	}
	_, err := l.AppendAll(ctx, list)
	return err
}

// Append logs e and returns when it is durable. It returns ErrInvalid when e
// cannot be logged, ErrUnavailable when the log failed, and ErrClosed. When ctx
// ends first, e may or may not be logged.
func (l *Log) Append(ctx context.Context, e Event) (Receipt, error) {
	receipts, err := l.AppendAll(ctx, []Event{e})
	if err != nil {
		return Receipt{}, err
	}
	return receipts[0], nil
}

// AppendAll logs all events, in order and next to each other, in one sync: all
// or none. Errors are those of Append.
func (l *Log) AppendAll(ctx context.Context, es []Event) ([]Receipt, error) {
	if len(es) == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	r := &request{items: make([]item, len(es)), receipts: make([]Receipt, len(es)), done: make(chan error, 1)}
	for i := range es {
		if err := l.prepare(ctx, &r.items[i], es[i]); err != nil {
			return nil, err
		}
		r.bytes += len(r.items[i].frame)
	}
	if r.bytes > maxBatch-maxNote {
		return nil, fmt.Errorf("%w: too many bytes in one call", ErrInvalid)
	}
	l.queue.Lock()
	err := l.queue.err
	if err == nil && l.queue.closed {
		err = ErrClosed
	}
	if err == nil {
		l.queue.list = append(l.queue.list, r)
	}
	l.queue.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-r.done:
		if err != nil {
			return nil, err
		}
		return r.receipts, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// prepare does for an event all that needs no place in the log.
func (l *Log) prepare(ctx context.Context, it *item, e Event) error {
	if e.Time.IsZero() {
		e.Time = l.opts.Clock()
	}
	if err := e.validate(); err != nil {
		return err
	}
	if len(e.Details) > 0 {
		if l.opts.Sealer == nil {
			return fmt.Errorf("%w: personal details need a sealer", ErrInvalid)
		}
		e.Details = append([]Detail(nil), e.Details...)
		for i := range e.Details {
			if err := e.Details[i].seal(ctx, l.opts.Sealer, e.Tenant); err != nil {
				return err
			}
		}
	}
	it.time = e.Time.UnixNano()
	it.keys = l.index.keysOf(&e)
	b := make([]byte, offEvent, offEvent+192+56*len(e.Targets)+96*len(e.Details))
	b[frameHead-1] = kindEvent
	b = appendEvent(b, l.id, 0, &e)
	it.size = len(b) - offEvent
	if it.size > maxEvent {
		return fmt.Errorf("%w: larger than %d bytes", ErrInvalid, maxEvent)
	}
	binary.BigEndian.PutUint16(b[offEventLen:], uint16(it.size))
	for i := range e.Details {
		b = appendOpening(b, e.Details[i].sealed)
	}
	if len(b)-offEvent-it.size > maxOpenings {
		return fmt.Errorf("%w: details are too long", ErrInvalid)
	}
	it.frame = b
	return nil
}

// Bound of what is committed in one batch beyond the first request.
const gatherBytes = 8 << 20

// committer writes what queued during the last sync, again and again.
func (l *Log) committer() {
	defer close(l.done)
	for {
		l.queue.Lock()
		list := l.queue.list
		closed := l.queue.closed
		n, bytes := 0, 0
		for n < len(list) && (n == 0 || bytes+list[n].bytes <= gatherBytes) {
			bytes += list[n].bytes
			n++
		}
		if n == len(list) {
			l.queue.list = nil
		} else {
			l.queue.list = list[n:]
		}
		l.queue.Unlock()
		if n == 0 {
			if closed {
				return
			}
			<-l.wake
			continue
		}
		err := l.commit(list[:n])
		for _, r := range list[:n] {
			r.done <- err
		}
	}
}

// fail makes err the answer to everything from now on.
func (l *Log) fail(cause error) error {
	err := fmt.Errorf("%w: %v", ErrUnavailable, cause)
	l.queue.Lock()
	if l.queue.err == nil {
		l.queue.err = err
	}
	err = l.queue.err
	l.queue.Unlock()
	return err
}

// commit makes one batch durable.
func (l *Log) commit(list []*request) error {
	ctx := context.Background() // one caller must not end the batch of others
	l.queue.Lock()
	err := l.queue.err
	l.queue.Unlock()
	if err != nil {
		return err
	}
	first := uint64(l.tree.size)
	n, chain, tree := first, l.chain, l.spare
	*tree = *l.tree
	batch := l.batch[:0]
	whole := l.whole[:0]
	var leaf tlog.Hash
	for _, r := range list {
		for i := range r.items {
			it := &r.items[i]
			event := it.frame[offEvent : offEvent+it.size]
			binary.BigEndian.PutUint64(event[offIndex:], n)
			leaf, l.scratch = leafHash(l.scratch, event)
			chain = chainNext(chain, leaf)
			copy(it.frame[offChain:], chain[:])
			sealFrame(it.frame)
			tree.add(leaf)
			if upper := tree.upper(); upper != nil {
				whole = append(whole, wholeTile{n, slices.Clone(upper)})
			}
			r.receipts[i] = Receipt{Index: n, Leaf: leaf, Chain: chain}
			batch = append(batch, it.frame...)
			n++
		}
	}
	root, err := tree.root()
	if err != nil {
		return l.fail(err)
	}
	c := Checkpoint{Origin: l.key.Name(), Size: n, Root: root, Chain: chain, ID: l.id,
		Time: time.UnixMilli(l.opts.Clock().UnixMilli()).UTC()}
	if err := signCheckpoint(ctx, &c, l.key, l.signer); err != nil {
		// Nothing was written, so the next batch may do better.
		return fmt.Errorf("%w: signer: %v", ErrUnavailable, err)
	}
	at := len(batch)
	batch = append(batch, 0, 0, 0, 0, 0, 0, 0, 0, kindCheckpoint)
	batch = append(batch, c.Note...)
	sealFrame(batch[at:])
	if cap(batch) <= gatherBytes {
		l.batch = batch
	}
	start := time.Now()
	err = l.writer.Append(ctx, driver.Batch{First: first, Count: uint32(n - first), Data: batch})
	if l.opts.OnCommit != nil {
		l.opts.OnCommit(int(n-first), len(batch), time.Since(start), err)
	}
	if err != nil {
		return l.fail(err)
	}
	l.chain, l.tree, l.spare, l.whole = chain, tree, l.tree, whole
	l.mu.Lock()
	l.last = c
	l.hashes.mu.Lock()
	for _, r := range list {
		for i := range r.items {
			l.index.add(r.receipts[i].Index, r.items[i].time, r.items[i].keys)
			var upper []tlog.Hash
			if len(whole) > 0 && whole[0].index == r.receipts[i].Index {
				upper, whole = whole[0].upper, whole[1:]
			}
			l.hashes.add(r.receipts[i].Leaf, upper)
		}
	}
	l.hashes.mu.Unlock()
	l.mu.Unlock()
	select {
	case l.copy.wake <- struct{}{}:
	default:
	}
	return nil
}

// copier copies the newest checkpoint out: to the store, and to OnCheckpoint.
func (l *Log) copier() {
	defer close(l.copy.done)
	var copied uint64
	once := func() {
		l.mu.RLock()
		c := l.last
		l.mu.RUnlock()
		if c.Size == copied { // 0: nothing yet
			return
		}
		if err := l.writer.SetHead(context.Background(), c.Note); err != nil {
			_ = l.fail(err) // Err keeps it
			return
		}
		copied = c.Size
		if l.opts.OnCheckpoint != nil {
			c.Note = append([]byte(nil), c.Note...)
			l.opts.OnCheckpoint(c)
		}
	}
	timer := time.NewTimer(l.opts.CheckpointEvery)
	defer timer.Stop()
	for {
		select {
		case <-l.copy.wake:
		case <-l.copy.stop:
			once()
			return
		}
		once()
		timer.Reset(l.opts.CheckpointEvery)
		select {
		case <-timer.C:
		case <-l.copy.stop:
			once()
			return
		}
	}
}

// Checkpoint returns the newest signed head. It covers every event whose
// Append has returned.
func (l *Log) Checkpoint(ctx context.Context) (Checkpoint, error) {
	if err := ctx.Err(); err != nil {
		return Checkpoint{}, err
	}
	l.mu.RLock()
	c := l.last
	l.mu.RUnlock()
	c.Note = append([]byte(nil), c.Note...)
	return c, nil
}

// Tree returns the tree of the log up to its newest checkpoint, for proofs.
func (l *Log) Tree() *Tree {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return &Tree{l.hashes, l.last}
}

// Pruned returns how many events at the beginning were taken out by Prune.
func (l *Log) Pruned() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.pruned
}

// Size returns the number of durable events.
func (l *Log) Size() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last.Size
}

// Err returns nil while the log takes events, else what Append returns.
func (l *Log) Err() error {
	l.queue.Lock()
	defer l.queue.Unlock()
	if l.queue.err == nil && l.queue.closed {
		return ErrClosed
	}
	return l.queue.err
}

// Close commits what is queued, copies the last checkpoint out and gives the
// log free for another writer. It returns the error that made the log
// unavailable, if any. Reading methods must not be called after it.
func (l *Log) Close() error {
	l.close.Do(func() {
		l.queue.Lock()
		l.queue.closed = true
		l.queue.Unlock()
		select {
		case l.wake <- struct{}{}:
		default:
		}
		<-l.done
		close(l.copy.stop)
		<-l.copy.done
		l.queue.Lock()
		l.closedErr = l.queue.err
		l.queue.Unlock()
		if err := l.writer.Close(); l.closedErr == nil {
			l.closedErr = err
		}
	})
	return l.closedErr
}

package audit

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/keep"
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
	Rules           []keep.Rule                                            // what is kept of which actions, and how; nil: all is, durably
	Queue           int                                                    // how many events of buffered rules and AppendAsync may be on their way; 0: 4,096
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
	wake  chan struct{}
	done  chan struct{}  // the committer has ended
	slots chan struct{}  // one for each event on its way that nobody need wait for
	gaps  []atomic.Int64 // events given up, by rule
	copy  struct {
		wake chan struct{}
		stop chan struct{}
		done chan struct{}
	}

	hashes  *hashes
	pruning sync.Mutex // held by Prune

	mu     sync.RWMutex // guards the durable state and index
	last   Checkpoint
	pruned uint64
	grew   chan struct{} // closed when last changes

	// Of the committer alone.
	chain   tlog.Hash
	tree    *edge
	spare   *edge
	batch   []byte
	levels  []tlog.Hash // completed subtrees of a batch, event by event
	scratch []byte

	close     sync.Once
	closedErr error
}

// request is what one call wants appended.
type request struct {
	items    []item
	receipts []Receipt
	bytes    int
	slot     bool          // it holds one of Log.slots
	async    bool          // many may wait: done is closed; else one value is sent
	err      error         // set before that
	done     chan struct{} // tells that the request is durable or has failed

	oneItem    [1]item // space for a request of one event
	oneReceipt [1]Receipt
}

// requests are spent requests of one event, kept with their space.
var requests = sync.Pool{New: func() any { return &request{done: make(chan struct{}, 1)} }}

// maxSpent is the largest frame that is kept with a spent request.
const maxSpent = 16 << 10

// item is one event on its way: a frame that lacks index, chain and CRC.
type item struct {
	frame []byte
	size  int // of the event
	time  int64
	keys  []uint64

	details []Detail // space for prepare
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
	if err := l.setRules(); err != nil {
		return nil, err
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
	l.grew = make(chan struct{})
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
	actionGap    = "audit.gap"
	actionRules  = "audit.rules"
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
	if rules, changed, err := l.rulesEvent(ctx); err != nil {
		return err
	} else if changed {
		list = append(list, rules)
	}
	if len(list) == 0 {
		return nil
	}
	for i := range list {
		list[i].Actor, list[i].Outcome = logActor, Allowed
	}
	_, err := l.appendAll(ctx, list)
	return err
}

// Append logs e and returns when it is durable. It returns ErrInvalid when e
// cannot be logged, ErrUnavailable when the log failed, and ErrClosed. When ctx
// ends first, e may or may not be logged. Options.Rules may say otherwise of
// some actions: then the receipt may be zero.
func (l *Log) Append(ctx context.Context, e Event) (Receipt, error) {
	if err := e.reserved(); err != nil {
		return Receipt{}, err
	}
	return l.append(ctx, e)
}

// append also takes events of the log itself.
func (l *Log) append(ctx context.Context, e Event) (Receipt, error) {
	if rule, n := l.ruleOf(&e); rule.Buffered && rule.Level != keep.None {
		if rule.Shed {
			return Receipt{}, l.shed(ctx, e, n)
		}
		_, err := l.AppendAsync(ctx, e)
		return Receipt{}, err
	}
	if rule, _ := l.ruleOf(&e); rule.Level == keep.None {
		return Receipt{}, e.validate()
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	r := requests.Get().(*request)
	r.items, r.receipts = r.oneItem[:], r.oneReceipt[:]
	err := l.fill(ctx, r, e)
	if err == nil {
		err = l.enqueue(r)
	}
	if err == nil {
		if ended := ctx.Done(); ended == nil {
			<-r.done
		} else {
			select {
			case <-r.done:
			case <-ended:
				return Receipt{}, ctx.Err() // the committer has r
			}
		}
		err = r.err
	}
	receipt := r.receipts[0]
	if err != nil {
		receipt = Receipt{}
	}
	if cap(r.items[0].frame) <= maxSpent {
		r.bytes, r.err, r.slot = 0, nil, false
		requests.Put(r)
	}
	return receipt, err
}

// AppendAll logs all events, in order and next to each other, in one sync: all
// or none, durable when it returns. Errors are those of Append.
func (l *Log) AppendAll(ctx context.Context, es []Event) ([]Receipt, error) {
	if len(es) == 0 {
		return nil, nil
	}
	for i := range es {
		if err := es[i].reserved(); err != nil {
			return nil, err
		}
	}
	return l.appendAll(ctx, es)
}

// appendAll also takes events of the log itself.
func (l *Log) appendAll(ctx context.Context, es []Event) ([]Receipt, error) {
	kept := es
	var at []int // places of kept in es, when some are not to be logged
	if len(l.opts.Rules) > 0 {
		kept = nil
		for i := range es {
			if rule, _ := l.ruleOf(&es[i]); rule.Level != keep.None {
				kept, at = append(kept, es[i]), append(at, i)
			} else if err := es[i].validate(); err != nil {
				return nil, err
			}
		}
		if len(kept) == 0 {
			return make([]Receipt, len(es)), nil
		}
	}
	r, err := l.request(ctx, kept)
	if err != nil {
		return nil, err
	}
	if err := l.enqueue(r); err != nil {
		return nil, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r.err != nil || len(kept) == len(es) {
		return r.receipts, r.err
	}
	all := make([]Receipt, len(es))
	for i, n := range at {
		all[n] = r.receipts[i]
	}
	return all, nil
}

// request makes a request of events whose rules keep something of them.
func (l *Log) request(ctx context.Context, es []Event) (*request, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := l.Err(); err != nil {
		return nil, err
	}
	r := &request{items: make([]item, len(es)), receipts: make([]Receipt, len(es)), done: make(chan struct{}), async: true}
	return r, l.fill(ctx, r, es...)
}

// fill prepares the events of a request.
func (l *Log) fill(ctx context.Context, r *request, es ...Event) error {
	for i := range es {
		if err := l.prepare(ctx, &r.items[i], &es[i]); err != nil {
			return err
		}
		r.bytes += len(r.items[i].frame)
	}
	if r.bytes > maxBatch-2*maxNote {
		return fmt.Errorf("%w: too many bytes in one call", ErrInvalid)
	}
	return nil
}

// enqueue gives a request to the committer.
func (l *Log) enqueue(r *request) error {
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
		return err
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// prepare does for an event all that needs no place in the log.
func (l *Log) prepare(ctx context.Context, it *item, given *Event) error {
	e := *given // which is not changed
	if e.Time.IsZero() {
		e.Time = l.opts.Clock()
	}
	if err := e.validate(); err != nil {
		return err
	}
	if rule, n := l.ruleOf(&e); n >= 0 {
		e.reduce(rule.Level)
	}
	if len(e.Details) > 0 {
		if l.opts.Sealer == nil {
			return fmt.Errorf("%w: personal details need a sealer", ErrInvalid)
		}
		it.details = append(it.details[:0], e.Details...)
		defer clear(it.details) // the space is used again
		e.Details = it.details
		for i := range e.Details {
			if err := e.Details[i].seal(ctx, l.opts.Sealer, e.Tenant); err != nil {
				return err
			}
		}
	}
	it.time = e.Time.UnixNano()
	it.keys = l.index.keysOf(it.keys[:0], &e)
	b := it.frame
	if cap(b) < offEvent {
		b = make([]byte, offEvent, offEvent+384+56*len(e.Targets)+160*len(e.Details))
	}
	b = b[:offEvent]
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

// gather lets goroutines that are ready to run queue their events first, as
// long as some do: a larger batch for no wait. last is how many requests the
// last batch had; one writer alone is not asked to step back.
func (l *Log) gather(last int) {
	n := 0
	if last <= 1 {
		n = 1
	}
	for range 3 {
		l.queue.Lock()
		now := len(l.queue.list)
		l.queue.Unlock()
		if now <= n {
			return
		}
		n = now
		runtime.Gosched()
	}
}

// committer writes what queued during the last sync, again and again.
func (l *Log) committer() {
	defer close(l.done)
	last := 0
	for {
		l.gather(last)
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
		list = list[:n:n]
		gap, counts := l.gap()
		if gap != nil {
			list = append(list, gap)
		}
		if len(list) == 0 {
			if closed {
				return
			}
			<-l.wake
			continue
		}
		last = len(list)
		err := l.commit(list)
		if err != nil {
			l.restore(counts)
			if closed && n == 0 {
				return
			}
		}
		for _, r := range list {
			slot := r.slot
			r.err = err
			if r.async {
				close(r.done)
			} else {
				r.done <- struct{}{}
			}
			if slot {
				<-l.slots
			}
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
	levels := l.levels[:0]
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
			levels = append(levels, tree.completed()...)
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
	l.chain, l.tree, l.spare = chain, tree, l.tree
	if cap(levels) <= 1<<16 {
		l.levels = levels
	}
	l.mu.Lock()
	l.last = c
	close(l.grew)
	l.grew = make(chan struct{})
	l.hashes.mu.Lock()
	for _, r := range list {
		for i := range r.items {
			l.index.add(r.receipts[i].Index, r.items[i].time, r.items[i].keys)
			// A leaf completes one subtree more than its index ends in ones.
			done := 1 + bits.TrailingZeros64(^r.receipts[i].Index)
			l.hashes.add(levels[:done])
			levels = levels[done:]
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
	return &Tree{h: l.hashes, c: l.last}
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
// unavailable, if any. Reading methods must not be called after it. It waits for
// Options.OnCheckpoint, which must not call it.
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

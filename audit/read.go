package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// Entry is an event read back.
type Entry struct {
	Receipt
	Event Event
	Late  bool // set by Replay: later events were yielded before it
}

// Filter selects events. A zero field matches everything.
type Filter struct {
	Tenant, Actor, Action string
	TargetType, TargetID  string    // one target has both
	Person                [16]byte  // of one of the details: whose data they are, erased or not
	Outcome               Outcome   // how it ended
	From, To              time.Time // of the event; From is included, To is not
}

func (f *Filter) match(e *Event) bool {
	if (f.Tenant != "" && e.Tenant != f.Tenant) || (f.Actor != "" && e.Actor != f.Actor) ||
		(f.Action != "" && e.Action != f.Action) || (f.Outcome != 0 && e.Outcome != f.Outcome) ||
		(f.Person != [16]byte{} && !slices.ContainsFunc(e.Details, func(d Detail) bool { return d.Person == f.Person })) ||
		(!f.From.IsZero() && e.Time.Before(f.From)) || (!f.To.IsZero() && !e.Time.Before(f.To)) {
		return false
	}
	if f.TargetType == "" && f.TargetID == "" {
		return true
	}
	for i := range e.Targets {
		t := &e.Targets[i]
		if (f.TargetType == "" || t.Type == f.TargetType) && (f.TargetID == "" || t.ID == f.TargetID) {
			return true
		}
	}
	return false
}

// errBatch says that a batch changed after the log was opened and checked.
var errBatch = fmt.Errorf("%w: stored bytes have changed", ErrTampered)

// entries yields the events of a batch from index from on and below size. It
// passes over those below pruned that are no longer there.
func entries(b driver.Batch, from, size, pruned uint64, yield func(Entry, error) bool) bool {
	data := b.Data
	for n := b.First; n < min(b.First+uint64(b.Count), size); n++ {
		f, rest, err := nextFrame(data)
		if err == nil && f.kind == kindPruned && n+uint64(len(f.leaves)/sha256.Size) <= pruned {
			n += uint64(len(f.leaves)/sha256.Size) - 1
			data = rest
			continue
		}
		if err == nil && f.kind != kindEvent {
			err = errFrame
		}
		data = rest
		if err == nil && n < from {
			continue
		}
		var e Entry
		var index uint64
		if err == nil {
			_, index, e.Event, err = parseEvent(f.event)
		}
		openings, ok := splitOpenings(f.openings)
		if errors.Is(err, driver.ErrFormat) {
			yield(Entry{}, err)
			return false
		}
		if err != nil || index != n || !ok {
			yield(Entry{}, fmt.Errorf("%w: event %d", errBatch, n))
			return false
		}
		for i := range min(len(openings), len(e.Event.Details)) {
			e.Event.Details[i].sealed = append([]byte(nil), openings[i]...)
		}
		e.Receipt = Receipt{Index: n, Leaf: tlog.RecordHash(f.event), Chain: f.chain}
		if !yield(e, nil) {
			return false
		}
	}
	return true
}

// Events yields the events from index from on that are durable when the
// iteration begins, in order; those that were pruned are passed over. An error
// ends it.
func (l *Log) Events(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		size, pruned := l.Size(), l.Pruned()
		from := max(from, pruned)
		if from >= size {
			return
		}
		next := from
		for b, err := range l.store.Batches(ctx, from) {
			if err == nil && b.First > next {
				err = fmt.Errorf("%w: event %d is not there", errBatch, next)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !entries(b, from, size, max(pruned, l.Pruned()), yield) {
				return
			}
			if next = b.First + uint64(b.Count); next >= size {
				return
			}
		}
		yield(Entry{}, fmt.Errorf("%w: event %d is not there", errBatch, next))
	}
}

// Query returns the newest events below index before that match f, newest
// first, at most limit. For the next page pass the index of the last entry;
// for the first one pass Size or any larger number.
//
// A filter by actor, action, person, or target type and id reads the matching events
// only, as far back as the postings in memory reach (16 MiB, some 150,000
// events). Before that it reads the stretches of some 16,000 events whose summary
// may hold what is looked for; nothing is ever missed. Other filters cost a pass
// over the log, less the blocks of 1,024 events whose times cannot match. Events
// that were pruned are not found.
func (l *Log) Query(ctx context.Context, f Filter, before uint64, limit int) ([]Entry, error) {
	if limit < 1 {
		return nil, nil
	}
	before = min(before, l.Size())
	key, keyed := uint64(0), true
	switch {
	case f.TargetType != "" && f.TargetID != "":
		key = l.index.key(byTarget, f.TargetType, f.TargetID)
	case f.Person != [16]byte{}:
		key = l.index.key(byPerson, string(f.Person[:]), "")
	case f.Actor != "":
		key = l.index.key(byActor, f.Actor, "")
	case f.Action != "":
		key = l.index.key(byAction, f.Action, "")
	default:
		keyed = false
	}
	var out []Entry
	for more := keyed; more && len(out) < limit; {
		var list []uint64
		l.mu.RLock()
		list, more = l.index.lookup(key, before, 4096)
		floor := l.index.floor()
		pruned := l.pruned
		l.mu.RUnlock()
		for len(list) > 0 && list[len(list)-1] < pruned {
			list, more = list[:len(list)-1], false
		}
		got, err := l.fetch(ctx, f, list, limit-len(out))
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
		if more && len(list) > 0 {
			before = list[len(list)-1]
		} else {
			before = min(before, floor)
		}
	}
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !f.From.IsZero() && f.From.After(time.Unix(0, math.MinInt64)) {
		from = f.From.UnixNano()
		if f.From.After(time.Unix(0, math.MaxInt64)) {
			return out, nil
		}
	}
	if !f.To.IsZero() && f.To.Before(time.Unix(0, math.MaxInt64)) {
		to = f.To.UnixNano()
		if f.To.Before(time.Unix(0, math.MinInt64)) {
			return out, nil
		}
	}
	for len(out) < limit {
		l.mu.RLock()
		stretch := max(l.index.first, l.pruned)
		if keyed && before > stretch {
			var from uint64
			from, before = l.index.before(key, before)
			stretch = max(stretch, from)
		}
		if before <= stretch {
			l.mu.RUnlock()
			break
		}
		start := max((before-1)/blockEvents*blockEvents, stretch)
		may := l.index.mayHold(start, from, to)
		l.mu.RUnlock()
		if may {
			got, err := l.block(ctx, f, start, before)
			if err != nil {
				return nil, err
			}
			for i := len(got) - 1; i >= 0 && len(out) < limit; i-- {
				out = append(out, got[i])
			}
		}
		before = start
	}
	return out, nil
}

// block returns the matching events of [start, end).
func (l *Log) block(ctx context.Context, f Filter, start, end uint64) (out []Entry, err error) {
	for e, err := range l.Events(ctx, start) {
		if err != nil {
			return nil, err
		}
		if e.Index >= end {
			break
		}
		if f.match(&e.Event) {
			out = append(out, e)
		}
	}
	return out, nil
}

// fetch returns those of the events in list, which falls, that match. Events
// near each other are read together.
func (l *Log) fetch(ctx context.Context, f Filter, list []uint64, limit int) (out []Entry, err error) {
	for len(list) > 0 && len(out) < limit {
		rest := list
		for b, err := range l.store.Batches(ctx, list[0]) {
			if err != nil {
				return nil, err
			}
			if b.First > list[0] || b.First+uint64(b.Count) <= list[0] {
				break
			}
			n := 1 // how many of list lie in b
			for n < len(list) && list[n] >= b.First {
				n++
			}
			hits, err := pick(b, f, l.Pruned(), list[:n])
			if err != nil {
				return nil, err
			}
			for i := len(hits) - 1; i >= 0 && len(out) < limit; i-- {
				out = append(out, hits[i])
			}
			rest = list[n:]
			break
		}
		if len(rest) == len(list) {
			return nil, fmt.Errorf("%w: event %d is not there", errBatch, list[0])
		}
		list = rest
	}
	return out, nil
}

// pick returns those of the events in want, which falls and lies in b, that
// match, oldest first.
func pick(b driver.Batch, f Filter, pruned uint64, want []uint64) (hits []Entry, err error) {
	entries(b, want[len(want)-1], want[0]+1, pruned, func(e Entry, eerr error) bool {
		if err = eerr; err != nil {
			return false
		}
		for len(want) > 0 && want[len(want)-1] < e.Index { // pruned meanwhile
			want = want[:len(want)-1]
		}
		if len(want) > 0 && e.Index == want[len(want)-1] {
			want = want[:len(want)-1]
			if f.match(&e.Event) {
				hits = append(hits, e)
			}
		}
		return true
	})
	return hits, err
}

// Reveal opens the details of an entry. Details of an erased person come back
// without a value; any other failure is an error, ErrUnavailable when the keys
// cannot be had at present. The caller logs that it looked.
func (l *Log) Reveal(ctx context.Context, e Entry) ([]Detail, error) {
	if len(e.Event.Details) == 0 {
		return nil, nil
	}
	if l.opts.Sealer == nil {
		return nil, fmt.Errorf("%w: no sealer", ErrUnavailable)
	}
	list := append([]Detail(nil), e.Event.Details...)
	for i := range list {
		_, err := list[i].open(ctx, l.opts.Sealer, e.Event.Tenant)
		if err != nil && !errors.Is(err, ErrErased) {
			return nil, err
		}
	}
	return list, nil
}

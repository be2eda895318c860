package audit

import (
	"container/heap"
	"context"
	"iter"
	"time"
)

// Follow yields the events from index from on, in order, and then each new one
// when it is durable, until ctx ends, which it yields as the error, or until the
// log is closed. It reads from the store: a slow consumer holds up nobody.
func (l *Log) Follow(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for closed := false; ; {
			l.mu.RLock()
			grew, size := l.grew, l.last.Size
			l.mu.RUnlock()
			if from < size {
				for e, err := range l.Events(ctx, from) {
					if !yield(e, err) || err != nil {
						return
					}
					from = e.Index + 1
				}
				from = max(from, size) // the rest was pruned
				continue
			}
			if closed {
				return
			}
			select {
			case <-grew:
			case <-l.done:
				closed = true // but look once more
			case <-ctx.Done():
				yield(Entry{}, ctx.Err())
				return
			}
		}
	}
}

// maxHeld is how many events Replay holds back at most.
const maxHeld = 1 << 16

// Replay yields the events from index from on that are durable when it begins,
// in the order of their times. It holds an event back until one is met whose
// time is later by more than window, or 65,536 are held; of equal times the
// order is that of the log. An event that comes when later ones were yielded
// already is yielded at once with Late set.
func (l *Log) Replay(ctx context.Context, from uint64, window time.Duration) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		var held byTime
		var newest, told time.Time // the latest time met, and the latest yielded
		any := false
		next := func() bool {
			e := heap.Pop(&held).(Entry)
			told, any = e.Event.Time, true
			return yield(e, nil)
		}
		for e, err := range l.Events(ctx, from) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if any && e.Event.Time.Before(told) {
				e.Late = true
				if !yield(e, nil) {
					return
				}
				continue
			}
			heap.Push(&held, e)
			if e.Event.Time.After(newest) || len(held) == 1 && !any {
				newest = e.Event.Time
			}
			for len(held) > maxHeld || len(held) > 0 && newest.Sub(held[0].Event.Time) > window {
				if !next() {
					return
				}
			}
		}
		for len(held) > 0 {
			if !next() {
				return
			}
		}
	}
}

// byTime is a heap of entries by time and index.
type byTime []Entry

func (h byTime) Len() int      { return len(h) }
func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h byTime) Less(i, j int) bool {
	if c := h[i].Event.Time.Compare(h[j].Event.Time); c != 0 {
		return c < 0
	}
	return h[i].Index < h[j].Index
}
func (h *byTime) Push(x any) { *h = append(*h, x.(Entry)) }
func (h *byTime) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = Entry{}
	*h = old[:len(old)-1]
	return e
}

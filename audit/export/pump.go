package export

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
)

// Log is what a Pump needs of an audit.Log.
type Log interface {
	Events(ctx context.Context, from uint64) iter.Seq2[audit.Entry, error]
	Size() uint64
}

// Options of NewPump. Nil means the zero value of each field.
type Options struct {
	Name    string        // of the receiver, in the event that names a gap; "": siem
	Batch   int           // records in one delivery at most; 0: 256
	Timeout time.Duration // for one delivery; 0: 30 seconds
	Poll    time.Duration // how often the log is looked at when nobody calls Wake; 0: one second
	MaxWait time.Duration // longest pause after failures; 0: 30 seconds
	// MaxLag is how many events a failing sink may fall behind before the
	// older half is given up; 0: none ever is. It needs Gap.
	MaxLag uint64
	Gap    func(context.Context, audit.Event) (audit.Receipt, error) // appends to the log, as audit.Log.Append does
	Clock  func() time.Time                                          // nil: time.Now
}

// Status says how a Pump is doing.
type Status struct {
	Next      uint64    // the first event that is not delivered
	Size      uint64    // events in the log
	Lag       uint64    // events that are not delivered
	Delivered uint64    // records delivered since the start, with those sent again
	Shed      uint64    // events given up since the start; an event in the log names them
	Last      time.Time // when the sink acknowledged last; zero: not since the start
	Failures  int       // failed deliveries since then
	Err       error     // why the last one failed; nil when Failures is 0
	Hanging   bool      // a delivery is beyond its deadline and has not come back
}

// Pump sends the events of a log to a sink. One Pump uses a cursor at a time.
type Pump struct {
	log    Log
	format Format
	sink   Sink
	path   string
	opts   Options
	wake   chan struct{}

	mu     sync.Mutex
	cursor cursor
	status Status
}

const (
	actionGap  = "export.gap"
	batchBytes = 1 << 20 // of one delivery, beyond the first record
)

// NewPump returns a pump that keeps its cursor in the file at path. One that is
// not there begins with event 0. It returns ErrCursor when the file is damaged.
func NewPump(log Log, format Format, sink Sink, path string, opts *Options) (*Pump, error) {
	if log == nil || format == nil || sink == nil || path == "" {
		return nil, errors.New("export: a pump needs a log, a format, a sink and a file for its cursor")
	}
	p := &Pump{log: log, format: format, sink: sink, path: path, wake: make(chan struct{}, 1)}
	if opts != nil {
		p.opts = *opts
	}
	o := &p.opts
	if o.Name == "" {
		o.Name = "siem"
	}
	if o.Batch <= 0 {
		o.Batch = 256
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.MaxWait <= 0 {
		o.MaxWait = 30 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.MaxLag > 0 && o.Gap == nil {
		return nil, errors.New("export: a pump that may give events up needs Gap")
	}
	var err error
	if p.cursor, err = loadCursor(path); err != nil {
		return nil, err
	}
	return p, nil
}

// Wake makes the Pump look at the log now. It never blocks: call it from
// audit.Options.OnCheckpoint.
func (p *Pump) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Status returns how the Pump is doing.
func (p *Pump) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Next, s.Size = p.cursor.next, p.log.Size()
	if s.Size > s.Next {
		s.Lag = s.Size - s.Next
	}
	return s
}

// Run sends until ctx ends, and returns its error then. It returns ErrCursor
// when the cursor does not fit the log, and the error of the log when that
// cannot be read. Failures of the sink do not end it. Call it once.
func (p *Pump) Run(ctx context.Context) error {
	if err := p.check(ctx); err != nil {
		return err
	}
	pos := p.restart()
	for ctx.Err() == nil {
		if u, ok := p.sink.(Unacknowledged); ok && pos >= p.next() {
			if err := u.Err(); err != nil && p.failures() == 0 {
				p.failed(err)
				pos = p.restart()
			}
		}
		if err := p.shed(ctx); err != nil && ctx.Err() == nil {
			p.failed(err)
		}
		pos = max(pos, p.restart()) // events may have been given up
		records, last, err := p.read(ctx, pos)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		if len(records) == 0 {
			p.pause(ctx, p.opts.Poll, true)
			continue
		}
		if err := p.deliver(ctx, records); err == nil {
			err = p.advance(last, len(records))
			if err == nil {
				pos = last.Index + 1
				continue
			}
			p.failed(err)
		} else if ctx.Err() == nil {
			p.failed(err)
		}
		pos = p.restart()
		p.pause(ctx, backoff(p.failures()-1, min(100*time.Millisecond, p.opts.MaxWait), p.opts.MaxWait), false)
	}
	return ctx.Err()
}

func (p *Pump) next() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cursor.next
}

func (p *Pump) failures() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status.Failures
}

func (p *Pump) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Failures++
	p.status.Err = err
}

// check compares the cursor with the log.
func (p *Pump) check(ctx context.Context) error {
	c := p.cursor
	switch {
	case c.next > p.log.Size():
		return fmt.Errorf("%w: %d events were delivered and %d are there", ErrCursor, c.next, p.log.Size())
	case c.next == 0:
		return nil
	}
	e, err := p.entry(ctx, c.next-1)
	if err == nil && e.Chain != c.chain {
		err = fmt.Errorf("%w: event %d is another one", ErrCursor, c.next-1)
	}
	return err
}

func (p *Pump) entry(ctx context.Context, index uint64) (audit.Entry, error) {
	for e, err := range p.log.Events(ctx, index) {
		return e, err
	}
	return audit.Entry{}, fmt.Errorf("%w: event %d is not there", ErrCursor, index)
}

// restart returns where to send from after a start or failure.
func (p *Pump) restart() uint64 {
	next := p.next()
	if u, ok := p.sink.(Unacknowledged); ok {
		return next - min(next, u.Overlap())
	}
	return next
}

// read renders the next events. last is the entry of the last record.
func (p *Pump) read(ctx context.Context, from uint64) (records []Record, last audit.Entry, err error) {
	bytes := 0
	for e, err := range p.log.Events(ctx, from) {
		if err != nil {
			return nil, last, err
		}
		body := p.format(e)
		if len(records) > 0 && bytes+len(body) > batchBytes {
			break
		}
		bytes += len(body)
		records = append(records, Record{Index: e.Index, Leaf: e.Leaf, Time: e.Event.Time, Severity: severity(&e.Event), Body: body})
		last = e
		if len(records) == p.opts.Batch {
			break
		}
	}
	return records, last, nil
}

var errHanging = errors.New("export: the sink does not come back")

// deliver gives records to the sink and waits for it. A sink that does not heed
// its deadline is waited for all the same, for it may be at work on them, but
// the status says so and events may be given up meanwhile.
func (p *Pump) deliver(ctx context.Context, records []Record) error {
	dctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.sink.Deliver(dctx, records) }()
	overdue := time.NewTimer(p.opts.Timeout + p.opts.Timeout/8 + 50*time.Millisecond)
	defer overdue.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select { // a sink that heeds the context comes back
		case err := <-done:
			return err
		case <-time.After(time.Second):
			return ctx.Err()
		}
	case <-overdue.C:
	}
	p.failed(errHanging)
	p.setHanging(true)
	defer p.setHanging(false)
	tick := time.NewTicker(p.opts.Poll)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := p.shed(ctx); err != nil && ctx.Err() == nil {
				p.failed(err)
			}
		}
	}
}

func (p *Pump) setHanging(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Hanging = on
}

// advance stores that everything up to e is delivered; n is how many records
// that took.
func (p *Pump) advance(e audit.Entry, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cursor
	if e.Index+1 > c.next {
		c.next, c.chain = e.Index+1, e.Chain
		if c.gapEvent > 0 && c.next > c.gapEvent {
			c.gapFrom, c.gapEvent = 0, 0
		}
		if err := c.store(p.path); err != nil {
			return err
		}
		p.cursor = c
	}
	p.status.Delivered += uint64(n)
	p.status.Last, p.status.Failures, p.status.Err = p.opts.Clock(), 0, nil
	return nil
}

// shed gives the older half up when a failing sink is too far behind. The log
// names the range before the cursor passes it. While an earlier such event is
// itself not delivered, the next one names the ranges of both.
func (p *Pump) shed(ctx context.Context) error {
	p.mu.Lock()
	c, failing := p.cursor, p.status.Failures > 0
	p.mu.Unlock()
	size := p.log.Size()
	if p.opts.MaxLag == 0 || !failing || size < c.next || size-c.next <= p.opts.MaxLag {
		return nil
	}
	to := size - p.opts.MaxLag/2
	from := c.next
	if c.gapEvent > 0 {
		from = c.gapFrom
	}
	last, err := p.entry(ctx, to-1)
	if err != nil {
		return err
	}
	r, err := p.opts.Gap(ctx, audit.Event{Action: actionGap, Activity: audit.Export, Outcome: audit.Failed, Actor: "export",
		Targets: []audit.Target{{Type: "audit.range", ID: fmt.Sprintf("%d-%d", from, to-1)}}, Count: int64(to - from),
		Note: "events of this range were not sent to " + clean(p.opts.Name)})
	if err != nil {
		return fmt.Errorf("export: the gap cannot be logged: %w", err)
	}
	n := cursor{next: to, chain: last.Chain, gapFrom: from, gapEvent: r.Index}
	if err := n.store(p.path); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Shed += to - c.next
	p.cursor = n
	return nil
}

// pause waits; Wake ends it when early is set.
func (p *Pump) pause(ctx context.Context, d time.Duration, early bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	wake := p.wake
	if !early {
		wake = nil
	}
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
}

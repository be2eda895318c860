package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/crmguard/crmguard/audit/keep"
)

// ruleOf returns the rule of an event as far as it may be weakened, and its
// number; -1 for none.
func (l *Log) ruleOf(e *Event) (keep.Rule, int) {
	if len(l.opts.Rules) == 0 || e.Outcome == Intended || e.Outcome == Aborted || e.Actor == logActor {
		return keep.Rule{}, -1
	}
	for i := range l.opts.Rules {
		if !l.opts.Rules[i].Match(e.Action) {
			continue
		}
		r := l.opts.Rules[i]
		switch {
		case e.Outcome == Denied, e.Activity == Erase, e.Activity == Configure, e.Activity == Grant, e.Activity == Revoke:
			r.Level, r.Buffered, r.Shed = min(r.Level, keep.Metadata), false, false
		}
		return r, i
	}
	return keep.Rule{}, -1
}

// reduce takes out of e what the level does not keep. It changes nothing that
// the caller holds.
func (e *Event) reduce(level keep.Level) {
	if level >= keep.Request {
		e.Details = nil
	}
	if level >= keep.Metadata {
		e.Fields, e.Purpose, e.Note = nil, "", ""
		targets := make([]Target, len(e.Targets))
		for i := range targets {
			targets[i] = Target{Type: e.Targets[i].Type, ID: e.Targets[i].ID}
		}
		e.Targets = targets
	}
}

// Pending is an event on its way into the log.
type Pending struct {
	r *request // nil when the event is not to be logged
}

// Wait returns when the event is durable. It may be called any number of times.
// Errors are those of Append; when ctx ends first the event goes on its way.
func (p *Pending) Wait(ctx context.Context) (Receipt, error) {
	if p.r == nil {
		return Receipt{}, nil
	}
	select {
	case <-p.r.done:
	default:
		select {
		case <-p.r.done:
		case <-ctx.Done():
			return Receipt{}, ctx.Err()
		}
	}
	if p.r.err != nil {
		return Receipt{}, p.r.err
	}
	return p.r.receipts[0], nil
}

// AppendAsync queues e and returns before it is durable; Pending.Wait tells
// when it is. While Options.Queue events are on their way it waits, and drops
// nothing. What fails is also told by Err and by each later Append.
func (l *Log) AppendAsync(ctx context.Context, e Event) (*Pending, error) {
	if err := e.reserved(); err != nil {
		return nil, err
	}
	rule, _ := l.ruleOf(&e)
	if rule.Level == keep.None {
		return &Pending{}, e.validate()
	}
	r, err := l.request(ctx, []Event{e})
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
	default:
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.slot = true
	if err := l.enqueue(r); err != nil {
		<-l.slots
		return nil, err
	}
	return &Pending{r}, nil
}

// shed queues e when there is room, else gives it up and counts it.
func (l *Log) shed(ctx context.Context, e Event, rule int) error {
	r, err := l.request(ctx, []Event{e})
	if err != nil {
		return err
	}
	select {
	case l.slots <- struct{}{}:
	default:
		l.gaps[rule].Add(1)
		return nil
	}
	r.slot = true
	if err := l.enqueue(r); err != nil {
		<-l.slots
		return err
	}
	return nil
}

// gap returns a request for the event that tells what was given up, and the
// counts by rule; nil when nothing was.
func (l *Log) gap() (*request, []int64) {
	e := Event{Action: actionGap, Activity: Other, Outcome: Failed, Actor: logActor,
		Note: "so many events were given up because the queue was full"}
	var counts []int64
	for i := range l.gaps {
		n := l.gaps[i].Swap(0)
		if counts == nil && n > 0 {
			counts = make([]int64, len(l.gaps))
		}
		if n > 0 {
			counts[i] = n
			e.Count += n
			e.Targets = append(e.Targets, Target{Type: "audit.rule", ID: l.opts.Rules[i].Action, Version: uint64(n)})
		}
	}
	if counts == nil {
		return nil, nil
	}
	r, err := l.request(context.Background(), []Event{e})
	if err != nil { // cannot be: the event is ours
		l.restore(counts)
		return nil, nil
	}
	return r, counts
}

// restore takes back what gap took, because it could not be logged.
func (l *Log) restore(counts []int64) {
	for i, n := range counts {
		l.gaps[i].Add(n)
	}
}

// rulesEvent returns the event that tells of the rules, when they are not those
// that were told of last.
func (l *Log) rulesEvent(ctx context.Context) (e Event, fresh bool, err error) {
	h := sha256.New()
	for i := range l.opts.Rules {
		s := l.opts.Rules[i].String()
		e.Fields = append(e.Fields, s)
		h.Write([]byte(s + "\n"))
	}
	digest := h.Sum(nil)
	last, err := l.Query(ctx, Filter{Actor: logActor, Action: actionRules}, l.Size(), 1)
	if err != nil {
		return e, false, err
	}
	if len(last) == 0 && len(l.opts.Rules) == 0 || len(last) > 0 && len(last[0].Event.Targets) == 1 && string(last[0].Event.Targets[0].Digest) == string(digest) {
		return e, false, nil
	}
	e.Action, e.Activity, e.Count = actionRules, Configure, int64(len(l.opts.Rules))
	e.Targets = []Target{{Type: "audit.rules", ID: "rules", Digest: digest}}
	return e, true, nil
}

// setRules checks the rules.
func (l *Log) setRules() error {
	for i := range l.opts.Rules {
		if err := l.opts.Rules[i].Check(); err != nil {
			return fmt.Errorf("%w: %v", ErrInvalid, err)
		}
		if !cleanText(l.opts.Rules[i].Action) {
			return fmt.Errorf("%w: the action of a rule is not clean text", ErrInvalid)
		}
	}
	if l.opts.Queue < 0 {
		return errors.New("audit: the queue has a negative length")
	}
	if l.opts.Queue == 0 {
		l.opts.Queue = 4096
	}
	l.gaps = make([]atomic.Int64, len(l.opts.Rules))
	l.slots = make(chan struct{}, l.opts.Queue)
	return nil
}

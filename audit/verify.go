package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// State is what a verification found.
type State uint8

// The states. Only Pinned and Anchored are good.
const (
	Unanchored State = iota // consistent, but no head kept elsewhere was given
	Pinned                  // consistent and contains the given heads
	Anchored                // as Pinned, and witnesses have signed the head
	Truncated               // shorter than a given head, or ends inside a batch
	Forked                  // has another history than a given head
	Altered                 // an event, an opening or a checkpoint was changed
	Reordered               // events are moved, doubled or left out
	Withheld                // an opening is missing or wrong, and the person is not erased
	Missing                 // there is no log
	Foreign                 // an event or a head of another log
	KeyUnknown              // signed by a key that was not given
)

var stateNames = [...]string{"Unanchored", "Pinned", "Anchored", "Truncated", "Forked", "Altered",
	"Reordered", "Withheld", "Missing", "Foreign", "KeyUnknown"}

// String returns the name of the constant.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// VerifyOptions of Verify. Nil means the zero value of each field.
type VerifyOptions struct {
	Pins           [][]byte                                                   // checkpoints kept elsewhere; nil: the verdict is Unanchored at best
	Sealer         Sealer                                                     // opens and checks details; nil: they are counted as unchecked
	EverySignature bool                                                       // check the signature of each checkpoint; false: of the last one and the pins, whose roots contain all others
	Clock          func() time.Time                                           // nil: time.Now
	OnOpening      func(e Entry, detail int, opening []byte, err error) error // gets each opening that Sealer was asked for, salt (32 bytes) and value, or nil and why not; an error ends the check. It is personal data in clear; nil: none
	Progress       func(done uint64)                                          // gets the number of events checked, each 65,536; nil: none
	OnEvent        func(Entry)                                                // gets each event that is in order, before the verdict is known; nil: none
	Start          []byte                                                     // Verdict.Resume of an earlier run, kept where nobody else writes: events before it are not read, see Verdict.Unread; it counts as a pin, and earlier pins are not checked again; nil: all is read
	Witnesses      []string                                                   // keys of witnesses in the encoding of C2SP cosignatures; nil: none
	Quorum         int                                                        // how many of them must have signed one and the same head; 0: all
}

// Verdict is the result of a verification.
type Verdict struct {
	State     State
	At        int64         // index of the first bad event, -1 when none is named
	Reason    string        // one line for people, without personal data
	Origin    string        // name of the log
	Size      uint64        // events up to the last good checkpoint
	Pinned    uint64        // size of the largest given head that the log contains
	Root      tlog.Hash     // root hash over Size events
	Signed    time.Time     // when the last good checkpoint was signed
	Age       time.Duration // how long ago that was
	Opened    uint64        // details opened and equal to their commitment
	Erased    uint64        // details whose person is erased
	Unchecked uint64        // details that nobody opened
	Pruned    uint64        // events at the start that were taken out by a logged pruning; their hashes are there and checked
	Unread    uint64        // events before VerifyOptions.Start: found good by an earlier run, not read by this one
	Witnessed uint64        // size of the largest head that a quorum of witnesses has signed and the log contains
	Resume    []byte        // for VerifyOptions.Start of the next run; nil unless the log is whole
	Tree      *Tree         // for proofs from this store; nil unless the log is whole and all of it was read
}

// OK reports whether the log is proven whole: Pinned or Anchored.
func (v Verdict) OK() bool { return v.State == Pinned || v.State == Anchored }

// String describes the verdict in one line for people.
func (v Verdict) String() string {
	s := v.State.String()
	if v.At >= 0 {
		s += fmt.Sprintf(" at event %d", v.At)
	}
	if v.Reason != "" {
		s += ": " + v.Reason
	}
	s += fmt.Sprintf("; %d events", v.Size)
	if !v.Signed.IsZero() {
		s += fmt.Sprintf(", signed %s ago", v.Age.Round(time.Second))
	}
	if v.Pinned > 0 {
		s += fmt.Sprintf(", pinned at %d", v.Pinned)
	}
	if v.Witnessed > 0 {
		s += fmt.Sprintf(", witnessed at %d", v.Witnessed)
	}
	if v.Pruned > 0 {
		s += fmt.Sprintf(", the first %d pruned", v.Pruned)
	}
	if v.Unread > 0 {
		s += fmt.Sprintf(", the first %d not read again", v.Unread)
	}
	return s + fmt.Sprintf("; details: %d opened, %d erased, %d unchecked", v.Opened, v.Erased, v.Unchecked)
}

// MarshalJSON writes the verdict for machines: the state by name, "at" only
// when an event is named, the age in seconds.
func (v Verdict) MarshalJSON() ([]byte, error) {
	out := struct {
		State     string     `json:"state"`
		OK        bool       `json:"ok"`
		At        *int64     `json:"at,omitempty"`
		Reason    string     `json:"reason,omitempty"`
		Origin    string     `json:"origin"`
		Size      uint64     `json:"size"`
		Pinned    uint64     `json:"pinned"`
		Root      tlog.Hash  `json:"root"`
		Signed    *time.Time `json:"signed,omitempty"`
		Age       float64    `json:"age_seconds"`
		Opened    uint64     `json:"opened"`
		Erased    uint64     `json:"erased"`
		Unchecked uint64     `json:"unchecked"`
		Pruned    uint64     `json:"pruned,omitempty"`
		Unread    uint64     `json:"unread,omitempty"`
		Witnessed uint64     `json:"witnessed,omitempty"`
	}{State: v.State.String(), OK: v.OK(), Reason: v.Reason, Origin: v.Origin, Size: v.Size, Pinned: v.Pinned,
		Root: v.Root, Age: v.Age.Seconds(), Opened: v.Opened, Erased: v.Erased, Unchecked: v.Unchecked,
		Pruned: v.Pruned, Unread: v.Unread, Witnessed: v.Witnessed}
	if v.At >= 0 {
		out.At = &v.At
	}
	if !v.Signed.IsZero() {
		out.Signed = &v.Signed
	}
	return json.Marshal(out)
}

// Verify checks the whole log of store against the verifier keys of its
// signers, old and new, which have one name. It needs no lock: beside a
// running writer it checks the prefix that is durable.
//
// The verdict says what the log is. The error is nil unless the check itself
// could not be done: the store cannot be read, a key or a pin is malformed, ctx
// ended, or the log is of a later format (driver.ErrFormat); it never says that
// a log is good.
func Verify(ctx context.Context, store driver.Store, keys []string, opts *VerifyOptions) (Verdict, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	bad := Verdict{State: Unanchored, At: -1, Reason: "not verified"}
	ring, err := newKeyring(keys)
	if err != nil {
		return bad, err
	}
	pins, err := parsePins(ring, o.Pins)
	if err != nil {
		return bad, err
	}
	witnesses, err := parseWitnesses(o.Witnesses, o.Quorum)
	if err != nil {
		return bad, err
	}
	if o.Quorum == 0 {
		o.Quorum = len(witnesses)
	}
	head, err := store.Head(ctx) // before the batches, for a writer may be at work
	if err != nil {
		return bad, err
	}
	v := Verdict{At: -1, Origin: ring.origin}
	s := &scan{keys: ring, pins: pins, every: o.EverySignature}
	if o.Start != nil {
		if err := s.resume(o.Start); err != nil {
			return bad, err
		}
		v.Unread = s.from
	} else {
		s.hashes = newHashes(store)
	}
	s.onEvent = func(index uint64, f *frame, leaf tlog.Hash) (*fault, error) {
		if o.Progress != nil && index&0xffff == 0xffff {
			o.Progress(index + 1)
		}
		flt, err := v.details(ctx, &o, index, f, leaf)
		if o.OnEvent != nil && flt == nil && err == nil {
			e := Entry{Receipt: Receipt{Index: index, Leaf: leaf, Chain: f.chain}}
			if _, _, e.Event, err = parseEvent(f.event); err == nil {
				o.OnEvent(e)
			}
		}
		return flt, err
	}
	flt := s.setHead(head)
	beside := flt
	flt, err = s.run(ctx, store)
	if err != nil {
		return bad, err
	}
	if flt == nil && s.last.Size > 0 && !o.EverySignature && !ring.check(s.last.Note) {
		// The last signature is wrong. Find the first that is.
		again := &scan{keys: ring, every: true}
		v.Unread = 0
		if flt, err = again.run(ctx, store); err != nil {
			return bad, err
		}
		s = again
		if flt == nil { // cannot be, unless the store changed meanwhile
			flt = &fault{Altered, -1, "the signature of the last checkpoint is wrong"}
		}
	}
	if flt == nil {
		flt = s.finish()
	}
	if flt == nil {
		flt = beside
	}
	v.Size, v.Pinned, v.Pruned = s.size, s.met, s.pruned
	if flt == nil && len(witnesses) > 0 {
		notes := [][]byte{o.Start, s.head}
		if o.Start != nil {
			notes[0] = startNote(o.Start)
		}
		for _, p := range pins {
			notes = append(notes, p.Note)
		}
		for _, n := range notes {
			c, err := parseCheckpoint(n)
			if err == nil && c.Size > v.Witnessed && (c.Size >= s.from) && countWitnesses(witnesses, n) >= o.Quorum {
				v.Witnessed = c.Size
			}
		}
	}
	if s.last.Size > 0 {
		v.Root, v.Signed = s.last.Root, s.last.Time
		v.Age = o.Clock().Sub(v.Signed)
	}
	switch {
	case flt != nil:
		v.State, v.At, v.Reason = flt.state, flt.at, flt.reason
	case s.met > 0 && v.Witnessed > 0:
		v.State = Anchored
	case s.met > 0:
		v.State = Pinned
	default:
		v.State, v.Reason = Unanchored, "no head kept elsewhere was given"
	}
	if flt == nil {
		v.Resume = s.checkedHead()
		if s.hashes != nil {
			v.Tree = &Tree{h: s.hashes, c: s.last}
		}
	}
	return v, nil
}

// details checks the openings of one event and counts them.
func (v *Verdict) details(ctx context.Context, o *VerifyOptions, index uint64, f *frame, leaf tlog.Hash) (*fault, error) {
	if f.event[offDetails] == 0 && len(f.openings) == 0 {
		return nil, nil
	}
	r, rest := reader{b: f.event[offDetails:]}, reader{b: f.openings}
	n, have, empty := r.count(1+16+32), 0, false
	for ; len(rest.b) > 0; have++ {
		empty = len(rest.take(rest.count(1))) == 0 || empty
		if rest.bad || have == n {
			return faultAt(Altered, index, "the openings of the event are malformed, or too many"), nil
		}
	}
	switch {
	case have < n || empty:
		return faultAt(Withheld, index, "an opening of the event is missing"), nil
	case o.Sealer == nil: // nothing is opened, so nothing need be read
		v.Unchecked += uint64(n)
		return nil, nil
	}
	_, _, e, err := parseEvent(f.event)
	list, ok := splitOpenings(f.openings)
	if err != nil || !ok {
		return faultAt(Altered, index, "the event is malformed"), nil
	}
	entry := Entry{Receipt: Receipt{Index: index, Leaf: leaf, Chain: f.chain}, Event: e}
	for i := range e.Details {
		d := &e.Details[i]
		d.sealed = list[i]
		opening, err := d.open(ctx, o.Sealer, e.Tenant)
		if err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if o.OnOpening != nil {
			if err := o.OnOpening(entry, i, opening, err); err != nil {
				return nil, err
			}
		}
		switch {
		case err == nil:
			v.Opened++
		case errors.Is(err, ErrErased):
			v.Erased++
		case errors.Is(err, ErrUnavailable):
			v.Unchecked++
		default:
			return faultAt(Withheld, index, "an opening of the event does not open to its commitment"), nil
		}
	}
	return nil, nil
}

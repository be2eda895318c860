package crm

import (
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm/worktime"
)

// TicketState says where a ticket stands.
type TicketState string

// The states of a ticket. Resolved and closed tickets can be reopened.
const (
	TicketOpen     TicketState = "open"
	TicketWaiting  TicketState = "waiting" // for the customer: no time counts
	TicketResolved TicketState = "resolved"
	TicketClosed   TicketState = "closed"
)

// Priority orders tickets.
type Priority string

// The priorities of a ticket.
const (
	PriorityLow    Priority = "low"
	PriorityNormal Priority = "normal"
	PriorityHigh   Priority = "high"
	PriorityUrgent Priority = "urgent"
)

// TicketLifecycle returns the transition table of tickets.
func TicketLifecycle() Lifecycle[TicketState] {
	return Lifecycle[TicketState]{
		typ:    TypeTicket,
		states: []TicketState{TicketOpen, TicketWaiting, TicketResolved, TicketClosed},
		next: map[TicketState][]TicketState{
			TicketOpen:     {TicketResolved, TicketWaiting},
			TicketWaiting:  {TicketOpen, TicketResolved},
			TicketResolved: {TicketClosed, TicketOpen},
			TicketClosed:   {TicketOpen},
		},
	}
}

// Ticket is a customer's request for help. Its person is the customer's. When it is due is computed by crm/sla from what it records here.
type Ticket struct {
	Meta[Ticket]
	Number      string           `protect:"internal,indexed" json:"number"`
	Customer    ID[Customer]     `protect:"internal,indexed" json:"customer"`
	Subject     Text             `protect:"personal" json:"subject"`
	Body        Text             `protect:"personal" json:"body"`
	Priority    Priority         `protect:"internal,indexed" json:"priority"`
	State       TicketState      `protect:"internal,indexed" json:"state"`
	DueAt       time.Time        `protect:"internal,indexed" json:"due_at"` // zero: no deadline
	RespondedAt time.Time        `protect:"internal" json:"responded_at"`   // of the first answer; zero: none
	Pauses      []worktime.Pause `protect:"internal" json:"pauses"`         // in which it waited for the customer, or was resolved
	Escalated   int64            `protect:"internal" json:"escalated"`      // how many levels of escalation were told
	ResolvedAt  time.Time        `protect:"internal" json:"resolved_at"`    // of the last resolution
	ClosedAt    time.Time        `protect:"internal" json:"closed_at"`
	Reopened    int64            `protect:"internal" json:"reopened"` // how often
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (t *Ticket) Validate() error {
	v := Checks{Type: TypeTicket}
	v.Team(t.Team)
	v.Str("number", t.Number, true, 60)
	v.Required("customer", t.Customer.IsZero())
	v.Text("subject", t.Subject, true, MaxLine)
	v.Text("body", t.Body, false, MaxText)
	oneOf(&v, "priority", t.Priority, PriorityLow, PriorityNormal, PriorityHigh, PriorityUrgent)
	oneOf(&v, "state", t.State, TicketLifecycle().states...)
	if t.State == TicketResolved || t.State == TicketClosed {
		v.Required("resolved_at", t.ResolvedAt.IsZero())
	}
	v.Time("due_at", t.DueAt)
	v.Order("closed_at", t.ResolvedAt, t.ClosedAt)
	if (t.State == TicketOpen || t.State == TicketWaiting) && !t.ResolvedAt.IsZero() {
		v.Add("resolved_at", "mismatch")
	}
	if TicketLifecycle().Has(t.State) && (t.State == TicketClosed) == t.ClosedAt.IsZero() {
		v.Add("closed_at", "mismatch")
	}
	v.NotNegative("reopened", t.Reopened)
	v.NotNegative("escalated", t.Escalated)
	if len(t.Pauses) > maxPauses {
		v.Add("pauses", "too_long")
	}
	for i, p := range t.Pauses {
		at := "pauses." + strconv.Itoa(i)
		v.Required(at, p.From.IsZero())
		v.Order(at, p.From, p.To)
		if p.To.IsZero() && i < len(t.Pauses)-1 {
			v.Add(at, "required")
		}
	}
	if TicketLifecycle().Has(t.State) && t.paused() != (t.State == TicketWaiting) {
		v.Add("pauses", "mismatch")
	}
	return v.Err()
}

// CheckNew refuses a ticket that begins with something done: a *TransitionError when it is not open, an *InvalidError with the rule mismatch for an answer, a
// pause or an escalation.
func (t *Ticket) CheckNew() error {
	if t.State != TicketOpen {
		return &TransitionError{Type: TypeTicket, From: "new", To: TicketLifecycle().name(t.State)}
	}
	v := Checks{Type: TypeTicket}
	for _, f := range []struct {
		name string
		none bool
	}{{"responded_at", t.RespondedAt.IsZero()}, {"pauses", len(t.Pauses) == 0}, {"escalated", t.Escalated == 0}, {"reopened", t.Reopened == 0}} {
		if !f.none {
			v.Add(f.name, "mismatch")
		}
	}
	return v.Err()
}

// Reserved names the fields that no update sets: what was done when is noted by acts, at their time (Respond, Move).
func (t *Ticket) Reserved(isNew bool) []string {
	if isNew { // CheckNew; an import brings what was done elsewhere
		return nil
	}
	return []string{"responded_at", "pauses", "escalated", "resolved_at", "closed_at", "reopened"}
}

// CheckUpdate tells whether the stored record prev may become t: a *TransitionError for a step that
// the table does not have, an *InvalidError with the rule fixed when number or customer would change.
func (t *Ticket) CheckUpdate(prev *Ticket) error {
	if err := TicketLifecycle().CheckUpdate(prev.State, t.State); err != nil {
		return err
	}
	v := Checks{Type: TypeTicket}
	v.Unchanged("number", t.Number == prev.Number)
	v.Unchanged("customer", t.Customer == prev.Customer)
	if !prev.RespondedAt.IsZero() {
		v.SameTime("responded_at", t.RespondedAt, prev.RespondedAt)
	}
	// A pause that was written down stays, but for its end.
	v.Unchanged("pauses", len(t.Pauses) >= len(prev.Pauses) && slices.EqualFunc(t.Pauses[:len(prev.Pauses)], prev.Pauses, func(a, b worktime.Pause) bool {
		return sameTime(a.From, b.From) && (b.To.IsZero() || sameTime(a.To, b.To))
	}))
	return v.Err()
}

const maxPauses = 1000

// paused tells whether the last pause lasts.
func (t *Ticket) paused() bool { return len(t.Pauses) > 0 && t.Pauses[len(t.Pauses)-1].To.IsZero() }

// Respond notes the first answer to the customer; later ones change nothing. An answer to a ticket that is not open or waiting is a
// *TransitionError, one before it was made is too_early.
func (t *Ticket) Respond(at time.Time) error {
	if t.State != TicketOpen && t.State != TicketWaiting {
		return &TransitionError{Type: TypeTicket, From: TicketLifecycle().name(t.State), To: "responded"}
	}
	if at.Before(t.CreatedAt) {
		return &InvalidError{Type: TypeTicket, Fields: []FieldError{{"responded_at", "too_early"}}}
	}
	if t.RespondedAt.IsZero() {
		t.RespondedAt, t.UpdatedAt = at, at
	}
	return nil
}

// Move takes the ticket to another state at a time, or returns a *TransitionError. A resolution is the first answer where there was none. Going back to open from resolved or closed counts as a
// reopening; the time in between, and that of waiting, does not count against its deadlines. A step before the one before it is a
// *InvalidError with the rule before_start.
func (t *Ticket) Move(to TicketState, at time.Time) error {
	if err := TicketLifecycle().Check(t.State, to); err != nil {
		return err
	}
	next := *t
	next.Pauses = slices.Clone(t.Pauses)
	if next.paused() {
		next.Pauses[len(next.Pauses)-1].To = at
	}
	switch to {
	case TicketOpen:
		if t.State != TicketWaiting {
			next.Reopened++
			next.Pauses = append(next.Pauses, worktime.Pause{From: t.ResolvedAt, To: at})
			next.ResolvedAt, next.ClosedAt = time.Time{}, time.Time{}
		}
	case TicketWaiting:
		next.Pauses = append(next.Pauses, worktime.Pause{From: at})
	case TicketResolved:
		next.ResolvedAt = at
		if next.RespondedAt.IsZero() {
			next.RespondedAt = at // a solution is an answer
		}
	case TicketClosed:
		next.ClosedAt = at
	}
	if n := len(next.Pauses); n > 0 && !next.Pauses[n-1].To.IsZero() && next.Pauses[n-1].To.Before(next.Pauses[n-1].From) {
		return &InvalidError{Type: TypeTicket, Fields: []FieldError{{"pauses", "before_start"}}}
	}
	next.State, next.UpdatedAt = to, at
	*t = next
	return nil
}

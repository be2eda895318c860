package crm

import "time"

// TicketState says where a ticket stands.
type TicketState string

// The states of a ticket. Resolved and closed tickets can be reopened.
const (
	TicketOpen     TicketState = "open"
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
		states: []TicketState{TicketOpen, TicketResolved, TicketClosed},
		next: map[TicketState][]TicketState{
			TicketOpen:     {TicketResolved},
			TicketResolved: {TicketClosed, TicketOpen},
			TicketClosed:   {TicketOpen},
		},
	}
}

// Ticket is a customer's request for help. Its person is the customer's.
type Ticket struct {
	Meta[Ticket]
	Number     string       `protect:"internal,indexed" json:"number"`
	Customer   ID[Customer] `protect:"internal,indexed" json:"customer"`
	Subject    Text         `protect:"personal" json:"subject"`
	Body       Text         `protect:"personal" json:"body"`
	Priority   Priority     `protect:"internal,indexed" json:"priority"`
	State      TicketState  `protect:"internal,indexed" json:"state"`
	DueAt      time.Time    `protect:"internal,indexed" json:"due_at"` // zero: no deadline
	ResolvedAt time.Time    `protect:"internal" json:"resolved_at"`    // of the last resolution
	ClosedAt   time.Time    `protect:"internal" json:"closed_at"`
	Reopened   int64        `protect:"internal" json:"reopened"` // how often
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
	v.NotNegative("reopened", t.Reopened)
	return v.Err()
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
	return v.Err()
}

// Move takes the ticket to another state at a time, or returns a *TransitionError. Going back to open
// counts as a reopening.
func (t *Ticket) Move(to TicketState, at time.Time) error {
	if err := TicketLifecycle().Check(t.State, to); err != nil {
		return err
	}
	switch to {
	case TicketOpen:
		t.Reopened++
		t.ResolvedAt, t.ClosedAt = time.Time{}, time.Time{}
	case TicketResolved:
		t.ResolvedAt = at
	case TicketClosed:
		t.ClosedAt = at
	}
	t.State, t.UpdatedAt = to, at
	return nil
}

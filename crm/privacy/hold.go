package privacy

import (
	"context"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// HoldState says how far a legal hold has come.
type HoldState string

// The states of a legal hold. It holds until it is lifted.
const (
	HoldActive  HoldState = "active"
	HoldLifting HoldState = "lifting" // somebody asked for its end, another one has to agree
	HoldLifted  HoldState = "lifted"
)

// HoldLifecycle returns the transition table.
func HoldLifecycle() crm.Lifecycle[HoldState] {
	return crm.NewLifecycle(crm.TypeHold, []HoldState{HoldActive, HoldLifting, HoldLifted}, map[HoldState][]HoldState{
		HoldActive: {HoldLifting}, HoldLifting: {HoldActive, HoldLifted},
	})
}

// Hold keeps a person from being erased, and their records from being purged, while a lawsuit or an authority wants them kept. One employee puts it on, for that destroys
// nothing; two lift it. Its person is its own, made for it, so that its reasons outlast whomever it is about and whoever wrote them.
type Hold struct {
	crm.Meta[Hold]
	Subject    crm.ID[crm.Person]   `protect:"internal,indexed" json:"subject"` // who is held
	RecordType string               `protect:"internal" json:"record_type"`     // of the record by which they were found
	Record     crm.UUID             `protect:"internal" json:"record"`
	Reason     crm.Text             `protect:"personal" json:"reason"`
	State      HoldState            `protect:"internal,indexed" json:"state"`
	LiftReason crm.Text             `protect:"personal" json:"lift_reason"` // of who asked last
	AskedBy    crm.ID[crm.Employee] `protect:"internal" json:"asked_by"`    // for its end
	AskedAt    time.Time            `protect:"internal" json:"asked_at"`
	LiftedBy   crm.ID[crm.Employee] `protect:"internal" json:"lifted_by"` // who agreed
	LiftedAt   time.Time            `protect:"internal" json:"lifted_at"`
	Actors     string               `protect:"internal" json:"actors"` // who put it on, and who asked for its end: none of them agrees to that
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (h *Hold) Validate() error {
	v := crm.Checks{Type: crm.TypeHold}
	v.Team(h.Team)
	v.Required("owner", h.Owner.IsZero())
	v.Required("subject", h.Subject.IsZero())
	v.Str("record_type", h.RecordType, true, 40)
	v.Required("record", h.Record.IsZero())
	v.Text("reason", h.Reason, true, crm.MaxLine)
	v.Text("lift_reason", h.LiftReason, h.State == HoldLifting, crm.MaxLine)
	if !HoldLifecycle().Has(h.State) || h.Version <= 1 && h.State != HoldActive {
		v.Add("state", "unknown_value")
	}
	if h.State != HoldActive && (h.AskedBy.IsZero() || h.AskedAt.IsZero()) {
		v.Add("asked_by", "required")
	}
	if (h.State == HoldLifted) == h.LiftedBy.IsZero() || h.State == HoldLifted && h.LiftedBy == h.AskedBy {
		v.Add("lifted_by", "mismatch")
	}
	return v.Err()
}

// Reserved names the fields that no update sets.
func (h *Hold) Reserved(isNew bool) []string {
	if isNew {
		return []string{"asked_by", "asked_at", "lifted_by", "lifted_at"}
	}
	return []string{"subject", "record_type", "record", "state", "asked_by", "asked_at", "lifted_by", "lifted_at"}
}

// CheckUpdate tells whether the stored record prev may become h: why its end is asked for is written before it is, and nothing else but how far it has come changes.
func (h *Hold) CheckUpdate(prev *Hold) error {
	v := crm.Checks{Type: crm.TypeHold}
	v.Unchanged("owner", h.Owner == prev.Owner)
	v.Unchanged("subject", h.Subject == prev.Subject && h.RecordType == prev.RecordType && h.Record == prev.Record)
	v.SameText("reason", h.Reason, prev.Reason)
	if prev.State != HoldActive {
		v.SameText("lift_reason", h.LiftReason, prev.LiftReason)
	}
	if err := v.Err(); err != nil {
		return err
	}
	return HoldLifecycle().CheckUpdate(prev.State, h.State)
}

// Ask notes that by asks for its end, or returns a *crm.TransitionError.
func (h *Hold) Ask(by crm.ID[crm.Employee], at time.Time) error {
	if err := HoldLifecycle().Check(h.State, HoldLifting); err != nil {
		return err
	}
	h.State, h.AskedBy, h.AskedAt = HoldLifting, by, at
	return nil
}

// Decide notes that by agrees to its end (HoldLifted), or does not (HoldActive). Who asked for it cannot: a *crm.TransitionError.
func (h *Hold) Decide(by crm.ID[crm.Employee], to HoldState, at time.Time) error {
	err := HoldLifecycle().Check(h.State, to)
	if err == nil && (h.State != HoldLifting || by.IsZero() || by == h.AskedBy || by == h.Owner) {
		err = &crm.TransitionError{Type: crm.TypeHold, From: string(h.State), To: string(to)}
	}
	if err != nil {
		return err
	}
	if h.State = to; to == HoldLifted {
		h.LiftedBy, h.LiftedAt = by, at
	}
	return nil
}

// Holds is the register of legal holds. It is safe for concurrent use.
type Holds struct {
	records *guard.Records[*Hold]
	program Program
	clock   func() time.Time
}

// OpenHolds makes the door of legal holds. program, whose tenant is set where it is used, lists them. clock nil is time.Now.
func OpenHolds(ctx context.Context, g *guard.Guard, program Program, clock func() time.Time) (*Holds, error) {
	if clock == nil {
		clock = time.Now
	}
	records, err := guard.For[*Hold](ctx, g, nil)
	return &Holds{records: records, program: program, clock: clock}, err
}

// Records is the door, for lists and pages.
func (r *Holds) Records() *guard.Records[*Hold] { return r.records }

// Put puts a hold on: Subject, RecordType, Record and Reason of h are the caller's, all else is set here.
func (r *Holds) Put(ctx context.Context, c guard.Caller, h *Hold) error {
	h.State = HoldActive
	_, err := r.records.Create(ctx, c, h)
	return err
}

// AskLift asks for the end of a hold, and says why; version is the one that the caller saw. It holds on until somebody else agrees.
func (r *Holds) AskLift(ctx context.Context, c guard.Caller, id crm.UUID, version int64, reason crm.Text) error {
	by, err := crm.ParseID[crm.Employee](c.Subject.ID)
	if err != nil {
		return fmt.Errorf("privacy: %w", crm.ErrNotFound)
	}
	v, err := r.records.Get(ctx, c, id)
	if err != nil {
		return err
	}
	h := v.Value
	if h.Version != version {
		return crm.ErrConflict
	}
	if reason.IsEmpty() {
		bad := crm.Checks{Type: crm.TypeHold}
		bad.Required("lift_reason", true)
		return bad.Err()
	}
	if err := HoldLifecycle().Check(h.State, HoldLifting); err != nil {
		return err
	}
	// The reason first, sealed, by an update that puts the caller among the actors; the step afterwards. Between the two the hold is what it was.
	h.LiftReason = reason
	h.Reason.SetExposed("", uint8(crm.Hidden)) // it is kept as it is stored
	next, err := r.records.Update(ctx, c, h)
	if err != nil {
		return err
	}
	return r.records.Act(ctx, c, authz.Update, id, next.Value.Version, func(h *Hold) error { return h.Ask(by, r.clock().UTC()) })
}

// DecideLift agrees to the end that somebody else asked for (HoldLifted), or does not (HoldActive).
func (r *Holds) DecideLift(ctx context.Context, c guard.Caller, id crm.UUID, version int64, to HoldState) error {
	by, err := crm.ParseID[crm.Employee](c.Subject.ID)
	if err != nil {
		return fmt.Errorf("privacy: %w", crm.ErrNotFound)
	}
	return r.records.Act(ctx, c, authz.Approve, id, version, func(h *Hold) error { return h.Decide(by, to, r.clock().UTC()) })
}

// Of returns the holds of persons that are not lifted, the newest first.
func (r *Holds) Of(ctx context.Context, tenant string, persons []crm.UUID) ([]*Hold, error) {
	var out []*Hold
	c := r.program("holds")
	c.Subject.Tenant = tenant
	some := make([]crm.Value, 0, len(persons))
	for _, p := range persons {
		some = append(some, crm.StringValue(p.String()))
	}
	if len(some) == 0 {
		return nil, nil
	}
	q := guard.Query{Sort: "created_at", Desc: true, Limit: 200, Clauses: []crm.Clause{
		{Column: "subject", Op: crm.In, Values: some},
		{Column: "state", Op: crm.In, Values: []crm.Value{crm.StringValue(string(HoldActive)), crm.StringValue(string(HoldLifting))}},
	}}
	for {
		page, err := r.records.List(ctx, c, q)
		if err != nil {
			return nil, fmt.Errorf("privacy: %w", err)
		}
		for _, v := range page.Items {
			out = append(out, v.Value)
		}
		if q.After = page.Next; page.Next == "" {
			return out, nil
		}
	}
}

// Held tells whether a person is held, for encrypt.Options.Held: it asks for each of those who were joined.
func (r *Holds) Held(ctx context.Context, tenant string, person [16]byte) (bool, error) {
	found, err := r.Of(ctx, tenant, []crm.UUID{person})
	return len(found) > 0, err
}

package privacy

import (
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// ErasureState says how far an erasure has come.
type ErasureState string

// The states of an erasure.
const (
	ErasureRequested ErasureState = "requested" // waits for somebody else's approval
	ErasureApproved  ErasureState = "approved"  // it may be carried out: a hold or the daily limit may be in its way
	ErasureRefused   ErasureState = "refused"
	ErasureBlocked   ErasureState = "blocked"   // nothing of them opens; the keys are destroyed after the grace
	ErasureDestroyed ErasureState = "destroyed" // the keys are gone
)

// MaxErasure is how long after it was asked for an erasure may be approved, and after that be carried out.
const MaxErasure = 30 * 24 * time.Hour

// ErasureLifecycle returns the transition table.
func ErasureLifecycle() crm.Lifecycle[ErasureState] {
	return crm.NewLifecycle(crm.TypeErasure,
		[]ErasureState{ErasureRequested, ErasureApproved, ErasureRefused, ErasureBlocked, ErasureDestroyed},
		map[ErasureState][]ErasureState{
			ErasureRequested: {ErasureApproved, ErasureRefused},
			ErasureApproved:  {ErasureBlocked, ErasureDestroyed},
			ErasureBlocked:   {ErasureDestroyed},
		})
}

// Erasure is the request to erase a person, and what became of it: the receipt. Its owner asked for it. Its person is its own, made for it, which the erasure does not reach.
type Erasure struct {
	crm.Meta[Erasure]
	Subject    crm.ID[crm.Person]   `protect:"internal,indexed" json:"subject"` // who is erased
	RecordType string               `protect:"internal" json:"record_type"`     // of the record by which they were found
	Record     crm.UUID             `protect:"internal,indexed" json:"record"`
	Reason     crm.Text             `protect:"personal" json:"reason"`
	State      ErasureState         `protect:"internal,indexed" json:"state"`
	Actors     string               `protect:"internal" json:"actors"` // the owner in angle brackets, who does not approve it
	Approver   crm.ID[crm.Employee] `protect:"internal" json:"approver"`
	DecidedAt  time.Time            `protect:"internal" json:"decided_at"`
	Persons    int64                `protect:"internal" json:"persons"` // ids of the human: the one asked for, and those joined to it
	Records    int64                `protect:"internal" json:"records"` // with fields that identify, that named them
	Marks      int64                `protect:"internal" json:"marks"`   // on the list by which they are known again, as the first carrying out counted them
	Keys       int64                `protect:"internal" json:"keys"`    // destroyed
	Number     int64                `protect:"internal" json:"number"`  // the tenant's erasure number afterwards
	Event      int64                `protect:"internal" json:"event"`   // of the log, that announced the first carrying out
	LastEvent  int64                `protect:"internal" json:"last_event"`
	CarriedAt  time.Time            `protect:"internal" json:"carried_at"`
	DueAt      time.Time            `protect:"internal,indexed" json:"due_at"` // after which the keys are destroyed
	EndedAt    time.Time            `protect:"internal" json:"ended_at"`       // when they were
	GoneBy     time.Time            `protect:"internal" json:"gone_by"`        // when no copy of them opens any more; zero: not known
}

// Open tells whether it is not done with: neither refused nor destroyed.
func (e *Erasure) Open() bool { return e.State != ErasureRefused && e.State != ErasureDestroyed }

// Decide notes that by agrees or refuses. The owner cannot, and what waited too long is asked for anew: a *crm.TransitionError.
func (e *Erasure) Decide(by crm.ID[crm.Employee], to ErasureState, at time.Time) error {
	err := ErasureLifecycle().Check(e.State, to)
	if err == nil && (e.State != ErasureRequested || by == e.Owner || by.IsZero() || to == ErasureApproved && at.Sub(e.CreatedAt) >= MaxErasure) {
		err = &crm.TransitionError{Type: crm.TypeErasure, From: string(e.State), To: string(to)}
	}
	if err != nil {
		return err
	}
	e.State, e.Approver, e.DecidedAt = to, by, at
	return nil
}

// Due returns a *crm.TransitionError unless it may be carried out: it was approved, not too long ago, or begun.
func (e *Erasure) Due(at time.Time) error {
	if e.State == ErasureBlocked || e.State == ErasureApproved && at.Sub(e.DecidedAt) < MaxErasure {
		return nil
	}
	return &crm.TransitionError{Type: crm.TypeErasure, From: string(e.State), To: string(ErasureBlocked)}
}

// Note notes what guard.Guard.Erase did, or returns a *crm.TransitionError.
func (e *Erasure) Note(out guard.Erasure) error {
	to := ErasureDestroyed
	if !out.Due.IsZero() {
		to = ErasureBlocked
	}
	if err := ErasureLifecycle().CheckUpdate(e.State, to); err != nil {
		return err
	}
	if e.State == ErasureApproved {
		e.CarriedAt, e.Event = out.At, int64(out.Event)
	}
	e.State, e.LastEvent = to, int64(out.Event)
	e.Persons = int64(len(out.Persons))
	e.Records, e.Marks = max(e.Records, int64(out.Records)), max(e.Marks, int64(out.Marks))
	e.Number = int64(out.Number)
	if to == ErasureBlocked {
		e.DueAt = out.Due
		return nil
	}
	e.Keys, e.EndedAt, e.GoneBy = int64(len(out.Keys)), out.At, out.GoneBy
	return nil
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (e *Erasure) Validate() error {
	v := crm.Checks{Type: crm.TypeErasure}
	v.Team(e.Team)
	v.Required("owner", e.Owner.IsZero())
	v.Required("subject", e.Subject.IsZero())
	v.Str("record_type", e.RecordType, true, 40)
	v.Required("record", e.Record.IsZero())
	v.Text("reason", e.Reason, true, crm.MaxLine)
	if !ErasureLifecycle().Has(e.State) || e.Version <= 1 && e.State != ErasureRequested {
		v.Add("state", "unknown_value")
	}
	if e.State != ErasureRequested && (e.Approver.IsZero() || e.Approver == e.Owner) {
		v.Add("approver", "mismatch")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become e.
func (e *Erasure) CheckUpdate(prev *Erasure) error {
	v := crm.Checks{Type: crm.TypeErasure}
	v.Unchanged("owner", e.Owner == prev.Owner)
	v.Unchanged("subject", e.Subject == prev.Subject && e.RecordType == prev.RecordType && e.Record == prev.Record)
	v.SameText("reason", e.Reason, prev.Reason)
	if prev.State != ErasureRequested {
		v.Unchanged("approver", e.Approver == prev.Approver)
		v.SameTime("decided_at", e.DecidedAt, prev.DecidedAt)
	}
	if err := v.Err(); err != nil {
		return err
	}
	return ErasureLifecycle().CheckUpdate(prev.State, e.State)
}

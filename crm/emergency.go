package crm

import (
	"slices"
	"strings"
	"time"
)

// EmergencyState says how far an emergency access has come.
type EmergencyState string

// The states of an emergency access. One that has ended stays active until somebody has reviewed it.
const (
	EmergencyRequested EmergencyState = "requested"
	EmergencyActive    EmergencyState = "active"
	EmergencyRefused   EmergencyState = "refused"
	EmergencyReviewed  EmergencyState = "reviewed"
)

// How long an emergency access lasts at most, and how long a request for one can be approved.
const (
	MaxEmergency     = 4 * time.Hour
	emergencyWaiting = 4 * time.Hour
)

func emergencyLifecycle() Lifecycle[EmergencyState] {
	return Lifecycle[EmergencyState]{
		typ:    TypeEmergency,
		states: []EmergencyState{EmergencyRequested, EmergencyActive, EmergencyRefused, EmergencyReviewed},
		next: map[EmergencyState][]EmergencyState{
			EmergencyRequested: {EmergencyActive, EmergencyRefused},
			EmergencyActive:    {EmergencyReviewed},
		},
	}
}

// Emergency is a break-glass access: its owner may see records of a type that their roles do not open, for a few
// hours, after others have agreed and until somebody has to look at what was done. Its person is the owner's.
type Emergency struct {
	Meta[Emergency]
	RecordType string         `protect:"internal,indexed" json:"record_type"`
	Reason     Text           `protect:"personal" json:"reason"`
	Hours      int64          `protect:"internal" json:"hours"`
	State      EmergencyState `protect:"internal,indexed" json:"state"`
	Approvers  string         `protect:"internal" json:"approvers"` // ids in angle brackets, ascending
	Actors     string         `protect:"internal" json:"actors"`    // the owner and the approvers, so
	Starts     time.Time      `protect:"internal" json:"starts"`
	Ends       time.Time      `protect:"internal,indexed" json:"ends"`
	Reviewer   ID[Employee]   `protect:"internal" json:"reviewer"`
	ReviewedAt time.Time      `protect:"internal" json:"reviewed_at"`
	Justified  bool           `protect:"internal" json:"justified"` // what the review found
}

// ApproverIDs lists who has agreed.
func (e *Emergency) ApproverIDs() []string { return wordList(e.Approvers) }

// Live tells whether the access is open at a time.
func (e *Emergency) Live(at time.Time) bool {
	return e.State == EmergencyActive && !e.Deleted && !at.Before(e.Starts) && at.Before(e.Ends)
}

// Due tells whether the access has ended and waits for its review.
func (e *Emergency) Due(at time.Time) bool {
	return e.State == EmergencyActive && !e.Deleted && !at.Before(e.Ends)
}

// Pending tells whether the access stands in the way of another one: it can still be approved, it is open, or it has
// not been reviewed.
func (e *Emergency) Pending(at time.Time) bool {
	return !e.Deleted && (e.State == EmergencyActive || e.State == EmergencyRequested && at.Sub(e.CreatedAt) < emergencyWaiting)
}

// Approve notes that by agrees, and opens the access when enough tells that so many approvers are enough. The owner
// cannot, nobody counts twice, and a request that waited too long is none any more: a *TransitionError.
func (e *Emergency) Approve(by ID[Employee], at time.Time, enough func(approvers []string) (bool, error)) error {
	if e.State != EmergencyRequested || by == e.Owner || by.IsZero() || slices.Contains(e.ApproverIDs(), by.String()) ||
		at.Sub(e.CreatedAt) >= emergencyWaiting {
		return &TransitionError{Type: TypeEmergency, From: emergencyLifecycle().name(e.State), To: string(EmergencyActive)}
	}
	e.Approvers = addWord(e.Approvers, by.String())
	e.Actors = addWord(e.Actors, by.String())
	ok, err := enough(e.ApproverIDs())
	if err != nil || !ok {
		return err
	}
	e.State, e.Starts, e.Ends = EmergencyActive, at, at.Add(time.Duration(e.Hours)*time.Hour)
	return nil
}

// Refuse ends the request, or returns a *TransitionError.
func (e *Emergency) Refuse(by ID[Employee], at time.Time) error {
	if err := emergencyLifecycle().Check(e.State, EmergencyRefused); err != nil {
		return err
	}
	e.State, e.Reviewer, e.ReviewedAt = EmergencyRefused, by, at
	e.Actors = addWord(e.Actors, by.String())
	return nil
}

// Review notes what somebody found who looked at what was done. Before the end, and by one of those who asked for or
// approved it, it is a *TransitionError.
func (e *Emergency) Review(by ID[Employee], justified bool, at time.Time) error {
	if !e.Due(at) || by.IsZero() || slices.Contains(wordList(e.Actors), by.String()) {
		return &TransitionError{Type: TypeEmergency, From: emergencyLifecycle().name(e.State), To: string(EmergencyReviewed)}
	}
	e.State, e.Reviewer, e.ReviewedAt, e.Justified = EmergencyReviewed, by, at, justified
	return nil
}

// Validate returns an *InvalidError that lists every broken rule, or nil. It adds the owner to Actors.
func (e *Emergency) Validate() error {
	v := Checks{Type: TypeEmergency}
	e.Actors = addWord(e.Actors, e.Owner.String())
	v.Team(e.Team)
	v.Required("owner", e.Owner.IsZero())
	v.Str("record_type", e.RecordType, true, 40)
	v.Text("reason", e.Reason, true, MaxLine)
	if e.Hours < 1 || e.Hours > int64(MaxEmergency/time.Hour) {
		v.Add("hours", "out_of_range")
	}
	oneOf(&v, "state", e.State, emergencyLifecycle().states...)
	if !e.Ends.IsZero() && e.Ends.Sub(e.Starts) > MaxEmergency {
		v.Add("ends", "out_of_range")
	}
	if e.Version <= 1 && (e.State != EmergencyRequested || e.Approvers != "") {
		v.Add("state", "unknown_value")
	}
	if slices.Contains(e.ApproverIDs(), e.Owner.String()) {
		v.Add("actors", "mismatch")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become e.
func (e *Emergency) CheckUpdate(prev *Emergency) error {
	v := Checks{Type: TypeEmergency}
	v.Unchanged("record_type", e.RecordType == prev.RecordType)
	v.Unchanged("hours", e.Hours == prev.Hours)
	v.Unchanged("owner", e.Owner == prev.Owner)
	if prev.State == EmergencyActive {
		v.SameTime("ends", e.Ends, prev.Ends)
		v.Unchanged("approvers", e.Approvers == prev.Approvers)
	}
	if err := v.Err(); err != nil {
		return err
	}
	return emergencyLifecycle().CheckUpdate(prev.State, e.State)
}

// wordList and addWord read and write sets of ids as policies' filters look for them: "<a><b>", ascending.
func wordList(set string) []string {
	if len(set) < 2 {
		return nil
	}
	return strings.Split(set[1:len(set)-1], "><")
}

func addWord(set, word string) string {
	words := wordList(set)
	at, ok := slices.BinarySearch(words, word)
	if ok || word == "" {
		return set
	}
	return "<" + strings.Join(slices.Insert(words, at, word), "><") + ">"
}

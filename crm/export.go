package crm

import "time"

// ExportState says how far an export has come.
type ExportState string

// The states of an export.
const (
	ExportOpen      ExportState = "open"      // nobody else has to agree
	ExportRequested ExportState = "requested" // waits for approval
	ExportApproved  ExportState = "approved"
	ExportRefused   ExportState = "refused"
	ExportTaken     ExportState = "taken"
)

// MaxApproval is how long after its approval, or its request when none is needed, an export may be taken.
const MaxApproval = 24 * time.Hour

func exportLifecycle() Lifecycle[ExportState] {
	return Lifecycle[ExportState]{
		typ:    TypeExport,
		states: []ExportState{ExportOpen, ExportRequested, ExportApproved, ExportRefused, ExportTaken},
		next: map[ExportState][]ExportState{
			ExportOpen:      {ExportTaken},
			ExportRequested: {ExportApproved, ExportRefused},
			ExportApproved:  {ExportTaken},
		},
	}
}

// Export is a request to take many records out of the system, and what became of it. It is taken once, by its owner,
// whose person it names.
type Export struct {
	Meta[Export]
	RecordType string       `protect:"internal,indexed" json:"record_type"`
	Filter     string       `protect:"internal" json:"filter"` // which records
	Columns    int64        `protect:"internal" json:"columns"`
	Rows       int64        `protect:"internal" json:"rows"`   // as counted when it was asked for
	Digest     string       `protect:"internal" json:"digest"` // of type, filter and columns
	Format     string       `protect:"internal" json:"format"` // csv or xlsx; "": csv
	Chosen     string       `protect:"internal" json:"chosen"` // names of columns with commas between; "": all that the owner may have
	Reason     Text         `protect:"personal" json:"reason"`
	Canary     Text         `protect:"sensitive" json:"canary"` // from what the made-up record in its file follows; the program alone reads it
	State      ExportState  `protect:"internal,indexed" json:"state"`
	Actors     string       `protect:"internal" json:"actors"` // the owner in angle brackets
	Approver   ID[Employee] `protect:"internal" json:"approver"`
	DecidedAt  time.Time    `protect:"internal" json:"decided_at"`
	TakenAt    time.Time    `protect:"internal" json:"taken_at"`
}

// Decide notes that by agrees or refuses. The owner cannot: a *TransitionError.
func (e *Export) Decide(by ID[Employee], to ExportState, at time.Time) error {
	if err := exportLifecycle().Check(e.State, to); err != nil {
		return err
	}
	if by == e.Owner || by.IsZero() || e.State != ExportRequested || at.Sub(e.CreatedAt) >= MaxApproval {
		return &TransitionError{Type: TypeExport, From: string(e.State), To: string(to)}
	}
	e.State, e.Approver, e.DecidedAt = to, by, at
	return nil
}

// Take notes that it is taken now. It returns a *TransitionError when it was taken before or never approved, and an
// *InvalidError when its time is over, when it is another query than the one that was asked for, or has more rows.
func (e *Export) Take(digest string, rows int64, at time.Time) error {
	if err := exportLifecycle().Check(e.State, ExportTaken); err != nil {
		return err
	}
	since := e.CreatedAt
	v := Checks{Type: TypeExport}
	if e.State == ExportApproved {
		since = e.DecidedAt
		if e.Approver.IsZero() || e.Approver == e.Owner {
			v.Add("approver", "mismatch")
		}
	}
	if at.Sub(since) >= MaxApproval || at.Before(since) {
		v.Add("decided_at", "too_late")
	}
	if digest != e.Digest || digest == "" {
		v.Add("filter", "mismatch")
	}
	if rows > e.Rows {
		v.Add("rows", "out_of_range")
	}
	if err := v.Err(); err != nil {
		return err
	}
	e.State, e.TakenAt = ExportTaken, at
	return nil
}

// Validate returns an *InvalidError that lists every broken rule, or nil. It sets Actors.
func (e *Export) Validate() error {
	v := Checks{Type: TypeExport}
	e.Actors = addWord("", e.Owner.String())
	v.Team(e.Team)
	v.Required("owner", e.Owner.IsZero())
	v.Str("record_type", e.RecordType, true, 40)
	v.Str("filter", e.Filter, false, MaxLine)
	v.Str("digest", e.Digest, true, 64)
	v.Str("chosen", e.Chosen, false, MaxText)
	v.OneOf("format", e.Format, "", "csv", "xlsx")
	v.Text("reason", e.Reason, true, MaxLine)
	v.NotNegative("rows", e.Rows)
	oneOf(&v, "state", e.State, exportLifecycle().states...)
	if e.Version <= 1 && e.State != ExportOpen && e.State != ExportRequested {
		v.Add("state", "unknown_value")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become e.
func (e *Export) CheckUpdate(prev *Export) error {
	v := Checks{Type: TypeExport}
	v.Unchanged("owner", e.Owner == prev.Owner)
	v.Unchanged("record_type", e.RecordType == prev.RecordType)
	v.Unchanged("filter", e.Filter == prev.Filter && e.Digest == prev.Digest)
	v.Unchanged("rows", e.Rows == prev.Rows)
	v.Unchanged("format", e.Format == prev.Format)
	v.Unchanged("chosen", e.Chosen == prev.Chosen)
	if err := v.Err(); err != nil {
		return err
	}
	return exportLifecycle().CheckUpdate(prev.State, e.State)
}

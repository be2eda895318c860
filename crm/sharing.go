package crm

import "time"

// MaxSharing is how long a record is shared at most.
const MaxSharing = 366 * 24 * time.Hour

// Sharing lets somebody see or change one record of its owner for a while. It counts only as long as who shared the
// record owns it.
type Sharing struct {
	Meta[Sharing]
	RecordType string       `protect:"internal,indexed" json:"record_type"`
	Record     UUID         `protect:"internal,indexed" json:"record"`
	With       ID[Employee] `protect:"internal,indexed" json:"with"`
	Actions    []string     `protect:"internal" json:"actions"`
	Ends       time.Time    `protect:"internal,indexed" json:"ends"` // the first moment at which it no longer counts
}

// Live tells whether it counts at a time.
func (s *Sharing) Live(at time.Time) bool { return !s.Deleted && at.Before(s.Ends) }

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (s *Sharing) Validate() error {
	v := Checks{Type: TypeSharing}
	v.Team(s.Team)
	v.Required("owner", s.Owner.IsZero())
	v.Str("record_type", s.RecordType, true, 40)
	v.Required("record", s.Record.IsZero())
	v.Required("with", s.With.IsZero())
	if s.With == s.Owner {
		v.Add("with", "bad_reference")
	}
	v.actions(s.Actions)
	v.span("ends", s.CreatedAt, s.Ends, MaxSharing)
	return v.Err()
}

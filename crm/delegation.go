package crm

import "time"

// MaxDelegation is how long somebody may stand in for somebody else at most.
const MaxDelegation = 60 * 24 * time.Hour

// Delegation lets a deputy act on the records of its owner, who is away, for a while. It does not pass on: a deputy's
// deputy gets nothing of it.
type Delegation struct {
	Meta[Delegation]
	Deputy  ID[Employee] `protect:"internal,indexed" json:"deputy"`
	Actions []string     `protect:"internal" json:"actions"`
	Starts  time.Time    `protect:"internal" json:"starts"`
	Ends    time.Time    `protect:"internal,indexed" json:"ends"` // the first moment at which it no longer counts
}

// Live tells whether the deputy may act at a time.
func (d *Delegation) Live(at time.Time) bool {
	return !d.Deleted && !at.Before(d.Starts) && at.Before(d.Ends)
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (d *Delegation) Validate() error {
	v := Checks{Type: TypeDelegation}
	v.Team(d.Team)
	v.Required("owner", d.Owner.IsZero())
	v.Required("deputy", d.Deputy.IsZero())
	if d.Deputy == d.Owner {
		v.Add("deputy", "bad_reference")
	}
	v.actions(d.Actions)
	v.span("ends", d.Starts, d.Ends, MaxDelegation)
	return v.Err()
}

// actions wants some, of letters.
func (c *Checks) actions(list []string) {
	if len(list) == 0 {
		c.Add("actions", "required")
	}
	for _, a := range list {
		if len(list) > 20 || a == "" || len(a) > 40 {
			c.Add("actions", "unknown_value")
			return
		}
	}
}

// span wants both times, the end after the start, and no more than longest between them.
func (c *Checks) span(field string, start, end time.Time, longest time.Duration) {
	switch {
	case start.IsZero() || end.IsZero():
		c.Add(field, "required")
	case !end.After(start):
		c.Add(field, "before_start")
	case end.Sub(start) > longest:
		c.Add(field, "too_late")
	}
}

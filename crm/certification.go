package crm

import "time"

// Certification says that somebody has confirmed that an employee needs a role, until when it counts, and what the
// running campaign decides about it. Its owner is the employee; there is one for each of their roles.
type Certification struct {
	Meta[Certification]
	Role     string       `protect:"internal,indexed" json:"role"`
	Until    time.Time    `protect:"internal,indexed" json:"until"` // the first moment at which the role no longer counts
	By       ID[Employee] `protect:"internal" json:"by"`            // who confirmed it; none: the program, when it was set up
	Actors   string       `protect:"internal" json:"actors"`        // the employee, who confirms nothing here
	Campaign ID[Campaign] `protect:"internal,indexed" json:"campaign"`
	Reviewer ID[Employee] `protect:"internal,indexed" json:"reviewer"` // who is asked
	Outcome  string       `protect:"internal" json:"outcome"`          // of the campaign: kept, revoked or nothing yet
	Decider  ID[Employee] `protect:"internal" json:"decider"`
	Decided  time.Time    `protect:"internal" json:"decided"`
}

// Live tells whether the role counts at a time.
func (c *Certification) Live(at time.Time) bool { return !c.Deleted && at.Before(c.Until) }

// Validate returns an *InvalidError that lists every broken rule, or nil. It sets Actors.
func (c *Certification) Validate() error {
	v := Checks{Type: TypeCertification}
	c.Actors = addWord("", c.Owner.String())
	v.Team(c.Team)
	v.Required("owner", c.Owner.IsZero())
	v.Str("role", c.Role, true, 40)
	v.Required("until", c.Until.IsZero())
	if c.By == c.Owner || c.Reviewer == c.Owner || c.Decider == c.Owner {
		v.Add("by", "bad_reference")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become c.
func (c *Certification) CheckUpdate(prev *Certification) error {
	v := Checks{Type: TypeCertification}
	v.Unchanged("owner", c.Owner == prev.Owner)
	v.Unchanged("role", c.Role == prev.Role)
	return v.Err()
}

// Campaign is a round in which reviewers decide, for each Certification that names it, whether it is renewed.
type Campaign struct {
	Meta[Campaign]
	Opened time.Time `protect:"internal,indexed" json:"opened"`
	Due    time.Time `protect:"internal" json:"due"`
	Closed time.Time `protect:"internal" json:"closed"`
	Days   int64     `protect:"internal" json:"days"` // what is kept is certified for so many days
	Items  int64     `protect:"internal" json:"items"`
}

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (c *Campaign) Validate() error {
	v := Checks{Type: TypeCampaign}
	v.Team(c.Team)
	v.Required("opened", c.Opened.IsZero())
	v.span("due", c.Opened, c.Due, 92*24*time.Hour)
	if c.Days < 1 || c.Days > 400 {
		v.Add("days", "out_of_range")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become c.
func (c *Campaign) CheckUpdate(prev *Campaign) error {
	v := Checks{Type: TypeCampaign}
	v.SameTime("opened", c.Opened, prev.Opened)
	v.Unchanged("closed", prev.Closed.IsZero() || sameTime(c.Closed, prev.Closed))
	return v.Err()
}

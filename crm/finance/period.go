package finance

import (
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// PeriodState says whether a period takes postings.
type PeriodState string

// The states of a period.
const (
	PeriodOpen   PeriodState = "open"
	PeriodClosed PeriodState = "closed" // final: corrections go into the next
)

// PeriodLifecycle returns the transition table of periods.
func PeriodLifecycle() crm.Lifecycle[PeriodState] {
	return crm.NewLifecycle(crm.TypePeriod, []PeriodState{PeriodOpen, PeriodClosed}, map[PeriodState][]PeriodState{PeriodOpen: {PeriodClosed}})
}

// Period is an accounting period, such as a month.
type Period struct {
	crm.Meta[Period]
	Name     string               `protect:"internal,indexed" json:"name"`
	Starts   time.Time            `protect:"internal,indexed" json:"starts"`
	Ends     time.Time            `protect:"internal,indexed" json:"ends"` // the first moment after it
	State    PeriodState          `protect:"internal,indexed" json:"state"`
	ClosedBy crm.ID[crm.Employee] `protect:"internal" json:"closed_by"`
	ClosedAt time.Time            `protect:"internal" json:"closed_at"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (p *Period) Validate() error {
	v := crm.Checks{Type: crm.TypePeriod}
	v.Team(p.Team)
	v.Str("name", p.Name, true, 60)
	v.Required("starts", p.Starts.IsZero())
	v.Required("ends", p.Ends.IsZero())
	if !p.Starts.IsZero() && !p.Ends.IsZero() && !p.Ends.After(p.Starts) {
		v.Add("ends", "before_start")
	}
	PeriodLifecycle().State(&v, "state", p.State)
	if closed := p.State == PeriodClosed; closed == p.ClosedAt.IsZero() || closed == p.ClosedBy.IsZero() {
		v.Add("closed_at", "mismatch")
	}
	v.Order("closed_at", p.Ends, p.ClosedAt)
	return v.Err()
}

// MadeByActs says that a period is made by an act that looks at the others, and never by itself: two do not overlap.
func (p *Period) MadeByActs() {}

// CheckNew refuses a period that does not begin open: a *crm.TransitionError.
func (p *Period) CheckNew() error {
	if p.State != PeriodOpen {
		return &crm.TransitionError{Type: crm.TypePeriod, From: "new", To: known(PeriodLifecycle(), p.State)}
	}
	return nil
}

// Reserved names the fields that no update sets: Books.Close does.
func (p *Period) Reserved(isNew bool) []string { return []string{"closed_by", "closed_at"} }

// CheckUpdate tells whether the stored record prev may become p: a *crm.TransitionError when a closed period would open, a
// *crm.InvalidError with the rule fixed for its bounds.
func (p *Period) CheckUpdate(prev *Period) error {
	if err := PeriodLifecycle().CheckUpdate(prev.State, p.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypePeriod}
	v.SameTime("starts", p.Starts, prev.Starts)
	v.SameTime("ends", p.Ends, prev.Ends)
	if prev.State == PeriodClosed {
		v.Unchanged("closed_by", p.ClosedBy == prev.ClosedBy)
		v.SameTime("closed_at", p.ClosedAt, prev.ClosedAt)
	}
	return v.Err()
}

// Books are the periods of a ledger. Nil books take every posting; others only what falls into one of their open periods.
type Books []*Period

// ClosedError is a posting that no open period takes.
type ClosedError struct {
	Period string // the name of the closed period; "" when none covers the time
}

// Error says why.
func (e *ClosedError) Error() string {
	if e.Period == "" {
		return "finance: no period covers the time of the posting"
	}
	return fmt.Sprintf("finance: period %s is closed", e.Period)
}

// Post returns a *ClosedError unless something may be posted at a time.
func (b Books) Post(at time.Time) error {
	if b == nil {
		return nil
	}
	for _, p := range b {
		if !at.Before(p.Starts) && at.Before(p.Ends) {
			if p.State != PeriodOpen || p.Deleted {
				return &ClosedError{p.Name}
			}
			return nil
		}
	}
	return &ClosedError{}
}

// Validate checks that no two periods overlap: a *crm.InvalidError with the rule repeated.
func (b Books) Validate() error {
	v := crm.Checks{Type: crm.TypePeriod}
	sorted := slices.Clone(b)
	slices.SortFunc(sorted, func(a, c *Period) int { return a.Starts.Compare(c.Starts) })
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Starts.Before(sorted[i-1].Ends) {
			v.Add("starts", "repeated")
			break
		}
	}
	return v.Err()
}

// Close closes the period p of the books. pending is how many records of its time are still undecided: drafts of invoices, reported receipts,
// submitted expenses. A *crm.TransitionError when it is closed; a *crm.InvalidError has the rule required for nobody who closes, too_early
// before its end, mismatch with something pending, and not_in_order while an earlier one is open.
func (b Books) Close(p *Period, pending int, by crm.ID[crm.Employee], at time.Time) error {
	if err := PeriodLifecycle().Check(p.State, PeriodClosed); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypePeriod}
	v.Required("closed_by", by.IsZero())
	if at.Before(p.Ends) {
		v.Add("ends", "too_early")
	}
	if pending != 0 {
		v.Add("pending", "mismatch")
	}
	if slices.ContainsFunc(b, func(o *Period) bool { return o.State == PeriodOpen && o.Starts.Before(p.Starts) && !o.Deleted }) {
		v.Add("starts", "not_in_order")
	}
	if err := v.Err(); err != nil {
		return err
	}
	p.State, p.ClosedBy, p.ClosedAt, p.UpdatedAt = PeriodClosed, by, at, at
	return nil
}

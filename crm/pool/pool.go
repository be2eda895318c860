package pool

import (
	"errors"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Mode says how records leave a pool.
type Mode string

// The modes of a pool.
const (
	MembersClaim Mode = "claim"  // members take what they want; admins may assign too
	AdminsAssign Mode = "assign" // only admins give it out
)

// Clocks say when a record goes back, in days of 0 to 3660. A zero Protect and Extend never count; a zero Max has no end.
type Clocks struct {
	Protect int64 `json:"protect"` // from the claim on
	Extend  int64 `json:"extend"`  // from each follow-up on, when that is later
	Max     int64 `json:"max"`     // from the claim on, whatever happens
}

// FollowUpOrDeal are the clocks of a pool whose records go back after n days without a follow-up, or m days without a deal.
func FollowUpOrDeal(n, m int64) Clocks { return Clocks{Protect: n, Extend: n, Max: m} }

// Pool is a public pool of customers or of leads.
type Pool struct {
	crm.Meta[Pool]
	Name       string                 `protect:"internal,indexed" json:"name"`
	RecordType string                 `protect:"internal,indexed" json:"record_type"` // customer or lead
	Mode       Mode                   `protect:"internal" json:"mode"`
	Members    []crm.ID[crm.Employee] `protect:"internal" json:"members"`
	Admins     []crm.ID[crm.Employee] `protect:"internal" json:"admins"`    // members too
	HoldCap    int64                  `protect:"internal" json:"hold_cap"`  // records of the pool that one member has at once; 0: no cap
	TotalCap   int64                  `protect:"internal" json:"total_cap"` // records of all pools that one member has at once; 0: no cap
	DailyCap   int64                  `protect:"internal" json:"daily_cap"` // claims of one member a day; 0: no cap
	LockCap    int64                  `protect:"internal" json:"lock_cap"`  // records that one member has locked at once; 0: none
	Cooldown   int64                  `protect:"internal" json:"cooldown"`  // hours for which who had a record does not claim it again
	Clocks     Clocks                 `protect:"internal" json:"clocks"`
	RemindDays int64                  `protect:"internal" json:"remind_days"` // days before a record goes back at which its owner is told; 0: never
	CountWon   bool                   `protect:"internal" json:"count_won"`   // records whose deal is won count for HoldCap too
	Hide       []string               `protect:"internal" json:"hide"`        // fields that nobody sees before the claim
	Zone       string                 `protect:"internal" json:"zone"`        // whose days are counted; "": UTC
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (p *Pool) Validate() error {
	v := crm.Checks{Type: crm.TypePool}
	v.Team(p.Team)
	v.Str("name", p.Name, true, crm.MaxName)
	v.OneOf("record_type", p.RecordType, crm.TypeCustomer, crm.TypeLead)
	v.OneOf("mode", string(p.Mode), string(MembersClaim), string(AdminsAssign))
	v.Required("admins", len(p.Admins) == 0)
	for _, list := range []struct {
		field string
		ids   []crm.ID[crm.Employee]
	}{{"members", p.Members}, {"admins", p.Admins}} {
		seen := map[crm.ID[crm.Employee]]bool{}
		for _, id := range list.ids {
			if id.IsZero() || seen[id] {
				v.Add(list.field, "repeated")
				break
			}
			seen[id] = true
		}
		if len(list.ids) > 5000 {
			v.Add(list.field, "too_long")
		}
	}
	v.NotNegative("hold_cap", p.HoldCap)
	v.NotNegative("total_cap", p.TotalCap)
	v.NotNegative("daily_cap", p.DailyCap)
	v.NotNegative("lock_cap", p.LockCap)
	v.Range("cooldown", p.Cooldown, 0, 3660*24)
	v.Range("clocks.protect", p.Clocks.Protect, 0, 3660)
	v.Range("clocks.extend", p.Clocks.Extend, 0, 3660)
	v.Range("clocks.max", p.Clocks.Max, 0, 3660)
	if p.Clocks.Max > 0 && p.Clocks.Max < p.Clocks.Protect {
		v.Add("clocks.max", "before_start")
	}
	v.Range("remind_days", p.RemindDays, 0, 366)
	if len(p.Hide) > 100 {
		v.Add("hide", "too_long")
	}
	if _, err := zone(p.Zone); err != nil {
		v.Add("zone", "unknown_value")
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become p: a pool keeps to one type of records.
func (p *Pool) CheckUpdate(prev *Pool) error {
	v := crm.Checks{Type: crm.TypePool}
	v.Unchanged("record_type", p.RecordType == prev.RecordType)
	return v.Err()
}

func zone(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, errors.New("pool: not a zone") // what Local is depends on the machine
	}
	return time.LoadLocation(name)
}

// days adds days of the pool's zone.
func (p *Pool) days(t time.Time, n int64) time.Time {
	loc, err := zone(p.Zone)
	if err != nil {
		loc = time.UTC
	}
	return t.In(loc).AddDate(0, 0, int(n)).UTC()
}

// Today returns when the day of a time began in the pool's zone: claims since then count for DailyCap.
func (p *Pool) Today(at time.Time) time.Time {
	loc, err := zone(p.Zone)
	if err != nil {
		loc = time.UTC
	}
	y, m, d := at.In(loc).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, loc).UTC()
}

// Tomorrow returns when the day after a time begins in the pool's zone.
func (p *Pool) Tomorrow(at time.Time) time.Time { return p.days(p.Today(at), 1) }

// Admin tells whether an employee may assign, transfer and lock.
func (p *Pool) Admin(e crm.ID[crm.Employee]) bool { return !e.IsZero() && slices.Contains(p.Admins, e) }

// Member tells whether an employee may have records of the pool.
func (p *Pool) Member(e crm.ID[crm.Employee]) bool {
	return p.Admin(e) || !e.IsZero() && slices.Contains(p.Members, e)
}

// Hides tells whether a field is hidden while nobody owns the record.
func (p *Pool) Hides(r Record, field string) bool {
	return r.Owner.IsZero() && r.Pool == p.ID.UUID() && slices.Contains(p.Hide, field)
}

// Record is what the rules of a pool need to know of a record.
type Record struct {
	Type    string
	ID      crm.UUID
	Version int64
	Deleted bool
	Owner   crm.ID[crm.Employee] // none: it is free
	crm.Pooled
	LastFollowUp time.Time
	Won          bool // its deal is closed
}

// OfCustomer is the record of a customer.
func OfCustomer(c *crm.Customer) Record {
	return Record{
		Type: crm.TypeCustomer, ID: c.ID.UUID(), Version: c.Version, Deleted: c.Deleted, Owner: c.Owner, Pooled: c.Pooled,
		LastFollowUp: c.LastFollowUp, Won: c.Stage == crm.CustomerWon,
	}
}

// OfLead is the record of a lead.
func OfLead(l *crm.Lead) Record {
	return Record{
		Type: crm.TypeLead, ID: l.ID.UUID(), Version: l.Version, Deleted: l.Deleted, Owner: l.Owner, Pooled: l.Pooled,
		LastFollowUp: l.LastFollowUp, Won: l.State == crm.LeadConverted,
	}
}

// RecycleAt returns when a record goes back to the pool; ok is false when it does not: it is free, locked, won or in the bin, or the pool
// has no clock.
func (p *Pool) RecycleAt(r Record) (at time.Time, ok bool) {
	c := p.Clocks
	if r.Owner.IsZero() || r.Locked || r.Won || r.Deleted || r.Pool != p.ID.UUID() || r.ClaimedAt.IsZero() {
		return time.Time{}, false
	}
	if c.Protect > 0 {
		at = p.days(r.ClaimedAt, c.Protect)
	}
	if c.Extend > 0 && !r.LastFollowUp.Before(r.ClaimedAt) { // what the owner before did does not count
		if later := p.days(r.LastFollowUp, c.Extend); later.After(at) {
			at = later
		}
	}
	if c.Max > 0 {
		if end := p.days(r.ClaimedAt, c.Max); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	return at, !at.IsZero()
}

// RemindAt returns when the owner is told that a record goes back; ok is false when nobody is.
func (p *Pool) RemindAt(r Record) (at time.Time, ok bool) {
	at, ok = p.RecycleAt(r)
	if !ok || p.RemindDays <= 0 {
		return time.Time{}, false
	}
	return p.days(at, -p.RemindDays), true
}

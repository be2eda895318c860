package pool

import (
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Ownership is one change of who has a record. Each change leaves one, in the same transaction, and none is ever changed or removed: they are
// the history of a record, and the claims of a day are counted in them.
type Ownership struct {
	crm.Meta[Ownership]
	RecordType string               `protect:"internal,indexed" json:"record_type"` // customer or lead
	Record     crm.UUID             `protect:"internal,indexed" json:"record"`
	Pool       crm.UUID             `protect:"internal,indexed" json:"pool"` // none: the record is in no pool
	Act        Act                  `protect:"internal,indexed" json:"act"`
	From       crm.ID[crm.Employee] `protect:"internal,indexed" json:"from"` // none: it was free
	To         crm.ID[crm.Employee] `protect:"internal,indexed" json:"to"`   // none: it is free since
	By         crm.ID[crm.Employee] `protect:"internal,indexed" json:"by"`   // none: the clock
	At         time.Time            `protect:"internal,indexed" json:"at"`
}

// Ownership is the entry of a change that is applied.
func (c Change) Ownership(team string) *Ownership {
	o := &Ownership{RecordType: c.Type, Record: c.Record, Pool: c.Set.Pool, Act: c.Act, From: c.From, To: c.To, By: c.By, At: c.At}
	o.Team = team
	for _, id := range []crm.ID[crm.Employee]{c.By, c.To, c.From} { // who did it answers for the entry
		if o.Owner.IsZero() {
			o.Owner = id
		}
	}
	return o
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (o *Ownership) Validate() error {
	v := crm.Checks{Type: crm.TypeOwnership}
	v.Team(o.Team)
	v.OneOf("record_type", o.RecordType, crm.TypeCustomer, crm.TypeLead)
	v.Required("record", o.Record.IsZero())
	v.OneOf("act", string(o.Act), string(Claim), string(Assign), string(Transfer), string(Release), string(Recycle), string(Handover), string(Enter))
	if o.From == o.To && !(o.Act == Enter && o.To.IsZero()) {
		v.Add("to", "mismatch")
	}
	v.Required("at", o.At.IsZero())
	v.Time("at", o.At)
	if o.Deleted {
		v.Add("deleted", "fixed")
	}
	return v.Err()
}

// MadeByActs says that an entry is made with the change that it is of, and never by itself.
func (o *Ownership) MadeByActs() {}

// CheckUpdate refuses every change: a *crm.InvalidError with the rule fixed.
func (o *Ownership) CheckUpdate(*Ownership) error {
	v := crm.Checks{Type: crm.TypeOwnership}
	v.Add("ownership", "fixed")
	return v.Err()
}

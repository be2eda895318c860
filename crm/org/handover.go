package org

import (
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Owned is a record that somebody owns.
type Owned struct {
	Type    string
	ID      crm.UUID
	Version int64
}

// Heirs say who gets what somebody leaves: the record's heir, else the type's, else Default.
type Heirs struct {
	Records map[crm.UUID]ID
	Types   map[string]ID
	Default ID // none: there is no other
}

// Transfer gives one record to somebody.
type Transfer struct {
	Owned
	To ID
}

// Plan is what is to be done before somebody leaves.
type Plan struct {
	Leaver  ID
	Records []Transfer // in the order in which they were given
	Reports []Transfer // employees who get another superior
}

// LeftOverError is what would be left without an owner.
type LeftOverError = crm.LeftOverError

// Handover plans who gets the records that somebody owns, all of them. Their reports get their superior, or the default heir where there is
// none. Records of a pool may be returned to it instead (package pool): leave them out here only when they have been.
//
// Errors are a *LeftOverError when a record or a report has no heir, and a *crm.InvalidError with the rule bad_reference for somebody who is not in the
// tree or an heir who does not work here or is the leaver, and repeated for a record that is given twice.
func (t *Tree) Handover(leaver ID, owned []Owned, heirs Heirs) (*Plan, error) {
	v := crm.Checks{Type: crm.TypeEmployee}
	if t.employees[leaver] == nil {
		v.Add("id", "bad_reference")
		return nil, v.Err()
	}
	heir := func(id ID) bool { e := t.employees[id]; return id != leaver && e != nil && e.Active() }
	good := func(field string, id ID) {
		if !heir(id) {
			v.Add(field, "bad_reference")
		}
	}
	if !heirs.Default.IsZero() {
		good("heirs.default", heirs.Default)
	}
	for _, id := range heirs.Types {
		good("heirs.types", id)
	}
	for _, id := range heirs.Records {
		good("heirs.records", id)
	}
	p := &Plan{Leaver: leaver}
	left := map[string]int{}
	seen := map[Owned]bool{}
	for _, o := range owned {
		key := Owned{Type: o.Type, ID: o.ID}
		if seen[key] {
			v.Add("records", "repeated")
		}
		seen[key] = true
		to, ok := heirs.Records[o.ID]
		if !ok {
			to, ok = heirs.Types[o.Type]
		}
		if !ok {
			to = heirs.Default
		}
		if to.IsZero() {
			left[o.Type]++
			continue
		}
		p.Records = append(p.Records, Transfer{o, to})
	}
	for _, id := range t.reports[leaver] {
		e := t.employees[id]
		to := t.Approver(leaver, 1)
		if to.IsZero() {
			to = heirs.Default
		}
		// A report who is the heir has nobody above from now on; nobody is set above those that they are below.
		switch {
		case to == id:
			to = ID{}
		case to.IsZero(), t.Above(id, to):
			left[crm.TypeEmployee]++
			continue
		}
		p.Reports = append(p.Reports, Transfer{Owned{crm.TypeEmployee, id.UUID(), e.Version}, to})
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	if len(left) > 0 {
		return nil, &LeftOverError{Records: left}
	}
	return p, nil
}

// Leave takes the leaver out at a time, after the plan was carried out. owned is what they own then, read in the same transaction: anything is
// a *LeftOverError. Another employee than the plan's is a *crm.InvalidError with the rule mismatch; else errors are those of crm.Employee.Move. Who has left
// has no roles.
func (p *Plan) Leave(e *crm.Employee, owned []Owned, at time.Time) error {
	if e.ID != p.Leaver {
		return &crm.InvalidError{Type: crm.TypeEmployee, Fields: []crm.FieldError{{Field: "id", Rule: "mismatch"}}}
	}
	left := map[string]int{}
	for _, o := range owned {
		left[o.Type]++
	}
	if len(left) > 0 {
		return &LeftOverError{Records: left}
	}
	if err := e.Move(crm.EmployeeLeft, at); err != nil {
		return err
	}
	e.Roles = nil
	return nil
}

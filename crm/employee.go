package crm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// EmployeeState says whether an employee may work here.
type EmployeeState string

// The states of an employee.
const (
	EmployeeInvited   EmployeeState = "invited" // has not signed in yet
	EmployeeActive    EmployeeState = "active"
	EmployeeSuspended EmployeeState = "suspended"
	EmployeeLeft      EmployeeState = "left" // may be invited anew
)

// EmployeeLifecycle returns the transition table of employees.
func EmployeeLifecycle() Lifecycle[EmployeeState] {
	return Lifecycle[EmployeeState]{
		typ:    TypeEmployee,
		states: []EmployeeState{EmployeeInvited, EmployeeActive, EmployeeSuspended, EmployeeLeft},
		next: map[EmployeeState][]EmployeeState{
			EmployeeInvited:   {EmployeeActive, EmployeeLeft},
			EmployeeActive:    {EmployeeSuspended, EmployeeLeft},
			EmployeeSuspended: {EmployeeActive, EmployeeLeft},
			EmployeeLeft:      {EmployeeInvited},
		},
	}
}

// Employee is somebody who works with the system. Team is the team that he or she belongs to, and
// Owner, when set, the superior.
type Employee struct {
	Meta[Employee]
	Name   Text          `protect:"personal,index=exact:name,index=ngram:person,index=exact:pinyin,leaks=fragments,mask=name" json:"name"`
	Email  Text          `protect:"personal,unique=exact:email,leaks=equality,mask=email" json:"email"` // the sign-in name
	Phone  Text          `protect:"personal,index=exact:phone,index=suffix4:digits:12,leaks=equality,mask=phone" json:"phone"`
	Roles  []string      `protect:"internal" json:"roles"`
	State  EmployeeState `protect:"internal,indexed" json:"state"`
	Joined time.Time     `protect:"internal,indexed" json:"joined"`
	Left   time.Time     `protect:"internal" json:"left"`
}

// Active tells whether the employee may sign in and act.
func (e *Employee) Active() bool { return e.State == EmployeeActive && !e.Deleted }

// Validate returns an *InvalidError that lists every broken rule, or nil.
func (e *Employee) Validate() error {
	v := Checks{Type: TypeEmployee}
	v.Team(e.Team)
	if !e.Owner.IsZero() && e.Owner == e.ID {
		v.Add("owner", "bad_reference")
	}
	v.Text("name", e.Name, true, MaxName)
	v.Email("email", e.Email, true)
	v.Text("phone", e.Phone, false, MaxName)
	if len(e.Roles) > 20 {
		v.Add("roles", "too_long")
	}
	seen := map[string]bool{}
	for _, r := range e.Roles {
		if r == "" || len(r) > 40 || seen[r] ||
			strings.ContainsFunc(r, func(c rune) bool { return c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') }) {
			v.Add("roles", "unknown_value")
			break
		}
		seen[r] = true
	}
	oneOf(&v, "state", e.State, EmployeeLifecycle().states...)
	v.Order("left", e.Joined, e.Left)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become e: a *TransitionError for a step that
// the table does not have.
func (e *Employee) CheckUpdate(prev *Employee) error {
	return EmployeeLifecycle().CheckUpdate(prev.State, e.State)
}

// Hierarchy says that Owner names the superior, and that nobody is above themselves.
func (e *Employee) Hierarchy() (column string) { return "owner" }

// LeftOverError is what would be left without an owner who works here.
type LeftOverError struct {
	Records map[string]int // by type
}

// Error counts it by type.
func (e *LeftOverError) Error() string {
	var b strings.Builder
	b.WriteString("crm: records would have no owner:")
	for i, typ := range slices.Sorted(maps.Keys(e.Records)) {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %d %s", e.Records[typ], typ)
	}
	return b.String()
}

// HandedOver are the types whose living records somebody who leaves must not own any more.
func HandedOver() []string {
	return []string{TypeCustomer, TypeContact, TypeLead, TypeOpportunity, TypeQuote, TypeContract, TypeTicket}
}

// Needs says that who leaves owns nothing of the types HandedOver any more: a *LeftOverError.
func (e *Employee) Needs(prev *Employee) []Need {
	if e.State != EmployeeLeft || prev.State == EmployeeLeft {
		return nil
	}
	owned := []Clause{{Column: "owner", Op: Equal, Values: []Value{StringValue(e.ID.String())}}}
	var n Need
	for _, typ := range HandedOver() {
		n.Of = append(n.Of, Measure{Type: typ, Clauses: owned})
	}
	n.Refused = func(found map[string]int64) error {
		left := &LeftOverError{map[string]int{}}
		for typ, k := range found {
			if k > 0 {
				left.Records[typ] = int(k)
			}
		}
		return left
	}
	return []Need{n}
}

// Move takes the employee to another state at a time, or returns a *TransitionError.
func (e *Employee) Move(to EmployeeState, at time.Time) error {
	if err := EmployeeLifecycle().Check(e.State, to); err != nil {
		return err
	}
	switch {
	case to == EmployeeLeft:
		e.Left = at
	case to == EmployeeInvited:
		e.Left = time.Time{}
	case to == EmployeeActive && e.Joined.IsZero():
		e.Joined = at
	}
	e.State, e.UpdatedAt = to, at
	return nil
}

package org

import (
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// ID is that of an employee.
type ID = crm.ID[crm.Employee]

// CycleError is an employee who would be above themselves.
type CycleError struct {
	Employees []ID // each the superior of the one before, the first of the last
}

// Error says how long the cycle is.
func (e *CycleError) Error() string {
	return fmt.Sprintf("org: %d employees are above one another", len(e.Employees))
}

// Tree is who is whose superior. It does not change and is safe for concurrent use.
type Tree struct {
	employees map[ID]*crm.Employee // copies
	reports   map[ID][]ID          // in the order in which they were given; those of none are the tops
	loose     map[ID]bool          // who is in a cycle
	cycles    []*CycleError
}

// New makes the tree of employees that are not in the bin. Employees who are above one another as they are stored are told by [Tree.Cycles] and have nobody
// above: a mistake with two of them stops neither the others nor the work of putting it right. Errors are a *crm.InvalidError with the rule bad_reference for
// a superior who is not among them, or repeated for an employee who is there twice.
func New(employees []*crm.Employee) (*Tree, error) {
	t := &Tree{employees: map[ID]*crm.Employee{}, reports: map[ID][]ID{}, loose: map[ID]bool{}}
	v := crm.Checks{Type: crm.TypeEmployee}
	for _, e := range employees {
		if e.Deleted {
			continue
		}
		if _, twice := t.employees[e.ID]; twice {
			v.Add("id", "repeated")
			return nil, v.Err()
		}
		own := *e
		t.employees[e.ID] = &own
	}
	for _, e := range t.employees {
		if t.employees[e.Owner] == nil && !e.Owner.IsZero() {
			v.Add("owner", "bad_reference")
			return nil, v.Err()
		}
	}
	done := map[ID]bool{}
	for _, e := range employees {
		var path []ID
		for at := t.employees[e.ID]; at != nil && !done[at.ID]; at = t.employees[at.Owner] {
			if i := slices.Index(path, at.ID); i >= 0 {
				cycle := slices.Clone(path[i:])
				t.cycles = append(t.cycles, &CycleError{cycle})
				for _, id := range cycle {
					t.loose[id] = true
				}
				break
			}
			path = append(path, at.ID)
		}
		for _, id := range path {
			done[id] = true
		}
	}
	for _, e := range employees {
		if !e.Deleted {
			up := t.Superior(e.ID)
			t.reports[up] = append(t.reports[up], e.ID)
		}
	}
	return t, nil
}

// Cycles returns the cycles of which the stored employees have any, for somebody to put right: [Tree.Move] gives one of each another superior.
func (t *Tree) Cycles() []*CycleError { return slices.Clone(t.cycles) }

// Employee returns an employee as they were when the tree was made; ok is false for one who is not in it.
func (t *Tree) Employee(id ID) (e crm.Employee, ok bool) {
	if p := t.employees[id]; p != nil {
		return *p, true
	}
	return crm.Employee{}, false
}

// Superior returns who is directly above, or none.
func (t *Tree) Superior(id ID) ID {
	if e := t.employees[id]; e != nil && !t.loose[id] {
		return e.Owner
	}
	return ID{}
}

// Chain returns who is above, the direct superior first.
func (t *Tree) Chain(id ID) []ID {
	var chain []ID
	for up := t.Superior(id); !up.IsZero(); up = t.Superior(up) {
		chain = append(chain, up)
	}
	return chain
}

// Approver returns the n-th superior who works here, from 1 on, for who is away has nothing to approve; or none.
func (t *Tree) Approver(id ID, n int) ID {
	for _, up := range t.Chain(id) {
		if t.employees[up].Active() {
			if n--; n == 0 {
				return up
			}
		}
	}
	return ID{}
}

// Reports returns who is directly below; of none, who has no superior.
func (t *Tree) Reports(id ID) []ID { return slices.Clone(t.reports[id]) }

// Below returns everybody who is below, each after their superior.
func (t *Tree) Below(id ID) []ID {
	var list []ID
	for _, r := range t.reports[id] {
		list = append(append(list, r), t.Below(r)...)
	}
	return list
}

// Above tells whether a is above b, directly or not.
func (t *Tree) Above(a, b ID) bool { return !a.IsZero() && slices.Contains(t.Chain(b), a) }

// Position is where an employee works.
type Position struct {
	Superior ID       // none for who has nobody above
	Team     string   // path such as "/east/1/"
	Roles    []string // all that they have from now on: what is not here is gone at once
}

// Move takes an employee of the tree to another position at a time. Roles are those of the new position only. Errors are a *CycleError for a superior
// who is below them, and a *crm.InvalidError: bad_reference for a superior who does not work here or is the employee, and the rules of crm.Employee.
func (t *Tree) Move(e *crm.Employee, to Position, at time.Time) error {
	v := crm.Checks{Type: crm.TypeEmployee}
	if !to.Superior.IsZero() {
		if s := t.employees[to.Superior]; s == nil || !s.Active() || to.Superior == e.ID {
			v.Add("owner", "bad_reference")
			return v.Err()
		}
		if chain := t.Chain(to.Superior); slices.Contains(chain, e.ID) {
			return &CycleError{append([]ID{to.Superior}, chain[:slices.Index(chain, e.ID)+1]...)}
		}
	}
	next := *e
	next.Owner, next.Team, next.Roles, next.UpdatedAt = to.Superior, to.Team, slices.Clone(to.Roles), at
	if err := next.Validate(); err != nil {
		return err
	}
	*e = next
	return nil
}

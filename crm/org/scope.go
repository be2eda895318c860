package org

import "strings"

// Scope says whose records somebody sees.
type Scope string

// The scopes, each with the one before where that makes sense.
const (
	Own        Scope = "own"        // their own
	Reports    Scope = "reports"    // and those of everybody below
	Team       Scope = "team"       // those of their team
	TeamBelow  Scope = "team_below" // and of the teams below it
	Everything Scope = "all"
)

// Sees tells whether a scope shows a record of an owner and a team to a viewer of the tree who works here. A record without an owner is shown by
// its team only; an unknown scope shows nothing. It answers for menus and reports: what opens records is the policy of crm/guard.
func (t *Tree) Sees(viewer ID, s Scope, owner ID, team string) bool {
	e := t.employees[viewer]
	if e == nil || !e.Active() {
		return false
	}
	switch s {
	case Own:
		return owner == viewer
	case Reports:
		return owner == viewer || t.Above(viewer, owner)
	case Team:
		return e.Team != "" && team == e.Team
	case TeamBelow:
		return e.Team != "" && strings.HasPrefix(team, e.Team)
	case Everything:
		return true
	}
	return false
}

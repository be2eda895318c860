package review

import (
	"cmp"
	"maps"
	"slices"
)

// Assignment says that a subject holds a role.
type Assignment struct {
	Subject string
	Role    string
	Team    string // path of the subject's team, the same in all of their assignments
	Left    bool   // the subject has left or is suspended
}

// Kind is what has happened to a person.
type Kind string

// The kinds of change.
const (
	Joined  Kind = "joined"  // held nothing before
	Moved   Kind = "moved"   // is in another team
	Left    Kind = "left"    // has left, or holds nothing any more
	Changed Kind = "changed" // has other roles in the same team
)

// Change is what has changed for one person. Look at what they kept: a mover's old roles, and everything
// that a leaver still holds.
type Change struct {
	Subject  string
	Kind     Kind
	From, To string   // team before and after
	Gained   []string // roles
	Lost     []string
	Kept     []string
}

// Movers compares who held what with who holds what, and returns each person for whom something changed,
// by subject. A leaver who still holds a role is listed each time.
func Movers(before, after []Assignment) []Change {
	was, is := people(before), people(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var out []Change
	for _, id := range slices.Sorted(maps.Keys(all)) {
		b, a := was[id], is[id]
		c := Change{Subject: id, From: b.team, To: a.team}
		for _, role := range sorted(b.roles, a.roles) {
			switch {
			case !b.roles[role]:
				c.Gained = append(c.Gained, role)
			case !a.roles[role]:
				c.Lost = append(c.Lost, role)
			default:
				c.Kept = append(c.Kept, role)
			}
		}
		switch {
		case a.left || len(a.roles) == 0:
			c.Kind = Left
		case len(b.roles) == 0:
			c.Kind = Joined
		case b.team != a.team:
			c.Kind = Moved
		case len(c.Gained)+len(c.Lost) > 0 || b.left:
			c.Kind = Changed
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

// Conflict is a person who holds two roles that exclude each other.
type Conflict struct {
	Subject string
	Roles   [2]string
}

// Conflicts returns who holds both roles of a pair, by subject and in the order of the pairs. Run it before
// a role is given as well: with the assignment that is to be.
func Conflicts(assignments []Assignment, exclusive [][2]string) []Conflict {
	hold := people(assignments)
	var out []Conflict
	for _, id := range slices.Sorted(maps.Keys(hold)) {
		for _, pair := range exclusive {
			if pair[0] != pair[1] && hold[id].roles[pair[0]] && hold[id].roles[pair[1]] {
				out = append(out, Conflict{id, pair})
			}
		}
	}
	return out
}

type person struct {
	team  string
	left  bool
	roles map[string]bool
}

func people(assignments []Assignment) map[string]person {
	out := map[string]person{}
	for _, a := range assignments {
		p, ok := out[a.Subject]
		if !ok {
			p = person{team: a.Team, roles: map[string]bool{}}
		}
		p.team = cmp.Or(p.team, a.Team)
		p.left = p.left || a.Left
		if a.Role != "" {
			p.roles[a.Role] = true
		}
		out[a.Subject] = p
	}
	return out
}

func sorted(sets ...map[string]bool) []string {
	all := map[string]bool{}
	for _, s := range sets {
		maps.Copy(all, s)
	}
	return slices.Sorted(maps.Keys(all))
}

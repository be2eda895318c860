// Package tally gives numbers to those who may count records and see none of them, such as marketing: groups that are so small that
// they show a person are left out. It imports the standard library only.
//
// A count of what is left out can also follow from the total and the other groups. So as long as that is a single group, or fewer records than a group may
// have, the smallest of the others is left out with it, and the total counts only what is shown.
package tally

import "slices"

// Group is how many records have one key, and the sum of something of theirs.
type Group struct {
	Key   string
	Count int
	Sum   int64 // minor units or another whole number; not a mean, which would show the sum of one
}

// Report is what may be shown.
type Report struct {
	Groups []Group // in the order in which they were given
	Hidden int     // how many groups are left out
	Total  Group   // of Groups; its key is empty
}

// Safe leaves out groups of fewer than smallest records and what would give them away. Groups without records show nobody and stay. A smallest
// below 2 leaves nothing out.
func Safe(groups []Group, smallest int) Report {
	hide := make([]bool, len(groups))
	hidden, records := 0, 0
	for i, g := range groups {
		if g.Count > 0 && g.Count < smallest {
			hide[i] = true
			hidden++
			records += g.Count
		}
	}
	for hidden > 0 && (hidden == 1 || records < smallest) {
		next := -1
		for i, g := range groups {
			if !hide[i] && g.Count > 0 && (next < 0 || g.Count < groups[next].Count) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		hide[next] = true
		hidden++
		records += groups[next].Count
	}
	r := Report{Hidden: hidden}
	for i, g := range groups {
		if !hide[i] {
			r.Groups = append(r.Groups, g)
			r.Total.Count += g.Count
			r.Total.Sum += g.Sum
		}
	}
	r.Groups = slices.Clip(r.Groups)
	return r
}

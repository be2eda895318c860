package backup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy says which snapshots are kept, of each name apart: those that any of its fields wants, what they build on, and always the
// newest. Periods are of UTC, weeks begin on Monday. Of each period that has snapshots the last one is kept, for as many periods as
// the field says, going back from the newest; so a snapshot goes by what came after it and never by the clock. Which is newer, the
// numbers say.
type Policy struct {
	Last    int      // the newest ones
	Hourly  int      // the last of each hour, for so many hours that have one
	Daily   int      // likewise of each day
	Weekly  int      // and week
	Monthly int      // and month
	Yearly  int      // and year
	Minimum int      // fewest full snapshots that remain, with all that builds on them, as long as there are so many
	Hold    []string // ids of snapshots that are kept whatever happens
}

// Keep returns the ids of those of the snapshots that are kept, oldest first. It is a pure function of what [Repository.Snapshots]
// returns, for looking before pruning.
func (p Policy) Keep(all []Snapshot) []string {
	keep := map[string]bool{}
	byNumber := map[uint64]*Snapshot{}
	names := map[string][]*Snapshot{} // newest first
	for i := range all {
		byNumber[all[i].Head.Number] = &all[i]
		names[all[i].Name] = append(names[all[i].Name], &all[i])
		if slices.Contains(p.Hold, all[i].ID) {
			keep[all[i].ID] = true
		}
	}
	root := func(s *Snapshot) uint64 {
		for s.Parent > 0 && byNumber[s.Parent] != nil {
			s = byNumber[s.Parent]
		}
		return s.Head.Number
	}
	for _, list := range names {
		slices.SortStableFunc(list, func(a, b *Snapshot) int { return cmp.Compare(b.Head.Number, a.Head.Number) })
		for _, rule := range []struct {
			n      int
			period func(time.Time) string
		}{
			{p.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15") }},
			{p.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
			{p.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, " ", w) }},
			{p.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
			{p.Yearly, func(t time.Time) string { return t.Format("2006") }},
		} {
			periods := map[string]bool{}
			for _, s := range list {
				if at := rule.period(s.Created.UTC()); !periods[at] && len(periods) < rule.n {
					periods[at] = true
					keep[s.ID] = true
				}
			}
		}
		roots := map[uint64]bool{}
		for i, s := range list {
			if r := root(s); i < max(p.Last, 1) || roots[r] || len(roots) < p.Minimum {
				keep[s.ID] = true
				if len(roots) < p.Minimum {
					roots[r] = true
				}
			}
		}
	}
	for i := range all { // and what they build on
		if keep[all[i].ID] {
			for s := byNumber[all[i].Parent]; s != nil; s = byNumber[s.Parent] {
				keep[s.ID] = true
			}
		}
	}
	var ids []string
	for i := range all {
		if keep[all[i].ID] {
			ids = append(ids, all[i].ID)
		}
	}
	return ids
}

// valid refuses what would keep next to nothing by mistake.
func (p Policy) valid() error {
	sum := 0
	for _, n := range []int{p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly, p.Minimum} {
		if n < 0 {
			return errors.New("backup: a policy keeps a negative number of snapshots")
		}
		sum += min(n, 1)
	}
	if sum == 0 {
		return errors.New("backup: a policy that keeps nothing")
	}
	return nil
}

// Package policy has what operators decide about backups, as data: how snapshots build on each other ([Chain]), what is unusual
// ([Gate]), and what is kept ([Retention]). Package backup carries it out.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Chain lets a backup hold only what changed. A nil *Chain makes full snapshots.
type Chain struct {
	// Length is the most snapshots that build on a full one; after them comes a full one. 0 = 30.
	Length int
	// Age is that of the full one after which the next is full. 0 = 7 days.
	Age time.Duration
	// Differential builds on the full one and not on the newest, so that a restore reads two.
	Differential bool
	// Scan reads every row of a source that knows change numbers: after a restore of the source by
	// other means, for instance, when its numbers began anew.
	Scan bool
}

// MaxLength returns Length or its default.
func (c *Chain) MaxLength() int {
	if c.Length <= 0 {
		return 30
	}
	return c.Length
}

// MaxAge returns Age or its default.
func (c *Chain) MaxAge() time.Duration {
	if c.Age <= 0 {
		return 7 * 24 * time.Hour
	}
	return c.Age
}

// Gate says how much may change from one snapshot to the next of the same name. What is above it is an [Anomaly]: an attacker who
// encrypts or deletes rows, or a mistake. A nil *Gate finds nothing unusual.
type Gate struct {
	Changed float64 // share of the rows that a table had, above 0 to 1; 0 = 0.5
	Removed float64 // likewise of rows that are gone; 0 = 0.2
	Entropy float64 // rise of the size after compression through the size before, for 64 KiB of rows or more; 0 = 0.25
	Rows    int64   // of fewer rows than these in a table nothing is unusual; 0 = 100
}

// ErrAnomaly is what every Anomaly is.
var ErrAnomaly = errors.New("backup: unusual changes that nobody accepted")

// Anomaly is one thing that was unusual, as an error. It is ErrAnomaly.
type Anomaly struct {
	Table string  `json:"table"`
	Kind  string  `json:"kind"`  // changed, removed, entropy, or uncompared: the snapshot before could not be read
	Share float64 `json:"share"` // of the rows; the rise, for entropy
}

// Error says what is unusual.
func (a Anomaly) Error() string {
	if a.Table == "" {
		return fmt.Sprintf("%v: %s", ErrAnomaly, a.Kind)
	}
	return fmt.Sprintf("%v: table %s: %s %.2f", ErrAnomaly, a.Table, a.Kind, a.Share)
}

// Unwrap returns ErrAnomaly.
func (a Anomaly) Unwrap() error { return ErrAnomaly }

// Snapshot is what a retention needs to know of a snapshot.
type Snapshot struct {
	ID      string
	Name    string // of the source
	Number  uint64
	Parent  uint64 // the number of the one that it builds on; 0 = it is full
	Created time.Time
}

// Retention says which snapshots are kept, of each name apart: those that any of its fields wants, what they build on, and always the
// newest. Periods are of UTC, weeks begin on Monday. Of each period that has snapshots the last one is kept, for as many periods as
// the field says, going back from the newest; so a snapshot goes by what came after it and never by the clock. Which is newer, the
// numbers say.
type Retention struct {
	Last    int      // the newest ones
	Hourly  int      // the last of each hour, for so many hours that have one
	Daily   int      // likewise of each day
	Weekly  int      // and week
	Monthly int      // and month
	Yearly  int      // and year
	Minimum int      // fewest full snapshots that remain, with all that builds on them, as long as there are so many
	Hold    []string // ids of snapshots that are kept whatever happens
}

// Keep returns the ids of those of the snapshots that are kept, in the order in which they are given.
func (p Retention) Keep(all []Snapshot) []string {
	keep := map[string]bool{}
	byNumber := map[uint64]*Snapshot{}
	names := map[string][]*Snapshot{} // newest first
	for i := range all {
		byNumber[all[i].Number] = &all[i]
		names[all[i].Name] = append(names[all[i].Name], &all[i])
		if slices.Contains(p.Hold, all[i].ID) {
			keep[all[i].ID] = true
		}
	}
	root := func(s *Snapshot) uint64 {
		for s.Parent > 0 && byNumber[s.Parent] != nil {
			s = byNumber[s.Parent]
		}
		return s.Number
	}
	for _, list := range names {
		slices.SortStableFunc(list, func(a, b *Snapshot) int { return cmp.Compare(b.Number, a.Number) })
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

// Valid refuses negative numbers, and a retention that would keep next to nothing by mistake: some number must be set.
func (p Retention) Valid() error {
	sum := 0
	for _, n := range []int{p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly, p.Minimum} {
		if n < 0 {
			return errors.New("policy: a retention keeps a negative number of snapshots")
		}
		sum += min(n, 1)
	}
	if sum == 0 {
		return errors.New("policy: a retention that keeps nothing")
	}
	return nil
}

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
	Partial bool // it is only there to be built on, and kept for nothing else
}

// Retention says which snapshots are kept, of each name apart: those that any of its fields wants, what they build on, and always the
// newest. Periods are of UTC, weeks begin on Monday. Of each period that has snapshots the first one is kept, for as many periods as
// the field says, going back from the newest; so a snapshot goes by what came after it and never by the clock, and what
// it is kept for is known when it is made (see Until). Which is newer, the numbers say.
type Retention struct {
	Last    int           // the newest ones
	Within  time.Duration // those that are so much older than the newest, or less
	Hourly  int           // the first of each hour, for so many hours that have one
	Daily   int           // likewise of each day
	Weekly  int           // and week
	Monthly int           // and month
	Yearly  int           // and year
	Minimum int           // fewest full snapshots that remain, with all that builds on them, as long as there are so many
	Hold    []string      // ids of snapshots that are kept whatever happens
}

// tier is one kind of period of a retention.
type tier struct {
	n     int
	start func(time.Time) time.Time // of the period that a time lies in
	later func(start time.Time, n int) time.Time
}

func (p Retention) tiers() []tier {
	day := func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC) }
	return []tier{
		{p.Hourly, func(t time.Time) time.Time { return t.Truncate(time.Hour) },
			func(t time.Time, n int) time.Time { return t.Add(time.Duration(n) * time.Hour) }},
		{p.Daily, day, func(t time.Time, n int) time.Time { return t.AddDate(0, 0, n) }},
		{p.Weekly, func(t time.Time) time.Time { return day(t).AddDate(0, 0, -(int(t.Weekday())+6)%7) },
			func(t time.Time, n int) time.Time { return t.AddDate(0, 0, 7*n) }},
		{p.Monthly, func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC) },
			func(t time.Time, n int) time.Time { return t.AddDate(0, n, 0) }},
		{p.Yearly, func(t time.Time) time.Time { return time.Date(t.Year(), 1, 1, 0, 0, 0, 0, time.UTC) },
			func(t time.Time, n int) time.Time { return t.AddDate(n, 0, 0) }},
	}
}

// Until returns how long a snapshot that is made of a name now will be kept at the least, when one is made in every period: until
// then it may be locked. It is the end of the longest of the periods that it is the first of, and of Within; Last, Minimum and Hold
// promise no time. The zero time = nothing is promised. all are the snapshots that are there.
func (p Retention) Until(now time.Time, name string, all []Snapshot) (until time.Time) {
	now = now.UTC()
	if p.Within > 0 {
		until = now.Add(p.Within)
	}
	for _, r := range p.tiers() {
		start := r.start(now)
		first := !slices.ContainsFunc(all, func(s Snapshot) bool { return s.Name == name && r.start(s.Created.UTC()).Equal(start) })
		if end := r.later(start, r.n); r.n > 0 && first && end.After(until) {
			until = end
		}
	}
	return until
}

// Keep returns the ids of those of the snapshots that are kept, in the order in which they are given.
func (p Retention) Keep(all []Snapshot) []string {
	keep := map[string]bool{}
	byNumber := map[uint64]*Snapshot{}
	names := map[string][]*Snapshot{} // newest first
	for i := range all {
		byNumber[all[i].Number] = &all[i]
		if !all[i].Partial {
			names[all[i].Name] = append(names[all[i].Name], &all[i])
		}
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
		for _, r := range p.tiers() {
			var starts []time.Time
			first := map[time.Time]string{}
			for _, s := range list {
				start := r.start(s.Created.UTC())
				if _, ok := first[start]; !ok {
					starts = append(starts, start)
				}
				first[start] = s.ID
			}
			for i, start := range starts {
				if i < r.n {
					keep[first[start]] = true
				}
			}
		}
		roots := map[uint64]bool{}
		for i, s := range list {
			if r := root(s); i < max(p.Last, 1) || roots[r] || len(roots) < p.Minimum || p.Within > 0 && list[0].Created.Sub(s.Created) <= p.Within {
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
	if p.Within < 0 {
		return errors.New("policy: a retention keeps a negative time")
	}
	if p.Within > 0 {
		sum = 1
	}
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

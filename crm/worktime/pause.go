package worktime

import (
	"slices"
	"time"
)

// Pause is a time in which nothing counts. The zero To is a pause that lasts. One that ends before it begins is none; pauses may overlap.
type Pause struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

// merge sorts pauses and joins those that touch.
func merge(pauses []Pause) []Pause {
	var list []Pause
	for _, p := range slices.SortedFunc(slices.Values(pauses), func(a, b Pause) int { return a.From.Compare(b.From) }) {
		if !p.To.IsZero() && !p.To.After(p.From) {
			continue
		}
		if n := len(list); n > 0 && (list[n-1].To.IsZero() || !p.From.After(list[n-1].To)) {
			if last := &list[n-1]; p.To.IsZero() || !last.To.IsZero() && p.To.After(last.To) {
				last.To = p.To
			}
			continue
		}
		list = append(list, p)
	}
	return list
}

// Worked returns how much work is done from a to b outside the pauses; nothing when b is before a.
func (c *Calendar) Worked(a, b time.Time, pauses ...Pause) time.Duration {
	if b.Before(a) {
		return 0
	}
	sum := c.Between(a, b)
	for _, p := range merge(pauses) {
		from, to := p.From, p.To
		if from.Before(a) {
			from = a
		}
		if to.IsZero() || to.After(b) {
			to = b
		}
		if from.Before(to) {
			sum -= c.Between(from, to)
		}
	}
	return sum
}

// Due returns the moment at which an amount of work from t on is done outside the pauses. ok is false while a pause lasts before that moment: then
// nobody knows it. Errors are those of Add.
func (c *Calendar) Due(t time.Time, work time.Duration, pauses ...Pause) (due time.Time, ok bool, err error) {
	if work < 0 {
		return time.Time{}, false, ErrNegative
	}
	for _, p := range merge(pauses) {
		if !p.To.IsZero() && !p.To.After(t) {
			continue
		}
		if p.From.After(t) {
			has := c.Between(t, p.From)
			if work <= has {
				break
			}
			work -= has
		}
		if p.To.IsZero() {
			return time.Time{}, false, nil
		}
		t = p.To
	}
	due, err = c.Add(t, work)
	return due, err == nil, err
}

package worktime

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Errors of this package.
var (
	ErrDefinition = errors.New("worktime: not a calendar")
	ErrNever      = errors.New("worktime: the calendar has not so much working time")
	ErrNegative   = errors.New("worktime: negative working time")
)

// horizon bounds in days how far a search for working time goes.
const horizon = 3660

// Definition is a calendar as data: see the package's documentation.
type Definition struct {
	Zone string            `json:"zone"` // IANA name; "": UTC
	Week map[string]string `json:"week"` // mon, tue, wed, thu, fri, sat, sun to hours
	Days map[string]string `json:"days"` // dates as 2006-01-02 to hours
}

var weekdays = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// span is a part of a day, in minutes of the wall clock.
type span struct{ from, to int }

// Calendar knows when work is done. It never changes and is safe for concurrent use.
type Calendar struct {
	zone *time.Location
	week [7][]span
	days map[string][]span
}

// Compile checks a definition and makes its calendar. Errors wrap ErrDefinition and name the part.
func (d Definition) Compile() (*Calendar, error) {
	zone, err := time.LoadLocation(d.Zone)
	if err != nil || d.Zone == "Local" { // what Local is depends on the machine
		return nil, fmt.Errorf("%w: zone", ErrDefinition)
	}
	c := &Calendar{zone: zone, days: make(map[string][]span, len(d.Days))}
	for name, hours := range d.Week {
		i := slices.Index(weekdays[:], name)
		if i < 0 {
			return nil, fmt.Errorf("%w: a day of the week", ErrDefinition)
		}
		if c.week[i], err = parse(hours); err != nil {
			return nil, fmt.Errorf("%w: %s", err, name)
		}
	}
	for date, hours := range d.Days {
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			return nil, fmt.Errorf("%w: a date", ErrDefinition)
		}
		if c.days[date], err = parse(hours); err != nil {
			return nil, fmt.Errorf("%w: %s", err, date)
		}
	}
	return c, nil
}

// parse reads the hours of a day.
func parse(hours string) ([]span, error) {
	var list []span
	for word := range strings.FieldsSeq(hours) {
		from, to, ok := strings.Cut(word, "-")
		a, ok1 := minute(from)
		b, ok2 := minute(to)
		if !ok || !ok1 || !ok2 || a >= b || len(list) > 0 && a < list[len(list)-1].to {
			return nil, ErrDefinition
		}
		list = append(list, span{a, b})
	}
	return list, nil
}

// minute reads HH:MM up to 24:00.
func minute(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	return h*60 + m, m < 60 && h*60+m <= 24*60
}

// day is a date of the calendar's zone.
type day struct {
	y int
	m time.Month
	d int
}

func (c *Calendar) dayOf(t time.Time) day {
	y, m, d := t.In(c.zone).Date()
	return day{y, m, d}
}

// next returns the date n days later.
func (x day) next(n int) day {
	y, m, d := time.Date(x.y, x.m, x.d+n, 12, 0, 0, 0, time.UTC).Date()
	return day{y, m, d}
}

// spans returns the hours of a date.
func (c *Calendar) spans(x day) []span {
	t := time.Date(x.y, x.m, x.d, 12, 0, 0, 0, time.UTC)
	if list, ok := c.days[t.Format(time.DateOnly)]; ok {
		return list
	}
	return c.week[t.Weekday()]
}

// moment returns when the wall clock shows a minute of a date.
func (c *Calendar) moment(x day, minutes int) time.Time {
	t := time.Date(x.y, x.m, x.d, 0, minutes, 0, 0, c.zone)
	wall := time.Date(x.y, x.m, x.d, 0, minutes, 0, 0, time.UTC)
	_, offset := t.Zone()
	shown := t.Add(time.Duration(offset) * time.Second).UTC()
	start, end := t.ZoneBounds()
	switch {
	case shown.After(wall): // skipped, and t is behind the change
		return start
	case shown.Before(wall): // skipped, and t is before it
		return end
	case !start.IsZero():
		_, before := start.Add(-1).Zone()
		if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(start) {
			return first // occurs twice
		}
	}
	return t
}

// each calls f with the working spans of the dates from that of t on, ascending, for at most so many days, until f returns false.
func (c *Calendar) each(t time.Time, days int, f func(from, to time.Time) bool) {
	x := c.dayOf(t)
	for i := range days {
		on := x.next(i)
		for _, s := range c.spans(on) {
			if from, to := c.moment(on, s.from), c.moment(on, s.to); from.Before(to) && !f(from, to) {
				return
			}
		}
	}
}

// Working tells whether work is done at a moment; the last moment of a span is no longer in it.
func (c *Calendar) Working(t time.Time) bool {
	in := false
	c.each(t, 1, func(from, to time.Time) bool {
		in = !t.Before(from) && t.Before(to)
		return !in
	})
	return in
}

// Add returns the moment at which an amount of work from t on is done: at the end of a span rather than at the start of the
// next. Add of nothing is t, or the next moment of work. Errors are ErrNegative and ErrNever.
func (c *Calendar) Add(t time.Time, work time.Duration) (time.Time, error) {
	if work < 0 {
		return time.Time{}, ErrNegative
	}
	var done time.Time
	c.each(t, horizon, func(from, to time.Time) bool {
		if !to.After(t) {
			return true
		}
		if from.Before(t) {
			from = t
		}
		if has := to.Sub(from); work > has {
			work -= has
			return true
		}
		done = from.Add(work)
		return false
	})
	if done.IsZero() {
		return time.Time{}, ErrNever
	}
	return done, nil
}

// Between returns how much work is done from a to b; it is negative when b is before a.
func (c *Calendar) Between(a, b time.Time) time.Duration {
	if b.Before(a) {
		return -c.Between(b, a)
	}
	var sum time.Duration
	days := int(b.Unix()/86400-a.Unix()/86400) + 3 // zones move a date by one at most
	c.each(a, days, func(from, to time.Time) bool {
		if !from.Before(b) {
			return false
		}
		if from.Before(a) {
			from = a
		}
		if to.After(b) {
			to = b
		}
		if to.After(from) {
			sum += to.Sub(from)
		}
		return true
	})
	return sum
}

// AddDays returns the end of work on the n-th working day after the date of t, in the calendar's zone, for terms that count days; the date of
// t itself does not count. n below 1 is ErrNegative, too few working days are ErrNever.
func (c *Calendar) AddDays(t time.Time, n int) (time.Time, error) {
	if n < 1 {
		return time.Time{}, ErrNegative
	}
	x := c.dayOf(t)
	for i := 1; i <= horizon; i++ {
		on := x.next(i)
		spans := c.spans(on)
		if len(spans) == 0 {
			continue
		}
		if n--; n == 0 {
			return c.moment(on, spans[len(spans)-1].to), nil
		}
	}
	return time.Time{}, ErrNever
}

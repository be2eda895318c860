package worktime_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm/worktime"
)

// office is the calendar of the vectors: a Chinese office around the national holiday of 2026, seven days off, and a Saturday that is worked
// instead.
func office(t testing.TB) *worktime.Calendar {
	t.Helper()
	return compile(t, read(t).Calendar)
}

func compile(t testing.TB, d worktime.Definition) *worktime.Calendar {
	t.Helper()
	c, err := d.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// at reads a wall time of a zone.
func at(t testing.TB, zone, s string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	m, err := time.ParseInLocation("2006-01-02 15:04", s, loc)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// vectors are what testdata/vectors.json holds, for implementations in any language: on its calendar, so many seconds of work from a moment on
// are done at another, with pauses or without. A case without due is one that a pause leaves open.
type vectors struct {
	Calendar worktime.Definition
	Add      []struct {
		From, To time.Time
		Seconds  int64
	}
	Due []struct {
		From, Due time.Time
		Seconds   int64
		Pauses    []worktime.Pause
	}
}

func read(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Add) < 15 || len(v.Due) < 10 {
		t.Fatalf("%d and %d vectors", len(v.Add), len(v.Due))
	}
	return v
}

func TestVectors(t *testing.T) {
	list := read(t)
	c := office(t)
	sh := func(s string) time.Time { return at(t, "Asia/Shanghai", s) }
	for _, v := range list.Add {
		work := time.Duration(v.Seconds) * time.Second
		got, err := c.Add(v.From, work)
		if err != nil || !got.Equal(v.To) {
			t.Errorf("%v and %v: %v, %v", v.From, work, got, err)
		}
		if back := c.Between(v.From, v.To); back != work {
			t.Errorf("%v to %v: %v, want %v", v.From, v.To, back, work)
		}
		if back := c.Between(v.To, v.From); back != -work {
			t.Errorf("%v to %v: %v", v.To, v.From, back)
		}
	}
	for _, v := range list.Due {
		work := time.Duration(v.Seconds) * time.Second
		due, ok, err := c.Due(v.From, work, v.Pauses...)
		if err != nil || ok == v.Due.IsZero() || ok && !due.Equal(v.Due) {
			t.Errorf("%v, %v, %v: %v, %v, %v", v.From, work, v.Pauses, due, ok, err)
		}
		if ok {
			if got := c.Worked(v.From, due, v.Pauses...); got != work {
				t.Errorf("%v, %v: worked %v of %v", v.From, v.Pauses, got, work)
			}
		}
	}
	for s, want := range map[string]bool{
		"2026-09-28 09:00": true, "2026-09-28 12:00": false, "2026-09-28 17:59": true, "2026-09-28 18:00": false,
		"2026-10-01 10:00": false, "2026-10-10 12:30": true, "2026-10-03 10:00": false,
	} {
		if got := c.Working(sh(s)); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	for _, v := range []struct {
		from string
		n    int
		want string
	}{{"2026-09-29 23:00", 1, "2026-09-30 18:00"}, {"2026-09-29 00:00", 2, "2026-10-08 18:00"}, {"2026-09-29 00:00", 4, "2026-10-10 18:00"}} {
		if got, err := c.AddDays(sh(v.from), v.n); err != nil || !got.Equal(sh(v.want)) {
			t.Errorf("%s and %d days: %v, %v", v.from, v.n, got, err)
		}
	}
}

// TestClocksChange: work is elapsed time. In New York the clock goes from 02:00 to 03:00 on 8 March 2026 and from 02:00 to 01:00 on 1 November.
func TestClocksChange(t *testing.T) {
	const zone = "America/New_York"
	utc := func(s string) time.Time { return at(t, "UTC", s) }
	for _, v := range []struct {
		hours string
		date  string
		from  string // UTC
		to    string
		work  time.Duration
	}{
		{"01:00-05:00", "2026-03-08", "2026-03-08 06:00", "2026-03-08 09:00", 3 * time.Hour},
		{"02:30-05:00", "2026-03-08", "2026-03-08 07:00", "2026-03-08 09:00", 2 * time.Hour}, // 02:30 is skipped: the moment of the change
		{"01:00-02:30", "2026-03-08", "2026-03-08 06:00", "2026-03-08 07:00", time.Hour},
		{"02:10-02:50", "2026-03-08", "", "", 0}, // all of it is skipped
		{"00:00-24:00", "2026-03-08", "2026-03-08 05:00", "2026-03-09 04:00", 23 * time.Hour},
		{"00:00-05:00", "2026-11-01", "2026-11-01 04:00", "2026-11-01 10:00", 6 * time.Hour},
		{"01:30-05:00", "2026-11-01", "2026-11-01 05:30", "2026-11-01 10:00", 4*time.Hour + 30*time.Minute}, // the first 01:30
		{"00:00-01:30", "2026-11-01", "2026-11-01 04:00", "2026-11-01 05:30", 90 * time.Minute},
		{"00:00-24:00", "2026-11-01", "2026-11-01 04:00", "2026-11-02 05:00", 25 * time.Hour},
	} {
		c := compile(t, worktime.Definition{Zone: zone, Days: map[string]string{v.date: v.hours}})
		noon := at(t, zone, v.date+" 12:00")
		if got := c.Between(noon.AddDate(0, 0, -2), noon.AddDate(0, 0, 2)); got != v.work {
			t.Errorf("%s on %s: %v", v.hours, v.date, got)
		}
		if v.work == 0 {
			continue
		}
		first, err1 := c.Add(noon.AddDate(0, 0, -1), 0)
		last, err2 := c.Add(noon.AddDate(0, 0, -1), v.work)
		if err1 != nil || err2 != nil || !first.Equal(utc(v.from)) || !last.Equal(utc(v.to)) {
			t.Errorf("%s on %s: %v to %v, %v, %v", v.hours, v.date, first.UTC(), last.UTC(), err1, err2)
		}
	}
	// A day that its zone never had: Samoa went from 29 to 31 December 2011.
	c := compile(t, worktime.Definition{Zone: "Pacific/Apia", Week: map[string]string{"thu": "09:00-17:00", "fri": "09:00-17:00", "sat": "09:00-17:00"}})
	if got := c.Between(at(t, "Pacific/Apia", "2011-12-29 00:00"), at(t, "Pacific/Apia", "2012-01-01 00:00")); got != 16*time.Hour {
		t.Errorf("a day that was skipped: %v", got)
	}
}

func TestPauses(t *testing.T) {
	c := office(t)
	sh := func(s string) time.Time { return at(t, "Asia/Shanghai", s) }
	pause := func(from, to string) worktime.Pause {
		p := worktime.Pause{From: sh(from)}
		if to != "" {
			p.To = sh(to)
		}
		return p
	}
	if got := c.Worked(sh("2026-09-28 09:00"), sh("2026-09-28 12:00"), pause("2026-09-28 10:00", "")); got != time.Hour {
		t.Errorf("a pause that lasts: %v", got)
	}
	if got := c.Worked(sh("2026-09-28 12:00"), sh("2026-09-28 09:00")); got != 0 {
		t.Errorf("backwards: %v", got)
	}
}

func TestRefusals(t *testing.T) {
	for what, d := range map[string]worktime.Definition{
		"zone":        {Zone: "Nowhere/Town"},
		"local zone":  {Zone: "Local"},
		"weekday":     {Week: map[string]string{"monday": "09:00-10:00"}},
		"date":        {Days: map[string]string{"2026-02-30": ""}},
		"order":       {Week: map[string]string{"mon": "10:00-09:00"}},
		"empty":       {Week: map[string]string{"mon": "10:00-10:00"}},
		"overlap":     {Week: map[string]string{"mon": "09:00-12:00 11:00-13:00"}},
		"past 24:00":  {Week: map[string]string{"mon": "09:00-24:01"}},
		"minutes":     {Week: map[string]string{"mon": "09:60-10:00"}},
		"no dash":     {Week: map[string]string{"mon": "09:00"}},
		"short":       {Week: map[string]string{"mon": "9:00-10:00"}},
		"other marks": {Days: map[string]string{"2026-01-01": "09:00–10:00"}},
	} {
		if c, err := d.Compile(); !errors.Is(err, worktime.ErrDefinition) || c != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	never := compile(t, worktime.Definition{Days: map[string]string{"2026-01-05": "09:00-10:00"}})
	start := at(t, "UTC", "2026-01-01 00:00")
	for what, err := range map[string]error{
		"too much":  second(never.Add(start, time.Hour+1)),
		"days":      second(never.AddDays(start, 2)),
		"after it":  second(never.Add(start.AddDate(0, 1, 0), 0)),
		"in a term": third(never.Due(start, 2*time.Hour)),
	} {
		if !errors.Is(err, worktime.ErrNever) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"work": second(never.Add(start, -1)), "days": second(never.AddDays(start, 0)), "term": third(never.Due(start, -1)),
	} {
		if !errors.Is(err, worktime.ErrNegative) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := never.Add(start, time.Hour); err != nil || !got.Equal(at(t, "UTC", "2026-01-05 10:00")) {
		t.Errorf("all there is: %v, %v", got, err)
	}
}

func second[T any](_ T, err error) error      { return err }
func third[T, U any](_ T, _ U, e error) error { return e }

// TestAddAndBetween: they undo each other in every zone, also where the clocks change.
func TestAddAndBetween(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, zone := range []string{"UTC", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"} {
		c := compile(t, worktime.Definition{Zone: zone, Week: map[string]string{
			"mon": "00:00-03:00 09:00-17:00", "wed": "22:00-24:00", "thu": "00:00-06:00", "sat": "01:30-02:30", "sun": "00:00-24:00",
		}})
		for range 500 {
			a := time.Date(2026, 1, 1, 0, random.IntN(600_000), random.IntN(60), 0, time.UTC)
			work := time.Duration(random.Int64N(int64(100 * time.Hour)))
			b, err := c.Add(a, work)
			if err != nil || c.Between(a, b) != work || b.Before(a) {
				t.Fatalf("%s: %v and %v: %v, %v", zone, a, work, b, err)
			}
			middle := a.Add(b.Sub(a) / 2)
			if c.Between(a, middle)+c.Between(middle, b) != work {
				t.Fatalf("%s: %v, %v, %v do not add up", zone, a, middle, b)
			}
			p := worktime.Pause{From: middle, To: middle.Add(time.Duration(random.Int64N(int64(200 * time.Hour))))}
			due, ok, err := c.Due(a, work, p)
			if err != nil || !ok || c.Worked(a, due, p) != work || due.Before(b) {
				t.Fatalf("%s: %v and %v with %v: %v, %v", zone, a, work, p, due, err)
			}
		}
	}
}

// FuzzCompile: what is accepted computes without a panic, and Between never says more than what has passed.
func FuzzCompile(f *testing.F) {
	f.Add(`{"zone":"Asia/Shanghai","week":{"mon":"09:00-12:00 13:00-18:00"},"days":{"2026-10-01":""}}`)
	f.Add(`{"zone":"America/New_York","week":{"sun":"00:00-24:00"}}`)
	f.Add(`{"week":{"mon":"24:00-24:00"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var d worktime.Definition
		if json.Unmarshal([]byte(text), &d) != nil {
			return
		}
		c, err := d.Compile()
		if err != nil {
			if !errors.Is(err, worktime.ErrDefinition) || strings.Contains(err.Error(), "\n") {
				t.Fatal(err)
			}
			return
		}
		a := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		b := a.AddDate(0, 0, 20)
		if got := c.Between(a, b); got < 0 || got > b.Sub(a) {
			t.Fatalf("%q: %v", text, got)
		}
	})
}

func Example() {
	c, err := worktime.Definition{
		Zone: "Asia/Shanghai",
		Week: map[string]string{"mon": "09:00-18:00", "tue": "09:00-18:00", "wed": "09:00-18:00", "thu": "09:00-18:00", "fri": "09:00-18:00"},
		Days: map[string]string{"2026-10-01": "", "2026-10-02": ""},
	}.Compile()
	if err != nil {
		panic(err)
	}
	zone := time.FixedZone("", 8*3600)
	opened := time.Date(2026, 9, 30, 17, 0, 0, 0, zone)
	due, known, err := c.Due(opened, 4*time.Hour, worktime.Pause{From: opened.Add(30 * time.Minute), To: opened.Add(5 * 24 * time.Hour)})
	fmt.Println(due.In(zone).Format("Mon 2 Jan 15:04"), known, err)
	// Output: Tue 6 Oct 11:30 true <nil>
}

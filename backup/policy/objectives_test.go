package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
)

func TestSchedule(t *testing.T) {
	s := policy.Schedule{Every: time.Hour}
	for i := range 200 {
		last := epoch.Add(time.Duration(i) * 977 * time.Second)
		next := s.Next("a", last)
		if d := next.Sub(last); d < time.Hour || d >= time.Hour+6*time.Minute {
			t.Fatalf("the next is due after %v", d)
		}
		if !next.Equal(s.Next("a", last)) {
			t.Fatal("drawn again")
		}
	}
	if s.Next("a", epoch).Equal(s.Next("b", epoch)) {
		t.Error("all begin at once")
	}
	if !s.Next("a", time.Time{}).IsZero() {
		t.Error("the first is not due at once")
	}
	if got := (policy.Schedule{Every: time.Hour, Jitter: -1}).Next("a", epoch); !got.Equal(epoch.Add(time.Hour)) {
		t.Error(got)
	}
	if got := (policy.Schedule{}).Next("a", epoch).Sub(epoch); got < 24*time.Hour || got > 27*time.Hour {
		t.Error(got)
	}
	for after, want := range map[time.Duration]int{0: 0, 65 * time.Minute: 0, 67 * time.Minute: 1, 185 * time.Minute: 2, 187 * time.Minute: 3, -time.Hour: 0} {
		if got := s.Missed(epoch, epoch.Add(after)); got != want {
			t.Errorf("%v after the last: %d missed, want %d", after, got, want)
		}
	}
	if s.Missed(time.Time{}, epoch) != 0 {
		t.Error("missed before the first")
	}
}

// TestObjectives: facts are held against objectives: recovery point and time, drills, lag, copies, media, off-site and locked ones.
//
//crm:item 37
func TestObjectives(t *testing.T) {
	o := policy.Objectives{RPO: 2 * time.Hour, RTO: time.Minute, Verify: 24 * time.Hour, Drill: 7 * 24 * time.Hour, Lag: time.Hour,
		Copies: 3, Media: 2, OffSite: 1, Locked: 1}
	good := func() policy.Facts {
		return policy.Facts{Now: epoch, Newest: epoch.Add(-time.Hour), Verified: epoch.Add(-time.Hour), Drilled: epoch.Add(-time.Hour), DrillOK: true,
			DrillTook: time.Second, Medium: "disk", Places: []policy.Place{{Name: "here", Medium: "disk"}, {Name: "there", Medium: "s3", OffSite: true, Locks: true}}}
	}
	for name, c := range map[string]struct {
		change func(*policy.Facts)
		want   string
	}{
		"all is well":          {func(*policy.Facts) {}, ""},
		"old":                  {func(f *policy.Facts) { f.Newest = epoch.Add(-3 * time.Hour) }, "rpo"},
		"no backup":            {func(f *policy.Facts) { f.Newest = time.Time{} }, "rpo copies media off-site locked"},
		"from the future":      {func(f *policy.Facts) { f.Newest = epoch.Add(48 * time.Hour) }, "rpo"},
		"not verified":         {func(f *policy.Facts) { f.Verified = time.Time{} }, "verify"},
		"no drill":             {func(f *policy.Facts) { f.Drilled, f.DrillOK, f.DrillTook = time.Time{}, false, 0 }, "drill rto"},
		"a red drill":          {func(f *policy.Facts) { f.DrillOK = false }, "drill rto"},
		"an old drill":         {func(f *policy.Facts) { f.Drilled = epoch.AddDate(0, 0, -8) }, "drill"},
		"slow":                 {func(f *policy.Facts) { f.DrillTook = time.Hour }, "rto"},
		"behind":               {func(f *policy.Facts) { f.Places[1].Behind = epoch.Add(-90 * time.Minute) }, "lag"},
		"far behind":           {func(f *policy.Facts) { f.Places[1].Behind = epoch.Add(-3 * time.Hour) }, "lag copies media off-site locked"},
		"a little behind":      {func(f *policy.Facts) { f.Places[1].Behind = epoch.Add(-time.Minute) }, ""},
		"not to be asked":      {func(f *policy.Facts) { f.Places[1].Fault = "down" }, "lag copies media off-site locked"},
		"one house":            {func(f *policy.Facts) { f.Places[1].OffSite = false }, "off-site"},
		"one medium":           {func(f *policy.Facts) { f.Places[1].Medium = "disk" }, "media"},
		"anybody can delete":   {func(f *policy.Facts) { f.Places[1].Locks = false }, "locked"},
		"anomalies and damage": {func(f *policy.Facts) { f.Anomalies, f.Unreadable = 1, 2 }, "anomalies damage"},
	} {
		f := good()
		c.change(&f)
		var missed []string
		for _, x := range o.Check(f) {
			if !x.Met {
				missed = append(missed, x.Rule)
			}
			if x.Want == "" || x.Have == "" {
				t.Errorf("%s: %+v", name, x)
			}
		}
		want := map[string]bool{}
		for _, w := range strings.Fields(c.want) {
			want[w] = true
		}
		got := map[string]bool{}
		for _, m := range missed {
			got[m] = true
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: misses %v, want %q", name, missed, c.want)
		}
	}
	if got := (policy.Objectives{}).Check(good()); len(got) != 0 {
		t.Errorf("no objectives: %v", got)
	}
}

const plan = `{
  "schedule": {"every": "1h", "jitter": "5m"},
  "chain": {"length": 24, "age": "7d"},
  "gate": {"changed": 0.4},
  "retention": {"last": 3, "within": "2d", "daily": 7, "weekly": 5, "monthly": 12},
  "lock": true,
  "objectives": {"rpo": "2h", "rto": "30m", "verify": "1d", "drill": "1w", "lag": "6h", "copies": 3, "media": 2, "off_site": 1, "locked": 1}
}`

func TestParse(t *testing.T) {
	p, err := policy.Parse([]byte(plan))
	if err != nil {
		t.Fatal(err)
	}
	if p.Schedule.Every != time.Hour || p.Chain.Age != 7*24*time.Hour || p.Retention.Within != 48*time.Hour || p.Objectives.Drill != 7*24*time.Hour ||
		!p.Lock || p.Gate.Changed != 0.4 || p.Retention.Monthly != 12 || p.Objectives.OffSite != 1 {
		t.Errorf("%+v", p)
	}
	for name, change := range map[string][2]string{
		"an unknown field":       {`"lock"`, `"lok"`},
		"a number for a time":    {`"1h"`, `3600`},
		"no unit":                {`"1h"`, `"1"`},
		"a negative time":        {`"rto": "30m"`, `"rto": "-30m"`},
		"a negative number":      {`"copies": 3`, `"copies": -3`},
		"a share above 1":        {`0.4`, `40`},
		"an objective too short": {`"rpo": "2h"`, `"rpo": "30m"`},
		"nothing kept":           {`{"last": 3, "within": "2d", "daily": 7, "weekly": 5, "monthly": 12}`, `{}`},
		"nothing to lock for":    {`{"last": 3, "within": "2d", "daily": 7, "weekly": 5, "monthly": 12}`, `{"last": 3}`},
		"something behind it":    {"\n}", "\n}{}"},
		"a time without end":     {`"7d"`, `"99999999d"`},
		"a negative chain":       {`"length": 24`, `"length": -1`},
	} {
		text := strings.Replace(plan, change[0], change[1], 1)
		if text == plan {
			t.Fatal(name)
		}
		if _, err := policy.Parse([]byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(plan))
	f.Add([]byte(`{"retention": {"last": 1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policy.Parse(b)
		if err == nil && p.Valid() != nil {
			t.Error("a plan that is not valid was read")
		}
	})
}

func ExampleParse() {
	p, err := policy.Parse([]byte(`{"schedule": {"every": "6h"}, "retention": {"daily": 7, "monthly": 12}, "objectives": {"rpo": "12h", "copies": 2}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, f := range p.Objectives.Check(policy.Facts{Now: now, Newest: now.Add(-20 * time.Hour)}) {
		fmt.Println(f.Rule, f.Met, f.Want, f.Have)
	}
	fmt.Println(p.Retention.Until(now, "crm", nil))
	// Output:
	// rpo false at most 12h0m0s ago 20h0m0s ago
	// copies false 2 1
	// 2027-03-01 00:00:00 +0000 UTC
}

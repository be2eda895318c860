package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday

// series makes n snapshots, one each step, in chains of length snapshots.
func series(n int, step time.Duration, length int) (all []policy.Snapshot) {
	for i := range n {
		s := policy.Snapshot{ID: fmt.Sprint(i), Name: "a", Created: epoch.Add(time.Duration(i) * step), Number: uint64(i + 1)}
		if i%length > 0 {
			s.Parent = uint64(i)
		}
		all = append(all, s)
	}
	return all
}

// TestRetention: which backups a policy keeps: the last, by hour, day, week, month and year, held ones and what they build on.
//
//crm:item 37
func TestRetention(t *testing.T) {
	hours := series(24*60, time.Hour, 1) // to the end of March 1
	other := series(2, time.Hour, 1)
	for i := range other {
		other[i].Name, other[i].ID = "b", fmt.Sprint("b", i)
		other[i].Number += 5000
	}
	for name, c := range map[string]struct {
		policy policy.Retention
		all    []policy.Snapshot
		want   string
	}{
		"last":                       {policy.Retention{Last: 3}, hours, "1437 1438 1439"},
		"hourly":                     {policy.Retention{Hourly: 2}, hours, "1438 1439"},
		"daily":                      {policy.Retention{Daily: 3}, hours, "1368 1392 1416 1439"},
		"weekly":                     {policy.Retention{Weekly: 3}, hours, "936 1104 1272 1439"},
		"monthly":                    {policy.Retention{Monthly: 3}, hours, "0 744 1416 1439"},
		"yearly":                     {policy.Retention{Yearly: 5}, hours, "0 1439"},
		"more than there are":        {policy.Retention{Daily: 100, Last: 1}, series(3, time.Hour, 1), "0 2"},
		"union":                      {policy.Retention{Last: 1, Daily: 2, Monthly: 2}, hours, "744 1392 1416 1439"},
		"the newest always":          {policy.Retention{}, hours, "1439"},
		"within":                     {policy.Retention{Within: 2 * time.Hour}, hours, "1437 1438 1439"},
		"hold":                       {policy.Retention{Last: 1, Hold: []string{"77"}}, hours, "77 1439"},
		"what it builds on":          {policy.Retention{Last: 1}, series(7, time.Hour, 5), "5 6"},
		"a hold in a chain":          {policy.Retention{Last: 1, Hold: []string{"2"}}, series(7, time.Hour, 5), "0 1 2 5 6"},
		"fewest full ones":           {policy.Retention{Last: 1, Minimum: 2}, series(12, time.Hour, 5), "5 6 7 8 9 10 11"},
		"names apart":                {policy.Retention{Last: 1}, slices.Concat(series(3, time.Hour, 1), other), "2 b1"},
		"a gap is no period":         {policy.Retention{Daily: 2}, []policy.Snapshot{hours[0], hours[24*30], hours[24*40]}, "720 960"},
		"nothing there":              {policy.Retention{Last: 1}, nil, ""},
		"numbers decide, not places": {policy.Retention{Last: 1}, []policy.Snapshot{hours[5], hours[3]}, "5"},
	} {
		if got := strings.Join(c.policy.Keep(c.all), " "); got != c.want {
			t.Errorf("%s: keeps %q, want %q", name, got, c.want)
		}
	}
}

func TestValid(t *testing.T) {
	for name, c := range map[string]struct {
		r  policy.Retention
		ok bool
	}{
		"one":      {policy.Retention{Last: 1}, true},
		"fewest":   {policy.Retention{Minimum: 1}, true},
		"nothing":  {policy.Retention{}, false},
		"a time":   {policy.Retention{Within: 1}, true},
		"no time":  {policy.Retention{Last: 1, Within: -1}, false},
		"a hold":   {policy.Retention{Hold: []string{"x"}}, false},
		"negative": {policy.Retention{Last: 1, Weekly: -1}, false},
	} {
		if err := c.r.Valid(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	var c policy.Chain
	if c.MaxLength() != 30 || c.MaxAge() != 7*24*time.Hour {
		t.Errorf("%d, %v", c.MaxLength(), c.MaxAge())
	}
	c = policy.Chain{Length: 2, Age: time.Hour}
	if c.MaxLength() != 2 || c.MaxAge() != time.Hour {
		t.Errorf("%d, %v", c.MaxLength(), c.MaxAge())
	}
}

func TestAnomaly(t *testing.T) {
	a := policy.Anomaly{Table: "contacts", Kind: "changed", Share: 0.731}
	if !errors.Is(a, policy.ErrAnomaly) || !strings.HasSuffix(a.Error(), "table contacts: changed 0.73") {
		t.Errorf("%v", a)
	}
	if a := (policy.Anomaly{Kind: "uncompared"}); !strings.HasSuffix(a.Error(), ": uncompared") {
		t.Errorf("%v", a)
	}
}

// What Until promises is kept, whatever comes after, as long as one snapshot is made an hour.
func TestUntil(t *testing.T) {
	p := policy.Retention{Within: 90 * time.Minute, Hourly: 3, Daily: 3, Weekly: 2, Monthly: 2, Yearly: 2}
	var all []policy.Snapshot
	until := map[string]time.Time{}
	for i, s := range series(24*400, time.Hour, 1) {
		until[s.ID] = p.Until(s.Created, "a", all)
		all = append(all, s)
		if i%24 > 1 {
			continue
		}
		kept := p.Keep(all)
		for _, old := range all {
			if until[old.ID].After(s.Created) && !slices.Contains(kept, old.ID) {
				t.Fatalf("the one of %v is given up at %v, before %v", old.Created, s.Created, until[old.ID])
			}
		}
		all = slices.DeleteFunc(all, func(s policy.Snapshot) bool { return !slices.Contains(kept, s.ID) })
	}
	for at, want := range map[time.Time]string{
		epoch: "2028-01-01 00:00", epoch.Add(time.Hour): "2026-01-01 04:00",
		epoch.AddDate(0, 0, 1):                    "2026-01-05 00:00", // a Friday: Daily, for Weekly has Thursday
		epoch.AddDate(0, 0, 4):                    "2026-01-19 00:00", // a Monday
		epoch.AddDate(0, 1, 0):                    "2026-04-01 00:00",
		epoch.AddDate(0, 0, 1).Add(2 * time.Hour): "2026-01-02 05:00",
	} {
		if got := until[fmt.Sprint(int(at.Sub(epoch)/time.Hour))].Format("2006-01-02 15:04"); got != want {
			t.Errorf("made at %v: kept until %s, want %s", at, got, want)
		}
	}
	if got := (policy.Retention{Last: 9, Minimum: 3}).Until(epoch, "a", nil); !got.IsZero() {
		t.Errorf("a number promises %v", got)
	}
	if got := (policy.Retention{Daily: 1}).Until(epoch, "b", all[:1]); !got.Equal(epoch.AddDate(0, 0, 1)) {
		t.Errorf("another name: %v", got)
	}
}

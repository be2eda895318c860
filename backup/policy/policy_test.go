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
		"daily":                      {policy.Retention{Daily: 3}, hours, "1391 1415 1439"},
		"weekly":                     {policy.Retention{Weekly: 3}, hours, "1103 1271 1439"},
		"monthly":                    {policy.Retention{Monthly: 3}, hours, "743 1415 1439"},
		"yearly":                     {policy.Retention{Yearly: 5}, hours, "1439"},
		"more than there are":        {policy.Retention{Daily: 100, Last: 1}, series(3, time.Hour, 1), "2"},
		"union":                      {policy.Retention{Last: 1, Daily: 2, Monthly: 2}, hours, "1415 1439"},
		"the newest always":          {policy.Retention{}, hours, "1439"},
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

package crmbench_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/internal/bench/crmbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/realtest"
)

// TestRun measures few customers quickly, then again what was kept: the figures mean nothing, that there are figures does.
func TestRun(t *testing.T) {
	keep := t.TempDir()
	o := crmbench.Options{
		Rows: 600, Owned: 150, Engines: []string{"sqlite"}, Keep: keep, Searches: 10,
		Measure: measure.Options{Rounds: 1, Round: time.Millisecond}, Rounds: 1, Round: 10 * time.Millisecond,
	}
	for _, want := range []string{"", "600 customers are there"} {
		var told bytes.Buffer
		o.Progress = &told
		rep, err := crmbench.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "sqlite", rep)
		if !strings.Contains(told.String(), want) {
			t.Errorf("told %q, not %q", told.String(), want)
		}
	}
}

// TestRunPostgres is TestRun on a private server, which it starts anew from what was kept.
func TestRunPostgres(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server twice")
	}
	realtest.Postgres(t)                      // or says how to get it
	keep, err := os.MkdirTemp("", "crmbench") // the parents of t.TempDir are closed to the server's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(keep) })
	if err := os.Chmod(keep, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		rep, err := crmbench.Run(t.Context(), crmbench.Options{
			Rows: 600, Owned: 150, Engines: []string{"postgres"}, Keep: keep, Searches: 10,
			Measure: measure.Options{Rounds: 1, Round: time.Millisecond}, Rounds: 1, Round: 10 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		check(t, "postgres", rep)
	}
}

func check(t *testing.T, engine string, rep *crmbench.Report) {
	t.Helper()
	for _, f := range rep.Figures {
		if f.Engine != engine || f.P50 <= 0 && f.PerSecond <= 0 || f.P99 < 0 || f.Peer && f.Ratio != 0 && f.Ratio != 1 {
			t.Errorf("%+v", f)
		}
	}
	if want := map[string]int{"sqlite": 13, "postgres": 12}[engine]; len(rep.Bars) != want {
		t.Errorf("%d bars", len(rep.Bars))
	}
	var out bytes.Buffer
	if err := rep.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"page 1 of 50", "page 2 of 50", "cold keys", "of which log write and sync", "get one, 64 callers", "search by phone or e-mail",
		"bare inserts", "log wrote and synced", "duplicate check at entry", "duplicates of all", "export as CSV", "export as XLSX", "first 50 by name", "candidates", "1 (peer)", "throughput beside the query",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestRefuses(t *testing.T) {
	for what, o := range map[string]crmbench.Options{
		"an engine": {Rows: 600, Owned: 150, Engines: []string{"oracle"}},
		"a part":    {Rows: 600, Owned: 150, Engines: []string{"sqlite"}, Parts: []string{"sums"}},
		"one page":  {Rows: 600, Owned: 60},
		"too many":  {Rows: 600, Owned: 601},
	} {
		if _, err := crmbench.Run(t.Context(), o); err == nil {
			t.Errorf("%s passes", what)
		}
	}
}

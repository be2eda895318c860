// Package crmbench measures customers behind crm/guard beside the same queries by hand on the same database, with as many customers as
// are asked for: pages, single records under 64 callers, searches.
package crmbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/crmguard/crmguard/internal/bench/measure"
)

// Parts are what Run measures, in order.
var Parts = []string{"import", "pages", "get", "search", "names", "duplicates", "exports"}

// Options of Run. The zero value of a field has the meaning it says.
type Options struct {
	Rows     int             // customers in all; 0: 1,000,000
	Owned    int             // of them the sales person's; 0: six of a hundred
	Engines  []string        // sqlite, postgres; nil: both
	Parts    []string        // nil: all
	Keep     string          // folder where the filled databases stay for the next run, which PostgreSQL's user must be able to enter; "": nowhere
	Measure  measure.Options // of pages
	Rounds   int             // of single records, ours and the peer in turns; 0: 5
	Round    time.Duration   // how long each of them takes; 0: 2 s
	Searches int             // by phone or e-mail; 0: 1,200
	Profile  string          // folder for a processor profile of each part of each engine; "": none
	Progress io.Writer       // nil: nobody is told
}

// Figure is one line of the table.
type Figure struct {
	Engine, Work, Variant string
	Peer                  bool
	P50, P99              time.Duration // 0: not measured
	PerSecond             float64       // 0: not measured
	Ratio                 float64       // beside the peer: of times, or of what is done in a second; 0: there is none
	Note                  string
}

// Bar is something that was promised.
type Bar struct {
	Engine, Name string
	Have, Want   float64
	AtLeast      bool // Want is a lower bound
	Unit         string
}

// Met tells whether the promise is kept.
func (b Bar) Met() bool { return b.AtLeast && b.Have >= b.Want || !b.AtLeast && b.Have <= b.Want }

// String is one line.
func (b Bar) String() string {
	word, than := "missed", "at most"
	if b.Met() {
		word = "met"
	}
	if b.AtLeast {
		than = "at least"
	}
	return fmt.Sprintf("%-6s  %s, %s: %.2f%s, %s %.2f", word, b.Engine, b.Name, b.Have, b.Unit, than, b.Want)
}

// Report is what Run has measured.
type Report struct {
	Figures []Figure
	Bars    []Bar
	Notes   []string
}

// Run fills a database for each engine, or takes the kept one, and measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Rows == 0 {
		o.Rows = 1_000_000
	}
	if o.Owned == 0 {
		o.Owned = o.Rows * 6 / 100
	}
	if o.Owned < 2*page || o.Owned > o.Rows {
		return nil, fmt.Errorf("crmbench: the sales person has %d of %d customers, which makes no two pages", o.Owned, o.Rows)
	}
	if o.Engines == nil {
		o.Engines = []string{"sqlite", "postgres"}
	}
	if o.Parts == nil {
		o.Parts = Parts
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Round == 0 {
		o.Round = 2 * time.Second
	}
	if o.Searches == 0 {
		o.Searches = 1200
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	rep := &Report{}
	for _, engine := range o.Engines {
		if engine != "sqlite" && engine != "postgres" {
			return nil, fmt.Errorf("crmbench: no engine %q", engine)
		}
		err := measure.Servers(func(tb testing.TB) error {
			parts := o.Parts
			if i := slices.Index(parts, "import"); i >= 0 { // into a database of its own
				fmt.Fprintf(o.Progress, "%s: import\n", engine)
				stop, err := profile(o.Profile, engine+"-import")
				if err != nil {
					return err
				}
				err = rep.imports(ctx, tb, engine, o)
				stop()
				if err != nil {
					return fmt.Errorf("import: %w", err)
				}
				if parts = slices.Delete(slices.Clone(parts), i, i+1); len(parts) == 0 {
					return nil
				}
			}
			g, err := open(ctx, tb, engine, o.Keep, generator{o.Rows, o.Owned}, o.Progress)
			if err != nil {
				return err
			}
			return errors.Join(rep.measure(ctx, g, o, parts), g.Close())
		})
		if err != nil {
			return rep, fmt.Errorf("%s: %w", engine, err)
		}
	}
	return rep, nil
}

func (rep *Report) measure(ctx context.Context, g *rig, o Options, parts []string) error {
	for _, part := range parts {
		do, ok := map[string]func(context.Context, *rig, Options) error{
			"pages": rep.pages, "get": rep.get, "search": rep.search, "names": rep.names, "duplicates": rep.duplicates, "exports": rep.exports,
		}[part]
		if !ok {
			return fmt.Errorf("no part %q", part)
		}
		fmt.Fprintf(o.Progress, "%s: %s\n", g.engine, part)
		stop, err := profile(o.Profile, g.engine+"-"+part)
		if err != nil {
			return err
		}
		err = do(ctx, g, o)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// profile begins a processor profile in a folder.
func profile(dir, name string) (stop func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	f, err := os.Create(filepath.Join(dir, name+".pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// Print writes the table, the notes and the bars.
func (rep *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "engine\twork\tvariant\tp50\tp99\t/s\tratio\t\t")
	var engine, work string
	for _, f := range rep.Figures {
		cells := []string{f.Engine, f.Work, f.Variant, span(f.P50), span(f.P99), "", "", f.Note}
		if f.Engine == engine {
			cells[0] = ""
			if f.Work == work {
				cells[1] = ""
			}
		}
		engine, work = f.Engine, f.Work
		if f.PerSecond > 0 {
			cells[5] = fmt.Sprintf("%.0f", f.PerSecond)
		}
		if f.Ratio > 0 {
			cells[6] = fmt.Sprintf("%.2f", f.Ratio)
		}
		if f.Peer {
			cells[6] = "1 (peer)"
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range rep.Notes {
		fmt.Fprintln(w, n)
	}
	for _, b := range rep.Bars {
		if _, err := fmt.Fprintln(w, b); err != nil {
			return err
		}
	}
	return nil
}

func span(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	}
	return fmt.Sprintf("%.1f ms", float64(d)/1e6)
}

// quantile of times, which it sorts.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, int(float64(len(times))*q))]
}

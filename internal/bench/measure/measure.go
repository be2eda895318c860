// Package measure times variants of one piece of work side by side: in rounds that take turns, so that a
// machine that slows down slows all of them, with the median of the rounds as the figure.
package measure

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Variant is one way to do the work. Peer marks the one that the others are compared with.
type Variant struct {
	Name string
	Peer bool
	Do   func() error
}

// Options of Compare. The zero value of a field has the meaning it says.
type Options struct {
	Rounds int           // 0: 21
	Round  time.Duration // how long a variant runs in a round; 0: 80 ms
	// CPU counts the processor time of the whole process, garbage collection included, instead of the time
	// on the wall: other programs on the machine then disturb less. For work that waits for nothing.
	CPU bool
}

// Figure is what was measured of a variant.
type Figure struct {
	Work, Variant string
	Peer          bool
	NsPerOp       float64
	AllocsPerOp   float64
	Ratio         float64 // median over the rounds of time divided by the peer's time in the same round
	CPUPerOp      float64 // processor time of the whole process, nanoseconds, whatever NsPerOp is
	CPURatio      float64 // as Ratio, of processor time
}

// Compare measures the variants of one work. One of them must be the peer.
func Compare(work string, opts Options, variants ...Variant) ([]Figure, error) {
	if opts.Rounds == 0 {
		opts.Rounds = 21
	}
	if opts.Round == 0 {
		opts.Round = 80 * time.Millisecond
	}
	peer := slices.IndexFunc(variants, func(v Variant) bool { return v.Peer })
	if peer < 0 {
		return nil, fmt.Errorf("measure: %s has no peer", work)
	}
	ns := make([][]float64, len(variants))
	cpu := make([][]float64, len(variants))
	allocs := make([][]float64, len(variants))
	for i, v := range variants { // warm up
		if _, err := run(v.Do, opts.Round); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", work, variants[i].Name, err)
		}
	}
	for range opts.Rounds {
		for i, v := range variants {
			c, err := run(v.Do, opts.Round)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", work, v.Name, err)
			}
			n := c.wall
			if opts.CPU {
				n = c.cpu
			}
			ns[i], cpu[i], allocs[i] = append(ns[i], n), append(cpu[i], c.cpu), append(allocs[i], c.allocs)
		}
	}
	figures := make([]Figure, len(variants))
	for i, v := range variants {
		ratios, ofCPU := make([]float64, opts.Rounds), make([]float64, opts.Rounds)
		for r := range ratios {
			ratios[r], ofCPU[r] = ns[i][r]/ns[peer][r], cpu[i][r]/cpu[peer][r]
		}
		figures[i] = Figure{
			Work: work, Variant: v.Name, Peer: v.Peer,
			NsPerOp: median(ns[i]), AllocsPerOp: median(allocs[i]), Ratio: median(ratios), CPUPerOp: median(cpu[i]), CPURatio: median(ofCPU),
		}
	}
	return figures, nil
}

// cost of one, in nanoseconds and allocations.
type cost struct{ wall, cpu, allocs float64 }

// run repeats f for about d.
func run(f func() error, d time.Duration) (cost, error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, used := time.Now(), ProcessorTime()
	n := 0
	for batch := 1; ; batch = min(2*batch, 1<<12) {
		for range batch {
			if err := f(); err != nil {
				return cost{}, err
			}
		}
		n += batch
		took := time.Since(start)
		if took >= d {
			used = ProcessorTime() - used
			runtime.ReadMemStats(&after)
			return cost{
				float64(took.Nanoseconds()) / float64(n), float64(used.Nanoseconds()) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n),
			}, nil
		}
		// Another doubling must not overshoot by more than the time that is left.
		if per := took / time.Duration(n); per > 0 {
			batch = min(batch, max(1, int((d-took)/per)/2))
		}
	}
}

// ProcessorTime is what the process has used so far.
func ProcessorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

// Print writes the figures as a table.
func Print(w io.Writer, figures []Figure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "work\tvariant\ttime/op\tallocs/op\tratio\t")
	last := ""
	for _, f := range figures {
		work := f.Work
		if work == last {
			work = ""
		}
		last = f.Work
		ratio := fmt.Sprintf("%.2f", f.Ratio)
		if f.Peer {
			ratio = "1 (peer)"
		}
		fmt.Fprintln(t, strings.Join([]string{work, f.Variant, duration(f.NsPerOp), fmt.Sprintf("%.0f", f.AllocsPerOp), ratio}, "\t")+"\t")
	}
	return t.Flush()
}

func duration(ns float64) string {
	switch {
	case ns < 1e4:
		return fmt.Sprintf("%.0f ns", ns)
	case ns < 1e7:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.1f ms", ns/1e6)
}

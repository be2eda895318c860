// Package backupbench measures package backup: full and incremental snapshots and restores beside restic, a pipe of tar,
// zstd and age, and bare inserts; one record; and memory.
//
// The source is a SQLite database of companies, contacts, activities and attachments, which are rows with a blob of
// 2 MiB. Files are what the peers back up, so restic and tar get a copy that VACUUM INTO makes, whose time counts:
// all see the same stored rows. Each measurement is a process of its own.
package backupbench

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// Parts are what Run can be asked for.
var Parts = []string{"full", "incremental", "restore", "record", "memory"}

// Options of Run.
type Options struct {
	Rows        int
	Attachments int64     // bytes
	Rounds      int       // how often quick ones are repeated, in turns
	Parts       []string  // nil = all
	Dir         string    // an empty folder
	Profile     string    // a folder for processor profiles of our side; "" = none
	Progress    io.Writer // is told each line at once, before the table; nil = nobody
}

// bench is one run.
type bench struct {
	Options
	table *tabwriter.Writer
	bytes float64 // of the values of all rows
}

// Run measures and prints one table.
func Run(ctx context.Context, out io.Writer, o Options) error {
	b := &bench{Options: o}
	b.Rounds = max(1, b.Rounds)
	if b.Parts == nil {
		b.Parts = Parts
	}
	for _, p := range b.Parts {
		if !slices.Contains(Parts, p) {
			return fmt.Errorf("there is no part %q", p)
		}
	}
	made, err := b.step(ctx, params{Step: "generate", DB: b.path("source.db")})
	if err != nil {
		return err
	}
	b.bytes = made["bytes"]
	file, err := size(b.path("source.db"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%.0f rows, %d MiB of attachments; %.0f MB of values, of which %.0f %% are random and cannot be compressed; %.0f MB of SQLite\n",
		made["rows"], b.Attachments>>20, b.bytes/1e6, 100*made["sealed"]/b.bytes, file/1e6)
	fmt.Fprintln(out, "MB/s are of the values, the median of the rounds and in brackets the best; CPU is user and system time; ratios are of medians, above 1 = ours is better")
	b.table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	b.line("what", "ours", "peer", "ratio", "bar", "")
	restics, err := b.full(ctx)
	if err != nil {
		return err
	}
	if b.wants("restore") {
		if err := b.restores(ctx, restics); err != nil {
			return err
		}
	}
	if b.wants("incremental") || b.wants("record") {
		if err := b.incremental(ctx, restics); err != nil {
			return err
		}
	}
	if b.wants("record") {
		if err := b.record(ctx); err != nil {
			return err
		}
	}
	if b.wants("memory") {
		if err := b.memory(ctx); err != nil {
			return err
		}
	}
	return b.table.Flush()
}

func (b *bench) wants(part string) bool { return slices.Contains(b.Parts, part) }

func (b *bench) path(name string) string { return filepath.Join(b.Dir, name) }

func (b *bench) step(ctx context.Context, p params) (figures, error) {
	if p.Rows == 0 {
		p.Rows, p.Attachments = b.Rows, b.Attachments
	}
	switch p.Step {
	case "backup", "ndjson", "sqlite", "postgres", "records":
		p.Profile = b.Profile
	}
	return run(ctx, p)
}

func (b *bench) line(cells ...string) {
	fmt.Fprintln(b.table, strings.Join(cells, "\t"))
	if b.Progress != nil {
		fmt.Fprintln(b.Progress, strings.Join(cells, "  "))
	}
}

// bar prints a line with a verdict: want is a lower bound, or an upper one when it is negative.
func (b *bench) bar(what, ours, peer string, value, want float64, unit string) {
	met, sign := value >= want, "at least "
	if want < 0 {
		met, want, sign = value <= -want, -want, "at most "
	}
	verdict := "met"
	if !met {
		verdict = "NOT MET"
	}
	b.line(what, ours, peer, fmt.Sprintf("%.3g%s", value, unit), sign+fmt.Sprintf("%g%s", want, unit), verdict)
}

func median(all []figures, key string) float64 {
	var v []float64
	for _, f := range all {
		v = append(v, f[key])
	}
	slices.Sort(v)
	if len(v) == 0 {
		return math.NaN()
	}
	return v[len(v)/2]
}

func least(all []figures, key string) float64 {
	v := math.Inf(1)
	for _, f := range all {
		v = min(v, f[key])
	}
	return v
}

func most(all []figures, key string) float64 {
	v := 0.0
	for _, f := range all {
		v = max(v, f[key])
	}
	return v
}

// rate says MB/s of work over all values.
func (b *bench) rate(all []figures) string {
	return fmt.Sprintf("%.0f MB/s (%.0f)", b.bytes/1e6/median(all, "wall"), b.bytes/1e6/least(all, "wall"))
}

func seconds(all []figures, key string) string {
	return fmt.Sprintf("%.2f s (%.2f)", median(all, key), least(all, key))
}

func mib(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }

// versus prints a line for the wall, against a bar, and one for the processors.
func (b *bench) versus(what string, ours, peer []figures, name string, want float64) {
	b.bar(what+", wall", b.rate(ours), name+" "+b.rate(peer), median(peer, "wall")/median(ours, "wall"), want, "x")
	b.line(what+", CPU", seconds(ours, "cpu"), name+" "+seconds(peer, "cpu"), fmt.Sprintf("%.3gx", median(peer, "cpu")/median(ours, "cpu")), "", "")
}

func have(names ...string) error {
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			return fmt.Errorf("%s is not here: apt-get install %s", n, n)
		}
	}
	return nil
}

// full measures full snapshots. It leaves ours in the folder ours, and restic's in restic.
func (b *bench) full(ctx context.Context) (restics bool, err error) {
	rounds := 1
	if b.wants("full") {
		rounds = b.Rounds
	}
	noRestic, noPipe := have("restic"), have("tar", "zstd", "age")
	if noPipe == nil {
		if _, _, err := program(ctx, b.Dir, nil, "age-keygen", "-o", b.path("age.key")); err != nil {
			noPipe = err
		}
	}
	var ours, theirs, pipe []figures
	var piped float64
	for range rounds {
		for _, name := range []string{"ours", "restic", "restic-cache"} {
			if err := os.RemoveAll(b.path(name)); err != nil {
				return false, err
			}
		}
		f, err := b.step(ctx, params{Step: "backup", DB: b.path("source.db"), Repo: b.path("ours")})
		if err != nil {
			return false, err
		}
		ours = append(ours, f)
		if noRestic != nil && noPipe != nil {
			continue
		}
		copied, err := b.copy(ctx)
		if err != nil {
			return false, err
		}
		if noRestic == nil {
			r := restic{b.path("restic")}
			if _, err := r.do(ctx, b.Dir, "init"); err != nil {
				return false, err
			}
			f, err := r.do(ctx, b.Dir, "backup", "copy.db")
			if err != nil {
				return false, err
			}
			theirs = append(theirs, f.plus(copied))
		}
		if noPipe == nil && b.wants("full") {
			f, _, err := program(ctx, b.Dir, nil, "/bin/sh", "-c", "tar -c copy.db | zstd -q -3 -T0 | age -e -i age.key > copy.age")
			if err != nil {
				return false, err
			}
			pipe = append(pipe, f.plus(copied))
			if piped, err = size(b.path("copy.age")); err != nil {
				return false, err
			}
			os.Remove(b.path("copy.age"))
		}
	}
	stored, err := size(b.path("ours"))
	if err != nil {
		return false, err
	}
	if b.wants("full") {
		switch noRestic {
		case nil:
			b.versus("full", ours, theirs, "restic", 1.3)
			n, err := size(b.path("restic"))
			if err != nil {
				return false, err
			}
			b.bar("full, size", mib(stored), "restic "+mib(n), stored/n, -1.05, "x")
		default:
			b.line("full", b.rate(ours)+", "+seconds(ours, "cpu"), noRestic.Error(), "", "", "not measured")
		}
		if noPipe == nil {
			b.line("full, wall", b.rate(ours), "tar|zstd -3|age "+b.rate(pipe), fmt.Sprintf("%.3gx", median(pipe, "wall")/median(ours, "wall")), "", "")
			b.line("full, CPU", seconds(ours, "cpu"), "tar|zstd -3|age "+seconds(pipe, "cpu"), fmt.Sprintf("%.3gx", median(pipe, "cpu")/median(ours, "cpu")), "", "")
			b.line("full, size", mib(stored), "tar|zstd -3|age "+mib(piped), fmt.Sprintf("%.3gx", stored/piped), "", "")
		} else {
			b.line("full", "", noPipe.Error(), "", "", "not measured")
		}
		peer := ""
		if noRestic == nil {
			peer = "restic " + mib(most(theirs, "peak"))
		}
		b.bar("full, peak memory", mib(most(ours, "peak")), peer, most(ours, "peak")/(1<<20), -150, " MiB")
	}
	return noRestic == nil, nil
}

// copy makes a consistent copy of the source.
func (b *bench) copy(ctx context.Context) (figures, error) {
	if err := os.RemoveAll(b.path("copy.db")); err != nil {
		return nil, err
	}
	return b.step(ctx, params{Step: "vacuum", DB: b.path("source.db"), File: b.path("copy.db")})
}

// incremental measures snapshots after changes of one row of a hundred, twice: all rows compared, then by change numbers.
func (b *bench) incremental(ctx context.Context, restics bool) error {
	rounds := b.Rounds
	if !b.wants("incremental") {
		rounds = 1
	}
	changed, err := b.step(ctx, params{Step: "change", DB: b.path("source.db"), Round: 1})
	if err != nil {
		return err
	}
	var scan, theirs []figures
	var wrote, written float64
	for range rounds {
		if err := b.again("ours", &wrote, func(repo string) error {
			f, err := b.step(ctx, params{Step: "backup", DB: b.path("source.db"), Repo: repo, Chain: true, Scan: true})
			scan = append(scan, f)
			return err
		}); err != nil {
			return err
		}
		if !restics || !b.wants("incremental") {
			continue
		}
		copied, err := b.copy(ctx)
		if err != nil {
			return err
		}
		if err := b.again("restic", &written, func(repo string) error {
			f, err := restic{repo}.do(ctx, b.Dir, "backup", "copy.db")
			theirs = append(theirs, f.plus(copied))
			return err
		}); err != nil {
			return err
		}
	}
	if err := os.Rename(b.path("ours-again"), b.path("chain")); err != nil {
		return err
	}
	if b.wants("incremental") {
		what := fmt.Sprintf("incremental of %.0f changed rows", changed["rows"])
		if restics {
			b.bar(what+", written", mib(wrote), "restic "+mib(written), 100*wrote/written, -2, " %")
		} else {
			b.line(what+", written", mib(wrote), "restic was not measured", "", "", "")
		}
		b.scan(what+", all rows compared", scan, theirs)
	}
	if _, err := b.step(ctx, params{Step: "change", DB: b.path("source.db"), Round: 2}); err != nil {
		return err
	}
	var indexed []figures
	for range rounds {
		if err := b.again("chain", &wrote, func(repo string) error {
			f, err := b.step(ctx, params{Step: "backup", DB: b.path("source.db"), Repo: repo, Chain: true})
			indexed = append(indexed, f)
			return err
		}); err != nil {
			return err
		}
	}
	os.RemoveAll(b.path("ours-again"))
	if err := os.Rename(b.path("chain-again"), b.path("newest")); err != nil {
		return err
	}
	if b.wants("incremental") {
		for _, f := range indexed {
			f["rest"] = f["wall"] - f["upload"]
		}
		b.bar("incremental by change numbers, wall but for the upload", fmt.Sprintf("%s, with it %s", seconds(indexed, "rest"), seconds(indexed, "wall")),
			"", median(indexed, "rest"), -0.5, " s")
		b.line("incremental by change numbers, CPU, written", seconds(indexed, "cpu")+", "+mib(wrote), "", "", "", "")
		b.line("incremental by change numbers, peak memory", mib(most(indexed, "peak")), "", "", "", "")
		f, err := b.step(ctx, params{Step: "ndjson", Repo: b.path("newest"), File: b.path("lines")})
		if err != nil {
			return err
		}
		os.RemoveAll(b.path("lines"))
		b.line("restore of the chain of three to NDJSON", b.rate([]figures{f})+", CPU "+seconds([]figures{f}, "cpu"), "", "", "", mib(f["peak"]))
	}
	return nil
}

func (b *bench) scan(what string, scan, theirs []figures) {
	if len(theirs) > 0 {
		b.line(what+", wall", seconds(scan, "wall"), "restic "+seconds(theirs, "wall"), fmt.Sprintf("%.3gx", median(theirs, "wall")/median(scan, "wall")), "", "")
		b.line(what+", CPU", seconds(scan, "cpu"), "restic "+seconds(theirs, "cpu"), fmt.Sprintf("%.3gx", median(theirs, "cpu")/median(scan, "cpu")), "", "")
	} else {
		b.line(what, seconds(scan, "wall"), "", "", "", "CPU "+seconds(scan, "cpu"))
	}
	b.bar(what+", peak memory", mib(most(scan, "peak")), "", most(scan, "peak")/(1<<20), -150, " MiB")
}

// again does something to a twin of a repository and measures by how much it grows.
func (b *bench) again(name string, grew *float64, do func(repo string) error) error {
	repo := b.path(name + "-again")
	if err := twin(b.path(name), repo); err != nil {
		return err
	}
	before, err := size(repo)
	if err != nil {
		return err
	}
	if err := do(repo); err != nil {
		return err
	}
	after, err := size(repo)
	*grew = after - before
	return err
}

func (b *bench) restores(ctx context.Context, restics bool) error {
	var ours, theirs []figures
	for range b.Rounds {
		f, err := b.step(ctx, params{Step: "ndjson", Repo: b.path("ours"), File: b.path("lines")})
		if err != nil {
			return err
		}
		os.RemoveAll(b.path("lines"))
		ours = append(ours, f)
		if restics {
			if f, err = (restic{b.path("restic")}).do(ctx, b.Dir, "restore", "latest", "--target", b.path("back")); err != nil {
				return err
			}
			os.RemoveAll(b.path("back"))
			theirs = append(theirs, f)
		}
	}
	if restics {
		b.versus("restore to NDJSON", ours, theirs, "restic", 0.5)
	} else {
		b.line("restore to NDJSON", b.rate(ours), "restic was not measured", "", "", seconds(ours, "cpu"))
	}
	b.line("restore to NDJSON, peak memory", mib(most(ours, "peak")), "", "", "", "")

	if _, err := b.step(ctx, params{Step: "flat", DB: b.path("source.db"), File: b.path("flat")}); err != nil {
		return err
	}
	defer os.Remove(b.path("flat"))
	ours, theirs = nil, nil
	for range b.Rounds {
		for _, p := range []params{
			{Step: "sqlite", Repo: b.path("ours"), DB: b.path("restored.db")},
			{Step: "bare sqlite", File: b.path("flat"), DB: b.path("restored.db")},
		} {
			f, err := b.step(ctx, p)
			if err != nil {
				return err
			}
			os.Remove(p.DB)
			if p.Repo != "" {
				ours = append(ours, f)
			} else {
				theirs = append(theirs, f)
			}
		}
	}
	b.versus("restore into SQLite", ours, theirs, "bare", 0.7)
	b.line("restore into SQLite, peak memory", mib(most(ours, "peak")), "bare "+mib(most(theirs, "peak")), "", "", "")
	return b.postgres(ctx)
}

func (b *bench) postgres(ctx context.Context) (err error) {
	s, err := startServer()
	if err != nil {
		b.line("restore into PostgreSQL", "", err.Error(), "", "", "not measured")
		return nil
	}
	defer s.tb.end()
	var ours, theirs, dumped []figures
	measured := func(p params) (figures, error) {
		before := s.cpu()
		f, err := b.step(ctx, p)
		if err == nil {
			f["cpu"] += s.cpu() - before
		}
		return f, err
	}
	for i := range b.Rounds {
		bare, err := s.create("bare")
		if err != nil {
			return err
		}
		f, err := measured(params{Step: "bare postgres", DSN: bare, File: b.path("flat")})
		if err != nil {
			return err
		}
		theirs = append(theirs, f)
		if i == 0 {
			f, err := measured(params{Step: "backup", DSN: bare, Repo: b.path("ours-postgres")})
			if err != nil {
				return err
			}
			dumped = append(dumped, f)
		}
		back, err := s.create("restored")
		if err != nil {
			return err
		}
		if err := s.drop("bare"); err != nil {
			return err
		}
		if f, err = measured(params{Step: "postgres", DSN: back, Repo: b.path("ours-postgres")}); err != nil {
			return err
		}
		ours = append(ours, f)
		if err := s.drop("restored"); err != nil {
			return err
		}
	}
	b.versus("restore into PostgreSQL", ours, theirs, "bare", 0.7)
	b.line("restore into PostgreSQL, peak memory", mib(most(ours, "peak")), "bare "+mib(most(theirs, "peak")), "", "", "")
	b.line("full of PostgreSQL", b.rate(dumped)+", CPU with the server's "+seconds(dumped, "cpu"), "", "", "", mib(most(dumped, "peak")))
	return os.RemoveAll(b.path("ours-postgres"))
}

func (b *bench) record(ctx context.Context) error {
	f, err := b.step(ctx, params{Step: "records", Repo: b.path("newest")})
	if err != nil {
		return err
	}
	b.bar("one record of the newest of a chain of three, p99 of 100", fmt.Sprintf("%.1f ms (p50 %.1f)", 1e3*f["p99"], 1e3*f["p50"]), "", 1e3*f["p99"], -50, " ms")
	return nil
}

// memory measures the peaks at a tenth of the rows and at all of them, without attachments.
func (b *bench) memory(ctx context.Context) error {
	var full, incremental [2]float64
	rows := []int{b.Rows / 10, b.Rows}
	for i, n := range rows {
		p := params{Rows: n, DB: b.path("memory.db"), Repo: b.path("memory")}
		for _, path := range []string{p.DB, p.Repo} {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		for _, step := range []params{
			{Step: "generate"}, {Step: "backup"}, {Step: "change", Round: 1}, {Step: "backup", Chain: true, Scan: true},
		} {
			step.Rows, step.DB, step.Repo = p.Rows, p.DB, p.Repo
			f, err := b.step(ctx, step)
			if err != nil {
				return err
			}
			switch {
			case step.Chain:
				incremental[i] = f["peak"]
			case step.Step == "backup":
				full[i] = f["peak"]
			}
		}
	}
	os.Remove(b.path("memory.db"))
	for _, x := range []struct {
		what string
		peak [2]float64
	}{{"a full", full}, {"an incremental, all rows compared", incremental}} {
		b.line(fmt.Sprintf("peak memory of %s at %d and %d rows", x.what, rows[0], rows[1]), mib(x.peak[0])+", "+mib(x.peak[1]), "",
			fmt.Sprintf("%.3gx", x.peak[1]/x.peak[0]), "flat", fmt.Sprintf("%.1f bytes a row", (x.peak[1]-x.peak[0])/float64(rows[1]-rows[0])))
	}
	return os.RemoveAll(b.path("memory"))
}

// Command authz measures decisions beside cedar-go, Casbin, plain OPA and Go by hand, in one run.
//
//	go run -C internal/bench ./authz            some minutes
//	go run -C internal/bench ./authz -quick     without the million records
//
// It ends with an error when two engines answer one of the requests differently.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/crmguard/crmguard/authz/cond"
	"github.com/crmguard/crmguard/internal/bench/authzbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/realtest"
)

func main() {
	quick := flag.Bool("quick", false, "leave out the million records")
	testing.Init()
	flag.Parse()
	if err := run(context.Background(), *quick); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, quick bool) error {
	fmt.Printf("%s, %s/%s, %d CPUs, load %s\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), load())
	w, err := authzbench.New(ctx)
	if err != nil {
		return err
	}
	small, shipped, err := w.Agree(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("equal answers to %d requests (%d %% allowed), and to %d under every control (%d %% allowed)\n",
		authzbench.Requests, small*100/authzbench.Requests, authzbench.Requests, shipped*100/authzbench.Requests)
	var figures []measure.Figure
	var bars []authzbench.Bar
	add := func(f []measure.Figure, b []authzbench.Bar, err error) error {
		figures, bars = append(figures, f...), append(bars, b...)
		return err
	}
	if err := add(w.Decisions(ctx, measure.Options{Rounds: 15, CPU: true})); err != nil {
		return err
	}
	if err := add(w.Lists(ctx, measure.Options{Rounds: 9, CPU: true})); err != nil {
		return err
	}
	if err := add(w.WhoCan(ctx, measure.Options{Rounds: 15, CPU: true})); err != nil {
		return err
	}
	lines, b, err := authzbench.Plans(ctx, 250, 100_000)
	if err := add(nil, b, err); err != nil {
		return err
	}
	if quick {
		lines = append(lines, "a million records: left out")
	} else {
		for _, name := range []string{"SQLite", "PostgreSQL"} {
			err := withDatabase(name, func(d authzbench.Database) error {
				return add(authzbench.Million(ctx, d, 1_000_000, measure.Options{}))
			})
			if err != nil {
				lines = append(lines, "a million records in "+name+": not measured: "+err.Error())
			}
		}
	}
	fmt.Println("decisions, lists and who can: processor time; a million records: time on the wall; medians of rounds that take turns")
	fmt.Println("times ours is a variant's time by ours in the same round: above 1 is slower than ours")
	if err := authzbench.Print(os.Stdout, figures); err != nil {
		return err
	}
	fmt.Println()
	for _, l := range lines {
		fmt.Println(l)
	}
	fmt.Println()
	for _, b := range bars {
		fmt.Println(b)
	}
	return nil
}

// load is the machine's load, where it says it.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "not known"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// withDatabase runs f over a fresh database on a disk.
func withDatabase(name string, f func(authzbench.Database) error) error {
	return measure.Servers(func(tb testing.TB) error {
		if name == "PostgreSQL" {
			return f(authzbench.Database{Name: name, DB: realtest.Postgres(tb).DB, Dialect: cond.Dollar})
		}
		db, err := sql.Open("sqlite", "file:"+filepath.Join(tb.TempDir(), "bench.db")+"?_pragma=journal_mode(wal)")
		if err != nil {
			return err
		}
		defer db.Close()
		return f(authzbench.Database{Name: name, DB: db, Dialect: cond.Question})
	})
}

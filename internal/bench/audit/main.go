// Command audit measures package audit beside a bare hash chain and Tessera, in one run.
//
//	go run -C internal/bench ./audit                    a log of a million events, some minutes
//	go run -C internal/bench ./audit -events 10000000   the long one: memory must stay flat
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/crmguard/crmguard/internal/bench/auditbench"
)

func main() {
	events := flag.Int("events", 1_000_000, "events of the large log")
	rounds := flag.Int("rounds", 7, "rounds in which the writers take turns")
	round := flag.Duration("round", time.Second, "length of a turn")
	part := flag.String("part", "", "only append or large; empty: both")
	flag.Parse()
	if err := run(context.Background(), *events, *rounds, *round, *part); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, events, rounds int, round time.Duration, part string) error {
	dir, err := os.MkdirTemp("", "auditbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%s, %s/%s, %d CPUs\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if part != "large" {
		if err := auditbench.Append(ctx, os.Stdout, filepath.Join(dir, "append"), rounds, round); err != nil {
			return err
		}
	}
	if part != "append" {
		return auditbench.Large(ctx, os.Stdout, filepath.Join(dir, "large"), events)
	}
	return nil
}

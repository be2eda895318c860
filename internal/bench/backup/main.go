// Command backup measures package backup beside restic, a pipe of tar, zstd and age, and bare inserts, in one run.
//
//	go run -C internal/bench ./backup                               two million rows, many minutes and 15 GB of disk
//	go run -C internal/bench ./backup -rows 200000 -rounds 1        a quick one
//	go run -C internal/bench ./backup -part full,incremental        parts of it
//
// restic, age and zstd are those of the system (apt-get install restic age zstd); what is absent is left out.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"strings"

	"github.com/crmguard/crmguard/internal/bench/backupbench"
)

func main() {
	backupbench.Step()
	var o backupbench.Options
	flag.IntVar(&o.Rows, "rows", 2_000_000, "rows of the source")
	mib := flag.Int("attachments", 200, "MiB of attachments")
	flag.IntVar(&o.Rounds, "rounds", 3, "how often the quick ones are repeated")
	parts := flag.String("part", "", "comma-separated: "+strings.Join(backupbench.Parts, ", ")+"; empty: all")
	dir := flag.String("dir", "", "folder for everything, which is removed at the end; empty: a temporary one")
	flag.StringVar(&o.Profile, "profile", "", "folder for processor profiles of our side; empty: none")
	flag.Parse()
	o.Attachments = int64(*mib) << 20
	if *parts != "" {
		o.Parts = strings.Split(*parts, ",")
	}
	if err := run(context.Background(), *dir, o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, parent string, o backupbench.Options) error {
	dir, err := os.MkdirTemp(parent, "backupbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.Dir, o.Progress = dir, os.Stderr
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("not known")
	}
	first, _, _ := strings.Cut(string(load), " ")
	fmt.Printf("%s, %s/%s, %d CPUs, load %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), first)
	return backupbench.Run(ctx, os.Stdout, o)
}

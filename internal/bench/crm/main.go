// Command crm measures a million customers behind crm/guard beside the same queries by hand on the same database.
//
//	go run -C internal/bench ./crm                                                    both engines, many minutes and 10 GB of disk
//	go run -C internal/bench ./crm -rows 1000000 -engine sqlite -keep /var/tmp/crm    the filled database stays for the next run
//	go run -C internal/bench ./crm -rows 100000 -engine sqlite -part pages,get        parts of it
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/internal/bench/crmbench"
)

func main() {
	o := crmbench.Options{Progress: os.Stderr}
	flag.IntVar(&o.Rows, "rows", 1_000_000, "customers in all")
	flag.IntVar(&o.Owned, "owned", 0, "of them the sales person's; 0: six of a hundred")
	engines := flag.String("engine", "sqlite,postgres", "comma-separated engines")
	parts := flag.String("part", "", "comma-separated: "+strings.Join(crmbench.Parts, ", ")+"; empty: all")
	flag.StringVar(&o.Keep, "keep", "", "folder where filled databases stay for the next run; empty: nowhere")
	flag.StringVar(&o.Profile, "profile", "", "folder for processor profiles; empty: none")
	testing.Init()
	flag.Parse()
	o.Engines = strings.Split(*engines, ",")
	if *parts != "" {
		o.Parts = strings.Split(*parts, ",")
	}
	fmt.Printf("%s, %s/%s, %d CPUs, load %s, %d customers\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), loadavg(), o.Rows)
	rep, err := crmbench.Run(context.Background(), o)
	if rep != nil {
		if err := rep.Print(os.Stdout); err != nil {
			log.Fatal(err)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("load at the end %s\n", loadavg())
}

// loadavg is the machine's load, where it says it.
func loadavg() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "not known"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

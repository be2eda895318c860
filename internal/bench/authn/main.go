// Command authn measures whether the time of a sign-in tells a known name from an unknown one, and prints Welch's t:
// below 4.5, or above -4.5, is no difference that so many pairs could show.
//
//	go run -C internal/bench ./authn                       10,000 pairs of each kind, with the least parameters; half an hour
//	go run -C internal/bench ./authn -memory 1024 -time 1  with cheaper ones, which show smaller differences; minutes
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"runtime"

	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/internal/bench/authnbench"
)

func main() {
	floor := password.Floor()
	pairs := flag.Int("pairs", 10_000, "pairs of each kind")
	memory := flag.Uint("memory", uint(floor.Memory), "KiB of a hash")
	passes := flag.Uint("time", uint(floor.Time), "passes of a hash")
	flag.Parse()
	params := password.Params{Memory: uint32(*memory), Time: uint32(*passes), Threads: 1}
	fmt.Printf("%s, %s/%s, %d CPUs; Argon2id with %d KiB, %d passes\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), params.Memory, params.Time)
	results, err := authnbench.Run(context.Background(), *pairs, authnbench.Options{Params: params, Insecure: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r)
	}
}

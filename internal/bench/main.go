// Command bench measures crmguard beside unprotected peers and prints one table. See ./guard and ./encrypt
// for its parts.
//
//	go run -C internal/bench .
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"runtime"

	"github.com/crmguard/crmguard/internal/bench/encryptbench"
	"github.com/crmguard/crmguard/internal/bench/guardbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

func main() {
	ctx := context.Background()
	figures, err := guardbench.Run(ctx, 2000, measure.Options{})
	if err != nil {
		log.Fatal(err)
	}
	more, err := encryptbench.Run(ctx, measure.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %s/%s, %d CPUs\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if err := measure.Print(os.Stdout, append(figures, more...)); err != nil {
		log.Fatal(err)
	}
}

// Command guard compares reading through crm/guard with the same query without protection.
//
//	go run -C internal/bench ./guard
package main

import (
	"context"
	"log"
	"os"

	"github.com/crmguard/crmguard/internal/bench/guardbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

func main() {
	figures, err := guardbench.Run(context.Background(), 2000, measure.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := measure.Print(os.Stdout, figures); err != nil {
		log.Fatal(err)
	}
}

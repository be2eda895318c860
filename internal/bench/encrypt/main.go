// Command encrypt compares a sealed 64-byte field with AES-256-GCM of the standard library.
//
//	go run -C internal/bench ./encrypt
package main

import (
	"context"
	"log"
	"os"

	"github.com/crmguard/crmguard/internal/bench/encryptbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

func main() {
	figures, err := encryptbench.Run(context.Background(), measure.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := measure.Print(os.Stdout, figures); err != nil {
		log.Fatal(err)
	}
}

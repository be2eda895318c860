// Command encrypt measures package encrypt beside the standard library, Tink and a real Vault, in one run.
//
//	go run -C internal/bench ./encrypt            a minute, and another for a million keys
//	go run -C internal/bench ./encrypt -quick     without the million
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/bench/encryptbench"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/realtest"
)

func main() {
	quick := flag.Bool("quick", false, "leave out the million keys")
	testing.Init()
	flag.Parse()
	if err := run(context.Background(), *quick); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, quick bool) error {
	fmt.Printf("%s, %s/%s, %d CPUs\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	figures, err := encryptbench.Run(ctx, measure.Options{CPU: true})
	if err != nil {
		return err
	}
	streams, err := encryptbench.Streams(ctx, 64<<20, measure.Options{Rounds: 15, Round: 200 * time.Millisecond, CPU: true})
	if err != nil {
		return err
	}
	figures = append(figures, streams...)
	var lines []string
	for _, f := range streams {
		if !f.Peer {
			lines = append(lines, fmt.Sprintf("%s, %s: %.0f %% of tink-go's speed", f.Work, f.Variant, 100/f.Ratio))
		}
	}
	err = withVault(ctx, func(kek *vault.KEK) error {
		vault, line, err := encryptbench.Vault(ctx, kek, 100_000, measure.Options{Rounds: 9})
		figures, lines = append(figures, vault...), append(lines, line)
		return err
	})
	if err != nil {
		lines = append(lines, "against Vault: not measured: "+err.Error())
	}
	fmt.Println("fields, records, tokens and streams: processor time; against Vault: time on the wall; medians of rounds that take turns")
	fmt.Println("a ratio is time by the peer's time in the same round: below 1 is faster than the peer")
	if err := measure.Print(os.Stdout, figures); err != nil {
		return err
	}
	cold, err := encryptbench.Cold(ctx, 100_000)
	if err != nil {
		return err
	}
	lines = append(lines, cold)
	if !quick {
		memory, err := encryptbench.Memory(ctx, 1_000_000, 50_000)
		if err != nil {
			return err
		}
		lines = append(lines, memory)
	}
	fmt.Println()
	for _, l := range lines {
		fmt.Println(l)
	}
	return nil
}

// withVault runs f against a real Vault on loopback.
func withVault(ctx context.Context, f func(*vault.KEK) error) error {
	return measure.Servers(func(tb testing.TB) error {
		server := realtest.Vault(tb)
		kek, err := vault.Open(ctx, vault.Config{Key: "bench", Address: server.Addr, Token: server.Root})
		if err != nil {
			return err
		}
		defer kek.Close()
		return f(kek)
	})
}

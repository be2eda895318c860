package fleet_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io/fs"
	"log"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/fleet"
	"github.com/crmguard/crmguard/audit/memstore"
)

// Two instances send their heads; the second one is lost with its disk.
func Example() {
	ctx := context.Background()
	open := func(name string, store driver.Store) (*audit.Log, string) {
		seed := make([]byte, ed25519.SeedSize) // a program has random keys
		copy(seed, name)
		signer, err := audit.NewEd25519Signer(name, ed25519.NewKeyFromSeed(seed))
		if err != nil {
			log.Fatal(err)
		}
		l, err := audit.Open(ctx, store, signer, nil)
		if err != nil {
			log.Fatal(err)
		}
		return l, signer.VerifierKey()
	}
	all := memstore.New()
	l, key := open("crm.example.com/logs", all)
	ledger, err := fleet.Open(ctx, l, nil)
	if err != nil {
		log.Fatal(err)
	}
	stores := map[string]driver.Store{"crm.example.com/1": memstore.New(), "crm.example.com/2": memstore.New()}
	for _, name := range []string{"crm.example.com/1", "crm.example.com/2"} {
		instance, own := open(name, stores[name])
		if err := ledger.Enroll(ctx, own); err != nil {
			log.Fatal(err)
		}
		if _, err := instance.Append(ctx, audit.Event{Action: "customer.read", Outcome: audit.Allowed}); err != nil {
			log.Fatal(err)
		}
		head, err := instance.Checkpoint(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if err := ledger.Record(ctx, head.Note); err != nil { // from elsewhere: Push
			log.Fatal(err)
		}
	}
	delete(stores, "crm.example.com/2")

	head, err := l.Checkpoint(ctx)
	if err != nil {
		log.Fatal(err)
	}
	report, err := fleet.Verify(ctx, all, []string{key}, &audit.VerifyOptions{Pins: [][]byte{head.Note}},
		func(origin string) (driver.Store, error) {
			if s, ok := stores[origin]; ok {
				return s, nil
			}
			return nil, fs.ErrNotExist
		})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range report.Logs {
		fmt.Println(m.Origin, m.Verdict.State)
	}
	fmt.Println(report.OK())
	// Output:
	// crm.example.com/1 Pinned
	// crm.example.com/2 Missing
	// false
}

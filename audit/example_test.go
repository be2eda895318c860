package audit_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/memstore"
)

func exampleLog(store *memstore.Store) (*audit.Log, audit.Signer) {
	// A program uses audit.OpenSigningKey and filestore.Open.
	signer, err := audit.NewEd25519Signer("crm.example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		log.Fatal(err)
	}
	clock := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	l, err := audit.Open(context.Background(), store, signer, &audit.Options{Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	return l, signer
}

func Example() {
	ctx := context.Background()
	store := memstore.New()
	l, signer := exampleLog(store)
	receipt, err := l.Append(ctx, audit.Event{
		Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: "emp-7",
		Targets: []audit.Target{{Type: "customer", ID: "c-42"}}, Fields: []string{"name", "phone"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("durable at", receipt.Index)
	head, err := l.Checkpoint(ctx) // keep head.Note elsewhere
	if err != nil {
		log.Fatal(err)
	}
	l.Close()

	verdict, err := audit.Verify(ctx, store, []string{signer.VerifierKey()}, &audit.VerifyOptions{
		Pins: [][]byte{head.Note}, Clock: func() time.Time { return head.Time.Add(time.Minute) }})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(verdict.OK(), verdict)
	// Output:
	// durable at 1
	// true Pinned; 2 events, signed 1m0s ago, pinned at 2; details: 0 opened, 0 erased, 0 unchecked
}

func ExampleLog_Query() {
	ctx := context.Background()
	l, _ := exampleLog(memstore.New())
	defer l.Close()
	for _, id := range []string{"c-1", "c-2", "c-1"} {
		if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed,
			Targets: []audit.Target{{Type: "customer", ID: id}}}); err != nil {
			log.Fatal(err)
		}
	}
	timeline, err := l.Query(ctx, audit.Filter{TargetType: "customer", TargetID: "c-1"}, l.Size(), 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range timeline {
		fmt.Println(e.Index, e.Event.Action)
	}
	// Output:
	// 3 customer.read
	// 1 customer.read
}

func ExampleLog_Events() {
	l, _ := exampleLog(memstore.New())
	defer l.Close()
	for e, err := range l.Events(context.Background(), 0) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Index, e.Event.Action, e.Event.Time.Format(time.DateOnly))
	}
	// Output:
	// 0 audit.created 2026-01-02
}

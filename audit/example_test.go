package audit_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"time"

	"golang.org/x/mod/sumdb/tlog"

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

func ExampleLog_AppendAsync() {
	ctx := context.Background()
	l, _ := exampleLog(memstore.New())
	defer l.Close()
	pending, err := l.AppendAsync(ctx, audit.Event{Action: "page.view", Activity: audit.Read, Outcome: audit.Allowed, Actor: "emp-7"})
	if err != nil {
		log.Fatal(err)
	}
	// Other work.
	receipt, err := pending.Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("durable at", receipt.Index)
	// Output:
	// durable at 1
}

func ExampleVerifyReceipt() {
	ctx := context.Background()
	l, signer := exampleLog(memstore.New())
	defer l.Close()
	r, err := l.Append(ctx, audit.Event{Action: "person.erase", Activity: audit.Erase, Outcome: audit.Allowed, Actor: "emp-7"})
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := l.Tree().Receipt(ctx, r.Index) // hand it out, as "erasure.tlog-proof"
	if err != nil {
		log.Fatal(err)
	}

	// Whoever has the receipt and the verifier key needs no log.
	e, head, err := audit.VerifyReceipt(receipt, []string{signer.VerifierKey()})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Event.Action, "by", e.Event.Actor, "is event", e.Index, "of", head.Size, "in", head.Origin)
	// Output:
	// person.erase by emp-7 is event 1 of 2 in crm.example.com/log
}

func ExampleTree_Consistency() {
	ctx := context.Background()
	l, _ := exampleLog(memstore.New())
	defer l.Close()
	old, err := l.Checkpoint(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Outcome: audit.Allowed}); err != nil {
		log.Fatal(err)
	}
	tree := l.Tree()
	now := tree.Checkpoint()
	proof, err := tree.Consistency(ctx, old.Size)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tlog.CheckTree(proof, int64(now.Size), now.Root, int64(old.Size), old.Root))
	// Output:
	// <nil>
}

func ExampleVerify_resume() {
	ctx := context.Background()
	store := memstore.New()
	l, signer := exampleLog(store)
	defer l.Close()
	keys := []string{signer.VerifierKey()}
	clock := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC) }
	first, err := audit.Verify(ctx, store, keys, &audit.VerifyOptions{Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Outcome: audit.Allowed}); err != nil {
		log.Fatal(err)
	}
	// Keep first.Resume where nobody else writes.
	next, err := audit.Verify(ctx, store, keys, &audit.VerifyOptions{Start: first.Resume, Clock: clock})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(next)
	// Output:
	// Pinned; 2 events, signed 1s ago, pinned at 1, the first 1 not read again; details: 0 opened, 0 erased, 0 unchecked
}

func ExampleLog_Follow() {
	l, _ := exampleLog(memstore.New())
	go func() {
		defer l.Close() // ends the following, after the last event
		for _, id := range []string{"c-1", "c-2"} {
			if _, err := l.Append(context.Background(), audit.Event{Action: "customer.read", Outcome: audit.Allowed,
				Targets: []audit.Target{{Type: "customer", ID: id}}}); err != nil {
				log.Fatal(err)
			}
		}
	}()
	for e, err := range l.Follow(context.Background(), 1) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Index, e.Event.Action, e.Event.Targets[0].ID)
	}
	// Output:
	// 1 customer.read c-1
	// 2 customer.read c-2
}

func ExampleLog_Replay() {
	ctx := context.Background()
	l, _ := exampleLog(memstore.New())
	defer l.Close()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, s := range []int{30, 10, 100, 5} {
		if _, err := l.Append(ctx, audit.Event{Action: "session.logon", Outcome: audit.Denied, Time: noon.Add(time.Duration(s) * time.Second)}); err != nil {
			log.Fatal(err)
		}
	}
	for e, err := range l.Replay(ctx, 1, time.Minute) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Event.Time.Format(time.TimeOnly), "late:", e.Late)
	}
	// Output:
	// 12:00:10 late: false
	// 12:00:30 late: false
	// 12:00:05 late: true
	// 12:01:40 late: false
}

func ExampleLog_Prune() {
	ctx := context.Background()
	store := memstore.New()
	signer, err := audit.NewEd25519Signer("crm.example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		log.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l, err := audit.Open(ctx, store, signer, &audit.Options{Clock: func() time.Time { return now }, Retention: 365 * 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Append(ctx, audit.Event{Action: "customer.read", Outcome: audit.Allowed}); err != nil {
		log.Fatal(err)
	}
	now = now.AddDate(0, 11, 0)
	_, err = l.Prune(ctx, 2)
	fmt.Println(err)
	now = now.AddDate(0, 2, 0)
	gone, err := l.Prune(ctx, 2)
	fmt.Println(gone, err)
	// Output:
	// audit: events must be kept: event 0 is younger than the retention
	// 2 <nil>
}

package filestore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/filestore"
)

func ExampleOpen() {
	ctx := context.Background()
	data, err := os.MkdirTemp("", "crm")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(data)

	signer, err := audit.OpenSigningKey(filepath.Join(data, "log.key"), "crm.example.com/log")
	if err != nil {
		log.Fatal(err)
	}
	store, err := filestore.Open(filepath.Join(data, "log"), nil)
	if err != nil {
		log.Fatal(err)
	}
	l, err := audit.Open(ctx, store, signer, nil)
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := l.Append(ctx, audit.Event{Action: "session.logon", Activity: audit.Logon, Outcome: audit.Denied, Actor: "emp-7"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Index, l.Size())
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	verdict, err := audit.Verify(ctx, store, []string{signer.VerifierKey()}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(verdict.State, verdict.Size, verdict.OK())
	// Output:
	// 1 2
	// Unanchored 2 false
}

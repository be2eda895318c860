package memstore_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/memstore"
)

func ExampleNew() {
	signer, err := audit.NewEd25519Signer("crm.example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		log.Fatal(err)
	}
	l, err := audit.Open(context.Background(), memstore.New(), signer, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	fmt.Println(l.Size())
	// Output: 1
}

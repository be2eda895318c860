package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/session/memstore"
)

func Example() {
	ctx := context.Background()
	secret := bytes.Repeat([]byte{1}, 32) // in earnest: random, from where keys are kept
	sealer, err := session.NewKeySealer(secret)
	if err != nil {
		log.Fatal(err)
	}
	m, err := session.New(memstore.New(), sealer, [][]byte{secret}, nil)
	if err != nil {
		log.Fatal(err)
	}
	epoch, err := m.Epoch(ctx, "acme", "ann")
	if err != nil {
		log.Fatal(err)
	}
	// Here the account is looked up and its factors are verified.
	s, token, err := m.Start(ctx, session.SignIn{
		Tenant: "acme", Person: "ann", Epoch: epoch, Methods: []authn.Method{authn.Passkey}, Visit: session.Visit{Agent: "curl/8"},
	})
	if err != nil {
		log.Fatal(authn.Reason(err))
	}
	fmt.Println(token, s.Level, s.Signals)

	s, err = m.Check(ctx, token, session.Visit{Agent: "curl/8"})
	fmt.Println(s.Person, err, m.Fresh(s, session.Export))

	if _, err := m.EndAll(ctx, "acme", "ann"); err != nil {
		log.Fatal(err)
	}
	_, err = m.Check(ctx, token, session.Visit{Agent: "curl/8"})
	fmt.Println(err, errors.Is(err, authn.ErrRefused), authn.Reason(err))
	// Output:
	// *** AAL2 [new_device]
	// ann <nil> <nil>
	// authn: refused true session: no such session
}

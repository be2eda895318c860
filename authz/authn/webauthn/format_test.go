package webauthn_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/authz/authn/webauthn/memstore"
)

var update = flag.Bool("update", false, "write the golden file anew")

// TestFormat1: rows of format version 1 are as they were when the version was fixed.
func TestFormat1(t *testing.T) {
	w := newWorld(t, nil)
	at := time.Date(2026, 11, 27, 9, 0, 0, 123e6, time.UTC)
	r := webauthn.Record{
		ID: bytes.Repeat([]byte{0xa1}, 16), Tenant: "acme", Person: "ann", Handle: bytes.Repeat([]byte{0xb2}, 32), Name: []byte("sealed"), PublicKey: []byte{0xa1, 1, 2},
		Model: bytes.Repeat([]byte{0xc3}, 16), Format: "none", Transports: "internal,usb", BackupEligible: true, BackedUp: true, Count: 7, Created: at, Used: at.Add(time.Hour),
	}
	r.MAC = w.MACOf(&r)
	out := fmt.Sprintf("key: %x\nid: %x\ntenant: %s\nperson: %s\nhandle: %x\nname: %x\npublic_key: %x\nmodel: %x\nformat: %s\ntransports: %s\nbackup_eligible: %t\nbacked_up: %t\ncount: %d\ncreated: %d\nused: %d\ncloned: 0\nmac: %x\n",
		key, r.ID, r.Tenant, r.Person, r.Handle, r.Name, r.PublicKey, r.Model, r.Format, r.Transports, r.BackupEligible, r.BackedUp, r.Count, r.Created.UnixMilli(), r.Used.UnixMilli(), r.MAC)
	const name = "testdata/passkey-v1.txt"
	if *update {
		if err := os.WriteFile(name, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != out {
		t.Errorf("%v; got\n%s", err, out)
	}
}

// FuzzResponse: whatever a browser sends is an answer or a refusal, never a sign-in.
func FuzzResponse(f *testing.F) {
	w := newWorld(f, nil)
	d := w.enrolled("ann", false)
	options, _, err := w.BeginSignIn(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.get(options))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, response []byte) {
		ctx := context.Background()
		_, secret, err := w.BeginSignIn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := w.FinishSignIn(ctx, secret, response); err == nil {
			t.Errorf("%q signs %s in", response, c.Person)
		}
		if _, secret, err = w.BeginEnrolment(ctx, "acme", "bob", webauthn.Names{Account: "bob"}); err != nil {
			t.Fatal(err)
		}
		if c, err := w.FinishEnrolment(ctx, secret, "", response); err == nil {
			t.Errorf("%q enrols %s", response, c.ID)
		}
	})
}

func Example() {
	ctx := context.Background()
	secretKey := bytes.Repeat([]byte{1}, 32) // in earnest: random, from where keys are kept
	sealer, err := session.NewKeySealer(secretKey)
	if err != nil {
		log.Fatal(err)
	}
	site := webauthn.Site{ID: "crm.example.com", Name: "CRM", Origins: []string{"https://crm.example.com"}}
	p, err := webauthn.New(site, memstore.New(), &once.Memory{}, sealer, secretKey, nil)
	if err != nil {
		log.Fatal(err)
	}
	options, ceremony, err := p.BeginEnrolment(ctx, "acme", "ann", webauthn.Names{Account: "ann", Display: "Ann"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(options) > 0, len(ceremony) > 0)
	// The page hands the options to navigator.credentials.create and posts the answer.
	_, err = p.FinishEnrolment(ctx, ceremony, "phone", []byte(`{"id":"made up"}`))
	fmt.Println(err)
	// Output:
	// true true
	// authn: refused
}

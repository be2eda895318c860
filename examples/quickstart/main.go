// Command quickstart protects a struct of your own: a policy decides each field, every reading is
// logged before it happens, values are sealed under the keys of one person.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

// Donor is any struct: each field says its class, personal ones are sealed and print as ***.
type Donor struct {
	crm.Meta[Donor]
	Name  crm.Text `protect:"personal,index=exact:name,mask=name"`
	Phone crm.Text `protect:"personal,index=exact:phone,mask=phone"`
	Gift  int64    `protect:"internal"`
}

func main() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "quickstart")
	check(err)
	defer os.RemoveAll(dir)
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil) // encrypt/vault in production
	check(err)
	keeper, err := encrypt.NewKeeper(kek, keys.NewMemory(), nil)
	check(err)
	signer, err := audit.OpenSigningKey(filepath.Join(dir, "signing.key"), "example.com/log")
	check(err)
	trail, err := audit.Open(ctx, auditmem.New(), signer, nil)
	check(err)
	policy, err := rego.New(ctx, nil)
	check(err)
	g, _, err := guard.New(ctx, memstore.New(), keeper, policy, trail, nil)
	check(err)
	donors, err := guard.For[*Donor](ctx, g, &guard.TypeOptions{Type: "contact"}) // takes the policy's rules for contacts
	check(err)

	lin := guard.Caller{Subject: authz.Subject{
		ID: crm.NewUUID().String(), Tenant: "default", Roles: []string{"sales"}, Team: "/east/", Active: true,
	}}
	boss := guard.Caller{Subject: authz.Subject{
		ID: crm.NewUUID().String(), Tenant: "default", Roles: []string{"manager"}, Team: "/east/", Active: true,
	}}
	v, err := donors.Create(ctx, lin, &Donor{
		Name: crm.NewText("曾志伟"), Phone: crm.NewText("138 0013 5678"), Gift: 500_00,
	})
	check(err)
	id := v.Value.ID.UUID()
	fmt.Println("sales sees  ", v.Value.Phone.Expose(), v.Value.Phone.State())
	v, err = donors.Get(ctx, boss, id)
	check(err)
	fmt.Println("manager sees", v.Value.Phone.Expose(), "because", v.Controls)
	found, err := donors.Search(ctx, lin, "+86 13800135678", 10, "phone")
	check(err)
	fmt.Println("found by another spelling:", len(found.Items), "printed:", found.Items[0].Value.Phone)
	fmt.Println("events in the log:", trail.Size())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

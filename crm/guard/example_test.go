package guard_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"os"

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

// Patient is a struct of your own. Its tags say what may be in the clear, what is sealed, and what it is found by.
type Patient struct {
	crm.Meta[Patient]
	Name  crm.Text `protect:"personal,index=exact:name,leaks=equality,distinct=100000,mask=name" json:"name"`
	Blood crm.Text `protect:"personal" json:"blood"`
	Ward  string   `protect:"internal,indexed" json:"ward"`
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// A program protects a struct of its own: keys, log, policy and store make a guard, and every operation goes through it.
func Example() {
	ctx := context.Background()
	kek := must(localkek.Open(must(os.MkdirTemp("", ""))+"/kek", nil)) // encrypt/vault where it counts
	keeper := must(encrypt.NewKeeper(kek, keys.NewMemory(), nil))      // encrypt/sqlstore
	signer := must(audit.NewEd25519Signer("example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32))))
	trail := must(audit.Open(ctx, auditmem.New(), signer, nil)) // audit/filestore
	policy := must(rego.New(ctx, &rego.Options{Policy: must(rego.Extend(rego.Embedded(), `{"settings": {"grants": {
		"support": {"patient": {"list": "own", "read": "own", "search": "own", "create": "own"}},
		"manager": {"patient": {"list": "team", "read": "team", "aggregate": "team"}}}}}`))}))
	g, _, err := guard.New(ctx, memstore.New(), keeper, policy, trail, nil) // crm/sqlstore
	if err != nil {
		log.Fatal(err)
	}
	patients := must(guard.For[*Patient](ctx, g, nil))

	nurse := guard.Caller{Subject: authz.Subject{ID: crm.NewUUID().String(), Tenant: "default", Roles: []string{"support"}, Team: "/a/", Active: true}}
	other := nurse
	other.Subject.ID = crm.NewUUID().String()
	v := must(patients.Create(ctx, nurse, &Patient{Name: crm.NewText("Ann Lee"), Blood: crm.NewText("AB"), Ward: "3"}))
	fmt.Println(v.Value.Name.Expose(), v.Value.Blood.State(), v.Value.Ward)
	_, err = patients.Get(ctx, other, v.Value.ID.UUID())
	fmt.Println(err)
	found := must(patients.Search(ctx, nurse, "ann lee", 10, "name"))
	fmt.Println(len(found.Items), found.Items[0].Value.Name)
	last := must(trail.Query(ctx, audit.Filter{}, trail.Size(), 1))
	fmt.Println(last[0].Event.Action, last[0].Event.Fields)
	// Output:
	// A*** Lee masked 3
	// crm: not found
	// 1 ***
	// patient.search [name:masked blood:masked]
}

package outbox_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

func some[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// An administrator makes an endpoint, and its receiver hears of the next customer, with the telephone number masked as in the administrator's lists.
func Example() {
	ctx := context.Background()
	keeper := some(encrypt.NewKeeper(some(localkek.Open(some(os.MkdirTemp("", ""))+"/kek", nil)), keys.NewMemory(), nil))
	signer := some(audit.NewEd25519Signer("example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32))))
	trail := some(audit.Open(ctx, auditmem.New(), signer, nil))
	g, _, err := guard.New(ctx, memstore.New(), keeper, some(rego.New(ctx, nil)), trail, nil)
	if err != nil {
		log.Fatal(err)
	}
	customers := some(guard.For[*crm.Customer](ctx, g, nil))
	records := outbox.Records{
		Endpoints: some(guard.For[*outbox.Endpoint](ctx, g, nil)), Deliveries: some(guard.For[*outbox.Delivery](ctx, g, nil)), Cursors: some(guard.For[*outbox.Cursor](ctx, g, nil)),
	}

	var secret outbox.Secret
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Println(outbox.Verify(r.Header, body, time.Now(), 0, secret) == nil, len(r.Header.Get("webhook-id")) > 0)
	}))
	defer receiver.Close()
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())

	program := guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
	admin := guard.Caller{Subject: authz.Subject{ID: crm.NewUUID().String(), Tenant: "default", Roles: []string{"admin"}, Team: "/hq/", Active: true}}
	ob := outbox.New(g, records, program, &outbox.Options{
		Caller: func(_ context.Context, id crm.ID[crm.Employee]) (guard.Caller, bool, error) {
			return admin, id.String() == admin.Subject.ID, nil // the directory
		},
		TLS: &tls.Config{RootCAs: roots}, InsecureLocal: true, // for this test: else neither
	}, outbox.From(customers))

	e := &outbox.Endpoint{Name: "shop", URL: crm.NewText(receiver.URL), Types: []string{"customer"}, Acts: []string{outbox.ActChanged, outbox.ActDeleted}}
	secret = some(ob.Create(ctx, admin, e))
	some(customers.Create(ctx, admin, &crm.Customer{Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Name: crm.NewText("Ann Lee"), Phone: crm.NewText("13800135678")}))
	fmt.Println(some(ob.Collect(ctx)), some(ob.Deliver(ctx))) // Run does both, again and again
	// Output:
	// true true
	// 1 1
}

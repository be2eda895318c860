package dedupe_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// shop is customers behind a guard, with an administrator and a sales person.
type shop struct {
	guard        *guard.Guard
	keeper       *encrypt.Keeper
	customers    *guard.Records[*crm.Customer]
	contacts     *guard.Records[*crm.Contact]
	merges       *guard.Records[*crm.Merge]
	admin, sales guard.Caller
}

func newShop(ctx context.Context) (s shop, done func()) {
	dir := must(os.MkdirTemp("", ""))
	s.keeper = must(encrypt.NewKeeper(must(localkek.Open(filepath.Join(dir, "kek"), nil)), keys.NewMemory(), nil))
	signer := must(audit.NewEd25519Signer("example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32))))
	trail := must(audit.Open(ctx, auditmem.New(), signer, nil))
	g, _, err := guard.New(ctx, memstore.New(), s.keeper, must(rego.New(ctx, nil)), trail, nil)
	if err != nil {
		log.Fatal(err)
	}
	s.guard = g
	s.customers = must(guard.For[*crm.Customer](ctx, g, nil))
	s.contacts = must(guard.For[*crm.Contact](ctx, g, nil))
	s.merges = must(guard.For[*crm.Merge](ctx, g, nil))
	s.admin, s.sales = as("admin", 1, "/hq/"), as("sales", 2, "/east/1/")
	return s, func() { os.RemoveAll(dir) }
}

func (s *shop) add(ctx context.Context, c guard.Caller, name, phone string) *crm.Customer {
	v := &crm.Customer{Name: crm.NewText(name), Phone: crm.NewText(phone), Kind: crm.PersonCustomer, Stage: crm.CustomerNew}
	must(s.customers.Create(ctx, c, v))
	return v
}

// A checker finds what was typed in another spelling on sealed fields. Who may not read a duplicate learns that it is there, and whom to ask.
func ExampleChecker_Check() {
	ctx := context.Background()
	s, done := newShop(ctx)
	defer done()
	s.add(ctx, s.admin, "Stephen Wright", "+44 7400 123456")
	checker := must(dedupe.New(s.customers, nil, nil))
	typed := &crm.Customer{Kind: crm.PersonCustomer, Name: crm.NewText("WRIGHT, Steven"), Phone: crm.NewText("0044 7400 123456")}
	for _, c := range []guard.Caller{s.admin, s.sales} {
		for _, m := range must(checker.Check(ctx, c, typed)) {
			fmt.Println(c.Subject.Roles[0], m.Band, fmt.Sprintf("%.2f", m.Score), m.Why, !m.ID.IsZero(), m.Owner.String() == s.admin.Subject.ID)
		}
	}
	// Output:
	// admin certain 0.98 [name: phonetic phone: normalised] true false
	// sales certain 0.00 [] false true
}

// Rules of one's own are data. A field that the type does not have is an error.
func ExampleNew() {
	ctx := context.Background()
	s, done := newShop(ctx)
	defer done()
	rules := must(dedupe.Parse([]byte(`{"type":"customer","tell":"nothing","likely":0.9,"certain":1,
		"score":{"fields":["email"],"as":"normalised","by":"email"},"keys":[{"fields":["email"],"index":"exact:email"}]}`)))
	_, err := dedupe.New(s.customers, rules, nil)
	fmt.Println(err)
	rules.Score.Fields = []string{"e-mail"}
	_, err = dedupe.New(s.customers, rules, nil)
	fmt.Println(err)
	// Output:
	// <nil>
	// dedupe: crm: invalid customer: e-mail unknown_value
}

// All goes over every record, for who may read all of them.
func ExampleChecker_All() {
	ctx := context.Background()
	s, done := newShop(ctx)
	defer done()
	s.add(ctx, s.sales, "Ann Lee", "13800135678")
	s.add(ctx, s.admin, "Anne Lee", "+86 138 0013 5678")
	s.add(ctx, s.admin, "Bea Kay", "13900001111")
	checker := must(dedupe.New(s.customers, nil, nil))
	report, err := checker.All(ctx, s.admin, nil, func(p guard.Pair) error {
		fmt.Println(p.Band, p.Why)
		return nil
	})
	fmt.Println(report.Rows, report.Certain, err)
	_, err = checker.All(ctx, s.sales, nil, func(guard.Pair) error { return nil })
	fmt.Println(guard.Denied(err))
	// Output:
	// certain [name: jaro phone: normalised]
	// 3 1 <nil>
	// true
}

// A merger makes one record of two, with what refers to them, and takes it back.
func ExampleMerger() {
	ctx := context.Background()
	s, done := newShop(ctx)
	defer done()
	keep, drop := s.add(ctx, s.sales, "Ann Lee", "13800135678"), s.add(ctx, s.sales, "Anne Lee", "13900001111")
	must(s.contacts.Create(ctx, s.sales, &crm.Contact{Customer: drop.ID, Name: crm.NewText("Bea Kay")}))
	system := guard.Caller{Subject: authz.Subject{ID: "system", Tenant: "default", Roles: []string{"system"}, Active: true}}
	merger := dedupe.NewMerger(s.guard, s.customers, s.merges, s.keeper, &dedupe.MergeOptions{
		Program:    func(string) guard.Caller { return system },
		References: []dedupe.Reference{dedupe.Refers(s.contacts, "customer")},
	})
	m := must(merger.Merge(ctx, s.sales, dedupe.Target{ID: keep.ID.UUID(), Version: 1}, dedupe.Target{ID: drop.ID.UUID(), Version: 1}, dedupe.Choice{"phone"}))
	v := must(s.customers.Get(ctx, s.sales, keep.ID.UUID()))
	fmt.Println(m.State, m.TakenFields(), v.Value.Phone)
	undone := must(merger.Undo(ctx, s.sales, m.ID.UUID()))
	v = must(s.customers.Get(ctx, s.sales, keep.ID.UUID()))
	fmt.Println(undone.Fields, undone.Moved, v.Value.Phone)
	_, err := merger.Undo(ctx, s.sales, m.ID.UUID())
	fmt.Println(err)
	// Output:
	// merged [phone] ***
	// [phone] 1 ***
	// dedupe: the merge cannot be undone: undone
}

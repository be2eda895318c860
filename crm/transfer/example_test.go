package transfer_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	auditmem "github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/memstore"
	"github.com/crmguard/crmguard/crm/transfer"
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

// open makes a CRM in memory, an administrator, and the importer of its customers.
func open(ctx context.Context) (transfer.Doors, guard.Caller, *guard.Records[*crm.Customer], *transfer.Importer[*crm.Customer]) {
	kek := must(localkek.Open(must(os.MkdirTemp("", ""))+"/kek", nil))
	keeper := must(encrypt.NewKeeper(kek, keys.NewMemory(), nil))
	signer := must(audit.NewEd25519Signer("example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32))))
	g, _, err := guard.New(ctx, memstore.New(), keeper, must(rego.New(ctx, nil)), must(audit.Open(ctx, auditmem.New(), signer, nil)), nil)
	if err != nil {
		log.Fatal(err)
	}
	customers := must(guard.For[*crm.Customer](ctx, g, nil))
	doors := must(transfer.OpenDoors(ctx, g))
	admin := guard.Caller{Subject: authz.Subject{ID: crm.NewUUID().String(), Tenant: "default", Roles: []string{"admin"}, Team: "/hq/", Active: true}}
	return doors, admin, customers, transfer.NewImporter(doors, customers, transfer.Customers(transfer.Others{}), nil)
}

const customersFile = "Customer Id,公司名称,Phone,Email\nK-1,Acme,+44 7700 900123,ann@example.com\nK-2,Bolt,+44 7700 900124,at home\n"

// A file is rehearsed, imported and taken back.
func Example() {
	ctx := context.Background()
	_, admin, customers, importer := open(ctx)
	file := func() transfer.Source { return must(transfer.CSV(strings.NewReader(customersFile), nil)) }
	mapping := transfer.Suggest(importer.Fields(), file().Header(), nil) // for a person to look at

	report := must(importer.Rehearse(ctx, admin, file(), mapping, transfer.Create))
	fmt.Println(report.Counts, report.Reasons)
	fmt.Println(must(customers.Count(ctx, admin, guard.Query{})), "stored by a rehearsal")

	job := must(importer.Run(ctx, admin, "customers.csv", file(), mapping, transfer.Create))
	fmt.Println(job.State, job.Created, job.Rejected)
	err := importer.Rejected(ctx, admin, job.ID, func(r transfer.Rejected) error {
		fmt.Println("line", r.Line, r.Reasons, r.Cells[0])
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	job = must(importer.Undo(ctx, admin, job.ID))
	fmt.Println(job.State, job.Undone, job.Left)
	// Output:
	// {2 1 0 0 1 0 0 0} map[email:not_an_email:1]
	// 0 stored by a rehearsal
	// done 1 1
	// line 3 [{email not_an_email []}] K-2
	// undone 1 0
}

// An import that was cut off is gone on with, with the same file; another one is refused.
func ExampleImporter_Resume() {
	ctx := context.Background()
	_, admin, _, importer := open(ctx)
	src := must(transfer.CSV(strings.NewReader(customersFile), nil))
	mapping := transfer.Suggest(importer.Fields(), src.Header(), nil)
	job := must(importer.Begin(ctx, admin, "customers.csv", src.Header(), mapping, transfer.Create)) // and the process ends
	_, err := importer.Resume(ctx, admin, job.ID, must(transfer.CSV(strings.NewReader("another,header\n"), nil)))
	fmt.Println(err)
	job = must(importer.Resume(ctx, admin, job.ID, src))
	fmt.Println(job.State, job.Created)
	// Output:
	// transfer: another file than the import began with
	// done 1
}

// What the program needs to go on with an import is kept sealed beside it.
func ExampleBeside() {
	ctx := context.Background()
	doors, admin, customers, _ := open(ctx)
	importer := transfer.NewImporter(doors, customers, transfer.Customers(transfer.Others{}), &transfer.Options[*crm.Customer]{Beside: "where the file lies, and its key"})
	src := must(transfer.CSV(strings.NewReader(customersFile), nil))
	job := must(importer.Begin(ctx, admin, "", src.Header(), transfer.Suggest(importer.Fields(), src.Header(), nil), transfer.Create))
	fmt.Println(must(transfer.Beside(ctx, doors, admin, job.ID)))
	// Output: where the file lies, and its key
}

// What imports kept goes after two weeks.
func ExampleSweep() {
	ctx := context.Background()
	doors, admin, _, importer := open(ctx)
	src := must(transfer.CSV(strings.NewReader(customersFile), nil))
	must(importer.Run(ctx, admin, "", src, transfer.Suggest(importer.Fields(), src.Header(), nil), transfer.Create))
	program := admin
	program.Subject.ID, program.Subject.Roles = "system", []string{"system"}
	fmt.Println(must(transfer.Sweep(ctx, doors, program, time.Now(), 100)))
	fmt.Println(must(transfer.Sweep(ctx, doors, program, time.Now().Add(transfer.KeepRejected+time.Minute), 100)))
	// Output:
	// 0
	// 1
}

// A file that cannot be read says why, and nothing that stands in it.
func ExampleCSV() {
	_, err := transfer.CSV(strings.NewReader("phone,phone\n1,2\n"), nil)
	fmt.Println(err)
	src := must(transfer.CSV(bytes.NewReader([]byte("name;phone\nAcme;\"1\"2\n")), nil))
	for row, err := range src.Rows() {
		fmt.Println(row.Line, err)
	}
	// Output:
	// transfer: the file cannot be read: csv: two columns have the same header
	// 2 line 2: bare_quote
}

// A cell that a spreadsheet would calculate gets an apostrophe, which an import takes off again.
func ExampleHarmless() {
	fmt.Println(transfer.Harmless("=HYPERLINK(1)"), transfer.Harmless("+44 7700 900123"), transfer.Harmless("-12.50"), transfer.Harmless("Acme"))
	// Output: '=HYPERLINK(1) '+44 7700 900123 -12.50 Acme
}

// An export shows what the policy leaves of each field, says who took it, and ends with a row by which a file that was cut off is known.
func ExampleExport() {
	ctx := context.Background()
	_, admin, customers, importer := open(ctx)
	src := must(transfer.CSV(strings.NewReader(customersFile), nil))
	must(importer.Run(ctx, admin, "", src, transfer.Suggest(importer.Fields(), src.Header(), nil), transfer.Create))
	options := transfer.ExportOptions[*crm.Customer]{
		Columns: []string{"external_id", "name", "phone"}, Mark: []string{"# taken by", "employee 7"},
		Cell: func(v *guard.View[*crm.Customer], column string) string {
			switch column {
			case "name":
				return v.Value.Name.Expose()
			case "phone":
				return v.Value.Phone.Expose()
			}
			return v.Value.ExternalID
		},
	}
	var file bytes.Buffer
	_, err := transfer.Export(ctx, admin, customers, guard.Query{}, transfer.CSVSink(&file), options)
	fmt.Println(guard.Denied(err), file.Len()) // no reason was given, and nobody said that the file is marked

	admin.Reason, admin.Met = "year-end audit", []authz.Obligation{authz.NeedWatermark}
	rows := must(transfer.Export(ctx, admin, customers, guard.Query{}, transfer.CSVSink(&file), options))
	fmt.Println(rows, "record")
	for _, line := range strings.Split(strings.TrimPrefix(strings.TrimSpace(file.String()), "\ufeff"), "\r\n") {
		if cells := strings.SplitN(line, ",", 2); len(cells[0]) == 36 {
			line = "(id)," + cells[1]
		}
		fmt.Println(line)
	}
	// Output:
	// true 0
	// 1 record
	// # taken by,employee 7
	// id,external_id,name,phone
	// (id),K-1,Acme,447****0123
	// # end
}

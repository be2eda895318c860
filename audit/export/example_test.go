package export_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/export"
	"github.com/crmguard/crmguard/audit/memstore"
)

// exampleLog returns a log with one event after that of its making.
func exampleLog() *audit.Log {
	signer, err := audit.NewEd25519Signer("crm.example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		log.Fatal(err)
	}
	l, err := audit.Open(context.Background(), memstore.New(), signer, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := l.Append(context.Background(), exampleEntry().Event); err != nil {
		log.Fatal(err)
	}
	return l
}

func exampleEntry() audit.Entry {
	return audit.Entry{Receipt: audit.Receipt{Index: 7}, Event: audit.Event{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Action: "customer.read", Activity: audit.Read, Outcome: audit.Denied, Actor: "emp-7",
		Targets: []audit.Target{{Type: "customer", ID: "c-42"}}}}
}

func Example() {
	l := exampleLog()
	defer l.Close()
	dir, err := os.MkdirTemp("", "export")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	sink, err := export.OpenFile(filepath.Join(dir, "events"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close()
	pump, err := export.NewPump(l, export.OCSF(export.Source{Origin: "crm.example.com/log"}), sink, filepath.Join(dir, "cursor"), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- pump.Run(ctx) }()
	for pump.Status().Lag > 0 { // a program goes on with its work
		time.Sleep(time.Millisecond)
	}
	cancel()
	fmt.Println(<-done)
	text, err := os.ReadFile(filepath.Join(dir, "events"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("lines:", strings.Count(string(text), "\n"))
	// Output:
	// context canceled
	// lines: 2
}

func ExampleCEF() {
	format := export.CEF(export.Source{Vendor: "Example", Product: "CRM", Version: "2.1"})
	for _, part := range strings.SplitAfter(string(format(exampleEntry())), "|") {
		text, _, _ := strings.Cut(part, " cs1Label=")
		fmt.Println(text)
	}
	// Output:
	// CEF:0|
	// Example|
	// CRM|
	// 2.1|
	// customer.read|
	// Read denied|
	// 4|
	// rt=1767323045000 externalId=7 act=customer.read cat=Read outcome=failure suid=emp-7
}

func ExampleOCSF() {
	format := export.OCSF(export.Source{Product: "CRM"})
	text, _, _ := strings.Cut(string(format(exampleEntry())), `,"metadata"`)
	fmt.Println(text)
	// Output:
	// {"activity_id":1,"activity_name":"Read","actor":{"app_name":"CRM","user":{"uid":"emp-7"}},"category_name":"Application Activity","category_uid":6,"class_name":"Datastore Activity","class_uid":6005,"database":{"name":"CRM","type_id":0},"message":"customer.read denied"
}

func ExampleECS() {
	format := export.ECS(export.Source{Product: "CRM"})
	_, text, _ := strings.Cut(string(format(exampleEntry())), `"event":`)
	text, _, _ = strings.Cut(text, `,"code"`)
	fmt.Println(text)
	// Output:
	// {"action":"customer.read","category":["database"]
}

func ExampleNewHTTP() {
	l := exampleLog()
	defer l.Close()
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		key, _, _ := strings.Cut(r.Header.Get("Idempotency-Key"), "-")
		fmt.Println("from event", key, "lines", strings.Count(string(body), "\n"))
	}))
	defer receiver.Close()
	sink, err := export.NewHTTP(receiver.URL, &export.HTTPOptions{Header: http.Header{"Authorization": {"Splunk token"}}})
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close()
	dir, err := os.MkdirTemp("", "export")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pump, err := export.NewPump(l, export.ECS(export.Source{}), sink, filepath.Join(dir, "cursor"), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- pump.Run(ctx) }()
	for pump.Status().Lag > 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	// Output:
	// from event 0 lines 2
}

func ExampleNewSyslog() {
	_, err := export.NewSyslog("siem.example.com:6514", nil, nil)
	fmt.Println(err)
	sink, err := export.NewSyslog("siem.example.com:6514", &tls.Config{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close()
	fmt.Println("sent again after a failure:", sink.Overlap())
	// Output:
	// export: syslog: TLS is required
	// sent again after a failure: 4096
}

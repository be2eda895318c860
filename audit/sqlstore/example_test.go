package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/sqlstore"
)

func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "crm")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// modernc.org/sqlite; for PostgreSQL sql.Open("pgx", url) and "postgres" below.
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "crm.db")+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := sqlstore.Open(ctx, db, "sqlite", nil)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := audit.OpenSigningKey(filepath.Join(dir, "log.key"), "crm.example.com/log")
	if err != nil {
		log.Fatal(err)
	}
	l, err := audit.Open(ctx, store, signer, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := l.Append(ctx, audit.Event{Action: "session.logon", Activity: audit.Logon, Outcome: audit.Denied, Actor: "emp-7"}); err != nil {
		log.Fatal(err)
	}
	found, err := l.Query(ctx, audit.Filter{Actor: "emp-7"}, l.Size(), 10)
	if err != nil {
		log.Fatal(err)
	}
	head, err := l.Checkpoint(ctx) // to be kept elsewhere
	if err != nil {
		log.Fatal(err)
	}
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}
	verdict, err := audit.Verify(ctx, store, []string{signer.VerifierKey()}, &audit.VerifyOptions{Pins: [][]byte{head.Note}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(found), found[0].Index, verdict.State, verdict.Size)
	// Output: 1 1 Pinned 2
}

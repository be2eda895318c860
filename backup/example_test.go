package backup_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/blobstore"
)

// A host writes backups with the public key only; another one restores.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// Once: the recovery key where backups will be restored, the signer where they are made.
	recovery, err := backupkey.Generate()
	if err != nil {
		log.Fatal(err)
	}
	signer, err := backupkey.CreateSigner(filepath.Join(dir, "signer"))
	if err != nil {
		log.Fatal(err)
	}
	pin := signer.Public().(ed25519.PublicKey)

	bucket, err := blobstore.Open(ctx, "mem://")
	if err != nil {
		log.Fatal(err)
	}
	repo, err := backup.Open(ctx, bucket, pin, &backup.Options{Signer: signer, Recipient: recovery.Public()})
	if err != nil {
		log.Fatal(err)
	}
	snap, err := repo.Backup(ctx, backuptest.Rows(1000), nil) // sqlsource.SQLite(db, nil) is a source too
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("snapshot", snap.Head.Number, "rows", snap.Rows)

	report, err := repo.Verify(ctx, &backup.VerifyOptions{Level: backup.Full, Key: recovery})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("faults", report.Err(), "opened", report.Opened)

	var store backuptest.Memory
	_, err = repo.Restore(ctx, "", &store, recovery, nil)
	fmt.Println("restored", len(store.Tables), err)
	_, err = repo.Restore(ctx, "", &store, recovery, nil)
	fmt.Println("again", errors.Is(err, backup.ErrNotEmpty))
	// Output:
	// snapshot 1 rows 1001
	// faults <nil> opened true
	// restored 3 <nil>
	// again true
}

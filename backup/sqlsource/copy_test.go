package sqlsource_test

import (
	"crypto/ed25519"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

// tryCopy backs one store up and restores it into another.
func tryCopy(t testing.TB, from backup.Source, to backup.Sink) error {
	t.Helper()
	signer := backuptest.Signer()
	repo, err := backup.Open(t.Context(), &backuptest.Bucket{}, signer.Public().(ed25519.PublicKey),
		&backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Backup(t.Context(), from, nil); err != nil {
		return err
	}
	_, err = repo.Restore(t.Context(), "", to, backuptest.Key(t), nil)
	return err
}

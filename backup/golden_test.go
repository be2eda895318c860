package backup_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

// TestGolden restores a repository that an earlier release wrote. Each released format keeps one for ever.
// CRMGUARD_WRITE_GOLDEN=1 writes that of a new format; an existing one is never written over.
func TestGolden(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	keyFile := filepath.Join(dir, "recovery-key")
	if os.Getenv("CRMGUARD_WRITE_GOLDEN") != "" {
		key, err := backup.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := key.WriteFile(keyFile); err != nil {
			t.Fatal(err)
		}
		r := open(t, folder(t, abs(t, dir, "data")), func(o *backup.Options) {
			o.Shards, o.Recipient = folder(t, abs(t, dir, "shards")), key.Public()
			o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
		})
		mustBackup(t, r, backuptest.Rows(2), nil)
		mustBackup(t, r, backuptest.Rows(100), &backup.BackupOptions{Name: "golden", Anchor: []byte("anchor"),
			Keys: &backuptest.Keys{Records: [][]byte{[]byte("key 1"), []byte("key 2")}}, Tombstones: backup.Tombstones{Number: 3, Records: [][]byte{[]byte("tombstone")}}})
	}
	// Version control keeps no modes.
	private, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(copied, private, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := backup.ReadKey(copied)
	if err != nil {
		t.Fatal(err)
	}
	r, err := backup.Open(t.Context(), folder(t, abs(t, dir, "data")), pin, &backup.Options{Shards: folder(t, abs(t, dir, "shards"))})
	if err != nil {
		t.Fatal(err)
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: key}); rep.Err() != nil || !rep.Opened || rep.Loose != 0 {
		t.Fatalf("%+v", rep)
	}
	var got backuptest.Memory
	var keys backuptest.Keys
	var list backup.Tombstones
	snap, err := r.Restore(t.Context(), "", &got, key, &backup.RestoreOptions{Keys: &keys,
		Tombstones: func(_ context.Context, l backup.Tombstones) error { list = l; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, backuptest.Rows(100), &got)
	if snap.Name != "golden" || snap.Head.Number != 2 || string(snap.Anchor) != "anchor" || len(keys.Records) != 2 ||
		!reflect.DeepEqual(list, backup.Tombstones{Number: 3, Records: [][]byte{[]byte("tombstone")}}) {
		t.Fatalf("%+v, %q, %+v", snap, keys.Records, list)
	}
}

func abs(t testing.TB, parts ...string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

package backup_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// TestGolden restores repositories that earlier releases wrote. Each released format keeps one for ever.
// CRMGUARD_WRITE_GOLDEN=1 writes that of the newest format; an existing one is never written over.
func TestGolden(t *testing.T) {
	chain := goldenChain()
	if os.Getenv("CRMGUARD_WRITE_GOLDEN") != "" {
		if dir := filepath.Join("testdata", "v2"); !exists(dir) {
			writeGolden(t, dir, chain)
		}
		if dir := filepath.Join("testdata", "v2-parts"); !exists(dir) {
			writeGoldenParts(t, dir)
		}
	}
	first := backuptest.Rows(100)
	first.Tables[0].Key = nil // version 1 knows no keys
	t.Run("v1", func(t *testing.T) { testGolden(t, first) })
	t.Run("v2", func(t *testing.T) { testGolden(t, chain...) })
}

// goldenChain is a store as three snapshots that build on each other see it: rows change, come and go, with and without a key.
func goldenChain() []*backuptest.Memory {
	a, b, c := backuptest.Rows(100), backuptest.Rows(101), backuptest.Rows(99)
	for _, m := range []*backuptest.Memory{a, b, c} {
		m.Tables = append(m.Tables, backuptest.MemoryTable{
			Table: backup.Table{Name: "children", Columns: []string{"id", "parent"}, Key: []string{"id"}, Parents: map[string]string{"parent": "all_types"}},
			Rows:  [][]any{{"a", int64(7)}, {"b", int64(7)}, {"c", nil}}})
	}
	b.Tables[0].Rows[50][3] = "changed"
	c.Tables[0].Rows[50][3] = "changed again"
	c.Tables[2].Rows = append(c.Tables[2].Rows, []any{int64(1), int64(99)}, []any{int64(2), nil})
	c.Tables[3].Rows[1][1] = int64(8)
	return []*backuptest.Memory{a, b, c}
}

func writeGolden(t *testing.T, dir string, chain []*backuptest.Memory) {
	key, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := key.WriteFile(filepath.Join(dir, "recovery-key")); err != nil {
		t.Fatal(err)
	}
	r := open(t, folder(t, abs(t, dir, "data")), func(o *backup.Options) {
		o.Shards, o.Recipient = folder(t, abs(t, dir, "shards")), key.Public()
		o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	})
	mustBackup(t, r, backuptest.Rows(2), nil)
	for _, m := range chain {
		mustBackup(t, r, m, &backup.BackupOptions{Name: "golden", Anchor: []byte("anchor"), Chain: &policy.Chain{},
			Keys: &backuptest.Keys{Records: [][]byte{[]byte("key 1"), []byte("key 2")}}, Tombstones: backup.Tombstones{Number: 3, Records: [][]byte{[]byte("tombstone")}}})
	}
}

// testGolden restores what lies in the folder of the test's name: a snapshot of two rows, and those of chain.
func testGolden(t *testing.T, chain ...*backuptest.Memory) {
	dir := filepath.Join("testdata", filepath.Base(t.Name()))
	key := goldenKey(t, filepath.Base(t.Name()))
	r, err := backup.Open(t.Context(), folder(t, abs(t, dir, "data")), pin, &backup.Options{Shards: folder(t, abs(t, dir, "shards"))})
	if err != nil {
		t.Fatal(err)
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: key}); rep.Err() != nil || !rep.Opened || rep.Loose != 0 {
		t.Fatalf("%+v", rep)
	}
	all, err := r.Snapshots(t.Context())
	if err != nil || len(all) != 1+len(chain) {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	for i, want := range chain {
		var got backuptest.Memory
		var keys backuptest.Keys
		var list backup.Tombstones
		snap, err := r.Restore(t.Context(), all[1+i].ID, &got, key, &backup.RestoreOptions{Keys: &keys,
			Tombstones: func(_ context.Context, l backup.Tombstones) error { list = l; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		alike(t, want, &got)
		if snap.Name != "golden" || snap.Head.Number != uint64(2+i) || snap.Depth != i || string(snap.Anchor) != "anchor" || len(keys.Records) != 2 ||
			!reflect.DeepEqual(list, backup.Tombstones{Number: 3, Records: [][]byte{[]byte("tombstone")}}) {
			t.Fatalf("%+v, %q, %+v", snap, keys.Records, list)
		}
	}
}

// TestGoldenRecords reads single rows of the repository of version 2; that of version 1 has no index.
func TestGoldenRecords(t *testing.T) {
	golden := func(version string) (*backup.Repository, *backupkey.Private, []backup.Snapshot) {
		r, err := backup.Open(t.Context(), folder(t, abs(t, "testdata", version, "data")), pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r, goldenKey(t, version), all
	}
	r, key, snaps := golden("v2")
	versions, err := r.Versions(t.Context(), "golden", "all_types", []any{int64(47)}, key)
	if err != nil || len(versions) != 3 || versions[1].Row[3] != "changed" || versions[2].Row[3] != "changed again" {
		t.Errorf("%d versions, %v", len(versions), err)
	}
	for i, want := range map[int]int{1: 3, 3: 2} {
		with, err := r.Record(t.Context(), snaps[i].ID, "all_types", []any{int64(7)}, key, &backup.RecordOptions{Children: 1})
		if err != nil || len(with) != want {
			t.Errorf("snapshot %d: %d records, %v; want %d", i, len(with), err, want)
		}
	}
	r, key, snaps = golden("v1")
	if _, err := r.Record(t.Context(), snaps[0].ID, "all_types", []any{int64(7)}, key, nil); err == nil {
		t.Error("a record of version 1 was found")
	}
}

// goldenKey reads the private key of a repository; version control keeps no modes.
func goldenKey(t *testing.T, version string) *backupkey.Private {
	t.Helper()
	private, err := os.ReadFile(filepath.Join("testdata", version, "recovery-key"))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(copied, private, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := backupkey.Read(copied)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func abs(t testing.TB, parts ...string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// writeGoldenParts writes a locked snapshot on a part, and one that found the manifest before it damaged.
func writeGoldenParts(t *testing.T, dir string) {
	key, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := key.WriteFile(filepath.Join(dir, "recovery-key")); err != nil {
		t.Fatal(err)
	}
	var bucket backuptest.Bucket
	repo := func() *backup.Repository {
		return open(t, &bucket, func(o *backup.Options) {
			o.Recipient = key.Public()
			o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
		})
	}
	mustBackup(t, repo(), backuptest.Rows(2), nil)
	first := read(t, &bucket, "snapshots/0000000000000001")
	bucket.Set("snapshots/0000000000000001", []byte("damaged"))
	o := &backup.BackupOptions{Name: "golden", Journal: filepath.Join(t.TempDir(), "journal"), Lock: &policy.Retention{Monthly: 2}}
	mustBackup(t, repo(), backuptest.Rows(50), o)
	bucket.Set("snapshots/0000000000000001", first)
	n := 0
	bucket.BeforePut = func(string, []byte) error {
		if n++; n > 2 {
			return context.DeadlineExceeded
		}
		return nil
	}
	if _, err := repo().Backup(t.Context(), backuptest.Rows(100), o); err == nil {
		t.Fatal("not interrupted")
	}
	bucket.BeforePut = nil
	mustBackup(t, repo(), backuptest.Rows(101), o)
	to := folder(t, abs(t, dir, "data"))
	for _, name := range list(t, &bucket) {
		if err := to.Put(t.Context(), name, read(t, &bucket, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGoldenParts restores a snapshot that lies on a part, beside one whose manifest says that it could not read the one before.
func TestGoldenParts(t *testing.T) {
	key := goldenKey(t, "v2-parts")
	r, err := backup.Open(t.Context(), folder(t, abs(t, "testdata", "v2-parts", "data")), pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: key}); rep.Err() != nil || !rep.Opened || rep.Loose != 0 || rep.Snapshots != 3 {
		t.Fatalf("%+v", rep)
	}
	all, err := r.Snapshots(t.Context())
	if err != nil || len(all) != 3 || all[2].Head.Number != 4 || all[2].Depth != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, rows := range []int{2, 50, 101} {
		var got backuptest.Memory
		if _, err := r.Restore(t.Context(), all[i].ID, &got, key, nil); err != nil {
			t.Fatal(err)
		}
		alike(t, backuptest.Rows(rows), &got)
		if want := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC); i == 1 && !all[i].Locked.Equal(want) {
			t.Errorf("locked until %v, want %v", all[i].Locked, want)
		}
	}
	if got, err := r.Record(t.Context(), "", "all_types", []any{int64(7)}, key, nil); err != nil || len(got) != 1 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	key, err := backup.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	path, sig := filepath.Join(dir, "key"), filepath.Join(dir, "signer")
	if err := key.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	made, err := backup.CreateSigner(sig)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.WriteFile(path); !os.IsExist(errors.Unwrap(err)) {
		t.Errorf("a key was written over: %v", err)
	}
	if _, err := backup.CreateSigner(sig); err == nil {
		t.Error("a signer was written over")
	}
	again, err := backup.ReadKey(path)
	if err != nil || again.Public().String() != key.Public().String() {
		t.Fatalf("read: %v", err)
	}
	if s, err := backup.ReadSigner(sig); err != nil || !s.Equal(made) {
		t.Fatalf("read: %v", err)
	}
	if _, err := backup.ReadKey(sig); err == nil {
		t.Error("a signer was read as a recovery key")
	}
	if _, err := backup.ReadSigner(path); err == nil {
		t.Error("a recovery key was read as a signer")
	}
	pub, err := backup.ParsePublicKey("\n" + key.Public().String() + "\n")
	if err != nil || pub.ID() != key.Public().ID() {
		t.Fatalf("parse: %v", err)
	}
	private, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(private))[40:60]
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%v %+v %#v %s", key, key, key, key)} {
		if strings.Contains(text, secret) {
			t.Error("a private key prints itself")
		}
	}
	for _, text := range []string{"", "crmguard-backup-public-1:", "crmguard-backup-public-1:AAAA", string(private), "crmguard-backup-public-1:%"} {
		if _, err := backup.ParsePublicKey(text); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("a bad public key: %v", err)
		}
	}
	for name, text := range map[string]string{"empty": "", "cut": string(private)[:50], "another": "hello", "large": strings.Repeat("x", 1<<17)} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.ReadKey(p); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o777} {
		for _, p := range []string{path, sig} {
			if err := os.Chmod(p, mode); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := backup.ReadKey(path); !errors.Is(err, backup.ErrInsecure) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if _, err := backup.ReadSigner(sig); !errors.Is(err, backup.ErrInsecure) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

// A key that is added opens everything with the old one; the old one goes on opening what it did, and nothing newer.
func TestAddKey(t *testing.T) {
	data, shards := &backuptest.Bucket{}, &backuptest.Bucket{}
	old := backuptest.Key(t)
	fresh, err := backup.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	m := backuptest.Rows(20)
	o := &backup.BackupOptions{Chain: &policy.Chain{}, Keys: &backuptest.Keys{Records: [][]byte{{1}}}}
	r := open(t, data, func(o *backup.Options) { o.Shards = shards })
	var ids []string
	for i := range 3 {
		m.Tables[0].Rows[i][3] = fmt.Sprint("step ", i)
		ids = append(ids, mustBackup(t, r, m, o).ID)
	}
	before := data.Clone()
	if _, err := r.AddKey(t.Context(), fresh, fresh.Public()); !errors.Is(err, backup.ErrKey) {
		t.Errorf("with a key that opens nothing: %v", err)
	}
	if _, err := r.AddKey(t.Context(), old, nil); !errors.Is(err, backup.ErrKey) {
		t.Errorf("without a key: %v", err)
	}
	for i, want := range []int{6, 0} {
		if n, err := r.AddKey(t.Context(), old, fresh.Public()); err != nil || n != want {
			t.Fatalf("run %d: %d headers, %v", i, n, err)
		}
	}
	for _, name := range list(t, before) {
		if !bytes.Equal(read(t, before, name), read(t, data, name)) {
			t.Errorf("%s was written anew", name)
		}
	}
	r = open(t, data, func(o *backup.Options) { o.Shards, o.Recipient = shards, fresh.Public() })
	m.Tables[0].Rows[7][3] = "later"
	newest := mustBackup(t, r, m, o)
	if newest.Depth == 0 {
		t.Error("it is not built on what the added key opens")
	}
	lost, err := backup.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, data.Clone(), func(o *backup.Options) { o.Shards, o.Recipient = shards.Clone(), lost.Public() })
	if snap := mustBackup(t, other, m, o); snap.Depth != 0 {
		t.Error("a snapshot is built on what its key does not open")
	}
	for _, c := range []struct {
		key  *backup.PrivateKey
		want []string
	}{{old, ids}, {fresh, append(ids, newest.ID)}} {
		if got, err := r.Opens(t.Context(), c.key.Public().ID()); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("opens %v, %v", got, err)
		}
	}
	for _, id := range []string{ids[1], newest.ID} {
		var keys backuptest.Keys
		if _, err := r.Restore(t.Context(), id, &backuptest.Memory{}, fresh, &backup.RestoreOptions{Keys: &keys}); err != nil || len(keys.Records) != 1 {
			t.Errorf("the added key: %v", err)
		}
	}
	if _, err := r.Restore(t.Context(), newest.ID, &backuptest.Memory{}, old, nil); !errors.Is(err, backup.ErrKey) {
		t.Errorf("the old key opens the newest: %v", err)
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: fresh}); rep.Err() != nil || rep.Loose > 0 {
		t.Error(rep.Err(), rep.Loose)
	}
}

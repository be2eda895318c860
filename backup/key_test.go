package backup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup"
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

package backupkey_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
)

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	key, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	path, sig := filepath.Join(dir, "key"), filepath.Join(dir, "signer")
	if err := key.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	made, err := backupkey.CreateSigner(sig)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.WriteFile(path); !os.IsExist(errors.Unwrap(err)) {
		t.Errorf("a key was written over: %v", err)
	}
	if _, err := backupkey.CreateSigner(sig); err == nil {
		t.Error("a signer was written over")
	}
	again, err := backupkey.Read(path)
	if err != nil || again.Public().String() != key.Public().String() {
		t.Fatalf("read: %v", err)
	}
	if s, err := backupkey.ReadSigner(sig); err != nil || !s.Equal(made) {
		t.Fatalf("read: %v", err)
	}
	if _, err := backupkey.Read(sig); err == nil {
		t.Error("a signer was read as a recovery key")
	}
	if _, err := backupkey.ReadSigner(path); err == nil {
		t.Error("a recovery key was read as a signer")
	}
	pub, err := backupkey.ParsePublic("\n" + key.Public().String() + "\n")
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
		if _, err := backupkey.ParsePublic(text); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("a bad public key: %v", err)
		}
	}
	for name, text := range map[string]string{"empty": "", "cut": string(private)[:50], "another": "hello", "large": strings.Repeat("x", 1<<17)} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backupkey.Read(p); err == nil {
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
		if _, err := backupkey.Read(path); !errors.Is(err, backupkey.ErrInsecure) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if _, err := backupkey.ReadSigner(sig); !errors.Is(err, backupkey.ErrInsecure) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestSeal(t *testing.T) {
	key := backuptest.Key(t)
	sealed, err := key.Public().Seal([]byte("info"), []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.Open([]byte("info"), sealed); err != nil || string(got) != "message" {
		t.Fatalf("%q, %v", got, err)
	}
	other, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open([]byte("info"), sealed); !errors.Is(err, backupkey.ErrKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := key.Open([]byte("inf"), sealed); !errors.Is(err, backupkey.ErrKey) {
		t.Errorf("another purpose: %v", err)
	}
	for i := range sealed {
		bad := append([]byte(nil), sealed...)
		bad[i] ^= 1
		if _, err := key.Open([]byte("info"), bad); !errors.Is(err, backupkey.ErrKey) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := key.Open([]byte("info"), sealed[:i]); !errors.Is(err, backupkey.ErrKey) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// FuzzJoin: shares that are changed give the key that they name, or none.
func FuzzJoin(f *testing.F) {
	const prefix = "crmguard-backup-share-1:"
	shares, err := backuptest.Key(f).Split(2, 3)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(shares[0], shares[1])
	f.Add(shares[0], prefix)
	f.Fuzz(func(t *testing.T, a, b string) {
		k, err := backupkey.Join([]string{a, b})
		if err != nil {
			return
		}
		share, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(a), prefix))
		if err != nil || len(share) < 32 || hex.EncodeToString(share[16:32]) != k.Public().ID() {
			t.Error("shares of another key were made")
		}
	})
}

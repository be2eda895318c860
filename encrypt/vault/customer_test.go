package vault_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

// forImport wraps a customer's key for Vault as the package comment says.
func forImport(t testing.TB, s *realtest.VaultServer, key []byte) string {
	t.Helper()
	answer, err := s.Client().Logical().Read("transit/wrapping_key")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(answer.Data["public_key"].(string)))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	once := make([]byte, 32)
	rand.Read(once)
	head, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), once, nil)
	if err != nil {
		t.Fatal(err)
	}
	kwp, err := subtle.NewKWP(once)
	if err != nil {
		t.Fatal(err)
	}
	body, err := kwp.Wrap(key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(append(head, body...))
}

func TestKeyOfACustomer(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	ours := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	theirs, err := ours.ForKey("acme")
	if err != nil {
		t.Fatal(err)
	}
	if theirs.ID() != "vault:acme" || ours.ID() != "vault:crm" {
		t.Errorf("ids %q and %q", theirs.ID(), ours.ID())
	}
	if err := s.Client().Sys().Mount("second", &api.MountInput{Type: "transit"}); err != nil {
		t.Fatal(err)
	}
	elsewhere := open(t, vault.Config{Key: "crm", Mount: "second", Address: s.Addr, Token: s.Root})
	if elsewhere.ID() != "vault:second/crm" {
		t.Errorf("a key of the same name in another mount has the id %q", elsewhere.ID())
	}
	// The key is not there yet. Root may make keys, and a call of ours still does not.
	w := wrap(t, ours)
	for name, err := range map[string]error{
		"wrap":   func() error { _, err := theirs.Wrap(ctx, []byte("key"), nil); return err }(),
		"unwrap": func() error { _, err := theirs.Unwrap(ctx, w, nil); return err }(),
		"rotate": theirs.Rotate(ctx),
		"trim":   theirs.Trim(ctx, [][]byte{w}),
	} {
		if !errors.Is(err, keys.ErrKeyMissing) {
			t.Errorf("%s before the import: got %v, want ErrKeyMissing", name, err)
		}
	}

	key := []byte("the customer's key, 32 bytes long")[:32]
	admin := s.Client().Logical()
	if _, err := admin.Write("transit/keys/acme/import", map[string]any{"type": "aes256-gcm96", "ciphertext": forImport(t, s, key)}); err != nil {
		t.Fatalf("import: %v", err)
	}
	w = wrap(t, theirs)
	unwraps(t, theirs, w)
	if _, err := ours.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrTampered) {
		t.Errorf("our key on theirs: got %v, want ErrTampered", err)
	}
	// The customer's own copy opens it, so Vault uses the key that was brought.
	wrapped, err := theirs.Wrap(ctx, []byte("key"), []byte("tenant"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(wrapped), "vault:v1:"))
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := gcm.Open(nil, raw[:12], raw[12:], []byte("tenant")); err != nil || string(got) != "key" {
		t.Errorf("the customer's own copy: %v", err)
	}

	// The next version comes by import only, and the first one can be ended.
	if err := theirs.Rotate(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("rotate: got %v, want ErrUnsupported", err)
	}
	if _, err := admin.Write("transit/keys/acme/import_version", map[string]any{"ciphertext": forImport(t, s, bytes.Repeat([]byte{7}, 32))}); err != nil {
		t.Fatalf("import of a version: %v", err)
	}
	second := wrap(t, theirs)
	unwraps(t, theirs, w)
	if err := theirs.Trim(ctx, [][]byte{second}); err != nil {
		t.Fatalf("trim: %v", err)
	}
	unwraps(t, theirs, second)
	if _, err := theirs.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrRetired) {
		t.Errorf("the first version: got %v, want ErrRetired", err)
	}

	// Close of theirs does not end our login.
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	unwraps(t, ours, wrap(t, ours))
	for _, bad := range []string{"", "a/b", "..\x00", strings.Repeat("x", 129)} {
		if _, err := ours.ForKey(bad); err == nil {
			t.Errorf("key %q accepted", bad)
		}
	}
}

// Keys that cannot do what a KEK must.
func TestUnfitKeys(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	for name, body := range map[string]map[string]any{
		"rsa":     {"type": "rsa-2048"},
		"ed25519": {"type": "ed25519"},
		"derived": {"type": "aes256-gcm96", "derived": true},
	} {
		if _, err := s.Client().Logical().Write("transit/keys/"+name, body); err != nil {
			t.Fatal(err)
		}
		_, err := vault.Open(ctx, vault.Config{Key: name, Address: s.Addr, Token: s.Root})
		if err == nil || errors.Is(err, keys.ErrTampered) || errors.Is(err, keys.ErrKMSUnavailable) {
			t.Errorf("%s: got %v, want an error of its own", name, err)
		}
	}
}

// Each tenant of a Keeper has its own key; deleting one ends that tenant alone.
func TestKeeperWithKeysOfCustomers(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	s.Key("acme")
	s.Key("globex")
	ours := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	store := keys.NewMemory()
	opts := &encrypt.Options{KEKFor: func(_ context.Context, tenant string) (keys.KEK, error) { return ours.ForKey(tenant) }}
	base := encrypttest.NewFaultKEK(ours)
	k, err := encrypt.NewKeeper(base, store, opts)
	if err != nil {
		t.Fatal(err)
	}
	sealed := make(map[string][]byte)
	for _, tenant := range []string{"acme", "globex"} {
		if sealed[tenant], err = k.SealFor(ctx, tenant, [16]byte{1}, "log", nil, []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	if n := base.Calls(); n != 0 {
		t.Errorf("our own key was asked %d times", n)
	}
	admin := s.Client().Logical()
	if _, err := admin.Write("transit/keys/acme/config", map[string]any{"deletion_allowed": true}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Delete("transit/keys/acme"); err != nil {
		t.Fatal(err)
	}
	again, err := encrypt.NewKeeper(base, store, opts)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.OpenFor(ctx, "globex", [16]byte{1}, "log", nil, sealed["globex"]); err != nil || string(got) != "secret" {
		t.Errorf("globex: %v", err)
	}
	if _, err := again.OpenFor(ctx, "acme", [16]byte{1}, "log", nil, sealed["acme"]); !errors.Is(err, encrypt.ErrKeyMissing) {
		t.Errorf("acme: got %v, want ErrKeyMissing", err)
	}
}

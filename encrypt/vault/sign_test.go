package vault_test

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

const signPolicy = `
path "transit/keys/crm-audit" { capabilities = ["read"] }
path "transit/sign/crm-audit" { capabilities = ["update"] }
`

func TestSigner(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	role, secret := s.AppRole("audit", signPolicy, "10m")
	cfg := vault.Config{Key: "crm-audit", Address: s.Addr, RoleID: role, SecretID: secret, Timeout: 2 * time.Second}
	write := func(path string, body map[string]any) {
		t.Helper()
		if _, err := s.Client().Logical().WriteWithContext(ctx, path, body); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vault.OpenSigner(ctx, cfg); !errors.Is(err, keys.ErrKeyMissing) {
		t.Fatalf("a missing key: %v", err)
	}
	write("transit/keys/crm-audit", map[string]any{"type": "ed25519"})
	signer := func() *vault.Signer {
		t.Helper()
		k, err := vault.OpenSigner(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close() })
		return k
	}
	first := signer()
	if _, err := first.Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("a hash was signed")
	}
	if _, err := first.Sign(nil, make([]byte, 1<<16+1), crypto.Hash(0)); err == nil {
		t.Error("a message of more than 64 KiB was signed")
	}

	// A log signed by Vault verifies with the public key alone, across a rotation with the old one beside the new.
	store := memstore.New()
	logOf := func(key *vault.Signer, old ...string) (*audit.Log, string) {
		t.Helper()
		signs, err := audit.NewEd25519Signer("crm.example.com/log", key)
		if err != nil {
			t.Fatal(err)
		}
		l, err := audit.Open(ctx, store, signs, &audit.Options{OldKeys: old})
		if err != nil {
			t.Fatal(err)
		}
		return l, signs.VerifierKey()
	}
	event := audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: "e1"}
	l, oldKey := logOf(first)
	if _, err := l.Append(ctx, event); err != nil {
		t.Fatal(err)
	}
	write("transit/keys/crm-audit/rotate", nil)
	if _, err := l.Append(ctx, event); err != nil {
		t.Fatalf("after a rotation: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	second := signer()
	if first.Public().(ed25519.PublicKey).Equal(second.Public()) {
		t.Fatal("the newest version is the old one")
	}
	l, newKey := logOf(second, oldKey)
	if _, err := l.Append(ctx, event); err != nil {
		t.Fatal(err)
	}
	c, err := l.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v, err := audit.Verify(ctx, store, []string{newKey, oldKey}, &audit.VerifyOptions{Pins: [][]byte{c.Note}, EverySignature: true})
	if err != nil || !v.OK() {
		t.Fatal(v, err)
	}

	// Vault ends the old version, goes away, and comes back.
	write("transit/keys/crm-audit/config", map[string]any{"min_encryption_version": 2, "min_decryption_version": 2})
	if _, err := first.Sign(nil, []byte("x"), crypto.Hash(0)); !errors.Is(err, keys.ErrRetired) {
		t.Errorf("a version that has ended: %v", err)
	}
	s.Kill()
	_, err = l.Append(ctx, event)
	if !errors.Is(err, audit.ErrUnavailable) {
		t.Fatalf("without Vault: %v", err)
	}
	if strings.Contains(err.Error(), secret) {
		t.Error("the error shows a credential")
	}
	s.Restart()
	s.Unseal()
	if _, err := l.Append(ctx, event); err != nil {
		t.Errorf("Vault is back: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestSignerRefuses(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	for name, typ := range map[string]string{"crm": "aes256-gcm96", "ecdsa": "ecdsa-p256"} {
		if _, err := s.Client().Logical().WriteWithContext(ctx, "transit/keys/"+name, map[string]any{"type": typ}); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.OpenSigner(ctx, vault.Config{Key: name, Address: s.Addr, Token: s.Root}); err == nil {
			t.Errorf("a key of type %s signs", typ)
		}
	}
	if _, err := vault.OpenSigner(ctx, vault.Config{Key: "../x", Address: s.Addr, Token: s.Root}); err == nil {
		t.Error("a wrong name is taken")
	}
	role, secret := s.AppRole("app", policy, "10m")
	if _, err := vault.OpenSigner(ctx, vault.Config{Key: "crm-audit", Address: s.Addr, RoleID: role, SecretID: secret}); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("without the right: %v", err)
	}
}

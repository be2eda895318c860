package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

// versions reads what Vault says of a key.
func versions(t testing.TB, s *realtest.VaultServer, name string) (decrypts, encrypts, available int64) {
	t.Helper()
	k, err := s.Client().Logical().Read("transit/keys/" + name)
	if err != nil {
		t.Fatal(err)
	}
	n := func(name string) int64 {
		v, err := k.Data[name].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	return n("min_decryption_version"), n("min_encryption_version"), n("min_available_version")
}

func TestTrimInVault(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("rotation", rotationPolicy, "10m")
	r := record(t, s)
	k := open(t, vault.Config{Key: "crm", Address: r.URL, RoleID: role, SecretID: secret})
	var w [][]byte // by version, from 1
	for i := range 6 {
		if i > 0 {
			if err := k.Rotate(ctx); err != nil {
				t.Fatal(err)
			}
		}
		w = append(w, wrap(t, k))
	}
	trim := func(version int64) {
		t.Helper()
		if err := k.Trim(ctx, [][]byte{w[len(w)-1], w[version-1]}); err != nil {
			t.Fatalf("trim to %d: %v", version, err)
		}
		if d, e, a := versions(t, s, "crm"); d != version || e != version || a != version {
			t.Fatalf("trimmed to %d: decrypts from %d, encrypts from %d, available from %d", version, d, e, a)
		}
	}
	if err := k.Trim(ctx, w); err != nil { // the first version is living
		t.Fatal(err)
	}
	if n := r.count("/v1/transit/keys/crm/config") + r.count("/v1/transit/keys/crm/trim"); n != 0 {
		t.Errorf("%d calls to end nothing", n)
	}
	trim(2)

	// An interrupted Trim has raised the versions and not deleted yet.
	config := func(body map[string]any) {
		t.Helper()
		if _, err := s.Client().Logical().Write("transit/keys/crm/config", body); err != nil {
			t.Fatal(err)
		}
	}
	config(map[string]any{"min_decryption_version": 3, "min_encryption_version": 3})
	trim(3)

	// What an operator has raised stays raised.
	config(map[string]any{"min_encryption_version": 6})
	if err := k.Trim(ctx, w[3:]); err != nil {
		t.Fatal(err)
	}
	if d, e, a := versions(t, s, "crm"); d != 4 || e != 6 || a != 4 {
		t.Fatalf("decrypts from %d, encrypts from %d, available from %d; want 4, 6, 4", d, e, a)
	}
	config(map[string]any{"min_decryption_version": 5})
	if err := k.Trim(ctx, w[3:]); !errors.Is(err, keys.ErrRetired) {
		t.Fatalf("a living key below min_decryption_version: got %v, want ErrRetired", err)
	}

	// Deleted is deleted: lowering the versions again does not bring it back.
	if _, err := s.Client().Logical().Write("transit/keys/crm/config", map[string]any{"min_decryption_version": 1}); err == nil {
		t.Error("Vault lowered min_decryption_version below what is available")
	}
	root := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	for i, wrapped := range w {
		_, err := root.Unwrap(ctx, wrapped, nil)
		if gone := errors.Is(err, keys.ErrRetired); gone != (i < 4) || !gone && err != nil {
			t.Errorf("version %d: %v", i+1, err)
		}
	}
	if err := k.Trim(ctx, [][]byte{[]byte("vault:v7:" + strings.SplitN(string(w[5]), ":", 3)[2])}); !errors.Is(err, keys.ErrTampered) {
		t.Errorf("a version that is not there yet: got %v, want ErrTampered", err)
	}
}

// After a rotation of a Keeper, a stray copy of its old key records opens nothing, with Vault at hand.
func TestRotationOfAKeeper(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	kek := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: token(t, s, rotationPolicy, "10m")})
	store := keys.NewMemory()
	k, err := encrypt.NewKeeper(kek, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.SealFor(ctx, "acme", [16]byte{1}, "log", nil, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	// opens opens it with nothing but a store, as a process that starts does.
	opens := func(store keys.Store) error {
		t.Helper()
		k, err := encrypt.NewKeeper(kek, store, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.OpenFor(ctx, "acme", [16]byte{1}, "log", nil, sealed)
		return err
	}
	stray := keys.NewMemory()
	records, err := store.Find(ctx, "acme", keys.Query{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := stray.Add(ctx, "acme", records); err != nil {
		t.Fatal(err)
	}
	if err := opens(stray); err != nil {
		t.Fatalf("the copy before the rotation: %v", err)
	}
	if err := k.Rotate(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, available := versions(t, s, "crm"); available != 2 {
		t.Errorf("Vault has versions from %d, want 2", available)
	}
	if err := opens(store); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	if err := opens(stray); !errors.Is(err, encrypt.ErrRetired) {
		t.Errorf("the copy after the rotation: got %v, want ErrRetired", err)
	}
}

// The rotation's policy allows no more than it says.
func TestTrimPolicy(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	small := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: token(t, s, policy, "10m")})
	rotation := token(t, s, rotationPolicy, "10m")
	big := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: rotation})
	if err := small.Rotate(ctx); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("rotate: got %v, want ErrAuth", err)
	}
	if err := big.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	w := wrap(t, small)
	if err := small.Trim(ctx, [][]byte{w}); !errors.Is(err, keys.ErrAuth) {
		t.Errorf("trim: got %v, want ErrAuth", err)
	}
	if err := big.Trim(ctx, [][]byte{w}); err != nil {
		t.Errorf("trim: %v", err)
	}
	c := s.Client()
	c.SetToken(rotation)
	if _, err := c.Logical().Write("transit/keys/crm/config", map[string]any{"deletion_allowed": true}); err == nil {
		t.Error("the rotation's policy lets the key be deleted")
	}
	if _, err := c.Logical().Write("transit/keys/other", nil); err == nil {
		t.Error("the rotation's policy lets keys be made")
	}
}

// An answer that is not Vault's does not trim.
func TestTrimAnswers(t *testing.T) {
	for name, versions := range map[string]string{
		"none": `{}`, "text": `{"latest_version":"x"}`,
		"incomplete": `{"latest_version":3,"min_decryption_version":1,"min_available_version":0}`,
		"negative":   `{"latest_version":3,"min_decryption_version":-1,"min_encryption_version":0,"min_available_version":0}`,
		"fraction":   `{"latest_version":3.5,"min_decryption_version":1,"min_encryption_version":0,"min_available_version":0}`,
	} {
		srv := serve(t, map[string]string{
			"/v1/auth/token/lookup-self": `{"data":{"ttl":0}}`, "/v1/transit/keys/crm": `{"data":` + versions + `}`,
			"/v1/transit/encrypt/crm": `{"data":{"ciphertext":"vault:v3:AAAA"}}`, "/v1/transit/decrypt/crm": `{"data":{"plaintext":"AAAA"}}`,
		})
		k := open(t, vault.Config{Key: "crm", Address: srv, Token: "t"})
		if err := k.Trim(ctx, [][]byte{[]byte("vault:v3:AAAA")}); err == nil {
			t.Errorf("%s: trimmed", name)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"vault:v1:AAAA", "vault:v2147483647:AA==", "vault:v0:AAAA", "vault:v01:AAAA", "vault:v-1:AAAA", "vault:v+1:AAAA",
		"vault:v99999999999999999999:AAAA", "vault:v1:", "vault:v1", "vault:v1:AA\nAA", "vault:v1:AAAA\n", "vault:v1:AAAA:AAAA", "VAULT:v1:AAAA", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		version, ok := vault.ParseVersion(b)
		if !ok {
			return
		}
		if version < 1 {
			t.Fatalf("version %d", version)
		}
		rest, found := strings.CutPrefix(string(b), fmt.Sprintf("vault:v%d:", version))
		if !found || rest == "" || strings.ContainsAny(rest, ":\r\n") {
			t.Fatal("two texts for one version")
		}
	})
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]int{
		"vault:v1:AAAA": 1, "vault:v17:AA==": 17, "vault:v2147483647:AAAA": 2147483647,
		"vault:v2147483648:AAAA": 0, "vault:v0:AAAA": 0, "vault:v01:AAAA": 0, "vault:v-1:AAAA": 0, "vault:v+1:AAAA": 0, "vault:v1_0:AAAA": 0,
		"vault:v1:": 0, "vault:v1": 0, "vault:v:AAAA": 0, "vault:v1:AA": 0, "vault:v1:AAAA\n": 0, "vault:v1:AA AA": 0, " vault:v1:AAAA": 0, "": 0,
	} {
		if got, ok := vault.ParseVersion([]byte(text)); ok != (want > 0) || ok && got != want {
			t.Errorf("%q: got %d, %v", text, got, ok)
		}
	}
}

package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

var ctx = context.Background()

const policy = `
path "transit/encrypt/crm" { capabilities = ["update"] }
path "transit/decrypt/crm" { capabilities = ["update"] }
path "transit/keys/crm/rotate" { capabilities = ["update"] }
`

// clean removes what the machine's environment may say about a Vault.
func clean(t testing.TB) {
	for _, name := range []string{"VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_CACERT"} {
		t.Setenv(name, "")
	}
}

func open(t testing.TB, cfg vault.Config) *vault.KEK {
	t.Helper()
	k, err := vault.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func TestKEK(t *testing.T) {
	clean(t)
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("app", policy, "10m")
	t.Run("token", func(t *testing.T) {
		encrypttest.TestKEK(t, func(t testing.TB) keys.KEK {
			return open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
		})
	})
	t.Run("approle", func(t *testing.T) {
		encrypttest.TestKEK(t, func(t testing.TB) keys.KEK {
			return open(t, vault.Config{Key: "crm", Address: s.Addr, RoleID: role, SecretID: secret})
		})
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("VAULT_ADDR", s.Addr)
		t.Setenv("VAULT_ROLE_ID", role)
		t.Setenv("VAULT_SECRET_ID", secret)
		open(t, vault.Config{Key: "crm"})
	})
}

func TestLoginAndPolicy(t *testing.T) {
	clean(t)
	s := realtest.Vault(t)
	role, secret := s.AppRole("app", policy, "10m")
	for name, cfg := range map[string]vault.Config{
		"no credentials": {Key: "crm", Address: s.Addr},
		"wrong token":    {Key: "crm", Address: s.Addr, Token: "hvs.wrong"},
		"wrong secret":   {Key: "crm", Address: s.Addr, RoleID: role, SecretID: "00000000-0000-0000-0000-000000000000"},
		"wrong role":     {Key: "crm", Address: s.Addr, RoleID: "nobody", SecretID: secret},
		"foreign key":    {Key: "other", Address: s.Addr, RoleID: role, SecretID: secret},
		"missing key":    {Key: "crm", Address: s.Addr, RoleID: role, SecretID: secret}, // may not make it
	} {
		_, err := vault.Open(ctx, cfg)
		if !errors.Is(err, keys.ErrAuth) {
			t.Errorf("%s: got %v, want ErrAuth", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "hvs.")) {
			t.Errorf("%s: the error shows a credential", name)
		}
	}
	for _, bad := range []string{"", "a/b", "../sys", strings.Repeat("x", 200)} {
		if _, err := vault.Open(ctx, vault.Config{Key: bad, Address: s.Addr, Token: s.Root}); err == nil {
			t.Errorf("key %q accepted", bad)
		}
	}
	// The root token may make the key; then the role may use it.
	open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	open(t, vault.Config{Key: "crm", Address: s.Addr, RoleID: role, SecretID: secret})
	if _, err := vault.Open(ctx, vault.Config{Key: "crm", Mount: "nowhere", Address: s.Addr, Token: s.Root}); err == nil {
		t.Error("a mount that is not there was accepted")
	}
}

func TestLoginAgain(t *testing.T) {
	clean(t)
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("app", policy, "2s")
	k := open(t, vault.Config{Key: "crm", Address: s.Addr, RoleID: role, SecretID: secret})
	w, err := k.Wrap(ctx, []byte("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	// All tokens of the role die at once; the next call logs in anew.
	accessors, err := s.Client().Logical().List("auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.Client().Auth().Token().LookupSelf()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accessors.Data["keys"].([]any) {
		if a != own.Data["accessor"] {
			_ = s.Client().Auth().Token().RevokeAccessor(a.(string))
		}
	}
	if _, err := k.Unwrap(ctx, w, nil); err != nil {
		t.Fatalf("after the token was revoked: %v", err)
	}
	time.Sleep(3 * time.Second) // longer than a token lives: only renewal keeps it
	if _, err := k.Unwrap(ctx, w, nil); err != nil {
		t.Fatalf("after the life of a token: %v", err)
	}
}

func TestOutages(t *testing.T) {
	clean(t)
	s := realtest.Vault(t)
	s.Key("crm")
	k := open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root, Timeout: 500 * time.Millisecond})
	w, err := k.Wrap(ctx, []byte("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"sealed", s.Seal, s.Unseal},
		{"paused", s.Pause, s.Resume},
		{"killed", s.Kill, func() { s.Restart(); s.Unseal() }},
	} {
		outage.begin()
		if _, err := k.Unwrap(ctx, w, nil); !errors.Is(err, keys.ErrKMSUnavailable) {
			t.Errorf("%s: got %v, want ErrKMSUnavailable", outage.name, err)
		}
		outage.end()
		if _, err := k.Unwrap(ctx, w, nil); err != nil {
			t.Errorf("after %s: %v", outage.name, err)
		}
	}
}

// A Keeper over a real Vault: two calls found a tenant, and one more process needs one.
func TestKeeper(t *testing.T) {
	clean(t)
	s := realtest.Vault(t)
	kek := encrypttest.NewFaultKEK(open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root}))
	keys := keys.NewMemory()
	k, err := encrypt.NewKeeper(kek, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed := make([][]byte, 200)
	for i := range sealed {
		if sealed[i], err = k.SealFor(ctx, "acme", [16]byte{1, byte(i)}, "log", nil, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := kek.Calls(); n != 2 {
		t.Errorf("%d Vault calls for a new tenant of 200 persons, want 2", n)
	}
	if err := k.Rotate(ctx, "acme", nil); err != nil {
		t.Fatal(err)
	}
	again, err := encrypt.NewKeeper(kek, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		if got, err := again.OpenFor(ctx, "acme", [16]byte{1, byte(i)}, "log", nil, sealed[i]); err != nil || string(got) != fmt.Sprint(i) {
			t.Fatalf("person %d after a rotation: %v", i, err)
		}
	}
}

// Without a real Vault: what a server that is no Vault, or none at all, answers.
func TestAnswers(t *testing.T) {
	clean(t)
	var calls atomic.Int64
	for _, tc := range []struct {
		status int
		body   string
		want   error
		calls  int64
	}{
		{http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`, keys.ErrKMSUnavailable, 3},
		{http.StatusTooManyRequests, `{"errors":["rate limit"]}`, keys.ErrKMSUnavailable, 3},
		{http.StatusInternalServerError, `<html>`, keys.ErrKMSUnavailable, 3},
		{http.StatusOK, `not json`, keys.ErrKMSUnavailable, 3},
	} {
		calls.Store(0)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			w.WriteHeader(tc.status)
			fmt.Fprint(w, tc.body)
		}))
		_, err := vault.Open(ctx, vault.Config{Key: "crm", Address: srv.URL, Token: "t"})
		srv.Close()
		if !errors.Is(err, tc.want) || calls.Load() != tc.calls {
			t.Errorf("%d %s: got %v after %d calls", tc.status, tc.body, err, calls.Load())
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if _, err := vault.Open(ctx, vault.Config{Key: "crm", Address: "http://" + ln.Addr().String(), Token: "t"}); !errors.Is(err, keys.ErrKMSUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := vault.Open(gone, vault.Config{Key: "crm", Address: "http://" + ln.Addr().String(), Token: "t"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

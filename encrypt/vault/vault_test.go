package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

var ctx = context.Background()

// The policies of the package comment.
const (
	policy = `
path "transit/encrypt/crm" { capabilities = ["update"] }
path "transit/decrypt/crm" { capabilities = ["update"] }
`
	rotationPolicy = policy + `
path "transit/keys/crm"        { capabilities = ["read"] }
path "transit/keys/crm/rotate" { capabilities = ["update"] }
path "transit/keys/crm/trim"   { capabilities = ["update"] }
path "transit/keys/crm/config" {
  capabilities       = ["update"]
  allowed_parameters = { "min_decryption_version" = [], "min_encryption_version" = [] }
}
`
)

// The machine's environment says nothing about a Vault.
func TestMain(m *testing.M) {
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "VAULT_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
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
	s := realtest.Vault(t)
	s.Key("crm")
	role, secret := s.AppRole("app", rotationPolicy, "10m")
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
	t.Parallel()
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
	for name, cfg := range map[string]vault.Config{
		"two ways":          {Key: "crm", Address: s.Addr, Token: s.Root, RoleID: role, SecretID: secret},
		"a URL that is not": {Key: "crm", Address: "http://%zz", Token: s.Root},
	} {
		if _, err := vault.Open(ctx, cfg); err == nil || strings.Contains(err.Error(), s.Root) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// The root token may make the key; then the role may use it.
	open(t, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root})
	open(t, vault.Config{Key: "crm", Address: s.Addr, RoleID: role, SecretID: secret})
	if _, err := vault.Open(ctx, vault.Config{Key: "crm", Mount: "nowhere", Address: s.Addr, Token: s.Root}); err == nil {
		t.Error("a mount that is not there was accepted")
	}
}

// timeout is that of calls to a Vault which may not answer; slack is what a busy machine may add. A
// call without a deadline would take for ever.
const (
	timeout = time.Second
	slack   = 10 * time.Second
)

// eventually repeats f until it succeeds: the timeout of this file is short for a busy machine.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("not within a minute: %v", err)
}

func TestOutages(t *testing.T) {
	t.Parallel()
	s := realtest.Vault(t)
	s.Key("crm")
	var k *vault.KEK
	eventually(t, func() (err error) {
		k, err = vault.Open(ctx, vault.Config{Key: "crm", Address: s.Addr, Token: s.Root, Timeout: timeout})
		return err
	})
	defer k.Close()
	var w []byte
	eventually(t, func() (err error) { w, err = k.Wrap(ctx, []byte("key"), nil); return err })
	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"sealed", s.Seal, s.Unseal},
		{"paused", s.Pause, s.Resume},
		{"killed", s.Kill, func() { s.Restart(); s.Unseal() }},
	} {
		outage.begin()
		for name, call := range map[string]func() error{
			"wrap":   func() error { _, err := k.Wrap(ctx, []byte("key"), nil); return err },
			"unwrap": func() error { _, err := k.Unwrap(ctx, w, nil); return err },
			"rotate": func() error { return k.Rotate(ctx) },
			"trim":   func() error { return k.Trim(ctx, [][]byte{w}) },
		} {
			start := time.Now()
			if err := call(); !errors.Is(err, keys.ErrKMSUnavailable) {
				t.Errorf("%s, %s: got %v, want ErrKMSUnavailable", outage.name, name, err)
			}
			if took := time.Since(start); took > timeout+slack {
				t.Errorf("%s, %s: took %v, more than the timeout of %v", outage.name, name, took, timeout)
			}
		}
		gone, cancel := context.WithCancel(ctx)
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := k.Unwrap(gone, w, nil); !errors.Is(err, keys.ErrKMSUnavailable) {
			t.Errorf("%s, cancelled: got %v, want ErrKMSUnavailable", outage.name, err)
		}
		cancel()
		outage.end()
		eventually(t, func() error { _, err := k.Unwrap(ctx, w, nil); return err })
	}
}

// serve answers paths as told, and everything else with 404.
func serve(t testing.TB, answers map[string]string) (address string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// Without a real Vault: what a server that is no Vault, or none at all, answers.
func TestAnswers(t *testing.T) {
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
	// The address is that of no Vault, but of something that says yes to everything.
	for _, body := range []string{`{}`, `{"data":{}}`, `{"data":{"ciphertext":"x"}}`, `{"data":{"ciphertext":"vault:v1:AAAA","plaintext":"*"}}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) }))
		if _, err := vault.Open(ctx, vault.Config{Key: "crm", Address: srv.URL, Token: "t"}); err == nil {
			t.Errorf("%s accepted", body)
		}
		srv.Close()
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := vault.Open(gone, vault.Config{Key: "crm", Address: "http://" + ln.Addr().String(), Token: "t"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

package vault_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/realtest"
)

// TestTLS: a key service is spoken to over TLS with both certificates checked: strange authorities, names and plain HTTP are refused.
//
//crm:item 19
func TestTLS(t *testing.T) {
	s := realtest.VaultTLS(t)
	s.Key("crm")
	good := vault.Config{
		Key: "crm", Address: s.Addr, Token: s.Root, CACert: s.CACert, ClientCert: s.ClientCert, ClientKey: s.ClientKey, ServerName: s.ServerName,
	}
	k := open(t, good)
	unwraps(t, k, wrap(t, k))
	t.Run("environment", func(t *testing.T) {
		for name, value := range map[string]string{
			"VAULT_ADDR": s.Addr, "VAULT_TOKEN": s.Root, "VAULT_CACERT": s.CACert, "VAULT_CLIENT_CERT": s.ClientCert,
			"VAULT_CLIENT_KEY": s.ClientKey, "VAULT_TLS_SERVER_NAME": s.ServerName,
		} {
			t.Setenv(name, value)
		}
		k := open(t, vault.Config{Key: "crm"})
		unwraps(t, k, wrap(t, k))
	})

	dir := t.TempDir()
	strange := realtest.NewAuthority(t)
	strangeCA, strangeCert, strangeKey := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "cert.key")
	strange.WriteCert(t, strangeCA)
	strange.Issue(t, strangeCert, strangeKey, "client.test")
	for name, tc := range map[string]struct {
		change func(*vault.Config)
		want   error // nil: any
	}{
		"the system's authorities":  {func(c *vault.Config) { c.CACert = "" }, keys.ErrKMSUnavailable},
		"another authority":         {func(c *vault.Config) { c.CACert = strangeCA }, keys.ErrKMSUnavailable},
		"another name":              {func(c *vault.Config) { c.ServerName = "other.test" }, keys.ErrKMSUnavailable},
		"the name of the address":   {func(c *vault.Config) { c.ServerName = "" }, keys.ErrKMSUnavailable},
		"plain HTTP":                {func(c *vault.Config) { c.Address = "http" + s.Addr[len("https"):] }, nil},
		"no certificate":            {func(c *vault.Config) { c.ClientCert, c.ClientKey = "", "" }, nil},
		"a stranger's certificate":  {func(c *vault.Config) { c.ClientCert, c.ClientKey = strangeCert, strangeKey }, nil},
		"a key of another":          {func(c *vault.Config) { c.ClientKey = strangeKey }, nil},
		"a certificate without key": {func(c *vault.Config) { c.ClientKey = "" }, nil},
		"no such authority":         {func(c *vault.Config) { c.CACert = filepath.Join(dir, "none") }, nil},
		"a key for an authority":    {func(c *vault.Config) { c.CACert = strangeKey }, nil},
	} {
		cfg := good
		cfg.Timeout = time.Second
		tc.change(&cfg)
		bad, err := vault.Open(ctx, cfg)
		if err == nil {
			t.Errorf("%s: accepted", name)
			bad.Close()
		} else if tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

// A client certificate that is replaced on disk serves the next connection.
func TestClientCertificateIsReadAnew(t *testing.T) {
	t.Parallel()
	s := realtest.VaultTLS(t)
	s.Key("crm")
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "cert.key")
	move := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	move(s.ClientCert, cert)
	move(s.ClientKey, key)
	k := open(t, vault.Config{
		Key: "crm", Address: s.Addr, Token: s.Root, CACert: s.CACert, ClientCert: cert, ClientKey: key, ServerName: s.ServerName, Timeout: 20 * time.Second,
	})
	w := wrap(t, k)
	realtest.NewAuthority(t).Issue(t, cert, key, "client.test")
	s.Restart() // which ends the connections
	s.Unseal()
	if _, err := k.Unwrap(ctx, w, nil); err == nil {
		t.Fatal("a certificate that was replaced by a stranger's still serves")
	}
	move(s.ClientCert, cert)
	move(s.ClientKey, key)
	unwraps(t, k, w)
}

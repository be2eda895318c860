package app

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseAllowFrom(t *testing.T) {
	got, err := ParseAllowFrom([]string{"admin=192.0.2.0/24,2001:db8::/32", "admin=198.51.100.7/32", "sales=10.0.0.0/8"})
	require.NoError(t, err)
	require.Len(t, got["admin"], 3)
	c := Config{AllowFrom: got}
	for addr, ok := range map[string]bool{"192.0.2.9": true, "::ffff:192.0.2.9": true, "198.51.100.7": true, "2001:db8::1": true, "198.51.100.8": false, "10.1.1.1": false} {
		assert.Equal(t, ok, c.Admits([]string{"admin"}, netip.MustParseAddr(addr)), addr)
	}
	assert.True(t, c.Admits([]string{"auditor"}, netip.MustParseAddr("203.0.113.1")), "a role without a list")
	assert.False(t, c.Admits([]string{"admin", "sales"}, netip.MustParseAddr("192.0.2.9")), "every role's list")
	assert.False(t, c.Admits([]string{"admin"}, netip.Addr{}), "an unknown address")
	for _, bad := range []string{"", "admin", "admin=", "=192.0.2.0/24", "admin=192.0.2.0", "admin=192.0.2.0/33", "Admin=192.0.2.0/24", "admin=192.0.2.0/24,", "admin=::ffff:1.2.3.4/100"} {
		_, err := ParseAllowFrom([]string{bad})
		assert.Error(t, err, bad)
	}
}

func TestOriginAndRoles(t *testing.T) {
	for _, good := range []string{"", "https://crm.example.com", "https://crm.example.com:8443", "http://localhost:8080"} {
		c := Config{Data: t.TempDir(), Origin: good, SecondFactor: []string{"admin"}}
		assert.NoError(t, c.complete(), good)
	}
	for _, bad := range []string{"crm.example.com", "ftp://x", "https://", "https://x/path", "https://u:p@x", "https://x?y"} {
		c := Config{Data: t.TempDir(), Origin: bad}
		assert.Error(t, c.complete(), bad)
	}
	c := Config{Data: t.TempDir(), SecondFactor: []string{"no such, role"}}
	assert.Error(t, c.complete())
}

// TestSignOnConfig: what a provider may vouch for and give is said in a file, and nothing in it is guessed.
func TestSignOnConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		return p
	}
	good := SignOn{Issuer: "https://id.example.com/realm", Client: "crm", SecretFile: write("secret", " x y \n"), Rules: write("rules", `{"groups":"memberOf","roles":{"a b":["sales","admin"]},
		"amr":{"otp":"totp"},"acr":{"gold":["password","passkey"]},"scopes":["email"],"max_age":"8h"}`)}
	c := good
	require.NoError(t, c.complete())
	assert.Equal(t, "x y", c.Secret)
	assert.Equal(t, "id.example.com", c.Name)
	assert.Equal(t, 8*time.Hour, c.rules.maxAge)
	require.NoError(t, (&SignOn{}).complete())
	for what, c := range map[string]SignOn{
		"a client of nobody":    {Client: "crm"},
		"first use of nobody":   {FirstUse: true},
		"no client":             {Issuer: "https://id.example.com"},
		"no address":            {Issuer: "id.example.com", Client: "crm"},
		"an address with words": {Issuer: "https://ann:x@id.example.com", Client: "crm"},
		"no secret there":       {Issuer: "https://id.example.com", Client: "crm", SecretFile: filepath.Join(dir, "none")},
		"an empty secret":       {Issuer: "https://id.example.com", Client: "crm", SecretFile: write("empty", "\n")},
		"no rules there":        {Issuer: "https://id.example.com", Client: "crm", Rules: filepath.Join(dir, "none")},
	} {
		err := c.complete()
		require.Error(t, err, what)
		assert.NotContains(t, err.Error(), dir, what)
	}
	for what, text := range map[string]string{
		"no JSON": `roles: x`, "two": `{} {}`, "a word of no meaning": `{"role":{}}`, "a group of no name": `{"roles":{"":["sales"]}}`, "a group of no role": `{"roles":{"a":[]}}`,
		"the program's own role": `{"roles":{"a":["system"]}}`, "a role of sessions": `{"roles":{"a":["one-time"]}}`, "a role of no form": `{"roles":{"a":["Sales!"]}}`,
		"an unknown method": `{"amr":{"pwd":"magic"}}`, "a method that none vouches for": `{"acr":{"gold":["recovery"]}}`, "the provider itself": `{"amr":{"pwd":"oidc"}}`,
		"an age of no form": `{"max_age":"long"}`, "no age": `{"max_age":"0s"}`,
	} {
		c := good
		c.Rules = write("rules", text)
		assert.ErrorContains(t, c.complete(), "--oidc-rules", what)
	}
}

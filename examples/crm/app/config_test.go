package app

import (
	"net/netip"
	"testing"

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

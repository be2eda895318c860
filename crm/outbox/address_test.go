package outbox

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestPublic: what is dialled, and every way into the network of the CRM that is not.
func TestPublic(t *testing.T) {
	for _, s := range []string{"8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "198.17.0.1", "2606:4700::1111", "2a00:1450:4001::1"} {
		assert.True(t, public(netip.MustParseAddr(s)), s)
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1",
		"fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1",
	} {
		assert.False(t, public(netip.MustParseAddr(s)), s)
	}
	assert.False(t, public(netip.Addr{}))
}

// TestControl: the dialer asks about addresses, never about names.
func TestControl(t *testing.T) {
	ok := func(local bool, network, address string) bool {
		return control(local)(t.Context(), network, address, nil) == nil
	}
	assert.True(t, ok(false, "tcp4", "8.8.8.8:443"))
	assert.True(t, ok(true, "tcp4", "127.0.0.1:443"))
	for _, address := range []string{"127.0.0.1:443", "[::1]:443", "localhost:443", "10.0.0.1:443", "8.8.8.8", "", "[::ffff:10.0.0.1]:443"} {
		assert.False(t, ok(false, "tcp4", address), address)
	}
	for _, address := range []string{"10.0.0.1:443", "169.254.169.254:80", "localhost:443"} {
		assert.False(t, ok(true, "tcp4", address), "the option opens loopback and no more: "+address)
	}
	assert.False(t, ok(false, "udp4", "8.8.8.8:443"))
	assert.False(t, ok(false, "unix", "/tmp/x"))
}

// FuzzURL: no URL that is taken names an address that is not public, a user, or a place for another header.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://shop.example/in?k=1", "https://127.0.0.1/", "https://[::ffff:127.0.0.1]/", "https://a@b/", "https://0x7f.1/", "https://2130706433/", "http://localhost/", "https://a\r\nb/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, ok := parseURL(s)
		if !ok || !dialled(u, false) {
			return
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && !public(a) || u.Scheme != "https" || u.User != nil {
			t.Errorf("taken: %q", s)
		}
		for _, c := range []byte(u.String() + u.Host) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("a control character in %q", s)
			}
		}
	})
}

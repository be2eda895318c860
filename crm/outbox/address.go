package outbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// errAddress says that a name led to an address that is not dialled.
var errAddress = errors.New("outbox: address is not dialled")

// refused are the networks that are no part of the public internet, or lead out of it again; those that netip names by a method are not listed.
// RFC 6890, 6598, 8215, 3056, 4380, 9637.
var refused = func() (list []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}()

// public tells whether an address may be dialled. One of IPv4 in the clothes of IPv6 is taken for neither.
func public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return false
	}
	for _, p := range refused {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// control refuses a connection by the address that it is about to be made to, after names were resolved.
func control(local bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, network, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || network != "tcp4" && network != "tcp6" {
			return errAddress
		}
		if public(to.Addr()) || local && to.Addr().IsLoopback() {
			return nil
		}
		return errAddress
	}
}

// dialer is the only way out.
func dialer(local bool, resolver *net.Resolver) *net.Dialer {
	return &net.Dialer{Timeout: 5 * time.Second, Resolver: resolver, ControlContext: control(local)}
}

// mostURL is the longest URL of an endpoint.
const mostURL = 2000

// parseURL reads the URL of an endpoint. ok is false for one that is not an absolute https URL with a host, or has a user, a fragment, a zone, a space or a
// control character. Plain http has the form where it goes to localhost; dialled tells whether it is sent to.
func parseURL(s string) (u *url.URL, ok bool) {
	if s == "" || len(s) > mostURL || strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII || r <= ' ' || r == 0x7f || r == '\\' || r == '#' }) {
		return nil, false
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.User != nil || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), "%/?@") || strings.HasSuffix(u.Host, ":") {
		return nil, false
	}
	plain := u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
	return u, u.Scheme == "https" || plain
}

// dialled tells whether a URL is sent to, as far as its text says: an address in it must be public. What a name leads to is seen by the dialer.
func dialled(u *url.URL, local bool) bool {
	if u.Scheme != "https" && !local {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err != nil || public(a) || local && a.IsLoopback()
}

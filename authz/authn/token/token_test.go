package token_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/authz/authn/token/memstore"
)

var (
	update = flag.Bool("update", false, "write the golden file anew")
	key    = bytes.Repeat([]byte{1}, 32)
	inside = netip.MustParseAddr("192.0.2.7")
	start  = time.Date(2026, 11, 27, 9, 10, 0, 123e6, time.UTC)
)

type world struct {
	*token.Manager
	t     *testing.T
	store *memstore.Store
	now   time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: memstore.New(), now: start}
	var err error
	if w.Manager, err = token.New(w.store, [][]byte{key}, &token.Options{Now: func() time.Time { return w.now }}); err != nil {
		t.Fatal(err)
	}
	return w
}

func grant() token.Grant {
	return token.Grant{
		Tenant: "acme", Account: "svc-export", Name: "nightly export", By: "root", Scopes: []string{"read", "export", "read"},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}, Expires: start.Add(90 * 24 * time.Hour),
	}
}

func (w *world) issue() (*token.Info, token.Secret) {
	w.t.Helper()
	i, s, err := w.Issue(w.t.Context(), grant())
	if err != nil {
		w.t.Fatal(err)
	}
	return i, s
}

func (w *world) refused(what, text string, addr netip.Addr, reason error) {
	w.t.Helper()
	i, err := w.Verify(w.t.Context(), text, addr)
	wantRefused(w.t, what, i, err, reason)
}

func wantRefused(t *testing.T, what string, i *token.Info, err, reason error) {
	t.Helper()
	if i != nil || !errors.Is(err, authn.ErrRefused) || err.Error() != authn.ErrRefused.Error() || !errors.Is(authn.Reason(err), reason) {
		t.Errorf("%s: %+v, %v (%v), want %v inside", what, i, err, authn.Reason(err), reason)
	}
}

func TestToken(t *testing.T) {
	w := newWorld(t)
	i, s := w.issue()
	if !regexp.MustCompile("^(?:"+token.Pattern+")$").MatchString(s.Reveal()) || !token.Checksum(s.Reveal()) || !strings.HasPrefix(s.Reveal(), "crmg_"+i.ID+"_") || !slices.Equal(i.Scopes, []string{"export", "read"}) {
		t.Fatalf("%+v", i)
	}
	got, err := w.Verify(t.Context(), s.Reveal(), inside)
	if err != nil || got.Account != "svc-export" || got.Tenant != "acme" || !got.Has("export") || got.Has("erase") || !got.LastUsed.Equal(start.Truncate(time.Hour)) {
		t.Fatalf("%+v, %v", got, authn.Reason(err))
	}
	for _, addr := range []string{"192.0.2.255", "::ffff:192.0.2.1", "2001:db8::1"} {
		if _, err := w.Verify(t.Context(), s.Reveal(), netip.MustParseAddr(addr)); err != nil {
			t.Errorf("%s: %v", addr, authn.Reason(err))
		}
	}
	for _, addr := range []netip.Addr{netip.MustParseAddr("192.0.3.1"), netip.MustParseAddr("2001:db9::1"), netip.MustParseAddr("::1"), {}} {
		w.refused("from "+addr.String(), s.Reveal(), addr, token.ErrSource)
	}
	w.now = grant().Expires.Add(-time.Millisecond)
	if _, err := w.Verify(t.Context(), s.Reveal(), inside); err != nil {
		t.Error(authn.Reason(err))
	}
	w.now = grant().Expires
	w.refused("expired", s.Reveal(), inside, token.ErrExpired)
}

func TestMalformed(t *testing.T) {
	w := newWorld(t)
	_, s := w.issue()
	text := s.Reveal()
	for _, bad := range []string{"", "crmg_", text[1:], text + "0", text[:len(text)-1], " " + text, text + "\n", strings.ToUpper(text), strings.Repeat("A", 1<<20), strings.Replace(text, "_", "-", 2)} {
		w.refused(fmt.Sprintf("%.80q", bad), bad, inside, token.ErrMalformed)
	}
	for i := range text {
		for _, c := range []byte{text[i] ^ 1, text[i] ^ 0x20, 0} {
			bad := text[:i] + string(rune(c)) + text[i+1:]
			if _, err := w.Verify(t.Context(), bad, inside); !errors.Is(err, authn.ErrRefused) {
				t.Errorf("byte %d as %q is accepted", i, c)
			}
			if token.Checksum(bad) {
				t.Errorf("byte %d as %q has the checksum of another text", i, c)
			}
		}
	}
	// With a right checksum: a name that nobody has, and somebody's name with another secret.
	for _, body := range []string{"crmg_0000000000" + text[15:59], text[:16] + strings.Repeat("7", 43)} {
		w.refused(body, body+token.ChecksumOf(body), inside, token.ErrNone)
	}
}

// TestChecksumIsNotEnough: a right checksum over what is no token.
func TestChecksumIsNotEnough(t *testing.T) {
	w := newWorld(t)
	for _, body := range []string{
		"crmg_il0o000000_" + strings.Repeat("0", 43), "crmg_ABCDEFGHJK_" + strings.Repeat("0", 43), "crmg_0123456789_" + strings.Repeat("0", 42) + "-",
		"crmg_0123456789_" + strings.Repeat("\n", 43), "crmg_0123456789-" + strings.Repeat("0", 43), "crmx_0123456789_" + strings.Repeat("0", 43),
	} {
		text := body + token.ChecksumOf(body)
		if token.Checksum(text) {
			t.Errorf("%q", text)
		}
		w.refused(text, text, inside, token.ErrMalformed)
	}
}

// counting counts notes of use.
type counting struct {
	token.Store
	used int
}

func (c *counting) Use(ctx context.Context, id string, at time.Time) error {
	c.used++
	return c.Store.Use(ctx, id, at)
}

func TestUseIsWrittenOnceAnHour(t *testing.T) {
	now, store := start, &counting{Store: memstore.New()}
	m, err := token.New(store, [][]byte{key}, &token.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	_, s, err := m.Issue(t.Context(), grant())
	if err != nil {
		t.Fatal(err)
	}
	for range 180 { // three hours, from ten past nine
		now = now.Add(time.Minute)
		if _, err := m.Verify(t.Context(), s.Reveal(), inside); err != nil {
			t.Fatal(authn.Reason(err))
		}
	}
	if store.used != 4 {
		t.Errorf("%d notes of use", store.used)
	}
}

func TestRevoke(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, textA := w.issue()
	b, textB := w.issue()
	for what, err := range map[string]error{
		"of another tenant": w.Revoke(ctx, "other", a.ID), "none": w.Revoke(ctx, "acme", ""), "a part of the name": w.Revoke(ctx, "acme", a.ID[:9]),
		"all of nobody": func() error { _, err := w.RevokeAll(ctx, "acme", ""); return err }(),
	} {
		if !errors.Is(err, token.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := w.Revoke(ctx, "acme", a.ID); err != nil {
		t.Fatal(err)
	}
	w.refused("revoked", textA.Reveal(), inside, token.ErrRevoked)
	if err := w.Revoke(ctx, "acme", a.ID); !errors.Is(err, token.ErrNone) {
		t.Errorf("twice: %v", err)
	}
	if _, err := w.Verify(ctx, textB.Reveal(), inside); err != nil {
		t.Error(authn.Reason(err))
	}
	if ids, err := w.RevokeAll(ctx, "acme", "svc-export"); err != nil || !slices.Equal(ids, []string{b.ID}) {
		t.Errorf("%v, %v", ids, err)
	}
	w.refused("all revoked", textB.Reveal(), inside, token.ErrRevoked)
	all, err := w.List(ctx, token.Query{Tenant: "acme", Prefix: a.ID[:4]})
	if err != nil || len(all) == 0 || !slices.ContainsFunc(all, func(i token.Info) bool { return i.ID == a.ID && !i.Revoked.IsZero() }) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestGrantRefused(t *testing.T) {
	w := newWorld(t)
	for field, changes := range map[string][]func(*token.Grant){
		"tenant":  {func(g *token.Grant) { g.Tenant = "" }},
		"account": {func(g *token.Grant) { g.Account = "" }, func(g *token.Grant) { g.Account = "a\x00" }},
		"name":    {func(g *token.Grant) { g.Name = "" }, func(g *token.Grant) { g.Name = strings.Repeat("x", 101) }, func(g *token.Grant) { g.Name = "\xff" }},
		"by":      {func(g *token.Grant) { g.By = "a\n" }},
		"scopes":  {func(g *token.Grant) { g.Scopes = nil }, func(g *token.Grant) { g.Scopes = []string{""} }, func(g *token.Grant) { g.Scopes = []string{"a b"} }, func(g *token.Grant) { g.Scopes = make([]string, 51) }},
		"sources": {
			func(g *token.Grant) { g.Sources = []netip.Prefix{{}} }, func(g *token.Grant) { g.Sources = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")} },
			func(g *token.Grant) { g.Sources = []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")} }, func(g *token.Grant) { g.Sources = make([]netip.Prefix, 51) },
		},
		"expiry": {
			func(g *token.Grant) { g.Expires = time.Time{} }, func(g *token.Grant) { g.Expires = start }, func(g *token.Grant) { g.Expires = start.Add(token.MaxLife + time.Second) },
		},
	} {
		for n, change := range changes {
			g := grant()
			change(&g)
			var invalid *token.InvalidError
			if i, s, err := w.Issue(t.Context(), g); !errors.As(err, &invalid) || invalid.Field != field || i != nil || s != (token.Secret{}) {
				t.Errorf("%s %d: %v", field, n, err)
			}
			if i, err := w.Bind(t.Context(), g, &x509.Certificate{RawSubjectPublicKeyInfo: []byte("x")}); !errors.As(err, &invalid) || i != nil {
				t.Errorf("%s %d of a certificate: %v", field, n, err)
			}
		}
	}
	for _, keys := range [][][]byte{nil, {key[1:]}, {key, nil}} {
		if _, err := token.New(memstore.New(), keys, nil); err == nil {
			t.Errorf("keys %v", keys)
		}
	}
	if _, err := token.New(nil, [][]byte{key}, nil); err == nil {
		t.Error("no store")
	}
}

// TestForgedRows: who writes to the store widens no token.
func TestForgedRows(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	i, s := w.issue()
	whole, err := w.store.Find(ctx, i.ID)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*token.Record){
		"another account": func(r *token.Record) { r.Account = "svc-admin" },
		"another tenant":  func(r *token.Record) { r.Tenant = "other" },
		"another scope":   func(r *token.Record) { r.Scopes = []string{"export", "root"} },
		"scopes joined":   func(r *token.Record) { r.Scopes = []string{"exportread"} },
		"a scope moved":   func(r *token.Record) { r.Scopes, r.Sources = append(r.Scopes, "192.0.2.0/24"), r.Sources[1:] },
		"no sources":      func(r *token.Record) { r.Sources = nil },
		"a longer life":   func(r *token.Record) { r.Expires = r.Expires.Add(time.Hour) },
		"another name":    func(r *token.Record) { r.Name = "x" },
		"no MAC":          func(r *token.Record) { r.MAC = nil },
	} {
		r := whole
		change(&r)
		other := newWorld(t)
		if err := other.store.Add(ctx, r); err != nil {
			t.Fatal(err)
		}
		other.refused(what, s.Reveal(), inside, token.ErrForged)
	}
	for what, hash := range map[string][]byte{"another hash": make([]byte, 32), "a short hash": whole.Hash[:31]} {
		r := whole
		r.Hash = hash
		other := newWorld(t)
		other.store.Add(ctx, r)
		other.refused(what, s.Reveal(), inside, token.ErrNone)
	}
	other := newWorld(t)
	other.store.Add(ctx, whole)
	if _, err := other.Verify(ctx, s.Reveal(), inside); err != nil {
		t.Error(authn.Reason(err))
	}
	if text := fmt.Sprintf("%s %s", whole.Hash, whole.MAC); strings.Contains(text, s.Reveal()[16:59]) {
		t.Error("the store has the secret")
	}
}

func TestSecretPrintsNothing(t *testing.T) {
	_, s := newWorld(t).issue()
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s)
	j, _ := json.Marshal([]any{s})
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), log.String(), string(j)} {
		if strings.Contains(text, s.Reveal()[16:]) || !strings.Contains(text, "***") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestFromRequest(t *testing.T) {
	for _, c := range []struct {
		headers []string
		want    string
	}{
		{[]string{"Bearer crmg_x"}, "crmg_x"}, {[]string{"bearer  crmg_x"}, "crmg_x"},
		{nil, ""}, {[]string{"crmg_x"}, ""}, {[]string{"Basic crmg_x"}, ""}, {[]string{"Bearer"}, ""}, {[]string{"Bearer a", "Bearer b"}, ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/?access_token=crmg_y&token=crmg_y", nil)
		for _, h := range c.headers {
			r.Header.Add("Authorization", h)
		}
		if got := token.FromRequest(r); got != c.want {
			t.Errorf("%q: %q", c.headers, got)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	w := newWorld(t)
	_, s := w.issue()
	next := bytes.Repeat([]byte{2}, 32)
	both, _ := token.New(w.store, [][]byte{next, key}, &token.Options{Now: func() time.Time { return start }})
	if _, err := both.Verify(t.Context(), s.Reveal(), inside); err != nil {
		t.Error(authn.Reason(err))
	}
	only, _ := token.New(w.store, [][]byte{next}, nil)
	_, err := only.Verify(t.Context(), s.Reveal(), inside)
	wantRefused(t, "without the old key", nil, err, token.ErrNone)
}

// authority issues certificates of real connections.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	a := &authority{t, cert, k, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(k *ecdsa.PrivateKey, usage x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "svc"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}, DNSNames: []string{"crm.test"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestCertificates: over real TLS connections.
func TestCertificates(t *testing.T) {
	ctx := t.Context()
	now := time.Now()
	m, err := token.New(memstore.New(), [][]byte{key}, &token.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	ca, rogue, k := newAuthority(t), newAuthority(t), newKey(t)
	first := ca.issue(k, x509.ExtKeyUsageClientAuth)
	g := grant()
	g.Expires = now.Add(24 * time.Hour)
	bound, err := m.Bind(ctx, g, first.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	// serve makes one connection and returns what the server makes of it.
	serve := func(auth tls.ClientAuthType, certs ...tls.Certificate) (info *token.Info, err error) {
		t.Helper()
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			info, err = m.VerifyCertificate(r.Context(), r.TLS, inside)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(newKey(t), x509.ExtKeyUsageServerAuth)}, ClientCAs: ca.pool, ClientAuth: auth}
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
		s.StartTLS()
		defer s.Close()
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool, ServerName: "crm.test", Certificates: certs}}}
		resp, e := c.Get(s.URL)
		if e != nil {
			return nil, e // the handshake failed already
		}
		resp.Body.Close()
		return info, err
	}
	for what, cert := range map[string]tls.Certificate{"the one that was bound": first, "a renewed one of the same key": ca.issue(k, x509.ExtKeyUsageClientAuth)} {
		if i, err := serve(tls.VerifyClientCertIfGiven, cert); err != nil || i.ID != bound.ID || i.Account != "svc-export" {
			t.Errorf("%s: %+v, %v", what, i, err)
		}
	}
	i, err := serve(tls.VerifyClientCertIfGiven)
	wantRefused(t, "no certificate", i, err, token.ErrUnverified)
	i, err = serve(tls.RequestClientCert, rogue.issue(k, x509.ExtKeyUsageClientAuth))
	wantRefused(t, "sent and not verified", i, err, token.ErrUnverified)
	i, err = serve(tls.VerifyClientCertIfGiven, ca.issue(newKey(t), x509.ExtKeyUsageClientAuth))
	wantRefused(t, "another key", i, err, token.ErrNone)
	for what, cert := range map[string]tls.Certificate{"of another authority": rogue.issue(k, x509.ExtKeyUsageClientAuth), "for servers": ca.issue(k, x509.ExtKeyUsageServerAuth)} {
		if i, err := serve(tls.RequireAnyClientCert, cert); !errors.Is(err, authn.ErrRefused) {
			t.Errorf("%s: %+v, %v", what, i, err)
		}
	}
	now = now.Add(2 * time.Hour) // the certificate ends before the binding
	i, err = serve(tls.VerifyClientCertIfGiven, first)
	wantRefused(t, "an old certificate on a living connection", i, err, token.ErrExpired)
	now = now.Add(-2 * time.Hour)
	if _, err := m.Bind(ctx, g, first.Leaf); !errors.Is(err, token.ErrExists) {
		t.Errorf("bound twice: %v", err)
	}
	if err := m.Revoke(ctx, "acme", bound.ID); err != nil {
		t.Fatal(err)
	}
	i, err = serve(tls.VerifyClientCertIfGiven, first)
	wantRefused(t, "revoked", i, err, token.ErrRevoked)
	if _, err := m.Bind(ctx, g, first.Leaf); !errors.Is(err, token.ErrExists) {
		t.Errorf("a revoked key comes back: %v", err)
	}
	if _, err := m.Bind(ctx, g, nil); err == nil {
		t.Error("no certificate")
	}
	for _, state := range []*tls.ConnectionState{nil, {}, {HandshakeComplete: true, PeerCertificates: []*x509.Certificate{first.Leaf}}} {
		i, err := m.VerifyCertificate(ctx, state, inside)
		wantRefused(t, "no connection", i, err, token.ErrUnverified)
	}
}

// TestFormat1: texts and rows of format version 1 are as they were when the version was fixed.
func TestFormat1(t *testing.T) {
	w := newWorld(t)
	body := "crmg_0123456789_" + strings.Repeat("0", 42) + "z"
	text := body + token.ChecksumOf(body)
	r := w.RowOf(grant(), "0123456789", text)
	out := fmt.Sprintf("key: %x\ntext: %s\nid: %s\ntenant: %s\naccount: %s\nname: %s\nmade_by: %s\nscopes: %q\nsources: %q\ncreated: %d\nexpires: %d\nhash: %x\nmac: %x\n",
		key, text, r.ID, r.Tenant, r.Account, r.Name, r.By, r.Scopes, r.Sources, r.Created.UnixMilli(), r.Expires.UnixMilli(), r.Hash, r.MAC)
	const name = "testdata/token-v1.txt"
	if *update {
		if err := os.WriteFile(name, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != out {
		t.Errorf("%v; got\n%s", err, out)
	}
	if err := w.store.Add(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Verify(t.Context(), text, inside); err != nil {
		t.Error(authn.Reason(err))
	}
}

// FuzzChecksum: what has the form and checksum of a token matches the pattern that scanners look for.
func FuzzChecksum(f *testing.F) {
	body := "crmg_0123456789_" + strings.Repeat("0", 43)
	f.Add(body + token.ChecksumOf(body))
	f.Add(body + "000000")
	f.Add("")
	pattern := regexp.MustCompile("^(?:" + token.Pattern + ")$")
	f.Fuzz(func(t *testing.T, text string) {
		if token.Checksum(text) && !pattern.MatchString(text) {
			t.Errorf("%q", text)
		}
	})
}

func Example() {
	m, _ := token.New(memstore.New(), [][]byte{bytes.Repeat([]byte{1}, 32)}, nil)
	ctx := context.Background()
	info, secret, _ := m.Issue(ctx, token.Grant{
		Tenant: "acme", Account: "svc-export", Name: "nightly export", Scopes: []string{"export"},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Expires: time.Now().Add(90 * 24 * time.Hour),
	})
	fmt.Println(secret, token.Checksum(secret.Reveal()), len(info.ID))
	got, err := m.Verify(ctx, secret.Reveal(), netip.MustParseAddr("192.0.2.7"))
	fmt.Println(got.Account, got.Has("export"), got.Has("erase"), err)
	_, err = m.Verify(ctx, secret.Reveal(), netip.MustParseAddr("198.51.100.7"))
	fmt.Println(err, "-", authn.Reason(err))
	// Output:
	// *** true 10
	// svc-export true false <nil>
	// authn: refused - token: not from this network
}

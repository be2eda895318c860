package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/app"
)

// authority signs certificates of programs.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "programs"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key}
}

// issue makes a certificate for a program, until then.
func (a *authority) issue(t *testing.T, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a program"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestClientCertificates: a program shows a client certificate in the place of a token, and has the rights of its owner within the scope that its key was bound to.
func TestClientCertificates(t *testing.T) {
	o := newOffice(t)
	ours, theirs := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw}), 0o600))
	c := &app.Config{Data: t.TempDir(), ClientCA: file}
	certs, err := newCertificates(c)
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(o.server)
	srv.TLS, err = tlsConfig(c, certs)
	require.NoError(t, err)
	srv.StartTLS()
	t.Cleanup(srv.Close)

	ask := func(cert *tls.Certificate, path string, header ...string) (int, error) {
		config := &tls.Config{InsecureSkipVerify: true} // of the server, which made its own
		if cert != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil } // whatever the server would accept
		}
		tr := &http.Transport{TLSClientConfig: config}
		defer tr.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w, err := tr.RoundTrip(r)
		if err != nil {
			return 0, err
		}
		return w.StatusCode, w.Body.Close()
	}
	status := func(cert *tls.Certificate, path string, header ...string) int {
		t.Helper()
		code, err := ask(cert, path, header...)
		require.NoError(t, err)
		return code
	}
	bind := func(name string, cert *tls.Certificate, scopes ...string) (id string, err error) {
		i, secret, err := o.app.MakeToken(t.Context(), o.id(name), o.people[name].ID.UUID(), app.TokenAsk{Name: "by certificate", Scopes: scopes, Days: 30, Certificate: cert.Leaf})
		if err != nil {
			return "", err
		}
		assert.Empty(t, secret.Reveal(), "nothing to keep secret but the key")
		return i.ID, nil
	}
	good := ours.issue(t, time.Now().Add(time.Hour))
	assert.Equal(t, http.StatusUnauthorized, status(&good, "/api/v1/customers"), "of a key that is bound to nobody")
	assert.Contains(t, o.why("token.refused"), "no such token")
	id, err := bind("sales", &good, "customer:read")
	require.NoError(t, err)
	_, err = bind("peer", &good, "customer:read")
	require.ErrorIs(t, err, app.ErrCertificate, "a key is one program")

	assert.Equal(t, http.StatusOK, status(&good, "/api/v1/customers"))
	assert.Equal(t, http.StatusForbidden, status(&good, "/api/v1/leads"), "beyond its scope")
	assert.Equal(t, http.StatusUnauthorized, status(nil, "/api/v1/customers"), "nothing shown")
	assert.Equal(t, http.StatusSeeOther, status(&good, "/customers"), "pages are for people")

	// A bad token or cookie is not made good by a certificate beside it.
	assert.Equal(t, http.StatusUnauthorized, status(&good, "/api/v1/customers", "Authorization", "Bearer crmg_nothing"))
	assert.Equal(t, http.StatusUnauthorized, status(&good, "/api/v1/customers", "Cookie", "crm-session="+strings.Repeat("A", 43)))

	// Other authorities, ended certificates, and certificates whose key nobody shows, do not come as far as the application.
	stranger, ended := theirs.issue(t, time.Now().Add(time.Hour)), ours.issue(t, time.Now().Add(-time.Hour))
	for what, cert := range map[string]*tls.Certificate{"another authority": &stranger, "ended": &ended} {
		_, err := bind("sales", cert, "customer:read")
		require.NoError(t, err, what)
		_, err = ask(cert, "/api/v1/customers")
		require.Error(t, err, what)
	}
	assert.Error(t, func() error {
		other := ours.issue(t, time.Now().Add(time.Hour))
		_, err := ask(&tls.Certificate{Certificate: good.Certificate, PrivateKey: other.PrivateKey}, "/api/v1/customers")
		return err
	}())

	// Revoked at once, and for good.
	require.NoError(t, o.app.RevokeToken(t.Context(), o.id("sales"), o.people["sales"].ID.UUID(), id))
	assert.Equal(t, http.StatusUnauthorized, status(&good, "/api/v1/customers"))
	_, err = bind("sales", &good, "customer:read")
	require.ErrorIs(t, err, app.ErrCertificate)

	// A file without authorities is no authority.
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o600))
	_, err = tlsConfig(c, certs)
	require.ErrorContains(t, err, "no certificate")
	_, err = tlsConfig(&app.Config{ClientCA: filepath.Join(t.TempDir(), "none")}, certs)
	require.ErrorContains(t, err, "cannot be read")
}

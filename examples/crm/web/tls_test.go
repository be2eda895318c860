package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/app"
)

// writeCert writes a certificate of a serial number and its key.
func writeCert(t *testing.T, folder string, serial int64, lasts time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lasts), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	k, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), 0o600))
	at := time.Now().Add(time.Duration(serial) * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(folder, "cert.pem"), at, at))
}

// TestCertificateFollowsItsFiles: a new one is served without a restart, a broken one is not, and the end is told in time, once a day.
func TestCertificateFollowsItsFiles(t *testing.T) {
	folder := t.TempDir()
	c := &app.Config{TLSCert: filepath.Join(folder, "cert.pem"), TLSKey: filepath.Join(folder, "key.pem")}
	_, err := newCertificates(c)
	require.Error(t, err)
	writeCert(t, folder, 1, 90*24*time.Hour)
	k, err := newCertificates(c)
	require.NoError(t, err)
	serial := func() int64 {
		cert, err := k.get(nil)
		require.NoError(t, err)
		return cert.Leaf.SerialNumber.Int64()
	}
	assert.Equal(t, int64(1), serial())
	_, due := k.due(time.Now())
	assert.False(t, due)

	writeCert(t, folder, 2, 7*24*time.Hour)
	require.NoError(t, k.look())
	assert.Equal(t, int64(2), serial())
	end, due := k.due(time.Now())
	assert.True(t, due)
	assert.WithinDuration(t, time.Now().Add(7*24*time.Hour), end, time.Minute)
	_, due = k.due(time.Now())
	assert.False(t, due, "once a day")
	_, due = k.due(time.Now().Add(25 * time.Hour))
	assert.True(t, due)

	require.NoError(t, os.WriteFile(c.TLSKey, []byte("half a fi"), 0o600))
	at := time.Now().Add(9 * time.Hour)
	require.NoError(t, os.Chtimes(c.TLSKey, at, at))
	assert.Error(t, k.look())
	assert.Equal(t, int64(2), serial(), "the one before")
	require.NoError(t, os.Remove(c.TLSKey))
	assert.Error(t, k.look())
	assert.Equal(t, int64(2), serial())
}

// Package web serves the CRM: pages for people and a REST API for programs. Every record it shows came
// through crm/guard; it holds no other way to one.
package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard/examples/crm/app"
)

// Serve listens on the configured address until ctx ends, then lets requests finish for five seconds.
func Serve(ctx context.Context, a *app.App, out io.Writer) error {
	s, err := New(ctx, a)
	if err != nil {
		return err
	}
	c := &a.Config
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("crm: cannot listen on %s: %w", c.Addr, errors.Unwrap(err))
	}
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // handshake errors name clients
	}
	scheme := "http"
	if !c.Plain {
		certs, err := newCertificates(c)
		if err != nil {
			ln.Close()
			return err
		}
		watching, stop := context.WithCancel(ctx)
		defer stop()
		go certs.watch(watching, a, os.Stderr)
		if srv.TLSConfig, err = tlsConfig(c, certs); err != nil {
			ln.Close()
			return err
		}
		ln = tls.NewListener(ln, srv.TLSConfig)
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	origin := c.Origin
	if origin == "" {
		origin = scheme + "://" + net.JoinHostPort(host, port)
	}
	a.OpenSignOn(origin)
	if ip := net.ParseIP(host); c.Origin == "" && ip != nil {
		fmt.Fprintln(out, "Passkeys belong to a name: say which one browsers use with --origin https://NAME.")
	} else if err := a.OpenPasskeys(ctx, origin); err != nil {
		ln.Close()
		return err
	}
	if c.LocalKEK() {
		fmt.Fprintln(out, "The keys are wrapped by a development key on this host; use --kek vault:KEY for real data.")
	}
	if c.Plain {
		fmt.Fprintln(out, "Plain HTTP: cookies are sent without the __Host- prefix and without TLS.")
	}
	fmt.Fprintf(out, "Serving on %s://%s\n", scheme, net.JoinHostPort(host, port))
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err := srv.Shutdown(ctx)
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
		defer cancel()
		done <- errors.Join(err, s.Wait(wait))
	}()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

// tlsConfig serves certs, and asks for client certificates where there are authorities for them.
func tlsConfig(c *app.Config, certs *certificates) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get}
	if c.ClientCA == "" {
		return t, nil
	}
	var err error
	t.ClientCAs, err = authorities(c.ClientCA)
	t.ClientAuth = tls.VerifyClientCertIfGiven
	return t, err
}

// authorities reads the certificates of a PEM file.
func authorities(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.New("crm: the file of --client-ca cannot be read")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("crm: the file of --client-ca has no certificate")
	}
	return pool, nil
}

// certificate reads or makes the self-signed certificate of the data folder. It is valid for a year and
// made anew in its last month.
func certificate(data string) (tls.Certificate, error) {
	file := filepath.Join(data, "tls.pem")
	b, err := os.ReadFile(file)
	if err == nil {
		cert, err := tls.X509KeyPair(b, b)
		if err != nil {
			return cert, errors.New("crm: tls.pem is damaged; delete it to have another made")
		}
		if time.Until(cert.Leaf.NotAfter) > 30*24*time.Hour {
			return cert, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, fmt.Errorf("crm: reading tls.pem: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})...)
	tmp := file + ".new"
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return tls.Certificate{}, fmt.Errorf("crm: writing tls.pem: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return tls.Certificate{}, fmt.Errorf("crm: writing tls.pem: %w", err)
	}
	return tls.X509KeyPair(text, text)
}

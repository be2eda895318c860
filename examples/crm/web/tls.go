package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// How the certificate is looked after.
const (
	certEvery = time.Minute         // how often the files are looked at
	certAlarm = 14 * 24 * time.Hour // before its end
	certAgain = 24 * time.Hour      // between two alarms
)

// certificates are the certificate that is served, which follows its files without a restart. One that does not load leaves the one before.
type certificates struct {
	load func() (tls.Certificate, error)
	seen func() (time.Time, error) // when the files were changed last

	mu      sync.Mutex
	now     tls.Certificate
	changed time.Time
	alarmed time.Time
}

// newCertificates loads the certificate that the configuration names.
func newCertificates(c *app.Config) (*certificates, error) {
	k := &certificates{
		load: func() (tls.Certificate, error) { return certificate(c.Data) },
		seen: func() (time.Time, error) { return time.Now().Truncate(24 * time.Hour), nil }, // its own is made anew in time
	}
	if c.TLSCert != "" {
		k.load = func() (tls.Certificate, error) { return tls.LoadX509KeyPair(c.TLSCert, c.TLSKey) }
		k.seen = func() (newest time.Time, err error) {
			for _, name := range []string{c.TLSCert, c.TLSKey} {
				info, err := os.Stat(name)
				if err != nil {
					return newest, err
				}
				if info.ModTime().After(newest) {
					newest = info.ModTime()
				}
			}
			return newest, nil
		}
	}
	var err error
	if k.changed, err = k.seen(); err == nil {
		k.now, err = k.load()
	}
	if err != nil && c.TLSCert != "" {
		err = errors.New("crm: the files of --tls-cert and --tls-key cannot be read, or do not go together")
	}
	return k, err
}

// get is what tls.Config asks at every handshake.
func (k *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	cert := k.now
	return &cert, nil
}

// look loads the files where they have changed. While certificate and key do not go together, one of them is still being written: it is tried again.
func (k *certificates) look() error {
	at, err := k.seen()
	if err != nil {
		return errors.New("the certificate's files are gone; the one before is served")
	}
	k.mu.Lock()
	same := at.Equal(k.changed)
	k.mu.Unlock()
	if same {
		return nil
	}
	cert, err := k.load()
	if err != nil {
		return errors.New("the new certificate does not load; the one before is served")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now, k.changed = cert, at
	return nil
}

// due tells whether the certificate ends soon and nobody was told today.
func (k *certificates) due(now time.Time) (end time.Time, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now.Leaf == nil || k.now.Leaf.NotAfter.Sub(now) > certAlarm || now.Sub(k.alarmed) < certAgain {
		return end, false
	}
	k.alarmed = now
	return k.now.Leaf.NotAfter, true
}

// watch looks after the certificate until ctx ends; an alarm goes to out and into the log.
func (k *certificates) watch(ctx context.Context, a *app.App, out io.Writer) {
	tick := time.NewTicker(certEvery)
	defer tick.Stop()
	for {
		if err := k.look(); err != nil {
			slog.Error("certificate", "err", err)
		}
		if end, ok := k.due(time.Now()); ok {
			fmt.Fprintf(out, "ALARM: the TLS certificate ends %s\n", end.UTC().Format(time.RFC3339))
			_, err := a.Log.Append(ctx, audit.Event{
				Action: "tls.expiring", Activity: audit.Configure, Outcome: audit.Allowed, Tenant: app.Tenant, Actor: "system", Note: end.UTC().Format(time.RFC3339),
			})
			if err != nil {
				slog.Error("certificate", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

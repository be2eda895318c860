package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
)

// openOutbox makes the outbox over the records. Endpoints read as their owners, with the roles that those have at the time.
func (a *App) openOutbox() error {
	var trusted *tls.Config
	if a.Config.WebhookCA != "" {
		pem, err := os.ReadFile(a.Config.WebhookCA)
		if err != nil {
			return fmt.Errorf("crm: --webhook-ca cannot be read: %w", errors.Unwrap(err))
		}
		trusted = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		if !trusted.RootCAs.AppendCertsFromPEM(pem) {
			return errors.New("crm: --webhook-ca has no certificate")
		}
	}
	a.Outbox = outbox.New(a.Guard, outbox.Records{Endpoints: a.Endpoints, Deliveries: a.Deliveries, Cursors: a.Cursors}, System("outbox"), &outbox.Options{
		Clock: func() time.Time { return a.now() }, TLS: trusted, InsecureLocal: a.Config.WebhookLocal,
		Caller: func(ctx context.Context, id crm.ID[crm.Employee]) (guard.Caller, bool, error) {
			s, err := a.Subject(ctx, id.UUID())
			if errors.Is(err, ErrSignIn) {
				return guard.Caller{}, false, nil
			}
			return guard.Caller{Subject: s, Environment: authz.Environment{Time: a.now()}}, err == nil, err
		},
	}, outbox.From(a.Customers), outbox.From(a.Contacts), outbox.From(a.Leads), outbox.From(a.FollowUps), outbox.From(a.Opportunities),
		outbox.From(a.Quotes), outbox.From(a.Contracts), outbox.From(a.Tickets))
	return nil
}

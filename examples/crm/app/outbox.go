package app

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
)

// openOutbox makes the outbox over the records. Endpoints read as their owners, with the roles that those have at the time.
func (a *App) openOutbox() {
	a.Outbox = outbox.New(a.Guard, outbox.Records{Endpoints: a.Endpoints, Deliveries: a.Deliveries, Cursors: a.Cursors}, System("outbox"), &outbox.Options{
		Clock: func() time.Time { return a.now() },
		Caller: func(ctx context.Context, id crm.ID[crm.Employee]) (guard.Caller, bool, error) {
			s, err := a.Subject(ctx, id.UUID())
			if errors.Is(err, ErrSignIn) {
				return guard.Caller{}, false, nil
			}
			return guard.Caller{Subject: s, Environment: authz.Environment{Time: a.now()}}, err == nil, err
		},
	}, outbox.From(a.Customers), outbox.From(a.Contacts), outbox.From(a.Leads), outbox.From(a.FollowUps), outbox.From(a.Opportunities),
		outbox.From(a.Quotes), outbox.From(a.Contracts), outbox.From(a.Tickets))
}

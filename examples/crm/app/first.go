package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/seed"
)

// OneTime is a login with the password that opens it once.
type OneTime struct{ Role, Login, Password string }

// demoCustomers is how many customers the first start makes.
const demoCustomers = 2000

// firstStart looks whether there is anybody who can sign in.
func (a *App) firstStart(ctx context.Context) error {
	n, err := a.Accounts.Count(ctx, System("start"), guard.Query{})
	a.First = n == 0
	return err
}

// Populate fills an empty CRM: with demo data when the configuration says so, else with one
// administrator. It returns the one-time passwords, which nothing keeps. It may be run again after an
// interruption: what exists stays.
func (a *App) Populate(ctx context.Context) ([]OneTime, error) {
	if !a.Config.Seed {
		admin := seed.Admin()
		if err := fill(ctx, a.Employees, []*crm.Employee{admin}); err != nil {
			return nil, err
		}
		p, err := a.AddAccount(ctx, admin.Email.Expose(), admin.ID.UUID())
		return []OneTime{{"admin", admin.Email.Expose(), p}}, err
	}
	w := seed.New(demoCustomers)
	for _, step := range []func() error{
		func() error { return fill(ctx, a.Employees, w.Employees) },
		func() error { return fill(ctx, a.Customers, w.Customers) },
		func() error { return fill(ctx, a.Contacts, w.Contacts) },
		func() error { return fill(ctx, a.Leads, w.Leads) },
		func() error { return fill(ctx, a.FollowUps, w.FollowUps) },
		func() error { return fill(ctx, a.Quotes, w.Quotes) },
		func() error { return fill(ctx, a.Contracts, w.Contracts) },
		func() error { return fill(ctx, a.Tickets, w.Tickets) },
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("crm: demo data: %w", err)
		}
	}
	var out []OneTime
	for i, l := range seed.Logins {
		p, err := a.AddAccount(ctx, l.Login, w.Employees[i].ID.UUID())
		if err != nil {
			return nil, fmt.Errorf("crm: demo accounts: %w", err)
		}
		out = append(out, OneTime{l.Role, l.Login, p})
	}
	return out, nil
}

// fill creates records in batches; one that exists already, from an interrupted run, stays.
func fill[T any](ctx context.Context, r *guard.Records[T], vs []*T) error {
	for len(vs) > 0 {
		n := min(len(vs), guard.MaxBatch)
		errs, err := r.CreateAll(ctx, System("seed"), vs[:n])
		if err != nil {
			return err
		}
		for _, err := range errs {
			if err != nil && !errors.Is(err, crm.ErrConflict) && !errors.Is(err, crm.ErrDuplicate) {
				return err
			}
		}
		vs = vs[n:]
	}
	return nil
}

package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/examples/crm/seed"
)

// OneTime is a login with the password that opens it once.
type OneTime struct{ Role, Login, Password string }

// demoCustomers is how many customers the first start makes.
const demoCustomers = 2000

// firstStart looks whether there is anybody who can sign in.
func (a *App) firstStart(ctx context.Context) error {
	done, err := a.happened(ctx, actionPopulated)
	if err != nil {
		return err
	}
	if done {
		return a.certifyAll(ctx)
	}
	begun, err := a.happened(ctx, actionPopulating)
	if err != nil {
		return err
	}
	n, err := a.Accounts.Count(ctx, System("start"), guard.Query{})
	if err != nil {
		return err
	}
	if a.First = begun || n == 0; a.First {
		return nil
	}
	return a.certifyAll(ctx)
}

// Events of the first start. It is over when the second is in the log; until then it is begun again.
const (
	actionPopulating = "crm.populating"
	actionPopulated  = "crm.populated"
)

func (a *App) happened(ctx context.Context, action string) (bool, error) {
	found, err := a.Log.Query(ctx, audit.Filter{Action: action}, math.MaxUint64, 1)
	return len(found) > 0, err
}

func (a *App) note(ctx context.Context, action string) error {
	_, err := a.Log.Append(ctx, audit.Event{Action: action, Activity: audit.Configure, Outcome: audit.Allowed, Tenant: Tenant, Actor: "system"})
	return err
}

// checkNotLost refuses an empty database beside a log that knows of an installation: the database was
// lost, and a new one must not quietly take its place.
func (a *App) checkNotLost(ctx context.Context) error {
	done, err := a.happened(ctx, actionPopulated)
	if err != nil || !done || a.db.holdsRows(ctx) {
		return err
	}
	return errors.New("crm: the log knows an installation, but the database is empty; crm restore brings it back from a backup")
}

// Populate fills an empty CRM: with demo data when the configuration says so, else with one
// administrator. It returns the one-time passwords, which nothing keeps. It may be run again after an
// interruption: what exists stays.
func (a *App) Populate(ctx context.Context) ([]OneTime, error) {
	if err := a.note(ctx, actionPopulating); err != nil {
		return nil, err
	}
	out, err := a.populate(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.certifyAll(ctx); err != nil {
		return nil, err
	}
	if err := a.furnish(ctx); err != nil {
		return nil, err
	}
	if a.Config.Seed {
		w := seed.New(demoCustomers)
		if err := a.fillPool(ctx, w); err != nil {
			return nil, fmt.Errorf("crm: the demo pool: %w", err)
		}
		if err := a.fillSales(ctx, w); err != nil {
			return nil, fmt.Errorf("crm: the demo sales: %w", err)
		}
	}
	return out, a.note(ctx, actionPopulated)
}

func (a *App) populate(ctx context.Context) ([]OneTime, error) {
	if !a.Config.Seed {
		admin := seed.Admin()
		if err := fill(ctx, a.Employees, []*crm.Employee{admin}); err != nil {
			return nil, err
		}
		p, err := a.firstAccount(ctx, admin.Email.Expose(), admin.ID.UUID())
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
		p, err := a.firstAccount(ctx, l.Login, w.Employees[i].ID.UUID())
		if err != nil {
			return nil, fmt.Errorf("crm: demo accounts: %w", err)
		}
		out = append(out, OneTime{l.Role, l.Login, p})
	}
	return out, nil
}

// fillSales makes the demo products, and opportunities in the first pipeline.
func (a *App) fillSales(ctx context.Context, w *seed.World) error {
	p, err := a.Pipelines.Get(ctx, System("seed"), firstID(crm.TypePipeline))
	if err != nil {
		return err
	}
	sold, open := w.Sales(p.Value)
	if err := fillAs(ctx, a.Products, setter(), sold); err != nil {
		return err
	}
	return fillAs(ctx, a.Opportunities, setter(), open)
}

// fillPool makes the demo pool and puts the customers that nobody has into it, as its administrator would.
func (a *App) fillPool(ctx context.Context, w *seed.World) error {
	if _, err := a.Pools.Create(ctx, setter(), w.Pool); err != nil && !errors.Is(err, crm.ErrConflict) {
		return err
	}
	if err := fill(ctx, a.Customers, w.Free); err != nil {
		return err
	}
	s, err := a.Subject(ctx, w.Pool.Admins[0].UUID())
	if err != nil {
		return err
	}
	c := guard.Caller{Subject: s, Environment: authz.Environment{Time: time.Now(), Purpose: "seed"}}
	for _, k := range w.Free {
		var there *pool.Refusal
		err := a.Desk.Enter(ctx, c, desk.Target{Type: crm.TypeCustomer, ID: k.ID.UUID()}, w.Pool.ID)
		if err != nil && !errors.As(err, &there) && !errors.Is(err, crm.ErrNotFound) { // an interrupted run put it there, and somebody has it by now
			return err
		}
	}
	return nil
}

// fill creates records in batches; one that exists already, from an interrupted run, stays.
func fill[P guard.Record](ctx context.Context, r *guard.Records[P], vs []P) error {
	return fillAs(ctx, r, System("seed"), vs)
}

func fillAs[P guard.Record](ctx context.Context, r *guard.Records[P], c guard.Caller, vs []P) error {
	for len(vs) > 0 {
		n := min(len(vs), guard.MaxBatch)
		errs, err := r.CreateAll(ctx, c, vs[:n])
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

// firstAccount makes an account, or, when an interrupted run made it, gives it a new password: the one
// before was never printed.
func (a *App) firstAccount(ctx context.Context, login string, employee crm.UUID) (string, error) {
	p, err := a.AddAccount(ctx, login, employee)
	if errors.Is(err, crm.ErrDuplicate) {
		return a.ResetPassword(ctx, login)
	}
	return p, err
}

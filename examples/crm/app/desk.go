package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/desk"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/transfer"
)

const (
	// MostDiscount is how many basis points a quote may lower a price by without somebody's approval.
	MostDiscount = 2000
	// PurgeLimit is how many records one run takes out of the recycle bin for good. With one run a day the keeper's brake on the erasure of many persons,
	// whose keys are blocked on one day and destroyed on another, is not reached; what is above it waits for the next run.
	PurgeLimit = 40
	// sweepEvery is Config.SweepEvery where nothing is said.
	sweepEvery = time.Minute
	purgeEvery = 24 * time.Hour
	// runFor bounds one run of what time asks for, also when the process is told to end meanwhile.
	runFor = 20 * time.Second
)

// openDesk makes the desk over the records.
func (a *App) openDesk() {
	a.Desk = desk.New(a.Guard, desk.Records{
		Customers: a.Customers, Contacts: a.Contacts, Leads: a.Leads, FollowUps: a.FollowUps, Quotes: a.Quotes, Contracts: a.Contracts,
		Tickets: a.Tickets, Series: a.Series, Pools: a.Pools, Ownerships: a.Ownerships, Pipelines: a.Pipelines, Opportunities: a.Opportunities,
		Periods: a.Periods, Receipts: a.Receipts, Instalments: a.Instalments, Warehouses: a.Warehouses, Movements: a.Movements,
	}, &desk.Options{
		Clock: func() time.Time { return a.now() },
		Employee: func(ctx context.Context, id crm.ID[crm.Employee]) (team string, active bool, err error) {
			e, err := a.Employee(ctx, id.UUID())
			if err != nil || e == nil {
				return "", false, err
			}
			return e.Team, e.Active(), nil
		},
		Program:      System,
		MostDiscount: MostDiscount,
	})
}

// Swept is what one run over all pools did.
type Swept struct {
	Pools int // that had something due
	Back  int // records that went back
	Soon  int // records whose owners are to be told that they go back
}

// SweepPools gives back what the clocks of the pools let go. A pool with which something is wrong keeps the others from nothing.
func (a *App) SweepPools(ctx context.Context) (out Swept, err error) {
	a.due.Lock()
	defer a.due.Unlock()
	pools, err := a.LivingPools(ctx)
	if err != nil {
		return out, err
	}
	var errs []error
	for _, p := range pools {
		// The store is asked first for a mere number, so that there are lines in the log only when there is something to do.
		n, err := a.store.Count(ctx, crm.Query{Tenant: Tenant, Type: p.RecordType, Where: crm.Everything{}, Limit: 1, Clauses: []crm.Clause{
			{Column: "pool", Op: crm.Equal, Values: []crm.Value{crm.StringValue(p.ID.String())}},
			{Column: "recycle_at", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(a.now())}},
		}})
		if err != nil || n == 0 {
			errs = append(errs, err)
			continue
		}
		s, err := a.Desk.Sweep(ctx, System("sweep"), p)
		errs = append(errs, err)
		out.Pools++
		out.Back += len(s.Back)
		out.Soon += len(s.Remind)
	}
	return out, errors.Join(errs...)
}

// ReclockPools brings the records of every pool to its clocks, where a change of the clocks was interrupted or a won deal was opened again.
func (a *App) ReclockPools(ctx context.Context) (changed int, err error) {
	a.due.Lock()
	defer a.due.Unlock()
	pools, err := a.LivingPools(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range pools {
		n, err := a.Desk.Reclock(ctx, System("reclock"), p)
		changed += n
		if !errors.Is(err, crm.ErrConflict) { // somebody is at it; the next run looks again
			errs = append(errs, err)
		}
	}
	return changed, errors.Join(errs...)
}

// PurgeBin takes out of the recycle bin for good what has been in it long enough, at most limit records, and destroys the keys of those whom nothing
// names any more.
func (a *App) PurgeBin(ctx context.Context, limit int) (desk.Purged, error) {
	a.due.Lock()
	defer a.due.Unlock()
	// What imports kept for two weeks goes first; the keys under which it lay go with those of the bin.
	doors := transfer.Doors{Guard: a.Guard, Imports: a.Imports, Kept: a.Kept}
	if _, err := transfer.Sweep(ctx, doors, System("purge"), a.now(), 1000); err != nil {
		return desk.Purged{}, err
	}
	if err := a.sweepMerges(ctx); err != nil {
		return desk.Purged{}, err
	}
	if _, err := a.Suppressions.Sweep(ctx, Tenant, 1000); err != nil {
		return desk.Purged{}, err
	}
	p, err := a.Desk.Purge(ctx, System("purge"), limit)
	done, due := a.eraseDue(ctx)
	p.Destroyed = append(p.Destroyed, done...)
	return p, errors.Join(err, due)
}

// KeepTime does what time asks for until ctx ends: pools are swept every Config.SweepEvery, the recycle bin is emptied and the clocks are looked after
// at the start and once a day. It does one thing at a time and lets it end. What goes wrong is logged, without
// anything of a record, and tried again at the next turn.
func (a *App) KeepTime(ctx context.Context) {
	every := a.Config.SweepEvery
	if every == 0 {
		every = sweepEvery
	}
	if every < 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	run := func(what string, do func(context.Context) error) {
		if ctx.Err() != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runFor)
		defer cancel()
		if err := do(ctx); err != nil {
			slog.Error("a background job failed", "job", what, "err", err) // names types, ids and rules, never values
		}
	}
	var purged, swept time.Time
	for {
		run("sweep", func(ctx context.Context) error { _, err := a.SweepPools(ctx); return err })
		if time.Since(swept) >= signInsEvery {
			swept = time.Now()
			run("sign-ins", a.SweepSignIns)
		}
		if time.Since(purged) >= purgeEvery {
			purged = time.Now()
			run("purge", func(ctx context.Context) error { _, err := a.PurgeBin(ctx, PurgeLimit); return err })
			run("reclock", func(ctx context.Context) error { _, err := a.ReclockPools(ctx); return err })
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// setter is the program where it makes what administrators make: its first pool, pipeline and series.
func setter() guard.Caller {
	return guard.Caller{
		Subject:     authz.Subject{ID: "system", Tenant: Tenant, Roles: []string{"admin"}, Active: true},
		Environment: authz.Environment{Purpose: "start"},
	}
}

// contractSeries is the name of the series that contracts are numbered by.
const contractSeries = "contract"

// ContractSeries returns the series that contracts are numbered by; the first asking makes it.
func (a *App) ContractSeries(ctx context.Context) (crm.ID[crm.Series], error) {
	p, err := a.Series.List(ctx, System("numbers"), guard.Query{Limit: 1, Sort: "created_at", Clauses: []crm.Clause{
		{Column: "name", Op: crm.Equal, Values: []crm.Value{crm.StringValue(contractSeries)}},
	}})
	if err != nil {
		return crm.ID[crm.Series]{}, err
	}
	if len(p.Items) > 0 {
		return p.Items[0].Value.ID, nil
	}
	s := &crm.Series{Name: contractSeries, Prefix: "K-", Digits: 5, Yearly: true}
	s.ID = crm.ID[crm.Series](firstID(crm.TypeSeries)) // of two at once one makes it
	s.Team = "/office/"
	_, err = a.Series.Create(ctx, setter(), s)
	if errors.Is(err, crm.ErrConflict) {
		err = nil
	}
	return s.ID, err
}

// firstID is the id of what the program makes once of a type.
func firstID(typ string) crm.UUID {
	return certificationID(crm.UUID{}, typ)
}

// furnish makes what a new installation begins with: the series of contracts and a pipeline.
func (a *App) furnish(ctx context.Context) error {
	if _, err := a.ContractSeries(ctx); err != nil {
		return fmt.Errorf("crm: numbers of contracts: %w", err)
	}
	p := &sales.Pipeline{Name: "Standard", Stages: []sales.Stage{
		{Name: "First talk", Probability: 1000}, {Name: "Needs known", Probability: 3000}, {Name: "Offer made", Probability: 5000}, {Name: "Negotiation", Probability: 8000},
	}}
	p.ID, p.Team = crm.ID[sales.Pipeline](firstID(crm.TypePipeline)), "/office/"
	if _, err := a.Pipelines.Create(ctx, setter(), p); err != nil && !errors.Is(err, crm.ErrConflict) {
		return fmt.Errorf("crm: the first pipeline: %w", err)
	}
	return nil
}

package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
)

// DuplicateTypes are the types whose duplicates are found and merged.
var DuplicateTypes = []string{crm.TypeCustomer, crm.TypeLead, crm.TypeContact}

// Duplicates finds and merges records, by type.
type Duplicates struct {
	Customers *Deduper[*crm.Customer]
	Leads     *Deduper[*crm.Lead]
	Contacts  *Deduper[*crm.Contact]
}

// Deduper finds and merges the records of one type.
type Deduper[P guard.Record] struct {
	*dedupe.Checker[P]
	*dedupe.Merger[P]
}

// Deduping is what of a Deduper does not depend on its type.
type Deduping interface {
	Fields() []string
	All(ctx context.Context, c guard.Caller, opts *guard.AlikeOptions, found func(guard.Pair) error) (guard.AlikeReport, error)
	Merge(ctx context.Context, c guard.Caller, keep, drop dedupe.Target, choice dedupe.Choice) (*crm.Merge, error)
	Undo(ctx context.Context, c guard.Caller, id crm.UUID) (*dedupe.Undone, error)
	Resume(ctx context.Context, c guard.Caller) (int, error)
	Sweep(ctx context.Context, c guard.Caller, before time.Time) (int, error)
}

// Deduping returns that of a type, nil for one whose duplicates are not found.
func (d *Duplicates) Deduping(typ string) Deduping {
	switch typ {
	case crm.TypeCustomer:
		return d.Customers
	case crm.TypeLead:
		return d.Leads
	case crm.TypeContact:
		return d.Contacts
	}
	return nil
}

// openDuplicates makes what finds and merges duplicates, and ends what a merge or its undoing left when it was cut off.
func (a *App) openDuplicates(ctx context.Context) (err error) {
	if a.Duplicates.Customers, err = deduper(a, a.Customers,
		dedupe.Refers(a.Contacts, "customer"), dedupe.Refers(a.FollowUps, "customer", "subject"), dedupe.Refers(a.Quotes, "customer"),
		dedupe.Refers(a.Contracts, "customer"), dedupe.Refers(a.Tickets, "customer"), dedupe.Refers(a.Opportunities, "customer"),
		dedupe.Refers(a.Leads, "customer"), dedupe.Refers(a.Instalments, "customer"), dedupe.Refers(a.Receipts, "customer"),
	); err != nil {
		return err
	}
	if a.Duplicates.Leads, err = deduper(a, a.Leads, dedupe.Refers(a.FollowUps, "subject"), dedupe.Refers(a.Opportunities, "lead")); err != nil {
		return err
	}
	if a.Duplicates.Contacts, err = deduper(a, a.Contacts,
		dedupe.Refers(a.FollowUps, "subject"), dedupe.Refers(a.Opportunities, "contact"), dedupe.Refers(a.Leads, "contact"),
	); err != nil {
		return err
	}
	if a.Resumed, err = a.ResumeMerges(ctx); err != nil {
		slog.Error("merges that were cut off could not be ended", "err", err) // names types and ids, never values
	}
	return nil
}

func deduper[P guard.Record](a *App, r *guard.Records[P], refs ...dedupe.Reference) (*Deduper[P], error) {
	c, err := dedupe.New(r, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("crm: duplicates of %s: %w", r.Type(), err)
	}
	return &Deduper[P]{c, dedupe.NewMerger(a.Guard, r, a.Merges, a.Keeper, &dedupe.MergeOptions{
		Clock: func() time.Time { return a.now() }, Program: System, References: refs, Shares: a.Sharings,
	})}, nil
}

// ResumeMerges joins and parts the persons of merges and undoings that were cut off before they did. It returns how many there were.
func (a *App) ResumeMerges(ctx context.Context) (n int, err error) {
	for _, state := range []crm.MergeState{crm.MergeJoining, crm.MergeParting} {
		// The store is asked first for a mere number, so that there are lines in the log only when there is something to do.
		open, err := a.store.Count(ctx, crm.Query{Tenant: Tenant, Type: crm.TypeMerge, Where: crm.Everything{}, Limit: 1, Clauses: []crm.Clause{
			{Column: "state", Op: crm.Equal, Values: []crm.Value{crm.StringValue(string(state))}},
		}})
		if err != nil {
			return 0, err
		}
		n += int(open)
	}
	if n == 0 {
		return 0, nil
	}
	n = 0
	for _, typ := range DuplicateTypes {
		k, err := a.Duplicates.Deduping(typ).Resume(ctx, System("merge"))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// VersionOf returns the version of a record of a type in Duplicates that the caller may read.
func (a *App) VersionOf(ctx context.Context, c guard.Caller, typ string, id crm.UUID) (int64, error) {
	switch typ {
	case crm.TypeCustomer:
		v, err := a.Customers.Get(ctx, c, id)
		return v.Value.Version, err
	case crm.TypeLead:
		v, err := a.Leads.Get(ctx, c, id)
		return v.Value.Version, err
	case crm.TypeContact:
		v, err := a.Contacts.Get(ctx, c, id)
		return v.Value.Version, err
	}
	return 0, crm.ErrNotFound
}

// sweepMerges deletes for good the merges of which a record was purged, which can be some time after the merge only.
func (a *App) sweepMerges(ctx context.Context) error {
	for _, typ := range DuplicateTypes {
		if _, err := a.Duplicates.Deduping(typ).Sweep(ctx, System("purge"), a.now().AddDate(0, 0, -1)); err != nil {
			return err
		}
	}
	return nil
}

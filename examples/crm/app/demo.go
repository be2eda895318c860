package app

import (
	"context"
	"errors"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/demo"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
)

// Demo stores a world of crm/demo of so many customers, beside what is there, through guard. Its customers are of the sales people who work here, its tickets of those of
// support. Run again with the same seed it goes on where it was, or makes the world larger, as long as the same people work here.
func (a *App) Demo(ctx context.Context, seed uint64, customers int, progress func(demo.Progress)) (demo.Progress, error) {
	o := demo.Options{Seed: seed}
	for q := (guard.Query{Sort: "created_at", Limit: 200}); ; {
		page, err := a.Employees.List(ctx, System("demo"), q)
		if err != nil {
			return demo.Progress{}, err
		}
		for i := range page.Items {
			e := page.Items[i].Value
			s := demo.Staff{ID: e.ID, Team: e.Team}
			switch {
			case !e.Active():
			case hasRole(e, "sales"):
				o.Staff = append(o.Staff, s)
			case hasRole(e, "support"):
				o.Support = append(o.Support, s)
			}
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	if len(o.Staff) == 0 {
		return demo.Progress{}, errors.New("crm: nobody here has the role sales, so nobody could have the customers")
	}
	p, err := a.Pipelines.Get(ctx, System("demo"), firstID(crm.TypePipeline))
	switch {
	case err == nil:
		o.Pipeline = &sales.Pipeline{Meta: p.Value.Meta, Stages: p.Value.Stages}
	case !errors.Is(err, crm.ErrNotFound):
		return demo.Progress{}, err
	}
	return demo.Load(ctx, demo.New(&o), demo.Doors{
		Customers: a.Customers, Contacts: a.Contacts, Leads: a.Leads, FollowUps: a.FollowUps, Opportunities: a.Opportunities,
		Quotes: a.Quotes, Contracts: a.Contracts, Tickets: a.Tickets,
	}, setter(), customers, progress)
}

func hasRole(e *crm.Employee, role string) bool {
	for _, r := range e.Roles {
		if r == role {
			return true
		}
	}
	return false
}

package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/sales"
)

// Doors are what Load stores through. Types whose door is nil are left out.
type Doors struct {
	Customers     *guard.Records[*crm.Customer]
	Contacts      *guard.Records[*crm.Contact]
	Leads         *guard.Records[*crm.Lead]
	FollowUps     *guard.Records[*crm.FollowUp]
	Opportunities *guard.Records[*sales.Opportunity]
	Quotes        *guard.Records[*crm.Quote]
	Contracts     *guard.Records[*crm.Contract]
	Tickets       *guard.Records[*crm.Ticket]
}

// Progress is how far a Load has come.
type Progress struct {
	Customers int           // sets that are stored, from the first on
	Records   int           // that this Load stored
	There     int           // that an earlier one had stored
	Twins     int           // duplicates among the customers
	Took      time.Duration // by now
}

// Rate is how many records were stored a second.
func (p Progress) Rate() float64 {
	if p.Took <= 0 {
		return 0
	}
	return float64(p.Records) / p.Took.Seconds()
}

// Load stores the first customers sets in steps of guard.MaxBatch customers, each batch of one type in one transaction. Memory does not grow with their number. progress, which
// may be nil, hears of each step. Called again after an interruption, with the same generator, it passes over the batches that are there: a batch is whole or
// absent. A record that the policy or a rule refuses is an error: the demo world breaks none.
func Load(ctx context.Context, g *Generator, to Doors, c guard.Caller, customers int, progress func(Progress)) (Progress, error) {
	var p Progress
	start := time.Now()
	for from := 0; from < customers; from += guard.MaxBatch {
		n := min(guard.MaxBatch, customers-from)
		var sets Set
		batch := make([]*crm.Customer, 0, n)
		for i := from; i < from+n; i++ {
			s := g.Set(i)
			if _, ok := g.Twin(i); ok {
				p.Twins++
			}
			batch = append(batch, s.Customer)
			sets.Contacts = append(sets.Contacts, s.Contacts...)
			sets.Leads = append(sets.Leads, s.Leads...)
			sets.FollowUps = append(sets.FollowUps, s.FollowUps...)
			sets.Opportunities = append(sets.Opportunities, s.Opportunities...)
			sets.Quotes = append(sets.Quotes, s.Quotes...)
			sets.Contracts = append(sets.Contracts, s.Contracts...)
			sets.Tickets = append(sets.Tickets, s.Tickets...)
		}
		for _, store := range []func() error{
			func() error { return fill(ctx, to.Customers, c, batch, &p) },
			func() error { return fill(ctx, to.Contacts, c, sets.Contacts, &p) },
			func() error { return fill(ctx, to.Leads, c, sets.Leads, &p) },
			func() error { return fill(ctx, to.FollowUps, c, sets.FollowUps, &p) },
			func() error { return fill(ctx, to.Opportunities, c, sets.Opportunities, &p) },
			func() error { return fill(ctx, to.Quotes, c, sets.Quotes, &p) },
			func() error { return fill(ctx, to.Contracts, c, sets.Contracts, &p) },
			func() error { return fill(ctx, to.Tickets, c, sets.Tickets, &p) },
		} {
			if err := store(); err != nil {
				return p, err
			}
		}
		p.Customers, p.Took = from+n, time.Since(start)
		if progress != nil {
			progress(p)
		}
	}
	return p, nil
}

// fill stores records of one type in batches.
func fill[P guard.Record](ctx context.Context, r *guard.Records[P], c guard.Caller, vs []P, p *Progress) error {
	for r != nil && len(vs) > 0 {
		n := min(len(vs), guard.MaxBatch)
		some := slices.Clone(vs[:n])
		// Its first and its last say whether it is there; somebody may have deleted one of them.
		there, err := r.GetAll(ctx, c, []crm.UUID{vs[0].Header().ID, vs[n-1].Header().ID})
		if err != nil {
			return err
		}
		if vs = vs[n:]; len(there) > 0 {
			p.There += n
			continue
		}
		errs, err := r.CreateAll(ctx, c, some)
		if err != nil {
			return err
		}
		for i, err := range errs {
			switch {
			case err == nil:
				p.Records++
			case errors.Is(err, crm.ErrConflict):
				p.There++
			default:
				return fmt.Errorf("demo: %s %s: %w", r.Type(), P(some[i]).Header().ID, err)
			}
		}
	}
	return nil
}

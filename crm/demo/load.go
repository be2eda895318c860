package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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
	next := g.step(0, customers)
	for from := 0; from < customers; from += guard.MaxBatch {
		sets := next
		if err := fill(ctx, to.Customers, c, sets.customers, &p); err != nil {
			return p, err
		}
		// Two types are sealed and stored at a time, and the next step is made. What refers to a record comes after it.
		var others Progress
		var errs [2]error
		in, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		chain := func(n int, each ...func() error) {
			all.Go(func() {
				if errs[n] = inTurn(each...); errs[n] != nil {
					stop()
				}
			})
		}
		chain(0,
			func() error { return fill(in, to.Contacts, c, sets.Contacts, &p) },
			func() error { return fill(in, to.Leads, c, sets.Leads, &p) },
			func() error { return fill(in, to.FollowUps, c, sets.FollowUps, &p) },
			func() error { return fill(in, to.Tickets, c, sets.Tickets, &p) },
		)
		chain(1,
			func() error { return fill(in, to.Opportunities, c, sets.Opportunities, &others) },
			func() error { return fill(in, to.Quotes, c, sets.Quotes, &others) },
			func() error { return fill(in, to.Contracts, c, sets.Contracts, &others) },
		)
		next = g.step(from+guard.MaxBatch, customers)
		all.Wait()
		stop()
		p.Records, p.There = p.Records+others.Records, p.There+others.There
		if err := errors.Join(errs[:]...); err != nil {
			return p, err
		}
		p.Twins += sets.twins
		p.Customers, p.Took = from+len(sets.customers), time.Since(start)
		if progress != nil {
			progress(p)
		}
	}
	return p, nil
}

// inTurn ends with the first error.
func inTurn(each ...func() error) error {
	for _, f := range each {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// step is what Load stores at a time.
type step struct {
	Set       // without the customer
	customers []*crm.Customer
	twins     int
}

// step makes the sets from one on.
func (g *Generator) step(from, customers int) *step {
	s := &step{}
	for i := from; i < min(from+guard.MaxBatch, customers); i++ {
		if _, ok := g.Twin(i); ok {
			s.twins++
		}
		more := g.Set(i)
		s.customers = append(s.customers, more.Customer)
		s.Contacts = append(s.Contacts, more.Contacts...)
		s.Leads = append(s.Leads, more.Leads...)
		s.FollowUps = append(s.FollowUps, more.FollowUps...)
		s.Opportunities = append(s.Opportunities, more.Opportunities...)
		s.Quotes = append(s.Quotes, more.Quotes...)
		s.Contracts = append(s.Contracts, more.Contracts...)
		s.Tickets = append(s.Tickets, more.Tickets...)
	}
	return s
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

package desk

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/crm/project"
	"github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
)

// Records are the doors to the types that the acts touch. Those that an act needs and that are nil make it return ErrNoDoor.
type Records struct {
	Customers     *guard.Records[*crm.Customer]
	Contacts      *guard.Records[*crm.Contact]
	Leads         *guard.Records[*crm.Lead]
	FollowUps     *guard.Records[*crm.FollowUp]
	Quotes        *guard.Records[*crm.Quote]
	Contracts     *guard.Records[*crm.Contract]
	Tickets       *guard.Records[*crm.Ticket]
	Series        *guard.Records[*crm.Series]
	Pools         *guard.Records[*pool.Pool]
	Ownerships    *guard.Records[*pool.Ownership]
	Pipelines     *guard.Records[*sales.Pipeline]
	Opportunities *guard.Records[*sales.Opportunity]
	Periods       *guard.Records[*finance.Period]
	Receipts      *guard.Records[*finance.Receipt]
	Instalments   *guard.Records[*finance.Instalment]
	Invoices      *guard.Records[*finance.Invoice]
	Expenses      *guard.Records[*finance.Expense]
	Warehouses    *guard.Records[*stock.Warehouse]
	Orders        *guard.Records[*stock.Order]
	Movements     *guard.Records[*stock.Movement]
	Tasks         *guard.Records[*project.Task]
	Forms         *guard.Records[*form.Form]
	Flows         *guard.Records[*flow.Flow]
	Instances     *guard.Records[*flow.Instance]
}

// Options of New. Nil means the zero value of each field.
type Options struct {
	Clock func() time.Time // nil: time.Now

	// Employee tells the team of an employee and whether they work here. nil: nobody is known, so that nothing is given to anybody but by a
	// claim.
	Employee func(ctx context.Context, id crm.ID[crm.Employee]) (team string, active bool, err error)

	// Program is who reads what an act copies or must know of and its caller may see masked, or not at all: the personal fields of a lead that is
	// converted, the ledger of a warehouse. Its reads are in the log. nil: the caller, who must then see all of that.
	Program func(act string) guard.Caller

	// MostDiscount is how many basis points a quote may lower a price by without somebody's approval; 0: 2,000.
	MostDiscount int64

	// BinDays is how long a record stays in the recycle bin; 0: 30.
	BinDays int
}

// ErrNoDoor says that the desk was not given the records of a type that the act touches.
var ErrNoDoor = errors.New("desk: no records of a type that this touches")

// Desk does the acts. It is safe for concurrent use.
type Desk struct {
	g *guard.Guard
	r Records
	o Options
}

// New makes a desk of a guard and the doors to its records.
func New(g *guard.Guard, r Records, opts *Options) *Desk {
	d := &Desk{g: g, r: r}
	if opts != nil {
		d.o = *opts
	}
	if d.o.Clock == nil {
		d.o.Clock = time.Now
	}
	if d.o.Employee == nil {
		d.o.Employee = func(context.Context, crm.ID[crm.Employee]) (string, bool, error) { return "", false, nil }
	}
	if d.o.MostDiscount == 0 {
		d.o.MostDiscount = 2000
	}
	if d.o.BinDays == 0 {
		d.o.BinDays = 30
	}
	return d
}

// now is the time, cut to what is stored.
func (d *Desk) now() time.Time { return d.o.Clock().UTC().Truncate(time.Microsecond) }

// program is who reads for an act of c.
func (d *Desk) program(c guard.Caller, act string) guard.Caller {
	if d.o.Program == nil {
		return c
	}
	return d.o.Program(act)
}

// persist does an act, again when another was faster between its reading and its commit. What do finds old before its commit is its caller's
// conflict.
func persist(ctx context.Context, do func() (*guard.Tx, error)) error {
	for n := 0; ; n++ {
		tx, err := do()
		if err != nil {
			return err
		}
		if _, err = tx.Commit(ctx); n == 9 || !errors.Is(err, crm.ErrConflict) {
			return err
		}
	}
}

// all reads every record that a query finds.
func all[P guard.Record](ctx context.Context, r *guard.Records[P], c guard.Caller, clauses ...crm.Clause) ([]P, error) {
	var list []P
	q := guard.Query{Clauses: clauses, Limit: 200}
	for {
		page, err := r.List(ctx, c, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			list = append(list, page.Items[i].Value)
		}
		if q.After = page.Next; page.Next == "" {
			return list, nil
		}
	}
}

// by is the employee who acts; none for a service.
func by(c guard.Caller) crm.ID[crm.Employee] {
	id, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		return crm.ID[crm.Employee]{}
	}
	return crm.ID[crm.Employee](id)
}

// is is a clause: the column has this id.
func is(column string, id crm.UUID) crm.Clause {
	return crm.Clause{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}}
}

// word is a clause: the column has this text.
func word(column, text string) crm.Clause {
	return crm.Clause{Column: column, Op: crm.Equal, Values: []crm.Value{crm.StringValue(text)}}
}

// act is ActIn with the action as a word.
func act[P guard.Record](ctx context.Context, tx *guard.Tx, r *guard.Records[P], action string, id crm.UUID, version int64, change func(v P) error) error {
	return r.ActIn(ctx, tx, guard.Action(action), id, version, change)
}

package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

// access is what subjects are made of: who works here, which of their roles are certified, and what others have lent
// them. It is read anew after this process wrote one of these types, and when another one has.
type access struct {
	written atomic.Uint64 // grows when this process writes
	mu      sync.Mutex
	now     *rights
	checked time.Time
	seq     int64
}

// rights is one reading. It never changes.
type rights struct {
	written     uint64
	employees   map[crm.UUID]*crm.Employee
	certified   map[crm.UUID][]*crm.Certification
	shared      map[crm.UUID][]*crm.Sharing
	delegated   map[crm.UUID][]*crm.Delegation
	emergencies map[crm.UUID][]*crm.Emergency
	pools       []*pool.Pool // by name
}

// accessTypes are the types that a subject is made of.
var accessTypes = []string{crm.TypeEmployee, crm.TypeCertification, crm.TypeSharing, crm.TypeDelegation, crm.TypeEmergency, crm.TypePool}

// elsewhere is how long writes of other processes may stay unseen.
const elsewhere = 3 * time.Second

// wrote hears from the guard that records of a type were written.
func (a *App) wrote(typ string) {
	if slices.Contains(accessTypes, typ) {
		a.access.written.Add(1)
	}
}

// rights returns what is stored now.
func (a *App) rights(ctx context.Context) (*rights, error) {
	x := &a.access
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.now != nil && x.now.written == x.written.Load() {
		if time.Since(x.checked) < elsewhere {
			return x.now, nil
		}
		seq, err := a.accessSeq(ctx)
		if err != nil {
			return nil, err
		}
		if x.checked = time.Now(); seq == x.seq {
			return x.now, nil
		}
	}
	// Both are read before the records, so that what is written meanwhile is read again.
	written := x.written.Load()
	seq, err := a.accessSeq(ctx)
	if err != nil {
		return nil, err
	}
	checked := time.Now()
	r, err := a.readRights(ctx)
	if err != nil {
		return nil, err
	}
	r.written = written
	x.now, x.seq, x.checked = r, seq, checked
	return r, nil
}

// accessSeq is the newest change of the types that a subject is made of.
func (a *App) accessSeq(ctx context.Context) (int64, error) {
	var newest int64
	for _, typ := range accessTypes {
		var n int64
		err := a.db.r.QueryRowContext(ctx, `SELECT COALESCE(MAX(change_seq), 0) FROM `+a.db.dialect.Quote("crm_rows_"+typ)).Scan(&n)
		if err != nil {
			return 0, fmt.Errorf("%w: looking for changed rights (%s)", crm.ErrUnavailable, code(err))
		}
		newest = max(newest, n)
	}
	return newest, nil
}

func (a *App) readRights(ctx context.Context) (*rights, error) {
	r := &rights{
		employees: map[crm.UUID]*crm.Employee{}, certified: map[crm.UUID][]*crm.Certification{},
		shared: map[crm.UUID][]*crm.Sharing{}, delegated: map[crm.UUID][]*crm.Delegation{}, emergencies: map[crm.UUID][]*crm.Emergency{},
	}
	living := func(column string) guard.Query {
		return guard.Query{Clauses: []crm.Clause{{Column: column, Op: crm.Greater, Values: []crm.Value{crm.TimeValue(time.Now())}}}}
	}
	err := each(ctx, a.Employees, guard.Query{}, func(e *crm.Employee) { r.employees[e.ID.UUID()] = e })
	if err != nil {
		return nil, err
	}
	err = each(ctx, a.Certifications, living("until"), func(c *crm.Certification) {
		r.certified[c.Owner.UUID()] = append(r.certified[c.Owner.UUID()], c)
	})
	if err != nil {
		return nil, err
	}
	// What only adds to rights counts for nothing while a row of its type does not authenticate: the log says which one.
	err = each(ctx, a.Sharings, living("ends"), func(s *crm.Sharing) { r.shared[s.With.UUID()] = append(r.shared[s.With.UUID()], s) })
	if errors.Is(err, guard.ErrForged) {
		clear(r.shared)
	} else if err != nil {
		return nil, err
	}
	err = each(ctx, a.Delegations, living("ends"), func(d *crm.Delegation) {
		r.delegated[d.Deputy.UUID()] = append(r.delegated[d.Deputy.UUID()], d)
	})
	if errors.Is(err, guard.ErrForged) {
		clear(r.delegated)
	} else if err != nil {
		return nil, err
	}
	err = each(ctx, a.Emergencies, living("ends"), func(e *crm.Emergency) {
		r.emergencies[e.Owner.UUID()] = append(r.emergencies[e.Owner.UUID()], e)
	})
	if errors.Is(err, guard.ErrForged) {
		clear(r.emergencies)
	} else if err != nil {
		return nil, err
	}
	err = each(ctx, a.Pools, guard.Query{Sort: "name"}, func(p *pool.Pool) { r.pools = append(r.pools, p) })
	if errors.Is(err, guard.ErrForged) {
		r.pools = nil
	} else if err != nil {
		return nil, err
	}
	return r, nil
}

// each lists all living records of a query in the name of the program.
func each[P guard.Record](ctx context.Context, records *guard.Records[P], q guard.Query, do func(P)) error {
	q.Limit = 200
	for {
		p, err := records.List(ctx, System("directory"), q)
		if err != nil {
			return err
		}
		for i := range p.Items {
			do(p.Items[i].Value)
		}
		if q.After = p.Next; p.Next == "" {
			return nil
		}
	}
}

// Subject returns what an employee may be in a session now: the roles whose certification counts, team, and what others
// have lent them. ErrSignIn says that they may not act at all.
func (a *App) Subject(ctx context.Context, employee crm.UUID) (authz.Subject, error) {
	r, err := a.rights(ctx)
	if err != nil {
		return authz.Subject{}, err
	}
	e := r.employees[employee]
	if e == nil || !e.Active() {
		return authz.Subject{}, ErrSignIn
	}
	now := time.Now()
	s := authz.Subject{ID: employee.String(), Tenant: Tenant, Team: e.Team, Active: true}
	for _, c := range r.certified[employee] {
		if c.Live(now) && slices.Contains(e.Roles, c.Role) && !slices.Contains(s.Roles, c.Role) {
			s.Roles = append(s.Roles, c.Role)
			s.Grants = append(s.Grants, authz.Grant{Role: c.Role, Until: c.Until})
		}
	}
	slices.Sort(s.Roles)
	for _, x := range r.shared[employee] {
		if x.Live(now) {
			s.Shares = append(s.Shares, authz.Sharing{Record: x.Record.String(), By: x.Owner.String(), Actions: actions(x.Actions), Until: x.Ends})
		}
	}
	for _, d := range r.delegated[employee] {
		// Who has left or is suspended lends nothing.
		if from := r.employees[d.Owner.UUID()]; d.Live(now) && from != nil && from.Active() {
			s.Delegations = append(s.Delegations, authz.Delegation{From: d.Owner.String(), Actions: actions(d.Actions), Until: d.Ends})
		}
	}
	for _, x := range r.emergencies[employee] {
		if x.Live(now) {
			s.Emergencies = append(s.Emergencies, authz.Emergency{Type: x.RecordType, Approvers: x.ApproverIDs(), Until: x.Ends})
		}
	}
	for _, p := range r.pools {
		if p.Member(crm.ID[crm.Employee](employee)) {
			s.Pools = append(s.Pools, p.ID.String())
		}
	}
	return s, nil
}

// LivingPools returns the pools that are not in the recycle bin, by name. What is returned is shared and not to be changed.
func (a *App) LivingPools(ctx context.Context) ([]*pool.Pool, error) {
	r, err := a.rights(ctx)
	if err != nil {
		return nil, err
	}
	return r.pools, nil
}

// Employee returns who works here by id, nil for nobody.
func (a *App) Employee(ctx context.Context, id crm.UUID) (*crm.Employee, error) {
	r, err := a.rights(ctx)
	if err != nil {
		return nil, err
	}
	return r.employees[id], nil
}

// Emergency returns the id of the break-glass access that is open for an employee, the zero id for none.
func (a *App) Emergency(ctx context.Context, employee crm.UUID) (crm.UUID, error) {
	r, err := a.rights(ctx)
	if err != nil {
		return crm.UUID{}, err
	}
	for _, x := range r.emergencies[employee] {
		if x.Live(time.Now()) {
			return x.ID.UUID(), nil
		}
	}
	return crm.UUID{}, nil
}

func actions(in []string) []authz.Action {
	out := make([]authz.Action, len(in))
	for i, a := range in {
		out[i] = authz.Action(a)
	}
	return out
}

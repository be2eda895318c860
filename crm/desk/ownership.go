package desk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

// pooled is one type of records that change hands, customers or leads.
type pooled interface {
	// act adds an act on a record to tx: change gets it as the rules see it and says what to set.
	act(ctx context.Context, tx *guard.Tx, action string, id crm.UUID, version int64, change func(r pool.Record, team string) (pool.Change, string, error)) error
	// set is act for what leaves the owner as they are.
	set(ctx context.Context, tx *guard.Tx, action string, id crm.UUID, version int64, change func(r pool.Record) (crm.Pooled, error)) error
	// due lists records of a pool that may go back, as the program sees them.
	due(ctx context.Context, c guard.Caller, q guard.Query) (list []pool.Record, next string, err error)
}

type customers struct{ r *guard.Records[*crm.Customer] }

func (k customers) act(ctx context.Context, tx *guard.Tx, action string, id crm.UUID, version int64, change func(pool.Record, string) (pool.Change, string, error)) error {
	return act(ctx, tx, k.r, action, id, version, func(v *crm.Customer) error {
		ch, team, err := change(pool.OfCustomer(v), v.Team)
		if err != nil {
			return err
		}
		v.Team = team
		return ch.Apply(v.Version, &v.Owner, &v.Pooled)
	})
}

func (k customers) set(ctx context.Context, tx *guard.Tx, action string, id crm.UUID, version int64, change func(pool.Record) (crm.Pooled, error)) (err error) {
	return act(ctx, tx, k.r, action, id, version, func(v *crm.Customer) (err error) {
		v.Pooled, err = change(pool.OfCustomer(v))
		return err
	})
}

func (k customers) due(ctx context.Context, c guard.Caller, q guard.Query) ([]pool.Record, string, error) {
	page, err := k.r.List(ctx, c, q)
	var list []pool.Record
	for i := range page.Items {
		list = append(list, pool.OfCustomer(page.Items[i].Value))
	}
	return list, page.Next, err
}

type leads struct{ r *guard.Records[*crm.Lead] }

func (k leads) act(ctx context.Context, tx *guard.Tx, action string, id crm.UUID, version int64, change func(pool.Record, string) (pool.Change, string, error)) error {
	return act(ctx, tx, k.r, action, id, version, func(v *crm.Lead) error {
		ch, team, err := change(pool.OfLead(v), v.Team)
		if err != nil {
			return err
		}
		v.Team = team
		return ch.Apply(v.Version, &v.Owner, &v.Pooled)
	})
}

func (k leads) set(ctx context.Context, tx *guard.Tx, action string, id crm.UUID, version int64, change func(pool.Record) (crm.Pooled, error)) error {
	return act(ctx, tx, k.r, action, id, version, func(v *crm.Lead) (err error) {
		v.Pooled, err = change(pool.OfLead(v))
		return err
	})
}

func (k leads) due(ctx context.Context, c guard.Caller, q guard.Query) ([]pool.Record, string, error) {
	page, err := k.r.List(ctx, c, q)
	var list []pool.Record
	for i := range page.Items {
		list = append(list, pool.OfLead(page.Items[i].Value))
	}
	return list, page.Next, err
}

// pooledOf returns the records of a type that changes hands.
func (d *Desk) pooledOf(typ string) (pooled, error) {
	switch {
	case d.r.Pools == nil || d.r.Ownerships == nil:
	case typ == crm.TypeCustomer && d.r.Customers != nil:
		return customers{d.r.Customers}, nil
	case typ == crm.TypeLead && d.r.Leads != nil:
		return leads{d.r.Leads}, nil
	}
	return nil, ErrNoDoor
}

// Target is the record whose owner is to change.
type Target struct {
	Type    string // crm.TypeCustomer or crm.TypeLead
	ID      crm.UUID
	Version int64 // that was seen; 0: whichever is stored
}

// Claim makes the caller, a member of its pool, the owner of a free record, within the caps of the pool. A *pool.Refusal says why not.
func (d *Desk) Claim(ctx context.Context, c guard.Caller, t Target) error {
	return d.hand(ctx, c, t, pool.Request{Act: pool.Claim})
}

// Assign gives a free record to a member of its pool.
func (d *Desk) Assign(ctx context.Context, c guard.Caller, t Target, to crm.ID[crm.Employee]) error {
	return d.hand(ctx, c, t, pool.Request{Act: pool.Assign, To: to})
}

// Transfer gives an owned record to somebody else, a member of its pool if it is in one.
func (d *Desk) Transfer(ctx context.Context, c guard.Caller, t Target, to crm.ID[crm.Employee]) error {
	return d.hand(ctx, c, t, pool.Request{Act: pool.Transfer, To: to})
}

// Release gives an owned record back to its pool, where it is free.
func (d *Desk) Release(ctx context.Context, c guard.Caller, t Target) error {
	return d.hand(ctx, c, t, pool.Request{Act: pool.Release})
}

// Handover gives a record to somebody because its owner leaves; no cap counts.
func (d *Desk) Handover(ctx context.Context, c guard.Caller, t Target, to crm.ID[crm.Employee]) error {
	return d.hand(ctx, c, t, pool.Request{Act: pool.Handover, To: to})
}

// hand changes the owner of a record in a transaction of its own.
func (d *Desk) hand(ctx context.Context, c guard.Caller, t Target, q pool.Request) error {
	tx := d.g.Begin(c, t.Type+"."+string(q.Act))
	if err := d.handIn(ctx, tx, c, t, q); err != nil {
		return err
	}
	_, err := tx.Commit(ctx)
	return err
}

// handIn adds the change of an owner, its entry in the history and the limits under which it holds to tx.
func (d *Desk) handIn(ctx context.Context, tx *guard.Tx, c guard.Caller, t Target, q pool.Request) error {
	k, err := d.pooledOf(t.Type)
	if err != nil {
		return err
	}
	q.By, q.At = by(c), d.now()
	gets := q.To
	if q.Act == pool.Claim {
		gets = q.By
	}
	var team string
	f := pool.Facts{Active: q.Act == pool.Claim} // a claim is by who acts, and the policy lets nobody act who has left
	if q.Act != pool.Claim && !gets.IsZero() {
		if team, f.Active, err = d.o.Employee(ctx, gets); err != nil {
			return fmt.Errorf("desk: %w", err)
		}
	}
	if q.Act == pool.Claim {
		team = c.Subject.Team
	}
	var done pool.Change
	err = k.act(ctx, tx, string(q.Act), t.ID, t.Version, func(r pool.Record, now string) (pool.Change, string, error) {
		done, err = d.decide(ctx, tx, c, r, q, f)
		if team == "" {
			team = now
		}
		return done, team, err
	})
	if err != nil {
		return err
	}
	return d.r.Ownerships.CreateIn(ctx, tx, done.Ownership(team))
}

// decide asks the pool of a record and notes its limits in tx.
func (d *Desk) decide(ctx context.Context, tx *guard.Tx, c guard.Caller, r pool.Record, q pool.Request, f pool.Facts) (pool.Change, error) {
	if r.Pool.IsZero() {
		return pool.Reassign(r, q, f)
	}
	p, err := d.pool(ctx, c, r.Pool)
	if err != nil {
		return pool.Change{}, err
	}
	ch, err := p.Change(r, q, f)
	if err != nil {
		return ch, err
	}
	limit(tx, ch, p)
	return ch, nil
}

// pool reads the pool of a record. One that is gone takes nothing and gives nothing.
func (d *Desk) pool(ctx context.Context, c guard.Caller, id crm.UUID) (*pool.Pool, error) {
	v, err := d.r.Pools.Get(ctx, c, id)
	if errors.Is(err, crm.ErrNotFound) {
		return &pool.Pool{Meta: crm.Meta[pool.Pool]{ID: crm.ID[pool.Pool](id), Deleted: true}}, nil
	}
	return v.Value, err
}

// limit notes the caps of a change.
func limit(tx *guard.Tx, ch pool.Change, p *pool.Pool) {
	refuse := func(why pool.Reason, until time.Time) error {
		return &pool.Refusal{Act: ch.Act, Reason: why, Until: until}
	}
	held := func(typ string) crm.Measure {
		m := crm.Measure{Type: typ, Clauses: []crm.Clause{is("owner", ch.To.UUID())}}
		if !p.CountWon {
			column, won := "stage", string(crm.CustomerWon)
			if typ == crm.TypeLead {
				column, won = "state", string(crm.LeadConverted)
			}
			m.Clauses = append(m.Clauses, crm.Clause{Column: column, Op: crm.NotEqual, Values: []crm.Value{crm.StringValue(won)}})
		}
		return m
	}
	if ch.HoldCap > 0 {
		m := held(ch.Type)
		m.Clauses = append(m.Clauses, is("pool", ch.Set.Pool))
		tx.Require(crm.Limit{Of: []crm.Measure{m}, Value: ch.HoldCap}, refuse(pool.HoldCap, time.Time{}))
	}
	if ch.TotalCap > 0 {
		in := crm.Clause{Column: "pool", Op: crm.NotNull}
		a, b := held(crm.TypeCustomer), held(crm.TypeLead)
		a.Clauses, b.Clauses = append(a.Clauses, in), append(b.Clauses, in)
		tx.Require(crm.Limit{Of: []crm.Measure{a, b}, Value: ch.TotalCap}, refuse(pool.TotalCap, time.Time{}))
	}
	if ch.DailyCap > 0 {
		tx.Require(crm.Limit{Of: []crm.Measure{{Type: crm.TypeOwnership, Clauses: []crm.Clause{
			is("to", ch.To.UUID()), is("pool", ch.Set.Pool), word("act", string(pool.Claim)),
			{Column: "at", Op: crm.GreaterOrEqual, Values: []crm.Value{crm.TimeValue(ch.Since)}},
		}}}, Value: ch.DailyCap}, refuse(pool.DailyCap, p.Tomorrow(ch.At)))
	}
}

// Enter puts a record into a pool, where it is free.
func (d *Desk) Enter(ctx context.Context, c guard.Caller, t Target, into crm.ID[pool.Pool]) error {
	k, err := d.pooledOf(t.Type)
	if err != nil {
		return err
	}
	p, err := d.pool(ctx, c, into.UUID())
	if err != nil {
		return err
	}
	tx := d.g.Begin(c, t.Type+"."+string(pool.Enter))
	var done pool.Change
	var team string
	err = k.act(ctx, tx, string(pool.Enter), t.ID, t.Version, func(r pool.Record, now string) (pool.Change, string, error) {
		var from *pool.Pool
		if !r.Pool.IsZero() {
			if from, err = d.pool(ctx, c, r.Pool); err != nil {
				return pool.Change{}, "", err
			}
		}
		team = now
		done, err = p.Enter(r, from, by(c), d.now())
		return done, team, err
	})
	if err != nil {
		return err
	}
	if err := d.r.Ownerships.CreateIn(ctx, tx, done.Ownership(team)); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

// Lock keeps an owned record from going back to its pool by itself, within the pool's cap on locks; unlock lets it go back again.
func (d *Desk) Lock(ctx context.Context, c guard.Caller, t Target, unlock bool) error {
	k, err := d.pooledOf(t.Type)
	if err != nil {
		return err
	}
	name := t.Type + ".lock"
	if unlock {
		name = t.Type + ".unlock"
	}
	tx := d.g.Begin(c, name)
	err = k.set(ctx, tx, "lock", t.ID, t.Version, func(r pool.Record) (crm.Pooled, error) {
		p, err := d.pool(ctx, c, r.Pool)
		if err != nil {
			return crm.Pooled{}, err
		}
		if unlock {
			return p.Unlock(r, by(c))
		}
		set, err := p.Lock(r, by(c), pool.Facts{})
		if err == nil && !r.Locked && !p.Admin(by(c)) {
			tx.Require(crm.Limit{Of: []crm.Measure{{Type: t.Type, Clauses: []crm.Clause{
				is("owner", r.Owner.UUID()), is("pool", r.Pool),
				{Column: "locked", Op: crm.Equal, Values: []crm.Value{crm.BoolValue(true)}},
			}}}, Value: p.LockCap}, &pool.Refusal{Act: "lock", Reason: pool.LockCap})
		}
		return set, err
	})
	if err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

// Browse makes a query one for what is free in a pool of the caller, as it may be seen before a claim: without what the pool hides.
func (d *Desk) Browse(q guard.Query, p *pool.Pool) guard.Query {
	q.Browse = true
	q.Clauses = append(q.Clauses[:len(q.Clauses):len(q.Clauses)], is("free_in", p.ID.UUID()))
	q.Hide = append(q.Hide[:len(q.Hide):len(q.Hide)], p.Hide...)
	return q
}

// Swept is what a Sweep did and saw.
type Swept struct {
	Back   []Target // went back to their pool
	Remind []Remind // go back soon
}

// Remind is a record whose owner is to be told that it goes back.
type Remind struct {
	Target
	Owner crm.ID[crm.Employee]
	At    time.Time // when it goes back
}

// Sweep gives back to the pool p what its clocks let go, one transaction for each record, and returns what goes back soon. c is the program itself. A
// record that somebody changes meanwhile is left for the next sweep.
func (d *Desk) Sweep(ctx context.Context, c guard.Caller, p *pool.Pool) (Swept, error) {
	var out Swept
	k, err := d.pooledOf(p.RecordType)
	if err != nil {
		return out, err
	}
	now := d.now()
	soon := now.AddDate(0, 0, int(p.RemindDays)+1)
	q := guard.Query{Limit: 200, Sort: "recycle_at", Clauses: []crm.Clause{
		is("pool", p.ID.UUID()), {Column: "recycle_at", Op: crm.LessOrEqual, Values: []crm.Value{crm.TimeValue(soon)}},
	}}
	for {
		list, next, err := k.due(ctx, c, q)
		if err != nil {
			return out, err
		}
		for _, r := range list {
			t := Target{Type: r.Type, ID: r.ID, Version: r.Version}
			if at, ok := p.RecycleAt(r); ok && !now.Before(at) {
				var refused *pool.Refusal
				switch err := d.hand(ctx, c, t, pool.Request{Act: pool.Recycle}); {
				case err == nil:
					out.Back = append(out.Back, t)
				case errors.Is(err, crm.ErrConflict), errors.Is(err, crm.ErrNotFound), errors.As(err, &refused):
				default:
					return out, err
				}
			} else if at, ok := p.RemindAt(r); ok && !now.Before(at) {
				ends, _ := p.RecycleAt(r)
				out.Remind = append(out.Remind, Remind{Target: t, Owner: r.Owner, At: ends})
			}
		}
		if q.After = next; next == "" {
			return out, nil
		}
	}
}

// Reclock brings the records of a pool whose clocks have changed to the new ones. c is the program itself.
func (d *Desk) Reclock(ctx context.Context, c guard.Caller, p *pool.Pool) (changed int, err error) {
	k, err := d.pooledOf(p.RecordType)
	if err != nil {
		return 0, err
	}
	q := guard.Query{Limit: 200, Clauses: []crm.Clause{is("pool", p.ID.UUID()), {Column: "owner", Op: crm.NotNull}}}
	for {
		list, next, err := k.due(ctx, c, q)
		if err != nil {
			return changed, err
		}
		tx := d.g.Begin(c, p.RecordType+".reclock")
		n := 0
		for _, r := range list {
			if at, _ := p.RecycleAt(r); at.Equal(r.RecycleAt) {
				continue
			}
			if err := k.set(ctx, tx, "recycle", r.ID, r.Version, func(r pool.Record) (crm.Pooled, error) {
				r.RecycleAt, _ = p.RecycleAt(r)
				return r.Pooled, nil
			}); err != nil {
				return changed, err
			}
			n++
		}
		if n > 0 {
			if _, err := tx.Commit(ctx); err != nil {
				return changed, err
			}
			changed += n
		}
		if q.After = next; next == "" {
			return changed, nil
		}
	}
}

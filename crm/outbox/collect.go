package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// endpoints returns the living endpoints. They are read anew when one of them has changed; nothing is in the log when none has.
func (b *Outbox) endpoints(ctx context.Context) ([]*Endpoint, error) {
	head, err := b.r.Endpoints.Head(ctx, b.program)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	list, at := b.known, b.knownAt
	b.mu.Unlock()
	if at == head {
		return list, nil
	}
	list = nil
	for q := (guard.Query{Limit: 200}); ; {
		page, err := b.r.Endpoints.List(ctx, b.program, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			list = append(list, page.Items[i].Value)
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known, b.knownAt = list, head
	return list, nil
}

// placeID is the id of the cursor of an endpoint and a type.
func placeID(e *Endpoint, typ string) crm.UUID { return derived("cursor", e.ID.String(), typ) }

// place returns the cursor of an endpoint and a type, nil when there is none.
func (b *Outbox) place(ctx context.Context, e *Endpoint, typ string) (*Cursor, error) {
	id := placeID(e, typ)
	b.mu.Lock()
	c := b.places[id]
	b.mu.Unlock()
	if c != nil {
		return c, nil
	}
	found, err := b.r.Cursors.GetAll(ctx, b.program, []crm.UUID{id})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	b.keepPlace(found[0].Value)
	return found[0].Value, nil
}

func (b *Outbox) keepPlace(c *Cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.places[c.ID.UUID()] = c
}

func (b *Outbox) dropPlace(id crm.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.places, id)
}

// eyes is the owner of an endpoint as a caller.
func (b *Outbox) eyes(ctx context.Context, e *Endpoint) (guard.Caller, error) {
	c, ok, err := b.o.Caller(ctx, e.Owner)
	if err != nil {
		return c, err
	}
	if !ok {
		return c, guard.Deny("endpoint.owner")
	}
	c.Environment.Purpose = "webhook"
	c.Under = e.ID.String()
	return c, nil
}

// begin makes the cursors that an endpoint lacks, at the newest change.
func (b *Outbox) begin(ctx context.Context, e *Endpoint) error {
	c, err := b.eyes(ctx, e)
	if err != nil {
		return err
	}
	for _, typ := range e.Types {
		at, err := b.place(ctx, e, typ)
		if err != nil {
			return err
		}
		if at != nil {
			continue
		}
		head, err := b.sources[typ].head(ctx, c)
		if err != nil {
			return err
		}
		cur := &Cursor{Endpoint: e.ID, RecordType: typ, Seq: head}
		cur.ID, cur.Person, cur.Owner, cur.Team = crm.ID[Cursor](placeID(e, typ)), e.Person, e.Owner, e.Team
		tx := b.g.Begin(b.program, "outbox.begin")
		if err := b.r.Cursors.CreateIn(ctx, tx, cur); err != nil {
			return err
		}
		if _, err := tx.Commit(ctx); err != nil && !errors.Is(err, crm.ErrConflict) { // another made it
			return err
		}
	}
	return nil
}

// farBehind is how many changes that an endpoint does not see are passed over before its place is stored again.
const farBehind = 1000

// Collect reads what changed for every endpoint that is not paused and stores the messages; it returns how many. What is wrong with one endpoint keeps the others
// from nothing.
func (b *Outbox) Collect(ctx context.Context) (made int, err error) {
	b.run.Lock()
	defer b.run.Unlock()
	list, err := b.endpoints(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, e := range list {
		if e.State == Paused {
			continue
		}
		n, err := b.collect(ctx, e)
		made += n
		if guard.Denied(err) {
			err = b.fail(ctx, e, ReasonSubject)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("outbox: endpoint %s: %w", e.ID, err))
		}
	}
	return made, errors.Join(errs...)
}

// fail makes an endpoint failing, once.
func (b *Outbox) fail(ctx context.Context, e *Endpoint, reason string) error {
	if e.State == Failing && e.Reason == reason {
		return nil
	}
	return b.r.Endpoints.Act(ctx, b.program, "update", e.ID.UUID(), 0, func(e *Endpoint) error {
		if e.State != Paused {
			e.State, e.Reason, e.LastAt = Failing, reason, b.now()
		}
		return nil
	})
}

func (b *Outbox) collect(ctx context.Context, e *Endpoint) (made int, err error) {
	var c guard.Caller
	if c, err = b.eyes(ctx, e); err != nil {
		return 0, err
	}
	for _, typ := range e.Types {
		s := b.sources[typ]
		if s == nil {
			return made, ErrNoSource
		}
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return made, err
			}
			at, err := b.place(ctx, e, typ)
			if err != nil {
				return made, err
			}
			if at == nil { // the process ended between an edit and its beginning
				if err := b.begin(ctx, e); err != nil {
					return made, err
				}
				break
			}
			read, err := s.changes(ctx, c, at.Seq, e.Fields)
			if err != nil {
				return made, err
			}
			n, err := b.store(ctx, e, typ, at, read)
			made += n
			if err != nil {
				return made, err
			}
			more = read.more
		}
	}
	return made, nil
}

// store stores the messages of a reading and its place, all or nothing.
func (b *Outbox) store(ctx context.Context, e *Endpoint, typ string, at *Cursor, read batch) (int, error) {
	tx := b.g.Begin(b.program, "outbox.collect")
	n := 0
	for _, t := range read.items {
		d := b.delivery(e, typ, t)
		if !slices.Contains(e.Acts, d.Act) {
			continue
		}
		if err := b.r.Deliveries.CreateIn(ctx, tx, d); err != nil {
			return 0, err
		}
		n++
	}
	if n == 0 && read.next-at.Seq < farBehind && !read.more {
		return 0, nil
	}
	id := at.ID.UUID()
	defer b.dropPlace(id) // it is read again, whatever became of it
	if err := b.r.Cursors.ActIn(ctx, tx, "update", id, at.Version, func(c *Cursor) error { c.Seq = read.next; return nil }); err != nil {
		return 0, err
	}
	if _, err := tx.Commit(ctx); err != nil {
		return 0, err
	}
	return n, nil
}

// delivery is a message that waits.
func (b *Outbox) delivery(e *Endpoint, typ string, t told) *Delivery {
	now := b.now()
	d := &Delivery{
		Endpoint: e.ID, RecordType: typ, Record: t.id, RecordVersion: t.version, Act: ActChanged, Made: now,
		Payload: crm.NewText(t.own), Other: crm.NewText(t.other), OtherPerson: crm.ID[crm.Person](t.others), State: Waiting, NextAt: now,
	}
	if t.deleted {
		d.Act = ActDeleted
	}
	d.ID = crm.ID[Delivery](derived("delivery", e.ID.String(), typ, t.id.String(), fmt.Sprint(t.version), d.Act))
	d.Person, d.Owner, d.Team = crm.ID[crm.Person](t.person), e.Owner, e.Team
	if !t.private { // it says nothing of anybody, and the key of a person who is to be erased is not to be had
		d.Person = e.Person
	}
	return d
}

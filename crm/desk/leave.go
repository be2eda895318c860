package desk

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

// Handed counts records by type.
type Handed struct {
	Done map[string]int // have another owner now
	Left map[string]int // stay: a rule of theirs forbids the new owner, such as one who approved them, or the caller may not give them to anybody
}

// HandAll gives everything that somebody owns of the types crm.HandedOver, as far as the caller may list it and hand it over, to somebody else, because its owner leaves; the recycle bin
// is left out. Each record is handed over by itself, so that what was done before an error stays done, and calling it again goes on. Errors: *crm.InvalidError
// with the rule bad_reference for who does not work here or has it already, a denial for who may hand over nothing at all.
func (d *Desk) HandAll(ctx context.Context, c guard.Caller, from, to crm.ID[crm.Employee]) (Handed, error) {
	out := Handed{map[string]int{}, map[string]int{}}
	team, active, err := d.o.Employee(ctx, to)
	if err != nil {
		return out, fmt.Errorf("desk: %w", err)
	}
	if !active || from.IsZero() || from == to {
		return out, &crm.InvalidError{Type: crm.TypeEmployee, Fields: []crm.FieldError{{Field: "to", Rule: "bad_reference"}}}
	}
	if d.r.Customers == nil || d.r.Leads == nil {
		return out, ErrNoDoor
	}
	// Who may not hand over customers of their own hands over nothing.
	if ok, _, err := d.r.Customers.MayOwn(ctx, c, "handover"); err != nil {
		return out, err
	} else if !ok {
		if err := d.g.Authorize(ctx, c, "handover", crm.TypeCustomer); err != nil { // which logs it
			return out, err
		}
		return out, guard.Deny("access.granted")
	}
	pooled := func(typ string) func(context.Context, crm.UUID, int64) error {
		return func(ctx context.Context, id crm.UUID, version int64) error {
			return d.hand(ctx, c, Target{typ, id, version}, pool.Request{Act: pool.Handover, To: to})
		}
	}
	return out, errors.Join(
		handAll(ctx, c, d.r.Customers, from, &out, pooled(crm.TypeCustomer)), handAll(ctx, c, d.r.Leads, from, &out, pooled(crm.TypeLead)),
		handAll(ctx, c, d.r.Contacts, from, &out, giving(c, d.r.Contacts, to, team)), handAll(ctx, c, d.r.Opportunities, from, &out, giving(c, d.r.Opportunities, to, team)),
		handAll(ctx, c, d.r.Quotes, from, &out, giving(c, d.r.Quotes, to, team)), handAll(ctx, c, d.r.Contracts, from, &out, giving(c, d.r.Contracts, to, team)),
		handAll(ctx, c, d.r.Tickets, from, &out, giving(c, d.r.Tickets, to, team)),
	)
}

// giving hands over a record that is in no pool.
func giving[P guard.Record](c guard.Caller, r *guard.Records[P], to crm.ID[crm.Employee], team string) func(context.Context, crm.UUID, int64) error {
	return func(ctx context.Context, id crm.UUID, version int64) error {
		return r.Act(ctx, c, "handover", id, version, func(v P) error {
			h := v.Header()
			h.Owner = to.UUID()
			if team != "" {
				h.Team = team
			}
			v.SetHeader(h)
			return nil
		})
	}
}

// handAll hands over the records of one type. What somebody changed meanwhile is found anew.
func handAll[P guard.Record](ctx context.Context, c guard.Caller, r *guard.Records[P], from crm.ID[crm.Employee], out *Handed, give func(context.Context, crm.UUID, int64) error) error {
	if r == nil {
		return nil
	}
	left := map[crm.UUID]bool{}
	for range 10 {
		again := false
		list, err := all(ctx, r, c, is("owner", from.UUID()))
		if err != nil {
			return err
		}
		for _, v := range list {
			h := v.Header()
			if left[h.ID] {
				continue
			}
			var invalid *crm.InvalidError
			var refused *pool.Refusal
			switch err := give(ctx, h.ID, h.Version); {
			case err == nil:
				out.Done[r.Type()]++
			case errors.Is(err, crm.ErrConflict), errors.Is(err, crm.ErrNotFound):
				again = true
			case errors.As(err, &invalid), guard.Denied(err), errors.As(err, &refused):
				left[h.ID] = true
				out.Left[r.Type()]++
			default:
				return err
			}
		}
		if !again {
			return nil
		}
	}
	return crm.ErrConflict
}

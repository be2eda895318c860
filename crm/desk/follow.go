package desk

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
)

// FollowUp stores a follow-up, and with it when its customer or lead was last spoken to and when it goes back to its pool. Who may note a follow-up but
// not change the record notes it and changes nothing.
func (d *Desk) FollowUp(ctx context.Context, c guard.Caller, f *crm.FollowUp) error {
	if d.r.FollowUps == nil || d.r.Customers == nil || d.r.Leads == nil || d.r.Pools == nil {
		return ErrNoDoor
	}
	if f.At.After(d.now().Add(time.Minute)) { // what did not happen yet puts nothing off
		return &crm.InvalidError{Type: crm.TypeFollowUp, Fields: []crm.FieldError{{Field: "at", Rule: "too_late"}}}
	}
	v := *f
	err := persist(ctx, func() (*guard.Tx, error) {
		tx := d.g.Begin(c, "follow_up.create")
		v = *f
		if err := d.r.FollowUps.CreateIn(ctx, tx, &v); err != nil {
			return nil, err
		}
		var err error
		if v.SubjectType == crm.TypeLead {
			err = act(ctx, tx, d.r.Leads, "update", v.Subject, 0, func(l *crm.Lead) error {
				if !v.At.After(l.LastFollowUp) {
					return errOld
				}
				l.LastFollowUp = v.At
				l.Pooled, err = d.followed(ctx, c, pool.OfLead(l))
				return err
			})
		} else if !v.Customer.IsZero() {
			err = act(ctx, tx, d.r.Customers, "update", v.Customer.UUID(), 0, func(k *crm.Customer) error {
				if !v.At.After(k.LastFollowUp) {
					return errOld
				}
				k.LastFollowUp = v.At
				k.Pooled, err = d.followed(ctx, c, pool.OfCustomer(k))
				return err
			})
		}
		if err != nil && !errors.Is(err, errOld) && !guard.Denied(err) && !errors.Is(err, crm.ErrNotFound) {
			return nil, err
		}
		return tx, nil
	})
	if err == nil {
		*f = v
	}
	return err
}

// errOld says that a later follow-up is known.
var errOld = errors.New("desk: a later follow-up is known")

// followed is what a record that was followed up has of its pool.
func (d *Desk) followed(ctx context.Context, c guard.Caller, r pool.Record) (crm.Pooled, error) {
	if r.Pool.IsZero() {
		return r.Pooled, nil
	}
	p, err := d.pool(ctx, c, r.Pool)
	if err != nil {
		return crm.Pooled{}, err
	}
	return p.FollowedUp(r, r.LastFollowUp), nil
}

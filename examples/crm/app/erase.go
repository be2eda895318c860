package app

import (
	"context"
	"errors"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// The words of Config.Erased: what becomes of a new record with a number of somebody who was erased.
const (
	WarnErased   = "warn"
	RefuseErased = "refuse"
	AllowErased  = "off"
)

// ErasedWords are those.
var ErasedWords = []string{WarnErased, RefuseErased, AllowErased}

// ErrErased says that there is no such word.
var ErrErased = errors.New("crm: --erased takes refuse, warn or off")

// ErrSecond says that an erasure needs a second employee, who may approve it.
var ErrSecond = errors.New("crm: an erasure needs a second employee who may approve it: an administrator or a manager")

// EraseTypes are the types by whose records a person is erased.
var EraseTypes = []string{crm.TypeCustomer, crm.TypeContact, crm.TypeLead, crm.TypeEmployee}

// Erase erases the person of a record, as an employee asked for it and another one approved: first the keys are blocked, and when it is asked again after the grace they are
// destroyed, which the daily purge does by itself. Their phone numbers and the like are put on the list by which they are known again. Errors: crm.ErrNotFound, *authz.DeniedError,
// ErrSecond, encrypt.ErrHeld, encrypt.ErrLimit.
func (a *App) Erase(ctx context.Context, by, second *crm.Employee, typ string, id crm.UUID, reason string) (guard.Erasure, error) {
	c, err := a.As(ctx, by, "erasure")
	if err != nil {
		return guard.Erasure{}, err
	}
	if second == nil || second.ID == by.ID || !second.Active() {
		return guard.Erasure{}, ErrSecond
	}
	other, err := a.As(ctx, second, "erasure")
	if err != nil {
		return guard.Erasure{}, err
	}
	d, err := a.Policy.Decide(ctx, authz.Request{
		Subject: other.Subject, Action: authz.Approve, Environment: other.Environment,
		Resource: authz.Resource{Tenant: Tenant, Type: "person", Actors: []string{c.Subject.ID}}, // who asks does not agree
	})
	if err != nil || d.Proceed() != nil {
		return guard.Erasure{}, errors.Join(ErrSecond, err)
	}
	person, err := a.personOf(ctx, c, typ, id)
	if err != nil {
		return guard.Erasure{}, err
	}
	c.Reason, c.Met, c.Under = reason, []authz.Obligation{authz.NeedSecond}, second.ID.String()
	return a.Guard.Erase(ctx, c, person, &guard.EraseOptions{List: a.Suppressions})
}

// personOf returns whose record it is, to who may read it, also in the bin.
func (a *App) personOf(ctx context.Context, c guard.Caller, typ string, id crm.UUID) (crm.UUID, error) {
	var h crm.Header
	var err error
	switch typ {
	case crm.TypeCustomer:
		h, err = headerOf(ctx, c, a.Customers, id)
	case crm.TypeContact:
		h, err = headerOf(ctx, c, a.Contacts, id)
	case crm.TypeLead:
		h, err = headerOf(ctx, c, a.Leads, id)
	case crm.TypeEmployee:
		h, err = headerOf(ctx, c, a.Employees, id)
	default:
		err = crm.ErrNotFound
	}
	return h.Person, err
}

func headerOf[P guard.Record](ctx context.Context, c guard.Caller, r *guard.Records[P], id crm.UUID) (crm.Header, error) {
	v, err := r.Get(ctx, c, id)
	if err != nil {
		return crm.Header{}, err
	}
	return v.Value.Header(), nil
}

// eraseDue destroys the keys of those whose erasure was asked for, and whose grace is over. Two people agreed to each when it was asked for, so the program needs nobody's
// approval to end it.
func (a *App) eraseDue(ctx context.Context) (done []crm.UUID, err error) {
	due, err := a.Keeper.Due(ctx, Tenant)
	if err != nil {
		return nil, err
	}
	c := System("erasure")
	c.Reason, c.Met = "the grace is over", []authz.Obligation{authz.NeedSecond}
	seen := map[crm.UUID]bool{}
	var errs []error
	for _, p := range due {
		if seen[crm.UUID(p)] {
			continue
		}
		e, err := a.Guard.Erase(ctx, c, crm.UUID(p), &guard.EraseOptions{List: a.Suppressions})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, q := range e.Persons {
			seen[crm.UUID(q)] = true
			if e.Due.IsZero() {
				done = append(done, crm.UUID(q))
			}
		}
	}
	return done, errors.Join(errs...)
}

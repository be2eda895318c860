package app

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
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

// ErrSecond says that an erasure, or the end of a legal hold, needs a second employee, who may approve it.
var ErrSecond = errors.New("crm: it needs a second employee who may approve it: an administrator or a manager")

// ErrErasing says that the erasure of a person was asked for already and is not done with.
var ErrErasing = errors.New("crm: the erasure of this person was asked for already")

// EraseTypes are the types by whose records a person is erased.
var EraseTypes = []string{crm.TypeCustomer, crm.TypeContact, crm.TypeLead, crm.TypeEmployee}

// WouldErase tells what an erasure of the person of a record would be about, and which holds keep them. Errors: crm.ErrNotFound, *authz.DeniedError.
func (a *App) WouldErase(ctx context.Context, c guard.Caller, typ string, id crm.UUID) (guard.Prospect, []*privacy.Hold, error) {
	person, err := a.personOf(ctx, c, typ, id)
	if err != nil {
		return guard.Prospect{}, nil, err
	}
	return a.prospect(ctx, c, person)
}

// ErasureProspect is WouldErase for an erasure that was asked for.
func (a *App) ErasureProspect(ctx context.Context, c guard.Caller, e *privacy.Erasure) (guard.Prospect, []*privacy.Hold, error) {
	return a.prospect(ctx, c, e.Subject.UUID())
}

func (a *App) prospect(ctx context.Context, c guard.Caller, person crm.UUID) (guard.Prospect, []*privacy.Hold, error) {
	p, err := a.Guard.WouldErase(ctx, c, person)
	if err != nil {
		return p, nil, err
	}
	holds, err := a.Holds.Of(ctx, Tenant, p.Persons)
	return p, holds, err
}

// RequestErasure asks for the erasure of the person of a record: RecordType, Record and Reason of e are the caller's, all else is set here. Errors: crm.ErrNotFound,
// *authz.DeniedError, *crm.InvalidError, ErrErasing.
func (a *App) RequestErasure(ctx context.Context, c guard.Caller, e *privacy.Erasure) error {
	a.erasing.Lock()
	defer a.erasing.Unlock()
	if err := mayMake(ctx, a, c, a.Erasures); err != nil {
		return err
	}
	person, err := a.personOf(ctx, c, e.RecordType, e.Record)
	if err != nil {
		return err
	}
	open, err := a.openErasure(ctx, person)
	if err != nil {
		return err
	}
	if open != nil {
		return ErrErasing
	}
	e.Subject, e.State = crm.ID[crm.Person](person), privacy.ErasureRequested
	_, err = a.Erasures.Create(ctx, c, e)
	return err
}

// mayMake refuses who may make no record of a type, before anything else is looked at, and logs that.
func mayMake[P guard.Record](ctx context.Context, a *App, c guard.Caller, records *guard.Records[P]) error {
	ok, _, err := records.MayOwn(ctx, c, authz.Create)
	if err != nil || ok {
		return err
	}
	if err := a.Guard.Authorize(ctx, c, authz.Create, records.Type()); err != nil {
		return err
	}
	return &authz.DeniedError{Controls: []string{"access.granted"}}
}

// openErasure finds the erasure of a person, or of one who was joined to them, that is not done with; nil when there is none.
func (a *App) openErasure(ctx context.Context, person crm.UUID) (*privacy.Erasure, error) {
	joined, err := a.Keeper.Joined(ctx, Tenant, person)
	if err != nil {
		return nil, err
	}
	persons := []crm.Value{crm.StringValue(person.String())}
	for _, p := range joined {
		persons = append(persons, crm.StringValue(crm.UUID(p).String()))
	}
	var found *privacy.Erasure
	err = each(ctx, a.Erasures, guard.Query{Clauses: []crm.Clause{{Column: "subject", Op: crm.In, Values: persons}}}, func(e *privacy.Erasure) {
		late := e.State == privacy.ErasureRequested && a.now().Sub(e.CreatedAt) >= privacy.MaxErasure || e.State == privacy.ErasureApproved && e.Due(a.now()) != nil
		if e.Open() && !late {
			found = e
		}
	})
	return found, err
}

// DecideErasure approves or refuses the erasure that somebody else asked for. What is approved is carried out at once, and when that fails, by a hold or the limit, by CarryErasure
// or the daily run afterwards.
func (a *App) DecideErasure(ctx context.Context, c guard.Caller, id crm.UUID, version int64, to privacy.ErasureState) (guard.Erasure, error) {
	by, err := actor(c)
	if err != nil {
		return guard.Erasure{}, err
	}
	if err := a.Erasures.Act(ctx, c, authz.Approve, id, version, func(e *privacy.Erasure) error { return e.Decide(by, to, a.now().UTC()) }); err != nil {
		return guard.Erasure{}, err
	}
	if to != privacy.ErasureApproved {
		return guard.Erasure{}, nil
	}
	return a.carry(ctx, id)
}

// CarryErasure carries out an erasure that was approved, or ends it when its grace is over, for who may ask for one.
func (a *App) CarryErasure(ctx context.Context, c guard.Caller, id crm.UUID) (guard.Erasure, error) {
	err := mayMake(ctx, a, c, a.Erasures)
	if err == nil {
		_, err = a.Erasures.Get(ctx, c, id)
	}
	if err != nil {
		return guard.Erasure{}, err
	}
	return a.carry(ctx, id)
}

// carry erases as the employee who asked for it and under the request, and notes in it what was done. When it is cut off anywhere it is called again.
func (a *App) carry(ctx context.Context, id crm.UUID) (guard.Erasure, error) {
	v, err := a.Erasures.Get(ctx, System("erasure"), id)
	if err != nil {
		return guard.Erasure{}, err
	}
	if err := v.Value.Due(a.now()); err != nil {
		return guard.Erasure{}, err
	}
	asker, err := a.Employee(ctx, v.Value.Owner.UUID())
	if err == nil && (asker == nil || !asker.Active()) {
		err = ErrSecond // one of the two is gone; it is asked for anew
	}
	if err != nil {
		return guard.Erasure{}, err
	}
	c, err := a.As(ctx, asker, "erasure")
	if err != nil {
		return guard.Erasure{}, err
	}
	reason, err := a.Erasures.Get(ctx, c, id)
	if err != nil {
		return guard.Erasure{}, err
	}
	c.Reason, c.Met, c.Under = reason.Value.Reason.Expose(), []authz.Obligation{authz.NeedSecond}, id.String()
	out, err := a.Guard.Erase(ctx, c, v.Value.Subject.UUID(), &guard.EraseOptions{List: a.Suppressions})
	if err != nil {
		return out, err
	}
	return out, a.noteErasure(ctx, id, out)
}

func (a *App) noteErasure(ctx context.Context, id crm.UUID, out guard.Erasure) error {
	return a.Erasures.Act(ctx, System("erasure"), authz.Update, id, 0, func(e *privacy.Erasure) error { return e.Note(out) })
}

// Erase erases the person of a record, as an employee asked for it and another one approved: first the keys are blocked, and when it is asked again after the grace they are
// destroyed, which the daily purge does by itself. Their phone numbers and the like are put on the list by which they are known again. The register of erasures has the request, the
// approval and the receipt. One that was cut off is gone on with. Errors: crm.ErrNotFound, *authz.DeniedError, ErrSecond, encrypt.ErrHeld, encrypt.ErrLimit.
func (a *App) Erase(ctx context.Context, by, second *crm.Employee, typ string, id crm.UUID, reason string) (guard.Erasure, error) {
	c, other, err := a.pair(ctx, by, second, "person")
	if err != nil {
		return guard.Erasure{}, err
	}
	person, err := a.personOf(ctx, c, typ, id)
	if err != nil {
		return guard.Erasure{}, err
	}
	if err := mayMake(ctx, a, c, a.Erasures); err != nil {
		return guard.Erasure{}, err
	}
	if reason == "" {
		return guard.Erasure{}, &authz.DeniedError{Controls: []string{"access.granted"}, Unmet: []authz.Obligation{authz.NeedReason}}
	}
	e, err := a.openErasure(ctx, person)
	if err != nil {
		return guard.Erasure{}, err
	}
	if e == nil {
		e = &privacy.Erasure{RecordType: typ, Record: id, Reason: crm.NewText(reason)}
		if err := a.RequestErasure(ctx, c, e); err != nil {
			return guard.Erasure{}, err
		}
	}
	if e.State == privacy.ErasureRequested {
		if e.Owner.UUID() == second.ID.UUID() {
			return guard.Erasure{}, ErrSecond // who asked for it does not agree to it
		}
		return a.DecideErasure(ctx, other, e.ID.UUID(), e.Version, privacy.ErasureApproved)
	}
	return a.carry(ctx, e.ID.UUID())
}

// pair returns the callers of two employees of whom the second may approve what concerns a function. Error: ErrSecond.
func (a *App) pair(ctx context.Context, by, second *crm.Employee, function string) (c, other guard.Caller, err error) {
	if c, err = a.As(ctx, by, "erasure"); err != nil {
		return c, other, err
	}
	if second == nil || second.ID == by.ID || !second.Active() {
		return c, other, ErrSecond
	}
	if other, err = a.As(ctx, second, "erasure"); err != nil {
		return c, other, err
	}
	d, err := a.Policy.Decide(ctx, authz.Request{
		Subject: other.Subject, Action: authz.Approve, Environment: other.Environment,
		Resource: authz.Resource{Tenant: Tenant, Type: function, Actors: []string{c.Subject.ID}}, // who asks does not agree
	})
	if err != nil || d.Proceed() != nil {
		return c, other, errors.Join(ErrSecond, err)
	}
	return c, other, nil
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

// eraseDue carries out what was approved and cut off, and destroys the keys of those whose erasure was asked for, and whose grace is over. Two people agreed to each when it was asked
// for, so the program needs nobody's approval to end it. Who is held stays; the log has the refusal.
func (a *App) eraseDue(ctx context.Context) (done []crm.UUID, err error) {
	var errs []error
	begun := map[crm.UUID]crm.UUID{} // person -> the erasure that is blocked
	var approved []*privacy.Erasure
	states := []crm.Value{crm.StringValue(string(privacy.ErasureApproved)), crm.StringValue(string(privacy.ErasureBlocked))}
	err = each(ctx, a.Erasures, guard.Query{Clauses: []crm.Clause{{Column: "state", Op: crm.In, Values: states}}}, func(e *privacy.Erasure) {
		begun[e.Subject.UUID()] = e.ID.UUID()
		if e.State == privacy.ErasureApproved && e.Due(a.now()) == nil {
			approved = append(approved, e)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, e := range approved {
		if _, err := a.carry(ctx, e.ID.UUID()); err != nil && !errors.Is(err, encrypt.ErrHeld) {
			errs = append(errs, err)
		}
	}
	due, err := a.Keeper.Due(ctx, Tenant)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	c := System("erasure")
	c.Reason, c.Met = "the grace is over", []authz.Obligation{authz.NeedSecond}
	seen := map[crm.UUID]bool{}
	end := func(p crm.UUID) {
		e, err := a.Guard.Erase(ctx, c, p, &guard.EraseOptions{List: a.Suppressions})
		if errors.Is(err, encrypt.ErrHeld) {
			return
		}
		if err != nil {
			errs = append(errs, err)
			return
		}
		for _, q := range e.Persons {
			seen[crm.UUID(q)] = true
			if e.Due.IsZero() {
				done = append(done, crm.UUID(q))
			}
			if id, ok := begun[crm.UUID(q)]; ok && e.Due.IsZero() {
				errs = append(errs, a.noteErasure(ctx, id, e))
				delete(begun, crm.UUID(q))
			}
		}
	}
	for _, p := range due {
		if !seen[crm.UUID(p)] {
			end(crm.UUID(p))
		}
	}
	return done, errors.Join(errs...)
}

// held tells the keeper whether a legal hold keeps a person. The store is asked first whether there is any, so that there are lines in the log only where there is.
func (a *App) held(ctx context.Context, tenant string, person [16]byte, _ []keys.Retention) (bool, error) {
	if a.Holds == nil {
		return false, crm.ErrUnavailable // nobody is erased while the register is not open
	}
	n, err := a.store.Count(ctx, crm.Query{Tenant: tenant, Type: crm.TypeHold, Where: crm.Everything{}, Limit: 1, Clauses: []crm.Clause{
		{Column: "state", Op: crm.In, Values: slices.Clone(holding)},
	}})
	if err != nil || n == 0 {
		return false, err
	}
	return a.Holds.Held(ctx, tenant, person)
}

// holding are the states of a hold that holds.
var holding = []crm.Value{crm.StringValue(string(privacy.HoldActive)), crm.StringValue(string(privacy.HoldLifting))}

// PutHold puts a legal hold on the person of a record: RecordType, Record and Reason of h are the caller's. Errors: crm.ErrNotFound, *authz.DeniedError, *crm.InvalidError.
func (a *App) PutHold(ctx context.Context, c guard.Caller, h *privacy.Hold) error {
	if err := mayMake(ctx, a, c, a.Holds.Records()); err != nil {
		return err
	}
	person, err := a.personOf(ctx, c, h.RecordType, h.Record)
	if err != nil {
		return err
	}
	h.Subject = crm.ID[crm.Person](person)
	return a.Holds.Put(ctx, c, h)
}

// LiftHold lifts a hold as an employee asks for it and another one agrees, both at once. One for which its end was asked already only needs who agrees.
// Errors: crm.ErrNotFound, *authz.DeniedError, *crm.TransitionError, ErrSecond.
func (a *App) LiftHold(ctx context.Context, by, second *crm.Employee, id crm.UUID, reason string) error {
	c, other, err := a.pair(ctx, by, second, crm.TypeHold)
	if err != nil {
		return err
	}
	v, err := a.Holds.Records().Get(ctx, c, id)
	if err != nil {
		return err
	}
	if v.Value.State != privacy.HoldLifting {
		if err := a.Holds.AskLift(ctx, c, id, v.Value.Version, crm.NewText(reason)); err != nil {
			return err
		}
	}
	return a.Holds.DecideLift(ctx, other, id, 0, privacy.HoldLifted)
}

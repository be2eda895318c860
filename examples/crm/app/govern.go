package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
)

// actor is the employee who asks.
func actor(c guard.Caller) (crm.ID[crm.Employee], error) {
	return crm.ParseID[crm.Employee](c.Subject.ID)
}

// RequestEmergency stores a request for break-glass access. It is refused while an earlier one of the same person can be
// approved, is open or has not been reviewed.
func (a *App) RequestEmergency(ctx context.Context, c guard.Caller, e *crm.Emergency) error {
	a.emergency.Lock()
	defer a.emergency.Unlock()
	e.State, e.Approvers, e.Actors = crm.EmergencyRequested, "", ""
	if err := a.noneOpen(ctx, c.Subject.ID, crm.UUID{}); err != nil {
		return err
	}
	self, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		return err
	}
	who, err := a.Employee(ctx, self)
	if err != nil {
		return err
	}
	if who != nil {
		e.Person = who.Person
	}
	_, err = a.Emergencies.Create(ctx, c, e)
	return err
}

// noneOpen refuses when a person has an emergency, other than the one named, that is not done with.
func (a *App) noneOpen(ctx context.Context, owner string, but crm.UUID) error {
	q := guard.Query{Clauses: []crm.Clause{{Column: "owner", Op: crm.Equal, Values: []crm.Value{crm.StringValue(owner)}}}}
	open := false
	err := each(ctx, a.Emergencies, q, func(e *crm.Emergency) {
		open = open || e.ID.UUID() != but && e.Pending(time.Now())
	})
	if err == nil && open {
		return &crm.InvalidError{Type: crm.TypeEmergency, Fields: []crm.FieldError{{Field: "state", Rule: "not_reviewed"}}}
	}
	return err
}

// ApproveEmergency notes that the caller agrees. The access opens with the approval that makes enough of them for the
// policy.
func (a *App) ApproveEmergency(ctx context.Context, c guard.Caller, id crm.UUID, version int64) error {
	a.emergency.Lock()
	defer a.emergency.Unlock()
	by, err := actor(c)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	return a.Emergencies.Act(ctx, c, authz.Approve, id, version, func(e *crm.Emergency) error {
		if err := a.noneOpen(ctx, e.Owner.String(), id); err != nil {
			return err
		}
		return e.Approve(by, now, func(approvers []string) (bool, error) { return a.opensEmergency(ctx, c, e, approvers, now) })
	})
}

// opensEmergency asks the policy whether so many approvers open an emergency access.
func (a *App) opensEmergency(ctx context.Context, c guard.Caller, e *crm.Emergency, approvers []string, now time.Time) (bool, error) {
	env := c.Environment
	env.Time = now
	d, err := a.Policy.Decide(ctx, authz.Request{
		Subject: authz.Subject{
			ID: e.Owner.String(), Tenant: Tenant, Active: true,
			Emergencies: []authz.Emergency{{Type: e.RecordType, Approvers: approvers, Until: now.Add(time.Hour)}},
		},
		Action: authz.Read, Environment: env, Resource: authz.Resource{Tenant: Tenant, Type: e.RecordType, ID: "any"},
	})
	if err != nil {
		return false, err
	}
	return d.Allowed || !slices.Contains(d.Controls, "access.granted"), nil
}

// RefuseEmergency ends a request.
func (a *App) RefuseEmergency(ctx context.Context, c guard.Caller, id crm.UUID, version int64) error {
	by, err := actor(c)
	if err != nil {
		return err
	}
	return a.Emergencies.Act(ctx, c, authz.Approve, id, version, func(e *crm.Emergency) error { return e.Refuse(by, time.Now().UTC()) })
}

// ReviewEmergency notes what somebody found who neither asked for the access nor approved it.
func (a *App) ReviewEmergency(ctx context.Context, c guard.Caller, id crm.UUID, version int64, justified bool) error {
	by, err := actor(c)
	if err != nil {
		return err
	}
	return a.Emergencies.Act(ctx, c, authz.Certify, id, version, func(e *crm.Emergency) error {
		return e.Review(by, justified, time.Now().UTC())
	})
}

// ExportDigest names what an export takes: the type, which records, and which columns.
func ExportDigest(typ, filter string, columns []string) string {
	sum := sha256.Sum256([]byte(typ + "\x00" + filter + "\x00" + strings.Join(columns, ",")))
	return hex.EncodeToString(sum[:])
}

// RequestExport stores a request for an export. needs is what the policy obliges to: with second_person it
// waits for somebody else.
func (a *App) RequestExport(ctx context.Context, c guard.Caller, e *crm.Export, needs []authz.Obligation) error {
	for _, o := range needs {
		if most, ok := o.Rows(); ok && e.Rows > int64(most) {
			return &authz.DeniedError{Controls: []string{"access.granted"}, Unmet: []authz.Obligation{o}}
		}
	}
	e.State = crm.ExportOpen
	if slices.Contains(needs, authz.NeedSecond) {
		e.State = crm.ExportRequested
	}
	self, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		return err
	}
	who, err := a.Employee(ctx, self)
	if err != nil {
		return err
	}
	if who != nil {
		e.Person = who.Person
	}
	_, err = a.Exports.Create(ctx, c, e)
	return err
}

// DecideExport approves or refuses an export that somebody else asked for.
func (a *App) DecideExport(ctx context.Context, c guard.Caller, id crm.UUID, version int64, to crm.ExportState) error {
	by, err := actor(c)
	if err != nil {
		return err
	}
	return a.Exports.Act(ctx, c, authz.Approve, id, version, func(e *crm.Export) error { return e.Decide(by, to, time.Now().UTC()) })
}

// TakeExport uses an export up and returns the caller who brings it along: with its reason, with the approval that somebody else gave, and with a mark in the file, for which the
// made-up record is returned too. rows is how many there are now. Only who asked for it may take it, once.
func (a *App) TakeExport(ctx context.Context, c guard.Caller, id crm.UUID, digest string, rows int64) (guard.Caller, *transfer.Canary, error) {
	v, err := a.Exports.Get(ctx, c, id)
	if err != nil {
		return c, nil, err
	}
	if v.Value.Owner.String() != c.Subject.ID {
		_, err := a.Log.Append(ctx, audit.Event{
			Action: "export.take", Activity: audit.Export, Outcome: audit.Denied, Tenant: Tenant, Actor: c.Subject.ID, Session: c.Subject.Session,
			Targets: []audit.Target{{Type: crm.TypeExport, ID: id.String()}},
		})
		if err != nil {
			return c, nil, err
		}
		return c, nil, &authz.DeniedError{Controls: []string{"export.owner"}}
	}
	if _, err := a.Exports.Authorize(ctx, System("export"), authz.Update, id); err != nil { // what was taken or refused is final
		return c, nil, err
	}
	approved := v.Value.State == crm.ExportApproved
	// The program alone reads and writes from what the made-up record follows: who could would know what to take out of the file.
	taken, err := a.Exports.Get(ctx, System("export"), id)
	if err != nil {
		return c, nil, err
	}
	if taken.Value.Version != v.Value.Version {
		return c, nil, crm.ErrConflict
	}
	canary := transfer.NewCanary("")
	if err := taken.Value.Take(digest, rows, time.Now().UTC()); err != nil {
		return c, nil, err
	}
	taken.Value.Canary = crm.NewText(canary.Seed)
	if _, err := a.Exports.Update(ctx, System("export"), taken.Value); err != nil {
		return c, nil, err
	}
	c.Reason, c.Under = v.Value.Reason.Expose(), id.String()
	c.Met = append(slices.Clone(c.Met), authz.NeedWatermark)
	if approved { // Take looked who approved it
		c.Met = append(c.Met, authz.NeedSecond)
	}
	return c, &canary, nil
}

// Prove checks the password of somebody once more, without a session. ErrSignIn says that it is wrong.
func (a *App) Prove(ctx context.Context, c guard.Caller, login, text string) error {
	acc, err := a.account(ctx, login)
	if err != nil {
		return err
	}
	why := whyUnknown
	var pass *lockout.Pass
	if acc != nil && acc.Employee.String() == c.Subject.ID && !acc.Disabled {
		v := Visitor{Visit: session.Visit{Addr: c.Environment.Addr}}
		if !v.Addr.IsValid() {
			v.Addr = netip.IPv6Loopback() // the command line
		}
		if why, pass, err = a.provePassword(ctx, acc, text, v); err != nil {
			return err
		}
	}
	if err := a.noteStepUp(ctx, c, why, authn.Password); err != nil {
		return err
	}
	return pass.Succeed(ctx)
}

// noteStepUp logs a step-up and returns the public side of why it is refused.
func (a *App) noteStepUp(ctx context.Context, c guard.Caller, why string, method authn.Method) error {
	e := audit.Event{
		Action: "session.step_up", Activity: audit.Logon, Outcome: audit.Allowed, Tenant: Tenant, Actor: c.Subject.ID, Session: c.Subject.Session, Note: string(method),
	}
	if why != "" {
		e.Outcome, e.Note = audit.Failed, why
	}
	if _, err := a.Log.Append(ctx, e); err != nil {
		return err
	}
	if why != "" {
		return refusal(why)
	}
	return nil
}

// StepUp shows a factor once more in a session: the password, or six digits of an app. The session goes on under the token that is returned. Errors: [ErrSignIn].
func (a *App) StepUp(ctx context.Context, c guard.Caller, secret string, v Visitor) (*session.Session, session.Token, error) {
	none := session.Token{}
	employee, err := crm.ParseUUID(c.Subject.ID)
	if err != nil {
		return nil, none, err
	}
	acc, err := a.AccountOf(ctx, employee)
	if errors.Is(err, crm.ErrNotFound) {
		return nil, none, a.noteStepUp(ctx, c, "no account", authn.Password)
	}
	if err != nil {
		return nil, none, err
	}
	method, why := authn.Password, whyDisabled
	var pass *lockout.Pass
	switch digits := strings.Join(strings.Fields(secret), ""); {
	case acc.Disabled:
	case len(digits) == 6 && !acc.TOTP.IsEmpty():
		if pass, why, err = a.begin(ctx, acc.Login.Expose(), v, false); err != nil || why != "" {
			break
		}
		if method, why, err = a.code(ctx, acc, digits); err != nil {
			err = errors.Join(err, pass.Undo(ctx))
		}
	default:
		why, pass, err = a.provePassword(ctx, acc, secret, v)
	}
	if err != nil {
		return nil, none, err
	}
	if err := a.noteStepUp(ctx, c, why, method); err != nil {
		return nil, none, err
	}
	if err := pass.Succeed(ctx); err != nil {
		return nil, none, err
	}
	return a.stepUp(ctx, method, v)
}

func (a *App) stepUp(ctx context.Context, method authn.Method, v Visitor) (*session.Session, session.Token, error) {
	s, token, err := a.Sessions.StepUp(ctx, v.Before, []authn.Method{method}, v.Visit)
	if err != nil {
		return nil, session.Token{}, a.noteRisk(ctx, err)
	}
	return s, token, nil
}

// PasskeyStepUp is StepUp by a passkey of the caller, with a ceremony that [webauthn.Passkeys.BeginCheck] began.
func (a *App) PasskeyStepUp(ctx context.Context, c guard.Caller, ceremony string, response []byte, v Visitor) (*session.Session, session.Token, error) {
	why := ""
	cred, err := a.signing.passkeys.FinishCheck(ctx, ceremony, response)
	switch {
	case err != nil && passkeyFault(err) != nil:
		return nil, session.Token{}, passkeyFault(err)
	case err != nil:
		why = passkeyReason(err)
	case cred.Person != c.Subject.ID:
		why = "a passkey of somebody else"
	}
	if err := a.noteStepUp(ctx, c, why, authn.Passkey); err != nil {
		return nil, session.Token{}, err
	}
	return a.stepUp(ctx, authn.Passkey, v)
}

// ShareRecord shares a record with somebody: authorize asks the guard whether the caller may share it, and is that of the
// record's type. The record must be the caller's own.
func (a *App) ShareRecord(ctx context.Context, c guard.Caller, s *crm.Sharing, authorize func(context.Context, guard.Caller, authz.Action, crm.UUID) (crm.Header, error)) error {
	h, err := authorize(ctx, c, authz.Share, s.Record)
	if err != nil {
		return err
	}
	if h.Owner.String() != c.Subject.ID {
		return &authz.DeniedError{Controls: []string{"share.owner"}}
	}
	if err := a.works(ctx, s.With, crm.TypeSharing, "with"); err != nil {
		return err
	}
	if s.CreatedAt.IsZero() {
		s.CreatedAt = time.Now().UTC()
	}
	_, err = a.Sharings.Create(ctx, c, s)
	return err
}

// Delegate lets somebody stand in for the caller.
func (a *App) Delegate(ctx context.Context, c guard.Caller, d *crm.Delegation) error {
	if err := a.works(ctx, d.Deputy, crm.TypeDelegation, "deputy"); err != nil {
		return err
	}
	if !d.Ends.After(time.Now()) {
		return &crm.InvalidError{Type: crm.TypeDelegation, Fields: []crm.FieldError{{Field: "ends", Rule: "too_early"}}}
	}
	_, err := a.Delegations.Create(ctx, c, d)
	return err
}

// works refuses somebody who does not work here.
func (a *App) works(ctx context.Context, id crm.ID[crm.Employee], typ, field string) error {
	e, err := a.Employee(ctx, id.UUID())
	if err == nil && (e == nil || !e.Active()) {
		return &crm.InvalidError{Type: typ, Fields: []crm.FieldError{{Field: field, Rule: "bad_reference"}}}
	}
	return err
}

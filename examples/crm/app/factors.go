package app

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/totp"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// ErrCode: a code does not confirm the app that was scanned, or the scan was too long ago.
var ErrCode = errors.New("crm: the code does not match")

// Factors are what somebody has enrolled.
type Factors struct {
	TOTP     bool
	Passkeys []webauthn.Credential
	Codes    int // recovery codes that are left
}

// Any tells whether there is a second factor. Codes on paper are the way back to one, and none by themselves.
func (f Factors) Any() bool { return f.TOTP || len(f.Passkeys) > 0 }

// FactorsOf returns what an account's employee has enrolled.
func (a *App) FactorsOf(ctx context.Context, acc *Account) (f Factors, err error) {
	if f.TOTP, err = a.signing.totp.Enrolled(ctx, acc.ID.String()); err != nil && !errors.Is(err, totp.ErrRecord) {
		return f, err
	}
	if f.Codes, err = a.signing.recovery.Left(ctx, acc.ID.String()); err != nil {
		return f, err
	}
	f.Passkeys, err = a.signing.passkeys.List(ctx, Tenant, acc.Employee.String())
	return f, err
}

// NeedsSecond tells whether one of the roles asks for a second factor.
func (c *Config) NeedsSecond(roles []string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(c.SecondFactor, r) })
}

// EnrolTOTP makes a key for an authenticator app, as text and as the URI of a QR code. It counts after [App.ConfirmTOTP].
func (a *App) EnrolTOTP(ctx context.Context, acc *Account) (key, uri string, err error) {
	k, err := a.signing.totp.Enrol(ctx, acc.ID.String())
	if err != nil {
		return "", "", err
	}
	return k.Base32(), k.URI("crmguard", acc.Login.Expose()), nil
}

// ConfirmTOTP takes the first code of the key. Errors: [ErrCode], [ErrWait].
func (a *App) ConfirmTOTP(ctx context.Context, acc *Account, code string, v Visitor) error {
	pass, why, err := a.begin(ctx, acc.Login.Expose(), v, false)
	if err != nil {
		return err
	}
	if why != "" {
		return errors.Join(refusal(why), a.noteAccount(ctx, "account.factor", acc, audit.Denied, "totp: "+why))
	}
	err = a.signing.totp.Confirm(ctx, acc.ID.String(), strings.Join(strings.Fields(code), ""))
	switch {
	case errors.Is(err, totp.ErrWrong), errors.Is(err, totp.ErrNone), errors.Is(err, totp.ErrReplayed):
		return errors.Join(ErrCode, a.noteAccount(ctx, "account.factor", acc, audit.Denied, err.Error()))
	case err != nil:
		return errors.Join(err, pass.Undo(ctx))
	}
	if err := pass.Succeed(ctx); err != nil {
		return err
	}
	return a.factorsChanged(ctx, acc, acc.Employee.String(), v, "totp enrolled")
}

// RemoveTOTP removes the authenticator app.
func (a *App) RemoveTOTP(ctx context.Context, acc *Account, v Visitor) error {
	if err := a.signing.totp.Remove(ctx, acc.ID.String()); err != nil {
		return err
	}
	return a.factorsChanged(ctx, acc, acc.Employee.String(), v, "totp removed")
}

// NewCodes returns ten recovery codes, which replace those before. They are shown once.
func (a *App) NewCodes(ctx context.Context, acc *Account) ([]string, error) {
	codes, err := a.signing.recovery.Generate(ctx, acc.ID.String())
	if err != nil {
		return nil, err
	}
	return codes, a.noteAccount(ctx, "account.factor", acc, audit.Allowed, "recovery codes made")
}

// EnrolPasskey keeps the passkey that answered a ceremony of webauthn.Passkeys.BeginEnrolment. Errors: [ErrSignIn].
func (a *App) EnrolPasskey(ctx context.Context, acc *Account, ceremony, name string, response []byte, v Visitor) error {
	c, err := a.signing.passkeys.FinishEnrolment(ctx, ceremony, name, response)
	if err != nil {
		return errors.Join(ErrSignIn, passkeyFault(err), a.noteAccount(ctx, "account.factor", acc, audit.Denied, passkeyReason(err)))
	}
	if c.Person != acc.Employee.String() { // the ceremony of somebody else in the same browser
		return errors.Join(ErrSignIn, a.signing.passkeys.Remove(ctx, c.Tenant, c.Person, c.ID),
			a.noteAccount(ctx, "account.factor", acc, audit.Denied, "a passkey of somebody else"))
	}
	return a.factorsChanged(ctx, acc, acc.Employee.String(), v, "passkey enrolled")
}

// RenamePasskey gives a passkey another name.
func (a *App) RenamePasskey(ctx context.Context, acc *Account, id, name string) error {
	err := a.signing.passkeys.Rename(ctx, Tenant, acc.Employee.String(), id, name)
	if errors.Is(err, webauthn.ErrUnknown) {
		return crm.ErrNotFound
	}
	if err != nil {
		return err
	}
	return a.noteAccount(ctx, "account.factor", acc, audit.Allowed, "passkey renamed")
}

// RemovePasskey removes a passkey.
func (a *App) RemovePasskey(ctx context.Context, acc *Account, id string, v Visitor) error {
	err := a.signing.passkeys.Remove(ctx, Tenant, acc.Employee.String(), id)
	if errors.Is(err, webauthn.ErrUnknown) {
		return crm.ErrNotFound
	}
	if err != nil {
		return err
	}
	return a.factorsChanged(ctx, acc, acc.Employee.String(), v, "passkey removed")
}

// factorsChanged notes in the account whether there is a second factor now, ends the codes on paper with the last one, ends all other sessions of the employee,
// and logs it.
func (a *App) factorsChanged(ctx context.Context, acc *Account, by string, v Visitor, note string) error {
	now, err := a.accountByID(ctx, acc.ID.UUID())
	if err != nil {
		return err
	}
	f, err := a.FactorsOf(ctx, now)
	if err != nil {
		return err
	}
	if !f.Any() && f.Codes > 0 {
		if err := a.signing.recovery.Remove(ctx, acc.ID.String()); err != nil {
			return err
		}
		if now, err = a.accountByID(ctx, acc.ID.UUID()); err != nil {
			return err
		}
	}
	if now.Second != f.Any() {
		now.Second = f.Any()
		if _, err := a.Accounts.Update(ctx, System("accounts"), now); err != nil {
			return err
		}
	}
	*acc = *now
	keep := ""
	if s, err := a.Sessions.Check(ctx, v.Before, v.Visit); err == nil || errors.Is(err, session.ErrStepUp) {
		if s.Person == acc.Employee.String() {
			keep = s.ID
		}
	}
	if err := a.endOthers(ctx, acc.Employee.String(), by, keep, note); err != nil {
		return err
	}
	_, err = a.Log.Append(ctx, audit.Event{
		Action: "account.factor", Activity: audit.Update, Outcome: audit.Allowed, Tenant: Tenant, Actor: by, Note: note,
		Targets: acc.target(),
	})
	return err
}

func (a *App) endOthers(ctx context.Context, person, by, keep, note string) error {
	var ended []string
	var err error
	if keep == "" {
		ended, err = a.Sessions.EndAll(ctx, Tenant, person)
	} else {
		ended, err = a.Sessions.EndOthers(ctx, Tenant, person, keep)
	}
	if err != nil {
		return err
	}
	for _, id := range ended {
		if err := a.noteEnded(ctx, by, person, id, note); err != nil {
			return err
		}
	}
	return nil
}

// noteEnded logs that a session of somebody was ended by somebody.
func (a *App) noteEnded(ctx context.Context, by, person, id, note string) error {
	_, err := a.Log.Append(ctx, audit.Event{
		Action: "session.end", Activity: audit.Logoff, Outcome: audit.Allowed, Tenant: Tenant, Actor: by, Session: id, Note: note,
		Targets: []audit.Target{{Type: crm.TypeEmployee, ID: person}},
	})
	return err
}

// EndSession ends one session of somebody. Errors: crm.ErrNotFound.
func (a *App) EndSession(ctx context.Context, by, person, id string) error {
	err := a.Sessions.End(ctx, Tenant, person, id)
	if errors.Is(err, session.ErrNone) {
		return crm.ErrNotFound
	}
	if err != nil {
		return err
	}
	return a.noteEnded(ctx, by, person, id, "")
}

// EndSessions ends all sessions of somebody but one, or all of them.
func (a *App) EndSessions(ctx context.Context, by, person, keep string) error {
	return a.endOthers(ctx, person, by, keep, "all others")
}

// Enrolled lets a session go on with the factor that was enrolled in it just now.
func (a *App) Enrolled(ctx context.Context, method authn.Method, v Visitor) (*session.Session, session.Token, error) {
	return a.stepUp(ctx, method, v)
}

// Managed returns the account of an employee to who may look after accounts; the guard decides, and the log has it. Nobody looks after their own this way.
func (a *App) Managed(ctx context.Context, c guard.Caller, employee crm.UUID, act authz.Action) (*Account, error) {
	acc, err := a.AccountOf(ctx, employee)
	if err != nil {
		return nil, err
	}
	if _, err := a.Accounts.Authorize(ctx, c, act, acc.ID.UUID()); err != nil {
		return nil, err
	}
	return acc, nil
}

// Locks returns the locks of an account.
func (a *App) Locks(ctx context.Context, acc *Account) ([]lockout.Lock, error) {
	return a.signing.lock.Locks(ctx, acc.Login.Expose())
}

// Release lets an account that was locked by failures try again.
func (a *App) Release(ctx context.Context, by string, acc *Account) error {
	n, err := a.signing.lock.Release(ctx, acc.Login.Expose())
	if err != nil {
		return err
	}
	_, err = a.Log.Append(ctx, audit.Event{
		Action: "account.release", Activity: audit.Update, Outcome: audit.Allowed, Tenant: Tenant, Actor: by, Count: int64(n),
		Targets: acc.target(),
	})
	return err
}

// ResetFactors takes all second factors and codes of an account away, for who has lost them all, and ends the sessions. The password stays.
func (a *App) ResetFactors(ctx context.Context, by string, acc *Account) error {
	id := acc.ID.String()
	if err := errors.Join(a.signing.totp.Remove(ctx, id), a.signing.recovery.Remove(ctx, id)); err != nil {
		return err
	}
	all, err := a.signing.passkeys.List(ctx, Tenant, acc.Employee.String())
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := a.signing.passkeys.Remove(ctx, Tenant, acc.Employee.String(), c.ID); err != nil {
			return err
		}
	}
	return a.factorsChanged(ctx, acc, by, Visitor{}, "all factors removed")
}

// LacksSecond tells whether a session has to show, or enrol, a second factor before anything else.
func (a *App) LacksSecond(s *session.Session, roles []string) bool {
	return a.Config.NeedsSecond(roles) && s.Level < authn.AAL2
}

// ResetFactorsOf is ResetFactors for the account with a login, from the command line.
func (a *App) ResetFactorsOf(ctx context.Context, login string) error {
	acc, err := a.account(ctx, login)
	if err != nil {
		return err
	}
	if acc == nil {
		return crm.ErrNotFound
	}
	return a.ResetFactors(ctx, "system", acc)
}

package app

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Account is how an employee signs in. It is a protected record like any other: its login is sealed and
// found by its blind index, its password hash is sealed, and its MAC covers both.
type Account struct {
	crm.Meta[Account]
	Login    crm.Text `protect:"personal,unique=exact:email" json:"login"`
	Password crm.Text `protect:"sensitive" json:"password"` // base64 of a sealed record; of older programs a PHC string
	Employee crm.UUID `protect:"internal,indexed" json:"employee"`
	OneTime  bool     `protect:"internal" json:"one_time"` // the password must be changed at the next sign-in
	Until    crm.Text `protect:"sensitive" json:"until"`   // when a one-time password that nobody used ends, RFC 3339; empty: never
	Disabled bool     `protect:"internal" json:"disabled"`

	// Second is set while a second factor is enrolled, and asks for one also where the rows of factors are gone: who deletes them opens nothing.
	Second   bool     `protect:"internal" json:"second"`
	TOTP     crm.Text `protect:"sensitive" json:"totp"`     // base64 of the record of an authenticator app
	Recovery crm.Text `protect:"sensitive" json:"recovery"` // base64 of the record of codes on paper

	// Provider is the issuer and subject of OpenID Connect that the account is linked with, as hexadecimal JSON; empty for none.
	Provider crm.Text `protect:"personal,unique=exact:text" json:"provider"`
}

// Sign-in errors. Users see the same words for all of them; the log has the true reason.
var (
	// ErrSignIn: unknown login, wrong password or code, disabled account, an address that is not allowed.
	ErrSignIn = errors.New("crm: sign-in refused")
	// ErrWait: too many attempts; nothing was looked at. It is ErrSignIn too.
	ErrWait = fmt.Errorf("%w: too many attempts", ErrSignIn)
	// ErrSamePassword: the new password is the old one.
	ErrSamePassword = errors.New("crm: the new password is the one before")
)

// System is the caller of the program's own acts: sign-in, seeding, the directory. The policy gives
// the role to this id only.
func System(purpose string) guard.Caller {
	return guard.Caller{
		Subject:     authz.Subject{ID: "system", Tenant: Tenant, Roles: []string{"system"}, Active: true},
		Environment: authz.Environment{Purpose: purpose},
	}
}

// oneTimePassword returns 80 random bits as four groups of letters and digits that are not mistaken
// for each other.
func oneTimePassword() string {
	const alphabet = "abcdefghjkmnpqrstuvwxyz23456789" // 31
	out := make([]byte, 0, 19)
	for len(out) < 19 {
		if len(out)%5 == 4 {
			out = append(out, '-')
			continue
		}
		var b [1]byte
		if _, err := rand.Read(b[:]); err != nil {
			panic("crm: no randomness")
		}
		if b[0] < 248 { // 8 * 31: no letter is likelier than another
			out = append(out, alphabet[b[0]%31])
		}
	}
	return string(out)
}

// oneTimeLife is how long a one-time password waits for its first use.
const oneTimeLife = 7 * 24 * time.Hour

func (a *App) oneTimeEnd() crm.Text {
	return crm.NewText(a.clock().Add(oneTimeLife).UTC().Format(time.RFC3339))
}

// lapsed tells whether the password of an account is a one-time password whose time is over. One of older programs has none.
func (a *App) lapsed(acc *Account) bool {
	text := acc.Until.Expose()
	if !acc.OneTime || text == "" {
		return false
	}
	end, err := time.Parse(time.RFC3339, text)
	return err != nil || !a.clock().Before(end)
}

// AddAccount makes an account for an employee and returns its one-time password.
func (a *App) AddAccount(ctx context.Context, login string, employee crm.UUID) (string, error) {
	once := oneTimePassword()
	acc := &Account{Login: crm.NewText(login), Employee: employee, OneTime: true, Until: a.oneTimeEnd(), Meta: crm.Meta[Account]{ID: crm.NewID[Account](), Team: "/"}}
	if err := a.hash(ctx, acc, once); err != nil {
		return "", err
	}
	_, err := a.Accounts.Create(ctx, System("accounts"), acc)
	return once, err
}

// hash puts a password into an account.
func (a *App) hash(ctx context.Context, acc *Account, text string) error {
	record, err := a.signing.passwords.Hash(ctx, acc.ID.String(), text)
	if err == nil {
		acc.Password = crm.NewText(base64.StdEncoding.EncodeToString(record))
	}
	return err
}

// find returns the id of the account with a login; ok is false when there is none.
func (a *App) find(ctx context.Context, login string) (id crm.UUID, ok bool, err error) {
	if strings.TrimSpace(login) == "" {
		return id, false, nil
	}
	page, err := a.Accounts.Search(ctx, System("sign-in"), login, 2, "login")
	if err != nil || len(page.Items) != 1 {
		return id, false, err
	}
	return page.Items[0].Value.ID.UUID(), true, nil
}

// account finds an account by its login; nil when there is none.
func (a *App) account(ctx context.Context, login string) (*Account, error) {
	id, ok, err := a.find(ctx, login)
	if err != nil || !ok {
		return nil, err
	}
	return a.accountByID(ctx, id)
}

func (a *App) accountByID(ctx context.Context, id crm.UUID) (*Account, error) {
	v, err := a.Accounts.Get(ctx, System("sign-in"), id)
	if err != nil {
		return nil, err
	}
	return v.Value, nil
}

// AccountOf returns the account of an employee, crm.ErrNotFound when there is none.
func (a *App) AccountOf(ctx context.Context, employee crm.UUID) (*Account, error) {
	page, err := a.Accounts.List(ctx, System("sign-in"), guard.Query{
		Clauses: []crm.Clause{{Column: "employee", Op: crm.Equal, Values: []crm.Value{crm.StringValue(employee.String())}}}, Limit: 1,
	})
	if err != nil {
		return nil, err
	}
	if len(page.Items) == 0 {
		return nil, crm.ErrNotFound
	}
	return a.accountByID(ctx, page.Items[0].Value.ID.UUID())
}

// ChangePassword replaces the password of an account, which must still have the old one, and ends the employee's other sessions. Errors:
// [ErrSignIn], [ErrSamePassword], *password.WeakError.
func (a *App) ChangePassword(ctx context.Context, login, old, text string, from Visitor) error {
	acc, err := a.account(ctx, login)
	if err != nil {
		return err
	}
	if acc == nil {
		return ErrSignIn
	}
	why, pass, err := a.provePassword(ctx, acc, old, from)
	if err != nil {
		return err
	}
	if why != "" {
		return errors.Join(refusal(why), a.noteAccount(ctx, "account.password", acc, audit.Denied, why))
	}
	if old == text {
		return errors.Join(ErrSamePassword, pass.Undo(ctx))
	}
	e, err := a.Employee(ctx, acc.Employee)
	if err != nil {
		return err
	}
	choice := password.Choice{SecondFactor: acc.Second, Words: []string{login}}
	if e != nil {
		choice.Words = append(choice.Words, e.Name.Expose(), e.Email.Expose())
	}
	if err := a.signing.rules.Check(text, choice); err != nil {
		return errors.Join(err, pass.Undo(ctx))
	}
	if err := a.setPassword(ctx, acc, text, false); err != nil {
		return err
	}
	return pass.Succeed(ctx)
}

func (a *App) setPassword(ctx context.Context, acc *Account, text string, oneTime bool) error {
	if err := a.hash(ctx, acc, text); err != nil {
		return err
	}
	acc.OneTime, acc.Until = oneTime, crm.Text{}
	if oneTime {
		acc.Until = a.oneTimeEnd()
	}
	if _, err := a.Accounts.Update(ctx, System("accounts"), acc); err != nil {
		return err
	}
	if err := a.Sessions.RightsChanged(ctx, Tenant, acc.Employee.String()); err != nil {
		return err
	}
	return a.noteAccount(ctx, "account.password", acc, audit.Allowed, "")
}

// noteAccount puts an act on an account into the log.
// target names the account in an event.
func (acc *Account) target() []audit.Target {
	return []audit.Target{{Type: "account", ID: acc.ID.String()}}
}

func (a *App) noteAccount(ctx context.Context, action string, acc *Account, outcome audit.Outcome, note string) error {
	_, err := a.Log.Append(ctx, audit.Event{
		Action: action, Activity: audit.Update, Outcome: outcome, Tenant: Tenant, Actor: acc.Employee.String(), Note: note,
		Targets: acc.target(),
	})
	return err
}

// ResetPassword gives an account a new one-time password and returns it; all sessions of its employee end. It stands for the password only: a second factor that is
// enrolled is still asked for. An employee with this address who has no account yet gets one.
func (a *App) ResetPassword(ctx context.Context, login string) (string, error) {
	acc, err := a.account(ctx, login)
	if err != nil {
		return "", err
	}
	if acc == nil {
		// An employee without an account gets one.
		e, err := a.Owner(ctx, login)
		if err != nil {
			return "", err
		}
		return a.AddAccount(ctx, login, e.ID.UUID())
	}
	return a.ResetAccount(ctx, "system", acc)
}

// ResetAccount is ResetPassword for an account, by somebody.
func (a *App) ResetAccount(ctx context.Context, by string, acc *Account) (string, error) {
	once := oneTimePassword()
	if err := a.setPassword(ctx, acc, once, true); err != nil {
		return "", err
	}
	if err := a.endOthers(ctx, acc.Employee.String(), by, "", "password reset"); err != nil {
		return "", err
	}
	_, err := a.Log.Append(ctx, audit.Event{
		Action: "account.reset", Activity: audit.Update, Outcome: audit.Allowed, Tenant: Tenant, Actor: by,
		Targets: acc.target(),
	})
	return once, err
}

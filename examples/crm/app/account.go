package app

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Account is how an employee signs in. It is a protected record like any other: its login is sealed and
// found by its blind index, its password hash is sealed, and its MAC covers both.
type Account struct {
	crm.Meta[Account]
	Login    crm.Text `protect:"personal,unique=exact:email" json:"login"`
	Password crm.Text `protect:"sensitive" json:"password"` // argon2id in PHC string form
	Employee crm.UUID `protect:"internal,indexed" json:"employee"`
	OneTime  bool     `protect:"internal" json:"one_time"` // the password must be changed at the next sign-in
	Disabled bool     `protect:"internal" json:"disabled"`
}

// Sign-in errors. Users see the same words for all of them; the log has the true reason.
var (
	// ErrSignIn: unknown login, wrong password, disabled account or too many attempts.
	ErrSignIn = errors.New("crm: sign-in refused")
	// ErrPassword: the new password is too short, too long or the old one.
	ErrPassword = errors.New("crm: a password has 15 to 256 characters and differs from the one before")
)

// System is the caller of the program's own acts: sign-in, seeding, the directory. The policy gives
// the role to this id only.
func System(purpose string) guard.Caller {
	return guard.Caller{
		Subject:     authz.Subject{ID: "system", Tenant: Tenant, Roles: []string{"system"}, Active: true},
		Environment: authz.Environment{Purpose: purpose},
	}
}

// The cost of argon2id, RFC 9106: 19 MiB, two passes, one lane (OWASP's floor), about 20 ms.
const (
	argonMemory = 19 * 1024 // KiB
	argonTime   = 2
	argonKey    = 32
	argonSalt   = 16
)

// hashing bounds how many hashes are computed at once: each takes 19 MiB, and unbounded sign-ins would
// be a way to exhaust the host.
var hashing = make(chan struct{}, 4)

// hashPassword returns the PHC string of a password.
func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key, err := derive(ctx, password, salt)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, argonMemory, argonTime,
		b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

func derive(ctx context.Context, password string, salt []byte) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return argon2.IDKey([]byte(norm.NFKC.String(password)), salt, argonTime, argonMemory, 1, argonKey), nil
}

// verifyPassword tells whether password has the hash. It costs the same for a hash that is no hash.
func verifyPassword(ctx context.Context, hash, password string) (bool, error) {
	parts := strings.Split(hash, "$")
	salt, want := make([]byte, argonSalt), make([]byte, argonKey)
	ok := false
	if len(parts) == 6 && parts[1] == "argon2id" && parts[3] == fmt.Sprintf("m=%d,t=%d,p=1", argonMemory, argonTime) {
		s, err1 := base64.RawStdEncoding.DecodeString(parts[4])
		w, err2 := base64.RawStdEncoding.DecodeString(parts[5])
		if err1 == nil && err2 == nil && len(s) == argonSalt && len(w) == argonKey {
			salt, want, ok = s, w, true
		}
	}
	got, err := derive(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && ok, nil
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

// AddAccount makes an account for an employee and returns its one-time password.
func (a *App) AddAccount(ctx context.Context, login string, employee crm.UUID) (password string, err error) {
	password = oneTimePassword()
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return "", err
	}
	_, err = a.Accounts.Create(ctx, System("accounts"), &Account{
		Login: crm.NewText(login), Password: crm.NewText(hash), Employee: employee, OneTime: true,
		Meta: crm.Meta[Account]{Team: "/"},
	})
	return password, err
}

// account finds an account by its login; nil when there is none.
func (a *App) account(ctx context.Context, login string) (*Account, error) {
	if strings.TrimSpace(login) == "" {
		return nil, nil
	}
	page, err := a.Accounts.Search(ctx, System("sign-in"), login, 2, "login")
	if err != nil {
		return nil, err
	}
	if len(page.Items) != 1 {
		return nil, nil
	}
	v, err := a.Accounts.Get(ctx, System("sign-in"), page.Items[0].Value.ID.UUID())
	if err != nil {
		return nil, err
	}
	return v.Value, nil
}

// SignIn checks a login and password. On success it returns the subject for a session and whether the
// password must be changed first. Every attempt is in the log with its true reason; session
// is an opaque id.
func (a *App) SignIn(ctx context.Context, login, password, session string) (authz.Subject, bool, error) {
	e := audit.Event{
		Action: "session.sign_in", Activity: audit.Logon, Outcome: audit.Failed, Tenant: Tenant, Session: session,
	}
	subject, oneTime, why, err := a.signIn(ctx, login, password, session)
	if err != nil {
		return authz.Subject{}, false, err
	}
	e.Actor, e.Note = subject.ID, why
	if why == "" {
		e.Outcome = audit.Allowed
	}
	if _, err := a.Log.Append(ctx, e); err != nil {
		return authz.Subject{}, false, err
	}
	if why != "" {
		return authz.Subject{}, false, ErrSignIn
	}
	return subject, oneTime, nil
}

// signIn returns why a sign-in is refused, "" when it is not.
func (a *App) signIn(ctx context.Context, login, password, session string) (s authz.Subject, oneTime bool, why string, err error) {
	if len(password) > 1024 || len(login) > 320 {
		return s, false, "oversized", nil
	}
	acc, err := a.account(ctx, login)
	if err != nil {
		return s, false, "", err
	}
	hash := ""
	if acc != nil {
		hash = acc.Password.Expose()
	}
	ok, err := verifyPassword(ctx, hash, password)
	switch {
	case err != nil:
		return s, false, "", err
	case acc == nil:
		return s, false, "unknown login", nil
	case !ok:
		s.ID = acc.Employee.String()
		return s, false, "wrong password", nil
	case acc.Disabled:
		s.ID = acc.Employee.String()
		return s, false, "disabled", nil
	}
	s, err = a.Subject(ctx, acc.Employee)
	if errors.Is(err, ErrSignIn) {
		s.ID = acc.Employee.String()
		return s, false, "not an active employee", nil
	}
	s.Session = session
	return s, acc.OneTime, "", err
}

// ChangePassword replaces the password of the account with this login, which must still have the old one.
func (a *App) ChangePassword(ctx context.Context, login, old, password string) error {
	n := len([]rune(password))
	if n < 15 || n > 256 || old == password {
		return ErrPassword
	}
	acc, err := a.account(ctx, login)
	if err != nil {
		return err
	}
	if acc == nil {
		return ErrSignIn
	}
	if ok, err := verifyPassword(ctx, acc.Password.Expose(), old); err != nil || !ok {
		return errors.Join(ErrSignIn, err)
	}
	return a.setPassword(ctx, acc, password, false)
}

func (a *App) setPassword(ctx context.Context, acc *Account, password string, oneTime bool) error {
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return err
	}
	acc.Password, acc.OneTime = crm.NewText(hash), oneTime
	if _, err := a.Accounts.Update(ctx, System("accounts"), acc); err != nil {
		return err
	}
	_, err = a.Log.Append(ctx, audit.Event{
		Action: "account.password", Activity: audit.Update, Outcome: audit.Allowed, Tenant: Tenant,
		Actor: acc.Employee.String(), Targets: []audit.Target{{Type: "account", ID: acc.ID.String()}},
		Time: time.Now(),
	})
	return err
}

// ResetPassword gives an account a new one-time password and returns it. An employee with this address
// who has no account yet gets one.
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
	password := oneTimePassword()
	return password, a.setPassword(ctx, acc, password, true)
}

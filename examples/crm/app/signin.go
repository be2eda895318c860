package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/lockout"
	lockstore "github.com/crmguard/crmguard/authz/authn/lockout/sqlstore"
	"github.com/crmguard/crmguard/authz/authn/once"
	oncestore "github.com/crmguard/crmguard/authz/authn/once/sqlstore"
	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/authz/authn/recovery"
	"github.com/crmguard/crmguard/authz/authn/session"
	sessionstore "github.com/crmguard/crmguard/authz/authn/session/sqlstore"
	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/authz/authn/totp"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	passkeystore "github.com/crmguard/crmguard/authz/authn/webauthn/sqlstore"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// OneTimeRole is what a session has beside its roles while the password of its account must be changed before anything else.
const OneTimeRole = "one-time"

// signing is what verifies who signs in. Its keys follow from the tenant's key for MACs, which lies wrapped apart from the tables.
type signing struct {
	passwords *password.Hasher
	rules     *password.Rules
	lock      *lockout.Guard
	totp      *totp.Verifier
	recovery  *recovery.Codes
	once      once.Store
	pending   tenantSealer
	device    []byte // key of the tokens of known devices
	passkeys  *webauthn.Passkeys
	provider  provider
	tokens    *token.Manager

	mu      sync.Mutex
	epoch   map[string]uint64  // of persons, as their rights were read here
	enabled map[crm.UUID]int64 // owners of tokens, and the newest change of accounts when theirs was not disabled
}

// tenantSealer seals under the tenant's key, for packages that bring their own associated data.
type tenantSealer struct {
	keeper *encrypt.Keeper
	label  string
}

// Seal seals.
func (s tenantSealer) Seal(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	return s.keeper.SealTenant(ctx, Tenant, s.label, ad, plaintext)
}

// Open opens. The tenant's key is rewrapped and never replaced, so nothing is stale.
func (s tenantSealer) Open(ctx context.Context, sealed, ad []byte) (plaintext []byte, stale bool, err error) {
	plaintext, err = s.keeper.OpenTenant(ctx, Tenant, s.label, ad, sealed)
	return plaintext, false, err
}

// personSealer seals what is of a person; the names are bound to it.
type personSealer struct{ tenantSealer }

func bound(tenant, person string, context []byte) []byte {
	b, _ := json.Marshal([]string{tenant, person}) // of strings: never fails
	return append(append(b, 0), context...)
}

// Seal seals.
func (s personSealer) Seal(ctx context.Context, tenant, person string, plaintext, context []byte) ([]byte, error) {
	return s.tenantSealer.Seal(ctx, plaintext, bound(tenant, person, context))
}

// Open opens.
func (s personSealer) Open(ctx context.Context, tenant, person string, sealed, context []byte) ([]byte, error) {
	b, _, err := s.tenantSealer.Open(ctx, sealed, bound(tenant, person, context))
	return b, err
}

// accountRecords keeps a record of an authn package in a field of the account, whose version is compared.
type accountRecords struct {
	app   *App
	field func(*Account) *crm.Text
}

// Load returns the record, nil when there is none.
func (s accountRecords) Load(ctx context.Context, account string) ([]byte, error) {
	_, b, err := s.read(ctx, account)
	return b, err
}

func (s accountRecords) read(ctx context.Context, account string) (*Account, []byte, error) {
	id, err := crm.ParseUUID(account)
	if err != nil {
		return nil, nil, crm.ErrNotFound
	}
	acc, err := s.app.accountByID(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	text := s.field(acc).Expose()
	if text == "" {
		return acc, nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	return acc, b, err
}

// Swap stores next where prev is stored still.
func (s accountRecords) Swap(ctx context.Context, account string, prev, next []byte) (bool, error) {
	acc, now, err := s.read(ctx, account)
	if err != nil || !bytes.Equal(now, prev) {
		return false, err
	}
	*s.field(acc) = crm.Text{}
	if next != nil {
		*s.field(acc) = crm.NewText(base64.StdEncoding.EncodeToString(next))
	}
	_, err = s.app.Accounts.Update(ctx, System("sign-in"), acc)
	if errors.Is(err, crm.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

// openSigning opens what verifies and keeps sign-ins.
func (a *App) openSigning(ctx context.Context) error {
	key := func(label string) ([]byte, error) { return a.Keeper.MAC(ctx, Tenant, "authn-"+label, []byte("key v1")) }
	s := &a.signing
	s.epoch, s.enabled = map[string]uint64{}, map[crm.UUID]int64{}
	s.pending = tenantSealer{a.Keeper, "authn-pending"}
	c := &a.Config
	var err error
	s.passwords, err = password.New(ctx, tenantSealer{a.Keeper, "authn-password"}, &password.Options{Params: c.PasswordCost, InsecureParams: c.WeakPasswordCost})
	if err != nil {
		return err
	}
	if s.rules, err = password.NewRules(&password.RulesOptions{Words: append([]string{"crmguard"}, c.PasswordWords...)}); err != nil {
		return err
	}
	lockKey, err := key("lockout")
	if err != nil {
		return err
	}
	locks, err := lockstore.Open(ctx, a.db.w, string(a.db.dialect), Tenant)
	if err != nil {
		return err
	}
	if s.lock, err = lockout.New(locks, lockKey, &lockout.Options{Now: c.Now}); err != nil {
		return err
	}
	if s.totp, err = totp.New(tenantSealer{a.Keeper, "authn-totp"}, accountRecords{a, func(x *Account) *crm.Text { return &x.TOTP }}, &totp.Options{Now: c.Now}); err != nil {
		return err
	}
	recoveryKey, err := key("recovery")
	if err != nil {
		return err
	}
	if s.recovery, err = recovery.New(accountRecords{a, func(x *Account) *crm.Text { return &x.Recovery }}, recoveryKey); err != nil {
		return err
	}
	if s.device, err = key("device"); err != nil {
		return err
	}
	if s.once, err = oncestore.Open(ctx, a.db.w, string(a.db.dialect)); err != nil {
		return err
	}
	tokenKey, err := key("token")
	if err != nil {
		return err
	}
	if err := a.openTokens(ctx, tokenKey); err != nil {
		return err
	}
	sessionKey, err := key("session")
	if err != nil {
		return err
	}
	store, err := sessionstore.Open(ctx, a.db.w, string(a.db.dialect), &sessionstore.Options{Reads: a.db.r})
	if err != nil {
		return err
	}
	// Whoever has a second factor shows it at every sign-in, so what an act wants is that a factor was shown just now, here or to the provider.
	fresh := []authn.Method{authn.Passkey, authn.TOTP, authn.Password, authn.Certificate, authn.OIDC}
	rules := map[session.Act]session.Rule{}
	for _, act := range []session.Act{session.Reveal, session.Export, session.Erasure, session.Keys, session.Roles, session.Restore, session.Factors} {
		rules[act] = session.Rule{Level: authn.AAL1, Methods: fresh}
	}
	a.Sessions, err = session.New(store, personSealer{tenantSealer{a.Keeper, "authn-session"}}, [][]byte{sessionKey}, &session.Options{
		Limits: session.Limits{Sessions: 10}, ByRole: map[string]session.Limits{OneTimeRole: {Absolute: time.Hour}},
		Rules: rules, Roles: a.sessionRoles, Now: c.Now,
	})
	if err != nil {
		return err
	}
	origin := cmp.Or(c.Origin, "https://localhost") // who serves elsewhere says so
	a.OpenSignOn(origin)
	return a.OpenPasskeys(ctx, origin)
}

// signInsEvery is how often what is left of sign-ins is looked through.
const signInsEvery = 10 * time.Minute

// SweepSignIns removes sessions, ceremonies and failures that are over. They serve nobody, swept or not.
func (a *App) SweepSignIns(ctx context.Context) error {
	_, err := a.Sessions.Sweep(ctx)
	_, err2 := a.signing.once.Sweep(ctx, a.clock())
	return errors.Join(err, err2, a.signing.lock.Sweep(ctx))
}

// OpenPasskeys takes passkeys of the site at origin, such as https://crm.example.com.
func (a *App) OpenPasskeys(ctx context.Context, origin string) error {
	host := strings.TrimPrefix(strings.TrimPrefix(origin, "https://"), "http://")
	name, _, _ := strings.Cut(host, ":")
	store, err := passkeystore.Open(ctx, a.db.w, string(a.db.dialect), &passkeystore.Options{Reads: a.db.r})
	if err != nil {
		return err
	}
	key, err := a.Keeper.MAC(ctx, Tenant, "authn-passkey", []byte("key v1"))
	if err != nil {
		return err
	}
	a.signing.passkeys, err = webauthn.New(webauthn.Site{ID: name, Name: "crmguard CRM", Origins: []string{origin}}, store, a.signing.once,
		personSealer{tenantSealer{a.Keeper, "authn-passkey"}}, key, &webauthn.Options{Now: a.Config.Now})
	return err
}

// Passkeys enrols and verifies passkeys.
func (a *App) Passkeys() *webauthn.Passkeys { return a.signing.passkeys }

// sessionRoles are the roles of a session whose person's rights have changed.
func (a *App) sessionRoles(ctx context.Context, _, person string, shown []authn.Method) ([]string, error) {
	employee, err := crm.ParseUUID(person)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	a.forget()
	s, err := a.Subject(ctx, employee)
	if errors.Is(err, ErrSignIn) {
		return nil, authn.Refuse(err)
	}
	if err != nil {
		return nil, err
	}
	acc, err := a.AccountOf(ctx, employee)
	if errors.Is(err, crm.ErrNotFound) || err == nil && acc.Disabled {
		return nil, authn.Refuse(ErrSignIn)
	}
	if err != nil {
		return nil, err
	}
	return rolesOf(s, acc, shown), nil
}

// rolesOf are the roles of a session in which these methods were shown. A one-time password is the matter of who came in by one.
func rolesOf(s authz.Subject, acc *Account, shown []authn.Method) []string {
	roles := slices.Clone(s.Roles)
	if acc.OneTime && !slices.Contains(shown, authn.OIDC) {
		roles = append(roles, OneTimeRole)
	}
	return roles
}

// forget lets the next reading of rights look whether another process has changed them.
func (a *App) forget() {
	a.access.mu.Lock()
	a.access.checked = time.Time{}
	a.access.mu.Unlock()
}

// Signed tells that a request came with a session of a person at an epoch. Rights that were read under an earlier one are read anew.
func (a *App) Signed(person string, epoch uint64) {
	a.signing.mu.Lock()
	defer a.signing.mu.Unlock()
	if was, ok := a.signing.epoch[person]; !ok || was < epoch {
		a.signing.epoch[person] = epoch
		if ok {
			a.forget()
		}
	}
}

// Visitor is from where somebody comes.
type Visitor struct {
	session.Visit
	Device string        // what its cookie of known devices holds
	Before session.Token // the session that it had
	came   time.Time     // when the provider was asked about it; zero for no provider
}

// Outcome is what a step of signing in has led to.
type Outcome struct {
	Session *session.Session // signed in
	Token   session.Token
	Device  string // to be kept by the browser for as long as it likes
	Pending string // another factor is wanted: the secret of SecondFactor
}

// How long a right password waits for the second factor.
const pendingTime = 10 * time.Minute

// pendingSignIn is a sign-in whose password was right, or whom a provider has named.
type pendingSignIn struct {
	Account string    `json:"account"`
	Epoch   uint64    `json:"epoch"`
	Until   time.Time `json:"until"`

	// Of a sign-in at a provider, instead of the password.
	Shown    []session.Proof `json:"shown,omitempty"`
	External string          `json:"external,omitempty"`
	Came     time.Time       `json:"came,omitzero"`
}

func (a *App) clock() time.Time {
	if a.Config.Now != nil {
		return a.Config.Now()
	}
	return a.now()
}

// Reasons of the log.
const (
	whyWait     = "too many attempts"
	whyStronger = "too many attempts: a known device or a stronger factor is needed"
	whyUnknown  = "unknown login"
	whyPassword = "wrong password"
	whyLapsed   = "the one-time password was not used in time"
	whyDisabled = "disabled"
	whyInactive = "not an active employee"
	whyAddress  = "address not allowed for the role"
)

// refusal is the public side of a reason.
func refusal(why string) error {
	if why == whyWait || why == whyStronger {
		return ErrWait
	}
	return ErrSignIn
}

// begin reserves an attempt. why is not "" when it has to wait.
func (a *App) begin(ctx context.Context, login string, v Visitor, stronger bool) (pass *lockout.Pass, why string, err error) {
	login = normalize.Email(login)
	pass, err = a.signing.lock.Begin(ctx, lockout.Attempt{Account: login, Source: v.Addr, Device: a.deviceOf(v.Device, login), Stronger: stronger})
	var refused *lockout.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Need == lockout.StrongerFactor:
		return nil, whyStronger, nil
	case errors.As(err, &refused):
		return nil, whyWait, nil
	case errors.Is(err, lockout.ErrSource):
		return nil, "no address", nil
	}
	return pass, "", err
}

// SignIn checks a login and password. Every attempt is in the log with its true reason, and refused with [ErrSignIn].
func (a *App) SignIn(ctx context.Context, login, text string, v Visitor) (Outcome, error) {
	began := time.Now()
	out, acc, why, err := a.signIn(ctx, login, text, v)
	err = a.noteSignIn(ctx, acc, why, err)
	if err != nil && !a.Config.WeakPasswordCost {
		evenly(ctx, time.Since(began))
	}
	return out, err
}

// refusedIn is the step in which refusals are answered. The hash costs the same for every name; what is read and logged of a known one beside it does not show.
const refusedIn = 100 * time.Millisecond

// evenly waits until what took so long has taken a whole number of steps.
func evenly(ctx context.Context, took time.Duration) {
	t := time.NewTimer(refusedIn - took%refusedIn)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// noteSignIn logs a refused step and returns its public side. What went well is logged where the session starts.
func (a *App) noteSignIn(ctx context.Context, acc *Account, why string, err error) error {
	if err != nil {
		why = "error"
	}
	if why == "" {
		return nil
	}
	e := audit.Event{Action: "session.sign_in", Activity: audit.Logon, Outcome: audit.Failed, Tenant: Tenant, Note: why}
	if acc != nil {
		e.Actor, e.Targets = acc.Employee.String(), acc.target()
	}
	_, logged := a.Log.Append(context.WithoutCancel(ctx), e)
	switch {
	case err != nil:
		return err
	case logged != nil:
		return logged
	}
	return refusal(why)
}

func (a *App) signIn(ctx context.Context, login, text string, v Visitor) (out Outcome, acc *Account, why string, err error) {
	if len(text) > password.MaxBytes || len(login) > 320 {
		return out, nil, "oversized", nil
	}
	pass, why, err := a.begin(ctx, login, v, false)
	if err != nil || why != "" {
		return out, nil, why, err
	}
	id, known, err := a.find(ctx, login)
	var epoch uint64
	if err == nil && known {
		// The epoch comes before all that is looked at: who is thrown out meanwhile does not come in.
		if acc, err = a.accountByID(ctx, id); err == nil {
			if epoch, err = a.Sessions.Epoch(ctx, Tenant, acc.Employee.String()); err == nil {
				acc, err = a.accountByID(ctx, id)
			}
		}
	}
	if errors.Is(err, guard.ErrForged) {
		_, err = a.check(ctx, nil, text) // for as long as any other
		return out, nil, "the account's row does not authenticate", err
	}
	if err != nil {
		return out, nil, "", errors.Join(err, pass.Undo(ctx))
	}
	if why, err = a.check(ctx, acc, text); err != nil {
		return out, acc, "", errors.Join(err, pass.Undo(ctx))
	}
	if why != "" {
		return out, acc, why, nil
	}
	s, why, err := a.enters(ctx, acc, v)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	if acc.Second {
		// The password alone is no success: its thief would guess codes without end.
		if err := pass.Undo(ctx); err != nil {
			return out, acc, "", err
		}
		out.Pending, err = a.wait(ctx, pendingSignIn{Account: acc.ID.String(), Epoch: epoch, Until: a.clock().Add(pendingTime)})
		return out, acc, "", err
	}
	out, err = a.enter(ctx, acc, s, session.SignIn{Epoch: epoch, Methods: []authn.Method{authn.Password}}, pass, v)
	return out, acc, "", err
}

// check verifies a password in the same time for every account and none; a hash that is not of today is renewed.
func (a *App) check(ctx context.Context, acc *Account, text string) (why string, err error) {
	var record []byte
	id, old, entered := "", false, text
	if acc != nil {
		id = acc.ID.String()
		stored := acc.Password.Expose()
		if old = strings.HasPrefix(stored, "$"); old {
			// Older programs hashed what NFKC made of a password.
			entered = norm.NFKC.String(text)
			record, err = a.signing.passwords.Import(ctx, id, stored)
		} else {
			record, err = base64.StdEncoding.DecodeString(stored)
		}
		if err != nil {
			record = []byte{0} // verified all the same, for as long
		}
	}
	renewed, err := a.signing.passwords.Verify(ctx, id, record, entered)
	switch {
	case errors.Is(err, password.ErrBusy):
		return "", fmt.Errorf("%w: %w", crm.ErrUnavailable, err)
	case errors.Is(err, password.ErrRecord):
		return "the record of the password does not open", nil
	case errors.Is(err, password.ErrWrong) && acc == nil:
		return whyUnknown, nil
	case errors.Is(err, password.ErrWrong):
		return whyPassword, nil
	case err != nil:
		return "", err
	}
	if a.lapsed(acc) { // verified all the same, for as long
		return whyLapsed, nil
	}
	if old {
		if renewed, err = a.signing.passwords.Hash(ctx, id, text); err != nil {
			renewed = nil // the password was right all the same
		}
	}
	if renewed != nil {
		acc.Password = crm.NewText(base64.StdEncoding.EncodeToString(renewed))
		if _, err := a.Accounts.Update(ctx, System("accounts"), acc); err != nil && !errors.Is(err, crm.ErrConflict) {
			return "", err
		}
		again, err := a.accountByID(ctx, acc.ID.UUID())
		if err != nil {
			return "", err
		}
		*acc = *again
	}
	return "", nil
}

// provePassword is check with its attempt reserved.
func (a *App) provePassword(ctx context.Context, acc *Account, text string, v Visitor) (why string, pass *lockout.Pass, err error) {
	if len(text) > password.MaxBytes {
		return "oversized", nil, nil
	}
	pass, why, err = a.begin(ctx, acc.Login.Expose(), v, false)
	if err != nil || why != "" {
		return why, nil, err
	}
	if why, err = a.check(ctx, acc, text); err != nil {
		return "", nil, errors.Join(err, pass.Undo(ctx))
	}
	return why, pass, nil
}

// enters tells whether an account may come in at all: why not, or its subject.
func (a *App) enters(ctx context.Context, acc *Account, v Visitor) (s authz.Subject, why string, err error) {
	if acc.Disabled {
		return s, whyDisabled, nil
	}
	a.forget() // what another process has written counts from now on
	s, err = a.Subject(ctx, acc.Employee)
	if errors.Is(err, ErrSignIn) {
		return s, whyInactive, nil
	}
	if err == nil && !a.Config.Admits(s.Roles, v.Addr) {
		return s, whyAddress, nil
	}
	return s, "", err
}

// Admits tells whether the allow-lists let somebody with these roles in from an address: it must be in the list of each role that has one.
func (c *Config) Admits(roles []string, addr netip.Addr) bool {
	for _, role := range roles {
		if nets, ok := c.AllowFrom[role]; ok && !slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			return false
		}
	}
	return true
}

// enter starts the session of who has shown all that is asked for: how has epoch, methods, and what a provider says.
func (a *App) enter(ctx context.Context, acc *Account, s authz.Subject, how session.SignIn, pass *lockout.Pass, v Visitor) (out Outcome, err error) {
	login := normalize.Email(acc.Login.Expose())
	var methods []authn.Method
	for _, p := range how.Shown {
		methods = append(methods, p.Method)
	}
	methods = append(methods, how.Methods...)
	how.Tenant, how.Person, how.Roles = Tenant, acc.Employee.String(), rolesOf(s, acc, methods)
	how.Visit, how.KnownDevice, how.Before = v.Visit, a.deviceOf(v.Device, login) != "", v.Before
	in, token, err := a.Sessions.Start(ctx, how)
	if err != nil {
		return out, fault(err)
	}
	words := make([]string, len(methods))
	for i, m := range methods {
		words[i] = string(m)
	}
	if how.External != "" { // after the start: whichever comes second sees the other
		if ended, look := a.endedExternal(ctx, how.External, v.came); look != nil || ended {
			if look == nil {
				look = fmt.Errorf("%w: %w", ErrSignIn, session.ErrNone)
			}
			return out, errors.Join(look, a.Sessions.SignOut(context.WithoutCancel(ctx), token))
		}
	}
	if err = pass.Succeed(ctx); err == nil {
		_, err = a.Log.Append(ctx, audit.Event{
			Action: "session.sign_in", Activity: audit.Logon, Outcome: audit.Allowed, Tenant: Tenant, Actor: in.Person, Session: in.ID, Note: strings.Join(words, " "),
			Targets: acc.target(),
		})
	}
	if err == nil {
		err = a.noteSignals(ctx, in.Person, in.ID, in.Signals, acc.target())
	}
	for _, id := range in.Ended {
		if err == nil {
			err = a.noteEnded(ctx, in.Person, in.Person, id, "too many sessions")
		}
	}
	if err != nil {
		return out, errors.Join(err, a.Sessions.SignOut(context.WithoutCancel(ctx), token))
	}
	return Outcome{Session: in, Token: token, Device: a.knowDevice(v.Device, login)}, nil
}

// fault turns a refusal of the sessions into what the application says: a store that fails is no refusal.
func fault(err error) error {
	why := authn.Reason(err)
	for _, known := range []error{session.ErrNone, session.ErrExpired, session.ErrStale, session.ErrForged, session.ErrRisk, session.ErrWeak} {
		if errors.Is(why, known) {
			return fmt.Errorf("%w: %w", ErrSignIn, why)
		}
	}
	if errors.Is(why, ErrSignIn) {
		return ErrSignIn
	}
	if errors.Is(why, guard.ErrForged) { // nobody works on a forged directory
		return why
	}
	return fmt.Errorf("%w: %w", crm.ErrUnavailable, why)
}

// noteSignals puts the signals of theft that a call has noticed into the log, from where the person is told of them: see News.
func (a *App) noteSignals(ctx context.Context, person, id string, signals []session.Signal, account []audit.Target) error {
	for _, signal := range signals {
		_, err := a.Log.Append(ctx, audit.Event{
			Action: "session.signal", Activity: audit.Logon, Outcome: audit.Allowed, Tenant: Tenant, Actor: person, Session: id, Note: string(signal), Targets: account,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tellSignals is noteSignals for who knows the person only; without an account nobody is told.
func (a *App) tellSignals(ctx context.Context, person, id string, signals []session.Signal) error {
	employee, err := crm.ParseUUID(person)
	if err != nil {
		return fault(err)
	}
	acc, err := a.AccountOf(ctx, employee)
	switch {
	case errors.Is(err, crm.ErrNotFound):
		return a.noteSignals(ctx, person, id, signals, nil)
	case err != nil:
		return err
	}
	return a.noteSignals(ctx, person, id, signals, acc.target())
}

// noteRisk logs that a session was refused as forged or ended by a signal, of which its person is told, and returns the public side of the error.
func (a *App) noteRisk(ctx context.Context, err error) error {
	why := authn.Reason(err)
	var risk *session.RiskError
	if errors.As(why, &risk) {
		if err := a.tellSignals(ctx, risk.Person, risk.Session, risk.Signals); err != nil {
			return err
		}
	}
	if errors.Is(why, session.ErrForged) || errors.Is(why, session.ErrRisk) {
		_, logged := a.Log.Append(ctx, audit.Event{
			Action: "session.refused", Activity: audit.Logoff, Outcome: audit.Denied, Tenant: Tenant, Note: why.Error(),
		})
		if logged != nil {
			return logged
		}
	}
	return fault(err)
}

// CheckSession returns the session of a token. Errors: session.ErrStepUp with the session, [ErrSignIn], or that of the store.
func (a *App) CheckSession(ctx context.Context, t session.Token, v session.Visit) (*session.Session, error) {
	s, err := a.Sessions.Check(ctx, t, v)
	if err != nil && !errors.Is(err, session.ErrStepUp) {
		return nil, a.noteRisk(ctx, err)
	}
	if len(s.Signals) > 0 {
		if err := a.tellSignals(ctx, s.Person, s.ID, s.Signals); err != nil {
			return nil, err
		}
	}
	a.Signed(s.Person, s.Epoch)
	return s, err
}

// RefuseAddress notes that a session came from an address that its roles do not allow.
func (a *App) RefuseAddress(ctx context.Context, s *session.Session) error {
	_, err := a.Log.Append(ctx, audit.Event{
		Action: "session.refused", Activity: audit.Logoff, Outcome: audit.Denied, Tenant: Tenant, Actor: s.Person, Session: s.ID, Note: whyAddress,
	})
	return err
}

// wait keeps a sign-in until its second factor and returns its secret.
func (a *App) wait(ctx context.Context, p pendingSignIn) (secret string, err error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	key := once.Key(secret)
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	sealed, err := a.signing.pending.Seal(ctx, text, key[:])
	if err != nil {
		return "", err
	}
	return secret, a.signing.once.Put(ctx, key, sealed, a.clock(), p.Until)
}

// waiting takes it back.
func (a *App) waiting(ctx context.Context, secret string) (p pendingSignIn, err error) {
	key := once.Key(secret)
	sealed, err := a.signing.once.Take(ctx, key, a.clock())
	if err != nil {
		return p, err
	}
	text, _, err := a.signing.pending.Open(ctx, sealed, key[:])
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(text, &p)
}

// SecondFactor takes a code of an authenticator app or from paper after the password. After a wrong one Outcome.Pending, beside [ErrSignIn], is for the next try.
func (a *App) SecondFactor(ctx context.Context, pending, code string, v Visitor) (out Outcome, err error) {
	p, err := a.waiting(ctx, pending)
	if errors.Is(err, once.ErrNone) {
		return out, a.noteSignIn(ctx, nil, "the password was not entered, or too long ago", nil)
	}
	if err != nil {
		return out, err
	}
	out, acc, why, err := a.secondFactor(ctx, p, code, v)
	if why != "" || err != nil {
		var again error
		out.Pending, again = a.wait(ctx, p)
		err = errors.Join(err, again)
	}
	return out, a.noteSignIn(ctx, acc, why, err)
}

func (a *App) secondFactor(ctx context.Context, p pendingSignIn, code string, v Visitor) (out Outcome, acc *Account, why string, err error) {
	id, err := crm.ParseUUID(p.Account)
	if err != nil {
		return out, nil, "", err
	}
	if acc, err = a.accountByID(ctx, id); err != nil {
		return out, nil, "", err
	}
	pass, why, err := a.begin(ctx, acc.Login.Expose(), v, false)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	method, why, err := a.code(ctx, acc, code)
	if err != nil {
		return out, acc, "", errors.Join(err, pass.Undo(ctx))
	}
	if why != "" {
		return out, acc, why, nil
	}
	if acc, err = a.accountByID(ctx, id); err != nil {
		return out, nil, "", err
	}
	s, why, err := a.enters(ctx, acc, v)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	in := session.SignIn{Epoch: p.Epoch, Methods: []authn.Method{authn.Password, method}}
	if len(p.Shown) > 0 {
		in.Methods, in.Shown, in.External = []authn.Method{method}, p.Shown, p.External
		v.came = p.Came
	}
	out, err = a.enter(ctx, acc, s, in, pass, v)
	return out, acc, "", err
}

// code verifies a code: six digits are of an app, all else is from paper.
func (a *App) code(ctx context.Context, acc *Account, code string) (method authn.Method, why string, err error) {
	code = strings.Join(strings.Fields(code), "")
	if len(code) > 64 {
		return "", "oversized", nil
	}
	if len(code) == 6 {
		err = a.signing.totp.Verify(ctx, acc.ID.String(), code)
		switch {
		case errors.Is(err, totp.ErrWrong), errors.Is(err, totp.ErrNone), errors.Is(err, totp.ErrReplayed), errors.Is(err, totp.ErrRecord):
			return "", err.Error(), nil
		}
		return authn.TOTP, "", err
	}
	_, err = a.signing.recovery.Use(ctx, acc.ID.String(), code)
	if errors.Is(err, recovery.ErrWrong) || errors.Is(err, recovery.ErrRecord) {
		return "", err.Error(), nil
	}
	return authn.Recovery, "", err
}

// PasskeySignIn signs in who answered a ceremony that [webauthn.Passkeys.BeginSignIn] began.
func (a *App) PasskeySignIn(ctx context.Context, ceremony string, response []byte, v Visitor) (Outcome, error) {
	out, acc, why, err := a.passkeySignIn(ctx, ceremony, response, v)
	return out, a.noteSignIn(ctx, acc, why, err)
}

func (a *App) passkeySignIn(ctx context.Context, ceremony string, response []byte, v Visitor) (out Outcome, acc *Account, why string, err error) {
	c, err := a.signing.passkeys.FinishSignIn(ctx, ceremony, response)
	if err != nil {
		return out, nil, passkeyReason(err), passkeyFault(err)
	}
	employee, err := crm.ParseUUID(c.Person)
	if err != nil {
		return out, nil, "", err
	}
	epoch, err := a.Sessions.Epoch(ctx, Tenant, c.Person)
	if err != nil {
		return out, nil, "", err
	}
	if acc, err = a.AccountOf(ctx, employee); errors.Is(err, crm.ErrNotFound) {
		return out, nil, "no account", nil
	}
	if err != nil {
		return out, nil, "", err
	}
	pass, why, err := a.begin(ctx, acc.Login.Expose(), v, true)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	s, why, err := a.enters(ctx, acc, v)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	out, err = a.enter(ctx, acc, s, session.SignIn{Epoch: epoch, Methods: []authn.Method{authn.Passkey}}, pass, v)
	return out, acc, "", err
}

// passkeyReason is the reason of a refusal, for the log.
func passkeyReason(err error) string {
	var cloned *webauthn.ClonedError
	if errors.As(authn.Reason(err), &cloned) {
		return "passkey: a clone was used"
	}
	for _, known := range []error{webauthn.ErrCeremony, webauthn.ErrInvalid, webauthn.ErrModel, webauthn.ErrForged, webauthn.ErrUnknown, webauthn.ErrExists, webauthn.ErrTooMany} {
		if errors.Is(authn.Reason(err), known) {
			return known.Error()
		}
	}
	return "passkey"
}

// passkeyFault is the error where a passkey was not refused but could not be looked at.
func passkeyFault(err error) error {
	if passkeyReason(err) == "passkey" {
		return fmt.Errorf("%w: %w", crm.ErrUnavailable, authn.Reason(err))
	}
	return nil
}

// The cookie of known devices: an id of 128 bits, and for each account that signed in completely on it a MAC of 128 bits. It opens
// nothing; it counts failures apart from those of strangers.
const (
	deviceID    = 16
	deviceMAC   = 16
	maxAccounts = 4
)

func (a *App) deviceMAC(id []byte, login string) []byte {
	m := hmac.New(sha256.New, a.signing.device)
	m.Write(id)
	m.Write([]byte(login))
	return m.Sum(nil)[:deviceMAC]
}

// deviceOf returns the name of a device on which the account signed in before, "" for any other.
func (a *App) deviceOf(cookie, login string) string {
	b, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(b) < deviceID || (len(b)-deviceID)%deviceMAC != 0 || len(b) > deviceID+maxAccounts*deviceMAC {
		return ""
	}
	want := a.deviceMAC(b[:deviceID], login)
	for macs := b[deviceID:]; len(macs) > 0; macs = macs[deviceMAC:] {
		if hmac.Equal(macs[:deviceMAC], want) {
			return base64.RawURLEncoding.EncodeToString(b[:deviceID])
		}
	}
	return ""
}

// knowDevice returns the cookie with the account in it.
func (a *App) knowDevice(cookie, login string) string {
	if a.deviceOf(cookie, login) != "" {
		return cookie
	}
	b, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(b) < deviceID || (len(b)-deviceID)%deviceMAC != 0 || len(b) > deviceID+maxAccounts*deviceMAC {
		b = make([]byte, deviceID)
		_, _ = rand.Read(b) // never fails
	}
	id, macs := b[:deviceID], b[deviceID:]
	if len(macs) == maxAccounts*deviceMAC {
		macs = macs[deviceMAC:]
	}
	out := append(slices.Clone(id), macs...)
	return base64.RawURLEncoding.EncodeToString(append(out, a.deviceMAC(id, login)...))
}

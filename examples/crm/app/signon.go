package app

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/oidc"
	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// SignOn says how people sign in at a provider of OpenID Connect. The zero value: not at all.
type SignOn struct {
	Issuer     string // https://...; "": nobody signs in at a provider
	Client     string // how this installation is known there
	SecretFile string // file with the secret of the client; "": Secret
	Secret     string // from the environment; "" too: a public client
	Name       string // of the provider, on the button; "": its host
	FirstUse   bool   // an account without a link is linked by the address that the provider has verified
	Rules      string // JSON file, docs/formats/signon.md; "": nothing is vouched for, and roles are given here

	rules signOnRules
}

// signOnRules is the file of SignOn.Rules.
type signOnRules struct {
	Scopes []string                  `json:"scopes"`
	Groups string                    `json:"groups"`
	Roles  map[string][]string       `json:"roles"`
	AMR    map[string]authn.Method   `json:"amr"`
	ACR    map[string][]authn.Method `json:"acr"`
	MaxAge string                    `json:"max_age"`

	maxAge time.Duration
}

// CallbackPath is where a provider sends browsers back to, and LogoutPath where it posts logout tokens.
const (
	CallbackPath = "/sign-in/provider/callback"
	LogoutPath   = "/sign-in/provider/logout"
)

// vouchable are the methods that a provider may vouch for: what is shown here and nowhere else is none of them.
var vouchable = []authn.Method{authn.Password, authn.TOTP, authn.Passkey, authn.SMS, authn.Certificate}

// complete reads the files, and refuses what cannot be meant.
func (c *SignOn) complete() error {
	if c.Issuer == "" {
		if c.Client != "" || c.SecretFile != "" || c.Rules != "" || c.FirstUse {
			return errors.New("crm: --oidc-client and its like need --oidc-issuer")
		}
		return nil
	}
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.User != nil {
		return errors.New("crm: --oidc-issuer takes the address that the provider writes into its tokens")
	}
	if c.Client == "" {
		return errors.New("crm: --oidc-issuer needs --oidc-client")
	}
	c.Name = cmp.Or(c.Name, u.Hostname())
	if c.SecretFile != "" {
		b, err := os.ReadFile(c.SecretFile)
		if err != nil {
			return errors.New("crm: --oidc-secret-file cannot be read")
		}
		if c.Secret = strings.TrimSpace(string(b)); c.Secret == "" {
			return errors.New("crm: --oidc-secret-file is empty")
		}
	}
	if c.Rules == "" {
		return nil
	}
	b, err := os.ReadFile(c.Rules)
	if err != nil {
		return errors.New("crm: --oidc-rules cannot be read")
	}
	return c.rules.parse(b)
}

func (r *signOnRules) parse(b []byte) error {
	wrong := func(what string) error { return errors.New("crm: --oidc-rules: " + what) }
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil || d.More() {
		return wrong("no JSON of the form that docs/formats/signon.md describes")
	}
	for group, roles := range r.Roles {
		if group == "" || len(roles) == 0 {
			return wrong("a group without a name or roles")
		}
		for _, role := range roles {
			if !roleName.MatchString(role) || role == "system" || role == OneTimeRole {
				return wrong("a role that nobody is given")
			}
		}
	}
	all := []authn.Method{}
	for _, m := range r.AMR {
		all = append(all, m)
	}
	for _, ms := range r.ACR {
		all = append(all, ms...)
	}
	if slices.ContainsFunc(all, func(m authn.Method) bool { return !slices.Contains(vouchable, m) }) {
		return wrong("a method that no provider vouches for")
	}
	if r.MaxAge != "" {
		age, err := time.ParseDuration(r.MaxAge)
		if err != nil || age < time.Minute {
			return wrong("max_age is a duration such as 8h, of a minute or more")
		}
		r.maxAge = age
	}
	return nil
}

// managed are the roles that groups give: all others are given here.
func (r *signOnRules) managed(role string) bool {
	for _, roles := range r.Roles {
		if slices.Contains(roles, role) {
			return true
		}
	}
	return false
}

// given are the roles of groups, sorted.
func (r *signOnRules) given(groups []string) []string {
	var out []string
	for _, g := range groups {
		out = append(out, r.Roles[g]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// provider is the provider as it is reached. It is opened when it is first needed: where it is away, everybody else signs in.
type provider struct {
	mu       sync.Mutex
	redirect string
	open     *oidc.Provider
	tried    time.Time
	asking   bool
}

// providerAgain is how soon after a failure the provider is asked again.
const providerAgain = 2 * time.Second

// OpenSignOn says at which origin the pages are served, such as https://crm.example.com.
func (a *App) OpenSignOn(origin string) {
	p := &a.signing.provider
	p.mu.Lock()
	defer p.mu.Unlock()
	p.redirect, p.open = origin+CallbackPath, nil
}

func (a *App) provider(ctx context.Context) (*oidc.Provider, error) {
	c, p := &a.Config.SignOn, &a.signing.provider
	if c.Issuer == "" {
		return nil, crm.ErrNotFound
	}
	p.mu.Lock()
	open, redirect := p.open, p.redirect
	asks := open == nil && !p.asking && time.Since(p.tried) >= providerAgain
	p.asking = p.asking || asks
	p.mu.Unlock()
	away := fmt.Errorf("%w: the provider of sign-in", crm.ErrUnavailable)
	switch {
	case open != nil:
		return open, nil
	case !asks: // one asks, the others do not wait for it
		return nil, away
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	open, err := oidc.New(ctx, oidc.Client{Issuer: c.Issuer, ID: c.Client, Secret: c.Secret, RedirectURL: redirect}, a.signing.once, &oidc.Options{
		Scopes: c.rules.Scopes, Groups: c.rules.Groups, Methods: c.rules.AMR, Contexts: c.rules.ACR, MaxAge: c.rules.maxAge, Now: a.clock,
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking, p.tried = false, time.Now()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", away, err)
	}
	if redirect == p.redirect {
		p.open = open
	}
	return open, nil
}

// SignOnName is how the provider is called; "" for none.
func (a *App) SignOnName() string { return a.Config.SignOn.Name }

// signOnKept is what a sign-in at the provider has to come back to.
type signOnKept struct {
	Back    string `json:"back,omitempty"`
	Session string `json:"session,omitempty"` // that shows a factor once more; "" for a new one
}

// BeginSignOn returns where the browser goes to sign in, and the secret for its cookie.
func (a *App) BeginSignOn(ctx context.Context, back string) (to, secret string, err error) {
	return a.beginSignOn(ctx, signOnKept{Back: back})
}

// BeginSignOnAgain is BeginSignOn for a session that has to show once more whose it is: the provider asks anew.
func (a *App) BeginSignOnAgain(ctx context.Context, s *session.Session, back string) (to, secret string, err error) {
	return a.beginSignOn(ctx, signOnKept{Back: back, Session: s.ID})
}

func (a *App) beginSignOn(ctx context.Context, k signOnKept) (to, secret string, err error) {
	p, err := a.provider(ctx)
	if err != nil {
		return "", "", err
	}
	kept, err := json.Marshal(k)
	if err != nil {
		return "", "", err
	}
	to, secret, err = p.Begin(ctx, &oidc.Ask{Login: k.Session != "", Keep: string(kept)})
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", crm.ErrUnavailable, err)
	}
	return to, secret, nil
}

// SignedOn is what an answer of the provider has led to.
type SignedOn struct {
	Outcome
	Again bool   // it was a step-up: Session goes on under Token
	Back  string // where the person was going; not checked
}

// FinishSignOn takes the provider's answer with the secret of the browser's cookie. Errors: [ErrSignIn], with the true reason in the log; that the provider is away.
func (a *App) FinishSignOn(ctx context.Context, secret string, query url.Values, v Visitor) (out SignedOn, err error) {
	p, err := a.provider(ctx)
	if err != nil {
		return out, err
	}
	v.came = a.clock() // before the provider is asked for the session that it may end meanwhile
	who, err := p.Finish(ctx, secret, query)
	if err != nil {
		return out, a.noteSignIn(ctx, nil, providerReason(err), providerFault(err))
	}
	var k signOnKept
	if err := json.Unmarshal([]byte(who.Kept), &k); err != nil {
		return out, err
	}
	out.Back = k.Back
	if k.Session != "" {
		out.Again = true
		out.Session, out.Token, err = a.signOnAgain(ctx, who, k.Session, v)
		return out, err
	}
	var acc *Account
	var why string
	out.Outcome, acc, why, err = a.signOn(ctx, who, v)
	return out, a.noteSignIn(ctx, acc, why, err)
}

// providerReason is why an answer of the provider was refused, for the log.
func providerReason(err error) string {
	why := authn.Reason(err)
	for _, known := range []error{oidc.ErrState, oidc.ErrIssuer, oidc.ErrDenied, oidc.ErrExchange, oidc.ErrToken, oidc.ErrReplay} {
		if errors.Is(why, known) {
			return why.Error() // which check of the token failed is said there, and no claim of it
		}
	}
	return "provider"
}

// providerFault is the error where an answer was not refused but could not be looked at.
func providerFault(err error) error {
	if providerReason(err) == "provider" {
		return fmt.Errorf("%w: %w", crm.ErrUnavailable, authn.Reason(err))
	}
	return nil
}

// Reasons of the log, for sign-ins at a provider.
const (
	whyUnlinked    = "provider: no account is linked with this subject"
	whyOtherLink   = "provider: the account of this address is linked with another subject"
	whyNoRole      = "provider: none of the groups gives a role"
	whyOther       = "provider: another session or person than began"
	providerSystem = "provider" // who ends sessions and gives roles, in the log
)

// signOnLink is the one text of issuer and subject: hexadecimal, for an index of texts folds case.
func signOnLink(issuer, subject string) string {
	b, _ := json.Marshal([]string{issuer, subject}) // of strings: never fails
	return hex.EncodeToString(b)
}

// LinkedSubject returns the subject of the provider that an account is linked with; "" for none.
func (acc *Account) LinkedSubject() (issuer, subject string) {
	b, err := hex.DecodeString(acc.Provider.Expose())
	var pair []string
	if err != nil || json.Unmarshal(b, &pair) != nil || len(pair) != 2 {
		return "", ""
	}
	return pair[0], pair[1]
}

// linkedAccount finds the account that is linked with a subject; nil for none.
func (a *App) linkedAccount(ctx context.Context, issuer, subject string) (*Account, error) {
	link := signOnLink(issuer, subject)
	page, err := a.Accounts.Search(ctx, System("sign-in"), link, 2, "provider")
	if err != nil || len(page.Items) != 1 {
		return nil, err
	}
	acc, err := a.accountByID(ctx, page.Items[0].Value.ID.UUID())
	if err != nil || acc.Provider.Expose() != link {
		return nil, err
	}
	return acc, nil
}

// linked finds whose identity it is, and links it by a verified address where that is wanted.
func (a *App) linked(ctx context.Context, who *oidc.Identity) (acc *Account, why string, err error) {
	if acc, err = a.linkedAccount(ctx, who.Issuer, who.Subject); err != nil || acc != nil {
		return acc, "", err
	}
	if !a.Config.SignOn.FirstUse || !plainAddress(who.Email) {
		return nil, whyUnlinked, nil
	}
	if acc, err = a.account(ctx, who.Email); err != nil {
		return nil, "", err
	}
	if acc == nil {
		e, err := a.Owner(ctx, who.Email)
		if errors.Is(err, crm.ErrNotFound) {
			return nil, whyUnlinked, nil
		}
		if err != nil {
			return nil, "", err
		}
		switch {
		case !strings.EqualFold(e.Email.Expose(), who.Email):
			return nil, whyUnlinked, nil
		case !e.Active():
			return nil, whyInactive, nil
		}
		if acc, err = a.accountFor(ctx, who.Email, e); err != nil {
			return nil, "", err
		}
	}
	switch {
	case !strings.EqualFold(acc.Login.Expose(), who.Email): // it is found by other spellings too, which may be of somebody else's mailbox
		return nil, whyUnlinked, nil
	case !acc.Provider.IsEmpty():
		return acc, whyOtherLink, nil
	case acc.Disabled:
		return acc, whyDisabled, nil
	}
	if s, err := a.Subject(ctx, acc.Employee); errors.Is(err, ErrSignIn) || err == nil && !s.Active {
		return acc, whyInactive, nil
	} else if err != nil {
		return acc, "", err
	}
	return acc, "", a.link(ctx, providerSystem, acc, who.Issuer, who.Subject, "first use, by a verified address")
}

// plainAddress tells whether an address is written in ASCII, as local@domain: nothing is folded away of one, but the case of its letters.
func plainAddress(s string) bool {
	at := strings.IndexByte(s, '@')
	if at < 1 || at != strings.LastIndexByte(s, '@') || at == len(s)-1 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// accountFor returns the account of an employee, and makes one, whose password nobody knows, where there is none.
func (a *App) accountFor(ctx context.Context, login string, e *crm.Employee) (*Account, error) {
	acc, err := a.AccountOf(ctx, e.ID.UUID())
	if !errors.Is(err, crm.ErrNotFound) {
		return acc, err
	}
	if _, err := a.AddAccount(ctx, login, e.ID.UUID()); err != nil {
		return nil, err
	}
	return a.AccountOf(ctx, e.ID.UUID())
}

// ErrLinked: the subject is linked with another account already.
var ErrLinked = errors.New("crm: another account is linked with this subject")

func (a *App) link(ctx context.Context, by string, acc *Account, issuer, subject, note string) error {
	acc.Provider = crm.NewText(signOnLink(issuer, subject))
	if _, err := a.Accounts.Update(ctx, System("accounts"), acc); errors.Is(err, crm.ErrDuplicate) {
		return ErrLinked
	} else if err != nil {
		return err
	}
	again, err := a.accountByID(ctx, acc.ID.UUID())
	if err != nil {
		return err
	}
	*acc = *again
	return a.noteLink(ctx, by, acc, "account.linked", note)
}

func (a *App) noteLink(ctx context.Context, by string, acc *Account, action, note string) error {
	_, err := a.Log.Append(ctx, audit.Event{
		Action: action, Activity: audit.Update, Outcome: audit.Allowed, Tenant: Tenant, Actor: by, Note: note,
		Targets: acc.target(),
	})
	return err
}

// LinkAccount links an account with a subject of the provider, and ends the sessions of its employee. Errors: [ErrLinked], *crm.InvalidError.
func (a *App) LinkAccount(ctx context.Context, by string, acc *Account, subject string) error {
	if a.Config.SignOn.Issuer == "" {
		return crm.ErrNotFound
	}
	if subject == "" || len(subject) > 255 || strings.ContainsFunc(subject, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return &crm.InvalidError{Type: crm.TypeEmployee, Fields: []crm.FieldError{{Field: "subject", Rule: "malformed"}}}
	}
	if err := a.link(ctx, by, acc, a.Config.SignOn.Issuer, subject, ""); err != nil {
		return err
	}
	return a.endOthers(ctx, acc.Employee.String(), by, "", "linked with a subject of the provider")
}

// UnlinkAccount ends the link of an account, and the sessions of its employee.
func (a *App) UnlinkAccount(ctx context.Context, by string, acc *Account) error {
	if acc.Provider.IsEmpty() {
		return crm.ErrNotFound
	}
	acc.Provider = crm.Text{}
	if _, err := a.Accounts.Update(ctx, System("accounts"), acc); err != nil {
		return err
	}
	if err := a.noteLink(ctx, by, acc, "account.unlinked", ""); err != nil {
		return err
	}
	return a.endOthers(ctx, acc.Employee.String(), by, "", "no longer linked")
}

// LinkLogin is LinkAccount for a login, or an employee's address without an account, from the command line; subject "" ends the link.
func (a *App) LinkLogin(ctx context.Context, login, subject string) error {
	acc, err := a.account(ctx, login)
	if err != nil {
		return err
	}
	if acc == nil {
		if subject == "" {
			return crm.ErrNotFound
		}
		e, err := a.Owner(ctx, login)
		if err != nil {
			return err
		}
		if acc, err = a.accountFor(ctx, login, e); err != nil {
			return err
		}
	}
	if subject == "" {
		return a.UnlinkAccount(ctx, "system", acc)
	}
	return a.LinkAccount(ctx, "system", acc, subject)
}

// signOn signs in whom the provider has named.
func (a *App) signOn(ctx context.Context, who *oidc.Identity, v Visitor) (out Outcome, acc *Account, why string, err error) {
	acc, why, err = a.linked(ctx, who)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	if why, err = a.rolesFrom(ctx, acc, who); err != nil || why != "" {
		return out, acc, why, err
	}
	// The epoch comes before all that is looked at, as with a password.
	epoch, err := a.Sessions.Epoch(ctx, Tenant, acc.Employee.String())
	if err != nil {
		return out, acc, "", err
	}
	if acc, err = a.accountByID(ctx, acc.ID.UUID()); err != nil {
		return out, nil, "", err
	}
	if acc.Provider.Expose() != signOnLink(who.Issuer, who.Subject) {
		return out, acc, whyUnlinked, nil
	}
	pass, why, err := a.begin(ctx, acc.Login.Expose(), v, true)
	if err != nil || why != "" {
		return out, acc, why, err
	}
	s, why, err := a.enters(ctx, acc, v)
	if err != nil {
		return out, acc, "", errors.Join(err, pass.Undo(ctx))
	}
	if why != "" {
		return out, acc, why, pass.Undo(ctx) // no guess: the provider knows them
	}
	shown := a.shownAt(who)
	external := ""
	if who.Session != "" {
		external = externalName(who.Issuer, who.Session)
	}
	if acc.Second && authn.LevelOf(who.Methods...) < authn.AAL2 {
		if err := pass.Undo(ctx); err != nil {
			return out, acc, "", err
		}
		out.Pending, err = a.wait(ctx, pendingSignIn{Account: acc.ID.String(), Epoch: epoch, Until: a.clock().Add(pendingTime), Shown: shown, External: external, Came: v.came})
		return out, acc, "", err
	}
	out, err = a.enter(ctx, acc, s, session.SignIn{Epoch: epoch, Shown: shown, External: external}, pass, v)
	return out, acc, "", err
}

// shownAt are the proofs of an identity, as old as the provider says. Where it says nothing they are too old for any act.
func (a *App) shownAt(who *oidc.Identity) []session.Proof {
	at := who.AuthTime
	if now := a.clock(); at.IsZero() {
		at = now.Add(-time.Hour)
	} else if at.After(now) {
		at = now
	}
	out := make([]session.Proof, len(who.Methods))
	for i, m := range who.Methods {
		out[i] = session.Proof{Method: m, At: at}
	}
	return out
}

func externalName(issuer, sid string) string { return signOnLink(issuer, sid) }

// signOnAgain takes a fresh proof of the provider for a session that goes on.
func (a *App) signOnAgain(ctx context.Context, who *oidc.Identity, id string, v Visitor) (*session.Session, session.Token, error) {
	none := session.Token{}
	s, err := a.Sessions.Check(ctx, v.Before, v.Visit)
	if err != nil && !errors.Is(err, session.ErrStepUp) {
		if err = fault(err); errors.Is(err, ErrSignIn) {
			err = a.noteSignIn(ctx, nil, whyOther, nil)
		}
		return nil, none, err
	}
	why := ""
	acc, err := a.linkedAccount(ctx, who.Issuer, who.Subject)
	if err == nil {
		switch {
		case acc == nil || s.ID != id || acc.Employee.String() != s.Person:
			why = whyOther
		case acc.Disabled:
			why = whyDisabled
		default:
			why, err = a.rolesFrom(ctx, acc, who)
		}
	}
	if err != nil {
		return nil, none, err
	}
	c := guard.Caller{Subject: authz.Subject{ID: s.Person, Session: s.ID}}
	if err := a.noteStepUp(ctx, c, why, authn.OIDC); err != nil {
		return nil, none, err
	}
	s, token, err := a.Sessions.StepUp(ctx, v.Before, who.Methods, v.Visit)
	if err != nil {
		return nil, none, a.noteRisk(ctx, err)
	}
	return s, token, nil
}

// rolesFrom gives an employee the roles of their groups and takes those of groups that they have left. Roles that no group gives are none of the provider's
// business. What changes is certified, or ended, and counts for all sessions with their next request.
func (a *App) rolesFrom(ctx context.Context, acc *Account, who *oidc.Identity) (why string, err error) {
	rules := &a.Config.SignOn.rules
	if rules.Roles == nil {
		return "", nil
	}
	for try := 0; ; try++ {
		why, err := a.giveRoles(ctx, acc, rules, who.Groups)
		if errors.Is(err, crm.ErrConflict) && try < 4 {
			continue
		}
		return why, err
	}
}

func (a *App) giveRoles(ctx context.Context, acc *Account, rules *signOnRules, groups []string) (why string, err error) {
	v, err := a.Employees.Get(ctx, System("sign-in"), acc.Employee)
	if errors.Is(err, crm.ErrNotFound) || err == nil && !v.Value.Active() {
		return whyInactive, nil
	}
	if err != nil {
		return "", err
	}
	e := v.Value
	before := slices.Clone(e.Roles)
	next := append(slices.DeleteFunc(slices.Clone(before), rules.managed), rules.given(groups)...)
	stored := false
	if slices.Contains(before, "admin") && !slices.Contains(next, "admin") {
		e.Roles = next
		err := a.takeAdmin(ctx, System("sign-in"), e)
		stored = err == nil
		if errors.Is(err, ErrLastAdmin) {
			next = append(next, "admin") // nobody could give it back
			err = a.noteLink(ctx, providerSystem, acc, "account.roles", "the last administrator's role stays")
		}
		if err != nil {
			return "", err
		}
	}
	sorted := func(in []string) []string { out := slices.Clone(in); slices.Sort(out); return out }
	if !slices.Equal(sorted(before), sorted(next)) {
		if e.Roles = next; !stored {
			if _, err := a.Employees.Update(ctx, System("sign-in"), e); err != nil {
				return "", err
			}
		}
		if err := a.rolesChanged(ctx, acc.Employee, crm.ID[crm.Employee]{}); err != nil {
			return "", err
		}
		var note []string
		for _, r := range sorted(next) {
			if !slices.Contains(before, r) {
				note = append(note, "+"+r)
			}
		}
		for _, r := range sorted(before) {
			if !slices.Contains(next, r) {
				note = append(note, "-"+r)
			}
		}
		if err := a.noteLink(ctx, providerSystem, acc, "account.roles", strings.Join(note, " ")); err != nil {
			return "", err
		}
	}
	if len(next) == 0 {
		return whyNoRole, a.endOthers(ctx, acc.Employee.String(), providerSystem, "", whyNoRole)
	}
	return "", nil
}

// ender ends sessions for the provider.
type ender struct{ a *App }

// EndExternal ends the sessions that came from one at the provider; without one, all of the person's.
func (e ender) EndExternal(ctx context.Context, issuer, subject, sid string) error {
	a, person := e.a, ""
	if subject != "" {
		acc, err := a.linkedAccount(ctx, issuer, subject)
		if err != nil {
			return err
		}
		if acc != nil {
			person = acc.Employee.String()
		}
	}
	const note = "ended by the provider"
	var ended []string
	var err error
	switch {
	case sid != "":
		// Who is between the provider and a session, as at a second factor, does not come in with this one any more; see enter.
		if err := a.noteEndedExternal(ctx, externalName(issuer, sid)); err != nil {
			return err
		}
		if person != "" { // what waits for its second factor does not come in either
			if err := a.Sessions.RightsChanged(ctx, Tenant, person); err != nil {
				return err
			}
		}
		ended, err = a.Sessions.EndExternal(ctx, Tenant, externalName(issuer, sid))
	case person != "":
		ended, err = a.Sessions.EndAll(ctx, Tenant, person)
	}
	if err != nil {
		return err
	}
	for _, id := range ended {
		ev := audit.Event{Action: "session.end", Activity: audit.Logoff, Outcome: audit.Allowed, Tenant: Tenant, Actor: providerSystem, Session: id, Note: note}
		if person != "" {
			ev.Targets = []audit.Target{{Type: crm.TypeEmployee, ID: person}}
		}
		if _, err := a.Log.Append(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}

// endedKept is how long it is known that a session at the provider has ended: longer than a sign-in takes that had begun.
const endedKept = time.Hour

// noteEndedExternal notes that a session at the provider has ended now.
func (a *App) noteEndedExternal(ctx context.Context, name string) error {
	key, now := once.Key("ended at the provider", name), a.clock()
	at, err := now.MarshalBinary()
	if err != nil {
		return err
	}
	for {
		if err = a.signing.once.Put(ctx, key, at, now, now.Add(endedKept)); !errors.Is(err, once.ErrTaken) {
			return err
		}
		if _, err = a.signing.once.Take(ctx, key, now); err != nil && !errors.Is(err, once.ErrNone) { // an earlier end
			return err
		}
	}
}

// endedExternal tells whether a session at the provider has ended since a sign-in came from it.
func (a *App) endedExternal(ctx context.Context, name string, came time.Time) (bool, error) {
	text, err := a.signing.once.Get(ctx, once.Key("ended at the provider", name), a.clock())
	if errors.Is(err, once.ErrNone) {
		return false, nil
	}
	var at time.Time
	if err == nil {
		err = at.UnmarshalBinary(text)
	}
	return !came.After(at), err
}

// SignOnLogout serves the provider's back-channel logout: POST of a logout token, by the provider itself and not by a browser.
func (a *App) SignOnLogout(w http.ResponseWriter, r *http.Request) {
	p, err := a.provider(r.Context())
	if err != nil {
		status := http.StatusServiceUnavailable
		if errors.Is(err, crm.ErrNotFound) {
			status = http.StatusNotFound
		}
		http.Error(w, http.StatusText(status), status)
		return
	}
	p.LogoutHandler(ender{a}, func(ctx context.Context, reason error) {
		_, _ = a.Log.Append(context.WithoutCancel(ctx), audit.Event{ // it is refused, logged or not
			Action: "session.provider_logout", Activity: audit.Logoff, Outcome: audit.Failed, Tenant: Tenant, Note: providerReason(reason),
		})
	}).ServeHTTP(w, r)
}

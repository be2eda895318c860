package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/token"
	tokenstore "github.com/crmguard/crmguard/authz/authn/token/sqlstore"
	"github.com/crmguard/crmguard/crm"
)

// TokenTypes are the types that a scope may name. What gives rights to others, or goes on without the token, is none of them: employees and accounts, shares and
// delegations, endpoints, imports and exports.
var TokenTypes = []string{
	crm.TypeCustomer, crm.TypeContact, crm.TypeLead, crm.TypeFollowUp, crm.TypeOpportunity, crm.TypeQuote, crm.TypeContract, crm.TypeTicket, crm.TypeProduct, crm.TypePool,
}

// TokenRead is the word of a scope for reading.
const TokenRead = "read"

var (
	tokenReads = []authz.Action{authz.List, authz.Read, authz.Search, authz.Aggregate, authz.Browse}
	// tokenActs are the other actions that a scope may name. A reveal is none: it wants a fresh proof, which a program never gives.
	tokenActs = []authz.Action{authz.Create, authz.Check, authz.Merge, authz.Claim, authz.Assign, authz.Transfer, authz.Release, authz.Handover, authz.Enter, authz.Lock}
)

// TokenActs are what a scope may name of a type besides reading, as the REST interface has it.
func TokenActs(typ string) []authz.Action {
	switch typ {
	case crm.TypeCustomer, crm.TypeLead:
		return tokenActs
	case crm.TypeContact:
		return tokenActs[:3]
	}
	return nil
}

// ErrScope: the words of a scope are not TYPE:ACTION, TYPE:read or *:read, of types and actions that tokens may have.
var ErrScope = errors.New("crm: a scope is *:read, TYPE:read or TYPE:ACTION, of a type and an action that tokens may have")

// ErrTokenOwner: the owner of a token may not act, or has a role that asks for a second factor, which no token shows.
var ErrTokenOwner = errors.New("crm: no token is made for who may not act, or has a role that asks for a second factor")

// ErrTokens: there are too many.
var ErrTokens = errors.New("crm: there are as many living tokens of this owner as may be")

const maxTokens = 20 // living ones of one owner

// scopeOf reads the words of a scope.
func scopeOf(words []string) (map[string][]authz.Action, error) {
	out := map[string][]authz.Action{}
	for _, w := range words {
		typ, act, ok := strings.Cut(w, ":")
		switch {
		case !ok:
			return nil, ErrScope
		case act == TokenRead && typ == "*":
			for _, t := range TokenTypes {
				out[t] = append(out[t], tokenReads...)
			}
		case act == TokenRead && slices.Contains(TokenTypes, typ):
			out[typ] = append(out[typ], tokenReads...)
		case slices.Contains(TokenActs(typ), authz.Action(act)):
			out[typ] = append(out[typ], authz.Action(act))
		default:
			return nil, ErrScope
		}
	}
	return out, nil
}

// openTokens opens the tokens of programs.
func (a *App) openTokens(ctx context.Context, key []byte) error {
	store, err := tokenstore.Open(ctx, a.db.w, string(a.db.dialect), &tokenstore.Options{Reads: a.db.r})
	if err != nil {
		return err
	}
	a.signing.tokens, err = token.New(store, [][]byte{key}, &token.Options{Now: a.clock})
	return err
}

// TokenAsk is what a token is to be.
type TokenAsk struct {
	Name    string         // what it is for
	Scopes  []string       // *:read, TYPE:read, TYPE:ACTION
	Sources []netip.Prefix // from where; nil: from anywhere
	Days    int            // that it lives; 1 to 366
	// Certificate, if there is one, takes the place of the text: whoever holds its key and shows a certificate of that key by an authority of Config.ClientCA.
	Certificate *x509.Certificate
}

// ErrCertificate: the key of a certificate is or was bound to a token before.
var ErrCertificate = errors.New("crm: the key of this certificate is or was bound before")

// MakeToken makes a token of an employee, by somebody. Its text is returned and kept nowhere; one that is a certificate has none. Errors: [ErrScope], [ErrTokenOwner],
// [ErrTokens], [ErrCertificate], *token.InvalidError.
func (a *App) MakeToken(ctx context.Context, by string, owner crm.UUID, ask TokenAsk) (*token.Info, token.Secret, error) {
	none := token.Secret{}
	if _, err := scopeOf(ask.Scopes); err != nil {
		return nil, none, err
	}
	if ask.Days < 1 {
		return nil, none, &token.InvalidError{Field: "expiry"}
	}
	if why, _, err := a.tokenOwner(ctx, owner, netip.Addr{}); err != nil {
		return nil, none, err
	} else if why != "" {
		return nil, none, ErrTokenOwner
	}
	all, err := a.Tokens(ctx, owner)
	if err != nil {
		return nil, none, err
	}
	now, living := a.clock(), 0
	for _, t := range all {
		if t.Revoked.IsZero() && now.Before(t.Expires) {
			living++
		}
	}
	if living >= maxTokens {
		return nil, none, ErrTokens
	}
	grant := token.Grant{
		Tenant: Tenant, Account: owner.String(), Name: ask.Name, By: by, Scopes: ask.Scopes, Sources: ask.Sources, Expires: now.AddDate(0, 0, ask.Days),
	}
	var i *token.Info
	secret := none
	if ask.Certificate != nil {
		i, err = a.signing.tokens.Bind(ctx, grant, ask.Certificate)
	} else {
		i, secret, err = a.signing.tokens.Issue(ctx, grant)
	}
	if errors.Is(err, token.ErrExists) {
		return nil, none, ErrCertificate
	}
	if err != nil {
		return nil, none, err
	}
	if err := a.noteToken(ctx, by, "token.issued", owner.String(), i.ID, strings.Join(i.Scopes, " ")); err != nil {
		return nil, none, errors.Join(err, a.signing.tokens.Revoke(context.WithoutCancel(ctx), Tenant, i.ID)) // no log, no token
	}
	return i, secret, nil
}

func (a *App) noteToken(ctx context.Context, by, action, owner, id, note string) error {
	if len(note) > 400 {
		note = note[:400]
	}
	_, err := a.Log.Append(ctx, audit.Event{
		Action: action, Activity: audit.Update, Outcome: audit.Allowed, Tenant: Tenant, Actor: by, Note: note,
		Targets: []audit.Target{{Type: "token", ID: id}, {Type: crm.TypeEmployee, ID: owner}},
	})
	return err
}

// Tokens returns the tokens of an employee, revoked and expired ones too, the newest first.
func (a *App) Tokens(ctx context.Context, owner crm.UUID) ([]token.Info, error) {
	all, err := a.signing.tokens.List(ctx, token.Query{Tenant: Tenant, Account: owner.String()})
	slices.SortFunc(all, func(x, y token.Info) int { return y.Created.Compare(x.Created) })
	return all, err
}

// RevokeToken ends a token of an employee at once. Errors: crm.ErrNotFound.
func (a *App) RevokeToken(ctx context.Context, by string, owner crm.UUID, id string) error {
	all, err := a.Tokens(ctx, owner)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(t token.Info) bool { return t.ID == id && t.Revoked.IsZero() }) {
		return crm.ErrNotFound
	}
	if err := a.signing.tokens.Revoke(ctx, Tenant, id); errors.Is(err, token.ErrNone) {
		return crm.ErrNotFound
	} else if err != nil {
		return err
	}
	return a.noteToken(ctx, by, "token.revoked", owner.String(), id, "")
}

// RevokeTokenByID is RevokeToken from the command line, whosever it is.
func (a *App) RevokeTokenByID(ctx context.Context, id string) error {
	all, err := a.signing.tokens.List(ctx, token.Query{Tenant: Tenant, Prefix: id})
	if err != nil {
		return err
	}
	if len(all) != 1 || all[0].ID != id {
		return crm.ErrNotFound
	}
	owner, err := crm.ParseUUID(all[0].Account)
	if err != nil {
		return err
	}
	return a.RevokeToken(ctx, "system", owner, id)
}

// revokeTokens ends all tokens of an employee.
func (a *App) revokeTokens(ctx context.Context, by, owner, note string) error {
	ids, err := a.signing.tokens.RevokeAll(ctx, Tenant, owner)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := a.noteToken(ctx, by, "token.revoked", owner, id, note); err != nil {
			return err
		}
	}
	return nil
}

// Program is a request that came with a token.
type Program struct {
	Token    string // its id
	Employee *crm.Employee
	Subject  authz.Subject
	Scope    map[string][]authz.Action
}

// whySecond: a token shows one thing, and a role wants two.
const whySecond = "token: a role of its owner asks for a second factor"

// tokenOwner tells what an owner may be through a token now: why not, or their subject. The address is not asked for where it is not valid.
func (a *App) tokenOwner(ctx context.Context, owner crm.UUID, addr netip.Addr) (why string, s authz.Subject, err error) {
	// The epoch is one query, and moves with whatever ends sessions or changes rights, in whichever process.
	epoch, err := a.Sessions.Epoch(ctx, Tenant, owner.String())
	if err != nil {
		return "", s, fmt.Errorf("%w: %w", crm.ErrUnavailable, err)
	}
	a.Signed(owner.String(), epoch)
	s, err = a.Subject(ctx, owner)
	switch {
	case errors.Is(err, ErrSignIn):
		return whyInactive, s, nil
	case err != nil:
		return "", s, err
	case a.Config.NeedsSecond(s.Roles):
		return whySecond, s, nil
	case addr.IsValid() && !a.Config.Admits(s.Roles, addr):
		return whyAddress, s, nil
	}
	enabled, err := a.enabled(ctx, owner)
	if err == nil && !enabled {
		return whyDisabled, s, nil
	}
	return "", s, err
}

// enabled tells whether the account of an owner is not disabled. Who has none is a service account: nobody signs in as it. It is read anew when any account has
// changed, in whichever process.
func (a *App) enabled(ctx context.Context, owner crm.UUID) (bool, error) {
	var seq int64
	err := a.db.r.QueryRowContext(ctx, `SELECT COALESCE(MAX(change_seq), 0) FROM `+a.db.dialect.Quote(rowsPrefix+"account")).Scan(&seq)
	if err != nil {
		return false, fmt.Errorf("%w: looking for changed accounts (%s)", crm.ErrUnavailable, code(err))
	}
	x := &a.signing
	x.mu.Lock()
	seen, ok := x.enabled[owner]
	x.mu.Unlock()
	if ok && seen == seq {
		return true, nil
	}
	acc, err := a.AccountOf(ctx, owner)
	if err != nil && !errors.Is(err, crm.ErrNotFound) {
		return false, err
	}
	if err == nil && acc.Disabled {
		return false, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.enabled) > 10000 {
		clear(x.enabled)
	}
	x.enabled[owner] = seq
	return true, nil
}

// Program returns who asks with a token, with the rights of its owner at this moment and the scope of the token. Errors: [ErrSignIn], with the true reason in the
// log; that of the store.
func (a *App) Program(ctx context.Context, text string, addr netip.Addr) (*Program, error) {
	i, err := a.signing.tokens.Verify(ctx, text, addr)
	return a.program(ctx, i, err, tokenID(text), addr)
}

// ProgramByCertificate is Program for the client certificate of a TLS connection.
func (a *App) ProgramByCertificate(ctx context.Context, state *tls.ConnectionState, addr netip.Addr) (*Program, error) {
	i, err := a.signing.tokens.VerifyCertificate(ctx, state, addr)
	return a.program(ctx, i, err, "", addr)
}

// program says what the owner of a verified token may; id is that of one that was not.
func (a *App) program(ctx context.Context, i *token.Info, err error, id string, addr netip.Addr) (*Program, error) {
	refuse := func(id, owner, why string) error {
		e := audit.Event{Action: "token.refused", Activity: audit.Logon, Outcome: audit.Failed, Tenant: Tenant, Actor: owner, Note: why}
		if id != "" {
			e.Targets = []audit.Target{{Type: "token", ID: id}}
		}
		if _, err := a.Log.Append(context.WithoutCancel(ctx), e); err != nil {
			return err
		}
		return ErrSignIn
	}
	if err != nil {
		why := authn.Reason(err)
		for _, known := range []error{
			token.ErrMalformed, token.ErrNone, token.ErrExpired, token.ErrRevoked, token.ErrSource, token.ErrForged, token.ErrUnverified,
		} {
			if errors.Is(why, known) {
				return nil, refuse(id, "", known.Error())
			}
		}
		return nil, fmt.Errorf("%w: %w", crm.ErrUnavailable, why)
	}
	owner, err := crm.ParseUUID(i.Account)
	if err != nil {
		return nil, refuse(i.ID, "", "token: of nobody")
	}
	scope, err := scopeOf(i.Scopes)
	if err != nil { // of a program that knew other words
		return nil, refuse(i.ID, i.Account, "token: a scope that is not known")
	}
	why, s, err := a.tokenOwner(ctx, owner, addr.Unmap())
	if err != nil {
		return nil, err
	}
	if why == whyInactive || why == whyDisabled { // and does not come back with its owner
		if err := a.revokeTokens(ctx, "system", i.Account, why); err != nil {
			return nil, err
		}
	}
	if why != "" {
		return nil, refuse(i.ID, i.Account, why)
	}
	e, err := a.Employee(ctx, owner)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, refuse(i.ID, i.Account, whyInactive)
	}
	s.Session, s.Emergencies = "token:"+i.ID, nil // a break-glass access is opened for a person
	return &Program{Token: i.ID, Employee: e, Subject: s, Scope: scope}, nil
}

// tokenID is the part of a token's text that is no secret; "" of what is none.
func tokenID(text string) string {
	if !token.Checksum(text) {
		return ""
	}
	_, rest, _ := strings.Cut(text, "_")
	id, _, _ := strings.Cut(rest, "_")
	return id
}

// TokenOwner finds whose tokens are meant by an address, for the command line.
func (a *App) TokenOwner(ctx context.Context, login string) (crm.UUID, error) {
	if login == "" {
		return crm.UUID{}, crm.ErrNotFound
	}
	e, err := a.Owner(ctx, login)
	if err != nil {
		return crm.UUID{}, err
	}
	return e.ID.UUID(), nil
}

// ServiceAccount tells whether an employee has no account: nobody signs in as it, and its tokens are made by administrators.
func (a *App) ServiceAccount(ctx context.Context, employee crm.UUID) (bool, error) {
	_, err := a.AccountOf(ctx, employee)
	if errors.Is(err, crm.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// TokenDays are how long a token may live, on the pages.
var TokenDays = []int{7, 30, 90, 365}

// TokenExpired tells whether a token is over.
func (a *App) TokenExpired(t *token.Info) bool { return !a.clock().Before(t.Expires) }

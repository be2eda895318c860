package oidc

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/once"
)

// Client is how this program is known to the provider.
type Client struct {
	Issuer      string // https, as the provider writes it
	ID          string
	Secret      string // "" for a public client, which PKCE alone protects
	RedirectURL string // where the browser comes back to
}

// Options of New.
type Options struct {
	Scopes   []string                  // besides openid
	Groups   string                    // the claim that lists groups; "" = "groups"
	Roles    map[string][]string       // group -> roles; nil = no mapping
	Methods  map[string]authn.Method   // value of the claim amr (RFC 8176) -> method, for a provider that is trusted to say; nil = none
	Contexts map[string][]authn.Method // value of the claim acr -> methods that it stands for, likewise; nil = none
	MaxAge   time.Duration             // how long ago the person may have signed in at the provider; 0 = any
	Skew     time.Duration             // between its clock and ours; 0 = a minute; at most five
	HTTP     *http.Client              // nil = one with a limit of ten seconds that follows no redirects
	Now      func() time.Time          // nil = time.Now
}

// Provider signs people in at one issuer.
type Provider struct {
	client   Client
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	http     *http.Client
	states   once.Store
	sendsIss bool
	opts     Options
}

// Reasons of refusals.
var (
	ErrState    = errors.New("oidc: the answer does not belong to a sign-in of this browser, or is late")
	ErrIssuer   = errors.New("oidc: the answer is not from this issuer")
	ErrDenied   = errors.New("oidc: the provider answered with an error")
	ErrExchange = errors.New("oidc: the provider did not exchange the code")
	ErrToken    = errors.New("oidc: the token is not valid")
	ErrNoRole   = errors.New("oidc: none of the groups gives a role")
	ErrReplay   = errors.New("oidc: this logout token was taken before")
)

const (
	ceremony  = 10 * time.Minute // from Begin to Finish
	freshness = 10 * time.Minute // of an ID token when it arrives
	maxClaims = 1000             // groups
	maxToken  = 64 << 10         // bytes
)

// algorithms that an ID token may be signed with.
var algorithms = []string{oidc.RS256, oidc.PS256, oidc.ES256, oidc.ES384, oidc.EdDSA}

// New reads the provider's discovery document. Issuer and endpoints must be https, but for a loopback address. states
// is shared by all processes that serve the redirect URL.
func New(ctx context.Context, c Client, states once.Store, opts *Options) (*Provider, error) {
	p := &Provider{client: c, states: states}
	if opts != nil {
		p.opts = *opts
	}
	if p.opts.Groups == "" {
		p.opts.Groups = "groups"
	}
	if p.opts.Skew == 0 {
		p.opts.Skew = time.Minute
	}
	if p.opts.Now == nil {
		p.opts.Now = time.Now
	}
	switch {
	case states == nil || c.ID == "":
		return nil, errors.New("oidc: no store or client")
	case p.opts.Skew < 0 || p.opts.Skew > 5*time.Minute || p.opts.MaxAge < 0:
		return nil, errors.New("oidc: options out of range")
	case !secure(c.Issuer) || !secure(c.RedirectURL):
		return nil, errors.New("oidc: issuer and redirect URL are https")
	}
	vouched := slices.Collect(maps.Values(p.opts.Methods))
	for _, all := range p.opts.Contexts {
		vouched = append(vouched, all...)
	}
	if slices.ContainsFunc(vouched, func(m authn.Method) bool { return !m.Valid() }) {
		return nil, errors.New("oidc: an unknown method")
	}
	p.http = p.opts.HTTP
	if p.http == nil {
		p.http = &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	ctx = oidc.ClientContext(ctx, p.http)
	found, err := oidc.NewProvider(ctx, c.Issuer)
	if err != nil {
		return nil, errors.New("oidc: the provider's discovery document is not to be had, or is of another issuer")
	}
	var doc struct {
		JWKS       string   `json:"jwks_uri"`
		SendsIss   bool     `json:"authorization_response_iss_parameter_supported"`
		Challenges []string `json:"code_challenge_methods_supported"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := found.Claims(&doc); err != nil {
		return nil, errors.New("oidc: the provider's discovery document is malformed")
	}
	end := found.Endpoint()
	if !secure(end.AuthURL) || !secure(end.TokenURL) || !secure(doc.JWKS) {
		return nil, errors.New("oidc: an endpoint of the provider is not https")
	}
	if doc.Challenges != nil && !slices.Contains(doc.Challenges, "S256") {
		return nil, errors.New("oidc: the provider does not know PKCE with S256")
	}
	algs := slices.Clone(algorithms)
	if doc.Algorithms != nil {
		algs = slices.DeleteFunc(algs, func(a string) bool { return !slices.Contains(doc.Algorithms, a) })
	}
	if len(algs) == 0 {
		return nil, errors.New("oidc: the provider signs by no algorithm that is accepted")
	}
	p.sendsIss = doc.SendsIss
	// Times are checked here, with a bound of our own.
	p.verifier = found.VerifierContext(ctx, &oidc.Config{ClientID: c.ID, SupportedSigningAlgs: algs, SkipExpiryCheck: true})
	p.oauth = oauth2.Config{ClientID: c.ID, ClientSecret: c.Secret, Endpoint: end, RedirectURL: c.RedirectURL,
		Scopes: append([]string{oidc.ScopeOpenID}, p.opts.Scopes...)}
	return p, nil
}

// secure tells whether a URL is https, or http to a loopback address.
func secure(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// derive makes what goes to the provider of the browser's secret.
func derive(secret, what string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte("crmguard oidc 1 " + what))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (p *Provider) stateKey(secret string) [32]byte {
	return once.Key("oidc state", p.client.Issuer, p.client.ID, secret)
}

// Ask is what one sign-in wants besides.
type Ask struct {
	// Login sends max_age=0 and prompt=login: the person shows anew who they are, and the ID token must say that it was after Begin.
	Login bool
	Keep  string // of the caller: Identity.Kept gives it back; it lies in the store as it is, and never goes to the browser or the provider
}

// asked is an Ask in the store.
type asked struct {
	Login int64  `json:"login,omitempty"` // when it began, in milliseconds; 0 for none
	Keep  string `json:"keep,omitempty"`
}

// Begin returns the URL to which the browser is sent, and a secret that stays in its cookie. ask may be nil.
func (p *Provider) Begin(ctx context.Context, ask *Ask) (to, secret string, err error) {
	secret = rand.Text() + rand.Text()
	now := p.opts.Now()
	params := []oauth2.AuthCodeOption{oidc.Nonce(derive(secret, "nonce")), oauth2.S256ChallengeOption(derive(secret, "verifier"))}
	if p.opts.MaxAge > 0 && (ask == nil || !ask.Login) {
		params = append(params, oauth2.SetAuthURLParam("max_age", fmt.Sprint(int(p.opts.MaxAge.Seconds()))))
	}
	var value []byte
	if ask != nil {
		kept := asked{Keep: ask.Keep}
		if ask.Login {
			kept.Login = now.UnixMilli()
			params = append(params, oauth2.SetAuthURLParam("max_age", "0"), oauth2.SetAuthURLParam("prompt", "login"))
		}
		if value, err = json.Marshal(kept); err != nil {
			return "", "", err
		}
	}
	if err := p.states.Put(ctx, p.stateKey(secret), value, now, now.Add(ceremony)); err != nil {
		return "", "", err
	}
	return p.oauth.AuthCodeURL(derive(secret, "state"), params...), secret, nil
}

// Identity is who has signed in.
type Identity struct {
	Issuer, Subject string // together they name the person
	Session         string // claim sid; "" when the provider names none
	Groups          []string
	Roles           []string       // that the groups give, sorted
	Methods         []authn.Method // authn.OIDC, and what Options.Methods makes of amr and Options.Contexts of acr
	AuthTime        time.Time      // when the person signed in there; zero when it is not said
	Email           string         // that the provider has verified; "" for none. It is given to somebody else one day: it names nobody for good
	Kept            string         // Ask.Keep
}

// one returns the only value of a parameter.
func one(query url.Values, name string) (string, bool) {
	all := query[name]
	if len(all) != 1 {
		return "", len(all) == 0
	}
	return all[0], true
}

// Finish takes the provider's answer: the parameters of the redirect URL, and the secret of the browser's cookie.
func (p *Provider) Finish(ctx context.Context, secret string, query url.Values) (*Identity, error) {
	who, err := p.finish(ctx, secret, query)
	if err != nil {
		return nil, authn.Refuse(err)
	}
	return who, nil
}

func (p *Provider) finish(ctx context.Context, secret string, query url.Values) (*Identity, error) {
	values := map[string]string{}
	for _, name := range []string{"state", "iss", "error", "code"} {
		v, ok := one(query, name)
		if !ok || len(v) > 4096 {
			return nil, ErrState // a parameter twice: somebody has added one
		}
		values[name] = v
	}
	if secret == "" || subtle.ConstantTimeCompare([]byte(values["state"]), []byte(derive(secret, "state"))) != 1 {
		return nil, ErrState
	}
	if iss := values["iss"]; iss != p.client.Issuer && (iss != "" || p.sendsIss) {
		return nil, ErrIssuer
	}
	now := p.opts.Now()
	value, err := p.states.Take(ctx, p.stateKey(secret), now)
	if errors.Is(err, once.ErrNone) {
		return nil, ErrState
	}
	if err != nil {
		return nil, err
	}
	var ask asked
	if len(value) > 0 && json.Unmarshal(value, &ask) != nil {
		return nil, ErrState
	}
	if values["error"] != "" || values["code"] == "" {
		return nil, ErrDenied
	}
	ctx = oidc.ClientContext(ctx, p.http)
	tokens, err := p.oauth.Exchange(ctx, values["code"], oauth2.VerifierOption(derive(secret, "verifier")))
	if err != nil {
		return nil, ErrExchange // its words are the provider's
	}
	raw, _ := tokens.Extra("id_token").(string)
	who, err := p.verify(ctx, raw, tokens.AccessToken, derive(secret, "nonce"))
	if err != nil {
		return nil, err
	}
	if ask.Login != 0 && who.AuthTime.Before(time.UnixMilli(ask.Login).Add(-p.opts.Skew)) { // of a time that is not said too
		return nil, fmt.Errorf("%w: not signed in anew", ErrToken)
	}
	who.Kept = ask.Keep
	return who, nil
}

// header returns the type that a JWT says it has, in lower case and without application/.
func header(raw string) (typ string, ok bool) {
	part, _, _ := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return "", false
	}
	var h struct {
		Typ string `json:"typ"`
	}
	if json.Unmarshal(b, &h) != nil {
		return "", false
	}
	return strings.TrimPrefix(strings.ToLower(h.Typ), "application/"), true
}

// seconds is a NumericDate of RFC 7519.
type seconds float64

func (s seconds) time() time.Time { return time.UnixMilli(int64(s * 1000)) }

func (p *Provider) verify(ctx context.Context, raw, access, nonce string) (*Identity, error) {
	if raw == "" || len(raw) > maxToken {
		return nil, fmt.Errorf("%w: missing or too long", ErrToken)
	}
	if typ, ok := header(raw); !ok || typ != "" && typ != "jwt" {
		return nil, fmt.Errorf("%w: of another type", ErrToken)
	}
	token, err := p.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: signature, issuer or audience", ErrToken)
	}
	var claims struct {
		Azp      string          `json:"azp"`
		Exp      *seconds        `json:"exp"`
		Iat      *seconds        `json:"iat"`
		Nbf      *seconds        `json:"nbf"`
		AuthTime *seconds        `json:"auth_time"`
		Sid      string          `json:"sid"`
		Events   json.RawMessage `json:"events"`
		AMR      []string        `json:"amr"`
		ACR      string          `json:"acr"`
	}
	if err := token.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: claims of another kind", ErrToken)
	}
	now, skew := p.opts.Now(), p.opts.Skew
	switch {
	case token.Subject == "" || len(token.Subject) > 255 || len(claims.Sid) > 255:
		return nil, fmt.Errorf("%w: no subject", ErrToken)
	case len(token.Audience) != 1 || claims.Azp != "" && claims.Azp != p.client.ID:
		return nil, fmt.Errorf("%w: for others too", ErrToken)
	case claims.Events != nil:
		return nil, fmt.Errorf("%w: an event", ErrToken)
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1:
		return nil, fmt.Errorf("%w: nonce", ErrToken)
	case claims.Exp == nil || !now.Before(claims.Exp.time().Add(skew)):
		return nil, fmt.Errorf("%w: expired", ErrToken)
	case claims.Iat == nil || claims.Iat.time().After(now.Add(skew)) || claims.Iat.time().Before(now.Add(-skew-freshness)):
		return nil, fmt.Errorf("%w: not issued just now", ErrToken)
	case claims.Nbf != nil && claims.Nbf.time().After(now.Add(skew)):
		return nil, fmt.Errorf("%w: not valid yet", ErrToken)
	case p.opts.MaxAge > 0 && (claims.AuthTime == nil || claims.AuthTime.time().Before(now.Add(-skew-p.opts.MaxAge))):
		return nil, fmt.Errorf("%w: signed in too long ago", ErrToken)
	case token.AccessTokenHash != "" && token.VerifyAccessToken(access) != nil:
		return nil, fmt.Errorf("%w: of another access token", ErrToken)
	}
	who := &Identity{Issuer: token.Issuer, Subject: token.Subject, Session: claims.Sid, Methods: []authn.Method{authn.OIDC}}
	if claims.AuthTime != nil {
		who.AuthTime = claims.AuthTime.time().UTC()
	}
	vouched := slices.Clone(p.opts.Contexts[claims.ACR])
	for _, a := range claims.AMR {
		if m, ok := p.opts.Methods[a]; ok {
			vouched = append(vouched, m)
		}
	}
	for _, m := range vouched {
		if !slices.Contains(who.Methods, m) {
			who.Methods = append(who.Methods, m)
		}
	}
	var all map[string]json.RawMessage
	if token.Claims(&all) == nil {
		who.Groups = groups(all[p.opts.Groups])
		who.Email = verified(all)
	}
	if p.opts.Roles == nil {
		return who, nil
	}
	for _, g := range who.Groups {
		who.Roles = append(who.Roles, p.opts.Roles[g]...)
	}
	slices.Sort(who.Roles)
	if who.Roles = slices.Compact(who.Roles); len(who.Roles) == 0 {
		return nil, ErrNoRole
	}
	return who, nil
}

// verified reads an address that the provider says it has verified: by the word true and nothing that is like it.
func verified(all map[string]json.RawMessage) string {
	var is bool
	var email string
	if json.Unmarshal(all["email_verified"], &is) != nil || !is || json.Unmarshal(all["email"], &email) != nil || len(email) > 254 {
		return ""
	}
	return email
}

// groups reads a list of strings; anything else is none.
func groups(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) != nil || len(list) > maxClaims {
		return nil
	}
	return list
}

// Ender ends the sessions that began at a provider: those of a session there, or all of a subject when session is "".
// subject may be "" when session is not.
type Ender interface {
	EndExternal(ctx context.Context, issuer, subject, session string) error
}

// Logout takes a logout token and ends what it names. The same token is taken once; when ending fails, it may come
// again.
func (p *Provider) Logout(ctx context.Context, raw string, e Ender) error {
	if err := p.logout(ctx, raw, e); err != nil {
		return authn.Refuse(err)
	}
	return nil
}

func (p *Provider) logout(ctx context.Context, raw string, e Ender) error {
	if raw == "" || len(raw) > maxToken {
		return fmt.Errorf("%w: missing or too long", ErrToken)
	}
	if typ, ok := header(raw); !ok || typ != "" && typ != "jwt" && typ != "logout+jwt" {
		return fmt.Errorf("%w: of another type", ErrToken)
	}
	ctx = oidc.ClientContext(ctx, p.http)
	token, err := p.verifier.VerifyLogout(ctx, raw)
	if err != nil {
		return fmt.Errorf("%w: not a logout token of this issuer for this client", ErrToken)
	}
	var claims struct {
		Iat    *seconds                   `json:"iat"`
		Events map[string]json.RawMessage `json:"events"`
	}
	if err := token.Claims(&claims); err != nil {
		return fmt.Errorf("%w: claims of another kind", ErrToken)
	}
	event := map[string]any{}
	now, skew := p.opts.Now(), p.opts.Skew
	switch {
	case json.Unmarshal(claims.Events["http://schemas.openid.net/event/backchannel-logout"], &event) != nil || event == nil:
		return fmt.Errorf("%w: no such event", ErrToken)
	case len(token.Audience) != 1 || len(token.TokenID) > 255 || len(token.Subject) > 255 || len(token.SessionID) > 255:
		return fmt.Errorf("%w: for others too, or too long", ErrToken)
	case !now.Before(token.Expiry.Add(skew)) || token.Expiry.After(now.Add(time.Hour+skew)):
		return fmt.Errorf("%w: expired, or valid for too long", ErrToken)
	case claims.Iat == nil || claims.Iat.time().After(now.Add(skew)):
		return fmt.Errorf("%w: not issued yet", ErrToken)
	}
	jti := once.Key("oidc jti", p.client.Issuer, token.TokenID)
	if err := p.states.Put(ctx, jti, nil, now, token.Expiry.Add(skew)); errors.Is(err, once.ErrTaken) {
		return ErrReplay
	} else if err != nil {
		return err
	}
	if err := e.EndExternal(ctx, token.Issuer, token.Subject, token.SessionID); err != nil {
		_, back := p.states.Take(context.WithoutCancel(ctx), jti, now)
		return errors.Join(err, back)
	}
	return nil
}

// LogoutHandler serves the back-channel logout URI: POST with the form field logout_token. It answers 200, or 400
// without a reason, which refused is given (nil = nobody) for the log. The URI needs no session and must be exempt
// from checks of cross-site requests.
func (p *Provider) LogoutHandler(e Ender, refused func(ctx context.Context, reason error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxToken+1024)
		var raw string
		if body, err := io.ReadAll(r.Body); err == nil {
			if form, err := url.ParseQuery(string(body)); err == nil { // never the URL's own parameters
				raw, _ = one(form, "logout_token")
			}
		}
		if err := p.Logout(r.Context(), raw, e); err != nil {
			if refused != nil {
				refused(r.Context(), authn.Reason(err))
			}
			http.Error(w, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		}
	})
}

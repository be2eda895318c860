package oidc_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/oidc"
	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/internal/realtest"
)

const (
	clientID = "crm"
	secret   = "a client's secret"
	redirect = "http://127.0.0.1:9/callback" // nobody listens there: tests take the answer themselves
)

// wire is the way to the provider, with an attacker on it when swap is set: ID tokens are exchanged for what swap
// makes of their claims.
type wire struct {
	swap   func(raw string, claims map[string]any) string
	tokens int // calls of the token endpoint
	form   url.Values
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/token") {
		return http.DefaultTransport.RoundTrip(r)
	}
	w.tokens++
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.form, _ = url.ParseQuery(string(body))
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || w.swap == nil {
		return resp, err
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	raw, _ := answer["id_token"].(string)
	answer["id_token"] = w.swap(raw, claimsOf(raw))
	out, _ := json.Marshal(answer)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(out)), int64(len(out))
	resp.Header.Set("Content-Length", strconv.Itoa(len(out)))
	return resp, nil
}

func claimsOf(raw string) map[string]any {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil
	}
	b, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	_ = json.Unmarshal(b, &claims)
	return claims
}

type world struct {
	*oidc.Provider
	t      *testing.T
	server *realtest.OIDCServer
	wire   *wire
	states *once.Memory
	now    func() time.Time
}

func newWorld(t *testing.T, opts oidc.Options) *world {
	t.Helper()
	return worldOn(t, realtest.OIDC(t, clientID, secret, redirect, "crm-sales", "everybody"), opts)
}

func worldOn(t *testing.T, server *realtest.OIDCServer, opts oidc.Options) *world {
	t.Helper()
	w := &world{t: t, server: server, wire: &wire{}, states: &once.Memory{}, now: time.Now}
	opts.HTTP = &http.Client{Transport: w.wire, Timeout: 10 * time.Second}
	opts.Now = func() time.Time { return w.now() }
	var err error
	if w.Provider, err = oidc.New(t.Context(), oidc.Client{Issuer: server.Issuer, ID: clientID, Secret: secret, RedirectURL: redirect}, w.states, &opts); err != nil {
		t.Fatal(err)
	}
	return w
}

// answer begins a sign-in and goes through it at the provider.
func (w *world) answer() (cookie string, query url.Values) {
	w.t.Helper()
	to, cookie, err := w.Begin(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return cookie, w.server.SignIn(to, redirect)
}

func (w *world) refused(what string, who *oidc.Identity, err, reason error) {
	w.t.Helper()
	if who != nil || !errors.Is(err, authn.ErrRefused) || err.Error() != authn.ErrRefused.Error() || !errors.Is(authn.Reason(err), reason) {
		w.t.Errorf("%s: %+v, %v (%v), want %v inside", what, who, err, authn.Reason(err), reason)
	}
}

func TestSignIn(t *testing.T) {
	w := newWorld(t, oidc.Options{
		Roles: map[string][]string{"crm-sales": {"sales", "reader"}, "crm-admin": {"admin"}, "all": {"sales"}}, Methods: map[string]authn.Method{"pwd": authn.Password}, MaxAge: time.Hour,
	})
	to, cookie, err := w.Begin(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) != 43 || len(q.Get("nonce")) != 43 || q.Get("response_type") != "code" ||
		q.Get("scope") != "openid" || q.Get("max_age") != "3600" || strings.Contains(to, cookie) {
		t.Errorf("%s", to)
	}
	if seen := map[string]bool{q.Get("state"): true, q.Get("nonce"): true, q.Get("code_challenge"): true, cookie: true}; len(seen) != 4 {
		t.Error("one value serves twice")
	}
	query := w.server.SignIn(to, redirect)
	who, err := w.Finish(t.Context(), cookie, query)
	if err != nil {
		t.Fatal(authn.Reason(err))
	}
	if who.Issuer != w.server.Issuer || who.Subject != "id2" || who.Session != "session-of-id2" || !slices.Equal(who.Groups, []string{"crm-sales", "everybody"}) ||
		!slices.Equal(who.Roles, []string{"reader", "sales"}) || !slices.Equal(who.Methods, []authn.Method{authn.OIDC, authn.Password}) || time.Since(who.AuthTime) > time.Minute {
		t.Errorf("%+v", who)
	}
	if v := w.wire.form.Get("code_verifier"); len(v) != 43 || strings.Contains(to, v) {
		t.Error("no code verifier, or it is in the URL")
	}
}

// TestAnswers: what an attacker does to the answer of the provider.
func TestAnswers(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, oidc.Options{})
	for what, c := range map[string]struct {
		change func(q url.Values)
		want   error
	}{
		"no state":               {func(q url.Values) { q.Del("state") }, oidc.ErrState},
		"another state":          {func(q url.Values) { q.Set("state", strings.Repeat("A", 43)) }, oidc.ErrState},
		"two states":             {func(q url.Values) { q.Add("state", q.Get("state")) }, oidc.ErrState},
		"two codes":              {func(q url.Values) { q.Add("code", "x") }, oidc.ErrState},
		"a long code":            {func(q url.Values) { q.Set("code", strings.Repeat("x", 5000)) }, oidc.ErrState},
		"no issuer":              {func(q url.Values) { q.Del("iss") }, oidc.ErrIssuer},
		"another issuer (mixed)": {func(q url.Values) { q.Set("iss", "https://evil.test") }, oidc.ErrIssuer},
		"the issuer with a path": {func(q url.Values) { q.Set("iss", q.Get("iss")+"/") }, oidc.ErrIssuer},
		"no code":                {func(q url.Values) { q.Del("code") }, oidc.ErrDenied},
		"an error":               {func(q url.Values) { q.Set("error", "access_denied") }, oidc.ErrDenied},
		"another code":           {func(q url.Values) { q.Set("code", "AAAA") }, oidc.ErrExchange},
	} {
		cookie, query := w.answer()
		before := w.wire.tokens
		c.change(query)
		who, err := w.Finish(ctx, cookie, query)
		w.refused(what, who, err, c.want)
		if sent := w.wire.tokens > before; sent != errors.Is(c.want, oidc.ErrExchange) {
			t.Errorf("%s: the code was sent: %v", what, sent)
		}
	}
	cookie, query := w.answer()
	for what, other := range map[string]string{"no cookie": "", "another browser's cookie": func() string { _, c, _ := w.Begin(ctx, nil); return c }(), "a made up cookie": "x"} {
		who, err := w.Finish(ctx, other, query)
		w.refused(what, who, err, oidc.ErrState)
	}
	if _, err := w.Finish(ctx, cookie, query); err != nil { // none of that has used it up
		t.Fatal(authn.Reason(err))
	}
	who, err := w.Finish(ctx, cookie, query)
	w.refused("the same answer again", who, err, oidc.ErrState)
	// The code again, in a sign-in of its own: the attacker has the victim's code and puts it into an answer for
	// themselves.
	cookie, fresh := w.answer()
	fresh.Set("code", query.Get("code"))
	who, err = w.Finish(ctx, cookie, fresh)
	w.refused("a code that was used", who, err, oidc.ErrExchange)
	_, stolen := w.answer() // a code that was not used, of another sign-in: PKCE
	cookie, fresh = w.answer()
	fresh.Set("code", stolen.Get("code"))
	who, err = w.Finish(ctx, cookie, fresh)
	w.refused("a code of another sign-in", who, err, oidc.ErrExchange)
	cookie, query = w.answer()
	w.now = func() time.Time { return time.Now().Add(11 * time.Minute) }
	who, err = w.Finish(ctx, cookie, query)
	w.refused("too late", who, err, oidc.ErrState)
}

// TestMixUp: an answer of one provider is not taken by the client of another.
func TestMixUp(t *testing.T) {
	honest := newWorld(t, oidc.Options{})
	evil := newWorld(t, oidc.Options{})
	shared, err := oidc.New(t.Context(), oidc.Client{Issuer: evil.server.Issuer, ID: clientID, Secret: secret, RedirectURL: redirect}, honest.states, &oidc.Options{HTTP: &http.Client{Transport: evil.wire}})
	if err != nil {
		t.Fatal(err)
	}
	evil.Provider = shared // the store of both is one
	cookie, query := honest.answer()
	who, err := evil.Finish(t.Context(), cookie, query)
	evil.refused("the honest one's answer", who, err, oidc.ErrIssuer)
	query.Set("iss", evil.server.Issuer)
	who, err = evil.Finish(t.Context(), cookie, query)
	evil.refused("under the other's name", who, err, oidc.ErrState)
	if evil.wire.tokens != 0 {
		t.Error("the code was sent to the other provider")
	}
}

func TestTokens(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, oidc.Options{MaxAge: time.Hour})
	other := realtest.OIDC(t, clientID, secret, redirect)
	now := time.Now().Unix()
	signed := func(change func(map[string]any)) func(string, map[string]any) string {
		return func(_ string, claims map[string]any) string {
			change(claims)
			return w.server.Sign("JWT", claims)
		}
	}
	set := func(name string, value any) func(string, map[string]any) string {
		return signed(func(c map[string]any) { c[name] = value })
	}
	unset := func(name string) func(string, map[string]any) string {
		return signed(func(c map[string]any) { delete(c, name) })
	}
	encode := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for what, swap := range map[string]func(string, map[string]any) string{
		"none at all":        func(string, map[string]any) string { return "" },
		"not a token":        func(string, map[string]any) string { return "x.y.z" },
		"too long":           func(raw string, _ map[string]any) string { return raw + strings.Repeat("A", 1<<17) },
		"another nonce":      set("nonce", strings.Repeat("A", 43)),
		"no nonce":           unset("nonce"),
		"another issuer":     set("iss", "https://evil.test"),
		"another audience":   set("aud", "another"),
		"a further audience": set("aud", []string{clientID, "another"}),
		"no audience":        unset("aud"),
		"another party":      set("azp", "another"),
		"expired":            set("exp", now-61),
		"no expiry":          unset("exp"),
		"expiry of a word":   set("exp", "tomorrow"),
		"issued to come":     set("iat", now+70),
		"issued long ago":    set("iat", now-700),
		"not issued":         unset("iat"),
		"not valid yet":      set("nbf", now+70),
		"no subject":         unset("sub"),
		"a long subject":     set("sub", strings.Repeat("x", 300)),
		"signed in long ago": set("auth_time", now-3700),
		"never signed in":    unset("auth_time"),
		"of another access":  set("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
		"an event":           set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}),
		"a logout token": func(_ string, c map[string]any) string {
			return w.server.Sign("logout+jwt", map[string]any{"iss": c["iss"], "sub": c["sub"], "aud": clientID, "iat": now, "exp": now + 60, "jti": "j1", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}})
		},
		"typed as a logout token": func(_ string, c map[string]any) string { return w.server.Sign("logout+jwt", c) },
		"signed by another":       func(_ string, c map[string]any) string { return other.Sign("JWT", c) },
		"alg none": func(_ string, c map[string]any) string {
			return encode(map[string]any{"alg": "none"}) + "." + encode(c) + "."
		},
		"alg none, signature kept": func(raw string, c map[string]any) string {
			return encode(map[string]any{"alg": "none"}) + "." + encode(c) + "." + strings.Split(raw, ".")[2]
		},
		"alg HS256": func(raw string, c map[string]any) string {
			return encode(map[string]any{"alg": "HS256"}) + "." + encode(c) + "." + strings.Split(raw, ".")[2]
		},
		"claims changed": func(raw string, c map[string]any) string {
			parts := strings.Split(raw, ".")
			c["sub"] = "id1"
			return parts[0] + "." + encode(c) + "." + parts[2]
		},
	} {
		w.wire.swap = swap
		cookie, query := w.answer()
		who, err := w.Finish(ctx, cookie, query)
		w.refused(what, who, err, oidc.ErrToken)
	}
	for what, swap := range map[string]func(string, map[string]any) string{
		"as it is":                func(raw string, _ map[string]any) string { return raw },
		"signed anew":             signed(func(map[string]any) {}),
		"expired within the skew": set("exp", now-5),
		"ahead within the skew":   set("iat", now+30),
		"without a party":         unset("azp"),
	} {
		w.wire.swap = swap
		cookie, query := w.answer()
		if who, err := w.Finish(ctx, cookie, query); err != nil || who.Subject != "id2" {
			t.Errorf("%s: %+v, %v", what, who, authn.Reason(err))
		}
	}
}

func TestRoles(t *testing.T) {
	server := realtest.OIDC(t, clientID, secret, redirect, "crm-sales", "everybody")
	for what, c := range map[string]struct {
		roles map[string][]string
		swap  any // of the claim groups; nil = as it is
		want  []string
		err   error
	}{
		"no mapping":         {nil, nil, nil, nil},
		"an empty mapping":   {map[string][]string{}, nil, nil, oidc.ErrNoRole},
		"other groups":       {map[string][]string{"crm-admin": {"admin"}, "CRM-SALES": {"admin"}, "": {"admin"}}, nil, nil, oidc.ErrNoRole},
		"a group of no role": {map[string][]string{"crm-sales": nil}, nil, nil, oidc.ErrNoRole},
		"two of one role":    {map[string][]string{"crm-sales": {"sales"}, "everybody": {"sales", "reader"}}, nil, []string{"reader", "sales"}, nil},
		"groups as text":     {map[string][]string{"crm-sales": {"sales"}}, "crm-sales", nil, oidc.ErrNoRole},
		"groups of numbers":  {map[string][]string{"1": {"sales"}}, []any{1, "crm-sales"}, nil, oidc.ErrNoRole},
		"too many groups":    {map[string][]string{"crm-sales": {"sales"}}, slices.Repeat([]string{"crm-sales"}, 1001), nil, oidc.ErrNoRole},
	} {
		w := worldOn(t, server, oidc.Options{Roles: c.roles})
		if c.swap != nil {
			w.wire.swap = func(_ string, claims map[string]any) string {
				claims["groups"] = c.swap
				return server.Sign("JWT", claims)
			}
		}
		cookie, query := w.answer()
		who, err := w.Finish(t.Context(), cookie, query)
		if c.err != nil {
			w.refused(what, who, err, c.err)
		} else if err != nil || !slices.Equal(who.Roles, c.want) || !slices.Equal(who.Methods, []authn.Method{authn.OIDC}) {
			t.Errorf("%s: %+v, %v", what, who, authn.Reason(err))
		}
	}
}

// TestFewClaims: what a provider need not say is empty, and groups are read from the claim that is named.
func TestFewClaims(t *testing.T) {
	w := newWorld(t, oidc.Options{Groups: "teams", Roles: map[string][]string{"crm": {"sales"}, "crm-sales": {"admin"}}})
	to, _, err := w.Begin(t.Context(), nil)
	if err != nil || strings.Contains(to, "max_age") {
		t.Errorf("%s, %v", to, err)
	}
	w.wire.swap = func(_ string, claims map[string]any) string {
		for _, name := range []string{"auth_time", "sid", "amr", "azp", "at_hash"} {
			delete(claims, name)
		}
		claims["teams"] = []string{"crm"}
		return w.server.Sign("JWT", claims)
	}
	cookie, query := w.answer()
	who, err := w.Finish(t.Context(), cookie, query)
	if err != nil || who.Session != "" || !who.AuthTime.IsZero() || !slices.Equal(who.Roles, []string{"sales"}) || len(who.Methods) != 1 {
		t.Errorf("%+v, %v", who, authn.Reason(err))
	}
}

// enders notes what was ended.
type enders struct {
	ended []string
	err   error
}

func (e *enders) EndExternal(_ context.Context, issuer, subject, session string) error {
	if e.err == nil {
		e.ended = append(e.ended, issuer+" "+subject+" "+session)
	}
	return e.err
}

func TestLogout(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, oidc.Options{})
	other := realtest.OIDC(t, clientID, secret, redirect)
	now := time.Now().Unix()
	n := 0
	claims := func(change func(map[string]any)) map[string]any {
		n++
		c := map[string]any{
			"iss": w.server.Issuer, "sub": "id2", "sid": "s1", "aud": clientID, "iat": now, "exp": now + 120, "jti": "jti" + strconv.Itoa(n),
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		if change != nil {
			change(c)
		}
		return c
	}
	e := &enders{}
	for what, c := range map[string]struct {
		typ    string
		change func(map[string]any)
		want   string
	}{
		"a session of a subject": {"logout+jwt", nil, " id2 s1"},
		"a session":              {"logout+jwt", func(c map[string]any) { delete(c, "sub") }, "  s1"},
		"all of a subject":       {"JWT", func(c map[string]any) { delete(c, "sid") }, " id2 "},
		"within the skew":        {"application/logout+jwt", func(c map[string]any) { c["exp"] = now - 5 }, " id2 s1"},
	} {
		e.ended = nil
		if err := w.Logout(ctx, w.server.Sign(c.typ, claims(c.change)), e); err != nil || !slices.Equal(e.ended, []string{w.server.Issuer + c.want}) {
			t.Errorf("%s: %q, %v", what, e.ended, authn.Reason(err))
		}
	}
	e.ended = nil
	bad := map[string]string{"nothing": "", "no token": "x", "too long": strings.Repeat("x", 1<<17), "signed by another": other.Sign("logout+jwt", claims(nil))}
	for what, change := range map[string]func(map[string]any){
		"another issuer":     func(c map[string]any) { c["iss"] = "https://evil.test" },
		"another audience":   func(c map[string]any) { c["aud"] = "another" },
		"a further audience": func(c map[string]any) { c["aud"] = []string{clientID, "another"} },
		"no jti":             func(c map[string]any) { delete(c, "jti") },
		"no expiry":          func(c map[string]any) { delete(c, "exp") },
		"expired":            func(c map[string]any) { c["exp"] = now - 61 },
		"valid for a day":    func(c map[string]any) { c["exp"] = now + 86400 },
		"issued to come":     func(c map[string]any) { c["iat"] = now + 70 },
		"not issued":         func(c map[string]any) { delete(c, "iat") },
		"nobody":             func(c map[string]any) { delete(c, "sub"); delete(c, "sid") },
		"no events":          func(c map[string]any) { delete(c, "events") },
		"another event": func(c map[string]any) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}
		},
		"an event of a word": func(c map[string]any) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/backchannel-logout": "x"}
		},
		"an event of nothing": func(c map[string]any) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/backchannel-logout": nil}
		},
		"a nonce":       func(c map[string]any) { c["nonce"] = "n" },
		"an empty one":  func(c map[string]any) { c["nonce"] = nil },
		"an ID token":   func(c map[string]any) { delete(c, "events"); c["nonce"] = "n" },
		"a long jti":    func(c map[string]any) { c["jti"] = strings.Repeat("x", 300) },
		"a long sid":    func(c map[string]any) { c["sid"] = strings.Repeat("x", 300) },
		"sid of a kind": func(c map[string]any) { c["sid"] = 7 },
	} {
		bad[what] = w.server.Sign("logout+jwt", claims(change))
	}
	bad["of another type"] = w.server.Sign("at+jwt", claims(nil))
	for what, raw := range bad {
		err := w.Logout(ctx, raw, e)
		w.refused(what, nil, err, oidc.ErrToken)
	}
	if len(e.ended) > 0 {
		t.Errorf("ended %q", e.ended)
	}

	// Once; but again when ending has failed.
	raw := w.server.Sign("logout+jwt", claims(nil))
	e.err = errors.New("the database has stopped")
	w.refused("ending fails", nil, w.Logout(ctx, raw, e), e.err)
	e.err = nil
	if err := w.Logout(ctx, raw, e); err != nil || len(e.ended) != 1 {
		t.Errorf("%q, %v", e.ended, authn.Reason(err))
	}
	w.refused("replayed", nil, w.Logout(ctx, raw, e), oidc.ErrReplay)
	if len(e.ended) != 1 {
		t.Errorf("%q", e.ended)
	}
}

func TestLogoutHandler(t *testing.T) {
	w := newWorld(t, oidc.Options{})
	e := &enders{}
	var reasons []error
	rec := httptest.NewRecorder()
	w.LogoutHandler(e, nil).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", nil))
	if rec.Code != http.StatusBadRequest {
		t.Errorf("with nobody to tell: %d", rec.Code)
	}
	h := w.LogoutHandler(e, func(_ context.Context, reason error) { reasons = append(reasons, reason) })
	now := time.Now().Unix()
	raw := w.server.Sign("logout+jwt", map[string]any{
		"iss": w.server.Issuer, "sub": "id2", "aud": clientID, "iat": now, "exp": now + 120, "jti": "j", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	ask := func(method, target, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	form := url.Values{"logout_token": {raw}}.Encode()
	for what, c := range map[string]struct {
		method, target, body string
		want                 int
	}{
		"GET":            {http.MethodGet, "/?" + form, "", http.StatusMethodNotAllowed},
		"in the URL":     {http.MethodPost, "/?" + form, "", http.StatusBadRequest},
		"twice":          {http.MethodPost, "/", form + "&" + form, http.StatusBadRequest},
		"not a form":     {http.MethodPost, "/", "%zz", http.StatusBadRequest},
		"a long body":    {http.MethodPost, "/", "logout_token=" + strings.Repeat("x", 1<<20), http.StatusBadRequest},
		"no such token":  {http.MethodPost, "/", "logout_token=x", http.StatusBadRequest},
		"nothing at all": {http.MethodPost, "/", "", http.StatusBadRequest},
	} {
		if rec := ask(c.method, c.target, c.body); rec.Code != c.want || strings.Contains(rec.Body.String(), "oidc") {
			t.Errorf("%s: %d %s", what, rec.Code, rec.Body)
		}
	}
	if len(e.ended) > 0 || len(reasons) != 6 {
		t.Errorf("%q, %v", e.ended, reasons)
	}
	if rec := ask(http.MethodPost, "/", form); rec.Code != http.StatusOK || rec.Header().Get("Cache-Control") != "no-store" || len(e.ended) != 1 {
		t.Errorf("%d %s, %q", rec.Code, rec.Body, e.ended)
	}
	if rec := ask(http.MethodPost, "/", form); rec.Code != http.StatusBadRequest || !errors.Is(reasons[len(reasons)-1], oidc.ErrReplay) {
		t.Errorf("replayed: %d, %v", rec.Code, reasons[len(reasons)-1])
	}
}

// TestProviderStops: an answer that is refused, and a reason without the provider's words.
func TestProviderStops(t *testing.T) {
	w := newWorld(t, oidc.Options{})
	cookie, query := w.answer()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	who, err := w.Finish(ctx, cookie, query)
	w.refused("given up", who, err, context.Canceled)
	w.wire.swap = func(string, map[string]any) string { return "" }
	cookie, query = w.answer()
	code := query.Get("code")
	query.Set("code", code+"x")
	who, err = w.Finish(t.Context(), cookie, query)
	w.refused("a wrong code", who, err, oidc.ErrExchange)
	if strings.Contains(authn.Reason(err).Error(), code) {
		t.Errorf("%v", authn.Reason(err))
	}
}

// TestNewRefuses: discovery documents and options that New refuses.
func TestNewRefuses(t *testing.T) {
	var doc map[string]any
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(doc) }))
	defer s.Close()
	good := map[string]any{
		"issuer": s.URL, "authorization_endpoint": s.URL + "/a", "token_endpoint": s.URL + "/t", "jwks_uri": s.URL + "/k",
		"code_challenge_methods_supported": []string{"plain", "S256"}, "id_token_signing_alg_values_supported": []string{"HS256", "RS256"},
	}
	client := oidc.Client{Issuer: s.URL, ID: clientID, RedirectURL: "https://crm.example.com/callback"}
	doc = good
	if _, err := oidc.New(t.Context(), client, &once.Memory{}, nil); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(map[string]any){
		"another issuer":     func(d map[string]any) { d["issuer"] = "https://evil.test" },
		"no PKCE":            func(d map[string]any) { d["code_challenge_methods_supported"] = []string{"plain"} },
		"only secrets":       func(d map[string]any) { d["id_token_signing_alg_values_supported"] = []string{"HS256", "none"} },
		"tokens without TLS": func(d map[string]any) { d["token_endpoint"] = "http://id.example.com/t" },
		"keys without TLS":   func(d map[string]any) { d["jwks_uri"] = "http://id.example.com/k" },
		"a scripted page":    func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" },
		"nothing":            func(d map[string]any) { clear(d) },
	} {
		doc = maps.Clone(good)
		change(doc)
		if _, err := oidc.New(t.Context(), client, &once.Memory{}, nil); err == nil {
			t.Errorf("%s", what)
		}
	}
	doc = good
	for what, change := range map[string]func(*oidc.Client, *oidc.Options){
		"an issuer with a name": func(c *oidc.Client, _ *oidc.Options) { c.Issuer = strings.Replace(s.URL, "//", "//ann@", 1) },
		"a redirect to a part":  func(c *oidc.Client, _ *oidc.Options) { c.RedirectURL += "#x" },
		"an issuer without TLS": func(c *oidc.Client, _ *oidc.Options) { c.Issuer = "http://id.example.com" },
		"a redirect without":    func(c *oidc.Client, _ *oidc.Options) { c.RedirectURL = "http://crm.example.com/callback" },
		"no client":             func(c *oidc.Client, _ *oidc.Options) { c.ID = "" },
		"a skew of an hour":     func(_ *oidc.Client, o *oidc.Options) { o.Skew = time.Hour },
		"a negative age":        func(_ *oidc.Client, o *oidc.Options) { o.MaxAge = -1 },
		"an unknown method":     func(_ *oidc.Client, o *oidc.Options) { o.Methods = map[string]authn.Method{"pwd": "x"} },
	} {
		c, o := client, oidc.Options{}
		change(&c, &o)
		if _, err := oidc.New(t.Context(), c, &once.Memory{}, &o); err == nil {
			t.Errorf("%s", what)
		}
	}
	if _, err := oidc.New(t.Context(), client, nil, nil); err == nil {
		t.Error("no store")
	}
	away := httptest.NewServer(http.RedirectHandler(s.URL+"/.well-known/openid-configuration", http.StatusFound))
	defer away.Close()
	client.Issuer = away.URL
	doc = maps.Clone(good)
	doc["issuer"] = away.URL
	if _, err := oidc.New(t.Context(), client, &once.Memory{}, nil); err == nil {
		t.Error("a redirect is followed")
	}
	s.Close()
	client.Issuer = s.URL
	if _, err := oidc.New(t.Context(), client, &once.Memory{}, nil); err == nil {
		t.Error("nobody answers")
	}
}

// TestAsk: a fresh proof is one of which the provider says that it is fresh, and what the caller keeps never leaves the store.
func TestAsk(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, oidc.Options{MaxAge: time.Hour})
	begin := func() (cookie string, query url.Values) {
		t.Helper()
		to, cookie, err := w.Begin(ctx, &oidc.Ask{Login: true, Keep: "of the caller"})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(to)
		if q := u.Query(); len(q["max_age"]) != 1 || q.Get("max_age") != "0" || q.Get("prompt") != "login" || strings.Contains(to, "caller") {
			t.Fatalf("%s", to)
		}
		return cookie, w.server.SignIn(to, redirect)
	}
	cookie, query := begin()
	who, err := w.Finish(ctx, cookie, query)
	if err != nil || who.Kept != "of the caller" {
		t.Fatalf("%+v, %v", who, authn.Reason(err))
	}
	for what, change := range map[string]func(map[string]any){
		"a proof of an hour ago":  func(c map[string]any) { c["auth_time"] = time.Now().Add(-50 * time.Minute).Unix() },
		"two minutes before":      func(c map[string]any) { c["auth_time"] = time.Now().Add(-2 * time.Minute).Unix() },
		"a proof of no time":      func(c map[string]any) { delete(c, "auth_time") },
		"a proof of another kind": func(c map[string]any) { c["auth_time"] = "now" },
	} {
		w.wire.swap = func(_ string, claims map[string]any) string {
			change(claims)
			return w.server.Sign("JWT", claims)
		}
		cookie, query := begin()
		who, err := w.Finish(ctx, cookie, query)
		w.refused(what, who, err, oidc.ErrToken)
	}
	// Who only signs in may have done so at the provider before.
	w.wire.swap = func(_ string, claims map[string]any) string {
		claims["auth_time"] = time.Now().Add(-50 * time.Minute).Unix()
		return w.server.Sign("JWT", claims)
	}
	cookie, query = w.answer()
	if who, err := w.Finish(ctx, cookie, query); err != nil || who.Kept != "" || time.Since(who.AuthTime) < 49*time.Minute {
		t.Errorf("%+v, %v", who, authn.Reason(err))
	}
}

// TestVouched: a provider vouches for what it was trusted with, by amr or acr, and an address counts when it says that it has verified it.
func TestVouched(t *testing.T) {
	w := newWorld(t, oidc.Options{
		Methods: map[string]authn.Method{"otp": authn.TOTP}, Contexts: map[string][]authn.Method{"https://id.test/mfa": {authn.Password, authn.TOTP}},
	})
	for what, c := range map[string]struct {
		claims map[string]any
		level  authn.Level
		email  string
	}{
		"nothing":                     {map[string]any{"amr": []string{}}, authn.AAL1, ""},
		"what nobody trusts it with":  {map[string]any{"amr": []string{"pwd", "hwk", "mfa"}, "acr": "https://id.test/other"}, authn.AAL1, ""},
		"something held alone":        {map[string]any{"amr": []string{"otp"}}, authn.AAL1, ""},
		"two factors, by its context": {map[string]any{"amr": []string{"otp"}, "acr": "https://id.test/mfa"}, authn.AAL2, ""},
		"an address":                  {map[string]any{"email": "ann@id.test", "email_verified": true}, authn.AAL1, "ann@id.test"},
		"an address it did not check": {map[string]any{"email": "ann@id.test", "email_verified": false}, authn.AAL1, ""},
		"an address of no word":       {map[string]any{"email": "ann@id.test"}, authn.AAL1, ""},
		"true as text":                {map[string]any{"email": "ann@id.test", "email_verified": "true"}, authn.AAL1, ""},
	} {
		w.wire.swap = func(_ string, claims map[string]any) string {
			maps.Copy(claims, c.claims)
			return w.server.Sign("JWT", claims)
		}
		cookie, query := w.answer()
		who, err := w.Finish(t.Context(), cookie, query)
		if err != nil || authn.LevelOf(who.Methods...) != c.level || who.Email != c.email {
			t.Errorf("%s: %+v, %v", what, who, authn.Reason(err))
		}
	}
	if _, err := oidc.New(t.Context(), oidc.Client{Issuer: w.server.Issuer, ID: clientID, Secret: secret, RedirectURL: redirect}, w.states,
		&oidc.Options{Contexts: map[string][]authn.Method{"x": {"magic"}}}); err == nil {
		t.Error("an unknown method of a context")
	}
}

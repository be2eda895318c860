package web

import (
	"encoding/json"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/realtest"
)

const (
	testClient = "crm"
	testSecret = "a client's secret"
	testOrigin = "http://localhost:9" // nobody listens there: the tests take the answer themselves
)

// house is an office whose people sign in at a real provider. Its users are id1 and id2.
type house struct {
	*office
	provider *realtest.OIDCServer
}

func newHouse(t *testing.T, rules map[string]any, change func(*app.Config)) *house {
	t.Helper()
	h := &house{provider: realtest.OIDC(t, testClient, testSecret, testOrigin+app.CallbackPath, "crm-sales", "everybody")}
	h.office = newOfficeWith(t, func(c *app.Config) {
		dir := t.TempDir()
		secret := filepath.Join(dir, "secret")
		require.NoError(t, os.WriteFile(secret, []byte(testSecret+"\n"), 0o600))
		c.Origin = testOrigin
		c.SignOn = app.SignOn{Issuer: h.provider.Issuer, Client: testClient, SecretFile: secret, Name: "Example ID"}
		if rules != nil {
			b, err := json.Marshal(rules)
			require.NoError(t, err)
			c.SignOn.Rules = filepath.Join(dir, "rules.json")
			require.NoError(t, os.WriteFile(c.SignOn.Rules, b, 0o600))
		}
		if change != nil {
			change(c)
		}
	})
	return h
}

func (h *house) link(name, subject string) {
	h.t.Helper()
	require.NoError(h.t, h.app.LinkAccount(h.t.Context(), h.id("admin"), h.account(name), subject))
}

// leave begins a sign-in and returns where the browser is sent.
func (v *visitor) leave(path, back string) string {
	v.t.Helper()
	w := v.post(path, "back", back)
	require.Equal(v.t, http.StatusOK, w.Code, w.Body.String())
	to, ok := strings.CutPrefix(w.Header().Get("Refresh"), "0; url=")
	require.True(v.t, ok)
	return to
}

// back brings the provider's answer, as a browser that comes from there.
func (v *visitor) back(query url.Values) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.do(http.MethodGet, app.CallbackPath+"?"+query.Encode(), nil, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
}

func (h *house) signOn(v *visitor) *httptest.ResponseRecorder {
	h.t.Helper()
	return v.back(h.provider.SignIn(v.leave("/sign-in/provider", "/customers"), testOrigin+app.CallbackPath))
}

// out wants the one public answer and this reason in the log.
func (v *visitor) refusedFor(what string, w *httptest.ResponseRecorder, why string) {
	v.t.Helper()
	assert.Equal(v.t, http.StatusUnauthorized, w.Code, what)
	assert.Contains(v.t, w.Body.String(), "E-mail and password do not match, or the account may not sign in.", what)
	assert.Contains(v.t, v.why("session.sign_in"), why, what)
	assert.Empty(v.t, v.jar["crm-session"], what)
	assert.Empty(v.t, v.jar["crm-provider"], what)
}

func (o *office) events(action string) int {
	o.t.Helper()
	found, err := o.app.Log.Query(o.t.Context(), audit.Filter{Action: action}, math.MaxUint64, 200)
	require.NoError(o.t, err)
	return len(found)
}

// TestSignOn: who is linked signs in at the provider, and whatever is wrong with the answer has one public word and its reason in the log.
func TestSignOn(t *testing.T) {
	h := newHouse(t, nil, nil)
	v := h.visitor("192.0.2.1")
	w := v.get("/sign-in")
	assert.Contains(t, w.Body.String(), "Sign in with <bdi>Example ID</bdi>")
	assert.Contains(t, v.do(http.MethodGet, "/sign-in", nil, "Accept-Language", "zh-CN").Body.String(), "通过 <bdi>Example ID</bdi> 登录")

	v.refusedFor("nobody is linked", h.signOn(v), "no account is linked")
	h.link("sales", "id1")
	v.refusedFor("somebody else's subject", h.signOn(v), "no account is linked")
	require.NoError(t, h.app.UnlinkAccount(t.Context(), h.id("admin"), h.account("sales")))
	v.refusedFor("linked no longer", h.signOn(v), "no account is linked")
	h.link("sales", "id2")
	assert.ErrorIs(t, h.app.LinkAccount(t.Context(), h.id("admin"), h.account("peer"), "id2"), app.ErrLinked)

	w = h.signOn(v)
	require.Equal(t, http.StatusSeeOther, w.Code, w.Body.String())
	assert.Equal(t, "/customers", w.Header().Get("Location"))
	require.True(t, v.in())
	assert.Equal(t, "oidc", h.why("session.sign_in"))
	assert.NotContains(t, v.jar, "crm-provider")
	v.post("/sign-out")

	answer := func(v *visitor) url.Values {
		t.Helper()
		return h.provider.SignIn(v.leave("/sign-in/provider", "/"), testOrigin+app.CallbackPath)
	}
	q := answer(v)
	other := h.visitor("192.0.2.9")
	other.leave("/sign-in/provider", "/")
	other.refusedFor("in another browser", other.back(q), "does not belong to a sign-in of this browser")
	bare := h.visitor("192.0.2.9")
	bare.refusedFor("without the cookie", bare.back(q), "does not belong to a sign-in of this browser")
	kept := v.jar["crm-provider"]
	require.Equal(t, http.StatusSeeOther, v.back(q).Code)
	v.post("/sign-out")
	v.jar["crm-provider"] = kept
	v.refusedFor("the answer again", v.back(q), "does not belong to a sign-in of this browser")
	for what, c := range map[string]struct {
		change func(url.Values)
		why    string
	}{
		"another state":  {func(q url.Values) { q.Set("state", strings.Repeat("A", 43)) }, "does not belong"},
		"two states":     {func(q url.Values) { q.Add("state", q.Get("state")) }, "does not belong"},
		"another issuer": {func(q url.Values) { q.Set("iss", "https://evil.test") }, "not from this issuer"},
		"an error":       {func(q url.Values) { q.Set("error", "access_denied") }, "answered with an error"},
		"a used code":    {func(fresh url.Values) { fresh.Set("code", q.Get("code")) }, "did not exchange"},
	} {
		q := answer(v)
		c.change(q)
		v.refusedFor(what, v.back(q), c.why)
	}
	q = answer(v)
	h.ahead.Add(int64(11 * time.Minute))
	v.refusedFor("too late", v.back(q), "is late")
	h.ahead.Store(0)

	// Posts of other sites begin nothing.
	assert.Equal(t, http.StatusForbidden, v.do(http.MethodPost, "/sign-in/provider", url.Values{}, "Sec-Fetch-Site", "cross-site").Code)
	assert.Equal(t, http.StatusNotFound, v.get("/sign-in/provider").Code)
	// No address that is given comes back elsewhere than here.
	w = v.back(h.provider.SignIn(v.leave("/sign-in/provider", "https://evil.test/x"), testOrigin+app.CallbackPath))
	assert.Equal(t, "/", w.Header().Get("Location"))
	// The secret of the client and codes stand nowhere in the log.
	found, err := h.app.Log.Query(t.Context(), audit.Filter{}, math.MaxUint64, 200)
	require.NoError(t, err)
	text, _ := json.Marshal(found)
	assert.NotContains(t, string(text), testSecret)
	assert.NotContains(t, string(text), q.Get("code"))
	assert.NotContains(t, string(text), `"id2"`)
}

// TestSignOnSuspended: the provider knows who somebody is, and this program whether they work here.
func TestSignOnSuspended(t *testing.T) {
	h := newHouse(t, nil, nil)
	ctx := t.Context()
	h.link("sales", "id2")
	v := h.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	change := func(do func(*crm.Employee)) {
		t.Helper()
		e, err := h.app.Employees.Get(ctx, app.System("test"), h.people["sales"].ID.UUID())
		require.NoError(t, err)
		do(e.Value)
		_, err = h.app.Employees.Update(ctx, app.System("test"), e.Value)
		require.NoError(t, err)
		require.NoError(t, h.app.RolesChanged(ctx, e.Value.ID.UUID(), h.id("admin")))
	}
	change(func(e *crm.Employee) { require.NoError(t, e.Move(crm.EmployeeSuspended, time.Now())) })
	assert.False(t, v.in())
	v.jar = map[string]string{}
	v.refusedFor("suspended", h.signOn(v), "not an active employee")
	change(func(e *crm.Employee) { require.NoError(t, e.Move(crm.EmployeeActive, time.Now())) })
	acc := h.account("sales")
	acc.Disabled = true
	_, err := h.app.Accounts.Update(ctx, app.System("accounts"), acc)
	require.NoError(t, err)
	v.refusedFor("disabled", h.signOn(v), "disabled")
	acc = h.account("sales")
	acc.Disabled = false
	_, err = h.app.Accounts.Update(ctx, app.System("accounts"), acc)
	require.NoError(t, err)
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.True(t, v.in())
}

// TestSignOnFirstUse: a verified address links once, where that is wanted, and never over another link.
func TestSignOnFirstUse(t *testing.T) {
	h := newHouse(t, nil, func(c *app.Config) { c.SignOn.FirstUse = true })
	v := h.visitor("192.0.2.1")
	h.account("peer")
	claims := func(email string, verified any) {
		h.provider.Claims(map[string]any{"email": email, "email_verified": verified})
	}
	claims("sales@demo.example", false)
	v.refusedFor("an address that nobody verified", h.signOn(v), "no account is linked")
	claims("sales@demo.example", "true")
	v.refusedFor("true as text", h.signOn(v), "no account is linked")
	claims("nobody@demo.example", true)
	v.refusedFor("nobody's address", h.signOn(v), "no account is linked")
	for what, email := range map[string]string{ // other mailboxes, which a search takes for this one
		"a soft hyphen": "sa\u00adles@demo.example", "a wide letter": "s\uff41les@demo.example", "a long s": "\u017fales@demo.example", "a space": " sales@demo.example",
		"two ats": "sales@demo.example@evil.test", "no mailbox": "@demo.example", "no domain": "sales@",
	} {
		claims(email, true)
		v.refusedFor(what, h.signOn(v), "no account is linked")
	}
	h.link("peer", "id1")
	claims("peer@demo.example", true)
	v.refusedFor("the address of who is linked with another subject", h.signOn(v), "linked with another subject")

	claims("Sales@demo.example", true) // who has no account yet gets one
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	require.True(t, v.in(), "without a change of a password that they do not know")
	assert.Equal(t, "first use, by a verified address", h.why("account.linked"))
	require.Equal(t, 2, h.events("account.linked"))
	claims("peer@demo.example", true) // the address is not looked at again
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.Equal(t, 2, h.events("account.linked"))
	assert.Contains(t, v.get("/security").Body.String(), "Sales Person")

	off := newHouse(t, nil, nil)
	off.account("sales")
	off.provider.Claims(map[string]any{"email": "sales@demo.example", "email_verified": true})
	stranger := off.visitor("192.0.2.1")
	stranger.refusedFor("where nobody asked for it", off.signOn(stranger), "no account is linked")
}

var groupRules = map[string]any{"groups": "groups", "roles": map[string][]string{"crm-sales": {"sales"}, "crm-audit": {"auditor"}, "crm-admin": {"admin"}}}

// TestSignOnRoles: groups give roles at each sign-in, and what they no longer give is gone at once, in sessions that are open too.
func TestSignOnRoles(t *testing.T) {
	h := newHouse(t, groupRules, nil)
	ctx := t.Context()
	h.link("peer", "id2")
	groups := func(names ...string) { h.provider.Claims(map[string]any{"groups": names}) }
	roles := func() []string {
		t.Helper()
		s, err := h.app.Subject(ctx, h.people["peer"].ID.UUID())
		require.NoError(t, err)
		return s.Roles
	}
	v, open := h.visitor("192.0.2.1"), h.visitor("192.0.2.1")
	groups("crm-sales", "everybody")
	require.Equal(t, http.StatusSeeOther, h.signOn(open).Code)
	require.Equal(t, http.StatusForbidden, open.get("/log").Code)
	before := h.events("account.roles")
	require.Equal(t, 0, before, "nothing has changed")

	groups("crm-audit", "system", "one-time")
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.Equal(t, []string{"auditor"}, roles())
	assert.Equal(t, "+auditor -sales", h.why("account.roles"))
	assert.Equal(t, http.StatusOK, open.get("/log").Code, "the session that was open has the new role with its next request")
	groups("crm-sales")
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.Equal(t, http.StatusForbidden, open.get("/log").Code, "and loses it")
	assert.Equal(t, []string{"sales"}, roles())

	// What no group of the file gives is given here, and stays.
	e, err := h.app.Employees.Get(ctx, app.System("test"), h.people["peer"].ID.UUID())
	require.NoError(t, err)
	e.Value.Roles = append(e.Value.Roles, "support")
	_, err = h.app.Employees.Update(ctx, app.System("test"), e.Value)
	require.NoError(t, err)
	require.NoError(t, h.app.RolesChanged(ctx, e.Value.ID.UUID(), h.id("admin")))
	groups()
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.Equal(t, []string{"support"}, roles())
	e, err = h.app.Employees.Get(ctx, app.System("test"), h.people["peer"].ID.UUID())
	require.NoError(t, err)
	e.Value.Roles = nil
	_, err = h.app.Employees.Update(ctx, app.System("test"), e.Value)
	require.NoError(t, err)
	require.NoError(t, h.app.RolesChanged(ctx, e.Value.ID.UUID(), h.id("admin")))
	require.True(t, open.in())
	v.jar = map[string]string{}
	v.refusedFor("no group", h.signOn(v), "none of the groups gives a role")
	assert.False(t, open.in(), "the sessions end")
	h.provider.Claims(map[string]any{"groups": "crm-sales"})
	v.refusedFor("groups of another kind", h.signOn(v), "none of the groups gives a role")

	// An administrator by group is one no more without it, as long as there is another.
	h.link("admin", "id1")
	as := func() *httptest.ResponseRecorder {
		x := h.visitor("192.0.2.7")
		return x.back(h.provider.SignInAs("test-user@127.0.0.1", x.leave("/sign-in/provider", "/"), testOrigin+app.CallbackPath))
	}
	groups("crm-sales")
	require.Equal(t, http.StatusSeeOther, as().Code)
	s, err := h.app.Subject(ctx, h.people["admin"].ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, []string{"sales"}, s.Roles)
	require.NoError(t, h.app.UnlinkAccount(ctx, "system", h.account("admin")))
	h.link("admin2", "id1")
	require.Equal(t, http.StatusSeeOther, as().Code)
	assert.Equal(t, "+sales", h.why("account.roles"))
	s, err = h.app.Subject(ctx, h.people["admin2"].ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, []string{"admin", "sales"}, s.Roles, "the last one stays")
}

// TestSignOnLogout: the provider ends sessions by tokens that it has signed, each once, and nobody else does.
func TestSignOnLogout(t *testing.T) {
	h := newHouse(t, nil, nil)
	ctx := t.Context()
	h.link("sales", "id2")
	v := h.visitor("192.0.2.1")
	post := func(token string) int {
		t.Helper()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, app.LogoutPath, strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://id.example.com")
		w := httptest.NewRecorder()
		h.server.ServeHTTP(w, r)
		return w.Code
	}
	n := 0
	claims := func(change func(map[string]any)) map[string]any {
		n++
		c := map[string]any{
			"iss": h.provider.Issuer, "aud": testClient, "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(), "jti": time.Now().String() + string(rune('a'+n)),
			"sub": "id2", "sid": "session-of-id2", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		if change != nil {
			change(c)
		}
		return c
	}
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	for what, token := range map[string]string{
		"nothing": "", "no token": "a.b.c", "an ID token": h.provider.Sign("JWT", claims(func(c map[string]any) { delete(c, "events") })),
		"for somebody else":     h.provider.Sign("logout+jwt", claims(func(c map[string]any) { c["aud"] = "another" })),
		"of another issuer":     h.provider.Sign("logout+jwt", claims(func(c map[string]any) { c["iss"] = "https://evil.test" })),
		"with a nonce":          h.provider.Sign("logout+jwt", claims(func(c map[string]any) { c["nonce"] = "x" })),
		"expired":               h.provider.Sign("logout+jwt", claims(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() })),
		"whose signature is no": forged(h.provider.Sign("logout+jwt", claims(nil))),
	} {
		before := h.events("session.provider_logout")
		assert.Equal(t, http.StatusBadRequest, post(token), what)
		assert.Equal(t, before+1, h.events("session.provider_logout"), what)
		assert.True(t, v.in(), what)
	}
	assert.Equal(t, http.StatusOK, post(h.provider.Sign("logout+jwt", claims(func(c map[string]any) { c["sid"] = "another session"; delete(c, "sub") }))))
	assert.True(t, v.in(), "another session of the provider")

	good := h.provider.Sign("logout+jwt", claims(nil))
	require.Equal(t, http.StatusOK, post(good))
	assert.False(t, v.in())
	assert.Equal(t, "ended by the provider", h.why("session.end"))
	v.jar = map[string]string{}
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.Equal(t, http.StatusBadRequest, post(good), "the token again")
	assert.True(t, v.in())

	// Without a session of the provider: all of the person's, wherever they came from.
	local := h.visitor("192.0.2.2")
	require.Equal(t, http.StatusSeeOther, local.signIn("sales", testPassword).Code)
	require.Equal(t, http.StatusOK, post(h.provider.Sign("logout+jwt", claims(func(c map[string]any) { delete(c, "sid") }))))
	assert.False(t, v.in())
	assert.False(t, local.in())
}

// forged turns the last bytes of a signature.
func forged(token string) string {
	at := len(token) - 20
	c := byte('A')
	if token[at] == c {
		c = 'B'
	}
	return token[:at] + string(c) + token[at+1:]
}

// TestSignOnSecondFactor: a factor that is enrolled here is asked for, but where the provider is trusted to have asked for two.
func TestSignOnSecondFactor(t *testing.T) {
	rules := map[string]any{"amr": map[string]string{"pwd": "password"}, "acr": map[string][]string{"mfa": {"password", "totp"}}}
	h := newHouse(t, rules, func(c *app.Config) { c.SecondFactor = []string{"sales"} })
	h.link("sales", "id2")
	v := h.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	key, codes := v.enrolTOTP()
	v.post("/sign-out")

	w := h.signOn(v) // amr pwd alone
	require.Equal(t, http.StatusOK, w.Code)
	require.NotEmpty(t, v.jar["crm-second"])
	assert.False(t, v.in(), "the word of the provider is one factor")
	w = v.post("/sign-in/second", "code", "000000")
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.False(t, v.in())
	// The provider ends its session while the second factor is waited for.
	token := h.provider.Sign("logout+jwt", map[string]any{
		"iss": h.provider.Issuer, "aud": testClient, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "jti": "while waiting", "sub": "id2", "sid": "session-of-id2",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	require.Equal(t, http.StatusOK, v.post(app.LogoutPath, "logout_token", token).Code)
	w = v.post("/sign-in/second", "code", codes[0])
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.False(t, v.in())
	// Also where its word names the session and not the person.
	require.Equal(t, http.StatusOK, h.signOn(v).Code)
	token = h.provider.Sign("logout+jwt", map[string]any{
		"iss": h.provider.Issuer, "aud": testClient, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "jti": "while waiting again", "sid": "session-of-id2",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	require.Equal(t, http.StatusOK, v.post(app.LogoutPath, "logout_token", token).Code)
	w = v.post("/sign-in/second", "code", codes[1])
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.False(t, v.in())

	h.ahead.Add(int64(time.Minute)) // another step of the app
	require.Equal(t, http.StatusOK, h.signOn(v).Code)
	require.Equal(t, http.StatusSeeOther, v.post("/sign-in/second", "code", key.Code(h.now())).Code)
	require.True(t, v.in())
	assert.Equal(t, "oidc password totp", h.why("session.sign_in"))
	v.post("/sign-out")

	h.ahead.Store(0)
	h.provider.Claims(map[string]any{"acr": "silver"})
	require.Equal(t, http.StatusOK, h.signOn(v).Code, "a context that nobody trusts")
	assert.False(t, v.in())
	h.provider.Claims(map[string]any{"acr": "mfa"})
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.True(t, v.in(), "two factors there")

	plain := newHouse(t, nil, func(c *app.Config) { c.SecondFactor = []string{"sales"} })
	plain.provider.Claims(map[string]any{"acr": "mfa", "amr": []string{"pwd", "otp", "mfa"}})
	plain.link("sales", "id2")
	x := plain.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, plain.signOn(x).Code)
	w = x.get("/")
	assert.Equal(t, "/security", w.Header().Get("Location"), "nothing is believed that no file says")
}

// TestSignOnAgain: an act that wants a fresh proof takes one of the provider, of the same person and session, or a factor of here.
func TestSignOnAgain(t *testing.T) {
	h := newHouse(t, nil, nil)
	h.link("sales", "id2")
	h.link("peer", "id1")
	v := h.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	wants := func() bool { t.Helper(); return v.post("/security/totp").Code == http.StatusSeeOther }
	require.False(t, wants(), "just signed in at the provider")
	h.ahead.Add(int64(6 * time.Minute))
	require.True(t, wants())
	assert.Contains(t, v.get("/step-up").Body.String(), "Confirm at <bdi>Example ID</bdi>")
	require.Equal(t, http.StatusSeeOther, v.post("/step-up", "current", testPassword).Code, "a factor of here does too")
	require.False(t, wants())
	h.ahead.Store(0)

	// A sign-in at the provider of long ago is no fresh proof.
	v.post("/sign-out")
	h.provider.Claims(map[string]any{"auth_time": time.Now().Add(-time.Hour).Unix()})
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	require.True(t, wants())
	again := func() url.Values {
		t.Helper()
		to := v.leave("/step-up/provider", "/security")
		assert.Contains(t, to, "prompt=login")
		return h.provider.SignIn(to, testOrigin+app.CallbackPath)
	}
	q := again()
	w := v.back(q)
	assert.Equal(t, http.StatusUnauthorized, w.Code, "the provider did not ask anew")
	assert.Contains(t, h.why("session.sign_in"), "not signed in anew")
	require.True(t, wants())

	h.provider.Claims(nil)
	to := v.leave("/step-up/provider", "/security")
	w = v.back(h.provider.SignInAs("test-user@127.0.0.1", to, testOrigin+app.CallbackPath))
	assert.Equal(t, http.StatusUnauthorized, w.Code, "somebody else at the provider")
	assert.Contains(t, h.why("session.step_up"), "another session or person")
	require.True(t, wants())

	q = again()
	thief := h.visitor("192.0.2.1") // whose browser has the answer and the cookie, and a session of the same person
	thief.jar["crm-provider"] = v.jar["crm-provider"]
	require.Equal(t, http.StatusSeeOther, thief.signIn("sales", testPassword).Code)
	w = thief.back(q)
	assert.Equal(t, http.StatusUnauthorized, w.Code, "another session")
	require.True(t, wants())

	old := v.jar["crm-session"]
	w = v.back(again())
	require.Equal(t, http.StatusSeeOther, w.Code)
	assert.Equal(t, "/security", w.Header().Get("Location"))
	assert.NotEqual(t, old, v.jar["crm-session"])
	require.False(t, wants())
	assert.Equal(t, "oidc", h.why("session.step_up"))
	assert.Equal(t, http.StatusSeeOther, h.visitor("192.0.2.3").post("/step-up/provider").Code, "who is not signed in signs in")
}

// TestLinkPage: administrators link others, with a fresh proof, and never themselves.
func TestLinkPage(t *testing.T) {
	h := newHouse(t, nil, nil)
	h.account("sales")
	admin := h.as("admin")
	base := "/employees/" + h.id("sales") + "/sign-in"
	code, _ := h.as("manager").post(base+"/link", url.Values{"subject": {"id2"}})
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = h.as("sales").post(base+"/link", url.Values{"subject": {"id2"}})
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = admin.post("/employees/"+h.id("admin")+"/sign-in/link", url.Values{"subject": {"id2"}})
	assert.Equal(t, http.StatusForbidden, code, "themselves")
	code, _ = admin.post(base+"/link", url.Values{"subject": {strings.Repeat("x", 256)}})
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	code, _ = admin.post(base+"/link", url.Values{"subject": {" id2 "}})
	require.Equal(t, http.StatusSeeOther, code)
	h.account("peer")
	w := admin.do(http.MethodPost, "/employees/"+h.id("peer")+"/sign-in/link", url.Values{"subject": {"id2"}})
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
	assert.Contains(t, w.Body.String(), "Another account is linked with this subject.")
	v := h.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, h.signOn(v).Code)
	assert.Contains(t, admin.do(http.MethodGet, base, nil).Body.String(), h.provider.Issuer)
	code, _ = admin.post(base+"/unlink", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	assert.False(t, v.in())
	code, _ = admin.post(base+"/unlink", url.Values{})
	assert.Equal(t, http.StatusNotFound, code)
	h.ahead.Add(int64(6 * time.Minute))
	code, to := admin.post(base+"/link", url.Values{"subject": {"id2"}})
	assert.Equal(t, http.StatusSeeOther, code)
	assert.Contains(t, to, "/step-up")
}

// TestProviderAway: where the provider is away, its button says so, and everybody else signs in.
func TestProviderAway(t *testing.T) {
	o := newOfficeWith(t, func(c *app.Config) { c.SignOn = app.SignOn{Issuer: "http://127.0.0.1:1", Client: "crm"} })
	o.account("sales")
	v := o.visitor("192.0.2.1")
	assert.Equal(t, http.StatusServiceUnavailable, v.post("/sign-in/provider").Code)
	assert.Equal(t, http.StatusServiceUnavailable, v.get(app.CallbackPath+"?code=x&state=y").Code)
	assert.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)

	// One that says nothing is waited for by one alone.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	mute := newOfficeWith(t, func(c *app.Config) { c.SignOn = app.SignOn{Issuer: "http://" + l.Addr().String(), Client: "crm"} })
	codes := make(chan int, 6)
	begin := time.Now()
	for i := range cap(codes) {
		x := mute.visitor("192.0.2." + strconv.Itoa(10+i))
		go func() { codes <- x.post("/sign-in/provider").Code }()
	}
	for range cap(codes) - 1 {
		assert.Equal(t, http.StatusServiceUnavailable, <-codes)
	}
	assert.Less(t, time.Since(begin), 8*time.Second)
	assert.Equal(t, http.StatusServiceUnavailable, <-codes)

	none := newOffice(t)
	x := none.visitor("192.0.2.1")
	assert.Equal(t, http.StatusNotFound, x.post("/sign-in/provider").Code)
	assert.Equal(t, http.StatusNotFound, x.get(app.CallbackPath).Code)
	assert.NotContains(t, x.get("/sign-in").Body.String(), "/sign-in/provider")
}

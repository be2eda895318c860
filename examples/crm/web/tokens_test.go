package web

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// program is one that has a token.
type program struct {
	*office
	text string
	addr string
}

func (o *office) program(name string, scopes ...string) *program {
	o.t.Helper()
	_, secret, err := o.app.MakeToken(o.t.Context(), o.id(name), o.people[name].ID.UUID(), app.TokenAsk{Name: "a test", Scopes: scopes, Days: 30})
	require.NoError(o.t, err)
	return &program{o, secret.Reveal(), "192.0.2.1"}
}

func (p *program) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	p.t.Helper()
	r := httptest.NewRequestWithContext(p.t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(p.addr), 4000).String()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+p.text)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.server.ServeHTTP(w, r)
	assert.Empty(p.t, w.Result().Cookies(), "%s %s", method, path)
	return w
}

func (p *program) status(method, path, body string) int {
	p.t.Helper()
	return p.do(method, path, body).Code
}

// dead wants the one public answer for this reason.
func (p *program) dead(what, why string) {
	p.t.Helper()
	w := p.do(http.MethodGet, "/api/v1/customers", "")
	assert.Equal(p.t, http.StatusUnauthorized, w.Code, what)
	assert.Equal(p.t, "Bearer", w.Header().Get("WWW-Authenticate"), what)
	var problem apiError
	require.NoError(p.t, json.Unmarshal(w.Body.Bytes(), &problem))
	assert.Equal(p.t, "sign in first", problem.Detail, what)
	assert.Contains(p.t, p.why("token.refused"), why, what)
}

// TestTokens: a program reads by REST as its token's owner, within its scope, and its deeds are in the log under the token's name.
func TestTokens(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	id := o.customers[0].ID.String()
	p := o.program("sales", "customer:read")
	w := p.do(http.MethodGet, "/api/v1/customers/"+id, "")
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	found, err := o.app.Log.Query(t.Context(), audit.Filter{Action: "customer.read"}, math.MaxUint64, 1)
	require.NoError(t, err)
	assert.Equal(t, "token:"+strings.Split(p.text, "_")[1], found[0].Event.Session)
	assert.Equal(t, o.id("sales"), found[0].Event.Actor)
	assert.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""))
	assert.Equal(t, http.StatusOK, p.status(http.MethodPost, "/api/v1/customers/search", `{"term":"+86 138 0013 8000"}`))
	var one apiRecord
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &one))
	assert.Equal(t, "hidden", one.Fields["id_number"].State, "what its owner does not see either")

	// What the scope does not name is not done, though its owner may.
	for what, code := range map[string]int{
		"another type":    p.status(http.MethodGet, "/api/v1/leads", ""),
		"a record of it":  p.status(http.MethodGet, "/api/v1/leads/"+crm.NewUUID().String(), ""),
		"a new record":    p.status(http.MethodPost, "/api/v1/customers", `{"fields":{"name":"A company of the scope"},"duplicates":"allow"}`),
		"a release":       p.status(http.MethodPost, "/api/v1/customers/"+id+"/release", `{}`),
		"an export":       p.status(http.MethodPost, "/api/v1/customers/exports", `{"reason":"why not"}`),
		"an endpoint":     p.status(http.MethodPost, "/api/v1/endpoints", `{"name":"x","url":"https://example.com","types":["customer"],"acts":["changed"]}`),
		"an import":       p.status(http.MethodPost, "/api/v1/imports", ``),
		"imports":         p.status(http.MethodPost, "/api/v1/imports/"+crm.NewUUID().String()+"/undo", ``),
		"a check":         p.status(http.MethodPost, "/api/v1/customers/check", `{"fields":{"name":"A"}}`),
		"a reveal":        p.status(http.MethodPost, "/api/v1/customers/"+id+"/reveal", `{"field":"phone","reason":"to call them"}`),
		"the employees":   p.status(http.MethodGet, "/api/v1/employees", ""),
		"a trace":         p.status(http.MethodPost, "/api/v1/exports/trace", `{"text":"x"}`),
		"an undone merge": p.status(http.MethodPost, "/api/v1/merges/"+crm.NewUUID().String()+"/undo", `{"version":1}`),
	} {
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound, http.StatusUnauthorized, http.StatusUnprocessableEntity}, code, what)
		if what != "an endpoint" { // whose body may be refused before
			assert.NotEqual(t, http.StatusUnprocessableEntity, code, what)
		}
	}
	n, err := o.app.Customers.Count(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	writer := o.program("sales", "customer:create", "customer:check")
	assert.Equal(t, http.StatusCreated, writer.status(http.MethodPost, "/api/v1/customers", `{"fields":{"name":"Umbrella of the scope","phone":"139 0000 1111","kind":"company"},"duplicates":"allow"}`))
	after, err := o.app.Customers.Count(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	assert.Equal(t, n+1, after)
	assert.Equal(t, http.StatusForbidden, writer.status(http.MethodGet, "/api/v1/customers", ""), "to make is not to read")

	// A wide scope gives nothing that its owner may not.
	peer := o.program("peer", "*:read", "customer:release", "customer:transfer")
	assert.Equal(t, http.StatusNotFound, peer.status(http.MethodGet, "/api/v1/customers/"+id, ""))
	assert.Equal(t, http.StatusNotFound, peer.status(http.MethodPost, "/api/v1/customers/"+id+"/transfer", `{"to":"`+o.id("peer")+`"}`))

	// Pages are for people, and cookies for browsers.
	for _, path := range []string{"/", "/customers", "/security/tokens", "/log"} {
		assert.Equal(t, http.StatusSeeOther, p.status(http.MethodGet, path, ""), path)
	}
	admin := o.as("admin")
	assert.Equal(t, http.StatusUnauthorized, func() int {
		q := &program{o, "crmg_of_nobody", "127.0.0.1"}
		return q.do(http.MethodGet, "/api/v1/customers", "", "Cookie", admin.cookie.Name+"="+admin.cookie.Value).Code
	}(), "a cookie beside a wrong token")
	assert.Equal(t, http.StatusForbidden, p.do(http.MethodGet, "/api/v1/leads", "", "Cookie", admin.cookie.Name+"="+admin.cookie.Value).Code, "a cookie beside a narrow token")
	assert.Equal(t, http.StatusOK, p.do(http.MethodPost, "/api/v1/customers/search", `{"term":"+86 138 0013 8000"}`, "Sec-Fetch-Site", "cross-site").Code, "there is no cookie to be forged with")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/customers/search", strings.NewReader(`{"term":"x"}`))
	r.AddCookie(admin.cookie)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	blocked := httptest.NewRecorder()
	o.server.ServeHTTP(blocked, r)
	assert.Equal(t, http.StatusForbidden, blocked.Code, "with a cookie there is")
}

// TestTokenNeverStepsUp: no factor is shown beside a token, so that whoever has it does not try passwords either.
func TestTokenNeverStepsUp(t *testing.T) {
	o := newOffice(t)
	acc := o.account("sales")
	p := o.program("sales", "*:read")
	id := o.customers[0].ID.String()
	assert.Equal(t, http.StatusForbidden, p.status(http.MethodPost, "/api/v1/customers/"+id+"/reveal", `{"field":"phone","reason":"to call them"}`))
	before := o.events("session.step_up")
	for range 6 {
		w := p.do(http.MethodPost, "/api/v1/customers/exports", `{"reason":"why not","password":"`+testPassword+`"}`)
		assert.Equal(t, http.StatusForbidden, w.Code)
	}
	assert.Equal(t, before, o.events("session.step_up"), "the password was not even looked at")
	assert.Equal(t, acc.Version, o.account("sales").Version)
	v := o.visitor("192.0.2.1")
	assert.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code, "and nobody is locked out by it")
	assert.Equal(t, http.StatusSeeOther, p.status(http.MethodPost, "/step-up", ""))
}

// TestTokenRefused: whatever is wrong with a token has one public answer, and the log has the reason and the token's name.
func TestTokenRefused(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.account("sales")
	p := o.program("sales", "*:read")
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""))
	with := func(text string) *program { return &program{o, text, "192.0.2.1"} }
	with("").dead("nothing", "no token")
	with(p.text[:len(p.text)-1]+"!").dead("a wrong checksum", "its checksum is wrong")
	flipped := []byte(p.text)
	flipped[20] = 'A' + (flipped[20]+1)%26
	with(string(flipped)).dead("a changed secret", "checksum is wrong")
	other := newOffice(t)
	other.account("sales")
	with(other.program("sales", "*:read").text).dead("a token of another installation", "there is no such token")
	found, err := o.app.Log.Query(ctx, audit.Filter{Action: "token.refused"}, math.MaxUint64, 1)
	require.NoError(t, err)
	require.Len(t, found[0].Event.Targets, 1)
	assert.Len(t, found[0].Event.Targets[0].ID, 10)

	_, bound, err := o.app.MakeToken(ctx, o.id("sales"), o.people["sales"].ID.UUID(), app.TokenAsk{Name: "from a network", Scopes: []string{"*:read"}, Days: 7, Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	require.NoError(t, err)
	inside := with(bound.Reveal())
	require.Equal(t, http.StatusOK, inside.status(http.MethodGet, "/api/v1/customers", ""))
	inside.addr = "198.51.100.1"
	inside.dead("from another network", "not from this network")
	inside.addr = "192.0.2.77"
	o.ahead.Add(int64(8 * 24 * time.Hour))
	inside.dead("expired", "expired")
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""), "this one lives longer")
	o.ahead.Store(0)

	// Two headers, and one in the address.
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/customers?access_token="+p.text, nil)
	w := httptest.NewRecorder()
	o.server.ServeHTTP(w, r)
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	r = httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/customers", nil)
	r.Header["Authorization"] = []string{"Bearer " + p.text, "Bearer " + p.text}
	w = httptest.NewRecorder()
	o.server.ServeHTTP(w, r)
	assert.Equal(t, http.StatusUnauthorized, w.Code)

	all, err := o.app.Tokens(ctx, o.people["sales"].ID.UUID())
	require.NoError(t, err)
	id := strings.Split(p.text, "_")[1]
	assert.ErrorIs(t, o.app.RevokeToken(ctx, "x", o.people["peer"].ID.UUID(), id), crm.ErrNotFound, "not theirs")
	require.NoError(t, o.app.RevokeToken(ctx, o.id("sales"), o.people["sales"].ID.UUID(), id))
	assert.ErrorIs(t, o.app.RevokeTokenByID(ctx, id), crm.ErrNotFound, "once")
	p.dead("revoked", "revoked")
	require.Len(t, all, 2)
	text, _ := json.Marshal(found)
	assert.NotContains(t, string(text), p.text[16:40])

	for what, ask := range map[string]app.TokenAsk{
		"no scope": {Name: "x", Days: 1}, "no name": {Scopes: []string{"*:read"}, Days: 1}, "no end": {Name: "x", Scopes: []string{"*:read"}}, "an end that is far": {Name: "x", Scopes: []string{"*:read"}, Days: 400},
		"everything": {Name: "x", Scopes: []string{"*:*"}, Days: 1}, "all acts": {Name: "x", Scopes: []string{"customer:*"}, Days: 1}, "reveals": {Name: "x", Scopes: []string{"customer:reveal"}, Days: 1},
		"exports": {Name: "x", Scopes: []string{"customer:export"}, Days: 1}, "accounts": {Name: "x", Scopes: []string{"account:read"}, Days: 1}, "shares": {Name: "x", Scopes: []string{"sharing:create"}, Days: 1},
		"a word": {Name: "x", Scopes: []string{"read"}, Days: 1}, "the log": {Name: "x", Scopes: []string{"log:read"}, Days: 1}, "all new": {Name: "x", Scopes: []string{"*:create"}, Days: 1},
	} {
		_, secret, err := o.app.MakeToken(ctx, o.id("sales"), o.people["sales"].ID.UUID(), ask)
		assert.Error(t, err, what)
		assert.Empty(t, secret.Reveal(), what)
	}
}

// TestTokenOwner: a token is worth what its owner is at this moment, and ends with them, in every process.
func TestTokenOwner(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.account("sales")
	id := o.customers[0].ID.String()
	change := func(name string, do func(*crm.Employee)) {
		t.Helper()
		e, err := o.app.Employees.Get(ctx, app.System("test"), o.people[name].ID.UUID())
		require.NoError(t, err)
		do(e.Value)
		_, err = o.app.Employees.Update(ctx, app.System("test"), e.Value)
		require.NoError(t, err)
		require.NoError(t, o.app.RolesChanged(ctx, e.Value.ID.UUID(), o.id("admin")))
	}
	// Another process, which has read the rights before.
	c := config(t.TempDir())
	c.DB, c.KEK, c.Instance, c.Now = o.app.Config.DB, o.app.Config.KEK, "second", o.now
	second, err := app.Open(ctx, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, second.Close()) })
	server, err := New(ctx, second)
	require.NoError(t, err)
	p := o.program("sales", "*:read")
	there := &program{&office{t: t, app: second, server: server, people: o.people}, p.text, "192.0.2.1"}
	for _, x := range []*program{p, there} {
		require.Equal(t, http.StatusOK, x.status(http.MethodGet, "/api/v1/customers/"+id, ""))
	}
	change("sales", func(e *crm.Employee) { e.Roles = []string{"analyst"} })
	for _, x := range []*program{p, there} {
		assert.Equal(t, http.StatusNotFound, x.status(http.MethodGet, "/api/v1/customers/"+id, ""), "the role is gone")
	}
	change("sales", func(e *crm.Employee) { e.Roles = []string{"sales"} })
	for _, x := range []*program{p, there} {
		assert.Equal(t, http.StatusOK, x.status(http.MethodGet, "/api/v1/customers/"+id, ""))
	}
	acc := o.account("sales")
	acc.Disabled = true
	_, err = o.app.Accounts.Update(ctx, app.System("accounts"), acc)
	require.NoError(t, err)
	there.dead("disabled", "disabled")
	p.dead("and ended for good", "revoked")
	acc = o.account("sales")
	acc.Disabled = false
	_, err = o.app.Accounts.Update(ctx, app.System("accounts"), acc)
	require.NoError(t, err)

	p = o.program("sales", "*:read")
	there.text = p.text
	require.Equal(t, http.StatusOK, there.status(http.MethodGet, "/api/v1/customers", ""))
	change("sales", func(e *crm.Employee) { require.NoError(t, e.Move(crm.EmployeeSuspended, time.Now())) })
	there.dead("suspended", "revoked")
	assert.Equal(t, "not an active employee", o.why("token.revoked"))
	_, _, err = o.app.MakeToken(ctx, o.id("admin"), o.people["sales"].ID.UUID(), app.TokenAsk{Name: "x", Scopes: []string{"*:read"}, Days: 1})
	assert.ErrorIs(t, err, app.ErrTokenOwner)
	change("sales", func(e *crm.Employee) { require.NoError(t, e.Move(crm.EmployeeActive, time.Now())) })
	p.dead("and does not come back", "revoked")

	o.account("peer")
	p = o.program("peer", "*:read")
	e, err := o.app.Employees.Get(ctx, app.System("test"), o.people["peer"].ID.UUID())
	require.NoError(t, err)
	code, _ := o.as("admin").post("/employees/"+o.id("peer")+"/delete", url.Values{"version": {strconv.FormatInt(e.Value.Version, 10)}})
	require.Equal(t, http.StatusSeeOther, code)
	p.dead("deleted", "revoked")
}

// TestTokenOfStrongRole: a role that asks for two factors, or for a network, is not had by one secret from anywhere.
func TestTokenOfStrongRole(t *testing.T) {
	o := newOfficeWith(t, func(c *app.Config) {
		c.AllowFrom = map[string][]netip.Prefix{"manager": {netip.MustParsePrefix("192.0.2.0/24")}}
		c.SecondFactor = []string{"auditor"}
	})
	_, _, err := o.app.MakeToken(t.Context(), o.id("auditor"), o.people["auditor"].ID.UUID(), app.TokenAsk{Name: "x", Scopes: []string{"*:read"}, Days: 1})
	assert.ErrorIs(t, err, app.ErrTokenOwner)
	p := o.program("manager", "*:read")
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""))
	p.addr = "198.51.100.1"
	p.dead("from another network", "address not allowed")
	p.addr = "192.0.2.1"
	o.app.Config.SecondFactor = append(o.app.Config.SecondFactor, "manager")
	p.dead("since the role asks for two", "second factor")
}

var tokenShown = regexp.MustCompile(token.Pattern)

// TestTokenPages: people make, see and revoke their own; administrators see and revoke those of others, and make them for accounts that nobody signs in as.
func TestTokenPages(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	o.account("peer")
	sales, admin := o.as("sales"), o.as("admin")
	form := url.Values{"name": {"nightly report"}, "reads": {"customer"}, "acts": {"customer:claim"}, "days": {"30"}, "sources": {"192.0.2.0/24 2001:db8::/32"}}
	w := sales.do(http.MethodPost, "/security/tokens", form)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	text := tokenShown.FindString(w.Body.String())
	require.NotEmpty(t, text)
	p := &program{o, text, "192.0.2.1"}
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""))
	w = sales.do(http.MethodGet, "/security/tokens", nil)
	assert.Contains(t, w.Body.String(), "nightly report")
	assert.Contains(t, w.Body.String(), "customer:claim customer:read")
	assert.NotContains(t, w.Body.String(), text[16:59], "shown once")
	assert.Equal(t, "customer:claim customer:read", o.why("token.issued"))

	for what, change := range map[string]func(url.Values){
		"no name": func(f url.Values) { f.Del("name") }, "no scope": func(f url.Values) { f.Del("reads"); f.Del("acts") }, "no network": func(f url.Values) { f.Set("sources", "everywhere") },
	} {
		f := url.Values{}
		for k, v := range form {
			f[k] = v
		}
		change(f)
		code, _ := sales.post("/security/tokens", f)
		assert.Equal(t, http.StatusUnprocessableEntity, code, what)
	}
	for what, f := range map[string]url.Values{
		"a scope of no form": {"name": {"x"}, "acts": {"account:update"}, "days": {"30"}}, "a life of no form": {"name": {"x"}, "reads": {"*"}, "days": {"31"}},
	} {
		code, _ := sales.post("/security/tokens", f)
		assert.Equal(t, http.StatusBadRequest, code, what)
	}

	base := "/employees/" + o.id("sales") + "/tokens"
	id := strings.Split(text, "_")[1]
	assert.Equal(t, http.StatusOK, admin.get(base))
	for _, who := range []string{"peer", "manager"} {
		b := o.as(who)
		assert.NotEqual(t, http.StatusOK, b.get(base), who)
		code, _ := b.post(base+"/revoke", url.Values{"id": {id}})
		assert.NotEqual(t, http.StatusSeeOther, code, who)
	}
	code, _ := admin.post(base, form)
	assert.Equal(t, http.StatusForbidden, code, "nobody makes tokens that act as somebody else")
	code, _ = o.as("peer").post("/security/tokens/revoke", url.Values{"id": {id}})
	assert.Equal(t, http.StatusNotFound, code, "not theirs")
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""))
	code, _ = admin.post(base+"/revoke", url.Values{"id": {id}})
	require.Equal(t, http.StatusSeeOther, code)
	p.dead("revoked", "revoked")

	// An employee without an account is a service account.
	w = admin.do(http.MethodPost, "/employees/"+o.id("third")+"/tokens", form)
	require.Equal(t, http.StatusOK, w.Code)
	p.text = tokenShown.FindString(w.Body.String())
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""))

	o.ahead.Add(int64(6 * time.Minute))
	code, to := sales.post("/security/tokens", form)
	assert.Equal(t, http.StatusSeeOther, code)
	assert.Contains(t, to, "/step-up", "a fresh proof")
	code, to = admin.post("/employees/"+o.id("third")+"/tokens", form)
	assert.Equal(t, http.StatusSeeOther, code)
	assert.Contains(t, to, "/step-up")
}

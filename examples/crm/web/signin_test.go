package web

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz/authn/totp"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// visitor is a browser that keeps its cookies, at an address of its own.
type visitor struct {
	*office
	addr  string
	agent string
	jar   map[string]string
}

func (o *office) visitor(addr string) *visitor {
	return &visitor{office: o, addr: addr, agent: "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", jar: map[string]string{}}
}

func (v *visitor) do(method, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	v.t.Helper()
	r := httptest.NewRequestWithContext(v.t.Context(), method, path, strings.NewReader(form.Encode()))
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(v.addr), 4000).String()
	r.Header.Set("User-Agent", v.agent)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for name, value := range v.jar {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	v.server.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(v.jar, c.Name)
		} else {
			v.jar[c.Name] = c.Value
		}
	}
	return w
}

func (v *visitor) get(path string) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.do(http.MethodGet, path, nil)
}

func (v *visitor) post(path string, kv ...string) *httptest.ResponseRecorder {
	v.t.Helper()
	form := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		form.Set(kv[i], kv[i+1])
	}
	return v.do(http.MethodPost, path, form)
}

func (v *visitor) signIn(name, password string) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.post("/sign-in", "email", name+"@demo.example", "password", password)
}

// in tells whether the home page is served.
func (v *visitor) in() bool { v.t.Helper(); return v.get("/").Code == http.StatusOK }

// why is the note of the newest event of an action.
func (o *office) why(action string) string {
	o.t.Helper()
	found, err := o.app.Log.Query(o.t.Context(), audit.Filter{Action: action}, math.MaxUint64, 1)
	require.NoError(o.t, err)
	if len(found) == 0 {
		return ""
	}
	return found[0].Event.Note
}

var base32NoPad = base32.StdEncoding.WithPadding(base32.NoPadding)

var secretKey = regexp.MustCompile(`<code class="command">([A-Z2-7 ]+)</code>`)
var paperCode = regexp.MustCompile(`<li><code>([^<]+)</code></li>`)

// enrolTOTP enrols an app and returns its key and the codes for paper.
func (v *visitor) enrolTOTP() (key totp.Key, codes []string) {
	v.t.Helper()
	w := v.post("/security/totp")
	require.Equal(v.t, http.StatusOK, w.Code, w.Header().Get("Location"))
	m := secretKey.FindStringSubmatch(w.Body.String())
	require.NotNil(v.t, m)
	assert.Contains(v.t, w.Body.String(), `<svg class="qr"`)
	key = keyOf(v.t, m[1])
	w = v.post("/security/totp/confirm", "code", key.Code(v.now()))
	require.Equal(v.t, http.StatusOK, w.Code)
	for _, m := range paperCode.FindAllStringSubmatch(w.Body.String(), -1) {
		codes = append(codes, m[1])
	}
	require.Len(v.t, codes, 10)
	return key, codes
}

func keyOf(t *testing.T, text string) totp.Key {
	t.Helper()
	secret, err := base32NoPad.DecodeString(strings.ReplaceAll(text, " ", ""))
	require.NoError(t, err)
	key, err := totp.ImportKey(secret, totp.SHA1, 6)
	require.NoError(t, err)
	return key
}

// TestOneAnswer: whatever fails at sign-in, the page is the same, and the log knows why.
func TestOneAnswer(t *testing.T) {
	o := newOffice(t)
	acc := o.account("sales")
	v := o.visitor("192.0.2.1")
	strip := func(w *httptest.ResponseRecorder) string {
		return regexp.MustCompile(`value="[^"]*"`).ReplaceAllString(w.Body.String(), "")
	}
	first := v.signIn("nobody", testPassword)
	require.Equal(t, http.StatusUnauthorized, first.Code)
	assert.Equal(t, "unknown login", o.why("session.sign_in"))
	for why, try := range map[string]func() *httptest.ResponseRecorder{
		"wrong password": func() *httptest.ResponseRecorder { return v.signIn("sales", "not the password at all") },
		"oversized":      func() *httptest.ResponseRecorder { return v.signIn("sales", strings.Repeat("x", 2000)) },
	} {
		w := try()
		assert.Equal(t, http.StatusUnauthorized, w.Code, why)
		assert.Equal(t, strip(first), strip(w), why)
		assert.Equal(t, why, o.why("session.sign_in"))
		assert.Empty(t, v.jar["crm-session"])
	}
	acc.Disabled = true
	_, err := o.app.Accounts.Update(t.Context(), app.System("accounts"), acc)
	require.NoError(t, err)
	w := v.signIn("sales", testPassword)
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.Equal(t, strip(first), strip(w))
	assert.Equal(t, "disabled", o.why("session.sign_in"))
}

// TestSessionFixed: an id that somebody planted before a sign-in is worth nothing after it, and one from before a sign-out or a step-up is dead.
func TestSessionFixed(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	planted := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	v.jar["crm-session"] = planted
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	require.True(t, v.in())
	assert.NotEqual(t, planted, v.jar["crm-session"])

	thief := o.visitor("192.0.2.1")
	thief.jar["crm-session"] = planted
	assert.False(t, thief.in())

	// A second sign-in in the same browser ends the session before it.
	old := v.jar["crm-session"]
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	thief.jar["crm-session"] = old
	assert.False(t, thief.in())

	// A step-up too.
	old = v.jar["crm-session"]
	require.Equal(t, http.StatusSeeOther, v.post("/step-up", "current", testPassword, "back", "/customers").Code)
	assert.NotEqual(t, old, v.jar["crm-session"])
	thief.jar["crm-session"] = old
	assert.False(t, thief.in())
	require.True(t, v.in())

	// A sign-out, with a copy of the cookie.
	old = v.jar["crm-session"]
	w := v.post("/sign-out")
	assert.Equal(t, `"cache", "storage"`, w.Header().Get("Clear-Site-Data"))
	assert.NotContains(t, v.jar, "crm-session")
	thief.jar["crm-session"] = old
	assert.False(t, thief.in())
	assert.NotEmpty(t, v.jar["crm-device"], "the device is still known")
}

// TestSessionTimes: idle, absolute, and the hour of a one-time password.
func TestSessionTimes(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	for range 23 {
		o.ahead.Add(int64(29 * time.Minute))
		require.True(t, v.in())
	}
	o.ahead.Add(int64(31 * time.Minute))
	assert.False(t, v.in(), "idle")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	for range 24 {
		o.ahead.Add(int64(29 * time.Minute))
		require.True(t, v.in())
	}
	o.ahead.Add(int64(29 * time.Minute))
	assert.False(t, v.in(), "after twelve hours")
}

// TestCrossSite: posts from another site do nothing, whatever cookies come along.
func TestCrossSite(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	for _, path := range []string{"/sign-in", "/sign-in/second", "/sign-in/passkey/begin", "/sign-out", "/security/totp", "/security/codes", "/security/passkeys/begin", "/sessions/end-others", "/step-up", "/password"} {
		for _, site := range []string{"cross-site", "same-site"} {
			w := v.do(http.MethodPost, path, url.Values{}, "Sec-Fetch-Site", site)
			assert.Equal(t, http.StatusForbidden, w.Code, "%s from %s", path, site)
		}
	}
	assert.True(t, v.in())
}

// TestThrownOut: who is disabled, and whose role is taken, is so with their next request, also where they are signed in at another process.
//
//crm:item 35
func TestThrownOut(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.account("sales")
	c := config(t.TempDir())
	c.DB, c.KEK, c.Instance, c.Now = o.app.Config.DB, o.app.Config.KEK, "second", o.now
	second, err := app.Open(ctx, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, second.Close()) })
	server, err := New(ctx, second)
	require.NoError(t, err)
	other := &office{t: t, app: second, server: server, people: o.people}
	v := other.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	require.True(t, v.in())
	require.Equal(t, http.StatusForbidden, v.get("/log").Code)

	// A restart, or another process: the session is the same.
	here := o.visitor("192.0.2.1")
	here.jar = v.jar
	require.True(t, here.in())

	change := func(do func(*crm.Employee)) {
		t.Helper()
		e, err := o.app.Employees.Get(ctx, app.System("test"), o.people["sales"].ID.UUID())
		require.NoError(t, err)
		do(e.Value)
		_, err = o.app.Employees.Update(ctx, app.System("test"), e.Value)
		require.NoError(t, err)
		require.NoError(t, o.app.RolesChanged(ctx, e.Value.ID.UUID(), o.id("admin")))
	}
	change(func(e *crm.Employee) { e.Roles = []string{"auditor"} })
	assert.Equal(t, http.StatusOK, v.get("/log").Code, "the new right, at once, in the other process")
	change(func(e *crm.Employee) { e.Roles = []string{"sales"} })
	assert.Equal(t, http.StatusForbidden, v.get("/log").Code, "and without it again")
	change(func(e *crm.Employee) { require.NoError(t, e.Move(crm.EmployeeSuspended, time.Now())) })
	assert.False(t, v.in(), "disabled")
	assert.False(t, here.in())
	assert.Equal(t, 1, o.logged("session.end", "system", audit.Allowed))
	assert.Equal(t, http.StatusUnauthorized, v.signIn("sales", testPassword).Code)
	assert.Equal(t, "not an active employee", other.why("session.sign_in"))

	change(func(e *crm.Employee) { require.NoError(t, e.Move(crm.EmployeeActive, time.Now())) })
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	require.True(t, v.in())
	e, err := o.app.Employees.Get(ctx, app.System("test"), o.people["sales"].ID.UUID())
	require.NoError(t, err)
	code, _ := o.as("admin").post("/employees/"+e.Value.ID.String()+"/delete", url.Values{"version": {fmt.Sprint(e.Value.Version)}})
	require.Equal(t, http.StatusSeeOther, code)
	assert.False(t, v.in(), "deleted")
	assert.Equal(t, http.StatusUnauthorized, v.signIn("sales", testPassword).Code)
}

// TestGuessesEnd: guesses end after four tries of a source, do not shut the owner out elsewhere or on a known device, and an administrator releases the lock.
func TestGuessesEnd(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	known := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, known.signIn("sales", testPassword).Code)
	known.post("/sign-out")

	for i := range 120 { // from 40 sources, and from the owner's own address
		thief := o.visitor(fmt.Sprintf("198.51.100.%d", i%40))
		if i < 5 {
			thief.addr = "192.0.2.1"
		}
		assert.NotEqual(t, http.StatusSeeOther, thief.signIn("sales", fmt.Sprintf("guess number %d of many", i)).Code)
	}
	locked := o.visitor("198.51.100.1")
	require.Equal(t, http.StatusTooManyRequests, locked.signIn("sales", testPassword).Code, "the right password is not told from a wrong one")
	assert.Equal(t, http.StatusSeeOther, known.signIn("sales", testPassword).Code, "the owner, on the known device, at an address that is locked for others")

	stranger := o.visitor("203.0.113.9")
	assert.Equal(t, http.StatusTooManyRequests, stranger.signIn("sales", testPassword).Code, "more than a hundred failures: an unknown device needs more than a password")
	assert.Contains(t, o.why("session.sign_in"), "a known device or a stronger factor")

	admin := o.as("admin")
	code, _ := o.as("manager").post("/employees/"+o.id("sales")+"/sign-in/release", url.Values{})
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = admin.post("/employees/"+o.id("sales")+"/sign-in/release", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, 1, o.logged("account.release", o.id("admin"), audit.Allowed))
	assert.Equal(t, http.StatusSeeOther, stranger.signIn("sales", testPassword).Code)
	forged := o.visitor("198.51.100.77")
	forged.jar["crm-device"] = base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for range 4 {
		forged.signIn("sales", "guess guess guess guess")
	}
	assert.Equal(t, http.StatusTooManyRequests, forged.signIn("sales", testPassword).Code, "a device that nobody gave out is no known one")
}

// TestSpraying: an address that fails at more than twenty accounts, of names that are there or not, tries no further ones; the answer is the same for all,
// and whoever has a known device behind it comes in.
func TestSpraying(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	o.account("manager")
	const shared = "192.0.2.1"
	known := o.visitor(shared)
	require.Equal(t, http.StatusSeeOther, known.signIn("sales", testPassword).Code)
	known.post("/sign-out")

	for i := range 21 {
		require.Equal(t, http.StatusUnauthorized, o.visitor(shared).signIn(fmt.Sprintf("person%d@example.com", i), "Spring in the office 2026").Code)
	}
	strip := func(w *httptest.ResponseRecorder) string {
		return regexp.MustCompile(`value="[^"]*"`).ReplaceAllString(w.Body.String(), "")
	}
	right := o.visitor(shared).signIn("manager", testPassword)
	require.Equal(t, http.StatusTooManyRequests, right.Code, "the right password of an account that nobody had tried is not told from a wrong one")
	assert.Contains(t, o.why("session.sign_in"), "a known device or a stronger factor")
	unknown := o.visitor(shared).signIn("nobody", testPassword)
	require.Equal(t, http.StatusTooManyRequests, unknown.Code)
	assert.Equal(t, strip(unknown), strip(right))
	forged := o.visitor(shared)
	forged.jar["crm-device"] = known.jar["crm-device"]
	assert.Equal(t, http.StatusTooManyRequests, forged.signIn("manager", testPassword).Code, "a device is known for its account, and for no other")

	assert.Equal(t, http.StatusSeeOther, known.signIn("sales", testPassword).Code, "a known device behind the same address")
	assert.Equal(t, http.StatusSeeOther, o.visitor("192.0.2.2").signIn("manager", testPassword).Code, "another address")
	o.ahead.Add(int64(15 * time.Minute))
	assert.Equal(t, http.StatusSeeOther, o.visitor(shared).signIn("manager", testPassword).Code, "when the lock is over")
}

// TestSecondFactor: the password alone opens nothing, a code opens once, one from paper once, and none without the password.
//
//crm:item 28
func TestSecondFactor(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	elsewhere := o.visitor("192.0.2.2")
	require.Equal(t, http.StatusSeeOther, elsewhere.signIn("sales", testPassword).Code)
	w := v.post("/security/totp")
	require.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, http.StatusUnprocessableEntity, v.post("/security/totp/confirm", "code", "000000").Code)
	key, codes := v.enrolTOTP()
	assert.False(t, elsewhere.in(), "other sessions end")
	require.True(t, v.in())
	v.post("/sign-out")

	again := o.visitor("192.0.2.1")
	assert.Equal(t, http.StatusUnauthorized, again.post("/sign-in/second", "code", key.Code(o.now())).Code, "no password before")
	step := func(t2 *visitor, code string) *httptest.ResponseRecorder {
		t.Helper()
		w := t2.signIn("sales", testPassword)
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), "One more step")
		require.False(t, t2.in())
		return t2.post("/sign-in/second", "code", code)
	}
	// The code that enrolled the app signs nobody in.
	assert.Equal(t, http.StatusUnauthorized, step(again, key.Code(o.now())).Code)
	assert.Contains(t, o.why("session.sign_in"), "used before")
	o.ahead.Add(int64(time.Minute))
	code := key.Code(o.now())
	pending := again.jar["crm-second"]
	require.Equal(t, http.StatusSeeOther, again.post("/sign-in/second", "code", code).Code, "the next try needs no password again")
	require.True(t, again.in())
	assert.Equal(t, "password totp", o.why("session.sign_in"))

	replay := o.visitor("192.0.2.1")
	assert.Equal(t, http.StatusUnauthorized, step(replay, code).Code, "a code is accepted once")
	replay.jar["crm-second"] = pending
	assert.Equal(t, http.StatusUnauthorized, replay.post("/sign-in/second", "code", codes[0]).Code, "and what waited for it, once")

	paper := o.visitor("192.0.2.3")
	require.Equal(t, http.StatusSeeOther, step(paper, codes[0]).Code)
	assert.Equal(t, "password recovery", o.why("session.sign_in"))
	assert.Equal(t, http.StatusUnauthorized, step(o.visitor("192.0.2.4"), codes[0]).Code)

	// A one-time password of the administrator does not stand for the second factor.
	admin := o.as("admin")
	w = admin.do(http.MethodPost, "/employees/"+o.id("sales")+"/sign-in/password", url.Values{})
	require.Equal(t, http.StatusOK, w.Code)
	shown := regexp.MustCompile(`never again: (?:<bdi>)?([a-z2-9]{4}(?:-[a-z2-9]{4}){3})`).FindStringSubmatch(w.Body.String())
	require.NotNil(t, shown)
	once := shown[1]
	assert.False(t, again.in(), "the sessions end")
	reset := o.visitor("192.0.2.5")
	w = reset.signIn("sales", once)
	require.Equal(t, http.StatusOK, w.Code)
	require.False(t, reset.in())
	o.ahead.Add(int64(time.Minute))
	require.Equal(t, http.StatusSeeOther, reset.post("/sign-in/second", "code", key.Code(o.now())).Code)
	assert.Equal(t, "/password", reset.get("/customers").Header().Get("Location"), "and the password is changed first")
	w = reset.post("/password", "old", once, "new", "short1", "again", "short1")
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
	w = reset.post("/password", "old", once, "new", "tulip 9 wren", "again", "tulip 9 wren")
	assert.Equal(t, http.StatusSeeOther, w.Code, "eight characters are enough beside a second factor")
	require.True(t, reset.in())

	// The last factor goes, and with it the codes.
	require.Equal(t, http.StatusSeeOther, reset.post("/security/totp/remove").Code)
	acc, err := o.app.AccountOf(t.Context(), o.people["sales"].ID.UUID())
	require.NoError(t, err)
	assert.False(t, acc.Second)
	f, err := o.app.FactorsOf(t.Context(), acc)
	require.NoError(t, err)
	assert.Zero(t, f.Codes)
}

// TestFactorsDeleted: whoever deletes the rows of factors in the database opens nothing.
func TestFactorsDeleted(t *testing.T) {
	o := newOffice(t)
	acc := o.account("sales")
	acc.Second = true
	_, err := o.app.Accounts.Update(t.Context(), app.System("accounts"), acc)
	require.NoError(t, err)
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusOK, v.signIn("sales", testPassword).Code)
	assert.False(t, v.in())
	o.tamper(`UPDATE crm_rows_account SET c_second = 0 WHERE c_second = 1`)
	assert.Equal(t, http.StatusUnauthorized, o.visitor("192.0.2.2").signIn("sales", testPassword).Code, "nor who changes the row")
	assert.Equal(t, "the account's row does not authenticate", o.why("session.sign_in"))
}

// TestSecondFactorForced: a role that asks for a second factor is led to enrol one before anything else.
func TestSecondFactorForced(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	o.account("manager")
	o.app.Config.SecondFactor = []string{"manager"}
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("manager", testPassword).Code)
	for _, path := range []string{"/", "/customers", "/sessions", "/log"} {
		w := v.get(path)
		assert.Equal(t, http.StatusSeeOther, w.Code, path)
		assert.Equal(t, "/security", w.Header().Get("Location"), path)
	}
	assert.Equal(t, http.StatusUnauthorized, v.get("/api/v1/customers").Code)
	w := v.get("/security")
	require.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), "Enrol one before anything else")
	v.enrolTOTP()
	assert.True(t, v.in())
	assert.Equal(t, http.StatusOK, v.get("/api/v1/customers").Code)
	free := o.visitor("192.0.2.2")
	require.Equal(t, http.StatusSeeOther, free.signIn("sales", testPassword).Code)
	assert.True(t, free.in(), "other roles are not asked")
}

// TestStepUpForFactors: a session of a while ago changes no factor and no sign-in of others before a fresh proof.
func TestStepUpForFactors(t *testing.T) {
	o := newOffice(t)
	o.account("admin")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("admin", testPassword).Code)
	o.ahead.Add(int64(6 * time.Minute))
	for path, back := range map[string]string{
		"/security/totp": "/security", "/security/codes": "/security", "/security/passkeys/remove": "/security",
		"/employees/" + o.id("sales") + "/sign-in/password": "/employees/" + o.id("sales") + "/sign-in",
	} {
		o.account("sales")
		w := v.post(path)
		assert.Equal(t, http.StatusSeeOther, w.Code, path)
		assert.Equal(t, "/step-up?back="+back, w.Header().Get("Location"), path)
	}
	assert.Equal(t, http.StatusForbidden, v.post("/security/passkeys/begin").Code)
	assert.Contains(t, v.get("/employees/"+o.id("sales")+"/edit").Header().Get("Location"), "/step-up?back=/employees/"+o.id("sales")+"/edit")
	customer := "/customers/" + o.customers[0].ID.String()
	assert.Equal(t, "/step-up?back="+customer, v.get(customer+"/reveal/phone").Header().Get("Location"))
	w := v.do(http.MethodGet, customer+"/reveal/phone", nil, "HX-Request", "true")
	assert.Equal(t, "/step-up?back="+customer, w.Header().Get("HX-Redirect"), "in place too")
	assert.Equal(t, http.StatusUnprocessableEntity, v.post("/step-up", "current", "wrong wrong wrong wrong", "back", "/security").Code)
	assert.Equal(t, http.StatusSeeOther, v.post("/step-up", "current", testPassword, "back", "/security").Code)
	assert.Equal(t, http.StatusOK, v.post("/security/totp").Code)
}

// TestSessionsPage: people see and end their own sessions, administrators those of others, nobody else's by an id.
//
//crm:item 35
func TestSessionsPage(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	o.account("peer")
	a, b := o.visitor("192.0.2.1"), o.visitor("198.51.100.1")
	b.agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
	peer := o.visitor("203.0.113.1")
	for v, name := range map[*visitor]string{a: "sales", b: "sales", peer: "peer"} {
		require.Equal(t, http.StatusSeeOther, v.signIn(name, testPassword).Code)
	}
	w := a.get("/sessions")
	require.Equal(t, http.StatusOK, w.Code)
	for _, text := range []string{"Firefox, Linux", "Chrome, Windows", "192.0.2.0/24", "198.51.100.0/24", "this one"} {
		assert.Contains(t, w.Body.String(), text)
	}
	assert.NotContains(t, w.Body.String(), "203.0.113")
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(w.Body.String())[1]
	assert.Equal(t, http.StatusNotFound, peer.post("/sessions/end", "id", id).Code, "of somebody else")
	assert.True(t, b.in())
	require.Equal(t, http.StatusSeeOther, a.post("/sessions/end", "id", id).Code)
	assert.False(t, b.in())
	assert.True(t, a.in())
	require.Equal(t, http.StatusSeeOther, b.signIn("sales", testPassword).Code)
	require.Equal(t, http.StatusSeeOther, a.post("/sessions/end-others").Code)
	assert.False(t, b.in())

	page := "/employees/" + o.id("sales") + "/sign-in"
	assert.Equal(t, http.StatusNotFound, peer.get(page).Code)
	admin := o.as("admin")
	assert.Contains(t, admin.do(http.MethodGet, page, nil).Body.String(), "Firefox, Linux")
	code, _ := admin.post(page+"/end-all", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	assert.False(t, a.in())
	assert.True(t, peer.in())
	own := "/employees/" + o.id("admin") + "/sign-in/"
	for _, act := range []string{"password", "factors"} {
		code, _ := admin.post(own+act, url.Values{})
		assert.Equal(t, http.StatusForbidden, code, act)
	}
	assert.GreaterOrEqual(t, o.logged("session.end", o.id("admin"), audit.Allowed), 1)
}

// TestAllowFrom: a role with an allow-list comes in from its networks only, and a session that goes elsewhere is not served.
func TestAllowFrom(t *testing.T) {
	o := newOffice(t)
	o.account("manager")
	o.account("sales")
	o.app.Config.AllowFrom = map[string][]netip.Prefix{"manager": {netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
	out := o.visitor("198.51.100.1")
	assert.Equal(t, http.StatusUnauthorized, out.signIn("manager", testPassword).Code)
	assert.Equal(t, "address not allowed for the role", o.why("session.sign_in"))
	assert.Equal(t, http.StatusSeeOther, out.signIn("sales", testPassword).Code)
	v := o.visitor("192.0.2.7")
	require.Equal(t, http.StatusSeeOther, v.signIn("manager", testPassword).Code)
	require.True(t, v.in())
	v.addr = "198.51.100.1"
	assert.False(t, v.in())
	assert.Equal(t, 1, o.logged("session.refused", o.id("manager"), audit.Denied))
}

// TestStolenCookie: another browser with the cookie ends the session.
func TestStolenCookie(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	thief := o.visitor("192.0.2.1")
	thief.agent = "curl/8.0"
	thief.jar["crm-session"] = v.jar["crm-session"]
	assert.False(t, thief.in())
	assert.False(t, v.in(), "who is the owner cannot be known")
	assert.Equal(t, 1, o.logged("session.refused", "", audit.Denied))
}

// TestOldHash: a hash that an older program stored verifies once more and is renewed.
func TestOldHash(t *testing.T) {
	o := newOffice(t)
	acc := o.account("sales")
	const text = "ｆｕｌｌwidth letters were folded" // NFKC makes plain letters of the first word
	salt := []byte("0123456789abcdef")
	b64 := base64.RawStdEncoding
	acc.Password = crm.NewText("$argon2id$v=19$m=19456,t=2,p=1$" + b64.EncodeToString(salt) + "$" +
		b64.EncodeToString(argon2.IDKey([]byte("fullwidth letters were folded"), salt, 2, 19456, 1, 32)))
	_, err := o.app.Accounts.Update(t.Context(), app.System("accounts"), acc)
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnauthorized, o.visitor("192.0.2.1").signIn("sales", "something else entirely").Code)
	require.Equal(t, http.StatusSeeOther, o.visitor("192.0.2.2").signIn("sales", text).Code)
	acc, err = o.app.AccountOf(t.Context(), o.people["sales"].ID.UUID())
	require.NoError(t, err)
	assert.False(t, strings.HasPrefix(acc.Password.Expose(), "$"))
	assert.Equal(t, http.StatusSeeOther, o.visitor("192.0.2.3").signIn("sales", text).Code)
}

// TestPasswordRules: what may not be chosen is told by its reason.
func TestPasswordRules(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	for text, want := range map[string]string{
		"fourteen chars": "at least 15 characters", "aaaaaaaaaaaaaaaaaaaaaa": "repeats one thing", "sales@demo.example": "your own name",
		testPassword: "the one before", "passwordpassword": "common",
	} {
		w := v.post("/password", "old", testPassword, "new", text, "again", text)
		assert.Equal(t, http.StatusUnprocessableEntity, w.Code, text)
		assert.Contains(t, w.Body.String(), want, text)
	}
	w := v.post("/password", "old", "wrong wrong wrong wrong", "new", "plenty of new letters", "again", "plenty of new letters")
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
	other := o.visitor("192.0.2.2")
	require.Equal(t, http.StatusSeeOther, other.signIn("sales", testPassword).Code)
	require.Equal(t, http.StatusSeeOther, v.post("/password", "old", testPassword, "new", "plenty of new letters", "again", "plenty of new letters").Code)
	assert.True(t, v.in())
	assert.False(t, other.in(), "the others end")
	assert.Equal(t, http.StatusUnauthorized, o.visitor("192.0.2.3").signIn("sales", testPassword).Code)
}

// TestNothingInTheLog: neither passwords nor codes nor tokens are in the log's files, whatever was typed where.
func TestNothingInTheLog(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	secrets := []string{"typed into the wrong box", testPassword}
	v.post("/sign-in", "email", secrets[0], "password", secrets[0])
	v.signIn("sales", testPassword)
	key, codes := v.enrolTOTP()
	v.post("/sign-out")
	v.signIn("sales", testPassword)
	v.post("/sign-in/second", "code", codes[0])
	secrets = append(secrets, v.jar["crm-session"], v.jar["crm-device"], key.Base32())
	secrets = append(secrets, codes...)
	files, err := filepath.Glob(filepath.Join(o.app.Config.Data, "log", "*"))
	require.NoError(t, err)
	found, err := o.app.Log.Query(t.Context(), audit.Filter{}, math.MaxUint64, 400)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, e := range found {
		text := fmt.Sprintf("%+v", e.Event)
		assert.False(t, slices.ContainsFunc(secrets, func(s string) bool { return s != "" && strings.Contains(text, s) }), e.Event.Action)
	}
}

// TestResetFactors: an administrator takes all factors of somebody away at once, with a fresh proof; the sessions end, the password stays, and nobody does it to themselves.
func TestResetFactors(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	key, codes := v.enrolTOTP()
	require.True(t, v.in())
	base := "/employees/" + o.id("sales") + "/sign-in/factors"
	for _, who := range []string{"manager", "peer"} {
		code, _ := o.as(who).post(base, url.Values{})
		assert.Equal(t, http.StatusNotFound, code, who)
	}
	admin := o.as("admin")
	code, _ := admin.post("/employees/"+o.id("admin")+"/sign-in/factors", url.Values{})
	assert.Equal(t, http.StatusForbidden, code, "their own")
	o.ahead.Add(int64(6 * time.Minute))
	_, to := admin.post(base, url.Values{})
	assert.Contains(t, to, "/step-up")
	require.True(t, v.in(), "nothing of that has ended anything")

	code, _ = o.as("admin").post(base, url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	assert.False(t, v.in())
	acc := o.account("sales")
	f, err := o.app.FactorsOf(t.Context(), acc)
	require.NoError(t, err)
	assert.False(t, f.Any() || f.TOTP || f.Codes > 0 || acc.Second)
	assert.Equal(t, "all factors removed", o.why("account.factor"))
	v.jar = map[string]string{}
	w := v.signIn("sales", testPassword)
	require.Equal(t, http.StatusSeeOther, w.Code, "the password stays, and is enough again")
	for _, old := range []string{key.Code(o.now()), codes[0]} {
		assert.NotEqual(t, http.StatusSeeOther, v.post("/sign-in/second", "code", old).Code)
	}
}

// TestNotices: people are told of failed tries, of signals and of changes of their sign-in since they were there last, and nobody else is.
func TestNotices(t *testing.T) {
	o := newOffice(t)
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	strip := func(v *visitor) string {
		_, rest, ok := strings.Cut(v.get("/").Body.String(), `<p class="strip warning" role="status">`)
		if !ok {
			return ""
		}
		text, _, _ := strings.Cut(rest, "<a")
		return strings.TrimSpace(text)
	}
	assert.Empty(t, strip(v), "the first time")
	v.enrolTOTP()
	assert.Contains(t, strip(v), "2 failed tries, warnings or changes", "the app and the codes: it may not have been them")

	thief := o.visitor("203.0.113.9")
	for range 2 {
		thief.signIn("sales", "wrong-Password-9")
	}
	assert.Contains(t, strip(v), "4 failed tries", "while they work")
	code, _ := o.as("admin").post("/employees/"+o.id("sales")+"/sign-in/factors", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	again := o.visitor("198.51.100.7") // and a new device
	require.Equal(t, http.StatusSeeOther, again.signIn("sales", testPassword).Code)
	assert.Contains(t, strip(again), "6 failed tries, warnings or changes", "app and codes, two tries, the factors removed, and that the sign-in before was from a new device")

	page := again.get("/sessions/history").Body.String()
	for _, want := range []string{"Failed sign-in", "somebody", "all factors removed", "an administrator or the system", "authenticator app enrolled", "a device not seen before", "Signed in"} {
		assert.Contains(t, page, want)
	}
	for _, not := range []string{"wrong-Password-9", "wrong", "password:", "argon"} {
		assert.NotContains(t, strings.ToLower(page), strings.ToLower(not))
	}
	assert.NotContains(t, again.get("/sessions/history").Body.String(), "notice.", "every word is in the catalogue")

	// Others are told of their own.
	other := o.as("peer").do(http.MethodGet, "/sessions/history", nil).Body.String()
	assert.NotContains(t, other, "Failed sign-in")
	assert.NotContains(t, other, "all factors removed")
	require.Equal(t, http.StatusSeeOther, o.visitor("192.0.2.50").get("/sessions/history").Code, "not without a sign-in")

	// A stolen cookie in another browser ends the session, and its person learns of that.
	stolen := o.visitor("192.0.2.66")
	stolen.jar = maps.Clone(again.jar)
	stolen.do(http.MethodGet, "/", nil, "User-Agent", "Mozilla/5.0 (Linux; Android 15) Chrome/150.0")
	require.False(t, again.in())
	require.Equal(t, http.StatusSeeOther, again.signIn("sales", testPassword).Code)
	assert.Contains(t, again.get("/sessions/history").Body.String(), "another browser in the same session, which was ended")
	assert.Contains(t, strip(again), "2 failed tries, warnings", "that, and the new device before")

	// The next time there is nothing new.
	again.post("/sign-out")
	require.Equal(t, http.StatusSeeOther, again.signIn("sales", testPassword).Code)
	assert.Empty(t, strip(again))
}

// TestOneTimeLapses: a one-time password that nobody has used opens nothing after a week, whoever gave it, and looks like a wrong one.
func TestOneTimeLapses(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	o.account("sales")
	first, err := o.app.AddAccount(ctx, "peer@demo.example", o.people["peer"].ID.UUID())
	require.NoError(t, err)
	reset, err := o.app.ResetPassword(ctx, "sales@demo.example")
	require.NoError(t, err)
	o.ahead.Add(int64(7*24*time.Hour + time.Minute))
	for name, once := range map[string]string{"peer": first, "sales": reset} {
		v := o.visitor("192.0.2.1")
		assert.Equal(t, http.StatusUnauthorized, v.signIn(name, once).Code, name)
		assert.Equal(t, "the one-time password was not used in time", o.why("session.sign_in"))
		assert.False(t, v.in())
	}
	o.ahead.Store(int64(6 * 24 * time.Hour))
	v := o.visitor("192.0.2.2")
	require.Equal(t, http.StatusSeeOther, v.signIn("peer", first).Code, "within the week")
	require.Equal(t, http.StatusSeeOther, v.post("/password", "old", first, "new", testPassword, "again", testPassword).Code)
	o.ahead.Store(int64(30 * 24 * time.Hour))
	assert.Equal(t, http.StatusSeeOther, v.signIn("peer", testPassword).Code, "one of their own does not end")
}

// TestHouseWords: a word of the house is in no new password, wherever it stands, and a password without it is taken.
func TestHouseWords(t *testing.T) {
	o := newOfficeWith(t, func(c *app.Config) { c.PasswordWords = []string{"Umbrella", "Racoon"} })
	o.account("sales")
	v := o.visitor("192.0.2.1")
	require.Equal(t, http.StatusSeeOther, v.signIn("sales", testPassword).Code)
	for _, weak := range []string{"umbrellaumbrella", "Umbrella-Racoon-1", "racoon racoon racoon"} {
		assert.Equal(t, http.StatusUnprocessableEntity, v.post("/password", "old", testPassword, "new", weak, "again", weak).Code, weak)
	}
	const fine = "seventeen quiet rivers"
	assert.Equal(t, http.StatusSeeOther, v.post("/password", "old", testPassword, "new", fine, "again", fine).Code)
}

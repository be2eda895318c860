package web

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/password"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/authz/review"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/realtest"
)

const testPassword = "correct horse battery staple"

// office is a CRM on SQLite with a few people and five customers of sales.
type office struct {
	t         *testing.T
	app       *app.App
	server    *Server
	people    map[string]*crm.Employee
	customers []*crm.Customer
	ahead     atomic.Int64 // by how much the clock of sign-in is ahead
}

// strict is a signed policy that wants a password for more than one row and somebody else for more than three.
var strict = sync.OnceValues(func() (bundle, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return bundle{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return bundle{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return bundle{}, err
	}
	files := fstest.MapFS{}
	err = fs.WalkDir(rego.Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.rego") && !strings.Contains(name, "tenant") { // some know the shipped numbers
			return err
		}
		b, err := fs.ReadFile(rego.Embedded(), name)
		if name == "data.json" {
			var data map[string]map[string]any
			if err := json.Unmarshal(b, &data); err != nil {
				return err
			}
			data["settings"]["export"] = map[string]any{"rows": map[string]any{"admin": 10, "manager": 10}, "step_up_rows": 1, "approval_rows": 3}
			b, err = json.Marshal(data)
		}
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		return bundle{}, err
	}
	var b bytes.Buffer
	err = rego.SignBundle(context.Background(), &b, files, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return bundle{b.Bytes(), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})}, err
})

type bundle struct{ raw, public []byte }

func config(data string) app.Config {
	return app.Config{Data: data, Addr: "localhost:0", Plain: true, PasswordCost: password.Params{Memory: 64, Time: 1, Threads: 1}, WeakPasswordCost: true}
}

func newOffice(t *testing.T) *office {
	t.Helper()
	return newOfficeWith(t, nil)
}

// onDatabases runs a test with offices on SQLite and with offices on PostgreSQL.
func onDatabases(t *testing.T, test func(t *testing.T, newOffice func(*testing.T) *office)) {
	t.Run("SQLite", func(t *testing.T) { test(t, newOffice) })
	t.Run("PostgreSQL", func(t *testing.T) {
		test(t, func(t *testing.T) *office {
			dsn := realtest.Postgres(t).DSN
			return newOfficeWith(t, func(c *app.Config) { c.DB = dsn })
		})
	})
}

// newOfficeWith is newOffice with something said of its configuration.
func newOfficeWith(t *testing.T, change func(*app.Config)) *office {
	t.Helper()
	ctx := t.Context()
	b, err := strict()
	require.NoError(t, err)
	data := t.TempDir()
	key := filepath.Join(t.TempDir(), "policy.pub")
	require.NoError(t, os.WriteFile(key, b.public, 0o600))
	o := &office{t: t, people: map[string]*crm.Employee{}}
	c := config(data)
	c.PolicyKey = key
	c.Now = o.now
	if change != nil {
		change(&c)
	}
	a, err := app.Open(ctx, c)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, a.Close()) })
	_, err = a.Populate(ctx)
	require.NoError(t, err)
	o.app = a
	o.people["admin"], err = a.Owner(ctx, "admin@demo.example")
	require.NoError(t, err)
	for _, p := range []struct{ name, role, team string }{
		{"admin2", "admin", "/office/"}, {"manager", "manager", "/east/"}, {"sales", "sales", "/east/1/"}, {"peer", "sales", "/west/1/"},
		{"third", "sales", "/west/2/"}, {"auditor", "auditor", "/audit/"},
	} {
		e := &crm.Employee{
			Name: crm.NewText(strings.ToUpper(p.name[:1]) + p.name[1:] + " Person"), Email: crm.NewText(p.name + "@demo.example"), Roles: []string{p.role},
			State: crm.EmployeeActive, Joined: time.Now().Add(-time.Hour), Meta: crm.Meta[crm.Employee]{Team: p.team},
		}
		_, err := a.Employees.Create(ctx, app.System("test"), e)
		require.NoError(t, err)
		require.NoError(t, a.RolesChanged(ctx, e.ID.UUID(), o.people["admin"].ID.String()))
		o.people[p.name] = e
	}
	for i := range 5 {
		c := &crm.Customer{
			Name: crm.NewText("=cmd|' /C calc'!A" + strconv.Itoa(i)), Phone: crm.NewText("+86 138 0013 800" + strconv.Itoa(i)), Kind: crm.CompanyCustomer, Stage: crm.CustomerNew, Currency: "CNY",
			Meta: crm.Meta[crm.Customer]{Owner: o.people["sales"].ID, Team: "/east/1/"},
		}
		_, err := a.Customers.Create(ctx, app.System("test"), c)
		require.NoError(t, err)
		o.customers = append(o.customers, c)
	}
	o.server, err = New(ctx, a)
	require.NoError(t, err)
	return o
}

// strict loads the strict policy into the running program.
func (o *office) strict() {
	b, err := strict()
	require.NoError(o.t, err)
	require.NoError(o.t, os.WriteFile(filepath.Join(o.app.Config.Data, "policy.tar.gz"), b.raw, 0o600))
	require.NoError(o.t, o.app.ReloadPolicy(o.t.Context(), false))
}

// browser is one signed-in person.
type browser struct {
	*office
	cookie *http.Cookie
	name   string
}

// as signs somebody in without their password.
func (o *office) as(name string) *browser {
	o.t.Helper()
	o.account(name)
	ctx, person := o.t.Context(), o.id(name)
	epoch, err := o.app.Sessions.Epoch(ctx, app.Tenant, person)
	require.NoError(o.t, err)
	s, err := o.app.Subject(ctx, o.people[name].ID.UUID())
	require.NoError(o.t, err)
	_, token, err := o.app.Sessions.Start(ctx, session.SignIn{
		Tenant: app.Tenant, Person: person, Epoch: epoch, Roles: s.Roles, Methods: []authn.Method{authn.Password},
		Visit: session.Visit{Addr: netip.MustParseAddr("127.0.0.1")}, KnownDevice: true,
	})
	require.NoError(o.t, err)
	return &browser{o, &http.Cookie{Name: "crm-session", Value: token.Reveal()}, name}
}

// now is the clock of sign-in.
func (o *office) now() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }

// account makes an account with testPassword for somebody who has none.
func (o *office) account(name string) *app.Account {
	o.t.Helper()
	ctx, id := o.t.Context(), o.people[name].ID.UUID()
	acc, err := o.app.AccountOf(ctx, id)
	if err == nil && !acc.OneTime {
		return acc
	}
	login := name + "@demo.example"
	once, err := o.app.ResetPassword(ctx, login)
	require.NoError(o.t, err)
	require.NoError(o.t, o.app.ChangePassword(ctx, login, once, testPassword, app.Visitor{Visit: session.Visit{Addr: netip.MustParseAddr("127.0.0.1")}}))
	acc, err = o.app.AccountOf(ctx, id)
	require.NoError(o.t, err)
	return acc
}

func (b *browser) do(method, path string, form url.Values) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.t.Context(), method, path, strings.NewReader(form.Encode()))
	r.RemoteAddr = "127.0.0.1:4000"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	r.AddCookie(b.cookie)
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != nil {
				w.Code = -1 // the connection is cut
			}
		}()
		b.server.ServeHTTP(w, r)
	}()
	b.keep(w)
	return w
}

// keep takes over a new cookie of the session.
func (b *browser) keep(w *httptest.ResponseRecorder) {
	for _, c := range w.Result().Cookies() {
		if c.Name == b.cookie.Name && c.Value != "" {
			b.cookie = c
		}
	}
}

func (b *browser) get(path string) int { b.t.Helper(); return b.do(http.MethodGet, path, nil).Code }

// post returns the status and where the answer leads.
func (b *browser) post(path string, form url.Values) (int, string) {
	b.t.Helper()
	w := b.do(http.MethodPost, path, form)
	return w.Code, w.Header().Get("Location")
}

func version(n int64) url.Values { return url.Values{"version": {strconv.FormatInt(n, 10)}} }

// caller is who asks, as the pages make it.
func (o *office) caller(name string) guard.Caller {
	s, err := o.app.Subject(o.t.Context(), o.people[name].ID.UUID())
	require.NoError(o.t, err)
	return guard.Caller{Subject: s, Environment: authz.Environment{Time: time.Now(), Purpose: "crm"}}
}

// logged counts the events of an action by somebody with an outcome.
func (o *office) logged(action, actor string, outcome audit.Outcome) int {
	o.t.Helper()
	f := audit.Filter{Action: action}
	if actor != "" {
		f.Actor = actor
	}
	found, err := o.app.Log.Query(o.t.Context(), f, math.MaxUint64, 200)
	require.NoError(o.t, err)
	return len(slices.DeleteFunc(found, func(e audit.Entry) bool { return e.Event.Outcome != outcome }))
}

func (o *office) id(name string) string { return o.people[name].ID.String() }

// tamper writes past the guard.
func (o *office) tamper(query string, args ...any) {
	o.t.Helper()
	db, err := sql.Open("sqlite", o.app.Config.DB)
	require.NoError(o.t, err)
	defer db.Close()
	r, err := db.Exec(query, args...)
	require.NoError(o.t, err)
	n, err := r.RowsAffected()
	require.NoError(o.t, err)
	require.Positive(o.t, n)
}

// TestExportApprovedByAnother: an export above the policy's number waits for somebody else's approval, and nobody approves their own.
//
//crm:item 26
func TestExportApprovedByAnother(t *testing.T) {
	o := newOffice(t)
	admin, other, sales, manager := o.as("admin"), o.as("admin2"), o.as("sales"), o.as("manager")
	reason := url.Values{"reason": {"year-end audit"}}

	// Few rows by the shipped policy: at once, with a mark, formulas made harmless, phones masked.
	w := admin.do(http.MethodPost, "/customers/export", reason)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	assert.Contains(t, w.Header().Get("Content-Disposition"), "attachment")
	in := csv.NewReader(strings.NewReader(strings.TrimPrefix(w.Body.String(), "\ufeff")))
	in.FieldsPerRecord = -1
	rows, err := in.ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 2+5+1+1, "five customers and one who does not exist")
	assert.Contains(t, rows[0], o.id("admin"))
	assert.Equal(t, []string{"# end"}, rows[8])
	assert.Contains(t, rows[2], "'=cmd|' /C calc'!A0")
	assert.NotContains(t, w.Body.String(), "138 0013 8000")
	assert.Regexp(t, `\*+.*8000`, w.Body.String())
	assert.Equal(t, 1, o.logged("customer.export", o.id("admin"), audit.Allowed))
	assert.Equal(t, 1, o.logged("export.written", o.id("admin"), audit.Allowed))
	assert.NotContains(t, w.Body.String(), "+8613800138000")

	// Without a reason, and for who may not at all.
	code, _ := admin.post("/customers/export", url.Values{"reason": {" "}})
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	assert.Equal(t, http.StatusForbidden, sales.get("/customers/export"))
	code, _ = sales.post("/customers/export", reason)
	assert.Equal(t, http.StatusForbidden, code)
	assert.Positive(t, o.logged("customer.export", o.id("sales"), audit.Denied))

	// The stricter policy is loaded while the program runs: five rows wait for somebody else.
	o.strict()
	assert.Equal(t, 1, o.logged("policy.loaded", "system", audit.Allowed)-1)
	code, at := admin.post("/customers/export", reason)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = admin.post(at+"/download", nil)
	assert.Equal(t, http.StatusUnprocessableEntity, code, "not approved")
	code, _ = admin.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusForbidden, code, "nobody approves their own")
	assert.Positive(t, o.logged("export.approve", o.id("admin"), audit.Denied))
	code, _ = sales.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = manager.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusNotFound, code, "of another team")
	code, _ = other.post(at+"/approve", version(7))
	assert.Equal(t, http.StatusConflict, code)
	code, _ = other.post(at+"/approve", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, 1, o.logged("export.approve", o.id("admin2"), audit.Intended))
	code, _ = other.post(at+"/download", nil)
	assert.Equal(t, http.StatusForbidden, code, "only who asked")
	w = admin.do(http.MethodPost, at+"/download", nil)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	assert.Contains(t, w.Body.String(), "# end")
	code, _ = admin.post(at+"/download", nil)
	assert.Equal(t, http.StatusForbidden, code, "once: what was taken is final")
	found, err := o.app.Log.Query(t.Context(), audit.Filter{Action: "customer.export", Actor: o.id("admin")}, math.MaxUint64, 1)
	require.NoError(t, err)
	assert.Equal(t, strings.TrimPrefix(at, "/exports/"), found[0].Event.Note)
	assert.Len(t, found[0].Event.Targets, 5)

	// A password that was entered long ago is asked for again; a wrong one is refused.
	o.ahead.Store(int64(10 * time.Minute))
	assert.Contains(t, other.do(http.MethodGet, "/customers/export", nil).Body.String(), `name="current"`)
	code, _ = other.post("/customers/export", reason)
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	wrong := url.Values{"reason": {"x"}, "current": {"wrong wrong wrong wrong"}}
	code, _ = other.post("/customers/export", wrong)
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	assert.Equal(t, 1, o.logged("session.step_up", o.id("admin2"), audit.Failed))
	code, at = other.post("/customers/export", url.Values{"reason": {"x"}, "current": {testPassword}})
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, 1, o.logged("session.step_up", o.id("admin2"), audit.Allowed))
	o.ahead.Store(0)
	other = o.as("admin2")

	// More rows than were approved, and a row that was changed past the guard.
	code, _ = admin.post(at+"/approve", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	_, err = o.app.Customers.Create(t.Context(), app.System("test"), &crm.Customer{
		Name: crm.NewText("Late"), Kind: crm.CompanyCustomer, Stage: crm.CustomerNew, Currency: "CNY", Meta: crm.Meta[crm.Customer]{Owner: o.people["sales"].ID, Team: "/east/1/"},
	})
	require.NoError(t, err)
	code, _ = other.post(at+"/download", nil)
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	code, at = admin.post("/customers/export", reason)
	require.Equal(t, http.StatusSeeOther, code)
	o.tamper(`UPDATE crm_rows_export SET c_state = 'approved' WHERE c_state = 'requested'`)
	code, _ = admin.post(at+"/download", nil)
	assert.Equal(t, http.StatusInternalServerError, code)
	assert.Positive(t, o.logged("guard.forged", "", audit.Failed))
}

func TestBreakGlass(t *testing.T) {
	o := newOffice(t)
	peer, admin, admin2, manager, auditor := o.as("peer"), o.as("admin"), o.as("admin2"), o.as("manager"), o.as("auditor")
	customer := "/customers/" + o.customers[0].ID.String()
	require.Equal(t, http.StatusNotFound, peer.get(customer))
	ask := url.Values{"record_type": {"customer"}, "hours": {"2"}, "reason": {"outage at the customer, colleague unreachable"}}
	code, _ := peer.post("/emergencies", url.Values{"record_type": {"customer"}, "hours": {"9"}, "reason": {"x"}})
	assert.Equal(t, http.StatusUnprocessableEntity, code, "four hours at most")
	code, at := peer.post("/emergencies", ask)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = peer.post("/emergencies", ask)
	assert.Equal(t, http.StatusUnprocessableEntity, code, "one at a time")
	code, _ = peer.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusForbidden, code, "not one's own")
	code, _ = manager.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusNotFound, code, "of another team")
	code, _ = admin.post(at+"/approve", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusNotFound, peer.get(customer), "one approval is not enough")
	code, _ = admin.post(at+"/approve", version(2))
	assert.Equal(t, http.StatusForbidden, code, "nobody counts twice")
	code, _ = admin2.post(at+"/approve", version(2))
	require.Equal(t, http.StatusSeeOther, code)

	// Open: records of the type, and of no other; reveals need their own reason.
	assert.Equal(t, http.StatusOK, peer.get(customer))
	assert.Equal(t, http.StatusOK, peer.get("/customers"))
	code, _ = peer.post(customer+"/reveal/phone", url.Values{"reason": {""}})
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	w := peer.do(http.MethodPost, customer+"/reveal/phone", url.Values{"reason": {"calling them now"}})
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), "138 0013 8000")
	code, _ = peer.post(customer+"/delete", version(1))
	assert.Equal(t, http.StatusForbidden, code, "to see is not to change")
	found, err := o.app.Log.Query(t.Context(), audit.Filter{Action: "customer.reveal", Actor: o.id("peer")}, math.MaxUint64, 1)
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Contains(t, found[0].Event.Controls, "emergency")
	assert.Equal(t, strings.TrimPrefix(at, "/emergencies/"), found[0].Event.Note)

	// Reading through it without the obligations is denied.
	bare := o.caller("peer")
	_, err = o.app.Customers.Get(t.Context(), bare, o.customers[0].ID.UUID())
	require.ErrorIs(t, err, crm.ErrNotFound)

	// Not over yet, so not to be reviewed; then it ends, and stays in the way until somebody else has looked.
	review := func(n int64) url.Values { v := version(n); v.Set("justified", "yes"); return v }
	code, _ = auditor.post(at+"/review", review(3))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	o.end(at)
	assert.Equal(t, http.StatusNotFound, peer.get(customer), "ended")
	code, _ = peer.post("/emergencies", ask)
	assert.Equal(t, http.StatusUnprocessableEntity, code, "not reviewed")
	assert.Contains(t, auditor.do(http.MethodGet, "/emergencies?show=review", nil).Body.String(), strings.TrimPrefix(at, "/"))
	code, _ = peer.post(at+"/review", review(4))
	assert.Equal(t, http.StatusForbidden, code)
	code, _ = admin.post(at+"/review", review(4))
	assert.Equal(t, http.StatusForbidden, code, "not by who approved it")
	code, _ = auditor.post(at+"/review", review(4))
	require.Equal(t, http.StatusSeeOther, code)
	code, again := peer.post("/emergencies", ask)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = admin.post(again+"/refuse", version(1))
	assert.Equal(t, http.StatusSeeOther, code)
	code, _ = admin2.post(again+"/approve", version(2))
	assert.Equal(t, http.StatusUnprocessableEntity, code, "refused")
	assert.Equal(t, 2, o.logged("emergency.create", o.id("peer"), audit.Intended))
	assert.Equal(t, 1, o.logged("emergency.certify", o.id("auditor"), audit.Intended))

	// A row that was written past the guard opens nothing.
	o.tamper(`UPDATE crm_rows_emergency SET c_state = 'active', c_ends = ?, change_seq = change_seq + 100000`, time.Now().Add(time.Hour).UnixMicro())
	time.Sleep(3500 * time.Millisecond)
	assert.Equal(t, http.StatusNotFound, peer.get(customer))
}

// end lets an emergency end now, as if its hours had passed: through the store of a test, with a right that no role has.
func (o *office) end(at string) {
	o.t.Helper()
	u, err := crm.ParseUUID(strings.TrimPrefix(at, "/emergencies/"))
	require.NoError(o.t, err)
	g, _, err := guard.New(o.t.Context(), o.app.Store(), o.app.Keeper, anything{o.app.Policy}, o.app.Log, nil)
	require.NoError(o.t, err)
	records, err := guard.For[*early](o.t.Context(), g, &guard.TypeOptions{Type: crm.TypeEmergency})
	require.NoError(o.t, err)
	v, err := records.Get(o.t.Context(), app.System("test"), u)
	require.NoError(o.t, err)
	require.NoError(o.t, records.Act(o.t.Context(), app.System("test"), authz.Update, u, v.Value.Version, func(e *early) error {
		e.Starts, e.Ends = e.Starts.Add(-3*time.Hour), time.Now().Add(-time.Second)
		return nil
	}))
	time.Sleep(3500 * time.Millisecond) // as for a write of another instance
}

// early is an emergency without the rule that its end stays.
type early struct {
	crm.Meta[early]
	RecordType string               `protect:"internal,indexed"`
	Reason     crm.Text             `protect:"personal"`
	Hours      int64                `protect:"internal"`
	State      crm.EmergencyState   `protect:"internal,indexed"`
	Approvers  string               `protect:"internal"`
	Actors     string               `protect:"internal"`
	Starts     time.Time            `protect:"internal"`
	Ends       time.Time            `protect:"internal,indexed"`
	Reviewer   crm.ID[crm.Employee] `protect:"internal"`
	ReviewedAt time.Time            `protect:"internal"`
	Justified  bool                 `protect:"internal"`
}

// anything allows the system's updates.
type anything struct{ authz.Authorizer }

func (a anything) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	if r.Subject.ID == "system" && r.Action == authz.Update {
		r.Action, r.Resource.Type = authz.Update, crm.TypeExport
	}
	return a.Authorizer.Decide(ctx, r)
}

func TestDeputy(t *testing.T) {
	o := newOffice(t)
	sales, peer, third := o.as("sales"), o.as("peer"), o.as("third")
	customer := "/customers/" + o.customers[0].ID.String()
	require.Equal(t, http.StatusNotFound, peer.get(customer))
	day := func(n int) string { return time.Now().AddDate(0, 0, n).Format(time.DateOnly) }
	name := func(deputy string, from, to int, actions ...string) url.Values {
		return url.Values{"deputy": {o.id(deputy)}, "actions": actions, "starts": {day(from)}, "ends": {day(to)}}
	}
	for what, form := range map[string]url.Values{
		"oneself": name("sales", -1, 5, "read"), "no actions": name("peer", -1, 5), "too long": name("peer", 0, 70, "read"), "over": name("peer", -9, -2, "read"),
	} {
		code, _ := sales.post("/delegations", form)
		assert.Equal(t, http.StatusUnprocessableEntity, code, what)
	}
	code, at := sales.post("/delegations", name("peer", -1, 5, "list", "read"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusOK, peer.get(customer))
	assert.Equal(t, http.StatusNotFound, third.get(customer))
	code, _ = peer.post(customer+"/delete", version(1))
	assert.Equal(t, http.StatusForbidden, code, "not what was lent")
	// What peer got does not pass on.
	code, _ = peer.post("/delegations", name("third", -1, 5, "list", "read"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusNotFound, third.get(customer))
	// One that begins later does not count yet.
	code, _ = sales.post("/delegations", name("third", 2, 5, "list", "read"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusNotFound, third.get(customer))
	// It is ended early, by who gave it and not by who got it.
	code, _ = peer.post(at+"/delete", version(1))
	assert.NotEqual(t, http.StatusSeeOther, code)
	code, _ = sales.post(at+"/delete", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusNotFound, peer.get(customer))
	assert.Equal(t, 2, o.logged("delegation.create", o.id("sales"), audit.Intended))
	assert.Equal(t, 1, o.logged("delegation.delete", o.id("sales"), audit.Intended))
	code, _ = sales.post(at+"/restore", version(2))
	assert.NotEqual(t, http.StatusSeeOther, code, "ended is ended")
	// Who has left lends nothing.
	code, _ = sales.post("/delegations", name("peer", -1, 5, "list", "read"))
	require.Equal(t, http.StatusSeeOther, code)
	require.Equal(t, http.StatusOK, peer.get(customer))
	v, err := o.app.Employees.Get(t.Context(), app.System("test"), o.people["sales"].ID.UUID())
	require.NoError(t, err)
	require.NoError(t, v.Value.Move(crm.EmployeeSuspended, time.Now()))
	_, err = o.app.Employees.Update(t.Context(), app.System("test"), v.Value)
	require.NoError(t, err)
	assert.Equal(t, http.StatusNotFound, peer.get(customer))
	assert.Equal(t, http.StatusSeeOther, sales.get("/"), "and may not act")
}

func TestShare(t *testing.T) {
	o := newOffice(t)
	sales, peer, manager := o.as("sales"), o.as("peer"), o.as("manager")
	customer, next := "/customers/"+o.customers[0].ID.String(), "/customers/"+o.customers[1].ID.String()
	share := func(with string, days int, actions ...string) url.Values {
		return url.Values{
			"record_type": {"customer"}, "record": {o.customers[0].ID.String()}, "with": {o.id(with)}, "actions": actions,
			"ends": {time.Now().AddDate(0, 0, days).Format(time.DateOnly)},
		}
	}
	require.Equal(t, http.StatusNotFound, peer.get(customer))
	code, _ := peer.post("/sharings", share("third", 5, "read"))
	assert.Equal(t, http.StatusNotFound, code, "not even readable")
	code, _ = manager.post("/sharings", share("peer", 5, "read"))
	assert.Equal(t, http.StatusForbidden, code, "not the owner")
	assert.Positive(t, o.logged("customer.share", o.id("manager"), audit.Denied))
	code, _ = sales.post("/sharings", share("peer", 900, "read"))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	wrong := share("peer", 5, "read")
	wrong.Set("record_type", "employee")
	code, _ = sales.post("/sharings", wrong)
	assert.Equal(t, http.StatusNotFound, code, "wrong type")
	code, at := sales.post("/sharings", share("peer", 5, "list", "read"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusOK, peer.get(customer))
	assert.Equal(t, http.StatusNotFound, peer.get(next), "one record only")
	assert.Contains(t, peer.do(http.MethodGet, "/customers", nil).Body.String(), customer)
	code, _ = peer.post("/sharings", share("third", 5, "read"))
	assert.Equal(t, http.StatusForbidden, code, "not passed on")
	code, _ = peer.post(customer, version(1))
	assert.Equal(t, http.StatusForbidden, code, "not to be changed")
	assert.Equal(t, 2, o.logged("customer.share", o.id("sales"), audit.Allowed))
	assert.Equal(t, 1, o.logged("sharing.create", o.id("sales"), audit.Intended))
	code, _ = sales.post(at+"/delete", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusNotFound, peer.get(customer), "withdrawn")
}

// TestCertification: a campaign asks for every role of everybody; what is revoked, or decided by nobody until it closes, is taken away.
//
//crm:item 27
func TestCertification(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	admin, admin2, sales, manager := o.as("admin"), o.as("admin2"), o.as("sales"), o.as("manager")
	s := o.caller("sales").Subject
	require.Equal(t, []string{"sales"}, s.Roles)
	require.Len(t, s.Grants, 1)
	assert.WithinDuration(t, time.Now().AddDate(0, 0, 180), s.Grants[0].Until, 26*time.Hour)
	assert.Equal(t, 1, o.logged("crm.certified", "system", audit.Allowed))

	open := url.Values{"due": {time.Now().AddDate(0, 0, 14).Format(time.DateOnly)}, "days": {"90"}}
	code, _ := sales.post("/campaigns", open)
	assert.Equal(t, http.StatusForbidden, code)
	code, at := admin.post("/campaigns", open)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = admin.post("/campaigns", open)
	assert.Equal(t, http.StatusConflict, code, "one at a time")
	item := func(name, role string) string { return at + "/items/" + o.id(name) + "/" + role }
	outcome := func(o string) url.Values { return url.Values{"outcome": {o}, "version": {"1"}} }
	code, _ = admin.post(item("admin", "admin"), outcome("kept"))
	assert.Equal(t, http.StatusForbidden, code, "not one's own")
	code, _ = sales.post(item("sales", "sales"), outcome("kept"))
	assert.NotEqual(t, http.StatusSeeOther, code)
	code, _ = admin.post(item("sales", "sales"), outcome("kept"))
	assert.Equal(t, http.StatusForbidden, code, "the manager of the team is asked")
	code, _ = manager.post(item("sales", "sales"), outcome("maybe"))
	assert.Equal(t, http.StatusBadRequest, code)
	code, _ = manager.post(item("sales", "sales"), outcome("revoked"))
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = manager.post(item("sales", "sales"), outcome("kept"))
	assert.Equal(t, http.StatusConflict, code, "a revocation stands")
	code, _ = admin.post(at+"/close", version(1))
	assert.Equal(t, http.StatusConflict, code, "not all is decided")
	u, err := crm.ParseUUID(strings.TrimPrefix(at, "/campaigns/"))
	require.NoError(t, err)

	decide := func(what map[string]string) {
		_, c, err := o.app.Campaign(ctx, o.caller("admin"), u)
		require.NoError(t, err)
		for _, it := range c.Items {
			if it.Outcome == review.Revoked {
				continue
			}
			outcome := review.Kept
			if what[it.Subject] != "" {
				outcome = review.Outcome(what[it.Subject])
			}
			for name, e := range o.people {
				if e.ID.String() == it.Reviewer {
					subject, err := crm.ParseUUID(it.Subject)
					require.NoError(t, err)
					require.NoError(t, o.app.DecideCertification(ctx, o.caller(name), u, subject, it.Role, outcome))
				}
			}
		}
	}
	// Both administrators revoke each other: refused at the close, for nobody could give the role back.
	decide(map[string]string{o.id("admin"): "revoked", o.id("admin2"): "revoked"})
	code, _ = admin.post(at+"/close", version(1))
	assert.Equal(t, http.StatusConflict, code)
	assert.Equal(t, http.StatusOK, admin.get(at))
	w := admin.do(http.MethodGet, at+"/report.csv", nil)
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), "revoked")
	assert.Equal(t, http.StatusOK, admin.get(at+"/report.html"))

	// A third administrator stays, so it closes; what was revoked counts no more at the next request.
	e := &crm.Employee{
		Name: crm.NewText("New Admin"), Email: crm.NewText("admin3@demo.example"), Roles: []string{"admin"}, State: crm.EmployeeActive,
		Joined: time.Now().Add(-time.Hour), Meta: crm.Meta[crm.Employee]{Team: "/office/"},
	}
	_, err = o.app.Employees.Create(ctx, app.System("test"), e)
	require.NoError(t, err)
	require.NoError(t, o.app.RolesChanged(ctx, e.ID.UUID(), e.ID.String()))
	o.people["admin3"] = e
	assert.Empty(t, o.caller("admin3").Subject.Roles, "nobody certifies themselves")
	require.NoError(t, o.app.RolesChanged(ctx, e.ID.UUID(), o.id("admin")))
	assert.Equal(t, []string{"admin"}, o.caller("admin3").Subject.Roles)
	require.Equal(t, http.StatusOK, sales.get("/customers"))
	code, _ = admin2.post(at+"/close", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusForbidden, sales.get("/customers"), "revoked")
	assert.Empty(t, o.caller("admin").Subject.Roles)
	assert.Equal(t, []string{"manager"}, o.caller("manager").Subject.Roles)
	code, _ = admin2.post(at+"/close", version(2))
	assert.NotEqual(t, http.StatusSeeOther, code, "closed")
	assert.Positive(t, o.logged("certification.certify", o.id("manager"), audit.Intended))
	assert.Positive(t, o.logged("certification.certify", o.id("admin"), audit.Denied))
	assert.Equal(t, 1, o.logged("campaign.update", o.id("admin2"), audit.Intended))
	roles, err := o.app.CertifyAccount(ctx, "admin@demo.example")
	require.NoError(t, err)
	assert.Equal(t, []string{"admin"}, roles)
	assert.Equal(t, []string{"admin"}, o.caller("admin").Subject.Roles)
	assert.Equal(t, 1, o.logged("account.certified", "system", audit.Allowed))

	// An edit does not renew what was revoked; taking the role away and giving it again does, by somebody else.
	require.NoError(t, o.app.RolesChanged(ctx, o.people["sales"].ID.UUID(), o.id("admin3")))
	assert.Empty(t, o.caller("sales").Subject.Roles)
	for _, roles := range [][]string{nil, {"sales"}} {
		v, err := o.app.Employees.Get(ctx, app.System("test"), o.people["sales"].ID.UUID())
		require.NoError(t, err)
		v.Value.Roles = roles
		_, err = o.app.Employees.Update(ctx, app.System("test"), v.Value)
		require.NoError(t, err)
		require.NoError(t, o.app.RolesChanged(ctx, o.people["sales"].ID.UUID(), o.id("admin3")))
		assert.Equal(t, len(roles), len(o.caller("sales").Subject.Roles))
	}

	// A role that is only written into a row counts for nothing, and nobody works on a forged directory.
	o.tamper(`UPDATE crm_rows_certification SET c_until = c_until + 1000000, change_seq = change_seq + 100000`)
	time.Sleep(3500 * time.Millisecond)
	assert.Equal(t, http.StatusInternalServerError, sales.get("/customers"))
}

func TestPolicyBundle(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	shipped := o.app.Policy.Revision()
	file := filepath.Join(o.app.Config.Data, "policy.tar.gz")
	b, err := strict()
	require.NoError(t, err)
	flipped := slices.Clone(b.raw)
	flipped[len(flipped)/2] ^= 1
	put := func(raw []byte) { require.NoError(t, os.WriteFile(file, raw, 0o600)) }
	for i, raw := range [][]byte{b.raw[:len(b.raw)/2], []byte("nothing"), flipped} {
		put(raw)
		require.Error(t, o.app.ReloadPolicy(ctx, false))
		require.NoError(t, o.app.ReloadPolicy(ctx, false), "a file is refused once")
		assert.Equal(t, shipped, o.app.Policy.Revision())
		assert.Equal(t, i+1, o.logged("policy.refused", "system", audit.Failed))
	}
	put(b.raw)
	require.NoError(t, o.app.ReloadPolicy(ctx, true))
	assert.Equal(t, shipped, o.app.Policy.Revision(), "a file that has just changed may still be being written")
	require.NoError(t, o.app.ReloadPolicy(ctx, true))
	loaded := o.app.Policy.Revision()
	require.NotEqual(t, shipped, loaded)
	found, err := o.app.Log.Query(ctx, audit.Filter{Action: "policy.loaded"}, math.MaxUint64, 1)
	require.NoError(t, err)
	assert.Equal(t, "from "+shipped+" to "+loaded, found[0].Event.Note)

	// A restart keeps it, also when the file was damaged meanwhile.
	c := o.app.Config
	require.NoError(t, o.app.Close())
	put([]byte("damaged"))
	a, err := app.Open(ctx, c)
	require.NoError(t, err)
	assert.Equal(t, loaded, a.Policy.Revision())
	require.NoError(t, a.Close())
	require.NoError(t, os.Remove(filepath.Join(c.Data, "policy.loaded.tar.gz")))
	_, err = app.Open(ctx, c)
	require.Error(t, err, "no worse policy takes its place")
}

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "Ada": "Ada", "=1+1": "'=1+1", "+86 138": "'+86 138", "-12.50": "-12.50", "-1+1": "'-1+1", "@sum": "'@sum", "\tx": "'\tx", " =1": "' =1", "＝1": "'＝1", "李": "李", "%x": "'%x",
	} {
		assert.Equal(t, want, transfer.Harmless(in), in)
	}
}

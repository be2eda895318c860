package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// hire adds somebody who works here.
func (o *office) hire(name, role, team string) *browser {
	o.t.Helper()
	e := &crm.Employee{
		Name: crm.NewText(strings.ToUpper(name[:1]) + name[1:] + " Person"), Email: crm.NewText(name + "@demo.example"), Roles: []string{role},
		State: crm.EmployeeActive, Joined: time.Now().Add(-time.Hour), Meta: crm.Meta[crm.Employee]{Team: team},
	}
	_, err := o.app.Employees.Create(o.t.Context(), app.System("test"), e)
	require.NoError(o.t, err)
	require.NoError(o.t, o.app.RolesChanged(o.t.Context(), e.ID.UUID(), o.people["admin"].ID.String()))
	require.NoError(o.t, o.server.reloadNames(o.t.Context()))
	o.people[name] = e
	return o.as(name)
}

// poolFields is a posted pool of customers with sales and peer as members and manager as administrator.
func (o *office) poolFields(more ...string) url.Values {
	v := url.Values{
		"name": {"East"}, "record_type": {"customer"}, "mode": {"claim"}, "zone": {"Asia/Shanghai"}, "protect": {"10"}, "extend": {"3"}, "max": {"20"},
		"remind_days": {"2"}, "members": {o.id("sales"), o.id("peer")}, "admins": {o.id("manager")}, "hide": {"city"},
	}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v
}

// pool has the administrator make a pool, and its administrator put customers into it; it returns the pool's page.
func (o *office) pool(customers []*crm.Customer, more ...string) string {
	o.t.Helper()
	code, at := o.as("admin").post("/pools", o.poolFields(more...))
	require.Equal(o.t, http.StatusSeeOther, code)
	for _, c := range customers {
		o.enter(at, c)
	}
	return at
}

func (o *office) enter(at string, c *crm.Customer) {
	o.t.Helper()
	form := version(0)
	form.Set("to", strings.TrimPrefix(at, "/pools/"))
	code, _ := o.as("manager").post("/customers/"+c.ID.String()+"/enter", form)
	require.Equal(o.t, http.StatusSeeOther, code)
}

// stored is a customer as it is.
func (o *office) stored(c *crm.Customer) crm.Customer {
	o.t.Helper()
	v, err := o.app.Customers.Get(o.t.Context(), app.System("test"), c.ID.UUID())
	require.NoError(o.t, err)
	return *v.Value
}

func claimed(c *crm.Customer) url.Values { return url.Values{"record": {c.ID.String()}} }

// body is a page.
func (b *browser) body(path string) string {
	b.t.Helper()
	return b.do(http.MethodGet, path, nil).Body.String()
}

func to(who string, more ...string) url.Values {
	v := version(0)
	v.Set("to", who)
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v
}

// TestPoolOneWins: two claim the same record from the page of its pool; one has it, the other is told, and who is no member learns of nothing.
func TestPoolOneWins(t *testing.T) {
	o := newOffice(t)
	at := o.pool(o.customers[:2], "hold_cap", "1")
	wanted, other := o.customers[0], o.customers[1]
	page := "/customers/" + wanted.ID.String()
	members := []*browser{o.as("sales"), o.as("peer")}
	third, auditor := o.as("third"), o.as("auditor")

	// Before the claim: masked, hidden where the pool says so, and without a page of its own.
	for _, b := range members {
		body := b.body(at)
		assert.Contains(t, body, wanted.ID.String())
		assert.Contains(t, body, "8000", "the mask shows the last four")
		for _, secret := range []string{"=cmd", "0013 8000", "13800138000", "+86", `href="/customers/` + wanted.ID.String(), "/reveal/", "field.city"} {
			assert.NotContains(t, body, secret)
		}
		assert.Equal(t, http.StatusNotFound, b.get(page))
		assert.Equal(t, http.StatusNotFound, b.get(page+"/reveal/phone"))
		assert.Equal(t, http.StatusOK, b.get(at+"?sort=last_follow_up"))
	}
	assert.NotContains(t, third.body(at), wanted.ID.String())
	assert.Contains(t, third.body(at), "Only members of the pool")
	for _, x := range []struct {
		b    *browser
		code int
	}{{third, http.StatusNotFound}, {auditor, http.StatusForbidden}} {
		code, _ := x.b.post(at+"/claim", claimed(wanted))
		assert.Equal(t, x.code, code)
		code, _ = x.b.post(page+"/claim", version(0))
		assert.Equal(t, x.code, code)
	}

	codes := make([]int, 2)
	bodies := make([]string, 2)
	var wg sync.WaitGroup
	for i, b := range members {
		wg.Go(func() {
			w := b.do(http.MethodPost, at+"/claim", claimed(wanted))
			codes[i], bodies[i] = w.Code, w.Body.String()
		})
	}
	wg.Wait()
	require.ElementsMatch(t, []int{http.StatusSeeOther, http.StatusConflict}, codes)
	winner, loser := 0, 1
	if codes[1] == http.StatusSeeOther {
		winner, loser = 1, 0
	}
	assert.Contains(t, bodies[loser], "Somebody else has it by now")
	t.Logf("two claim at once: %d and %d; the other is told %q", codes[winner], codes[loser], "Somebody else has it by now.")
	assert.Equal(t, o.people[members[winner].name].ID, o.stored(wanted).Owner)
	assert.Contains(t, members[winner].body(page), "=cmd")
	assert.Equal(t, http.StatusNotFound, members[loser].get(page))
	assert.NotContains(t, members[loser].body(at), wanted.ID.String())

	// The cap: what is said in both languages. Who is too late later is told the same.
	w := members[winner].do(http.MethodPost, at+"/claim", claimed(other))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.Contains(t, w.Body.String(), "The cap on records of this pool is reached")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, at+"/claim", strings.NewReader(claimed(other).Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Accept-Language", "zh-CN")
	r.RemoteAddr = "127.0.0.1:4000"
	r.AddCookie(members[winner].cookie)
	zh := httptest.NewRecorder()
	o.server.ServeHTTP(zh, r)
	assert.Equal(t, http.StatusConflict, zh.Code)
	assert.Contains(t, zh.Body.String(), "已达到本公海的持有上限")
	code, _ := members[loser].post(at+"/claim", claimed(wanted))
	assert.Equal(t, http.StatusConflict, code)
	code, _ = members[loser].post(at+"/claim", claimed(other))
	assert.Equal(t, http.StatusSeeOther, code)
	code, _ = members[loser].post(at+"/claim", url.Values{"record": {"nonsense"}})
	assert.Equal(t, http.StatusBadRequest, code)
}

// TestPoolActs: every act on who has a record is done by who may, and refused to two others each.
func TestPoolActs(t *testing.T) {
	o := newOffice(t)
	at := o.pool(nil, "lock_cap", "1")
	sales, peer, third, auditor, manager := o.as("sales"), o.as("peer"), o.as("third"), o.as("auditor"), o.as("manager")
	c := o.customers[0]
	page := "/customers/" + c.ID.String()
	refuse := func(act string, form url.Values, who ...*browser) {
		t.Helper()
		before := o.stored(c)
		for _, b := range who {
			code, _ := b.post(page+"/"+act, form)
			assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code, "%s by %s", act, b.name)
		}
		assert.Equal(t, before.Version, o.stored(c).Version)
	}
	done := 0
	allow := func(b *browser, act string, form url.Values) {
		t.Helper()
		w := b.do(http.MethodPost, page+"/"+act, form)
		require.Equal(t, http.StatusSeeOther, w.Code, "%s by %s: %s", act, b.name, w.Body.String())
		done++
	}
	button := func(b *browser, act string, want bool) {
		t.Helper()
		assert.Equal(t, want, strings.Contains(b.body(page), `action="`+page+"/"+act+`"`), "%s for %s", act, b.name)
	}

	// Out of no pool: the owner gives it to a colleague, or into a pool.
	button(sales, "transfer", true)
	button(sales, "enter", true)
	button(sales, "release", false)
	button(auditor, "transfer", false)
	refuse("transfer", to(o.id("peer")), peer, auditor, third)
	refuse("enter", to(strings.TrimPrefix(at, "/pools/")), third, auditor)
	allow(sales, "enter", to(strings.TrimPrefix(at, "/pools/")))
	assert.True(t, o.stored(c).Owner.IsZero())

	// Free: members claim, the administrator gives it to a member and to nobody else.
	button(manager, "claim", true)
	button(manager, "assign", true)
	refuse("claim", version(0), third, auditor)
	refuse("assign", to(o.id("peer")), sales, third, auditor)
	code, _ := manager.post(page+"/assign", to(o.id("third")))
	assert.Equal(t, http.StatusForbidden, code, "third is no member")
	code, _ = manager.post(page+"/assign", to("nobody"))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	allow(manager, "assign", to(o.id("sales")))
	got := o.stored(c)
	assert.Equal(t, o.people["sales"].ID, got.Owner)
	assert.Equal(t, "/east/1/", got.Team)
	assert.WithinDuration(t, time.Now().AddDate(0, 0, 10), got.RecycleAt, 2*time.Hour)

	// Locked within the cap, and not given back while it is.
	button(sales, "lock", true)
	refuse("lock", version(0), third, auditor)
	allow(sales, "lock", version(0))
	button(sales, "release", false)
	code, _ = sales.post(page+"/release", version(0))
	assert.Equal(t, http.StatusConflict, code, "locked")
	refuse("unlock", version(0), third, auditor)
	allow(sales, "unlock", version(0))

	// Given to another member, and back to the pool.
	refuse("transfer", to(o.id("third")), sales, auditor)
	refuse("release", version(0), third, auditor)
	code, _ = sales.post(page+"/transfer", url.Values{"version": {"1"}, "to": {o.id("peer")}})
	assert.Equal(t, http.StatusConflict, code, "an old version")
	allow(sales, "transfer", to(o.id("peer")))
	assert.Equal(t, http.StatusNotFound, sales.get(page))
	allow(peer, "release", version(0))
	allow(sales, "claim", version(0))
	t.Logf("%d acts allowed, each refused to two others", done)

	// The history of its owners, for who may list it; the owner is no field of the form, and no update sets it.
	body := manager.body(page)
	assert.Contains(t, body, "Who has had it")
	assert.Contains(t, body, "Given back")
	form := url.Values{"version": {"0"}, "owner": {o.id("peer")}, "pool": {""}, "free_in": {""}, "name": {"Renamed"}}
	form.Set("version", strconv.FormatInt(o.stored(c).Version, 10))
	code, _ = sales.post(page, form)
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, o.people["sales"].ID, o.stored(c).Owner)
	assert.NotContains(t, sales.body(page+"/edit"), `name="owner"`)
	assert.Equal(t, 1, o.logged("customer.assign", o.id("manager"), audit.Intended))
	assert.Positive(t, o.logged("customer.assign", o.id("sales"), audit.Denied))
}

// TestPoolMade: pools are made and changed by administrators only, and new clocks reach the records.
func TestPoolMade(t *testing.T) {
	o := newOffice(t)
	for _, b := range []*browser{o.as("sales"), o.as("manager"), o.as("auditor")} {
		code, _ := b.post("/pools", o.poolFields())
		assert.Equal(t, http.StatusForbidden, code, b.name)
		assert.Equal(t, http.StatusForbidden, b.get("/pools/new"))
	}
	admin := o.as("admin")
	code, _ := admin.post("/pools", o.poolFields("protect", "x"))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	code, _ = admin.post("/pools", o.poolFields("zone", "Local"))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	code, _ = admin.post("/pools", o.poolFields("name", ""))
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	at := o.pool(o.customers[:1])
	code, _ = o.as("sales").post(at+"/claim", claimed(o.customers[0]))
	require.Equal(t, http.StatusSeeOther, code)
	before := o.stored(o.customers[0]).RecycleAt
	edit := o.poolFields("protect", "15", "version", "1")
	for _, b := range []*browser{o.as("manager"), o.as("sales")} {
		code, _ = b.post(at, edit)
		assert.Equal(t, http.StatusForbidden, code)
		assert.Equal(t, http.StatusForbidden, b.get(at+"/edit"))
	}
	assert.Contains(t, admin.body(at+"/edit"), `value="Asia/Shanghai"`)
	code, _ = admin.post(at, edit)
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, before.AddDate(0, 0, 5), o.stored(o.customers[0]).RecycleAt)
	code, _ = admin.post(at, edit)
	assert.Equal(t, http.StatusConflict, code, "an old version")

	list := admin.body("/pools")
	assert.Contains(t, list, "East")
	assert.Contains(t, list, "15 days from the claim")
	assert.Contains(t, o.as("sales").body("/"), `href="/pools"`)
	assert.NotContains(t, o.as("sales").body("/"), `href="/numbers"`)
}

// TestPoolClock: the owner is told on the start page, and the program gives back what the clock lets go.
func TestPoolClock(t *testing.T) {
	o := newOffice(t)
	at := o.pool(o.customers[:1], "protect", "2", "extend", "0", "max", "2", "remind_days", "5")
	sales := o.as("sales")
	code, _ := sales.post(at+"/claim", claimed(o.customers[0]))
	require.Equal(t, http.StatusSeeOther, code)
	body := sales.body("/")
	assert.Contains(t, body, "that go back to their pool soon")
	assert.Contains(t, body, "East")
	assert.NotContains(t, o.as("peer").body("/"), "that go back to their pool soon")
	n, err := o.app.SweepPools(t.Context())
	require.NoError(t, err)
	assert.Zero(t, n.Pools, "nothing is due, so nothing is read")
	assert.Zero(t, o.logged("customer.recycle", "system", audit.Intended))

	// A follow-up is noted with the customer, in one act.
	f := url.Values{"customer": {o.customers[0].ID.String()}, "channel": {"call"}, "text": {"spoke"}, "at": {time.Now().Format("2006-01-02T15:04")}}
	code, _ = sales.post("/follow-ups", f)
	require.Equal(t, http.StatusSeeOther, code)
	assert.WithinDuration(t, time.Now(), o.stored(o.customers[0]).LastFollowUp, 2*time.Minute)
	assert.Equal(t, 1, o.logged("follow_up.create", o.id("sales"), audit.Intended))
	code, _ = o.as("third").post("/follow-ups", f)
	assert.Equal(t, http.StatusNotFound, code)
	code, _ = o.as("auditor").post("/follow-ups", f)
	assert.Equal(t, http.StatusForbidden, code)

}

// TestBinWithRelations: what belongs to a customer goes and comes back with it.
func TestBinWithRelations(t *testing.T) {
	o := newOffice(t)
	c := o.customers[0]
	sales := o.as("sales")
	page := "/customers/" + c.ID.String()
	for range 2 {
		code, _ := sales.post("/contacts", url.Values{"customer": {c.ID.String()}, "name": {"Ann Lee"}})
		require.Equal(t, http.StatusSeeOther, code)
	}
	for _, b := range []*browser{o.as("third"), o.as("auditor")} {
		code, _ := b.post(page+"/delete", version(1))
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code)
	}
	follow := func(w *httptest.ResponseRecorder) string {
		t.Helper()
		require.Equal(t, http.StatusSeeOther, w.Code, w.Body.String())
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, w.Header().Get("Location"), nil)
		r.RemoteAddr = "127.0.0.1:4000"
		r.AddCookie(sales.cookie)
		for _, k := range w.Result().Cookies() {
			r.AddCookie(k)
		}
		out := httptest.NewRecorder()
		o.server.ServeHTTP(out, r)
		return out.Body.String()
	}
	said := follow(sales.do(http.MethodPost, page+"/delete", version(1)))
	assert.Contains(t, said, "with 2 records that belong to it")
	bin := sales.body("/customers?show=bin")
	assert.Contains(t, bin, "Gone for good on")
	assert.Contains(t, bin, time.Now().AddDate(0, 0, 30).Format("2006"))
	assert.Contains(t, sales.body(page), "It can be restored until")
	assert.NotContains(t, sales.body("/contacts"), "Ann Lee")
	for _, b := range []*browser{o.as("third"), o.as("auditor")} {
		code, _ := b.post(page+"/restore", version(2))
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code)
	}
	assert.Contains(t, follow(sales.do(http.MethodPost, page+"/restore", version(2))), "with 2 records that belong to it")
	assert.Contains(t, sales.body(page), "A")

	// Something below it is not theirs: all or nothing.
	theirs := &crm.Contact{Customer: c.ID, Name: crm.NewText("Eve"), Meta: crm.Meta[crm.Contact]{Owner: o.people["peer"].ID, Team: "/west/1/"}}
	_, err := o.app.Contacts.Create(t.Context(), app.System("test"), theirs)
	require.NoError(t, err)
	code, _ := sales.post(page+"/delete", version(3))
	assert.Equal(t, http.StatusForbidden, code)
	assert.Equal(t, http.StatusOK, sales.get(page))
	purged, err := o.app.PurgeBin(t.Context(), app.PurgeLimit)
	require.NoError(t, err)
	assert.Empty(t, purged.Records, "nothing is purged before its time")
}

// TestQuoteApproved: a discount is approved by somebody else, the offer is sent, accepted, and its contract approved.
func TestQuoteApproved(t *testing.T) {
	o := newOffice(t)
	c := o.customers[0]
	sales, manager, third, auditor := o.as("sales"), o.as("manager"), o.as("third"), o.as("auditor")
	lines := func(discount string) url.Values {
		return url.Values{
			"customer": {c.ID.String()}, "number": {"Q-1"}, "currency": {"CNY"}, "valid_until": {time.Now().AddDate(0, 1, 0).Format(time.DateOnly)},
			"lines.0.product": {"Pump"}, "lines.0.quantity": {"2"}, "lines.0.unit_price": {"100"}, "lines.0.discount": {discount}, "lines.0.tax": {"13"},
		}
	}
	code, at := sales.post("/quotes", lines("30"))
	require.Equal(t, http.StatusSeeOther, code)
	read := func() crm.Quote {
		t.Helper()
		u, err := crm.ParseUUID(strings.TrimPrefix(at, "/quotes/"))
		require.NoError(t, err)
		v, err := o.app.Quotes.Get(t.Context(), app.System("test"), u)
		require.NoError(t, err)
		return *v.Value
	}
	refused := func(act string, form url.Values, who ...*browser) {
		t.Helper()
		was := read().Version
		for _, b := range who {
			code, _ := b.post(at+"/"+act, form)
			assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code, "%s by %s", act, b.name)
		}
		assert.Equal(t, was, read().Version)
	}
	assert.Contains(t, sales.body(at), "lowers a price by more than 20 %")
	assert.NotContains(t, sales.body(at), `action="`+at+`/send"`)
	assert.NotContains(t, sales.body(at), `action="`+at+`/approve"`)
	assert.Contains(t, manager.body(at), `action="`+at+`/approve"`)
	w := sales.do(http.MethodPost, at+"/send", version(1))
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
	assert.Contains(t, w.Body.String(), "has to approve it before it is sent")
	code, _ = sales.post(at+"/move", url.Values{"version": {"1"}, "to": {"sent"}})
	assert.Equal(t, http.StatusUnprocessableEntity, code, "no way round")
	refused("approve", version(1), sales, third, auditor)
	code, _ = manager.post(at+"/approve", version(9))
	assert.Equal(t, http.StatusConflict, code)
	code, _ = manager.post(at+"/approve", version(1))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, o.people["manager"].ID, read().Approver)

	// Another price is another matter.
	form := lines("40")
	form.Set("version", "2")
	code, _ = sales.post(at, form)
	require.Equal(t, http.StatusSeeOther, code)
	assert.True(t, read().Approver.IsZero())
	code, _ = manager.post(at+"/approve", version(3))
	require.Equal(t, http.StatusSeeOther, code)
	refused("send", version(4), third, auditor)
	code, _ = sales.post(at+"/send", version(4))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, crm.QuoteSent, read().State)

	// A new version withdraws the old one; it is approved and sent anew.
	refused("revise", version(5), third, auditor)
	code, next := sales.post(at+"/revise", version(5))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, crm.QuoteWithdrawn, read().State)
	at = next
	form = lines("5")
	form.Set("version", "1")
	code, _ = sales.post(at, form)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = sales.post(at+"/send", version(2))
	require.Equal(t, http.StatusSeeOther, code)

	// Accepted: the contract with the next number. Its draft is approved by nobody who wrote it, and by no update.
	terms := url.Values{"version": {"3"}, "starts": {"2026-12-01"}, "ends": {"2027-12-01"}}
	refused("accept", terms, third, auditor)
	code, _ = sales.post(at+"/accept", url.Values{"version": {"3"}, "starts": {"soon"}})
	assert.Equal(t, http.StatusUnprocessableEntity, code)
	code, _ = sales.post(at+"/move", url.Values{"version": {"3"}, "to": {"accepted"}})
	assert.Equal(t, http.StatusBadRequest, code)
	code, contract := sales.post(at+"/accept", terms)
	require.Equal(t, http.StatusSeeOther, code)
	require.Contains(t, contract, "/contracts/")
	body := sales.body(contract)
	assert.Regexp(t, `K-\d{4}-00001`, body)
	assert.NotContains(t, body, "&lt;"+o.id("sales"), "who had a part in it is not shown")
	code, _ = sales.post(contract, url.Values{"version": {"1"}, "signatory": {"Ann Lee"}})
	require.Equal(t, http.StatusSeeOther, code)
	for _, b := range []*browser{sales, third, auditor} {
		code, _ = b.post(contract+"/approve", version(2))
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code, b.name)
		code, _ = b.post(contract+"/move", url.Values{"version": {"2"}, "to": {"approved"}})
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code, b.name)
		assert.NotContains(t, b.body(contract), contract+"/approve")
	}
	assert.Contains(t, manager.body(contract), contract+"/approve")
	code, _ = manager.post(contract+"/approve", version(2))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, 1, o.logged("contract.approve", o.id("manager"), audit.Intended))
	assert.Equal(t, 2, o.logged("contract.approve", o.id("sales"), audit.Denied))
	// It ends before its time with a reason, and not without.
	assert.Contains(t, sales.body(contract), "Reason of the end")
	for _, why := range []string{"", "because"} {
		code, _ = sales.post(contract+"/move", url.Values{"version": {"3"}, "to": {"terminated"}, "why": {why}})
		assert.Equal(t, http.StatusUnprocessableEntity, code, why)
	}
	code, _ = auditor.post(contract+"/move", url.Values{"version": {"3"}, "to": {"terminated"}, "why": {"breach"}})
	assert.Equal(t, http.StatusForbidden, code)
	code, _ = sales.post(contract+"/move", url.Values{"version": {"3"}, "to": {"terminated"}, "why": {"breach"}})
	require.Equal(t, http.StatusSeeOther, code)
	t.Log("discount approved by another, contract approved by another; 3 people refused each")

	// Who had a part in it is in no file.
	w = o.as("admin").do(http.MethodPost, "/quotes/export", url.Values{"reason": {"audit"}})
	require.Equal(t, http.StatusOK, w.Code)
	assert.NotContains(t, w.Body.String(), "actors")
	assert.NotContains(t, o.as("admin").body("/api/v1/quotes"), "actors")
	assert.NotContains(t, o.as("admin").body("/api/v1/customers"), "free_in")
}

// TestConverted: a lead becomes a customer, a contact and an opportunity, in one act.
func TestConverted(t *testing.T) {
	o := newOffice(t)
	sales, third, auditor := o.as("sales"), o.as("third"), o.as("auditor")
	l := &crm.Lead{
		Name: crm.NewText("Ann Lee"), Company: crm.NewText("Lee Pumps"), Phone: crm.NewText("13800138111"), State: crm.LeadQualified,
		Meta: crm.Meta[crm.Lead]{Owner: o.people["sales"].ID, Team: "/east/1/"},
	}
	_, err := o.app.Leads.Create(t.Context(), app.System("test"), l)
	require.NoError(t, err)
	at := "/leads/" + l.ID.String()
	p, err := o.app.Pipelines.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	require.Len(t, p.Items, 1)
	pipeline := p.Items[0].Value.ID.String()
	assert.Contains(t, sales.body(at), pipeline)
	assert.NotContains(t, auditor.body(at), pipeline)

	// A follow-up on the lead is noted with it.
	code, _ := sales.post("/follow-ups", url.Values{"subject_type": {"lead"}, "subject": {l.ID.String()}, "channel": {"call"}, "text": {"wants pumps"}, "at": {time.Now().Format("2006-01-02T15:04")}})
	require.Equal(t, http.StatusSeeOther, code)
	assert.Contains(t, sales.body(at), "wants pumps")
	code, _ = third.post("/follow-ups", url.Values{"subject_type": {"lead"}, "subject": {l.ID.String()}, "channel": {"call"}, "text": {"x"}, "at": {time.Now().Format("2006-01-02T15:04")}})
	assert.Equal(t, http.StatusNotFound, code)

	form := to("converted", "pipeline", pipeline, "amount", "1200.50", "currency", "CNY")
	form.Set("version", "2")
	for _, b := range []*browser{third, auditor} {
		code, _ := b.post(at+"/move", form)
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code)
	}
	n, err := o.app.Customers.Count(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	require.EqualValues(t, 5, n, "a refusal leaves nothing")
	code, customer := sales.post(at+"/move", form)
	require.Equal(t, http.StatusSeeOther, code)
	body := sales.body(customer)
	assert.Contains(t, body, "Lee Pumps")
	opportunities, err := o.app.Opportunities.List(t.Context(), o.caller("sales"), guard.Query{})
	require.NoError(t, err)
	require.Len(t, opportunities.Items, 1)
	assert.EqualValues(t, 120050, opportunities.Items[0].Value.Amount)
	assert.Equal(t, p.Items[0].Value.Stages[0].Name, opportunities.Items[0].Value.Stage)
	assert.Equal(t, 1, o.logged("lead.convert", o.id("sales"), audit.Intended))
	assert.Zero(t, o.logged("customer.create", o.id("sales"), audit.Intended), "one act, one event")
	form.Set("version", "3")
	code, _ = sales.post(at+"/move", form)
	assert.NotEqual(t, http.StatusSeeOther, code, "once")
}

// TestNumbers: who may count sees sums, who sees no records sees them too, and small groups are seen by nobody.
func TestNumbers(t *testing.T) {
	o := newOffice(t)
	for i := range 9 {
		stage := crm.CustomerNegotiation
		if i < 2 {
			stage = crm.CustomerLost
		}
		_, err := o.app.Customers.Create(t.Context(), app.System("test"), &crm.Customer{
			Name: crm.NewText("Sum"), Kind: crm.CompanyCustomer, Stage: stage, Currency: "CNY", OpenValue: 1000_00, Source: "fair",
			Meta: crm.Meta[crm.Customer]{Owner: o.people["sales"].ID, Team: "/east/1/"},
		})
		require.NoError(t, err)
	}
	analyst := o.hire("analyst", "analyst", "/office/")
	for _, b := range []*browser{analyst, o.as("admin"), o.as("manager")} {
		body := b.body("/numbers?of=customer")
		assert.Contains(t, body, "7,000", b.name)
		assert.Contains(t, body, "small group", b.name)
		assert.NotContains(t, body, "Lost", b.name)
		assert.Contains(t, body, "counted ", b.name)
		assert.Contains(t, b.body("/"), `href="/numbers"`)
		assert.Equal(t, http.StatusOK, b.get("/numbers?of=lead"))
	}
	assert.Equal(t, http.StatusForbidden, analyst.get("/customers"))
	assert.Equal(t, http.StatusNotFound, analyst.get("/numbers?of=opportunity"))
	assert.NotContains(t, analyst.body("/"), `href="/customers"`)
	for _, b := range []*browser{o.as("sales"), o.as("auditor")} {
		assert.Equal(t, http.StatusForbidden, b.get("/numbers"))
		assert.Equal(t, http.StatusForbidden, b.get("/api/v1/customers/groups?by=stage"))
	}
	var out struct {
		Groups []struct {
			Keys  []string
			Count int64
			Sums  []int64
		}
		Hidden int
	}
	require.NoError(t, json.Unmarshal([]byte(analyst.body("/api/v1/customers/groups?by=stage")), &out))
	assert.NotZero(t, out.Hidden)
	for _, g := range out.Groups {
		assert.GreaterOrEqual(t, g.Count, int64(5))
	}
	assert.Equal(t, http.StatusBadRequest, analyst.get("/api/v1/customers/groups?by=name"))
}

// send posts JSON.
func (b *browser) send(path, body string) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.t.Context(), http.MethodPost, path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4000"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.AddCookie(b.cookie)
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	return w
}

// TestPoolAPI: programs do the same by the same doors, and are told why not in stable words.
func TestPoolAPI(t *testing.T) {
	o := newOffice(t)
	at := o.pool(o.customers[:2], "daily_cap", "1")
	id := strings.TrimPrefix(at, "/pools/")
	sales, third, auditor := o.as("sales"), o.as("third"), o.as("auditor")
	api := "/api/v1/customers/" + o.customers[0].ID.String()
	var pools struct {
		Items []struct{ ID, Name, You string }
	}
	require.NoError(t, json.Unmarshal([]byte(sales.body("/api/v1/pools")), &pools))
	require.Len(t, pools.Items, 1)
	assert.Equal(t, "member", pools.Items[0].You)
	var free struct {
		Items []struct {
			ID     string
			Fields map[string]struct{ State string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(sales.body("/api/v1/pools/"+id+"/records")), &free))
	require.Len(t, free.Items, 2)
	assert.Equal(t, "masked", free.Items[0].Fields["phone"].State)
	assert.Equal(t, "hidden", free.Items[0].Fields["city"].State)
	assert.NotContains(t, free.Items[0].Fields, "free_in")
	assert.Equal(t, http.StatusForbidden, third.get("/api/v1/pools/"+id+"/records"))
	assert.Equal(t, http.StatusForbidden, auditor.get("/api/v1/pools/"+id+"/records"))

	assert.Equal(t, http.StatusNotFound, third.send(api+"/claim", "{}").Code)
	assert.Equal(t, http.StatusForbidden, auditor.send(api+"/claim", "{}").Code)
	w := sales.send(api+"/claim", "")
	assert.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
	w = sales.send("/api/v1/customers/"+o.customers[1].ID.String()+"/claim", "{}")
	assert.Equal(t, http.StatusConflict, w.Code)
	var problem struct {
		Reason string
		Until  time.Time
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
	assert.Equal(t, string(pool.DailyCap), problem.Reason)
	assert.True(t, problem.Until.After(time.Now()))
	assert.Equal(t, http.StatusNotFound, third.send(api+"/transfer", `{"to":"`+o.id("third")+`"}`).Code)
	assert.Equal(t, http.StatusForbidden, auditor.send(api+"/release", "{}").Code)
	assert.Equal(t, http.StatusUnprocessableEntity, sales.send(api+"/transfer", "{}").Code)
	assert.Equal(t, http.StatusConflict, sales.send(api+"/transfer", `{"to":"`+o.id("peer")+`","version":1}`).Code)
	assert.Equal(t, http.StatusNoContent, sales.send(api+"/transfer", `{"to":"`+o.id("peer")+`"}`).Code)
	assert.Equal(t, http.StatusNoContent, o.as("peer").send(api+"/release", "{}").Code)
	assert.Equal(t, http.StatusNotFound, sales.send(api+"/steal", "{}").Code)
}

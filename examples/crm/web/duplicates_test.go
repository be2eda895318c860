package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// customer makes one that somebody has.
func (o *office) customer(owner, name, phone string) *crm.Customer {
	o.t.Helper()
	e := o.people[owner]
	c := &crm.Customer{
		Name: crm.NewText(name), Phone: crm.NewText(phone), Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY", City: "Ulm",
		Meta: crm.Meta[crm.Customer]{Owner: e.ID, Team: e.Team},
	}
	_, err := o.app.Customers.Create(o.t.Context(), app.System("test"), c)
	require.NoError(o.t, err)
	_, err = o.app.Contacts.Create(o.t.Context(), app.System("test"), &crm.Contact{
		Customer: c.ID, Name: crm.NewText("Contact of " + name), Meta: crm.Meta[crm.Contact]{Owner: e.ID, Team: e.Team},
	})
	require.NoError(o.t, err)
	return c
}

func typed(name, phone string, more ...string) url.Values {
	v := url.Values{"name": {name}, "phone": {phone}, "kind": {"person"}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v
}

// TestDuplicateAtEntry: who makes a customer that exists is told before it is stored: the record with its score where they may read it, whom to ask where not, and nothing of
// what they may not see. Saving all the same takes a second word; a certain one may be refused even then. REST is told the same.
//
//crm:item 12 partly
func TestDuplicateAtEntry(t *testing.T) {
	o := newOffice(t)
	mine := o.customer("sales", "曾小明", "13900001111")
	theirs := o.customer("peer", "Stephen Wright", "+44 7400 123456")
	sales := o.as("sales")
	before := o.count()

	w := sales.do(http.MethodPost, "/customers", typed("Zeng Xiaoming", "139-0000-1111"))
	body := w.Body.String()
	require.Equal(t, http.StatusConflict, w.Code)
	for _, want := range []string{"seems to exist already", "Certain", "equal but for spelling", `href="/customers/` + mine.ID.String(), `name="anyway"`} {
		assert.Contains(t, body, want)
	}
	w = sales.do(http.MethodPost, "/customers", typed("Steven Right", "0044 7400 123456"))
	body = w.Body.String()
	require.Equal(t, http.StatusConflict, w.Code)
	assert.Contains(t, body, "A record that you may not read")
	assert.Contains(t, body, "Peer Person", "whom to ask")
	for _, secret := range []string{theirs.ID.String(), "Stephen", "Wright", "Ulm", "%</"} {
		assert.NotContains(t, body, secret)
	}
	assert.Equal(t, before, o.count(), "nothing was stored")
	code, at := sales.post("/customers", typed("Steven Right", "0044 7400 123456", "anyway", "1"))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, before+1, o.count())

	// A change of what somebody is known by is looked at, another change is not.
	page := "/customers/" + mine.ID.String()
	code, _ = sales.post(page, url.Values{"version": {"1"}, "name": {"曾小明"}, "phone": {""}, "city": {"Bonn"}})
	assert.Equal(t, http.StatusSeeOther, code)
	code, _ = sales.post(page, url.Values{"version": {"2"}, "name": {"Stephen Wright"}, "phone": {"+447400123456"}})
	assert.Equal(t, http.StatusConflict, code)
	code, _ = sales.post(page, url.Values{"version": {"2"}, "name": {"Stephen Wright"}, "phone": {"+447400123456"}, "anyway": {"1"}})
	assert.Equal(t, http.StatusSeeOther, code)
	code, _ = sales.post(page, url.Values{"version": {"3"}, "name": {"曾小明"}, "phone": {"13900001111"}})
	assert.Equal(t, http.StatusSeeOther, code)

	// Leads and contacts too.
	lead := url.Values{"name": {"Ann Lee"}, "phone": {"13800009999"}}
	code, _ = sales.post("/leads", lead)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = sales.post("/leads", lead)
	assert.Equal(t, http.StatusConflict, code)
	contact := url.Values{"name": {"Bea Kay"}, "phone": {"13800008888"}, "customer": {mine.ID.String()}}
	code, _ = sales.post("/contacts", contact)
	require.Equal(t, http.StatusSeeOther, code)
	code, _ = sales.post("/contacts", contact)
	assert.Equal(t, http.StatusConflict, code)

	// REST.
	const same = `{"fields":{"name":"Steven Right","phone":"0044 7400 123456","kind":"person"}`
	r := sales.send("/api/v1/customers", same+"}")
	require.Equal(t, http.StatusConflict, r.Code, r.Body.String())
	var problem apiError
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &problem))
	assert.Equal(t, "duplicate", problem.Reason)
	asked := apiDuplicate{Band: "certain", Ask: theirs.Owner.String()}
	assert.Contains(t, problem.Duplicates, asked)
	assert.NotContains(t, r.Body.String(), theirs.ID.String())
	r = sales.send("/api/v1/customers", same+`,"duplicates":"allow"}`)
	require.Equal(t, http.StatusCreated, r.Code, r.Body.String())
	r = sales.send("/api/v1/customers/check", same+"}")
	require.Equal(t, http.StatusOK, r.Code)
	assert.Contains(t, r.Body.String(), `"ask":"`+theirs.Owner.String())
	for _, bad := range []string{`{"fields":{"owner":"x"}}`, `{"fields":{"name":7}}`, `{"fields":{"nonsense 13900001111":1}}`} {
		r = sales.send("/api/v1/customers", bad)
		assert.Equal(t, http.StatusUnprocessableEntity, r.Code)
		assert.NotContains(t, r.Body.String(), "13900001111")
	}
	assert.Equal(t, http.StatusForbidden, o.as("auditor").send("/api/v1/customers/check", same+"}").Code)

	// Where the configuration says so, what is certain is refused also the second time.
	o.app.Config.Duplicates = app.RefuseDuplicates
	n := o.count()
	w = sales.do(http.MethodPost, "/customers", typed("Steven Right", "0044 7400 123456", "anyway", "1"))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.NotContains(t, w.Body.String(), `name="anyway"`)
	assert.Equal(t, http.StatusConflict, sales.send("/api/v1/customers", same+`,"duplicates":"allow"}`).Code)
	assert.Equal(t, n, o.count())
	o.app.Config.Duplicates = ""

	// The quota answers as it does everywhere.
	third := o.as("third")
	var last *httptest.ResponseRecorder
	for i := range 125 {
		if last = third.send("/api/v1/customers/check", `{"fields":{"name":"Nobody","phone":"1370000`+strconv.Itoa(1000+i)+`"}}`); last.Code != http.StatusOK {
			break
		}
	}
	assert.Equal(t, http.StatusTooManyRequests, last.Code)
	assert.Equal(t, http.StatusTooManyRequests, third.do(http.MethodPost, "/customers", typed("Nobody", "13700009999")).Code)
	require.NotEmpty(t, at)
}

var anyID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

var pairLink = regexp.MustCompile(`/customers/pair\?keep=[0-9a-f-]+&amp;drop=[0-9a-f-]+`)

// TestMergePages: the list of all pairs, two records side by side, the merge with its choice, the undoing with its report, and who may do none of it.
//
//crm:item 12 partly
func TestMergePages(t *testing.T) {
	o := newOffice(t)
	a, b := o.customer("sales", "Ann Lee", "13900001111"), o.customer("sales", "Anne Lee", "+86 139 0000 1111")
	theirs := o.customer("peer", "Ann Lee", "13900001111")
	admin, sales, peer, auditor := o.as("admin2"), o.as("sales"), o.as("peer"), o.as("auditor")

	for _, x := range []*browser{sales, peer} {
		assert.Equal(t, http.StatusForbidden, x.get("/customers/duplicates"))
		code, _ := x.post("/customers/duplicates", nil)
		assert.Equal(t, http.StatusForbidden, code)
		assert.Equal(t, http.StatusForbidden, x.get("/api/v1/customers/duplicates"))
		assert.NotContains(t, x.body("/customers"), `"/customers/duplicates"`)
	}
	assert.Contains(t, admin.body("/customers"), `"/customers/duplicates"`)
	assert.Contains(t, admin.body("/customers/duplicates"), "Nobody has searched yet")
	code, _ := admin.post("/customers/duplicates", nil)
	require.Equal(t, http.StatusSeeOther, code)
	require.Eventually(t, func() bool { return !o.server.dups.get(crm.TypeCustomer).running }, 20*time.Second, 10*time.Millisecond)
	body := admin.body("/customers/duplicates")
	assert.Len(t, pairLink.FindAllString(body, -1), 3, "of three")
	var pairs struct {
		State string
		Items []apiPair
	}
	r := admin.do(http.MethodGet, "/api/v1/customers/duplicates", nil)
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &pairs))
	assert.Equal(t, "done", pairs.State)
	require.Len(t, pairs.Items, 3)
	assert.NotContains(t, r.Body.String(), "Lee")

	// Side by side, as each may see it. Another's record is not there.
	pair := "/customers/pair?keep=" + a.ID.String() + "&drop=" + b.ID.String()
	body = sales.body(pair)
	assert.Contains(t, body, "139****1111")
	assert.NotContains(t, body, "0000 1111")
	assert.Contains(t, body, `name="take.phone"`)
	assert.Contains(t, body, `name="take.name"`)
	assert.NotContains(t, body, `name="take.id_number"`, "hidden")
	assert.NotContains(t, body, `name="take.city"`, "equal on both sides")
	assert.Equal(t, http.StatusNotFound, sales.get("/customers/pair?keep="+a.ID.String()+"&drop="+theirs.ID.String()))
	assert.Equal(t, http.StatusNotFound, sales.get("/customers/pair?keep="+a.ID.String()+"&drop="+a.ID.String()))
	assert.Equal(t, http.StatusForbidden, auditor.get(pair))
	assert.Contains(t, sales.body("/customers/"+a.ID.String()), "/customers/"+a.ID.String()+"/duplicates")
	assert.Equal(t, http.StatusOK, sales.get("/customers/"+a.ID.String()+"/duplicates"))

	form := url.Values{"keep": {a.ID.String()}, "keep_version": {"1"}, "drop": {b.ID.String()}, "drop_version": {"1"}, "take.name": {"drop"}, "take.phone": {"keep"}}
	for name, x := range map[string]*browser{"peer": peer, "auditor": auditor} {
		code, _ := x.post("/customers/merge", form)
		assert.Contains(t, []int{http.StatusNotFound, http.StatusForbidden}, code, name)
	}
	old := url.Values{"keep": form["keep"], "keep_version": {"7"}, "drop": form["drop"], "drop_version": {"1"}}
	code, _ = sales.post("/customers/merge", old)
	assert.Equal(t, http.StatusConflict, code)
	code, at := sales.post("/customers/merge", form)
	require.Equal(t, http.StatusSeeOther, code)
	require.Regexp(t, `^/merges/[0-9a-f-]{36}$`, at)
	got := o.stored(a)
	assert.Equal(t, "Anne Lee", got.Name.Expose())
	assert.True(t, func() bool { v := o.stored(b); return v.Deleted }())
	body = sales.body(at)
	assert.Contains(t, body, at+"/undo")
	assert.Contains(t, sales.body("/merges"), at)
	assert.NotContains(t, body, `href="`+at+`/edit"`)
	assert.Equal(t, http.StatusNotFound, peer.get(at))
	assert.Contains(t, admin.body("/customers/duplicates"), "Merged or deleted since")
	api := sales.do(http.MethodGet, "/api/v1"+at, nil).Body.String()
	assert.NotContains(t, api, `"moved"`)
	assert.NotContains(t, api, "Ann")

	code, _ = peer.post(at+"/undo", version(2))
	assert.Equal(t, http.StatusNotFound, code)
	w := sales.do(http.MethodPost, at+"/undo", version(2))
	require.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), "What came back")
	got = o.stored(a)
	assert.Equal(t, "Ann Lee", got.Name.Expose())
	assert.False(t, func() bool { v := o.stored(b); return v.Deleted }())
	w = sales.do(http.MethodPost, at+"/undo", version(3))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.Contains(t, w.Body.String(), "undone already")

	// By REST, and not after an erasure.
	r = sales.send("/api/v1/customers/"+a.ID.String()+"/merge", `{"version":`+strconv.FormatInt(o.stored(a).Version, 10)+`,"drop":"`+b.ID.String()+`","drop_version":`+
		strconv.FormatInt(o.stored(b).Version, 10)+`,"take":["phone"]}`)
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	var m struct{ ID, State string }
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &m))
	assert.Equal(t, "merged", m.State)
	_, err := o.app.Keeper.Erase(t.Context(), app.Tenant, b.Person, nil)
	require.NoError(t, err)
	r = sales.send("/api/v1/merges/"+m.ID+"/undo", "")
	assert.Equal(t, http.StatusConflict, r.Code)
	assert.Contains(t, r.Body.String(), "merge_erased")
	w = sales.do(http.MethodPost, "/merges/"+m.ID+"/undo", version(2))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.Contains(t, w.Body.String(), "nothing of them comes back")
	got = o.stored(a)
	assert.NotEqual(t, crm.Clear, got.Name.State(), "the one that was kept is erased too")
}

// TestDuplicateOracle: two worlds that differ only in what the policy hides from a sales person give the same bytes, for a form and for REST, whatever they
// type. The one exception is documented: that a record exists which agrees with what was typed, and whom to ask.
//
//crm:item 12 partly
func TestDuplicateOracle(t *testing.T) {
	type world struct {
		idNumber, note, city, address, stage string
		credit                               int64
		name, phone                          string // of a record that agrees with nothing that is typed
	}
	answers := func(t *testing.T, x world) (out []string, admin string) {
		t.Helper()
		o := newOffice(t)
		fixed := func(n byte) crm.ID[crm.Customer] { return crm.ID[crm.Customer]{6: 0x70, 8: 0x80, 15: n} }
		for i, c := range []struct{ owner, name, phone string }{{"peer", "Stephen Wright", "+44 7400 123456"}, {"peer", x.name, x.phone}, {"sales", "Ann Lee", "13900001111"}} {
			e := o.people[c.owner]
			v := &crm.Customer{
				Name: crm.NewText(c.name), Phone: crm.NewText(c.phone), Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY",
				IDNumber: crm.NewText(x.idNumber), CreditLimit: x.credit,
				Meta: crm.Meta[crm.Customer]{ID: fixed(byte(i + 1)), Owner: e.ID, Team: e.Team},
			}
			if c.owner == "peer" { // of another's record everything is hidden
				v.Note, v.City, v.Address, v.Stage = crm.NewText(x.note), x.city, crm.NewText(x.address), crm.CustomerStage(x.stage)
			}
			_, err := o.app.Customers.Create(t.Context(), app.System("test"), v)
			require.NoError(t, err)
		}
		// Ids are new in each world: they are numbered in the order in which they are told.
		told := map[string]string{o.people["peer"].ID.String(): "PEER"}
		numbered := func(s string) string {
			return anyID.ReplaceAllStringFunc(s, func(u string) string {
				if told[u] == "" {
					told[u] = "id-" + strconv.Itoa(len(told))
				}
				return told[u]
			})
		}
		sales := o.as("sales")
		for _, typed := range []map[string]string{
			{"name": "Steven Right", "phone": "+447400123456"}, {"name": "Stephen Wright", "phone": "+447400123457"}, {"name": "Stephen", "phone": "+447400123456"},
			{"name": "Stephen Wright", "id_number": "11010519491231002X"}, {"name": "Stephen Wright", "id_number": "110105194912310021"}, {"name": "Ann Lee", "id_number": "11010519491231002X"},
			{"name": "Stephen Wright", "address": "12 High Street, Kew"}, {"name": "Anne Lee", "phone": "13900001111", "id_number": "11010519491231002X"}, {"name": "Nobody", "phone": "13700000000"},
		} {
			b, err := json.Marshal(map[string]any{"fields": typed})
			require.NoError(t, err)
			for _, path := range []string{"/api/v1/customers/check", "/api/v1/customers"} {
				w := sales.send(path, strings.Replace(string(b), `"name"`, `"kind":"person","name"`, 1))
				body := w.Body.String()
				if w.Code == http.StatusCreated {
					body = "made" // its id is a new one
				}
				out = append(out, strconv.Itoa(w.Code)+" "+numbered(body))
			}
			form := url.Values{"kind": {"person"}}
			for k, v := range typed {
				form.Set(k, v)
			}
			w := sales.do(http.MethodPost, "/customers", form)
			_, main, _ := strings.Cut(w.Body.String(), "<main")
			out = append(out, strconv.Itoa(w.Code)+" "+numbered(main))
		}
		return out, o.as("admin2").send("/api/v1/customers/check", `{"fields":{"name":"Stephen Wright","id_number":"11010519491231002X"}}`).Body.String()
	}
	plain := world{note: "", city: "", address: "", stage: "new", name: "Carl Sand", phone: "13811112222"}
	full := world{idNumber: "11010519491231002X", note: "owes us", city: "Kew", address: "14 Low Road, Leeds", stage: "at_risk", credit: 1_000_000, name: "Dora Lind", phone: "13833334444"}
	a, one := answers(t, plain)
	b, other := answers(t, full)
	require.Len(t, b, len(a))
	assert.Equal(t, strings.Count(one, `"band"`)+1, strings.Count(other, `"band"`), "an administrator sees the difference")
	told := 0
	for i := range a {
		assert.Equal(t, a[i], b[i])
		if strings.Contains(a[i], `"ask":"PEER"`) {
			told++
		}
		for _, secret := range []string{"Stephen Wright", "owes us", "at_risk", "00000000-0000-7000-8000-000000000001"} {
			if !strings.Contains(a[i], `name="name"`) { // a form repeats what was typed
				assert.NotContains(t, a[i], secret)
			}
		}
	}
	assert.NotZero(t, told, "the exception: a record exists, ask its owner")
	t.Logf("%d answers in two worlds, equal; %d tell that a record exists and whom to ask", len(a), told)
}

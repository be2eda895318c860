package web

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// opens tells whether the phone number of a customer opens.
func (o *office) opens(v *crm.Customer) bool {
	o.t.Helper()
	got, err := o.app.Customers.Get(o.t.Context(), app.System("test"), v.ID.UUID())
	require.NoError(o.t, err)
	return got.Value.Phone.State() == crm.Clear
}

// asked fills the form of an erasure or of a hold.
func asked(v *crm.Customer, reason string) url.Values {
	return url.Values{"type": {"customer"}, "record": {v.ID.String()}, "record_type": {"customer"}, "reason": {reason}}
}

// TestErasurePages: on pages a person is found, what would be erased is shown, somebody asks, another one approves after a fresh proof, and the receipt says what was done; in both
// languages. Whoever lacks the role is refused at every step, and nobody approves their own.
//
//crm:item 13 partly
func TestErasurePages(t *testing.T) {
	o := newOffice(t)
	v := o.customer("peer", "曾小明", "13900001111")
	admin, manager, sales, auditor := o.as("admin"), o.as("manager"), o.as("sales"), o.as("auditor")
	person := personHref("customer", v.ID.UUID())

	// Whoever lacks the role sees nothing of it.
	for _, b := range []*browser{sales, auditor} {
		assert.Equal(t, http.StatusForbidden, b.get("/erasures/find"), b.name)
		assert.Equal(t, http.StatusForbidden, b.do(http.MethodPost, "/erasures/find", url.Values{"q": {"13900001111"}}).Code, b.name)
		assert.Equal(t, http.StatusForbidden, b.get(person), b.name)
		assert.Equal(t, http.StatusForbidden, b.get("/erasures/new"), b.name)
		code, _ := b.post("/erasures", asked(v, "a letter"))
		assert.Equal(t, http.StatusForbidden, code, b.name)
		code, _ = b.post("/holds", asked(v, "a lawsuit"))
		assert.Equal(t, http.StatusForbidden, code, b.name)
	}
	assert.Equal(t, http.StatusForbidden, sales.get("/erasures"))
	assert.Equal(t, http.StatusForbidden, sales.get("/holds"))
	assert.NotContains(t, sales.body("/"), `href="/erasures"`)
	assert.Contains(t, admin.body("/"), `href="/erasures"`)
	code, _ := manager.post("/erasures", asked(v, "a letter"))
	assert.Equal(t, http.StatusForbidden, code, "a manager agrees and does not ask")

	// Found by number and by id, and never in an address.
	for _, term := range []string{"139 0000 1111", v.ID.String()} {
		w := admin.do(http.MethodPost, "/erasures/find", url.Values{"q": {term}})
		require.Equal(t, http.StatusOK, w.Code)
		assert.Contains(t, w.Body.String(), strings.ReplaceAll(person, "&", "&amp;"), term)
	}
	w := admin.do(http.MethodPost, "/erasures/find", url.Values{"q": {"13999999999"}})
	assert.Contains(t, w.Body.String(), "No record that you may see was found.")
	assert.Equal(t, http.StatusBadRequest, admin.do(http.MethodPost, "/erasures/find", url.Values{"q": {" "}}).Code)
	assert.Equal(t, http.StatusNotFound, admin.get("/erasures/person?type=quote&record="+v.ID.String()))
	assert.Equal(t, http.StatusNotFound, admin.get("/erasures/person?type=lead&record="+v.ID.String()))
	body := admin.body(person)
	assert.Contains(t, body, "Nothing stands in the way of erasing this person.")
	assert.Contains(t, body, "/erasures/new?type=customer")
	assert.Contains(t, admin.body("/customers/"+v.ID.String()), strings.ReplaceAll(person, "&", "&amp;"))

	// Asked for after a fresh proof only.
	o.ahead.Store(int64(10 * time.Minute))
	code, to := admin.post("/erasures", asked(v, "a letter of May"))
	assert.Equal(t, http.StatusSeeOther, code)
	assert.True(t, strings.HasPrefix(to, "/step-up"), to)
	code, _ = admin.post("/step-up", url.Values{"current": {testPassword}, "back": {"/erasures"}})
	require.Equal(t, http.StatusSeeOther, code)
	w = admin.do(http.MethodPost, "/erasures", asked(v, ""))
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code, "no reason")
	code, at := admin.post("/erasures", asked(v, "a letter of May"))
	require.Equal(t, http.StatusSeeOther, code)
	require.Regexp(t, `^/erasures/[0-9a-f-]{36}$`, at)
	w = admin.do(http.MethodPost, "/erasures", asked(v, "again"))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.Contains(t, w.Body.String(), "was asked for already")
	assert.True(t, o.opens(v), "nobody has agreed")
	body = admin.body(at)
	assert.Contains(t, body, "Waits for somebody else")
	assert.NotContains(t, body, at+`/approve"`, "nobody approves their own")
	code, _ = admin.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusForbidden, code)
	code, _ = sales.post(at+"/approve", version(1))
	assert.NotEqual(t, http.StatusOK, code)
	assert.True(t, o.opens(v))

	// Held: the approval stays, and nothing is erased.
	code, hold := admin.post("/holds", asked(v, "a lawsuit"))
	require.Equal(t, http.StatusSeeOther, code)
	require.Regexp(t, `^/holds/[0-9a-f-]{36}$`, hold)
	assert.Contains(t, admin.body(person), "A legal hold keeps this person")
	assert.Contains(t, admin.body("/holds"), "Holds")
	assert.Contains(t, admin.body(hold), "a lawsuit")
	assert.NotContains(t, auditor.body(hold), "a lawsuit", "who looks after the register sees that there is one")

	code, to = manager.post(at+"/approve", version(1))
	assert.Equal(t, http.StatusSeeOther, code)
	assert.True(t, strings.HasPrefix(to, "/step-up"), "a session of a while ago: %s", to)
	code, _ = manager.post("/step-up", url.Values{"current": {testPassword}, "back": {at}})
	require.Equal(t, http.StatusSeeOther, code)
	assert.Contains(t, manager.body(at), at+`/approve"`)
	w = manager.do(http.MethodPost, at+"/approve", version(1))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.Contains(t, w.Body.String(), "A legal hold keeps this person")
	assert.True(t, o.opens(v))
	assert.Contains(t, admin.body(at), "Approved, and not carried out yet")

	// Two people lift it.
	assert.Equal(t, http.StatusForbidden, manager.get(hold+"/lift"), "a manager agrees and does not ask")
	require.Equal(t, http.StatusOK, admin.get(hold+"/lift"))
	w = admin.do(http.MethodPost, hold+"/lift", version(1))
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code, "no reason")
	form := version(1)
	form.Set("reason", "the court has decided")
	code, _ = admin.post(hold+"/lift", form)
	require.Equal(t, http.StatusSeeOther, code)
	assert.NotContains(t, admin.body(hold), hold+`/approve"`)
	code, _ = admin.post(hold+"/approve", version(3))
	assert.Equal(t, http.StatusForbidden, code)
	assert.Contains(t, manager.body(hold), "the court has decided")
	code, _ = manager.post(hold+"/approve", version(2))
	assert.Equal(t, http.StatusConflict, code, "another version than was seen")
	code, _ = manager.post(hold+"/approve", version(3))
	require.Equal(t, http.StatusSeeOther, code)
	assert.Contains(t, admin.body(hold), "Lifted")

	code, _ = admin.post(at+"/carry", version(2))
	require.Equal(t, http.StatusSeeOther, code)
	assert.False(t, o.opens(v))
	body = admin.body(at)
	assert.Contains(t, body, "Blocked")
	assert.Contains(t, body, "Event of the log")
	found, err := o.app.Log.Query(t.Context(), audit.Filter{Action: "person.erase"}, o.app.Log.Size(), 1)
	require.NoError(t, err)
	assert.Contains(t, body, strconv.FormatUint(found[0].Index, 10))
	w = admin.do(http.MethodGet, at, nil)
	assert.NotContains(t, w.Body.String(), "曾小明")

	// The same in Chinese.
	for path, want := range map[string]string{at: "已封锁", hold: "已解除", "/erasures/find": "查找个人", person: "将删除的内容", "/erasures": "数据删除", "/holds": "法律保留"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.RemoteAddr = "127.0.0.1:4000"
		r.AddCookie(admin.cookie)
		r.AddCookie(&http.Cookie{Name: "crm-lang", Value: "zh-CN"})
		w := httptest.NewRecorder()
		o.server.ServeHTTP(w, r)
		assert.Equal(t, http.StatusOK, w.Code, path)
		assert.Contains(t, w.Body.String(), want, path)
	}
}

// TestErasureAPI: programs do the same by REST, with the same refusals in stable words.
//
//crm:item 13 partly
func TestErasureAPI(t *testing.T) {
	o := newOffice(t)
	v := o.customer("peer", "曾小明", "13900001111")
	admin, manager, sales := o.as("admin"), o.as("manager"), o.as("sales")
	type answer struct {
		ID, State, Reason, Refused string
		Version, Event, Marks      int64
		Records                    json.RawMessage
		Holds                      []struct{ ID, State string }
		Items                      []struct{ Type, ID string }
		Controls                   []string
	}
	ask := func(b *browser, path string, body any, status int) (out answer) {
		t.Helper()
		w := b.api("/api/v1/"+path, body)
		require.Equal(t, status, w.Code, w.Body.String())
		assert.NotContains(t, w.Body.String(), "13900001111")
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
		return out
	}
	type m = map[string]any
	whom := m{"type": "customer", "id": v.ID.String(), "reason": "a letter"}
	for _, path := range []string{"erasures/find", "erasures/preview", "erasures", "holds"} {
		body := m{"type": "customer", "id": v.ID.String()}
		switch path {
		case "erasures/find":
			body = m{"term": "13900001111"}
		case "erasures", "holds":
			body = whom
		}
		ask(sales, path, body, http.StatusForbidden)
	}
	found := ask(admin, "erasures/find", m{"term": "139 0000 1111"}, http.StatusOK)
	require.Len(t, found.Items, 1)
	assert.Equal(t, v.ID.String(), found.Items[0].ID)
	ask(admin, "erasures/preview", m{"type": "customer", "id": crm.NewUUID().String()}, http.StatusNotFound)
	ask(admin, "erasures/preview", m{"type": "quote", "id": v.ID.String()}, http.StatusUnprocessableEntity)
	ask(manager, "erasures/preview", m{"type": "customer", "id": v.ID.String()}, http.StatusNotFound) // of another team: as if it were not there
	p := ask(admin, "erasures/preview", m{"type": "customer", "id": v.ID.String()}, http.StatusOK)
	assert.JSONEq(t, `{"customer":1}`, string(p.Records))
	assert.Empty(t, p.Refused)

	h := ask(admin, "holds", whom, http.StatusCreated)
	p = ask(admin, "erasures/preview", m{"type": "customer", "id": v.ID.String()}, http.StatusOK)
	assert.Equal(t, "held", p.Refused)
	require.Len(t, p.Holds, 1)
	assert.Equal(t, h.ID, p.Holds[0].ID)

	e := ask(admin, "erasures", whom, http.StatusCreated)
	assert.Equal(t, "requested", e.State)
	assert.Equal(t, "asked", ask(admin, "erasures", whom, http.StatusConflict).Reason)
	ask(admin, "erasures/"+e.ID+"/approve", m{"version": e.Version}, http.StatusForbidden)
	ask(admin, "erasures/"+e.ID+"/carry", nil, http.StatusUnprocessableEntity)
	assert.Equal(t, "held", ask(manager, "erasures/"+e.ID+"/approve", m{"version": e.Version}, http.StatusConflict).Reason)
	assert.True(t, o.opens(v))

	ask(manager, "holds/"+h.ID+"/approve", m{"version": h.Version}, http.StatusUnprocessableEntity)
	ask(manager, "holds/"+h.ID+"/lift", m{"version": h.Version, "reason": "settled"}, http.StatusForbidden)
	h = ask(admin, "holds/"+h.ID+"/lift", m{"version": h.Version, "reason": "settled"}, http.StatusOK)
	assert.Equal(t, "lifting", h.State)
	ask(admin, "holds/"+h.ID+"/approve", m{"version": h.Version}, http.StatusForbidden)
	h = ask(manager, "holds/"+h.ID+"/refuse", m{"version": h.Version}, http.StatusOK)
	assert.Equal(t, "active", h.State)
	h = ask(admin, "holds/"+h.ID+"/lift", m{"version": h.Version, "reason": "settled now"}, http.StatusOK)
	h = ask(manager, "holds/"+h.ID+"/approve", m{"version": h.Version}, http.StatusOK)
	assert.Equal(t, "lifted", h.State)

	o.ahead.Store(int64(10 * time.Minute))
	old := ask(admin, "erasures/"+e.ID+"/carry", nil, http.StatusForbidden)
	assert.Contains(t, old.Controls, "obligation.step_up")
	o.ahead.Store(0)
	e = ask(admin, "erasures/"+e.ID+"/carry", nil, http.StatusOK)
	assert.Equal(t, "blocked", e.State)
	assert.Positive(t, e.Event)
	assert.EqualValues(t, 1, e.Marks)
	assert.False(t, o.opens(v))
	n, err := o.app.Erasures.Count(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)
}

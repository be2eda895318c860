package web

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// file posts a file as a program with a token does.
func (p *program) file(path, content string, fields ...string) *httptest.ResponseRecorder {
	p.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i < len(fields); i += 2 {
		require.NoError(p.t, w.WriteField(fields[i], fields[i+1]))
	}
	f, err := w.CreateFormFile("file", "in.csv")
	require.NoError(p.t, err)
	_, err = f.Write([]byte(content))
	require.NoError(p.t, err)
	require.NoError(p.t, w.Close())
	r := httptest.NewRequestWithContext(p.t.Context(), http.MethodPost, path, &body)
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(p.addr), 4000).String()
	r.Header.Set("Content-Type", w.FormDataContentType())
	r.Header.Set("Authorization", "Bearer "+p.text)
	out := httptest.NewRecorder()
	p.server.ServeHTTP(out, r)
	return out
}

// TestImportByToken: whoever may import does so in a session. Their token does not, whatever its scope: neither a dry run nor by the pages; nothing is stored.
func TestImportByToken(t *testing.T) {
	o := newOffice(t)
	o.account("manager")
	before := o.count()
	for _, scope := range []string{"customer:import", "*:import", "import:create"} {
		_, secret, err := o.app.MakeToken(t.Context(), o.id("manager"), o.people["manager"].ID.UUID(), app.TokenAsk{Name: "x", Scopes: []string{scope}, Days: 1})
		require.Error(t, err, scope)
		assert.Empty(t, secret.Reveal(), scope)
	}
	p := o.program("manager", "*:read", "customer:create")
	require.Equal(t, http.StatusOK, p.status(http.MethodGet, "/api/v1/customers", ""), "the token is good")
	for _, fields := range [][]string{{"type", "customer"}, {"type", "customer", "dry_run", "true"}} {
		w := p.file("/api/v1/imports", badFile, fields...)
		assert.Equal(t, http.StatusForbidden, w.Code, "%v", fields)
		assert.NotContains(t, w.Body.String(), "created")
	}
	w := p.file("/uploads", badFile, "type", "customer")
	assert.Equal(t, "/sign-in", w.Header().Get("Location"), "pages are for sessions")
	assert.Empty(t, o.filesLeft())
	assert.Equal(t, before, o.count())

	manager := o.as("manager")
	w = manager.sendFile("/api/v1/imports", "in.csv", []byte(badFile), "type", "customer", "dry_run", "true")
	assert.Equal(t, http.StatusOK, w.Code, "the same person in a session")
}

// TestHoldIsNotEdited: what a legal hold says, and whom it holds, nobody changes: no form, no post, no API, no deletion and no state but through the act that
// wants two people.
func TestHoldIsNotEdited(t *testing.T) {
	o := newOffice(t)
	v, other := o.customer("peer", "曾小明", "13900001111"), o.customer("peer", "李小红", "13900002222")
	admin, manager, sales := o.as("admin"), o.as("manager"), o.as("sales")
	code, hold := admin.post("/holds", asked(v, "a lawsuit"))
	require.Equal(t, http.StatusSeeOther, code)
	require.Equal(t, http.StatusOK, admin.get(hold))
	form := asked(other, "nothing of importance")
	form.Set("version", "1")
	form.Set("state", string(privacy.HoldLifted))
	for _, b := range []*browser{admin, manager, sales} {
		assert.NotEqual(t, http.StatusOK, b.get(hold+"/edit"), b.name)
		for _, path := range []string{"", "/edit", "/delete", "/restore"} {
			code, to := b.post(hold+path, form)
			assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, code, "%s %s %s", b.name, path, to)
		}
		for _, to := range []privacy.HoldState{privacy.HoldLifted, privacy.HoldActive} {
			code, _ := b.post(hold+"/move", url.Values{"version": {"1"}, "to": {string(to)}})
			assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code, "%s %s", b.name, to)
		}
		for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete} {
			w := b.do(method, "/api/v1"+hold, form)
			assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, w.Code, "%s %s", b.name, method)
		}
	}
	id, err := crm.ParseUUID(hold[len("/holds/"):])
	require.NoError(t, err)
	got, err := o.app.Holds.Records().Get(t.Context(), app.System("test"), id)
	require.NoError(t, err)
	assert.Equal(t, "a lawsuit", got.Value.Reason.Expose())
	assert.Equal(t, v.ID.UUID(), got.Value.Record)
	assert.Equal(t, privacy.HoldActive, got.Value.State)
	assert.Equal(t, int64(1), got.Value.Version)
}

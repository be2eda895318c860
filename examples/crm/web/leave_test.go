package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestLeavingPages: who owns records does not leave, by page or by the interface; everything is handed over on their page, and then they do.
func TestLeavingPages(t *testing.T) {
	o := newOffice(t)
	v := o.customer("sales", "Ann Lee", "13800135678")
	admin, sales, auditor := o.as("admin"), o.as("sales"), o.as("auditor")
	base := "/employees/" + o.id("sales")
	stored := func() *crm.Employee {
		e, err := o.app.Employees.Get(t.Context(), app.System("test"), o.people["sales"].ID.UUID())
		require.NoError(t, err)
		return e.Value
	}
	left := func() *http.Response {
		return admin.do(http.MethodPost, base+"/move", filled(stored().Version, "to", "left")).Result()
	}
	require.Equal(t, http.StatusConflict, left().StatusCode)
	body := admin.do(http.MethodPost, base+"/move", filled(stored().Version, "to", "left")).Body.String()
	assert.Contains(t, body, "This employee cannot leave yet")
	assert.Regexp(t, `Contacts: [1-9]\d*, Customers: [1-9]`, body)
	assert.NotContains(t, body, "Ann")
	assert.Equal(t, crm.EmployeeActive, stored().State)

	assert.Contains(t, admin.body(base), base+"/hand-over")
	to := url.Values{"to": {o.id("peer")}}
	for _, b := range []*browser{sales, auditor} {
		assert.NotContains(t, b.body(base), "/hand-over")
		code, _ := b.post(base+"/hand-over", to)
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, code, b.name)
		w := b.api("/api/v1"+base+"/hand-over", map[string]any{"to": o.id("peer")})
		assert.Contains(t, []int{http.StatusForbidden, http.StatusNotFound}, w.Code, b.name)
	}
	for _, heir := range []string{"", "somebody", o.id("sales"), crm.NewUUID().String()} {
		code, _ := admin.post(base+"/hand-over", url.Values{"to": {heir}})
		assert.Equal(t, http.StatusUnprocessableEntity, code, heir)
	}
	w := admin.do(http.MethodPost, base+"/hand-over", to)
	require.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), "Records handed over")
	assert.Contains(t, w.Body.String(), "Customers")
	got, err := o.app.Customers.Get(t.Context(), app.System("test"), v.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, o.people["peer"].ID, got.Value.Owner)
	require.Equal(t, http.StatusSeeOther, left().StatusCode)
	assert.Equal(t, crm.EmployeeLeft, stored().State)

	// By the interface.
	var handed struct{ Done, Left map[string]int }
	w = admin.api("/api/v1/employees/"+o.id("peer")+"/hand-over", map[string]any{"to": o.id("manager")})
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &handed))
	assert.Positive(t, handed.Done[crm.TypeCustomer])
	assert.Positive(t, handed.Done[crm.TypeContact])
	assert.Empty(t, handed.Left)
	w = admin.api("/api/v1/employees/"+o.id("peer")+"/hand-over", map[string]any{"to": o.id("sales")})
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code, "who has left gets nothing")
}

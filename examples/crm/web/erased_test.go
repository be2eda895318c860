package web

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestErasedAtEntry: who makes or imports a record of somebody who was erased is told, on pages and by REST, and refused where that is configured; which number it was is not
// said, and who may do neither is told nothing.
//
//crm:item 13 partly
func TestErasedAtEntry(t *testing.T) {
	o := newOffice(t)
	ctx := t.Context()
	gone := o.customer("peer", "曾小明", "13900001111")
	_, err := o.app.Erase(ctx, o.people["admin"], o.people["manager"], crm.TypeCustomer, gone.ID.UUID(), "a letter")
	require.NoError(t, err)
	sales, before := o.as("sales"), o.count()

	w := sales.do(http.MethodPost, "/customers", typed("Ann Lee", "+86 139-0000-1111"))
	require.Equal(t, http.StatusConflict, w.Code)
	for _, want := range []string{"was erased here", "came to you again", `name="anyway"`} {
		assert.Contains(t, w.Body.String(), want)
	}
	for _, secret := range []string{gone.ID.String(), "seems to exist already", "曾"} {
		assert.NotContains(t, w.Body.String(), secret)
	}
	w = sales.do(http.MethodPost, "/leads", typed("Ann Lee", "0086 13900001111"))
	assert.Equal(t, http.StatusConflict, w.Code, "of another type")
	assert.Equal(t, before, o.count())
	code, _ := sales.post("/customers", typed("Ann Lee", "+86 139-0000-1111", "anyway", "1"))
	assert.Equal(t, http.StatusSeeOther, code)

	const again = `{"fields":{"name":"Bea Kay","phone":"139 0000 1111","kind":"person"}`
	reason := func(body string) string {
		t.Helper()
		r := sales.send("/api/v1/leads", body)
		var problem apiError
		require.NoError(t, json.Unmarshal(r.Body.Bytes(), &problem))
		assert.Equal(t, http.StatusConflict, r.Code, r.Body.String())
		return problem.Reason
	}
	const lead = `{"fields":{"name":"Bea Kay","phone":"139 0000 1111"}`
	assert.Equal(t, "erased", reason(lead+"}"))
	o.app.Config.Erased = app.RefuseErased
	assert.Equal(t, "erased", reason(lead+`,"duplicates":"allow"}`))
	n := o.count()
	w = sales.do(http.MethodPost, "/customers", typed("Cid Fox", "13900001111", "anyway", "1"))
	assert.Equal(t, http.StatusConflict, w.Code)
	assert.NotContains(t, w.Body.String(), `name="anyway"`)
	assert.Contains(t, w.Body.String(), "Ask an administrator")
	assert.Equal(t, n, o.count())

	// Who may make no records is not told.
	for _, phone := range []string{"139 0000 1111", "13700000000"} {
		r := o.as("auditor").send("/api/v1/customers", `{"fields":{"name":"Bea Kay","phone":"`+phone+`","kind":"person"}}`)
		assert.Equal(t, http.StatusForbidden, r.Code)
		assert.NotContains(t, r.Body.String(), "erased")
	}

	// Imports.
	const file = "name,phone\nAnn May,139 0000 1111\nBob May,13711112222\n"
	manager := o.as("manager")
	rehearse := func() string {
		w := manager.sendFile("/api/v1/imports", "in.csv", []byte(file), "type", "lead", "dry_run", "true")
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		return w.Body.String()
	}
	assert.Contains(t, rehearse(), `":erased":1`)
	at := manager.upload("in.csv", file, "type", "lead")
	assert.Contains(t, manager.body(manager.rehearsed(at)), "Somebody with a number or address of this row was erased here.")
	o.app.Config.Erased = app.WarnErased
	assert.Contains(t, rehearse(), `"erased":1`)
	w = manager.sendFile("/api/v1/imports", "in.csv", []byte(file), "type", "lead")
	require.Equal(t, http.StatusAccepted, w.Code, w.Body.String())
	var job struct{ ID string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &job))
	require.Eventually(t, func() bool {
		return manager.do(http.MethodGet, "/api/v1/imports/"+job.ID, nil).Code == http.StatusOK && !o.busy(job.ID)
	}, time.Minute, 20*time.Millisecond)
	body := manager.body("/imports/" + job.ID)
	assert.Contains(t, body, "Rows of people who were erased")
	assert.Contains(t, body, "Stored although somebody with such a number was erased")
	o.app.Config.Erased = app.AllowErased
	assert.Contains(t, rehearse(), `"erased":0`)
	r := sales.send("/api/v1/customers", again+`,"duplicates":"allow"}`)
	assert.Equal(t, http.StatusCreated, r.Code, r.Body.String())

	leads, err := o.app.Leads.Count(ctx, app.System("test"), guard.Query{})
	require.NoError(t, err)
	assert.EqualValues(t, 2, leads)
}

// busy tells whether an import is worked on.
func (o *office) busy(id string) bool {
	u, err := crm.ParseUUID(id)
	require.NoError(o.t, err)
	w, _ := o.app.ImportWork(u)
	return w.Running || w.Waiting
}

package web

import (
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestEndpointPages: an administrator makes an endpoint, sees its secret once and never its URL again, pauses it and looks at what was sent; nobody else does.
func TestEndpointPages(t *testing.T) {
	o := newOffice(t)
	admin, sales := o.as("admin"), o.as("sales")
	form := url.Values{"name": {"shop"}, "url": {"https://shop.example/in?key=SECRET-TOKEN"}, "types": {"customer"}, "acts": {"changed", "deleted"}}
	require.Equal(t, http.StatusOK, admin.get("/endpoints/new"))
	code, to := admin.post("/endpoints", form)
	require.Equal(t, http.StatusSeeOther, code)
	secret := regexp.MustCompile(`whsec_[A-Za-z0-9+/=&#;]+`)
	first := admin.body(to)
	require.Regexp(t, secret, first)
	again := admin.body(to)
	require.NotRegexp(t, secret, again, "shown once")
	for _, text := range []string{first, again, admin.body("/endpoints"), admin.body("/api/v1" + to)} {
		assert.NotContains(t, text, "SECRET-TOKEN")
		assert.Contains(t, text, "shop.example")
	}
	for _, path := range []string{to, to + "/edit", "/endpoints/new", "/api/v1" + to} {
		assert.GreaterOrEqual(t, sales.get(path), 400, path)
	}
	code, _ = sales.post("/endpoints", form)
	assert.GreaterOrEqual(t, code, 400)
	for _, bad := range []string{"http://shop.example/", "https://127.0.0.1/", ""} {
		form.Set("url", bad)
		code, _ := admin.post("/endpoints", form)
		assert.Equal(t, http.StatusUnprocessableEntity, code, bad)
	}
	for _, act := range []string{"test", "rotate", "pause"} {
		code, _ := admin.post(to+"/"+act, url.Values{"version": {"1"}})
		require.Equal(t, http.StatusSeeOther, code, act)
		code, _ = sales.post(to+"/"+act, url.Values{"version": {"1"}})
		require.GreaterOrEqual(t, code, 400, act)
	}
	require.Regexp(t, secret, admin.body(to))
	page, err := o.app.Deliveries.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	assert.Equal(t, http.StatusOK, admin.get("/deliveries"))
	assert.Equal(t, http.StatusOK, admin.get("/deliveries/"+page.Items[0].Value.ID.String()))
	assert.GreaterOrEqual(t, sales.get("/deliveries/"+page.Items[0].Value.ID.String()), 400)
	code, _ = admin.post("/deliveries", url.Values{})
	assert.GreaterOrEqual(t, code, 400)
}

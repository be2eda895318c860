package main_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
)

// TestBackupRevert: one record, and what belongs to it, get fields of a backup back: shown first, through the policy, as new versions in one transaction.
func TestBackupRevert(t *testing.T) {
	data := small(t, nil)
	var c *client
	serving := func(do func()) {
		t.Helper()
		p := serve(t, data, nil)
		c = p.signIn(t, "admin")
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		do()
		p.stop(t)
	}
	post := func(path string, form url.Values) string {
		t.Helper()
		r := c.post(t, path, form)
		require.Equal(t, http.StatusSeeOther, r.status, r.body)
		return r.header.Get("Location")
	}
	fields := func(path string, names ...string) (out []string) {
		t.Helper()
		f := one(t, c.get(t, "/api/v1"+path)).Fields
		for _, n := range names {
			out = append(out, f[n].Value.(string))
		}
		return out
	}
	var customer, contact string
	serving(func() {
		customer = post("/customers", url.Values{"name": {"Söhne & Co"}, "kind": {"company"}, "city": {"Ulm"}, "phone": {"13800138001"}})
		id := customer[strings.LastIndex(customer, "/")+1:]
		contact = post("/contacts", url.Values{"name": {"Anna Alt"}, "customer": {id}, "phone": {"13800138002"}})
	})
	id := customer[strings.LastIndex(customer, "/")+1:]
	snapshot := snapshotLine.FindStringSubmatch(mustRun(t, nil, "backup", "--data", data))[1]
	serving(func() {
		post(customer, url.Values{"version": {"1"}, "city": {"Bonn"}, "phone": {"13900139001"}})
		post(contact, url.Values{"version": {"1"}, "name": {"Berta Neu"}})
	})
	mustRun(t, nil, "backup", "--data", data) // the newest has nothing to give

	revert := func(args ...string) string {
		t.Helper()
		return mustRun(t, nil, append([]string{"backup", "revert", "customer", id, "--data", data}, args...)...)
	}
	out := revert("--related", "--snapshot", snapshot)
	assert.Contains(t, out, "version 2, then 1: phone, city\n")
	assert.Contains(t, out, "version 2, then 1: name\n")
	assert.Contains(t, out, "nothing is written")
	assert.Equal(t, 2, strings.Count(revert("--related"), "nothing to write"), "the newest backup")
	assert.NotContains(t, out, "13800138001")
	assert.NotContains(t, out, "Anna")
	assert.Contains(t, revert("--snapshot", snapshot, "--field", "phone", "--apply"), "written, event ")
	serving(func() {
		assert.Equal(t, []string{"Bonn", "13800138001"}, fields(customer, "city", "phone"))
		assert.Equal(t, []string{"Berta Neu"}, fields(contact, "name"))
		post(contact+"/delete", url.Values{"version": {"2"}}) // by itself, so that the customer's return does not bring it
		post(customer+"/delete", url.Values{"version": {"3"}})
	})
	out = revert("--snapshot", snapshot, "--related", "--apply")
	assert.Equal(t, 2, strings.Count(out, "comes out of the recycle bin"), out)
	serving(func() {
		assert.Equal(t, []string{"Ulm", "13800138001"}, fields(customer, "city", "phone"))
		assert.Equal(t, []string{"Anna Alt"}, fields(contact, "name"))
	})
	green(t, nil, "--data", data)

	for name, args := range map[string][]string{
		"no such record":   {"customer", crm.NewUUID().String()},
		"not an id":        {"customer", "Söhne"},
		"another type":     {"lead", id},
		"no such snapshot": {"customer", id, "--snapshot", "20200101T000000Z-0000000000000000"},
		"nobody":           {"customer", id, "--as", "nobody@example.com"},
	} {
		out, code := run(t, nil, append([]string{"backup", "revert", "--apply", "--data", data}, args...)...)
		assert.Equal(t, 1, code, name)
		assert.NotContains(t, out, "13800138001", name)
	}
}

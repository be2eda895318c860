package main_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
)

// TestHoldCommand: crm hold puts a hold on, lists it and lifts it by two; who is held is not erased; what cannot be meant is refused, and a reader without the right to the reason does not see it.
//
//crm:item 13 partly
func TestHoldCommand(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, nil)
	p.signIn(t, "admin")
	p.stop(t)
	a, admin := openedAs(t, data)
	v := &crm.Customer{Name: crm.NewText("Ann Lee"), Phone: crm.NewText("13800135678"), Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY"}
	_, err := a.Customers.Create(t.Context(), admin, v)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	id := v.ID.String()
	hold := func(args ...string) (string, int) {
		return run(t, nil, append(append([]string{"hold"}, args...), "--data", data)...)
	}
	for name, args := range map[string][]string{
		"no reason": {"put", id}, "by sales": {"put", id, "--reason", "a lawsuit", "--by", "sales@demo.example"}, "no such record": {"put", crm.NewUUID().String(), "--reason", "a lawsuit"},
		"no such type": {"put", id, "--type", "quote", "--reason", "a lawsuit"}, "no id": {"put", "Ann Lee", "--reason", "a lawsuit"}, "no such hold": {"lift", id, "--reason", "x", "--approved-by", "manager@demo.example"},
	} {
		out, code := hold(args...)
		assert.NotZero(t, code, "%s: %s", name, out)
	}
	out, code := hold("list")
	require.Zero(t, code, out)
	assert.Contains(t, out, "0 holds")
	out, code = hold("put", id, "--reason", "lawsuit 7")
	require.Zero(t, code, out)
	m := regexp.MustCompile(`^hold ([0-9a-f-]{36})\nperson ` + v.Person.String() + `\n$`).FindStringSubmatch(out)
	require.NotNil(t, m, out)
	out, _ = hold("list")
	assert.Regexp(t, m[1]+` active person `+v.Person.String()+`, customer `+id+`, put on by [0-9a-f-]{36} at \d{4}-.*\n  because: lawsuit 7\n1 holds`, out)
	out, _ = hold("list", "--as", "auditor@demo.example")
	assert.NotContains(t, out, "lawsuit")
	_, code = hold("list", "--as", "sales@demo.example")
	assert.NotZero(t, code)

	erase := []string{"erase", id, "--reason", "a letter", "--approved-by", "manager@demo.example", "--data", data}
	out, code = run(t, nil, erase...)
	assert.NotZero(t, code)
	assert.Contains(t, out, "legal hold")
	for name, args := range map[string][]string{
		"nobody agrees": {"--reason", "settled"}, "no reason": {"--approved-by", "manager@demo.example"}, "who put it on": {"--reason", "settled", "--approved-by", "admin@demo.example"},
		"sales": {"--reason", "settled", "--approved-by", "sales@demo.example"}, "by a manager": {"--reason", "settled", "--by", "manager@demo.example", "--approved-by", "admin@demo.example"},
	} {
		out, code := hold(append([]string{"lift", m[1]}, args...)...)
		assert.NotZero(t, code, "%s: %s", name, out)
	}
	out, code = hold("lift", m[1], "--reason", "settled", "--approved-by", "manager@demo.example")
	require.Zero(t, code, out)
	out, _ = hold("list")
	assert.Contains(t, out, "0 holds")
	out, _ = hold("list", "--all")
	assert.Regexp(t, `lifted by [0-9a-f-]{36} at`, out)
	assert.Contains(t, out, ": settled")
	assert.Contains(t, mustRun(t, nil, erase...), "blocked: nothing of them opens")
	green(t, nil, "--data", data)
}

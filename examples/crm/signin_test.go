package main_test

import (
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRestartKeepsSessions: who is signed in stays so over a restart and a crash of the program, until somebody on the host ends it.
//
//crm:item 35
func TestRestartKeepsSessions(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, nil, "--seed=false")
	c := p.signIn(t, "admin")
	in := func() bool {
		r := c.get(t, "/sessions")
		return r.status == http.StatusOK && assert.NotContains(t, r.body, `action="/sign-in"`)
	}
	require.True(t, in())
	p.stop(t)
	p = serve(t, data, nil, "--seed=false")
	c.base = p.url
	assert.True(t, in(), "after a restart")
	p.kill()
	p = serve(t, data, nil, "--seed=false", "--require-second-factor", "admin")
	c.base = p.url
	assert.Contains(t, c.get(t, "/customers").body, "Enrol one before anything else", "after a crash, with a rule that was not there before")
	p.stop(t)
	p = serve(t, data, nil, "--seed=false", "--allow-from", "admin=192.0.2.0/24")
	c.base = p.url
	assert.Contains(t, c.get(t, "/customers").body, `action="/sign-in"`, "from an address that is not allowed")
	p.stop(t)

	assert.Contains(t, mustRun(t, nil, "account", "factors", "admin@demo.example", "--data", data), "all second factors are removed")
	p = serve(t, data, nil, "--seed=false")
	c.base = p.url
	assert.Contains(t, c.get(t, "/customers").body, `action="/sign-in"`, "the sessions were ended on the host")
	p.stop(t)
	assert.Contains(t, mustRun(t, nil, "verify", "--data", data), "0 findings")
}

// TestSignInFlags: what cannot be meant is refused at the start.
func TestSignInFlags(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for _, flags := range [][]string{
		{"--allow-from", "admin"}, {"--allow-from", "admin=everywhere"}, {"--allow-from", "admin=192.0.2.1"}, {"--require-second-factor", "Admin!"},
		{"--origin", "crm.example.com"}, {"--origin", "https://crm.example.com/path"},
	} {
		out, code := run(t, nil, append([]string{"serve", "--data", data, "--addr", "localhost:0"}, flags...)...)
		assert.NotZero(t, code, flags)
		assert.Contains(t, out, flags[0], flags)
	}
	_, code := run(t, []string{"CRM_ALLOW_FROM=admin=nowhere"}, "serve", "--data", data, "--addr", "localhost:0")
	assert.NotZero(t, code)
	out, code := run(t, nil, "account", "factors", "admin@demo.example", "--data", data)
	assert.NotZero(t, code)
	assert.Contains(t, out, "there is no installation")
}

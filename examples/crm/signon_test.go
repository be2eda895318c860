package main_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/internal/realtest"
)

// TestSignOnJourney: with the program, a provider and a browser as they are, somebody who was linked on the host signs in there, confirms an act there, and is not
// let in any more once the link is ended. The cookies of the way there and back are those of a site with TLS.
func TestSignOnJourney(t *testing.T) {
	long(t)
	data := filepath.Join(t.TempDir(), "data")
	ln, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	const secret = "a client's secret"
	id := realtest.OIDC(t, "crm", secret, "https://localhost:"+port+app.CallbackPath)
	env := []string{"CRM_OIDC_SECRET=" + secret}
	flags := []string{"--oidc-issuer", id.Issuer, "--oidc-client", "crm", "--oidc-name", "Example ID", "--addr", "localhost:" + port}
	p := serve(t, data, env, append(flags, "--seed=false")...)
	p.stop(t)
	link := append([]string{"account", "link", "admin@demo.example", "id2", "--data", data}, flags...)
	assert.Contains(t, mustRun(t, env, link...), "linked")
	p = serve(t, data, env, flags...)

	b := open(t, p)
	there := func() {
		t.Helper()
		b.until(`location.origin === "` + id.Issuer + `" && !!document.querySelector("#password")`)
		b.do(chromedp.SendKeys(chromedp.CSS("#username"), "test-user2"))
		b.do(chromedp.SendKeys(chromedp.CSS("#password"), "verysecure"))
		b.press(`button[type="submit"]`)
		b.until(`location.origin === "` + p.url + `" && location.pathname !== "` + app.CallbackPath + `"`)
	}
	b.visit("/sign-in")
	assert.Contains(t, b.text(), "Sign in with Example ID")
	b.pictures("signon", "/sign-in")
	b.visit("/sign-in")
	b.press(".elsewhere button")
	there()
	b.visit("/sessions")
	assert.Contains(t, b.text(), "at the provider")
	assert.NotContains(t, b.text(), "one-time", "a password that they do not know is none of their business")

	b.visit("/step-up?back=/security")
	assert.Contains(t, b.text(), "Confirm at Example ID")
	b.press(".elsewhere button")
	there()
	b.until(`location.pathname === "/security"`)
	p.stop(t)

	assert.Contains(t, mustRun(t, env, "account", "unlink", "admin@demo.example", "--data", data), "no longer linked")
	p = serve(t, data, env, flags...)
	b.visit("/customers")
	b.until(`location.pathname === "/sign-in"`)
	b.press(".elsewhere button")
	b.until(`location.origin === "` + id.Issuer + `" && !!document.querySelector("#password")`)
	b.do(chromedp.SendKeys(chromedp.CSS("#username"), "test-user2"))
	b.do(chromedp.SendKeys(chromedp.CSS("#password"), "verysecure"))
	b.press(`button[type="submit"]`)
	b.until(`document.body.innerText.includes("E-mail and password do not match")`)
	p.stop(t)
	assert.NotContains(t, p.output.String(), secret)
	assert.Contains(t, mustRun(t, nil, "verify", "--data", data), "0 findings")
}

// TestTokenCommands: a token that was made on the host lets a program in until it is revoked there, and stands nowhere.
func TestTokenCommands(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, nil, "--seed=false")
	p.stop(t)
	out := mustRun(t, nil, "token", "create", "admin@demo.example", "--name", "nightly report", "--scope", "*:read", "--from", "127.0.0.0/8,::1/128", "--days", "30", "--data", data)
	text := regexp.MustCompile(token.Pattern).FindString(out)
	require.NotEmpty(t, text, out)
	id := strings.Split(text, "_")[1]
	for what, args := range map[string][]string{
		"no scope": {"--name", "x"}, "no name": {"--scope", "*:read"}, "a scope of everything": {"--name", "x", "--scope", "*:*"}, "a life of years": {"--name", "x", "--scope", "*:read", "--days", "1000"},
		"a network of no form": {"--name", "x", "--scope", "*:read", "--from", "here"},
	} {
		out, code := run(t, nil, append([]string{"token", "create", "admin@demo.example", "--data", data}, args...)...)
		assert.NotZero(t, code, what)
		assert.NotContains(t, out, "crmg_", what)
	}
	_, code := run(t, nil, "token", "create", "nobody@demo.example", "--name", "x", "--scope", "*:read", "--data", data)
	assert.NotZero(t, code)

	list := mustRun(t, nil, "token", "list", "admin@demo.example", "--data", data)
	assert.Contains(t, list, id)
	assert.Contains(t, list, "never used")
	assert.NotContains(t, list, text[16:59])

	p = serve(t, data, nil)
	c := p.client(t)
	ask := func() (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/api/v1/customers", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+text)
		a := c.do(t, r)
		return a.status, a.body
	}
	status, body := ask()
	require.Equal(t, http.StatusOK, status, body)
	p.stop(t)
	assert.NotContains(t, p.output.String(), text[16:59])
	assert.Contains(t, mustRun(t, nil, "token", "list", "admin@demo.example", "--data", data), ", used 2")

	assert.Contains(t, mustRun(t, nil, "token", "revoke", id, "--data", data), "revoked")
	_, code = run(t, nil, "token", "revoke", id, "--data", data)
	assert.NotZero(t, code, "once")
	_, code = run(t, nil, "token", "revoke", "", "--data", data)
	assert.NotZero(t, code)
	p = serve(t, data, nil)
	c = p.client(t)
	status, _ = ask()
	assert.Equal(t, http.StatusUnauthorized, status)
	p.stop(t)
	assert.Contains(t, mustRun(t, nil, "token", "list", "admin@demo.example", "--data", data), "revoked")
	// Nothing of it lies in the data folder.
	raw, err := os.ReadFile(filepath.Join(data, "crm.db"))
	require.NoError(t, err)
	assert.Contains(t, string(raw), id, "its row is there")
	assert.NotContains(t, string(raw), text[16:59])
	assert.Contains(t, mustRun(t, nil, "verify", "--data", data), "0 findings")
}

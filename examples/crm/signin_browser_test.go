package main_test

import (
	"bufio"
	"context"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/web"
)

// serveHere serves in this process, with a clock of sign-in that the test moves.
func serveHere(t *testing.T, ahead *atomic.Int64) (*process, *app.App) {
	t.Helper()
	p := &process{passwords: map[string]string{}, output: &safeBuffer{}, data: filepath.Join(t.TempDir(), "data")}
	a, err := app.Open(t.Context(), app.Config{
		Data: p.data, Addr: "localhost:0", Seed: true, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	require.NoError(t, err)
	logins, err := a.Populate(t.Context())
	require.NoError(t, err)
	for _, l := range logins {
		p.passwords[l.Role] = l.Password
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- web.Serve(ctx, a, w) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-done)
		assert.NoError(t, a.Close())
	})
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if u, ok := strings.CutPrefix(lines.Text(), "Serving on "); ok {
			p.url = u
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	require.NotEmpty(t, p.url)
	return p, a
}

// TestSignInJourney: in a browser with an authenticator, an administrator enrols a passkey, signs in with it, loses it, comes back by a code from paper, enrols another one and an app, and
// steps up for an export; in both languages and widths every page fits.
func TestSignInJourney(t *testing.T) {
	long(t)
	var ahead atomic.Int64
	p, a := serveHere(t, &ahead)
	p.signIn(t, "admin")
	b := open(t, p)
	b.pictures("signin", "/sign-in")
	_, err := chromedp.Call(b.Context, webauthn.Enable, webauthn.EnableParams{})
	require.NoError(t, err)
	device, err := chromedp.Call(b.Context, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
		AutomaticPresenceSimulation: true, IsUserVerified: true,
	}})
	require.NoError(t, err)
	codes := func() []string {
		return strings.Fields(b.eval(`[...document.querySelectorAll(".codes code")].map(e => e.textContent).join(" ")`))
	}
	enrol := func(name string) {
		t.Helper()
		b.visit("/security")
		b.until(`!!document.querySelector('form[data-passkey="create"]:not([hidden])')`)
		b.do(chromedp.SendKeys(chromedp.CSS("#passkey-name"), name))
		b.press(`form[data-passkey="create"] button`)
		b.until(`document.body.innerText.includes(` + "`" + name + "`" + `)`)
	}

	b.signIn("admin@demo.example", newPassword)
	b.pictures("security-empty", "/security")
	enrol("Laptop 指纹")
	paper := codes()
	require.Len(t, paper, 10)
	b.picture("security-codes-en-1280")
	b.Viewport(t, 390)
	b.picture("security-codes-en-390")
	b.Viewport(t, 1280)
	b.pictures("security-passkey", "/security")

	// It signs in alone, and nobody types a name.
	b.visit("/security")
	b.submit(`form[action="/sign-out"]`)
	b.visit("/sign-in")
	b.until(`!!document.querySelector('form[data-passkey="get"]:not([hidden])')`)
	b.press(`form[data-passkey="get"] button`)
	assert.Contains(t, b.text(), "Good day")
	b.pictures("sessions", "/sessions")
	b.pictures("sessions-history", "/sessions/history")
	b.pictures("home-news", "/")

	// It is lost: the password alone opens nothing, a code from paper does.
	_, err = chromedp.Call(b.Context, webauthn.ClearCredentials, webauthn.ClearCredentialsParams(device))
	require.NoError(t, err)
	b.visit("/security")
	b.submit(`form[action="/sign-out"]`)
	b.signIn("admin@demo.example", newPassword)
	assert.Contains(t, b.text(), "One more step")
	b.pictures("second", "/sign-in/second")
	b.visit("/customers")
	assert.Contains(t, b.eval(`location.pathname`), "/sign-in")
	b.visit("/sign-in/second")
	b.do(chromedp.SendKeys(chromedp.CSS("#code"), "nonsense-code"))
	b.press(`main form[action="/sign-in/second"] button`)
	assert.Contains(t, b.text(), "does not match")
	b.do(chromedp.SendKeys(chromedp.CSS("#code"), paper[0]))
	b.press(`main form[action="/sign-in/second"] button`)
	assert.Contains(t, b.text(), "Good day")

	// Another passkey, and the lost one goes; an app as well.
	enrol("Security key")
	b.visit("/security")
	assert.Contains(t, b.text(), "9 left")
	b.press(`form[action="/security/passkeys/remove"] button`)
	assert.NotContains(t, b.text(), "Laptop")
	assert.Contains(t, b.text(), "Security key")
	b.press(`main form[action="/security/totp"] button`)
	assert.Contains(t, b.text(), "Scan the code")
	b.picture("security-totp-en-1280")
	b.Viewport(t, 390)
	b.picture("security-totp-en-390")
	b.Viewport(t, 1280)

	// An export a while later asks for a fresh proof.
	ahead.Add(int64(6 * time.Minute))
	b.visit("/customers/export")
	assert.Contains(t, b.eval(`String(!!document.querySelector('[name="current"]'))`), "true")
	b.pictures("export-stepup", "/customers/export")
	b.visit("/step-up?back=/customers/export")
	b.pictures("step-up", "/step-up?back=/customers/export")
	b.visit("/step-up?back=/customers/export")
	b.until(`!!document.querySelector('form[data-passkey="get"]:not([hidden])')`)
	b.press(`form[data-passkey="get"] button`)
	assert.Equal(t, "/customers/export", b.eval(`location.pathname`))
	assert.Equal(t, "false", b.eval(`String(!!document.querySelector('[name="current"]'))`))

	// What an administrator sees of somebody else's sign-in.
	p.signIn(t, "sales")
	seller, err := a.Owner(t.Context(), "sales@demo.example")
	require.NoError(t, err)
	b.visit("/employees/" + seller.ID.String())
	assert.Contains(t, b.text(), "Sign-in and sessions")
	at := b.eval(`document.querySelector('a[href$="/sign-in"]').getAttribute("href")`)
	b.visit(at)
	b.pictures("sign-in-of", at)
	b.visit(at)
	b.press(`form[action$="/sign-in/password"] button`)
	assert.Contains(t, b.text(), "shown now and never again")
	b.picture("sign-in-once-en-1280")
	b.calm()
}

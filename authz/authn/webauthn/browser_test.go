package webauthn_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	cdpauthn "github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/authz/authn/webauthn/memstore"
	"github.com/crmguard/crmguard/internal/realtest"
)

const (
	createJS = `navigator.credentials.create({publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(OPTIONS)}).then(c => JSON.stringify(c.toJSON()))`
	getJS    = `navigator.credentials.get({publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(OPTIONS)}).then(c => JSON.stringify(c.toJSON()))`
)

// TestChromium: a passkey of a real browser with a virtual authenticator is enrolled, signs in, serves as a second
// factor, and is refused once it is removed or was cloned.
func TestChromium(t *testing.T) {
	ctx := t.Context()
	b := realtest.Chromium(t, realtest.BrowserOptions{})
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>passkeys</title>"))
	}))
	defer page.Close()
	at := strings.Replace(page.URL, "127.0.0.1", "localhost", 1)
	sealer, err := session.NewKeySealer(key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := webauthn.New(webauthn.Site{ID: "localhost", Name: "CRM", Origins: []string{at}}, memstore.New(), &once.Memory{}, sealer, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(b.Context, chromedp.Navigate(at+"/")); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(b.Context, cdpauthn.Enable, cdpauthn.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	made, err := chromedp.Call(b.Context, cdpauthn.AddVirtualAuthenticator, cdpauthn.AddVirtualAuthenticatorParams{Options: &cdpauthn.VirtualAuthenticatorOptions{
		// HasCmtgKey: AddCredential below always sends the field, and an authenticator without it refuses.
		Protocol: cdpauthn.AuthenticatorProtocolCtap2, Transport: cdpauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true, HasCmtgKey: true,
		IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	device := made.AuthenticatorID
	run := func(js string, options json.RawMessage) ([]byte, error) {
		t.Helper()
		out, err := chromedp.Run(b.Context, chromedp.Evaluate[string](strings.Replace(js, "OPTIONS", string(options), 1), chromedp.EvalAwaitPromise))
		return []byte(out), err
	}
	ask := func(js string, options json.RawMessage) []byte {
		t.Helper()
		out, err := run(js, options)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	options, secret, err := p.BeginEnrolment(ctx, "acme", "ann", webauthn.Names{Account: "ann", Display: "Ann"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.FinishEnrolment(ctx, secret, "laptop", ask(createJS, options))
	if err != nil {
		t.Fatal(authn.Reason(err))
	}
	if c.Name != "laptop" || len(c.Transports) != 1 || c.Transports[0] != "internal" {
		t.Errorf("%+v", c)
	}
	// The browser itself refuses to enrol it twice.
	if options, _, err = p.BeginEnrolment(ctx, "acme", "ann", webauthn.Names{Account: "ann", Display: "Ann"}); err != nil {
		t.Fatal(err)
	}
	if _, err := run(createJS, options); err == nil || !strings.Contains(err.Error(), "InvalidStateError") {
		t.Errorf("enrolled twice: %v", err)
	}
	signIn := func() (*webauthn.Credential, error) {
		t.Helper()
		options, secret, err := p.BeginSignIn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return p.FinishSignIn(ctx, secret, ask(getJS, options))
	}
	for range 2 {
		if got, err := signIn(); err != nil || got.Person != "ann" || got.ID != c.ID {
			t.Fatalf("%+v, %v", got, authn.Reason(err))
		}
	}
	options, secret, err = p.BeginCheck(ctx, "acme", "ann")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.FinishCheck(ctx, secret, ask(getJS, options)); err != nil || got.Person != "ann" {
		t.Fatalf("%+v, %v", got, authn.Reason(err))
	}
	// Without the finger the browser gives nothing.
	if _, err := chromedp.Call(b.Context, cdpauthn.SetUserVerified, cdpauthn.SetUserVerifiedParams{AuthenticatorID: device, IsUserVerified: false}); err != nil {
		t.Fatal(err)
	}
	if options, _, err = p.BeginSignIn(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := run(getJS, options); err == nil || !strings.Contains(err.Error(), "NotAllowedError") {
		t.Errorf("not verified: %v", err)
	}
	if _, err := chromedp.Call(b.Context, cdpauthn.SetUserVerified, cdpauthn.SetUserVerifiedParams{AuthenticatorID: device, IsUserVerified: true}); err != nil {
		t.Fatal(err)
	}
	// A copy of the credential with an older counter.
	all, err := chromedp.Call(b.Context, cdpauthn.GetCredentials, cdpauthn.GetCredentialsParams{AuthenticatorID: device})
	if err != nil || len(all.Credentials) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	if _, err := chromedp.Call(b.Context, cdpauthn.ClearCredentials, cdpauthn.ClearCredentialsParams{AuthenticatorID: device}); err != nil {
		t.Fatal(err)
	}
	from := all.Credentials[0]
	copied := &cdpauthn.Credential{
		CredentialID: from.CredentialID, IsResidentCredential: true, RpID: from.RpID, PrivateKey: from.PrivateKey, UserHandle: from.UserHandle, SignCount: 1,
	}
	if _, err := chromedp.Call(b.Context, cdpauthn.AddCredential, cdpauthn.AddCredentialParams{AuthenticatorID: device, Credential: copied}); err != nil {
		t.Fatal(err)
	}
	got, err := signIn()
	var cloned *webauthn.ClonedError
	if got != nil || !errors.As(authn.Reason(err), &cloned) || cloned.ID != c.ID {
		t.Errorf("a copy: %+v, %v", got, authn.Reason(err))
	}
	if err := p.Remove(ctx, "acme", "ann", c.ID); err != nil {
		t.Fatal(err)
	}
	got, err = signIn()
	refused(t, "removed", got, err, webauthn.ErrUnknown)
}

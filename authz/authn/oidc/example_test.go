package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/oidc"
	"github.com/crmguard/crmguard/authz/authn/once"
)

func Example() {
	ctx := context.Background()
	// In earnest: the organisation's provider.
	var issuer string
	id := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":%q,"token_endpoint":%q,"jwks_uri":%q}`, issuer, issuer+"/auth", issuer+"/token", issuer+"/keys")
	}))
	defer id.Close()
	issuer = id.URL
	p, err := oidc.New(ctx, oidc.Client{Issuer: issuer, ID: "crm", Secret: "...", RedirectURL: "https://crm.example.com/callback"}, &once.Memory{}, &oidc.Options{
		Roles: map[string][]string{"crm-sales": {"sales"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	to, cookie, err := p.Begin(ctx, nil) // the browser gets the cookie and is sent there
	if err != nil {
		log.Fatal(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(u.Path, u.Query().Get("code_challenge_method"))
	// Somebody sends the browser an answer that it has not asked for.
	_, err = p.Finish(ctx, cookie, url.Values{"code": {"x"}, "state": {"made up"}})
	fmt.Println(err, errors.Is(authn.Reason(err), oidc.ErrState))
	// Output:
	// /auth S256
	// authn: refused true
}

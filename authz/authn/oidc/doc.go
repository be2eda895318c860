// Package oidc signs people in at a provider that their organisation has already, by OpenID Connect Core 1.0 with the
// authorization code flow. It is the only importer of github.com/coreos/go-oidc and golang.org/x/oauth2.
//
//	p, err := oidc.New(ctx, oidc.Client{Issuer: "https://id.example.com", ID: "crm", Secret: secret, RedirectURL: "https://crm.example.com/callback"}, states, nil)
//	to, secret, err := p.Begin(ctx, nil)                     // secret into a cookie (HttpOnly, SameSite=Lax), the browser to the URL
//	who, err := p.Finish(ctx, secret, r.URL.Query())         // at the redirect URL
//
// # What is demanded
//
// PKCE with S256 (RFC 7636), state and nonce, all derived from the one secret in the browser's cookie, so an answer
// is of no use to another browser. The store has nothing but the hash of that secret, which is used up by the first
// answer that has the right state and expires after ten minutes.
//
// The issuer is pinned: that of the configuration, of the discovery document, of the parameter iss of the answer (RFC
// 9207: required where the provider says that it sends one) and of the ID token are the same string. The ID token is
// signed by RS256, PS256, ES256, ES384 or EdDSA, never by none or a shared secret; it is for this client and for
// nobody else, of this very sign-in, and issued just now. Clocks may differ by [Options].Skew.
//
// A person is the pair of issuer and subject. An e-mail address is given to somebody else one day: [Identity].Email is
// for the first meeting of two directories, where the composition wants that, and only an address that the provider has
// verified.
//
// # A fresh proof
//
// [Ask].Login asks the provider to have the person show anew who they are (prompt=login and max_age=0), and does not
// believe the answer by itself: auth_time must say so.
//
// # Roles
//
// [Options].Roles names the groups that give roles. Other groups give none, and who is in none of the groups is
// refused. Without it, roles are the composition's own matter, and [Identity].Roles is empty.
//
// # Logout from there
//
// [Provider.LogoutHandler] takes logout tokens (OpenID Connect Back-Channel Logout 1.0), each once, and ends sessions
// through an [Ender].
//
// # Errors
//
// Finish and Logout answer [authn.ErrRefused] whatever failed, with a reason for the log ([authn.Reason]):
// [ErrState], [ErrIssuer], [ErrDenied], [ErrExchange], [ErrToken], [ErrNoRole], [ErrReplay], or that of the store.
// Reasons hold no codes and no tokens.
//
// # Not covered
//
// What the provider itself asked for: [Identity].Methods is authn.OIDC alone, unless [Options].Methods trusts what
// its claim amr says, or [Options].Contexts what its claim acr says.
//
// A Provider is safe for concurrent use.
package oidc

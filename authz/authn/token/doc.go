// Package token lets programs in: API tokens of service accounts, and client certificates in their place. It imports
// the standard library and package authn only.
//
//	m, err := token.New(store, [][]byte{key}, nil)
//	info, secret, err := m.Issue(ctx, token.Grant{Tenant: tenant, Account: account, Name: "nightly export", Scopes: []string{"export"}, Expires: in90Days})
//	fmt.Println(secret.Reveal()) // shown once
//	...
//	info, err = m.Verify(ctx, token.FromRequest(r), addr)
//
// # The text
//
// crmg_, ten characters that name the token, _, 43 characters of secret (256 random bits) and six of checksum:
//
//	crmg_[0-9a-hjkmnp-tv-z]{10}_[0-9A-Za-z]{49}
//
// which is what a secret scanner looks for ([Pattern]); the checksum tells a find from a coincidence without a query
// ([Checksum]). The name is no secret: it stands in lists and in the log, and finds the row. The store has a hash of
// the whole text under a key (HMAC-SHA-256), so who reads it lets nobody in. Revoking destroys that hash.
//
// # Certificates
//
// [Manager.Bind] ties the public key of a client certificate to a service account, and [Manager.VerifyCertificate]
// takes a TLS connection whose certificate was verified against an authority. Expiry, scopes, sources and revocation
// are those of tokens; a certificate that is renewed with the same key stays bound.
//
// # Errors
//
// Verify and VerifyCertificate answer [authn.ErrRefused] whatever failed, with a reason for the log ([authn.Reason]):
// [ErrMalformed], [ErrNone], [ErrExpired], [ErrRevoked], [ErrSource], [ErrForged], [ErrUnverified] or that of the
// store. Which scope an act needs is the caller's to ask: [Info.Has].
//
// # Not covered
//
// What a service account may do: its roles are the policy's matter, and scopes only narrow them. Tokens stolen from a
// machine that is among their sources serve until they are revoked.
//
// A Manager is safe for concurrent use.
package token

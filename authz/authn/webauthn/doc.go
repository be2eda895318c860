// Package webauthn signs people in by passkeys: WebAuthn credentials that verify their user by fingerprint, face or
// PIN. It is the only importer of github.com/go-webauthn/webauthn.
//
//	p, err := webauthn.New(webauthn.Site{ID: "crm.example.com", Name: "CRM", Origins: []string{"https://crm.example.com"}}, store, states, sealer, key, nil)
//
//	options, ceremony, err := p.BeginEnrolment(ctx, tenant, person, webauthn.Names{Account: "ann", Display: "Ann"}) // options go to navigator.credentials.create
//	c, err := p.FinishEnrolment(ctx, ceremony, "phone", response)
//
//	options, ceremony, err = p.BeginSignIn(ctx) // to navigator.credentials.get; nobody is named
//	c, err = p.FinishSignIn(ctx, ceremony, response)
//
// ceremony is a secret that stays with the browser (a cookie, or the page's own form) and never goes into a URL. What
// the server has to remember lies in a once.Store under its hash: it is used up by the first try, right or wrong, and
// expires after five minutes.
//
// # What is demanded
//
// User verification, always: a passkey is two factors in one (authn.Passkey). Discoverable credentials, so that
// nobody types a name. The origin is one of the [Site], not in a frame of another. Algorithms EdDSA, ES256 and RS256,
// the recommended set of WebAuthn Level 3.
//
// # Clones
//
// An authenticator that counts must count upwards. A counter that stands or goes back means that two copies of a key
// exist, and which one is the owner's cannot be known: the sign-in is refused with [*ClonedError], by which the
// person is told, and the credential never serves again. Synced passkeys do not count (their counter stays 0), and
// copies of those are not noticed.
//
// # Attestation
//
// By default no attestation is asked for, and which model an authenticator is remains its own word. With
// [Options].Models an attestation is required whose certificates lead to the authority of one of the named models.
//
// # What is stored
//
// docs/formats/sessions.md. The user handle that lies in authenticators is random and says nothing about the person.
// The name that a person gives to a credential is sealed through a [Sealer]. A row carries a MAC, so a public key
// that was exchanged in the database signs nobody in.
//
// # Errors
//
// The Finish methods answer [authn.ErrRefused] whatever failed, with a reason for the log ([authn.Reason]):
// [ErrCeremony], [ErrInvalid], [ErrUnknown], [ErrModel], [ErrForged], [ErrExists], [ErrTooMany], *ClonedError, or
// that of the store.
//
// A Passkeys is safe for concurrent use.
package webauthn

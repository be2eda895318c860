// Package authn says who acts: it holds the words that the packages below it share, and imports the standard library
// only. Each package below is usable alone.
//
// # The packages
//
//   - password: Argon2id hashes sealed under a key that rotates, the rules of NIST, a list of common passwords.
//   - totp: codes of an authenticator app (RFC 6238), each accepted once.
//   - recovery: ten codes on paper, each accepted once.
//   - sms: codes sent to a phone or a mailbox, for what has nothing stronger.
//   - webauthn: passkeys, which verify their user by fingerprint, face or PIN.
//   - oidc: sign-in at a provider that the organisation has already.
//   - token: service accounts, API tokens, client certificates.
//   - lockout: how often may be tried, from where, and what the owner can still do.
//   - session: staying signed in, stepping up, being thrown out.
//   - keyring, records and once: a sealer and stores for those that ask for one, where there is no other.
//
// They verify and count; they store through small interfaces of their own, and neither log nor answer requests. The
// composition (examples/crm shows one) joins them: reserve an attempt with lockout, verify a factor, tell lockout the
// result, append an event to the audit log, and only then start a session.
//
// # One answer
//
// Who fails to sign in learns nothing but [ErrRefused], whatever failed: an unknown name, a wrong password, a replayed
// code, a database that stopped. [Refuse] makes that answer and carries the true reason, and [Reason] takes it out for
// the log. Its text never holds the reason, so that an answer printed by mistake tells nothing. Times must not tell
// either: package password works as long for an unknown name as for a known one.
//
// # Levels
//
// A [Level] is what a set of methods reaches by NIST SP 800-63B-4 (July 2025): [LevelOf] computes it. It is the level
// of this sign-in; a composition compares it with what a role or an act asks for, and steps up.
//
// # Not covered
//
// Who may do what (package authz), how a name belongs to an account, and proofing of a person's identity.
package authn

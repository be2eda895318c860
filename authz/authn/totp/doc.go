// Package totp verifies the codes of authenticator apps (RFC 6238: 30 seconds, six or eight digits, HMAC with SHA-1,
// SHA-256 or SHA-512) and accepts each once. It is usable alone.
//
// # Use
//
// [Verifier.Enrol] makes a [Key], which the person scans as a QR code of [Key.URI]. [Verifier.Confirm] takes the first
// code and makes the key count; until then an older one does. [Verifier.Verify] takes a code at sign-in. SHA-1 and six
// digits are what every app can do, and the default; HMAC-SHA-1 is not broken by collisions of SHA-1.
//
// # Once
//
// A code is of one step of 30 seconds. The step of the last code is part of the stored record, which is replaced by
// compare-and-set ([Store]): of parallel uses of one code one is accepted, and the code that enrolled a key signs
// nobody in afterwards. Codes of the step before and after are accepted too, for clocks that drift, and never one of a
// step before the last used.
//
// # At rest
//
// The record is sealed ([Sealer]) with the account's id bound to it. It is sealed anew at each use, and so comes under
// the newest key by itself. docs/formats/authn.md describes it.
//
// # Not covered
//
// How often may be tried: six digits with a window of three steps are guessed once in 333,000 tries, so use package
// lockout. An enrolled app can be phished; a passkey (package webauthn) cannot.
package totp

// Package password stores and checks passwords, and says which may be chosen. It is usable alone.
//
// # Hashes
//
// A [Hasher] hashes with Argon2id (RFC 9106), with parameters of at least 19 MiB, two passes and one lane, which
// [Calibrate] raises to what this machine does in a given time. The hash is then sealed ([Sealer]) under a key that
// lies apart from the database: a stolen table alone cannot be guessed at. The account's id is bound to the seal, so a
// hash that was moved to another account does not verify. docs/formats/authn.md describes the record.
//
// Concurrent hashes are bounded, for each takes memory and a core; who waits too long gets [ErrBusy].
//
// # Times
//
// Each call of [Hasher.Verify] does the same work, whatever it was given: one hash with every set of live parameters,
// the account's own or an empty one, so that neither an unknown name nor an account with older parameters shows by the
// time. So the time is that of the costliest live parameters, and while older ones are live theirs on top.
// internal/bench/authn measures the difference. What is refused faster (a password over [MaxBytes], text that is not
// UTF-8) depends on the input alone.
//
// # Rules
//
// [Rules] are those of NIST SP 800-63B-4, section 3.1.1: 15 characters where the password is the only factor, 8 with a
// second one, any character of Unicode counted as one, up to [MaxBytes] (more than the 64 characters that must be
// accepted), no rules of composition, no change by the calendar, a blocklist of common passwords and of words that an
// attacker would try first. Text is normalised to NFC, as revision 4 says (revision 3 said NFKC or NFKD), by the
// process for stabilised strings: code points that Unicode has not assigned are refused. It is not trimmed and not cut.
//
// The list of common passwords is 49,193 entries in 210 KB: see NOTICE beside this file.
//
// # Not covered
//
// How often one may try (package lockout), whether a password was stolen elsewhere (no list of breaches is asked over
// the network), and erasing a password from the memory of the program.
package password

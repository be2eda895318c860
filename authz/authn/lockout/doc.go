// Package lockout decides whether one may try to sign in, so that guessing ends and the owner still gets in. It is
// usable alone.
//
// # Counters
//
// Five of them, four of an account and one of a source alone:
//
//   - with a source, for tries from unknown devices: more than three failures lock the pair for 15 minutes, and each
//     further failure for twice as long, up to a day. A source is an IPv4 address or an IPv6 /64.
//   - in total, for tries from unknown devices: after 100 failures (NIST SP 800-63B-4, section 3.2.2) an unknown
//     device needs a stronger factor, for a day at first. A success does not start this count anew. This is a soft
//     lock: it names what is needed and shuts nobody out who has it.
//   - with a known device, by the same rule as with a source. Whoever is not on the device cannot touch it: an
//     attacker cannot lock the owner out there. A hundred failures on one take three months.
//   - with a source, for tries with a stronger factor (a passkey), which cannot be guessed. Guessed passwords do not
//     lock these.
//   - of a source, how many accounts failed from it that have not signed in from there since, for tries from unknown
//     devices: the 21st within a day, and each further one, makes every unknown device there need a stronger factor, for
//     15 minutes at first and twice as long each time, up to a day. So neither a list of stolen passwords nor one
//     password for everybody is tried to its end. This is a soft lock too: known devices behind the same address, and
//     passkeys, are not touched. Unknown names count. Who spreads the tries over many addresses meets the other counters only.
//
// A row is forgotten a day after its last failure or the end of its lock, whichever is later. An administrator may
// [Guard.Release] an account; the composition puts that into the audit log. A source that is locked stays so: the people
// there have their known devices. A proxy whose addresses are taken for those of clients makes all clients one source.
//
// # Use
//
// [Guard.Begin] reserves a failure before anything is verified, in one atomic step: of parallel tries no more get
// through than one after the other would. Then verify. After a complete sign-in call [Pass.Succeed]; after a failure
// nothing; [Pass.Undo] when the check could not be made, or when a right password is to be followed by another factor.
// Succeed after the password alone would let a thief of the password guess codes without end.
//
// # Same answers
//
// The account is the name that was typed, known or not: unknown names are counted alike, and answers do not differ. A
// known device is a token that the composition gave out after a complete sign-in of this account, and has checked.
//
// # At rest
//
// Names, sources and devices are stored as keyed hashes only (HMAC-SHA-256, 128 bits), those of sources and devices
// bound to the account, but for the one row that counts the accounts of a source: a table without the key says neither who nor from where. docs/formats/authn.md has the rows.
// Their number is bounded ([Options].MaxRows): rows with the fewest failures go first, so that a flood of new names and
// sources does not wash out what counts. [Memory] is a store for one process, lockout/sqlstore for several; both pass
// lockouttest.
package lockout

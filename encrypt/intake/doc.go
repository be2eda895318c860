// Package intake receives personal data from hosts that can only encrypt. A web form seals what
// a visitor typed to a public key; the CRM, elsewhere, opens it, seals it again under the person's key, and forgets
// the intake. Who takes over the form's host reads what comes after, and nothing that came before.
//
// # Use
//
// The CRM has a [Box] for each tenant and gives out its [Public]; the form's host parses that with [ParsePublic] and
// calls Seal. Open what arrives within a day, and call Sweep daily.
//
// # Keys
//
// A Box makes a new pair when the present one has less than a day left: a pair seals for one week and opens for
// one day more. Then Sweep destroys the private half and nothing sealed to it opens ever again, wherever a copy of it lies
// (queues, logs, disks of the form's host). The private half rests in a [Store], sealed by the tenant's key.
//
// A store of intake keys is never backed up: a copy of it would keep a destroyed key alive. There is no export, and
// a SQL store must not lie in a database that is dumped whole, or must be left out by name. What was lost
// with a store was not yet opened for at most the days since it arrived, and is asked for again.
//
// # Trust
//
// The host must get the public key over a way that it can trust (TLS of the CRM, its own deployment): who exchanges it reads the form.
// ID is a fingerprint of the whole of it, to compare. Seal proves nothing about who sealed: anybody may. The same
// sealed bytes open again and again; a caller who must not take an entry twice puts a number into it or keeps a digest of what it took.
//
// # Format and algorithms
//
// HPKE (RFC 9180) in base mode with MLKEM768-X25519, HKDF-SHA-256 and AES-256-GCM, so that what is recorded today
// stays closed to a quantum computer of tomorrow. docs/formats/intake.md has every byte.
//
// # Errors
//
// [keys.ErrTampered] for everything that is not authentic, [keys.ErrRetired] for a key whose time has passed,
// [keys.ErrKeyMissing] for one whose time has not and which the store does not have: an alarm, or an entry of another
// tenant. Errors of the store and of the Keeper come as they are. No error holds a text.
//
// # Concurrency
//
// All types are safe for concurrent use, as far as the Store and the Keeper are; several processes may share a Store.
package intake

// Package witness gets checkpoints of a log signed by others, so that whoever
// holds the key and the disk of the log still cannot show two histories.
//
// A witness remembers the newest checkpoint of each log that it knows and signs
// a newer one only when a proof shows that nothing before was changed. The
// protocol is C2SP tlog-witness, the signatures are Ed25519 tlog-cosignature/v1,
// and who has to sign is a C2SP tlog-policy file. docs/formats/witness.md
// repeats what is needed of them and describes the files of this package.
//
// # Use
//
// A log makes a [Client] with a [Policy] and a [Prover], and calls
// [Client.Cosign] with the note of a checkpoint. What comes back is the same
// note with more signature lines; any reader of signed notes takes it.
// [Cosignatures] says which witnesses signed a note and when, and
// [Policy.Check] whether they are enough. [Server] is a witness: a handler with
// a [Store], [OpenFileStore] on a disk or [NewMemStore] for tests.
//
// A second way is a write-once copy of each checkpoint: [Copy] puts one into a
// [Bucket] that refuses to replace what is there, and [Pins] reads them back as
// pins for a verification.
//
// # Failing
//
// A client fails closed: without a quorum it returns [ErrQuorum]. With
// Options.FailOpen it returns what it got, unless a witness speaks of a fork or
// a rollback and the quorum is not met. A witness that hangs costs its own
// deadline and nothing else.
//
// # What this does not protect
//
// Witnesses under one hand are one witness. A witness whose state file is put
// back to an older copy signs again what it signed since. Events after the last
// cosigned checkpoint are covered by the signature of the log alone.
package witness

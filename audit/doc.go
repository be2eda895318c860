// Package audit is a log that proves itself: what happened, in an order and
// with a content that cannot be changed unnoticed, and with personal data that
// can still be erased.
//
// # Use
//
// [Open] opens the log of a store for appending: filestore for a folder,
// sqlstore for PostgreSQL or SQLite, memstore for tests. [Log.Append] returns when an event is durable; calls that
// arrive during a sync share the next one, without a timer. [Log.Query] and
// [Log.Events] read. [Verify] checks a log with the public key alone, also
// beside a running writer.
//
// Options.Rules, of package keep, may keep less of some actions, and let their
// appends return before they are durable. [Log.AppendAsync] says in its name that it does.
// [Log.Follow] gives each event as it comes, [Log.Replay] old ones in the order
// of their times.
//
// # Proofs
//
// [Log.Tree], and [Verdict].Tree for a log that nobody writes, makes inclusion
// and consistency proofs and receipts. [VerifyReceipt] checks a receipt without
// the log. Package tile writes the log for public tools. [Log.Prune] takes old
// events out, and every proof keeps its worth.
//
// # Format
//
// Each event has one canonical byte string, and these bytes are stored and
// hashed. The events form a hash chain and the leaves of an RFC 6962 tree. Each
// batch ends in a checkpoint, a C2SP signed note with size and root.
// docs/formats/audit.md describes every byte, what is detected and what is
// not; logs of version 1 stay readable.
//
// # Heads kept elsewhere
//
// Whoever can write the store can also cut off its end. Keep the note of a
// [Checkpoint] where he cannot write (Options.OnCheckpoint hands one out each
// second) and give it to [Open] and [Verify]. Without such a head a verdict is
// [Unanchored] at best, which is not good. With the keys of witnesses it can be
// [Anchored].
//
// # Personal data
//
// Ids are opaque. A personal value enters an event only by [Personal]: the
// event keeps a salted commitment, and a [Sealer] seals value and salt under
// the key of the person. Destroying that key erases the value and leaves every
// proof valid.
//
// # Errors
//
// The log fails closed: after a failed write or sync every Append returns
// [ErrUnavailable] until the log is opened again, and so a caller that logs
// before it acts stops acting. No error text holds personal data or keys.
package audit

// Package backup keeps encrypted, signed snapshots of a store in a bucket and restores them.
//
// # Use
//
// [Open] opens the [Repository] of a [Bucket] (package blobstore: a folder, memory, cloud).
// [Repository.Backup] writes what a [Source] dumps; package sqlsource dumps SQLite and PostgreSQL.
// [Repository.Verify] says whether everything could be restored, [Repository.Restore] loads a snapshot
// into an empty [Sink]. Package backuptest has the suites for buckets, sources and sinks of your own.
//
// # Keys
//
// Snapshots are sealed to a public key ([backupkey.Generate]) whose private half should lie elsewhere: a host
// without it writes backups and cannot read them. An Ed25519 key ([backupkey.CreateSigner]) signs every manifest, and
// whoever restores pins its public half; nothing is opened before that signature is checked. The
// private key cannot be made again: without it a backup opens for nobody. [backupkey.Private.Split] makes shares of it, and
// [Repository.AddKey] lets another key open what this one opens.
//
// # Chains
//
// With BackupOptions.Chain a snapshot holds only the rows that changed since the one before, and the
// ids of those that are gone. They are found by comparing each row with the record index of the
// snapshots below, or by change numbers where the source has them ([Writer.Since]). Restoring one reads
// the whole chain; rows come in another order than they were dumped in. Large tables are
// sorted and compared through a temporary file, sealed and without a name, and take some bits of memory for each row;
// about 50 bytes where tables have no key, and 18 where there can be no file.
//
// # Interruptions
//
// With BackupOptions.Journal an interrupted backup is taken up by the next: what was sent is committed as a part to build on, which no
// list shows.
//
// # Places
//
// Package mirror writes to several buckets in one pass. [Heal] mends one from another, and trusts neither. In buckets that are a [Locker]
// BackupOptions.Lock keeps a snapshot as long as its retention promises, against anybody.
//
// # Retention
//
// [policy.Retention] says which snapshots are kept. [Repository.Prune] condemns the others, and a later call deletes
// them, when they were condemned for Options.Grace and nothing that is kept builds on them. Manifests stay
// for ever, so that the chain of signatures has no hole.
//
// # What is unusual
//
// [Repository.Compare] says what differs between two snapshots. A [policy.Gate] does so with each new one: mass
// change, mass deletion, or rows that compress much worse than before. Such a snapshot is kept, the backup
// returns each [policy.Anomaly], and nothing is pruned until somebody calls [Repository.Accept].
//
// # One record
//
// [Repository.Record] reads one row of a snapshot by its key, with the rows that it names and those that
// name it, and [Repository.Versions] what it was over all snapshots; both read little else. Package records writes it back.
//
// # Proof
//
// [Repository.Verify] is the restore path into nothing. Package drill restores for real and signs a report; [Repository.Differs]
// compares a living store with a snapshot; packages policy and schedule say whether the backups are what was planned; package
// recovery plans the bad day.
//
// # Persons
//
// Rows are copied as stored. Where personal values are sealed under keys of persons, destroying a key
// erases the value from every backup too, provided that the keys are not in it: they go to
// Options.Shards, a bucket that allows deletion, as a set that the next ones replace and that is
// deleted when it is a week old. Each backup and restore carries the list of erased persons
// ([Tombstones]), and a restore with an older list than was seen is refused.
//
// # Format
//
// docs/formats/backup.md describes every byte; snapshots of version 1 stay readable, version 2 is written. Objects are
// written once and never changed. The manifest comes last and commits: a crash before it leaves
// objects that nothing refers to, which [Repository.Sweep] removes.
//
// # What it does not do
//
// Table names, row counts, sizes and times stand in the clear, signed manifest. Whoever has the
// signer sees in the record indexes which rows changed when, as keyed numbers, and can confirm a guess of
// a whole row. Whoever can delete in the bucket can destroy backups; that the newest ones are missing shows only by a [Head] kept elsewhere, for
// which the audit log is the place. Names of objects and tables stand in errors, values and keys never.
package backup

package backup

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/policy"
)

// Options of [Open]. A nil *Options opens for reading.
type Options struct {
	// Signer signs manifests: an Ed25519 key whose public half is the pinned one. Nil = reading only.
	Signer crypto.Signer
	// Recipient is the public key that backups are sealed to. Its private half should lie elsewhere.
	// Nil = reading only.
	Recipient *backupkey.Public
	// Shards is the bucket of the key shards; it must allow deletion. Nil = no person keys are
	// kept, and a BackupOptions.Keys is an error.
	Shards Bucket
	// KeepShards is the age at which a set of key shards that is not the newest is deleted, by the
	// next backup or Sweep. 0 = 7 days.
	KeepShards time.Duration
	// LockShards locks each set of key shards for KeepShards, in a bucket that is a Locker: so nobody destroys
	// the keys of all persons at once, and the erasure of one ends KeepShards later.
	LockShards bool
	// Grace is the age below which Sweep leaves unreferenced objects alone, and how long Prune leaves
	// snapshots that are not kept. No backup may take longer. 0 = 24 hours.
	Grace time.Duration
	// Head is the newest snapshot that is known from elsewhere, such as the audit log: a repository
	// without it was rolled back (ErrStale). The zero Head = unknown.
	Head Head
	// Observer is told of progress, from one goroutine at a time. Nil = nobody.
	Observer func(Progress)
	// Now is the clock. Nil = time.Now.
	Now func() time.Time
}

// Head names a snapshot by the place and the digest of its manifest. Keep the newest one, and the
// number of the newest tombstone list, where whoever can write the bucket cannot.
type Head struct {
	Number     uint64   // of the snapshot, from 1; 0 = none is known
	Digest     [32]byte // SHA-256 of the manifest object
	Tombstones uint64   // number of the tombstone list; 0 = none
}

// Progress is what was done so far by one call, or by Verify with one snapshot.
type Progress struct {
	Began  time.Time
	Table  string // the table at hand
	Rows   int64
	Total  int64 // rows that are expected: of a backup, what the one before looked at; 0 = unknown
	Bytes  int64 // of rows, before compression
	Stored int64 // of objects written or read
}

// Left says how long the rest takes at the pace so far; false when that is not known.
func (p Progress) Left(now time.Time) (time.Duration, bool) {
	if p.Rows <= 0 || p.Total <= 0 || p.Began.IsZero() || now.Before(p.Began) {
		return 0, false
	}
	return time.Duration(float64(now.Sub(p.Began)) * float64(max(0, p.Total-p.Rows)) / float64(p.Rows)), true
}

// Snapshot is one backup, as its signed manifest tells.
type Snapshot struct {
	ID       string // 32 hexadecimal digits
	Head     Head
	Name     string // of the source
	Created  time.Time
	Engine   string
	Versions map[string]int64 // of the schema
	Tables   []Table          // without their columns, which are not in the clear
	Rows     int64            // of all tables, after a restore
	Bytes    int64            // of the rows that it holds itself, before compression
	Stored   int64            // of its objects
	Anchor   []byte           // what BackupOptions.Anchor was
	Parent   uint64           // Head.Number of the snapshot that this one builds on; 0 = it is full
	Depth    int              // how many snapshots a restore needs beside it
	Repeats  uint64           // Head.Number of the snapshot that this one has the content of; 0 = it is the source's own
	// Locked is until when its objects were locked against deletion, when it was made. The zero time = they were not.
	Locked time.Time
	// Anomalies are what BackupOptions.Gate found unusual, and one of the kind clock where Created is in the future, or long before the snapshots
	// before; once that was accepted, Created is that of the one before.
	Anomalies []policy.Anomaly
	// Condemned is when Repository.Prune gave it up; it will be deleted. The zero time = it is kept.
	Condemned time.Time
}

// Repository is a series of snapshots in a bucket. It is safe for concurrent use, and several
// processes may use one bucket.
type Repository struct {
	data   *space
	shards *space // nil without Options.Shards
	opts   Options
}

// Open opens the repository in a bucket, and the one of key shards in Options.Shards. Everything in
// them is checked with pin, an Ed25519 public key that comes from elsewhere. With a signer an empty
// bucket becomes a repository; without one that is ErrNotFound. Errors: ErrKey when pin is not the
// key of this repository or of the signer, ErrTampered, ErrVersion.
func Open(ctx context.Context, bucket Bucket, pin ed25519.PublicKey, opts *Options) (*Repository, error) {
	r := &Repository{}
	if opts != nil {
		r.opts = *opts
	}
	o := &r.opts
	if len(pin) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: the pinned key is not an Ed25519 public key", ErrKey)
	}
	if o.Signer != nil {
		if pub, ok := o.Signer.Public().(ed25519.PublicKey); !ok || !pub.Equal(pin) {
			return nil, fmt.Errorf("%w: the signer is not the pinned one", ErrKey)
		}
	}
	if o.KeepShards <= 0 {
		o.KeepShards = 7 * 24 * time.Hour
	}
	if o.Grace <= 0 {
		o.Grace = 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var err error
	if r.data, err = openSpace(ctx, bucket, kindData, pin, o); err != nil {
		return nil, err
	}
	if o.Shards != nil {
		if r.shards, err = openSpace(ctx, o.Shards, kindShards, pin, o); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Tombstones is the whole list of erased persons: opaque records that the caller signs and checks
// itself, at most 1 MiB each.
type Tombstones struct {
	Number  uint64 // only grows, with each erasure; 0 = nobody was ever erased
	Records [][]byte
}

// RestoreOptions of [Repository.Restore]. A nil *RestoreOptions is the zero value.
type RestoreOptions struct {
	// Keys takes the newest key shards, before any row. Nil = they are left where they are.
	Keys KeySink
	// Tombstones replays the newest list, after the keys and before any row. Nil = the restore is refused with
	// ErrReplay when there is one.
	Tombstones func(ctx context.Context, list Tombstones) error
}

// Level says how much [Repository.Verify] reads.
type Level int

// The levels.
const (
	// Quick checks every signature, the chain, and that each object is there in its size.
	Quick Level = iota
	// Sampled reads some objects too and compares their digests: see VerifyOptions.Share.
	Sampled
	// Full reads every object too and, given the key, opens it: the restore path into nothing.
	Full
)

// VerifyOptions of [Repository.Verify]. A nil *VerifyOptions is the zero value: quick, all snapshots.
type VerifyOptions struct {
	Level Level
	// Key opens what is read. Nil = Full compares digests only, and Report.Opened is false.
	Key *backupkey.Private
	// Snapshot is the only one whose objects are looked at. Empty = all.
	Snapshot string
	// Share is how much of all bytes Sampled reads, above 0 to 1: those objects first that Seen has not, then those seen longest
	// ago. 0 = 0.05, so that twenty runs read everything.
	Share float64
	// Seen has for each object when its digest was last found right; Verify updates it. Keep it between runs, as JSON for
	// instance, where whoever can write the bucket cannot. Nil = nothing is remembered.
	Seen map[string]time.Time
}

// Report is the result of [Repository.Verify].
type Report struct {
	Level     Level
	Opened    bool // everything was decrypted, decompressed and compared with the signed counts and digests
	Anchored  bool // the newest snapshot, or one after it, was the one pinned by Options.Head
	Snapshots int
	Objects   int   // that snapshots and shard sets need
	Bytes     int64 // that were read
	Loose     int   // objects that nothing refers to: an interrupted backup, or one under way
	Overdue   int   // sets of key shards that are older than Options.KeepShards allows: locked, or no backup was made since
	Faults    []*ObjectError

	named map[string]bool // what VerifyOptions.Seen may name
}

// Err returns nil when nothing is wrong, else an error that holds each fault.
func (r *Report) Err() error {
	all := make([]error, len(r.Faults))
	for i, f := range r.Faults {
		all[i] = f
	}
	return errors.Join(all...)
}

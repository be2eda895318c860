package backup

import (
	"errors"

	"github.com/crmguard/crmguard/backup/policy"
)

// Errors that callers branch on. Those about an object come inside an [ObjectError] that names it.
var (
	ErrNotFound = errors.New("backup: not found")                                             // no such object or snapshot
	ErrExists   = errors.New("backup: exists already")                                        // write-once objects are never replaced
	ErrFull     = errors.New("backup: the bucket is full")                                    // nothing was committed
	ErrTampered = errors.New("backup: damaged, forged or missing")                            // an object is not what was signed
	ErrVersion  = errors.New("backup: a later format")                                        // written by a newer release
	ErrKey      = errors.New("backup: the key does not fit")                                  // wrong or missing private, signing or pinned key
	ErrNotEmpty = errors.New("backup: the store is not empty")                                // a sink takes rows into an empty store only
	ErrStale    = errors.New("backup: older than what was seen")                              // a tombstone list or chain that was rolled back
	ErrReplay   = errors.New("backup: tombstones exist and nothing was given to replay them") // see RestoreOptions.Tombstones
	ErrChain    = errors.New("backup: what a snapshot builds on is missing or another")       // the object is that snapshot's parent
	ErrLocked   = errors.New("backup: locked against deletion")                               // the bucket keeps the object until its time
	ErrUnlocked = errors.New("backup: not locked as was asked for")                           // the bucket cannot, or somebody changed it
	ErrLingers  = errors.New("backup: what is deleted can be read for too long")              // of a shard bucket, see Lingerer
	ErrClock    = errors.New("backup: dated in the future or out of order")                   // nothing is pruned by such a clock
	ErrAnomaly  = policy.ErrAnomaly                                                           // see BackupOptions.Gate and Repository.Accept
)

// ObjectError says which object of a bucket an error is about.
type ObjectError struct {
	Object   string // the object's name in its bucket; in a Report with "shards:" before it for that bucket
	Snapshot string // in a Report the snapshot that needs the object; empty when none is known
	Err      error  // one of the errors of this package, or the bucket's own
}

// Error returns the error and the object's name.
func (e *ObjectError) Error() string { return e.Err.Error() + ": " + e.Object }

// Unwrap returns Err.
func (e *ObjectError) Unwrap() error { return e.Err }

func object(name string, err error) error {
	var oe *ObjectError
	if err == nil || errors.As(err, &oe) {
		return err
	}
	return &ObjectError{Object: name, Err: err}
}

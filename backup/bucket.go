package backup

import (
	"context"
	"iter"
	"time"
)

// Object is one entry of a [Bucket].
type Object struct {
	Name     string
	Size     int64     // in bytes
	Modified time.Time // when it was written
}

// Bucket holds write-once objects. Package blobstore has one for folders, memory and cloud stores;
// others pass backuptest.TestBucket. Names are slash-separated words of [0-9a-z-]. A bucket is safe
// for concurrent use.
type Bucket interface {
	// Put writes a whole object, durable when it returns, or nothing. Errors: ErrExists when the
	// name is taken, whose object then stays as it is; ErrFull. data is not kept: the caller writes over it
	// once Put has returned, also with an error.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads at most length bytes from offset; fewer when the object ends before. Error: ErrNotFound.
	Get(ctx context.Context, name string, offset, length int64) ([]byte, error)
	// List yields the objects whose names begin with prefix, in the order of their names.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object. One that does not exist is no error. Error: ErrLocked when the bucket
	// keeps the object.
	Delete(ctx context.Context, name string) error
}

// Locker is a [Bucket] that keeps objects against deletion and change by anybody, whatever the credentials:
// object lock in compliance mode. Others pass backuptest.TestLocker.
type Locker interface {
	Bucket
	// Lock keeps an object until a time, at least to the second. It never shortens: an earlier time
	// changes nothing and is no error. Error: ErrNotFound.
	Lock(ctx context.Context, name string, until time.Time) error
	// LockedUntil returns until when an object is kept, the zero time when it is not. Error: ErrNotFound.
	LockedUntil(ctx context.Context, name string) (time.Time, error)
}

// Lingerer is a [Bucket] that knows how long what is deleted can still be read somewhere: in old versions that
// Delete does not remove, by soft delete, in a replica. Buckets that are no Lingerer say that it is gone at once.
type Lingerer interface {
	// Linger returns the longest such time, Forever for a copy that nothing ends, and what causes it, in words.
	Linger(ctx context.Context) (after time.Duration, cause string, err error)
}

// Forever is what [Lingerer] says of copies that nothing ends.
const Forever = time.Duration(1<<63 - 1)

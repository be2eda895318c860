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
	// name is taken, whose object then stays as it is; ErrFull.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads at most length bytes from offset; fewer when the object ends before. Error: ErrNotFound.
	Get(ctx context.Context, name string, offset, length int64) ([]byte, error)
	// List yields the objects whose names begin with prefix, in the order of their names.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object. One that does not exist is no error. Error: ErrLocked when the bucket
	// keeps the object.
	Delete(ctx context.Context, name string) error
}

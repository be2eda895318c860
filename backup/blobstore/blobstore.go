// Package blobstore has the buckets of backups: folders, memory, and whatever else gocloud.dev opens.
//
// A folder is made with mode 0700 and its files with 0600. Each object is synced before its name
// appears, by a link that fails when the name is taken, so that two programs never replace each
// other's objects and a crash leaves a whole object or none.
package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"

	"github.com/crmguard/crmguard/backup"
)

// Bucket is a [backup.Bucket] over a gocloud bucket. It is safe for concurrent use.
type Bucket struct {
	b   *blob.Bucket
	dir string // of a folder, else empty
}

var _ backup.Bucket = (*Bucket)(nil)

// Open opens a bucket by its URL: file:///FOLDER, made when missing, or mem:// for a new empty one in
// memory. For others give their *blob.Bucket to [New]. The URL stands in no error.
func Open(_ context.Context, bucketURL string) (*Bucket, error) {
	u, err := url.Parse(bucketURL)
	if err != nil {
		return nil, errors.New("blobstore: not a URL")
	}
	switch {
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("blobstore: the URL has parts that are not known")
	case u.Scheme == "mem" && u.Host == "" && u.Path == "":
		return &Bucket{b: memblob.OpenBucket(nil)}, nil
	case u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		path := filepath.FromSlash(u.Path)
		if os.PathSeparator != '/' { // file:///C:/folder
			path = strings.TrimPrefix(path, string(os.PathSeparator))
		}
		return openFolder(path)
	}
	return nil, errors.New("blobstore: a bucket is file:///FOLDER or mem://")
}

func openFolder(dir string) (*Bucket, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blobstore: %w", translate(err))
	}
	b, err := fileblob.OpenBucket(dir, &fileblob.Options{DirFileMode: 0o700, NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		return nil, fmt.Errorf("blobstore: %w", err)
	}
	return &Bucket{b: b, dir: dir}, removeTemporary(dir)
}

// removeTemporary removes what writes left that a crash ended, when it is a day old.
func removeTemporary(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".tmp") {
			return err
		}
		info, err := d.Info()
		if err != nil || time.Since(info.ModTime()) < 24*time.Hour {
			return nil // gone already, or perhaps being written
		}
		return os.Remove(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// New makes a bucket of a gocloud one, which it closes. The driver must know conditional writes
// (WriterOptions.IfNotExist), as those of S3, GCS and Azure do.
func New(b *blob.Bucket) *Bucket { return &Bucket{b: b} }

// Close releases the bucket. A bucket in memory is gone then.
func (b *Bucket) Close() error { return b.b.Close() }

func checkName(name string) error {
	ok := name != "" && !strings.HasPrefix(name, "/") && !strings.HasSuffix(name, "/") && !strings.Contains(name, "//")
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '/')
	}
	if !ok {
		return errors.New("blobstore: an object's name has other signs than 0-9, a-z, - and /")
	}
	return nil
}

// Put implements [backup.Bucket].
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if b.dir != "" {
		return translate(b.putFile(ctx, name, data))
	}
	return translate(b.b.WriteAll(ctx, name, data, &blob.WriterOptions{
		ContentType: "application/octet-stream", IfNotExist: true, DisableContentTypeDetection: true,
	}))
}

// putFile lets gocloud write a temporary file beside the object, and puts it in its place itself: gocloud looks and then
// renames, which replaces an object that came between.
func (b *Bucket) putFile(ctx context.Context, name string, data []byte) error {
	path := filepath.Join(b.dir, filepath.FromSlash(name))
	if _, err := os.Lstat(path); err == nil {
		return backup.ErrExists
	}
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var f *os.File
	w, err := b.b.NewWriter(wctx, name, &blob.WriterOptions{
		ContentType: "application/octet-stream", DisableContentTypeDetection: true, IfNotExist: true,
		BeforeWrite: func(as func(any) bool) error {
			if !as(&f) {
				return errors.New("blobstore: not a file")
			}
			return f.Chmod(0o600)
		},
	})
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	cancel()
	w.Close() // cancelled: it removes the temporary file
	if errors.Is(err, os.ErrExist) {
		return backup.ErrExists
	}
	if err != nil {
		return err
	}
	return b.syncFolders(filepath.Dir(path))
}

// syncFolders makes a new name durable, up to the bucket's own folder.
func (b *Bucket) syncFolders(dir string) error {
	for {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		err = d.Sync()
		d.Close()
		if err != nil && !errors.Is(err, syscall.EINVAL) && os.PathSeparator == '/' {
			return err
		}
		if len(dir) <= len(b.dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// Get implements [backup.Bucket].
func (b *Bucket) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 {
		return nil, errors.New("blobstore: a negative range")
	}
	r, err := b.b.NewRangeReader(ctx, name, offset, length, nil)
	if err != nil {
		return nil, translate(err)
	}
	defer r.Close()
	data := make([]byte, max(0, min(length, r.Size()-offset)))
	n, err := io.ReadFull(r, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return data[:n], translate(err)
}

// List implements [backup.Bucket].
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[backup.Object, error] {
	return func(yield func(backup.Object, error) bool) {
		it := b.b.List(&blob.ListOptions{Prefix: prefix})
		for {
			o, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(backup.Object{}, translate(err))
				return
			}
			if o.IsDir || b.dir != "" && strings.HasSuffix(o.Key, ".tmp") {
				continue // a write that a crash ended
			}
			if !yield(backup.Object{Name: o.Key, Size: o.Size, Modified: o.ModTime}, nil) {
				return
			}
		}
	}
}

// Delete implements [backup.Bucket]. Whatever the store does not permit is taken for locked.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := b.b.Delete(ctx, name)
	if gcerrors.Code(err) == gcerrors.PermissionDenied || errors.Is(err, fs.ErrPermission) {
		return backup.ErrLocked
	}
	err = translate(err)
	if errors.Is(err, backup.ErrNotFound) {
		return nil
	}
	if err == nil && b.dir != "" {
		err = b.syncFolders(filepath.Dir(filepath.Join(b.dir, filepath.FromSlash(name))))
	}
	return err
}

// translate makes the errors that package backup knows of those of the drivers.
func translate(err error) error {
	switch {
	case err == nil, errors.Is(err, backup.ErrExists), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return backup.ErrFull
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return backup.ErrNotFound
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return backup.ErrExists
	}
	return fmt.Errorf("blobstore: %w", err)
}

package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bucket is a place for write-once objects: object storage with a lock, or a
// folder that its writer cannot change. Names have the form "hash/number".
type Bucket interface {
	// Put stores data under a name that is not taken. When it is, the error
	// wraps fs.ErrExist and nothing changes.
	Put(ctx context.Context, name string, data []byte) error
	// Get returns what lies under a name, at most limit bytes of it.
	Get(ctx context.Context, name string, limit int64) ([]byte, error)
	// List returns all names that begin with prefix.
	List(ctx context.Context, prefix string) ([]string, error)
}

// ErrCopy says that an object in a bucket is not the checkpoint that its name
// says.
var ErrCopy = errors.New("witness: a copy is not the checkpoint that its name says")

// CopyName returns the name under which Copy puts a checkpoint: the SHA-256 of
// the origin, a slash, and the size in 20 digits.
func CopyName(h Head) string { return prefix(h.Origin) + fmt.Sprintf("%020d", h.Size) }

func prefix(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:]) + "/"
}

// Copy puts a checkpoint into a bucket. When one of the same size is there with
// the same root, all is well; with another root the error is ErrFork.
func Copy(ctx context.Context, b Bucket, msg []byte) error {
	h, err := ParseHead(msg)
	if err != nil {
		return err
	}
	err = b.Put(ctx, CopyName(h), msg)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := readCopy(ctx, b, CopyName(h), h.Origin)
	if err != nil {
		return err
	}
	if there.head.Root != h.Root {
		return fmt.Errorf("%w: at %d leaves", ErrFork, h.Size)
	}
	return nil
}

type checkpointCopy struct {
	head Head
	note []byte
}

func readCopy(ctx context.Context, b Bucket, name, origin string) (c checkpointCopy, err error) {
	if c.note, err = b.Get(ctx, name, maxNote+1); err != nil {
		return c, err
	}
	if c.head, err = ParseHead(c.note); err != nil || c.head.Origin != origin || CopyName(c.head) != name {
		return c, ErrCopy
	}
	return c, nil
}

// Pins returns the newest checkpoints of the log called origin that lie in a
// bucket, at most limit, the largest first; limit 0 means all. Their signatures
// are not checked: give them to a verification as heads that were kept
// elsewhere, and it does.
func Pins(ctx context.Context, b Bucket, origin string, limit int) ([][]byte, error) {
	names, err := b.List(ctx, prefix(origin))
	if err != nil {
		return nil, err
	}
	names = slices.Clone(names)
	slices.Sort(names)
	slices.Reverse(names)
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	var out [][]byte
	for _, name := range names {
		c, err := readCopy(ctx, b, name, origin)
		if err != nil {
			return nil, err
		}
		out = append(out, c.note)
	}
	return out, nil
}

// DirBucket is a Bucket in a folder, with files of mode 0400. It keeps an
// honest writer from replacing one; what keeps others is the place: a mount that
// only allows appending, another host, another owner.
type DirBucket struct{ dir string }

// NewDirBucket returns the bucket in the folder dir, which is made when needed.
func NewDirBucket(dir string) (*DirBucket, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	return &DirBucket{dir}, nil
}

func (d *DirBucket) path(name string) (string, error) {
	folder, file, ok := strings.Cut(name, "/")
	if !ok || folder == "" || file == "" || strings.Trim(folder+file, "0123456789abcdef") != "" {
		return "", errors.New("witness: not the name of a copy")
	}
	return filepath.Join(d.dir, folder, file), nil
}

// Put implements Bucket.
func (d *DirBucket) Put(_ context.Context, name string, data []byte) (err error) {
	path, err := d.path(name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("witness: %w", err)
		}
	}()
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err == nil {
		err = syncDir(d.dir)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(dir, ".copy-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o400)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	return err
}

// Get implements Bucket.
func (d *DirBucket) Get(_ context.Context, name string, limit int64) ([]byte, error) {
	path, err := d.path(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	return bytes.Clone(b[:min(int64(len(b)), limit)]), nil
}

// List implements Bucket.
func (d *DirBucket) List(_ context.Context, prefix string) ([]string, error) {
	folder, rest, _ := strings.Cut(prefix, "/")
	if _, err := d.path(folder + "/0"); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(filepath.Join(d.dir, folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	var out []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), ".") && strings.HasPrefix(e.Name(), rest) {
			out = append(out, folder+"/"+e.Name())
		}
	}
	return out, nil
}

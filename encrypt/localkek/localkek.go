// Package localkek keeps a key encryption key in a file. It is a development key: whoever reads the
// file reads everything. Use encrypt/vault where it matters.
//
// The file is text, made on first use with mode 0600, and holds the living versions of the key:
//
//	crmguard-local-kek 1
//	id 9f86d081
//	key 1 BASE64 (32 bytes)
//	sum HEX (SHA-256 of all lines above)
//
// Versions are numbered from 1 without gaps; [KEK.Trim] removes the oldest ones, so that the first line
// may be of any number. A file that is readable by others, cut off or garbled is refused and never
// overwritten. It is looked at before each use: a version that another process has added or ended
// counts at once, and nothing is wrapped by a key whose file is gone.
//
// A change writes a new file beside the old one, syncs it and renames it. Trim then overwrites the old
// file with zeros and syncs that, too. On a file system that copies on write or keeps snapshots, on
// flash memory and in backups the old bytes may live on all the same: there only Vault, which keeps
// the key to itself, ends a version for certain.
package localkek

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Errors of Open.
var (
	// ErrInsecure says that others may read the key file.
	ErrInsecure = errors.New("localkek: the key file must have mode 0600")
	// ErrDamaged says that the key file is cut off or garbled. It is left as it is.
	ErrDamaged = errors.New("localkek: the key file is damaged")
	// ErrLocked says that another Rotate or Trim is running.
	ErrLocked = errors.New("localkek: another rotation holds the lock file")
)

// Options of Open.
type Options struct {
	MustExist bool // a missing file is an error; false = it is made
}

// KEK is a key encryption key in a file. It implements keys.KEK, keys.Rotator and keys.Trimmer and is
// safe for concurrent use.
type KEK struct {
	path string
	id   string

	mu   sync.Mutex
	file *keyFile // as read last
}

// keyFile is what a key file holds. It does not change.
type keyFile struct {
	id    string
	first int           // version of keys[0]
	keys  []cipher.AEAD // by version
	raw   [][]byte
	info  fs.FileInfo // of the file it was read from
}

// Open reads the key file at path, or makes it. Its folder must exist.
// Errors: ErrInsecure, ErrDamaged, and those of the file system.
func Open(path string, opts *Options) (*KEK, error) {
	f, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && (opts == nil || !opts.MustExist) {
		if err := create(path); err != nil {
			return nil, err
		}
		f, err = read(path)
	}
	if err != nil {
		return nil, err
	}
	return &KEK{path: path, id: f.id, file: f}, nil
}

// create makes a key file with one version. When another process is quicker, its file stands.
func create(path string) error {
	var id [4]byte
	key := make([]byte, 32)
	rand.Read(id[:])
	rand.Read(key)
	var suffix [8]byte // so that two processes do not meet
	rand.Read(suffix[:])
	tmp := fmt.Sprintf("%s.%x.tmp", path, suffix)
	if err := write(tmp, hex.EncodeToString(id[:]), 1, [][]byte{key}); err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("localkek: cannot make the key file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// write writes a synced key file of mode 0600, which must not exist.
func write(name, id string, first int, keys [][]byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "crmguard-local-kek 1\nid %s\n", id)
	for i, key := range keys {
		fmt.Fprintf(&b, "key %d %s\n", first+i, base64.StdEncoding.EncodeToString(key))
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "sum %x\n", sum)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("localkek: cannot make the key file: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("localkek: cannot write the key file: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	return nil
}

// read reads the file at path. A file that Trim replaces and overwrites meanwhile is read again.
func read(path string) (*keyFile, error) {
	for attempt := 1; ; attempt++ {
		f, replaced, err := readOnce(path)
		if !replaced || attempt == 10 {
			return f, err
		}
	}
}

// readOnce also tells whether a damaged file is no longer the one at path.
func readOnce(path string) (out *keyFile, replaced bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, fmt.Errorf("localkek: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("localkek: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, false, ErrDamaged
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, false, ErrInsecure
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, false, fmt.Errorf("localkek: %w", err)
	}
	if out, err = parse(b); err != nil {
		now, serr := os.Stat(path)
		return nil, serr == nil && !os.SameFile(info, now), err
	}
	out.info = info
	return out, false, nil
}

// parse reads the text of a key file.
func parse(b []byte) (*keyFile, error) {
	at := bytes.LastIndex(b, []byte("\nsum "))
	if at < 0 {
		return nil, ErrDamaged
	}
	sum := sha256.Sum256(b[:at+1])
	if string(b[at+1:]) != fmt.Sprintf("sum %x\n", sum) {
		return nil, ErrDamaged
	}
	lines := strings.Split(string(b[:at]), "\n")
	if len(lines) < 3 || lines[0] != "crmguard-local-kek 1" {
		return nil, ErrDamaged
	}
	id, ok := strings.CutPrefix(lines[1], "id ")
	if raw, err := hex.DecodeString(id); !ok || err != nil || len(raw) != 4 || hex.EncodeToString(raw) != id {
		return nil, ErrDamaged
	}
	out := &keyFile{id: id}
	for i, line := range lines[2:] {
		words := strings.Split(line, " ")
		if len(words) != 3 || words[0] != "key" {
			return nil, ErrDamaged
		}
		n, err := strconv.ParseUint(words[1], 10, 31)
		if err != nil || n == 0 || words[1] != strconv.FormatUint(n, 10) || i > 0 && int(n) != out.first+i {
			return nil, ErrDamaged
		}
		if i == 0 {
			out.first = int(n)
		}
		key, err := base64.StdEncoding.Strict().DecodeString(words[2])
		if err != nil || len(key) != 32 || strings.ContainsAny(words[2], "\r\n") { // which base64 skips
			return nil, ErrDamaged
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, ErrDamaged
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, ErrDamaged
		}
		out.keys, out.raw = append(out.keys, gcm), append(out.raw, key)
	}
	return out, nil
}

// newest returns the version that wraps.
func (f *keyFile) newest() int { return f.first + len(f.keys) - 1 }

// now returns the key file as it is now. It is read again when it was replaced or changed.
func (k *KEK) now() (*keyFile, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := os.Stat(k.path)
	if err != nil {
		return nil, fmt.Errorf("%w: localkek: %v", keys.ErrKMSUnavailable, err)
	}
	if os.SameFile(info, k.file.info) && info.ModTime().Equal(k.file.info.ModTime()) && info.Size() == k.file.info.Size() &&
		info.Mode() == k.file.info.Mode() {
		return k.file, nil
	}
	f, err := read(k.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", keys.ErrKMSUnavailable, err)
	}
	if f.id != k.id {
		return nil, fmt.Errorf("%w: localkek: the file holds another key, of id %s", keys.ErrKMSUnavailable, f.id)
	}
	k.file = f
	return f, nil
}

// ID returns "local:" and the file's id.
func (k *KEK) ID() string { return "local:" + k.id }

// A wrapped key: version of the format (1 byte), version of the key (4 bytes, big endian), nonce (12
// bytes), AES-256-GCM ciphertext and tag.
const (
	wrapFormat = 1
	wrapHeader = 5
	nonceSize  = 12
	tagSize    = 16
)

// Wrap implements keys.KEK with the newest version.
func (k *KEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(plaintext) > 1<<16 {
		return nil, errors.New("localkek: more than 64 KiB")
	}
	f, err := k.now()
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, wrapHeader+nonceSize+len(plaintext)+tagSize), wrapFormat)
	out = binary.BigEndian.AppendUint32(out, uint32(f.newest()))
	out = out[:wrapHeader+nonceSize]
	rand.Read(out[wrapHeader:])
	return f.keys[len(f.keys)-1].Seal(out, out[wrapHeader:], plaintext, boundAD(out[:wrapHeader], ad)), nil
}

// Unwrap implements keys.KEK.
func (k *KEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	version, ok := wrappedBy(wrapped)
	if !ok {
		return nil, keys.ErrTampered
	}
	f, err := k.now()
	if err != nil {
		return nil, err
	}
	switch {
	case version < f.first:
		return nil, fmt.Errorf("%w: its version of the local key was ended", keys.ErrRetired)
	case version > f.newest():
		return nil, keys.ErrTampered
	}
	body := wrapped[wrapHeader:]
	out, err := f.keys[version-f.first].Open(nil, body[:nonceSize], body[nonceSize:], boundAD(wrapped[:wrapHeader], ad))
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

// wrappedBy returns the version of the key that made wrapped.
func wrappedBy(wrapped []byte) (version int, ok bool) {
	if len(wrapped) < wrapHeader+nonceSize+tagSize || wrapped[0] != wrapFormat {
		return 0, false
	}
	n := binary.BigEndian.Uint32(wrapped[1:])
	return int(n), n > 0 && n <= math.MaxInt32
}

func boundAD(head, ad []byte) []byte {
	out := append([]byte("crmguard/localkek"), head...)
	return append(out, ad...)
}

// Rotate implements keys.Rotator: it adds a version to the file.
// Errors: ErrLocked, ErrInsecure, ErrDamaged, and those of the file system.
func (k *KEK) Rotate(ctx context.Context) error {
	return k.change(ctx, func(f *keyFile) (int, [][]byte, error) {
		key := make([]byte, 32)
		rand.Read(key)
		return f.first, append(f.raw, key), nil
	})
}

// Trim implements keys.Trimmer: it removes versions from the file and overwrites the old file; what
// that is worth is said above. Something in living that is no wrapped key is keys.ErrTampered, one
// of a version that has ended is keys.ErrRetired; then nothing is ended.
// Errors: also ErrLocked, ErrInsecure, ErrDamaged, and those of the file system.
func (k *KEK) Trim(ctx context.Context, living [][]byte) error {
	if len(living) == 0 {
		return ctx.Err()
	}
	return k.change(ctx, func(f *keyFile) (int, [][]byte, error) {
		oldest := f.newest()
		for i, wrapped := range living {
			v, ok := wrappedBy(wrapped)
			switch {
			case !ok || v > f.newest():
				return 0, nil, fmt.Errorf("%w: living key %d is not of this local key", keys.ErrTampered, i)
			case v < f.first:
				return 0, nil, fmt.Errorf("%w: living key %d is of version %d, the file begins with %d", keys.ErrRetired, i, v, f.first)
			}
			oldest = min(oldest, v)
		}
		return oldest, f.raw[oldest-f.first:], nil
	})
}

// change replaces the file by one with the keys that f returns, unless they are the same. When the
// first ones are gone, the old file is overwritten.
func (k *KEK) change(ctx context.Context, f func(*keyFile) (first int, raw [][]byte, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	unlock, err := lock(k.path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	next, last := k.path+".new", k.path+".old"
	for _, name := range []string{next, last} { // what an interrupted change has left
		if err := k.shred(name); err != nil {
			return err
		}
	}
	old, err := read(k.path)
	if err != nil {
		return err
	}
	if old.id != k.id {
		return fmt.Errorf("%w: localkek: the file holds another key, of id %s", keys.ErrKMSUnavailable, old.id)
	}
	first, raw, err := f(old)
	if err != nil || first == old.first && len(raw) == len(old.raw) {
		return err
	}
	if err := write(next, old.id, first, raw); err != nil {
		return err
	}
	if first > old.first { // a second name, so that a crash does not lose the file before it is overwritten
		if err := os.Link(k.path, last); err != nil {
			return fmt.Errorf("localkek: %w", err)
		}
	}
	if err := os.Rename(next, k.path); err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	if err := syncDir(filepath.Dir(k.path)); err != nil {
		return err
	}
	return k.shred(last)
}

// shred overwrites and removes the file of that name, if there is one. The key file itself under a
// second name only loses that name.
func (k *KEK) shred(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	now, err := os.Stat(k.path)
	if err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	if !os.SameFile(info, now) {
		if _, err := f.WriteAt(make([]byte, info.Size()), 0); err != nil {
			return fmt.Errorf("localkek: %w", err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("localkek: %w", err)
		}
	}
	if err := os.Remove(name); err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	return syncDir(filepath.Dir(k.path))
}

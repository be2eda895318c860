// Package localkek keeps a key encryption key in a file. It is a development key: whoever reads the
// file reads everything. Use encrypt/vault where it matters.
//
// The file is text, made on first use with mode 0600, and holds every version of the key:
//
//	crmguard-local-kek 1
//	id 9f86d081
//	key 1 BASE64 (32 bytes)
//	sum HEX (SHA-256 of all lines above)
//
// A file that is readable by others, cut off or garbled is refused and never overwritten.
package localkek

import (
	"bufio"
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
	"os"
	"path/filepath"
	"runtime"
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
	// ErrLocked says that a rotation is running, or was interrupted and left its lock file behind.
	ErrLocked = errors.New("localkek: another rotation holds the lock file")
)

// Options of Open.
type Options struct {
	MustExist bool // a missing file is an error; false = it is made
}

// KEK is a key encryption key in a file. It implements keys.KEK and keys.Rotator.
type KEK struct {
	path string

	mu   sync.RWMutex
	file keyFile
}

type keyFile struct {
	id   string
	keys []cipher.AEAD // version 1 is keys[0]
	raw  [][]byte
}

// Open reads the key file at path, or makes it. Its folder must exist.
// Errors: ErrInsecure, ErrDamaged, and those of the file system.
func Open(path string, opts *Options) (*KEK, error) {
	k := &KEK{path: path}
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
	k.file = f
	return k, nil
}

// create makes a key file with one version. When another process is quicker, its file stands.
func create(path string) error {
	var id [4]byte
	key := make([]byte, 32)
	rand.Read(id[:])
	rand.Read(key)
	tmp, err := writeTemp(path, hex.EncodeToString(id[:]), [][]byte{key})
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("localkek: cannot make the key file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes a synced file of mode 0600 beside path.
func writeTemp(path, id string, keys [][]byte) (name string, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "crmguard-local-kek 1\nid %s\n", id)
	for i, key := range keys {
		fmt.Fprintf(&b, "key %d %s\n", i+1, base64.StdEncoding.EncodeToString(key))
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "sum %x\n", sum)
	var suffix [8]byte
	rand.Read(suffix[:])
	name = fmt.Sprintf("%s.%x.tmp", path, suffix)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("localkek: cannot make the key file: %w", err)
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
		return "", fmt.Errorf("localkek: cannot write the key file: %w", err)
	}
	return name, nil
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

func read(path string) (keyFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return keyFile{}, fmt.Errorf("localkek: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return keyFile{}, fmt.Errorf("localkek: %w", err)
	}
	if !info.Mode().IsRegular() {
		return keyFile{}, ErrDamaged
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return keyFile{}, ErrInsecure
	}
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return keyFile{}, fmt.Errorf("localkek: %w", err)
	}
	return parse(b)
}

// parse reads a key file.
func parse(b []byte) (keyFile, error) {
	at := bytes.LastIndex(b, []byte("\nsum "))
	if at < 0 {
		return keyFile{}, ErrDamaged
	}
	sum := sha256.Sum256(b[:at+1])
	if string(b[at+1:]) != fmt.Sprintf("sum %x\n", sum) {
		return keyFile{}, ErrDamaged
	}
	var out keyFile
	lines := bufio.NewScanner(bytes.NewReader(b[:at+1]))
	for n := 0; lines.Scan(); n++ {
		words := strings.Split(lines.Text(), " ")
		switch {
		case n == 0:
			if lines.Text() != "crmguard-local-kek 1" {
				return keyFile{}, ErrDamaged
			}
		case n == 1 && len(words) == 2 && words[0] == "id" && len(words[1]) == 8:
			out.id = words[1]
		case n > 1 && len(words) == 3 && words[0] == "key" && words[1] == fmt.Sprint(n-1):
			key, err := base64.StdEncoding.Strict().DecodeString(words[2])
			if err != nil || len(key) != 32 {
				return keyFile{}, ErrDamaged
			}
			block, err := aes.NewCipher(key)
			if err != nil {
				return keyFile{}, ErrDamaged
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				return keyFile{}, ErrDamaged
			}
			out.keys, out.raw = append(out.keys, gcm), append(out.raw, key)
		default:
			return keyFile{}, ErrDamaged
		}
	}
	if lines.Err() != nil || out.id == "" || len(out.keys) == 0 {
		return keyFile{}, ErrDamaged
	}
	return out, nil
}

// ID returns "local:" and the file's id.
func (k *KEK) ID() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return "local:" + k.file.id
}

// A wrapped key: version of the format (1 byte), version of the key (4 bytes, big endian), nonce (12
// bytes), AES-256-GCM ciphertext and tag.
const (
	wrapFormat = 1
	wrapHeader = 5
	nonceSize  = 12
)

// Wrap implements keys.KEK with the newest version.
func (k *KEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(plaintext) > 1<<16 {
		return nil, errors.New("localkek: more than 64 KiB")
	}
	k.mu.RLock()
	version := len(k.file.keys)
	gcm := k.file.keys[version-1]
	k.mu.RUnlock()
	out := append(make([]byte, 0, wrapHeader+nonceSize+len(plaintext)+16), wrapFormat)
	out = binary.BigEndian.AppendUint32(out, uint32(version))
	out = out[:wrapHeader+nonceSize]
	rand.Read(out[wrapHeader:])
	return gcm.Seal(out, out[wrapHeader:], plaintext, boundAD(out[:wrapHeader], ad)), nil
}

// Unwrap implements keys.KEK. A version that a rotation in another process has added is read
// from the file.
func (k *KEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(wrapped) < wrapHeader+nonceSize+16 || wrapped[0] != wrapFormat {
		return nil, keys.ErrTampered
	}
	version := int64(binary.BigEndian.Uint32(wrapped[1:]))
	gcm := k.version(version)
	if gcm == nil {
		if err := k.reread(); err != nil {
			return nil, err
		}
		if gcm = k.version(version); gcm == nil {
			return nil, keys.ErrTampered
		}
	}
	body := wrapped[wrapHeader:]
	out, err := gcm.Open(nil, body[:nonceSize], body[nonceSize:], boundAD(wrapped[:wrapHeader], ad))
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

func boundAD(head, ad []byte) []byte {
	out := append([]byte("crmguard/localkek"), head...)
	return append(out, ad...)
}

func (k *KEK) version(n int64) cipher.AEAD {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if n < 1 || n > int64(len(k.file.keys)) {
		return nil
	}
	return k.file.keys[n-1]
}

// reread takes in versions that were added to the file.
func (k *KEK) reread() error {
	f, err := read(k.path)
	if err != nil {
		return fmt.Errorf("%w: %v", keys.ErrKMSUnavailable, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if f.id == k.file.id && len(f.keys) > len(k.file.keys) {
		k.file = f
	}
	return nil
}

// Rotate implements keys.Rotator: it adds a version to the file, which is replaced as a whole.
// Errors: ErrLocked, ErrInsecure, ErrDamaged, and those of the file system.
func (k *KEK) Rotate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	lock, err := os.OpenFile(k.path+".lock", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrLocked, k.path+".lock")
	}
	if err != nil {
		return fmt.Errorf("localkek: %w", err)
	}
	lock.Close()
	defer os.Remove(k.path + ".lock")
	f, err := read(k.path)
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	rand.Read(key)
	tmp, err := writeTemp(k.path, f.id, append(f.raw, key))
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, k.path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("localkek: %w", err)
	}
	if err := syncDir(filepath.Dir(k.path)); err != nil {
		return err
	}
	return k.reread()
}

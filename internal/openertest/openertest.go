// Package openertest is the attacker of the tests that show what an erasure is worth.
package openertest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Opener is the attacker of the erasure's promise. It is given the live KEK, every sealed value, every
// copy that was ever made of the database, its log, its archive and its exported keys, and the names (never the
// keys) of all records that ever were. It knows the format from docs/formats/encrypt.md only: it finds wrapped
// keys by their pattern in raw bytes and tries each with everything that still unwraps.
type Opener struct {
	T      testing.TB
	Tenant string
	KEK    keys.KEK
	Known  []keys.Record // ids, persons, versions

	files []string // all copies
}

// Value is one sealed value.
type Value struct {
	Name          string
	Person        [16]byte
	Plain, Sealed []byte
}

// Label is that under which the values are sealed.
const Label = "file"

func parts(list ...[]byte) (out []byte) {
	for _, p := range list {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

func expand(key []byte, list ...string) []byte {
	var info []byte
	for _, s := range list {
		info = append(info, parts([]byte(s))...)
	}
	out, err := hkdf.Expand(sha256.New, key, string(info), 32)
	if err != nil {
		panic(err)
	}
	return out
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Find lists the files of folders, of those with the same bytes one.
func (o *Opener) Find(dirs []string) {
	o.T.Helper()
	o.files = nil
	seen, seed := make(map[uint64]bool), maphash.MakeSeed()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a running server removes files
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if sum := maphash.Bytes(seed, b); err == nil && !seen[sum] {
				seen[sum] = true
				o.files = append(o.files, path)
			}
			return err
		})
		if err != nil {
			o.T.Fatal(err)
		}
	}
}

// each hands over every file, those of a write-ahead log also without the page headers that cut through its
// records.
func (o *Opener) each(f func(b []byte)) {
	o.T.Helper()
	for _, path := range o.files {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			o.T.Fatal(err)
		}
		f(b)
		if walSegment.MatchString(filepath.Base(path)) {
			f(withoutPageHeaders(b))
		}
	}
}

var walSegment = regexp.MustCompile(`^[0-9A-F]{24}`)

func withoutPageHeaders(b []byte) (out []byte) {
	out = make([]byte, 0, len(b))
	for n := 0; n < len(b); n += 8192 {
		head := 24
		if n == 0 {
			head = 40
		}
		page := b[n:min(n+8192, len(b))]
		out = append(out, page[min(head, len(page)):]...)
	}
	return out
}

// epoch is an epoch key that still unwraps.
type epoch struct {
	id     keys.ID
	prefix []byte
	aead   tink.AEAD
}

// epochs finds wrapped keysets and tries each with the live KEK.
func (o *Opener) epochs() (out []epoch, tried int) {
	wrapped := make(map[string]bool)
	o.each(func(b []byte) {
		for i := 0; i < len(b); i++ {
			n := bytes.IndexByte(b[i:], 0x12) // field 2 of an EncryptedKeyset: bytes
			if n < 0 {
				break
			}
			i += n
			size, used := binary.Uvarint(b[i+1 : min(i+4, len(b))])
			at := i + 1 + used
			if used <= 0 || size < 40 || size > 1024 || at+int(size) > len(b) {
				continue
			}
			blob := b[at : at+int(size)]
			if bytes.HasPrefix(blob, []byte{1, 0, 0, 0}) || bytes.HasPrefix(blob, []byte("vault:v")) {
				wrapped[string(b[i:at+int(size)])] = true
			}
		}
	})
	type name struct {
		id      keys.ID
		version uint32
	}
	names := make(map[name]bool)
	for _, r := range o.Known {
		if r.Kind == keys.EpochKey {
			names[name{r.ID, r.Version}] = true
		}
	}
	seen := make(map[string]bool)
	for w := range wrapped {
		for n := range names {
			through := &throughKEK{o.KEK}
			ad := parts([]byte("crmguard/epoch"), []byte(o.Tenant), n.id[:], u32(n.version))
			h, err := keyset.ReadWithContext(o.T.Context(), keyset.NewBinaryReader(strings.NewReader(w)), through, ad)
			if err != nil {
				continue
			}
			a, err := aead.New(h)
			if err != nil {
				o.T.Fatal(err)
			}
			prefix := append([]byte{1}, u32(insecurecleartextkeyset.KeysetMaterial(h).PrimaryKeyId)...)
			if !seen[string(prefix)] {
				seen[string(prefix)] = true
				out = append(out, epoch{n.id, prefix, a})
			}
		}
	}
	return out, len(wrapped)
}

type throughKEK struct{ kek keys.KEK }

func (a *throughKEK) EncryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return nil, errors.New("only opens")
}

func (a *throughKEK) DecryptWithContext(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	return a.kek.Unwrap(ctx, wrapped, ad)
}

const wrappedSize = 5 + 24 + 32 + 16 // Tink's prefix, XAES-256-GCM's nonce, a key, the tag

// keys finds wrapped person keys under epoch keys that unwrapped, and opens them.
func (o *Opener) keys(epochs []epoch) (out [][]byte, tried int) {
	found := make([]map[string]bool, len(epochs))
	for i := range found {
		found[i] = make(map[string]bool)
	}
	o.each(func(b []byte) {
		for e := range epochs {
			for i := 0; ; i++ {
				n := bytes.Index(b[i:], epochs[e].prefix)
				if n < 0 {
					break
				}
				i += n
				if i+wrappedSize <= len(b) {
					found[e][string(b[i:i+wrappedSize])] = true
				}
			}
		}
	})
	ads := make(map[string]bool) // everything but the epoch's id, which comes last
	for _, r := range o.Known {
		if r.Kind == keys.PersonKey {
			ads[string(parts([]byte("crmguard/key"), []byte(o.Tenant), r.ID[:], []byte(r.Kind), u32(r.Version), []byte(r.Purpose), r.Person[:], []byte(r.Retention)))] = true
		}
	}
	opened := make(map[string]bool)
	for e := range epochs {
		for w := range found[e] {
			tried++
			for ad := range ads {
				if key, err := epochs[e].aead.Decrypt([]byte(w), append([]byte(ad), parts(epochs[e].id[:])...)); err == nil {
					opened[string(key)] = true
					break
				}
			}
		}
	}
	for key := range opened {
		out = append(out, []byte(key))
	}
	return out, tried
}

// Open returns the names of the values that any key opens.
func (o *Opener) Open(values []Value) (names []string) {
	o.T.Helper()
	epochs, sets := o.epochs()
	all, wraps := o.keys(epochs)
	for _, v := range values {
		for _, key := range all {
			block, err := aes.NewCipher(expand(key, "crmguard/subkey", Label))
			if err != nil {
				o.T.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				o.T.Fatal(err)
			}
			head, body := v.Sealed[:10], v.Sealed[10:]
			ad := parts([]byte("crmguard/detail"), []byte(o.Tenant), v.Person[:], []byte(Label), nil, head)
			if plain, err := gcm.Open(nil, body[:12], body[12:], ad); err == nil && hmac.Equal(plain, v.Plain) {
				names = append(names, v.Name)
				break
			}
		}
	}
	o.T.Logf("the opener found %d wrapped keysets, of which %d unwrap; %d wrapped keys under those, %d opened; values: %d of %d",
		sets, len(epochs), wraps, len(all), len(names), len(values))
	return names
}

// Package recovery makes ten codes for paper, each of which signs in once where every other factor is lost. It is
// usable alone.
//
// A code is 120 random bits in six groups, such as 4N0K-7ZQX-J2MB-9RTV-1C8H-W6DS; it may be typed in either case, without
// the hyphens, and with O for 0, I or L for 1. Codes of older sets, of 80 bits in four groups, are taken. The record keeps keyed hashes (HMAC-SHA-256) with the account's id bound in,
// which is enough for secrets of that many bits; docs/formats/authn.md describes it. A used code is taken out by
// compare-and-set, so of parallel uses one succeeds.
//
// A recovery code is a look-up secret in the words of NIST SP 800-63B-4: something held, and no way around the other
// factor. Tell the person at each use, and how many are left. How often may be tried is package lockout's.
package recovery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"
)

// Count is how many codes there are in a set.
const Count = 10

// A Store keeps one record for an account. Package records has implementations.
type Store interface {
	// Load returns the account's record, nil when it has none.
	Load(ctx context.Context, account string) ([]byte, error)
	// Swap stores next where prev is stored still, and tells whether it was, in one step that nothing comes between. A
	// nil prev stands for no record, a nil next removes.
	Swap(ctx context.Context, account string, prev, next []byte) (bool, error)
}

// Errors of Codes. None holds anything of a code.
var (
	ErrWrong    = errors.New("recovery: wrong code") // or a used one, or no codes at all
	ErrRecord   = errors.New("recovery: record does not parse, or its key is not here")
	ErrConflict = errors.New("recovery: the record changes all the time")
)

const (
	recordVersion = 1
	idSize        = 4
	codeBytes     = 15
	codeChars     = 24
	oldChars      = 16 // of sets that were made when codes had 80 bits
	headSize      = 1 + idSize + 1
	maxAccount    = 1024
	tries         = 100
)

// crockford has no letters that are taken for digits.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Codes makes and takes codes. It is safe for concurrent use, also by several processes on one store.
type Codes struct {
	store Store
	keys  []key
}

type key struct{ id, secret []byte }

// New returns Codes that hash under newest and take codes that were hashed under any of the keys, each of 32 random
// bytes that lie apart from the database. A key that is left out ends the codes made under it.
func New(store Store, newest []byte, older ...[]byte) (*Codes, error) {
	if store == nil {
		return nil, errors.New("recovery: no store")
	}
	c := &Codes{store: store}
	for _, secret := range append([][]byte{newest}, older...) {
		if len(secret) != 32 {
			return nil, errors.New("recovery: a key has 32 bytes")
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("crmguard authn recovery v1 id"))
		c.keys = append(c.keys, key{mac.Sum(nil)[:idSize], bytes.Clone(secret)})
	}
	return c, nil
}

// Generate returns ten new codes, which replace those before, used or not. They are shown once and cannot be read
// again.
func (c *Codes) Generate(ctx context.Context, account string) ([]string, error) {
	if account == "" || len(account) > maxAccount {
		return nil, errors.New("recovery: an account's id has 1 to 1,024 bytes")
	}
	k := c.keys[0]
	record := append(append([]byte{recordVersion}, k.id...), Count)
	codes := make([]string, Count)
	for i := range codes {
		b := make([]byte, codeBytes)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		plain := base32.NewEncoding(crockford).EncodeToString(b)
		record = append(record, k.hash(account, plain)...)
		for ; len(plain) > 4; plain = plain[4:] {
			codes[i] += plain[:4] + "-"
		}
		codes[i] += plain
	}
	for range tries {
		stored, err := c.store.Load(ctx, account)
		if err != nil {
			return nil, err
		}
		done, err := c.store.Swap(ctx, account, stored, record)
		if err != nil {
			return nil, err
		}
		if done {
			return codes, nil
		}
	}
	return nil, ErrConflict
}

// Use takes a code and ends it. left is how many there are still, for the person to be told. Errors: [ErrWrong],
// [ErrRecord], [ErrConflict], the store's.
func (c *Codes) Use(ctx context.Context, account, code string) (left int, err error) {
	plain, ok := normalise(code)
	if !ok || account == "" || len(account) > maxAccount {
		return 0, ErrWrong
	}
	for range tries {
		stored, err := c.store.Load(ctx, account)
		if err != nil {
			return 0, err
		}
		k, hashes, err := c.parse(stored)
		if err != nil {
			return 0, err
		}
		sum, at := k.hash(account, plain), -1
		for i, h := range hashes { // all of them, whichever it is
			at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(h, sum), i, at)
		}
		if at < 0 {
			return 0, ErrWrong
		}
		next := bytes.Clone(stored[:headSize])
		next[headSize-1]--
		for i, h := range hashes {
			if i != at {
				next = append(next, h...)
			}
		}
		done, err := c.store.Swap(ctx, account, stored, next)
		if err != nil {
			return 0, err
		}
		if done {
			return len(hashes) - 1, nil
		}
	}
	return 0, ErrConflict
}

// Left returns how many codes can still be used.
func (c *Codes) Left(ctx context.Context, account string) (int, error) {
	stored, err := c.store.Load(ctx, account)
	if err != nil {
		return 0, err
	}
	_, hashes, err := c.parse(stored)
	return len(hashes), err
}

// Remove ends all codes of an account.
func (c *Codes) Remove(ctx context.Context, account string) error {
	for range tries {
		stored, err := c.store.Load(ctx, account)
		if err != nil || stored == nil {
			return err
		}
		if done, err := c.store.Swap(ctx, account, stored, nil); err != nil || done {
			return err
		}
	}
	return ErrConflict
}

// parse returns the key and the hashes of a record; none for a nil one.
func (c *Codes) parse(stored []byte) (key, [][]byte, error) {
	if stored == nil {
		return c.keys[0], nil, nil
	}
	if len(stored) < headSize || stored[0] != recordVersion || stored[headSize-1] > Count ||
		len(stored) != headSize+int(stored[headSize-1])*sha256.Size {
		return key{}, nil, ErrRecord
	}
	for _, k := range c.keys {
		if !bytes.Equal(k.id, stored[1:1+idSize]) {
			continue
		}
		var hashes [][]byte
		for b := stored[headSize:]; len(b) > 0; b = b[sha256.Size:] {
			hashes = append(hashes, b[:sha256.Size])
		}
		return k, hashes, nil
	}
	return key{}, nil, ErrRecord
}

func (k key) hash(account, plain string) []byte {
	mac := hmac.New(sha256.New, k.secret)
	b := append([]byte("crmguard authn recovery v1"), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(account)))
	b = append(b, account...)
	mac.Write(append(b, plain...))
	return mac.Sum(nil)
}

// normalise returns the characters of a code as it was typed.
func normalise(code string) (string, bool) {
	if len(code) > 64 {
		return "", false
	}
	plain := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(code))
	for i := range len(plain) {
		if strings.IndexByte(crockford, plain[i]) < 0 {
			return "", false
		}
	}
	return plain, len(plain) == codeChars || len(plain) == oldChars
}

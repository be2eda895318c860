// Package sms sends one-time codes to a phone or a mailbox, for accounts that have nothing stronger. It is usable
// alone.
//
// Both ways are weak: numbers are ported and messages read on the way (NIST SP 800-63B-4 restricts codes by telephone),
// and a mailbox is no authenticator at all. [authn.Method.Weak] says so of both, and [authn.LevelOf] gives e-mail no
// level. Offer an authenticator app or a passkey first.
//
// A code has eight digits, lives ten minutes, is tried at most five times and accepted once, for the account and the
// purpose it was made for. The record keeps a keyed hash; docs/formats/authn.md describes it. Each try replaces the
// record by compare-and-set before its answer is known, so that parallel tries do not slip past the five.
//
// [FileSender] writes messages to a file, for development.
package sms

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
)

// Message is what a sender sends. It prints as ***.
type Message struct {
	To      string // a telephone number or an e-mail address
	Code    string // eight digits
	Purpose string // as given to Codes.Send; the text of the message names it
	Expires time.Time
}

// Format prints ***, whatever the verb.
func (m Message) Format(f fmt.State, _ rune) { fmt.Fprint(f, "***") }

// MarshalText writes ***, so that no encoder writes the code.
func (m Message) MarshalText() ([]byte, error) { return []byte("***"), nil }

// A Sender sends messages of one kind. Its errors hold neither address nor code.
type Sender interface {
	// Method is authn.SMS or authn.Email.
	Method() authn.Method
	// Send returns when the message was handed over.
	Send(ctx context.Context, m Message) error
}

// A Store keeps one record for a name, here an account and a purpose. Package records has implementations.
type Store interface {
	// Load returns the record, nil when there is none.
	Load(ctx context.Context, name string) ([]byte, error)
	// Swap stores next where prev is stored still, and tells whether it was, in one step that nothing comes between. A
	// nil prev stands for no record, a nil next removes.
	Swap(ctx context.Context, name string, prev, next []byte) (bool, error)
}

// Errors of Codes. None holds anything of a code or an address.
var (
	ErrWrong    = errors.New("sms: wrong code")
	ErrNone     = errors.New("sms: no code was sent, or it was used")
	ErrExpired  = errors.New("sms: the code is too old")
	ErrTries    = errors.New("sms: the code was tried too often")
	ErrTooSoon  = errors.New("sms: a code was sent just now")
	ErrRecord   = errors.New("sms: record does not parse")
	ErrConflict = errors.New("sms: the record changes all the time")
)

const (
	recordVersion = 1
	digits        = 8
	nonceSize     = 16
	recordSize    = 1 + 8 + 8 + 1 + nonceSize + sha256.Size
	maxAccount    = 1024
	rounds        = 100
)

// Tries is how often a code may be tried.
const Tries = 5

// Options of New.
type Options struct {
	Lives time.Duration    // 0 = 10 min, which NIST has as the longest
	Every time.Duration    // the least time between two codes for an account and a purpose; 0 = 1 min
	Now   func() time.Time // nil = time.Now
}

// Codes sends and verifies codes. It is safe for concurrent use, also by several processes on one store.
type Codes struct {
	store        Store
	sender       Sender
	key          []byte
	lives, every time.Duration
	now          func() time.Time
}

// New returns Codes. key has 32 random bytes that lie apart from the database; when it changes, the codes on their way
// end.
func New(store Store, sender Sender, key []byte, opts *Options) (*Codes, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if store == nil || sender == nil || len(key) != 32 {
		return nil, errors.New("sms: a store, a sender and a key of 32 bytes")
	}
	if !sender.Method().Weak() {
		return nil, errors.New("sms: a sender sends by SMS or e-mail")
	}
	c := &Codes{store, sender, append([]byte(nil), key...), cmp.Or(o.Lives, 10*time.Minute), cmp.Or(o.Every, time.Minute), o.Now}
	if c.lives < 0 || c.lives > 10*time.Minute || c.every < 0 {
		return nil, errors.New("sms: a code lives ten minutes at most")
	}
	if c.now == nil {
		c.now = time.Now
	}
	return c, nil
}

// Send makes a code for the account and the purpose (a word of a-z, 0-9 and hyphens, such as sign-in) and sends it to
// an address that the account has confirmed. It ends the code before. Errors: [ErrTooSoon], the store's and the
// sender's; after a sender's error no code is valid.
func (c *Codes) Send(ctx context.Context, account, purpose, to string) error {
	name, err := place(account, purpose)
	if err != nil {
		return err
	}
	if to == "" {
		return errors.New("sms: no address")
	}
	n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
	if err != nil {
		return err
	}
	now := c.now()
	r := record{made: now.Unix(), expires: now.Add(c.lives).Unix(), left: Tries}
	if _, err := rand.Read(r.nonce[:]); err != nil {
		return err
	}
	code := fmt.Sprintf("%0*d", digits, n)
	copy(r.sum[:], c.hash(name, r, code))
	stored, err := c.store.Load(ctx, name)
	if err != nil {
		return err
	}
	if stored != nil {
		// A clock that was set back must not keep a person out for long.
		if old, err := unmarshal(stored); err == nil && old.made <= now.Unix() && now.Sub(time.Unix(old.made, 0)) < c.every {
			return ErrTooSoon
		}
	}
	done, err := c.store.Swap(ctx, name, stored, r.marshal())
	if err != nil {
		return err
	}
	if !done {
		return ErrTooSoon // another one was sent in this moment
	}
	if err := c.sender.Send(ctx, Message{To: to, Code: code, Purpose: purpose, Expires: time.Unix(r.expires, 0)}); err != nil {
		if _, gone := c.store.Swap(context.WithoutCancel(ctx), name, r.marshal(), nil); gone != nil {
			return errors.Join(err, gone)
		}
		return fmt.Errorf("sms: send: %w", err)
	}
	return nil
}

// Verify takes a code; nil means that it was right, and it is used up then. Errors: [ErrWrong], [ErrNone],
// [ErrExpired], [ErrTries], [ErrRecord], [ErrConflict], the store's. A code that is not eight digits counts as no try.
func (c *Codes) Verify(ctx context.Context, account, purpose, code string) error {
	name, err := place(account, purpose)
	if err != nil {
		return err
	}
	code = strings.NewReplacer(" ", "", "-", "").Replace(code[:min(len(code), 64)])
	if len(code) != digits || strings.Trim(code, "0123456789") != "" {
		return ErrWrong
	}
	for range rounds {
		stored, err := c.store.Load(ctx, name)
		if err != nil {
			return err
		}
		if stored == nil {
			return ErrNone
		}
		r, err := unmarshal(stored)
		if err != nil {
			return err
		}
		switch {
		case r.left == 0:
			return ErrTries
		case c.now().Unix() > r.expires:
			return ErrExpired
		}
		right := hmac.Equal(c.hash(name, r, code), r.sum[:])
		var next []byte
		if !right {
			r.left--
			next = r.marshal() // with no try left it stays, so that the next code is not sent at once
		}
		done, err := c.store.Swap(ctx, name, stored, next)
		switch {
		case err != nil:
			return err
		case done && right:
			return nil
		case done:
			return ErrWrong
		}
	}
	return ErrConflict
}

// place names the record of an account and a purpose. A purpose has no bar, so that no two are named alike.
func place(account, purpose string) (string, error) {
	if account == "" || len(account) > maxAccount || purpose == "" || len(purpose) > 64 ||
		strings.Trim(purpose, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", errors.New("sms: an account's id of 1 to 1,024 bytes, and a purpose of a-z, 0-9 and hyphens")
	}
	return account + "|" + purpose, nil
}

// hash binds a code to its place, its life and the way it was sent.
func (c *Codes) hash(name string, r record, code string) []byte {
	mac := hmac.New(sha256.New, c.key)
	b := append([]byte("crmguard authn sms v1"), 0)
	for _, s := range []string{string(c.sender.Method()), name} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.made))
	b = binary.BigEndian.AppendUint64(b, uint64(r.expires))
	b = append(b, r.nonce[:]...)
	mac.Write(append(b, code...))
	return mac.Sum(nil)
}

// record is what is stored of a code.
type record struct {
	made, expires int64 // seconds since 1970
	left          uint8
	nonce         [nonceSize]byte
	sum           [sha256.Size]byte
}

func (r record) marshal() []byte {
	b := append(make([]byte, 0, recordSize), recordVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.made))
	b = binary.BigEndian.AppendUint64(b, uint64(r.expires))
	b = append(b, r.left)
	b = append(b, r.nonce[:]...)
	return append(b, r.sum[:]...)
}

func unmarshal(b []byte) (r record, err error) {
	if len(b) != recordSize || b[0] != recordVersion || b[17] > Tries {
		return record{}, ErrRecord
	}
	r = record{made: int64(binary.BigEndian.Uint64(b[1:])), expires: int64(binary.BigEndian.Uint64(b[9:])), left: b[17]}
	copy(r.nonce[:], b[18:])
	copy(r.sum[:], b[18+nonceSize:])
	if r.made < 0 || r.expires < r.made {
		return record{}, ErrRecord
	}
	return r, nil
}

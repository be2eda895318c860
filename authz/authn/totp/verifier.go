package totp

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Sealer encrypts under a key that rotates and binds associated data; package keyring has one. Open says whether the
// text was sealed under an older key, which does not matter here.
type Sealer interface {
	Seal(ctx context.Context, plaintext, ad []byte) (sealed []byte, err error)
	Open(ctx context.Context, sealed, ad []byte) (plaintext []byte, stale bool, err error)
}

// A Store keeps one record for an account. Package records has implementations.
type Store interface {
	// Load returns the account's record, nil when it has none.
	Load(ctx context.Context, account string) ([]byte, error)
	// Swap stores next where prev is stored still, and tells whether it was, in one step that nothing comes between. A
	// nil prev stands for no record, a nil next removes.
	Swap(ctx context.Context, account string, prev, next []byte) (bool, error)
}

// Errors of a Verifier. None holds anything of a code or a key.
var (
	ErrWrong    = errors.New("totp: wrong code")
	ErrReplayed = errors.New("totp: a code of this step or a later one was used before")
	ErrNone     = errors.New("totp: no key") // not enrolled, or nothing to confirm
	ErrRecord   = errors.New("totp: record does not open")
	ErrConflict = errors.New("totp: the record changes all the time")
)

// Options of New.
type Options struct {
	Hash   Hash             // of new keys; 0 = SHA1
	Digits int              // of new keys, 6 or 8; 0 = 6
	Drift  int              // steps before and after this one that are accepted, 1 or 2; 0 = 1, below 0 = none
	Within time.Duration    // how long an enrolment may wait for its first code; 0 = 15 min
	Now    func() time.Time // nil = time.Now
}

// Verifier enrols keys and verifies codes. It is safe for concurrent use, also by several processes on one store.
type Verifier struct {
	sealer Sealer
	store  Store
	hash   Hash
	digits int
	drift  int64
	within time.Duration
	now    func() time.Time
}

// New returns a Verifier.
func New(sealer Sealer, store Store, opts *Options) (*Verifier, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if sealer == nil || store == nil {
		return nil, errors.New("totp: no sealer or no store")
	}
	v := &Verifier{
		sealer: sealer, store: store, hash: cmp.Or(o.Hash, SHA1), digits: cmp.Or(o.Digits, 6),
		drift: int64(max(cmp.Or(o.Drift, 1), 0)), within: cmp.Or(o.Within, 15*time.Minute), now: o.Now,
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.hash > SHA512 || v.digits != 6 && v.digits != 8 || v.drift > 2 || v.within < 0 {
		return nil, errors.New("totp: one of three hashes, 6 or 8 digits, a drift of at most 2, and a time to enrol")
	}
	return v, nil
}

// Enrol makes a key for the account and stores it beside the one that counts, if any, until it is confirmed. An earlier
// one that was not confirmed is gone. Errors: [ErrRecord], the sealer's, the store's.
func (v *Verifier) Enrol(ctx context.Context, account string) (Key, error) {
	key, err := NewKey(v.hash, v.digits)
	if err != nil {
		return Key{}, err
	}
	err = v.change(ctx, account, func(r *record) error {
		r.pending = &enrolled{key: key, made: v.now().Unix()}
		return nil
	})
	if err != nil {
		return Key{}, err
	}
	return key, nil
}

// Confirm takes the first code of the key that Enrol made; from then on that key counts and no other. Errors: [ErrNone]
// when there is none or it waited too long, [ErrWrong], and those of Enrol.
func (v *Verifier) Confirm(ctx context.Context, account, code string) error {
	return v.change(ctx, account, func(r *record) error {
		if r.pending == nil || v.now().Sub(time.Unix(r.pending.made, 0)) > v.within {
			return ErrNone
		}
		if err := v.accept(r.pending, code); err != nil {
			return err
		}
		r.active, r.pending = r.pending, nil
		return nil
	})
}

// Verify takes a code; nil means that it was right and was never used before. Errors: [ErrWrong], [ErrReplayed],
// [ErrNone], and those of Enrol.
func (v *Verifier) Verify(ctx context.Context, account, code string) error {
	return v.change(ctx, account, func(r *record) error {
		if r.active == nil {
			return ErrNone
		}
		return v.accept(r.active, code)
	})
}

// Enrolled tells whether a key counts.
func (v *Verifier) Enrolled(ctx context.Context, account string) (bool, error) {
	r, _, err := v.load(ctx, account)
	return err == nil && r.active != nil, err
}

// Remove removes the account's keys, also such as do not open. The composition ends sessions and tells the person.
func (v *Verifier) Remove(ctx context.Context, account string) error {
	for range tries {
		stored, err := v.store.Load(ctx, account)
		if err != nil || stored == nil {
			return err
		}
		if done, err := v.store.Swap(ctx, account, stored, nil); err != nil || done {
			return err
		}
	}
	return ErrConflict
}

// accept checks a code and notes its step. All steps are compared, whichever is right.
func (v *Verifier) accept(e *enrolled, code string) error {
	code = strings.ReplaceAll(code, " ", "") // apps show groups
	now, last, found := stepOf(v.now()), e.last, int64(-1)
	for step := now - v.drift; step <= now+v.drift; step++ {
		if step >= 0 && subtle.ConstantTimeCompare([]byte(e.key.code(step)), []byte(code)) == 1 {
			found = step // the latest: codes of two steps may be equal
		}
	}
	switch {
	case found < 0:
		return ErrWrong
	case found <= last:
		return ErrReplayed
	}
	e.last = found
	return nil
}

// tries bounds compare-and-set: each that fails means that another succeeded.
const tries = 100

// change loads the record, lets f change it, and stores it if it is still the same then.
func (v *Verifier) change(ctx context.Context, account string, f func(*record) error) error {
	if account == "" || len(account) > maxAccount {
		return errors.New("totp: an account's id has 1 to 1,024 bytes")
	}
	for range tries {
		r, stored, err := v.load(ctx, account)
		if err != nil {
			return err
		}
		if err := f(&r); err != nil {
			return err
		}
		sealed, err := v.sealer.Seal(ctx, r.marshal(), associated(account))
		if err != nil {
			return fmt.Errorf("totp: seal: %w", err)
		}
		done, err := v.store.Swap(ctx, account, stored, append([]byte{recordVersion}, sealed...))
		if err != nil || done {
			return err
		}
	}
	return ErrConflict
}

func (v *Verifier) load(ctx context.Context, account string) (r record, stored []byte, err error) {
	if stored, err = v.store.Load(ctx, account); err != nil || stored == nil {
		return record{}, nil, err
	}
	if len(stored) < 1 || stored[0] != recordVersion {
		return record{}, nil, ErrRecord
	}
	plain, _, err := v.sealer.Open(ctx, stored[1:], associated(account))
	if err != nil {
		return record{}, nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	r, err = unmarshal(plain)
	return r, stored, err
}

package password

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A Sealer encrypts under a key that rotates and binds associated data. Package keyring has one; package encrypt's
// Keeper, with a label and a tenant, makes another. Open says whether the text was sealed under a key that is no longer
// the newest. Errors hold neither text nor keys.
type Sealer interface {
	Seal(ctx context.Context, plaintext, ad []byte) (sealed []byte, err error)
	Open(ctx context.Context, sealed, ad []byte) (plaintext []byte, stale bool, err error)
}

// Errors of a Hasher. None holds anything of a password.
var (
	// ErrWrong: the password is not the account's, or the account has none.
	ErrWrong = errors.New("password: wrong")
	// ErrBusy: too many hashes at once; to be tried again later, and no failure of the person.
	ErrBusy = errors.New("password: busy")
	// ErrRecord: the stored record does not open, or is not one. It was changed or moved, or its key is not here.
	ErrRecord = errors.New("password: record does not open")
)

// Options of New.
type Options struct {
	// Params for new hashes, from Calibrate; zero = Floor.
	Params Params
	// Old are the other parameters that stored records may have. Every verification does a hash with each of them too.
	// A record with parameters that are not named here still verifies, and takes longer than others.
	Old []Params
	// Concurrent bounds the hashes computed at once, and so memory to Concurrent times Params.Memory; 0 = one for each
	// processor.
	Concurrent int
	// Wait bounds how long a call waits for its turn; 0 = 3 s.
	Wait time.Duration
	// InsecureParams lets Params be below Floor, for tests that hash thousands of times.
	InsecureParams bool
}

// Hasher makes and verifies records. It is safe for concurrent use; a program has one.
type Hasher struct {
	sealer Sealer
	params Params
	live   []Params // distinct, the first is params
	wait   time.Duration
	turns  chan struct{}
	argon  func(p Params, password, salt []byte) []byte // Params.hash

	mu    sync.Mutex
	decoy []byte // a record of no account, opened where an account has none
}

// maxAccount bounds the id of an account in bytes.
const maxAccount = 1024

// New returns a Hasher. It seals and opens a record of no account once, so that a sealer that does not work shows at
// the start.
func New(ctx context.Context, sealer Sealer, opts *Options) (*Hasher, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if sealer == nil {
		return nil, errors.New("password: no sealer")
	}
	if o.Params == (Params{}) {
		o.Params = Floor()
	}
	if !o.Params.valid() || !o.Params.strong() && !o.InsecureParams {
		return nil, errors.New("password: parameters below 19 MiB, two passes and one lane, or beyond bounds")
	}
	if o.Concurrent < 0 || o.Wait < 0 {
		return nil, errors.New("password: negative option")
	}
	h := &Hasher{
		sealer: sealer, params: o.Params, live: []Params{o.Params},
		wait:  cmp.Or(o.Wait, 3*time.Second),
		turns: make(chan struct{}, cmp.Or(o.Concurrent, runtime.GOMAXPROCS(0))),
		argon: Params.hash,
	}
	for _, p := range o.Old {
		if !p.valid() {
			return nil, errors.New("password: old parameters beyond bounds")
		}
		if !slices.Contains(h.live, p) {
			h.live = append(h.live, p)
		}
	}
	if err := h.newDecoy(ctx); err != nil {
		return nil, err
	}
	if _, _, err := h.open(ctx, "", h.decoy); err != nil {
		return nil, err
	}
	return h, nil
}

// Hash returns a record of the password for the account, to be stored in place of any before. account is an opaque id
// that never changes and no other account has, in any tenant that shares the sealer. Ask [Rules.Check] first: Hash
// refuses only what it cannot take (a *[WeakError]). Other errors: [ErrBusy], the sealer's, the context's.
func (h *Hasher) Hash(ctx context.Context, account, password string) (record []byte, err error) {
	if account == "" || len(account) > maxAccount {
		return nil, errors.New("password: an account's id has 1 to 1,024 bytes")
	}
	text, weak := prepare(password)
	if weak != "" {
		return nil, &WeakError{Reason: weak}
	}
	defer clear(text)
	done, err := h.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return h.make(ctx, account, text)
}

// Verify tells whether record is the account's and of this password. A nil record is that of a name that is not known,
// or of an account without a password: the same work is done, and the answer is [ErrWrong] as for a wrong password.
// Other errors: [ErrRecord], [ErrBusy], the sealer's, the context's; none means that the password is right.
//
// After a right password, renewed is a record to store in place of the one given (by compare-and-set: the person may be
// changing the password elsewhere), when that one has other parameters than new ones get, or was sealed under an older
// key. It is nil where none is needed or could be made.
func (h *Hasher) Verify(ctx context.Context, account string, record []byte, password string) (renewed []byte, err error) {
	text, weak := prepare(password)
	if weak != "" {
		return nil, ErrWrong // nobody has one like that
	}
	defer clear(text)
	done, err := h.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	known := account != "" && len(account) <= maxAccount && record != nil
	var rec hashed
	var stale bool
	var broken error
	if known {
		rec, stale, broken = h.open(ctx, account, record)
	} else if rec, stale, broken = h.open(ctx, "", h.someDecoy()); stale || broken != nil {
		_ = h.newDecoy(ctx) // keeps the one before; the next call tries again
	}
	if broken != nil {
		rec = hashed{params: h.params} // the work stays the same
	}
	right := 0
	sets := h.live
	if !slices.Contains(sets, rec.params) {
		sets = append(slices.Clone(sets), rec.params)
	}
	for _, p := range sets {
		same := subtle.ConstantTimeCompare(h.argon(p, text, rec.salt[:]), rec.sum[:])
		if p == rec.params {
			right = same
		}
	}
	switch {
	case known && broken != nil:
		return nil, broken
	case !known || right != 1:
		return nil, ErrWrong
	case rec.params != h.params:
		if renewed, err = h.make(ctx, account, text); err != nil {
			renewed = nil // the password was right all the same
		}
	case stale:
		if renewed, err = h.seal(ctx, account, rec); err != nil {
			renewed = nil
		}
	}
	return renewed, nil
}

// turn waits for a free place. done gives it back.
func (h *Hasher) turn(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done = func() { <-h.turns }
	select {
	case h.turns <- struct{}{}:
		return done, nil
	default:
	}
	timer := time.NewTimer(h.wait)
	defer timer.Stop()
	select {
	case h.turns <- struct{}{}:
		return done, nil
	case <-timer.C:
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *Hasher) make(ctx context.Context, account string, text []byte) ([]byte, error) {
	rec := hashed{params: h.params}
	if _, err := rand.Read(rec.salt[:]); err != nil {
		return nil, err
	}
	copy(rec.sum[:], h.argon(h.params, text, rec.salt[:]))
	return h.seal(ctx, account, rec)
}

func (h *Hasher) seal(ctx context.Context, account string, rec hashed) ([]byte, error) {
	sealed, err := h.sealer.Seal(ctx, rec.marshal(), associated(account))
	if err != nil {
		return nil, fmt.Errorf("password: seal: %w", err)
	}
	return append([]byte{recordVersion}, sealed...), nil
}

// open returns ErrRecord joined with the sealer's error, or alone.
func (h *Hasher) open(ctx context.Context, account string, record []byte) (rec hashed, stale bool, err error) {
	if len(record) < 1 || record[0] != recordVersion {
		return rec, false, ErrRecord
	}
	plain, stale, err := h.sealer.Open(ctx, record[1:], associated(account))
	if err != nil {
		return rec, false, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if rec, err = unmarshal(plain); err != nil {
		return rec, false, err
	}
	return rec, stale, nil
}

func (h *Hasher) someDecoy() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.decoy
}

// newDecoy seals a record of no account with random content: no password verifies against it.
func (h *Hasher) newDecoy(ctx context.Context) error {
	rec := hashed{params: h.params}
	for _, b := range [][]byte{rec.salt[:], rec.sum[:]} {
		if _, err := rand.Read(b); err != nil {
			return err
		}
	}
	decoy, err := h.seal(ctx, "", rec)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.decoy = decoy
	return nil
}

package lockout

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/text/unicode/norm"
)

// Bounds of what doubles.
const (
	maxLock     = 24 * time.Hour
	maxSoftLock = 30 * 24 * time.Hour
)

// sweepEvery is after how many reservations a Guard sweeps.
const sweepEvery = 1000

// Options of New.
type Options struct {
	Failures int              // that do not lock a source or a device yet; 0 = 3
	Lock     time.Duration    // after one more; each further failure doubles it, up to a day; 0 = 15 min
	Total    int              // failures of an account from unknown devices until they need a stronger factor; 0 = 100, the most
	SoftLock time.Duration    // how long they need it; doubles, up to 30 days; 0 = 24 h
	Accounts int              // that may fail from one source, from unknown devices, until it needs a stronger factor; 0 = 20
	Forget   time.Duration    // how long a row is kept after its last failure or the end of its lock; 0 = 24 h
	MaxRows  int              // about how many rows are kept in all, 1,000 or more; 0 = 200,000
	Now      func() time.Time // nil = time.Now
}

// Guard counts. It is safe for concurrent use, also by several processes on one store.
type Guard struct {
	store                  Store
	key                    []byte
	failures, total        uint32
	accounts               uint32
	lock, softLock, forget time.Duration
	maxRows                int
	now                    func() time.Time
	begun                  atomic.Int64
}

// New returns a Guard. key has 32 random bytes that lie apart from the database; when it changes, everything is
// forgotten.
func New(store Store, key []byte, opts *Options) (*Guard, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if store == nil || len(key) != 32 {
		return nil, errors.New("lockout: a store and a key of 32 bytes")
	}
	o.Failures, o.Total, o.MaxRows = cmp.Or(o.Failures, 3), cmp.Or(o.Total, 100), cmp.Or(o.MaxRows, 200_000)
	o.Accounts = cmp.Or(o.Accounts, 20)
	o.Lock, o.SoftLock, o.Forget = cmp.Or(o.Lock, 15*time.Minute), cmp.Or(o.SoftLock, 24*time.Hour), cmp.Or(o.Forget, 24*time.Hour)
	switch {
	case o.Failures < 1 || o.Failures > 99 || o.Total < 1 || o.Total > 100:
		return nil, errors.New("lockout: from 1 to 99 failures, and to 100 in total")
	case o.Lock < time.Second || o.Lock > maxLock || o.SoftLock < time.Second || o.SoftLock > maxSoftLock || o.Forget < o.Lock:
		return nil, errors.New("lockout: a lock from 1 s to a day, a soft lock to 30 days, and forgetting no sooner than a lock takes")
	case o.Accounts < 1 || o.Accounts > 1000:
		return nil, errors.New("lockout: from 1 to 1,000 accounts of a source")
	case o.MaxRows < 1000:
		return nil, errors.New("lockout: 1,000 rows or more")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Guard{
		store: store, key: slices.Clone(key), failures: uint32(o.Failures), total: uint32(o.Total), accounts: uint32(o.Accounts),
		lock: o.Lock, softLock: o.SoftLock, forget: o.Forget, maxRows: o.MaxRows, now: o.Now,
	}, nil
}

// Attempt is one try to show a factor.
type Attempt struct {
	// Account is the name as it was typed, whether there is such an account or not; case and spaces around it do not
	// count. Where an account has several names, a known one is first mapped to the same.
	Account string
	// Source is the address of the client, not of a proxy in front.
	Source netip.Addr
	// Device is the token of a device on which this account signed in completely before, as the composition has
	// checked; "" = unknown.
	Device string
	// Stronger tells that the factor cannot be guessed: a passkey, a client certificate.
	Stronger bool
}

// Need is what a refused try needs.
type Need uint8

// What may be needed.
const (
	Wait           Need = iota + 1 // this source, or this device, has to wait
	StrongerFactor                 // this device is not known, and the account or the source met too many failures: a known one, or a stronger factor
)

// RefusedError refuses a try. Nothing is to be verified then, and a right password is not to be told from a wrong one.
// Its text says what is needed, and nothing of whom.
type RefusedError struct {
	Need  Need
	Until time.Time // until when
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Need == StrongerFactor {
		return "lockout: an unknown device needs a stronger factor"
	}
	return "lockout: too many failures"
}

// ErrSource refuses an address that is none.
var ErrSource = errors.New("lockout: no source address")

// Pass allows one try.
type Pass struct {
	guard *Guard
	keys  []Key
	was   []Row // before the reservation
	is    []Row // after it
}

// Begin allows a try, which counts as a failure from now on, or refuses it with a *[RefusedError]. Other errors are
// [ErrSource] and the store's; treat them as a refusal.
func (g *Guard) Begin(ctx context.Context, a Attempt) (*Pass, error) {
	source, err := normalise(a.Source)
	if err != nil {
		return nil, err
	}
	now := g.now()
	p := &Pass{guard: g, keys: g.keysOf(a, source)}
	// Most tries of an attack end here, without a write.
	rows, err := g.store.Read(ctx, p.keys)
	if err != nil {
		return nil, err
	}
	if err := g.refusal(p.keys, rows, now); err != nil {
		return nil, err
	}
	var refused error
	err = g.store.Update(ctx, p.keys, func(rows []Row) bool {
		p.was, p.is = slices.Clone(rows), nil
		if refused = g.refusal(p.keys, rows, now); refused != nil {
			return false
		}
		another := false // account that fails from this source
		for i, k := range p.keys {
			another = another || k.Kind == BySource && rows[i].Ends <= now.Unix()
		}
		for i, k := range p.keys {
			if k.Kind != SourceInTotal {
				rows[i] = g.reserve(k, rows[i], now)
			} else if another {
				rows[i] = g.reserveSource(rows[i], now)
			}
		}
		p.is = slices.Clone(rows)
		return true
	})
	if err = cmp.Or(err, refused); err != nil {
		return nil, err
	}
	if g.begun.Add(1)%sweepEvery == 0 {
		_ = g.Sweep(ctx) // the next will do
	}
	return p, nil
}

// keysOf returns the rows that a try counts in.
func (g *Guard) keysOf(a Attempt, source string) []Key {
	account := g.account(a.Account)
	row := func(k Kind, other string) Key { return Key{k, account, g.hash(byte(k), account[:], other)} }
	switch {
	case a.Stronger:
		return []Key{row(BySourceStronger, source)}
	case a.Device != "":
		return []Key{row(ByDevice, a.Device)}
	}
	keys := []Key{row(BySource, source), {Kind: InTotal, Account: account}, {Kind: SourceInTotal, Account: g.hash(byte(SourceInTotal), nil, source)}}
	slices.SortFunc(keys, Key.Compare)
	return keys
}

// refusal returns a *RefusedError when a row is locked, or nil. A source that has to wait is told so first.
func (g *Guard) refusal(keys []Key, rows []Row, now time.Time) error {
	var stronger int64
	for i, r := range rows {
		switch {
		case r.Until <= now.Unix():
		case keys[i].Kind == InTotal || keys[i].Kind == SourceInTotal:
			stronger = max(stronger, r.Until)
		default:
			return &RefusedError{Wait, time.Unix(r.Until, 0)}
		}
	}
	if stronger > 0 {
		return &RefusedError{StrongerFactor, time.Unix(stronger, 0)}
	}
	return nil
}

// reserve counts a failure.
func (g *Guard) reserve(k Key, r Row, now time.Time) Row {
	if r.Ends <= now.Unix() {
		r = Row{} // forgotten, though not swept yet
	}
	r.Failures++
	free, lock, most := g.failures, g.lock, maxLock
	if k.Kind == InTotal {
		free, lock, most = g.total-1, g.softLock, maxSoftLock // the hundredth is the last
	}
	if r.Failures > free {
		for range r.Level {
			lock = min(2*lock, most)
		}
		r.Until = now.Add(lock).Unix()
		r.Level = min(r.Level+1, 32)
	}
	r.Ends = max(now.Unix(), r.Until) + int64(g.forget/time.Second)
	return r
}

// reserveSource counts one more account that fails from a source. The count begins anew when a day (Options.Forget) is over,
// however many failed meanwhile: else a large office would come to its limit in the course of a month.
func (g *Guard) reserveSource(r Row, now time.Time) Row {
	if r.Ends <= now.Unix() {
		r = Row{Ends: now.Unix() + int64(g.forget/time.Second)}
	}
	r.Failures++
	if r.Failures > g.accounts {
		lock := g.lock
		for range r.Level {
			lock = min(2*lock, maxLock)
		}
		r.Until = now.Add(lock).Unix()
		r.Level = min(r.Level+1, 32)
		r.Ends = max(r.Ends, r.Until+int64(g.forget/time.Second))
	}
	return r
}

// Succeed ends the failures of this source, or this device, with the account. Those in total stay, less this try: else
// an attacker would have a hundred more tries after each sign-in of the owner. Of the source only this account is no longer
// counted: whoever has an account cannot wash the others away. Call it after a complete sign-in.
func (p *Pass) Succeed(ctx context.Context) error {
	return p.settle(ctx, func(i int, r Row) Row {
		if p.keys[i].Kind == InTotal {
			return p.undone(i, r)
		}
		return Row{}
	})
}

// Undo takes the reservation back: the try was neither a success nor a failure.
func (p *Pass) Undo(ctx context.Context) error {
	return p.settle(ctx, p.undone)
}

// settle changes the rows of the account. When it has no failures from the source any more, the source has one account less.
func (p *Pass) settle(ctx context.Context, change func(int, Row) Row) error {
	return p.guard.store.Update(ctx, p.keys, func(rows []Row) bool {
		less, source := false, -1
		for i, k := range p.keys {
			if k.Kind == SourceInTotal {
				source = i
				continue
			}
			was := rows[i]
			rows[i] = change(i, was)
			less = less || k.Kind == BySource && was != (Row{}) && rows[i] == (Row{})
		}
		if source >= 0 && less {
			rows[source] = p.undone(source, rows[source])
		}
		return true
	})
}

// undone is a row as if this try had not been.
func (p *Pass) undone(i int, r Row) Row {
	if r.Failures <= 1 { // the only one, or somebody succeeded or released meanwhile
		return Row{}
	}
	r.Failures--
	if r.Until == p.is[i].Until && r.Level == p.is[i].Level { // no later failure locked it
		r.Until, r.Level = p.was[i].Until, p.was[i].Level
	}
	return r
}

// Lock is one lock of an account, without a word on where the tries came from.
type Lock struct {
	Kind     Kind
	Failures int
	Until    time.Time
}

// Locks returns the locks of an account, for the page of an administrator.
func (g *Guard) Locks(ctx context.Context, account string) ([]Lock, error) {
	rows, err := g.store.Rows(ctx, g.account(account))
	if err != nil {
		return nil, err
	}
	var locks []Lock
	for k, r := range rows {
		if r.Until > g.now().Unix() {
			locks = append(locks, Lock{k.Kind, int(r.Failures), time.Unix(r.Until, 0)})
		}
	}
	slices.SortFunc(locks, func(a, b Lock) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Until.Compare(b.Until)) })
	return locks, nil
}

// Release forgets all failures of an account and returns how many rows there were. It is an act of an administrator,
// for the audit log to keep.
func (g *Guard) Release(ctx context.Context, account string) (int, error) {
	rows, err := g.store.Rows(ctx, g.account(account))
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	keys := make([]Key, 0, len(rows))
	for k := range rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, Key.Compare)
	return len(keys), g.store.Update(ctx, keys, func(rows []Row) bool {
		clear(rows)
		return true
	})
}

// Sweep deletes what is forgotten, and keeps the store within MaxRows. A Guard does so by itself every 1,000 tries.
func (g *Guard) Sweep(ctx context.Context) error {
	return g.store.Sweep(ctx, g.now().Unix(), g.maxRows)
}

// account returns the keyed hash that stands for an account in the store.
func (g *Guard) account(name string) Hash {
	return g.hash(0, nil, strings.ToLower(norm.NFKC.String(strings.ToLower(strings.TrimSpace(name)))))
}

func (g *Guard) hash(kind byte, account []byte, text string) (h Hash) {
	mac := hmac.New(sha256.New, g.key)
	b := append([]byte("crmguard authn lockout v1"), 0, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(account)))
	b = append(b, account...)
	mac.Write(append(b, text...))
	copy(h[:], mac.Sum(nil))
	return h
}

// normalise returns what counts as one source: an IPv4 address or an IPv6 /64, which is what one customer gets at
// least.
func normalise(a netip.Addr) (string, error) {
	a = a.Unmap()
	if !a.IsValid() || a.IsUnspecified() {
		return "", ErrSource
	}
	if a.Is6() {
		b := a.As16()
		if [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} { // 64:ff9b::/96 of NAT64: all of IPv4 in one /64
			a = netip.AddrFrom4([4]byte(b[12:]))
		}
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits) // without the zone
	if err != nil {
		return "", ErrSource
	}
	return p.String(), nil
}

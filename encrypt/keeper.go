package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Keeper holds the keys of all tenants: epoch and tenant keys opened by the KEK, person keys in a
// bounded cache. It is safe for concurrent use; an application has one.
type Keeper struct {
	kek   keys.KEK
	keys  keys.Store
	opts  Options
	cache *personCache
	start time.Time

	coarse bool
	time   coarseClock

	endless sync.Map // by name of a KEK: whether it cannot make versions of itself, as its Rotate has said

	last    atomic.Pointer[tenant]
	mu      sync.Mutex
	tenants map[string]*tenant
}

// NewKeeper returns a Keeper over a KEK and a store of wrapped keys. It asks neither of them; the
// first use of a tenant does, and the first write makes the tenant's keys when it has none.
func NewKeeper(kek keys.KEK, store keys.Store, opts *Options) (*Keeper, error) {
	if kek == nil || store == nil {
		return nil, errors.New("encrypt: a Keeper needs a KEK and a key store")
	}
	k := &Keeper{kek: kek, keys: store, tenants: make(map[string]*tenant)}
	if opts != nil {
		k.opts = *opts
	}
	if err := k.opts.complete(); err != nil {
		return nil, err
	}
	k.start = time.Now()
	if k.opts.Now != nil {
		k.start = k.opts.Now()
	}
	o := &k.opts
	k.coarse = min(o.CacheAge, o.Refresh, o.StaleReads, o.StaleWrites) >= 50*tick
	k.cache = newPersonCache(o)
	return k, nil
}

// complete checks the options and fills in what is zero.
func (o *Options) complete() error {
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{
		{&o.CacheAge, 10 * time.Minute}, {&o.Refresh, time.Hour}, {&o.StaleReads, 4 * time.Hour}, {&o.StaleWrites, 15 * time.Minute},
		{&o.Epoch, 30 * 24 * time.Hour}, {&o.Copies, 7 * 24 * time.Hour},
	} {
		if *d.p < 0 {
			return errors.New("encrypt: negative duration in Options")
		}
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	if o.Grace == 0 {
		o.Grace = 72 * time.Hour
	}
	if o.CacheEntries < 0 || o.CacheBytes < 0 {
		return errors.New("encrypt: negative bound in Options")
	}
	if o.CacheEntries == 0 {
		o.CacheEntries = 50_000
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.CacheMessages == 0 {
		o.CacheMessages = 1 << 28
	}
	if o.EraseLimit == 0 {
		o.EraseLimit = 100
	}
	return nil
}

// tick is how coarse the Keeper's clock is: what it times lasts seconds at least, and asking the system
// for the time costs a third of sealing a short value.
const tick = 20 * time.Millisecond

// coarseClock holds the time of the last tick. It ticks only while somebody looks at it.
type coarseClock struct {
	now           atomic.Int64
	ticking, seen atomic.Bool
}

// clock is the time on the Keeper's own clock: monotonic, unless a clock was given.
func (k *Keeper) clock() time.Duration {
	switch {
	case k.opts.Now != nil:
		return k.opts.Now().Sub(k.start)
	case !k.coarse:
		return time.Since(k.start)
	case k.time.ticking.Load():
		if !k.time.seen.Load() {
			k.time.seen.Store(true)
		}
		return time.Duration(k.time.now.Load())
	}
	now := time.Since(k.start)
	k.time.now.Store(int64(now))
	if k.time.ticking.CompareAndSwap(false, true) {
		time.AfterFunc(tick, k.ticked)
	}
	return now
}

func (k *Keeper) ticked() {
	k.time.now.Store(int64(time.Since(k.start)))
	if k.time.seen.Swap(false) {
		time.AfterFunc(tick, k.ticked)
		return
	}
	k.time.ticking.Store(false)
}

// now is the time of records: UTC, whole seconds.
func (k *Keeper) now() time.Time {
	now := time.Now()
	if k.opts.Now != nil {
		now = k.opts.Now()
	}
	return now.UTC().Truncate(time.Second)
}

// kekOf returns the KEK of a tenant.
func (k *Keeper) kekOf(ctx context.Context, tenant string) (keys.KEK, error) {
	if k.opts.KEKFor == nil {
		return k.kek, nil
	}
	kek, err := k.opts.KEKFor(ctx, tenant)
	switch {
	case err == nil:
	case errors.Is(err, ErrAuth), errors.Is(err, ErrKMSUnavailable), errors.Is(err, context.Canceled):
		return nil, fmt.Errorf("encrypt: KEK of the tenant: %w", err)
	default:
		return nil, fmt.Errorf("%w: KEK of the tenant: %w", ErrKMSUnavailable, err)
	}
	if kek == nil {
		return k.kek, nil
	}
	return kek, nil
}

// kekNamed returns the KEK that an epoch key names: while a tenant moves to another KEK that is the one it had. A name
// that nobody has is taken for an older name of the tenant's own.
func (k *Keeper) kekNamed(ctx context.Context, tenant, id string) (keys.KEK, error) {
	kek, err := k.kekOf(ctx, tenant)
	if err != nil || kek.ID() == id {
		return kek, err
	}
	if k.kek.ID() == id {
		return k.kek, nil
	}
	if k.opts.KEKByID != nil {
		other, err := k.opts.KEKByID(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("%w: KEK %q: %w", ErrKMSUnavailable, id, err)
		}
		if other != nil {
			return other, nil
		}
	}
	return kek, nil
}

// KEKID returns the name of the KEK, for records and pages.
func (k *Keeper) KEKID() string { return k.kek.ID() }

// Erasures returns the tenant's erasure number: 1 for a tenant without an erasure. A store that
// reads it together with a record passes it in [Record.Erasure] and saves the query.
func (k *Keeper) Erasures(ctx context.Context, tenant string) (uint64, error) {
	if err := checkTenant(tenant); err != nil {
		return 0, err
	}
	return k.keys.Erasures(ctx, tenant)
}

func checkTenant(name string) error {
	if name == "" || len(name) > 128 {
		return errors.New("encrypt: a tenant has 1 to 128 bytes")
	}
	return nil
}

// visit is one operation on a tenant: its keys, and the erasure number they were seen under.
type visit struct {
	t      *tenant
	tk     *tenantKeys
	number uint64
	now    time.Duration
}

// enter begins an operation. told is the erasure number that the caller read with the record, 0 to ask
// the store. A write makes the tenant's keys when there are none, and is bounded more tightly while
// the KEK is away.
func (k *Keeper) enter(ctx context.Context, tenant string, told uint64, write bool) (visit, error) {
	t, err := k.tenant(tenant)
	if err != nil {
		return visit{}, err
	}
	v := visit{t: t, now: k.clock()}
	seen := t.erasure.Load() // before the keys, so that they are at least as new
	if v.tk = t.keys.Load(); v.tk == nil || v.now-v.tk.loaded >= k.opts.Refresh {
		if _, err = k.tenantKeys(ctx, t, write); err != nil {
			return visit{}, err
		}
		seen = t.erasure.Load()
		v.tk = t.keys.Load()
	}
	if told == 0 {
		if told, err = k.keys.Erasures(ctx, tenant); err != nil {
			return visit{}, err
		}
	}
	if told > seen {
		if err := k.observe(ctx, t, told, write); err != nil {
			return visit{}, err
		}
		seen = t.erasure.Load()
		v.tk = t.keys.Load()
	}
	v.number = seen
	return v, nil
}

// observe makes sure that no cached key outlives its erasure, block or retirement: the keys that ended
// since the last seen number are dropped, and the tenant's keys read anew.
func (k *Keeper) observe(ctx context.Context, t *tenant, told uint64, write bool) error {
	select {
	case t.observing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.observing }()
	seen := t.erasure.Load()
	if told <= seen {
		return nil
	}
	// What was told is a reason to look. The number itself comes from the store, so that a wrong one
	// cannot hide the erasures to come.
	number, err := k.keys.Erasures(ctx, t.name)
	if err != nil || number <= seen {
		return err
	}
	gone := make(map[keys.ID]bool)
	if seen > 0 { // else nothing was cached for this tenant yet
		for _, q := range []keys.Query{{Since: seen}, {Blocked: true}} {
			ended, err := k.keys.Find(ctx, t.name, q)
			if err != nil {
				return err
			}
			for i := range ended {
				gone[ended[i].ID] = true
			}
		}
	}
	tk := t.keys.Load()
	var away error
	if seen > 0 {
		// A load that another caller began before this number may have seen older records.
		for tries := 0; tk.number < number && err == nil && tries < 8; tries++ {
			var fresh *tenantKeys
			if fresh, err = k.reload(ctx, t, tk); err == nil {
				tk = fresh
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrKMSUnavailable) && !write:
			away = err // reads go on with the keys they have; the number is looked at again next time
		default:
			return err
		}
	}
	t.admits.Store(number) // a slower reader no longer caches what is dropped here, nor keeps it at hand
	k.cache.drop(t, gone, tk.oldest())
	if away == nil {
		t.erasure.Store(number) // only now may others rely on the cache
	}
	return nil
}

// found is what a key id leads to: a key, or the proof that it was destroyed.
type found struct {
	key    *personKey
	erased *keys.Record
	err    error // the record is there and cannot be used
}

// want is a key that a reader needs: the id that a value names, and whose it must be.
type want struct {
	id     keys.ID
	person [16]byte
}

// find opens the person keys with these ids, by at most one store query for those that are neither
// cached nor being loaded. A missing record is absent in the result.
func (k *Keeper) find(ctx context.Context, v *visit, wants []want) (map[keys.ID]found, error) {
	c := k.cache
	out := make(map[keys.ID]found, len(wants))
	var open []want
	for _, w := range wants {
		if _, done := out[w.id]; done {
			continue
		}
		if key := c.byID(v.t, &w.person, w.id, v.now); key != nil {
			out[w.id] = found{key: key}
		} else {
			open = append(open, w)
		}
	}
	for len(open) > 0 {
		var mine []keys.ID
		done := make(chan struct{})
		var waits []*loadCall
		var waiting []want
		c.mu.Lock()
		for _, w := range open {
			ref := keyRef{v.t, w.id}
			if call := c.loading[ref]; call != nil {
				waits, waiting = append(waits, call), append(waiting, w)
				continue
			}
			if key := c.byID(v.t, &w.person, w.id, v.now); key != nil { // loaded since we looked
				out[w.id] = found{key: key}
				continue
			}
			c.loading[ref] = &loadCall{number: v.number, done: done}
			mine = append(mine, w.id)
		}
		c.mu.Unlock()
		if err := k.load(ctx, v, mine, done, out); err != nil {
			return nil, err
		}
		open = nil
		for i, call := range waits {
			select {
			case <-call.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			switch {
			case call.err != nil, call.number < v.number:
				// The other caller failed, perhaps by its own context, or read before an erasure that we know of.
				if _, done := out[waiting[i].id]; !done {
					open = append(open, waiting[i])
				}
			case call.found != (found{}):
				out[waiting[i].id] = call.found
			}
		}
	}
	return out, nil
}

// load reads and opens the keys that this caller has claimed, puts them into out, and releases the claims, whose
// waiters wait for done.
func (k *Keeper) load(ctx context.Context, v *visit, ids []keys.ID, done chan struct{}, out map[keys.ID]found) (err error) {
	if len(ids) == 0 {
		return nil
	}
	c := k.cache
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range ids {
			ref := keyRef{v.t, id}
			call := c.loading[ref]
			delete(c.loading, ref)
			f := out[id]
			call.found, call.err = f, err
			if f.key != nil && err == nil {
				c.add(v.t, f.key, v.number)
			}
		}
		close(done)
	}()
	todo := ids
	for attempt := 0; attempt < 2 && len(todo) > 0; attempt++ {
		records, err := k.keys.Find(ctx, v.t.name, keys.Query{IDs: todo})
		if err != nil {
			return err
		}
		todo = nil
		for i := range records {
			r := &records[i]
			switch r.Kind {
			case keys.Tombstone:
				out[r.ID] = found{erased: r}
			case keys.PersonKey:
				key, err := k.openPersonKey(ctx, v, r)
				switch {
				case errors.Is(err, errRewrapped):
					todo = append(todo, r.ID)
					out[r.ID] = found{err: ErrRetired}
				case errors.Is(err, ErrTampered), errors.Is(err, ErrRetired), errors.Is(err, ErrBlocked), errors.Is(err, ErrKeyMissing):
					out[r.ID] = found{err: err} // fails its own values only
				case err != nil:
					return err
				default:
					out[r.ID] = found{key: key}
				}
			}
		}
	}
	return nil
}

// errRewrapped says that a record names an epoch key that has ended: a rotation has rewrapped it since
// it was read.
var errRewrapped = fmt.Errorf("%w: its epoch", ErrRetired)

// openPersonKey unwraps a record and checks its commitment. An epoch key that is not known is looked
// for once: a rotation may run in another process.
func (k *Keeper) openPersonKey(ctx context.Context, v *visit, r *keys.Record) (*personKey, error) {
	if len(r.Wrapped) == 0 {
		return nil, fmt.Errorf("%w: key %s", ErrRetired, r.ID)
	}
	if !r.Blocked.IsZero() {
		return nil, ErrBlocked
	}
	if g := generation(r.Version); g < v.tk.oldest() {
		return nil, fmt.Errorf("%w: generation %d, the oldest in use is %d", ErrRetired, g, v.tk.oldest())
	}
	if v.tk.epochs[r.Epoch].aead == nil {
		tk, err := k.reload(ctx, v.t, v.tk)
		if err != nil {
			return nil, err
		}
		v.tk = tk
	}
	key, err := v.tk.unwrap(r)
	if err != nil {
		return nil, err
	}
	return newPersonKey(r, key, v.now)
}

// slot is a place that needs a person key to write with.
type slot struct {
	person    [16]byte
	retention keys.Retention
	key       *personKey
}

// keysFor fills slots with person keys of the newest generation, and makes those that do not exist yet
// in one store call.
func (k *Keeper) keysFor(ctx context.Context, v *visit, slots []slot) error {
	var missing []*slot
	for i := range slots {
		s := &slots[i]
		if s.key == nil {
			if s.key = k.cache.bySlot(v.t, &s.person, s.retention, v.tk.newest(), v.now); s.key == nil {
				missing = append(missing, s)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	type place struct {
		person    [16]byte
		retention keys.Retention
	}
	var persons [][16]byte
	seen := make(map[[16]byte]bool)
	wanted := make(map[place]bool)
	for _, s := range missing {
		wanted[place{s.person, s.retention}] = true
		if !seen[s.person] {
			seen[s.person] = true
			persons = append(persons, s.person)
		}
	}
	have := make(map[place]*personKey)
	known := make(map[[16]byte]bool) // persons who have any key
	read := func() error {
		for attempt := 0; ; attempt++ {
			records, err := k.keys.Find(ctx, v.t.name, keys.Query{Persons: persons})
			if err != nil {
				return err
			}
			again := false
			for i := range records {
				r := &records[i]
				known[r.Person] = true
				at := place{r.Person, r.Retention}
				if waits(r) && wanted[at] {
					return ErrBlocked
				}
				if have[at] != nil || !wanted[at] || generation(r.Version) != v.tk.newest() {
					continue
				}
				key, err := k.openPersonKey(ctx, v, r)
				if errors.Is(err, errRewrapped) && attempt < 2 {
					again = true
					continue
				}
				if err != nil {
					return err
				}
				have[at] = key
			}
			if !again {
				return nil
			}
		}
	}
	if err := read(); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		var made []keys.Record
		for at := range wanted {
			if have[at] == nil {
				made = append(made, keys.Record{
					Tenant: v.t.name, Kind: keys.PersonKey, Person: at.person, Retention: at.retention, Created: k.now(),
				})
			}
		}
		if len(made) == 0 {
			break
		}
		if attempt == 3 {
			return errors.New("encrypt: the key store does not keep new keys")
		}
		fresh, err := k.makeKeys(ctx, v, made)
		if errors.Is(err, ErrRetired) { // a rotation in another process ended this epoch
			if v.tk, err = k.reload(ctx, v.t, v.tk); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		// Nobody else had a key of these persons, and the store has taken all of them: what it would be asked for is what is here.
		if fresh != nil && !slices.ContainsFunc(made, func(r keys.Record) bool { return known[r.Person] }) {
			for _, key := range fresh {
				have[place{key.person, key.retention}] = key
			}
			continue
		}
		if err := read(); err != nil {
			return err
		}
	}
	for _, key := range have {
		k.cache.add(v.t, key, v.number)
	}
	for _, s := range missing {
		s.key = have[place{s.person, s.retention}]
	}
	return nil
}

// makeKeys makes person keys and adds them to the store. It returns them opened when the store says that it took all of them, else nil: the
// store knows which key counts.
func (k *Keeper) makeKeys(ctx context.Context, v *visit, made []keys.Record) ([]*personKey, error) {
	slices.SortFunc(made, func(a, b keys.Record) int {
		return cmp.Or(bytes.Compare(a.Person[:], b.Person[:]), cmp.Compare(a.Retention, b.Retention))
	})
	ids, secrets := randomIDs(len(made)), make([][]byte, len(made))
	wipe := func() {
		for _, key := range secrets {
			clear(key)
		}
	}
	for i := range made {
		r := &made[i]
		r.ID, secrets[i] = ids[i], make([]byte, 32)
		if g := v.tk.newest(); g > 1 {
			r.Version = g
		}
		rand.Read(secrets[i])
		var err error
		if *r, err = v.tk.sealKey(*r, secrets[i]); err != nil {
			wipe()
			return nil, err
		}
	}
	s, ok := k.keys.(keys.Counting)
	if !ok {
		wipe()
		return nil, k.keys.Add(ctx, v.t.name, made)
	}
	if added, err := s.AddCounted(ctx, v.t.name, made); err != nil || added != len(made) {
		wipe()
		return nil, err
	}
	fresh := make([]*personKey, len(made))
	for i := range made {
		var err error
		if fresh[i], err = newPersonKey(&made[i], secrets[i], v.now); err != nil {
			return nil, err
		}
	}
	return fresh, nil
}

// fieldError names the field; never its value.
func fieldError(err error, field string) error { return fmt.Errorf("%w: field %s", err, field) }

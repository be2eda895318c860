package encrypt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Keeper holds the keys of all tenants: epoch and tenant keys opened by the keys.KEK, person keys in a
// bounded cache. It is safe for concurrent use; an application has one.
type Keeper struct {
	kek   keys.KEK
	keys  keys.Store
	opts  Options
	cache *personCache

	mu      sync.Mutex
	tenants map[string]*tenant
}

// NewKeeper returns a Keeper over a keys.KEK and a store of wrapped keys. It asks neither of them; the
// first use of a tenant does, and makes the tenant's keys when it has none.
func NewKeeper(kek keys.KEK, store keys.Store, opts *Options) (*Keeper, error) {
	if kek == nil || store == nil {
		return nil, errors.New("encrypt: a Keeper needs a keys.KEK and a keys.Store")
	}
	k := &Keeper{kek: kek, keys: store, tenants: make(map[string]*tenant)}
	if opts != nil {
		k.opts = *opts
	}
	o := &k.opts
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{{&o.CacheAge, 10 * time.Minute}, {&o.Refresh, time.Hour}, {&o.StaleReads, 4 * time.Hour}, {&o.StaleWrites, 15 * time.Minute}} {
		if *d.p < 0 {
			return nil, errors.New("encrypt: negative duration in Options")
		}
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	if o.CacheEntries < 0 || o.CacheBytes < 0 {
		return nil, errors.New("encrypt: negative bound in Options")
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
	if o.Now == nil {
		o.Now = time.Now
	}
	k.cache = newPersonCache(o)
	return k, nil
}

// KEKID returns the name of the keys.KEK, for records and pages.
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

// observe makes sure that no cached key outlives its erasure: told, or the number read now, is
// compared with the last seen one, and the keys destroyed since are dropped.
func (k *Keeper) observe(ctx context.Context, t *tenant, told uint64) (uint64, error) {
	n := told
	if n == 0 {
		var err error
		if n, err = k.keys.Erasures(ctx, t.name); err != nil {
			return 0, err
		}
	}
	k.cache.mu.Lock()
	seen := t.erasure
	if seen == 0 {
		// Nothing was cached for this tenant before its first number.
		t.erasure, seen = n, n
	}
	k.cache.mu.Unlock()
	if n <= seen {
		return n, nil
	}
	gone, err := k.keys.Find(ctx, t.name, keys.Query{Since: seen})
	if err != nil {
		return 0, err
	}
	k.cache.mu.Lock()
	defer k.cache.mu.Unlock()
	for _, r := range gone {
		k.cache.drop(keyRef{t.name, r.ID})
	}
	t.erasure = max(t.erasure, n)
	return n, nil
}

// found is what a key id leads to: a key, or the proof that it was destroyed.
type found struct {
	key    *personKey
	erased *keys.Record
	err    error // the record is there and cannot be opened
}

// find opens the person keys with these ids, by at most one store query for those that are not
// cached or being loaded. number is the erasure number seen before. A missing record is absent in
// the result.
func (k *Keeper) find(ctx context.Context, t *tenant, number uint64, ids []keys.ID, out map[keys.ID]found) error {
	if _, err := k.tenantKeys(ctx, t, false); err != nil {
		return err // past the outage window cached person keys serve no longer either
	}
	now := k.opts.Now()
	c := k.cache
	for {
		var mine []keys.ID
		var waits []*loadCall
		var waitIDs []keys.ID
		c.mu.Lock()
		for _, id := range ids {
			if _, done := out[id]; done {
				continue
			}
			ref := keyRef{t.name, id}
			if key := c.lookup(ref, now); key != nil {
				out[id] = found{key: key}
			} else if call := c.loading[ref]; call != nil {
				waits, waitIDs = append(waits, call), append(waitIDs, id)
			} else {
				c.loading[ref] = &loadCall{done: make(chan struct{})}
				mine = append(mine, id)
			}
		}
		c.mu.Unlock()
		if err := k.load(ctx, t, number, mine, out); err != nil {
			return err
		}
		again := false
		for i, call := range waits {
			select {
			case <-call.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			switch {
			case call.err != nil:
				again = true // the other caller failed, perhaps by its own context
			case call.found != (found{}):
				out[waitIDs[i]] = call.found
			}
		}
		if !again {
			return nil
		}
	}
}

// load reads and opens the keys that this caller has claimed, and releases the claims.
func (k *Keeper) load(ctx context.Context, t *tenant, number uint64, ids []keys.ID, out map[keys.ID]found) (err error) {
	if len(ids) == 0 {
		return nil
	}
	c := k.cache
	got := make(map[keys.ID]found, len(ids))
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range ids {
			ref := keyRef{t.name, id}
			call := c.loading[ref]
			delete(c.loading, ref)
			f := got[id]
			call.found, call.err = f, err
			if f != (found{}) {
				out[id] = f
			}
			// A number that moved meanwhile may mean this very key: use it once, do not keep it.
			if f.key != nil && err == nil && t.erasure == number {
				c.add(t.name, f.key)
			}
			close(call.done)
		}
	}()
	todo := ids
	for attempt := 0; attempt < 2 && len(todo) > 0; attempt++ {
		records, err := k.keys.Find(ctx, t.name, keys.Query{IDs: todo})
		if err != nil {
			return err
		}
		todo = nil
		for i := range records {
			r := &records[i]
			switch r.Kind {
			case keys.Tombstone:
				got[r.ID] = found{erased: r}
			case keys.PersonKey:
				key, err := k.openPersonKey(ctx, t, r, false)
				switch {
				case errors.Is(err, ErrRetired): // rewrapped by a rotation since it was read
					todo = append(todo, r.ID)
					got[r.ID] = found{err: err}
				case errors.Is(err, ErrTampered):
					got[r.ID] = found{err: err} // fails its own values only
				case err != nil:
					return err
				default:
					got[r.ID] = found{key: key}
				}
			}
		}
	}
	return nil
}

// openPersonKey unwraps a record and checks its commitment. An epoch key that is not known is looked
// for once: a rotation may run in another process.
func (k *Keeper) openPersonKey(ctx context.Context, t *tenant, r *keys.Record, write bool) (*personKey, error) {
	tk, err := k.tenantKeys(ctx, t, write)
	if err != nil {
		return nil, err
	}
	if tk.epochs[r.Epoch] == nil {
		if tk, err = k.reload(ctx, t, tk); err != nil {
			return nil, err
		}
	}
	key, err := tk.unwrap(r)
	if err != nil {
		return nil, err
	}
	return newPersonKey(r, key, k.opts.Now())
}

// slot is a place that needs a person key to write with.
type slot struct {
	person    [16]byte
	retention keys.Retention
	key       *personKey
}

// keysFor fills slots with person keys, and makes those that do not exist yet in one store call.
func (k *Keeper) keysFor(ctx context.Context, t *tenant, number uint64, slots []*slot) error {
	now := k.opts.Now()
	var missing []*slot
	for _, s := range slots {
		if s.key == nil {
			if s.key = k.cache.slot(slotRef{t.name, s.person, s.retention}, now); s.key == nil {
				missing = append(missing, s)
			}
		}
	}
	// Writes are bounded more tightly than reads while the keys.KEK is away, cached keys or not.
	tk, err := k.tenantKeys(ctx, t, true)
	if err != nil || len(missing) == 0 {
		return err
	}
	type place struct {
		person    [16]byte
		retention keys.Retention
	}
	var persons [][16]byte
	seen := make(map[[16]byte]bool)
	for _, s := range missing {
		if !seen[s.person] {
			seen[s.person] = true
			persons = append(persons, s.person)
		}
	}
	have := make(map[place]*personKey)
	read := func() error {
		for attempt := 0; ; attempt++ {
			records, err := k.keys.Find(ctx, t.name, keys.Query{Persons: persons})
			if err != nil {
				return err
			}
			retired := false
			for i := range records {
				r := &records[i]
				at := place{r.Person, r.Retention}
				if have[at] != nil {
					continue
				}
				key, err := k.openPersonKey(ctx, t, r, true)
				if errors.Is(err, ErrRetired) && attempt < 2 {
					retired = true // rewrapped by a rotation since it was read
					continue
				}
				if err != nil {
					return err
				}
				have[at] = key
			}
			if !retired {
				return nil
			}
		}
	}
	if err := read(); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		var made []keys.Record
		added := make(map[place]bool)
		for _, s := range missing {
			at := place{s.person, s.retention}
			if have[at] == nil && !added[at] {
				added[at] = true
				r, err := tk.newKey(keys.Record{
					Tenant: t.name, ID: randomID(), Kind: keys.PersonKey, Person: s.person,
					Retention: s.retention, Created: now.UTC().Truncate(time.Second),
				})
				if err != nil {
					return err
				}
				made = append(made, r)
			}
		}
		if len(made) == 0 {
			break
		}
		if attempt == 3 {
			return errors.New("encrypt: the key store does not keep new keys")
		}
		err := k.keys.Add(ctx, t.name, made)
		if errors.Is(err, ErrRetired) { // a rotation in another process ended this epoch
			if tk, err = k.reload(ctx, t, tk); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
	}
	k.cache.mu.Lock()
	defer k.cache.mu.Unlock()
	for _, s := range missing {
		s.key = have[place{s.person, s.retention}]
		if t.erasure == number && k.cache.byID[keyRef{t.name, s.key.id}] == nil {
			k.cache.add(t.name, s.key)
		}
	}
	return nil
}

// fieldError names the field; never its value.
func fieldError(err error, field string) error { return fmt.Errorf("%w: field %s", err, field) }

package encrypt

import (
	"container/list"
	"crypto/cipher"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// personKey is an opened person key with the AEADs derived from it.
type personKey struct {
	id        keys.ID
	person    [16]byte
	retention keys.Retention
	field     cipher.AEAD
	loaded    time.Time
	sealed    atomic.Uint64 // messages

	mu     sync.Mutex
	key    []byte
	labels map[string]cipher.AEAD // of SealFor
}

// keyBytes estimates the memory of one cached person key: two key schedules and the entry itself.
const keyBytes = 1536

func newPersonKey(r *keys.Record, key []byte, now time.Time) (*personKey, error) {
	field, err := newGCM(expand(key, labelSubkey, "field"))
	if err != nil {
		return nil, err
	}
	return &personKey{id: r.ID, person: r.Person, retention: r.Retention, field: field, loaded: now, key: key}, nil
}

// label returns the AEAD of a SealFor label, derived once.
func (p *personKey) label(name string) (cipher.AEAD, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.labels[name]; a != nil {
		return a, nil
	}
	a, err := newGCM(expand(p.key, labelSubkey, name))
	if err != nil {
		return nil, err
	}
	if p.labels == nil {
		p.labels = make(map[string]cipher.AEAD, 1)
	}
	if len(p.labels) < 8 {
		p.labels[name] = a
	}
	return a, nil
}

type keyRef struct {
	tenant string
	id     keys.ID
}

// slotRef is what a writer looks for: the person's key of a retention class.
type slotRef struct {
	tenant    string
	person    [16]byte
	retention keys.Retention
}

// personCache is an LRU of person keys, bounded by age, entries, bytes and messages. It also knows
// which keys are being loaded, so that concurrent readers of one key ask the store once.
type personCache struct {
	opts *Options
	max  int

	mu      sync.Mutex
	order   *list.List // *cacheEntry, most recently used first
	byID    map[keyRef]*list.Element
	bySlot  map[slotRef]*list.Element
	loading map[keyRef]*loadCall
}

type cacheEntry struct {
	tenant string
	key    *personKey
}

// loadCall is one load in flight. done is closed when the rest is set.
type loadCall struct {
	done  chan struct{}
	found found
	err   error
}

func newPersonCache(o *Options) *personCache {
	return &personCache{
		opts:    o,
		max:     min(o.CacheEntries, int(max(1, o.CacheBytes/keyBytes))),
		order:   list.New(),
		byID:    make(map[keyRef]*list.Element),
		bySlot:  make(map[slotRef]*list.Element),
		loading: make(map[keyRef]*loadCall),
	}
}

func (c *personCache) valid(k *personKey, now time.Time) bool {
	return now.Sub(k.loaded) < c.opts.CacheAge && k.sealed.Load() < c.opts.CacheMessages
}

// lookup returns a valid cached key by id. The caller holds mu.
func (c *personCache) lookup(ref keyRef, now time.Time) *personKey {
	e := c.byID[ref]
	return c.use(e, now)
}

func (c *personCache) use(e *list.Element, now time.Time) *personKey {
	if e == nil {
		return nil
	}
	k := e.Value.(*cacheEntry).key
	if !c.valid(k, now) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	return k
}

// slot returns a valid cached key by its slot.
func (c *personCache) slot(ref slotRef, now time.Time) *personKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.use(c.bySlot[ref], now)
}

// add caches a key. The caller holds mu.
func (c *personCache) add(tenant string, k *personKey) {
	ref := keyRef{tenant, k.id}
	if e := c.byID[ref]; e != nil {
		c.remove(e)
	}
	e := c.order.PushFront(&cacheEntry{tenant, k})
	c.byID[ref] = e
	c.bySlot[slotRef{tenant, k.person, k.retention}] = e
	for c.order.Len() > c.max {
		c.remove(c.order.Back())
	}
}

func (c *personCache) remove(e *list.Element) {
	ent := e.Value.(*cacheEntry)
	c.order.Remove(e)
	delete(c.byID, keyRef{ent.tenant, ent.key.id})
	s := slotRef{ent.tenant, ent.key.person, ent.key.retention}
	if c.bySlot[s] == e {
		delete(c.bySlot, s)
	}
}

// drop forgets a key. The caller holds mu.
func (c *personCache) drop(ref keyRef) {
	if e := c.byID[ref]; e != nil {
		c.remove(e)
	}
}

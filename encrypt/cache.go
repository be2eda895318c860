package encrypt

import (
	"crypto/cipher"
	"encoding/binary"
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
	version   uint32
	field     cipher.AEAD
	loaded    time.Duration // on the Keeper's clock
	sealed    atomic.Uint64 // messages

	mu     sync.Mutex
	key    []byte
	labels map[string]cipher.AEAD // of SealFor
}

// keyBytes is what one cached person key takes at most: key schedules, key and entry. Further labels are derived each time.
const (
	keyBytes   = 1536
	mostLabels = 2
)

func newPersonKey(r *keys.Record, key []byte, now time.Duration) (*personKey, error) {
	field, err := newGCM(expand(key, labelSubkey, "field", r.Tenant, string(r.Person[:])))
	if err != nil {
		return nil, err
	}
	return &personKey{
		id: r.ID, person: r.Person, retention: r.Retention, version: generation(r.Version), field: field, loaded: now, key: key,
	}, nil
}

// generation of a person key: the first one is written as 0.
func generation(version uint32) uint32 { return max(1, version) }

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
	if len(p.labels) < mostLabels {
		p.labels[name] = a
	}
	return a, nil
}

// personCache holds person keys, bounded by age, entries, bytes and messages. It evicts the persons
// that were not used for longest.
type personCache struct {
	age      time.Duration
	messages uint64
	shards   []cacheShard

	mu      sync.Mutex
	loading map[keyRef]*loadCall // so that concurrent readers of one key ask the store once
}

type keyRef struct {
	tenant *tenant
	id     keys.ID
}

// loadCall is one key of a load in flight. done is closed when the rest is set.
type loadCall struct {
	number uint64        // the erasure number under which it began
	done   chan struct{} // of all keys of the load
	found  found
	err    error
}

type cacheShard struct {
	mu    sync.Mutex
	most  int // keys
	count int
	by    map[personRef]*cacheEntry
	ring  cacheEntry // ring.next was used last, ring.prev longest ago
	_     [64]byte   // shards do not share a cache line
}

type personRef struct {
	tenant *tenant
	person [16]byte
}

type cacheEntry struct {
	ref        personRef
	keys       []*personKey
	prev, next *cacheEntry
}

func newPersonCache(o *Options) *personCache {
	most := min(o.CacheEntries, int(max(1, o.CacheBytes/keyBytes)))
	shards := 1
	if most >= 4096 {
		shards = 16
	}
	c := &personCache{
		age: o.CacheAge, messages: o.CacheMessages,
		shards: make([]cacheShard, shards), loading: make(map[keyRef]*loadCall),
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.most, s.by = most/shards, make(map[personRef]*cacheEntry)
		s.ring.prev, s.ring.next = &s.ring, &s.ring
	}
	return c
}

func (c *personCache) shard(person *[16]byte) *cacheShard {
	x := binary.LittleEndian.Uint64(person[:8]) ^ binary.LittleEndian.Uint64(person[8:])
	return &c.shards[(x*0x9e3779b97f4a7c15)>>60&uint64(len(c.shards)-1)]
}

// byID returns the person's valid cached key with this id.
func (c *personCache) byID(t *tenant, person *[16]byte, id keys.ID, now time.Duration) *personKey {
	s := c.shard(person)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(t, person); e != nil {
		for _, k := range e.keys {
			if k.id == id {
				return c.use(s, e, k, now)
			}
		}
	}
	return nil
}

// find returns the entry of a person. The fields of a record follow each other, so it is mostly the one
// that was used last.
func (s *cacheShard) find(t *tenant, person *[16]byte) *cacheEntry {
	if e := s.ring.next; e.ref.tenant == t && e.ref.person == *person {
		return e
	}
	return s.by[personRef{t, *person}]
}

// bySlot returns the person's valid cached key of a retention class and generation.
func (c *personCache) bySlot(t *tenant, person *[16]byte, class keys.Retention, version uint32, now time.Duration) *personKey {
	s := c.shard(person)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(t, person); e != nil {
		for _, k := range e.keys {
			if k.version == version && k.retention == class {
				return c.use(s, e, k, now)
			}
		}
	}
	return nil
}

func (c *personCache) use(s *cacheShard, e *cacheEntry, k *personKey, now time.Duration) *personKey {
	if now-k.loaded >= c.age || k.sealed.Load() >= c.messages {
		s.remove(e, k.id)
		return nil
	}
	if s.ring.next != e {
		e.prev.next, e.next.prev = e.next, e.prev
		s.front(e)
	}
	return k
}

func (s *cacheShard) front(e *cacheEntry) {
	e.prev, e.next = &s.ring, s.ring.next
	e.prev.next, e.next.prev = e, e
}

// add caches a key, unless the tenant's erasure number has moved from number: then it may be the very
// key that was destroyed.
func (c *personCache) add(t *tenant, k *personKey, number uint64) {
	s := c.shard(&k.person)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.admits.Load() != number {
		return
	}
	ref := personRef{t, k.person}
	e := s.by[ref]
	if e == nil {
		e = &cacheEntry{ref: ref}
		s.by[ref] = e
		s.front(e)
	} else {
		s.remove(e, k.id)
		if len(e.keys) == 0 {
			s.by[ref] = e
			s.front(e)
		}
	}
	e.keys = append(e.keys, k)
	s.count++
	for s.count > s.most && s.ring.prev != &s.ring {
		last := s.ring.prev
		s.remove(last, last.keys[0].id)
	}
}

// remove forgets one key of an entry, and the entry with its last key.
func (s *cacheShard) remove(e *cacheEntry, id keys.ID) {
	for i, k := range e.keys {
		if k.id != id {
			continue
		}
		e.keys = append(e.keys[:i:i], e.keys[i+1:]...)
		s.count--
		break
	}
	if len(e.keys) == 0 && e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		e.prev, e.next = nil, nil
		delete(s.by, e.ref)
	}
}

// last returns the key that sc used last, when it is still the one that is looked for. The fields of a person
// are mostly sealed and opened one after the other.
func (c *personCache) last(sc *scratch, v *visit, person *[16]byte) *personKey {
	k := sc.key
	if k == nil || sc.of != v.t || k.person != *person || sc.number != v.number || v.t.admits.Load() != v.number ||
		v.now-k.loaded >= c.age || k.sealed.Load() >= c.messages {
		return nil
	}
	return k
}

// keep lets sc remember a key for the operations that see the same erasure number, under the rule of add.
func (c *personCache) keep(sc *scratch, v *visit, k *personKey) {
	sc.key = nil
	if v.t.admits.Load() == v.number {
		sc.key, sc.of, sc.number = k, v.t, v.number
	}
}

// drop forgets the keys of a tenant that gone names, and those of generations below oldest.
func (c *personCache) drop(t *tenant, gone map[keys.ID]bool, oldest uint32) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for ref, e := range s.by {
			if ref.tenant != t {
				continue
			}
			for _, k := range append([]*personKey(nil), e.keys...) {
				if gone[k.id] || k.version < oldest {
					s.remove(e, k.id)
				}
			}
		}
		s.mu.Unlock()
	}
}

// size counts the cached keys of a tenant.
func (c *personCache) size(t *tenant) int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for ref, e := range s.by {
			if ref.tenant == t {
				n += len(e.keys)
			}
		}
		s.mu.Unlock()
	}
	return n
}

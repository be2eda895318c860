package keys

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"
)

// Memory is a Store in memory, for tests and examples. Its zero value is not usable.
type Memory struct {
	mu      sync.RWMutex
	tenants map[string]*memoryTenant
	fences  map[string]uint64 // by KEK
}

type memoryTenant struct {
	records map[ID]*Record
	slots   map[string]ID
	persons map[[16]byte][]ID // person keys and joins; a join is listed under both
	roots   []ID              // epoch and tenant keys
	blocked map[ID]bool       // person keys that may be blocked
	tombs   []ID              // in the order of their numbers
	order   []ID              // of all records, by id when sorted is true; no record ever leaves
	sorted  bool
	number  uint64
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{tenants: make(map[string]*memoryTenant), fences: make(map[string]uint64)}
}

func (m *Memory) tenant(name string) *memoryTenant {
	t := m.tenants[name]
	if t == nil {
		t = &memoryTenant{
			records: make(map[ID]*Record), slots: make(map[string]ID), persons: make(map[[16]byte][]ID),
			blocked: make(map[ID]bool), number: 1,
		}
		m.tenants[name] = t
	}
	return t
}

// Find implements Store.
func (m *Memory) Find(ctx context.Context, tenant string, q Query) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q.All { // it may have to sort the ids first
		m.mu.Lock()
		defer m.mu.Unlock()
	} else {
		m.mu.RLock()
		defer m.mu.RUnlock()
	}
	t := m.tenants[tenant]
	if t == nil {
		return nil, nil
	}
	var out []Record
	add := func(id ID) {
		if r, ok := t.records[id]; ok {
			out = append(out, r.clone())
		}
	}
	ofPersons := func(persons [][16]byte, kind Kind) {
		for _, p := range persons {
			for _, id := range t.persons[p] {
				if t.records[id].Kind == kind {
					add(id)
				}
			}
		}
	}
	switch {
	case q.IDs != nil:
		for _, id := range q.IDs {
			add(id)
		}
	case q.Persons != nil:
		ofPersons(q.Persons, PersonKey)
	case q.Joins != nil:
		ofPersons(q.Joins, Join)
	case q.Tenant:
		for _, id := range t.roots {
			add(id)
		}
	case q.Blocked:
		for id := range t.blocked {
			if r := t.records[id]; r.Kind == PersonKey && !r.Blocked.IsZero() {
				add(id)
			}
		}
	case q.All:
		t.sort()
		from, found := slices.BinarySearchFunc(t.order, q.After, compareIDs)
		if found {
			from++
		}
		for _, id := range t.order[from:] {
			if q.Under == (ID{}) || t.records[id].Epoch == q.Under {
				add(id)
			}
			if q.Limit > 0 && len(out) == q.Limit {
				break
			}
		}
		return out, nil
	default:
		from, _ := slices.BinarySearchFunc(t.tombs, q.Since, func(id ID, since uint64) int {
			if t.records[id].Number > since {
				return 1
			}
			return -1
		})
		for _, id := range t.tombs[from:] {
			add(id)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return compareIDs(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b Record) bool { return a.ID == b.ID }), nil
}

func compareIDs(a, b ID) int { return bytes.Compare(a[:], b[:]) }

func (r *Record) clone() Record {
	c := *r
	c.Wrapped, c.Commitment = bytes.Clone(r.Wrapped), bytes.Clone(r.Commitment)
	return c
}

func (t *memoryTenant) sort() {
	if !t.sorted {
		slices.SortFunc(t.order, compareIDs)
		t.sorted = true
	}
}

// put keeps a record under an id that is not taken.
func (t *memoryTenant) put(r *Record) {
	t.records[r.ID], t.slots[r.Slot()] = r, r.ID
	t.order, t.sorted = append(t.order, r.ID), false
	switch r.Kind {
	case EpochKey, TenantKey:
		t.roots = append(t.roots, r.ID)
	case PersonKey:
		if !r.Blocked.IsZero() {
			t.blocked[r.ID] = true
		}
		t.persons[r.Person] = append(t.persons[r.Person], r.ID)
	case Join:
		t.persons[r.Person] = append(t.persons[r.Person], r.ID)
		if other, ok := r.other(); ok && other != r.Person {
			t.persons[other] = append(t.persons[other], r.ID)
		}
	}
}

// other returns the second person of a join.
func (r *Record) other() (p [16]byte, ok bool) {
	b, err := hex.DecodeString(r.Purpose)
	if err != nil || len(b) != len(p) || hex.EncodeToString(b) != r.Purpose {
		return p, false
	}
	return [16]byte(b), true
}

// free tells whether a record has no epoch key above it: epoch keys, joins and retired keys.
func (r *Record) free() bool {
	return r.Kind == EpochKey || r.Kind == Join || len(r.Wrapped) == 0 && r.Epoch == ID{}
}

// alive tells whether id is an epoch key that is not retired.
func (t *memoryTenant) alive(id ID) bool {
	e, ok := t.records[id]
	return ok && e.Kind == EpochKey && len(e.Wrapped) > 0
}

func (t *memoryTenant) taken(r *Record) bool {
	_, id := t.records[r.ID]
	_, slot := t.slots[r.Slot()]
	return id || slot
}

// Add implements Store.
func (m *Memory) Add(ctx context.Context, tenant string, records []Record) error {
	_, err := m.AddCounted(ctx, tenant, records)
	return err
}

// AddCounted implements Counting.
func (m *Memory) AddCounted(ctx context.Context, tenant string, records []Record) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	added := make(map[ID]bool)
	for _, r := range records {
		if r.Kind != EpochKey || t.taken(&r) {
			continue
		}
		if r.Fence != m.fences[r.Purpose] {
			return 0, ErrRetired
		}
		if len(r.Wrapped) > 0 {
			added[r.ID] = true
		}
	}
	for _, r := range records {
		if r.Kind == Tombstone {
			return 0, errors.New("encrypt: tombstones are added by Erase")
		}
		if !r.free() && !t.taken(&r) && !added[r.Epoch] && !t.alive(r.Epoch) {
			return 0, ErrRetired
		}
	}
	raise, count := false, 0
	for _, r := range records {
		if t.taken(&r) {
			continue
		}
		r := r.clone()
		r.Tenant, r.Fence = tenant, 0
		t.put(&r)
		count++
		raise = raise || r.Kind == TenantKey && r.Version > 1
	}
	if raise {
		t.number++
	}
	return count, nil
}

// Rewrap implements Store.
func (m *Memory) Rewrap(ctx context.Context, tenant string, records []Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	for _, r := range records {
		if !t.alive(r.Epoch) {
			return ErrRetired
		}
	}
	for _, r := range records {
		old, ok := t.records[r.ID]
		if ok && old.Kind == r.Kind && (old.Kind == PersonKey || old.Kind == TenantKey) && len(old.Wrapped) > 0 {
			clear(old.Wrapped)
			old.Epoch, old.Wrapped = r.Epoch, bytes.Clone(r.Wrapped)
		}
	}
	return nil
}

// Retire implements Store.
func (m *Memory) Retire(ctx context.Context, tenant string, ids ...ID) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	epochs := make(map[ID]int)
	raise := false
	for _, id := range ids {
		switch r, ok := t.records[id]; {
		case !ok:
		case r.Kind == EpochKey:
			epochs[id] = 0
		case (r.Kind == TenantKey || r.Kind == PersonKey) && len(r.Wrapped) > 0:
			clear(r.Wrapped)
			r.Wrapped, r.Epoch = nil, ID{}
			raise = true
		}
	}
	if raise {
		t.number++
	}
	if len(epochs) == 0 {
		return 0, nil
	}
	inUse := 0
	for _, r := range t.records {
		if n, ok := epochs[r.Epoch]; ok {
			epochs[r.Epoch] = n + 1
			inUse++
		}
	}
	for id, n := range epochs {
		if n == 0 {
			clear(t.records[id].Wrapped)
			t.records[id].Wrapped = nil
		}
	}
	return inUse, nil
}

// Block implements Store.
func (m *Memory) Block(ctx context.Context, tenant string, ids []ID, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !at.IsZero() {
		at = at.UTC().Truncate(time.Second)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	raise := false
	for _, id := range ids {
		if r, ok := t.records[id]; ok && r.Kind == PersonKey && !r.Blocked.Equal(at) {
			r.Blocked, t.blocked[id], raise = at, true, true
		}
	}
	if raise {
		t.number++
	}
	return nil
}

// Erase implements Store.
func (m *Memory) Erase(ctx context.Context, tenant string, tombstones []Record) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	fresh := false
	for _, r := range tombstones {
		tomb := &Record{
			Tenant: tenant, ID: r.ID, Kind: Tombstone, Retention: r.Retention, Wrapped: bytes.Clone(r.Wrapped),
			Commitment: bytes.Clone(r.Commitment), Created: r.Created, Number: t.number + 1,
		}
		switch old, ok := t.records[r.ID]; {
		case !ok:
			t.put(tomb)
		case old.Kind == PersonKey:
			clear(old.Wrapped)
			delete(t.slots, old.Slot())
			delete(t.blocked, r.ID)
			t.persons[old.Person] = slices.DeleteFunc(t.persons[old.Person], func(id ID) bool { return id == r.ID })
			if len(t.persons[old.Person]) == 0 {
				delete(t.persons, old.Person)
			}
			t.records[r.ID], t.slots[tomb.Slot()] = tomb, r.ID
		default:
			continue // a tombstone already, or a key that is nobody's
		}
		t.tombs = append(t.tombs, r.ID)
		fresh = true
	}
	if fresh {
		t.number++
	}
	return t.number, nil
}

// Erasures implements Store.
func (m *Memory) Erasures(ctx context.Context, tenant string) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if t := m.tenants[tenant]; t != nil {
		return t.number, nil
	}
	return 1, nil
}

// Fence implements Store.
func (m *Memory) Fence(ctx context.Context, kek string) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.fences[kek], nil
}

// Epochs implements Store.
func (m *Memory) Epochs(ctx context.Context, kek string) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fences[kek]++
	var out []Record
	for _, t := range m.tenants {
		for _, id := range t.roots {
			if r := t.records[id]; t.alive(id) && r.Purpose == kek {
				out = append(out, r.clone())
			}
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), compareIDs(a.ID, b.ID))
	})
	return out, nil
}

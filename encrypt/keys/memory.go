package keys

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
)

// Memory is a Store in memory, for tests and examples. Its zero value is not usable.
type Memory struct {
	mu      sync.RWMutex
	tenants map[string]*memoryTenant
}

type memoryTenant struct {
	records map[ID]Record
	slots   map[string]ID
	number  uint64
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{tenants: make(map[string]*memoryTenant)} }

func (m *Memory) tenant(name string) *memoryTenant {
	t := m.tenants[name]
	if t == nil {
		t = &memoryTenant{records: make(map[ID]Record), slots: make(map[string]ID), number: 1}
		m.tenants[name] = t
	}
	return t
}

// Find implements Store.
func (m *Memory) Find(ctx context.Context, tenant string, q Query) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.tenants[tenant]
	if t == nil {
		return nil, nil
	}
	var out []Record
	add := func(r Record) {
		r.Wrapped, r.Commitment = bytes.Clone(r.Wrapped), bytes.Clone(r.Commitment)
		out = append(out, r)
	}
	switch {
	case q.IDs != nil:
		seen := make(map[ID]bool, len(q.IDs))
		for _, id := range q.IDs {
			if r, ok := t.records[id]; ok && !seen[id] {
				seen[id] = true
				add(r)
			}
		}
	case q.Persons != nil:
		seen := make(map[[16]byte]bool, len(q.Persons))
		for _, p := range q.Persons {
			if seen[p] {
				continue
			}
			seen[p] = true
			for _, class := range []Retention{Ordinary, Contract, Tax, Evidence} {
				r := Record{Kind: PersonKey, Person: p, Retention: class}
				if id, ok := t.slots[r.Slot()]; ok {
					add(t.records[id])
				}
			}
		}
	default:
		for id, r := range t.records {
			switch {
			case q.Tenant && r.Kind != EpochKey && r.Kind != TenantKey,
				!q.Tenant && !q.All && (r.Kind != Tombstone || r.Number <= q.Since),
				q.All && q.Under != (ID{}) && r.Epoch != q.Under,
				q.All && bytes.Compare(id[:], q.After[:]) <= 0:
				continue
			}
			add(r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if q.All && q.Limit > 0 && len(out) > q.Limit {
		out = out[:q.Limit]
	}
	return out, nil
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
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	added := make(map[ID]bool)
	for _, r := range records {
		if r.Kind == EpochKey && !t.taken(&r) {
			added[r.ID] = true
		}
	}
	for _, r := range records {
		if r.Kind == Tombstone {
			return errors.New("encrypt: tombstones are added by Erase")
		}
		if r.Kind != EpochKey && !t.taken(&r) && !added[r.Epoch] && !t.alive(r.Epoch) {
			return ErrRetired
		}
	}
	for _, r := range records {
		if t.taken(&r) {
			continue
		}
		r.Tenant, r.Wrapped, r.Commitment = tenant, bytes.Clone(r.Wrapped), bytes.Clone(r.Commitment)
		t.records[r.ID], t.slots[r.Slot()] = r, r.ID
	}
	return nil
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
		if old, ok := t.records[r.ID]; ok && old.Kind == r.Kind {
			old.Epoch, old.Wrapped = r.Epoch, bytes.Clone(r.Wrapped)
			t.records[r.ID] = old
		}
	}
	return nil
}

// Retire implements Store.
func (m *Memory) Retire(ctx context.Context, tenant string, epoch ID) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tenant(tenant)
	n := 0
	for _, r := range t.records {
		if r.Epoch == epoch && r.Kind != EpochKey && r.Kind != Tombstone {
			n++
		}
	}
	if e, ok := t.records[epoch]; ok && n == 0 && e.Kind == EpochKey {
		e.Wrapped = nil
		t.records[epoch] = e
	}
	return n, nil
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
		old, ok := t.records[r.ID]
		if ok && old.Kind != PersonKey {
			continue // a tombstone already, or a key that is nobody's
		}
		if ok {
			clear(old.Wrapped)
			delete(t.slots, old.Slot())
		}
		fresh = true
		r.Tenant, r.Kind, r.Number = tenant, Tombstone, t.number+1
		r.Wrapped, r.Commitment = bytes.Clone(r.Wrapped), bytes.Clone(r.Commitment)
		t.records[r.ID], t.slots[r.Slot()] = r, r.ID
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

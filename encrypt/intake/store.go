package intake

import (
	"bytes"
	"context"
	"sync"
)

// Record is a key at rest.
type Record struct {
	ID     ID
	Public []byte // Public.Marshal
	Sealed []byte // the private half, sealed by the Keeper and bound to Public
}

// Store keeps records. It is never backed up. intaketest.TestStore checks an implementation.
type Store interface {
	// Add keeps a record. One with the same tenant and ID must not exist; adding it again is an error.
	Add(ctx context.Context, tenant string, r Record) error
	// List returns the tenant's records, in any order.
	List(ctx context.Context, tenant string) ([]Record, error)
	// Delete destroys a record so that its bytes cannot be read again (SQLite: secure_delete and a checkpoint;
	// PostgreSQL: a table outside the WAL archive). A record that is not there is no error.
	Delete(ctx context.Context, tenant string, id ID) error
}

// Memory is a Store in memory. The zero value is empty and ready.
type Memory struct {
	mu      sync.Mutex
	records map[string]map[ID]Record
}

func (r Record) clone() Record {
	return Record{r.ID, bytes.Clone(r.Public), bytes.Clone(r.Sealed)}
}

// Add implements Store.
func (m *Memory) Add(ctx context.Context, tenant string, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = make(map[string]map[ID]Record)
	}
	if m.records[tenant] == nil {
		m.records[tenant] = make(map[ID]Record)
	}
	if _, ok := m.records[tenant][r.ID]; ok {
		return errExists
	}
	m.records[tenant][r.ID] = r.clone()
	return nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, tenant string) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Record
	for _, r := range m.records[tenant] {
		out = append(out, r.clone())
	}
	return out, nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, tenant string, id ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.records[tenant][id].Sealed)
	delete(m.records[tenant], id)
	return nil
}

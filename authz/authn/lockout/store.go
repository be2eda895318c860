package lockout

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
)

// Hash is a keyed hash of a name, a source or a device.
type Hash [16]byte

// Kind is the counter that a row is of.
type Kind uint8

// The kinds. Stores keep the numbers.
const (
	BySource         Kind = 1 // an account with a source
	InTotal          Kind = 2 // an account, unknown devices in total
	ByDevice         Kind = 3 // an account with a known device
	BySourceStronger Kind = 4 // an account with a source, stronger factors
	SourceInTotal    Kind = 5 // a source, how many accounts fail from it
)

// Key names a row.
type Key struct {
	Kind    Kind
	Account Hash // of the account; of the source for SourceInTotal
	Other   Hash // of the source or device; zero for InTotal and SourceInTotal
}

// Compare orders keys.
func (k Key) Compare(other Key) int {
	return cmp.Or(bytes.Compare(k.Account[:], other.Account[:]), cmp.Compare(k.Kind, other.Kind), bytes.Compare(k.Other[:], other.Other[:]))
}

// Row is a counter. The zero Row is none. Times are seconds since 1970.
type Row struct {
	Failures uint32
	Level    uint8 // how often it was locked
	Until    int64 // locked until; 0 = never was
	Ends     int64 // forgotten from then on
}

// Store keeps rows. Its errors hold no keys.
type Store interface {
	// Read returns the rows of the keys, in their order, zero where there is none.
	Read(ctx context.Context, keys []Key) ([]Row, error)
	// Update calls change with the rows of the keys, which are distinct and sorted by Compare, and stores what it makes
	// of them when it returns true. Nothing comes between reading and storing. A row that becomes zero is deleted.
	// change may be called more than once; the last call counts.
	Update(ctx context.Context, keys []Key, change func([]Row) bool) error
	// Rows returns all rows of an account.
	Rows(ctx context.Context, account Hash) (map[Key]Row, error)
	// Sweep deletes the rows that end at now or before; of more than most that are left then, it deletes those with the
	// fewest failures, of these the ones that end first.
	Sweep(ctx context.Context, now int64, most int) error
}

// Memory is a Store in the memory of one process. Its zero value is ready, and it is safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	rows map[Hash]map[Key]Row
	n    int
}

// Len returns how many rows there are.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// Read implements Store.
func (m *Memory) Read(ctx context.Context, keys []Key) ([]Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read(keys), nil
}

func (m *Memory) read(keys []Key) []Row {
	rows := make([]Row, len(keys))
	for i, k := range keys {
		rows[i] = m.rows[k.Account][k]
	}
	return rows
}

// Update implements Store.
func (m *Memory) Update(ctx context.Context, keys []Key, change func([]Row) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := m.read(keys)
	if !change(rows) {
		return nil
	}
	for i, k := range keys {
		m.put(k, rows[i])
	}
	return nil
}

func (m *Memory) put(k Key, r Row) {
	of := m.rows[k.Account]
	if _, ok := of[k]; ok {
		m.n--
	}
	if r == (Row{}) {
		if delete(of, k); len(of) == 0 {
			delete(m.rows, k.Account)
		}
		return
	}
	if of == nil {
		if m.rows == nil {
			m.rows = map[Hash]map[Key]Row{}
		}
		of = map[Key]Row{}
		m.rows[k.Account] = of
	}
	of[k] = r
	m.n++
}

// Rows implements Store.
func (m *Memory) Rows(ctx context.Context, account Hash) (map[Key]Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[Key]Row{}
	for k, r := range m.rows[account] {
		all[k] = r
	}
	return all, nil
}

// Sweep implements Store.
func (m *Memory) Sweep(ctx context.Context, now int64, most int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	type entry struct {
		k Key
		r Row
	}
	all := make([]entry, 0, m.n)
	for _, of := range m.rows {
		for k, r := range of {
			all = append(all, entry{k, r})
		}
	}
	left := all[:0]
	for _, e := range all {
		if e.r.Ends <= now {
			m.put(e.k, Row{})
		} else {
			left = append(left, e)
		}
	}
	if len(left) <= most {
		return nil
	}
	slices.SortFunc(left, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.r.Failures, b.r.Failures), cmp.Compare(a.r.Ends, b.r.Ends), a.k.Compare(b.k))
	})
	for _, e := range left[:len(left)-most] {
		m.put(e.k, Row{})
	}
	return nil
}

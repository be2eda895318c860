// Package memstore keeps rows in memory. It is a whole crm.Store, held to crm/crmtest like the others,
// for tests, trials and programs that need no more. What it holds ends with the process.
package memstore

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/request"
)

// Store is a crm.Store in memory. Its methods are safe for concurrent use. Values are copied on their
// way in and out.
type Store struct {
	mu      sync.RWMutex
	types   map[string]*declared
	spaces  map[space]*rows
	applied map[string]map[uint64]struct{}
	seq     int64
}

// declared is a type: the columns as the last Declare named them, and as rows hold them.
type declared struct {
	schema crm.Schema
	stored []crm.Column
}

type space struct{ tenant, typ string }

// rows are those of one tenant and type.
type rows struct {
	byID     map[crm.UUID]*entry
	byToken  index[int64]
	byPerson index[crm.UUID]
	taken    map[int64]*entry // unique tokens of living rows
}

// index says which rows have a key.
type index[K comparable] map[K]map[*entry]struct{}

func (i index[K]) add(k K, e *entry) {
	if i[k] == nil {
		i[k] = map[*entry]struct{}{}
	}
	i[k][e] = struct{}{}
}

func (i index[K]) remove(k K, e *entry) {
	if delete(i[k], e); len(i[k]) == 0 {
		delete(i, k)
	}
}

// any returns the rows that have one of the keys.
func (i index[K]) any(keys []K) map[*entry]struct{} {
	found := map[*entry]struct{}{}
	for _, k := range keys {
		maps.Copy(found, i[k])
	}
	return found
}

// entry is one row. It is replaced, never changed, so that a reader may hold it without the lock.
type entry struct {
	number int64 // ChangeSeq of its creation, the order of creation
	row    crm.Row
	clear  map[string]crm.Value
}

var _ crm.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{
		types: map[string]*declared{}, spaces: map[space]*rows{}, applied: map[string]map[uint64]struct{}{},
	}
}

// Declare makes the store ready for rows of these types; see crm.Store. Errors are a
// *crm.RequestError.
func (s *Store) Declare(ctx context.Context, schemas ...crm.Schema) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	types := maps.Clone(s.types)
	for _, schema := range schemas {
		if err := request.Schema(schema); err != nil {
			return err
		}
		var stored []crm.Column
		if old := types[schema.Type]; old != nil {
			stored = old.stored
		}
		merged, err := request.Merge(stored, schema)
		if err != nil {
			return err
		}
		schema.Columns = slices.Clone(schema.Columns)
		types[schema.Type] = &declared{schema: schema, stored: merged}
	}
	s.types = types
	return nil
}

// Types returns the names of the types; see crm.Store.
func (s *Store) Types(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.types)), nil
}

// schema returns the declared type, or nil; the lock is held.
func (s *Store) schema(typ string) *crm.Schema {
	if d := s.types[typ]; d != nil {
		return &d.schema
	}
	return nil
}

// Load returns the rows of these ids; see crm.Store.
func (s *Store) Load(ctx context.Context, tenant, typ string, ids []crm.UUID) ([]crm.Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := request.Tenant(tenant); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	schema := s.schema(typ)
	if schema == nil {
		return nil, request.UnknownType()
	}
	found := make([]crm.Row, len(ids))
	held := s.spaces[space{tenant, typ}]
	for i, id := range ids {
		found[i] = crm.Row{Tenant: tenant, Type: typ, ID: id}
		if held == nil {
			continue
		}
		if e := held.byID[id]; e != nil {
			found[i] = e.export(schema)
		}
	}
	return found, nil
}

// List returns one page; see crm.Store.
func (s *Store) List(ctx context.Context, q crm.Query) (crm.Page, error) {
	if err := ctx.Err(); err != nil {
		return crm.Page{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	schema := s.schema(q.Type)
	if schema == nil {
		return crm.Page{}, request.UnknownType()
	}
	after, err := request.Page(&q, schema)
	if err != nil {
		return crm.Page{}, err
	}
	found := s.find(&q)
	if q.Changes {
		slices.SortFunc(found, func(a, b *entry) int {
			if q.Desc {
				a, b = b, a
			}
			return cmp.Compare(a.row.ChangeSeq, b.row.ChangeSeq)
		})
		var page crm.Page
		for _, e := range found[:min(len(found), q.Limit)] {
			page.Rows = append(page.Rows, e.export(schema))
		}
		return page, nil
	}
	order := func(e *entry, value crm.Value, number int64) int {
		return compare(e.clear[q.Sort], e.number, value, number, q.Desc)
	}
	slices.SortFunc(found, func(a, b *entry) int { return order(a, b.clear[q.Sort], b.number) })
	if after.Row != 0 {
		start := slices.IndexFunc(found, func(e *entry) bool { return order(e, after.Value, after.Row) > 0 })
		if start < 0 {
			start = len(found)
		}
		found = found[start:]
	}
	var page crm.Page
	if len(found) > q.Limit {
		found = found[:q.Limit]
		last := found[q.Limit-1]
		page.Next = request.Cursor{Value: last.clear[q.Sort], Row: last.number}.Encode(&q)
	}
	for _, e := range found {
		page.Rows = append(page.Rows, e.export(schema))
	}
	return page, nil
}

// Carriers tells which rows carry which tokens; see crm.Store.
func (s *Store) Carriers(ctx context.Context, tenant, typ string, tokens []int64, most int) (map[int64][]crm.UUID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := request.Carriers(tenant, tokens, most); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.schema(typ) == nil {
		return nil, request.UnknownType()
	}
	out := map[int64][]crm.UUID{}
	held := s.spaces[space{tenant, typ}]
	if held == nil {
		return out, nil
	}
	for _, t := range tokens {
		carry := held.byToken[t]
		if len(carry) == 0 || len(carry) > most || out[t] != nil {
			continue
		}
		for e := range carry {
			out[t] = append(out[t], e.row.ID)
		}
		slices.SortFunc(out[t], func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) })
	}
	return out, nil
}

// Count counts all rows that q's filters admit; see crm.Store.
func (s *Store) Count(ctx context.Context, q crm.Query) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	schema := s.schema(q.Type)
	if schema == nil {
		return 0, request.UnknownType()
	}
	if err := request.Filter(&q, schema); err != nil {
		return 0, err
	}
	n := int64(len(s.find(&q)))
	if q.Most > 0 {
		n = min(n, q.Most)
	}
	return n, nil
}

// group is a crm.Group that grows.
type group struct {
	keys  []crm.Value
	count int64
	sums  []request.Sum
}

// Group divides the rows that q's filters admit; see crm.Store.
func (s *Store) Group(ctx context.Context, q crm.Query, g crm.Grouping) ([]crm.Group, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	schema := s.schema(q.Type)
	if schema == nil {
		return nil, request.UnknownType()
	}
	if err := request.Group(&q, &g, schema); err != nil {
		return nil, err
	}
	groups := map[[3]crm.Value]*group{}
	of := func(keys []crm.Value) *group {
		var k [3]crm.Value
		copy(k[:], keys)
		if groups[k] == nil {
			groups[k] = &group{keys: keys, sums: make([]request.Sum, len(g.Sums))}
		}
		return groups[k]
	}
	if len(g.By) == 0 {
		of([]crm.Value{})
	}
	for _, e := range s.find(&q) {
		keys := make([]crm.Value, len(g.By))
		for i, name := range g.By {
			keys[i] = e.clear[name]
		}
		to := of(keys)
		to.count++
		for i, name := range g.Sums {
			to.sums[i].Add(e.clear[name].Int())
		}
	}
	if len(groups) > crm.MaxGroups {
		return nil, request.TooManyGroups()
	}
	var list []crm.Group
	for _, from := range groups {
		to := crm.Group{Keys: from.keys, Count: from.count, Sums: make([]int64, len(g.Sums))}
		for i := range from.sums {
			n, err := from.sums[i].Int64()
			if err != nil {
				return nil, err
			}
			to.Sums[i] = n
		}
		list = append(list, to)
	}
	slices.SortFunc(list, func(a, b crm.Group) int { return slices.CompareFunc(a.Keys, b.Keys, compareKeys) })
	return list, nil
}

// compareKeys orders values of one kind, null first.
func compareKeys(a, b crm.Value) int {
	return cmp.Or(cmp.Compare(a.Kind(), b.Kind()), compareValues(a, b))
}

// find returns the rows that q admits, in no order.
func (s *Store) find(q *crm.Query) []*entry {
	held := s.spaces[space{q.Tenant, q.Type}]
	if held == nil {
		return nil
	}
	candidates := maps.Values(held.byID)
	var carry map[*entry]struct{}
	if q.Tokens != nil {
		carry = held.byToken.any(q.Tokens)
		candidates = maps.Keys(carry)
	}
	if q.Persons != nil {
		candidates = maps.Keys(held.byPerson.any(q.Persons))
	}
	var only map[crm.UUID]struct{}
	if q.IDs != nil {
		only = make(map[crm.UUID]struct{}, len(q.IDs))
		for _, id := range q.IDs {
			only[id] = struct{}{}
		}
	}
	var found []*entry
	for e := range candidates {
		if q.Deletion == crm.Living && e.row.Deleted || q.Deletion == crm.InBin && !e.row.Deleted {
			continue
		}
		if _, wanted := only[e.row.ID]; only != nil && !wanted {
			continue
		}
		if _, carries := carry[e]; carry != nil && !carries {
			continue
		}
		if q.Changes && e.row.ChangeSeq <= q.Since {
			continue
		}
		if e.meets(q.Clauses) && q.Where.Match(func(name string) any {
			if name == crm.ColumnID {
				return e.row.ID.String()
			}
			return e.clear[name].Any()
		}) {
			found = append(found, e)
		}
	}
	return found
}

// meets tells whether all clauses hold.
func (e *entry) meets(clauses []crm.Clause) bool {
	return !slices.ContainsFunc(clauses, func(c crm.Clause) bool { return !meets(e.clear[c.Column], &c) })
}

// meets evaluates one clause; null meets IsNull only.
func meets(v crm.Value, c *crm.Clause) bool {
	if v.Kind() == 0 {
		return c.Op == crm.IsNull
	}
	switch c.Op {
	case crm.NotNull:
		return true
	case crm.In:
		return slices.Contains(c.Values, v)
	case crm.Prefix:
		return strings.HasPrefix(v.Str(), c.Values[0].Str())
	case crm.Equal:
		return v == c.Values[0]
	case crm.NotEqual:
		return v != c.Values[0]
	case crm.Less:
		return compareValues(v, c.Values[0]) < 0
	case crm.LessOrEqual:
		return compareValues(v, c.Values[0]) <= 0
	case crm.Greater:
		return compareValues(v, c.Values[0]) > 0
	case crm.GreaterOrEqual:
		return compareValues(v, c.Values[0]) >= 0
	}
	return false
}

// compareValues orders two values of one kind: text by bytes, false before true.
func compareValues(a, b crm.Value) int {
	return cmp.Or(cmp.Compare(a.Int(), b.Int()), strings.Compare(a.Str(), b.Str()))
}

// compare orders rows by value and number, both ascending or both descending, with null last in
// either direction.
func compare(a crm.Value, an int64, b crm.Value, bn int64, desc bool) int {
	if (a.Kind() == 0) != (b.Kind() == 0) {
		if a.Kind() == 0 {
			return 1
		}
		return -1
	}
	n := cmp.Or(compareValues(a, b), cmp.Compare(an, bn))
	if desc {
		return -n
	}
	return n
}

// Apply stores a batch; see crm.Store.
func (s *Store) Apply(ctx context.Context, b crm.Batch) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := request.Batch(&b, s.schema); err != nil {
		return 0, err
	}
	if b.Log != "" {
		if _, done := s.applied[b.Log][b.Event]; done {
			return 0, request.Repeated()
		}
	}
	if err := s.admit(b.Writes); err != nil {
		return 0, err
	}
	first := s.seq + 1
	entries := make([]*entry, len(b.Writes))
	for i := range b.Writes {
		entries[i] = s.entry(&b.Writes[i].Row, first+int64(i))
	}
	if err := s.limit(b.Limits, entries); err != nil {
		return 0, err
	}
	if b.Rehearse {
		return first, nil
	}
	for _, e := range entries {
		s.put(e)
	}
	s.seq += int64(len(b.Writes))
	if b.Log != "" {
		if s.applied[b.Log] == nil {
			s.applied[b.Log] = map[uint64]struct{}{}
		}
		s.applied[b.Log][b.Event] = struct{}{}
	}
	return first, nil
}

// admit checks versions, then unique tokens as they will be when all writes are done.
func (s *Store) admit(writes []crm.Write) error {
	rewritten := map[*entry]struct{}{}
	for i := range writes {
		row := &writes[i].Row
		var stored int64
		if held := s.spaces[space{row.Tenant, row.Type}]; held != nil {
			if e := held.byID[row.ID]; e != nil {
				stored = e.row.Version
				rewritten[e] = struct{}{}
			}
		}
		if stored != writes[i].Expect {
			return &crm.WriteError{Index: i, Err: crm.ErrConflict}
		}
	}
	type claim struct {
		space
		token int64
	}
	claimed := map[claim]int{}
	for i := range writes {
		row := &writes[i].Row
		if row.Deleted {
			continue
		}
		in := space{row.Tenant, row.Type}
		held := s.spaces[in]
		for t := range uniques(row) {
			if by, ok := claimed[claim{in, t}]; ok && by != i {
				return &crm.WriteError{Index: i, Err: crm.ErrDuplicate}
			}
			claimed[claim{in, t}] = i
			if held == nil {
				continue
			}
			if by := held.taken[t]; by != nil {
				if _, gone := rewritten[by]; !gone {
					return &crm.WriteError{Index: i, Err: crm.ErrDuplicate}
				}
			}
		}
	}
	return nil
}

// uniques yields the unique tokens of a row.
func uniques(row *crm.Row) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		for i := range row.Sealed {
			for _, t := range row.Sealed[i].Tokens {
				if t.Unique && !yield(t.Value) {
					return
				}
			}
		}
	}
}

// entry makes an entry of a row that was admitted.
func (s *Store) entry(row *crm.Row, seq int64) *entry {
	e := &entry{number: seq, row: clone(row), clear: make(map[string]crm.Value, len(row.Clear))}
	e.row.ChangeSeq = seq
	for i, c := range s.types[row.Type].schema.Columns {
		e.clear[c.Name] = row.Clear[i]
	}
	return e
}

// limit checks the limits as if the written entries were stored.
func (s *Store) limit(limits []crm.Limit, written []*entry) error {
	for i := range limits {
		var sum request.Sum
		for k := range limits[i].Of {
			s.measure(&sum, limits[i].Tenant, &limits[i].Of[k], written)
		}
		if ok, err := sum.Holds(&limits[i]); err != nil {
			return err
		} else if !ok {
			return &crm.LimitError{Index: i}
		}
	}
	return nil
}

// measure adds a measure of a tenant's living rows to sum.
func (s *Store) measure(sum *request.Sum, tenant string, m *crm.Measure, written []*entry) {
	add := func(e *entry) {
		switch {
		case e.row.Deleted || !e.meets(m.Clauses):
		case m.Sum == "":
			sum.Add(1)
		default:
			sum.Add(e.clear[m.Sum].Int())
		}
	}
	rewritten := map[crm.UUID]struct{}{}
	for _, e := range written {
		if e.row.Tenant == tenant && e.row.Type == m.Type {
			rewritten[e.row.ID] = struct{}{}
			add(e)
		}
	}
	held := s.spaces[space{tenant, m.Type}]
	if held == nil {
		return
	}
	for id, e := range held.byID {
		if _, gone := rewritten[id]; !gone {
			add(e)
		}
	}
}

// put stores an entry.
func (s *Store) put(e *entry) {
	in := space{e.row.Tenant, e.row.Type}
	held := s.spaces[in]
	if held == nil {
		held = &rows{byID: map[crm.UUID]*entry{}, byToken: index[int64]{}, byPerson: index[crm.UUID]{}, taken: map[int64]*entry{}}
		s.spaces[in] = held
	}
	if old := held.byID[e.row.ID]; old != nil {
		e.number = old.number
		for i := range old.row.Sealed {
			for _, t := range old.row.Sealed[i].Tokens {
				held.byToken.remove(t.Value, old)
				if held.taken[t.Value] == old {
					delete(held.taken, t.Value)
				}
			}
		}
		for _, p := range old.row.Persons {
			held.byPerson.remove(p, old)
		}
	}
	held.byID[e.row.ID] = e
	for i := range e.row.Sealed {
		for _, t := range e.row.Sealed[i].Tokens {
			held.byToken.add(t.Value, e)
			if t.Unique && !e.row.Deleted {
				held.taken[t.Value] = e
			}
		}
	}
	for _, p := range e.row.Persons {
		if !p.IsZero() { // nobody
			held.byPerson.add(p, e)
		}
	}
}

// export copies the row out, with its clear values in the order of the declared columns.
func (e *entry) export(s *crm.Schema) crm.Row {
	row := clone(&e.row)
	row.Clear = make([]crm.Value, len(s.Columns))
	for i, c := range s.Columns {
		row.Clear[i] = e.clear[c.Name]
	}
	return row
}

// clone copies all that a row holds. Empty lists become nil, as a database would give them back.
func clone(row *crm.Row) crm.Row {
	c := *row
	c.Persons = slices.Clone(row.Persons)
	c.Clear = slices.Clone(row.Clear)
	c.MAC = bytesOf(row.MAC)
	c.Sealed = nil
	if len(row.Persons) == 0 {
		c.Persons = nil
	}
	for i := range row.Sealed {
		f := row.Sealed[i]
		f.Data = bytesOf(f.Data)
		if f.Tokens = slices.Clone(f.Tokens); len(f.Tokens) == 0 {
			f.Tokens = nil
		}
		c.Sealed = append(c.Sealed, f)
	}
	return c
}

func bytesOf(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return slices.Clone(b)
}

// Applied returns the applied events of a log from an index on; see crm.Store.
func (s *Store) Applied(ctx context.Context, log string, from uint64) ([]uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := request.Event(log, from); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var events []uint64
	for e := range s.applied[log] {
		if e >= from {
			events = append(events, e)
		}
	}
	slices.Sort(events)
	return events, nil
}

// Prune forgets the applied events of a log below an index; see crm.Store.
func (s *Store) Prune(ctx context.Context, log string, below uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := request.Event(log, below); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.applied[log], func(e uint64, _ struct{}) bool { return e < below })
	return nil
}

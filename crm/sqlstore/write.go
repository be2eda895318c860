package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math/bits"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/request"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/internal/dialect"
)

// argsAtOnce bounds the arguments of one statement; SQLite takes 32,766, and longer statements are not
// faster.
const argsAtOnce = 6000

// pending is one write on its way.
type pending struct {
	index  int // in the batch
	row    *crm.Row
	expect int64
	number int64 // row_id
	seq    int64
	body   []byte
	keys
	old oldRow
}

// keys are what a row is found by, each sorted and once.
type keys struct {
	tokens  []int64
	unique  []int64  // tokens that only one living row may have
	persons []string // the bytes of their ids
}

// oldRow is what a row that is rewritten held.
type oldRow struct {
	number  int64
	version int64
	living  bool
	keys
}

// index is one of the tables that say which rows have a key. Persons have one of their own: cut to 8 bytes they would
// fit among the tokens, but then counts and pages would need each hit compared with its row's body.
type index struct{ table, column string }

var (
	byToken  = index{"crm_tokens", "token"}
	byRecent = index{"crm_recent", "token"} // of SQLite only
	byUnique = index{"crm_uniques", "token"}
	byPerson = index{"crm_persons", "person"}
)

// posting is one row of an index.
type posting[K int64 | string] struct {
	space  int64
	key    K
	number int64
}

func comparePostings[K int64 | string](a, b posting[K]) int {
	return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.key, b.key), cmp.Compare(a.number, b.number))
}

// keyArg is a key as a column takes it.
func keyArg(key any) any {
	if s, ok := key.(string); ok {
		return []byte(s)
	}
	return key
}

func keysOf(row *crm.Row) (k keys) {
	for i := range row.Sealed {
		for _, t := range row.Sealed[i].Tokens {
			k.tokens = append(k.tokens, t.Value)
			if t.Unique {
				k.unique = append(k.unique, t.Value)
			}
		}
	}
	for i := range row.Persons {
		if !row.Persons[i].IsZero() { // nobody
			k.persons = append(k.persons, string(row.Persons[i][:]))
		}
	}
	slices.Sort(k.tokens)
	slices.Sort(k.unique)
	slices.Sort(k.persons)
	k.tokens, k.unique = slices.Compact(k.tokens), slices.Compact(k.unique)
	return k
}

// errRehearsed ends the transaction of a rehearsal, which went well, without a commit.
var errRehearsed = errors.New("crm/sqlstore: rehearsed")

// Apply stores a batch; see crm.Store. When it returns nil the batch is durable as far as the database
// was told to make it so. Besides the errors that crm.Store names it returns crm.ErrUnavailable, when nothing was
// stored, and crm.ErrUnknown.
func (s *Store) Apply(ctx context.Context, b crm.Batch) (int64, error) {
	types := map[string]*table{}
	err := request.Batch(&b, func(typ string) *crm.Schema {
		t := types[typ]
		if t == nil {
			var err error
			if t, err = s.declaredType(typ); err != nil {
				return nil
			}
			types[typ] = t
		}
		return &t.schema
	})
	if err != nil {
		return 0, err
	}
	writes := map[space][]*pending{}
	for i := range b.Writes {
		row := &b.Writes[i].Row
		p := &pending{index: i, row: row, expect: b.Writes[i].Expect, body: rowformat.Append(nil, row), keys: keysOf(row)}
		in := space{row.Tenant, row.Type}
		writes[in] = append(writes[in], p)
	}
	var seq int64
	spaces := map[space]int64{}
	err = s.write(ctx, "apply", len(b.Writes), func(tx *sql.Tx, first int64) error {
		seq = first
		clear(spaces)
		if b.Log != "" {
			if err := s.apply(ctx, tx, b.Log, b.Event); err != nil {
				return err
			}
		}
		for in := range writes {
			n, err := s.makeSpace(ctx, tx, in)
			if err != nil {
				return err
			}
			spaces[in] = n
		}
		if err := s.admit(ctx, tx, writes, spaces, types); err != nil {
			return err
		}
		for _, list := range writes {
			for _, p := range list {
				p.seq = first + int64(p.index)
				if p.number = p.old.number; p.number == 0 {
					p.number = p.seq
				}
			}
		}
		if err := s.putKeys(ctx, tx, writes, spaces); err != nil {
			return err
		}
		for in, list := range writes {
			if err := s.putRows(ctx, tx, types[in.typ], spaces[in], list); err != nil {
				return err
			}
		}
		if err := s.limit(ctx, tx, b.Limits, types); err != nil || !b.Rehearse {
			return err
		}
		return errRehearsed
	})
	if err != nil {
		return 0, err
	}
	if b.Rehearse {
		return seq, nil // the numbers of new spaces went with it
	}
	for in, n := range spaces {
		s.keepSpace(in, n)
	}
	s.wrote(ctx, len(b.Writes))
	return seq, nil
}

// apply notes the event of a batch.
func (s *Store) apply(ctx context.Context, tx *sql.Tx, log string, event uint64) error {
	res, err := tx.ExecContext(ctx, s.d.Rebind("INSERT INTO crm_applied (log, event) VALUES (?, ?) ON CONFLICT DO NOTHING"), log, int64(event))
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return request.Repeated()
	}
	return nil
}

// makeSpace returns the number of a tenant and type, a new one when there is none. The counter is
// held, so no other does the same.
func (s *Store) makeSpace(ctx context.Context, tx *sql.Tx, in space) (int64, error) {
	n, err := s.space(ctx, tx, in)
	if err != nil || n != 0 {
		return n, err
	}
	err = tx.QueryRowContext(ctx, s.d.Rebind("INSERT INTO crm_spaces (space, tenant, type) "+
		"SELECT COALESCE(MAX(space), 0) + 1, ?, ? FROM crm_spaces RETURNING space"), in.tenant, in.typ).Scan(&n)
	return n, err
}

// admit reads what the writes replace and checks versions, then unique tokens as they will be when
// all writes are done. It names the first write that is refused.
func (s *Store) admit(ctx context.Context, tx *sql.Tx, writes map[space][]*pending, spaces map[space]int64, types map[string]*table) error {
	conflict := -1
	for in, list := range writes {
		if err := s.readOld(ctx, tx, types[in.typ], spaces[in], list); err != nil {
			return err
		}
		for _, p := range list {
			if p.old.version != p.expect && (conflict < 0 || p.index < conflict) {
				conflict = p.index
			}
		}
	}
	if conflict >= 0 {
		return &crm.WriteError{Index: conflict, Err: crm.ErrConflict}
	}
	duplicate := -1
	note := func(p *pending) {
		if duplicate < 0 || p.index < duplicate {
			duplicate = p.index
		}
	}
	for in, list := range writes {
		claimed := map[int64]*pending{}
		rewritten := map[int64]bool{}
		var wanted []int64
		for _, p := range list {
			rewritten[p.old.number] = true
			if p.row.Deleted {
				continue
			}
			for _, t := range p.unique {
				if claimed[t] != nil {
					note(p)
					continue
				}
				claimed[t] = p
				wanted = append(wanted, t)
			}
		}
		slices.Sort(wanted)
		err := s.taken(ctx, tx, spaces[in], wanted, func(t, number int64) {
			if !rewritten[number] {
				note(claimed[t])
			}
		})
		if err != nil {
			return err
		}
	}
	if duplicate >= 0 {
		return &crm.WriteError{Index: duplicate, Err: crm.ErrDuplicate}
	}
	return nil
}

// readOld fills the old of each write of one space.
func (s *Store) readOld(ctx context.Context, tx *sql.Tx, t *table, in int64, writes []*pending) error {
	byID := make(map[crm.UUID]*pending, len(writes))
	ids := make([]crm.UUID, 0, len(writes))
	for _, p := range writes {
		p.old = oldRow{}
		byID[p.row.ID] = p
		ids = append(ids, p.row.ID)
	}
	for len(ids) > 0 {
		some := ids[:min(len(ids), idsAtOnce)]
		ids = ids[len(some):]
		text, args := lookup(s.d, t.columns, t.name, "id", in, some, idArg)
		err := s.query(ctx, tx, t, text, args, func(number int64, row crm.Row) {
			byID[row.ID].old = oldRow{number: number, version: row.Version, living: !row.Deleted, keys: keysOf(&row)}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// taken hands on which of the unique tokens living rows have.
func (s *Store) taken(ctx context.Context, tx *sql.Tx, in int64, tokens []int64, each func(token, number int64)) error {
	for len(tokens) > 0 {
		some := tokens[:min(len(tokens), idsAtOnce)]
		tokens = tokens[len(some):]
		text, args := lookup(s.d, "token, row_id", "crm_uniques", "token", in, some, tokenArg)
		rows, err := tx.QueryContext(ctx, s.d.Rebind(text), args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			var t, number int64
			if err := rows.Scan(&t, &number); err != nil {
				rows.Close()
				return err
			}
			each(t, number)
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	return nil
}

// limit checks the limits of a batch whose rows are written. The transaction waited for the counter with its first
// statement, so no other is under way, and what was committed before is seen: on PostgreSQL each statement of READ COMMITTED
// reads anew, and under a stricter isolation the counter would have been refused and the batch tried again.
func (s *Store) limit(ctx context.Context, tx *sql.Tx, limits []crm.Limit, types map[string]*table) error {
	for i := range limits {
		l := &limits[i]
		var sum request.Sum
		for k := range l.Of {
			if err := s.measure(ctx, tx, types[l.Of[k].Type], l.Tenant, &l.Of[k], &sum); err != nil {
				return err
			}
		}
		if ok, err := sum.Holds(l); err != nil {
			return err
		} else if !ok {
			return &crm.LimitError{Index: i}
		}
	}
	return nil
}

// measure adds a measure of a tenant's living rows to sum.
func (s *Store) measure(ctx context.Context, tx *sql.Tx, t *table, tenant string, m *crm.Measure, sum *request.Sum) error {
	in, err := s.space(ctx, tx, space{tenant, m.Type})
	if err != nil || in == 0 {
		return err
	}
	from, where, args, err := s.filter(t, in, &crm.Query{Where: crm.Everything{}, Clauses: m.Clauses}, nil)
	if err != nil {
		return err
	}
	what := "0, COUNT(*)"
	if m.Sum != "" {
		what = s.halves(m.Sum)
	}
	var high, low int64
	if err := tx.QueryRowContext(ctx, s.d.Rebind("SELECT "+what+" FROM "+from+" WHERE "+where), args...).Scan(&high, &low); err != nil {
		return err
	}
	sum.AddHalves(high, low)
	return nil
}

// putKeys writes the differences of all indexes, in the order of their keys.
func (s *Store) putKeys(ctx context.Context, tx *sql.Tx, writes map[space][]*pending, spaces map[space]int64) error {
	var tokens, uniques changes[int64]
	var persons changes[string]
	for in, list := range writes {
		n := spaces[in]
		for _, p := range list {
			tokens.add(n, p.number, p.tokens, p.old.tokens)
			persons.add(n, p.number, p.persons, p.old.persons)
			var now, before []int64
			if !p.row.Deleted {
				now = p.unique
			}
			if p.old.living {
				before = p.old.unique
			}
			uniques.add(n, p.number, now, before)
		}
	}
	if err := s.putTokens(ctx, tx, &tokens); err != nil {
		return err
	}
	if err := uniques.put(ctx, s, tx, byUnique); err != nil {
		return err
	}
	return persons.put(ctx, s, tx, byPerson)
}

// changes are what comes into an index and what goes.
type changes[K int64 | string] struct{ added, removed []posting[K] }

// add compares a row's keys with those it had.
func (c *changes[K]) add(in, number int64, now, before []K) {
	c.added = diff(c.added, in, number, now, before)
	c.removed = diff(c.removed, in, number, before, now)
}

func (c *changes[K]) put(ctx context.Context, s *Store, tx *sql.Tx, to index) error {
	if _, err := deletePostings(ctx, s, tx, to, c.removed); err != nil {
		return err
	}
	_, err := insertPostings(ctx, s, tx, to, c.added, "")
	return err
}

// insertPostings sorts postings in the order of the index's key, inserts them, and returns how many tail let in.
func insertPostings[K int64 | string](ctx context.Context, s *Store, tx *sql.Tx, to index, list []posting[K], tail string) (int64, error) {
	slices.SortFunc(list, comparePostings)
	return s.insert(ctx, tx, s.into(tail)+to.table+" (space, "+to.column+", row_id) VALUES ", tail, 3, len(list),
		func(args []any, i int) []any {
			return append(args, list[i].space, keyArg(list[i].key), list[i].number)
		})
}

// into begins an insertion. One of many rows that could fail half-way makes SQLite copy each page first that it changes, to take back the rest; here a
// failure ends the transaction, which SQLite may know.
func (s *Store) into(tail string) string {
	if s.d == dialect.SQLite && tail == "" {
		return "INSERT OR ROLLBACK INTO "
	}
	return "INSERT INTO "
}

// diff adds to list the keys of a that are not in b; both are sorted.
func diff[K int64 | string](list []posting[K], in, number int64, a, b []K) []posting[K] {
	for _, k := range a {
		if _, both := slices.BinarySearch(b, k); !both {
			list = append(list, posting[K]{in, k, number})
		}
	}
	return list
}

// deletePostings returns how many there were.
func deletePostings[K int64 | string](ctx context.Context, s *Store, tx *sql.Tx, from index, list []posting[K]) (gone int64, err error) {
	if len(list) == 0 {
		return 0, nil
	}
	slices.SortFunc(list, comparePostings)
	stmt, err := tx.PrepareContext(ctx, s.d.Rebind("DELETE FROM "+from.table+" WHERE space = ? AND "+from.column+" = ? AND row_id = ?"))
	if err != nil {
		return 0, err
	}
	defer stmt.Close()
	for _, p := range list {
		res, err := stmt.ExecContext(ctx, p.space, keyArg(p.key), p.number)
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		gone += n
	}
	return gone, nil
}

// putRows writes the rows of one space: new ones, and old ones over themselves.
func (s *Store) putRows(ctx context.Context, tx *sql.Tx, t *table, in int64, writes []*pending) error {
	names := strings.Split(t.columns, ", ")
	var sets []string
	for _, n := range names[2:] { // not row_id and id
		sets = append(sets, n+" = excluded."+n)
	}
	head := s.into("") + t.name + " (space, " + t.columns + ") VALUES "
	tail := " ON CONFLICT (row_id) DO UPDATE SET " + strings.Join(sets, ", ")
	_, err := s.insert(ctx, tx, head, tail, t.width+1, len(writes), func(args []any, i int) []any {
		p := writes[i]
		deleted := int64(0)
		if p.row.Deleted {
			deleted = 1
		}
		args = append(args, in, p.number, p.row.ID[:], p.row.Version, p.seq, deleted, p.body)
		for _, v := range p.row.Clear {
			args = append(args, valueArg(v))
		}
		return args
	})
	return err
}

// insert runs a multi-row statement for n rows of width arguments each, in pieces of few different
// sizes: as many rows as fit, then powers of two, then the last few at once. It returns how many rows the
// database says it wrote.
func (s *Store) insert(ctx context.Context, tx *sql.Tx, head, tail string, width, n int, row func(args []any, i int) []any) (written int64, err error) {
	full := max(1, argsAtOnce/width)
	args := make([]any, 0, min(n, full)*width)
	var stmt *sql.Stmt
	size := 0
	defer func() {
		if stmt != nil {
			stmt.Close()
		}
	}()
	for done := 0; done < n; done += size {
		next := min(n-done, full)
		if next < full && next > 16 {
			next = 1 << (bits.Len(uint(next)) - 1)
		}
		if next != size {
			if stmt != nil {
				if err := stmt.Close(); err != nil {
					return 0, err
				}
			}
			if stmt, err = tx.PrepareContext(ctx, s.d.Rebind(head+dialect.Placeholders(next, width)+tail)); err != nil {
				return 0, err
			}
			size = next
		}
		args = args[:0]
		for i := range size {
			args = row(args, done+i)
		}
		res, err := stmt.ExecContext(ctx, args...)
		if err != nil {
			return 0, err
		}
		some, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		written += some
	}
	return written, nil
}

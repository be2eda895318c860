package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/internal/dialect"
)

// reindexCost bounds what one transaction of Reindex does: a row counts one, and so does each of its
// tokens and persons. The more, the fewer pages of the tables are written twice; each token takes 24 bytes of memory, each person 48.
var reindexCost = 500_000

// reindexRows is how many rows one statement of Reindex reads.
const reindexRows = 1000

// RowError is a row of which Reindex cannot take the keys. It says where the row lies and nothing of
// what it holds. Err is crm.ErrDamaged for a row that no store wrote, and crm.ErrDuplicate for one whose
// unique token another living row has.
type RowError struct {
	Type  string
	RowID int64 // row_id in the table of the type
	Err   error
}

// Error names the row by its place.
func (e *RowError) Error() string {
	return fmt.Sprintf("crm/sqlstore: reindex: row %d of %s: %v", e.RowID, e.Type, e.Err)
}

// Unwrap returns the reason.
func (e *RowError) Unwrap() error { return e.Err }

// Reindexing tells whether searches by token or person miss rows: a Reindex has not ended, Open added an index to a
// database that has rows, or an index is missing because the database comes from a backup, which holds none. Indexes that
// are there and empty tell nothing, so whoever restores rows beside them calls Reindex whatever it says. Errors:
// crm.ErrUnavailable, the context's.
func (s *Store) Reindexing(ctx context.Context) (bool, error) {
	var unfinished bool
	err := s.retry(ctx, func() error {
		var err error
		if unfinished, err = s.has(ctx, s.r, "crm_reindex"); err != nil {
			return err
		}
		for _, i := range s.indexes() {
			there, err := s.has(ctx, s.r, i.table)
			if err != nil {
				return err
			}
			unfinished = unfinished || !there
		}
		return nil
	})
	return unfinished, fail("reindexing", err)
}

// Reindex rebuilds the indexes of tokens and persons from the rows of all types, declared or not, after a restore. It
// empties them, or creates them where they are missing, and fills them in transactions that each
// note how far they came: a call that was interrupted is taken up by the next one, also of another
// program. After Open added an index it fills that one and keeps what the others have. Until it returns nil, searches by
// token or person miss rows and unique tokens may not all be held, so nobody should be served.
//
// progress may be nil. It is called after each transaction that read rows or found no more, with the
// number of rows read so far, by earlier calls too, and the number of all rows.
//
// Errors: a *RowError for a row that is not well-formed, at which every later call stops too;
// crm.ErrUnavailable and crm.ErrUnknown, after which it may be called again; the context's.
func (s *Store) Reindex(ctx context.Context, progress func(done, total int64)) error {
	list, err := s.beginReindex(ctx)
	if err != nil {
		return err
	}
	done, total, err := s.countReindex(ctx, list)
	if err != nil {
		return err
	}
	for ended := false; !ended; {
		var n int64
		err := s.write(ctx, "reindex", 0, func(tx *sql.Tx, _ int64) (err error) {
			n, ended, err = s.reindex(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
		done += n
		if progress != nil {
			progress(done, max(done, total))
		}
	}
	return nil
}

// complete returns crm.ErrReindexing when q asks the index of persons and that is being rebuilt. It is asked after the rows were read: a
// rebuilding empties the index in the transaction that makes it known.
func (s *Store) complete(ctx context.Context, q *crm.Query) error {
	if q.Persons == nil {
		return nil
	}
	rebuilt, err := s.has(ctx, s.r, "crm_reindex")
	if err == nil && rebuilt {
		return crm.ErrReindexing
	}
	return err
}

// has tells whether there is a table. to_regclass would not do: it may answer from a cache what was so
// before a lock was waited for.
func (s *Store) has(ctx context.Context, q querier, table string) (there bool, err error) {
	err = q.QueryRowContext(ctx, s.d.Rebind("SELECT "+s.tableExists()), table).Scan(&there)
	return there, err
}

// tableExists is true where the table that its one argument names exists.
func (s *Store) tableExists() string {
	if s.d == dialect.Postgres {
		return "(SELECT COUNT(*) > 0 FROM pg_catalog.pg_class WHERE relkind = 'r' AND relname = ? AND pg_catalog.pg_table_is_visible(oid))"
	}
	return "(SELECT COUNT(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?)"
}

// beginReindex makes the indexes empty and creates crm_reindex, unless a run is to be taken up. It
// returns where that one was.
func (s *Store) beginReindex(ctx context.Context) (list []place, err error) {
	err = s.write(ctx, "reindex", 0, func(tx *sql.Tx, _ int64) error {
		texts, err := s.emptying(ctx, tx)
		if err != nil {
			return err
		}
		for _, text := range texts {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		s.recent.next.known = false
		list, err = s.places(ctx, tx)
		return err
	})
	return list, err
}

// emptying returns the statements that a new run starts with, none for one that is taken up.
func (s *Store) emptying(ctx context.Context, tx *sql.Tx) ([]string, error) {
	going, err := s.has(ctx, tx, "crm_reindex")
	if err != nil {
		return nil, err
	}
	texts := []string{
		"DROP TABLE IF EXISTS crm_reindex",
		"CREATE TABLE crm_reindex (type " + s.columnType(crm.KindString) + " NOT NULL PRIMARY KEY, row_id " +
			s.columnType(crm.KindInt) + " NOT NULL)",
	}
	for _, i := range s.indexes() {
		there, err := s.has(ctx, tx, i.table)
		if err != nil {
			return nil, err
		}
		switch {
		case !there:
			going = false // of a database that is no more
			made, err := definition(s.d, i.table)
			if err != nil {
				return nil, err
			}
			texts = append(texts, made...)
		case s.d == dialect.Postgres:
			texts = append(texts, "TRUNCATE "+i.table)
		default:
			texts = append(texts, "DELETE FROM "+i.table)
		}
	}
	if going {
		return nil, nil
	}
	return texts, nil
}

// definition returns the statements of the migrations that create a table and its indexes or alter it, in
// their order.
func definition(d dialect.Dialect, table string) ([]string, error) {
	names, err := fs.Glob(migrations, "migrations/"+string(d)+"/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	about := regexp.MustCompile(`^(CREATE|ALTER)\b[^(]*\b` + table + `\b`)
	var texts []string
	for _, name := range names {
		b, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		up, _, _ := strings.Cut(string(b), "-- +goose Down")
		for text := range strings.SplitSeq(strings.TrimPrefix(up, "-- +goose Up"), ";") {
			if text = strings.TrimSpace(text); about.MatchString(text) {
				texts = append(texts, text)
			}
		}
	}
	if len(texts) == 0 {
		return nil, errors.New("no migration creates " + table)
	}
	return texts, nil
}

// place is how far a type was read.
type place struct {
	typ   string
	after int64 // row_id
}

// places returns where each type is, in the order of their numbers.
func (s *Store) places(ctx context.Context, q querier) (list []place, err error) {
	rows, err := q.QueryContext(ctx, "SELECT t.type, COALESCE(r.row_id, 0) FROM crm_types t "+
		"LEFT JOIN crm_reindex r ON r.type = t.type ORDER BY t.type_id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p place
		if err := rows.Scan(&p.typ, &p.after); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

// countReindex counts the rows up to these places, and all.
func (s *Store) countReindex(ctx context.Context, list []place) (done, total int64, err error) {
	err = s.retry(ctx, func() error {
		done, total = 0, 0
		for _, p := range list {
			var read, all int64
			count := "SELECT COUNT(*) FROM " + s.d.Quote("crm_rows_"+p.typ)
			if err := s.r.QueryRowContext(ctx, count).Scan(&all); err != nil {
				return err
			}
			if p.after > 0 {
				if err := s.r.QueryRowContext(ctx, s.d.Rebind(count+" WHERE row_id <= ?"), p.after).Scan(&read); err != nil {
					return err
				}
			}
			done, total = done+read, total+all
		}
		return nil
	})
	return done, total, fail("reindex", err)
}

// keyBatch is what one transaction of Reindex writes.
type keyBatch struct {
	tokens, uniques []posting[int64]
	persons         []posting[string]
	types           map[int64]string // by space
	rows            int64
}

func (b *keyBatch) full() bool { return int(b.rows)+len(b.tokens)+len(b.persons) >= reindexCost }

// reindex writes the keys of the next n rows. ended = there are no more, and crm_reindex is gone.
func (s *Store) reindex(ctx context.Context, tx *sql.Tx) (n int64, ended bool, err error) {
	if going, err := s.has(ctx, tx, "crm_reindex"); err != nil || !going {
		return 0, true, err // another program did the last batch
	}
	list, err := s.places(ctx, tx)
	if err != nil {
		return 0, false, err
	}
	b := &keyBatch{types: map[int64]string{}}
	for _, p := range list {
		before := p.after
		for more := true; more && !b.full(); {
			if more, err = s.readKeys(ctx, tx, &p, b); err != nil {
				return 0, false, err
			}
		}
		if p.after == before {
			continue
		}
		_, err := tx.ExecContext(ctx, s.d.Rebind("INSERT INTO crm_reindex (type, row_id) VALUES (?, ?) "+
			"ON CONFLICT (type) DO UPDATE SET row_id = excluded.row_id"), p.typ, p.after)
		if err != nil {
			return 0, false, err
		}
	}
	if err := s.putBatch(ctx, tx, b); err != nil {
		return 0, false, err
	}
	if !b.full() {
		ended = true
		if err := s.moveAll(ctx, tx); err != nil {
			return 0, false, err
		}
		_, err = tx.ExecContext(ctx, "DROP TABLE crm_reindex")
	}
	return b.rows, ended, err
}

// readKeys reads rows of p's type behind its place into b, and moves the place. more = there may be
// others.
func (s *Store) readKeys(ctx context.Context, tx *sql.Tx, p *place, b *keyBatch) (more bool, err error) {
	rows, err := tx.QueryContext(ctx, s.d.Rebind("SELECT row_id, space, deleted, body FROM "+s.d.Quote("crm_rows_"+p.typ)+
		" WHERE row_id > ? ORDER BY row_id LIMIT ?"), p.after, reindexRows)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var number, in, deleted int64
	var body sql.RawBytes
	var row crm.Row
	for n := 1; rows.Next(); n++ {
		if err := rows.Scan(&number, &in, &deleted, &body); err != nil {
			if err := rows.Err(); err != nil {
				return false, err
			}
			return false, &RowError{p.typ, number, crm.ErrDamaged} // a column holds another kind
		}
		if err := rowformat.Parse(body, &row); err != nil {
			return false, &RowError{p.typ, number, err}
		}
		k := keysOf(&row)
		b.tokens = diff(b.tokens, in, number, k.tokens, nil)
		b.persons = diff(b.persons, in, number, k.persons, nil)
		if deleted == 0 {
			b.uniques = diff(b.uniques, in, number, k.unique, nil)
		}
		b.types[in] = p.typ
		b.rows++
		p.after = number
		if b.full() {
			return true, nil
		}
		more = n == reindexRows
	}
	return more, rows.Err()
}

// putBatch inserts keys in their order. What is there already was written by a Store meanwhile, or was
// never lost.
func (s *Store) putBatch(ctx context.Context, tx *sql.Tx, b *keyBatch) error {
	if _, err := insertPostings(ctx, s, tx, byToken, b.tokens, " ON CONFLICT DO NOTHING"); err != nil {
		return err
	}
	if _, err := insertPostings(ctx, s, tx, byPerson, b.persons, " ON CONFLICT DO NOTHING"); err != nil {
		return err
	}
	n, err := insertPostings(ctx, s, tx, byUnique, b.uniques, " ON CONFLICT DO NOTHING")
	if err != nil || n == int64(len(b.uniques)) {
		return err
	}
	for rest := b.uniques; len(rest) > 0; { // one space after the other
		in := rest[0].space
		end := 0
		var values []int64
		for ; end < len(rest) && rest[end].space == in; end++ {
			values = append(values, rest[end].key)
		}
		holders := make(map[int64]int64, end)
		err := s.taken(ctx, tx, in, slices.Compact(values), func(t, number int64) { holders[t] = number })
		if err != nil {
			return err
		}
		for _, t := range rest[:end] {
			if holders[t.key] != t.number {
				return &RowError{b.types[in], t.number, crm.ErrDuplicate}
			}
		}
		rest = rest[end:]
	}
	return nil
}

package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/request"
	"github.com/crmguard/crmguard/internal/dialect"
)

// SQLite plans by statistics that somebody must make; PostgreSQL makes its own. Without them it takes every index for equally good, and a page of what
// belongs to one customer, the latest first, is looked for among all records in the order of their times.

// analyzeAfter is how many rows a store writes before it makes statistics; then twice as many, and so on: what a plan rests on is at most half of what is there.
var analyzeAfter int64 = 1000

// fewRows is up to how many rows of a value are sorted rather than looked for in the order of another column: of a million, so many of which
// make a page of fifty be found among seven thousand, too.
const fewRows = 7000

// sampled is how many entries of an index statistics look at.
const sampled = 1000

// analyze writes statistics of the indexes of all types: how many rows a value has on average, in a sample. SQLite's own ANALYZE would count each index
// to its end, where it is built to keep samples of values, which shall not be kept. That every type has as many rows as all have together does
// no harm: it is what is sought that the planner compares. Other connections take statistics in with a change of the schema, so there is one.
func (s *Store) analyze(ctx context.Context) error {
	return s.write(ctx, "analyze", 0, func(tx *sql.Tx, rows int64) error {
		for _, text := range []string{"ANALYZE crm_counter", "DELETE FROM sqlite_stat1 WHERE tbl LIKE 'crm\\_rows\\_%' ESCAPE '\\'"} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		types, err := s.stored(ctx, tx)
		if err != nil {
			return err
		}
		rows = max(rows, sampled)
		for _, t := range types {
			if err := s.note(ctx, tx, t.name, fmt.Sprintf("crm_rows_%d_bin", t.id), sampled, 1); err != nil {
				return err
			}
			for _, unique := range []string{"id", "row", "change"} {
				if err := s.note(ctx, tx, t.name, fmt.Sprintf("crm_rows_%d_%s", t.id, unique), rows, 1); err != nil {
					return err
				}
			}
			for i, c := range t.columns {
				if !c.Indexed {
					continue
				}
				index, column := fmt.Sprintf("crm_rows_%d_%d", t.id, i), s.d.Quote("c_"+c.Name)
				var n, values int64
				if err := tx.QueryRowContext(ctx, "SELECT COUNT(*), COUNT(DISTINCT v) FROM (SELECT "+column+" AS v FROM "+s.d.Quote(t.name)+" INDEXED BY "+index+
					" WHERE space = (SELECT MAX(space) FROM crm_spaces WHERE type = ?) AND "+column+" IS NOT NULL LIMIT ?)", t.typ, sampled).Scan(&n, &values); err != nil {
					return err
				}
				if values == 0 {
					values, n = 1, 1
				}
				if err := s.note(ctx, tx, t.name, index, rows, (n+values-1)/values, 1); err != nil {
					return err
				}
			}
		}
		for _, text := range []string{"CREATE TABLE crm_analyzed (id INTEGER PRIMARY KEY)", "DROP TABLE crm_analyzed", "ANALYZE sqlite_schema"} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// storedType is a type that was ever declared.
type storedType struct {
	id        int64
	typ, name string
	columns   []storedColumn
}

func (s *Store) stored(ctx context.Context, tx *sql.Tx) (types []storedType, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT type_id, type, columns FROM crm_types")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t storedType
		var columns string
		if err := rows.Scan(&t.id, &t.typ, &columns); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(columns), &t.columns); err != nil {
			return nil, crm.ErrDamaged
		}
		t.name = "crm_rows_" + t.typ
		types = append(types, t)
	}
	return types, rows.Err()
}

// note writes what is known of an index: how many rows there are, and how many have the same first column, the same first two, and so on.
func (s *Store) note(ctx context.Context, tx *sql.Tx, table, index string, rows int64, same ...int64) error {
	stat := fmt.Sprint(rows, rows) // of one tenant
	for _, n := range same {
		stat += fmt.Sprint(" ", n)
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", table, index, stat)
	return err
}

// wrote counts written rows, and makes statistics when they have doubled. They are no part of what was written: that they fail is no failure.
func (s *Store) wrote(ctx context.Context, n int) {
	if s.d != dialect.SQLite {
		return
	}
	s.mu.Lock()
	s.written += int64(n)
	due := s.written >= s.analyzeAt
	if due {
		s.analyzeAt = max(2*s.written, analyzeAfter)
	}
	s.mu.Unlock()
	if due {
		_ = s.analyze(context.WithoutCancel(ctx))
	}
}

// way is how a page in the order of a column is read.
type way uint8

const (
	anyWay  way = iota // as the planner likes
	sorted             // the rows that a clause asks for, which are few, and sorted
	inOrder            // in the order of the column until the page is full, for those that clauses ask for are many
)

// way looks how many rows a clause of q asks for. Statistics know only how many a value has on average, and the records of somebody who has none would
// be looked for among those of everybody.
func (s *Store) way(ctx context.Context, t *table, in int64, q *crm.Query) (way, error) {
	if s.d != dialect.SQLite || q.Sort == "" || q.Changes || q.Tokens != nil || q.Persons != nil || q.IDs != nil {
		return anyWay, nil
	}
	if q.Deletion == crm.InBin {
		return sorted, nil
	}
	w := anyWay
	for i := range q.Clauses {
		c := &q.Clauses[i]
		if !t.narrows(c, q) {
			continue
		}
		cond, values := s.clause(c)
		text := "SELECT COUNT(*) FROM (SELECT 1 FROM " + t.name + " t WHERE t.space = ? AND " + cond + " LIMIT ?)"
		rows, err := s.prepared(ctx, s.r, text, append(append([]any{in}, values...), fewRows))
		if err != nil {
			return anyWay, err
		}
		n := fewRows
		for rows.Next() {
			err = rows.Scan(&n)
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return anyWay, err
		}
		if n < fewRows {
			return sorted, nil
		}
		w = inOrder
	}
	return w, nil
}

// narrows tells whether a clause asks for one value of an indexed column.
func (t *table) narrows(c *crm.Clause, q *crm.Query) bool {
	return c.Op == crm.Equal && c.Column != q.Sort && t.schema.Columns[request.Column(&t.schema, c.Column)].Indexed
}

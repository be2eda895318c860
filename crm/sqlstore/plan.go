package sqlstore

import (
	"context"
	"database/sql"
	"errors"

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

// analyze makes statistics of a sample: at most a thousand entries of each index are read, a tenth of a second for a database of gigabytes. Other
// connections take them in with the next change of the schema, so there is one.
func (s *Store) analyze(ctx context.Context) error {
	return s.write(ctx, "analyze", 0, func(tx *sql.Tx, _ int64) error {
		for _, text := range []string{
			"PRAGMA analysis_limit = 1000", "ANALYZE", "DROP TABLE IF EXISTS crm_analyzed", "CREATE TABLE crm_analyzed (id INTEGER PRIMARY KEY)", "DROP TABLE crm_analyzed",
		} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		return nil
	})
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

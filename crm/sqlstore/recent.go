package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"sync"

	"github.com/crmguard/crmguard/internal/dialect"
)

// On SQLite new tokens go into a small table, crm_recent, and from there in the order of their key into crm_tokens: the rolling merge of
// O'Neil, Cheng, Gawlick and O'Neil, "The log-structured merge-tree", 1996, with both components in the database. Tokens are random, so each would
// dirty a page of its own in a table of millions; moved a run at a time, neighbours share one. Whoever searches asks both tables. PostgreSQL keeps
// all in crm_tokens: what moves there would leave dead rows behind.

// mostRecent is how many tokens crm_recent keeps. Fewer touch more pages of crm_tokens when they move, more touch more of its own; with a
// crm_tokens of 6 to 18 million both cost the same at this number.
var mostRecent int64 = 400_000

// leastMoved is how many tokens move at once, so that the finding of a run is not paid for each small write.
var leastMoved int64 = 4096

// recent is what a store knows of crm_recent. Another program that writes the same database knows its own, so the tokens are
// counted anew with each round. mu is held from where a transaction holds the database to its end.
type recent struct {
	mu        sync.Mutex
	now, next rolling // next is now's, as it will be when the transaction is committed
}

// rolling is how far the moving is.
type rolling struct {
	known bool           // held is true
	held  int64          // how many tokens crm_recent has
	at    posting[int64] // the last that was moved
}

// tokenTables are those that tell which rows have a token.
func (s *Store) tokenTables() []index {
	if s.d == dialect.SQLite {
		return []index{byToken, byRecent}
	}
	return []index{byToken}
}

// indexes are what Reindex rebuilds.
func (s *Store) indexes() []index { return append(s.tokenTables(), byUnique, byPerson) }

// putTokens writes the differences of the tokens.
func (s *Store) putTokens(ctx context.Context, tx *sql.Tx, c *changes[int64]) error {
	if s.d != dialect.SQLite {
		return c.put(ctx, s, tx, byToken)
	}
	r := &s.recent.next
	if !r.known {
		n, err := countRecent(ctx, tx)
		if err != nil {
			return err
		}
		r.held, r.known = n, true
	}
	if _, err := deletePostings(ctx, s, tx, byToken, c.removed); err != nil {
		return err
	}
	gone, err := deletePostings(ctx, s, tx, byRecent, c.removed)
	if err != nil {
		return err
	}
	if _, err := insertPostings(ctx, s, tx, byRecent, c.added, ""); err != nil {
		return err
	}
	r.held += int64(len(c.added)) - gone
	if surplus := r.held - mostRecent; surplus >= leastMoved {
		return r.move(ctx, tx, surplus)
	}
	return nil
}

func countRecent(ctx context.Context, tx *sql.Tx) (n int64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM crm_recent").Scan(&n)
	return n, err
}

// The statements of a move. Each argument of a place is its space, token and row.
const (
	runEnd    = "SELECT space, token, row_id FROM crm_recent WHERE (space, token, row_id) > (?, ?, ?) ORDER BY space, token, row_id LIMIT 1 OFFSET ?"
	run       = " FROM crm_recent WHERE (space, token, row_id) > (?, ?, ?) AND (space, token, row_id) <= (?, ?, ?)"
	settleRun = "INSERT OR IGNORE INTO crm_tokens (space, token, row_id) SELECT space, token, row_id" + run + // a Reindex may have written the same ones
		" ORDER BY space, token, row_id"
	deleteRun = "DELETE" + run
)

// move takes the next n tokens over into crm_tokens, those up to the end where there are fewer.
func (r *rolling) move(ctx context.Context, tx *sql.Tx, n int64) error {
	var last posting[int64]
	err := tx.QueryRowContext(ctx, runEnd, r.at.space, r.at.key, r.at.number, n-1).Scan(&last.space, &last.key, &last.number)
	round := errors.Is(err, sql.ErrNoRows)
	if round {
		last = posting[int64]{math.MaxInt64, math.MaxInt64, math.MaxInt64}
	} else if err != nil {
		return err
	}
	for _, text := range []string{settleRun, deleteRun} {
		if _, err := tx.ExecContext(ctx, text, r.at.space, r.at.key, r.at.number, last.space, last.key, last.number); err != nil {
			return err
		}
	}
	if !round {
		r.at, r.held = last, r.held-n
		return nil
	}
	r.at = posting[int64]{}
	r.held, err = countRecent(ctx, tx)
	return err
}

// moveAll empties crm_recent into crm_tokens.
func (s *Store) moveAll(ctx context.Context, tx *sql.Tx) error {
	if s.d != dialect.SQLite {
		return nil
	}
	r := &s.recent.next
	r.at, r.held, r.known = posting[int64]{}, math.MaxInt32, true
	return r.move(ctx, tx, math.MaxInt32)
}

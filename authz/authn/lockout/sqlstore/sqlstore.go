// Package sqlstore keeps the counters of lockout in SQLite or PostgreSQL. It passes lockouttest on both.
//
// Update writes the rows that are missing, empty, in its transaction first. So PostgreSQL has something to lock, and
// SQLite takes its write lock before it reads. Only portable SQL is used.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"time"

	"github.com/crmguard/crmguard/authz/authn/lockout"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Store is a lockout.Store in SQL, of one tenant.
type Store struct {
	db      *sql.DB
	dialect dialect.Dialect
	tenant  string
}

// Open brings the table authn_lockout up to date (noted in authn_lockout_schema) and returns the store of a tenant.
// dialectName is "sqlite" or "postgres". The handle stays the caller's; a database apart from that of the records keeps
// an attack's writes away from them.
func Open(ctx context.Context, db *sql.DB, dialectName, tenant string) (*Store, error) {
	d, err := dialect.Parse(dialectName)
	if err != nil {
		return nil, err
	}
	if tenant == "" {
		return nil, errors.New("lockout/sqlstore: no tenant")
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db, d, files, "authn_lockout_schema"); err != nil {
		return nil, err
	}
	return &Store{db, d, tenant}, nil
}

const (
	columns = "failures, level, locked_until, ends"
	byKey   = " WHERE tenant = ? AND account = ? AND kind = ? AND other = ?" // the arguments of key
)

// Read implements lockout.Store.
func (s *Store) Read(ctx context.Context, keys []lockout.Key) ([]lockout.Row, error) {
	rows := make([]lockout.Row, len(keys))
	query := s.dialect.Rebind("SELECT " + columns + " FROM authn_lockout" + byKey)
	for i, k := range keys {
		err := scan(s.db.QueryRowContext(ctx, query, s.key(k)...), &rows[i])
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, wrap(err)
		}
	}
	return rows, nil
}

func (s *Store) key(k lockout.Key) []any {
	return []any{s.tenant, k.Account[:], int(k.Kind), k.Other[:]}
}

func scan(from interface{ Scan(...any) error }, r *lockout.Row) error {
	return from.Scan(&r.Failures, &r.Level, &r.Until, &r.Ends)
}

// errAgain: another transaction deleted a row between two statements of this one.
var errAgain = errors.New("lockout/sqlstore: again")

// Update implements lockout.Store.
func (s *Store) Update(ctx context.Context, keys []lockout.Key, change func([]lockout.Row) bool) error {
	for attempt := 1; ; attempt++ {
		err := s.update(ctx, keys, change)
		if err == nil || attempt == 50 || !dialect.IsRetryable(err) && !errors.Is(err, errAgain) {
			return wrap(err)
		}
		select {
		case <-time.After(time.Duration(min(attempt, 20)) * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Store) update(ctx context.Context, keys []lockout.Key, change func([]lockout.Row) bool) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	insert := s.dialect.Rebind("INSERT INTO authn_lockout (tenant, account, kind, other, " + columns + ") " +
		"VALUES (?, ?, ?, ?, 0, 0, 0, 0) ON CONFLICT DO NOTHING")
	get := "SELECT " + columns + " FROM authn_lockout" + byKey
	if s.dialect == dialect.Postgres {
		get += " FOR UPDATE"
	}
	get = s.dialect.Rebind(get)
	rows := make([]lockout.Row, len(keys))
	for i, k := range keys {
		if _, err := tx.ExecContext(ctx, insert, s.key(k)...); err != nil {
			return err
		}
		if err := scan(tx.QueryRowContext(ctx, get, s.key(k)...), &rows[i]); errors.Is(err, sql.ErrNoRows) {
			return errAgain
		} else if err != nil {
			return err
		}
	}
	if !change(rows) {
		return nil // and the empty rows go with the transaction
	}
	set := s.dialect.Rebind("UPDATE authn_lockout SET failures = ?, level = ?, locked_until = ?, ends = ?" + byKey)
	remove := s.dialect.Rebind("DELETE FROM authn_lockout" + byKey)
	for i, k := range keys {
		r := rows[i]
		query, args := set, append([]any{int64(r.Failures), int(r.Level), r.Until, r.Ends}, s.key(k)...)
		if r == (lockout.Row{}) {
			query, args = remove, s.key(k)
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Rows implements lockout.Store.
func (s *Store) Rows(ctx context.Context, account lockout.Hash) (map[lockout.Key]lockout.Row, error) {
	query := s.dialect.Rebind("SELECT kind, other, " + columns + " FROM authn_lockout WHERE tenant = ? AND account = ?")
	found, err := s.db.QueryContext(ctx, query, s.tenant, account[:])
	if err != nil {
		return nil, wrap(err)
	}
	defer found.Close()
	all := map[lockout.Key]lockout.Row{}
	for found.Next() {
		k, other, r := lockout.Key{Account: account}, []byte(nil), lockout.Row{}
		if err := found.Scan(&k.Kind, &other, &r.Failures, &r.Level, &r.Until, &r.Ends); err != nil {
			return nil, wrap(err)
		}
		if copy(k.Other[:], other) != len(k.Other) {
			return nil, errors.New("lockout/sqlstore: a row is damaged")
		}
		all[k] = r
	}
	return all, wrap(found.Err())
}

// Sweep implements lockout.Store. It deletes in three statements; tries go on meanwhile.
func (s *Store) Sweep(ctx context.Context, now int64, most int) error {
	if _, err := s.db.ExecContext(ctx, s.dialect.Rebind("DELETE FROM authn_lockout WHERE tenant = ? AND ends <= ?"), s.tenant, now); err != nil {
		return wrap(err)
	}
	var n int
	count := s.dialect.Rebind("SELECT COUNT(*) FROM authn_lockout WHERE tenant = ?")
	if err := s.db.QueryRowContext(ctx, count, s.tenant).Scan(&n); err != nil || n <= most {
		return wrap(err)
	}
	_, err := s.db.ExecContext(ctx, s.dialect.Rebind("DELETE FROM authn_lockout WHERE tenant = ? AND (account, kind, other) IN "+
		"(SELECT account, kind, other FROM authn_lockout WHERE tenant = ? "+
		"ORDER BY failures, ends, account, kind, other LIMIT ?)"), s.tenant, s.tenant, n-most)
	return wrap(err)
}

// storeError keeps the database's words out of the text.
type storeError struct{ err error }

func wrap(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &storeError{err}
}

// Error names the database's code only.
func (e *storeError) Error() string {
	if code := dialect.Code(e.err); code != "" {
		return "lockout/sqlstore: the database refuses (" + code + ")"
	}
	return "lockout/sqlstore: the database refuses"
}

// Unwrap returns the database's error.
func (e *storeError) Unwrap() error { return e.err }

// Package sqlstore is a once.Store in SQLite or PostgreSQL, in the table authn_once. It passes oncetest.TestStore on
// both.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"time"

	"github.com/crmguard/crmguard/authz/authn/internal/sqldb"
	"github.com/crmguard/crmguard/authz/authn/once"
)

//go:embed migrations
var migrations embed.FS

// Store is a once.Store in SQL, safe for concurrent use.
type Store struct{ db *sqldb.DB }

// Open brings the table up to date (noted in authn_once_schema) and returns the store. dialectName is "sqlite" or
// "postgres". The handle stays the caller's.
func Open(ctx context.Context, db *sql.DB, dialectName string) (*Store, error) {
	d, err := sqldb.Open(ctx, "authn/once/sqlstore", db, nil, dialectName, migrations, "authn_once_schema", once.ErrNone, once.ErrTaken)
	if err != nil {
		return nil, err
	}
	return &Store{d}, nil
}

// Put implements once.Store.
func (s *Store) Put(ctx context.Context, key [32]byte, value []byte, now, expires time.Time) error {
	if value == nil {
		value = []byte{}
	}
	return s.db.Change(ctx, "put", func(t *sqldb.Tx) error {
		n, err := t.Exec(ctx, `INSERT INTO authn_once (id, value, expires) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET value = excluded.value, expires = excluded.expires WHERE authn_once.expires <= ?`, key[:], value, expires.UnixMilli(), now.UnixMilli())
		if err == nil && n == 0 {
			return once.ErrTaken
		}
		return err
	})
}

// Take implements once.Store.
func (s *Store) Take(ctx context.Context, key [32]byte, now time.Time) (value []byte, err error) {
	var expires int64
	err = s.db.Change(ctx, "take", func(t *sqldb.Tx) error {
		err := t.Row(ctx, "DELETE FROM authn_once WHERE id = ? RETURNING value, expires", key[:]).Scan(&value, &expires)
		if errors.Is(err, sql.ErrNoRows) {
			return once.ErrNone
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if now.UnixMilli() >= expires {
		return nil, once.ErrNone
	}
	return value, nil
}

// Get implements once.Store.
func (s *Store) Get(ctx context.Context, key [32]byte, now time.Time) (value []byte, err error) {
	var expires int64
	err = s.db.ReadRow(ctx, "get", []any{&value, &expires}, "SELECT value, expires FROM authn_once WHERE id = ?", key[:])
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, once.ErrNone
	case err != nil:
		return nil, err
	case now.UnixMilli() >= expires:
		return nil, once.ErrNone
	}
	return value, nil
}

// Sweep implements once.Store.
func (s *Store) Sweep(ctx context.Context, now time.Time) (int, error) {
	var n int64
	err := s.db.Change(ctx, "sweep", func(t *sqldb.Tx) error {
		var err error
		n, err = t.Exec(ctx, "DELETE FROM authn_once WHERE expires <= ?", now.UnixMilli())
		return err
	})
	return int(n), err
}

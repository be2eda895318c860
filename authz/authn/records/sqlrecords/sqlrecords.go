// Package sqlrecords keeps records in SQLite or PostgreSQL. It passes recordstest on both.
package sqlrecords

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"time"

	"github.com/crmguard/crmguard/authz/authn/records"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Store is a records.Store in SQL, of one tenant.
type Store struct {
	db      *sql.DB
	dialect dialect.Dialect
	tenant  string
}

// Open brings the table authn_record up to date (noted in authn_record_schema) and returns the store of a tenant.
// dialectName is "sqlite" or "postgres". The handle stays the caller's.
func Open(ctx context.Context, db *sql.DB, dialectName, tenant string) (*Store, error) {
	d, err := dialect.Parse(dialectName)
	if err != nil {
		return nil, err
	}
	if tenant == "" {
		return nil, errors.New("sqlrecords: no tenant")
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db, d, files, "authn_record_schema"); err != nil {
		return nil, err
	}
	return &Store{db, d, tenant}, nil
}

// Load implements records.Store.
func (s *Store) Load(ctx context.Context, kind, account string) (record []byte, err error) {
	query := s.dialect.Rebind("SELECT record FROM authn_record WHERE tenant = ? AND kind = ? AND account = ?")
	err = s.db.QueryRowContext(ctx, query, s.tenant, kind, account).Scan(&record)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return record, wrap(err)
}

// Swap implements records.Store, each time by one statement.
func (s *Store) Swap(ctx context.Context, kind, account string, prev, next []byte) (bool, error) {
	if err := records.Check(prev, next); err != nil {
		return false, err
	}
	query := "UPDATE authn_record SET record = ? WHERE tenant = ? AND kind = ? AND account = ? AND record = ?"
	args := []any{next, s.tenant, kind, account, prev}
	switch {
	case prev == nil:
		query = "INSERT INTO authn_record (tenant, kind, account, record) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
		args = []any{s.tenant, kind, account, next}
	case next == nil:
		query = "DELETE FROM authn_record WHERE tenant = ? AND kind = ? AND account = ? AND record = ?"
		args = args[1:]
	}
	for attempt := 1; ; attempt++ {
		result, err := s.db.ExecContext(ctx, s.dialect.Rebind(query), args...)
		if err == nil {
			n, err := result.RowsAffected()
			return n == 1, wrap(err)
		}
		if attempt == 6 || !dialect.IsRetryable(err) {
			return false, wrap(err)
		}
		select {
		case <-time.After(time.Duration(attempt*attempt) * 5 * time.Millisecond):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// storeError keeps the database's words, which may hold values, out of the text.
type storeError struct{ err error }

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return &storeError{err}
}

// Error names the database's code only.
func (e *storeError) Error() string {
	if code := dialect.Code(e.err); code != "" {
		return "sqlrecords: the database refuses (" + code + ")"
	}
	return "sqlrecords: the database refuses"
}

// Unwrap returns the database's error.
func (e *storeError) Unwrap() error { return e.err }

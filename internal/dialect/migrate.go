package dialect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrate applies the goose migrations in the root of files that are not yet noted in table. Each user
// has a table of its own, so that several may share a database. On PostgreSQL a session lock keeps
// programs that start at the same time apart; on SQLite its one writer does. The error names the
// migration and the database's code, never the connection.
func Migrate(ctx context.Context, db *sql.DB, d Dialect, files fs.FS, table string) error {
	opts := []goose.ProviderOption{
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(table), goose.WithLogger(goose.NopLogger()),
	}
	kind := goose.DialectSQLite3
	if d == Postgres {
		kind = goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return fmt.Errorf("dialect: migration lock: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(kind, db, files, opts...)
	if err != nil {
		return fmt.Errorf("dialect: migrations of %s: %w", table, err)
	}
	if _, err := p.Up(ctx); err != nil {
		return &MigrationError{table: table, err: err}
	}
	return nil
}

// MigrationError is a migration that failed; what it did was rolled back.
type MigrationError struct {
	table string
	err   error
}

// Error names the migration and the database's code. The database's own words may hold the
// connection string, so they are left to Unwrap.
func (e *MigrationError) Error() string {
	text := "dialect: migration of " + e.table + " failed"
	var part *goose.PartialError
	if errors.As(e.err, &part) && part.Failed != nil && part.Failed.Source != nil {
		text = fmt.Sprintf("dialect: migration %d of %s failed", part.Failed.Source.Version, e.table)
	}
	if code := Code(e.err); code != "" {
		text += " (" + code + ")"
	}
	return text
}

// Unwrap returns the cause, for IsUnavailable and its like.
func (e *MigrationError) Unwrap() error { return e.err }

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
// migration and the database's code, never the connection; it is a *NewerError when table notes a later migration than
// files has.
func Migrate(ctx context.Context, db *sql.DB, d Dialect, files fs.FS, table string) error {
	p, err := provider(db, d, files, table)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return &MigrationError{table: table, err: err}
	}
	return newer(ctx, p, db, table)
}

// ErrNoVersion: there is no migration of that number.
var ErrNoVersion = errors.New("dialect: no such version")

// Rollback takes back the migrations above a version, which is one that files has, else ErrNoVersion. A database that is at or
// below it stays. Its other errors are those of Migrate.
func Rollback(ctx context.Context, db *sql.DB, d Dialect, files fs.FS, table string, to int64) error {
	p, err := provider(db, d, files, table)
	if err != nil {
		return err
	}
	if to < 1 || to > latest(p) {
		return ErrNoVersion
	}
	// So that there is a table, as Migrate finds it.
	if _, err := p.GetDBVersion(ctx); err != nil {
		return &MigrationError{table: table, err: err}
	}
	if err := newer(ctx, p, db, table); err != nil {
		return err
	}
	if _, err := p.DownTo(ctx, to); err != nil {
		return &MigrationError{table: table, err: err}
	}
	return nil
}

// latest is the last migration that is known.
func latest(p *goose.Provider) int64 {
	var last int64
	for _, s := range p.ListSources() {
		last = max(last, s.Version)
	}
	return last
}

// newer refuses a database that is ahead.
func newer(ctx context.Context, p *goose.Provider, db *sql.DB, table string) error {
	var version int64
	if err := db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+table).Scan(&version); err != nil {
		return &MigrationError{table: table, err: err}
	}
	if known := latest(p); version > known {
		return &NewerError{table: table, Version: version, Known: known}
	}
	return nil
}

// NewerError is a database with migrations that this program does not have.
type NewerError struct {
	table   string
	Version int64 // of the database
	Known   int64 // the latest that the program has
}

// Error names both versions.
func (e *NewerError) Error() string {
	return fmt.Sprintf("dialect: %s is at version %d, newer than %d", e.table, e.Version, e.Known)
}

func provider(db *sql.DB, d Dialect, files fs.FS, table string) (*goose.Provider, error) {
	opts := []goose.ProviderOption{
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(table), goose.WithLogger(goose.NopLogger()),
	}
	kind := goose.DialectSQLite3
	if d == Postgres {
		kind = goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, fmt.Errorf("dialect: migration lock: %w", err)
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(kind, db, files, opts...)
	if err != nil {
		return nil, fmt.Errorf("dialect: migrations of %s: %w", table, err)
	}
	return p, nil
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

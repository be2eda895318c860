package sqlsource

import (
	"context"
	"database/sql"
	"errors"

	"github.com/crmguard/crmguard/backup"
)

// Options of a [Database].
type Options struct {
	// Exclude are prefixes of table names that are neither read nor written. Nil = none. Name the key tables.
	Exclude []string
	// Prepare creates the tables in the database that is restored into. Nil: SQLite recreates them as they
	// were; PostgreSQL has them already, empty.
	Prepare func(ctx context.Context, db *sql.DB) error
}

// Database is a backup.Source and backup.Sink.
type Database struct{}

// SQLite ... db is the writing handle for restores.
func SQLite(db *sql.DB, opts *Options) *Database { return nil }

// Postgres ...
func Postgres(db *sql.DB, opts *Options) *Database { return nil }

// Dump implements backup.Source.
func (d *Database) Dump(ctx context.Context, w *backup.Writer) error { return errors.New("stub") }

// Load implements backup.Sink.
func (d *Database) Load(ctx context.Context, r *backup.Reader) error { return errors.New("stub") }

// Incomplete tells whether a restore was begun and did not end: such a database is not to be used.
func (d *Database) Incomplete(ctx context.Context) (bool, error) { return false, errors.New("stub") }

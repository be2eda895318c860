// Package sqldb is what the SQL stores below authz/authn share: opening, transactions that are run again, and errors
// without the database's words.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/crmguard/crmguard/internal/dialect"
)

// DB is a database and how its users are named.
type DB struct {
	name     string // of the package, for errors
	db       *sql.DB
	reads    *sql.DB
	dialect  dialect.Dialect
	expected []error // go out as they are
}

const retries = 6

// Open applies the migrations below migrations/DIALECT, noted in table. reads may be nil. Errors among expected pass
// unchanged.
func Open(ctx context.Context, name string, db, reads *sql.DB, dialectName string, migrations fs.FS, table string, expected ...error) (*DB, error) {
	d, err := dialect.Parse(dialectName)
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db, d, files, table); err != nil {
		return nil, err
	}
	if reads == nil {
		reads = db
	}
	return &DB{name: name, db: db, reads: reads, dialect: d, expected: expected}, nil
}

// Wrap keeps the database's words, which may hold values, out of the text.
func (d *DB) Wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, e := range d.expected {
		if errors.Is(err, e) {
			return e
		}
	}
	return &dbError{d.name + ": " + what, dialect.Code(err), err}
}

type dbError struct {
	what, code string
	err        error
}

// Error names the operation and the database's code only.
func (e *dbError) Error() string {
	if e.code == "" {
		return e.what
	}
	return fmt.Sprintf("%s (%s)", e.what, e.code)
}

// Unwrap returns the database's error.
func (e *dbError) Unwrap() error { return e.err }

// Tx is one transaction.
type Tx struct {
	tx      *sql.Tx
	dialect dialect.Dialect
}

// Exec runs a statement with ? for arguments and returns how many rows it changed.
func (t *Tx) Exec(ctx context.Context, text string, args ...any) (int64, error) {
	res, err := t.tx.ExecContext(ctx, t.dialect.Rebind(text), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Row queries one row.
func (t *Tx) Row(ctx context.Context, text string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, t.dialect.Rebind(text), args...)
}

// Rows queries rows and calls scan for each.
func (t *Tx) Rows(ctx context.Context, scan func(*sql.Rows) error, text string, args ...any) error {
	rows, err := t.tx.QueryContext(ctx, t.dialect.Rebind(text), args...)
	if err != nil {
		return err
	}
	return each(rows, scan)
}

// Texts queries one column of text.
func (t *Tx) Texts(ctx context.Context, text string, args ...any) (out []string, err error) {
	err = t.Rows(ctx, func(rows *sql.Rows) error {
		var s string
		if err := rows.Scan(&s); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	}, text, args...)
	return out, err
}

func each(rows *sql.Rows, scan func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Read queries rows outside of a transaction and calls scan for each.
func (d *DB) Read(ctx context.Context, what string, scan func(*sql.Rows) error, text string, args ...any) error {
	rows, err := d.reads.QueryContext(ctx, d.dialect.Rebind(text), args...)
	if err != nil {
		return d.Wrap(what, err)
	}
	return d.Wrap(what, each(rows, scan))
}

// ReadRow queries one row outside of a transaction. Where there is none it returns sql.ErrNoRows as it is.
func (d *DB) ReadRow(ctx context.Context, what string, into []any, text string, args ...any) error {
	err := d.reads.QueryRowContext(ctx, d.dialect.Rebind(text), args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return sql.ErrNoRows
	}
	return d.Wrap(what, err)
}

// Change runs f in a transaction, again when the database asks for it.
func (d *DB) Change(ctx context.Context, what string, f func(*Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := d.once(ctx, f)
		if err == nil || attempt == retries || !dialect.IsRetryable(err) {
			return d.Wrap(what, err)
		}
		pause := time.NewTimer(time.Duration(attempt*attempt) * 5 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return d.Wrap(what, ctx.Err())
		}
	}
}

func (d *DB) once(ctx context.Context, f func(*Tx) error) error {
	var opts *sql.TxOptions
	if d.dialect == dialect.Postgres {
		// Row locks order the writers, and what was committed before a lock was given must be seen.
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	t, err := d.db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer t.Rollback()
	if err := f(&Tx{t, d.dialect}); err != nil {
		return err
	}
	return t.Commit()
}

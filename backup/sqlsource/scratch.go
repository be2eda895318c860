package sqlsource

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/internal/dialect"
)

// Scratch is a database that exists for one drill, and is destroyed by Close.
type Scratch struct {
	*Database
	DB    *sql.DB // for checks of the program's own
	close func() error
}

// ScratchSQLite makes an empty SQLite database in a new folder below dir, of mode 0700. Empty = the system's place for temporary files.
func ScratchSQLite(ctx context.Context, dir string, opts *Options) (*Scratch, error) {
	folder, err := os.MkdirTemp(dir, "drill-")
	if err != nil {
		return nil, fmt.Errorf("sqlsource: %w", err)
	}
	w, r, err := dialect.OpenSQLite(ctx, filepath.Join(folder, "scratch.db"))
	if err != nil {
		return nil, errors.Join(failed("open the scratch database", err), os.RemoveAll(folder))
	}
	return &Scratch{SQLite(w, opts), w, func() error { return errors.Join(w.Close(), r.Close(), os.RemoveAll(folder)) }}, nil
}

// ScratchPostgres makes an empty database beside the one behind db, which takes the right to do so. open opens it by its name. One that
// a crash left is named crmguard_drill_ and 16 hexadecimal digits.
func ScratchPostgres(ctx context.Context, db *sql.DB, open func(name string) (*sql.DB, error), opts *Options) (*Scratch, error) {
	var id [8]byte
	rand.Read(id[:])
	name := "crmguard_drill_" + hex.EncodeToString(id[:])
	// As a database of the same kind, whatever the server's own are.
	var encoding, collate, ctype string
	err := db.QueryRowContext(ctx, `SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_catalog.pg_database
		WHERE datname = current_database()`).Scan(&encoding, &collate, &ctype)
	if err == nil {
		literal := func(s string) string { return "'" + s + "'" } // the server's own names
		_, err = db.ExecContext(ctx, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING "+literal(encoding)+" LC_COLLATE "+literal(collate)+" LC_CTYPE "+literal(ctype))
	}
	if err != nil {
		return nil, failed("make the scratch database", err)
	}
	drop := func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
		return failedOr("drop the scratch database", err)
	}
	w, err := open(name)
	if err != nil {
		return nil, errors.Join(failed("open the scratch database", err), drop())
	}
	return &Scratch{Postgres(w, opts), w, func() error { return errors.Join(w.Close(), drop()) }}, nil
}

// Integrity lets the database check its pages, indexes and foreign keys. PostgreSQL checked them when the restore put them back.
func (s *Scratch) Integrity(ctx context.Context) error {
	if s.engine.name() == enginePostgres {
		var bad int
		err := s.DB.QueryRowContext(ctx, `SELECT count(*) FROM pg_catalog.pg_constraint WHERE NOT convalidated`).Scan(&bad)
		if err == nil && bad > 0 {
			return fmt.Errorf("sqlsource: %d rules of the database are not checked", bad)
		}
		if err == nil {
			err = s.DB.QueryRowContext(ctx, `SELECT count(*) FROM pg_catalog.pg_index WHERE NOT indisvalid`).Scan(&bad)
		}
		if err == nil && bad > 0 {
			return fmt.Errorf("sqlsource: %d indexes are not whole", bad)
		}
		return failedOr("check the database", err)
	}
	var said string
	if err := s.DB.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&said); err != nil {
		return failed("check the database", err)
	}
	if said != "ok" {
		return errors.New("sqlsource: the database is damaged")
	}
	var table string
	switch err := s.DB.QueryRowContext(ctx, `SELECT "table" FROM pragma_foreign_key_check LIMIT 1`).Scan(&table); {
	case err == nil:
		return fmt.Errorf("sqlsource: rows of table %s refer to rows that are not there", table)
	case errors.Is(err, sql.ErrNoRows):
		return nil
	default:
		return failed("check foreign keys", err)
	}
}

// Also does more when the database is closed, after that.
func (s *Scratch) Also(do func() error) {
	before := s.close
	s.close = func() error { return errors.Join(before(), do()) }
}

// Close destroys the database.
func (s *Scratch) Close() error { return s.close() }

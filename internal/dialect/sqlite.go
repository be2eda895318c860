package dialect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// OpenSQLite opens the database file at path, created with mode 0600 when missing, as one writing
// connection and a pool of reading ones. The program must import a driver that registers itself as
// "sqlite" and takes _pragma, _txlock, _dqs and _defensive (modernc.org/sqlite does).
//
// Commits are durable (write-ahead log, synchronous FULL), deleted content is overwritten, a
// transaction takes the write lock at its start and waits 5 s for it. Drivers ignore what they do not
// know without a word, so each setting is read back and a difference is an error.
func OpenSQLite(ctx context.Context, path string) (w, r *sql.DB, err error) {
	if !slices.Contains(sql.Drivers(), "sqlite") {
		return nil, nil, errors.New("dialect: the program has no SQLite driver")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("dialect: %w", err)
	}
	f, err := os.OpenFile(abs, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("dialect: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, nil, fmt.Errorf("dialect: %w", err)
	}
	base := (&url.URL{Scheme: "file", Path: abs}).String() +
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=foreign_keys(1)&_pragma=secure_delete(1)&_dqs=0&_defensive=1"
	// Index tokens are random, so a batch of an import touches thousands of pages: a checkpoint at each of them would write all of them twice.
	if w, err = sql.Open("sqlite", base+"&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(16384)&_txlock=immediate"); err != nil {
		return nil, nil, errors.New("dialect: SQLite settings are refused")
	}
	w.SetMaxOpenConns(1)
	if err := checkPragmas(ctx, w); err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	// A reader's cache ends with each commit of the writer, so what it reads is mapped, not copied: a page that the device cannot read is then a fault, no error.
	if r, err = sql.Open("sqlite", base+"&_pragma=cache_size(-16384)&_pragma=mmap_size(8589934592)&mode=ro"); err != nil {
		return nil, nil, errors.Join(errors.New("dialect: SQLite settings are refused"), w.Close())
	}
	r.SetMaxOpenConns(4)
	r.SetMaxIdleConns(4)
	if err := checkPragmas(ctx, r); err != nil {
		return nil, nil, errors.Join(err, w.Close(), r.Close())
	}
	return w, r, nil
}

// checkPragmas reads the settings back.
func checkPragmas(ctx context.Context, db *sql.DB) error {
	for _, p := range []struct{ name, want string }{
		{"busy_timeout", "5000"}, {"journal_mode", "wal"}, {"synchronous", "2"},
		{"foreign_keys", "1"}, {"secure_delete", "1"},
	} {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(&got); err != nil {
			return fmt.Errorf("dialect: SQLite pragma %s: %w", p.name, err)
		}
		if got != p.want {
			return fmt.Errorf("dialect: SQLite pragma %s is %s, not %s", p.name, got, p.want)
		}
	}
	return nil
}

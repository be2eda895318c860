// Package sqlstore keeps audit logs in PostgreSQL or SQLite: each batch a row,
// several logs in one database told apart by name. It passes
// audittest.TestStore on both. docs/formats/audit-sql.md describes the tables
// and the rights that a writer and a verifier need.
//
// # One writer
//
// On PostgreSQL the writer appends on a session of its own, which holds an
// advisory lock; when the session is lost, so is the place, and the next append
// fails. The handle must reach the server itself or a pooler in session mode.
// On SQLite a lock on a file beside the database does it, so the database must
// lie on a disk of this machine. Either way each append also checks, in its
// transaction, a token that every new writer raises: who has lost the place
// cannot write, whatever he believes.
//
// # Durable
//
// An append is one statement and so one transaction, durable when it returns.
// On PostgreSQL it sets synchronous_commit to on for itself, whatever the
// database says, and a server without fsync is refused. On SQLite the
// connection is set to synchronous EXTRA, which in WAL mode is FULL; journal
// modes off and memory are refused for files. Databases roll an unfinished
// append back, so nothing is ever torn.
//
// An error of an append may leave its batch in the log or not, for a connection
// can break during the commit. The writer then takes nothing more, and
// audit.Open reads what there is.
//
// # Pruning
//
// Prune replaces batches one by one and never joins any, so that readers keep
// their place. Where old bytes lie afterwards is the database's business:
// PostgreSQL keeps them until VACUUM and in its write-ahead log, SQLite without
// secure_delete in free pages.
package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

const (
	version   = 1 // of the tables, the number of the last migration
	maxData   = 64 << 20
	maxName   = 200
	pageRows  = 2048    // of a full page that Batches reads at once
	pageBytes = 4 << 20 // beyond its first row
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// Options of Open. Nil means the zero value of each field.
type Options struct {
	// Log names the log in the database, at most 200 bytes; "": "log". It is
	// stored with each row and says nothing of the log's origin.
	Log string
	// Reads is a second handle for reading, such as SQLite's read-only one;
	// nil: the first. It sees every commit at once: a replica that lags will do
	// for audit.Verify, not for audit.Open.
	Reads *sql.DB
	// Prunes is the handle for Prune, whose role may update batches, so that
	// the writer's role need not; nil: the first.
	Prunes *sql.DB
	// Timeout bounds each append and each change of the head, waiting for the
	// database included; 0: 30 seconds. After it the writer has failed. SQLite
	// may exceed it by the busy_timeout of the connection.
	Timeout time.Duration
}

// Store is a log in a database.
type Store struct {
	db, reads, prunes *sql.DB
	dialect           dialect.Dialect
	log               string
	timeout           time.Duration
}

// Open returns the log in a database and makes the tables, noted in
// audit_schema, when there are none. dialectName is "sqlite" or "postgres". The
// handles stay the caller's; on PostgreSQL db must allow two connections at
// least, one of which an open writer keeps.
//
// It returns driver.ErrFormat when a later version has changed the tables.
func Open(ctx context.Context, db *sql.DB, dialectName string, opts *Options) (*Store, error) {
	d, err := dialect.Parse(dialectName)
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, problem("no database")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Timeout < 0 {
		return nil, problem("negative Timeout")
	}
	s := &Store{db: db, reads: cmp.Or(o.Reads, db), prunes: cmp.Or(o.Prunes, db), dialect: d,
		log: cmp.Or(o.Log, "log"), timeout: cmp.Or(o.Timeout, 30*time.Second)}
	if len(s.log) > maxName || !utf8.ValidString(s.log) || strings.ContainsRune(s.log, 0) {
		return nil, problem("the name of the log is too long or no text")
	}
	v, err := s.version(ctx, db)
	if err != nil || v == version {
		return s, err
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db, d, files, "audit_schema"); err != nil {
		// Another program may have been faster.
		if v, verr := s.version(ctx, db); verr != nil || v != version {
			return nil, err
		}
	}
	return s, nil
}

// querier is a handle, a connection or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// version returns the version of the tables, 0 when there are none, and
// ErrFormat for a later one.
func (s *Store) version(ctx context.Context, q querier) (int64, error) {
	exists := "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'audit_schema'"
	if s.dialect == dialect.Postgres {
		exists = "SELECT count(*) FROM (SELECT to_regclass('audit_schema') AS t) x WHERE t IS NOT NULL"
	}
	var n, v int64
	if err := q.QueryRowContext(ctx, exists).Scan(&n); err != nil {
		return 0, s.wrap("version", err)
	}
	if n == 0 {
		return 0, nil
	}
	if err := q.QueryRowContext(ctx, "SELECT COALESCE(max(version_id), 0) FROM audit_schema").Scan(&v); err != nil {
		return 0, s.wrap("version", err)
	}
	if v > version {
		return v, fmt.Errorf("%w: tables of version %d", driver.ErrFormat, v)
	}
	return v, nil
}

// problem is an error that is not the database's.
type problem string

func (p problem) Error() string { return "audit/sqlstore: " + string(p) }

// wrap keeps the database's words, which may hold values, out of the text.
func (s *Store) wrap(what string, err error) error {
	var own problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own), errors.Is(err, driver.ErrLocked), errors.Is(err, driver.ErrFormat), errors.Is(err, driver.ErrDamaged):
		return err
	case dialect.IsDamaged(err):
		return fmt.Errorf("%w: the database says so (%s)", driver.ErrDamaged, dialect.Code(err))
	}
	return &storeError{what: what, code: dialect.Code(err), err: err}
}

type storeError struct {
	what, code string
	err        error
}

// Error names the operation and the database's code only.
func (e *storeError) Error() string {
	switch {
	case e.code != "":
		return fmt.Sprintf("audit/sqlstore: %s (%s)", e.what, e.code)
	case errors.Is(e.err, context.DeadlineExceeded):
		return fmt.Sprintf("audit/sqlstore: %s: the database does not answer in time", e.what)
	}
	return "audit/sqlstore: " + e.what
}

// Unwrap returns the database's error.
func (e *storeError) Unwrap() error { return e.err }

// Head implements driver.Store.
func (s *Store) Head(ctx context.Context) ([]byte, error) {
	var note []byte
	err := s.reads.QueryRowContext(ctx, s.dialect.Rebind("SELECT note FROM audit_head WHERE log = ?"), s.log).Scan(&note)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return note, s.wrap("head", err)
}

// row is a row of audit_batches.
type row struct {
	first, events, crc int64
	data               []byte
}

// check says whether the numbers of a row can be those of a batch.
func (r *row) check() error {
	if r.first < 0 || r.events < 1 || r.events > math.MaxUint32 || r.first > math.MaxInt64-r.events || len(r.data) > maxData {
		return fmt.Errorf("%w: the row of a batch", driver.ErrDamaged)
	}
	return nil
}

// batch takes a row apart.
func (r *row) batch() (driver.Batch, error) {
	if err := r.check(); err != nil {
		return driver.Batch{}, err
	}
	b := driver.Batch{First: uint64(r.first), Count: uint32(r.events), Data: r.data}
	if int64(checksum(b)) != r.crc {
		return driver.Batch{}, fmt.Errorf("%w: the checksum of a batch", driver.ErrDamaged)
	}
	return b, nil
}

// checksum covers all that a row says.
func checksum(b driver.Batch) uint32 {
	var head [12]byte
	binary.BigEndian.PutUint64(head[:], b.First)
	binary.BigEndian.PutUint32(head[8:], b.Count)
	return crc32.Update(crc32.Checksum(head[:], crcTable), crcTable, b.Data)
}

// Batches implements driver.Store. It reads pages that grow up to 4 MiB, or one
// batch when that is larger, and keeps no connection while it yields. Nothing is
// ever torn; a row that is missing, too many or changed is driver.ErrDamaged.
func (s *Store) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		from := int64(min(from, math.MaxInt64))
		next := int64(-1) // where the next row must begin, -1: not known yet
		at, begin := from, true
		rows, bytes := 1, 64<<10 // a query wants one batch, as a rule
		if from == 0 {
			at, begin, rows = math.MinInt64, false, 64 // from the lowest row, so that none is passed over
		}
		var page []row
		for {
			var more bool
			var err error
			if page, more, err = s.page(ctx, page[:0], at, begin, rows, bytes); err != nil {
				yield(driver.Batch{}, s.wrap("read", err))
				return
			}
			for i := range page {
				r := &page[i]
				b, err := r.batch()
				switch {
				case err != nil:
				case next < 0 && r.first > from, next >= 0 && r.first > next:
					err = fmt.Errorf("%w: a batch is not there", driver.ErrDamaged)
				case next >= 0 && r.first < next:
					err = fmt.Errorf("%w: two batches hold one event", driver.ErrDamaged)
				default:
					err = ctx.Err()
				}
				if err != nil {
					yield(driver.Batch{}, err)
					return
				}
				next = r.first + r.events
				if next > from && !yield(b, nil) {
					return
				}
				r.data = nil
			}
			if !more {
				return
			}
			at, begin = page[len(page)-1].first+1, false
			rows, bytes = min(8*rows, pageRows), min(8*bytes, pageBytes)
		}
	}
}

// page reads at most so many rows, and rows beyond the first until there are so
// many bytes. more says that there may be others behind them.
func (s *Store) page(ctx context.Context, page []row, at int64, begin bool, rows, bytes int) (_ []row, more bool, err error) {
	// The rest of a result that nobody wants must still be received from
	// PostgreSQL, so there the bytes are counted by the server. SQLite makes
	// each row when it is asked for.
	where, args := "first >= ?", []any{s.log, at}
	if begin {
		where, args = "first >= COALESCE((SELECT max(first) FROM audit_batches WHERE log = ? AND first <= ?), 0)", []any{s.log, s.log, at}
	}
	text := "SELECT first, events, crc, data FROM audit_batches WHERE log = ? AND " + where + " ORDER BY first LIMIT ?"
	args = append(args, rows)
	if s.dialect == dialect.Postgres {
		text = `WITH place AS (SELECT first, sum(octet_length(data)) OVER (ORDER BY first) - octet_length(data) AS before
			FROM (SELECT first, data FROM audit_batches WHERE log = ? AND ` + where + ` ORDER BY first LIMIT ?) p)
			SELECT b.first, b.events, b.crc, b.data FROM audit_batches b WHERE b.log = ?
			AND b.first >= (SELECT min(first) FROM place) AND b.first <= (SELECT max(first) FROM place WHERE before < ?) ORDER BY b.first`
		args = append(args, s.log, bytes)
	}
	res, err := s.reads.QueryContext(ctx, s.dialect.Rebind(text), args...)
	if err != nil {
		return page, false, err
	}
	defer res.Close()
	got := 0
	for got < bytes && res.Next() {
		var r row
		if err := res.Scan(&r.first, &r.events, &r.crc, &r.data); err != nil {
			if ctx.Err() == nil && dialect.Code(err) == "" {
				err = fmt.Errorf("%w: the row of a batch", driver.ErrDamaged) // a value of another type
			}
			return page, false, err
		}
		page = append(page, r)
		got += len(r.data)
	}
	if err := res.Err(); err != nil {
		return page, false, err
	}
	return page, len(page) == rows || got >= bytes, nil
}

package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/internal/dialect"
)

// The statements of the writer. Each is a transaction of its own and does
// nothing unless the token is the writer's still. The row of the token is locked
// in it, so that a new writer, who raises the token, comes before or after it.
const (
	appendSQLite = `INSERT INTO audit_batches (log, first, events, crc, data) SELECT w.log, ?, ?, ?, ? FROM audit_writer w
		WHERE w.log = ? AND w.token = ? AND ? = COALESCE(` + endOfLog + `, 0)`
	appendPostgres = `INSERT INTO audit_batches (log, first, events, crc, data)
		SELECT w.log, CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BYTEA)
		FROM audit_writer w, (SELECT ` + durable + ` AS setting) d
		WHERE w.log = ? AND w.token = ? AND CAST(? AS BIGINT) = COALESCE(` + endOfLog + `, 0) AND d.setting <> '' FOR SHARE OF w`
	endOfLog = "(SELECT b.first + b.events FROM audit_batches b WHERE b.log = w.log ORDER BY b.first DESC LIMIT 1)"

	headSQLite = `INSERT INTO audit_head (log, note) SELECT w.log, ? FROM audit_writer w WHERE w.log = ? AND w.token = ?
		ON CONFLICT (log) DO UPDATE SET note = excluded.note`
	headPostgres = `INSERT INTO audit_head (log, note) SELECT w.log, CAST(? AS BYTEA) FROM audit_writer w WHERE w.log = ? AND w.token = ? FOR SHARE
		ON CONFLICT (log) DO UPDATE SET note = excluded.note`

	// durable makes the commit of this transaction wait for the disk.
	durable = "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
	// durableSQLite is a setting of the connection.
	durableSQLite = "PRAGMA synchronous = EXTRA; PRAGMA fullfsync = ON"
)

// How long Writer waits for one that is about to go: PostgreSQL takes a moment
// to notice that a program has ended.
const leaving = 250 * time.Millisecond

// writer is the one writer of a log.
type writer struct {
	s     *Store
	token int64
	conn  *sql.Conn    // PostgreSQL: the session that holds the lock; nil on SQLite
	free  func() error // gives the lock back

	mu     sync.Mutex // held by Append, SetHead and Close
	next   uint64     // the event the next batch begins with
	err    error      // of the append that failed
	closed bool

	pruning sync.Mutex // held by Prune
}

var errClosed = problem("writer is closed")

// Writer implements driver.Store. The context bounds its own work only.
func (s *Store) Writer(ctx context.Context) (driver.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	w := &writer{s: s}
	lock := w.lockSQLite
	if s.dialect == dialect.Postgres {
		lock = w.lockPostgres
	}
	if err := lock(ctx); err != nil {
		return nil, s.wrap("writer", err)
	}
	if err := s.patiently(ctx, func() error { return w.raise(ctx) }); err != nil {
		_ = w.free() // err says what went wrong first
		return nil, s.wrap("writer", err)
	}
	return w, nil
}

// lockPostgres takes a session for the writer and the advisory lock.
func (w *writer) lockPostgres(ctx context.Context) (err error) {
	if w.s.db.Stats().MaxOpenConnections == 1 {
		return problem("a writer on PostgreSQL needs two connections at least")
	}
	conn, err := w.s.alive(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	var fsync string
	var table int64
	if err := conn.QueryRowContext(ctx, "SELECT current_setting('fsync'), CAST(to_regclass('audit_writer') AS oid)::bigint").Scan(&fsync, &table); err != nil {
		return err
	}
	if fsync != "on" {
		return problem("the server runs without fsync")
	}
	// A client that is gone without a word must not keep the lock for hours.
	for _, text := range []string{"tcp_keepalives_idle', '60'", "tcp_keepalives_interval', '10'", "tcp_keepalives_count', '6'"} {
		if _, err := conn.ExecContext(ctx, "SELECT set_config('"+text+", false)"); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("crmguard audit writer "+w.s.log+"\x00"), uint64(table)))
	key := int64(binary.BigEndian.Uint64(sum[:]))
	for start := time.Now(); ; {
		var got bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&got); err != nil {
			return err
		}
		if got {
			break
		}
		if time.Since(start) > leaving {
			return driver.ErrLocked
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	w.conn = conn
	w.free = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), w.s.timeout)
		defer cancel()
		var held bool
		err := conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", key).Scan(&held)
		_ = conn.Raw(func(any) error { return sqldriver.ErrBadConn }) // it has settings that are not the pool's
		conn.Close()
		return err
	}
	return nil
}

// alive returns a connection that answers. After a restart of the server the
// handle is full of others.
func (s *Store) alive(ctx context.Context) (*sql.Conn, error) {
	for try := 1; ; try++ {
		conn, err := s.db.Conn(ctx)
		if err == nil {
			if err = conn.PingContext(ctx); err == nil {
				return conn, nil
			}
			conn.Close()
		}
		if try == 50 || !dialect.IsLost(err) {
			return nil, err
		}
	}
}

// lockSQLite locks a file beside the database, or the handle of one that has no
// file.
func (w *writer) lockSQLite(ctx context.Context) error {
	conn, err := w.s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var path, journal string
	if err := conn.QueryRowContext(ctx, "SELECT COALESCE(file, '') FROM pragma_database_list WHERE name = 'main'").Scan(&path); err != nil {
		return err
	}
	if path == "" {
		w.free, err = lockHandle(w.s.db, w.s.log)
		return err
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if journal == "off" || journal == "memory" {
		return problem("SQLite's journal_mode " + journal + " loses logs in a crash: use wal")
	}
	sum := sha256.Sum256([]byte(w.s.log))
	w.free, err = lockPath(ctx, fmt.Sprintf("%s-audit-%x.lock", path, sum[:8]))
	return err
}

// raise makes all writers before this one stop, and finds the end of the log.
func (w *writer) raise(ctx context.Context) error {
	conn, done, err := w.session(ctx)
	if err != nil {
		return err
	}
	defer done()
	return w.s.tx(ctx, conn, func() error {
		if v, err := w.s.version(ctx, conn); err != nil || v != version {
			return errors.Join(err, errTables(v))
		}
		if err := conn.QueryRowContext(ctx, w.s.dialect.Rebind(`INSERT INTO audit_writer (log, token) VALUES (?, 1)
			ON CONFLICT (log) DO UPDATE SET token = audit_writer.token + 1 RETURNING token`), w.s.log).Scan(&w.token); err != nil {
			return err
		}
		var r row
		err := conn.QueryRowContext(ctx, w.s.dialect.Rebind("SELECT first, events FROM audit_batches WHERE log = ? ORDER BY first DESC LIMIT 1"), w.s.log).
			Scan(&r.first, &r.events)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err == nil {
			err = r.check()
		}
		w.next = uint64(r.first + r.events)
		return err
	})
}

func errTables(v int64) error {
	if v == version {
		return nil
	}
	return problem("the tables are gone")
}

// session returns the connection that the writer writes on.
func (w *writer) session(ctx context.Context) (*sql.Conn, func(), error) {
	if w.conn != nil {
		return w.conn, func() {}, nil
	}
	conn, err := w.s.db.Conn(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.ExecContext(ctx, durableSQLite); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, func() { conn.Close() }, nil
}

// tx runs f in a transaction on a connection.
func (s *Store) tx(ctx context.Context, conn *sql.Conn, f func() error) error {
	begin := "BEGIN IMMEDIATE"
	if s.dialect == dialect.Postgres {
		// What was committed before a lock was given must be seen.
		begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	}
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		return err
	}
	var err error
	if s.dialect == dialect.Postgres {
		_, err = conn.ExecContext(ctx, "SELECT "+durable)
	}
	if err == nil {
		err = f()
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, rerr := conn.ExecContext(back, "ROLLBACK"); rerr != nil {
			_ = conn.Raw(func(any) error { return sqldriver.ErrBadConn }) // not to be used again
		}
	}
	return err
}

// patiently runs f again while the database says that it did nothing because
// others were at work.
func (s *Store) patiently(ctx context.Context, f func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 16*time.Millisecond) {
		err := f()
		if !dialect.IsRetryable(err) || pause(ctx, wait) != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec runs one of the writer's statements, which changes one row; else the
// writer has lost its place, or lost says what else it may be.
func (w *writer) exec(ctx context.Context, text string, args []any, lost error) error {
	ctx, cancel := context.WithTimeout(ctx, w.s.timeout)
	defer cancel()
	return w.s.patiently(ctx, func() error {
		conn, done, err := w.session(ctx)
		if err != nil {
			return err
		}
		defer done()
		res, err := conn.ExecContext(ctx, w.s.dialect.Rebind(text), args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil || n == 1 {
			return err
		}
		if err := w.fence(ctx, conn, ""); err != nil {
			return err
		}
		return lost
	})
}

// fence returns ErrLocked when there was a newer writer. lock is what
// PostgreSQL needs to hold such a writer off until the transaction ends.
func (w *writer) fence(ctx context.Context, conn *sql.Conn, lock string) error {
	var one int
	err := conn.QueryRowContext(ctx, w.s.dialect.Rebind("SELECT 1 FROM audit_writer WHERE log = ? AND token = ?"+lock), w.s.log, w.token).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("audit/sqlstore: this writer has lost its place: %w", driver.ErrLocked)
	}
	return err
}

var errEnd = problem("somebody else has changed the end of the log")

// Append implements driver.Writer.
func (w *writer) Append(ctx context.Context, b driver.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(ctx); err != nil {
		return err
	}
	if b.Count == 0 || len(b.Data) > maxData {
		return problem("batch is empty or too large")
	}
	if b.First != w.next {
		return problem("batch does not follow the last one")
	}
	text := appendSQLite
	if w.s.dialect == dialect.Postgres {
		text = appendPostgres
	}
	first := int64(b.First)
	w.err = w.s.wrap("append", w.exec(ctx, text, []any{first, int64(b.Count), int64(checksum(b)), notNull(b.Data), w.s.log, w.token, first}, errEnd))
	if w.err == nil {
		w.next += uint64(b.Count)
	}
	return w.err
}

// ready says why nothing can be appended.
func (w *writer) ready(ctx context.Context) error {
	switch {
	case w.closed:
		return errClosed
	case w.err != nil:
		return w.err
	}
	return ctx.Err()
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// SetHead implements driver.Writer.
func (w *writer) SetHead(ctx context.Context, note []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ready(ctx); err != nil {
		return err
	}
	text := headSQLite
	if w.s.dialect == dialect.Postgres {
		text = headPostgres
	}
	return w.s.wrap("head", w.exec(ctx, text, []any{notNull(note), w.s.log, w.token}, errEnd))
}

// Torn implements driver.Writer: a database leaves nothing unfinished.
func (w *writer) Torn() []byte { return nil }

// Close implements driver.Writer.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.s.wrap("close", w.free())
}

// Prune implements driver.Pruner. A stretch is one batch, so that no batch
// boundary ever goes and a reader between two pages finds its place again.
// Stretches that are read as one page are stored in one transaction.
func (w *writer) Prune(ctx context.Context, from, to uint64, replace func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error]) error {
	w.pruning.Lock()
	defer w.pruning.Unlock()
	w.mu.Lock()
	err := w.ready(ctx)
	to = min(to, w.next)
	w.mu.Unlock()
	if err != nil {
		return err
	}
	var list []change
	size := 0
	for b, err := range w.s.Batches(ctx, from) {
		if err != nil {
			return err
		}
		if b.First >= to {
			break
		}
		c, err := replaced(b, replace)
		if err != nil {
			return fmt.Errorf("audit/sqlstore: prune: %w", err)
		}
		list = append(list, c)
		if size += c.bytes; size >= pageBytes || len(list) == pageRows {
			if err := w.store(ctx, list); err != nil {
				return w.s.wrap("prune", err)
			}
			list, size = list[:0], 0
		}
	}
	return w.s.wrap("prune", w.store(ctx, list))
}

// change is a batch and what comes in its place.
type change struct {
	first  int64
	events int64
	crc    int64
	parts  []driver.Batch
	bytes  int
}

func replaced(b driver.Batch, replace func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error]) (change, error) {
	c := change{first: int64(b.First), events: int64(b.Count), crc: int64(checksum(b))}
	next, end := b.First, b.First+uint64(b.Count)
	for p, err := range replace(func(yield func(driver.Batch, error) bool) { yield(b, nil) }) {
		if err != nil {
			return c, err
		}
		if p.First != next || p.Count == 0 || len(p.Data) > maxData || uint64(p.Count) > end-next {
			return c, errors.New("the new batches do not cover the old one")
		}
		next += uint64(p.Count)
		p.Data = append([]byte{}, p.Data...) // it is valid until the next step
		c.parts = append(c.parts, p)
		c.bytes += len(p.Data)
	}
	if next != end {
		return c, errors.New("the new batches do not cover the old one")
	}
	return c, nil
}

// store makes changes in one transaction.
func (w *writer) store(ctx context.Context, list []change) error {
	if len(list) == 0 {
		return nil
	}
	s := w.s
	return s.patiently(ctx, func() error {
		conn, err := s.prunes.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		return s.tx(ctx, conn, func() error {
			lock := ""
			if s.dialect == dialect.Postgres {
				lock = " FOR SHARE"
			}
			if err := w.fence(ctx, conn, lock); err != nil {
				return err
			}
			for i := range list {
				c := &list[i]
				p := c.parts[0]
				res, err := conn.ExecContext(ctx, s.dialect.Rebind(`UPDATE audit_batches SET events = ?, crc = ?, data = ?
					WHERE log = ? AND first = ? AND events = ? AND crc = ?`),
					int64(p.Count), int64(checksum(p)), p.Data, s.log, c.first, c.events, c.crc)
				if err != nil {
					return err
				}
				if n, err := res.RowsAffected(); err != nil || n != 1 {
					return errors.Join(err, problem("a batch changed while it was pruned"))
				}
				for _, p := range c.parts[1:] {
					if _, err := conn.ExecContext(ctx, s.dialect.Rebind("INSERT INTO audit_batches (log, first, events, crc, data) VALUES (?, ?, ?, ?, ?)"),
						s.log, int64(p.First), int64(p.Count), int64(checksum(p)), p.Data); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

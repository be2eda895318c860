package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/internal/dialect"
)

// checkSecureDelete refuses an SQLite connection that would leave destroyed keys in its files.
func (s *Store) checkSecureDelete(ctx context.Context) error {
	if s.dialect != dialect.SQLite {
		return nil
	}
	var secure int
	if err := s.db.QueryRowContext(ctx, "PRAGMA secure_delete").Scan(&secure); err != nil {
		return s.wrap("open", err)
	}
	if secure != 1 { // 2 is "fast", which leaves old bytes on free pages
		return errors.New("encrypt/sqlstore: SQLite without secure_delete keeps destroyed keys: open it with _pragma=secure_delete(1)")
	}
	var journal string
	if err := s.db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return s.wrap("open", err)
	}
	if journal == "persist" {
		return errors.New("encrypt/sqlstore: journal_mode persist keeps destroyed keys: use wal or delete")
	}
	return nil
}

// Clean removes what destroyed keys left in the database's own files, as far as the database can: on SQLite
// it empties the write-ahead log, once, without waiting for readers; on PostgreSQL it runs VACUUM on the key table.
// Erase has tried that already. Call it, now and then, when Erase answered [keys.ErrTraces], or to learn
// whether something is left. Errors: [keys.ErrTraces] while a reader is in the way, and those of the
// database. PostgreSQL only warns a role that does not own the table, and an old transaction keeps the
// bytes without any error.
func (s *Store) Clean(ctx context.Context) error {
	if s.dialect == dialect.SQLite {
		return s.truncate(ctx)
	}
	// Without its index passes VACUUM visits only pages that changed since the last one: a millisecond among
	// 100,000 keys. The indexes hold no wrapped key. Where another VACUUM runs already, this one is not needed.
	_, err := s.db.ExecContext(ctx, "VACUUM (INDEX_CLEANUP OFF, TRUNCATE OFF, SKIP_LOCKED) encrypt_key")
	return s.wrap("vacuum", err)
}

// forget is Clean after an erasure, with patience.
func (s *Store) forget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	if s.dialect != dialect.SQLite {
		_ = s.Clean(ctx) // nothing depends on it: see the package's comment
		return nil
	}
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		// The keys are gone already, so a caller that has given up still gets one try.
		try, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		err := s.truncate(try)
		done()
		if err == nil {
			return nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%w: they are destroyed, their old bytes are in SQLite's write-ahead log", keys.ErrTraces)
		}
	}
}

// mark notes, before the commit, that a transaction will leave old bytes of keys.
func (s *Store) mark() {
	if s.dialect == dialect.SQLite {
		s.traces.Store(true)
	}
}

// sweep tries again what an erasure could not do, when there is something.
func (s *Store) sweep(ctx context.Context) {
	if s.traces.Load() {
		_ = s.truncate(ctx)
	}
}

// truncate empties SQLite's write-ahead log if no reader is in the way, and notes whether it did.
func (s *Store) truncate(ctx context.Context) (err error) {
	s.traces.Store(false) // before the try: an erasure that begins meanwhile raises it again
	defer func() {
		if err != nil {
			s.traces.Store(true)
		}
	}()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return s.wrap("clean", err)
	}
	defer conn.Close()
	// The connection may be told to wait for readers, and would keep all writers waiting with it.
	var timeout int
	if err := conn.QueryRowContext(ctx, "PRAGMA busy_timeout").Scan(&timeout); err != nil {
		return s.wrap("clean", err)
	}
	defer func() {
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf("PRAGMA busy_timeout = %d", timeout)); err != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // not to be used again
		}
	}()
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return s.wrap("clean", err)
	}
	var busy, frames, moved int
	switch err := conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); {
	case dialect.IsRetryable(err), err == nil && busy != 0:
		return fmt.Errorf("%w: SQLite's write-ahead log is in use", keys.ErrTraces)
	case errors.Is(err, sql.ErrNoRows):
		return nil
	default:
		return s.wrap("clean", err)
	}
}

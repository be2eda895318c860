// Package sqlstore keeps wrapped key records in SQLite or PostgreSQL. It passes
// encrypttest.TestKeyStore on both.
//
// # Where a destroyed key survives
//
// Deleting a row destroys nothing by itself: databases keep old bytes. What ends every copy, wherever it
// lies, is the end of the epoch: Keeper.Rotate with a KEK that can trim its versions. Until then this
// package does what the database allows.
//
// On SQLite the connection must have secure_delete on, which Open checks, so that freed bytes are
// overwritten. That alone is not enough: a page that SQLite rebuilds to balance its tree keeps stale copies
// of rows in its free room (one in 3,000 wrapped keys in our test). So rows here are appended, never
// deleted and never grow, which leaves SQLite nothing to balance. After keys were destroyed the
// write-ahead log is copied back and cut to nothing. A
// reader of an older snapshot, such as a running backup, prevents that. Erase then waits for
// [Options].Patience; when the reader is still there, it returns its number together with
// [keys.ErrTraces]: the erasure is done and stays done, and only the old bytes in the log are left. The next
// change through this Store removes them, or a call of [Store.Clean], or the next Open. Bytes of a
// truncated or deleted file may stay on the disk's own blocks; only encryption of the disk or the end of
// the epoch helps there.
//
// On PostgreSQL nothing is overwritten in place. Erase runs VACUUM on the key table, which gives the room of
// dead rows free unless an old transaction still sees them; some bytes stay until a new row needs that
// room, and the write-ahead log, its archive, base backups and replicas keep theirs for as long as they
// live. Keep the keys in a database cluster of their own whose WAL archive is short, or rely on the end of
// the epoch alone. An error of that VACUUM is not one of Erase, which promises nothing that depends on
// it; Clean returns it.
package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Options of Open.
type Options struct {
	// Reads is a second handle for queries, such as SQLite's read-only one; nil = the first. It sees every
	// commit at once: a replica that lags would let erased keys serve.
	Reads *sql.DB
	// Patience bounds how long Erase waits for SQLite's readers after it has committed, and how long
	// PostgreSQL's VACUUM may take then; 0 = 10 s. The caller's context bounds both too.
	Patience time.Duration
}

// Store is a keys.Store in SQL.
type Store struct {
	db, reads *sql.DB
	dialect   dialect.Dialect
	patience  time.Duration
	traces    atomic.Bool // destroyed keys may still lie in SQLite's write-ahead log

	number, byIDs, byPersons atomic.Pointer[sql.Stmt] // prepared on SQLite; pgx keeps those of PostgreSQL by itself
}

const (
	chunk   = 500 // rows or ids of one statement
	retries = 6
)

// Open brings the tables encrypt_key and encrypt_erasure up to date (noted in encrypt_schema) and
// returns the store. dialectName is "sqlite" or "postgres". The handles stay the caller's. On SQLite db
// must have secure_delete on (_pragma=secure_delete(1) in the name of modernc.org/sqlite): it is a setting
// of each connection, so Open cannot make it and answers an error when it is off.
func Open(ctx context.Context, db *sql.DB, dialectName string, opts *Options) (*Store, error) {
	d, err := dialect.Parse(dialectName)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, reads: db, dialect: d, patience: 10 * time.Second}
	if opts != nil {
		if opts.Patience < 0 {
			return nil, errors.New("encrypt/sqlstore: negative Patience")
		}
		s.patience = cmp.Or(opts.Patience, s.patience)
		if opts.Reads != nil {
			s.reads = opts.Reads
		}
	}
	if err := s.checkSecureDelete(ctx); err != nil {
		return nil, err
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db, d, files, "encrypt_schema"); err != nil {
		return nil, err
	}
	// A program that was killed after it destroyed keys has left them in the write-ahead log.
	s.mark()
	s.sweep(ctx)
	return s, nil
}

// wrap keeps the database's words, which may hold values, out of the text.
func (s *Store) wrap(what string, err error) error {
	if err == nil || errors.Is(err, keys.ErrRetired) {
		return err
	}
	return &storeError{what: what, code: dialect.Code(err), err: err}
}

type storeError struct {
	what, code string
	err        error
}

// Error names the operation and the database's code only.
func (e *storeError) Error() string {
	if e.code == "" {
		return "encrypt/sqlstore: " + e.what
	}
	return fmt.Sprintf("encrypt/sqlstore: %s (%s)", e.what, e.code)
}

// Unwrap returns the database's error.
func (e *storeError) Unwrap() error { return e.err }

// change is tx, and tries again what an earlier erasure could not remove.
func (s *Store) change(ctx context.Context, what string, f func(*tx) error) error {
	err := s.tx(ctx, what, f)
	if err == nil {
		s.sweep(ctx)
	}
	return err
}

// tx runs f in a transaction, again when the database asks for it.
func (s *Store) tx(ctx context.Context, what string, f func(*tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.once(ctx, f)
		if err == nil || attempt == retries || !dialect.IsRetryable(err) {
			return s.wrap(what, err)
		}
		pause := time.NewTimer(time.Duration(attempt*attempt) * 5 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return s.wrap(what, ctx.Err())
		}
	}
}

func (s *Store) once(ctx context.Context, f func(*tx) error) error {
	var opts *sql.TxOptions
	if s.dialect == dialect.Postgres {
		// Row locks order the writers, and what was committed before a lock was given must be seen.
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	t, err := s.db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer t.Rollback()
	if err := f(&tx{Tx: t, dialect: s.dialect}); err != nil {
		return err
	}
	return t.Commit()
}

// tx is one transaction. Its locks are taken in one order everywhere: the tenant's erasure number, epoch
// keys by id, other records.
type tx struct {
	*sql.Tx
	dialect dialect.Dialect
}

func (t *tx) exec(ctx context.Context, text string, args ...any) (int64, error) {
	res, err := t.ExecContext(ctx, t.dialect.Rebind(text), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (t *tx) row(ctx context.Context, text string, args ...any) *sql.Row {
	return t.QueryRowContext(ctx, t.dialect.Rebind(text), args...)
}

// raise raises the tenant's erasure number and locks it until commit: whoever sees a number sees all that
// belongs to it.
func (t *tx) raise(ctx context.Context, tenant string) (number int64, err error) {
	err = t.row(ctx, `INSERT INTO encrypt_erasure (tenant, number) VALUES (?, 2)
		ON CONFLICT (tenant) DO UPDATE SET number = encrypt_erasure.number + 1 RETURNING number`, tenant).Scan(&number)
	return number, err
}

// fence raises the fence of a KEK by so much, and holds it until commit.
func (t *tx) fence(ctx context.Context, kek string, by int) (number int64, err error) {
	err = t.row(ctx, `INSERT INTO encrypt_fence (kek, number) VALUES (?, ?)
		ON CONFLICT (kek) DO UPDATE SET number = encrypt_fence.number + excluded.number RETURNING number`, kek, by).Scan(&number)
	return number, err
}

// unfenced refuses new epoch keys that were wrapped before their KEK's fence was raised.
func (t *tx) unfenced(ctx context.Context, tenant string, epochs []keys.Record) error {
	for i := range epochs {
		r := &epochs[i]
		number, err := t.fence(ctx, r.Purpose, 0)
		if err != nil {
			return err
		}
		if uint64(number) == r.Fence {
			continue
		}
		var n int
		if err := t.row(ctx, "SELECT count(*) FROM encrypt_key WHERE tenant = ? AND (id = ? OR slot = ?)",
			tenant, r.ID[:], r.Slot()).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return keys.ErrRetired
		}
	}
	return nil
}

// lower takes raise back: nothing has changed.
func (t *tx) lower(ctx context.Context, tenant string, number int64) error {
	_, err := t.exec(ctx, "UPDATE encrypt_erasure SET number = ? WHERE tenant = ?", number-1, tenant)
	return err
}

// lock returns which of these ids are epoch keys, and whether they are alive, and holds them until commit
// so that no other transaction retires them (strength SHARE) or uses them either (UPDATE).
func (t *tx) lock(ctx context.Context, tenant string, ids []keys.ID, strength string) (map[keys.ID]bool, error) {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, compareIDs)
	ids = slices.Compact(ids)
	text := "SELECT length(wrapped) FROM encrypt_key WHERE tenant = ? AND id = ? AND kind = 'epoch'"
	if t.dialect == dialect.Postgres { // SQLite has one writer and needs no word for it
		text += " FOR " + strength
	}
	out := make(map[keys.ID]bool, len(ids))
	for _, id := range ids {
		var n int64
		switch err := t.row(ctx, text, tenant, id[:]).Scan(&n); {
		case err == nil:
			out[id] = n > 0
		case !errors.Is(err, sql.ErrNoRows):
			return nil, err
		}
	}
	return out, nil
}

// aboveOf returns the epoch keys that records name. Those without one are epoch keys, joins and retired keys.
func aboveOf(records []keys.Record) (ids []keys.ID) {
	seen := make(map[keys.ID]bool)
	for i := range records {
		if r := &records[i]; !free(r) && !seen[r.Epoch] {
			seen[r.Epoch] = true
			ids = append(ids, r.Epoch)
		}
	}
	return ids
}

func free(r *keys.Record) bool {
	return r.Kind == keys.EpochKey || r.Kind == keys.Join || len(r.Wrapped) == 0 && r.Epoch == keys.ID{}
}

// Add implements keys.Store.
func (s *Store) Add(ctx context.Context, tenant string, records []keys.Record) error {
	_, err := s.AddCounted(ctx, tenant, records)
	return err
}

// AddCounted implements keys.Counting.
func (s *Store) AddCounted(ctx context.Context, tenant string, records []keys.Record) (int, error) {
	if len(records) == 0 {
		return 0, nil
	}
	var epochs, others []keys.Record
	raise := false
	for _, r := range records {
		r.Tenant = tenant
		switch r.Kind {
		case keys.EpochKey:
			epochs = append(epochs, r)
		case keys.Tombstone:
			return 0, errors.New("encrypt/sqlstore: tombstones are added by Erase")
		default:
			others = append(others, r)
			raise = raise || newVersion(&r)
		}
	}
	// One order for all writers, so that they wait for each other and never in a circle.
	slices.SortFunc(others, func(a, b keys.Record) int { return strings.Compare(a.Slot(), b.Slot()) })
	var count int64
	err := s.change(ctx, "add", func(t *tx) error {
		var number int64
		var err error
		if raise {
			if number, err = t.raise(ctx, tenant); err != nil {
				return err
			}
		}
		if err := t.unfenced(ctx, tenant, epochs); err != nil {
			return err
		}
		if count, err = t.insert(ctx, epochs); err != nil {
			return err
		}
		alive, err := t.lock(ctx, tenant, aboveOf(others), "SHARE")
		if err != nil {
			return err
		}
		var versions, fresh []keys.Record
		for _, r := range others {
			if !free(&r) && !alive[r.Epoch] {
				var n int
				if err := t.row(ctx, "SELECT count(*) FROM encrypt_key WHERE tenant = ? AND (id = ? OR slot = ?)",
					tenant, r.ID[:], r.Slot()).Scan(&n); err != nil {
					return err
				}
				if n == 0 {
					return keys.ErrRetired
				}
				continue // taken: skipped, whatever wraps it
			}
			if newVersion(&r) {
				versions = append(versions, r)
			} else {
				fresh = append(fresh, r)
			}
		}
		added, err := t.insert(ctx, versions)
		if err != nil {
			return err
		}
		if raise && added == 0 {
			if err := t.lower(ctx, tenant, number); err != nil {
				return err
			}
		}
		persons, err := t.insert(ctx, fresh)
		count += added + persons
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(count), nil
}

// newVersion tells whether a record makes cached tenant keys wrong.
func newVersion(r *keys.Record) bool { return r.Kind == keys.TenantKey && r.Version > 1 }

// Rewrap implements keys.Store.
func (s *Store) Rewrap(ctx context.Context, tenant string, records []keys.Record) error {
	if len(records) == 0 {
		return nil
	}
	sorted := slices.Clone(records)
	slices.SortFunc(sorted, byID)
	var epochs []keys.ID
	for i := range sorted {
		epochs = append(epochs, sorted[i].Epoch)
	}
	return s.change(ctx, "rewrap", func(t *tx) error {
		alive, err := t.lock(ctx, tenant, epochs, "SHARE")
		if err != nil {
			return err
		}
		set, err := t.PrepareContext(ctx, t.dialect.Rebind(`UPDATE encrypt_key SET epoch = ?, wrapped = ?
			WHERE tenant = ? AND id = ? AND kind = ? AND kind IN ('person', 'tenant') AND length(wrapped) > 0`))
		if err != nil {
			return err
		}
		defer set.Close()
		for i := range sorted {
			r := &sorted[i]
			if !alive[r.Epoch] {
				return keys.ErrRetired
			}
			if _, err := set.ExecContext(ctx, r.Epoch[:], notNull(r.Wrapped), tenant, r.ID[:], string(r.Kind)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Retire implements keys.Store. On SQLite it tries once to remove the old bytes; later changes try again.
func (s *Store) Retire(ctx context.Context, tenant string, ids ...keys.ID) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	s.mark()
	inUse := 0
	err := s.change(ctx, "retire", func(t *tx) error {
		inUse = 0
		var others []any
		for part := range slices.Chunk(ids, chunk) {
			found, err := t.keysAmong(ctx, tenant, part)
			if err != nil {
				return err
			}
			others = append(others, found...)
		}
		if len(others) > 0 {
			number, err := t.raise(ctx, tenant)
			if err != nil {
				return err
			}
			changed := false
			for part := range slices.Chunk(others, chunk) {
				n, err := t.exec(ctx, `UPDATE encrypt_key SET epoch = ?, wrapped = ? WHERE tenant = ?
					AND kind IN ('person', 'tenant') AND length(wrapped) > 0 AND id IN `+dialect.Placeholders(1, len(part)),
					append([]any{make([]byte, 8), []byte{}, tenant}, part...)...)
				if err != nil {
					return err
				}
				changed = changed || n > 0
			}
			if !changed {
				if err := t.lower(ctx, tenant, number); err != nil {
					return err
				}
			}
		}
		if len(others) == len(ids) {
			return nil
		}
		// The lock first, then the count: whoever adds a key under this epoch holds the row.
		epochs, err := t.lock(ctx, tenant, ids, "UPDATE")
		if err != nil {
			return err
		}
		for id, alive := range epochs {
			var n int
			if err := t.row(ctx, "SELECT count(*) FROM encrypt_key WHERE tenant = ? AND epoch = ?", tenant, id[:]).Scan(&n); err != nil {
				return err
			}
			inUse += n
			if n > 0 || !alive {
				continue
			}
			if _, err := t.exec(ctx, "UPDATE encrypt_key SET wrapped = ? WHERE tenant = ? AND id = ? AND kind = 'epoch'",
				[]byte{}, tenant, id[:]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return inUse, nil
}

// keysAmong returns which ids are person or tenant keys.
func (t *tx) keysAmong(ctx context.Context, tenant string, ids []keys.ID) (out []any, err error) {
	args := []any{tenant}
	for i := range ids {
		args = append(args, ids[i][:])
	}
	rows, err := t.QueryContext(ctx, t.dialect.Rebind("SELECT id FROM encrypt_key WHERE tenant = ? AND kind IN ('person', 'tenant') AND id IN "+
		dialect.Placeholders(1, len(ids))+" ORDER BY id"), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id []byte
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

// Block implements keys.Store.
func (s *Store) Block(ctx context.Context, tenant string, ids []keys.ID, at time.Time) error {
	if len(ids) == 0 {
		return nil
	}
	blocked := blockedValue(at)
	sorted := slices.Clone(ids)
	slices.SortFunc(sorted, compareIDs)
	return s.change(ctx, "block", func(t *tx) error {
		number, err := t.raise(ctx, tenant)
		if err != nil {
			return err
		}
		var changed int64
		for _, id := range sorted {
			n, err := t.exec(ctx, "UPDATE encrypt_key SET blocked = ? WHERE tenant = ? AND id = ? AND kind = 'person' AND blocked <> ?",
				blocked, tenant, id[:], blocked)
			if err != nil {
				return err
			}
			changed += n
		}
		if changed == 0 {
			return t.lower(ctx, tenant, number)
		}
		return nil
	})
}

// Erase implements keys.Store. With [keys.ErrTraces] the keys are destroyed all the same, and the number is valid.
func (s *Store) Erase(ctx context.Context, tenant string, tombstones []keys.Record) (uint64, error) {
	sorted := slices.Clone(tombstones)
	slices.SortStableFunc(sorted, byID)
	s.mark()
	var number int64
	err := s.tx(ctx, "erase", func(t *tx) error {
		var err error
		if number, err = t.raise(ctx, tenant); err != nil {
			return err
		}
		fresh := false
		for i := range sorted {
			r := &keys.Record{
				Tenant: tenant, ID: sorted[i].ID, Kind: keys.Tombstone, Retention: sorted[i].Retention,
				Wrapped: sorted[i].Wrapped, Commitment: sorted[i].Commitment, Created: sorted[i].Created, Number: uint64(number),
			}
			n, err := t.exec(ctx, `UPDATE encrypt_key SET slot = ?, kind = 'tombstone', version = 0, purpose = '', person = ?,
				retention = ?, epoch = ?, wrapped = ?, commitment = ?, created = ?, number = ?, blocked = `+notBlockedText+`
				WHERE tenant = ? AND id = ? AND kind = 'person'`,
				r.Slot(), r.Person[:], string(r.Retention), r.Epoch[:], notNull(r.Wrapped), notNull(r.Commitment),
				r.Created.Unix(), number, tenant, r.ID[:])
			if err != nil {
				return err
			}
			if n == 0 {
				if n, err = t.insert(ctx, []keys.Record{*r}); err != nil {
					return err
				}
			}
			fresh = fresh || n > 0
		}
		if !fresh {
			err = t.lower(ctx, tenant, number)
			number--
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return uint64(number), s.forget(ctx)
}

// Erasures implements keys.Store.
func (s *Store) Erasures(ctx context.Context, tenant string) (uint64, error) {
	var n int64
	err := s.erasures(ctx, tenant, &n)
	if errors.Is(err, sql.ErrNoRows) {
		return 1, nil
	}
	return uint64(n), s.wrap("erasure number", err)
}

// erasures reads the number, which every operation on a record asks for.
func (s *Store) erasures(ctx context.Context, tenant string, n *int64) error {
	const text = "SELECT number FROM encrypt_erasure WHERE tenant = ?"
	if s.dialect != dialect.SQLite {
		return s.reads.QueryRowContext(ctx, s.dialect.Rebind(text), tenant).Scan(n)
	}
	stmt, err := s.prepared(ctx, &s.number, text)
	if err != nil {
		return err
	}
	return stmt.QueryRowContext(ctx, tenant).Scan(n)
}

// prepared returns a statement that is prepared once.
func (s *Store) prepared(ctx context.Context, at *atomic.Pointer[sql.Stmt], text string) (*sql.Stmt, error) {
	stmt := at.Load()
	if stmt == nil {
		made, err := s.reads.PrepareContext(ctx, text)
		if err != nil {
			return nil, err
		}
		if stmt = made; !at.CompareAndSwap(nil, made) {
			stmt = at.Load()
			made.Close()
		}
	}
	return stmt, nil
}

// Fence implements keys.Store.
func (s *Store) Fence(ctx context.Context, kek string) (uint64, error) {
	var n int64
	err := s.reads.QueryRowContext(ctx, s.dialect.Rebind("SELECT number FROM encrypt_fence WHERE kek = ?"), kek).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return uint64(n), s.wrap("fence", err)
}

// Package sqlstore keeps wrapped key records in SQLite or PostgreSQL. It passes
// encrypttest.TestKeyStore on both.
//
// On PostgreSQL it may have a database of its own with a short WAL archive, so that destroyed keys
// are soon gone from every copy. On SQLite the connection is opened with secure_delete, and the
// write-ahead log is emptied after keys were destroyed.
package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Options of Open.
type Options struct {
	Reads *sql.DB // a second handle for queries, such as SQLite's read-only one; nil = the first
}

// Store is an keys.Store in SQL.
type Store struct {
	db, reads *sql.DB
	dialect   dialect.Dialect
}

const columns = "tenant, id, slot, kind, version, purpose, person, retention, epoch, wrapped, commitment, created, number"

const (
	columnCount = 13
	chunk       = 500 // rows or ids of one statement
	retries     = 6
)

// Open brings the tables encrypt_key and encrypt_erasure up to date (noted in encrypt_schema) and
// returns the store. dialectName is "sqlite" or "postgres". The handles stay the caller's.
func Open(ctx context.Context, db *sql.DB, dialectName string, opts *Options) (*Store, error) {
	d, err := dialect.Parse(dialectName)
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db, d, files, "encrypt_schema"); err != nil {
		return nil, err
	}
	s := &Store{db: db, reads: db, dialect: d}
	if opts != nil && opts.Reads != nil {
		s.reads = opts.Reads
	}
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

// Find implements keys.Store.
func (s *Store) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	base := "SELECT " + columns + " FROM encrypt_key WHERE tenant = ? AND "
	var out []keys.Record
	var err error
	switch {
	case q.IDs != nil:
		for part := range slices.Chunk(q.IDs, chunk) {
			args := []any{tenant}
			for _, id := range part {
				args = append(args, id[:])
			}
			if out, err = s.query(ctx, out, base+"id IN "+dialect.Placeholders(1, len(part)), args); err != nil {
				return nil, err
			}
		}
		slices.SortFunc(out, byID)
		return slices.CompactFunc(out, func(a, b keys.Record) bool { return a.ID == b.ID }), nil
	case q.Persons != nil:
		for part := range slices.Chunk(q.Persons, chunk) {
			args := []any{tenant}
			for _, p := range part {
				args = append(args, p[:])
			}
			if out, err = s.query(ctx, out, base+"kind = 'person' AND person IN "+dialect.Placeholders(1, len(part)), args); err != nil {
				return nil, err
			}
		}
		slices.SortFunc(out, byID)
		return slices.CompactFunc(out, func(a, b keys.Record) bool { return a.ID == b.ID }), nil
	case q.Tenant:
		return s.query(ctx, nil, base+"kind IN ('epoch', 'tenant') ORDER BY id", []any{tenant})
	case q.All:
		args := []any{tenant, q.After[:]}
		text := base + "id > ?"
		if q.Under != (keys.ID{}) {
			text += " AND epoch = ?"
			args = append(args, q.Under[:])
		}
		text += " ORDER BY id"
		if q.Limit > 0 {
			text += fmt.Sprintf(" LIMIT %d", q.Limit)
		}
		return s.query(ctx, nil, text, args)
	default:
		return s.query(ctx, nil, base+"kind = 'tombstone' AND number > ? ORDER BY id", []any{tenant, int64(q.Since)})
	}
}

func byID(a, b keys.Record) int { return bytes.Compare(a.ID[:], b.ID[:]) }

func (s *Store) query(ctx context.Context, out []keys.Record, text string, args []any) ([]keys.Record, error) {
	rows, err := s.reads.QueryContext(ctx, s.dialect.Rebind(text), args...)
	if err != nil {
		return nil, s.wrap("find", err)
	}
	defer rows.Close()
	var id, person, epoch []byte
	var slot string
	var version, created, number int64
	for rows.Next() {
		var r keys.Record
		if err := rows.Scan(&r.Tenant, &id, &slot, &r.Kind, &version, &r.Purpose, &person, &r.Retention,
			&epoch, &r.Wrapped, &r.Commitment, &created, &number); err != nil {
			return nil, s.wrap("find", err)
		}
		if len(id) != 8 || len(person) != 16 || len(epoch) != 8 {
			return nil, fmt.Errorf("%w: key record", keys.ErrTampered)
		}
		copy(r.ID[:], id)
		copy(r.Person[:], person)
		copy(r.Epoch[:], epoch)
		r.Version, r.Number, r.Created = uint32(version), uint64(number), time.Unix(created, 0).UTC()
		if r.Slot() != slot { // a row that was moved into another's place
			return nil, fmt.Errorf("%w: key record", keys.ErrTampered)
		}
		out = append(out, r)
	}
	return out, s.wrap("find", rows.Err())
}

// tx runs f in a transaction, again when the database asks for it.
func (s *Store) tx(ctx context.Context, what string, f func(*sql.Tx) error) error {
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

func (s *Store) once(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// forShare locks rows against Retire. SQLite has one writer and needs no word for it.
func (s *Store) forShare(word string) string {
	if s.dialect == dialect.Postgres {
		return " FOR " + word
	}
	return ""
}

// alive returns which of the epoch keys exist and are not retired, and holds them so until commit.
func (s *Store) alive(ctx context.Context, tx *sql.Tx, tenant string, records []keys.Record) (map[keys.ID]bool, error) {
	var want []keys.ID
	for _, r := range records {
		if r.Kind != keys.EpochKey && !slices.Contains(want, r.Epoch) {
			want = append(want, r.Epoch)
		}
	}
	out := make(map[keys.ID]bool, len(want))
	for _, id := range want {
		var n int64
		err := tx.QueryRowContext(ctx, s.dialect.Rebind("SELECT length(wrapped) FROM encrypt_key WHERE tenant = ? AND id = ? AND kind = 'epoch'")+
			s.forShare("SHARE"), tenant, id[:]).Scan(&n)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		out[id] = err == nil && n > 0
	}
	return out, nil
}

// Add implements keys.Store.
func (s *Store) Add(ctx context.Context, tenant string, records []keys.Record) error {
	if len(records) == 0 {
		return nil
	}
	var epochs, others []keys.Record
	for _, r := range records {
		r.Tenant = tenant
		switch r.Kind {
		case keys.EpochKey:
			epochs = append(epochs, r)
		case keys.Tombstone:
			return errors.New("encrypt/sqlstore: tombstones are added by Erase")
		default:
			others = append(others, r)
		}
	}
	// One order for all writers, so that they wait for each other and never in a circle.
	slices.SortFunc(others, func(a, b keys.Record) int { return strings.Compare(a.Slot(), b.Slot()) })
	return s.tx(ctx, "add", func(tx *sql.Tx) error {
		if err := s.insert(ctx, tx, epochs); err != nil {
			return err
		}
		alive, err := s.alive(ctx, tx, tenant, others)
		if err != nil {
			return err
		}
		var fresh []keys.Record
		for _, r := range others {
			if alive[r.Epoch] {
				fresh = append(fresh, r)
				continue
			}
			var n int
			err := tx.QueryRowContext(ctx, s.dialect.Rebind("SELECT count(*) FROM encrypt_key WHERE tenant = ? AND (id = ? OR slot = ?)"),
				tenant, r.ID[:], r.Slot()).Scan(&n)
			if err != nil {
				return err
			}
			if n == 0 {
				return keys.ErrRetired
			}
		}
		return s.insert(ctx, tx, fresh)
	})
}

func (s *Store) insert(ctx context.Context, tx *sql.Tx, records []keys.Record) error {
	for part := range slices.Chunk(records, chunk) {
		args := make([]any, 0, len(part)*columnCount)
		for i := range part {
			r := &part[i]
			args = append(args, r.Tenant, r.ID[:], r.Slot(), string(r.Kind), int64(r.Version), r.Purpose, r.Person[:],
				string(r.Retention), r.Epoch[:], notNull(r.Wrapped), notNull(r.Commitment), r.Created.Unix(), int64(r.Number))
		}
		if _, err := tx.ExecContext(ctx, s.dialect.Rebind("INSERT INTO encrypt_key ("+columns+") VALUES "+
			dialect.Placeholders(len(part), columnCount)+" ON CONFLICT DO NOTHING"), args...); err != nil {
			return err
		}
	}
	return nil
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Rewrap implements keys.Store.
func (s *Store) Rewrap(ctx context.Context, tenant string, records []keys.Record) error {
	if len(records) == 0 {
		return nil
	}
	return s.tx(ctx, "rewrap", func(tx *sql.Tx) error {
		alive, err := s.alive(ctx, tx, tenant, records)
		if err != nil {
			return err
		}
		set, err := tx.PrepareContext(ctx, s.dialect.Rebind("UPDATE encrypt_key SET epoch = ?, wrapped = ? WHERE tenant = ? AND id = ? AND kind = ?"))
		if err != nil {
			return err
		}
		defer set.Close()
		for i := range records {
			r := &records[i]
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

// Retire implements keys.Store.
func (s *Store) Retire(ctx context.Context, tenant string, epoch keys.ID) (int, error) {
	inUse := 0
	err := s.tx(ctx, "retire", func(tx *sql.Tx) error {
		// The lock first, then the count: whoever adds a key under this epoch holds the row.
		var n int64
		err := tx.QueryRowContext(ctx, s.dialect.Rebind("SELECT length(wrapped) FROM encrypt_key WHERE tenant = ? AND id = ? AND kind = 'epoch'")+
			s.forShare("UPDATE"), tenant, epoch[:]).Scan(&n)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := tx.QueryRowContext(ctx, s.dialect.Rebind("SELECT count(*) FROM encrypt_key WHERE tenant = ? AND epoch = ?"),
			tenant, epoch[:]).Scan(&inUse); err != nil || inUse > 0 {
			return err
		}
		_, err = tx.ExecContext(ctx, s.dialect.Rebind("UPDATE encrypt_key SET wrapped = ? WHERE tenant = ? AND id = ? AND kind = 'epoch'"),
			[]byte{}, tenant, epoch[:])
		return err
	})
	if err == nil && inUse == 0 {
		s.forget(ctx)
	}
	return inUse, err
}

// Erase implements keys.Store.
func (s *Store) Erase(ctx context.Context, tenant string, tombstones []keys.Record) (uint64, error) {
	sorted := slices.Clone(tombstones)
	slices.SortFunc(sorted, byID)
	var number int64
	err := s.tx(ctx, "erase", func(tx *sql.Tx) error {
		// The tenant's row is locked until commit: whoever sees a number sees all its tombstones.
		if err := tx.QueryRowContext(ctx, s.dialect.Rebind(`INSERT INTO encrypt_erasure (tenant, number) VALUES (?, 2)
			ON CONFLICT (tenant) DO UPDATE SET number = encrypt_erasure.number + 1 RETURNING number`), tenant).Scan(&number); err != nil {
			return err
		}
		fresh := false
		for i := range sorted {
			r := &sorted[i]
			r.Tenant, r.Kind, r.Number, r.Person, r.Epoch = tenant, keys.Tombstone, uint64(number), [16]byte{}, keys.ID{}
			res, err := tx.ExecContext(ctx, s.dialect.Rebind(`UPDATE encrypt_key SET slot = ?, kind = 'tombstone', version = 0, purpose = '',
				person = ?, retention = ?, epoch = ?, wrapped = ?, commitment = ?, created = ?, number = ?
				WHERE tenant = ? AND id = ? AND kind = 'person'`),
				r.Slot(), r.Person[:], string(r.Retention), r.Epoch[:], notNull(r.Wrapped), notNull(r.Commitment), r.Created.Unix(), number, tenant, r.ID[:])
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			if n == 0 {
				res, err := tx.ExecContext(ctx, s.dialect.Rebind("INSERT INTO encrypt_key ("+columns+") VALUES "+
					dialect.Placeholders(1, columnCount)+" ON CONFLICT DO NOTHING"), tenant, r.ID[:], r.Slot(), string(r.Kind), int64(0), "",
					r.Person[:], string(r.Retention), r.Epoch[:], notNull(r.Wrapped), notNull(r.Commitment), r.Created.Unix(), number)
				if err != nil {
					return err
				}
				if n, err = res.RowsAffected(); err != nil {
					return err
				}
			}
			fresh = fresh || n > 0
		}
		if !fresh {
			number--
			_, err := tx.ExecContext(ctx, s.dialect.Rebind("UPDATE encrypt_erasure SET number = ? WHERE tenant = ?"), number, tenant)
			return err
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.forget(ctx)
	return uint64(number), nil
}

// forget empties SQLite's write-ahead log, which still holds the wrapped keys that were destroyed. A
// reader in the way leaves it to the next checkpoint.
func (s *Store) forget(ctx context.Context) {
	if s.dialect != dialect.SQLite {
		return
	}
	for range 3 {
		var busy, frames, moved int
		err := s.db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
		if err != nil || busy == 0 {
			return
		}
	}
}

// Erasures implements keys.Store.
func (s *Store) Erasures(ctx context.Context, tenant string) (uint64, error) {
	var n int64
	err := s.reads.QueryRowContext(ctx, s.dialect.Rebind("SELECT number FROM encrypt_erasure WHERE tenant = ?"), tenant).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 1, nil
	}
	return uint64(n), s.wrap("erasure number", err)
}

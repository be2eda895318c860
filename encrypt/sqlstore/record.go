package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/internal/dialect"
)

const (
	columns     = "tenant, id, slot, kind, version, purpose, person, retention, epoch, wrapped, commitment, created, number, blocked"
	columnCount = 14
	selectKeys  = "SELECT " + columns + " FROM encrypt_key WHERE "
)

func byID(a, b keys.Record) int    { return compareIDs(a.ID, b.ID) }
func compareIDs(a, b keys.ID) int  { return bytes.Compare(a[:], b[:]) }
func sameID(a, b keys.Record) bool { return a.ID == b.ID }

// Find implements keys.Store.
func (s *Store) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	switch {
	case q.IDs != nil && s.dialect == dialect.SQLite:
		return s.oneByOne(ctx, &s.byIDs, textOfIDs, tenant, joined(len(q.IDs), func(i int) []byte { return q.IDs[i][:] }), 8)
	case q.IDs != nil:
		var args []any
		for i := range q.IDs {
			args = append(args, q.IDs[i][:])
		}
		return s.among(ctx, nil, tenant, "id", args)
	case q.Persons != nil && s.dialect == dialect.SQLite:
		return s.oneByOne(ctx, &s.byPersons, textOfPersons, tenant, joined(len(q.Persons), func(i int) []byte { return q.Persons[i][:] }), 16)
	case q.Persons != nil: // PostgreSQL orders slots by the language of the database
		return s.among(ctx, nil, tenant, "kind = 'person' AND person", persons(q.Persons))
	case q.Joins != nil:
		out, err := s.among(ctx, nil, tenant, "kind = 'join' AND person", persons(q.Joins))
		if err != nil {
			return nil, err
		}
		var others []any
		for i := range q.Joins {
			others = append(others, hex.EncodeToString(q.Joins[i][:]))
		}
		return s.among(ctx, out, tenant, "kind = 'join' AND purpose <> '' AND purpose", others)
	case q.Tenant:
		return s.query(ctx, nil, selectKeys+"tenant = ? AND kind IN ('epoch', 'tenant') ORDER BY id", tenant)
	case q.Blocked:
		return s.query(ctx, nil, selectKeys+"tenant = ? AND kind = 'person' AND blocked <> "+notBlockedText+" ORDER BY id", tenant)
	case q.All:
		args := []any{tenant, q.After[:]}
		text := selectKeys + "tenant = ? AND id > ?"
		if q.Under != (keys.ID{}) {
			text += " AND epoch = ?"
			args = append(args, q.Under[:])
		}
		text += " ORDER BY id"
		if q.Limit > 0 {
			text += fmt.Sprintf(" LIMIT %d", q.Limit)
		}
		return s.query(ctx, nil, text, args...)
	default:
		return s.query(ctx, nil, selectKeys+"tenant = ? AND kind = 'tombstone' AND number > ? ORDER BY id", tenant, int64(q.Since))
	}
}

// Epochs implements keys.Store.
func (s *Store) Epochs(ctx context.Context, kek string) ([]keys.Record, error) {
	if err := s.change(ctx, "epochs", func(t *tx) error {
		_, err := t.fence(ctx, kek, 1)
		return err
	}); err != nil {
		return nil, err
	}
	// Read after the commit: every Add that held the fence before it has ended, every later one is refused.
	out, err := s.query(ctx, nil, selectKeys+"kind = 'epoch' AND length(wrapped) > 0 AND purpose = ?", kek)
	// Sorted here: a database may order text by its own language.
	slices.SortFunc(out, func(a, b keys.Record) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), byID(a, b)) })
	return out, err
}

func persons(ids [][16]byte) (args []any) {
	for i := range ids {
		args = append(args, ids[i][:])
	}
	return args
}

// The queries of oneByOne: parts of the first parameter, each of so many bytes as the second says, one after the other. A CROSS JOIN goes from left to right
// on SQLite. The slot of a key begins with the person, and SQLite orders slots by their bytes.
const (
	textOfParts = `WITH RECURSIVE parts (part, at) AS (SELECT substr(?1, 1, ?2), 1 + ?2 UNION ALL SELECT substr(?1, at, ?2), at + ?2 FROM parts WHERE at < length(?1)) SELECT ` +
		columns + ` FROM parts CROSS JOIN encrypt_key WHERE tenant = ?3 AND `
	textOfIDs     = textOfParts + "id = part"
	textOfPersons = textOfParts + "slot > 'p:' || lower(hex(part)) || ':' AND slot < 'p:' || lower(hex(part)) || ';'"
)

// joined is n parts in one, in order and each once, for which oneByOne asks.
func joined(n int, part func(i int) []byte) []byte {
	parts := make([][]byte, n)
	for i := range parts {
		parts[i] = part(i)
	}
	slices.SortFunc(parts, bytes.Compare)
	return bytes.Join(slices.CompactFunc(parts, bytes.Equal), nil)
}

// oneByOne finds the records of parts, of so many bytes each, on SQLite. However many there are the statement is one, and stays prepared.
func (s *Store) oneByOne(ctx context.Context, stmt *atomic.Pointer[sql.Stmt], text, tenant string, parts []byte, size int) ([]keys.Record, error) {
	if len(parts) == 0 {
		return nil, nil
	}
	prepared, err := s.prepared(ctx, stmt, text)
	if err != nil {
		return nil, s.wrap("find", err)
	}
	rows, err := prepared.QueryContext(ctx, parts, size, tenant)
	if err != nil {
		return nil, s.wrap("find", err)
	}
	out, err := s.scan(nil, rows)
	slices.SortFunc(out, byID)
	return slices.CompactFunc(out, sameID), err
}

// among appends the records whose column, the last word of where, has one of these values, and orders the
// whole by id.
func (s *Store) among(ctx context.Context, out []keys.Record, tenant, where string, values []any) ([]keys.Record, error) {
	var err error
	for part := range slices.Chunk(values, chunk) {
		text, args := selectKeys+"tenant = ? AND "+where+" IN "+dialect.Placeholders(1, len(part)), append([]any{tenant}, part...)
		if s.dialect == dialect.Postgres {
			// Each value by itself: of a table that has grown since its statistics were made PostgreSQL takes an IN for a reading of the whole tenant.
			kind := "bytea"
			if strings.HasSuffix(where, "purpose") {
				kind = "text"
			}
			text = "SELECT x.* FROM (VALUES " + strings.Repeat("(CAST(? AS "+kind+")), ", len(part)-1) + "(CAST(? AS " + kind + "))) v (k) CROSS JOIN LATERAL (" +
				selectKeys + "tenant = ? AND " + where + " = v.k OFFSET 0) x"
			args = append(slices.Clone(part), tenant)
		}
		if out, err = s.query(ctx, out, text, args...); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, byID)
	return slices.CompactFunc(out, sameID), nil
}

func (s *Store) query(ctx context.Context, out []keys.Record, text string, args ...any) ([]keys.Record, error) {
	rows, err := s.reads.QueryContext(ctx, s.dialect.Rebind(text), args...)
	if err != nil {
		return nil, s.wrap("find", err)
	}
	return s.scan(out, rows)
}

// scan appends the records that rows have, and closes them.
func (s *Store) scan(out []keys.Record, rows *sql.Rows) ([]keys.Record, error) {
	defer rows.Close()
	var id, person, epoch []byte
	var slot string
	var version, created, number, blocked int64
	for rows.Next() {
		var r keys.Record
		if err := rows.Scan(&r.Tenant, &id, &slot, &r.Kind, &version, &r.Purpose, &person, &r.Retention,
			&epoch, &r.Wrapped, &r.Commitment, &created, &number, &blocked); err != nil {
			return nil, s.wrap("find", err)
		}
		if len(id) != 8 || len(person) != 16 || len(epoch) != 8 {
			return nil, fmt.Errorf("%w: key record", keys.ErrTampered)
		}
		copy(r.ID[:], id)
		copy(r.Person[:], person)
		copy(r.Epoch[:], epoch)
		r.Version, r.Number, r.Created = uint32(version), uint64(number), time.Unix(created, 0).UTC()
		if blocked != notBlocked {
			r.Blocked = time.Unix(blocked-notBlocked, 0).UTC()
		}
		if r.Slot() != slot { // a row that was moved into another's place
			return nil, fmt.Errorf("%w: key record", keys.ErrTampered)
		}
		out = append(out, r)
	}
	return out, s.wrap("find", rows.Err())
}

// insert adds records whose id and slot are free, and returns how many those were.
func (t *tx) insert(ctx context.Context, records []keys.Record) (added int64, err error) {
	for part := range slices.Chunk(records, chunk) {
		args := make([]any, 0, len(part)*columnCount)
		for i := range part {
			r := &part[i]
			args = append(args, r.Tenant, r.ID[:], r.Slot(), string(r.Kind), int64(r.Version), r.Purpose, r.Person[:], string(r.Retention),
				r.Epoch[:], notNull(r.Wrapped), notNull(r.Commitment), r.Created.Unix(), int64(r.Number), blockedValue(r.Blocked))
		}
		text := "INSERT INTO encrypt_key (" + columns + ") VALUES " + dialect.Placeholders(len(part), columnCount) + " ON CONFLICT DO NOTHING"
		if t.dialect == dialect.SQLite {
			// The same, for no column is ever NULL. But of a statement that cannot fail SQLite keeps no copy of each page that it changes.
			text = "INSERT OR IGNORE INTO encrypt_key (" + columns + ") VALUES " + dialect.Placeholders(len(part), columnCount)
		}
		n, err := t.exec(ctx, text, args...)
		if err != nil {
			return added, err
		}
		added += n
	}
	return added, nil
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// The column blocked counts Unix seconds from notBlocked. SQLite writes small numbers in fewer bytes, and a
// row that grows may move to another page: these numbers all take eight.
const (
	notBlocked     = 1 << 62
	notBlockedText = "4611686018427387904" // the indexes of the migrations name it
)

func blockedValue(t time.Time) int64 {
	if t.IsZero() {
		return notBlocked
	}
	return notBlocked + t.Unix()
}

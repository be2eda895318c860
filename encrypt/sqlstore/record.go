package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
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
	case q.IDs != nil:
		var args []any
		for i := range q.IDs {
			args = append(args, q.IDs[i][:])
		}
		return s.among(ctx, nil, tenant, "id", args)
	case q.Persons != nil && s.dialect == dialect.SQLite:
		return s.ofPersons(ctx, tenant, q.Persons)
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
		return s.among(ctx, out, tenant, "kind = 'join' AND purpose", others)
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

// ofPersons finds the keys of persons by their slots, which begin with the person, and which SQLite orders by their bytes.
func (s *Store) ofPersons(ctx context.Context, tenant string, ids [][16]byte) (out []keys.Record, err error) {
	for part := range slices.Chunk(ids, chunk) {
		args := make([]any, 0, len(part)+1)
		for i := range part {
			args = append(args, "p:"+hex.EncodeToString(part[i][:]))
		}
		if out, err = s.query(ctx, out, textOfPersons(len(part)), append(args, tenant)...); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, byID)
	return slices.CompactFunc(out, sameID), nil
}

// textOfPersons is the query for the keys of n persons on SQLite: a CROSS JOIN there goes from left to right.
func textOfPersons(n int) string {
	return "WITH v (k) AS (VALUES " + strings.Repeat("(?),", n-1) + "(?)) SELECT " + columns +
		" FROM v CROSS JOIN encrypt_key WHERE tenant = ? AND slot > k || ':' AND slot < k || ';'"
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

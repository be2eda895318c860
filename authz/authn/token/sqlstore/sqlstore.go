// Package sqlstore keeps tokens in SQLite or PostgreSQL, in the table authn_token. It passes tokentest.TestStore on
// both.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz/authn/internal/sqldb"
	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Options of Open.
type Options struct {
	Reads *sql.DB // a second handle for queries, which sees every commit at once; nil = the first
}

// Store is a token.Store in SQL, safe for concurrent use.
type Store struct{ db *sqldb.DB }

// Open brings the table up to date (noted in authn_token_schema) and returns the store. dialectName is "sqlite" or
// "postgres". The handles stay the caller's.
func Open(ctx context.Context, db *sql.DB, dialectName string, opts *Options) (*Store, error) {
	var reads *sql.DB
	if opts != nil {
		reads = opts.Reads
	}
	d, err := sqldb.Open(ctx, "authn/token/sqlstore", db, reads, dialectName, migrations, "authn_token_schema", token.ErrNone, token.ErrExists)
	if err != nil {
		return nil, err
	}
	return &Store{d}, nil
}

const columns = "id, tenant, account, name, made_by, scopes, sources, created, expires, used, revoked, hash, mac"

// stamp is a time in milliseconds, 0 for none.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromStamp(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Add implements token.Store.
func (s *Store) Add(ctx context.Context, r token.Record) error {
	scopes, err := json.Marshal(r.Scopes)
	if err != nil {
		return err
	}
	sources, err := json.Marshal(r.Sources)
	if err != nil {
		return err
	}
	return s.db.Change(ctx, "add", func(t *sqldb.Tx) error {
		_, err := t.Exec(ctx, "INSERT INTO authn_token ("+columns+") VALUES "+dialect.Placeholders(1, 13), r.ID, r.Tenant, r.Account,
			r.Name, r.By, string(scopes), string(sources),
			stamp(r.Created), stamp(r.Expires), stamp(r.Used), stamp(r.Revoked), notNil(r.Hash), notNil(r.MAC))
		if dialect.IsUnique(err) {
			return token.ErrExists
		}
		return err
	})
}

// scanned reads one row.
func scanned(scan func(...any) error) (r token.Record, err error) {
	var scopes, sources string
	var created, expires, used, revoked int64
	if err := scan(&r.ID, &r.Tenant, &r.Account, &r.Name, &r.By, &scopes, &sources, &created, &expires, &used, &revoked, &r.Hash, &r.MAC); err != nil {
		return token.Record{}, err
	}
	var prefixes []netip.Prefix
	if json.Unmarshal([]byte(scopes), &r.Scopes) != nil || json.Unmarshal([]byte(sources), &prefixes) != nil {
		return token.Record{}, token.ErrForged
	}
	r.Sources = prefixes
	r.Created, r.Expires, r.Used, r.Revoked = fromStamp(created), fromStamp(expires), fromStamp(used), fromStamp(revoked)
	if len(r.Hash) == 0 {
		r.Hash = nil
	}
	return r, nil
}

// Find implements token.Store.
func (s *Store) Find(ctx context.Context, id string) (r token.Record, err error) {
	found := false
	err = s.db.Read(ctx, "find", func(rows *sql.Rows) error {
		found = true
		r, err = scanned(rows.Scan)
		return err
	}, "SELECT "+columns+" FROM authn_token WHERE id = ?", id)
	if err == nil && !found {
		err = token.ErrNone
	}
	return r, err
}

// Use implements token.Store.
func (s *Store) Use(ctx context.Context, id string, at time.Time) error {
	return s.db.Change(ctx, "use", func(t *sqldb.Tx) error {
		_, err := t.Exec(ctx, "UPDATE authn_token SET used = ? WHERE id = ? AND used < ?", stamp(at), id, stamp(at))
		return err
	})
}

// List implements token.Store.
func (s *Store) List(ctx context.Context, q token.Query) (out []token.Record, err error) {
	text, args := "SELECT "+columns+" FROM authn_token WHERE tenant = ?", []any{q.Tenant}
	if q.Account != "" {
		text, args = text+" AND account = ?", append(args, q.Account)
	}
	if q.Prefix != "" {
		text, args = text+" AND substr(id, 1, ?) = ?", append(args, len([]rune(q.Prefix)), q.Prefix)
	}
	err = s.db.Read(ctx, "list", func(rows *sql.Rows) error {
		r, err := scanned(rows.Scan)
		if err != nil {
			return err
		}
		out = append(out, r)
		return nil
	}, text+" ORDER BY id", args...)
	return out, err
}

// Revoke implements token.Store.
func (s *Store) Revoke(ctx context.Context, q token.Query, at time.Time) (ids []string, err error) {
	if q.Account == "" && q.Prefix == "" {
		return nil, nil
	}
	text, args := "UPDATE authn_token SET revoked = ?, hash = ? WHERE tenant = ? AND revoked = 0", []any{stamp(at), []byte{}, q.Tenant}
	if q.Account != "" {
		text, args = text+" AND account = ?", append(args, q.Account)
	}
	if q.Prefix != "" {
		text, args = text+" AND id = ?", append(args, q.Prefix)
	}
	err = s.db.Change(ctx, "revoke", func(t *sqldb.Tx) error {
		var err error
		ids, err = t.Texts(ctx, text+" RETURNING id", args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	return ids, nil
}

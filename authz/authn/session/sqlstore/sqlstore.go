// Package sqlstore keeps sessions in SQLite or PostgreSQL, in the tables authn_session and authn_epoch. It passes
// sessiontest.TestStore on both. Processes that share the database share the sessions: what one ends is gone for all
// with their next request.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"time"

	"github.com/crmguard/crmguard/authz/authn/internal/sqldb"
	"github.com/crmguard/crmguard/authz/authn/session"
)

//go:embed migrations
var migrations embed.FS

// Options of Open.
type Options struct {
	// Reads is a second handle for queries, such as SQLite's read-only one; nil = the first. It sees every commit at
	// once: with a replica that lags, ended sessions would serve.
	Reads *sql.DB
}

// Store is a session.Store in SQL, safe for concurrent use.
type Store struct{ db *sqldb.DB }

// Open brings the tables up to date (noted in authn_session_schema) and returns the store. dialectName is "sqlite" or
// "postgres". The handles stay the caller's.
func Open(ctx context.Context, db *sql.DB, dialectName string, opts *Options) (*Store, error) {
	var reads *sql.DB
	if opts != nil {
		reads = opts.Reads
	}
	d, err := sqldb.Open(ctx, "authn/session/sqlstore", db, reads, dialectName, migrations, "authn_session_schema", session.ErrNone, session.ErrStale)
	if err != nil {
		return nil, err
	}
	return &Store{d}, nil
}

// Epoch implements session.Store.
func (s *Store) Epoch(ctx context.Context, tenant, person string) (uint64, error) {
	epoch := int64(1)
	err := s.db.ReadRow(ctx, "epoch", []any{&epoch}, "SELECT epoch FROM authn_epoch WHERE tenant = ? AND person = ?", tenant, person)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	return uint64(epoch), nil
}

// raise raises the epoch by so much and holds it until commit, so that all changes to one person's sessions but
// Replace come one after the other.
func raise(ctx context.Context, t *sqldb.Tx, tenant, person string, by int) (epoch uint64, err error) {
	var n int64
	err = t.Row(ctx, `INSERT INTO authn_epoch (tenant, person, epoch) VALUES (?, ?, ?)
		ON CONFLICT (tenant, person) DO UPDATE SET epoch = authn_epoch.epoch + excluded.epoch - 1 RETURNING epoch`, tenant, person, 1+by).Scan(&n)
	return uint64(n), err
}

const columns = "s.tenant, s.person, s.id, s.hash, s.external, s.epoch, s.version, s.seen, s.expires, s.body"

func values(r *session.Record) []any {
	external := r.External
	if external == nil {
		external = []byte{}
	}
	return []any{r.Tenant, r.Person, r.ID, r.Hash, external, int64(r.Epoch), int64(r.Version), r.Seen.UnixMilli(), r.Expires.UnixMilli(), r.Body}
}

func into(r *session.Record, seen, expires *int64) []any {
	return []any{&r.Tenant, &r.Person, &r.ID, &r.Hash, &r.External, &r.Epoch, &r.Version, seen, expires, &r.Body}
}

func finish(r *session.Record, seen, expires int64) {
	r.Seen, r.Expires = time.UnixMilli(seen).UTC(), time.UnixMilli(expires).UTC()
	if len(r.External) == 0 {
		r.External = nil
	}
}

// Add implements session.Store.
func (s *Store) Add(ctx context.Context, r session.Record, keep int) (ended []string, err error) {
	err = s.db.Change(ctx, "add", func(t *sqldb.Tx) error {
		epoch, err := raise(ctx, t, r.Tenant, r.Person, 0)
		if err != nil {
			return err
		}
		if epoch != r.Epoch {
			return session.ErrStale
		}
		ids, err := t.Texts(ctx, "SELECT id FROM authn_session WHERE tenant = ? AND person = ? ORDER BY seen DESC, id", r.Tenant, r.Person)
		if err != nil {
			return err
		}
		ended = ids[min(len(ids), max(0, keep-1)):]
		for _, id := range ended {
			if _, err := t.Exec(ctx, "DELETE FROM authn_session WHERE tenant = ? AND id = ?", r.Tenant, id); err != nil {
				return err
			}
		}
		_, err = t.Exec(ctx, "INSERT INTO authn_session (tenant, person, id, hash, external, epoch, version, seen, expires, body) VALUES (?,?,?,?,?,?,?,?,?,?)", values(&r)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

// Find implements session.Store.
func (s *Store) Find(ctx context.Context, hashes ...[]byte) (session.Record, uint64, error) {
	for _, h := range hashes {
		var r session.Record
		var seen, expires, epoch int64
		err := s.db.ReadRow(ctx, "find", append(into(&r, &seen, &expires), &epoch), "SELECT "+columns+`, COALESCE(e.epoch, 1) FROM authn_session s
			LEFT JOIN authn_epoch e ON e.tenant = s.tenant AND e.person = s.person WHERE s.hash = ?`, h)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return session.Record{}, 0, err
		}
		finish(&r, seen, expires)
		return r, uint64(epoch), nil
	}
	return session.Record{}, 0, session.ErrNone
}

// Replace implements session.Store.
func (s *Store) Replace(ctx context.Context, r session.Record) error {
	return s.db.Change(ctx, "replace", func(t *sqldb.Tx) error {
		v := values(&r)
		n, err := t.Exec(ctx, `UPDATE authn_session SET hash = ?, external = ?, epoch = ?, version = ?, seen = ?, expires = ?, body = ?
			WHERE tenant = ? AND id = ? AND person = ? AND version = ?`, append(v[3:], r.Tenant, r.ID, r.Person, int64(r.Version)-1)...)
		if err == nil && n == 0 {
			return session.ErrNone
		}
		return err
	})
}

// List implements session.Store.
func (s *Store) List(ctx context.Context, tenant, person string) (out []session.Record, err error) {
	err = s.db.Read(ctx, "list", func(rows *sql.Rows) error {
		var r session.Record
		var seen, expires int64
		if err := rows.Scan(into(&r, &seen, &expires)...); err != nil {
			return err
		}
		finish(&r, seen, expires)
		out = append(out, r)
		return nil
	}, "SELECT "+columns+" FROM authn_session s WHERE s.tenant = ? AND s.person = ? ORDER BY s.seen DESC, s.id", tenant, person)
	return out, err
}

// End implements session.Store.
func (s *Store) End(ctx context.Context, e session.Ending) (ended []string, err error) {
	if e.Person == "" && len(e.External) == 0 || e.Raise && e.Person == "" {
		return nil, session.ErrNone
	}
	where, args := "tenant = ?", []any{e.Tenant}
	for _, c := range []struct {
		use   bool
		text  string
		value any
	}{
		{e.Person != "", "person = ?", e.Person}, {e.ID != "", "id = ?", e.ID}, {e.Except != "", "id <> ?", e.Except},
		{len(e.External) > 0, "external = ?", e.External},
	} {
		if c.use {
			where, args = where+" AND "+c.text, append(args, c.value)
		}
	}
	err = s.db.Change(ctx, "end", func(t *sqldb.Tx) error {
		if e.Person != "" { // first the person, as Add does: no session comes in between
			by := 0
			if e.Raise {
				by = 1
			}
			if _, err := raise(ctx, t, e.Tenant, e.Person, by); err != nil {
				return err
			}
		}
		var err error
		ended, err = t.Texts(ctx, "DELETE FROM authn_session WHERE "+where+" RETURNING id", args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

// Sweep implements session.Store.
func (s *Store) Sweep(ctx context.Context, at time.Time) (int, error) {
	var n int64
	err := s.db.Change(ctx, "sweep", func(t *sqldb.Tx) error {
		var err error
		n, err = t.Exec(ctx, "DELETE FROM authn_session WHERE expires <= ?", at.UnixMilli())
		return err
	})
	return int(n), err
}

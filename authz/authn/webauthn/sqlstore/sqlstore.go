// Package sqlstore keeps passkeys in SQLite or PostgreSQL, in the tables authn_passkey and authn_passkey_user. It
// passes webauthntest.TestStore on both.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"time"

	"github.com/crmguard/crmguard/authz/authn/internal/sqldb"
	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Options of Open.
type Options struct {
	Reads *sql.DB // a second handle for queries, which sees every commit at once; nil = the first
}

// Store is a webauthn.Store in SQL, safe for concurrent use.
type Store struct{ db *sqldb.DB }

// Open brings the tables up to date (noted in authn_passkey_schema) and returns the store. dialectName is "sqlite" or
// "postgres". The handles stay the caller's.
func Open(ctx context.Context, db *sql.DB, dialectName string, opts *Options) (*Store, error) {
	var reads *sql.DB
	if opts != nil {
		reads = opts.Reads
	}
	d, err := sqldb.Open(ctx, "authn/webauthn/sqlstore", db, reads, dialectName, migrations, "authn_passkey_schema",
		webauthn.ErrUnknown, webauthn.ErrExists, webauthn.ErrTooMany, webauthn.ErrCount)
	if err != nil {
		return nil, err
	}
	return &Store{d}, nil
}

// Handle implements webauthn.Store.
func (s *Store) Handle(ctx context.Context, tenant, person string, fresh []byte) (handle []byte, err error) {
	err = s.db.Change(ctx, "handle", func(t *sqldb.Tx) error {
		return t.Row(ctx, `INSERT INTO authn_passkey_user (tenant, person, handle) VALUES (?, ?, ?)
			ON CONFLICT (tenant, person) DO UPDATE SET handle = authn_passkey_user.handle RETURNING handle`, tenant, person, fresh).Scan(&handle)
	})
	return handle, err
}

const columns = "id, tenant, person, handle, name, public_key, model, format, transports, backup_eligible, backed_up, count, created, used, cloned, mac"

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

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Add implements webauthn.Store.
func (s *Store) Add(ctx context.Context, r webauthn.Record, most int) error {
	return s.db.Change(ctx, "add", func(t *sqldb.Tx) error {
		// The person's row is held until commit, so that two enrolments at once count each other.
		if _, err := t.Exec(ctx, `INSERT INTO authn_passkey_user (tenant, person, handle) VALUES (?, ?, ?)
			ON CONFLICT (tenant, person) DO UPDATE SET handle = authn_passkey_user.handle`, r.Tenant, r.Person, r.Handle); err != nil {
			return err
		}
		var taken, have int
		if err := t.Row(ctx, "SELECT count(*) FROM authn_passkey WHERE id = ?", r.ID).Scan(&taken); err != nil {
			return err
		}
		if taken > 0 {
			return webauthn.ErrExists
		}
		if err := t.Row(ctx, "SELECT count(*) FROM authn_passkey WHERE tenant = ? AND person = ?", r.Tenant, r.Person).Scan(&have); err != nil {
			return err
		}
		if have >= most {
			return webauthn.ErrTooMany
		}
		_, err := t.Exec(ctx, "INSERT INTO authn_passkey ("+columns+") VALUES "+dialect.Placeholders(1, 16), r.ID, r.Tenant, r.Person,
			r.Handle, r.Name, r.PublicKey, r.Model, r.Format,
			r.Transports, number(r.BackupEligible), number(r.BackedUp), int64(r.Count), stamp(r.Created), stamp(r.Used), stamp(r.Cloned), r.MAC)
		if dialect.IsUnique(err) {
			return webauthn.ErrExists
		}
		return err
	})
}

func (s *Store) read(ctx context.Context, what, where string, args ...any) (out []webauthn.Record, err error) {
	err = s.db.Read(ctx, what, func(rows *sql.Rows) error {
		var r webauthn.Record
		var eligible, backedUp, created, used, cloned int64
		if err := rows.Scan(&r.ID, &r.Tenant, &r.Person, &r.Handle, &r.Name, &r.PublicKey, &r.Model, &r.Format, &r.Transports, &eligible,
			&backedUp, &r.Count, &created, &used, &cloned, &r.MAC); err != nil {
			return err
		}
		r.BackupEligible, r.BackedUp = eligible != 0, backedUp != 0
		r.Created, r.Used, r.Cloned = fromStamp(created), fromStamp(used), fromStamp(cloned)
		out = append(out, r)
		return nil
	}, "SELECT "+columns+" FROM authn_passkey WHERE "+where, args...)
	return out, err
}

// Find implements webauthn.Store.
func (s *Store) Find(ctx context.Context, id []byte) (webauthn.Record, error) {
	all, err := s.read(ctx, "find", "id = ?", id)
	if err != nil {
		return webauthn.Record{}, err
	}
	if len(all) == 0 {
		return webauthn.Record{}, webauthn.ErrUnknown
	}
	return all[0], nil
}

// List implements webauthn.Store.
func (s *Store) List(ctx context.Context, tenant, person string) ([]webauthn.Record, error) {
	return s.read(ctx, "list", "tenant = ? AND person = ? ORDER BY created, id", tenant, person)
}

// Use implements webauthn.Store.
func (s *Store) Use(ctx context.Context, id []byte, count uint32, backedUp bool, at time.Time) error {
	refused := false
	err := s.db.Change(ctx, "use", func(t *sqldb.Tx) error {
		refused = false
		n, err := t.Exec(ctx, "UPDATE authn_passkey SET count = ?, backed_up = ?, used = ? WHERE id = ? AND cloned = 0 AND (count < ? OR count = 0 AND CAST(? AS BIGINT) = 0)",
			int64(count), number(backedUp), stamp(at), id, int64(count), int64(count))
		if err != nil || n > 0 {
			return err
		}
		n, err = t.Exec(ctx, "UPDATE authn_passkey SET cloned = CASE WHEN cloned = 0 THEN CAST(? AS BIGINT) ELSE cloned END WHERE id = ?", stamp(at), id)
		if err == nil && n == 0 {
			return webauthn.ErrUnknown
		}
		refused = err == nil // and what was noted is kept
		return err
	})
	if err == nil && refused {
		return webauthn.ErrCount
	}
	return err
}

func (s *Store) one(ctx context.Context, what, text string, args ...any) error {
	return s.db.Change(ctx, what, func(t *sqldb.Tx) error {
		n, err := t.Exec(ctx, text, args...)
		if err == nil && n == 0 {
			return webauthn.ErrUnknown
		}
		return err
	})
}

// Rename implements webauthn.Store.
func (s *Store) Rename(ctx context.Context, tenant, person string, id, name []byte) error {
	return s.one(ctx, "rename", "UPDATE authn_passkey SET name = ? WHERE id = ? AND tenant = ? AND person = ?", name, id, tenant, person)
}

// Remove implements webauthn.Store.
func (s *Store) Remove(ctx context.Context, tenant, person string, id []byte) error {
	return s.one(ctx, "remove", "DELETE FROM authn_passkey WHERE id = ? AND tenant = ? AND person = ?", id, tenant, person)
}

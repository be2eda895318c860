package app

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/dialect"
)

// sealer seals the openings of the log under the keys of the persons they are about.
type sealer struct {
	keeper *encrypt.Keeper
	newer  *openings
}

// openingLabel separates openings of the log from other details of a person.
const openingLabel = "log"

// SealOpening implements audit.Sealer.
func (s sealer) SealOpening(ctx context.Context, tenant string, person [16]byte, ad, plaintext []byte) ([]byte, error) {
	return s.keeper.SealFor(ctx, tenant, person, openingLabel, ad, plaintext)
}

// OpenOpening implements audit.Sealer. An opening whose key was renewed is opened as it was sealed anew.
func (s sealer) OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	b, err := s.keeper.OpenFor(ctx, tenant, person, openingLabel, ad, sealed)
	if errors.Is(err, encrypt.ErrRetired) {
		fresh, _, found := s.newer.find(ctx, sealed)
		if found != nil {
			return nil, errors.Join(audit.ErrUnavailable, found)
		}
		if fresh != nil {
			b, err = s.keeper.OpenFor(ctx, tenant, person, openingLabel, ad, fresh)
		}
	}
	switch {
	case errors.Is(err, encrypt.ErrErased):
		err = errors.Join(audit.ErrErased, err)
	case errors.Is(err, encrypt.ErrKMSUnavailable), errors.Is(err, encrypt.ErrAuth), errors.Is(err, encrypt.ErrBlocked):
		err = errors.Join(audit.ErrUnavailable, err)
	}
	return b, err
}

// openings keeps openings of the log that were sealed anew when the keys of persons were renewed. The log
// itself never changes, so they lie beside it, in a small SQLite file: SHA-256 of the opening as the log
// holds it, the opening anew, the generation of its key. Nothing here needs to be believed: an opening
// must fit the commitment in its event.
type openings struct {
	path string
	mu   sync.Mutex
	w, r *sql.DB // nil until the file is opened
}

func (c *Config) openings() *openings { return &openings{path: c.logFolder() + "-openings.db"} }

// open opens the file; without create a missing one is no error, and then there are no openings.
func (o *openings) open(ctx context.Context, create bool) (w, r *sql.DB, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.r != nil {
		return o.w, o.r, nil
	}
	if _, err := os.Stat(o.path); err != nil && !create {
		return nil, nil, nil
	}
	if w, r, err = dialect.OpenSQLite(ctx, o.path); err != nil {
		return nil, nil, err
	}
	_, err = w.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS opening (
		was BLOB NOT NULL PRIMARY KEY, sealed BLOB NOT NULL, generation INTEGER NOT NULL) WITHOUT ROWID`)
	if err != nil {
		_ = errors.Join(r.Close(), w.Close()) // err says what went wrong first
		return nil, nil, fmt.Errorf("crm: opening the newer openings of the log (%s)", code(err))
	}
	o.w, o.r = w, r
	return w, r, nil
}

// close may be called when nothing was opened.
func (o *openings) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.r == nil {
		return nil
	}
	return errors.Join(o.r.Close(), o.w.Close())
}

// find returns an opening as it was sealed anew, nil when it was not.
func (o *openings) find(ctx context.Context, was []byte) (sealed []byte, generation uint32, err error) {
	_, r, err := o.open(ctx, false)
	if err != nil || r == nil {
		return nil, 0, err
	}
	sum := sha256.Sum256(was)
	err = r.QueryRowContext(ctx, `SELECT sealed, generation FROM opening WHERE was = ?`, sum[:]).Scan(&sealed, &generation)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("crm: reading the newer openings of the log (%s)", code(err))
	}
	return sealed, generation, nil
}

// renewer is a sealer that seals anew what it opens, where that was not done for the generation yet.
type renewer struct {
	sealer
	generation uint32
	fresh      map[[sha256.Size]byte][]byte // not stored yet
	progress   func(done int)
	done       int
	failed     error
}

// renewBatch is how many openings are stored at once.
const renewBatch = 500

// OpenOpening implements audit.Sealer.
func (n *renewer) OpenOpening(ctx context.Context, tenant string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	b, err := n.sealer.OpenOpening(ctx, tenant, person, ad, sealed)
	if err != nil || n.failed != nil {
		return b, err
	}
	_, generation, err := n.newer.find(ctx, sealed)
	if err == nil && generation < n.generation {
		var again []byte
		if again, err = n.SealOpening(ctx, tenant, person, ad, b); err == nil {
			n.fresh[sha256.Sum256(sealed)] = again
		}
	}
	if n.done++; err == nil && len(n.fresh) >= renewBatch {
		err = n.store(ctx)
	}
	n.failed = err
	return b, nil // the verification of the log goes on
}

// store keeps what was sealed anew.
func (n *renewer) store(ctx context.Context) error {
	if n.progress != nil && n.done > 0 {
		n.progress(n.done)
	}
	if len(n.fresh) == 0 {
		return nil
	}
	w, _, err := n.newer.open(ctx, true)
	if err != nil {
		return err
	}
	tx, err := w.BeginTx(ctx, nil)
	if err == nil {
		for was, sealed := range n.fresh {
			_, err = tx.ExecContext(ctx, `INSERT INTO opening (was, sealed, generation) VALUES (?, ?, ?)
				ON CONFLICT (was) DO UPDATE SET sealed = excluded.sealed, generation = excluded.generation`, was[:], sealed, n.generation)
			if err != nil {
				break
			}
		}
		if err == nil {
			err = tx.Commit()
		} else {
			err = errors.Join(err, tx.Rollback())
		}
	}
	if err != nil {
		return fmt.Errorf("crm: keeping the newer openings of the log (%s)", code(err))
	}
	clear(n.fresh)
	return nil
}

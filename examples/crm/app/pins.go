package app

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// pins keeps signed heads of the log in the database, apart from the log's folder, so that a log that
// was cut or replaced is found out.
type pins struct {
	db       databases
	instance string
}

func openPins(ctx context.Context, db databases, instance string) (*pins, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := dialect.Migrate(ctx, db.w, db.dialect, sub, "app_schema"); err != nil {
		return nil, err
	}
	return &pins{db, instance}, nil
}

// register says that the instance has a log, whose openings need the keys of persons: see othersRenewed.
func (p *pins) register(ctx context.Context) error {
	_, err := p.db.w.ExecContext(ctx, p.db.dialect.Rebind(
		`INSERT INTO app_renewed (instance, generation) VALUES (?, 0) ON CONFLICT (instance) DO NOTHING`), p.instance)
	if err != nil {
		return fmt.Errorf("crm: noting the instance in the database (%s)", code(err))
	}
	return nil
}

// keep stores a head. A head that cannot be stored now is followed by the next one a second later;
// the log itself goes on.
func (p *pins) keep(ctx context.Context, cp audit.Checkpoint) {
	_, _ = p.db.w.ExecContext(ctx, p.db.dialect.Rebind(
		`INSERT INTO app_head (instance, size, note, at) VALUES (?, ?, ?, ?)
		 ON CONFLICT (instance) DO UPDATE SET size = excluded.size, note = excluded.note, at = excluded.at
		 WHERE excluded.size >= app_head.size`),
		p.instance, int64(cp.Size), string(cp.Note), cp.Time.UTC().Format(time.RFC3339))
}

// newest returns the kept head when our key signed it, nil when there is none. One that another key
// signed is an error: somebody exchanged the key or the head.
func (p *pins) newest(ctx context.Context, key string) ([]byte, error) {
	rows, err := p.db.r.QueryContext(ctx, p.db.dialect.Rebind(`SELECT note FROM app_head WHERE instance = ?`), p.instance)
	if err != nil {
		return nil, fmt.Errorf("crm: reading the kept head of the log (%s)", code(err))
	}
	defer rows.Close()
	var text string
	if !rows.Next() {
		return nil, rows.Err()
	}
	if err := rows.Scan(&text); err != nil {
		return nil, fmt.Errorf("crm: reading the kept head of the log (%s)", code(err))
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	if _, err := note.Open([]byte(text), note.VerifierList(v)); err != nil {
		return nil, fmt.Errorf("crm: the head of the log in the database is not signed by signing.key: %w", audit.ErrTampered)
	}
	return []byte(text), nil
}

// shared tells whether other instances have logs of their own for the same database.
func shared(ctx context.Context, db databases, instance string) (bool, error) {
	var n int
	err := db.r.QueryRowContext(ctx, db.dialect.Rebind(`SELECT count(*) FROM app_head WHERE instance <> ?`), instance).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("crm: reading the kept heads of the logs (%s)", code(err))
	}
	return n > 0, nil
}

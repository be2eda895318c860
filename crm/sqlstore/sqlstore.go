// Package sqlstore keeps rows in SQLite or PostgreSQL through database/sql. It imports no driver: the
// program does.
//
// Each declared type has a table of its own, with a typed column per clear field; sealed fields, persons
// and the MAC lie together in one column (docs/formats/row.md). Index tokens are rows of one table,
// clustered by token, and so are persons; on SQLite the newest tokens are in a small table of their own first. Backups leave
// them out, and Store.Reindex rebuilds them. One counter row is raised in
// every transaction that writes, so that change numbers follow the order of commits and writers do not
// overtake each other.
//
// On SQLite give it the two handles of a write-ahead log database, one connection for writing and
// several for reading; on PostgreSQL the same pool twice.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/request"
	"github.com/crmguard/crmguard/internal/dialect"
)

//go:embed migrations
var migrations embed.FS

// Store is a crm.Store in a database. Its methods are safe for concurrent use, by several programs at
// once on PostgreSQL. The handles stay the caller's to close.
type Store struct {
	w, r *sql.DB
	d    dialect.Dialect

	mu         sync.RWMutex
	types      map[string]*table
	spaces     map[space]int64
	statements map[string]*sql.Stmt // of r

	recent recent

	written, analyzeAt int64 // rows by this store, and at which number statistics are due; of SQLite
}

type space struct{ tenant, typ string }

// table is a declared type.
type table struct {
	schema  crm.Schema
	name    string // quoted
	columns string // "row_id, id, ..., c_first, ...": what scan reads, in its order
	width   int    // how many there are
}

var _ crm.Store = (*Store)(nil)

// schema is the table of goose.
const schema = "crm_schema"

// Open brings the common tables up to date and returns the store. w writes, r reads; they may be the
// same handle. d is "sqlite" or "postgres". Tables of a newer program are a *NewerError; a program of an older version that
// still writes must end before. When an index is new, Reindexing says so.
func Open(ctx context.Context, w, r *sql.DB, d dialect.Dialect) (*Store, error) {
	files, err := migrationsOf(d)
	if err != nil {
		return nil, err
	}
	s := &Store{w: w, r: r, d: d, types: map[string]*table{}, spaces: map[space]int64{}, statements: map[string]*sql.Stmt{}}
	if err := dialect.Migrate(ctx, w, d, files, schema); err != nil {
		return nil, fail("open", err)
	}
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	if d == dialect.SQLite {
		s.analyzeAt = analyzeAfter
		if err := s.analyze(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Rollback takes the common tables back to a version, 1 or more, so that a program that knows no later one can open them. What
// later versions added goes, rows stay. No store may be open. Version 1 has no index of persons,
// version 2 no table of the newest tokens.
func Rollback(ctx context.Context, db *sql.DB, d dialect.Dialect, to int) error {
	files, err := migrationsOf(d)
	if err != nil {
		return err
	}
	err = dialect.Rollback(ctx, db, d, files, schema, int64(to))
	if errors.Is(err, dialect.ErrNoVersion) {
		return fmt.Errorf("crm/sqlstore: rollback: there is no version %d", to)
	}
	return fail("rollback", err)
}

func migrationsOf(d dialect.Dialect) (fs.FS, error) {
	d, err := dialect.Parse(string(d))
	if err != nil {
		return nil, errors.New("crm/sqlstore: the dialect is neither sqlite nor postgres")
	}
	files, err := fs.Sub(migrations, "migrations/"+string(d))
	if err != nil {
		return nil, fmt.Errorf("crm/sqlstore: %w", err)
	}
	return files, nil
}

// settle ends the Reindex that a migration began in a database that has no rows.
func (s *Store) settle(ctx context.Context) error {
	begun, err := s.has(ctx, s.w, "crm_reindex")
	if err != nil || !begun {
		return fail("open", err)
	}
	return s.write(ctx, "open", 0, func(tx *sql.Tx, _ int64) error {
		var rows bool
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) > 0 FROM crm_spaces").Scan(&rows); err != nil || rows {
			return err
		}
		_, err := tx.ExecContext(ctx, "DROP TABLE IF EXISTS crm_reindex")
		return err
	})
}

// NewerError is a database whose tables a newer program has changed; this one would not keep up what it does not know.
type NewerError struct {
	Version int64 // of the tables
	Known   int64 // the latest that this program knows
}

// Error names both versions.
func (e *NewerError) Error() string {
	return fmt.Sprintf("crm/sqlstore: the tables are of version %d, newer than %d", e.Version, e.Known)
}

// fail turns a database's error into one that says nothing of data or connection: an error of package
// crm or the context's as it is, else what was being done, the database's code, and
// crm.ErrUnavailable where it applies.
func fail(doing string, err error) error {
	var request *crm.RequestError
	var write *crm.WriteError
	var limit *crm.LimitError
	var condition *conditionError
	var row *RowError
	var newer *dialect.NewerError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &newer):
		return &NewerError{newer.Version, newer.Known}
	case errors.As(err, &request), errors.As(err, &write), errors.As(err, &limit), errors.As(err, &condition), errors.As(err, &row),
		errors.Is(err, crm.ErrUnknown):
		return err
	case errors.Is(err, crm.ErrReindexing):
		return fmt.Errorf("crm/sqlstore: %s: %w", doing, crm.ErrReindexing)
	case errors.Is(err, crm.ErrDamaged):
		return fmt.Errorf("crm/sqlstore: %s: %w", doing, crm.ErrDamaged)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("crm/sqlstore: %s: %w", doing, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("crm/sqlstore: %s: %w", doing, context.DeadlineExceeded)
	}
	if code := dialect.Code(err); code != "" {
		doing += " (" + code + ")"
	}
	if dialect.IsUnavailable(err) {
		return fmt.Errorf("crm/sqlstore: %s: %w", doing, crm.ErrUnavailable)
	}
	return &opaqueError{doing: doing, err: err}
}

// opaqueError keeps a database's words, which may repeat values, out of its text.
type opaqueError struct {
	doing string
	err   error
}

// Error says what was being done.
func (e *opaqueError) Error() string { return "crm/sqlstore: " + e.doing + ": the database refused" }

// Unwrap returns the database's error, for a debugger.
func (e *opaqueError) Unwrap() error { return e.err }

// retry runs f, again when the database rolled it back for another's sake, for about five seconds.
func (s *Store) retry(ctx context.Context, f func() error) error {
	start := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := f()
		if err == nil || !dialect.IsRetryable(err) || time.Since(start) > 5*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// write runs f in a transaction that holds the counter, having raised it by n; first is the number
// after the former one. The caller's end does not interrupt the commit, so its outcome is known unless
// the connection breaks.
func (s *Store) write(ctx context.Context, doing string, n int, f func(tx *sql.Tx, first int64) error) error {
	err := s.retry(ctx, func() error {
		conn, err := s.w.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // after a commit it does nothing
		var last int64
		err = tx.QueryRowContext(ctx, s.d.Rebind("UPDATE crm_counter SET seq = seq + ? WHERE id = 1 RETURNING seq"), n).Scan(&last)
		if err != nil {
			return err
		}
		s.recent.mu.Lock() // which nobody holds for long: who does has committed
		defer s.recent.mu.Unlock()
		s.recent.next = s.recent.now
		if err := f(tx, last-int64(n)+1); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			if unknownCommit(err) {
				s.recent.now.known = false
				return fmt.Errorf("crm/sqlstore: %s: %w", doing, crm.ErrUnknown)
			}
			return err
		}
		s.recent.now = s.recent.next
		return nil
	})
	if errors.Is(err, errRehearsed) {
		return nil
	}
	return fail(doing, err)
}

// unknownCommit tells whether a failed commit may have happened all the same.
func unknownCommit(err error) bool {
	if dialect.IsRetryable(err) {
		return false
	}
	code := dialect.Code(err)
	return dialect.IsLost(err) || code == "" || strings.HasPrefix(code, "58") ||
		strings.HasPrefix(code, "sqlite ") && dialect.IsIO(err)
}

// Declare makes the store ready for rows of these types, creating tables, columns and indexes; see
// crm.Store. Errors are a *crm.RequestError for a column that is gone or of another kind.
func (s *Store) Declare(ctx context.Context, schemas ...crm.Schema) error {
	for _, schema := range schemas {
		if err := request.Schema(schema); err != nil {
			return err
		}
	}
	declared := make(map[string]*table, len(schemas))
	err := s.write(ctx, "declare", 0, func(tx *sql.Tx, _ int64) error {
		clear(declared)
		for _, schema := range schemas {
			if err := s.declare(ctx, tx, schema); err != nil {
				return err
			}
			declared[schema.Type] = s.table(schema)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.types, declared)
	return nil
}

// storedColumn is a column as crm_types holds it, in a JSON list in the order of creation.
type storedColumn struct {
	Name    string   `json:"name"`
	Kind    crm.Kind `json:"kind"`
	Indexed bool     `json:"indexed"`
}

func (s *Store) declare(ctx context.Context, tx *sql.Tx, schema crm.Schema) error {
	var id int64
	var text string
	err := tx.QueryRowContext(ctx, s.d.Rebind("SELECT type_id, columns FROM crm_types WHERE type = ?"), schema.Type).Scan(&id, &text)
	fresh := errors.Is(err, sql.ErrNoRows)
	if err != nil && !fresh {
		return err
	}
	var old []crm.Column
	if !fresh {
		var list []storedColumn
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return crm.ErrDamaged
		}
		for _, c := range list {
			old = append(old, crm.Column(c))
		}
	}
	merged, err := request.Merge(old, schema)
	if err != nil {
		return err
	}
	name := s.d.Quote("crm_rows_" + schema.Type)
	if fresh {
		if err := tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(type_id), 0) + 1 FROM crm_types").Scan(&id); err != nil {
			return err
		}
		if err := s.create(ctx, tx, name, id); err != nil {
			return err
		}
	}
	// Tables that an older program made have no index of changes, and none of the recycle bin, whose rows are few.
	for _, text := range []string{
		"CREATE INDEX IF NOT EXISTS crm_rows_%d_change ON %s (space, change_seq)", "CREATE INDEX IF NOT EXISTS crm_rows_%d_bin ON %s (space, row_id) WHERE deleted = 1",
	} {
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(text, id, name)); err != nil {
			return err
		}
	}
	for i, c := range merged {
		column := s.d.Quote("c_" + c.Name)
		if i >= len(old) {
			if _, err := tx.ExecContext(ctx, "ALTER TABLE "+name+" ADD COLUMN "+column+" "+s.columnType(c.Kind)); err != nil {
				return err
			}
		}
		if c.Indexed && (i >= len(old) || !old[i].Indexed) {
			index := fmt.Sprintf("crm_rows_%d_%d", id, i)
			if _, err := tx.ExecContext(ctx, "CREATE INDEX "+index+" ON "+name+" (space, "+column+", row_id)"); err != nil {
				return err
			}
		}
	}
	list := make([]storedColumn, len(merged))
	for i, c := range merged {
		list[i] = storedColumn(c)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, s.d.Rebind("INSERT INTO crm_types (type_id, type, columns) VALUES (?, ?, ?) "+
		"ON CONFLICT (type_id) DO UPDATE SET columns = excluded.columns"), id, schema.Type, string(b))
	return err
}

func (s *Store) create(ctx context.Context, tx *sql.Tx, name string, id int64) error {
	number, bytes := "INTEGER", "BLOB"
	if s.d == dialect.Postgres {
		number, bytes = "BIGINT", "BYTEA"
	}
	for _, q := range []string{
		"CREATE TABLE " + name + " (row_id " + number + " PRIMARY KEY, space " + number + " NOT NULL, id " + bytes +
			" NOT NULL, version " + number + " NOT NULL, change_seq " + number + " NOT NULL, deleted " + number +
			" NOT NULL, body " + bytes + " NOT NULL)",
		fmt.Sprintf("CREATE UNIQUE INDEX crm_rows_%d_id ON %s (space, id)", id, name),
		fmt.Sprintf("CREATE INDEX crm_rows_%d_row ON %s (space, row_id)", id, name),
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// columnType returns the SQL type of a kind. Times are microseconds; text is compared by bytes.
func (s *Store) columnType(k crm.Kind) string {
	switch {
	case k == crm.KindString && s.d == dialect.Postgres:
		return `TEXT COLLATE "C"`
	case k == crm.KindString:
		return "TEXT"
	case k == crm.KindBool && s.d == dialect.Postgres:
		return "BOOLEAN"
	case s.d == dialect.Postgres:
		return "BIGINT"
	}
	return "INTEGER"
}

// table makes a declared type ready for statements.
func (s *Store) table(schema crm.Schema) *table {
	t := &table{schema: schema, name: s.d.Quote("crm_rows_" + schema.Type)}
	t.schema.Columns = append([]crm.Column(nil), schema.Columns...)
	names := []string{"row_id", "id", "version", "change_seq", "deleted", "body"}
	for _, c := range schema.Columns {
		names = append(names, s.d.Quote("c_"+c.Name))
	}
	t.columns, t.width = strings.Join(names, ", "), len(names)
	return t
}

// declaredType returns the table of a type, or an error for one that was not declared.
func (s *Store) declaredType(typ string) (*table, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.types[typ]; t != nil {
		return t, nil
	}
	return nil, request.UnknownType()
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// space returns the number of a tenant and type, 0 when it has no rows yet.
func (s *Store) space(ctx context.Context, q querier, key space) (int64, error) {
	s.mu.RLock()
	n := s.spaces[key]
	s.mu.RUnlock()
	if n != 0 {
		return n, nil
	}
	err := q.QueryRowContext(ctx, s.d.Rebind("SELECT space FROM crm_spaces WHERE tenant = ? AND type = ?"), key.tenant, key.typ).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if _, own := q.(*sql.Tx); !own { // what a transaction reads may yet be rolled back
		s.keepSpace(key, n)
	}
	return n, nil
}

func (s *Store) keepSpace(key space, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spaces[key] = n
}

// Types returns the names of all types of the database; see crm.Store.
func (s *Store) Types(ctx context.Context) ([]string, error) {
	var types []string
	err := s.retry(ctx, func() error {
		types = nil
		rows, err := s.r.QueryContext(ctx, "SELECT type FROM crm_types")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var typ string
			if err := rows.Scan(&typ); err != nil {
				return err
			}
			types = append(types, typ)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fail("types", err)
	}
	slices.Sort(types)
	return types, nil
}

// Applied returns the applied events of a log from an index on; see crm.Store.
func (s *Store) Applied(ctx context.Context, log string, from uint64) ([]uint64, error) {
	if err := request.Event(log, from); err != nil {
		return nil, err
	}
	var events []uint64
	err := s.retry(ctx, func() error {
		events = nil
		rows, err := s.r.QueryContext(ctx, s.d.Rebind("SELECT event FROM crm_applied WHERE log = ? AND event >= ? ORDER BY event"), log, int64(from))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e int64
			if err := rows.Scan(&e); err != nil {
				return err
			}
			events = append(events, uint64(e))
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fail("applied", err)
	}
	return events, nil
}

// Prune forgets the applied events of a log below an index; see crm.Store.
func (s *Store) Prune(ctx context.Context, log string, below uint64) error {
	if err := request.Event(log, below); err != nil {
		return err
	}
	return fail("prune", s.retry(ctx, func() error {
		_, err := s.w.ExecContext(ctx, s.d.Rebind("DELETE FROM crm_applied WHERE log = ? AND event < ?"), log, int64(below))
		return err
	}))
}

// Package sqlsource backs up and restores whole SQLite and PostgreSQL databases: every ordinary table,
// each value as it is stored, in one consistent snapshot beside running writers.
//
// Sealed values stay sealed. Tables of keys must not go along: name them in [Options].Exclude, and
// give keys to backup.BackupOptions.Keys instead, which keeps them where they can be deleted.
//
// A SQLite database is recreated whole: tables, indexes, views, triggers, autoincrement state, row
// ids, user_version. PostgreSQL gets its tables from Options.Prepare, the application's own
// migrations, and then rows and sequences. Either way the rows appear in one transaction, and a
// database whose preparation was begun is marked by a table named crmguard_restore until the end.
//
// What would be lost in silence is refused: virtual tables of SQLite and large objects of PostgreSQL.
// Roles, grants and settings of a server belong to its operator and are not copied.
package sqlsource

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/internal/dialect"
)

// The engines, as snapshots name them.
const (
	engineSQLite   = "sqlite"
	enginePostgres = "postgres"
)

// marker is the table that marks a database whose restore has not ended.
const marker = "crmguard_restore"

// Options of a [Database]. A nil *Options is the zero value.
type Options struct {
	// Exclude names tables, by the beginnings of their names, that are neither read nor written nor
	// looked at: all tables that hold keys. What an older snapshot has of them is passed over. Nil = none.
	Exclude []string
	// Prepare creates the tables in a database that is restored into, and may put first rows into
	// them, which the restore replaces. It must bring the schema that was backed up. Nil: SQLite
	// recreates the tables as they were; PostgreSQL must have them already, all empty.
	Prepare func(ctx context.Context, db *sql.DB) error
	// Changes names an integer column of change numbers: whoever inserts or updates a row of a table
	// that has it gives the row a number above all that are committed, in the order of commits. Then a
	// backup that builds on another reads the rows above the last number only, best through an index,
	// and the keys where rows are gone. Empty = every row is read and compared.
	Changes string
}

// Database is a [backup.Source] and a [backup.Sink]. Errors say which table and the database's
// code, never its words, which may hold values; Unwrap gives those.
type Database struct {
	db     *sql.DB
	engine engine
	opts   Options
}

// engine is what the two databases do not share.
type engine interface {
	name() string
	dump(ctx context.Context, d *Database, conn *sql.Conn, w *backup.Writer) error
	load(ctx context.Context, d *Database, conn *sql.Conn, r *backup.Reader, prepared bool) error
	// tables lists the ordinary tables but for the excluded and the marker.
	tables(ctx context.Context, d *Database, conn *sql.Conn) ([]table, error)
	// marker is the marker's name in statements.
	marker() string
	// begin starts a transaction; reading = a snapshot. end is called when it has ended.
	begin(ctx context.Context, conn *sql.Conn, reading bool) (end func() error, err error)
}

// table is an ordinary table.
type table struct {
	name   string // as snapshots name it
	quoted string
}

var (
	_ backup.Source = (*Database)(nil)
	_ backup.Sink   = (*Database)(nil)
)

// SQLite returns the database behind db, opened by the driver "sqlite" of modernc.org/sqlite. A handle
// that only reads will do for backups.
func SQLite(db *sql.DB, opts *Options) *Database { return newDatabase(db, sqlite{}, opts) }

// Postgres returns the database behind db, opened by the driver "pgx". Restoring takes the rights of
// the tables' owner.
func Postgres(db *sql.DB, opts *Options) *Database { return newDatabase(db, postgres{}, opts) }

func newDatabase(db *sql.DB, e engine, opts *Options) *Database {
	d := &Database{db: db, engine: e}
	if opts != nil {
		d.opts = *opts
	}
	return d
}

func (d *Database) excluded(name string) bool {
	if name == marker {
		return true
	}
	for _, prefix := range d.opts.Exclude {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Dump implements [backup.Source].
func (d *Database) Dump(ctx context.Context, w *backup.Writer) error {
	return d.transaction(ctx, true, func(conn *sql.Conn) error {
		if marked, err := d.marked(ctx, conn); err != nil || marked {
			if marked {
				err = errors.New("sqlsource: a restore into this database has not ended")
			}
			return err
		}
		return d.engine.dump(ctx, d, conn, w)
	})
}

// Load implements [backup.Sink]. Errors: backup.ErrNotEmpty.
func (d *Database) Load(ctx context.Context, r *backup.Reader) error {
	if got := r.Schema().Engine; got != d.engine.name() {
		return fmt.Errorf("sqlsource: a snapshot of another engine than %s", d.engine.name())
	}
	marked, err := d.Incomplete(ctx)
	if err != nil {
		return err
	}
	if !marked {
		err = d.transaction(ctx, true, func(conn *sql.Conn) error { return d.empty(ctx, conn) })
		if err != nil {
			return err
		}
	}
	if d.opts.Prepare != nil {
		if !marked {
			if _, err := d.db.ExecContext(ctx, "CREATE TABLE "+d.engine.marker()+" (begun INTEGER)"); err != nil {
				return failed("mark the restore", err)
			}
		}
		if err := d.opts.Prepare(ctx, d.db); err != nil {
			return fmt.Errorf("sqlsource: prepare: %w", err)
		}
	}
	return d.transaction(ctx, false, func(conn *sql.Conn) error {
		marked, err := d.marked(ctx, conn)
		if err != nil {
			return err
		}
		if !marked { // again, now that nobody else can come between
			if err := d.empty(ctx, conn); err != nil {
				return err
			}
		}
		if err := d.engine.load(ctx, d, conn, r, marked); err != nil {
			return err
		}
		if marked {
			if _, err := conn.ExecContext(ctx, "DROP TABLE "+d.engine.marker()); err != nil {
				return failed("end the restore", err)
			}
		}
		return nil
	})
}

// Incomplete tells whether a restore into the database was begun and has not ended. Such a database
// must not be used, except by Load, which begins again.
func (d *Database) Incomplete(ctx context.Context) (marked bool, err error) {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return false, failed("connect", err)
	}
	defer conn.Close()
	return d.marked(ctx, conn)
}

func (d *Database) marked(ctx context.Context, conn *sql.Conn) (marked bool, err error) {
	query := "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '" + marker + "')"
	if d.engine.name() == enginePostgres {
		query = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_tables WHERE tablename = '" + marker + "')"
	}
	if err := conn.QueryRowContext(ctx, query).Scan(&marked); err != nil {
		return false, failed("look for a restore", err)
	}
	return marked, nil
}

// empty returns backup.ErrNotEmpty when a table has a row or, where tables will be created, exists.
func (d *Database) empty(ctx context.Context, conn *sql.Conn) error {
	tables, err := d.engine.tables(ctx, d, conn)
	if err != nil {
		return err
	}
	if d.engine.name() == engineSQLite && d.opts.Prepare == nil && len(tables) > 0 {
		return backup.ErrNotEmpty
	}
	for _, t := range tables {
		var some bool
		if err := conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+t.quoted+")").Scan(&some); err != nil {
			return failed("look into table "+t.name, err)
		}
		if some {
			return backup.ErrNotEmpty
		}
	}
	return nil
}

// transaction runs do within one, on a connection of its own.
func (d *Database) transaction(ctx context.Context, reading bool, do func(*sql.Conn) error) (err error) {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return failed("connect", err)
	}
	defer conn.Close()
	end, err := d.engine.begin(ctx, conn, reading)
	if err != nil {
		return failed("begin", err)
	}
	defer func() {
		if eerr := end(); eerr != nil && err == nil {
			err = failed("end", eerr)
		}
	}()
	if err := do(conn); err != nil {
		if _, rerr := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); rerr != nil {
			// A connection in an unknown state must not go back to the pool.
			_ = conn.Raw(func(any) error { return errBadConn })
		}
		return err
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return failed("commit", err)
	}
	return nil
}

// failed wraps an error of the database without its words.
func failed(what string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &databaseError{what, err}
}

type databaseError struct {
	what string
	err  error
}

func (e *databaseError) Error() string {
	if code := dialect.Code(e.err); code != "" {
		return "sqlsource: " + e.what + " (" + code + ")"
	}
	return "sqlsource: " + e.what
}

func (e *databaseError) Unwrap() error { return e.err }

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// seq returns the highest change number of a table, 0 where it has none.
func (d *Database) seq(ctx context.Context, conn *sql.Conn, t table, b backup.Table) (int64, error) {
	if d.opts.Changes == "" || len(b.Key) == 0 || !slices.Contains(b.Columns, d.opts.Changes) {
		return 0, nil
	}
	var n sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT max("+quote(d.opts.Changes)+") FROM "+t.quoted).Scan(&n); err != nil {
		return 0, failed("read the change number of table "+t.name, err)
	}
	return max(n.Int64, 0), nil
}

// table dumps one table: what changed, where the writer wants no more. read gives columns of the rows of a condition.
func (d *Database) table(ctx context.Context, conn *sql.Conn, t table, b backup.Table, w *backup.Writer,
	read func(columns []string, where string, row func(...any) error) error) error {
	if err := w.Table(b); err != nil {
		return err
	}
	since, ok := int64(0), false
	if b.Seq > 0 {
		since, ok = w.Since()
	}
	if !ok {
		return read(b.Columns, "", w.Row)
	}
	if err := read(b.Columns, " WHERE "+quote(d.opts.Changes)+" > "+strconv.FormatInt(since, 10), w.Row); err != nil {
		return err
	}
	var n int64
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM "+t.quoted).Scan(&n); err != nil {
		return failed("count table "+t.name, err)
	}
	if all, err := w.Rest(n); err != nil || all {
		return err
	}
	return read(b.Key, "", w.Key)
}

// versions adds the number of the last migration of a table that goose keeps.
func versions(ctx context.Context, conn *sql.Conn, t table, columns []string, into map[string]int64) error {
	found := 0
	for _, c := range columns {
		if c == "version_id" || c == "is_applied" {
			found++
		}
	}
	if found != 2 {
		return nil
	}
	var v sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT max(version_id) FROM "+t.quoted+" WHERE is_applied").Scan(&v); err != nil {
		return failed("versions in table "+t.name, err)
	}
	into[t.name] = v.Int64
	return nil
}

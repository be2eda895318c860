package sqlsource_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/sqlsource"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

func openSQLite(t testing.TB) *sql.DB {
	t.Helper()
	w, r, err := dialect.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	return w
}

func exec(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

var sqliteTables = []string{
	`CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)`,
	`CREATE TABLE a_children (id TEXT PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parents (id), at DATETIME, ok BOOLEAN, twice INTEGER GENERATED ALWAYS AS (parent * 2) STORED) STRICT`,
	`CREATE TABLE anything (v, w BLOB, r REAL)`,
	`CREATE TABLE "odd ""name" ("a column" INTEGER, "select" TEXT, PRIMARY KEY ("select", "a column")) WITHOUT ROWID`,
	`CREATE TABLE crm_schema (id INTEGER PRIMARY KEY, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL)`,
	`CREATE INDEX by_parent ON a_children (parent) WHERE parent > 0`,
	`CREATE VIEW children AS SELECT id FROM a_children`,
	`CREATE TRIGGER boom AFTER INSERT ON parents BEGIN UPDATE parents SET name = name || '!' WHERE id = new.id; END`,
}

func sqliteDDL() []string {
	var out []string
	for _, s := range sqliteTables {
		out = append(out, strings.ReplaceAll(strings.ReplaceAll(s, "DATETIME", "TEXT"), "BOOLEAN", "INT"))
	}
	return out
}

func fillSQLite(t testing.TB, db *sql.DB) {
	t.Helper()
	exec(t, db, sqliteDDL()...)
	exec(t, db,
		`INSERT INTO parents (id, name) VALUES (7, 'seven'), (9, '客户'), (40, 'gone')`,
		`DELETE FROM parents WHERE id = 40`,
		`INSERT INTO a_children (id, parent, at, ok) VALUES ('x', 7, '2026-01-02 03:04:05', 1), ('y', 9, NULL, 0)`,
		`INSERT INTO anything (rowid, v, w, r) VALUES (5, 1, x'', 1.0), (6, 'text', x'00ff', -0.0), (9, x'01', NULL, 9e999), (11, 1.5, 'in a blob column', 1e-300),
			(12, NULL, NULL, NULL), (13, '', 'with ' || char(0) || ' zero', 3), (14, 9223372036854775807, -9223372036854775808, 0.1)`,
		`INSERT INTO "odd ""name" VALUES (1, 'one'), (2, NULL || 'x' IS NULL)`,
		`INSERT INTO crm_schema VALUES (1, 0, 1), (2, 12, 1), (3, 13, 0)`,
		`PRAGMA user_version = 42`, `PRAGMA application_id = 77`,
		`CREATE TABLE key_store (id INTEGER PRIMARY KEY, wrapped BLOB)`, `INSERT INTO key_store VALUES (1, x'01')`,
		`CREATE INDEX key_index ON key_store (wrapped)`,
	)
	// Many rows, so that there are several batches and frames.
	exec(t, db, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5003)
		INSERT INTO anything (v, w, r) SELECT i, randomblob(i % 300), i / 3.0 FROM n`)
}

func TestSQLite(t *testing.T) {
	opts := &sqlsource.Options{Exclude: []string{"key_"}}
	backuptest.TestStore(t, func(t testing.TB) backuptest.Store {
		db := openSQLite(t)
		fillSQLite(t, db)
		return sqlsource.SQLite(db, opts)
	}, func(t testing.TB) backuptest.Store {
		db := openSQLite(t)
		exec(t, db, `CREATE TABLE key_store (id INTEGER PRIMARY KEY, wrapped BLOB)`, `INSERT INTO key_store VALUES (1, x'02')`)
		return sqlsource.SQLite(db, opts)
	})
}

func TestSQLitePrepared(t *testing.T) {
	backuptest.TestStore(t, func(t testing.TB) backuptest.Store {
		db := openSQLite(t)
		fillSQLite(t, db)
		return sqlsource.SQLite(db, &sqlsource.Options{Exclude: []string{"key_"}})
	}, func(t testing.TB) backuptest.Store {
		return sqlsource.SQLite(openSQLite(t), &sqlsource.Options{Exclude: []string{"key_"}, Prepare: func(ctx context.Context, db *sql.DB) error {
			return prepare(ctx, db, append(sqliteDDL(), `INSERT INTO parents (name) VALUES ('seed')`))
		}})
	})
}

// prepare creates what is not there yet, as migrations do.
func prepare(ctx context.Context, db *sql.DB, statements []string) error {
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM crm_schema").Scan(&n); err == nil {
		return nil
	}
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func TestSQLiteState(t *testing.T) {
	from, to := openSQLite(t), openSQLite(t)
	fillSQLite(t, from)
	opts := &sqlsource.Options{Exclude: []string{"key_"}}
	copyStore(t, sqlsource.SQLite(from, opts), sqlsource.SQLite(to, opts))
	for query, want := range map[string]string{
		`SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name)`: `a_children anything boom by_parent children crm_schema odd "name parents sqlite_sequence`,
		`SELECT group_concat(id || name, ' ') FROM parents`:                                                        `7seven! 9客户!`,
		`SELECT group_concat(twice, ' ') FROM a_children`:                                                          `14 18`,
		`SELECT group_concat(typeof(v) || typeof(w) || typeof(r), ' ') FROM anything WHERE rowid < 12`:             `integerblobreal textblobreal blobnullreal realtextreal`,
		`SELECT length(w) || hex(w) FROM anything WHERE rowid = 13`:                                                `577697468200020746572`,
	} {
		var got string
		if err := to.QueryRow(query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(query, "SELECT length(w)") {
			var original string
			if err := from.QueryRow(query).Scan(&original); err != nil {
				t.Fatal(err)
			}
			want = original
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
	exec(t, to, `INSERT INTO parents (name) VALUES ('next')`)
	var id int
	if err := to.QueryRow(`SELECT max(id) FROM parents`).Scan(&id); err != nil || id != 41 {
		t.Errorf("next id %d, %v; want 41: the autoincrement state was lost", id, err)
	}
	var on bool
	if err := to.QueryRow(`PRAGMA foreign_keys`).Scan(&on); err != nil || !on {
		t.Errorf("foreign keys are %v, %v", on, err)
	}
}

func copyStore(t testing.TB, from, to backuptest.Store) {
	t.Helper()
	if err := tryCopy(t, from, to); err != nil {
		t.Fatal(err)
	}
}

func TestSQLiteRefusesWhatItWouldLose(t *testing.T) {
	db := openSQLite(t)
	exec(t, db, `CREATE TABLE a (x)`, `CREATE VIRTUAL TABLE words USING fts5 (body)`)
	err := tryCopy(t, sqlsource.SQLite(db, nil), sqlsource.SQLite(openSQLite(t), nil))
	if err == nil || !strings.Contains(err.Error(), "words") {
		t.Fatalf("got %v, want an error that names the virtual table", err)
	}
	if err := tryCopy(t, sqlsource.SQLite(db, &sqlsource.Options{Exclude: []string{"words"}}), sqlsource.SQLite(openSQLite(t), nil)); err != nil {
		t.Fatalf("with the table excluded: %v", err)
	}
}

func TestSQLiteSnapshotBesideAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	w, r, err := dialect.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	testSnapshot(t, w, sqlsource.SQLite(r, nil), sqlsource.SQLite(openSQLite(t), nil))
}

var postgresDDL = []string{
	`CREATE TABLE parents (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT NOT NULL UNIQUE)`,
	`CREATE TABLE a_children (id UUID PRIMARY KEY, parent BIGINT NOT NULL REFERENCES parents (id), twin UUID REFERENCES a_children (id) DEFERRABLE, twice BIGINT GENERATED ALWAYS AS (parent * 2) STORED)`,
	`CREATE TABLE anything (i2 SMALLINT, i4 INT, i8 BIGINT, f4 REAL, f8 DOUBLE PRECISION, b BOOLEAN, y BYTEA, t TEXT, v VARCHAR(9), at TIMESTAMPTZ, local TIMESTAMP,
		d DATE, n NUMERIC, j JSONB, a TEXT[], iv INTERVAL, c CHAR(4))`,
	`CREATE SCHEMA other`, `CREATE TABLE other."odd ""name" ("a column" INT, "select" TEXT)`,
	`CREATE TABLE crm_schema (id SERIAL PRIMARY KEY, version_id BIGINT NOT NULL, is_applied BOOLEAN NOT NULL)`,
	`CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.name = new.name || '!'; RETURN new; END $$`,
	`CREATE TRIGGER boom BEFORE INSERT ON parents FOR EACH ROW EXECUTE FUNCTION boom()`,
	`INSERT INTO crm_schema (version_id, is_applied) VALUES (0, true)`, // as migrations leave it
}

func fillPostgres(t testing.TB, db *sql.DB) {
	t.Helper()
	exec(t, db, postgresDDL...)
	exec(t, db,
		`ALTER TABLE parents DISABLE TRIGGER boom`,
		`INSERT INTO parents (id, name) OVERRIDING SYSTEM VALUE VALUES (7, 'seven'), (9, '客户')`,
		`ALTER TABLE parents ENABLE TRIGGER boom`,
		`SELECT setval('parents_id_seq', 40)`,
		`INSERT INTO a_children (id, parent, twin) VALUES ('00000000-0000-0000-0000-000000000001', 7, '00000000-0000-0000-0000-000000000002'), ('00000000-0000-0000-0000-000000000002', 9, NULL)`,
		`INSERT INTO anything VALUES
			(-32768, 2147483647, 9223372036854775807, 0.1, 0.1, true, '\x00ff5c0a', E'tab\there\nnew\\line\r end \\N', 'short', '2026-01-02 03:04:05.123456+02', '2026-01-02 03:04:05', '2026-01-02',
				12345678901234567890.123, '{"a": [1, 2]}', '{"x","y\"z",NULL}', '1 day 02:03:04', 'ab'),
			(0, 0, 0, 'NaN', '-Infinity', false, '', '', '', 'infinity', '-infinity', '0044-03-15 BC', 'NaN', 'null', '{}', '-1 mon', ''),
			(1, 1, 1, 3.4028235e38, 1.7976931348623157e308, NULL, NULL, '客户', '\.', '10000-01-01 00:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
			(NULL, NULL, NULL, NULL, -0.0, NULL, NULL, NULL, NULL, '0001-01-01 00:00:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL)`,
		`INSERT INTO other."odd ""name" VALUES (1, 'one'), (2, NULL)`,
		`INSERT INTO crm_schema (version_id, is_applied) VALUES (12, true), (13, false)`,
		`CREATE TABLE key_store (id SERIAL PRIMARY KEY, wrapped BYTEA)`, `INSERT INTO key_store (wrapped) VALUES ('\x01')`,
		`INSERT INTO anything (i8, y, t) SELECT i, decode(repeat(to_hex(i % 10 + 16), i % 200), 'hex'), repeat(E'x\t', i % 50) FROM generate_series(1, 5003) i`,
	)
}

func TestPostgres(t *testing.T) {
	backuptest.TestStore(t, func(t testing.TB) backuptest.Store {
		db := realtest.Postgres(t).DB
		fillPostgres(t, db)
		return sqlsource.Postgres(db, &sqlsource.Options{Exclude: []string{"key_"}})
	}, func(t testing.TB) backuptest.Store {
		return sqlsource.Postgres(realtest.Postgres(t).DB, &sqlsource.Options{Exclude: []string{"key_"}, Prepare: func(ctx context.Context, db *sql.DB) error {
			return prepare(ctx, db, postgresDDL)
		}})
	})
}

func TestPostgresWithTablesThere(t *testing.T) {
	from, to := realtest.Postgres(t).DB, realtest.Postgres(t).DB
	fillPostgres(t, from)
	exec(t, to, postgresDDL...)
	exec(t, to, `TRUNCATE crm_schema`)
	opts := &sqlsource.Options{Exclude: []string{"key_"}}
	copyStore(t, sqlsource.Postgres(from, opts), sqlsource.Postgres(to, opts))
	for query, want := range map[string]string{
		`INSERT INTO parents (name) VALUES ('next') RETURNING id || name`:                      `41next!`,
		`INSERT INTO crm_schema (version_id, is_applied) VALUES (14, true) RETURNING id::text`: `4`,
		`SELECT string_agg(twice::text, ' ' ORDER BY twice) FROM a_children`:                   `14 18`,
	} {
		var got string
		if err := to.QueryRow(query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", query, got, err, want)
		}
	}
	if _, err := to.Exec(`INSERT INTO a_children (id, parent) VALUES (gen_random_uuid(), 999)`); err == nil {
		t.Error("the foreign key was not put back")
	}
}

func TestPostgresRefusals(t *testing.T) {
	from := realtest.Postgres(t).DB
	exec(t, from, `CREATE TABLE a (x INT, y TEXT)`, `INSERT INTO a VALUES (1, 'secret value')`)
	for name, ddl := range map[string][]string{
		"no table":      nil,
		"other columns": {`CREATE TABLE a (x INT)`},
		"more tables":   {`CREATE TABLE a (x INT, y TEXT)`, `CREATE TABLE b (x INT)`},
		"other type":    {`CREATE TABLE a (x INT, y INT)`},
		"a constraint":  {`CREATE TABLE a (x INT, y TEXT CHECK (y <> 'secret value'))`},
	} {
		t.Run(name, func(t *testing.T) {
			to := realtest.Postgres(t).DB
			exec(t, to, ddl...)
			err := tryCopy(t, sqlsource.Postgres(from, nil), sqlsource.Postgres(to, nil))
			if err == nil {
				t.Fatal("was taken")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Fatalf("the error tells a value: %v", err)
			}
			var n int
			if ddl != nil {
				if err := to.QueryRow(`SELECT count(*) FROM a`).Scan(&n); err != nil || n != 0 {
					t.Fatalf("%d rows stayed, %v", n, err)
				}
			}
		})
	}
	t.Run("large objects", func(t *testing.T) {
		exec(t, from, `SELECT lo_create(0)`)
		if err := tryCopy(t, sqlsource.Postgres(from, nil), sqlsource.Postgres(realtest.Postgres(t).DB, nil)); err == nil {
			t.Fatal("large objects were lost in silence")
		}
	})
}

func TestPostgresSnapshotBesideAWriter(t *testing.T) {
	db, to := realtest.Postgres(t).DB, realtest.Postgres(t).DB
	testSnapshot(t, db, sqlsource.Postgres(db, nil), sqlsource.Postgres(to, &sqlsource.Options{
		Prepare: func(_ context.Context, db *sql.DB) error {
			_, err := db.Exec(snapshotTables)
			return err
		}}))
}

func TestOtherEngine(t *testing.T) {
	from := openSQLite(t)
	exec(t, from, `CREATE TABLE a (x)`)
	to := realtest.Postgres(t).DB
	if err := tryCopy(t, sqlsource.SQLite(from, nil), sqlsource.Postgres(to, nil)); err == nil {
		t.Fatal("rows of another engine were taken")
	}
}

const snapshotTables = `CREATE TABLE accounts (id INTEGER PRIMARY KEY, v INTEGER NOT NULL); CREATE TABLE moves (id INTEGER PRIMARY KEY, v INTEGER NOT NULL)`

// testSnapshot writes one row into each of two tables in each transaction: a snapshot has as many in one as in the other.
func testSnapshot(t *testing.T, db *sql.DB, from, to backuptest.Store) {
	exec(t, db, strings.Split(snapshotTables, ";")...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			if i == 200 {
				close(begun)
			}
			tx, err := db.BeginTx(ctx, nil)
			if err == nil {
				_, err = tx.Exec(fmt.Sprintf("INSERT INTO accounts VALUES (%d, 1)", i))
			}
			if err == nil {
				_, err = tx.Exec(fmt.Sprintf("INSERT INTO moves VALUES (%d, 1)", i))
			}
			if err == nil {
				err = tx.Commit()
			}
			if err != nil {
				if i < 200 {
					close(begun)
				}
				done <- err
				return
			}
		}
	}()
	<-begun
	copied := &backuptest.Memory{}
	err := tryCopy(t, from, copied)
	cancel()
	if werr := <-done; !errors.Is(werr, context.Canceled) && !errors.Is(werr, sql.ErrTxDone) {
		t.Logf("the writer ended with %v", werr)
	}
	if err != nil {
		t.Fatal(err)
	}
	if a, m := len(copied.Tables[0].Rows), len(copied.Tables[1].Rows); a != m || a < 200 {
		t.Fatalf("%d rows in one table, %d in the other", a, m)
	}
	if err := tryCopy(t, copied, to); err != nil {
		t.Fatal(err)
	}
}

func TestIncomplete(t *testing.T) {
	from, to := openSQLite(t), openSQLite(t)
	exec(t, from, `CREATE TABLE crm_schema (id INTEGER PRIMARY KEY)`, `INSERT INTO crm_schema VALUES (3)`)
	fail := errors.New("migrations ended")
	target := sqlsource.SQLite(to, &sqlsource.Options{Prepare: func(ctx context.Context, db *sql.DB) error {
		if err := prepare(ctx, db, []string{`CREATE TABLE crm_schema (id INTEGER PRIMARY KEY)`, `INSERT INTO crm_schema VALUES (1)`}); err != nil {
			return err
		}
		return fail
	}})
	check := func(want bool) {
		t.Helper()
		if got, err := target.Incomplete(t.Context()); err != nil || got != want {
			t.Fatalf("incomplete: %v, %v; want %v", got, err, want)
		}
	}
	check(false)
	if err := tryCopy(t, sqlsource.SQLite(from, nil), target); !errors.Is(err, fail) {
		t.Fatalf("got %v, want the error of Prepare", err)
	}
	check(true)
	if err := tryCopy(t, target, &backuptest.Memory{}); err == nil {
		t.Fatal("a half-restored database was backed up")
	}
	fail = nil
	copyStore(t, sqlsource.SQLite(from, nil), target)
	check(false)
	var id int
	if err := to.QueryRow(`SELECT sum(id) FROM crm_schema`).Scan(&id); err != nil || id != 3 {
		t.Fatalf("rows sum to %d, %v; want 3", id, err)
	}
}

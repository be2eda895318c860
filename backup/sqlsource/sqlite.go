package sqlsource

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/backup"
)

type sqlite struct{}

func (sqlite) name() string   { return engineSQLite }
func (sqlite) marker() string { return marker }

// sqliteSchema is the schema's data: docs/formats/backup.md.
type sqliteSchema struct {
	UserVersion   int64            `json:"user_version"`
	ApplicationID int64            `json:"application_id"`
	Objects       []sqliteObject   `json:"objects"`
	Sequences     map[string]int64 `json:"sequences"` // of AUTOINCREMENT tables
}

type sqliteObject struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Table string `json:"table"`
	SQL   string `json:"sql"`
}

func (sqlite) begin(ctx context.Context, conn *sql.Conn, reading bool) (end func() error, err error) {
	if reading {
		_, err := conn.ExecContext(ctx, "BEGIN")
		return func() error { return nil }, err
	}
	// Rows come in any order and as they were: nothing is refused or cascaded meanwhile.
	var on bool
	if err := conn.QueryRowContext(ctx, "PRAGMA foreign_keys").Scan(&on); err != nil {
		return nil, err
	}
	end = func() error {
		if !on {
			return nil
		}
		_, err := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA foreign_keys = ON")
		return err
	}
	if _, err := conn.ExecContext(ctx, "PRAGMA foreign_keys = OFF"); err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, errors.Join(err, end())
	}
	return end, nil
}

func (sqlite) tables(ctx context.Context, d *Database, conn *sql.Conn) ([]table, error) {
	rows, err := conn.QueryContext(ctx, "SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name")
	if err != nil {
		return nil, failed("list tables", err)
	}
	defer rows.Close()
	var all []table
	for rows.Next() {
		var name, kind string
		if err := rows.Scan(&name, &kind); err != nil {
			return nil, failed("list tables", err)
		}
		switch {
		case strings.HasPrefix(name, "sqlite_"), kind == "view", d.excluded(name):
		case kind != "table":
			return nil, fmt.Errorf("sqlsource: table %s is %s, which is not known: exclude it", name, kind)
		default:
			all = append(all, table{name, quote(name)})
		}
	}
	return all, failedOr("list tables", rows.Err())
}

func failedOr(what string, err error) error {
	if err == nil {
		return nil
	}
	return failed(what, err)
}

// columns lists what of a table is stored, and which of it is the primary key. Its row id is among it where nothing else
// names it, and is the key where there is no other.
func (sqlite) columns(ctx context.Context, conn *sql.Conn, t table) (names, key []string, err error) {
	rows, err := conn.QueryContext(ctx, "SELECT name, hidden, pk, upper(type) FROM pragma_table_xinfo(?) ORDER BY cid", t.name)
	if err != nil {
		return nil, nil, failed("columns of table "+t.name, err)
	}
	defer rows.Close()
	keys, alias, named := 0, false, false
	places := map[string]int{}
	for rows.Next() {
		var name, kind string
		var hidden, pk int
		if err := rows.Scan(&name, &hidden, &pk, &kind); err != nil {
			return nil, nil, failed("columns of table "+t.name, err)
		}
		if pk > 0 {
			keys++
			alias = kind == "INTEGER"
			if hidden == 0 {
				key = append(key, name)
				places[name] = pk
			}
		}
		named = named || strings.EqualFold(name, "rowid")
		if hidden == 0 { // not generated
			names = append(names, name)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, failed("columns of table "+t.name, err)
	}
	if len(key) != keys {
		key = nil
	}
	slices.SortFunc(key, func(a, b string) int { return places[a] - places[b] })
	var without bool
	err = conn.QueryRowContext(ctx, "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", t.name).Scan(&without)
	if err != nil {
		return nil, nil, failed("columns of table "+t.name, err)
	}
	if !without && !named && (keys != 1 || !alias) {
		names = append([]string{"rowid"}, names...)
		if len(key) == 0 {
			key = names[:1:1]
		}
	}
	return names, key, nil
}

// parents lists the columns that alone refer to the whole key of another table.
func (sqlite) parents(ctx context.Context, conn *sql.Conn, t table) (map[string]string, error) {
	rows, err := conn.QueryContext(ctx, `SELECT f."from", f."table" FROM pragma_foreign_key_list(?) f
		JOIN pragma_table_xinfo(f."table") p ON p.pk = 1 AND (f."to" IS NULL OR lower(f."to") = lower(p.name))
		GROUP BY f.id HAVING count(*) = 1 AND (SELECT count(*) FROM pragma_foreign_key_list(?) g WHERE g.id = f.id) = 1
			AND (SELECT max(q.pk) FROM pragma_table_xinfo(f."table") q) = 1`, t.name, t.name)
	if err != nil {
		return nil, failed("foreign keys of table "+t.name, err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var column, parent string
		if err := rows.Scan(&column, &parent); err != nil {
			return nil, failed("foreign keys of table "+t.name, err)
		}
		out[column] = parent
	}
	return out, failedOr("foreign keys of table "+t.name, rows.Err())
}

func (e sqlite) dump(ctx context.Context, d *Database, conn *sql.Conn, w *backup.Writer) error {
	tables, err := e.tables(ctx, d, conn)
	if err != nil {
		return err
	}
	s := backup.Schema{Engine: engineSQLite, Versions: map[string]int64{}}
	described := make([]backup.Table, len(tables))
	for i, t := range tables {
		b := backup.Table{Name: t.name}
		if b.Columns, b.Key, err = e.columns(ctx, conn, t); err != nil {
			return err
		}
		if b.Parents, err = e.parents(ctx, conn, t); err != nil {
			return err
		}
		maps.DeleteFunc(b.Parents, func(column, _ string) bool { return !slices.Contains(b.Columns, column) })
		if err := versions(ctx, conn, t, b.Columns, s.Versions); err != nil {
			return err
		}
		if b.Seq, err = d.seq(ctx, conn, t, b); err != nil {
			return err
		}
		described[i] = b
	}
	state, err := e.schema(ctx, d, conn)
	if err != nil {
		return err
	}
	if s.Data, err = json.Marshal(state); err != nil {
		return err
	}
	if err := w.Schema(s); err != nil {
		return err
	}
	for i, t := range tables {
		err := d.table(ctx, conn, t, described[i], w, func(columns []string, where string, row func(...any) error) error {
			return e.rows(ctx, conn, t, columns, where, row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (e sqlite) rows(ctx context.Context, conn *sql.Conn, t table, columns []string, where string, row func(...any) error) (err error) {
	exprs := make([]string, len(columns))
	for i, c := range columns {
		exprs[i] = "+" + quote(c) // an expression has no declared type, by which the driver would convert values
	}
	query := "SELECT " + strings.Join(exprs, ", ") + " FROM " + t.quoted + where
	rerr := conn.Raw(func(c any) error { // below package sql, which copies each value once more
		q, ok := c.(driver.QueryerContext)
		if !ok {
			err = errors.New(`sqlsource: the handle was not opened by the driver "sqlite"`)
			return nil
		}
		err = readRows(ctx, q, t, query, row)
		return nil
	})
	if err == nil {
		err = failedOr("read table "+t.name, rerr)
	}
	return err
}

func readRows(ctx context.Context, conn driver.QueryerContext, t table, query string, row func(...any) error) error {
	rows, err := conn.QueryContext(ctx, query, nil)
	if err != nil {
		return failed("read table "+t.name, err)
	}
	defer rows.Close()
	read := make([]driver.Value, len(rows.Columns()))
	values := make([]any, len(read))
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := rows.Next(read); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return failed("read table "+t.name, err)
		}
		for i, v := range read {
			values[i] = v
		}
		if err := row(values...); err != nil {
			return err
		}
	}
}

func (sqlite) schema(ctx context.Context, d *Database, conn *sql.Conn) (*sqliteSchema, error) {
	s := &sqliteSchema{Objects: []sqliteObject{}, Sequences: map[string]int64{}}
	if err := conn.QueryRowContext(ctx, "SELECT user_version FROM pragma_user_version").Scan(&s.UserVersion); err != nil {
		return nil, failed("read the schema", err)
	}
	if err := conn.QueryRowContext(ctx, "SELECT application_id FROM pragma_application_id").Scan(&s.ApplicationID); err != nil {
		return nil, failed("read the schema", err)
	}
	rows, err := conn.QueryContext(ctx, "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
	if err != nil {
		return nil, failed("read the schema", err)
	}
	defer rows.Close()
	autoincrement := false
	for rows.Next() {
		var o sqliteObject
		if err := rows.Scan(&o.Type, &o.Name, &o.Table, &o.SQL); err != nil {
			return nil, failed("read the schema", err)
		}
		autoincrement = autoincrement || o.Name == "sqlite_sequence"
		if !strings.HasPrefix(o.Name, "sqlite_") && !d.excluded(o.Table) && !d.excluded(o.Name) {
			s.Objects = append(s.Objects, o)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, failed("read the schema", err)
	}
	if !autoincrement {
		return s, nil
	}
	seq, err := conn.QueryContext(ctx, "SELECT name, seq FROM sqlite_sequence")
	if err != nil {
		return nil, failed("read the sequences", err)
	}
	defer seq.Close()
	for seq.Next() {
		var name string
		var n int64
		if err := seq.Scan(&name, &n); err != nil {
			return nil, failed("read the sequences", err)
		}
		if !d.excluded(name) {
			s.Sequences[name] = n
		}
	}
	return s, failedOr("read the sequences", seq.Err())
}

func (e sqlite) load(ctx context.Context, d *Database, conn *sql.Conn, r *backup.Reader, prepared bool) error {
	var s sqliteSchema
	if err := json.Unmarshal(r.Schema().Data, &s); err != nil {
		return errors.New("sqlsource: the schema of the snapshot is not known")
	}
	// What is excluded by now may be in an older snapshot: it is passed over.
	s.Objects = slices.DeleteFunc(s.Objects, func(o sqliteObject) bool { return d.excluded(o.Table) || d.excluded(o.Name) })
	after := s.Objects // what is created after the rows
	if prepared {
		var err error
		if after, err = e.clear(ctx, d, conn); err != nil {
			return err
		}
	} else {
		for _, o := range s.Objects {
			if o.Type == "table" {
				if _, err := conn.ExecContext(ctx, o.SQL); err != nil {
					return failed("create table "+o.Name, err)
				}
			}
		}
		after = slices.DeleteFunc(slices.Clone(after), func(o sqliteObject) bool { return o.Type == "table" })
	}
	have, err := e.tables(ctx, d, conn)
	if err != nil {
		return err
	}
	loaded := 0
	for {
		t, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if d.excluded(t.Name) {
			continue
		}
		i := slices.IndexFunc(have, func(h table) bool { return h.name == t.Name })
		if i < 0 {
			return fmt.Errorf("sqlsource: table %s is in the snapshot and not in the schema", t.Name)
		}
		loaded++
		if err := e.loadTable(ctx, conn, have[i], t, r); err != nil {
			return err
		}
	}
	if loaded != len(have) {
		return errors.New("sqlsource: the schema has tables that the snapshot has not")
	}
	if len(s.Sequences) > 0 {
		for name, n := range s.Sequences {
			if d.excluded(name) {
				continue
			}
			_, err := conn.ExecContext(ctx, "DELETE FROM sqlite_sequence WHERE name = ?", name)
			if err == nil {
				_, err = conn.ExecContext(ctx, "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", name, n)
			}
			if err != nil {
				return failed("set the sequence of table "+name, err)
			}
		}
	}
	for _, o := range after {
		if _, err := conn.ExecContext(ctx, o.SQL); err != nil {
			return failed("create "+o.Type+" "+o.Name, err)
		}
	}
	for _, p := range []string{
		fmt.Sprintf("PRAGMA user_version = %d", s.UserVersion), fmt.Sprintf("PRAGMA application_id = %d", s.ApplicationID),
	} {
		if _, err := conn.ExecContext(ctx, p); err != nil {
			return failed("set a version", err)
		}
	}
	return nil
}

// clear empties prepared tables and takes their triggers away, which it returns.
func (e sqlite) clear(ctx context.Context, d *Database, conn *sql.Conn) ([]sqliteObject, error) {
	s, err := e.schema(ctx, d, conn)
	if err != nil {
		return nil, err
	}
	var triggers []sqliteObject
	for _, o := range s.Objects {
		if o.Type == "trigger" {
			if _, err := conn.ExecContext(ctx, "DROP TRIGGER "+quote(o.Name)); err != nil {
				return nil, failed("drop trigger "+o.Name, err)
			}
			triggers = append(triggers, o)
		}
	}
	for _, o := range s.Objects {
		if o.Type == "table" {
			if _, err := conn.ExecContext(ctx, "DELETE FROM "+quote(o.Name)); err != nil {
				return nil, failed("empty table "+o.Name, err)
			}
		}
	}
	return triggers, nil
}

const (
	insertValues = 1000    // most bound values of one statement
	insertBytes  = 1 << 20 // after so many a statement ends
)

func (sqlite) loadTable(ctx context.Context, conn *sql.Conn, t table, from backup.Table, r *backup.Reader) error {
	quoted := make([]string, len(from.Columns))
	for i, c := range from.Columns {
		quoted[i] = quote(c)
	}
	batch := max(1, min(200, insertValues/len(quoted)))
	one := "(" + strings.TrimSuffix(strings.Repeat("?,", len(quoted)), ",") + ")"
	stmts := map[int]*sql.Stmt{} // by their rows
	defer func() {
		for _, s := range stmts {
			s.Close()
		}
	}()
	values, size := make([]any, 0, batch*len(quoted)), 0
	flush := func() error {
		n := len(values) / len(quoted)
		stmt := stmts[n]
		if stmt == nil {
			var err error
			stmt, err = conn.PrepareContext(ctx, "INSERT INTO "+t.quoted+" ("+strings.Join(quoted, ", ")+") VALUES "+
				strings.TrimSuffix(strings.Repeat(one+",", n), ","))
			if err != nil {
				return failed("fill table "+t.name, err)
			}
			stmts[n] = stmt
		}
		_, err := stmt.ExecContext(ctx, values...)
		clear(values)
		values, size = values[:0], 0
		return failedOr("fill table "+t.name, err)
	}
	for row, err := range r.Rows() {
		if err != nil {
			return err
		}
		values = append(values, row...)
		for _, v := range row {
			switch v := v.(type) {
			case string:
				size += len(v)
			case []byte:
				size += len(v)
			}
		}
		if len(values) == cap(values) || size >= insertBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(values) == 0 {
		return nil
	}
	return flush()
}

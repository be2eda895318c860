package sqlsource

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/crmguard/crmguard/backup/records"
)

// Live returns the database as what single records are written back into. Triggers and foreign keys act as they do on any other write. With
// Options.Changes a row that is written gets a change number above all that the table has, so that the next backup sees it; a database whose
// numbers are of several tables together wraps what this returns and gives its own.
func (d *Database) Live() records.Store { return live{d} }

type live struct{ d *Database }

// Change implements records.Store.
func (l live) Change(ctx context.Context, do func(records.Tx) error) error {
	conn, err := l.d.db.Conn(ctx)
	if err != nil {
		return failed("connect", err)
	}
	defer conn.Close()
	begin := []string{"BEGIN IMMEDIATE", "PRAGMA defer_foreign_keys = ON"} // until the end of the transaction
	if l.d.engine.name() == enginePostgres {
		begin = []string{"BEGIN ISOLATION LEVEL SERIALIZABLE", "SET LOCAL row_security = off", "SET LOCAL TimeZone = 'UTC'",
			"SET LOCAL DateStyle = 'ISO, YMD'", "SET LOCAL IntervalStyle = 'postgres'", "SET LOCAL bytea_output = 'hex'",
			"SET LOCAL extra_float_digits = 1", "SET LOCAL client_encoding = 'UTF8'", "SET CONSTRAINTS ALL DEFERRED"}
	}
	rollback := func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }
	for _, q := range begin {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			rollback()
			return failed("begin", err)
		}
	}
	if err := do(&liveTx{d: l.d, conn: conn, forms: map[string]*form{}}); err != nil {
		rollback()
		return err
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		rollback()
		return failed("commit", err)
	}
	return nil
}

type liveTx struct {
	d     *Database
	conn  *sql.Conn
	forms map[string]*form
}

// form is a table's.
type form struct {
	table
	columns, key []string
	types        []uint32 // of PostgreSQL
}

func (t *liveTx) form(ctx context.Context, name string) (*form, error) {
	if f := t.forms[name]; f != nil {
		return f, nil
	}
	all, err := t.d.engine.tables(ctx, t.d, t.conn)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(x table) bool { return x.name == name })
	if i < 0 {
		return nil, fmt.Errorf("%w: table %s", records.ErrForm, name)
	}
	f := &form{table: all[i]}
	switch e := t.d.engine.(type) {
	case sqlite:
		f.columns, f.key, err = e.columns(ctx, t.conn, f.table)
	case postgres:
		if f.columns, f.types, err = e.columns(ctx, t.conn, f.table); err == nil {
			f.key, _, err = e.keys(ctx, t.conn, f.table, f.columns)
		}
	}
	if err != nil {
		return nil, err
	}
	t.forms[name] = f
	return f, nil
}

// statement runs one with values as they are stored, and returns the rows, of the types of columns.
func (t *liveTx) statement(ctx context.Context, what string, f *form, query string, values []any, columns []string) ([][]any, int64, error) {
	if t.d.engine.name() == enginePostgres {
		return t.postgres(ctx, what, f, query, values, columns)
	}
	if len(columns) == 0 {
		res, err := t.conn.ExecContext(ctx, query, values...)
		if err != nil {
			return nil, 0, failed(what+" table "+f.name, err)
		}
		n, err := res.RowsAffected()
		return nil, n, failedOr(what+" table "+f.name, err)
	}
	rows, err := t.conn.QueryContext(ctx, query, values...)
	if err != nil {
		return nil, 0, failed(what+" table "+f.name, err)
	}
	defer rows.Close()
	var all [][]any
	for rows.Next() {
		row, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, 0, failed(what+" table "+f.name, err)
		}
		all = append(all, row)
	}
	return all, int64(len(all)), failedOr(what+" table "+f.name, rows.Err())
}

// postgres runs a statement in the text forms that snapshots hold.
func (t *liveTx) postgres(ctx context.Context, what string, f *form, query string, values []any, columns []string) (all [][]any, n int64, err error) {
	params := make([][]byte, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case nil:
		case string:
			params[i] = []byte(v)
		default:
			b, err := appendField([]byte{}, v)
			if err != nil {
				return nil, 0, err
			}
			params[i] = bytes.TrimPrefix(b, []byte(`\`)) // of COPY, before \x
		}
	}
	err = raw(t.conn, func(pc *pgconn.PgConn) error {
		res := pc.ExecParams(ctx, query, params, nil, nil, nil).Read()
		if res.Err != nil {
			return failed(what+" table "+f.name, res.Err)
		}
		n = res.CommandTag.RowsAffected()
		for _, line := range res.Rows {
			row := make([]any, len(line))
			for i, b := range line {
				if b == nil || i >= len(columns) {
					continue
				}
				oid := f.types[slices.Index(f.columns, columns[i])]
				if row[i], err = parseField(bytes.ReplaceAll(b, []byte(`\`), []byte(`\\`)), oid); err != nil {
					return err
				}
			}
			all = append(all, row)
		}
		return nil
	})
	return all, n, err
}

func (t *liveTx) mark(i int) string {
	if t.d.engine.name() == enginePostgres {
		return "$" + strconv.Itoa(i)
	}
	return "?"
}

// where is the condition of a key; first is the number of its first value.
func (t *liveTx) where(key []string, first int) string {
	parts := make([]string, len(key))
	for i, k := range key {
		parts[i] = quote(k) + " = " + t.mark(first+i)
	}
	return " WHERE " + strings.Join(parts, " AND ")
}

func (f *form) has(columns ...string) error {
	for _, c := range columns {
		if !slices.Contains(f.columns, c) {
			return fmt.Errorf("%w: table %s", records.ErrForm, f.name)
		}
	}
	return nil
}

// Read implements records.Tx.
func (t *liveTx) Read(ctx context.Context, name string, columns, key []string, values []any) ([]any, error) {
	f, err := t.form(ctx, name)
	if err != nil {
		return nil, err
	}
	if key == nil {
		key = f.key
	}
	if err := errors.Join(f.has(columns...), f.has(key...)); err != nil || len(key) == 0 || len(key) != len(values) {
		return nil, errors.Join(records.ErrForm, err)
	}
	some := columns
	if len(some) == 0 {
		some = key
	}
	exprs := make([]string, len(some))
	for i, c := range some {
		exprs[i] = quote(c)
		if t.d.engine.name() == engineSQLite {
			exprs[i] = "+" + exprs[i]
		}
	}
	rows, _, err := t.statement(ctx, "read", f, "SELECT "+strings.Join(exprs, ", ")+" FROM "+f.quoted+t.where(key, 1), values, some)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	if len(rows) > 1 {
		return nil, fmt.Errorf("%w: several rows of table %s have the key", records.ErrForm, name)
	}
	return rows[0][:len(columns)], nil
}

// stamp gives the row the next change number, where the table has one.
func (t *liveTx) stamp(ctx context.Context, f *form, columns []string, row []any) ([]string, []any, error) {
	c := t.d.opts.Changes
	if c == "" || !slices.Contains(f.columns, c) {
		return columns, row, nil
	}
	rows, _, err := t.statement(ctx, "read", f, "SELECT coalesce(max("+quote(c)+"), 0) + 1 FROM "+f.quoted, nil, []string{c})
	if err != nil {
		return nil, nil, err
	}
	columns, row = slices.Clone(columns), slices.Clone(row)
	if i := slices.Index(columns, c); i >= 0 {
		row[i] = rows[0][0]
	} else {
		columns, row = append(columns, c), append(row, rows[0][0])
	}
	return columns, row, nil
}

// Insert implements records.Tx.
func (t *liveTx) Insert(ctx context.Context, name string, columns []string, row []any) error {
	f, err := t.form(ctx, name)
	if err != nil {
		return err
	}
	if err := f.has(columns...); err != nil {
		return err
	}
	if columns, row, err = t.stamp(ctx, f, columns, row); err != nil {
		return err
	}
	quoted, marks := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		quoted[i], marks[i] = quote(c), t.mark(i+1)
	}
	over := ""
	if t.d.engine.name() == enginePostgres {
		over = "OVERRIDING SYSTEM VALUE " // identity columns keep what they were
	}
	_, _, err = t.statement(ctx, "fill", f, "INSERT INTO "+f.quoted+" ("+strings.Join(quoted, ", ")+") "+over+"VALUES ("+strings.Join(marks, ", ")+")", row, nil)
	return err
}

// Update implements records.Tx.
func (t *liveTx) Update(ctx context.Context, name string, columns []string, row []any, key []string, values []any) error {
	f, err := t.form(ctx, name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.has(columns...), f.has(key...)); err != nil {
		return err
	}
	if columns, row, err = t.stamp(ctx, f, columns, row); err != nil {
		return err
	}
	sets := make([]string, len(columns))
	for i, c := range columns {
		sets[i] = quote(c) + " = " + t.mark(i+1)
	}
	all := slices.Concat(row, values)
	_, n, err := t.statement(ctx, "change", f, "UPDATE "+f.quoted+" SET "+strings.Join(sets, ", ")+t.where(key, len(row)+1), all, nil)
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: table %s", records.ErrChanged, name)
	}
	return err
}

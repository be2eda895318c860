package sqlsource

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/crmguard/crmguard/backup"
)

var errBadConn = driver.ErrBadConn

type postgres struct{}

func (postgres) name() string   { return enginePostgres }
func (postgres) marker() string { return "public." + marker }

// postgresSchema is the schema's data: docs/formats/backup.md.
type postgresSchema struct {
	Server    string             `json:"server"`
	Sequences []postgresSequence `json:"sequences"`
}

type postgresSequence struct {
	Name   string `json:"name"`
	Last   int64  `json:"last"`
	Called bool   `json:"called"`
}

func (postgres) begin(ctx context.Context, conn *sql.Conn, reading bool) (end func() error, err error) {
	begin := "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	if reading {
		begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
	}
	for _, q := range []string{begin,
		"SET LOCAL row_security = off", // an error instead of rows that are missing
		"SET LOCAL TimeZone = 'UTC'", "SET LOCAL DateStyle = 'ISO, YMD'", "SET LOCAL IntervalStyle = 'postgres'",
		"SET LOCAL bytea_output = 'hex'", "SET LOCAL extra_float_digits = 1", "SET LOCAL client_encoding = 'UTF8'",
		"SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0", "SET LOCAL search_path = pg_catalog",
	} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // err says what went wrong first
			return nil, err
		}
	}
	return func() error { return nil }, nil
}

const userSpaces = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"

func (postgres) tables(ctx context.Context, d *Database, conn *sql.Conn) ([]table, error) {
	rows, err := conn.QueryContext(ctx, `SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND `+userSpaces+` ORDER BY 1, 2`)
	if err != nil {
		return nil, failed("list tables", err)
	}
	defer rows.Close()
	var all []table
	for rows.Next() {
		var space, name string
		if err := rows.Scan(&space, &name); err != nil {
			return nil, failed("list tables", err)
		}
		if !d.excluded(name) {
			all = append(all, table{space + "." + name, quote(space) + "." + quote(name)})
		}
	}
	return all, failedOr("list tables", rows.Err())
}

// columns lists the stored columns of a table and their types.
func (postgres) columns(ctx context.Context, conn *sql.Conn, t table) (names []string, types []uint32, err error) {
	rows, err := conn.QueryContext(ctx, `SELECT attname, atttypid::bigint FROM pg_catalog.pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum`, t.quoted)
	if err != nil {
		return nil, nil, failed("columns of table "+t.name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var oid int64
		if err := rows.Scan(&name, &oid); err != nil {
			return nil, nil, failed("columns of table "+t.name, err)
		}
		names, types = append(names, name), append(types, uint32(oid))
	}
	if err := rows.Err(); err != nil {
		return nil, nil, failed("columns of table "+t.name, err)
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("sqlsource: table %s has no columns", t.name)
	}
	return names, types, nil
}

func (e postgres) dump(ctx context.Context, d *Database, conn *sql.Conn, w *backup.Writer) error {
	var large bool
	if err := conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_largeobject_metadata)").Scan(&large); err != nil {
		return failed("look for large objects", err)
	}
	if large {
		return errors.New("sqlsource: the database has large objects, which are not copied")
	}
	tables, err := e.tables(ctx, d, conn)
	if err != nil {
		return err
	}
	s := backup.Schema{Engine: enginePostgres, Versions: map[string]int64{}}
	described, types := make([]backup.Table, len(tables)), make([][]uint32, len(tables))
	for i, t := range tables {
		b := backup.Table{Name: t.name}
		if b.Columns, types[i], err = e.columns(ctx, conn, t); err != nil {
			return err
		}
		if b.Key, b.Parents, err = e.keys(ctx, conn, t, b.Columns); err != nil {
			return err
		}
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
		b := described[i]
		err := d.table(ctx, conn, t, b, w, func(columns []string, where string, row func(...any) error) error {
			kinds := make([]uint32, len(columns))
			for k, c := range columns {
				kinds[k] = types[i][slices.Index(b.Columns, c)]
			}
			return copyTo(ctx, conn, t, columns, kinds, where, row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keys lists the columns of a table's primary key, and those that alone refer to the whole key of another table.
func (postgres) keys(ctx context.Context, conn *sql.Conn, t table, columns []string) (key []string, parents map[string]string, err error) {
	rows, err := conn.QueryContext(ctx, `SELECT a.attname, '' FROM pg_catalog.pg_index i
			JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
			WHERE i.indrelid = $1::text::regclass AND i.indisprimary
		UNION ALL SELECT a.attname, n.nspname || '.' || p.relname FROM pg_catalog.pg_constraint c
			JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
			JOIN pg_catalog.pg_class p ON p.oid = c.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
			JOIN pg_catalog.pg_index i ON i.indrelid = c.confrelid AND i.indisprimary
			WHERE c.conrelid = $1::text::regclass AND c.contype = 'f' AND array_length(c.conkey, 1) = 1
				AND i.indnkeyatts = 1 AND i.indkey[0] = c.confkey[1]
		ORDER BY 2, 1`, t.quoted)
	if err != nil {
		return nil, nil, failed("keys of table "+t.name, err)
	}
	defer rows.Close()
	parents = map[string]string{}
	for rows.Next() {
		var column, parent string
		if err := rows.Scan(&column, &parent); err != nil {
			return nil, nil, failed("keys of table "+t.name, err)
		}
		switch {
		case !slices.Contains(columns, column):
			if parent == "" {
				return nil, parents, failedOr("keys of table "+t.name, rows.Err()) // a generated column
			}
		case parent == "":
			key = append(key, column)
		default:
			parents[column] = parent
		}
	}
	return key, parents, failedOr("keys of table "+t.name, rows.Err())
}

func (postgres) schema(ctx context.Context, d *Database, conn *sql.Conn) (*postgresSchema, error) {
	s := &postgresSchema{Sequences: []postgresSequence{}}
	if err := conn.QueryRowContext(ctx, "SHOW server_version").Scan(&s.Server); err != nil {
		return nil, failed("read the version", err)
	}
	rows, err := conn.QueryContext(ctx, `SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND `+userSpaces+` ORDER BY 1, 2`)
	if err != nil {
		return nil, failed("list sequences", err)
	}
	defer rows.Close()
	for rows.Next() {
		var space, name string
		if err := rows.Scan(&space, &name); err != nil {
			return nil, failed("list sequences", err)
		}
		if !d.excluded(name) {
			s.Sequences = append(s.Sequences, postgresSequence{Name: quote(space) + "." + quote(name)})
		}
	}
	if err := rows.Err(); err != nil {
		return nil, failed("list sequences", err)
	}
	rows.Close()
	for i := range s.Sequences {
		q := &s.Sequences[i]
		// Sequences know no snapshot: they are read as they are now, never behind the rows.
		if err := conn.QueryRowContext(ctx, "SELECT last_value, is_called FROM "+q.Name).Scan(&q.Last, &q.Called); err != nil {
			return nil, failed("read sequence "+q.Name, err)
		}
	}
	return s, nil
}

// raw runs do with the connection of pgx below conn.
func raw(conn *sql.Conn, do func(*pgconn.PgConn) error) error {
	var err error
	rerr := conn.Raw(func(c any) error {
		pc, ok := c.(*stdlib.Conn)
		if !ok {
			err = errors.New(`sqlsource: the handle was not opened by the driver "pgx"`)
			return nil
		}
		err = do(pc.Conn().PgConn())
		return nil
	})
	return errors.Join(err, rerr)
}

func copyTo(ctx context.Context, conn *sql.Conn, t table, names []string, types []uint32, where string, row func(...any) error) error {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return raw(conn, func(pc *pgconn.PgConn) error {
		out := &lineWriter{types: types, row: make([]any, len(types)), write: row}
		from := t.quoted + " (" + strings.Join(quoted, ", ") + ")"
		if where != "" {
			from = "(SELECT " + strings.Join(quoted, ", ") + " FROM " + t.quoted + where + ")"
		}
		_, err := pc.CopyTo(ctx, out, "COPY "+from+" TO STDOUT (FORMAT text)")
		if out.err != nil {
			return out.err
		}
		if err == nil && len(out.rest) > 0 {
			err = errCopy
		}
		return failedOr("read table "+t.name, err)
	})
}

var errCopy = errors.New("sqlsource: unexpected form of rows")

// lineWriter takes the text form of COPY and gives rows.
type lineWriter struct {
	types []uint32
	row   []any
	rest  []byte // of a line that has not ended
	write func(...any) error
	err   error
}

func (l *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.rest = append(l.rest, p...)
			return n, nil
		}
		line := p[:i]
		if len(l.rest) > 0 {
			l.rest = append(l.rest, line...)
			line, l.rest = l.rest, l.rest[:0]
		}
		if l.err = l.line(line); l.err != nil {
			return 0, l.err
		}
		p = p[i+1:]
	}
}

func (l *lineWriter) line(line []byte) error {
	for i, oid := range l.types {
		var field []byte
		tab := bytes.IndexByte(line, '\t')
		if last := i == len(l.types)-1; last != (tab < 0) {
			return errCopy
		} else if last {
			field = line
		} else {
			field, line = line[:tab], line[tab+1:]
		}
		v, err := parseField(field, oid)
		if err != nil {
			return err
		}
		l.row[i] = v
	}
	return l.write(l.row...)
}

// The types that become values of their own; any other is text in PostgreSQL's own form.
const (
	oidBool, oidBytea, oidInt8, oidInt2, oidInt4 = 16, 17, 20, 21, 23
	oidFloat4, oidFloat8, oidTimestamptz         = 700, 701, 1184
	timestamptzForm                              = "2006-01-02 15:04:05.999999-07"
)

func parseField(b []byte, oid uint32) (any, error) {
	if string(b) == `\N` {
		return nil, nil
	}
	if bytes.IndexByte(b, '\\') >= 0 {
		out := make([]byte, 0, len(b))
		for i := 0; i < len(b); i++ {
			c := b[i]
			if c == '\\' {
				if i++; i == len(b) {
					return nil, errCopy
				}
				switch b[i] {
				case 'b':
					c = '\b'
				case 'f':
					c = '\f'
				case 'n':
					c = '\n'
				case 'r':
					c = '\r'
				case 't':
					c = '\t'
				case 'v':
					c = '\v'
				case '\\':
				default:
					return nil, errCopy
				}
			}
			out = append(out, c)
		}
		b = out
	}
	s := string(b)
	switch oid {
	case oidBool:
		if s != "t" && s != "f" {
			return nil, errCopy
		}
		return s == "t", nil
	case oidInt2, oidInt4, oidInt8:
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, errCopy
		}
		return v, nil
	case oidFloat4, oidFloat8:
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, errCopy
		}
		return v, nil
	case oidBytea:
		h, ok := bytes.CutPrefix(b, []byte(`\x`))
		if !ok {
			return nil, errCopy
		}
		v := make([]byte, len(h)/2)
		if _, err := hex.Decode(v, h); err != nil {
			return nil, errCopy
		}
		return v, nil
	case oidTimestamptz:
		if t, err := time.Parse(timestamptzForm, s); err == nil {
			return t.UTC(), nil
		}
		return s, nil // infinity, before year 1, after 9999
	}
	return s, nil
}

// appendField writes a value in the text form of COPY.
func appendField(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, `\N`...), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		switch {
		case math.IsInf(v, 1):
			return append(b, "Infinity"...), nil
		case math.IsInf(v, -1):
			return append(b, "-Infinity"...), nil
		}
		return strconv.AppendFloat(b, v, 'g', -1, 64), nil
	case bool:
		if v {
			return append(b, 't'), nil
		}
		return append(b, 'f'), nil
	case time.Time:
		return v.UTC().AppendFormat(b, timestamptzForm), nil
	case []byte:
		return hex.AppendEncode(append(b, `\\x`...), v), nil
	case string:
		for i := 0; i < len(v); i++ {
			switch c := v[i]; c {
			case '\\':
				b = append(b, `\\`...)
			case '\n':
				b = append(b, `\n`...)
			case '\r':
				b = append(b, `\r`...)
			case '\t':
				b = append(b, `\t`...)
			default:
				b = append(b, c)
			}
		}
		return b, nil
	}
	return nil, errCopy
}

func (e postgres) load(ctx context.Context, d *Database, conn *sql.Conn, r *backup.Reader, prepared bool) error {
	var s postgresSchema
	if err := json.Unmarshal(r.Schema().Data, &s); err != nil {
		return errors.New("sqlsource: the schema of the snapshot is not known")
	}
	have, err := e.tables(ctx, d, conn)
	if err != nil {
		return err
	}
	var all []string
	for _, t := range have {
		all = append(all, t.quoted)
	}
	if prepared && len(all) > 0 {
		if _, err := conn.ExecContext(ctx, "TRUNCATE "+strings.Join(all, ", ")); err != nil {
			return failed("empty the prepared tables", err)
		}
	}
	// Foreign keys would want an order, and are checked in one go when they are put back.
	again, err := e.suspend(ctx, conn, all)
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
		if _, name, ok := strings.Cut(t.Name, "."); ok && d.excluded(name) { // of an older snapshot
			continue
		}
		i := slices.IndexFunc(have, func(h table) bool { return h.name == t.Name })
		if i < 0 {
			return fmt.Errorf("sqlsource: table %s is in the snapshot and not in the schema", t.Name)
		}
		loaded++
		names, _, err := e.columns(ctx, conn, have[i])
		if err != nil {
			return err
		}
		a, b := slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(t.Columns))
		if !slices.Equal(a, b) {
			return fmt.Errorf("sqlsource: table %s has other columns than in the snapshot", t.Name)
		}
		if err := copyFrom(ctx, conn, have[i], t.Columns, r); err != nil {
			return err
		}
	}
	if loaded != len(have) {
		return errors.New("sqlsource: the schema has tables that the snapshot has not")
	}
	for _, q := range s.Sequences {
		if _, err := conn.ExecContext(ctx, "SELECT setval($1::text::regclass, $2, $3)", q.Name, q.Last, q.Called); err != nil {
			return failed("set sequence "+q.Name, err)
		}
	}
	for _, sentence := range again {
		if _, err := conn.ExecContext(ctx, sentence); err != nil {
			return failed("put back a foreign key or trigger", err)
		}
	}
	return nil
}

// suspend drops the foreign keys of and to tables and disables their triggers. It returns what puts them back.
func (postgres) suspend(ctx context.Context, conn *sql.Conn, tables []string) (again []string, err error) {
	rows, err := conn.QueryContext(ctx, `
		SELECT 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || quote_ident(conname),
			'ALTER TABLE ' || conrelid::regclass || ' ADD CONSTRAINT ' || quote_ident(conname) || ' ' || pg_get_constraintdef(oid)
		FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0
			AND (conrelid = ANY ($1::text[]::regclass[]) OR confrelid = ANY ($1::text[]::regclass[]))
		UNION ALL
		SELECT 'ALTER TABLE ' || tgrelid::regclass || ' DISABLE TRIGGER ' || quote_ident(tgname),
			'ALTER TABLE ' || tgrelid::regclass || CASE tgenabled WHEN 'A' THEN ' ENABLE ALWAYS TRIGGER '
				ELSE ' ENABLE TRIGGER ' END || quote_ident(tgname)
		FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')
			AND tgrelid = ANY ($1::text[]::regclass[])`, tables)
	if err != nil {
		return nil, failed("list foreign keys", err)
	}
	defer rows.Close()
	var now []string
	for rows.Next() {
		var before, after string
		if err := rows.Scan(&before, &after); err != nil {
			return nil, failed("list foreign keys", err)
		}
		now, again = append(now, before), append(again, after)
	}
	if err := rows.Err(); err != nil {
		return nil, failed("list foreign keys", err)
	}
	rows.Close()
	for _, sentence := range now {
		if _, err := conn.ExecContext(ctx, sentence); err != nil {
			return nil, failed("suspend a foreign key or trigger", err)
		}
	}
	return again, nil
}

func copyFrom(ctx context.Context, conn *sql.Conn, t table, names []string, r *backup.Reader) error {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return raw(conn, func(pc *pgconn.PgConn) error {
		pr, pw := io.Pipe()
		var rerr error
		done := make(chan struct{})
		go func() {
			defer close(done)
			out := bufio.NewWriterSize(pw, 64<<10)
			rerr = writeRows(out, r)
			if rerr == nil {
				rerr = out.Flush()
			}
			pw.CloseWithError(rerr) // nil ends the rows
		}()
		_, err := pc.CopyFrom(ctx, pr, "COPY "+t.quoted+" ("+strings.Join(quoted, ", ")+") FROM STDIN (FORMAT text)")
		pr.CloseWithError(errStopped)
		<-done
		if rerr != nil && !errors.Is(rerr, errStopped) {
			return rerr
		}
		return failedOr("fill table "+t.name, err)
	})
}

var errStopped = errors.New("sqlsource: stopped")

func writeRows(out *bufio.Writer, r *backup.Reader) error {
	var line []byte
	for row, err := range r.Rows() {
		if err != nil {
			return err
		}
		line = line[:0]
		for i, v := range row {
			if i > 0 {
				line = append(line, '\t')
			}
			if line, err = appendField(line, v); err != nil {
				return err
			}
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

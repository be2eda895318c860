package backupbench

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The most of one statement, as package sqlsource binds.
const (
	insertValues = 1000
	insertBytes  = 1 << 20
)

// fillSQLite creates a database and inserts rows, many in a statement, all in one transaction, and then the indexes.
func fillSQLite(ctx context.Context, path string, give func(table string, row func([]any) error) error) error {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	before, after := schema(false)
	for _, s := range before {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	for _, t := range tables {
		batch := max(1, min(200, insertValues/len(t.columns)))
		one := "(" + strings.TrimSuffix(strings.Repeat("?,", len(t.columns)), ",") + ")"
		insert := func(n int) string {
			return "INSERT INTO " + t.name + " VALUES " + strings.TrimSuffix(strings.Repeat(one+",", n), ",")
		}
		stmts := map[int]*sql.Stmt{} // by their rows
		values, size := make([]any, 0, batch*len(t.columns)), 0
		flush := func() (err error) {
			n := len(values) / len(t.columns)
			if stmts[n] == nil {
				if stmts[n], err = tx.PrepareContext(ctx, insert(n)); err != nil {
					return err
				}
			}
			_, err = stmts[n].ExecContext(ctx, values...)
			clear(values)
			values, size = values[:0], 0
			return err
		}
		err := give(t.name, func(row []any) error {
			values = append(values, row...)
			for _, v := range row {
				switch v := v.(type) {
				case string:
					size += len(v)
				case []byte:
					size += len(v)
				}
			}
			if len(values) < cap(values) && size < insertBytes {
				return nil
			}
			return flush()
		})
		if err == nil && len(values) > 0 {
			err = flush()
		}
		for _, s := range stmts {
			s.Close()
		}
		if err != nil {
			return err
		}
	}
	for _, s := range after {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func bareSQLite(ctx context.Context, p params) (figures, error) {
	f, err := os.Open(p.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return figures{}, fillSQLite(ctx, p.DB, flatRows(f))
}

// barePostgres copies the rows into new tables, in one transaction, with the foreign keys after them.
func barePostgres(ctx context.Context, p params) (figures, error) {
	f, err := os.Open(p.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	conn, err := pgx.Connect(ctx, p.DSN)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	before, after := schema(true)
	for _, s := range before {
		if _, err := conn.Exec(ctx, s); err != nil {
			return nil, err
		}
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(ctx)
	give := flatRows(f)
	for _, t := range tables {
		pr, pw := io.Pipe()
		done := make(chan error, 1)
		go func() {
			out := bufio.NewWriterSize(pw, 64<<10)
			var line []byte
			err := give(t.name, func(row []any) error {
				line = line[:0]
				for i, v := range row {
					if i > 0 {
						line = append(line, '\t')
					}
					line = copyField(line, v)
				}
				_, err := out.Write(append(line, '\n'))
				return err
			})
			if err == nil {
				err = out.Flush()
			}
			pw.CloseWithError(err)
			done <- err
		}()
		_, err := conn.PgConn().CopyFrom(ctx, pr, "COPY "+t.name+" FROM STDIN (FORMAT text)")
		pr.CloseWithError(io.ErrClosedPipe)
		if err := errors.Join(err, <-done); err != nil {
			return nil, err
		}
	}
	for _, s := range after {
		if _, err := tx.Exec(ctx, s); err != nil {
			return nil, err
		}
	}
	return figures{}, tx.Commit(ctx)
}

// copyField writes a value in the text form of COPY.
func copyField(b []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return strconv.AppendInt(b, v, 10)
	case []byte:
		return hex.AppendEncode(append(b, `\\x`...), v)
	case string:
		for i := range len(v) {
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
	}
	return b
}

package crmbench

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"

	"github.com/crmguard/crmguard/crm"
)

// statement is a query as the store writes it.
type statement struct {
	text string
	args []any
}

// spy is a handle to a database that notes its queries. Only the store whose statements are learnt has it; what is measured goes through
// the driver's own handles.
type spy struct {
	driver driver.Driver
	dsn    string

	mu   sync.Mutex
	seen []statement
}

var _ driver.Connector = (*spy)(nil)

// Connect opens a connection that notes its queries.
func (s *spy) Connect(context.Context) (driver.Conn, error) {
	c, err := s.driver.Open(s.dsn)
	if err != nil {
		return nil, err
	}
	return &spied{c, s}, nil
}

// Driver returns the driver beneath.
func (s *spy) Driver() driver.Driver { return s.driver }

// take returns what was seen since the last take.
func (s *spy) take() []statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// spied is a connection that notes its queries. What else a driver has beyond the basic interface is not passed on.
type spied struct {
	driver.Conn
	spy *spy
}

// note keeps a statement with its arguments.
func (s *spy) note(text string, args []driver.NamedValue) {
	st := statement{text: text}
	for _, a := range args {
		st.args = append(st.args, a.Value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, st)
}

// QueryContext notes a query and makes it.
func (c *spied) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := c.Conn.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	c.spy.note(text, args)
	return q.QueryContext(ctx, text, args)
}

// Prepare returns a statement that notes its queries.
func (c *spied) Prepare(text string) (driver.Stmt, error) {
	s, err := c.Conn.Prepare(text)
	if err != nil {
		return nil, err
	}
	return &spiedStmt{s, text, c.spy}, nil
}

type spiedStmt struct {
	driver.Stmt
	text string
	spy  *spy
}

// QueryContext notes a query and makes it.
func (s *spiedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	q, ok := s.Stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errors.New("crmbench: the driver has no such statements")
	}
	s.spy.note(s.text, args)
	return q.QueryContext(ctx, args)
}

// bareRow is a row in memory as the database has it: nothing of it is opened or checked.
type bareRow struct {
	number, version, seq, deleted int64
	id, body                      []byte
	texts                         []sql.NullString
	numbers                       []sql.NullInt64
	bools                         []sql.NullBool
}

// bare makes a query by hand and reads its rows into memory. It is what an unprotected program would do on the same tables.
func bare(ctx context.Context, db *sql.DB, s crm.Schema, q statement) ([]bareRow, error) {
	rows, err := db.QueryContext(ctx, q.text, q.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	texts, numbers, bools := 0, 0, 0
	for _, c := range s.Columns {
		switch c.Kind {
		case crm.KindString:
			texts++
		case crm.KindBool:
			bools++
		default:
			numbers++
		}
	}
	var all []bareRow
	dest := make([]any, 0, 6+len(s.Columns))
	for rows.Next() {
		r := bareRow{texts: make([]sql.NullString, texts), numbers: make([]sql.NullInt64, numbers), bools: make([]sql.NullBool, bools)}
		dest = append(dest[:0], &r.number, &r.id, &r.version, &r.seq, &r.deleted, &r.body)
		t, n, b := 0, 0, 0
		for _, c := range s.Columns {
			switch c.Kind {
			case crm.KindString:
				dest = append(dest, &r.texts[t])
				t++
			case crm.KindBool:
				dest = append(dest, &r.bools[b])
				b++
			default:
				dest = append(dest, &r.numbers[n])
				n++
			}
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// counting is a store that counts what its lists return.
type counting struct {
	crm.Store
	mu    sync.Mutex
	lists int
	rows  int
}

// List counts the rows of a page.
func (c *counting) List(ctx context.Context, q crm.Query) (crm.Page, error) {
	p, err := c.Store.List(ctx, q)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists++
	c.rows += len(p.Rows)
	return p, err
}

// take returns the counts since the last take.
func (c *counting) take() (lists, rows int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lists, rows = c.lists, c.rows
	c.lists, c.rows = 0, 0
	return lists, rows
}

var errShort = errors.New("the page is short")

package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/request"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/internal/dialect"
)

// idsAtOnce is how many ids one statement asks for.
const idsAtOnce = 512

// list returns "(?,?,?)" with its arguments. The last is repeated until their number is a power of two, so
// that lists of all usual lengths make few different statements.
func list[T any](values []T, arg func(T) any) (string, []any) {
	n := len(values)
	if n > 1 && n <= 1024 {
		n = 1 << bits.Len(uint(n-1))
	}
	args := make([]any, n)
	for i := range args {
		args[i] = arg(values[min(i, len(values)-1)])
	}
	return dialect.Placeholders(1, n), args
}

// lookup returns the statement that selects columns of the rows of a space whose unique key is one of
// the values; it may give a row twice. PostgreSQL without statistics takes one space for a small part of a table and
// would rather read all of it than follow a list of keys, so there each key is looked up by itself,
// behind a LIMIT that the planner cannot move.
func lookup[T any](d dialect.Dialect, columns, table, key string, in int64, values []T, arg func(T) any) (string, []any) {
	marks, args := list(values, arg)
	if d != dialect.Postgres {
		return "SELECT " + columns + " FROM " + table + " WHERE space = ? AND " + key + " IN " + marks, append([]any{in}, args...)
	}
	return "SELECT x.* FROM (VALUES " + castList(args) + ") v (k) CROSS JOIN LATERAL (SELECT " + columns + " FROM " + table +
		" WHERE space = ? AND " + key + " = v.k LIMIT 1) x", append(args, in)
}

// castList is a VALUES list of as many rows as args, the first of which gives the type.
func castList(args []any) string {
	first := "(CAST(? AS BIGINT))"
	if _, ok := args[0].([]byte); ok {
		first = "(CAST(? AS BYTEA))"
	}
	return first + strings.Repeat(",(?)", len(args)-1)
}

func idArg(id crm.UUID) any { return id[:] }
func tokenArg(t int64) any  { return t }

// valueArg is a clear value as a column takes it; condition arguments go through arg.
func valueArg(v crm.Value) any {
	switch v.Kind() {
	case crm.KindString:
		return v.Str()
	case crm.KindBool:
		return v.Int() != 0
	case crm.KindInt, crm.KindTime:
		return v.Int()
	}
	return nil
}

// arg is a condition's argument as a column takes it.
func arg(a any) any {
	switch v := a.(type) {
	case time.Time:
		return valueArg(crm.TimeValue(v))
	case crm.UUID:
		return idArg(v)
	}
	return a
}

// Load returns the rows of these ids; see crm.Store.
func (s *Store) Load(ctx context.Context, tenant, typ string, ids []crm.UUID) ([]crm.Row, error) {
	if err := request.Tenant(tenant); err != nil {
		return nil, err
	}
	t, err := s.declaredType(typ)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := make(map[crm.UUID]crm.Row, len(ids))
	err = s.retry(ctx, func() error {
		in, err := s.space(ctx, s.r, space{tenant, typ})
		if err != nil || in == 0 {
			return err
		}
		for rest := ids; len(rest) > 0; {
			some := rest[:min(len(rest), idsAtOnce)]
			rest = rest[len(some):]
			text, args := lookup(s.d, t.columns, t.name, "id", in, some, idArg)
			err := s.query(ctx, s.r, t, text, args, func(_ int64, row crm.Row) {
				row.Tenant = tenant
				found[row.ID] = row
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fail("load", err)
	}
	rows := make([]crm.Row, len(ids))
	taken := make(map[crm.UUID]bool, len(found))
	for i, id := range ids {
		row, ok := found[id]
		switch {
		case !ok:
			row = crm.Row{Tenant: tenant, Type: typ, ID: id}
		case taken[id]: // asked for twice: rows share no memory
			row = clone(row)
		}
		taken[id] = true
		rows[i] = row
	}
	return rows, nil
}

// clone copies what a row holds.
func clone(row crm.Row) crm.Row {
	c := row
	// A body that was parsed parses again.
	_ = rowformat.Parse(rowformat.Append(nil, &row), &c)
	c.Clear = append([]crm.Value(nil), row.Clear...)
	return c
}

// query runs a statement that selects t.columns and hands each row on, without its tenant.
func (s *Store) query(ctx context.Context, q querier, t *table, text string, args []any, each func(number int64, row crm.Row)) error {
	rows, err := s.prepared(ctx, q, text, args)
	if err != nil {
		return err
	}
	defer rows.Close()
	scan := newScanner(t)
	for rows.Next() {
		number, row, err := scan.row(rows)
		if err != nil {
			return err
		}
		each(number, row)
	}
	return rows.Err()
}

// mostStatements is how many statements a store keeps prepared.
const mostStatements = 256

// prepared makes a query. On SQLite the statement stays prepared when it is one of the reading handle, for to parse and plan it takes
// longer than to read a row; pgx keeps those of PostgreSQL by itself.
func (s *Store) prepared(ctx context.Context, q querier, text string, args []any) (*sql.Rows, error) {
	if s.d != dialect.SQLite || q != querier(s.r) {
		return q.QueryContext(ctx, s.d.Rebind(text), args...)
	}
	s.mu.RLock()
	stmt, full := s.statements[text], len(s.statements) >= mostStatements
	s.mu.RUnlock()
	if stmt == nil {
		if full {
			return q.QueryContext(ctx, text, args...)
		}
		made, err := s.r.PrepareContext(ctx, text)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		if stmt = s.statements[text]; stmt == nil {
			stmt, s.statements[text] = made, made
		}
		s.mu.Unlock()
		if stmt != made {
			made.Close()
		}
	}
	return stmt.QueryContext(ctx, args...)
}

// scanner holds the places that rows are scanned into.
type scanner struct {
	t       *table
	dest    []any
	number  int64
	id      sql.RawBytes
	version int64
	seq     int64
	deleted int64
	body    sql.RawBytes
	cells   []cell
	parser  rowformat.Parser
}

func newScanner(t *table) *scanner {
	s := &scanner{t: t, cells: make([]cell, len(t.schema.Columns))}
	s.dest = append(make([]any, 0, t.width), &s.number, &s.id, &s.version, &s.seq, &s.deleted, &s.body)
	for i, c := range t.schema.Columns {
		s.cells[i].kind = c.Kind
		s.dest = append(s.dest, &s.cells[i])
	}
	return s
}

// cell takes the value of a clear column of one kind. It is a sql.Scanner because those of database/sql go by reflection, which for
// all columns of a page is much of its time.
type cell struct {
	kind  crm.Kind
	value crm.Value
}

// Scan takes null or a value of the column's kind.
func (c *cell) Scan(src any) error {
	c.value = crm.Value{}
	switch v := src.(type) {
	case nil:
		return nil
	case string:
		if c.kind == crm.KindString {
			c.value = crm.StringValue(v)
			return nil
		}
	case []byte:
		if c.kind == crm.KindString {
			c.value = crm.StringValue(string(v))
			return nil
		}
	case bool:
		if c.kind == crm.KindBool {
			c.value = crm.BoolValue(v)
			return nil
		}
	case int64:
		switch {
		case c.kind == crm.KindBool && (v == 0 || v == 1):
			c.value = crm.BoolValue(v == 1)
			return nil
		case c.kind == crm.KindInt || c.kind == crm.KindTime:
			c.value = request.Number(c.kind, v)
			return nil
		}
	}
	return crm.ErrDamaged
}

func (s *scanner) row(rows *sql.Rows) (int64, crm.Row, error) {
	if err := rows.Scan(s.dest...); err != nil {
		if err := rows.Err(); err != nil {
			return 0, crm.Row{}, err
		}
		return 0, crm.Row{}, crm.ErrDamaged // a column holds another kind
	}
	row := crm.Row{
		Type: s.t.schema.Type, Version: s.version, ChangeSeq: s.seq, Deleted: s.deleted != 0,
		Clear: make([]crm.Value, len(s.t.schema.Columns)),
	}
	if len(s.id) != len(row.ID) {
		return 0, crm.Row{}, crm.ErrDamaged
	}
	copy(row.ID[:], s.id)
	if err := s.parser.Parse(s.body, &row); err != nil {
		return 0, crm.Row{}, err
	}
	for i := range s.cells {
		row.Clear[i] = s.cells[i].value
	}
	return s.number, row, nil
}

// hits returns the statement that selects, as hit and each once, the numbers of the rows that have one of the keys in one of the tables, and its arguments.
func hits[K any](s *Store, tables []index, in int64, keys []K, arg func(K) any) (text string, args []any) {
	marks, values := list(keys, arg)
	if s.d == dialect.Postgres {
		by := tables[0]
		return "SELECT DISTINCT x.row_id AS hit FROM (VALUES " + castList(values) + ") v (k) CROSS JOIN LATERAL (SELECT row_id FROM " + by.table +
			" WHERE space = ? AND " + by.column + " = v.k OFFSET 0) x", append(values, in) // see lookup
	}
	var arms []string
	for _, by := range tables {
		arms = append(arms, "SELECT row_id AS hit FROM "+by.table+" WHERE space = ? AND "+by.column+" IN "+marks)
		args = append(append(args, in), values...)
	}
	if len(arms) == 1 {
		return strings.Replace(arms[0], "SELECT", "SELECT DISTINCT", 1), args
	}
	return "SELECT hit FROM (" + strings.Join(arms, " UNION ") + ")", args // in brackets: beside it UNION and INTERSECT go from left to right
}

// mostMerged is how many tokens are merged in the order of rows.
const mostMerged = 16

// merges tells whether the rows that carry a token are read in the order of the list, which then ends with its page. PostgreSQL sorts
// them, and SQLite does not see that order when it is descending.
func (s *Store) merges(q *crm.Query) bool {
	return s.d == dialect.SQLite && q.Sort == "" && !q.Changes && !q.Desc && q.Persons == nil && len(q.Tokens) > 0 && len(q.Tokens) <= mostMerged
}

// merged writes the rows behind a cursor that carry one of the tokens, each once, in the order of the list: the tokens are clustered with
// their rows, so SQLite merges what it reads of each and sorts nothing.
func (s *Store) merged(in int64, q *crm.Query, p *part) (string, []any) {
	tokens := slices.Compact(slices.Sorted(slices.Values(q.Tokens)))
	var arms []string
	var args []any
	for _, t := range tokens {
		for _, by := range s.tokenTables() {
			arm := "SELECT row_id AS hit FROM " + by.table + " WHERE space = ? AND token = ?"
			args = append(args, in, t)
			if p.after.Row != 0 {
				arm += " AND row_id > ?"
				args = append(args, p.after.Row)
			}
			arms = append(arms, arm)
		}
	}
	return strings.Join(arms, " UNION ") + " ORDER BY 1", args
}

// filter writes the FROM and WHERE of a query, without what concerns its pages. p is the part of a page, or nil for all rows.
func (s *Store) filter(t *table, in int64, q *crm.Query, p *part) (from, where string, args []any, err error) {
	from = t.name + " t"
	var conds []string
	add := func(cond string, values ...any) {
		conds = append(conds, cond)
		args = append(args, values...)
	}
	// The few rows that have a key come first; SQLite takes CROSS JOIN as an order to do so.
	var found []string
	find := func(text string, of []any) { found, args = append(found, text), append(args, of...) }
	switch {
	case q.Tokens != nil && p != nil && s.merges(q):
		find(s.merged(in, q, p))
	case q.Tokens != nil:
		find(hits(s, s.tokenTables(), in, q.Tokens, tokenArg))
	}
	if q.Persons != nil {
		find(hits(s, []index{byPerson}, in, q.Persons, idArg))
	}
	if found != nil {
		join := "JOIN "
		if s.d == dialect.SQLite {
			join = "CROSS JOIN "
		}
		from = "(" + strings.Join(found, " INTERSECT ") + ") k " + join + from + " ON t.row_id = k.hit"
	}
	add("t.space = ?", in)
	switch q.Deletion {
	case crm.Living:
		add("t.deleted = 0")
	case crm.InBin:
		add("t.deleted = 1")
	}
	if q.Changes {
		add("t.change_seq > ?", q.Since)
	}
	if q.IDs != nil {
		marks, ids := list(q.IDs, idArg)
		add("t.id IN "+marks, ids...)
	}
	for i := range q.Clauses {
		cond, values := s.clause(&q.Clauses[i])
		if p != nil && p.way == inOrder && t.narrows(&q.Clauses[i], q) || q.Deletion == crm.InBin && s.d == dialect.SQLite {
			cond = "+" + cond // its index is not read
		}
		add(cond, values...)
	}
	text, values, err := q.Where.SQL(func(name string) (string, error) {
		if name == crm.ColumnID {
			return "t.id", nil
		}
		if request.Column(&t.schema, name) < 0 {
			return "", &crm.RequestError{Part: "where", Reason: "no such column in " + t.schema.Type}
		}
		return s.column(name), nil
	})
	if err != nil {
		return "", "", nil, &conditionError{err}
	}
	add("(" + text + ")")
	for _, v := range values {
		args = append(args, arg(v))
	}
	return from, strings.Join(conds, " AND "), args, nil
}

// conditionError is a condition that cannot be written as SQL; the reason is its author's.
type conditionError struct{ err error }

// Error gives the reason.
func (e *conditionError) Error() string { return "crm/sqlstore: condition: " + e.err.Error() }

// Unwrap returns the reason.
func (e *conditionError) Unwrap() error { return e.err }

// column is the SQL name of a clear column of the table t.
func (s *Store) column(name string) string { return "t." + s.d.Quote("c_"+name) }

// clause writes one clause. A comparison with null is not true in SQL, as crm.Clause wants.
func (s *Store) clause(c *crm.Clause) (string, []any) {
	column := s.column(c.Column)
	switch c.Op {
	case crm.IsNull:
		return column + " IS NULL", nil
	case crm.NotNull:
		return column + " IS NOT NULL", nil
	case crm.In:
		marks, values := list(c.Values, valueArg)
		return column + " IN " + marks, values
	case crm.Prefix:
		start := c.Values[0].Str()
		if end, ok := request.PrefixEnd(start); ok {
			return "(" + column + " >= ? AND " + column + " < ?)", []any{start, end}
		}
		return column + " >= ?", []any{start}
	}
	return column + " " + operators[c.Op] + " ?", []any{valueArg(c.Values[0])}
}

var operators = map[crm.Op]string{
	crm.Equal: "=", crm.NotEqual: "<>", crm.Less: "<", crm.LessOrEqual: "<=", crm.Greater: ">", crm.GreaterOrEqual: ">=",
}

// empty tells whether q can have no rows whatever the store holds.
func empty(q *crm.Query) bool {
	return q.Tokens != nil && len(q.Tokens) == 0 || q.IDs != nil && len(q.IDs) == 0 || q.Persons != nil && len(q.Persons) == 0
}

// Carriers tells which rows carry which tokens; see crm.Store. It misses what List by tokens misses while a Reindex has not ended.
func (s *Store) Carriers(ctx context.Context, tenant, typ string, tokens []int64, most int) (map[int64][]crm.UUID, error) {
	if err := request.Carriers(tenant, tokens, most); err != nil {
		return nil, err
	}
	t, err := s.declaredType(typ)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out map[int64][]crm.UUID
	err = s.retry(ctx, func() error {
		out = map[int64][]crm.UUID{}
		in, err := s.space(ctx, s.r, space{tenant, typ})
		if err != nil || in == 0 {
			return err
		}
		for rest := slices.Compact(slices.Sorted(slices.Values(tokens))); len(rest) > 0; {
			some := rest[:min(len(rest), idsAtOnce)]
			rest = rest[len(some):]
			if err := s.carriers(ctx, t, in, some, most, out); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fail("carriers", err)
	}
	for _, ids := range out {
		slices.SortFunc(ids, func(a, b crm.UUID) int { return bytes.Compare(a[:], b[:]) })
	}
	return out, nil
}

// carriers asks for some tokens, each once.
func (s *Store) carriers(ctx context.Context, t *table, in int64, tokens []int64, most int, out map[int64][]crm.UUID) error {
	_, keys := list(tokens, tokenArg)
	for i := len(tokens); i < len(keys); i++ {
		keys[i] = nil // equal to no token
	}
	if s.d == dialect.SQLite {
		return s.carriersBoth(ctx, t, in, keys, most, out)
	}
	// That a token has more than most rows is seen in its index alone. For the form see lookup.
	text := "SELECT x.token, t.id FROM (VALUES " + castList(keys) + ") v (k)" +
		" CROSS JOIN LATERAL (SELECT token, row_id FROM crm_tokens WHERE space = ? AND token = v.k" +
		" AND (SELECT 1 FROM crm_tokens y WHERE y.space = ? AND y.token = v.k LIMIT 1 OFFSET ?) IS NULL OFFSET 0) x" +
		" CROSS JOIN LATERAL (SELECT id FROM " + t.name + " WHERE row_id = x.row_id LIMIT 1) t"
	return s.each(ctx, text, append(keys, in, in, most), func(scan func(...any) error) error {
		var token int64
		var id []byte
		if err := scan(&token, &id); err != nil {
			return err
		}
		if len(id) != len(crm.UUID{}) {
			return crm.ErrDamaged
		}
		out[token] = append(out[token], crm.UUID(id))
		return nil
	})
}

// carriersBoth reads of each token at most one row more than most from each of the two tables, and the ids of the rows of those
// that have no more in both.
func (s *Store) carriersBoth(ctx context.Context, t *table, in int64, keys []any, most int, out map[int64][]crm.UUID) error {
	text, args := s.carried(in, keys, most)
	carry := map[int64][]int64{}
	err := s.each(ctx, text, args, func(scan func(...any) error) error {
		var token, number int64
		if err := scan(&token, &number); err != nil {
			return err
		}
		carry[token] = append(carry[token], number)
		return nil
	})
	if err != nil {
		return err
	}
	var numbers []int64
	for token, of := range carry {
		slices.Sort(of) // while a Reindex runs the same may be in both
		if of = slices.Compact(of); len(of) > most {
			delete(carry, token)
			continue
		}
		carry[token] = of
		numbers = append(numbers, of...)
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	ids := make(map[int64]crm.UUID, len(numbers))
	for some := range slices.Chunk(numbers, idsAtOnce) {
		marks, args := list(some, tokenArg)
		err := s.each(ctx, "SELECT row_id, id FROM "+t.name+" WHERE row_id IN "+marks, args, func(scan func(...any) error) error {
			var number int64
			var id []byte
			if err := scan(&number, &id); err != nil {
				return err
			}
			if len(id) != len(crm.UUID{}) {
				return crm.ErrDamaged
			}
			ids[number] = crm.UUID(id)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for token, of := range carry {
		for _, number := range of {
			if id, there := ids[number]; there { // it may have gone since
				out[token] = append(out[token], id)
			}
		}
	}
	return nil
}

// carried selects tokens and rows from both tables.
func (s *Store) carried(in int64, keys []any, most int) (text string, args []any) {
	var arms []string
	args = keys
	for _, by := range s.tokenTables() {
		arms = append(arms, "SELECT x.token, x.row_id FROM v CROSS JOIN "+by.table+" x WHERE x.space = ? AND x.token = v.k AND x.row_id <= COALESCE("+
			"(SELECT y.row_id FROM "+by.table+" y WHERE y.space = ? AND y.token = v.k ORDER BY y.row_id LIMIT 1 OFFSET ?), 9223372036854775807)")
		args = append(args, in, in, most)
	}
	return "WITH v (k) AS MATERIALIZED (VALUES " + castList(keys) + ") " + strings.Join(arms, " UNION ALL "), args
}

// each runs a statement of the reading handle and calls row for each of its rows.
func (s *Store) each(ctx context.Context, text string, args []any, row func(scan func(...any) error) error) error {
	rows, err := s.prepared(ctx, s.r, text, args)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Count counts all rows that q's filters admit; see crm.Store.
func (s *Store) Count(ctx context.Context, q crm.Query) (int64, error) {
	t, err := s.declaredType(q.Type)
	if err != nil {
		return 0, err
	}
	if err := request.Filter(&q, &t.schema); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var n int64
	err = s.retry(ctx, func() error {
		in, err := s.space(ctx, s.r, space{q.Tenant, q.Type})
		if err != nil || in == 0 || empty(&q) {
			return err
		}
		from, where, args, err := s.filter(t, in, &q, nil)
		if err != nil {
			return err
		}
		if q.Most > 0 {
			from, where, args = "(SELECT 1 FROM "+from+" WHERE "+where+" LIMIT ?) y", "TRUE", append(args, q.Most)
		}
		if q.Persons == nil {
			return s.r.QueryRowContext(ctx, s.d.Rebind("SELECT COUNT(*) FROM "+from+" WHERE "+where), args...).Scan(&n)
		}
		var rebuilt bool // known by the same statement: who counts nobody's rows destroys keys
		text := "SELECT COUNT(*), " + s.tableExists() + " FROM " + from + " WHERE " + where
		if err := s.r.QueryRowContext(ctx, s.d.Rebind(text), append([]any{"crm_reindex"}, args...)...).Scan(&n, &rebuilt); err != nil {
			return err
		}
		if rebuilt {
			return crm.ErrReindexing
		}
		return nil
	})
	if err != nil {
		return 0, fail("count", err)
	}
	return n, nil
}

// halves sums both halves of a number's 64 bits apart: SQLite would refuse a sum that does not fit while it grows, though
// it would fit in the end. request.Sum puts them together.
func (s *Store) halves(name string) string {
	c := s.column(name)
	return "CAST(COALESCE(SUM(" + c + " >> 32), 0) AS BIGINT), CAST(COALESCE(SUM(" + c + " & 4294967295), 0) AS BIGINT)"
}

// Group divides the rows that q's filters admit; see crm.Store.
func (s *Store) Group(ctx context.Context, q crm.Query, g crm.Grouping) ([]crm.Group, error) {
	t, err := s.declaredType(q.Type)
	if err != nil {
		return nil, err
	}
	if err := request.Group(&q, &g, &t.schema); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var groups []crm.Group
	err = s.retry(ctx, func() error {
		groups = nil
		in, err := s.space(ctx, s.r, space{q.Tenant, q.Type})
		if err != nil {
			return err
		}
		if in == 0 || empty(&q) {
			if len(g.By) == 0 {
				groups = []crm.Group{{Keys: []crm.Value{}, Sums: make([]int64, len(g.Sums))}}
			}
			return nil
		}
		if groups, err = s.group(ctx, t, in, &q, &g); err != nil {
			return err
		}
		return s.complete(ctx, &q)
	})
	if err != nil {
		return nil, fail("group", err)
	}
	return groups, nil
}

// group reads the groups of a space.
func (s *Store) group(ctx context.Context, t *table, in int64, q *crm.Query, g *crm.Grouping) (groups []crm.Group, err error) {
	from, where, args, err := s.filter(t, in, q, nil)
	if err != nil {
		return nil, err
	}
	var count int64
	keys, halves := make([]cell, len(g.By)), make([][2]int64, len(g.Sums))
	var by, order, what []string
	var dest []any
	for i, name := range g.By {
		column := s.column(name)
		by, order = append(by, column), append(order, column+" NULLS FIRST")
		keys[i].kind = t.schema.Columns[request.Column(&t.schema, name)].Kind
		dest = append(dest, &keys[i])
	}
	what, dest = append(slices.Clone(by), "COUNT(*)"), append(dest, &count)
	for i, name := range g.Sums {
		what, dest = append(what, s.halves(name)), append(dest, &halves[i][0], &halves[i][1])
	}
	text := "SELECT " + strings.Join(what, ", ") + " FROM " + from + " WHERE " + where
	if len(by) > 0 {
		text += " GROUP BY " + strings.Join(by, ", ") + " ORDER BY " + strings.Join(order, ", ")
	}
	rows, err := s.r.QueryContext(ctx, s.d.Rebind(text+" LIMIT ?"), append(args, crm.MaxGroups+1)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var fits error
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			if err := rows.Err(); err != nil {
				return nil, err
			}
			return nil, crm.ErrDamaged // a column holds another kind
		}
		to := crm.Group{Keys: make([]crm.Value, len(keys)), Count: count, Sums: make([]int64, len(halves))}
		for i := range keys {
			to.Keys[i] = keys[i].value
		}
		for i, h := range halves {
			var sum request.Sum
			sum.AddHalves(h[0], h[1])
			if to.Sums[i], err = sum.Int64(); err != nil {
				fits = err
			}
		}
		groups = append(groups, to)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(groups) > crm.MaxGroups {
		return nil, request.TooManyGroups()
	}
	return groups, fits
}

// List returns one page; see crm.Store. A list by a column reads the rows that have a value from the
// column's index, then, when the page is not full, those that have none.
func (s *Store) List(ctx context.Context, q crm.Query) (crm.Page, error) {
	t, err := s.declaredType(q.Type)
	if err != nil {
		return crm.Page{}, err
	}
	after, err := request.Page(&q, &t.schema)
	if err != nil {
		return crm.Page{}, err
	}
	if err := ctx.Err(); err != nil {
		return crm.Page{}, err
	}
	var found []crm.Row
	var numbers []int64 // of the rows found
	err = s.retry(ctx, func() error {
		found, numbers = make([]crm.Row, 0, min(q.Limit+1, 64)), make([]int64, 0, min(q.Limit+1, 64))
		in, err := s.space(ctx, s.r, space{q.Tenant, q.Type})
		if err != nil || in == 0 || empty(&q) {
			return err
		}
		way, err := s.way(ctx, t, in, &q)
		if err != nil {
			return err
		}
		for _, part := range parts(&q, after) {
			part.way = way
			text, args, err := s.page(t, in, &q, part, q.Limit+1-len(found))
			if err != nil {
				return err
			}
			seen := make(map[int64]bool, len(found))
			for _, n := range numbers {
				seen[n] = true
			}
			err = s.query(ctx, s.r, t, text, args, func(number int64, row crm.Row) {
				if !seen[number] { // it lost its value between the two statements
					row.Tenant = q.Tenant
					found, numbers = append(found, row), append(numbers, number)
				}
			})
			if err != nil {
				return err
			}
			if len(found) > q.Limit {
				break
			}
		}
		return s.complete(ctx, &q)
	})
	if err != nil {
		return crm.Page{}, fail("list", err)
	}
	var page crm.Page
	switch {
	case len(found) <= q.Limit:
	case q.Changes:
		found = found[:q.Limit]
	default:
		found = found[:q.Limit]
		cursor := request.Cursor{Row: numbers[q.Limit-1]}
		if q.Sort != "" {
			cursor.Value = found[q.Limit-1].Clear[request.Column(&t.schema, q.Sort)]
		}
		page.Next = cursor.Encode(&q)
	}
	if len(found) > 0 {
		page.Rows = found
	}
	return page, nil
}

// part is one of the statements that make a page.
type part struct {
	null  bool           // the rows without a value in the sort column
	after request.Cursor // where to start
	way   way
}

// parts returns the statements of a page that starts after a cursor.
func parts(q *crm.Query, after request.Cursor) []part {
	switch {
	case q.Sort == "":
		return []part{{after: after}}
	case after.Row != 0 && after.Value.Kind() == 0:
		return []part{{null: true, after: after}}
	}
	return []part{{after: after}, {null: true}}
}

// page writes one statement of a page of at most limit rows.
func (s *Store) page(t *table, in int64, q *crm.Query, p part, limit int) (string, []any, error) {
	from, where, args, err := s.filter(t, in, q, &p)
	if err != nil {
		return "", nil, err
	}
	than, direction := ">", ""
	if q.Desc {
		than, direction = "<", " DESC"
	}
	order := "t.row_id" + direction
	if s.merges(q) {
		order = "k.hit"
	}
	column := s.column(q.Sort)
	if p.way == sorted {
		column = "+" + column
	}
	switch {
	case q.Changes:
		order = "t.change_seq" + direction
	case q.Sort == "" || p.null:
		if p.null {
			where += " AND " + column + " IS NULL"
		}
		if p.after.Row != 0 {
			where += " AND t.row_id " + than + " ?"
			args = append(args, p.after.Row)
		}
	default:
		order = column + direction + ", " + order
		where += " AND " + column + " IS NOT NULL"
		if p.after.Row != 0 {
			where += " AND (" + column + ", t.row_id) " + than + " (?, ?)"
			args = append(args, valueArg(p.after.Value), p.after.Row)
		}
	}
	text := "SELECT " + t.columns + " FROM " + from + " WHERE " + where + " ORDER BY " + order + " LIMIT "
	if s.d == dialect.SQLite { // which plans anew whenever a bound limit is set
		return text + strconv.Itoa(limit), args, nil
	}
	return text + "?", append(args, limit), nil
}

// Package request checks what is asked of a store, so that all stores refuse the same, and holds the
// cursors of their pages.
package request

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard/crm"
)

// The bounds of requests.
const (
	MaxWrites  = 1000
	MaxLimit   = 1000
	maxColumns = 100
	maxName    = 40
	maxTenant  = 200
	maxList    = 10000    // ids or tokens of a query
	maxPersons = 1000     // of a query
	maxIn      = 1000     // values of one In
	maxClauses = 100      //
	maxRow     = 16 << 20 // bytes of sealed data in one row
	maxFields  = 1000
	maxTokens  = 10000 // of one row
	maxLimits  = 100   // of a batch
	maxMeasure = 10    // of a limit
	maxBy      = 3     // columns of a grouping's keys
	maxSums    = 10
)

func bad(part, reason string) error { return &crm.RequestError{Part: part, Reason: reason} }

// Schema checks a declaration.
func Schema(s crm.Schema) error {
	if !name(s.Type) {
		return bad("schema", "type name is not lower-case letters, digits and _")
	}
	if len(s.Columns) > maxColumns {
		return bad("schema", "more than 100 columns")
	}
	seen := map[string]bool{}
	for _, c := range s.Columns {
		switch {
		case !name(c.Name):
			return bad("schema", "column name is not lower-case letters, digits and _")
		case seen[c.Name]:
			return bad("schema", "column "+c.Name+" twice")
		case c.Kind < crm.KindString || c.Kind > crm.KindTime:
			return bad("schema", "column "+c.Name+" has no known kind")
		}
		seen[c.Name] = true
	}
	return nil
}

func name(s string) bool {
	return s != "" && len(s) <= maxName && s[0] >= 'a' && s[0] <= 'z' &&
		!strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// Merge returns the stored columns with those of s that are new behind them, each indexed when either
// says so. A column that s lacks or has in another kind is refused.
func Merge(stored []crm.Column, s crm.Schema) ([]crm.Column, error) {
	merged := slices.Clone(stored)
	for i, old := range merged {
		k := slices.IndexFunc(s.Columns, func(c crm.Column) bool { return c.Name == old.Name })
		if k < 0 {
			return nil, bad("schema", "column "+old.Name+" of "+s.Type+" is gone")
		}
		if s.Columns[k].Kind != old.Kind {
			return nil, bad("schema", "column "+old.Name+" of "+s.Type+" has another kind")
		}
		merged[i].Indexed = old.Indexed || s.Columns[k].Indexed
	}
	for _, c := range s.Columns {
		if !slices.ContainsFunc(stored, func(old crm.Column) bool { return old.Name == c.Name }) {
			merged = append(merged, c)
		}
	}
	if len(merged) > maxColumns {
		return nil, bad("schema", "more than 100 columns")
	}
	return merged, nil
}

// UnknownType is the error for a type that was not declared.
func UnknownType() error { return bad("type", "not declared") }

// Tenant checks a tenant's name.
func Tenant(s string) error {
	if s == "" || len(s) > maxTenant || !text(s) {
		return bad("tenant", "empty, longer than 200 bytes or not text")
	}
	return nil
}

// text tells whether every database can hold s: PostgreSQL refuses a zero byte and what is not UTF-8.
func text(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Filter checks what Count, List and Group share; s is the declared type of q.
func Filter(q *crm.Query, s *crm.Schema) error {
	if err := Tenant(q.Tenant); err != nil {
		return err
	}
	if q.Where == nil {
		return bad("where", "missing; crm.Everything is all rows")
	}
	if q.Deletion > crm.LivingAndBin {
		return bad("deletion", "unknown")
	}
	if len(q.Tokens) > maxList {
		return bad("tokens", "more than 10,000")
	}
	if len(q.IDs) > maxList {
		return bad("ids", "more than 10,000")
	}
	if len(q.Persons) > maxPersons {
		return bad("persons", "more than 1,000")
	}
	if q.Since < 0 || q.Since > 0 && !q.Changes {
		return bad("since", "negative, or not in the order of changes")
	}
	if q.Most < 0 {
		return bad("most", "negative")
	}
	return clauses(q.Clauses, s)
}

func clauses(list []crm.Clause, s *crm.Schema) error {
	if len(list) > maxClauses {
		return bad("clause", "more than 100")
	}
	for i := range list {
		if err := clause(&list[i], s); err != nil {
			return err
		}
	}
	return nil
}

func clause(c *crm.Clause, s *crm.Schema) error {
	i := Column(s, c.Column)
	if i < 0 {
		return bad("column", "no such column in "+s.Type)
	}
	n := len(c.Values)
	switch c.Op {
	case crm.IsNull, crm.NotNull:
		if n != 0 {
			return bad("clause", "a test for null takes no value")
		}
	case crm.In:
		if n == 0 || n > maxIn {
			return bad("clause", "in takes 1 to 1,000 values")
		}
	case crm.Prefix:
		if s.Columns[i].Kind != crm.KindString {
			return bad("clause", "prefix of a column that is not text")
		}
		fallthrough
	case crm.Equal, crm.NotEqual, crm.Less, crm.LessOrEqual, crm.Greater, crm.GreaterOrEqual:
		if n != 1 {
			return bad("clause", "a comparison takes one value")
		}
	default:
		return bad("clause", "unknown operator")
	}
	for _, v := range c.Values {
		if v.Kind() != s.Columns[i].Kind {
			return bad("clause", "the value is not of the column's kind")
		}
		if v.Kind() == crm.KindString && !text(v.Str()) {
			return bad("clause", "the value is not text")
		}
	}
	return nil
}

// Column returns the place of a column, or -1.
func Column(s *crm.Schema, name string) int {
	return slices.IndexFunc(s.Columns, func(c crm.Column) bool { return c.Name == name })
}

// Page checks q for List and returns where it continues.
func Page(q *crm.Query, s *crm.Schema) (Cursor, error) {
	if err := Filter(q, s); err != nil {
		return Cursor{}, err
	}
	if q.Limit < 1 || q.Limit > MaxLimit {
		return Cursor{}, bad("limit", "not 1 to 1,000")
	}
	if q.Changes && (q.Sort != "" || q.After != "") {
		return Cursor{}, bad("sort", "the order of changes has no other and no cursor")
	}
	kind := crm.Kind(0)
	if q.Sort != "" {
		i := Column(s, q.Sort)
		if i < 0 {
			return Cursor{}, bad("sort", "no such column in "+s.Type)
		}
		kind = s.Columns[i].Kind
	}
	if q.After == "" {
		return Cursor{}, nil
	}
	return parseCursor(q, kind)
}

// Carriers checks what Carriers is asked.
func Carriers(tenant string, tokens []int64, most int) error {
	if err := Tenant(tenant); err != nil {
		return err
	}
	if len(tokens) > maxList {
		return bad("tokens", "more than 10,000")
	}
	if most < 1 || most > MaxLimit {
		return bad("most", "not 1 to 1,000")
	}
	return nil
}

// Group checks q and g for Group; s is the declared type of q.
func Group(q *crm.Query, g *crm.Grouping, s *crm.Schema) error {
	if err := Filter(q, s); err != nil {
		return err
	}
	if len(g.By) > maxBy {
		return bad("group", "by more than 3 columns")
	}
	if len(g.Sums) > maxSums {
		return bad("group", "more than 10 sums")
	}
	for _, name := range g.By {
		if Column(s, name) < 0 {
			return bad("column", "no such column in "+s.Type)
		}
	}
	for _, name := range g.Sums {
		if err := summed(s, name); err != nil {
			return err
		}
	}
	return nil
}

// summed checks a column that is to be summed.
func summed(s *crm.Schema, name string) error {
	i := Column(s, name)
	if i < 0 {
		return bad("column", "no such column in "+s.Type)
	}
	if s.Columns[i].Kind != crm.KindInt {
		return bad("column", "the sum of a column that is not a number")
	}
	return nil
}

// TooManyGroups is the error for more than crm.MaxGroups groups.
func TooManyGroups() error { return bad("group", "more than 10,000 groups") }

// Batch checks a batch; schema returns the declared type, or nil.
func Batch(b *crm.Batch, schema func(string) *crm.Schema) error {
	switch n := len(b.Writes); {
	case n == 0:
		return bad("batch", "no writes")
	case n > MaxWrites:
		return bad("batch", "more than 1,000 writes")
	}
	if err := Event(b.Log, b.Event); err != nil && b.Log != "" {
		return err
	}
	if b.Rehearse && b.Log != "" {
		return bad("batch", "a rehearsal has no event")
	}
	type key struct {
		tenant, typ string
		id          crm.UUID
	}
	seen := make(map[key]struct{}, len(b.Writes))
	for i := range b.Writes {
		w := &b.Writes[i]
		if err := write(w, schema(w.Row.Type)); err != nil {
			return &crm.WriteError{Index: i, Err: err}
		}
		k := key{w.Row.Tenant, w.Row.Type, w.Row.ID}
		if _, twice := seen[k]; twice {
			return &crm.WriteError{Index: i, Err: bad("row", "twice in the batch")}
		}
		seen[k] = struct{}{}
	}
	return limits(b.Limits, schema)
}

func limits(list []crm.Limit, schema func(string) *crm.Schema) error {
	if len(list) > maxLimits {
		return bad("limits", "more than 100")
	}
	for i := range list {
		l := &list[i]
		if err := Tenant(l.Tenant); err != nil {
			return err
		}
		if n := len(l.Of); n == 0 || n > maxMeasure {
			return bad("limits", "not 1 to 10 measures")
		}
		for k := range l.Of {
			m := &l.Of[k]
			s := schema(m.Type)
			if s == nil {
				return UnknownType()
			}
			if err := clauses(m.Clauses, s); err != nil {
				return err
			}
			if m.Sum == "" {
				continue
			}
			if err := summed(s, m.Sum); err != nil {
				return err
			}
		}
	}
	return nil
}

// Event checks a log's name and an index in it.
func Event(log string, index uint64) error {
	if log == "" || len(log) > maxTenant || !text(log) {
		return bad("event", "log name is empty, longer than 200 bytes or not text")
	}
	if index > math.MaxInt64 {
		return bad("event", "index is out of range")
	}
	return nil
}

// Repeated is the error for an event that was applied already.
func Repeated() error { return bad("event", "applied already") }

func write(w *crm.Write, s *crm.Schema) error {
	row := &w.Row
	if err := Tenant(row.Tenant); err != nil {
		return err
	}
	if s == nil {
		return UnknownType()
	}
	switch {
	case row.ID.IsZero():
		return bad("row", "no id")
	case w.Expect < 0 || w.Expect == math.MaxInt64 || row.Version != w.Expect+1:
		return bad("row", "version does not follow the expected one")
	case len(row.Clear) != len(s.Columns):
		return bad("row", "clear values do not match the columns of "+s.Type)
	}
	for i, v := range row.Clear {
		if v.Kind() != 0 && v.Kind() != s.Columns[i].Kind {
			return bad("row", "column "+s.Columns[i].Name+" has another kind")
		}
		if v.Kind() == crm.KindString && !text(v.Str()) {
			return bad("row", "column "+s.Columns[i].Name+" is not text")
		}
	}
	for i := 1; i < len(row.Persons); i++ {
		if row.Persons[i] == row.Persons[0] || i > 1 && bytes.Compare(row.Persons[i-1][:], row.Persons[i][:]) >= 0 {
			return bad("row", "persons behind the first are not in ascending order")
		}
	}
	size, tokens := len(row.MAC), 0
	for i := range row.Sealed {
		f := &row.Sealed[i]
		if f.Name == "" || len(f.Name) > maxTenant || i > 0 && row.Sealed[i-1].Name >= f.Name {
			return bad("row", "sealed fields are not in ascending order of their names")
		}
		size += len(f.Data)
		tokens += len(f.Tokens)
	}
	if size > maxRow || tokens > maxTokens || len(row.Sealed) > maxFields || len(row.Persons) > maxFields {
		return bad("row", "too large")
	}
	return nil
}

// PrefixEnd returns the least text that is greater than every text with the prefix; ok is false when
// there is none. The order of bytes and of code points is the same in UTF-8.
func PrefixEnd(prefix string) (end string, ok bool) {
	runes := []rune(prefix)
	for len(runes) > 0 {
		last := &runes[len(runes)-1]
		switch {
		case *last == utf8.MaxRune:
			runes = runes[:len(runes)-1]
			continue
		case *last == 0xd7ff: // the next are surrogates
			*last = 0xe000
		default:
			*last++
		}
		return string(runes), true
	}
	return "", false
}

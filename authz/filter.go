package authz

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Filter is which records a subject may act on: none, all, or those that meet a condition. The zero
// Filter admits none.
type Filter struct {
	all  bool
	cond *Cond
}

// All admits every record.
func All() Filter { return Filter{all: true} }

// When admits the records that meet c.
func When(c Cond) Filter {
	switch c.op {
	case opTrue:
		return All()
	case opFalse:
		return Filter{}
	}
	return Filter{cond: &c}
}

// IsNone tells whether f admits nothing at all; then no query is needed.
func (f Filter) IsNone() bool { return !f.all && f.cond == nil }

// IsAll tells whether f admits everything.
func (f Filter) IsAll() bool { return f.all }

// Match evaluates f against one record. attr returns nil for an attribute that is null or unknown;
// that meets no comparison.
func (f Filter) Match(attr func(name string) any) bool {
	if f.cond == nil {
		return f.all
	}
	return f.cond.match(attr) == yes
}

// SQL writes f as a condition with ? for each argument. column returns the quoted SQL name of an
// attribute.
func (f Filter) SQL(column func(name string) (string, error)) (string, []any, error) {
	if f.cond == nil {
		if f.all {
			return "1=1", nil, nil
		}
		return "1=0", nil, nil
	}
	var b sqlWriter
	b.column = column
	if err := b.write(*f.cond); err != nil {
		return "", nil, err
	}
	return b.text.String(), b.args, nil
}

// String writes the filter for people, with attribute values.
func (f Filter) String() string {
	if f.cond == nil {
		if f.all {
			return "all"
		}
		return "none"
	}
	return f.cond.String()
}

// Cond is a condition over a record's attributes. Conditions follow SQL's three-valued logic: a
// comparison with a missing attribute is unknown, and so is its negation.
type Cond struct {
	op   condOp
	attr string
	args []any // string, int64, bool
	sub  []Cond
}

type condOp uint8

const (
	opFalse condOp = iota // the zero Cond is met by nothing
	opTrue
	opEq
	opNe
	opLt
	opLe
	opGt
	opGe
	opIn
	opPrefix
	opNotNull
	opAnd
	opOr
	opNot
)

// Eq is met when the attribute equals v, a string, int64 or bool.
func Eq(attr string, v any) Cond { return Cond{op: opEq, attr: attr, args: []any{v}} }

// Compare is met when the attribute stands to v as op says: = != < <= > >=.
func Compare(attr, op string, v any) (Cond, error) {
	ops := map[string]condOp{"=": opEq, "!=": opNe, "<": opLt, "<=": opLe, ">": opGt, ">=": opGe}
	o, ok := ops[op]
	if !ok {
		return Cond{}, fmt.Errorf("authz: unknown operator %q", op)
	}
	return Cond{op: o, attr: attr, args: []any{v}}, nil
}

// AnyOf is met when the attribute equals one of vs.
func AnyOf(attr string, vs ...any) Cond {
	if len(vs) == 0 {
		return Cond{}
	}
	return Cond{op: opIn, attr: attr, args: vs}
}

// HasPrefix is met when the attribute is a string that begins with prefix.
func HasPrefix(attr, prefix string) Cond {
	return Cond{op: opPrefix, attr: attr, args: []any{prefix}}
}

// Present is met when the attribute is not null.
func Present(attr string) Cond { return Cond{op: opNotNull, attr: attr} }

// And is met when every one of cs is; And() is always met.
func And(cs ...Cond) Cond {
	var out []Cond
	for _, c := range cs {
		switch c.op {
		case opFalse:
			return Cond{}
		case opTrue:
		default:
			out = append(out, c)
		}
	}
	switch len(out) {
	case 0:
		return Cond{op: opTrue}
	case 1:
		return out[0]
	}
	return Cond{op: opAnd, sub: out}
}

// Or is met when at least one of cs is; Or() never is.
func Or(cs ...Cond) Cond {
	var out []Cond
	for _, c := range cs {
		switch c.op {
		case opTrue:
			return c
		case opFalse:
		default:
			out = append(out, c)
		}
	}
	switch len(out) {
	case 0:
		return Cond{}
	case 1:
		return out[0]
	}
	return Cond{op: opOr, sub: out}
}

// Not is met when c is known not to be met.
func Not(c Cond) Cond {
	switch c.op {
	case opTrue:
		return Cond{}
	case opFalse:
		return Cond{op: opTrue}
	}
	return Cond{op: opNot, sub: []Cond{c}}
}

// truth is three-valued, as SQL's.
type truth uint8

const (
	no truth = iota
	unknown
	yes
)

func (c *Cond) match(attr func(string) any) truth {
	switch c.op {
	case opTrue:
		return yes
	case opFalse:
		return no
	case opAnd:
		t := yes
		for i := range c.sub {
			t = min(t, c.sub[i].match(attr))
		}
		return t
	case opOr:
		t := no
		for i := range c.sub {
			t = max(t, c.sub[i].match(attr))
		}
		return t
	case opNot:
		return yes - c.sub[0].match(attr)
	}
	v := attr(c.attr)
	if c.op == opNotNull {
		return truthOf(v != nil)
	}
	if v == nil {
		return unknown
	}
	switch c.op {
	case opIn:
		for _, a := range c.args {
			if v == a {
				return yes
			}
		}
		return no
	case opPrefix:
		s, ok := v.(string)
		return truthOf(ok && strings.HasPrefix(s, c.args[0].(string)))
	case opEq:
		return truthOf(v == c.args[0])
	case opNe:
		return truthOf(v != c.args[0])
	}
	n, ok := order(v, c.args[0])
	if !ok {
		return no
	}
	switch c.op {
	case opLt:
		return truthOf(n < 0)
	case opLe:
		return truthOf(n <= 0)
	case opGt:
		return truthOf(n > 0)
	case opGe:
		return truthOf(n >= 0)
	}
	return no
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// order compares two values of one type; ok is false when their types differ.
func order(a, b any) (n int, ok bool) {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return strings.Compare(x, y), ok
	case int64:
		y, ok := b.(int64)
		switch {
		case x < y:
			return -1, ok
		case x > y:
			return 1, ok
		}
		return 0, ok
	}
	return 0, false
}

// String writes the condition for people.
func (c Cond) String() string {
	switch c.op {
	case opTrue:
		return "true"
	case opFalse:
		return "false"
	case opAnd, opOr:
		word := map[condOp]string{opAnd: " and ", opOr: " or "}[c.op]
		parts := make([]string, len(c.sub))
		for i, s := range c.sub {
			parts[i] = s.String()
		}
		return "(" + strings.Join(parts, word) + ")"
	case opNot:
		return "not " + c.sub[0].String()
	case opNotNull:
		return c.attr + " is present"
	case opPrefix:
		return fmt.Sprintf("%s begins with %q", c.attr, c.args[0])
	case opIn:
		return fmt.Sprintf("%s in %v", c.attr, c.args)
	}
	return fmt.Sprintf("%s %s %#v", c.attr, sqlOps[c.op], c.args[0])
}

var sqlOps = map[condOp]string{opEq: "=", opNe: "<>", opLt: "<", opLe: "<=", opGt: ">", opGe: ">="}

// sqlWriter writes a condition as portable SQL with bound arguments.
type sqlWriter struct {
	text   strings.Builder
	args   []any
	column func(string) (string, error)
}

func (w *sqlWriter) write(c Cond) error {
	switch c.op {
	case opTrue:
		w.text.WriteString("1=1")
		return nil
	case opFalse:
		w.text.WriteString("1=0")
		return nil
	case opAnd, opOr:
		word := " AND "
		if c.op == opOr {
			word = " OR "
		}
		w.text.WriteByte('(')
		for i, s := range c.sub {
			if i > 0 {
				w.text.WriteString(word)
			}
			if err := w.write(s); err != nil {
				return err
			}
		}
		w.text.WriteByte(')')
		return nil
	case opNot:
		w.text.WriteString("NOT (")
		if err := w.write(c.sub[0]); err != nil {
			return err
		}
		w.text.WriteByte(')')
		return nil
	}
	col, err := w.column(c.attr)
	if err != nil {
		return err
	}
	switch c.op {
	case opNotNull:
		w.text.WriteString(col + " IS NOT NULL")
	case opIn:
		w.text.WriteString(col + " IN (" + strings.TrimSuffix(strings.Repeat("?,", len(c.args)), ",") + ")")
		w.args = append(w.args, c.args...)
	case opPrefix:
		p := c.args[0].(string)
		last := len(p) - 1
		switch {
		case p == "":
			w.text.WriteString(col + " = " + col) // met by all but null, whose answer is unknown
		case p[last] < 0x7f:
			// Strings with this prefix are one range of an index that sorts by bytes.
			w.text.WriteString("(" + col + " >= ? AND " + col + " < ?)")
			w.args = append(w.args, p, p[:last]+string(rune(p[last]+1)))
		default:
			w.text.WriteString("substr(" + col + ",1," + strconv.Itoa(utf8.RuneCountInString(p)) + ") = ?")
			w.args = append(w.args, p)
		}
	default:
		op, ok := sqlOps[c.op]
		if !ok {
			return errors.New("authz: condition cannot be written as SQL")
		}
		w.text.WriteString(col + " " + op + " ?")
		w.args = append(w.args, c.args[0])
	}
	return nil
}

// Package cond holds conditions over the attributes of a record: what is left of a policy when the record
// is not known yet. A condition matches one record, becomes SQL with bound arguments, or UCAST.
//
// Conditions follow SQL's three-valued logic: a comparison with a missing attribute is unknown, and so is
// its negation; a record is admitted only when the whole is true. The zero Cond admits nothing.
package cond

import (
	"fmt"
	"slices"
	"strings"
)

// Cond is a condition over a record's attributes. It never changes.
type Cond struct {
	op   op
	attr string
	args []any // string, int64, bool
	sub  []Cond
}

type op uint8

const (
	opFalse op = iota // the zero Cond is met by nothing
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
	opHas
	opWithin
	opAnd
	opOr
	opNot
)

// Eq is met when the attribute equals v, a string, int64 or bool.
func Eq(attr string, v any) Cond { return Cond{op: opEq, attr: attr, args: []any{v}} }

var comparisons = map[string]op{"=": opEq, "!=": opNe, "<": opLt, "<=": opLe, ">": opGt, ">=": opGe}

// Compare is met when the attribute stands to v as sign says: = != < <= > >=.
func Compare(attr, sign string, v any) (Cond, error) {
	o, ok := comparisons[sign]
	if !ok {
		return Cond{}, fmt.Errorf("cond: unknown operator %q", sign)
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

// Has is met when the attribute, a set of words, has word.
func Has(attr, word string) Cond { return Cond{op: opHas, attr: attr, args: []any{word}} }

// Within is met when every word of the attribute, a set of words, is one of words; the empty set always is.
func Within(attr string, words ...string) Cond {
	c := Cond{op: opWithin, attr: attr, args: make([]any, len(words))}
	for i, w := range words {
		c.args[i] = w
	}
	return c
}

// And is met when every one of cs is; And() is always met.
func And(cs ...Cond) Cond {
	out := make([]Cond, 0, len(cs))
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
	out := make([]Cond, 0, len(cs))
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

// Convert returns c with every value that is compared with the attribute replaced by what f makes of it, for a
// store that keeps the attribute in another form.
func (c Cond) Convert(attr string, f func(v any) any) Cond {
	if c.attr == attr {
		args := make([]any, len(c.args))
		for i, a := range c.args {
			args[i] = f(a)
		}
		c.args = args
	}
	sub := make([]Cond, len(c.sub))
	for i := range c.sub {
		sub[i] = c.sub[i].Convert(attr, f)
	}
	c.sub = sub
	return c
}

// Match evaluates c against one record. attr returns the value of an attribute: a string, an int64, a bool, a
// []string for a set of words, or nil for one that is null or unknown, which meets no comparison.
func (c Cond) Match(attr func(name string) any) bool { return c.match(attr) == yes }

// Constant tells whether c is met by every record (true) or by none (false); ok is false when it depends.
func (c Cond) Constant() (met, ok bool) { return c.op == opTrue, c.op == opTrue || c.op == opFalse }

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
	case opHas:
		set, _ := v.([]string)
		return truthOf(slices.Contains(set, c.args[0].(string)))
	case opWithin:
		set, ok := v.([]string)
		return truthOf(ok && !slices.ContainsFunc(set, func(w string) bool { return !slices.Contains(c.args, any(w)) }))
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
		word := map[op]string{opAnd: " and ", opOr: " or "}[c.op]
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
	case opHas:
		return fmt.Sprintf("%s has %q", c.attr, c.args[0])
	case opWithin:
		return fmt.Sprintf("%s within %v", c.attr, c.args)
	}
	return fmt.Sprintf("%s %s %#v", c.attr, signs[c.op], c.args[0])
}

package cond

import (
	"slices"
	"strings"
)

// Getter reads one attribute of a record of type R: the one of its functions that is set says its kind.
type Getter[R any] struct {
	String func(*R) string
	Int    func(*R) int64
	Bool   func(*R) bool
	Words  func(*R) []string
}

// Compile turns c into a function over records whose attributes are never missing, for slices of many
// records. get returns the getter of an attribute, the zero Getter for one that R does not have, which meets
// no comparison.
func Compile[R any](c Cond, get func(name string) Getter[R]) func(*R) bool {
	f, _ := compile(c, get)
	return f
}

func never[R any](*R) bool  { return false }
func always[R any](*R) bool { return true }

// compile returns the function that says when c is true, and the one that says when it is false. They are
// not each other's opposite where an attribute is missing: then neither holds.
func compile[R any](c Cond, get func(string) Getter[R]) (is, isNot func(*R) bool) {
	switch c.op {
	case opTrue:
		return always[R], never[R]
	case opFalse:
		return never[R], always[R]
	case opNot:
		is, isNot := compile(c.sub[0], get)
		return isNot, is
	case opAnd, opOr:
		yes, no := make([]func(*R) bool, len(c.sub)), make([]func(*R) bool, len(c.sub))
		for i := range c.sub {
			yes[i], no[i] = compile(c.sub[i], get)
		}
		if c.op == opAnd {
			return all(yes), some(no)
		}
		return some(yes), all(no)
	}
	f := leaf(c, get(c.attr))
	if f == nil {
		return never[R], never[R]
	}
	return f, func(r *R) bool { return !f(r) }
}

func all[R any](fs []func(*R) bool) func(*R) bool {
	if len(fs) == 2 {
		a, b := fs[0], fs[1]
		return func(r *R) bool { return a(r) && b(r) }
	}
	return func(r *R) bool {
		for _, f := range fs {
			if !f(r) {
				return false
			}
		}
		return true
	}
}

func some[R any](fs []func(*R) bool) func(*R) bool {
	if len(fs) == 2 {
		a, b := fs[0], fs[1]
		return func(r *R) bool { return a(r) || b(r) }
	}
	return func(r *R) bool {
		for _, f := range fs {
			if f(r) {
				return true
			}
		}
		return false
	}
}

// leaf compiles one comparison; nil when the record does not have the attribute.
func leaf[R any](c Cond, g Getter[R]) func(*R) bool {
	switch {
	case c.op == opNotNull:
		if g.String == nil && g.Int == nil && g.Bool == nil && g.Words == nil {
			return never[R]
		}
		return always[R]
	case g.String != nil:
		return stringLeaf(c, g.String)
	case g.Int != nil:
		return intLeaf(c, g.Int)
	case g.Bool != nil:
		want, ok := c.first().(bool)
		switch {
		case ok && c.op == opEq:
			return func(r *R) bool { return g.Bool(r) == want }
		case ok && c.op == opNe:
			return func(r *R) bool { return g.Bool(r) != want }
		}
		return mismatch[R](c)
	case g.Words != nil:
		switch c.op {
		case opHas:
			want := c.args[0].(string)
			return func(r *R) bool { return slices.Contains(g.Words(r), want) }
		case opWithin:
			known := make([]string, len(c.args))
			for i, a := range c.args {
				known[i] = a.(string)
			}
			return func(r *R) bool {
				for _, w := range g.Words(r) {
					if !slices.Contains(known, w) {
						return false
					}
				}
				return true
			}
		}
		return mismatch[R](c)
	}
	return nil
}

// mismatch answers a comparison of different types, as match does.
func mismatch[R any](c Cond) func(*R) bool {
	if c.op == opNe {
		return always[R]
	}
	return never[R]
}

func (c Cond) first() any {
	if len(c.args) == 0 {
		return nil
	}
	return c.args[0]
}

func stringLeaf[R any](c Cond, get func(*R) string) func(*R) bool {
	if c.op == opIn {
		var words []string
		for _, a := range c.args {
			if w, ok := a.(string); ok {
				words = append(words, w)
			}
		}
		if len(words) <= 8 {
			return func(r *R) bool { return slices.Contains(words, get(r)) }
		}
		set := make(map[string]bool, len(words))
		for _, w := range words {
			set[w] = true
		}
		return func(r *R) bool { return set[get(r)] }
	}
	v, ok := c.first().(string)
	if !ok {
		return mismatch[R](c)
	}
	switch c.op {
	case opEq:
		return func(r *R) bool { return get(r) == v }
	case opNe:
		return func(r *R) bool { return get(r) != v }
	case opLt:
		return func(r *R) bool { return get(r) < v }
	case opLe:
		return func(r *R) bool { return get(r) <= v }
	case opGt:
		return func(r *R) bool { return get(r) > v }
	case opGe:
		return func(r *R) bool { return get(r) >= v }
	case opPrefix:
		return func(r *R) bool { return strings.HasPrefix(get(r), v) }
	}
	return never[R]
}

func intLeaf[R any](c Cond, get func(*R) int64) func(*R) bool {
	if c.op == opIn {
		var ns []int64
		for _, a := range c.args {
			if n, ok := a.(int64); ok {
				ns = append(ns, n)
			}
		}
		return func(r *R) bool { return slices.Contains(ns, get(r)) }
	}
	v, ok := c.first().(int64)
	if !ok {
		return mismatch[R](c)
	}
	switch c.op {
	case opEq:
		return func(r *R) bool { return get(r) == v }
	case opNe:
		return func(r *R) bool { return get(r) != v }
	case opLt:
		return func(r *R) bool { return get(r) < v }
	case opLe:
		return func(r *R) bool { return get(r) <= v }
	case opGt:
		return func(r *R) bool { return get(r) > v }
	case opGe:
		return func(r *R) bool { return get(r) >= v }
	}
	return never[R]
}

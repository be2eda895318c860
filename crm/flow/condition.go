package flow

import (
	"math/big"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/crm"
)

// Bounds of a condition.
const (
	MaxNodes = 100
	MaxDepth = 8
)

// Op compares a value.
type Op string

// The operators. Order is that of numbers where both sides are plain decimals, else that of bytes, which is the one of dates and times in their stored
// form. A value that is not there is "".
const (
	Equal     Op = "eq"
	NotEqual  Op = "ne"
	Less      Op = "lt"
	AtMost    Op = "le"
	Greater   Op = "gt"
	AtLeast   Op = "ge"
	In        Op = "in"       // one of Values
	Contains  Op = "contains" // the words of the value, separated by commas, have Values[0]
	Empty     Op = "empty"
	NotEmpty  Op = "not_empty"
	allOf     Op = "all"
	anyOf     Op = "any"
	notOf     Op = "not"
	maxValues    = 100
)

// Condition is one comparison, or several joined: exactly one of Op, All, Any and Not is set. The zero Condition always holds.
type Condition struct {
	Field  string      `json:"field,omitempty"`
	Op     Op          `json:"op,omitempty"`
	Values []string    `json:"values,omitempty"`
	All    []Condition `json:"all,omitempty"`
	Any    []Condition `json:"any,omitempty"`
	Not    *Condition  `json:"not,omitempty"`
}

// zero tells whether the condition always holds.
func (c *Condition) zero() bool {
	return c.Field == "" && c.Op == "" && len(c.Values) == 0 && len(c.All) == 0 && len(c.Any) == 0 && c.Not == nil
}

// kind returns the operator, or "" when the condition is none.
func (c *Condition) kind() Op {
	switch {
	case c.Op != "" && c.All == nil && c.Any == nil && c.Not == nil:
		return c.Op
	case c.Op == "" && c.Field == "" && c.Values == nil:
		switch {
		case len(c.All) > 0 && c.Any == nil && c.Not == nil:
			return allOf
		case len(c.Any) > 0 && c.All == nil && c.Not == nil:
			return anyOf
		case c.Not != nil && c.All == nil && c.Any == nil:
			return notOf
		}
	}
	return ""
}

// check counts nodes and returns the broken rule, or "".
func (c *Condition) check(nodes *int, depth int, fields map[string]bool) string {
	if *nodes++; *nodes > MaxNodes || depth > MaxDepth {
		return "too_long"
	}
	parts := slices.Concat(c.All, c.Any)
	if c.Not != nil {
		parts = append(parts, *c.Not)
	}
	n := len(c.Values)
	switch c.kind() {
	case Equal, NotEqual, Less, AtMost, Greater, AtLeast, Contains:
		if n != 1 {
			return "mismatch"
		}
	case In:
		if n < 1 || n > maxValues {
			return "mismatch"
		}
	case Empty, NotEmpty:
		if n != 0 {
			return "mismatch"
		}
	case allOf, anyOf, notOf:
		for i := range parts {
			if rule := parts[i].check(nodes, depth+1, fields); rule != "" {
				return rule
			}
		}
		return ""
	default:
		return "unknown_value"
	}
	if fields != nil && !fields[c.Field] {
		return "bad_reference"
	}
	if c.Field == "" || len(c.Field) > 60 || slices.ContainsFunc(c.Values, func(s string) bool { return len(s) > crm.MaxLine }) {
		return "too_long"
	}
	return ""
}

// Holds tells whether the condition holds for values. What is no condition never holds.
func (c *Condition) Holds(value func(field string) string) bool {
	nodes := 0
	if c.zero() {
		return true
	}
	return c.check(&nodes, 1, nil) == "" && c.holds(value)
}

func (c *Condition) holds(value func(string) string) bool {
	switch c.kind() {
	case allOf:
		return !slices.ContainsFunc(c.All, func(x Condition) bool { return !x.holds(value) })
	case anyOf:
		return slices.ContainsFunc(c.Any, func(x Condition) bool { return x.holds(value) })
	case notOf:
		return !c.Not.holds(value)
	}
	v := value(c.Field)
	switch c.Op {
	case Empty:
		return v == ""
	case NotEmpty:
		return v != ""
	case In:
		return slices.ContainsFunc(c.Values, func(s string) bool { return compare(v, s) == 0 })
	case Contains:
		return slices.Contains(strings.Split(v, ","), c.Values[0])
	}
	order := compare(v, c.Values[0])
	switch c.Op {
	case Equal:
		return order == 0
	case NotEqual:
		return order != 0
	}
	if v == "" {
		return false // what is not there is neither more nor less
	}
	switch c.Op {
	case Less:
		return order < 0
	case AtMost:
		return order <= 0
	case Greater:
		return order > 0
	case AtLeast:
		return order >= 0
	}
	return false
}

// compare orders two values.
func compare(a, b string) int {
	x, ok1 := plain(a)
	y, ok2 := plain(b)
	if ok1 && ok2 {
		return x.Cmp(y)
	}
	return strings.Compare(a, b)
}

// plain reads a plain decimal. Exponents are none: a short text would be a number that fills the memory.
func plain(s string) (*big.Rat, bool) {
	if len(s) > 40 || strings.ContainsFunc(s, func(r rune) bool { return r != '-' && r != '.' && (r < '0' || r > '9') }) {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

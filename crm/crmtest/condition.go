package crmtest

import (
	"math/rand/v2"
	"strings"

	"github.com/crmguard/crmguard/crm"
)

// condition is a crm.Condition made by chance: comparisons joined by and, or and not. It is written
// here, apart from any policy engine, so that the suite asks a store only what crm.Condition says.
type condition struct {
	op    string // and, or, not, =, <, in, null
	parts []condition
	name  string
	args  []crm.Value
}

// Match implements crm.Condition.
func (c condition) Match(column func(string) any) bool {
	switch c.op {
	case "and":
		for _, p := range c.parts {
			if !p.Match(column) {
				return false
			}
		}
		return true
	case "or":
		for _, p := range c.parts {
			if p.Match(column) {
				return true
			}
		}
		return false
	case "not":
		return !c.parts[0].Match(column)
	}
	v, ok := crm.ValueOf(column(c.name))
	if !ok || v.Kind() == 0 {
		return c.op == "null"
	}
	switch c.op {
	case "=":
		return v == c.args[0]
	case "<":
		return v.Int() < c.args[0].Int() || v.Int() == c.args[0].Int() && v.Str() < c.args[0].Str()
	case "in":
		return v == c.args[0] || v == c.args[1]
	}
	return false
}

// SQL implements crm.Condition. A comparison is never null, so that not means the same as in Match.
func (c condition) SQL(column func(string) (string, error)) (string, []any, error) {
	if c.parts != nil {
		var texts []string
		var args []any
		for _, p := range c.parts {
			text, a, err := p.SQL(column)
			if err != nil {
				return "", nil, err
			}
			texts, args = append(texts, "("+text+")"), append(args, a...)
		}
		if c.op == "not" {
			return "NOT " + texts[0], args, nil
		}
		return strings.Join(texts, " "+strings.ToUpper(c.op)+" "), args, nil
	}
	name, err := column(c.name)
	if err != nil {
		return "", nil, err
	}
	var args []any
	for _, v := range c.args {
		args = append(args, v.Any())
	}
	switch c.op {
	case "null":
		return name + " IS NULL", nil, nil
	case "in":
		return "(" + name + " IS NOT NULL AND " + name + " IN (?, ?))", args, nil
	}
	return "(" + name + " IS NOT NULL AND " + name + " " + c.op + " ?)", args, nil
}

// randomCondition makes a condition over Schema with values that occur in rows.
func randomCondition(r *rand.Rand, depth int) condition {
	if depth > 0 && r.IntN(3) > 0 {
		c := condition{op: []string{"and", "or", "not"}[r.IntN(3)]}
		for range map[string]int{"and": 2, "or": 2, "not": 1}[c.op] {
			c.parts = append(c.parts, randomCondition(r, depth-1))
		}
		return c
	}
	columns := Schema().Columns
	k := r.IntN(len(columns))
	value := func() crm.Value {
		for {
			if v := Row("", r.IntN(200)).Clear[k]; v.Kind() != 0 {
				return v
			}
		}
	}
	c := condition{op: []string{"=", "<", "in", "null"}[r.IntN(4)], name: columns[k].Name}
	switch c.op {
	case "in":
		c.args = []crm.Value{value(), value()}
	case "null":
	default:
		c.args = []crm.Value{value()}
	}
	return c
}

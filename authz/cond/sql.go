package cond

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Dialect is how bound arguments are written. The conditions themselves are portable.
type Dialect uint8

// The dialects.
const (
	Question Dialect = iota // ? for each, as SQLite has it, and what rewrites it for others
	Dollar                  // $1, $2, as PostgreSQL has it
)

// SQL writes c as a condition with bound arguments; no value is ever part of the text. column returns the quoted SQL
// name of an attribute, an error for one that has none. A set of words is stored as a text that has each
// word in angle brackets, "<a><b>", "" for none; see [Words].
func (c Cond) SQL(d Dialect, column func(name string) (string, error)) (string, []any, error) {
	w := sqlWriter{column: column, dialect: d}
	if err := w.write(c); err != nil {
		return "", nil, err
	}
	return w.text.String(), w.args, nil
}

// Words writes a set of words as conditions look for it in a column: sorted, each once, in angle brackets.
// A word that holds an angle bracket is an error.
func Words(set []string) (string, error) {
	sorted := slices.Compact(slices.Sorted(slices.Values(set)))
	var b strings.Builder
	for _, w := range sorted {
		if strings.ContainsAny(w, "<>") {
			return "", errors.New("cond: a word of a set holds an angle bracket")
		}
		b.WriteString("<" + w + ">")
	}
	return b.String(), nil
}

var signs = map[op]string{opEq: "=", opNe: "<>", opLt: "<", opLe: "<=", opGt: ">", opGe: ">="}

// sqlWriter writes a condition as portable SQL with bound arguments.
type sqlWriter struct {
	text    strings.Builder
	args    []any
	column  func(string) (string, error)
	dialect Dialect
}

// bind adds an argument and returns its place in the text.
func (w *sqlWriter) bind(v any) string {
	w.args = append(w.args, v)
	if w.dialect == Dollar {
		return "$" + strconv.Itoa(len(w.args))
	}
	return "?"
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
		w.text.WriteString(col + " IN (")
		for i, v := range c.args {
			if i > 0 {
				w.text.WriteByte(',')
			}
			w.text.WriteString(w.bind(v))
		}
		w.text.WriteByte(')')
	case opHas:
		if strings.ContainsAny(c.args[0].(string), "<>") { // no set has such a word
			w.text.WriteString("1=0")
			return nil
		}
		w.text.WriteString("replace(" + col + "," + w.bind("<"+c.args[0].(string)+">") + ",'') <> " + col)
	case opWithin:
		// What is left when the known words are taken out must be nothing.
		for _, v := range c.args {
			if strings.ContainsAny(v.(string), "<>") {
				continue // it would take two words for one
			}
			col = "replace(" + col + "," + w.bind("<"+v.(string)+">") + ",'')"
		}
		w.text.WriteString(col + " = ''")
	case opPrefix:
		p := c.args[0].(string)
		last := len(p) - 1
		switch {
		case p == "":
			w.text.WriteString(col + " = " + col) // met by all but null, whose answer is unknown
		case p[last] < 0x7f:
			// Strings with this prefix are one range of an index that sorts by bytes.
			w.text.WriteString("(" + col + " >= " + w.bind(p) + " AND " + col + " < " + w.bind(p[:last]+string(rune(p[last]+1))) + ")")
		default:
			w.text.WriteString("substr(" + col + ",1," + strconv.Itoa(utf8.RuneCountInString(p)) + ") = " + w.bind(p))
		}
	default:
		sign, ok := signs[c.op]
		if !ok {
			return errors.New("cond: condition cannot be written as SQL")
		}
		w.text.WriteString(col + " " + sign + " " + w.bind(c.args[0]))
	}
	return nil
}

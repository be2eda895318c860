package cond

// UCAST is a condition as a tree for programs in other languages and for query builders: the universal
// conditions abstract syntax tree of github.com/stalniy/ucast, as JSON. Type is "field" or "compound". Field operators are
// eq ne lt le gt ge in startswith exists has within; compound ones are and, or, not. Met by all is an "and" of nothing,
// met by none an "or" of nothing.
type UCAST struct {
	Type     string `json:"type"`
	Operator string `json:"operator"`
	Field    string `json:"field,omitempty"`
	Value    any    `json:"value"` // of a compound a []UCAST
}

var ucastOps = map[op]string{
	opEq: "eq", opNe: "ne", opLt: "lt", opLe: "le", opGt: "gt", opGe: "ge", opIn: "in", opPrefix: "startswith",
	opHas: "has", opWithin: "within", opNotNull: "exists",
}

// UCAST returns c as a tree.
func (c Cond) UCAST() UCAST {
	switch c.op {
	case opTrue:
		return UCAST{Type: "compound", Operator: "and", Value: []UCAST{}}
	case opFalse:
		return UCAST{Type: "compound", Operator: "or", Value: []UCAST{}}
	case opAnd, opOr, opNot:
		sub := make([]UCAST, len(c.sub))
		for i := range c.sub {
			sub[i] = c.sub[i].UCAST()
		}
		word := map[op]string{opAnd: "and", opOr: "or", opNot: "not"}[c.op]
		return UCAST{Type: "compound", Operator: word, Value: sub}
	}
	u := UCAST{Type: "field", Operator: ucastOps[c.op], Field: c.attr}
	switch c.op {
	case opIn, opWithin:
		u.Value = c.args
	case opNotNull:
		u.Value = true
	default:
		u.Value = c.args[0]
	}
	return u
}

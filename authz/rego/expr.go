package rego

import (
	"cmp"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
)

// call is one request on its way through a plan.
type call struct {
	req   authz.Request
	bits  uint64 // the facts that hold
	time  int64
	timed bool // the time is known

	// What an iteration is at.
	share      *authz.Sharing
	delegation *authz.Delegation
	emergency  *authz.Emergency
	word       string
}

// kind is the type of a value.
type kind uint8

const (
	kindString kind = iota + 1
	kindInt
	kindBool
	kindWords // a list of strings
)

// side is where an attribute comes from.
type side uint8

const (
	ofRequest side = iota + 1
	ofRecord
	ofItem // of an iteration
)

// attr is an attribute that a plan leaves open. One of its functions is set, by its kind.
type attr struct {
	name   string // as policies write it
	column string // as conditions name it, of a record's
	kind   kind
	side   side
	maybe  bool // it may be missing

	str   func(*call) string
	num   func(*call) int64
	yes   func(*call) bool
	words func(*call) []string
	acts  func(*call) []authz.Action
}

// attrs are all attributes that plans know.
var attrs = func() map[string]*attr {
	m := map[string]*attr{}
	add := func(a *attr) { m[a.name] = a }
	str := func(name string, s side, f func(*call) string) {
		add(&attr{name: name, kind: kindString, side: s, str: f})
	}
	num := func(name string, s side, f func(*call) int64) {
		add(&attr{name: name, kind: kindInt, side: s, num: f})
	}
	words := func(name string, s side, f func(*call) []string) {
		add(&attr{name: name, kind: kindWords, side: s, words: f})
	}
	acts := func(name string, f func(*call) []authz.Action) {
		add(&attr{name: name, kind: kindWords, side: ofItem, acts: f})
	}
	str("input.subject.id", ofRequest, func(c *call) string { return c.req.Subject.ID })
	str("input.subject.tenant", ofRequest, func(c *call) string { return c.req.Subject.Tenant })
	str("input.subject.team", ofRequest, func(c *call) string { return c.req.Subject.Team })
	add(&attr{name: "input.subject.active", kind: kindBool, side: ofRequest, yes: func(c *call) bool { return c.req.Subject.Active }})
	add(&attr{name: "input.environment.time", kind: kindInt, side: ofRequest, maybe: true, num: func(c *call) int64 { return c.time }})
	num("input.environment.rows", ofRequest, func(c *call) int64 { return int64(c.req.Environment.Rows) })
	// The tenant of a record is the one that a list asks for: a store never mixes tenants.
	str("input.resource.tenant", ofRequest, func(c *call) string { return c.req.Resource.Tenant })
	str("input.resource.id", ofRecord, func(c *call) string { return c.req.Resource.ID })
	str("input.resource.owner", ofRecord, func(c *call) string { return c.req.Resource.Owner })
	str("input.resource.team", ofRecord, func(c *call) string { return c.req.Resource.Team })
	str("input.resource.state", ofRecord, func(c *call) string { return c.req.Resource.State })
	str("input.resource.pool", ofRecord, func(c *call) string { return c.req.Resource.Pool })
	num("input.resource.level", ofRecord, func(c *call) int64 { return int64(c.req.Resource.Level) })
	num("input.resource.amount", ofRecord, func(c *call) int64 { return c.req.Resource.Amount })
	add(&attr{name: "input.resource.held", kind: kindBool, side: ofRecord, yes: func(c *call) bool { return c.req.Resource.Held }})
	words("input.resource.compartments", ofRecord, func(c *call) []string { return c.req.Resource.Compartments })
	words("input.resource.actors", ofRecord, func(c *call) []string { return c.req.Resource.Actors })
	words("input.resource.consents", ofRecord, func(c *call) []string { return c.req.Resource.Consents })
	words("input.subject.pools", ofRequest, func(c *call) []string { return c.req.Subject.Pools })
	str("input.subject.pools[]", ofItem, func(c *call) string { return c.word })
	str("input.subject.shares[].record", ofItem, func(c *call) string { return c.share.Record })
	str("input.subject.shares[].by", ofItem, func(c *call) string { return c.share.By })
	acts("input.subject.shares[].actions", func(c *call) []authz.Action { return c.share.Actions })
	num("input.subject.shares[].until", ofItem, func(c *call) int64 { return nanos(c.share.Until) })
	str("input.subject.delegations[].from", ofItem, func(c *call) string { return c.delegation.From })
	acts("input.subject.delegations[].actions", func(c *call) []authz.Action { return c.delegation.Actions })
	num("input.subject.delegations[].until", ofItem, func(c *call) int64 { return nanos(c.delegation.Until) })
	str("input.subject.emergencies[].type", ofItem, func(c *call) string { return c.emergency.Type })
	words("input.subject.emergencies[].approvers", ofItem, func(c *call) []string { return c.emergency.Approvers })
	num("input.subject.emergencies[].until", ofItem, func(c *call) int64 { return nanos(c.emergency.Until) })
	str(groundsName+"[]", ofItem, func(c *call) string { return c.word })
	str("input.resource.compartments[]", ofItem, func(c *call) string { return c.word })
	str("input.resource.actors[]", ofItem, func(c *call) string { return c.word })
	str("input.resource.consents[]", ofItem, func(c *call) string { return c.word })
	for name, a := range m {
		if a.side == ofRecord {
			a.column = strings.TrimPrefix(name, "input.resource.")
		}
	}
	return m
}()

// collections are the lists that a policy may iterate, by name; over their items.
var collections = map[string]func(c *call, each func(*call) bool) bool{
	"input.subject.shares": func(c *call, each func(*call) bool) bool {
		for i := range c.req.Subject.Shares {
			if c.share = &c.req.Subject.Shares[i]; each(c) {
				return true
			}
		}
		return false
	},
	"input.subject.delegations": func(c *call, each func(*call) bool) bool {
		for i := range c.req.Subject.Delegations {
			if c.delegation = &c.req.Subject.Delegations[i]; each(c) {
				return true
			}
		}
		return false
	},
	"input.subject.emergencies": func(c *call, each func(*call) bool) bool {
		for i := range c.req.Subject.Emergencies {
			if c.emergency = &c.req.Subject.Emergencies[i]; each(c) {
				return true
			}
		}
		return false
	},
	"input.subject.pools":         func(c *call, each func(*call) bool) bool { return eachWord(c, c.req.Subject.Pools, each) },
	"input.resource.compartments": func(c *call, each func(*call) bool) bool { return eachWord(c, c.req.Resource.Compartments, each) },
	"input.resource.actors":       func(c *call, each func(*call) bool) bool { return eachWord(c, c.req.Resource.Actors, each) },
	groundsName:                   nil, // see someGround
	"input.resource.consents":     func(c *call, each func(*call) bool) bool { return eachWord(c, c.req.Resource.Consents, each) },
}

func eachWord(c *call, words []string, each func(*call) bool) bool {
	for _, c.word = range words {
		if each(c) {
			return true
		}
	}
	return false
}

// operand is a constant or an attribute.
type operand struct {
	attr  *attr // nil for a constant
	kind  kind
	str   string
	num   int64
	yes   bool
	words []string
}

// expr is a condition that a plan leaves open. Exprs are shared between plans and never change.
type expr struct {
	id   uint64 // never used for another one
	op   exprOp
	sign string // of a comparison
	a, b operand
	bit  uint8 // of a fact
	over string
	sub  []*expr

	where  string // file:line of the first place where it stands
	record bool   // it depends on the record
	test   func(*call) bool
}

type exprOp uint8

const (
	exprFalse  exprOp = iota
	exprTrue          //
	exprAnd           // all of sub
	exprOr            // one of sub
	exprNot           // not sub[0]
	exprCmp           // a sign b
	exprIn            // a is one of the words b, or has the number; b may be an attribute
	exprPrefix        // a begins with b
	exprSuffix        // a ends with b
	exprFact          // the fact of this bit
	exprCount         // the number of words of a, sign, b
	exprExists        // an item of over meets sub[0]
)

// finish notes whether e depends on the record and makes its function.
func (e *expr) finish() *expr {
	e.record = e.a.ofRecord() || e.b.ofRecord() || strings.HasPrefix(e.over, "input.resource.")
	for _, s := range e.sub {
		e.record = e.record || s.record
	}
	e.test = e.compile()
	return e
}

func (o operand) ofRecord() bool {
	return o.attr != nil && (o.attr.side == ofRecord || o.attr.side == ofItem && strings.HasPrefix(o.attr.name, "input.resource."))
}

func (e *expr) compile() func(*call) bool {
	switch e.op {
	case exprTrue:
		return func(*call) bool { return true }
	case exprAnd:
		if len(e.sub) == 2 {
			a, b := e.sub[0].test, e.sub[1].test
			return func(c *call) bool { return a(c) && b(c) }
		}
		tests := testsOf(e.sub)
		return func(c *call) bool {
			for _, t := range tests {
				if !t(c) {
					return false
				}
			}
			return true
		}
	case exprOr:
		if len(e.sub) == 2 {
			a, b := e.sub[0].test, e.sub[1].test
			return func(c *call) bool { return a(c) || b(c) }
		}
		tests := testsOf(e.sub)
		return func(c *call) bool {
			for _, t := range tests {
				if t(c) {
					return true
				}
			}
			return false
		}
	case exprNot:
		t := e.sub[0].test
		return func(c *call) bool { return !t(c) }
	case exprFact:
		mask := uint64(1) << e.bit
		return func(c *call) bool { return c.bits&mask != 0 }
	case exprCmp:
		return e.guarded(compare(e.a, e.b, e.sign))
	case exprCount:
		n, get := e.b.num, e.a.attr.count()
		holds := ordered[int64](e.sign)
		return func(c *call) bool { return holds(int64(get(c)), n) }
	case exprIn:
		return in(e.a, e.b)
	case exprPrefix:
		a, b := e.a.strings(), e.b.strings()
		return func(c *call) bool { return strings.HasPrefix(a(c), b(c)) }
	case exprSuffix:
		a, b := e.a.strings(), e.b.strings()
		return func(c *call) bool { return strings.HasSuffix(a(c), b(c)) }
	case exprExists:
		walk, t := collections[e.over], e.sub[0].test
		return func(c *call) bool { return walk(c, t) }
	}
	return func(*call) bool { return false }
}

func testsOf(list []*expr) []func(*call) bool {
	out := make([]func(*call) bool, len(list))
	for i, e := range list {
		out[i] = e.test
	}
	return out
}

// guarded makes a test fail when a value that it reads is missing.
func (e *expr) guarded(t func(*call) bool) func(*call) bool {
	if e.a.attr != nil && e.a.attr.maybe || e.b.attr != nil && e.b.attr.maybe {
		return func(c *call) bool { return c.timed && t(c) }
	}
	return t
}

func (a *attr) count() func(*call) int {
	if a.acts != nil {
		return func(c *call) int { return len(a.acts(c)) }
	}
	return func(c *call) int { return len(a.words(c)) }
}

func (o operand) strings() func(*call) string {
	if o.attr != nil {
		return o.attr.str
	}
	return func(*call) string { return o.str }
}

func ordered[V cmp.Ordered](sign string) func(a, b V) bool {
	switch sign {
	case "=":
		return func(a, b V) bool { return a == b }
	case "!=":
		return func(a, b V) bool { return a != b }
	case "<":
		return func(a, b V) bool { return a < b }
	case "<=":
		return func(a, b V) bool { return a <= b }
	case ">":
		return func(a, b V) bool { return a > b }
	}
	return func(a, b V) bool { return a >= b }
}

// compare compiles a comparison of two values of one kind.
func compare(a, b operand, sign string) func(*call) bool {
	switch a.kind {
	case kindString:
		get := a.strings()
		if b.attr == nil {
			v := b.str
			switch sign {
			case "=":
				return func(c *call) bool { return get(c) == v }
			case "!=":
				return func(c *call) bool { return get(c) != v }
			}
		}
		other, holds := b.strings(), ordered[string](sign)
		if sign == "=" {
			return func(c *call) bool { return get(c) == other(c) }
		}
		return func(c *call) bool { return holds(get(c), other(c)) }
	case kindInt:
		get, other, holds := a.ints(), b.ints(), ordered[int64](sign)
		return func(c *call) bool { return holds(get(c), other(c)) }
	case kindBool:
		get, other, equal := a.bools(), b.bools(), sign == "="
		return func(c *call) bool { return (get(c) == other(c)) == equal }
	}
	return func(*call) bool { return false }
}

func (o operand) ints() func(*call) int64 {
	if o.attr != nil {
		return o.attr.num
	}
	return func(*call) int64 { return o.num }
}

func (o operand) bools() func(*call) bool {
	if o.attr != nil {
		return o.attr.yes
	}
	return func(*call) bool { return o.yes }
}

func in(a, b operand) func(*call) bool {
	get := a.strings()
	switch {
	case b.attr == nil && len(b.words) > 8:
		set := make(map[string]bool, len(b.words))
		for _, w := range b.words {
			set[w] = true
		}
		return func(c *call) bool { return set[get(c)] }
	case b.attr == nil:
		return func(c *call) bool { return slices.Contains(b.words, get(c)) }
	case b.attr.acts != nil:
		return func(c *call) bool { return slices.Contains(b.attr.acts(c), authz.Action(get(c))) }
	}
	return func(c *call) bool { return slices.Contains(b.attr.words(c), get(c)) }
}

// errFilter says that an expression has no condition.
func (e *expr) errFilter() error {
	return &notPlanned{where: e.where, what: "it has no form as a list's filter"}
}

// bind returns what is left of e when everything but the record is known.
func (e *expr) bind(c *call) (cond.Cond, error) {
	if !e.record {
		if e.test(c) {
			return cond.And(), nil
		}
		return cond.Or(), nil
	}
	switch e.op {
	case exprAnd, exprOr:
		list := make([]cond.Cond, len(e.sub))
		for i, s := range e.sub {
			var err error
			if list[i], err = s.bind(c); err != nil {
				return cond.Cond{}, err
			}
		}
		if e.op == exprAnd {
			return cond.And(list...), nil
		}
		return cond.Or(list...), nil
	case exprNot:
		if words, known, ok := e.within(); ok {
			return cond.Within(words.column, known...), nil
		}
		s, err := e.sub[0].bind(c)
		return cond.Not(s), err
	case exprCmp:
		return e.bindCompare(c)
	case exprIn:
		switch {
		case e.a.isColumn() && e.b.attr == nil:
			return cond.AnyOf(e.a.attr.column, anys(e.b.words)...), nil
		case e.b.isColumn() && !e.a.ofRecord():
			return cond.Has(e.b.attr.column, e.a.strings()(c)), nil
		}
	case exprPrefix:
		if e.a.isColumn() && e.a.attr.column != "id" && !e.b.ofRecord() {
			return cond.HasPrefix(e.a.attr.column, e.b.strings()(c)), nil
		}
	case exprCount:
		some := cond.Not(cond.Within(e.a.attr.column))
		switch {
		case e.sign == ">" && e.b.num == 0 || e.sign == ">=" && e.b.num == 1 || e.sign == "!=" && e.b.num == 0:
			return some, nil
		case e.sign == "=" && e.b.num == 0 || e.sign == "<" && e.b.num == 1 || e.sign == "<=" && e.b.num == 0:
			return cond.Within(e.a.attr.column), nil
		}
	case exprExists:
		if column, ok := strings.CutPrefix(e.over, "input.resource."); ok {
			if e.sub[0].op == exprTrue {
				return cond.Not(cond.Within(column)), nil
			}
			if s := e.sub[0]; s.op == exprIn && s.a.attr != nil && s.a.attr.side == ofItem && s.b.attr == nil {
				var list []cond.Cond
				for _, w := range s.b.words {
					list = append(list, cond.Has(column, w))
				}
				return cond.Or(list...), nil
			}
			break
		}
		var list []cond.Cond
		var err error
		collections[e.over](c, func(c *call) bool {
			var s cond.Cond
			s, err = e.sub[0].bind(c)
			list = append(list, s)
			return err != nil
		})
		return cond.Or(list...), err
	}
	return cond.Cond{}, e.errFilter()
}

// within recognises "no item of a record's words is beyond the known ones".
func (e *expr) within() (words *attr, known []string, ok bool) {
	x := e.sub[0]
	if x.op != exprExists || !strings.HasPrefix(x.over, "input.resource.") || x.sub[0].op != exprNot {
		return nil, nil, false
	}
	s := x.sub[0].sub[0]
	if s.op != exprIn || s.a.attr == nil || s.a.attr.side != ofItem || s.b.attr != nil {
		return nil, nil, false
	}
	return attrs[x.over], s.b.words, true
}

func (o operand) isColumn() bool { return o.attr != nil && o.attr.side == ofRecord }

func anys(words []string) []any {
	out := make([]any, len(words))
	for i, w := range words {
		out[i] = w
	}
	return out
}

var mirrored = map[string]string{"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func (e *expr) bindCompare(c *call) (cond.Cond, error) {
	a, b, sign := e.a, e.b, e.sign
	if !a.isColumn() {
		a, b, sign = b, a, mirrored[sign]
	}
	if !a.isColumn() || b.ofRecord() || a.attr.column == "id" && sign != "=" && sign != "!=" { // stores keep ids in forms of their own
		return cond.Cond{}, e.errFilter()
	}
	if b.attr != nil && b.attr.maybe && !c.timed {
		return cond.Or(), nil
	}
	var v any
	switch a.kind {
	case kindString:
		v = b.strings()(c)
	case kindInt:
		v = b.ints()(c)
	default:
		v = b.bools()(c)
	}
	return cond.Compare(a.attr.column, sign, v)
}

package rego

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// notPlanned says why a part of a policy is not compiled into plans, and where it stands.
type notPlanned struct {
	where string // file:line, "" when unknown
	what  string
}

func (e *notPlanned) Error() string {
	if e.where == "" {
		return e.what
	}
	return e.where + ": " + e.what
}

// reader turns what partial evaluation leaves of a policy into exprs.
type reader struct {
	facts   map[string]uint8 // bit of each boolean fact
	support map[string][]*ast.Rule
	intern  func(key string, make func() *expr) *expr
	grounds map[string]*expr // what is left of each ground
	at      *ast.Location    // of the expression that is read
}

func (r *reader) fail(format string, args ...any) error {
	return &notPlanned{where: r.where(), what: fmt.Sprintf(format, args...)}
}

// where is the place of the expression that is read.
func (r *reader) where() string {
	if r.at == nil || r.at.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", r.at.File, r.at.Row)
}

// body reads a conjunction. key is the value that the head variable x is bound to, nil when it is not.
func (r *reader) body(body ast.Body, x ast.Var) (e *expr, key *ast.Term, err error) {
	alias, counts := map[ast.Var]ast.Ref{}, map[ast.Var]*ast.Term{}
	var rest []*ast.Expr
	for _, ex := range body {
		if v, words, ok := counted(ex); ok {
			counts[v] = words
			continue
		}
		if v, t, ok := assignment(ex); ok {
			if v == x {
				key = t
				continue
			}
			if ref, ok := t.Value.(ast.Ref); ok {
				if _, twice := alias[v]; twice {
					return nil, nil, r.fail("two values for one name")
				}
				alias[v] = ref
				continue
			}
		}
		rest = append(rest, ex)
	}
	var plain []*expr
	groups := map[string][]*expr{} // by iteration
	over := map[string]string{}
	for _, ex := range rest {
		r.at = ex.Location
		s := scope{r: r, alias: alias, counts: counts}
		e, err := s.expr(ex)
		if err != nil {
			return nil, nil, err
		}
		if s.item == "" {
			plain = append(plain, e)
			continue
		}
		if was, ok := over[s.item]; ok && was != s.over {
			return nil, nil, r.fail("one place in two lists")
		}
		groups[s.item] = append(groups[s.item], e)
		over[s.item] = s.over
	}
	// An item that only has a name still has to be there.
	for _, ref := range alias {
		s := scope{r: r, alias: alias, counts: counts}
		name, err := s.path(ref)
		if err != nil {
			return nil, nil, err
		}
		list, item := strings.CutSuffix(name, "[]")
		item = item && s.over == list
		switch a := attrs[name]; {
		case a == nil && !item:
			return nil, nil, r.fail("a name for %s, which is not an attribute that controls may read", name)
		case a != nil && a.maybe:
			return nil, nil, r.fail("a name for a value that may be missing")
		}
		if was, ok := over[s.item]; ok && was != s.over {
			return nil, nil, r.fail("one place in two lists")
		}
		if s.item != "" && groups[s.item] == nil {
			groups[s.item], over[s.item] = []*expr{r.constant(exprTrue)}, s.over
		}
	}
	items := make([]string, 0, len(groups))
	for item := range groups {
		items = append(items, item)
	}
	sort.Strings(items)
	for _, item := range items {
		e := r.and(groups[item])
		if over[item] != groundsName {
			plain = append(plain, r.exists(over[item], e))
			continue
		}
		some, err := r.someGround(e)
		if err != nil {
			return nil, nil, err
		}
		plain = append(plain, some)
	}
	return r.and(plain), key, nil
}

// groundsName is the set of the grounds of access. What is left of them is known when a part is read that reads them.
const groundsName = "data.crm.authz.grounds"

// someGround is "a ground holds whose name meets e".
func (r *reader) someGround(e *expr) (*expr, error) {
	if !e.onlyItem() {
		return nil, r.fail("a ground compared with what is not known yet")
	}
	names := make([]string, 0, len(r.grounds))
	for name := range r.grounds {
		if e.test(&call{word: name}) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	list := make([]*expr, len(names))
	for i, name := range names {
		list[i] = r.grounds[name]
	}
	return r.or(list), nil
}

// onlyItem tells whether e depends on the item of an iteration and on nothing else.
func (e *expr) onlyItem() bool {
	for _, o := range []operand{e.a, e.b} {
		if o.attr != nil && o.attr.side != ofItem {
			return false
		}
	}
	for _, s := range e.sub {
		if !s.onlyItem() {
			return false
		}
	}
	return e.op != exprFact && e.op != exprExists
}

// ground returns what is left of one ground: nothing when it never holds.
func (r *reader) ground(name string) *expr {
	if e := r.grounds[name]; e != nil {
		return e
	}
	return r.constant(exprFalse)
}

// counted reads "count(words, variable)".
func counted(ex *ast.Expr) (ast.Var, *ast.Term, bool) {
	terms, ok := ex.Terms.([]*ast.Term)
	if !ok || ex.Negated || len(ex.With) > 0 || len(terms) != 3 || terms[0].String() != "count" {
		return "", nil, false
	}
	v, ok := terms[2].Value.(ast.Var)
	return v, terms[1], ok
}

// assignment reads "variable = term".
func assignment(ex *ast.Expr) (ast.Var, *ast.Term, bool) {
	if ex.Negated || len(ex.With) > 0 || !ex.IsCall() || len(ex.Operands()) != 2 {
		return "", nil, false
	}
	if op := ex.Operator().String(); op != "eq" && op != "assign" {
		return "", nil, false
	}
	a, b := ex.Operand(0), ex.Operand(1)
	if v, ok := a.Value.(ast.Var); ok {
		return v, b, true
	}
	if v, ok := b.Value.(ast.Var); ok {
		return v, a, true
	}
	return "", nil, false
}

func (r *reader) and(list []*expr) *expr { return r.join(exprAnd, list) }
func (r *reader) or(list []*expr) *expr  { return r.join(exprOr, list) }

// join combines exprs, each once, and drops what changes nothing.
func (r *reader) join(op exprOp, list []*expr) *expr {
	neutral, decides := exprTrue, exprFalse
	if op == exprOr {
		neutral, decides = exprFalse, exprTrue
	}
	seen := map[*expr]bool{}
	var out []*expr
	for _, e := range list {
		switch {
		case e.op == decides:
			return e
		case e.op == neutral || seen[e]:
			continue
		}
		seen[e] = true
		out = append(out, e)
	}
	switch len(out) {
	case 0:
		return r.constant(neutral)
	case 1:
		return out[0]
	}
	key := fmt.Sprintf("%d", op)
	for _, e := range out {
		key += fmt.Sprintf("|%d", e.id)
	}
	return r.intern(key, func() *expr { return &expr{op: op, sub: out} })
}

func (r *reader) constant(op exprOp) *expr {
	return r.intern(fmt.Sprintf("%d", op), func() *expr { return &expr{op: op} })
}

func (r *reader) not(e *expr) *expr {
	switch e.op {
	case exprTrue:
		return r.constant(exprFalse)
	case exprFalse:
		return r.constant(exprTrue)
	}
	return r.intern(fmt.Sprintf("!%d", e.id), func() *expr { return &expr{op: exprNot, sub: []*expr{e}} })
}

func (r *reader) exists(over string, e *expr) *expr {
	return r.intern(fmt.Sprintf("in %s %d", over, e.id), func() *expr {
		return &expr{op: exprExists, over: over, sub: []*expr{e}, where: r.where()}
	})
}

// scope reads one expression. It notes the one iteration that the expression takes part in.
type scope struct {
	r      *reader
	alias  map[ast.Var]ast.Ref
	counts map[ast.Var]*ast.Term // what a variable is the number of
	item   string                // the variable of the iteration
	over   string
}

func (s *scope) expr(ex *ast.Expr) (*expr, error) {
	if len(ex.With) > 0 {
		return nil, s.r.fail("a with modifier on what is not known yet")
	}
	positive, err := s.positive(ex)
	if err != nil || !ex.Negated {
		return positive, err
	}
	return s.r.not(positive), nil
}

func (s *scope) positive(ex *ast.Expr) (*expr, error) {
	switch t := ex.Terms.(type) {
	case *ast.Term:
		return s.bare(t)
	case []*ast.Term:
		if len(t) != 3 {
			return nil, s.r.fail("a call of %s", ex.Operator())
		}
		return s.call(ex.Operator().String(), t[1], t[2])
	}
	return nil, s.r.fail("every over what is not known yet")
}

// bare reads an expression that is a term: a fact, a boolean attribute, a constant or a helper rule that remained.
func (s *scope) bare(t *ast.Term) (*expr, error) {
	switch v := t.Value.(type) {
	case ast.Boolean:
		if v {
			return s.r.constant(exprTrue), nil
		}
		return s.r.constant(exprFalse), nil
	case ast.Ref:
		name := v.String()
		if ground, ok := strings.CutPrefix(name, groundsName+"."); ok {
			return s.r.ground(ground), nil
		}
		if ground, ok := strings.CutPrefix(name, groundsName+"["); ok && ground[0] == '"' {
			return s.r.ground(strings.Trim(ground, `"]`)), nil
		}
		if fact, ok := strings.CutPrefix(name, "input.facts."); ok {
			bit, ok := s.r.facts[fact]
			if !ok {
				return nil, s.r.fail("the fact %s has a value and stands where a yes or no is expected", fact)
			}
			return s.r.intern(name, func() *expr { return &expr{op: exprFact, bit: bit} }), nil
		}
		if rules, ok := s.r.support[name]; ok {
			return s.helper(rules)
		}
		o, err := s.operand(t)
		if err != nil {
			return nil, err
		}
		if o.kind != kindBool || o.attr == nil {
			return nil, s.r.fail("%s is no condition", name)
		}
		return s.comparison(o, operand{kind: kindBool, yes: true}, "=")
	}
	return nil, s.r.fail("a term that is no condition")
}

// helper reads the rules that partial evaluation made for a negation.
func (s *scope) helper(rules []*ast.Rule) (*expr, error) {
	var list []*expr
	for _, rule := range rules {
		if rule.Default || rule.Else != nil || len(rule.Head.Args) > 0 || rule.Head.Key != nil ||
			rule.Head.Value != nil && !rule.Head.Value.Equal(ast.BooleanTerm(true)) {
			return nil, s.r.fail("a helper rule that is a set, or has a default, an else or a value")
		}
		at := s.r.at
		e, _, err := s.r.body(rule.Body, "")
		if err != nil {
			return nil, err
		}
		s.r.at = at
		list = append(list, e)
	}
	return s.r.or(list), nil
}

var signs = map[string]string{"eq": "=", "equal": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}

func (s *scope) call(op string, left, right *ast.Term) (*expr, error) {
	if sign, ok := signs[op]; ok {
		if e, ok, err := s.count(left, right, sign); ok || err != nil {
			return e, err
		}
		if e, ok, err := s.count(right, left, mirrored[sign]); ok || err != nil {
			return e, err
		}
		a, err := s.operand(left)
		if err != nil {
			return nil, err
		}
		b, err := s.operand(right)
		if err != nil {
			return nil, err
		}
		return s.comparison(a, b, sign)
	}
	if name, ok := left.Value.(ast.String); ok && op == "internal.member_2" && right.String() == groundsName {
		return s.r.ground(string(name)), nil
	}
	if op == "count" { // count(words, n): there are n
		e, _, err := s.count(ast.CallTerm(ast.RefTerm(ast.VarTerm("count")), left), right, "=")
		return e, err
	}
	a, err := s.operand(left)
	if err != nil {
		return nil, err
	}
	b, err := s.operand(right)
	if err != nil {
		return nil, err
	}
	switch {
	case op == "internal.member_2" && a.kind == kindString && b.kind == kindWords:
		return s.make(exprIn, a, b, ""), nil
	case op == "startswith" && a.kind == kindString && b.kind == kindString:
		return s.make(exprPrefix, a, b, ""), nil
	case op == "endswith" && a.kind == kindString && b.kind == kindString:
		return s.make(exprSuffix, a, b, ""), nil
	}
	return nil, s.r.fail("a call of %s on what is not known yet", op)
}

// count reads count(words) compared with a number.
func (s *scope) count(left, right *ast.Term, sign string) (*expr, bool, error) {
	var words *ast.Term
	switch v := left.Value.(type) {
	case ast.Call:
		if len(v) != 2 || v[0].String() != "count" {
			return nil, false, s.r.fail("a call of %s on what is not known yet", v[0])
		}
		words = v[1]
	case ast.Var:
		words = s.counts[v]
	}
	if words == nil {
		return nil, false, nil
	}
	a, err := s.operand(words)
	if err != nil {
		return nil, false, err
	}
	b, err := s.operand(right)
	if err != nil {
		return nil, false, err
	}
	if a.kind != kindWords || a.attr == nil || b.attr != nil || b.kind != kindInt {
		return nil, false, s.r.fail("a count of what is no list, or compared with what is no number")
	}
	return s.make(exprCount, a, b, sign), true, nil
}

func (s *scope) comparison(a, b operand, sign string) (*expr, error) {
	switch {
	case a.kind != b.kind || a.kind == kindWords:
		return nil, s.r.fail("a comparison of different kinds of values, or of lists")
	case a.attr == nil && b.attr == nil:
		return nil, s.r.fail("a comparison of constants")
	case a.kind == kindBool && sign != "=" && sign != "!=":
		return nil, s.r.fail("an order of yes and no")
	case a.attr == nil:
		a, b, sign = b, a, mirrored[sign]
	}
	return s.make(exprCmp, a, b, sign), nil
}

func (s *scope) make(op exprOp, a, b operand, sign string) *expr {
	return s.r.intern(fmt.Sprintf("%d %s %s %s", op, a.key(), sign, b.key()), func() *expr {
		return &expr{op: op, a: a, b: b, sign: sign, where: s.r.where()}
	})
}

func (o operand) key() string {
	if o.attr != nil {
		return o.attr.name
	}
	return fmt.Sprintf("%d:%q:%d:%t:%q", o.kind, o.str, o.num, o.yes, o.words)
}

// operand reads an attribute or a constant.
func (s *scope) operand(t *ast.Term) (operand, error) {
	switch v := t.Value.(type) {
	case ast.String:
		return operand{kind: kindString, str: string(v)}, nil
	case ast.Boolean:
		return operand{kind: kindBool, yes: bool(v)}, nil
	case ast.Number:
		n, err := json.Number(v).Int64()
		if err != nil {
			return operand{}, s.r.fail("a number that is no whole one")
		}
		return operand{kind: kindInt, num: n}, nil
	case *ast.Array:
		return s.words(v.Foreach)
	case ast.Set:
		return s.words(v.Foreach)
	case ast.Ref:
		return s.attribute(v)
	case ast.Var:
		if ref, ok := s.alias[v]; ok {
			return s.attribute(ref)
		}
		return operand{}, s.r.fail("a variable that is bound to nothing known")
	case ast.Call:
		return operand{}, s.r.fail("a call of %s on what is not known yet", v[0])
	}
	return operand{}, s.r.fail("a value of a kind that plans do not have")
}

func (s *scope) words(each func(func(*ast.Term))) (operand, error) {
	o := operand{kind: kindWords}
	ok := true
	each(func(t *ast.Term) {
		w, is := t.Value.(ast.String)
		ok = ok && is
		o.words = append(o.words, string(w))
	})
	if !ok {
		return o, s.r.fail("a list of other things than words")
	}
	return o, nil
}

// attribute reads a reference to an attribute, or to one of an item of an iteration.
func (s *scope) attribute(ref ast.Ref) (operand, error) {
	name, err := s.path(ref)
	if err != nil {
		return operand{}, err
	}
	a, ok := attrs[name]
	if !ok {
		return operand{}, s.r.fail("%s is not an attribute that controls may read", name)
	}
	return operand{attr: a, kind: a.kind}, nil
}

// path returns the name of what a reference leads to, with [] for an item.
func (s *scope) path(ref ast.Ref) (string, error) {
	for range 4 { // an alias may stand for a reference that begins with another one
		head, ok := ref[0].Value.(ast.Var)
		if !ok {
			break
		}
		to, ok := s.alias[head]
		if !ok {
			break
		}
		ref = append(to[:len(to):len(to)], ref[1:]...)
	}
	name := ref[0].Value.String()
	for i, t := range ref[1:] {
		switch v := t.Value.(type) {
		case ast.String:
			name += "." + string(v)
		case ast.Var:
			if _, ok := collections[name]; !ok {
				return "", s.r.fail("an iteration over %s", name)
			}
			if s.item != "" && s.item != string(v) {
				return "", s.r.fail("two iterations in one comparison")
			}
			s.item, s.over = string(v), name
			name += "[]"
		default:
			return "", s.r.fail("a reference with %v at place %d", t, i+1)
		}
	}
	return name, nil
}

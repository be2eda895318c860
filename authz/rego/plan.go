package rego

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/cond"
)

// What a plan is made of: the sets of a decision.
const (
	askMet = iota
	askGrounds
	askObligations
	askClasses
	askNames
)

// part is what of a policy is evaluated in part on its own: one rule of the controls or grounds, or a whole set whose
// members partial evaluation names. It is evaluated once for what it reads: a control that does not read the roles is not
// evaluated again for somebody with other roles.
type part struct {
	ask    int
	name   string // of the control or ground; "" for a set, whose query binds x to each member
	query  rego.PreparedPartialQuery
	action bool     // it reads the action
	typ    bool     // it reads the type of the record
	facts  []string // it reads these facts that have a value

	mu   sync.Mutex
	done map[[sha256.Size]byte][]outcome
}

// outcome is a member of a set, with what is left of its conditions.
type outcome struct {
	member
	expr *expr
}

// member is a member of one of the sets.
type member struct {
	ask   uint8
	name  string // control, ground, obligation, class or field
	level authz.Access
}

// plan answers every request of one action and type by subjects with the same valued facts.
type plan struct {
	fixed    []member // those that hold for all
	members  []member // by bit, those that do not
	tests    []*expr  // by bit
	checks   []check  // what of them is evaluated
	follow   []follow // what follows from that, in this order
	met      uint64   // which bits are controls and grounds
	required uint64   // the bits of required controls
	lacking  bool     // a required control never holds
	slow     error    // why OPA has to be asked; nil when it has not

	mu       sync.Mutex
	variants atomic.Pointer[[]variant]
}

// check is a test with its bit.
type check struct {
	test func(*call) bool
	bit  uint64
}

// follow says that a bit is set when one of others is.
type follow struct{ bit, of uint64 }

// variant is the decision that belongs to one outcome of all tests.
type variant struct {
	bits     uint64
	decision *authz.Decision
}

type planKey struct {
	action authz.Action
	typ    string
	group  *group
}

// place says where the plan may lie near its group.
func (k *planKey) place() *atomic.Pointer[named] {
	n := uint(len(k.action) + 5*len(k.typ))
	if k.action != "" {
		n += 3*uint(k.action[0]) + 17*uint(k.action[len(k.action)-1])
	}
	if k.typ != "" {
		n += 7*uint(k.typ[0]) + 29*uint(k.typ[len(k.typ)-1])
	}
	return &k.group.near[n%uint(len(k.group.near))]
}

// named is a plan with its key.
type named struct {
	key  planKey
	plan *plan
}

// plans keeps plans of one policy, and what they share.
type plans struct {
	parts    []*part // grounds before what may read them
	facts    map[string]uint8
	required []string
	revision string
	most     int
	pe       *sync.Mutex // see policy

	mu    sync.RWMutex
	all   map[planKey]*named
	built atomic.Uint64

	internMu sync.Mutex
	exprs    map[string]*expr
	last     uint64 // the id of the newest expr
	fields   map[string]*authz.Fields
	shared   map[[sha256.Size]byte]*plan // by what they say
}

// mostExprs bounds the exprs that are shared; beyond it sharing begins anew.
const mostExprs = 1 << 14

func (ps *plans) intern(key string, build func() *expr) *expr {
	ps.internMu.Lock()
	e := ps.exprs[key]
	ps.internMu.Unlock()
	if e != nil {
		return e
	}
	e = build().finish()
	ps.internMu.Lock()
	defer ps.internMu.Unlock()
	if old := ps.exprs[key]; old != nil {
		return old
	}
	if len(ps.exprs) >= mostExprs { // words of requests, such as purposes, can become parts of exprs
		ps.exprs = map[string]*expr{}
	}
	ps.last++
	e.id = ps.last
	ps.exprs[key] = e
	return e
}

// of returns the plan for a call whose facts are k.
func (ps *plans) of(ctx context.Context, c *call, k *known) (*plan, error) {
	key := planKey{c.req.Action, c.req.Resource.Type, k.group}
	near := key.place()
	if n := near.Load(); n != nil && n.key == key {
		return n.plan, nil
	}
	ps.mu.RLock()
	n := ps.all[key]
	ps.mu.RUnlock()
	if n != nil {
		near.Store(n)
		return n.plan, nil
	}
	ps.pe.Lock()
	p, err := ps.build(ctx, c.req.Action, c.req.Resource.Type, k.group.value)
	ps.pe.Unlock()
	if err != nil {
		return nil, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for old, n := range ps.all { // any one, so that nobody can choose which
		if len(ps.all) < ps.most {
			break
		}
		delete(ps.all, old)
		old.place().CompareAndSwap(n, nil)
	}
	n = &named{key, p}
	ps.all[key] = n
	near.Store(n)
	return p, nil
}

// build evaluates the policy as far as it goes. An error means that OPA could not.
func (ps *plans) build(ctx context.Context, action authz.Action, typ string, facts ast.Object) (*plan, error) {
	ps.built.Add(1)
	p := &plan{}
	found := map[member][]*expr{}
	grounds := map[string]*expr{}
	for _, part := range ps.parts {
		list, err := part.of(ctx, ps, action, typ, facts, grounds)
		var slow *notPlanned
		switch {
		case errors.As(err, &slow):
			p.slow = slow
			return p, nil
		case err != nil:
			return nil, err
		}
		for _, o := range list {
			found[o.member] = append(found[o.member], o.expr)
			if o.ask == askGrounds {
				r := &reader{intern: ps.intern}
				grounds[o.name] = r.or(found[o.member])
			}
		}
	}
	r := &reader{intern: ps.intern}
	holds := map[member]*expr{}
	for m, list := range found {
		switch e := r.or(list); e.op {
		case exprTrue:
			p.fixed = append(p.fixed, m)
		case exprFalse:
		default:
			holds[m] = e
			p.members = append(p.members, m)
		}
	}
	slices.SortFunc(p.members, compareMembers)
	if len(p.members) > 64 {
		p.slow = &notPlanned{what: fmt.Sprintf("%d controls, grounds, obligations and fields that depend on the request; a plan has 64", len(p.members))}
		return p, nil
	}
	for i, m := range p.members {
		bit := uint64(1) << i
		p.tests = append(p.tests, holds[m])
		if m.ask <= askGrounds {
			p.met |= bit
		}
		if m.ask == askMet && slices.Contains(ps.required, m.name) {
			p.required |= bit
		}
	}
	for _, control := range ps.required {
		m := member{ask: askMet, name: control}
		p.lacking = p.lacking || holds[m] == nil && !slices.Contains(p.fixed, m)
	}
	return ps.share(p), nil
}

// share returns the one copy of plans that say the same, as those of many types and roles do: it stays in the
// processor's caches.
func (ps *plans) share(p *plan) *plan {
	slices.SortFunc(p.fixed, compareMembers)
	var text strings.Builder
	fmt.Fprint(&text, p.lacking)
	for _, m := range p.fixed {
		fmt.Fprintf(&text, " %d %q %d", m.ask, m.name, m.level)
	}
	for i, m := range p.members {
		fmt.Fprintf(&text, " %d %q %d if %d", m.ask, m.name, m.level, p.tests[i].id)
	}
	key := sha256.Sum256([]byte(text.String()))
	ps.internMu.Lock()
	defer ps.internMu.Unlock()
	if old := ps.shared[key]; old != nil {
		return old
	}
	if len(ps.shared) >= ps.most {
		ps.shared = map[[sha256.Size]byte]*plan{}
	}
	p.order()
	ps.shared[key] = p
	return p
}

// order finds out which tests say what others say together, as that some ground holds: they are not evaluated.
func (p *plan) order() {
	first := map[*expr]uint64{}
	for i, t := range p.tests {
		if first[t] == 0 {
			first[t] = 1 << i
		}
	}
	for i, t := range p.tests {
		bit := uint64(1) << i
		of := first[t]
		if of == bit && t.op == exprOr {
			of = 0
			for _, s := range t.sub {
				if first[s] == 0 || s.op == exprOr {
					of = bit
					break
				}
				of |= first[s]
			}
		}
		if of == bit || of&bit != 0 {
			p.checks = append(p.checks, check{t.test, bit})
		} else {
			p.follow = append(p.follow, follow{bit, of})
		}
	}
}

func compareMembers(a, b member) int {
	return cmp.Or(cmp.Compare(a.ask, b.ask), strings.Compare(a.name, b.name), cmp.Compare(a.level, b.level))
}

var accessWords = map[string]authz.Access{"hidden": authz.Hidden, "masked": authz.Masked, "open": authz.Open}

// of returns the outcomes of a part.
func (x *part) of(ctx context.Context, ps *plans, action authz.Action, typ string, facts ast.Object, grounds map[string]*expr) ([]outcome, error) {
	var key strings.Builder
	if x.action {
		fmt.Fprintf(&key, "%d:%s", len(action), action)
	}
	if x.typ {
		fmt.Fprintf(&key, "|%d:%s", len(typ), typ)
	}
	for _, name := range x.facts {
		if v := facts.Get(ast.StringTerm(name)); v != nil {
			fmt.Fprintf(&key, "|%s=%v", name, v)
		}
	}
	// Who reads the grounds reads what is left of them.
	r := &reader{facts: ps.facts, intern: ps.intern, support: map[string][]*ast.Rule{}, grounds: grounds}
	if x.ask != askGrounds {
		names := make([]string, 0, len(grounds))
		for name := range grounds {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Fprintf(&key, "|%d", grounds[name].id)
		}
	}
	digest := sha256.Sum256([]byte(key.String())) // shorter than the facts
	x.mu.Lock()
	list, ok := x.done[digest]
	x.mu.Unlock()
	if ok {
		return list, nil
	}
	pq, err := x.query.Partial(ctx, rego.EvalParsedInput(question(action, typ, facts)))
	if err != nil {
		return nil, fmt.Errorf("authz/rego: no plan: %w", err)
	}
	for _, m := range pq.Support {
		for _, rule := range m.Rules {
			name := m.Package.Path.String() + "." + string(rule.Head.Name)
			r.support[name] = append(r.support[name], rule)
		}
	}
	for _, q := range pq.Queries {
		e, bound, err := r.body(q, "x")
		if err != nil {
			return nil, err
		}
		m := member{ask: uint8(x.ask), name: x.name}
		if x.name == "" {
			if m, err = memberOf(x.ask, bound); err != nil {
				return nil, err
			}
		}
		list = append(list, outcome{m, e})
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done == nil || len(x.done) >= ps.most {
		x.done = map[[sha256.Size]byte][]outcome{}
	}
	x.done[digest] = list
	return list, nil
}

// memberOf reads the name of a member: a word, or a pair of a word and a level.
func memberOf(ask int, key *ast.Term) (member, error) {
	m := member{ask: uint8(ask)}
	bad := &notPlanned{what: "a member of a set whose name is not known"}
	if key == nil {
		return m, bad
	}
	if ask < askClasses {
		w, ok := key.Value.(ast.String)
		if !ok {
			return m, bad
		}
		m.name = string(w)
		return m, nil
	}
	pair, ok := key.Value.(*ast.Array)
	if !ok || pair.Len() != 2 {
		return m, bad
	}
	name, ok1 := pair.Elem(0).Value.(ast.String)
	word, ok2 := pair.Elem(1).Value.(ast.String)
	level, ok3 := accessWords[string(word)]
	if !ok1 || !ok2 || !ok3 {
		return m, bad
	}
	m.name, m.level = string(name), level
	return m, nil
}

// decide answers a call.
func (p *plan) decide(ps *plans, c *call) *authz.Decision {
	var outcome uint64
	for i := range p.checks {
		if p.checks[i].test(c) {
			outcome |= p.checks[i].bit
		}
	}
	for _, f := range p.follow {
		if outcome&f.of != 0 {
			outcome |= f.bit
		}
	}
	if p.lacking || outcome&p.required != p.required {
		outcome &= p.met // nothing else of a denial counts
	}
	if list := p.variants.Load(); list != nil {
		for i := range *list {
			if v := &(*list)[i]; v.bits == outcome {
				return v.decision
			}
		}
	}
	return p.learn(ps, outcome)
}

// mostVariants bounds the decisions that a plan keeps; further ones are made each time.
const mostVariants = 32

func (p *plan) learn(ps *plans, outcome uint64) *authz.Decision {
	d := p.decision(ps, outcome)
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []variant
	if old := p.variants.Load(); old != nil {
		list = *old
	}
	if len(list) < mostVariants {
		list = append(list[:len(list):len(list)], variant{outcome, d})
		p.variants.Store(&list)
	}
	return d
}

// decision writes out what an outcome means.
func (p *plan) decision(ps *plans, outcome uint64) *authz.Decision {
	a := answer{required: ps.required, revision: ps.revision}
	for _, m := range p.fixed {
		a.add(m)
	}
	for left := outcome; left != 0; left &= left - 1 {
		a.add(p.members[bits.TrailingZeros64(left)])
	}
	d := a.decision()
	d.Fields = ps.internFields(d.Fields)
	return d
}

// internFields returns the one copy of equal field policies.
func (ps *plans) internFields(f authz.Fields) authz.Fields {
	if f.ByClass == nil {
		return f
	}
	key := fmt.Sprint(f.ByClass, f.ByName) // maps print in the order of their keys
	ps.internMu.Lock()
	defer ps.internMu.Unlock()
	if old := ps.fields[key]; old != nil {
		return *old
	}
	ps.fields[key] = &f
	return f
}

// answer gathers the members of the sets that hold, and makes the decision: the same for plans and for OPA.
type answer struct {
	required []string
	revision string
	met      []string
	controls []string // met and grounds
	needs    []authz.Obligation
	fields   authz.Fields
}

func (a *answer) add(m member) {
	put := func(into *map[string]authz.Access) {
		if *into == nil {
			*into = map[string]authz.Access{}
		}
		(*into)[m.name] = max((*into)[m.name], m.level)
	}
	switch m.ask {
	case askMet:
		a.met = append(a.met, m.name)
		a.controls = append(a.controls, m.name)
	case askGrounds:
		a.controls = append(a.controls, m.name)
	case askObligations:
		a.needs = append(a.needs, authz.Obligation(m.name))
	case askClasses:
		put(&a.fields.ByClass)
	case askNames:
		put(&a.fields.ByName)
	}
}

func (a *answer) decision() *authz.Decision {
	d := &authz.Decision{Revision: a.revision}
	for _, control := range a.required {
		if !slices.Contains(a.met, control) {
			d.Controls = append(d.Controls, control)
		}
	}
	if len(d.Controls) > 0 || len(a.required) == 0 {
		sort.Strings(d.Controls)
		return d
	}
	d.Allowed = true
	d.Controls = a.controls
	d.Obligations = a.needs
	d.Fields = a.fields
	if d.Fields.ByClass == nil {
		d.Fields.ByClass = map[string]authz.Access{}
	}
	if d.Fields.ByName == nil {
		d.Fields.ByName = map[string]authz.Access{}
	}
	sort.Strings(d.Controls)
	slices.Sort(d.Obligations)
	return d
}

// filter returns what is left of the required controls when only the record is open.
func (p *plan) filter(c *call) (authz.Filter, error) {
	if p.slow != nil {
		return authz.Filter{}, fmt.Errorf("authz/rego: no filter: %w", p.slow)
	}
	if p.lacking {
		return authz.Filter{}, nil
	}
	var all []cond.Cond
	for i, t := range p.tests {
		if p.required&(1<<i) == 0 {
			continue
		}
		x, err := t.bind(c)
		if err != nil {
			return authz.Filter{}, fmt.Errorf("authz/rego: no filter: %s: %w", p.members[i].name, err)
		}
		all = append(all, x)
	}
	return authz.When(cond.And(all...)), nil
}

// Package rego evaluates Rego policies with OPA and answers as an authz.Authorizer. It is the only
// importer of OPA.
//
// # Policy
//
// A policy is a folder: Rego modules below crm/, one package per control in the folder of its path,
// each beside its _test.rego, and data.json, whose settings hold roles, grants, field rules and
// obligations. [Embedded] is the shipped one. A policy is refused with a [LoadError] that names file, line and rule
// when it does not compile in strict mode, reads what a request does not have, calls a builtin that reaches outside
// (http.send, time.now_ns and the like), fails its own tests, has settings with unknown words, or has a control that cannot
// become a list's filter.
//
// # Plans
//
// The package crm.facts reduces a subject and the circumstances to named facts. For each action, type and set of facts that have a
// value, the controls are evaluated once with everything else unknown; what is left is compiled to
// functions. That plan answers checks, filters lists, says why, and says who may, in a fraction of a microsecond; ids, records,
// times and addresses never make a new one. What a plan does not cover is asked of OPA each time, never allowed. A sample of
// decisions is made again by OPA; when one differs, the alarm is called and plans are not used any more.
//
// docs/policy.md is for those who read and change policies.
package rego

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/crmguard/crmguard/authz"
)

//go:embed policy
var embedded embed.FS

//go:embed policy/schemas/input.json
var inputSchema []byte

// Embedded returns the shipped policy.
func Embedded() fs.FS {
	sub, err := fs.Sub(embedded, "policy")
	if err != nil {
		panic("rego: the embedded policy is missing") // go:embed guarantees the folder
	}
	return sub
}

// Options adjust New. The zero value uses the shipped policy.
type Options struct {
	Policy       fs.FS               // nil: Embedded(), whose own tests have passed when this module was tested
	Sample       int                 // one of so many decisions is made again by OPA; 0: 256, as long as that takes at most a hundredth of one processor; negative: none
	OnDifference func(authz.Request) // called when OPA decides otherwise than a plan; nil: nobody hears it, and plans are still given up
	Plans        int                 // plans, and subjects' facts, that are kept at most; 0: 4,096
}

// Engine answers by a loaded policy, which Load replaces while others ask. It is safe for concurrent use.
type Engine struct {
	opts    Options
	current atomic.Pointer[policy]
	loading sync.Mutex
	turn    atomic.Uint64
	busy    atomic.Bool   // a sample is being checked
	spare   time.Duration // how many times as long as a check took no other one begins
	calls   sync.Pool
}

var _ authz.Authorizer = (*Engine)(nil)

// policy is one loaded policy. It never changes, but for what it has learned.
type policy struct {
	src      *source
	compiler *ast.Compiler
	whole    rego.PreparedEvalQuery
	facts    factCache
	plans    plans
	required []string
	distrust atomic.Bool // a plan was wrong
	// OPA's partial evaluation writes into the terms of the policy, its data and its input, so one runs at a time, on
	// copies of its own, and what it leaves is read before the next one.
	pe sync.Mutex
}

// New loads a policy. Errors are *LoadError.
func New(ctx context.Context, opts *Options) (*Engine, error) {
	e := &Engine{}
	if opts != nil {
		e.opts = *opts
	}
	if e.opts.Sample == 0 {
		e.opts.Sample, e.spare = 256, 99
	}
	if e.opts.Plans <= 0 {
		e.opts.Plans = 4096
	}
	e.calls.New = func() any { return new(call) }
	return e, e.Load(ctx, e.opts.Policy)
}

// Load replaces the policy, nil for the shipped one. On an error, a *LoadError, the one that was loaded before goes on.
func (e *Engine) Load(ctx context.Context, files fs.FS) error {
	e.loading.Lock()
	defer e.loading.Unlock()
	p, err := load(ctx, files, e.opts.Plans)
	if err != nil {
		return err
	}
	e.current.Store(p)
	return nil
}

func load(ctx context.Context, files fs.FS, most int) (*policy, error) {
	shipped := files == nil
	if shipped {
		files = Embedded()
	}
	src, err := readSource(files)
	if err != nil {
		return nil, err
	}
	p := &policy{src: src}
	if p.compiler, err = src.compile(); err != nil {
		return nil, err
	}
	if err := src.checkReads(); err != nil {
		return nil, err
	}
	bits, valued, err := factRules(p.compiler)
	if err != nil {
		return nil, err
	}
	planner, err := src.planner(bits, valued)
	if err != nil {
		return nil, err
	}
	factsCompiler, err := src.compile() // partial evaluation writes into what it evaluates
	if err != nil {
		return nil, err
	}
	newStore := func() storage.Store {
		return inmem.NewFromObjectWithOpts(src.data, inmem.OptReturnASTValuesOnRead(true))
	}
	if err := p.prepare(ctx, newStore, planner, factsCompiler, bits, valued, most); err != nil {
		return nil, err
	}
	p.facts.bits, p.facts.seed, p.facts.most = bits, maphash.MakeSeed(), most
	if shipped {
		return p, nil
	}
	if err := p.lint(ctx); err != nil {
		return nil, err
	}
	if err := src.runTests(ctx); err != nil {
		return nil, err
	}
	return p, p.agree(ctx)
}

// prepare readies all queries.
func (p *policy) prepare(ctx context.Context, newStore func() storage.Store, planner, factsCompiler *ast.Compiler, bits map[string]uint8, valued []string, most int) error {
	store := newStore()
	ready := func(c *ast.Compiler, query string, more ...func(*rego.Rego)) *rego.Rego {
		return rego.New(append([]func(*rego.Rego){
			rego.Compiler(c), rego.Store(store), rego.StrictBuiltinErrors(true), rego.ParsedQuery(ast.MustParseBody(query)),
		}, more...)...)
	}
	var err error
	if p.whole, err = ready(p.compiler, "x = data.crm.authz.decision").PrepareForEval(ctx); err != nil {
		return refuse("%v", err)
	}
	p.facts.pe, p.plans.pe = &p.pe, &p.pe
	store = newStore()
	nothing := rego.ParsedUnknowns([]*ast.Term{ast.MustParseTerm("input.nothing")})
	for _, name := range slices.Concat(valued, slices.Sorted(maps.Keys(bits))) {
		x := &fact{name: name}
		if x.reads, err = readsOf(p.compiler, name); err != nil {
			return err
		}
		if x.query, err = ready(factsCompiler, "x = data.crm.facts."+name, nothing).PrepareForPartial(ctx); err != nil {
			return refuse("%v", err)
		}
		p.facts.list, p.facts.reads = append(p.facts.list, x), p.facts.reads|x.reads
	}
	if err := p.parts(ctx, newStore(), planner, bits); err != nil {
		return err
	}
	rs, err := ready(p.compiler, "x = data.crm.authz.required").Eval(ctx)
	if err != nil {
		return refuse("crm.authz.required: %v", err)
	}
	if len(rs) == 1 {
		p.required, _ = words(rs[0].Bindings["x"])
	}
	if len(p.required) == 0 {
		return refuse("crm.authz.required names no controls")
	}
	p.plans.facts, p.plans.required, p.plans.revision, p.plans.most = bits, p.required, p.src.revision, most
	p.plans.all, p.plans.shared = map[planKey]*named{}, map[[sha256.Size]byte]*plan{}
	p.plans.exprs, p.plans.fields = map[string]*expr{}, map[string]*authz.Fields{}
	return nil
}

// parts readies what plans are made of.
func (p *policy) parts(ctx context.Context, store storage.Store, planner *ast.Compiler, bits map[string]uint8) error {
	open := []*ast.Term{ast.MustParseTerm("input.subject"), ast.MustParseTerm("input.environment")}
	for name := range attrs {
		if ref := ast.MustParseTerm(name[:len(name)-len(suffixOf(name))]); ref.Value.(ast.Ref).HasPrefix(ast.MustParseRef("input.resource")) {
			open = append(open, ref)
		}
	}
	for fact := range bits {
		open = append(open, ast.MustParseTerm("input.facts."+fact))
	}
	add := func(ask int, name string, body ast.Body) error {
		x := &part{ask: ask, name: name}
		unknown := open
		if ask != askGrounds {
			unknown = append(open[:len(open):len(open)], ast.MustParseTerm(groundsName))
		}
		var err error
		x.query, err = rego.New(rego.Compiler(planner), rego.Store(store), rego.StrictBuiltinErrors(true), rego.ParsedQuery(body),
			rego.ParsedUnknowns(unknown)).PrepareForPartial(ctx)
		if err != nil {
			return refuse("%v", err)
		}
		refs, err := dependencies.Base(planner, body)
		if err != nil {
			return refuse("%v", err)
		}
		for _, ref := range refs {
			s := ref.String()
			if fact, ok := strings.CutPrefix(s, "input.facts."); ok {
				fact, _, _ = strings.Cut(fact, "[")
				fact, _, _ = strings.Cut(fact, ".")
				if _, yes := bits[fact]; !yes && !slices.Contains(x.facts, fact) {
					x.facts = append(x.facts, fact)
				}
			}
			x.action = x.action || s == "input.action"
			x.typ = x.typ || strings.HasPrefix(s, "input.resource.type") || s == "input.resource" || s == "input"
		}
		sort.Strings(x.facts)
		p.plans.parts = append(p.plans.parts, x)
		return nil
	}
	for _, set := range []struct {
		name string
		ask  int
	}{{"grounds", askGrounds}, {"met", askMet}} {
		for _, m := range planner.Modules {
			if m.Package.Path.String() != "data.crm.authz" {
				continue
			}
			for _, r := range m.Rules {
				if string(r.Head.Name) != set.name {
					continue
				}
				var code ast.String
				if r.Head.Key != nil {
					code, _ = r.Head.Key.Value.(ast.String)
				}
				if code == "" {
					return refuse("%s: the members of %s are named by constants", r.Location, set.name)
				}
				if err := add(set.ask, string(code), r.Body); err != nil {
					return err
				}
			}
		}
	}
	for _, set := range []struct {
		query string
		ask   int
	}{
		{"data.crm.obligations.needed[x]", askObligations},
		{"data.crm.fields.by_class[x]", askClasses}, {"data.crm.fields.by_name[x]", askNames},
	} {
		if err := add(set.ask, "", ast.MustParseBody(set.query)); err != nil {
			return err
		}
	}
	return nil
}

// suffixOf returns the [] of an item and what follows.
func suffixOf(name string) string {
	for i := range name {
		if name[i] == '[' {
			return name[i:]
		}
	}
	return ""
}

// Revision returns the digest of modules, data and input schema, in hex. Decisions carry it.
func (e *Engine) Revision() string { return e.current.Load().src.revision }

// Planned returns how many plans have been made since the policy was loaded. It grows when somebody comes with roles, a
// type or an action that are new together, never with records, times and addresses.
func (e *Engine) Planned() uint64 { return e.current.Load().plans.built.Load() }

// begin readies a call, to be put back. What it was stays in it until the next one: clearing costs as much as copying.
func (e *Engine) begin(r *authz.Request) *call {
	c := e.calls.Get().(*call)
	c.req = *r
	c.share, c.delegation, c.emergency, c.word = nil, nil, nil, ""
	c.time, c.timed = 0, !r.Environment.Time.IsZero()
	if c.timed {
		c.time = nanos(r.Environment.Time)
	}
	return c
}

// Decide answers one request. An error means that no decision was reached. The answer may be shared with
// other callers, who must not change what it refers to.
func (e *Engine) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	p := e.current.Load()
	if p.distrust.Load() {
		return p.evaluate(ctx, &r)
	}
	c := e.begin(&r)
	defer e.calls.Put(c)
	plan, err := p.plan(ctx, c)
	if err != nil {
		return authz.Decision{}, err
	}
	if plan.slow != nil {
		return p.evaluate(ctx, &c.req)
	}
	d := plan.decide(&p.plans, c)
	if n := e.opts.Sample; n > 0 && e.turn.Add(1)%uint64(n) == 0 && e.busy.CompareAndSwap(false, true) {
		go e.check(p, c.req, *d)
	}
	return *d, nil
}

// plan returns the plan for a call, whose facts it notes.
func (p *policy) plan(ctx context.Context, c *call) (*plan, error) {
	k, err := p.facts.of(ctx, c)
	if err != nil {
		return nil, err
	}
	c.bits = k.bits
	return p.plans.of(ctx, c, k)
}

// check makes a decision again.
func (e *Engine) check(p *policy, r authz.Request, planned authz.Decision) {
	started := time.Now()
	defer func() {
		if e.spare == 0 {
			e.busy.Store(false)
			return
		}
		time.AfterFunc(e.spare*time.Since(started), func() { e.busy.Store(false) })
	}()
	d, err := p.evaluate(context.Background(), &r)
	if err == nil && same(d, planned) {
		return
	}
	p.distrust.Store(true)
	if e.opts.OnDifference != nil {
		e.opts.OnDifference(r)
	}
}

func same(a, b authz.Decision) bool {
	return a.Allowed == b.Allowed && slices.Equal(a.Controls, b.Controls) && slices.Equal(a.Obligations, b.Obligations) &&
		reflect.DeepEqual(a.Fields, b.Fields)
}

// Filter returns which records of r.Resource.Type the subject may act on.
func (e *Engine) Filter(ctx context.Context, r authz.Request) (authz.Filter, error) {
	p := e.current.Load()
	if p.distrust.Load() {
		return authz.Filter{}, errors.New("authz/rego: no filter: OPA decided otherwise than a plan")
	}
	c := e.begin(&r)
	defer e.calls.Put(c)
	plan, err := p.plan(ctx, c)
	if err != nil {
		return authz.Filter{}, err
	}
	return plan.filter(c)
}

// Evaluate answers like Decide, by OPA's evaluator and no plan: for tests and those who want to compare.
func (e *Engine) Evaluate(ctx context.Context, r authz.Request) (authz.Decision, error) {
	return e.current.Load().evaluate(ctx, &r)
}

func (p *policy) evaluate(ctx context.Context, r *authz.Request) (authz.Decision, error) {
	rs, err := p.whole.Eval(ctx, rego.EvalParsedInput(input(r)), rego.EvalMetrics(metrics.NoOp()))
	if err != nil {
		return authz.Decision{}, fmt.Errorf("authz/rego: no decision: %w", err)
	}
	if len(rs) != 1 {
		return authz.Decision{}, errors.New("authz/rego: no decision: the policy gives none")
	}
	bad := errors.New("authz/rego: no decision: the policy's answer has another form")
	m, ok := rs[0].Bindings["x"].(map[string]any)
	if !ok {
		return authz.Decision{}, bad
	}
	a := answer{required: p.required, revision: p.src.revision}
	for ask, name := range []string{askMet: "met", askGrounds: "grounds", askObligations: "obligations"} {
		list, ok := words(m[name])
		if !ok {
			return authz.Decision{}, bad
		}
		for _, w := range list {
			a.add(member{ask: uint8(ask), name: w})
		}
	}
	for ask, name := range map[int]string{askClasses: "by_class", askNames: "by_name"} {
		pairs, ok := m[name].([]any)
		if !ok {
			return authz.Decision{}, bad
		}
		for _, pair := range pairs {
			list, ok := words(pair)
			if !ok || len(list) != 2 {
				return authz.Decision{}, bad
			}
			level, ok := accessWords[list[1]]
			if !ok {
				return authz.Decision{}, bad
			}
			a.add(member{ask: uint8(ask), name: list[0], level: level})
		}
	}
	return *a.decision(), nil
}

// words reads a list of strings.
func words(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	out := make([]string, len(list))
	for i, a := range list {
		if out[i], ok = a.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

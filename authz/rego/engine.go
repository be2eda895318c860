// Package rego evaluates Rego policies with OPA and answers as an authz.Authorizer. It is the only
// importer of OPA.
//
// # Policy
//
// A policy is a folder: Rego modules below crm/, one package per control in the folder of its path,
// each beside its _test.rego; data.json, whose settings hold roles, grants, field rules and
// obligations; schemas/input.json. [Embedded] is the shipped one. [New] refuses a policy that does not
// compile in strict mode, reads what the input schema does not have, calls a builtin that reaches
// outside (http.send, time.now_ns and the like), or whose settings name an unknown word.
//
// # Lists
//
// A filter is the policy evaluated in part, with the record's owner, team, state and id unknown. What
// remains is turned into an authz.Filter; a remainder that is not understood is an error, never a
// filter that admits.
package rego

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/crmguard/crmguard/authz"
)

//go:embed policy
var embedded embed.FS

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
	Policy fs.FS // nil: Embedded()
}

// Engine is a loaded policy. It never changes and is safe for concurrent use.
type Engine struct {
	decision rego.PreparedEvalQuery
	filter   rego.PreparedPartialQuery
	store    storage.Store
	revision string

	memorable bool // decisions and filters may be kept
	decisions memo[authz.Decision]
	filters   memo[authz.Filter]
}

var _ authz.Authorizer = (*Engine)(nil)

// LoadError says why a policy was refused. Its text names files, lines and rules.
type LoadError struct{ Reason string }

// Error returns the reason.
func (e *LoadError) Error() string { return "authz/rego: policy refused: " + e.Reason }

func refuse(format string, args ...any) error {
	return &LoadError{Reason: fmt.Sprintf(format, args...)}
}

// New loads a policy. Errors are *LoadError.
func New(ctx context.Context, opts *Options) (*Engine, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Policy == nil {
		o.Policy = Embedded()
	}
	src, err := readSource(o.Policy)
	if err != nil {
		return nil, err
	}
	e := &Engine{store: inmem.NewFromObjectWithOpts(src.data, inmem.OptReturnASTValuesOnRead(true)), revision: src.revision}
	compiler, err := src.compile()
	if err != nil {
		return nil, err
	}
	e.memorable = memorable(compiler)
	base := []func(*rego.Rego){
		rego.Compiler(compiler),
		rego.Store(e.store),
		rego.StrictBuiltinErrors(true),
	}
	e.decision, err = rego.New(append(slices.Clone(base),
		rego.ParsedQuery(ast.MustParseBody("decision = data.crm.authz.decision")))...).PrepareForEval(ctx)
	if err != nil {
		return nil, refuse("%v", err)
	}
	e.filter, err = rego.New(append(slices.Clone(base),
		rego.ParsedQuery(ast.MustParseBody("data.crm.authz.permitted")),
		rego.ParsedUnknowns(unknowns()))...).PrepareForPartial(ctx)
	if err != nil {
		return nil, refuse("%v", err)
	}
	return e, nil
}

// Revision returns the digest of modules, schemas and data, in hex. Decisions carry it.
func (e *Engine) Revision() string { return e.revision }

// source is a policy as read.
type source struct {
	modules  map[string]*ast.Module // without tests
	data     map[string]any
	input    any // JSON schema
	revision string
}

func readSource(policy fs.FS) (*source, error) {
	s := &source{modules: map[string]*ast.Module{}}
	digest := sha256.New()
	err := fs.WalkDir(policy, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasSuffix(name, "_test.rego") {
			return nil
		}
		text, err := fs.ReadFile(policy, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(digest, "%d:%s%d:", len(name), name, len(text))
		digest.Write(text)
		switch {
		case strings.HasSuffix(name, ".rego"):
			// Only a module parsed with its annotations is checked against the schemas.
			m, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{
				ProcessAnnotation: true, RegoVersion: ast.RegoV1,
			})
			if err != nil {
				return refuse("%v", err)
			}
			if want := "data." + strings.ReplaceAll(path.Dir(name), "/", "."); m.Package.Path.String() != want {
				return refuse("%s: package is not that of its folder", name)
			}
			s.modules[name] = m
		case name == "data.json":
			if err := json.Unmarshal(text, &s.data); err != nil {
				return refuse("data.json: %v", err)
			}
			return checkSettings(text)
		case name == "schemas/input.json":
			if err := json.Unmarshal(text, &s.input); err != nil {
				return refuse("schemas/input.json: %v", err)
			}
		default:
			return refuse("%s: not a part of a policy", name)
		}
		return nil
	})
	var le *LoadError
	switch {
	case errors.As(err, &le):
		return nil, err
	case err != nil:
		return nil, refuse("%v", err)
	case len(s.modules) == 0:
		return nil, refuse("no modules")
	case s.data == nil:
		return nil, refuse("data.json is missing")
	case s.input == nil:
		return nil, refuse("schemas/input.json is missing")
	}
	s.revision = hex.EncodeToString(digest.Sum(nil))
	return s, nil
}

// outside are the builtins that answer differently at another time or place, or reach out of the
// process; without them a decision is a function of its input and can be replayed.
var outside = []string{
	"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "time.now_ns", "trace",
	"uuid.rfc4122", "rego.parse_module", "providers.aws.sign_req", "io.jwt.decode_verify", "print",
}

func capabilities() *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		return b.Nondeterministic || slices.Contains(outside, b.Name)
	})
	caps.AllowNet = []string{}
	return caps
}

func (s *source) compile() (*ast.Compiler, error) {
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.MustParseRef("schema.input"), s.input)
	for name, m := range s.modules {
		if !annotated(m) {
			return nil, refuse("%s: the package has no schemas annotation for input", name)
		}
	}
	c := ast.NewCompiler().
		WithStrict(true).
		WithCapabilities(capabilities()).
		WithSchemas(schemas).
		WithUseTypeCheckAnnotations(true)
	c.Compile(s.modules)
	if c.Failed() {
		return nil, refuse("%v", c.Errors)
	}
	if len(c.GetRulesExact(ast.MustParseRef("data.crm.authz.permitted"))) == 0 ||
		len(c.GetRulesExact(ast.MustParseRef("data.crm.authz.decision"))) == 0 {
		return nil, refuse("crm/authz defines no permitted or no decision")
	}
	return c, nil
}

// annotated tells whether the package says which schema its input has; without it a misspelt
// attribute would compile.
func annotated(m *ast.Module) bool {
	for _, a := range m.Annotations {
		if a.Scope != "package" {
			continue
		}
		for _, sch := range a.Schemas {
			if sch.Path.String() == "input" {
				return true
			}
		}
	}
	return false
}

// Decide answers one request. An error means that no decision was reached. The answer may be shared with
// other callers, who must not change it.
func (e *Engine) Decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	if !e.memorable {
		return e.decide(ctx, r)
	}
	q := ask(r, true)
	if d, ok := e.decisions.get(q); ok {
		return d, nil
	}
	d, err := e.decide(ctx, r)
	if err == nil {
		e.decisions.put(q, d)
	}
	return d, err
}

func (e *Engine) decide(ctx context.Context, r authz.Request) (authz.Decision, error) {
	rs, err := e.decision.Eval(ctx, rego.EvalParsedInput(input(r, true)),
		rego.EvalMetrics(metrics.NoOp()))
	if err != nil {
		return authz.Decision{}, fmt.Errorf("authz/rego: no decision: %w", err)
	}
	if len(rs) != 1 {
		return authz.Decision{}, errors.New("authz/rego: no decision: the policy gives none")
	}
	return e.read(rs[0].Bindings["decision"])
}

// read turns the policy's answer into a Decision; anything unexpected in it is an error.
func (e *Engine) read(v any) (authz.Decision, error) {
	bad := errors.New("authz/rego: no decision: the policy's answer has another form")
	m, ok := v.(map[string]any)
	if !ok {
		return authz.Decision{}, bad
	}
	allowed, ok := m["allowed"].(bool)
	if !ok {
		return authz.Decision{}, bad
	}
	met, ok1 := words(m["met"])
	failed, ok2 := words(m["failed"])
	needs, ok3 := words(m["obligations"])
	if !ok1 || !ok2 || !ok3 || allowed && len(failed) > 0 {
		return authz.Decision{}, bad
	}
	d := authz.Decision{Allowed: allowed, Revision: e.revision}
	if !allowed {
		d.Controls = failed
		return d, nil
	}
	d.Controls = met
	for _, n := range needs {
		d.Obligations = append(d.Obligations, authz.Obligation(n))
	}
	fields, _ := m["fields"].(map[string]any)
	if d.Fields.ByClass, ok = levels(fields["by_class"]); !ok {
		return authz.Decision{}, bad
	}
	if d.Fields.ByName, ok = levels(fields["by_name"]); !ok {
		return authz.Decision{}, bad
	}
	return d, nil
}

// words reads a set of strings, which OPA gives as a list, sorted.
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
	sort.Strings(out)
	return out, true
}

// levels reads an object of names and levels.
func levels(v any) (map[string]authz.Access, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	out := make(map[string]authz.Access, len(m))
	for name, a := range m {
		n, ok := a.(json.Number)
		if !ok {
			return nil, false
		}
		switch n.String() {
		case "0":
			out[name] = authz.Hidden
		case "1":
			out[name] = authz.Masked
		case "2":
			out[name] = authz.Open
		default:
			return nil, false
		}
	}
	return out, true
}

// input writes a request as the term that the schema describes. Without the record its attributes
// are left out, because a list knows its type and tenant only.
func input(r authz.Request, record bool) ast.Value {
	str := func(k, v string) [2]*ast.Term { return [2]*ast.Term{ast.StringTerm(k), ast.StringTerm(v)} }
	roles := make([]*ast.Term, len(r.Subject.Roles))
	for i, role := range r.Subject.Roles {
		roles[i] = ast.StringTerm(role)
	}
	subject := ast.NewObject(
		str("id", r.Subject.ID), str("tenant", r.Subject.Tenant), str("team", r.Subject.Team),
		str("session", r.Subject.Session),
		[2]*ast.Term{ast.StringTerm("roles"), ast.ArrayTerm(roles...)},
		[2]*ast.Term{ast.StringTerm("active"), ast.BooleanTerm(r.Subject.Active)},
	)
	resource := ast.NewObject(str("tenant", r.Resource.Tenant), str("type", r.Resource.Type))
	if record {
		for _, a := range [][2]string{
			{"id", r.Resource.ID}, {"owner", r.Resource.Owner}, {"team", r.Resource.Team}, {"state", r.Resource.State},
		} {
			p := str(a[0], a[1])
			resource.Insert(p[0], p[1])
		}
	}
	env := ast.NewObject(str("purpose", r.Environment.Purpose))
	if r.Environment.Addr.IsValid() {
		p := str("address", r.Environment.Addr.String())
		env.Insert(p[0], p[1])
	}
	if !r.Environment.Time.IsZero() {
		env.Insert(ast.StringTerm("time"), ast.NumberTerm(json.Number(fmt.Sprint(r.Environment.Time.UnixNano()))))
	}
	return ast.NewObject(
		[2]*ast.Term{ast.StringTerm("subject"), ast.NewTerm(subject)},
		[2]*ast.Term{ast.StringTerm("action"), ast.StringTerm(string(r.Action))},
		[2]*ast.Term{ast.StringTerm("resource"), ast.NewTerm(resource)},
		[2]*ast.Term{ast.StringTerm("environment"), ast.NewTerm(env)},
	)
}

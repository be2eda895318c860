package rego

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/tester"
)

// LoadError says why a policy was refused. Its text names files, lines and rules.
type LoadError struct{ Reason string }

// Error returns the reason.
func (e *LoadError) Error() string { return "authz/rego: policy refused: " + e.Reason }

func refuse(format string, args ...any) error {
	return &LoadError{Reason: fmt.Sprintf(format, args...)}
}

// mostBytes bounds the files of a policy together.
const mostBytes = 8 << 20

// source is a policy as read.
type source struct {
	modules  map[string]*ast.Module // without tests
	tests    map[string]*ast.Module
	data     map[string]any
	settings *settings
	revision string
}

func readSource(policy fs.FS) (*source, error) {
	s := &source{modules: map[string]*ast.Module{}, tests: map[string]*ast.Module{}}
	texts := map[string][]byte{}
	left := int64(mostBytes)
	err := fs.WalkDir(policy, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if left -= info.Size(); left < 0 {
			return refuse("larger than %d bytes", mostBytes)
		}
		text, err := fs.ReadFile(policy, name)
		if err != nil {
			return err
		}
		texts[name] = text
		return s.file(name, text)
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
	}
	s.revision, err = revision(texts, s.data)
	return s, err
}

// revision is the digest of the modules, in the order of their names, and of the data in canonical form, so that
// a folder and a bundle of the same policy have the same one. Tests do not count.
func revision(texts map[string][]byte, data map[string]any) (string, error) {
	digest := sha256.New()
	names := make([]string, 0, len(texts))
	for name := range texts {
		if strings.HasSuffix(name, ".rego") && !strings.HasSuffix(name, "_test.rego") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(digest, "%d:%s%d:", len(name), name, len(texts[name]))
		digest.Write(texts[name])
	}
	canonical, err := json.Marshal(data)
	if err != nil {
		return "", refuse("data.json: %v", err)
	}
	fmt.Fprintf(digest, "%d:", len(canonical))
	digest.Write(canonical)
	digest.Write(inputSchema)
	return hex.EncodeToString(digest.Sum(nil)), nil
}

func (s *source) file(name string, text []byte) error {
	switch {
	case strings.HasSuffix(name, ".rego"):
		// Only a module parsed with its annotations is checked against the schemas.
		m, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{
			ProcessAnnotation: true, RegoVersion: ast.RegoV1,
		})
		if err != nil {
			return refuse("%v", err)
		}
		if strings.HasSuffix(name, "_test.rego") {
			s.tests[name] = m
			return nil
		}
		if !strings.HasPrefix(name, "crm/") {
			return refuse("%s: modules are below crm/", name)
		}
		if want := "data." + strings.ReplaceAll(path.Dir(name), "/", "."); m.Package.Path.String() != want {
			return refuse("%s: package is not that of its folder", name)
		}
		s.modules[name] = m
	case name == "data.json":
		if err := decode(text, &s.data); err != nil { // numbers as written: a float would be 5e+06
			return refuse("data.json: %v", err)
		}
		var err error
		s.settings, err = readSettings(text)
		return err
	case name == "schemas/input.json":
		if string(text) != string(inputSchema) {
			return refuse("schemas/input.json: not the schema of this program's requests")
		}
	default:
		return refuse("%s: not a part of a policy", name)
	}
	return nil
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

func newCompiler() *ast.Compiler {
	return ast.NewCompiler().WithStrict(true).WithCapabilities(capabilities())
}

// compile returns the policy as it is.
func (s *source) compile() (*ast.Compiler, error) {
	var schema any
	if err := json.Unmarshal(inputSchema, &schema); err != nil {
		return nil, refuse("schemas/input.json: %v", err)
	}
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.MustParseRef("schema.input"), schema)
	for name, m := range s.modules {
		if !annotated(m) {
			return nil, refuse("%s: the package has no schemas annotation for input", name)
		}
	}
	c := newCompiler().WithSchemas(schemas).WithUseTypeCheckAnnotations(true)
	c.Compile(s.modules)
	if c.Failed() {
		return nil, refuse("%v", c.Errors)
	}
	for _, rule := range []string{
		"authz.decision", "authz.required", "authz.met", "authz.grounds", "facts.roles",
		"obligations.needed", "fields.by_class", "fields.by_name",
	} {
		if len(c.GetRulesExact(ast.MustParseRef("data.crm."+rule))) == 0 {
			return nil, refuse("crm.%s is missing", rule)
		}
	}
	return c, nil
}

// planner returns the policy with each fact replaced by what a request's facts will be.
func (s *source) planner(bits map[string]uint8, valued []string) (*ast.Compiler, error) {
	text := "package crm.facts\n\n"
	for name := range bits {
		text += name + " if input.facts." + name + "\n\n"
	}
	for _, name := range valued {
		text += name + " := input.facts." + name + "\n\n"
	}
	facts, err := ast.ParseModuleWithOpts("facts", text, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, refuse("crm/facts: %v", err)
	}
	modules := map[string]*ast.Module{"facts": facts}
	for name, m := range s.modules {
		if m.Package.Path.String() != "data.crm.facts" {
			modules[name] = m
		}
	}
	c := newCompiler()
	c.Compile(modules)
	if c.Failed() {
		return nil, refuse("%v", c.Errors)
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

// controlReads is what of the input controls may read, as prefixes; the rest is for facts.
var controlReads = []string{
	"input.action", "input.resource", "input.subject.id", "input.subject.tenant", "input.subject.team", "input.subject.active",
	"input.subject.pools", "input.subject.shares", "input.subject.delegations", "input.subject.emergencies",
	"input.environment.time", "input.environment.rows",
}

// checkReads refuses controls that read what only facts may read: a plan is for all who have the same facts, so
// it would answer for one what was asked for another.
func (s *source) checkReads() error {
	var bad error
	for _, m := range s.modules {
		if m.Package.Path.String() == "data.crm.facts" {
			continue
		}
		ast.WalkTerms(m, func(t *ast.Term) bool {
			ref, ok := t.Value.(ast.Ref)
			if !ok {
				return false
			}
			if v, ok := ref[0].Value.(ast.Var); !ok || v != "input" {
				return false
			}
			name := "input"
			for _, part := range ref[1:] {
				word, ok := part.Value.(ast.String)
				if !ok {
					break
				}
				name += "." + string(word)
			}
			if !slices.ContainsFunc(controlReads, func(r string) bool { return name == r || strings.HasPrefix(name, r+".") }) ||
				name == "input.resource" {
				bad = refuse("%s: a control may not read %s; make it a fact in crm/facts", t.Location, name)
			}
			return false
		})
	}
	return bad
}

// runTests runs the policy's own tests.
func (s *source) runTests(ctx context.Context) error {
	if len(s.tests) == 0 {
		return refuse("the policy has no tests")
	}
	ran := 0
	var failed error
	err := s.test(ctx, tester.NewRunner(), func(r *tester.Result) {
		ran++
		if failed == nil && !r.Pass() {
			failed = refuse("%s: test %s.%s fails", r.Location, r.Package, r.Name)
		}
	})
	switch {
	case err != nil:
		return err
	case failed == nil && ran == 0:
		return refuse("the policy has no tests")
	}
	return failed
}

// testTime is how long a single test may take.
const testTime = time.Minute

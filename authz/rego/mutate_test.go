package rego_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz/rego"
)

// mutantsFile lists the mutants that no test can tell from the policy, each with the reason.
const mutantsFile = "testdata/mutants.txt"

// mutant is one small change of one module.
type mutant struct {
	file string
	line int
	what string // without the line, which moves: rule, change and text
	m    *ast.Module
}

// mutants makes every mutant of a module: each expression negated and dropped, each comparison shifted, each rule
// dropped, true and false exchanged, each number one more, each literal set, list and object without one of its
// members, each prefix and suffix test exchanged for the other.
func mutants(file string, text string) []mutant {
	parse := func() *ast.Module {
		return ast.MustParseModuleWithOpts(text, ast.ParserOptions{RegoVersion: ast.RegoV1})
	}
	var out []mutant
	seen := map[string]int{}
	for n := range parse().Rules {
		rule := parse().Rules[n]
		add := func(line int, what string, change func(m *ast.Module)) {
			key := fmt.Sprintf("%s %s: %s", file, ruleName(rule), what)
			if seen[key]++; seen[key] > 1 {
				key += fmt.Sprintf(" (%d)", seen[key])
			}
			m := parse()
			change(m)
			out = append(out, mutant{file, line, key, m})
		}
		add(rule.Location.Row, "drop the rule", func(m *ast.Module) { m.Rules = slices.Delete(m.Rules, n, n+1) })
		// A site is a node that is met at the same place of every walk; changes are made in a fresh copy.
		for i, s := range sitesOf(rule) {
			for _, c := range s.changes {
				add(s.line, c.what, func(m *ast.Module) {
					// The rule of the copy has the same sites in the same order.
					for _, d := range sitesOf(m.Rules[n])[i].changes {
						if d.what == c.what {
							d.apply()
							return
						}
					}
				})
			}
		}
	}
	return out
}

type change struct {
	what  string
	apply func()
}

type site struct {
	line    int
	changes []change
}

func ruleName(r *ast.Rule) string {
	name := r.Head.Ref().String()
	if r.Head.Key != nil {
		name += " contains " + r.Head.Key.String()
	}
	return name
}

// shifted are the comparisons to which one is changed.
var shifted = map[string]ast.Ref{
	"equal": ast.NotEqual.Ref(), "neq": ast.Equal.Ref(), "gt": ast.GreaterThanEq.Ref(), "gte": ast.GreaterThan.Ref(),
	"lt": ast.LessThanEq.Ref(), "lte": ast.LessThan.Ref(), "startswith": ast.EndsWith.Ref(), "endswith": ast.StartsWith.Ref(),
}

// sitesOf returns what can be changed in a rule.
func sitesOf(rule *ast.Rule) []site {
	var out []site
	body := func(b *ast.Body, set func(ast.Body)) {
		for i, e := range *b {
			s := site{line: e.Location.Row}
			text := e.String()
			s.changes = append(s.changes,
				change{"negate " + text, func() { e.Negated = !e.Negated }},
				change{"drop " + text, func() {
					left := slices.Delete(slices.Clone(*b), i, i+1)
					if len(left) == 0 {
						left = ast.NewBody(ast.NewExpr(ast.BooleanTerm(true)))
					}
					for j := range left {
						left[j].Index = j
					}
					set(left)
				}})
			if e.IsCall() {
				if to, ok := shifted[e.Operator().String()]; ok {
					s.changes = append(s.changes, change{fmt.Sprintf("%v instead in %s", to, text), func() { e.SetOperator(ast.NewTerm(to)) }})
				}
			}
			out = append(out, s)
		}
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Rule:
			if x.Head.Value != nil && x.Head.Value.Equal(ast.BooleanTerm(true)) {
				out = append(out, site{x.Location.Row, []change{{"false as its value", func() { x.Head.Value = ast.BooleanTerm(false) }}}})
			}
			if x.Body != nil && !(len(x.Body) == 1 && x.Body[0].Equal(ast.NewExpr(ast.BooleanTerm(true)))) {
				body(&x.Body, func(b ast.Body) { x.Body = b })
			}
		case *ast.SetComprehension:
			body(&x.Body, func(b ast.Body) { x.Body = b })
		case *ast.ArrayComprehension:
			body(&x.Body, func(b ast.Body) { x.Body = b })
		case *ast.ObjectComprehension:
			body(&x.Body, func(b ast.Body) { x.Body = b })
		case *ast.Term:
			if c := termChanges(x); len(c) > 0 {
				out = append(out, site{x.Location.Row, c})
			}
		}
		return false
	}).Walk(rule)
	return out
}

func termChanges(x *ast.Term) []change {
	var out []change
	text := x.String()
	without := func(i int, value func() ast.Value) {
		out = append(out, change{fmt.Sprintf("%s without member %d", text, i), func() { x.Value = value() }})
	}
	switch v := x.Value.(type) {
	case ast.Boolean:
		if x.Location != nil && x.Location.Row > 0 && string(x.Location.Text) == text {
			out = append(out, change{fmt.Sprintf("%v instead of %v", !v, v), func() { x.Value = !v }})
		}
	case ast.Number:
		n, ok := new(big.Int).SetString(string(v), 10)
		if ok {
			more := n.Add(n, big.NewInt(1)).String()
			out = append(out, change{more + " instead of " + text, func() { x.Value = ast.Number(json.Number(more)) }})
		}
	case ast.Set:
		list := v.Slice()
		for i := range list {
			without(i, func() ast.Value { return ast.NewSet(slices.Delete(slices.Clone(list), i, i+1)...) })
		}
	case *ast.Array:
		for i := range v.Len() {
			without(i, func() ast.Value {
				a := ast.NewArray()
				for j := range v.Len() {
					if j != i {
						a = a.Append(v.Elem(j))
					}
				}
				return a
			})
		}
	case ast.Object:
		for i, key := range v.Keys() {
			without(i, func() ast.Value {
				o := ast.NewObject()
				for _, k := range v.Keys() {
					if !k.Equal(key) {
						o.Insert(k, v.Get(k))
					}
				}
				return o
			})
		}
	case ast.Call:
		if to, ok := shifted[v[0].String()]; ok {
			out = append(out, change{fmt.Sprintf("%v instead in %s", to, text), func() { v[0] = ast.NewTerm(to) }})
		}
	}
	return out
}

// policyFiles returns the texts of the shipped policy.
func policyFiles(t testing.TB) map[string]string {
	out := map[string]string{}
	require.NoError(t, fs.WalkDir(rego.Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(rego.Embedded(), name)
		out[name] = string(b)
		return err
	}))
	return out
}

// listed reads the mutants that are known to be equivalent: the mutant, then a line "  because ...".
func listed(t *testing.T) map[string]bool {
	text, err := os.ReadFile(mutantsFile)
	require.NoError(t, err)
	out := map[string]bool{}
	var open []string
	for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
		line := in.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "  because ") && len(line) > 20:
			open = nil
		case strings.TrimSpace(line) == "":
			require.Empty(t, open, "%s: a mutant without a reason", mutantsFile)
		default:
			require.False(t, out[line], "%s: %s is listed twice", mutantsFile, line)
			out[line] = true
			open = append(open, line)
		}
	}
	require.Empty(t, open, "%s: a mutant without a reason", mutantsFile)
	return out
}

// outcome of a mutant.
const (
	survived = iota
	killed
	refused // by the compiler
	late    // the machine was too slow to tell
)

// TestMutants changes the controls in every small way and demands that a Rego test fails for each change, but for those
// that are listed with a reason. It takes minutes: CRMGUARD_MUTATE=1, or a part of a file's name, runs it. Without, the list is
// compared with the mutants that there are.
func TestMutants(t *testing.T) {
	files := policyFiles(t)
	parsed := map[string]*ast.Module{}
	var all []mutant
	var data map[string]any
	for _, name := range sorted(files) {
		switch {
		case name == "data.json":
			require.NoError(t, json.Unmarshal([]byte(files[name]), &data))
		case strings.HasSuffix(name, ".rego"):
			parsed[name] = ast.MustParseModuleWithOpts(files[name], ast.ParserOptions{RegoVersion: ast.RegoV1})
			if !strings.HasSuffix(name, "_test.rego") {
				all = append(all, mutants(name, files[name])...)
			}
		}
	}
	require.Greater(t, len(all), 300, "the policy has mutants")
	known := listed(t)
	exists := map[string]bool{}
	for _, m := range all {
		exists[m.what] = true
	}
	for what := range known {
		assert.True(t, exists[what], "%s lists a mutant that there is not: %s", mutantsFile, what)
	}
	which := os.Getenv("CRMGUARD_MUTATE")
	if which == "" {
		t.Skip("the mutants run with CRMGUARD_MUTATE=1, as make policy does")
	}
	if which != "1" {
		all = slices.DeleteFunc(all, func(m mutant) bool { return !strings.Contains(m.file, which) })
		require.NotEmpty(t, all)
	}
	require.Equal(t, survived, runMutant(t.Context(), parsed, data, "", nil), "without a change the tests pass")

	began := time.Now()
	outcomes := make([]int, len(all))
	next := make(chan int)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for i := range next {
				outcomes[i] = runMutant(t.Context(), parsed, data, all[i].file, all[i].m)
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	workers.Wait()

	count := map[int]int{}
	listedSurvivors := 0
	for i, m := range all {
		count[outcomes[i]]++
		switch {
		case outcomes[i] == late:
			t.Errorf("not told in time: %s:%d: %s", m.file, m.line, m.what)
		case outcomes[i] == survived && known[m.what]:
			listedSurvivors++
		case outcomes[i] == survived:
			t.Errorf("survivor, %s:%d: %s", m.file, m.line, m.what)
		case known[m.what]:
			t.Errorf("%s lists a mutant that is killed: %s", mutantsFile, m.what)
		}
	}
	fmt.Fprintf(os.Stderr, "mutants: %d killed, %d survivors listed, %d not listed, %d refused by the compiler; %v\n",
		count[killed], listedSurvivors, count[survived]-listedSurvivors, count[refused], time.Since(began).Round(time.Second))
	require.Positive(t, count[killed], "some mutant was killed")
}

// runMutant runs first the tests of the mutant's package, then all.
func runMutant(ctx context.Context, parsed map[string]*ast.Module, data map[string]any, file string, m *ast.Module) int {
	modules, rest := map[string]*ast.Module{}, false
	for name, p := range parsed {
		if name == file {
			p = m
		}
		if file != "" && strings.HasSuffix(name, "_test.rego") && path.Dir(name) != path.Dir(file) {
			rest = true
			continue
		}
		modules[name] = p
	}
	if o := runRego(ctx, modules, data); o != survived || !rest {
		return o
	}
	for name, p := range parsed {
		if strings.HasSuffix(name, "_test.rego") {
			modules[name] = p
		}
	}
	return runRego(ctx, modules, data)
}

func runRego(ctx context.Context, modules map[string]*ast.Module, data map[string]any) int {
	ctx, stop := context.WithTimeout(ctx, 10*time.Minute)
	defer stop()
	store := inmem.NewFromObject(data)
	outcome := survived
	err := storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := tester.NewRunner().SetTimeout(5*time.Minute).SetStore(store).SetModules(modules).RunTests(ctx, txn)
		if err != nil {
			return err
		}
		for r := range results {
			switch {
			case outcome != survived || r.Pass():
			case topdown.IsCancel(r.Error): // a test that did not come to its end has killed nothing
				outcome = late
				stop()
			default:
				outcome = killed
				stop() // the rest does not matter
			}
		}
		return nil
	})
	if err != nil && outcome == survived {
		return refused
	}
	return outcome
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

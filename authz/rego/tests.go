package rego

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sort"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// Tests is what the tests of a policy found.
type Tests struct {
	Passed    int
	Failed    []string // file:line and name of each test that failed
	Uncovered []string // file:line of what no test reaches
}

// RunTests runs the tests of a policy, nil for the shipped one, and says which lines of its rules none of them reaches. New runs them
// too, without asking what they reach. Errors are *LoadError.
func RunTests(ctx context.Context, files fs.FS) (*Tests, error) {
	if files == nil {
		files = Embedded()
	}
	src, err := readSource(files)
	if err != nil {
		return nil, err
	}
	reached := cover.New()
	out := &Tests{}
	err = src.test(ctx, tester.NewRunner().SetCoverageQueryTracer(reached), func(r *tester.Result) {
		if r.Pass() {
			out.Passed++
		} else {
			out.Failed = append(out.Failed, fmt.Sprintf("%s: %s.%s", r.Location, r.Package, r.Name))
		}
	})
	if err != nil {
		return nil, err
	}
	for name, f := range reached.Report(src.modules).Files {
		for _, r := range f.NotCovered {
			for row := r.Start.Row; row <= r.End.Row; row++ {
				out.Uncovered = append(out.Uncovered, fmt.Sprintf("%s:%d", name, row))
			}
		}
	}
	sort.Strings(out.Failed)
	sort.Strings(out.Uncovered)
	out.Uncovered = slices.Compact(out.Uncovered)
	return out, nil
}

// test runs the policy's own tests.
func (s *source) test(ctx context.Context, runner *tester.Runner, each func(*tester.Result)) error {
	modules := map[string]*ast.Module{}
	for _, some := range []map[string]*ast.Module{s.modules, s.tests} {
		for name, m := range some {
			modules[name] = m
		}
	}
	store := inmem.NewFromObject(s.data)
	return storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		// Time is left even where the machine is busy: a test that is cut off would refuse a good policy.
		results, err := runner.SetCompiler(ast.NewCompiler().WithCapabilities(capabilities())).SetStore(store).SetModules(modules).
			SetTimeout(testTime).RunTests(ctx, txn)
		if err != nil {
			return refuse("tests: %v", err)
		}
		for r := range results {
			each(r)
		}
		return nil
	})
}

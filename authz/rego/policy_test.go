package rego_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestPolicy runs the Rego tests and demands that they reach every line of every control.
func TestPolicy(t *testing.T) {
	modules := map[string]*ast.Module{}
	var data map[string]any
	require.NoError(t, fs.WalkDir(rego.Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(rego.Embedded(), name)
		require.NoError(t, err)
		switch {
		case strings.HasSuffix(name, ".rego"):
			m, err := ast.ParseModuleWithOpts(name, string(b), ast.ParserOptions{ProcessAnnotation: true})
			require.NoError(t, err)
			modules[name] = m
		case name == "data.json":
			require.NoError(t, json.Unmarshal(b, &data))
		}
		return nil
	}))
	store := inmem.NewFromObject(data)
	coverage := cover.New()
	ctx := t.Context()
	ran := 0
	require.NoError(t, storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := tester.NewRunner().SetStore(store).SetModules(modules).SetCoverageQueryTracer(coverage).
			RunTests(ctx, txn)
		require.NoError(t, err)
		for r := range results {
			ran++
			t.Run(r.Package+"."+r.Name, func(t *testing.T) {
				require.NoError(t, r.Error)
				assert.True(t, r.Pass(), "%s", r.Location)
			})
		}
		return nil
	}))
	require.Greater(t, ran, 40, "the Rego tests ran")
	report := coverage.Report(modules)
	for name, f := range report.Files {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		assert.Empty(t, f.NotCovered, "%s: lines that no test reaches", name)
	}
}

// TestMatrix writes what each role may do as a table that a reviewer reads as a diff.
func TestMatrix(t *testing.T) {
	e := engine(t)
	roles := []string{"admin", "manager", "sales", "marketing", "support", "finance", "auditor"}
	types := []string{"customer", "contact", "lead", "follow_up", "quote", "contract", "ticket", "employee", "account", "log", "backup", "keys"}
	actions := []authz.Action{authz.List, authz.Read, authz.Search, authz.Create, authz.Update, authz.Delete,
		authz.Restore, authz.Reveal, authz.Import, authz.Export, authz.Manage, authz.History}
	var b strings.Builder
	fmt.Fprintln(&b, "# Who may do what: a all, t the team's, o own, - nothing. Columns: "+strings.Trim(fmt.Sprint(actions), "[]"))
	for _, role := range roles {
		for _, typ := range types {
			fmt.Fprintf(&b, "%-10s %-9s", role, typ)
			for _, a := range actions {
				depth := "-"
				for _, try := range []struct{ owner, team, mark string }{
					{"x", "/x/", "a"}, {"x", "/east/1/", "t"}, {"e1", "/x/", "o"},
				} {
					d, err := e.Decide(t.Context(), authz.Request{
						Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{role}, Team: "/east/", Active: true},
						Action:   a,
						Resource: authz.Resource{Tenant: "t", Type: typ, Owner: try.owner, Team: try.team, State: "draft"},
					})
					require.NoError(t, err)
					if d.Allowed {
						depth = try.mark
						break
					}
				}
				b.WriteString(" " + depth)
			}
			b.WriteByte('\n')
		}
	}
	fmt.Fprintln(&b, "# How much of a customer's field: open, masked or hidden. Columns: class or field, then "+"list read reveal update")
	fields := map[string]string{"name": "personal", "phone": "personal", "id_number": "sensitive", "card": "financial", "stage": "internal"}
	var names []string
	for n := range fields {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, role := range roles {
		for _, n := range names {
			fmt.Fprintf(&b, "%-10s %-9s", role, n)
			for _, a := range []authz.Action{authz.List, authz.Read, authz.Reveal, authz.Update} {
				d, err := e.Decide(t.Context(), authz.Request{
					Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{role}, Team: "/east/", Active: true},
					Action:   a,
					Resource: authz.Resource{Tenant: "t", Type: "customer", Owner: "e1", Team: "/east/", State: "new"},
				})
				require.NoError(t, err)
				word := "denied"
				if d.Allowed {
					word = d.Fields.Access(n, fields[n]).String()
				}
				fmt.Fprintf(&b, " %s", word)
			}
			b.WriteByte('\n')
		}
	}
	const golden = "testdata/matrix.txt"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err, "go test ./authz/rego -update writes it")
	assert.Equal(t, string(want), b.String(), "rights changed: read the difference, then go test ./authz/rego -run TestMatrix -update")
}

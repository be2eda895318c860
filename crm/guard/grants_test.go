package guard_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/finance"
	"github.com/crmguard/crmguard/crm/flow"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/privacy"
	"github.com/crmguard/crmguard/crm/project"
	selling "github.com/crmguard/crmguard/crm/sales"
	"github.com/crmguard/crmguard/crm/stock"
	"github.com/crmguard/crmguard/crm/transfer"
)

// shipped reads what of the shipped settings is compared with the types.
func shipped(t *testing.T) (grants map[string]map[string]map[string]string, frozen map[string][]string) {
	text, err := fs.ReadFile(rego.Embedded(), "data.json")
	require.NoError(t, err)
	var data struct {
		Settings struct {
			Grants       map[string]map[string]map[string]string `json:"grants"`
			FrozenStates map[string][]string                     `json:"frozen_states"`
		} `json:"settings"`
	}
	require.NoError(t, json.Unmarshal(text, &data))
	return data.Settings.Grants, data.Settings.FrozenStates
}

// typeNames returns the constants Type… of crm/meta.go, name by constant.
func typeNames(t *testing.T) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "../meta.go", nil, 0)
	require.NoError(t, err)
	names := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Type") {
			return true
		}
		name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		names[spec.Names[0].Name] = name
		return true
	})
	require.Greater(t, len(names), 30)
	return names
}

// TestEveryTypeHasGrants: the administrator may do something with every type that there is, somebody else reads it, and no grant names one
// that there is not.
func TestEveryTypeHasGrants(t *testing.T) {
	grants, _ := shipped(t)
	known := []string{"log", "backup", "keys", "person", "account"} // functions, and the type of the program's own
	for constant, name := range typeNames(t) {
		known = append(known, name)
		assert.NotEmpty(t, grants["admin"][name], constant)
		readers := 0
		for _, types := range grants {
			if types[name]["read"] != "" {
				readers++
			}
		}
		assert.Greater(t, readers, 1, constant)
	}
	for role, types := range grants {
		for name := range types {
			assert.Contains(t, known, name, role)
		}
	}
}

// finals returns the states that a lifecycle cannot leave.
func finals[S ~string](l crm.Lifecycle[S]) []string {
	var out []string
	for _, s := range l.States() {
		if len(l.Next(s)) == 0 {
			out = append(out, string(s))
		}
	}
	return out
}

// stuck returns the states from which no other is reached, as the check of an update says it.
func stuck[S ~string](states []S, update func(from, to S) error) []string {
	var out []string
	for _, from := range states {
		if !slices.ContainsFunc(states, func(to S) bool {
			var bad *crm.TransitionError
			return from != to && !errors.As(update(from, to), &bad)
		}) {
			out = append(out, string(from))
		}
	}
	return out
}

// TestFrozenStatesAreFinal: the states that the policy freezes are exactly those that the lifecycle of a type cannot leave, and no lifecycle
// is forgotten here.
func TestFrozenStatesAreFinal(t *testing.T) {
	final := map[string][]string{
		crm.TypeCustomer: finals(crm.CustomerLifecycle()), crm.TypeLead: finals(crm.LeadLifecycle()), crm.TypeQuote: finals(crm.QuoteLifecycle()),
		crm.TypeContract: finals(crm.ContractLifecycle()), crm.TypeTicket: finals(crm.TicketLifecycle()), crm.TypeEmployee: finals(crm.EmployeeLifecycle()),
		crm.TypeOpportunity: finals(selling.OpportunityLifecycle()), crm.TypeProduct: finals(selling.ProductLifecycle()),
		crm.TypeReceipt: finals(finance.ReceiptLifecycle()), crm.TypeInvoice: finals(finance.InvoiceLifecycle()),
		crm.TypeExpense: finals(finance.ExpenseLifecycle()), crm.TypePeriod: finals(finance.PeriodLifecycle()),
		crm.TypeProject: finals(project.Lifecycle()), crm.TypeTask: finals(project.TaskLifecycle()),
		crm.TypeWarehouse: finals(stock.WarehouseLifecycle()), crm.TypeOrder: finals(stock.OrderLifecycle()),
		crm.TypeForm: finals(form.Lifecycle()), crm.TypeFlow: finals(flow.Lifecycle()), crm.TypeImport: finals(transfer.Lifecycle()),
		crm.TypeErasure: finals(privacy.ErasureLifecycle()), crm.TypeHold: finals(privacy.HoldLifecycle()),
		crm.TypeEmergency: stuck([]crm.EmergencyState{crm.EmergencyRequested, crm.EmergencyActive, crm.EmergencyRefused, crm.EmergencyReviewed},
			func(from, to crm.EmergencyState) error {
				return (&crm.Emergency{State: to}).CheckUpdate(&crm.Emergency{State: from})
			}),
		crm.TypeExport: stuck([]crm.ExportState{crm.ExportOpen, crm.ExportRequested, crm.ExportApproved, crm.ExportRefused, crm.ExportTaken},
			func(from, to crm.ExportState) error {
				return (&crm.Export{State: to}).CheckUpdate(&crm.Export{State: from})
			}),
	}
	_, frozen := shipped(t)
	for typ, states := range final {
		assert.ElementsMatch(t, states, frozen[typ], typ)
	}
	for typ := range frozen {
		assert.Contains(t, final, typ, "a type without a lifecycle is never final")
	}
	assert.ElementsMatch(t, lifecycles(t), slices.Collect(maps.Keys(final)))
}

// lifecycles returns the types for which the packages of crm make a table.
func lifecycles(t *testing.T) []string {
	names := typeNames(t)
	var out []string
	require.NoError(t, filepath.WalkDir("..", func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		constant := func(e ast.Expr) string {
			if s, ok := e.(*ast.SelectorExpr); ok {
				return s.Sel.Name
			}
			if id, ok := e.(*ast.Ident); ok {
				return id.Name
			}
			return ""
		}
		found := func(e ast.Expr) {
			typ := names[constant(e)]
			require.NotEmpty(t, typ, "%s: a lifecycle of a type that crm/meta.go does not name", name)
			out = append(out, typ)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if constant(n.Fun) == "NewLifecycle" {
					found(n.Args[0])
				}
			case *ast.CompositeLit: // inside package crm
				if x, ok := n.Type.(*ast.IndexExpr); ok && constant(x.X) == "Lifecycle" {
					for _, e := range n.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok && constant(kv.Key) == "typ" {
							if constant(kv.Value) != "typ" {
								found(kv.Value)
							}
						}
					}
				}
			}
			return true
		})
		return nil
	}))
	return out
}

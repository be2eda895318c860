package review_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
)

func TestMatrixOptions(t *testing.T) {
	tables, err := review.Matrix(t.Context(), rules{}, []string{"manager"}, []string{"customer", "ticket"}, []authz.Action{authz.Read},
		&review.MatrixOptions{
			Subject: func(role string) authz.Subject {
				return authz.Subject{ID: "e9", Tenant: "u", Roles: []string{role}, Active: true} // no team
			},
			Sample: func(typ string) authz.Resource {
				return authz.Resource{Type: "x", Tenant: "x", Owner: "x", Team: "/", State: typ}
			},
		})
	require.NoError(t, err)
	require.Len(t, tables, 1)
	assert.Equal(t, [][]string{{"manager", "customer", "-"}, {"manager", "ticket", "-"}}, tables[0].Rows)

	// A role whose person is gone gives nothing, whatever the role.
	tables, err = review.Matrix(t.Context(), rules{}, []string{"admin"}, []string{"customer"}, []authz.Action{authz.Read, authz.Delete},
		&review.MatrixOptions{
			Subject: func(role string) authz.Subject { return authz.Subject{ID: "e9", Roles: []string{role}} },
			Fields:  []review.Field{{Type: "customer", Class: "personal"}}, FieldActions: []authz.Action{authz.Read},
		})
	require.NoError(t, err)
	require.Len(t, tables, 2)
	assert.Equal(t, [][]string{{"admin", "customer", "-", "-"}}, tables[0].Rows)
	assert.Equal(t, [][]string{{"admin", "customer.personal", "denied"}}, tables[1].Rows)
}

func ExampleMatrix() {
	tables, err := review.Matrix(context.Background(), rules{},
		[]string{"admin", "manager", "sales", "visitor"}, []string{"customer", "payroll"},
		[]authz.Action{authz.Read, authz.Update, authz.Delete},
		&review.MatrixOptions{
			Fields: []review.Field{
				{Type: "customer", Name: "phone", Class: "personal"},
				{Type: "customer", Class: "financial"},
			},
			FieldActions: []authz.Action{authz.Read},
		})
	if err != nil {
		panic(err)
	}
	for _, t := range tables {
		fmt.Print(t)
	}
	// Output:
	// # Who may do what: a all, t the team's, o own, p free in a pool, - nothing. Columns: role type read update delete
	// admin      customer  a a a
	// admin      payroll   - - -
	// manager    customer  t t -
	// manager    payroll   - - -
	// sales      customer  o o -
	// sales      payroll   - - -
	// visitor    customer  - - -
	// visitor    payroll   - - -
	// # How much of a field: open, masked or hidden. Columns: role field read
	// admin      customer.phone:personal open
	// admin      customer.financial hidden
	// manager    customer.phone:personal masked
	// manager    customer.financial hidden
	// sales      customer.phone:personal masked
	// sales      customer.financial hidden
	// visitor    customer.phone:personal denied
	// visitor    customer.financial denied
}

package review_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authztest"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/authz/review"
)

// TestShippedPolicy reviews the shipped policy as it answers the corpus.
func TestShippedPolicy(t *testing.T) {
	e, err := rego.New(t.Context(), nil)
	require.NoError(t, err)
	for _, c := range authztest.Corpus() {
		who, err := review.WhoCan(t.Context(), e, slices.Values([]authz.Subject{c.Request.Subject}), c.Request)
		require.NoError(t, err)
		what, err := review.WhatCan(t.Context(), e, c.Request, []authz.Resource{c.Request.Resource}, c.Request.Action)
		require.NoError(t, err)
		assert.Equal(t, who, what, c.Name)
		require.Equal(t, c.Allowed, len(who) == 1, c.Name)
		if c.Allowed {
			assert.Contains(t, who[0].Decision.Controls, c.Control, c.Name)
		}
	}
	tables, err := review.Matrix(t.Context(), e, []string{"admin", "manager", "sales", "visitor"}, []string{"customer", "payroll"},
		[]authz.Action{authz.Read, authz.Update, "shred"},
		&review.MatrixOptions{Fields: []review.Field{{Type: "customer", Name: "phone", Class: "personal"}}, FieldActions: []authz.Action{authz.List, authz.Read}})
	require.NoError(t, err)
	assert.Equal(t, [][]string{
		{"admin", "customer", "a", "a", "-"}, {"admin", "payroll", "-", "-", "-"},
		{"manager", "customer", "t", "t", "-"}, {"manager", "payroll", "-", "-", "-"},
		{"sales", "customer", "o", "o", "-"}, {"sales", "payroll", "-", "-", "-"},
		{"visitor", "customer", "-", "-", "-"}, {"visitor", "payroll", "-", "-", "-"},
	}, tables[0].Rows)
	assert.Equal(t, []string{"visitor", "customer.phone:personal", "denied", "denied"}, tables[1].Rows[3])
}

// BenchmarkWhoCanShipped asks the shipped policy for a thousand people, none of whom may.
func BenchmarkWhoCanShipped(b *testing.B) {
	e, err := rego.New(b.Context(), nil)
	require.NoError(b, err)
	all := slices.Values(crowd())
	ask := authz.Request{Action: authz.Read, Resource: customer, Environment: authz.Environment{Time: time.Unix(0, 0)}}
	_, err = review.WhoCan(b.Context(), e, all, ask) // what is kept about each person is made once
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if got, err := review.WhoCan(b.Context(), e, all, ask); err != nil || got != nil {
			b.Fatal(got, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/subject")
}

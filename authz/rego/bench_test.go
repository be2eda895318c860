package rego_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/rego"
)

func benchRequest() authz.Request {
	return authz.Request{
		Subject:     authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"manager"}, Team: "/east/", Active: true},
		Action:      authz.Read,
		Resource:    authz.Resource{Tenant: "t", Type: "customer", ID: "c1", Owner: "e2", Team: "/east/1/", State: "new"},
		Environment: authz.Environment{Time: time.Now()},
	}
}

func BenchmarkDecide(b *testing.B) {
	e, err := rego.New(context.Background(), nil)
	require.NoError(b, err)
	r := benchRequest()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := e.Decide(ctx, r); !d.Allowed {
			b.Fatal("denied")
		}
	}
}

func BenchmarkFilterSlice(b *testing.B) {
	e, err := rego.New(context.Background(), nil)
	require.NoError(b, err)
	r := benchRequest()
	r.Action = authz.List
	records := make([]authz.Resource, 10_000)
	for i := range records {
		records[i] = r.Resource
		if i%20 > 0 {
			records[i].Team = "/west/"
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		out, err := authz.FilterSlice(context.Background(), e, r, records, func(item, into *authz.Resource) { *into = *item })
		if err != nil || len(out) != 500 {
			b.Fatal(len(out), err)
		}
	}
}

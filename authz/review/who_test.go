package review_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
)

func why(list []review.Permission) []string {
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprintf("%s %s %s %s: %s", p.Subject, p.Action, p.Type, p.Resource, strings.Join(p.Decision.Controls, " ")))
	}
	return out
}

func TestWhoCan(t *testing.T) {
	frozen := customer
	frozen.Type = "contract"
	for _, c := range []struct {
		name     string
		action   authz.Action
		resource authz.Resource
		want     []string
	}{
		{"read", authz.Read, customer, []string{"e1 read customer c1: rbac.own", "e2 read customer c1: rbac.team", "e3 read customer c1: rbac.all"}},
		{"delete", authz.Delete, customer, []string{"e3 delete customer c1: rbac.all"}},
		{"an unknown type", authz.Read, frozen, nil},
		{"no record", authz.Read, authz.Resource{}, nil},
		{"another tenant's", authz.Read, authz.Resource{Tenant: "u", Type: "customer", ID: "c9", Owner: "e1"}, []string{"e7 read customer c9: rbac.all"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := review.WhoCan(t.Context(), rules{}, slices.Values(people()), authz.Request{Action: c.action, Resource: c.resource})
			require.NoError(t, err)
			assert.Equal(t, c.want, why(got))
		})
	}
}

func TestWhatCan(t *testing.T) {
	actions := []authz.Action{authz.Read, authz.Delete}
	for _, c := range []struct {
		name    string
		subject authz.Subject
		want    []string
	}{
		{"sales", people()[0], []string{"e1 read customer own: rbac.own"}},
		{"a manager", people()[1], []string{"e2 read customer team: rbac.team"}},
		{"admin without a team", people()[2], []string{
			"e3 read customer all: rbac.all", "e3 delete customer all: rbac.all",
			"e3 read customer own: rbac.all", "e3 delete customer own: rbac.all",
		}},
		{"who has left", people()[5], nil},
		{"no role", people()[7], nil},
		{"nobody", authz.Subject{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := review.WhatCan(t.Context(), rules{}, authz.Request{Subject: c.subject}, review.Samples(c.subject, "customer"), actions...)
			require.NoError(t, err)
			assert.Equal(t, c.want, why(got))
		})
	}
}

func TestErrorsAnswerNothing(t *testing.T) {
	r := authz.Request{Subject: people()[2], Action: authz.Read, Resource: authz.Resource{Tenant: "t", Type: "broken"}}
	who, err := review.WhoCan(t.Context(), rules{}, slices.Values(people()), r)
	require.ErrorIs(t, err, errRules)
	assert.Nil(t, who)
	what, err := review.WhatCan(t.Context(), rules{}, r, []authz.Resource{customer, r.Resource}, authz.Read)
	require.ErrorIs(t, err, errRules)
	assert.Nil(t, what, "not even what was permitted before the error")
	_, err = review.Matrix(t.Context(), rules{}, []string{"admin"}, []string{"broken"}, []authz.Action{authz.Read}, nil)
	require.ErrorIs(t, err, errRules)
	_, err = review.Matrix(t.Context(), rules{}, []string{"admin"}, nil, []authz.Action{authz.Read},
		&review.MatrixOptions{Fields: []review.Field{{Type: "broken"}}})
	require.ErrorIs(t, err, errRules)

	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = review.WhoCan(stopped, rules{}, slices.Values(people()), r)
	require.ErrorIs(t, err, context.Canceled)
}

// crowd is a thousand people of whom none may read the customer.
func crowd() []authz.Subject {
	out := make([]authz.Subject, 1000)
	for i := range out {
		out[i] = authz.Subject{ID: fmt.Sprint("p", i), Tenant: "t", Roles: []string{"sales"}, Active: true}
	}
	return out
}

func TestDeniedSubjectsCostNothing(t *testing.T) {
	all := slices.Values(crowd())
	ask := authz.Request{Action: authz.Read, Resource: customer}
	ctx := t.Context()
	var az authz.Authorizer = rules{}
	count := testing.AllocsPerRun(10, func() {
		if got, err := review.WhoCan(ctx, az, all, ask); err != nil || got != nil {
			panic("somebody may")
		}
	})
	assert.LessOrEqual(t, count, 5.0, "a constant, whatever the number of subjects")
}

func BenchmarkWhoCan(b *testing.B) {
	all := slices.Values(crowd())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := review.WhoCan(b.Context(), rules{}, all, authz.Request{Action: authz.Read, Resource: customer}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/subject")
}

func ExampleWhoCan() {
	may, err := review.WhoCan(context.Background(), rules{}, slices.Values(people()), authz.Request{Action: authz.Reveal, Resource: customer})
	if err != nil {
		panic(err)
	}
	for _, p := range may {
		fmt.Println(p.Subject, p.Decision.Controls, p.Decision.Obligations)
	}
	// Output:
	// e1 [rbac.own] [reason]
	// e2 [rbac.team] [reason]
	// e3 [rbac.all] [reason]
}

func ExampleWhatCan() {
	manager := people()[1]
	may, err := review.WhatCan(context.Background(), rules{}, authz.Request{Subject: manager, Environment: authz.Environment{Time: time.Now()}},
		review.Samples(manager, "customer"), authz.Read, authz.Update, authz.Delete)
	if err != nil {
		panic(err)
	}
	for _, p := range may {
		fmt.Println(p.Action, p.Type, p.Resource, p.Decision.Controls)
	}
	// Output:
	// read customer team [rbac.team]
	// update customer team [rbac.team]
}

func ExampleSamples() {
	for _, r := range review.Samples(authz.Subject{ID: "e1", Tenant: "t", Team: "/east/", Pools: []string{"p1"}}, "customer") {
		fmt.Printf("%-4s owner %-8s team %-11s pool %q\n", r.ID, r.Owner, r.Team, r.Pool)
	}
	// Output:
	// all  owner e1-other team /elsewhere/ pool ""
	// team owner e1-other team /east/      pool ""
	// own  owner e1       team /elsewhere/ pool ""
	// pool owner          team /elsewhere/ pool "p1"
}

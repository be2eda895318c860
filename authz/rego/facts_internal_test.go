package rego

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
)

// TestFactsAreAskedApart: another address asks the facts that read addresses, another purpose those that read purposes,
// and neither asks for the roles again.
func TestFactsAreAskedApart(t *testing.T) {
	e, err := New(context.Background(), nil)
	require.NoError(t, err)
	r := authz.Request{
		Subject:     authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"manager"}, Team: "/east/", Active: true},
		Action:      authz.Read,
		Resource:    authz.Resource{Tenant: "t", Type: "customer", Owner: "e1"},
		Environment: authz.Environment{Time: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)},
	}
	for i := range 50 {
		r.Environment.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		_, err := e.Decide(context.Background(), r)
		require.NoError(t, err)
	}
	p := e.current.Load()
	require.Len(t, p.facts.all, 50)
	require.Len(t, p.facts.groups, 1, "an address makes no new facts with a value")
	for _, x := range p.facts.list {
		want := 1
		if x.reads&readsAddress != 0 {
			want = 50
		}
		require.Len(t, x.done, want, x.name)
	}
	require.EqualValues(t, 1, e.Planned())
}

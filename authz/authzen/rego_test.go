package authzen_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authzen"
	"github.com/crmguard/crmguard/authz/authztest"
	"github.com/crmguard/crmguard/authz/rego"
)

// corpus is a directory of the subjects and resources of a corpus, by the number of their case.
type corpus []authztest.Case

func (c corpus) of(id string) (authz.Request, error) {
	n, err := strconv.Atoi(id)
	if err != nil || n < 0 || n >= len(c) {
		return authz.Request{}, authzen.ErrNotFound
	}
	return c[n].Request, nil
}

func (c corpus) Subject(_ context.Context, _, id string) (authz.Subject, error) {
	r, err := c.of(id)
	return r.Subject, err
}

func (c corpus) Resource(_ context.Context, _, id string) (authz.Resource, error) {
	r, err := c.of(id)
	return r.Resource, err
}

// TestPools: the pools of a caller and the pool of a record reach the shipped policy as properties, and not without trust.
func TestPools(t *testing.T) {
	e, err := rego.New(t.Context(), nil)
	require.NoError(t, err)
	free := authz.Request{
		Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Active: true},
		Resource: authz.Resource{Tenant: "t", Type: "customer", ID: "c1"},
	}
	for _, c := range []struct {
		pools, pool    string
		trust, allowed bool
	}{
		{`["p1","p2"]`, `"p2"`, true, true},
		{`["p1","p2"]`, `"p2"`, false, false},
		{`["p1"]`, `"p2"`, true, false},
		{`[]`, `"p2"`, true, false},
		{`[""]`, `""`, true, false},
	} {
		h := serve(t, e, corpus{{Request: free}}, &authzen.Options{TrustProperties: c.trust})
		w := post(h, "/access/v1/evaluation", fmt.Sprintf(`{"subject":{"type":"user","id":"0","properties":{"pools":%s}},"action":{"name":"claim"},
			"resource":{"type":"record","id":"0","properties":{"pool":%s}}}`, c.pools, c.pool))
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		assert.Contains(t, w.Body.String(), fmt.Sprintf(`"decision":%v`, c.allowed), "%s %s", c.pools, c.pool)
	}
}

// TestShippedPolicy asks for the corpus over HTTP.
func TestShippedPolicy(t *testing.T) {
	e, err := rego.New(t.Context(), nil)
	require.NoError(t, err)
	cases := corpus(authztest.Corpus())
	h := serve(t, e, cases, nil)
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Request.Action == "" {
				c.Request.Action = "none"
			}
			evaluate := func(context string) (allowed bool, controls []string) {
				w := post(h, "/access/v1/evaluation", fmt.Sprintf(`{"subject":{"type":"user","id":"%d"},"action":{"name":%q},
					"resource":{"type":"record","id":"%d"},"context":%s}`, i, c.Request.Action, i, context))
				require.Equal(t, http.StatusOK, w.Code, w.Body.String())
				var a struct {
					Decision bool
					Context  struct {
						Controls []string
						Fields   struct{ Classes, Names map[string]string }
					}
				}
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
				if got := a.Context.Fields.Names["phone"]; got != "" && a.Decision {
					assert.Equal(t, c.Phone.String(), got)
				}
				return a.Decision, a.Context.Controls
			}
			allowed, controls := evaluate(`{"met":["reason","step_up","second_person","watermark","review","groups","rows:1"]}`)
			assert.Equal(t, c.Allowed, allowed)
			if c.Request.Subject.ID != "" {
				assert.Contains(t, controls, c.Control)
			}
			direct, err := e.Decide(t.Context(), c.Request)
			require.NoError(t, err)
			allowed, _ = evaluate(`{}`)
			assert.Equal(t, direct.Proceed() == nil, allowed, "as without obligations")
		})
	}
}

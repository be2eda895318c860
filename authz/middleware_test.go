package authz_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/crmguard/crmguard/authz"
)

// owners permits what a person does with their own records, and asks for a reason before a reveal. It
// fails for the action "fail".
type owners struct{}

func (owners) Decide(_ context.Context, r authz.Request) (authz.Decision, error) {
	switch s := r.Subject; {
	case r.Action == "fail":
		return authz.Decision{}, errors.New("the engine is out of order")
	case !s.Active:
		return authz.Decision{Controls: []string{"active.subject"}}, nil
	case s.Tenant != r.Resource.Tenant:
		return authz.Decision{Controls: []string{"tenant.same"}}, nil
	case !slices.Contains(s.Roles, "sales") || r.Resource.Owner != s.ID:
		return authz.Decision{Controls: []string{"rbac.grant"}}, nil
	case r.Action == authz.Reveal:
		return authz.Decision{Allowed: true, Controls: []string{"rbac.own"}, Obligations: []authz.Obligation{authz.NeedReason}}, nil
	}
	return authz.Decision{Allowed: true, Controls: []string{"rbac.own"}}, nil
}

func (owners) Filter(context.Context, authz.Request) (authz.Filter, error) {
	return authz.Filter{}, nil
}

// asked reads a request from the address; a real program reads the session and its records.
func asked(r *http.Request) (authz.Request, []authz.Obligation, error) {
	if r.Header.Get("X-Broken") != "" {
		return authz.Request{}, nil, errors.New("no database")
	}
	who := r.Header.Get("X-User")
	if who == "" {
		return authz.Request{}, nil, nil
	}
	var met []authz.Obligation
	if r.Header.Get("X-Reason") != "" {
		met = append(met, authz.NeedReason)
	}
	ask := authz.Request{
		Subject: authz.Subject{ID: who, Tenant: "t", Roles: []string{"sales"}, Active: who != "left"},
		Action:  authz.Action(r.PathValue("action")),
	}
	if owner := r.PathValue("owner"); owner != "nobody" {
		ask.Resource = authz.Resource{Tenant: "t", Type: "customer", ID: "c1", Owner: owner}
	}
	return ask, met, nil
}

func protected() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/{owner}/{action}", authz.Protect(owners{}, asked, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Join(authz.DecisionFrom(r.Context()).Controls, " "))
	})))
	return mux
}

func TestProtect(t *testing.T) {
	for _, c := range []struct {
		name, path, user, header string
		status                   int
	}{
		{"own", "/e1/read", "e1", "", http.StatusOK},
		{"own, with its reason", "/e1/reveal", "e1", "X-Reason", http.StatusOK},
		{"own, without its reason", "/e1/reveal", "e1", "", http.StatusForbidden},
		{"another's", "/e2/read", "e1", "", http.StatusForbidden},
		{"another's, with a reason", "/e2/reveal", "e1", "X-Reason", http.StatusForbidden},
		{"none such", "/nobody/read", "e1", "", http.StatusForbidden},
		{"who has left", "/left/read", "left", "", http.StatusForbidden},
		{"nobody", "/e1/read", "", "", http.StatusUnauthorized},
		{"nobody, with a reason", "/e1/reveal", "", "X-Reason", http.StatusUnauthorized},
		{"no request", "/e1/read", "e1", "X-Broken", http.StatusInternalServerError},
		{"no decision", "/e1/fail", "e1", "", http.StatusInternalServerError},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, c.path, nil)
			r.Header.Set("X-User", c.user)
			if c.header != "" {
				r.Header.Set(c.header, "1")
			}
			w := httptest.NewRecorder()
			protected().ServeHTTP(w, r)
			assert.Equal(t, c.status, w.Code)
			if c.status == http.StatusOK {
				assert.Equal(t, "rbac.own", w.Body.String())
			} else {
				assert.Equal(t, http.StatusText(c.status)+"\n", w.Body.String(), "a refusal says no more than that")
			}
		})
	}
}

func TestDecisionFromNothing(t *testing.T) {
	assert.Error(t, authz.DecisionFrom(t.Context()).Proceed())
}

func ExampleProtect() {
	session := func(*http.Request) (authz.Request, []authz.Obligation, error) {
		return authz.Request{
			Subject:  authz.Subject{ID: "e1", Tenant: "t", Roles: []string{"sales"}, Active: true},
			Action:   authz.Read,
			Resource: authz.Resource{Tenant: "t", Type: "customer", ID: "c1", Owner: "e1"},
		}, nil, nil
	}
	page := authz.Protect(owners{}, session, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "allowed by ", authz.DecisionFrom(r.Context()).Controls)
	}))
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/customers/c1", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 allowed by [rbac.own]
}

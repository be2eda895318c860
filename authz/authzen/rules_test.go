package authzen_test

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authzen"
	"github.com/crmguard/crmguard/authz/cond"
)

var errDown = errors.New("alice@example.com: the database is down")

// rules permit admin everything, everybody to read and write active records of their own, and to delete
// them with a reason. They fail for the action "fail".
type rules struct{}

func (rules) Decide(_ context.Context, r authz.Request) (authz.Decision, error) {
	deny := func(control string) (authz.Decision, error) {
		return authz.Decision{Controls: []string{control}, Revision: "r1"}, nil
	}
	d := authz.Decision{Allowed: true, Controls: []string{"rbac.own"}, Revision: "r1",
		Fields: authz.Fields{ByClass: map[string]authz.Access{"personal": authz.Masked}, ByName: map[string]authz.Access{"name": authz.Open}}}
	known := []authz.Action{authz.Read, authz.Update, authz.Delete, authz.Export}
	switch s := r.Subject; {
	case r.Action == "fail":
		return authz.Decision{}, errDown
	case !s.Active:
		return deny("active.subject")
	case s.Tenant != r.Resource.Tenant:
		return deny("tenant.same")
	case r.Resource.Type != "record" || !slices.Contains(known, r.Action):
		return deny("rbac.grant")
	case r.Resource.Level > s.Level:
		return deny("mac.clearance")
	case r.Action == authz.Export && r.Environment.Rows > 10:
		return deny("rows.few")
	case slices.Contains(s.Roles, "admin"):
		d.Controls = []string{"rbac.all"}
	case r.Resource.Owner != s.ID:
		return deny("rbac.grant")
	case r.Resource.State != "active" && r.Action != authz.Read:
		return deny("frozen.state")
	}
	if r.Action == authz.Delete {
		d.Obligations = []authz.Obligation{authz.NeedReason}
	}
	if r.Action == authz.Export {
		d.Obligations = []authz.Obligation{authz.NeedReason, "rows:100"}
	}
	return d, nil
}

func (rules) Filter(_ context.Context, r authz.Request) (authz.Filter, error) {
	switch {
	case r.Action == "fail":
		return authz.Filter{}, errDown
	case !r.Subject.Active || r.Resource.Type != "record":
		return authz.Filter{}, nil
	case slices.Contains(r.Subject.Roles, "admin"):
		return authz.All(), nil
	}
	return authz.When(cond.Eq("owner", r.Subject.ID)), nil
}

// firm is a directory. Its caller may carry a tenant; it knows nobody of another one.
type firm struct {
	subjects  []authz.Subject
	resources []authz.Resource
}

func newFirm() *firm {
	return &firm{
		subjects: []authz.Subject{
			{ID: "alice", Tenant: "t", Active: true},
			{ID: "bob", Tenant: "t", Roles: []string{"admin"}, Active: true, Level: 2},
			{ID: "carol", Tenant: "t", Roles: []string{"admin"}},
			{ID: "dave", Tenant: "u", Roles: []string{"admin"}, Active: true, Level: 2},
		},
		resources: []authz.Resource{
			{Tenant: "t", Type: "record", ID: "record-1", Owner: "alice", State: "active"},
			{Tenant: "t", Type: "record", ID: "record-2", Owner: "alice", State: "archived"},
			{Tenant: "t", Type: "record", ID: "record-3", Owner: "erin", State: "active"},
			{Tenant: "t", Type: "record", ID: "record-4", Owner: "alice", State: "active", Level: 2},
			{Tenant: "u", Type: "record", ID: "record-9", Owner: "dave", State: "active"},
		},
	}
}

func (f *firm) Subject(_ context.Context, typ, id string) (authz.Subject, error) {
	switch i := slices.IndexFunc(f.subjects, func(s authz.Subject) bool { return s.ID == id }); {
	case id == "broken":
		return authz.Subject{}, errDown
	case id == "empty":
		return authz.Subject{}, nil
	case i >= 0 && typ == "user":
		return f.subjects[i], nil
	}
	return authz.Subject{}, authzen.ErrNotFound
}

func (f *firm) Resource(_ context.Context, typ, id string) (authz.Resource, error) {
	switch i := slices.IndexFunc(f.resources, func(r authz.Resource) bool { return r.ID == id && r.Type == typ }); {
	case id == "broken":
		return authz.Resource{}, errDown
	case i >= 0:
		return f.resources[i], nil
	}
	return authz.Resource{}, authzen.ErrNotFound
}

// listed is a firm that can be searched.
type listed struct{ *firm }

func (l listed) Subjects(_ context.Context, tenant, typ, after string) iter.Seq2[authz.Subject, error] {
	return func(yield func(authz.Subject, error) bool) {
		for _, s := range l.subjects {
			if s.Tenant == tenant && typ == "user" && s.ID > after && !yield(s, nil) {
				return
			}
		}
	}
}

func (l listed) Resources(_ context.Context, tenant, typ, after string, f authz.Filter) iter.Seq2[authz.Resource, error] {
	return func(yield func(authz.Resource, error) bool) {
		admit := f.Admit()
		for _, r := range l.resources {
			if r.Tenant == tenant && r.Type == typ && r.ID > after && admit(&r) && !yield(r, nil) {
				return
			}
		}
	}
}

func (l listed) Actions(_ context.Context, typ string) ([]authz.Action, error) {
	switch typ {
	case "record":
		return []authz.Action{authz.Update, authz.Read, authz.Delete, "shred"}, nil
	case "broken":
		return nil, errDown
	}
	return nil, nil
}

// caller lets in whoever has the token, and knows one that may not ask.
func caller(r *http.Request) (context.Context, error) {
	switch r.Header.Get("Authorization") {
	case "Bearer good":
		return r.Context(), nil
	case "Bearer weak":
		return r.Context(), authzen.ErrForbidden
	case "Bearer down":
		return nil, errDown
	case "Bearer nil":
		return nil, nil
	}
	return nil, authzen.ErrUnauthenticated
}

func clock() time.Time { return time.Date(2026, 7, 1, 9, 0, 0, 0, time.UTC) }

func serve(t testing.TB, az authz.Authorizer, dir authzen.Directory, opts *authzen.Options) http.Handler {
	t.Helper()
	h, err := authzen.New(az, dir, caller, opts)
	require.NoError(t, err)
	return h
}

// post sends a body as the caller that may ask.
func post(h http.Handler, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer good")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

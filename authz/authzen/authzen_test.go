package authzen_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authzen"
)

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		az   authz.Authorizer
		dir  authzen.Directory
		opts *authzen.Options
	}{
		"no authorizer": {nil, newFirm(), nil},
		"no directory":  {rules{}, nil, nil},
		"page size":     {rules{}, newFirm(), &authzen.Options{PageSize: -1}},
		"http":          {rules{}, newFirm(), &authzen.Options{URL: "http://pdp.example.com"}},
		"no host":       {rules{}, newFirm(), &authzen.Options{URL: "https:///x"}},
		"no scheme":     {rules{}, newFirm(), &authzen.Options{URL: "pdp.example.com"}},
		"a query":       {rules{}, newFirm(), &authzen.Options{URL: "https://pdp.example.com?x=1"}},
		"a fragment":    {rules{}, newFirm(), &authzen.Options{URL: "https://pdp.example.com#x"}},
		"a user":        {rules{}, newFirm(), &authzen.Options{URL: "https://me@pdp.example.com"}},
		"no URL at all": {rules{}, newFirm(), &authzen.Options{URL: "https://pdp.example.com\x7f"}},
	} {
		_, err := authzen.New(c.az, c.dir, caller, c.opts)
		require.ErrorIs(t, err, authzen.ErrOptions, name)
	}
}

func TestCaller(t *testing.T) {
	h := serve(t, rules{}, newFirm(), &authzen.Options{Challenge: `Bearer realm="pdp"`})
	nobody, err := authzen.New(rules{}, newFirm(), nil, nil)
	require.NoError(t, err)
	for _, c := range []struct {
		name, token string
		h           http.Handler
		status      int
	}{
		{"known", "Bearer good", h, http.StatusOK},
		{"unknown", "Bearer bad", h, http.StatusUnauthorized},
		{"none", "", h, http.StatusUnauthorized},
		{"neither context nor error", "Bearer nil", h, http.StatusUnauthorized},
		{"may not ask", "Bearer weak", h, http.StatusForbidden},
		{"nobody knows", "Bearer down", h, http.StatusInternalServerError},
		{"nobody may ask", "Bearer good", nobody, http.StatusUnauthorized},
		{"nobody may ask, and nobody does", "", nobody, http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/access/v1/evaluation", strings.NewReader(ask("alice", "read", "record-1", "")))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", c.token)
			r.Header.Set("X-Request-ID", "bfe9eb29")
			w := httptest.NewRecorder()
			c.h.ServeHTTP(w, r)
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, "bfe9eb29", w.Header().Get("X-Request-ID"))
			assert.Equal(t, c.status == http.StatusUnauthorized, w.Header().Get("WWW-Authenticate") != "")
			assert.NotContains(t, w.Body.String(), "alice")
		})
	}
}

func TestTransport(t *testing.T) {
	h := serve(t, rules{}, newFirm(), nil)
	good := ask("alice", "read", "record-1", "")
	for _, c := range []struct {
		name, method, path, kind, body string
		status                         int
	}{
		{"good", "POST", "/access/v1/evaluation", "application/json", good, 200},
		{"with its charset", "POST", "/access/v1/evaluation", "application/json; charset=UTF-8", good, 200},
		{"another charset", "POST", "/access/v1/evaluation", "application/json; charset=utf-16", good, 400},
		{"text", "POST", "/access/v1/evaluation", "text/plain", good, 400},
		{"another kind of JSON", "POST", "/access/v1/evaluation", "application/merge-patch+json", good, 400},
		{"a form", "POST", "/access/v1/evaluation", "application/x-www-form-urlencoded", "a=b", 400},
		{"no type", "POST", "/access/v1/evaluation", "", good, 400},
		{"GET", "GET", "/access/v1/evaluation", "application/json", good, 405},
		{"PUT", "PUT", "/access/v1/evaluations", "application/json", good, 405},
		{"another path", "POST", "/access/v1/evaluation/", "application/json", good, 404},
		{"another version", "POST", "/access/v2/evaluation", "application/json", good, 404},
		{"a search that is not served", "POST", "/access/v1/search/subject", "application/json", good, 404},
		{"metadata that are not served", "GET", "/.well-known/authzen-configuration", "", "", 404},
		{"as large as it may be", "POST", "/access/v1/evaluation", "application/json", good + strings.Repeat(" ", 1<<20-len(good)), 200},
		{"too large", "POST", "/access/v1/evaluation", "application/json", good + strings.Repeat(" ", 1<<20-len(good)+1), 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Header.Set("Content-Type", c.kind)
			r.Header.Set("Authorization", "Bearer good")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			assert.Equal(t, c.status, w.Code, w.Body.String())
			assert.Empty(t, w.Header().Get("X-Request-ID"))
		})
	}
	r := httptest.NewRequest(http.MethodPost, "/access/v1/evaluation", io.MultiReader(strings.NewReader("{"), broken{}))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer good")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	assert.Equal(t, http.StatusBadRequest, w.Code, "a body that breaks off")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestErrorsNameNobody sends ids that must not come back, neither to the caller nor into the log's message.
func TestErrorsNameNobody(t *testing.T) {
	var log bytes.Buffer
	h := serve(t, rules{}, listed{newFirm()}, &authzen.Options{Log: slog.New(slog.NewJSONHandler(&log, nil))})
	for _, path := range []string{"evaluation", "evaluations", "search/subject", "search/resource", "search/action"} {
		for _, body := range []string{
			ask("broken", "read", "broken", ""), ask("alice", "fail", "record-1", ""), ask("alice", "read", "", ""),
			`{"subject":"alice"}`, `{"subject":{"type":"user","id":["alice"]}}`, `{"alice":1,"alice":2}`, `alice`,
			ask("alice", "read", "record-1", `,"context":{"purpose":["alice"]},"page":{"token":"alice"},"options":{"evaluations_semantic":"alice"}`),
			`{"evaluations":[` + ask("broken", "read", "record-1", "") + `,{"subject":"alice"}]}`,
		} {
			w := post(h, "/access/v1/"+path, body)
			if w.Code != http.StatusOK {
				assert.NotContains(t, w.Body.String(), "alice", path+body)
			}
			assert.NotContains(t, w.Body.String(), "example.com", path+body)
			assert.Equal(t, w.Code == http.StatusInternalServerError, strings.Contains(w.Body.String(), "internal error") && w.Code != http.StatusOK)
		}
	}
	assert.Contains(t, log.String(), "the database is down", "the operator learns what happened")
}

func TestStoppedBatch(t *testing.T) {
	h, err := authzen.New(rules{}, newFirm(), func(r *http.Request) (context.Context, error) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		return ctx, nil
	}, nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusInternalServerError, post(h, "/access/v1/evaluations", ask("alice", "read", "record-1", `,"evaluations":[{}]`)).Code)
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		name, url, path string
		dir             authzen.Directory
		want            map[string]string
	}{
		{"without searches", "https://pdp.example.com", "/.well-known/authzen-configuration", newFirm(), map[string]string{
			"policy_decision_point":       "https://pdp.example.com",
			"access_evaluation_endpoint":  "https://pdp.example.com/access/v1/evaluation",
			"access_evaluations_endpoint": "https://pdp.example.com/access/v1/evaluations",
		}},
		{"below a path", "https://pdp.example.com/tenant1/", "/.well-known/authzen-configuration/tenant1", listed{newFirm()}, map[string]string{
			"policy_decision_point":       "https://pdp.example.com/tenant1/",
			"access_evaluation_endpoint":  "https://pdp.example.com/tenant1/access/v1/evaluation",
			"access_evaluations_endpoint": "https://pdp.example.com/tenant1/access/v1/evaluations",
			"search_subject_endpoint":     "https://pdp.example.com/tenant1/access/v1/search/subject",
			"search_resource_endpoint":    "https://pdp.example.com/tenant1/access/v1/search/resource",
			"search_action_endpoint":      "https://pdp.example.com/tenant1/access/v1/search/action",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t, rules{}, c.dir, &authzen.Options{URL: c.url})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil)) // by nobody
			require.Equal(t, http.StatusOK, w.Code)
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			var got map[string]string
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
			assert.Equal(t, c.want, got)
			for name, url := range got {
				if name != "policy_decision_point" {
					path := strings.TrimPrefix(url, "https://pdp.example.com")
					assert.Equal(t, http.StatusBadRequest, post(h, path, "").Code, "%s is served", name)
				}
			}
			w = httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, c.path, nil))
			assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
		})
	}
}

func ExampleNew() {
	authenticate := func(r *http.Request) (context.Context, error) {
		if r.Header.Get("Authorization") != "Bearer good" {
			return nil, authzen.ErrUnauthenticated
		}
		return r.Context(), nil
	}
	h, err := authzen.New(rules{}, newFirm(), authenticate, nil)
	if err != nil {
		panic(err)
	}
	for _, token := range []string{"good", "bad"} {
		r := httptest.NewRequest(http.MethodPost, "/access/v1/evaluation", strings.NewReader(`{
			"subject":  {"type": "user", "id": "alice"},
			"action":   {"name": "delete"},
			"resource": {"type": "record", "id": "record-1"}
		}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 {"decision":false,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"}],"revision":"r1"}}
	// 401 unknown caller
}

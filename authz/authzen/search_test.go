package authzen_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authzen"
)

type reply struct {
	Page struct {
		Next  *string `json:"next_token"`
		Count int     `json:"count"`
	} `json:"page"`
	Results []struct{ Type, ID, Name string } `json:"results"`
}

func (r reply) ids() []string {
	out := []string{}
	for _, f := range r.Results {
		out = append(out, f.ID+f.Name)
	}
	return out
}

func search(t *testing.T, h http.Handler, path, body string) reply {
	t.Helper()
	w := post(h, "/access/v1/search/"+path, body)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var r reply
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &r))
	require.NotNil(t, r.Page.Next)
	require.NotNil(t, r.Results, "an array, even when it is empty")
	assert.Len(t, r.Results, r.Page.Count)
	return r
}

func TestSearch(t *testing.T) {
	h := serve(t, rules{}, listed{newFirm()}, nil)
	for _, c := range []struct {
		name, path, body string
		want             []string
	}{
		{"who reads", "subject", ask("", "read", "record-1", ""), []string{"alice", "bob"}},
		{"an id of who is sought is not read", "subject", ask("alice", "read", "record-3", ""), []string{"bob"}},
		{"who deletes, without a reason", "subject", ask("", "delete", "record-1", ""), []string{}},
		{"who deletes, with a reason", "subject", ask("", "delete", "record-1", `,"context":{"met":["reason"]}`), []string{"alice", "bob"}},
		{"who does an unknown thing", "subject", ask("", "shred", "record-1", ""), []string{}},
		{"who reads an unknown one", "subject", ask("", "read", "record-7", ""), []string{}},
		{"an unknown type of subject", "subject", `{"subject":{"type":"spaceship"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, []string{}},
		{"another tenant's record", "subject", ask("", "read", "record-9", ""), []string{"dave"}},

		{"what alice reads", "resource", ask("alice", "read", "", ""), []string{"record-1", "record-2"}},
		{"what alice updates", "resource", ask("alice", "update", "record-3", ""), []string{"record-1"}},
		{"what bob reads", "resource", ask("bob", "read", "", ""), []string{"record-1", "record-2", "record-3", "record-4"}},
		{"what bob deletes, without a reason", "resource", ask("bob", "delete", "", ""), []string{}},
		{"what somebody reads who has left", "resource", ask("carol", "read", "", ""), []string{}},
		{"what nobody reads", "resource", ask("mallory", "read", "", ""), []string{}},
		{"of an unknown type", "resource", `{"subject":{"type":"user","id":"bob"},"action":{"name":"read"},"resource":{"type":"spaceship"}}`, []string{}},
		{"what dave reads", "resource", ask("dave", "read", "", ""), []string{"record-9"}},

		{"what alice does", "action", ask("alice", "", "record-1", ""), []string{"read", "update"}},
		{"what alice does, with a reason", "action", ask("alice", "shred", "record-1", `,"context":{"met":["reason"]}`), []string{"delete", "read", "update"}},
		{"what alice does with a frozen one", "action", ask("alice", "", "record-2", ""), []string{"read"}},
		{"what alice does with another's", "action", ask("alice", "", "record-3", ""), []string{}},
		{"what nobody does", "action", ask("nonexistent-user", "", "record-1", ""), []string{}},
		{"with an unknown one", "action", ask("bob", "", "record-7", ""), []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := search(t, h, c.path, c.body)
			assert.Equal(t, c.want, r.ids())
			assert.Empty(t, *r.Page.Next)
		})
	}
	r := search(t, h, "subject", ask("", "read", "record-1", ""))
	assert.Equal(t, "user", r.Results[0].Type)
}

// TestSearchAgreesWithEvaluation asks for each result, and for each that is none.
func TestSearchAgreesWithEvaluation(t *testing.T) {
	firm := newFirm()
	h := serve(t, rules{}, listed{firm}, nil)
	for _, s := range firm.subjects {
		for _, action := range []string{"read", "update", "delete", "shred"} {
			for _, context := range []string{"", `,"context":{"met":["reason"]}`} {
				found := search(t, h, "resource", ask(s.ID, action, "", context)).ids()
				for _, r := range firm.resources {
					w := post(h, "/access/v1/evaluation", ask(s.ID, action, r.ID, context))
					var a struct{ Decision bool }
					require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
					who := search(t, h, "subject", ask("", action, r.ID, context)).ids()
					what := search(t, h, "action", ask(s.ID, "", r.ID, context)).ids()
					name := fmt.Sprint(s.ID, " ", action, " ", r.ID, context)
					contains := assert.NotContains
					if a.Decision {
						contains = assert.Contains
					}
					contains(t, found, r.ID, name)
					contains(t, who, s.ID, name)
					contains(t, what, action, name)
				}
			}
		}
	}
}

func TestPages(t *testing.T) {
	firm := newFirm()
	h := serve(t, rules{}, listed{firm}, &authzen.Options{PageSize: 3})
	read := func(page string) string { return ask("bob", "read", "", `,"page":`+page) }

	first := search(t, h, "resource", read(`{}`))
	assert.Equal(t, []string{"record-1", "record-2", "record-3"}, first.ids(), "the size of a page of this server")
	last := search(t, h, "resource", read(`{"token":"`+*first.Page.Next+`"}`))
	assert.Equal(t, []string{"record-4"}, last.ids())
	assert.Empty(t, *last.Page.Next)

	assert.Len(t, search(t, h, "resource", read(`{"limit":99}`)).ids(), 3, "a limit above it")
	assert.Len(t, search(t, h, "resource", read(`{"limit":0}`)).ids(), 3, "no limit")

	// One by one.
	for _, c := range []struct {
		path string
		body func(page string) string
		want []string
	}{
		{"resource", read, []string{"record-1", "record-2", "record-3", "record-4"}},
		{"subject", func(page string) string { return ask("", "read", "record-1", `,"page":`+page) }, []string{"alice", "bob"}},
		{"action", func(page string) string { return ask("bob", "", "record-1", `,"page":`+page) }, []string{"read", "update"}},
	} {
		got := search(t, h, c.path, c.body(`{"limit":1}`))
		ids := got.ids()
		for *got.Page.Next != "" {
			got = search(t, h, c.path, c.body(`{"limit":1,"token":"`+*got.Page.Next+`"}`))
			require.Len(t, got.ids(), 1)
			ids = append(ids, got.ids()...)
		}
		assert.Equal(t, c.want, ids, c.path)
	}

	token := *first.Page.Next
	for name, body := range map[string]string{
		"another subject":  ask("alice", "read", "", `,"page":{"token":"`+token+`"}`),
		"another action":   ask("bob", "update", "", `,"page":{"token":"`+token+`"}`),
		"another context":  ask("bob", "read", "", `,"context":{"rows":1},"page":{"token":"`+token+`"}`),
		"another limit":    read(`{"token":"` + token + `","limit":2}`),
		"a longer token":   read(`{"token":"` + token + `="}`),
		"a shorter token":  read(`{"token":"` + token[:20] + `"}`),
		"another token":    read(`{"token":"B` + token[1:] + `"}`),
		"a line in it":     read(`{"token":"` + token[:8] + `\n` + token[8:] + `"}`),
		"a token and page": read(`{"token":"` + token + `","limit":-3}`),
	} {
		assert.Equal(t, http.StatusBadRequest, post(h, "/access/v1/search/resource", body).Code, name)
	}
	assert.Equal(t, http.StatusBadRequest, post(h, "/access/v1/search/subject", read(`{"token":"`+token+`"}`)).Code, "another search")

	// A server whose pages have become smaller does not continue with larger ones.
	small := serve(t, rules{}, listed{firm}, &authzen.Options{PageSize: 2})
	assert.Equal(t, http.StatusBadRequest, post(small, "/access/v1/search/resource", read(`{"token":"`+token+`"}`)).Code)
}

// failing fails in the middle of each list.
type failing struct{ listed }

func (f failing) Resources(ctx context.Context, tenant, typ, after string, admit authz.Filter) iter.Seq2[authz.Resource, error] {
	return func(yield func(authz.Resource, error) bool) {
		for r := range f.listed.Resources(ctx, tenant, typ, after, admit) {
			if !yield(r, nil) {
				return
			}
		}
		yield(authz.Resource{}, errDown)
	}
}

func TestSearchAnswersInFullOrNotAtAll(t *testing.T) {
	h := serve(t, rules{}, failing{listed{newFirm()}}, nil)
	for path, body := range map[string]string{
		"resource": ask("bob", "read", "", ""),
		"action":   `{"subject":{"type":"user","id":"bob"},"resource":{"type":"record","id":"broken"}}`,
		"subject":  ask("", "fail", "record-1", ""),
	} {
		w := post(h, "/access/v1/search/"+path, body)
		assert.Equal(t, http.StatusInternalServerError, w.Code, path)
		assert.Equal(t, "internal error\n", w.Body.String(), path)
	}
	assert.Equal(t, http.StatusInternalServerError, post(h, "/access/v1/search/resource", ask("bob", "fail", "", "")).Code, "no filter")

	dir := newFirm()
	dir.resources = append(dir.resources, authz.Resource{Tenant: "t", Type: "broken", ID: "b"})
	h = serve(t, rules{}, listed{dir}, nil)
	w := post(h, "/access/v1/search/action", `{"subject":{"type":"user","id":"bob"},"resource":{"type":"broken","id":"b"}}`)
	assert.Equal(t, http.StatusInternalServerError, w.Code, "no actions")
}

package authzen_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz/authzen"
)

// ask writes an evaluation about a record. more is added to the body.
func ask(subject, action, resource, more string) string {
	return fmt.Sprintf(`{"subject":{"type":"user","id":%q},"action":{"name":%q},"resource":{"type":"record","id":%q}%s}`,
		subject, action, resource, more)
}

const (
	masks   = `"fields":{"classes":{"personal":"masked"},"names":{"name":"open"}},"revision":"r1"`
	ownYes  = `{"decision":true,"context":{"controls":["rbac.own"],` + masks + `}}`
	allYes  = `{"decision":true,"context":{"controls":["rbac.all"],` + masks + `}}`
	grantNo = `{"decision":false,"context":{"controls":["rbac.grant"],"revision":"r1"}}`
	unknown = `{"decision":false,"context":{"controls":["authzen.known"]}}`
)

func TestEvaluation(t *testing.T) {
	h := serve(t, rules{}, newFirm(), &authzen.Options{Now: clock})
	for _, c := range []struct{ name, body, want string }{
		{"own", ask("alice", "read", "record-1", ""), ownYes},
		{"any, as admin", ask("bob", "read", "record-3", ""), allYes},
		{"another's", ask("alice", "read", "record-3", ""), grantNo},
		{"a frozen one", ask("alice", "update", "record-2", ""), `{"decision":false,"context":{"controls":["frozen.state"],"revision":"r1"}}`},
		{"above the clearance", ask("alice", "read", "record-4", ""), `{"decision":false,"context":{"controls":["mac.clearance"],"revision":"r1"}}`},
		{"who has left", ask("carol", "read", "record-1", ""), `{"decision":false,"context":{"controls":["active.subject"],"revision":"r1"}}`},
		{"another tenant's", ask("dave", "read", "record-1", ""), `{"decision":false,"context":{"controls":["tenant.same"],"revision":"r1"}}`},
		{"an unknown action", ask("bob", "shred", "record-1", ""), grantNo},
		{"an unknown person", ask("mallory", "read", "record-1", ""), unknown},
		{"a person without an id", ask("empty", "read", "record-1", ""), unknown},
		{"an unknown record", ask("bob", "read", "record-7", ""), unknown},
		{"an unknown type", `{"subject":{"type":"user","id":"bob"},"action":{"name":"read"},"resource":{"type":"spaceship","id":"record-1"}}`, unknown},
		{"an unknown type of subject", `{"subject":{"type":"robot","id":"bob"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, unknown},

		{"an obligation that is met", ask("alice", "delete", "record-1", `,"context":{"met":["reason"]}`),
			`{"decision":true,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"}],` + masks + `}}`},
		{"an obligation that nobody has heard of", ask("alice", "delete", "record-1", ""),
			`{"decision":false,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"}],"revision":"r1"}}`},
		{"one of two obligations", ask("alice", "export", "record-1", `,"context":{"met":["reason","rows:101"]}`),
			`{"decision":false,"context":{"controls":["rbac.own"],"obligations":[{"id":"rows:100"}],"revision":"r1"}}`},
		{"both obligations", ask("alice", "export", "record-1", `,"context":{"met":["rows:100","reason"]}`),
			`{"decision":true,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"},{"id":"rows:100"}],` + masks + `}}`},
		{"a denial names no obligations", ask("alice", "delete", "record-3", `,"context":{"met":["reason"]}`), grantNo},
		{"too many rows", ask("alice", "export", "record-1", `,"context":{"rows":11,"met":["reason","rows:1"]}`),
			`{"decision":false,"context":{"controls":["rows.few"],"revision":"r1"}}`},

		{"context that is not read", ask("alice", "read", "record-1", `,"context":{"time":"2025-06-27T18:03-07:00","ip":"192.168.1.1","x":{"y":[1]}}`), ownYes},
		{"a time that is none, and not read", ask("alice", "read", "record-1", `,"context":{"time":5}`), ownYes},
		{"unknown fields", ask("alice", "read", "record-1", `,"foo":"bar","futureField":{"nested":true},"Subject":"x"`), ownYes},
		{"null is absent", ask("alice", "read", "record-1", `,"context":null`), ownYes},
		{"evaluations are not read here", ask("alice", "read", "record-1", `,"evaluations":[{}]`), ownYes},
		{"properties are not believed",
			`{"subject":{"type":"user","id":"alice","properties":{"roles":["admin"],"level":9}},"action":{"name":"read","properties":{"method":"GET"}},
			"resource":{"type":"record","id":"record-3","properties":{"owner":"alice","x":1}}}`, grantNo},
		{"properties of a wrong type are not read",
			`{"subject":{"type":"user","id":"alice","properties":{"level":"high"}},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, ownYes},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(h, "/access/v1/evaluation", c.body)
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.JSONEq(t, c.want, w.Body.String())
		})
	}
}

func TestTrustedProperties(t *testing.T) {
	h := serve(t, rules{}, newFirm(), &authzen.Options{Now: clock, TrustProperties: true})
	about := func(subject, resource, context string) string {
		return fmt.Sprintf(`{"subject":{"type":"user","id":"alice","properties":%s},"action":{"name":"update"},
			"resource":{"type":"record","id":"record-3","properties":%s},"context":%s}`, subject, resource, context)
	}
	for _, c := range []struct {
		name, body string
		allowed    bool
	}{
		{"a role", about(`{"roles":["admin"]}`, `{}`, `{}`), true},
		{"an owner", about(`{}`, `{"owner":"alice"}`, `{}`), true},
		{"no properties", about(`null`, `null`, `null`), false},
		{"a null is no property", about(`{"roles":null}`, `{"owner":null}`, `{}`), false},
		{"a state that denies", about(`{}`, `{"owner":"alice","state":"archived"}`, `{}`), false},
		{"a level that denies", about(`{}`, `{"owner":"alice","level":1}`, `{}`), false},
		{"a level that permits again", about(`{"level":1}`, `{"owner":"alice","level":1}`, `{}`), true},
		{"the rest", about(`{"roles":["admin"],"team":"/a/","session":"s","compartments":["x"],"zone":"UTC","region":"eu","device":"managed","pools":["p"]}`,
			`{"team":"/a/","compartments":[],"actors":["a"],"consents":["sales"],"held":true,"amount":5,"pool":"p"}`,
			`{"time":"2025-06-27T18:03-07:00","ip":"192.168.1.1","purpose":"sales","rows":1}`), true},
		{"a tenant is never read", about(`{"tenant":"u"}`, `{"tenant":"u"}`, `{}`), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(h, "/access/v1/evaluation", c.body)
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			assert.Contains(t, w.Body.String(), fmt.Sprintf(`"decision":%v`, c.allowed))
		})
	}
	// Who has left stays away, and another tenant's stays there, whatever a caller says.
	for _, id := range []string{"carol", "dave"} {
		w := post(h, "/access/v1/evaluation", `{"subject":{"type":"user","id":"`+id+`","properties":{"active":true,"tenant":"t","roles":["admin"]}},
			"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`)
		assert.Contains(t, w.Body.String(), `"decision":false`, id)
	}
	for name, bad := range map[string]string{
		"roles as text":          about(`{"roles":"admin"}`, `{}`, `{}`),
		"a role that is null":    about(`{"roles":["admin",null]}`, `{}`, `{}`),
		"a role that is 1":       about(`{"roles":[1]}`, `{}`, `{}`),
		"level as text":          about(`{"level":"1"}`, `{}`, `{}`),
		"level as fraction":      about(`{"level":1.5}`, `{}`, `{}`),
		"level out of range":     about(`{"level":1e99}`, `{}`, `{}`),
		"team as number":         about(`{"team":1}`, `{}`, `{}`),
		"pools as text":          about(`{"pools":"p"}`, `{}`, `{}`),
		"a pool that is null":    about(`{"pools":[null]}`, `{}`, `{}`),
		"pool as list":           about(`{}`, `{"pool":["p"]}`, `{}`),
		"held as number":         about(`{}`, `{"held":0}`, `{}`),
		"amount as text":         about(`{}`, `{"amount":"5"}`, `{}`),
		"owner as object":        about(`{}`, `{"owner":{}}`, `{}`),
		"consents as object":     about(`{}`, `{"consents":{}}`, `{}`),
		"a time that is none":    about(`{}`, `{}`, `{"time":"noon"}`),
		"a time as number":       about(`{}`, `{}`, `{"time":5}`),
		"an address that is not": about(`{}`, `{}`, `{"ip":"host"}`),
		"an address as number":   about(`{}`, `{}`, `{"ip":5}`),
		"half a surrogate":       about(`{"team":"\ud800"}`, `{}`, `{}`),
	} {
		assert.Equal(t, http.StatusBadRequest, post(h, "/access/v1/evaluation", bad).Code, name)
	}
}

func TestMalformed(t *testing.T) {
	dir := listed{newFirm()}
	h := serve(t, rules{}, dir, nil)
	paths := []string{"evaluation", "evaluations", "search/subject", "search/resource", "search/action"}
	for _, c := range []struct {
		name, body string
		paths      []string // nil: all
		says       string
	}{
		{"nothing", "", nil, "body is not JSON"},
		{"half", `{"subject":`, nil, "body is not JSON"},
		{"two", `{}{}`, nil, "body is not JSON"},
		{"an array", `[]`, nil, "body must be an object"},
		{"null", `null`, nil, "body must be an object"},
		{"not UTF-8", "{\"subject\":\"\xff\"}", nil, "body is not JSON"},
		{"a name twice", `{"subject":{"type":"user","id":"alice"},"subject":{"type":"user","id":"bob"}}`, nil, "a name occurs twice"},
		{"a name twice within", `{"subject":{"type":"user","id":"alice","properties":{"a":[{"b":1,"b":2}]}}}`, nil, "a name occurs twice"},
		{"a name twice, escaped", `{"subject":1,"\u0073ubject":2}`, nil, "a name occurs twice"},
		{"deep", `{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, nil, "nested too deep"},
		{"a number beyond a double", `{"subject":{"type":"user","id":"alice"},"x":1e400}`, nil, "a number is out of range"},
		{"a number beyond a double, within", `{"x":[{"y":-1e309}]}`, nil, "a number is out of range"},
		{"nothing in it", `{}`, nil, "subject.type is required"},
		{"subject as text", `{"subject":"alice","action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject must be an object"},
		{"subject as array", `{"subject":[],"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject must be an object"},
		{"subject without type", `{"subject":{"id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject.type is required"},
		{"subject without id", `{"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, []string{"evaluation", "evaluations", "search/resource", "search/action"}, "subject.id is required"},
		{"subject with an empty id", `{"subject":{"type":"user","id":""},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, []string{"evaluation"}, "subject.id is required"},
		{"subject in another case", `{"Subject":{"type":"user","id":"bob"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject.type is required"},
		{"id as number", `{"subject":{"type":"user","id":1},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject.id has a wrong type"},
		{"half a surrogate", `{"subject":{"type":"user","id":"\ud800"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject.id is not text"},
		{"properties as array", `{"subject":{"type":"user","id":"bob","properties":[]},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`, nil, "subject.properties must be an object"},
		{"action as text", `{"subject":{"type":"user","id":"bob"},"action":"read","resource":{"type":"record","id":"record-1"}}`, nil, "action must be an object"},
		{"no action", `{"subject":{"type":"user","id":"bob"},"resource":{"type":"record","id":"record-1"}}`, paths[:4], "action.name is required"},
		{"action without name", `{"subject":{"type":"user","id":"bob"},"action":{},"resource":{"type":"record","id":"record-1"}}`, paths[:4], "action.name is required"},
		{"name as number", `{"subject":{"type":"user","id":"bob"},"action":{"name":123},"resource":{"type":"record","id":"record-1"}}`, nil, "action.name has a wrong type"},
		{"no resource", `{"subject":{"type":"user","id":"bob"},"action":{"name":"read"}}`, nil, "resource.type is required"},
		{"resource without type", `{"subject":{"type":"user","id":"bob"},"action":{"name":"read"},"resource":{"id":"record-1"}}`, nil, "resource.type is required"},
		{"resource without id", `{"subject":{"type":"user","id":"bob"},"action":{"name":"read"},"resource":{"type":"record"}}`, []string{"evaluation", "evaluations", "search/subject", "search/action"}, "resource.id is required"},
		{"context as array", ask("bob", "read", "record-1", `,"context":[]`), nil, "context must be an object"},
		{"met as text", ask("bob", "read", "record-1", `,"context":{"met":"reason"}`), nil, "context.met has a wrong type"},
		{"purpose as number", ask("bob", "read", "record-1", `,"context":{"purpose":1}`), nil, "context.purpose has a wrong type"},
		{"rows as text", ask("bob", "read", "record-1", `,"context":{"rows":"1"}`), nil, "context.rows has a wrong type"},
		{"rows below none", ask("bob", "read", "record-1", `,"context":{"rows":-1}`), nil, "context.rows is negative"},
		{"page as array", ask("bob", "read", "record-1", `,"page":[]`), paths[2:], "page must be an object"},
		{"limit as text", ask("bob", "read", "record-1", `,"page":{"limit":"1"}`), paths[2:], "page.limit has a wrong type"},
		{"limit below none", ask("bob", "read", "record-1", `,"page":{"limit":-1}`), paths[2:], "page.limit has a wrong type"},
		{"token as number", ask("bob", "read", "record-1", `,"page":{"token":1}`), paths[2:], "page.token has a wrong type"},
		{"a made-up token", ask("bob", "read", "record-1", `,"page":{"token":"AAAA"}`), paths[2:], "page.token is not of this search"},
		{"a token that is none", ask("bob", "read", "record-1", `,"page":{"token":"%"}`), paths[2:], "page.token is not of this search"},
		{"options as array", ask("bob", "read", "record-1", `,"options":[]`), []string{"evaluations"}, "options must be an object"},
		{"an unknown semantic", ask("bob", "read", "record-1", `,"evaluations":[{}],"options":{"evaluations_semantic":"all"}`), []string{"evaluations"}, "options.evaluations_semantic is unknown"},
		{"semantic as number", ask("bob", "read", "record-1", `,"evaluations":[{}],"options":{"evaluations_semantic":1}`), []string{"evaluations"}, "options.evaluations_semantic has a wrong type"},
		{"evaluations as object", ask("bob", "read", "record-1", `,"evaluations":{}`), []string{"evaluations"}, "evaluations has a wrong type"},
		{"a default as text", `{"subject":"alice","evaluations":[{}]}`, []string{"evaluations"}, "subject must be an object"},
		{"too many", `{"evaluations":[` + strings.Repeat(`{},`, 1000) + `{}]}`, []string{"evaluations"}, "more than 1000 evaluations"},
	} {
		where := c.paths
		if where == nil {
			where = paths
		}
		for _, path := range where {
			t.Run(c.name+" "+path, func(t *testing.T) {
				w := post(h, "/access/v1/"+path, c.body)
				assert.Equal(t, http.StatusBadRequest, w.Code)
				assert.Equal(t, c.says+"\n", w.Body.String())
			})
		}
	}
}

func TestEvaluations(t *testing.T) {
	h := serve(t, rules{}, newFirm(), nil)
	const record1 = `"resource":{"type":"record","id":"record-1"}`
	no := func(status int, message string) string {
		return fmt.Sprintf(`{"decision":false,"context":{"error":{"status":%d,"message":%q}}}`, status, message)
	}
	for _, c := range []struct{ name, body, want string }{
		{"no array", ask("alice", "read", "record-1", ""), ownYes},
		{"an empty array", ask("alice", "read", "record-1", `,"evaluations":[]`), ownYes},
		{"a null array", ask("alice", "read", "record-1", `,"evaluations":null`), ownYes},
		{"without defaults", `{"evaluations":[` + ask("alice", "read", "record-1", "") + `,` + ask("alice", "read", "record-3", "") + `]}`,
			`{"evaluations":[` + ownYes + `,` + grantNo + `]}`},
		{"with defaults", `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"evaluations":[{` + record1 + `},
			{"resource":{"type":"record","id":"record-3"}},{` + record1 + `,"action":{"name":"shred"}},{` + record1 + `,"subject":{"type":"user","id":"bob"}}]}`,
			`{"evaluations":[` + ownYes + `,` + grantNo + `,` + grantNo + `,` + allYes + `]}`},
		{"a default for a part of an entity", `{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record"},
			"evaluations":[{"resource":{"id":"record-1"}},{"resource":{"id":"record-3"},"subject":null}]}`,
			`{"evaluations":[` + ownYes + `,` + grantNo + `]}`},
		{"a default context", `{"subject":{"type":"user","id":"alice"},"action":{"name":"delete"},` + record1 + `,"context":{"met":["reason"]},
			"evaluations":[{},{"context":{}},{"context":{"met":[]}}]}`,
			`{"evaluations":[{"decision":true,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"}],` + masks + `}},
			{"decision":false,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"}],"revision":"r1"}},
			{"decision":false,"context":{"controls":["rbac.own"],"obligations":[{"id":"reason"}],"revision":"r1"}}]}`},
		{"errors of single ones", `{"subject":{"type":"user","id":"bob"},"action":{"name":"read"},"evaluations":[{` + record1 + `},{},5,{"resource":"x"},
			{"resource":{"type":"record","id":"broken"}},{"resource":{"type":"record","id":"none"}},{"action":{"name":"fail"},` + record1 + `}]}`,
			`{"evaluations":[` + allYes + `,` + no(400, "resource.type is required") + `,` + no(400, "evaluation must be an object") + `,` +
				no(400, "resource must be an object") + `,` + no(500, "internal error") + `,` + unknown + `,` + no(500, "internal error") + `]}`},
		{"all", `{"options":{"evaluations_semantic":"execute_all","another":1},"evaluations":[` + ask("alice", "read", "record-3", "") + `,` + ask("alice", "read", "record-1", "") + `]}`,
			`{"evaluations":[` + grantNo + `,` + ownYes + `]}`},
		{"until the first denial", `{"options":{"evaluations_semantic":"deny_on_first_deny"},"evaluations":[` + ask("alice", "read", "record-1", "") + `,` + ask("alice", "read", "record-3", "") + `,` + ask("bob", "read", "record-1", "") + `]}`,
			`{"evaluations":[` + ownYes + `,` + grantNo + `]}`},
		{"until the first error", `{"options":{"evaluations_semantic":"deny_on_first_deny"},"evaluations":[{},` + ask("alice", "read", "record-1", "") + `]}`,
			`{"evaluations":[` + no(400, "subject.type is required") + `]}`},
		{"until the first permission", `{"options":{"evaluations_semantic":"permit_on_first_permit"},"evaluations":[` + ask("alice", "read", "record-3", "") + `,` + ask("alice", "read", "record-1", "") + `,` + ask("bob", "read", "record-1", "") + `]}`,
			`{"evaluations":[` + grantNo + `,` + ownYes + `]}`},
		{"an error permits nothing", `{"options":{"evaluations_semantic":"permit_on_first_permit"},"evaluations":[{},` + ask("alice", "read", "record-1", "") + `]}`,
			`{"evaluations":[` + no(400, "subject.type is required") + `,` + ownYes + `]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(h, "/access/v1/evaluations", c.body)
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			assert.JSONEq(t, c.want, w.Body.String())
		})
	}
}

package authzen_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzEvaluation sends bodies to every path. Nothing but a status of the specification comes back, and a
// permission only for a body that another parser reads as the very request that is permitted.
func FuzzEvaluation(f *testing.F) {
	for _, body := range []string{
		ask("alice", "read", "record-1", ""),
		ask("alice", "delete", "record-1", `,"context":{"met":["reason"],"rows":1,"purpose":"sales"}`),
		`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record"},"options":{"evaluations_semantic":"deny_on_first_deny"},"evaluations":[{"resource":{"id":"record-1"}},{}]}`,
		ask("bob", "read", "record-1", `,"page":{"limit":1,"token":"AQ"}`),
		`{"subject":{"type":"user","id":"bob","properties":{"roles":["admin"]}},"Subject":null}`,
	} {
		f.Add(body)
	}
	h := serve(f, rules{}, listed{newFirm()}, nil)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"evaluation", "evaluations", "search/subject", "search/resource", "search/action"} {
			w := post(h, "/access/v1/"+path, body)
			text := w.Body.String()
			switch w.Code {
			case http.StatusOK:
				if !json.Valid([]byte(text)) {
					t.Fatalf("%s: not JSON: %q", path, text)
				}
			case http.StatusBadRequest, http.StatusInternalServerError, http.StatusRequestEntityTooLarge:
				if strings.Count(text, "\n") != 1 || len(text) > 100 {
					t.Fatalf("%s: an error of more than a line: %q", path, text)
				}
			default:
				t.Fatalf("%s: status %d", path, w.Code)
			}
			if path != "evaluation" || !strings.HasPrefix(text, `{"decision":true`) {
				continue
			}
			type entity struct{ Type, ID, Name string }
			var asked map[string]any
			if err := json.Unmarshal([]byte(body), &asked); err != nil || !utf8.ValidString(body) {
				t.Fatalf("permitted what is not JSON: %q", body)
			}
			of := func(name string) (e entity) {
				m, _ := asked[name].(map[string]any)
				e.Type, _ = m["type"].(string)
				e.ID, _ = m["id"].(string)
				e.Name, _ = m["name"].(string)
				return e
			}
			s, r := of("subject"), of("resource")
			own := s.ID == "alice" && (r.ID == "record-1" || r.ID == "record-2")
			all := s.ID == "bob" && strings.HasPrefix(r.ID, "record-")
			if s.Type != "user" || r.Type != "record" || !own && !all {
				t.Fatalf("permitted %q", body)
			}
			if name := of("action").Name; name != "read" && name != "update" && name != "delete" && name != "export" {
				t.Fatalf("permitted %q", body)
			}
		}
	})
}

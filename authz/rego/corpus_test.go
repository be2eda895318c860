package rego_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	oparego "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authztest"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/authz/review"
)

// corpusFile holds the cases of authztest as lines of JSON, for programs in any language.
const corpusFile = "../authztest/testdata/corpus.jsonl"

type corpusLine struct {
	Name        string             `json:"name"`
	Request     json.RawMessage    `json:"request"` // as policies see it
	Allowed     bool               `json:"allowed"`
	Controls    []string           `json:"controls"`    // all that were met, or those that failed
	Obligations []authz.Obligation `json:"obligations"` // to be met before proceeding
}

// TestCorpusFile: the file holds what the Go cases say, and OPA itself, without this package, answers each line so.
func TestCorpusFile(t *testing.T) {
	e := engine(t)
	cases := slices.Concat(authztest.Corpus(), authztest.Controls())
	var b bytes.Buffer
	allowed := 0
	for _, c := range cases {
		d, err := e.Decide(t.Context(), c.Request)
		require.NoError(t, err)
		require.Equal(t, c.Allowed, d.Allowed, c.Name)
		if d.Allowed {
			allowed++
		}
		line, err := json.Marshal(corpusLine{c.Name, rego.Record(c.Request, d).Input, d.Allowed, d.Controls, append([]authz.Obligation{}, d.Obligations...)})
		require.NoError(t, err)
		b.Write(append(line, '\n'))
	}
	require.Greater(t, len(cases)-allowed, allowed, "denials outnumber permissions")
	golden(t, corpusFile, b.String())

	options := []func(*oparego.Rego){oparego.Query("x = data.crm.authz.decision")}
	require.NoError(t, fs.WalkDir(rego.Embedded(), "crm", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.rego") {
			return err
		}
		text, err := fs.ReadFile(rego.Embedded(), name)
		options = append(options, oparego.Module(name, string(text)))
		return err
	}))
	var data map[string]any
	require.NoError(t, json.Unmarshal([]byte(filesOf(t, rego.Embedded())["data.json"]), &data))
	query, err := oparego.New(append(options, oparego.Store(inmem.NewFromObject(data)))...).PrepareForEval(t.Context())
	require.NoError(t, err)
	text, err := os.ReadFile(corpusFile)
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	require.Len(t, lines, len(cases))
	words := func(v any) []string {
		out := []string{}
		for _, w := range v.([]any) {
			out = append(out, w.(string))
		}
		return out
	}
	for _, text := range lines {
		var line corpusLine
		require.NoError(t, json.Unmarshal(text, &line))
		in, err := ast.ValueFromReader(bytes.NewReader(line.Request))
		require.NoError(t, err)
		rs, err := query.Eval(t.Context(), oparego.EvalParsedInput(in))
		require.NoError(t, err)
		require.Len(t, rs, 1)
		x := rs[0].Bindings["x"].(map[string]any)
		required, met := words(x["required"]), words(x["met"])
		lacking := slices.DeleteFunc(slices.Clone(required), func(c string) bool { return slices.Contains(met, c) })
		assert.Equal(t, line.Allowed, len(lacking) == 0, line.Name)
		if line.Allowed {
			all := slices.Concat(met, words(x["grounds"]))
			assert.ElementsMatch(t, line.Controls, all, line.Name)
			var needs []authz.Obligation
			for _, o := range words(x["obligations"]) {
				needs = append(needs, authz.Obligation(o))
			}
			assert.ElementsMatch(t, line.Obligations, needs, line.Name)
		} else {
			assert.ElementsMatch(t, line.Controls, lacking, line.Name)
		}
	}
}

// TestMatrix writes what each role may do as tables that a reviewer reads as a difference.
//
//crm:item 22
func TestMatrix(t *testing.T) {
	rego.Alone(t)
	long(t)
	var data struct {
		Settings struct {
			Inherits map[string][]string
			Grants   map[string]map[string]any
			Actions  []authz.Action
			Reserved map[string]string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(filesOf(t, rego.Embedded())["data.json"]), &data))
	s := data.Settings
	// In the order in which people read them; what is new comes last.
	order := func(first []string, all map[string]bool) []string {
		for _, name := range first {
			require.True(t, all[name], name)
			delete(all, name)
		}
		return append(first, sorted(all)...)
	}
	types, roles := map[string]bool{}, map[string]bool{}
	for role := range s.Inherits {
		roles[role] = true
		for typ := range s.Grants[role] {
			types[typ] = true
		}
	}
	var fields []review.Field
	for _, f := range [][3]string{
		{"customer", "name", "personal"}, {"customer", "phone", "personal"}, {"customer", "id_number", "sensitive"}, {"customer", "card", "financial"},
		{"customer", "stage", "internal"}, {"customer", "note", "personal"}, {"lead", "name", "personal"}, {"emergency", "reason", "internal"},
	} {
		fields = append(fields, review.Field{Type: f[0], Name: f[1], Class: f[2]})
	}
	tables, err := review.Matrix(t.Context(), engine(t),
		order([]string{"admin", "manager", "sales", "marketing", "support", "finance", "auditor", "analyst", "system"}, roles),
		order([]string{"customer", "contact", "lead", "follow_up", "quote", "contract", "ticket", "employee", "account", "log", "backup", "keys"}, types),
		s.Actions, &review.MatrixOptions{
			Subject: func(role string) authz.Subject {
				id := "e1"
				if only := s.Reserved[role]; only != "" {
					id = only
				}
				return authz.Subject{ID: id, Tenant: "t", Roles: []string{role}, Team: "/east/", Active: true, Pools: []string{"p1"}}
			},
			Sample: func(string) authz.Resource { return authz.Resource{State: "draft", Actors: []string{"e9"}} },
			Fields: fields, FieldActions: []authz.Action{authz.List, authz.Read, authz.Reveal, authz.Update, authz.Export},
		})
	require.NoError(t, err)
	var b strings.Builder
	for _, table := range tables {
		b.WriteString(table.String())
	}
	golden(t, "testdata/matrix.txt", b.String())
}

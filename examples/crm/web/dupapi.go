package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// apiDuplicate is one duplicate, as far as the caller may know of it.
type apiDuplicate struct {
	Band  string   `json:"band" enum:"likely,certain"`
	ID    string   `json:"id,omitempty" doc:"only of a record that you may read, as score and why"`
	Score float64  `json:"score,omitempty"`
	Why   []string `json:"why,omitempty" doc:"fields and comparators, such as phone: normalised"`
	Ask   string   `json:"ask,omitempty" doc:"of any other: the employee who has it"`
}

func apiDuplicates(found []dedupe.Match) []apiDuplicate {
	out := []apiDuplicate{}
	for _, m := range found {
		d := apiDuplicate{Band: m.Band.String(), Score: m.Score, Why: m.Why}
		if !m.ID.IsZero() {
			d.ID = m.ID.String()
		}
		if !m.Owner.IsZero() {
			d.Ask = m.Owner.String()
		}
		out = append(out, d)
	}
	return out
}

type apiFields struct {
	Fields map[string]json.RawMessage `json:"fields" doc:"by name, as a reading names them"`
}

type apiMade struct {
	Body struct {
		ID      string `json:"id"`
		Version int64  `json:"version"`
	}
}

type apiMatches struct {
	Body struct {
		Duplicates []apiDuplicate `json:"duplicates"`
	}
}

// apiPair is two records that are one thing.
type apiPair struct {
	A     string   `json:"a"`
	B     string   `json:"b"`
	Band  string   `json:"band" enum:"likely,certain"`
	Score float64  `json:"score"`
	Why   []string `json:"why"`
}

type apiPairs struct {
	Body struct {
		State   string    `json:"state" enum:"none,running,failed,done"`
		Done    int64     `json:"done" doc:"records and pairs that were looked at"`
		Total   int64     `json:"total"`
		At      time.Time `json:"at,omitzero" doc:"when the search ended"`
		Likely  int64     `json:"likely"`
		Certain int64     `json:"certain"`
		Left    int64     `json:"left" doc:"pairs that were found and are not kept, as the least alike"`
		Items   []apiPair `json:"items"`
	}
}

type apiMerged struct {
	Body struct {
		ID          string `json:"id" doc:"of the merge, for undo"`
		State       string `json:"state"`
		SharesEnded int    `json:"shares_ended" doc:"shares of the record that went; none of them is one of this record"`
	}
}

type apiRef struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type apiUndone struct {
	Body struct {
		Fields  []string `json:"fields" doc:"of the kept record, as they were before"`
		Changed []string `json:"changed" doc:"fields that stay, as they were changed since"`
		Moved   int      `json:"moved"`
		Shared  int      `json:"shared" doc:"shares of the record that is back, which count again"`
		Stayed  []apiRef `json:"stayed"`
	}
}

// fill sets the fields of v that a form of the type has, from JSON. What cannot be read is an *crm.InvalidError.
func (k *resource[P]) fill(v P, fields map[string]json.RawMessage) error {
	bad := &crm.InvalidError{Type: k.typ}
	for name, raw := range fields {
		inForm := slices.ContainsFunc(k.sections, func(sec section) bool {
			return slices.ContainsFunc(sec.fields, func(f field) bool { return f.name == name && f.kind != noInput })
		})
		if !inForm {
			bad.Fields = append(bad.Fields, crm.FieldError{Field: "fields", Rule: "unknown_value"}) // the name is the caller's, and may be anything
			continue
		}
		val := k.value(v, name)
		var err error
		if val.Type() == reflect.TypeFor[crm.Text]() {
			var s string
			if err = json.Unmarshal(raw, &s); err == nil {
				val.Set(reflect.ValueOf(crm.NewText(strings.TrimSpace(s))))
			}
		} else {
			err = json.Unmarshal(raw, val.Addr().Interface())
		}
		if err != nil {
			bad.Fields = append(bad.Fields, crm.FieldError{Field: name, Rule: "unknown_value"})
		}
	}
	if len(bad.Fields) > 0 {
		slices.SortFunc(bad.Fields, func(a, b crm.FieldError) int { return strings.Compare(a.Field, b.Field) })
		return bad
	}
	return nil
}

// begun is a new record with the given fields.
func (k *resource[P]) begun(s *Server, r *request, fields map[string]json.RawMessage) (P, error) {
	v := k.records.New()
	if k.prepare != nil {
		k.prepare(v, r.Request)
	}
	if err := k.fill(v, fields); err != nil {
		return v, err
	}
	return v, s.inherit(r, v)
}

// duplicateAPI registers what is done about duplicates of a type, and the making of records, which looks for them.
func (k *resource[P]) duplicateAPI(s *Server, api huma.API) {
	if k.dups == nil {
		return
	}
	base := "/api/v1/" + k.plural
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id + "-" + k.plural, Method: method, Path: path, Summary: summary, Tags: []string{k.plural}, MaxBodyBytes: 64 << 10}
	}
	caller := func(ctx context.Context) (guard.Caller, *request) {
		r := ctx.Value(apiKey{}).(*request)
		return r.caller(), r
	}
	create := op("create", http.MethodPost, base, "Make a record. 409 with the reason duplicate says that it exists, with the reason erased that somebody with such a number was erased")
	create.DefaultStatus = http.StatusCreated
	huma.Register(api, create, func(ctx context.Context, in *struct {
		Body struct {
			Fields     map[string]json.RawMessage `json:"fields" doc:"by name, as a reading names them"`
			Duplicates string                     `json:"duplicates,omitempty" enum:"check,allow" doc:"allow: make it although it exists, or somebody with such a number was erased. Where the CRM refuses what is certain, or the erased, it does so nevertheless"`
		}
	}) (*apiMade, error) {
		c, r := caller(ctx)
		v, err := k.begun(s, r, in.Body.Fields)
		if err == nil {
			err = k.exists(ctx, s, c, v, in.Body.Duplicates == "allow")
		}
		if err == nil {
			_, err = k.records.Create(ctx, c, v)
		}
		if err != nil {
			return nil, apiFault(err)
		}
		out := &apiMade{}
		h := v.Header()
		out.Body.ID, out.Body.Version = h.ID.String(), h.Version
		return out, nil
	})
	huma.Register(api, op("check", http.MethodPost, base+"/check", "Find duplicates of a record that is not stored; it costs one of your checks of an hour"),
		func(ctx context.Context, in *struct{ Body apiFields }) (*apiMatches, error) {
			c, r := caller(ctx)
			v, err := k.begun(s, r, in.Body.Fields)
			if err != nil {
				return nil, apiFault(err)
			}
			found, err := k.dups.Check(ctx, c, v)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiMatches{}
			out.Body.Duplicates = apiDuplicates(found)
			return out, nil
		})
	search := op("search-duplicates", http.MethodPost, base+"/duplicates", "Begin a search for all duplicates, where you may read all records; one that runs goes on")
	search.DefaultStatus = http.StatusAccepted
	huma.Register(api, search, func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		c, _ := caller(ctx)
		if err := k.findAll(ctx, s, c); err != nil {
			return nil, apiFault(err)
		}
		return nil, nil
	})
	huma.Register(api, op("list-duplicates", http.MethodGet, base+"/duplicates", "List what the last search found, the best first"),
		func(ctx context.Context, in *struct {
			From  int `query:"from" minimum:"0"`
			Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		}) (*apiPairs, error) {
			c, _ := caller(ctx)
			if ok, err := k.mayFindAll(ctx, c); err != nil {
				return nil, apiFault(err)
			} else if !ok {
				return nil, apiFault(guard.Deny("check.all"))
			}
			run := s.dups.get(k.typ)
			out := &apiPairs{}
			b := &out.Body
			b.Done, b.Total, b.At, b.Likely, b.Certain, b.Left, b.Items = run.done, run.total, run.at, run.report.Likely, run.report.Certain, run.left, []apiPair{}
			switch {
			case run.running:
				b.State = "running"
			case run.failed:
				b.State = "failed"
			case run.at.IsZero():
				b.State = "none"
			default:
				b.State = "done"
			}
			from := min(in.From, len(run.pairs))
			for _, p := range run.pairs[from:min(from+in.Limit, len(run.pairs))] {
				b.Items = append(b.Items, apiPair{p.A.String(), p.B.String(), p.Band.String(), p.Score, p.Why})
			}
			return out, nil
		})
	huma.Register(api, op("merge", http.MethodPost, base+"/{id}/merge", "Make one record of two: this one stays"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"36"`
			Body struct {
				Version     int64    `json:"version" minimum:"1" doc:"that you saw"`
				Drop        string   `json:"drop" maxLength:"36" doc:"the record that goes"`
				DropVersion int64    `json:"drop_version" minimum:"1"`
				Take        []string `json:"take,omitempty" maxItems:"100" doc:"names of the fields that this record takes of the other"`
			}
		}) (*apiMerged, error) {
			keep, err := crm.ParseUUID(in.ID)
			drop, err2 := crm.ParseUUID(in.Body.Drop)
			if err != nil || err2 != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			for _, name := range in.Body.Take {
				if !slices.Contains(k.dups.Fields(), name) {
					return nil, apiFault(&crm.InvalidError{Type: k.typ, Fields: []crm.FieldError{{Field: "take", Rule: "unknown_value"}}})
				}
			}
			c, _ := caller(ctx)
			m, err := k.dups.Merge(ctx, c, dedupe.Target{ID: keep, Version: in.Body.Version}, dedupe.Target{ID: drop, Version: in.Body.DropVersion}, in.Body.Take)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiMerged{}
			out.Body.ID, out.Body.State, out.Body.SharesEnded = m.ID.String(), string(m.State), m.SharesEnded()
			return out, nil
		})
}

// mergeAPI registers the undoing of merges.
func (s *Server) mergeAPI(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "undo-merges", Method: http.MethodPost, Path: "/api/v1/merges/{id}/undo", Summary: "Take a merge back", Tags: []string{"merges"}, MaxBodyBytes: 16 << 10,
	}, func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"36"`
	}) (*apiUndone, error) {
		u, err := crm.ParseUUID(in.ID)
		if err != nil {
			return nil, apiFault(crm.ErrNotFound)
		}
		c := ctx.Value(apiKey{}).(*request).caller()
		d, _, err := s.deduping(ctx, c, u)
		if err != nil {
			return nil, apiFault(err)
		}
		done, err := d.Undo(ctx, c, u)
		if err != nil {
			return nil, apiFault(err)
		}
		out := &apiUndone{}
		b := &out.Body
		b.Fields, b.Changed, b.Moved, b.Stayed = append([]string{}, done.Fields...), append([]string{}, done.Changed...), done.Moved, []apiRef{}
		b.Shared = done.Shared
		for _, ref := range done.Stayed {
			b.Stayed = append(b.Stayed, apiRef{ref.Type, ref.ID.String()})
		}
		return out, nil
	})
}

// duplicateFault adds to an answer, or to the page of an error, what duplicates and merges are refused for.
func duplicateFault(err error) (reason string, found []apiDuplicate, what page.Text) {
	var dup *duplicateError
	var refusal *dedupe.Refusal
	switch {
	case errors.As(err, &dup):
		if dup.erased {
			return "erased", apiDuplicates(dup.found), page.T("erased.warn")
		}
		return "duplicate", apiDuplicates(dup.found), page.T("dup.warn")
	case errors.As(err, &refusal):
		return "merge_" + refusal.Why, nil, page.T("dup.refusal." + refusal.Why)
	case errors.Is(err, guard.ErrTx):
		return "merge_large", nil, page.T("dup.large")
	}
	return "", nil, page.Text{}
}

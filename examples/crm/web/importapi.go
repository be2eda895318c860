package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// apiImport is an import and what became of its rows.
type apiImport struct {
	ID         string           `json:"id"`
	Version    int64            `json:"version"`
	Name       apiField         `json:"name" doc:"of the file"`
	Type       string           `json:"type"`
	Mode       string           `json:"mode" enum:"create,update,both"`
	State      string           `json:"state" enum:"running,done,undoing,undone"`
	Working    bool             `json:"working" doc:"somebody is at it now; else one that is running or undoing was cut off"`
	Total      int64            `json:"total,omitempty" doc:"rows of the file; 0: unknown"`
	Counts     apiImportCounts  `json:"counts"`
	Reasons    map[string]int64 `json:"reasons" doc:"how many rows were rejected for what: field:rule"`
	Undone     int64            `json:"undone"`
	Left       int64            `json:"left" doc:"not undone, for somebody changed them since"`
	CreatedAt  time.Time        `json:"created_at"`
	FinishedAt time.Time        `json:"finished_at,omitzero"`
}

type apiImportCounts struct {
	Rows      int64 `json:"rows"`
	Created   int64 `json:"created"`
	Updated   int64 `json:"updated"`
	Unchanged int64 `json:"unchanged"`
	Rejected  int64 `json:"rejected"`
	Matched   int64 `json:"matched" doc:"created although there is such a record"`
	Unchecked int64 `json:"unchecked" doc:"created without a look for such a record, or for people who were erased: enough was asked for this hour"`
	Erased    int64 `json:"erased" doc:"created although somebody with such a number was erased; where the CRM refuses them they are rejected as erased"`
}

// apiRejected is one row that was not stored.
type apiRejected struct {
	Row     int64             `json:"row"`
	Line    int64             `json:"line"`
	Reasons []transfer.Reason `json:"reasons"`
	Cells   []string          `json:"cells,omitempty"`
}

// apiRehearsal is what an import would do.
type apiRehearsal struct {
	Counts   apiImportCounts  `json:"counts"`
	Reasons  map[string]int64 `json:"reasons"`
	Rejected []apiRejected    `json:"rejected" doc:"the first thousand"`
	Mapping  transfer.Mapping `json:"mapping" doc:"that was used"`
}

type apiImportOne struct{ Body apiImport }

func (s *Server) importAnswer(v *guard.View[*transfer.Import]) apiImport {
	j := v.Value
	w, _ := s.app.ImportWork(j.ID.UUID())
	out := apiImport{
		ID: j.ID.String(), Version: j.Version, Name: apiField{Value: j.Name.Expose(), State: j.Name.State().String()}, Type: j.RecordType, Mode: string(j.Mode), State: string(j.State),
		Working: w.Running || w.Waiting, Total: w.Total, Counts: apiImportCounts(j.Counts()), Reasons: j.ByReason(), Undone: j.Undone, Left: j.Left,
		CreatedAt: j.CreatedAt, FinishedAt: j.FinishedAt,
	}
	return out
}

// importAPI registers imports. The file comes in parts, the fields before it, so that no part of it is kept in clear: huma would keep it, so this one operation is registered by hand.
func (s *Server) importAPI(mux *http.ServeMux, api huma.API) {
	caller := func(ctx context.Context) (guard.Caller, *request) {
		r := ctx.Value(apiKey{}).(*request)
		return r.caller(), r
	}
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{"imports"}, MaxBodyBytes: 16 << 10}
	}
	mux.HandleFunc("POST /api/v1/imports", func(w http.ResponseWriter, r *http.Request) {
		status, answer := http.StatusUnauthorized, any(nil)
		req, err := s.asks(w, r)
		switch {
		case err != nil:
		case req == nil:
			err = &apiError{Status: http.StatusUnauthorized, Title: http.StatusText(http.StatusUnauthorized), Detail: "sign in first"}
		case req.program: // which writes records one by one
			err = &authz.DeniedError{Controls: []string{"scope"}}
		default:
			status, answer, err = s.postImport(w, req)
		}
		kind := "application/json"
		if err != nil {
			var ready *apiError
			if !errors.As(err, &ready) {
				errors.As(apiFault(err), &ready)
			}
			status, answer, kind = ready.Status, ready, ready.ContentType("")
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer) // the client may be gone
	})
	text := func(what string) *huma.Schema { return &huma.Schema{Type: "string", Description: what} }
	post := op("create-import", http.MethodPost, "/api/v1/imports", "Import a file, or with dry_run do all of it and take it back")
	post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
		Type: "object", Required: []string{"type", "file"}, Properties: map[string]*huma.Schema{
			"type": text("of the records: customer, lead, contact, product or opportunity"), "mapping": text("JSON of a mapping; without it, what is suggested"),
			"mode": text("create, update or both"), "key": text("field by which records are found"), "dates": text("ymd, dmy or mdy"), "currency": text("ISO 4217"),
			"encoding": text("of CSV; without it, found out"), "separator": text("comma, semicolon, tab or bar; without it, found out"),
			"sheet":      text("of a workbook, by its name; without it, the first"),
			"duplicates": text("refuse, warn or off; without it, warn"), "dry_run": text("true: nothing stays"),
			"file": {Type: "string", Format: "binary", Description: "CSV or XLSX; the last part"},
		},
	}}}}
	post.Responses = map[string]*huma.Response{
		"200": {Description: "what a dry run found", Content: map[string]*huma.MediaType{"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[apiRehearsal](), true, "")}}},
		"202": {Description: "the import, which goes on by itself", Content: map[string]*huma.MediaType{"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[apiImport](), true, "")}}},
	}
	api.OpenAPI().AddOperation(&post)

	huma.Register(api, op("list-imports", http.MethodGet, "/api/v1/imports", "List the imports that you may see, newest first"),
		func(ctx context.Context, in *struct {
			After string `query:"after" doc:"next of the page before" maxLength:"400"`
			Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		}) (*struct {
			Body struct {
				Items []apiImport `json:"items"`
				Next  string      `json:"next,omitempty"`
			}
		}, error) {
			c, _ := caller(ctx)
			p, err := s.app.Imports.List(ctx, c, guard.Query{After: in.After, Limit: in.Limit, Sort: "created_at", Desc: true, Hide: []string{"mapping"}})
			if err != nil {
				return nil, apiFault(err)
			}
			out := &struct {
				Body struct {
					Items []apiImport `json:"items"`
					Next  string      `json:"next,omitempty"`
				}
			}{}
			out.Body.Items, out.Body.Next = []apiImport{}, p.Next
			for i := range p.Items {
				out.Body.Items = append(out.Body.Items, s.importAnswer(&p.Items[i]))
			}
			return out, nil
		})
	type byID struct {
		ID string `path:"id" maxLength:"36"`
	}
	one := func(ctx context.Context, in *byID, do func(c guard.Caller, u crm.UUID) error) (*apiImportOne, error) {
		u, err := crm.ParseUUID(in.ID)
		if err != nil {
			return nil, apiFault(crm.ErrNotFound)
		}
		c, _ := caller(ctx)
		if do != nil {
			if err := do(c, u); err != nil {
				return nil, apiFault(err)
			}
		}
		v, err := s.app.Imports.Get(ctx, c, u)
		if err != nil {
			return nil, apiFault(err)
		}
		return &apiImportOne{Body: s.importAnswer(&v)}, nil
	}
	huma.Register(api, op("get-import", http.MethodGet, "/api/v1/imports/{id}", "Read how far an import is, or what became of it"),
		func(ctx context.Context, in *byID) (*apiImportOne, error) { return one(ctx, in, nil) })
	accepted := func(o huma.Operation) huma.Operation { o.DefaultStatus = http.StatusAccepted; return o }
	huma.Register(api, accepted(op("undo-import", http.MethodPost, "/api/v1/imports/{id}/undo", "Take an import back; it goes on by itself")),
		func(ctx context.Context, in *byID) (*apiImportOne, error) {
			return one(ctx, in, func(c guard.Caller, u crm.UUID) error { return s.app.UndoImport(ctx, c, u) })
		})
	huma.Register(api, accepted(op("continue-import", http.MethodPost, "/api/v1/imports/{id}/continue", "Go on with an import, or an undo, that was cut off")),
		func(ctx context.Context, in *byID) (*apiImportOne, error) {
			return one(ctx, in, func(c guard.Caller, u crm.UUID) error { return s.app.ContinueImport(ctx, c, u) })
		})
	huma.Register(api, op("list-rejected", http.MethodGet, "/api/v1/imports/{id}/rejected", "List the rows of an import of yours that were not stored, with the reasons"),
		func(ctx context.Context, in *struct {
			ID    string `path:"id" maxLength:"36"`
			After int64  `query:"after" minimum:"0" doc:"row of the last one of the page before"`
			Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"200"`
		}) (*struct {
			Body struct {
				Items []apiRejected `json:"items"`
				More  bool          `json:"more"`
			}
		}, error) {
			out := &struct {
				Body struct {
					Items []apiRejected `json:"items"`
					More  bool          `json:"more"`
				}
			}{}
			out.Body.Items = []apiRejected{}
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			c, _ := caller(ctx)
			_, m, err := s.importOf(ctx, c, u)
			if err != nil {
				return nil, apiFault(err)
			}
			err = m.Rejected(ctx, c, crm.ID[transfer.Import](u), func(x transfer.Rejected) error {
				if x.Row <= in.After {
					return nil
				}
				if len(out.Body.Items) == in.Limit {
					out.Body.More = true
					return errEnough
				}
				out.Body.Items = append(out.Body.Items, apiRejected(x))
				return nil
			})
			if err != nil && !errors.Is(err, errEnough) {
				return nil, apiFault(err)
			}
			return out, nil
		})
}

// postImport takes a file and begins its import, or rehearses it and answers when that is over.
func (s *Server) postImport(w http.ResponseWriter, r *request) (int, any, error) {
	ctx, c := r.Context(), r.caller()
	if len(s.importable(ctx, c)) == 0 {
		return 0, nil, s.mayImport(r, "")
	}
	fields, file, err := parts(r.Request)
	if err != nil {
		return 0, nil, err
	}
	if err := s.mayImport(r, fields["type"]); err != nil {
		return 0, nil, err
	}
	u, err := s.receive(w, r, fields["type"], file)
	if err != nil {
		return 0, nil, err
	}
	begun := false
	defer func() {
		if !begun {
			s.app.Forget(u)
		}
	}()
	d := &draft{upload: u}
	if err := fileOptions(d, fields["encoding"], fields["separator"], fields["sheet"]); err != nil {
		return 0, nil, err
	}
	if err := s.look(ctx, c, d); err != nil {
		return 0, nil, err
	}
	m, err := s.app.Importer(ctx, c, u.Type, app.ImportOptions{})
	if err != nil {
		return 0, nil, err
	}
	st := &d.start
	if text := fields["mapping"]; text != "" {
		st.Mapping = transfer.Mapping{}
		if json.Unmarshal([]byte(text), &st.Mapping) != nil {
			return 0, nil, transfer.ErrMapping
		}
	}
	setHow(st, m, func(name string) string {
		if v := fields[name]; v != "" {
			return v
		}
		switch name { // of the mapping
		case "key":
			return st.Mapping.Key
		case "dates":
			return string(st.Mapping.Dates)
		case "currency":
			return st.Mapping.Currency
		}
		return ""
	})
	if err := checkStart(u.Type, st); err != nil {
		return 0, nil, err
	}
	if fields["dry_run"] == "true" {
		answer := make(chan apiRehearsal, 1)
		failed := make(chan error, 1)
		err := s.app.RehearseImport(c, u, *st, func(transfer.Counts) {}, func(rep transfer.Report, err error) {
			if err != nil {
				failed <- err
				return
			}
			a := apiRehearsal{Counts: apiImportCounts(rep.Counts), Reasons: rep.Reasons, Rejected: []apiRejected{}, Mapping: st.Mapping}
			for _, x := range rep.Rejected {
				a.Rejected = append(a.Rejected, apiRejected(x))
			}
			answer <- a
		})
		if err != nil {
			return 0, nil, err
		}
		select {
		case a := <-answer:
			return http.StatusOK, a, nil
		case err := <-failed:
			return 0, nil, err
		}
	}
	id, err := s.app.BeginImport(ctx, c, u, *st)
	begun = !id.IsZero()
	if err != nil {
		return 0, nil, err
	}
	v, err := s.app.Imports.Get(ctx, c, id)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusAccepted, s.importAnswer(&v), nil
}

package web

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/examples/crm/app"
)

type apiExport struct {
	Body struct {
		ID    string `json:"id"`
		State string `json:"state" enum:"open,requested"`
		Rows  int64  `json:"rows"`
	}
}

type apiTraced struct {
	Body struct {
		Exports []apiTrace `json:"exports"`
	}
}

type apiTrace struct {
	ID         string `json:"id"`
	RecordType string `json:"record_type"`
	Rows       int64  `json:"rows"`
	Owner      string `json:"owner"`
}

// exportAPI registers what exports can do beyond being listed and read.
func (s *Server) exportAPI(api huma.API) {
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{"exports"}, MaxBodyBytes: 16 << 10}
	}
	for _, typ := range app.ExportTypes {
		k := s.kind(typ)
		huma.Register(api, op("export-"+k.path(), http.MethodPost, "/api/v1/"+k.path()+"/exports", "Ask for an export; what nobody else has to approve is open and can be downloaded"),
			func(ctx context.Context, in *struct {
				Body struct {
					Filter   string   `json:"filter,omitempty" maxLength:"500" doc:"as the query of a URL: show=mine, show=overdue, or clear fields with their values"`
					Columns  []string `json:"columns,omitempty" maxItems:"100" doc:"names of fields; none: all that you may have"`
					Format   string   `json:"format,omitempty" enum:"csv,xlsx" default:"csv"`
					Reason   string   `json:"reason" minLength:"1" maxLength:"500"`
					Password string   `json:"password,omitempty" maxLength:"1024" doc:"yours once more, where the policy wants it"`
				}
			}) (*apiExport, error) {
				r := ctx.Value(apiKey{}).(*request)
				if err := s.proveAPI(r, in.Body.Password); err != nil {
					return nil, apiFault(err)
				}
				e, err := s.app.AskExport(ctx, s.exportCaller(r), app.ExportAsk{
					Type: typ, Filter: in.Body.Filter, Columns: in.Body.Columns, Format: in.Body.Format, Reason: in.Body.Reason,
				})
				if err != nil {
					return nil, apiFault(err)
				}
				out := &apiExport{}
				out.Body.ID, out.Body.State, out.Body.Rows = e.ID.String(), string(e.State), e.Rows
				return out, nil
			})
	}
	type decision struct {
		ID   string `path:"id" maxLength:"36"`
		Body struct {
			Version int64 `json:"version" minimum:"1" doc:"that you saw"`
		}
	}
	for act, to := range map[string]crm.ExportState{"approve": crm.ExportApproved, "refuse": crm.ExportRefused} {
		huma.Register(api, op(act+"-export", http.MethodPost, "/api/v1/exports/{id}/"+act, "Decide on somebody else's export: "+act),
			func(ctx context.Context, in *decision) (*struct{}, error) {
				u, err := crm.ParseUUID(in.ID)
				if err != nil {
					return nil, apiFault(crm.ErrNotFound)
				}
				r := ctx.Value(apiKey{}).(*request)
				if err := s.app.DecideExport(ctx, r.caller(), u, in.Body.Version, to); err != nil {
					return nil, apiFault(err)
				}
				return nil, nil
			})
	}
	huma.Register(api, op("download-export", http.MethodPost, "/api/v1/exports/{id}/download", "Take the file of your export, once; a connection that breaks off has not given all of it"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"36"`
			Body *struct {
				Password string `json:"password,omitempty" maxLength:"1024" doc:"yours once more, where the policy wants it"`
			}
		}) (*huma.StreamResponse, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			r := ctx.Value(apiKey{}).(*request)
			if in.Body != nil {
				if err := s.proveAPI(r, in.Body.Password); err != nil {
					return nil, apiFault(err)
				}
			}
			return &huma.StreamResponse{Body: func(h huma.Context) {
				_, w := humago.Unwrap(h)
				if err := s.sendExport(w, r, u); err != nil {
					writeFault(h, err)
				}
			}}, nil
		})
	huma.Register(api, op("trace-export", http.MethodPost, "/api/v1/exports/trace", "Find the exports that a row, an id or an address of a file comes from"),
		func(ctx context.Context, in *struct {
			Body struct {
				Text string `json:"text" minLength:"1" maxLength:"10000"`
			}
		}) (*apiTraced, error) {
			r := ctx.Value(apiKey{}).(*request)
			found, err := s.app.TraceExport(ctx, r.caller(), in.Body.Text)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiTraced{}
			out.Body.Exports = []apiTrace{}
			for _, e := range found {
				out.Body.Exports = append(out.Body.Exports, apiTrace{e.ID.String(), e.RecordType, e.Rows, e.Owner.String()})
			}
			return out, nil
		})
}

// proveAPI notes that the password was given once more. A wrong one is a denial.
func (s *Server) proveAPI(r *request, password string) error {
	if password == "" {
		return nil
	}
	ok, err := s.proved(r, password)
	if err == nil && !ok {
		err = &authz.DeniedError{Controls: []string{"access.granted"}, Unmet: []authz.Obligation{authz.NeedStepUp}}
	}
	return err
}

type apiSecret struct {
	Body struct {
		ID     string `json:"id"`
		Secret string `json:"secret" doc:"shown now and never again"`
	}
}

type apiSent struct {
	Body struct {
		Queued int `json:"queued"`
	}
}

// webhookAPI registers what endpoints and deliveries can do beyond being listed and read.
func (s *Server) webhookAPI(api huma.API) {
	op := func(id, method, path, summary, tag string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}, MaxBodyBytes: 16 << 10}
	}
	caller := func(ctx context.Context) guard.Caller { return ctx.Value(apiKey{}).(*request).caller() }
	ob := s.app.Outbox
	huma.Register(api, op("create-endpoint", http.MethodPost, "/api/v1/endpoints", "Make an endpoint, which reads as you", "endpoints"),
		func(ctx context.Context, in *struct {
			Body struct {
				Name   string   `json:"name" minLength:"1" maxLength:"200"`
				URL    string   `json:"url" minLength:"1" maxLength:"2000" doc:"https; its address must be public"`
				Types  []string `json:"types" minItems:"1" maxItems:"40" doc:"of records, such as customer"`
				Acts   []string `json:"acts,omitempty" maxItems:"2" enum:"changed,deleted" doc:"none: both"`
				Fields []string `json:"fields,omitempty" maxItems:"100" doc:"that are sent; none: all that you see in a list"`
			}
		}) (*apiSecret, error) {
			e := &outbox.Endpoint{Name: in.Body.Name, URL: crm.NewText(in.Body.URL), Types: in.Body.Types, Acts: in.Body.Acts, Fields: in.Body.Fields}
			if len(e.Acts) == 0 {
				e.Acts = []string{outbox.ActChanged, outbox.ActDeleted}
			}
			secret, err := ob.Create(ctx, caller(ctx), e)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiSecret{}
			out.Body.ID, out.Body.Secret = e.ID.String(), secret.Expose()
			return out, nil
		})
	type one struct {
		ID string `path:"id" maxLength:"36"`
	}
	huma.Register(api, op("rotate-endpoint", http.MethodPost, "/api/v1/endpoints/{id}/rotate", "Make a new secret; the old one signs beside it for a day", "endpoints"),
		func(ctx context.Context, in *one) (*apiSecret, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			secret, err := ob.Rotate(ctx, caller(ctx), u, rotateOverlap)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiSecret{}
			out.Body.ID, out.Body.Secret = in.ID, secret.Expose()
			return out, nil
		})
	acts := []struct {
		id, method, path, summary, tag string
		do                             func(context.Context, guard.Caller, crm.UUID) error
	}{
		{"pause-endpoint", http.MethodPost, "/api/v1/endpoints/{id}/pause", "Read and send nothing until it is resumed", "endpoints", ob.Pause},
		{"resume-endpoint", http.MethodPost, "/api/v1/endpoints/{id}/resume", "Go on from where it was paused", "endpoints", ob.Resume},
		{"test-endpoint", http.MethodPost, "/api/v1/endpoints/{id}/test", "Send a message that tells of nothing", "endpoints", ob.Test},
		{"replay-delivery", http.MethodPost, "/api/v1/deliveries/{id}/replay", "Send a dead message again", "deliveries", ob.Replay},
		{"delete-endpoint", http.MethodDelete, "/api/v1/endpoints/{id}", "Delete an endpoint: nothing is sent to it any more", "endpoints", s.deleteEndpoint},
	}
	for _, a := range acts {
		huma.Register(api, op(a.id, a.method, a.path, a.summary, a.tag), func(ctx context.Context, in *one) (*struct{}, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			if err := a.do(ctx, caller(ctx), u); err != nil {
				return nil, apiFault(err)
			}
			return nil, nil
		})
	}
	huma.Register(api, op("replay-endpoint", http.MethodPost, "/api/v1/endpoints/{id}/replay", "Send all dead messages of an endpoint again", "endpoints"),
		func(ctx context.Context, in *one) (*apiSent, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			n, err := ob.ReplayAll(ctx, caller(ctx), u)
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiSent{}
			out.Body.Queued = n
			return out, nil
		})
}

// deleteEndpoint deletes an endpoint as it is now.
func (s *Server) deleteEndpoint(ctx context.Context, c guard.Caller, u crm.UUID) error {
	v, err := s.app.Endpoints.Get(ctx, c, u)
	if err != nil {
		return err
	}
	return s.app.Endpoints.Delete(ctx, c, u, v.Value.Version)
}

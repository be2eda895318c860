package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/pool"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// apiKey carries the request of who is signed in.
type apiKey struct{}

// api registers the REST interface: the same records through the same door, as JSON. Each field comes
// with its state; masked and hidden ones are what the policy leaves of them.
func (s *Server) api(mux *http.ServeMux) {
	cfg := huma.DefaultConfig("crmguard CRM", "1")
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "/api/openapi", "", "", nil
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "a token of a program, within its scope: crmg_..."}, "session": {Type: "apiKey", In: "cookie", Name: s.named("crm-session")},
	}
	cfg.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	// The default answer to a request that does not fit repeats the value that was sent; ours names the place.
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		e := &apiError{Status: status, Title: http.StatusText(status)}
		if status < 500 {
			e.Detail = message
		}
		for _, err := range errs {
			var d *huma.ErrorDetail
			if errors.As(err, &d) {
				e.Places = append(e.Places, d.Location)
			}
		}
		return e
	}
	api := humago.New(mux, cfg)
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		req, err := s.asks(w, r)
		if err != nil {
			_ = huma.WriteErr(api, ctx, statusOf(err), "")
			return
		}
		if req == nil {
			_ = huma.WriteErr(api, ctx, http.StatusUnauthorized, "sign in first")
			return
		}
		next(huma.WithValue(ctx, apiKey{}, req))
	})
	for _, k := range s.kinds {
		k.(interface{ register(huma.API) }).register(api)
		if d, ok := k.(interface{ duplicateAPI(*Server, huma.API) }); ok {
			d.duplicateAPI(s, api)
		}
	}
	s.mergeAPI(api)
	s.erasureAPI(api)
	s.leavingAPI(api)
	s.poolAPI(api)
	s.importAPI(mux, api)
	s.exportAPI(api)
	s.webhookAPI(api)
}

// asks returns who asks by REST: a program with a token, or without a token and a session with a client certificate, else who is signed in and has nothing to do before. nil is nobody, and the answer says which proof there is.
func (s *Server) asks(w http.ResponseWriter, r *http.Request) (*request, error) {
	text, ok := bearer(r)
	certificate := !ok && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && len(r.CookiesNamed(s.named("crm-session"))) == 0
	if ok || certificate {
		var p *app.Program
		var err error
		if certificate {
			p, err = s.app.ProgramByCertificate(r.Context(), r.TLS, addr(r))
		} else {
			p, err = s.app.Program(r.Context(), text, addr(r))
		}
		if errors.Is(err, app.ErrSignIn) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return &request{
			Request: r, w: w, sessions: s.app.Sessions, session: &session.Session{Tenant: app.Tenant, Person: p.Subject.ID, ID: p.Subject.Session},
			self: p.Employee, subject: p.Subject, lang: lang(r), program: true, scope: p.Scope,
		}, nil
	}
	req, _, err := s.signedIn(w, r)
	if err != nil {
		return nil, err
	}
	if req == nil || s.first(req) != "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return nil, nil
	}
	return req, nil
}

// bearer returns what stands in the header Authorization after Bearer. ok says that there is such a header, also where there are two or nothing is in it: a cookie
// beside it is not looked at.
func bearer(r *http.Request) (text string, ok bool) {
	for _, v := range r.Header.Values("Authorization") {
		if scheme, _, _ := strings.Cut(v, " "); strings.EqualFold(scheme, "Bearer") {
			return token.FromRequest(r), true
		}
	}
	return "", false
}

// apiError is RFC 9457's problem, without the values that were sent.
type apiError struct {
	Status   int      `json:"status"`
	Title    string   `json:"title"`
	Detail   string   `json:"detail,omitempty"`
	Places   []string `json:"places,omitempty"`
	Controls []string `json:"controls,omitempty"`
	Ref      string   `json:"ref,omitempty"`
	// Reason is why a pool or an import refuses something, and Until when it may be tried again; duplicate says that the record exists.
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	// Duplicates are what exists, beside the reason duplicate.
	Duplicates []apiDuplicate `json:"duplicates,omitempty"`
}

// Error returns title and detail.
func (e *apiError) Error() string { return e.Title + ": " + e.Detail }

// GetStatus is the HTTP status.
func (e *apiError) GetStatus() int { return e.Status }

// ContentType is RFC 9457's.
func (e *apiError) ContentType(string) string { return "application/problem+json" }

// apiFault turns an error of the door into an answer.
func apiFault(err error) error {
	e := &apiError{Status: statusOf(err)}
	e.Title = http.StatusText(e.Status)
	if e.Status == http.StatusInternalServerError {
		e.Ref = newID()
		slog.Error("request failed", "ref", e.Ref, "err", err) // names types, ids and rules, never values
	}
	var denied *authz.DeniedError
	var invalid *crm.InvalidError
	var refusal *pool.Refusal
	if reason, found, _ := duplicateFault(err); reason != "" {
		e.Reason, e.Duplicates = reason, found
	}
	if errors.As(err, &refusal) {
		e.Reason, e.Until = string(refusal.Reason), refusal.Until
	}
	if errors.As(err, &denied) {
		e.Controls = denied.Controls
		for _, o := range denied.Unmet {
			e.Controls = append(slices.Clone(e.Controls), "obligation."+string(o))
		}
	}
	if _, word := importFault(err); word != "" {
		e.Reason = word
	}
	if word, _ := erasureFault(err); word != "" {
		e.Reason = word
	}
	if places, _ := leftOver(err); places != nil {
		e.Reason, e.Places = "owns", places
	}
	if errors.As(err, &invalid) {
		for _, f := range invalid.Fields {
			e.Places = append(e.Places, f.Field+" "+f.Rule)
		}
	}
	return e
}

// writeFault answers with an error where nothing was sent yet.
func writeFault(ctx huma.Context, err error) {
	var e *apiError
	if errors.As(apiFault(err), &e) {
		ctx.SetHeader("Content-Type", e.ContentType(""))
		ctx.SetStatus(e.Status)
		_ = json.NewEncoder(ctx.BodyWriter()).Encode(e) // the client may be gone
	}
}

// apiField is one field of a record.
type apiField struct {
	Value any    `json:"value"`
	State string `json:"state" enum:"clear,masked,hidden,sealed,erased"`
}

// apiRecord is one record.
type apiRecord struct {
	ID      string              `json:"id"`
	Version int64               `json:"version"`
	Fields  map[string]apiField `json:"fields"`
}

type apiPage struct {
	Body struct {
		Items []apiRecord `json:"items"`
		Next  string      `json:"next,omitempty"`
	}
}

type apiOne struct{ Body apiRecord }

func (k *resource[P]) record(v *guard.View[P]) apiRecord {
	h := v.Value.Header()
	out := apiRecord{ID: h.ID.String(), Version: h.Version, Fields: map[string]apiField{}}
	for _, f := range k.records.Fields() {
		if slices.Contains(inner, f.Name) {
			continue
		}
		state := crm.Clear
		var value any
		switch x := k.value(v.Value, f.Name).Interface().(type) {
		case crm.Text:
			state, value = x.State(), x.Expose()
		case time.Time:
			if !x.IsZero() {
				value = x
			}
		default:
			value = x
			if u, ok := asUUID(reflect.ValueOf(x)); ok {
				value = u.String()
			}
		}
		if v.Fields[f.Name] == authz.Hidden {
			state, value = crm.Hidden, nil
		}
		out.Fields[f.Name] = apiField{Value: value, State: state.String()}
	}
	return out
}

// register adds the operations of one type.
func (k *resource[P]) register(api huma.API) {
	base := "/api/v1/" + k.plural
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id + "-" + k.plural, Method: method, Path: path, Summary: summary, Tags: []string{k.plural}, MaxBodyBytes: 64 << 10}
	}
	caller := func(ctx context.Context) (guard.Caller, *request) {
		r := ctx.Value(apiKey{}).(*request)
		return r.caller(), r
	}
	huma.Register(api, op("list", http.MethodGet, base, fmt.Sprintf("List the %s that you may see, newest first", k.plural)),
		func(ctx context.Context, in *struct {
			After string `query:"after" doc:"next of the page before" maxLength:"400"`
			Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		}) (*apiPage, error) {
			c, _ := caller(ctx)
			p, err := k.records.List(ctx, c, guard.Query{After: in.After, Limit: in.Limit, Sort: k.sort, Desc: true})
			if err != nil {
				return nil, apiFault(err)
			}
			out := &apiPage{}
			out.Body.Next = p.Next
			out.Body.Items = []apiRecord{}
			for i := range p.Items {
				out.Body.Items = append(out.Body.Items, k.record(&p.Items[i]))
			}
			return out, nil
		})
	huma.Register(api, op("get", http.MethodGet, base+"/{id}", "Read one record"),
		func(ctx context.Context, in *struct {
			ID string `path:"id" maxLength:"36"`
		}) (*apiOne, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			c, _ := caller(ctx)
			v, err := k.records.Get(ctx, c, u)
			if err != nil {
				return nil, apiFault(err)
			}
			return &apiOne{Body: k.record(&v)}, nil
		})
	if len(k.searchable) > 0 {
		huma.Register(api, op("search", http.MethodPost, base+"/search", "Find records by a complete name, phone or e-mail"),
			func(ctx context.Context, in *struct {
				Body struct {
					Term string `json:"term" minLength:"1" maxLength:"200"`
				}
			}) (*apiPage, error) {
				c, _ := caller(ctx)
				p, err := k.records.Search(ctx, c, in.Body.Term, 50, k.searchable...)
				if err != nil {
					return nil, apiFault(err)
				}
				out := &apiPage{}
				out.Body.Items = []apiRecord{}
				for i := range p.Items {
					out.Body.Items = append(out.Body.Items, k.record(&p.Items[i]))
				}
				return out, nil
			})
	}
	huma.Register(api, op("reveal", http.MethodPost, base+"/{id}/reveal", "Read one masked field in clear, for a reason"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"36"`
			Body struct {
				Field  string `json:"field" maxLength:"40"`
				Reason string `json:"reason" minLength:"1" maxLength:"500"`
			}
		}) (*apiOne, error) {
			u, err := crm.ParseUUID(in.ID)
			if err != nil {
				return nil, apiFault(crm.ErrNotFound)
			}
			if f, ok := k.byName[in.Body.Field]; !ok || f.Clear {
				return nil, apiFault(crm.ErrNotFound)
			}
			c, r := caller(ctx)
			if err := r.fresh(session.Reveal); err != nil {
				return nil, apiFault(err)
			}
			c.Reason = strings.TrimSpace(in.Body.Reason)
			v, err := k.records.Reveal(ctx, c, u, in.Body.Field)
			if err != nil {
				return nil, apiFault(err)
			}
			full := k.record(&v)
			return &apiOne{Body: apiRecord{ID: in.ID, Version: full.Version, Fields: map[string]apiField{in.Body.Field: full.Fields[in.Body.Field]}}}, nil
		})
}

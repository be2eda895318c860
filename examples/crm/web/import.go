package web

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/csvfile"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// bodyLimit is how long the body of a request may be: 1 MiB, but for files that are imported.
func bodyLimit(r *http.Request) int64 {
	if r.Method == http.MethodPost && (r.URL.Path == "/uploads" || r.URL.Path == "/api/v1/imports") {
		return app.MostUpload + 1<<20
	}
	return 1 << 20
}

// importKind is the kind of imports: they are begun with a file and change by work alone, so they have pages and an API of their own.
type importKind struct {
	*resource[*transfer.Import]
	s *Server
}

func (s *Server) importKind() kind {
	k := resourceOf(s.app.Imports, "imports", "name")
	k.governs, k.sort = true, "created_at"
	return &importKind{k, s}
}

// register adds nothing: importAPI has the operations.
func (k *importKind) register(huma.API) {}

func (k *importKind) routes(s *Server, mux *http.ServeMux) {
	s.handle(mux, "GET /imports", k.showImports)
	s.handle(mux, "GET /imports/new", s.showUpload)
	s.handle(mux, "POST /uploads", s.upload)
	s.handle(mux, "GET /uploads/{file}", s.showMapping)
	s.handle(mux, "POST /uploads/{file}", s.mapped)
	s.handle(mux, "GET /uploads/{file}/rehearsal", s.showRehearsal)
	s.handle(mux, "POST /uploads/{file}/start", s.startImport)
	s.handle(mux, "POST /uploads/{file}/forget", s.forgetUpload)
	s.handle(mux, "GET /imports/{id}", k.showImport)
	s.handle(mux, "GET /imports/{id}/rejected.csv", s.rejectedRows)
	s.handle(mux, "POST /imports/{id}/continue", s.continueImport)
	s.handle(mux, "GET /imports/{id}/undo", k.askUndo)
	s.handle(mux, "POST /imports/{id}/undo", s.undoImport)
}

// importable lists the types that the caller may import.
func (s *Server) importable(ctx context.Context, c guard.Caller) []string {
	a := s.app
	mays := map[string]func() (bool, error){
		crm.TypeCustomer:    func() (bool, error) { ok, _, err := a.Customers.MayOwn(ctx, c, authz.Import); return ok, err },
		crm.TypeLead:        func() (bool, error) { ok, _, err := a.Leads.MayOwn(ctx, c, authz.Import); return ok, err },
		crm.TypeContact:     func() (bool, error) { ok, _, err := a.Contacts.MayOwn(ctx, c, authz.Import); return ok, err },
		crm.TypeProduct:     func() (bool, error) { ok, _, err := a.Products.MayOwn(ctx, c, authz.Import); return ok, err },
		crm.TypeOpportunity: func() (bool, error) { ok, _, err := a.Opportunities.MayOwn(ctx, c, authz.Import); return ok, err },
		crm.TypeEmployee:    func() (bool, error) { ok, _, err := a.Employees.MayOwn(ctx, c, authz.Import); return ok, err },
	}
	begins, _, err := a.Imports.MayOwn(ctx, c, authz.Create)
	if err != nil || !begins {
		return nil
	}
	var out []string
	for _, typ := range app.ImportTypes {
		if ok, err := mays[typ](); ok && err == nil {
			out = append(out, typ)
		}
	}
	return out
}

// mayImport refuses who may not import a type: a record type that one may not import looks like one that there is not.
func (s *Server) mayImport(r *request, typ string) error {
	if !slices.Contains(s.importable(r.Context(), r.caller()), typ) {
		return &authz.DeniedError{Controls: []string{"rbac.permit"}}
	}
	return nil
}

// importFaults are the errors of imports that are no fault of the program, as they look from outside, with the last part of the key that says it.
func importFault(err error) (status int, word string) {
	var file *transfer.FileError
	switch {
	case errors.As(err, &file):
		return http.StatusUnprocessableEntity, "file_" + file.Reason
	case errors.Is(err, transfer.ErrFile):
		return http.StatusUnprocessableEntity, "file_" + transfer.FileBroken
	case errors.Is(err, transfer.ErrMapping):
		return http.StatusUnprocessableEntity, "mapping"
	case errors.Is(err, app.ErrNoName):
		return http.StatusUnprocessableEntity, "no_name"
	case errors.Is(err, transfer.ErrOther):
		return http.StatusConflict, "other"
	case errors.Is(err, csvfile.ErrOptions), errors.Is(err, app.ErrDuplicates):
		return http.StatusBadRequest, "options"
	case errors.Is(err, app.ErrUploadSize):
		return http.StatusRequestEntityTooLarge, "file_" + transfer.FileLarge
	case errors.Is(err, app.ErrManyImports):
		return http.StatusTooManyRequests, "many"
	}
	return 0, ""
}

func (k *importKind) showImports(w http.ResponseWriter, r *request) error {
	q := guard.Query{Sort: "created_at", Desc: true, After: r.FormValue("after"), Limit: 25, Hide: []string{"mapping"}}
	p, err := k.records.List(r.Context(), r.caller(), q)
	if err != nil {
		return err
	}
	l := &page.List{Title: page.T("imports.title"), Count: -1, Empty: page.Empty{Text: page.T("imports.none")}}
	for _, name := range []string{"name", "type", "state", "rows", "stored", "rejected", "owner", "begun"} {
		kind := page.KindText
		if name == "rows" || name == "stored" || name == "rejected" {
			kind = page.KindNumber
		}
		l.Columns = append(l.Columns, page.Column{Label: page.T("imports.of." + name), Kind: kind})
	}
	number := func(n int64) page.Cell { return page.Cell{Kind: page.KindNumber, Amount: n} }
	for i := range p.Items {
		v := &p.Items[i]
		j := v.Value
		owner := page.Cell{}
		if e := k.s.names.get(j.Owner.UUID()); e != nil {
			owner.Text = e.Name.Expose()
		}
		l.Rows = append(l.Rows, page.Row{Href: "/imports/" + j.ID.String(), Cells: []page.Cell{
			importName(v), {Key: "type." + j.RecordType + ".many"}, k.s.importState(j), number(j.Position), number(j.Created + j.Updated), number(j.Rejected),
			owner, {Kind: page.KindTime, Time: j.CreatedAt},
		}})
	}
	if p.Next != "" {
		l.NextHref = "/imports?after=" + p.Next
	}
	if q.After != "" {
		l.PrevHref = "/imports"
	}
	if len(k.s.importable(r.Context(), r.caller())) > 0 {
		l.Primary = &page.Action{Label: page.T("imports.new"), Href: "/imports/new"}
		l.Empty.Action = l.Primary
	}
	return k.s.show(w, r, http.StatusOK, l.Title, l)
}

// importName names an import by its file, as the caller may see it.
func importName(v *guard.View[*transfer.Import]) page.Cell {
	name := v.Value.Name
	if name.State() == crm.Clear && name.Expose() == "" {
		return page.Cell{Key: "imports.unnamed", Strong: true}
	}
	return page.Cell{Text: name.Expose(), State: page.State(name.State()), Strong: true}
}

// importState is where an import stands: one that is running is worked on here, waits, or was cut off.
func (s *Server) importState(j *transfer.Import) page.Cell {
	c := page.Cell{Kind: page.KindBadge, Key: "imports.state." + string(j.State)}
	switch j.State {
	case transfer.Done:
		c.Tone = page.Accent
	case transfer.Running, transfer.Undoing:
		c.Tone = page.Warning
		w, _ := s.app.ImportWork(j.ID.UUID())
		if w.Waiting {
			c.Key = "imports.state.waiting"
		} else if !w.Running {
			c.Key = "imports.state.cut_off"
		}
	}
	return c
}

// options makes choices of words.
func options(prefix string, words ...string) []page.Option {
	var out []page.Option
	for _, w := range words {
		out = append(out, page.Option{Value: w, Label: page.T(prefix + cmpOr(w, "auto"))})
	}
	return out
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

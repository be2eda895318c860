package web

import (
	"errors"
	"net/http"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// exportPages registers the page that says whose export a file is.
func (s *Server) exportPages(mux *http.ServeMux) {
	s.handle(mux, "GET /exports/trace", func(w http.ResponseWriter, r *request) error {
		if !s.mayReadLog(r) {
			return crm.ErrNotFound
		}
		return s.traceForm(w, r, page.Text{})
	})
	s.handle(mux, "POST /exports/trace", s.traceExport)
}

func (s *Server) traceForm(w http.ResponseWriter, r *request, problem page.Text) error {
	f := &page.Form{
		Title: page.T("export.trace"), Action: "/exports/trace", Submit: page.T("act.find"), Cancel: "/exports", Note: page.T("export.trace.note"),
		Sections: []page.FormSection{{Fields: []page.Field{
			{Name: "text", Kind: page.FieldTextarea, Label: page.T("export.trace.text"), Required: true, Wide: true, Help: page.T("export.trace.help")},
		}}},
	}
	status := http.StatusOK
	if !problem.IsZero() {
		f.Errors, status = []page.Text{problem}, http.StatusUnprocessableEntity
	}
	return s.show(w, r, status, f.Title, f)
}

// traceExport lists the exports that a text comes from.
func (s *Server) traceExport(w http.ResponseWriter, r *request) error {
	found, err := s.app.TraceExport(r.Context(), r.caller(), r.PostFormValue("text"))
	var invalid *crm.InvalidError
	if errors.As(err, &invalid) {
		return s.traceForm(w, r, page.T("rule.too_long"))
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return s.traceForm(w, r, page.T("export.trace.none"))
	}
	var ids []crm.UUID
	for _, e := range found[:min(len(found), 200)] {
		ids = append(ids, e.ID.UUID())
	}
	k := s.kind(crm.TypeExport).(*resource[*crm.Export])
	views, err := s.app.Exports.GetAll(r.Context(), r.caller(), ids)
	if err != nil {
		return err
	}
	l, err := k.table(s, r, views, k.list)
	if err != nil {
		return err
	}
	l.Title = page.T("export.trace.found")
	return s.show(w, r, http.StatusOK, page.T("export.trace"), l)
}

// sendingNotice says how far the download of an export is.
func (s *Server) sendingNotice(_ *request, d *page.Detail, v *guard.View[*crm.Export], _ string) error {
	if p, ok := s.sending.of(v.Value.ID.UUID()); ok {
		d.Notice = page.T("export.sending", p.Done, p.Total)
	}
	return nil
}

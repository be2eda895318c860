package web

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// filterText writes the parameters of a list that an export keeps, in one order.
func (k *resource[P]) filterText(get func(string) string) string {
	v := url.Values{}
	if show := get("show"); show == "mine" || show == "overdue" && k.typ == crm.TypeCustomer {
		v.Set("show", show)
	}
	if u, err := crm.ParseUUID(get("customer")); err == nil {
		if _, ok := k.byName["customer"]; ok {
			v.Set("customer", u.String())
		}
	}
	return v.Encode()
}

// exportCaller is the caller of an export: the file says who took it, and the password was entered a short while ago or not.
func (s *Server) exportCaller(r *request) guard.Caller {
	c := r.caller()
	c.Met = append(slices.Clone(c.Met), authz.NeedWatermark)
	if r.fresh(session.Export) == nil {
		c.Met = append(c.Met, authz.NeedStepUp)
	}
	return c
}

// exportForm asks for the reason, the format and, where the policy wants it, the password.
func (k *resource[P]) exportForm(s *Server, w http.ResponseWriter, r *request, filter string, problem page.Text) error {
	c := s.exportCaller(r)
	x, err := s.app.Exporter(k.typ)
	if err != nil {
		return err
	}
	p, err := x.Plan(r.Context(), c, filter, nil)
	if err != nil {
		return err
	}
	title := page.T("export.title", page.T("type."+k.typ+".many"))
	f := &page.Form{
		Title: title, Action: "/" + k.plural + "/export", Submit: page.T("act.export"), Cancel: "/" + k.plural,
		Note: page.T("export.note", p.Rows, len(p.Columns)), Username: s.login(r),
	}
	format := r.PostFormValue("format")
	if format == "" {
		format = app.ExportFormats[0]
	}
	fields := []page.Field{
		{Name: "filter", Kind: page.FieldHidden, Value: filter},
		{Name: "format", Kind: page.FieldSelect, Label: page.T("field.export.format"), Value: format, Required: true, Help: page.T("export.canary.help")},
		{Name: "reason", Kind: page.FieldTextarea, Label: page.T("field.export.reason"), Value: r.PostFormValue("reason"), Required: true, Wide: true, Help: page.T("export.reason.help")},
	}
	for _, name := range app.ExportFormats {
		fields[1].Options = append(fields[1].Options, page.Option{Value: name, Label: page.T("export.format." + name)})
	}
	if slices.Contains(p.Needs, authz.NeedStepUp) && !slices.Contains(c.Met, authz.NeedStepUp) {
		fields = append(fields, page.Field{Name: "current", Kind: page.FieldPassword, Label: page.T("stepup.factor"), Required: true, Help: page.T("stepup.help")})
	}
	f.Sections = []page.FormSection{{Title: page.T("section.main"), Fields: fields}}
	if fields[len(fields)-1].Name == "current" {
		f.With = s.checkPasskey(r, "/"+k.plural+"/export"+query(filter))
	}
	status := http.StatusOK
	if !problem.IsZero() {
		f.Errors, status = []page.Text{problem}, http.StatusUnprocessableEntity
	}
	if slices.Contains(p.Needs, authz.NeedSecond) {
		f.Note = page.T("export.second", p.Rows, len(p.Columns))
		f.Submit = page.T("export.ask")
	}
	return s.show(w, r, status, title, f)
}

// query is a filter as the end of an address.
func query(filter string) string {
	if filter == "" {
		return ""
	}
	return "?" + filter
}

func (k *resource[P]) showExport(s *Server, w http.ResponseWriter, r *request) error {
	return k.exportForm(s, w, r, k.filterText(r.FormValue), page.Text{})
}

// requestExport stores the request; what nobody else has to approve is downloaded at once.
func (k *resource[P]) requestExport(s *Server, w http.ResponseWriter, r *request) error {
	posted, err := url.ParseQuery(r.PostFormValue("filter"))
	if err != nil {
		return errBadRequest
	}
	filter := k.filterText(posted.Get)
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	if reason == "" || len(reason) > 500 {
		return k.exportForm(s, w, r, filter, page.T("reveal.reason.required"))
	}
	if ok, err := s.stepUp(r); err != nil {
		return err
	} else if !ok {
		return k.exportForm(s, w, r, filter, page.T("password.wrong"))
	}
	e, err := s.app.AskExport(r.Context(), s.exportCaller(r), app.ExportAsk{Type: k.typ, Filter: filter, Format: r.PostFormValue("format"), Reason: reason})
	if needsStepUp(err) {
		return k.exportForm(s, w, r, filter, page.T("stepup.help"))
	}
	if err != nil {
		return err
	}
	if e.State == crm.ExportOpen {
		return s.takeExport(w, r, e.ID.UUID())
	}
	return s.done(w, r, "created", "/exports/"+e.ID.String(), crm.TypeExport)
}

// stepUp checks the password of a form that has one; ok is false when it is wrong or tried too often.
func (s *Server) stepUp(r *request) (ok bool, err error) {
	password := r.PostFormValue("current")
	if password == "" {
		return true, nil
	}
	return s.proved(r, password)
}

// proved checks the password, or a code of an app, of who is signed in once more. The session goes on under a new cookie.
func (s *Server) proved(r *request, secret string) (ok bool, err error) {
	if r.program { // a token is no place to try passwords either
		return false, nil
	}
	in, token, err := s.app.StepUp(r.Context(), r.caller(), secret, s.visitorOf(r))
	if errors.Is(err, app.ErrSignIn) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, s.goOn(r, in, token)
}

// download takes an export that was asked for before.
func (s *Server) download(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	if ok, err := s.stepUp(r); err != nil {
		return err
	} else if !ok {
		return s.stepUpForm(w, r, page.T("password.wrong"))
	}
	return s.takeExport(w, r, u)
}

// stepUpForm asks for the password before the page goes on.
func (s *Server) stepUpForm(w http.ResponseWriter, r *request, problem page.Text) error {
	f := &page.Form{
		Title: page.T("stepup.title"), Action: r.URL.Path, Submit: page.T("act.continue"), Cancel: "/exports", Username: s.login(r),
		Sections: []page.FormSection{{Fields: []page.Field{{Name: "current", Kind: page.FieldPassword, Label: page.T("stepup.factor"), Required: true, Help: page.T("stepup.help")}}}},
	}
	status := http.StatusOK
	if !problem.IsZero() {
		f.Errors, status = []page.Text{problem}, http.StatusUnprocessableEntity
	}
	f.With = s.checkPasskey(r, "/exports/"+path.Base(path.Dir(r.URL.Path)))
	return s.show(w, r, status, f.Title, f)
}

// takeExport writes an export to who asked for it. Where the policy wants the password again, the page asks for it.
func (s *Server) takeExport(w http.ResponseWriter, r *request, u crm.UUID) error {
	err := s.sendExport(w, r, u)
	if needsStepUp(err) {
		f := *r
		f.Request = r.Clone(r.Context())
		f.URL.Path = "/exports/" + u.String() + "/download"
		return s.stepUpForm(w, &f, page.Text{})
	}
	return err
}

func needsStepUp(err error) bool {
	var denied *authz.DeniedError
	return errors.As(err, &denied) && slices.Contains(denied.Unmet, authz.NeedStepUp)
}

// sendExport streams an export. Once it has begun, an error cuts the connection: the file must not look complete.
func (s *Server) sendExport(w http.ResponseWriter, r *request, u crm.UUID) error {
	control, begun := http.NewResponseController(w), false
	_, err := s.app.WriteExport(r.Context(), s.exportCaller(r), u, func(f app.ExportFile) (io.WriteCloser, error) {
		begun = true
		s.sending.note(u, 0, f.Rows)
		w.Header().Set("Content-Type", f.ContentType)
		w.Header().Set("Content-Disposition", `attachment; filename="`+f.Name+`"`)
		return answer{w}, nil
	}, func(rows int64) {
		s.sending.note(u, rows, 0)
		_ = control.SetWriteDeadline(time.Now().Add(time.Minute)) // a long file outlives the limit of a page
		_ = control.Flush()
	})
	if begun {
		s.sending.end(u)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	return err
}

// answer is a file that goes out as an answer; the server ends it.
type answer struct{ http.ResponseWriter }

// Close does nothing.
func (answer) Close() error { return nil }

// sending are the exports that are on their way.
type sending struct {
	mu  sync.Mutex
	all map[crm.UUID]page.Progress
}

// note says how far an export is. total 0: as before.
func (p *sending) note(u crm.UUID, rows, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[crm.UUID]page.Progress{}
	}
	at := p.all[u]
	if at.Done = rows; total > 0 {
		at.Total = total
	}
	p.all[u] = at
}

func (p *sending) end(u crm.UUID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, u)
}

func (p *sending) of(u crm.UUID) (page.Progress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.all[u]
	return at, ok
}

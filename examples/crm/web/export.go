package web

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

// filterText writes the parameters of a list that an export keeps, in one order.
func (k *resource[T]) filterText(get func(string) string) string {
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

// exported reads a filter back.
func (k *resource[T]) exported(r *request, filter string) (guard.Query, error) {
	v, err := url.ParseQuery(filter)
	if err != nil {
		return guard.Query{}, errBadRequest
	}
	q := k.filtered(r, v.Get)
	q.Sort, q.Desc = "", false // by creation: what is changed meanwhile stays in its place
	return q, nil
}

// columns lists the fields that an export shows.
func (k *resource[T]) columns(ctx context.Context, c guard.Caller) ([]string, error) {
	_, fields, err := k.records.May(ctx, c, authz.Export, nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range k.records.Fields() {
		if fields[f.Name] != authz.Hidden && !slices.Contains(inner, f.Name) {
			out = append(out, f.Name)
		}
	}
	return out, nil
}

func (k *resource[T]) rows(r *request, c guard.Caller, filter string) (int64, []authz.Obligation, []string, error) {
	q, err := k.exported(r, filter)
	if err != nil {
		return 0, nil, nil, err
	}
	n, needs, err := k.records.Exportable(r.Context(), c, q)
	if err != nil {
		return 0, nil, nil, err
	}
	columns, err := k.columns(r.Context(), c)
	return n, needs, columns, err
}

// exportCaller is the caller of an export: the file says who took it, and the password was entered a short while ago or not.
func (s *Server) exportCaller(r *request) guard.Caller {
	c := r.caller()
	c.Met = append(slices.Clone(c.Met), authz.NeedWatermark)
	if s.sessions.now().Sub(r.session.proved) < fresh {
		c.Met = append(c.Met, authz.NeedStepUp)
	}
	return c
}

// exportForm asks for the reason and, where the policy wants it, the password.
func (k *resource[T]) exportForm(s *Server, w http.ResponseWriter, r *request, filter string, problem page.Text) error {
	c := s.exportCaller(r)
	n, needs, columns, err := k.rows(r, c, filter)
	if err != nil {
		return err
	}
	title := page.T("export.title", page.T("type."+k.typ+".many"))
	f := &page.Form{
		Title: title, Action: "/" + k.plural + "/export", Submit: page.T("act.export"), Cancel: "/" + k.plural,
		Note: page.T("export.note", n, len(columns)), Username: r.session.login,
	}
	fields := []page.Field{
		{Name: "filter", Kind: page.FieldHidden, Value: filter},
		{Name: "reason", Kind: page.FieldTextarea, Label: page.T("field.export.reason"), Value: r.PostFormValue("reason"), Required: true, Wide: true, Help: page.T("export.reason.help")},
	}
	if slices.Contains(needs, authz.NeedStepUp) && !slices.Contains(c.Met, authz.NeedStepUp) {
		fields = append(fields, page.Field{Name: "current", Kind: page.FieldPassword, Label: page.T("stepup.password"), Required: true, Help: page.T("stepup.help")})
	}
	f.Sections = []page.FormSection{{Title: page.T("section.main"), Fields: fields}}
	status := http.StatusOK
	if !problem.IsZero() {
		f.Errors, status = []page.Text{problem}, http.StatusUnprocessableEntity
	}
	if slices.Contains(needs, authz.NeedSecond) {
		f.Note = page.T("export.second", n, len(columns))
		f.Submit = page.T("export.ask")
	}
	return s.show(w, r, status, title, f)
}

func (k *resource[T]) showExport(s *Server, w http.ResponseWriter, r *request) error {
	return k.exportForm(s, w, r, k.filterText(r.FormValue), page.Text{})
}

// requestExport stores the request; what nobody else has to approve is downloaded at once.
func (k *resource[T]) requestExport(s *Server, w http.ResponseWriter, r *request) error {
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
	c := s.exportCaller(r)
	n, needs, columns, err := k.rows(r, c, filter)
	if err != nil {
		return err
	}
	if slices.Contains(needs, authz.NeedStepUp) && !slices.Contains(c.Met, authz.NeedStepUp) {
		return k.exportForm(s, w, r, filter, page.T("stepup.help"))
	}
	e := &crm.Export{
		RecordType: k.typ, Filter: filter, Columns: int64(len(columns)), Rows: n,
		Digest: app.ExportDigest(k.typ, filter, columns), Reason: crm.NewText(reason),
	}
	if err := s.app.RequestExport(r.Context(), c, e, needs); err != nil {
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
	source, _, _ := net.SplitHostPort(r.RemoteAddr)
	account := normalize.Email(r.session.login)
	if !s.attempts.take(account, source) {
		return false, nil
	}
	err = s.app.Prove(r.Context(), r.caller(), r.session.login, password)
	if errors.Is(err, app.ErrSignIn) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.attempts.succeeded(account, source)
	s.sessions.prove(r.Request, s.app.Config.Plain)
	r.session.proved = s.sessions.now()
	return true, nil
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
		Title: page.T("stepup.title"), Action: r.URL.Path, Submit: page.T("act.continue"), Cancel: "/exports", Username: r.session.login,
		Sections: []page.FormSection{{Fields: []page.Field{{Name: "current", Kind: page.FieldPassword, Label: page.T("stepup.password"), Required: true, Help: page.T("stepup.help")}}}},
	}
	status := http.StatusOK
	if !problem.IsZero() {
		f.Errors, status = []page.Text{problem}, http.StatusUnprocessableEntity
	}
	return s.show(w, r, status, f.Title, f)
}

// takeExport looks that everything is met, uses the export up, and writes it.
func (s *Server) takeExport(w http.ResponseWriter, r *request, u crm.UUID) error {
	c := s.exportCaller(r)
	v, err := s.app.Exports.Get(r.Context(), c, u)
	if err != nil {
		return err
	}
	e := &v.Value
	k := s.kind(e.RecordType)
	if k == nil {
		return crm.ErrNotFound
	}
	n, needs, columns, err := k.rows(r, c, e.Filter)
	if err != nil {
		return err
	}
	if slices.Contains(needs, authz.NeedStepUp) && !slices.Contains(c.Met, authz.NeedStepUp) {
		f := *r
		f.Request = r.Clone(r.Context())
		f.URL.Path = "/exports/" + u.String() + "/download"
		return s.stepUpForm(w, &f, page.Text{})
	}
	if slices.Contains(needs, authz.NeedSecond) && e.State == crm.ExportOpen {
		return &authz.DeniedError{Unmet: []authz.Obligation{authz.NeedSecond}}
	}
	c, err = s.app.TakeExport(r.Context(), c, u, app.ExportDigest(e.RecordType, e.Filter, columns), n)
	if err != nil {
		return err
	}
	at := time.Now().UTC()
	out := &csvWriter{
		w: w, control: http.NewResponseController(w),
		name: fmt.Sprintf("%s-%s-%s-%s.csv", k.path(), at.Format("20060102T150405Z"), u.String()[24:], c.Subject.ID[24:]),
		mark: []string{"# exported by", r.self.Name.Expose(), c.Subject.ID, "at", at.Format(time.RFC3339), "request", u.String(), "records", strconv.FormatInt(n, 10)},
	}
	err = k.write(s, r, c, e.Filter, out)
	if err == nil {
		err = out.end()
	}
	if err != nil && out.begun {
		panic(http.ErrAbortHandler) // the file must not look complete
	}
	return err
}

// write streams the records; each page is in the log before it is here.
func (k *resource[T]) write(s *Server, r *request, c guard.Caller, filter string, to *csvWriter) error {
	q, err := k.exported(r, filter)
	if err != nil {
		return err
	}
	columns, err := k.columns(r.Context(), c)
	if err != nil {
		return err
	}
	to.head = append([]string{"id"}, columns...)
	_, err = k.records.Export(r.Context(), c, q, func(p guard.Page[T]) error {
		rows := make([][]string, len(p.Items))
		for i := range p.Items {
			rows[i] = append(rows[i], k.header(&p.Items[i].Value).ID.String())
			for _, name := range columns {
				rows[i] = append(rows[i], k.export(&p.Items[i], name, &s.names))
			}
		}
		return to.write(rows)
	})
	return err
}

// export is a field for a file: what the policy leaves of it.
func (k *resource[T]) export(v *guard.View[T], name string, names *directory) string {
	if v.Fields[name] == authz.Hidden {
		return ""
	}
	switch x := k.value(&v.Value, name).Interface().(type) {
	case crm.Text:
		return x.Expose()
	case time.Time:
		if x.IsZero() {
			return ""
		}
		return x.UTC().Format(time.RFC3339)
	case []string:
		return strings.Join(x, " ")
	case crm.ID[crm.Employee]:
		if e := names.get(x.UUID()); e != nil {
			return e.Name.Expose()
		}
		return x.String()
	case fmt.Stringer:
		return x.String()
	case int64:
		if slices.Contains(k.money, name) {
			sign := ""
			if x < 0 {
				sign, x = "-", -x
			}
			return fmt.Sprintf("%s%d.%02d", sign, x/100, x%100)
		}
		return strconv.FormatInt(x, 10)
	case bool:
		return strconv.FormatBool(x)
	}
	val := k.value(&v.Value, name)
	if u, ok := asUUID(val); ok {
		return u.String()
	}
	if val.CanInt() {
		return strconv.FormatInt(val.Int(), 10)
	}
	if val.Kind().String() == "string" {
		return val.String()
	}
	return fmt.Sprint(val.Interface())
}

// csvWriter writes a download whose first row says who took it. Nothing is sent before the first page is there.
type csvWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	name    string
	mark    []string
	head    []string
	csv     *csv.Writer
	begun   bool
}

func (c *csvWriter) write(rows [][]string) error {
	if !c.begun {
		h := c.w.Header()
		h.Set("Content-Type", "text/csv; charset=utf-8")
		h.Set("Content-Disposition", `attachment; filename="`+c.name+`"`)
		c.begun = true
		if _, err := c.w.Write([]byte("\ufeff")); err != nil { // spreadsheets take it for UTF-8 then
			return err
		}
		c.csv = csv.NewWriter(c.w)
		c.csv.UseCRLF = true
		rows = append([][]string{c.mark, c.head}, rows...)
	}
	_ = c.control.SetWriteDeadline(time.Now().Add(time.Minute)) // a long file outlives the limit of a page
	for _, row := range rows {
		for i := range row {
			row[i] = harmless(row[i])
		}
		if err := c.csv.Write(row); err != nil {
			return err
		}
	}
	c.csv.Flush()
	_ = c.control.Flush()
	return c.csv.Error()
}

// end writes the line that says that nothing is missing.
func (c *csvWriter) end() error { return c.write([][]string{{"# end"}}) }

// harmless is a cell that no spreadsheet calculates.
func harmless(cell string) string {
	t := strings.TrimLeft(cell, " \u00a0\u3000\ufeff")
	if t == "" {
		return cell
	}
	if strings.ContainsRune("=+-@\t\r\n|%＝＋－＠", []rune(t)[0]) && !plainNumber(t) {
		return "'" + cell
	}
	return cell
}

// plainNumber tells whether a cell is a number and nothing more, such as -12.50.
func plainNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789.") == ""
}

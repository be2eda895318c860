package web

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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

// draft is an upload on its way to an import.
type draft struct {
	mu       sync.Mutex
	upload   *app.Upload
	at       time.Time // when it came
	start    app.ImportStart
	told     string
	samples  [][]string // a few rows
	sheets   []string   // of a workbook
	read     bool       // the file was looked at and mapped
	rehearse struct {
		running, over bool
		counts        transfer.Counts
		began         time.Time
		report        transfer.Report
		err           error
	}
}

// drafts are those of this process, by the id of the upload.
type drafts struct {
	mu  sync.Mutex
	all map[string]*draft
}

func (s *Server) draft(r *request) (*draft, error) {
	u, err := s.app.UploadOf(r.self.ID.UUID(), r.PathValue("file"))
	if err != nil {
		return nil, err
	}
	s.drafts.mu.Lock()
	d := s.drafts.all[u.ID]
	s.drafts.mu.Unlock()
	if d == nil {
		return nil, crm.ErrNotFound
	}
	return d, s.mayImport(r, u.Type)
}

// samplesShown is how many values of a column the mapping shows.
const samplesShown = 3

// look reads the file of a draft and suggests what its columns mean.
func (s *Server) look(ctx context.Context, c guard.Caller, d *draft) error {
	g, err := d.upload.Look(d.start.File)
	if err != nil {
		return err
	}
	m, err := s.app.Importer(ctx, c, d.upload.Type, app.ImportOptions{})
	if err != nil {
		return err
	}
	d.start.Mapping = transfer.Suggest(m.Fields(), g.Header, g.Samples)
	d.start.Header, d.start.Rows, d.told, d.read = g.Header, g.Rows, g.Told, true
	if g.Comma != 0 {
		d.start.File.Comma = g.Comma
	}
	d.sheets, d.start.File.Sheet = g.Sheets, g.Sheet
	d.samples = g.Samples[:min(len(g.Samples), samplesShown)]
	return nil
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

// encodings and separators that can be told; "" is found out.
var (
	encodingWords = []string{"", "UTF-8", "GB18030", "UTF-16LE", "UTF-16BE", "ISO-8859-1", "windows-1252"}
	commaWords    = []string{"", "comma", "semicolon", "tab", "bar"}
)

func fileFields(encoding string, comma rune) []page.Field {
	encodings := []page.Option{{Value: "", Label: page.T("imports.encoding.auto")}}
	for _, e := range encodingWords[1:] {
		encodings = append(encodings, page.Option{Value: e, Label: page.Plain(e)})
	}
	chosen := ""
	for w, c := range app.Separators {
		if c == comma {
			chosen = w
		}
	}
	return []page.Field{
		{Name: "encoding", Kind: page.FieldSelect, Label: page.T("imports.of.encoding"), Value: encoding, Options: encodings},
		{Name: "separator", Kind: page.FieldSelect, Label: page.T("imports.of.separator"), Value: chosen, Options: options("imports.separator.", commaWords...)},
	}
}

func (s *Server) uploadForm(w http.ResponseWriter, r *request, typ string, status int, problem page.Text) error {
	types := s.importable(r.Context(), r.caller())
	if len(types) == 0 {
		return &authz.DeniedError{Controls: []string{"rbac.permit"}}
	}
	var all []page.Option
	for _, t := range types {
		all = append(all, page.Option{Value: t, Label: page.T("type." + t + ".many")})
	}
	f := &page.Form{
		Title: page.T("imports.new"), Action: "/uploads", Submit: page.T("imports.upload"), Cancel: "/imports", Note: page.T("imports.upload.note"),
		Sections: []page.FormSection{{Title: page.T("imports.file"), Fields: append([]page.Field{
			{Name: "type", Kind: page.FieldSelect, Label: page.T("imports.of.type"), Value: typ, Options: all},
		}, append(fileFields("", 0), page.Field{
			Name: "sheet", Label: page.T("imports.of.sheet"), Help: page.T("imports.sheet.help"),
		}, page.Field{
			Name: "file", Kind: page.FieldFile, Label: page.T("imports.file"), Required: true, Wide: true, Value: ".csv,.txt,.tsv,.xlsx", Help: page.T("imports.file.help", int64(app.MostUpload>>20)),
		})...)}},
	}
	if !problem.IsZero() {
		f.Errors = []page.Text{problem}
	}
	return s.show(w, r, status, f.Title, f)
}

func (s *Server) showUpload(w http.ResponseWriter, r *request) error {
	return s.uploadForm(w, r, r.FormValue("type"), http.StatusOK, page.Text{})
}

// parts reads the fields of a form that has a file, up to the file: they stand before it, so that it need not be kept anywhere to read them.
func parts(r *http.Request) (fields map[string]string, file *multipart.Part, err error) {
	m, err := r.MultipartReader()
	if err != nil {
		return nil, nil, errBadRequest
	}
	fields = map[string]string{}
	for range 20 {
		p, err := m.NextPart()
		if err != nil {
			return nil, nil, badPart(err)
		}
		if p.FormName() == "file" {
			return fields, p, nil
		}
		b, err := io.ReadAll(io.LimitReader(p, 64<<10+1))
		if err != nil || len(b) > 64<<10 {
			return nil, nil, errBadRequest
		}
		fields[p.FormName()] = string(b)
	}
	return nil, nil, errBadRequest
}

func badPart(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return errBadRequest
}

// receive takes the file of a form.
func (s *Server) receive(w http.ResponseWriter, r *request, typ string, file *multipart.Part) (*app.Upload, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(uploadFor)) // a large file outlives the limit of a form; a test's recorder has none
	_ = control.SetWriteDeadline(time.Now().Add(2 * uploadFor))
	u, err := s.app.Receive(r.self.ID.UUID(), typ, file.FileName(), file)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		err = app.ErrUploadSize
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errBadRequest
	}
	return u, err
}

// uploadFor is how long the sending of a file may take.
const uploadFor = 15 * time.Minute

// upload takes a file, looks at it, and goes on to its mapping.
func (s *Server) upload(w http.ResponseWriter, r *request) error {
	if len(s.importable(r.Context(), r.caller())) == 0 { // before a byte is read
		return &authz.DeniedError{Controls: []string{"rbac.permit"}}
	}
	fields, file, err := parts(r.Request)
	if err != nil {
		return err
	}
	if err := s.mayImport(r, fields["type"]); err != nil {
		return err
	}
	u, err := s.receive(w, r, fields["type"], file)
	if err == nil {
		d := &draft{upload: u, at: time.Now(), start: app.ImportStart{Mode: transfer.Create, Duplicates: app.WarnDuplicates}}
		if err = fileOptions(d, fields["encoding"], fields["separator"], fields["sheet"]); err == nil {
			err = s.look(r.Context(), r.caller(), d)
		}
		if err == nil {
			s.drafts.put(d)
			http.Redirect(w, r.Request, "/uploads/"+u.ID, http.StatusSeeOther)
			return nil
		}
		s.app.Forget(u)
	}
	if status, word := importFault(err); status != 0 {
		return s.uploadForm(w, r, fields["type"], status, page.T("imports.fault."+word))
	}
	return err
}

func (d *drafts) put(x *draft) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]*draft{}
	}
	for id, old := range d.all {
		if time.Since(old.at) > app.KeepUpload {
			delete(d.all, id)
		}
	}
	d.all[x.upload.ID] = x
}

// fileOptions reads how a file is to be read.
func fileOptions(d *draft, encoding, separator, sheet string) error {
	comma, ok := app.Separators[separator]
	if separator != "" && !ok || !slices.Contains(encodingWords, encoding) {
		return csvfile.ErrOptions
	}
	d.start.File = app.FileOptions{Encoding: encoding, Comma: comma, Sheet: strings.TrimSpace(sheet)}
	return nil
}

// fieldLabel names a field that a file can fill.
func fieldLabel(typ string, f string) page.Text { return page.T("field." + typ + "." + f) }

// valueLabel names a value of an Enum.
func valueLabel(typ, field, value string) page.Text {
	switch field {
	case "kind":
		return page.T("kind." + value)
	case "stage", "state":
		if typ == crm.TypeCustomer || typ == crm.TypeLead {
			return page.T("state." + typ + "." + value)
		}
	}
	return page.Plain(value)
}

// given are the fields for which a default may be chosen where no cell has a value.
var given = []string{"kind", "stage", "state", "source", "city", "country", "industry", "category", "unit", "owner", "role", "team", "domain"}

func (s *Server) mappingForm(w http.ResponseWriter, r *request, d *draft, status int, problem page.Text) error {
	m, err := s.app.Importer(r.Context(), r.caller(), d.upload.Type, app.ImportOptions{})
	if err != nil {
		return err
	}
	typ, st := d.upload.Type, &d.start
	note := page.T("imports.mapping.note", d.upload.Name, d.told, st.Rows)
	if st.Rows == 0 {
		note = page.T("imports.mapping.note_many", d.upload.Name, d.told)
	}
	f := &page.Form{
		Title: page.T("imports.mapping"), Action: "/uploads/" + d.upload.ID, Submit: page.T("imports.rehearse"), Cancel: "/imports", Note: note,
	}
	if !problem.IsZero() {
		f.Errors = []page.Text{problem}
	}
	fields := []page.Option{{Value: "", Label: page.T("imports.ignored")}}
	for _, x := range m.Fields() {
		fields = append(fields, page.Option{Value: x.Name, Label: fieldLabel(typ, x.Name)})
	}
	columns := page.FormSection{Title: page.T("imports.columns")}
	for i, c := range st.Mapping.Columns {
		var values []string
		for _, row := range d.samples {
			if i < len(row) && strings.TrimSpace(row[i]) != "" {
				v := []rune(strings.TrimSpace(row[i]))
				if len(v) > 40 {
					v = append(v[:40], '…')
				}
				values = append(values, string(v))
			}
		}
		label := page.Plain(c.Header)
		if c.Header == "" {
			label = page.T("imports.column", int64(i+1))
		}
		columns.Fields = append(columns.Fields, page.Field{
			Name: "column." + strconv.Itoa(i), Kind: page.FieldSelect, Label: label, Value: c.Field, Options: fields, Help: page.Plain(strings.Join(values, " · ")),
		})
	}
	modes := []string{string(transfer.Create)}
	keys := []page.Option{{Value: "", Label: page.T("imports.no_key")}}
	if len(m.Keys()) > 0 {
		modes = append(modes, string(transfer.Update), string(transfer.Both))
	}
	for _, k := range m.Keys() {
		keys = append(keys, page.Option{Value: k, Label: fieldLabel(typ, k)})
	}
	how := page.FormSection{Title: page.T("imports.how"), Fields: []page.Field{
		{Name: "mode", Kind: page.FieldSelect, Label: page.T("imports.of.mode"), Value: string(st.Mode), Options: options("imports.mode.", modes...)},
		{Name: "key", Kind: page.FieldSelect, Label: page.T("imports.of.key"), Value: st.Mapping.Key, Options: keys, Help: page.T("imports.key.help")},
		{Name: "dates", Kind: page.FieldSelect, Label: page.T("imports.of.dates"), Value: string(st.Mapping.Dates), Options: options("imports.dates.", "", "ymd", "dmy", "mdy")},
		{Name: "currency", Kind: page.FieldSelect, Label: page.T("field.currency"), Value: st.Mapping.Currency, Options: []page.Option{
			{Value: "", Label: page.T("imports.no_currency")}, {Value: "CNY", Label: page.Plain("CNY")}, {Value: "USD", Label: page.Plain("USD")}, {Value: "EUR", Label: page.Plain("EUR")},
		}},
		{Name: "duplicates", Kind: page.FieldSelect, Label: page.T("imports.of.duplicates"), Value: st.Duplicates, Options: options("imports.duplicates.", app.DuplicateWords...), Help: page.T("imports.duplicates.help")},
	}}
	if d.told != "XLSX" {
		how.Fields = append(how.Fields, fileFields(st.File.Encoding, st.File.Comma)...)
	} else {
		sheet := page.Field{Name: "sheet", Kind: page.FieldSelect, Label: page.T("imports.of.sheet"), Value: st.File.Sheet}
		for _, name := range d.sheets {
			sheet.Options = append(sheet.Options, page.Option{Value: name, Label: page.Plain(name)})
		}
		how.Fields = append(how.Fields, sheet)
	}
	defaults := page.FormSection{Title: page.T("imports.defaults")}
	for _, x := range m.Fields() {
		if !slices.Contains(given, x.Name) {
			continue
		}
		in := page.Field{Name: "default." + x.Name, Label: fieldLabel(typ, x.Name), Value: st.Mapping.Default[x.Name]}
		switch x.Kind {
		case transfer.Enum:
			in.Kind, in.Options = page.FieldSelect, []page.Option{{Value: "", Label: page.T("imports.no_default")}}
			var values []string
			for v := range x.Values {
				values = append(values, v)
			}
			slices.Sort(values)
			for _, v := range values {
				in.Options = append(in.Options, page.Option{Value: v, Label: valueLabel(typ, x.Name, v)})
			}
		case transfer.Reference:
			in.Kind, in.Options = page.FieldSelect, []page.Option{{Value: "", Label: page.T("imports.myself")}}
			for _, o := range s.people(r) {
				in.Options = append(in.Options, page.Option{Value: o.Label.Plain, Label: o.Label})
			}
		}
		defaults.Fields = append(defaults.Fields, in)
	}
	f.Sections = []page.FormSection{columns, how, defaults}
	return s.show(w, r, status, f.Title, f)
}

func (s *Server) showMapping(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.mappingForm(w, r, d, http.StatusOK, page.Text{})
}

// mapped takes the mapping and rehearses the import. When the file is to be read in another way its columns are shown again first.
func (s *Server) mapped(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	refuse := func(err error) error {
		if status, word := importFault(err); status != 0 {
			return s.mappingForm(w, r, d, status, page.T("imports.fault."+word))
		}
		return err
	}
	if d.rehearse.running {
		http.Redirect(w, r.Request, "/uploads/"+d.upload.ID+"/rehearsal", http.StatusSeeOther)
		return nil
	}
	st := &d.start
	old := st.File
	if err := fileOptions(d, r.PostFormValue("encoding"), r.PostFormValue("separator"), r.PostFormValue("sheet")); err != nil {
		return refuse(err)
	}
	if st.File != old {
		if err := s.look(r.Context(), r.caller(), d); err != nil {
			st.File = old
			return refuse(err)
		}
		return s.mappingForm(w, r, d, http.StatusOK, page.T("imports.read_again"))
	}
	m, err := s.app.Importer(r.Context(), r.caller(), d.upload.Type, app.ImportOptions{})
	if err != nil {
		return err
	}
	for i := range st.Mapping.Columns {
		st.Mapping.Columns[i].Field = r.PostFormValue("column." + strconv.Itoa(i))
	}
	st.Mapping.Default = map[string]string{}
	for _, x := range m.Fields() {
		if v := strings.TrimSpace(r.PostFormValue("default." + x.Name)); v != "" && len(v) <= 200 && slices.Contains(given, x.Name) {
			st.Mapping.Default[x.Name] = v
		}
	}
	setHow(st, m, r.PostFormValue)
	if err := checkStart(d.upload.Type, st); err != nil {
		return refuse(err)
	}
	if err := s.startRehearsal(r, d); err != nil {
		return refuse(err)
	}
	http.Redirect(w, r.Request, "/uploads/"+d.upload.ID+"/rehearsal", http.StatusSeeOther)
	return nil
}

// setHow reads how rows become records.
func setHow(st *app.ImportStart, m app.Importing, get func(string) string) {
	st.Mode, st.Duplicates = transfer.Mode(cmpOr(get("mode"), string(transfer.Create))), cmpOr(get("duplicates"), app.WarnDuplicates)
	st.Mapping.Key, st.Mapping.Dates, st.Mapping.Currency = get("key"), transfer.DateOrder(get("dates")), get("currency")
	if st.Mapping.Currency != "" && slices.ContainsFunc(m.Fields(), func(f transfer.Field) bool { return f.Name == "currency" }) {
		if st.Mapping.Default == nil {
			st.Mapping.Default = map[string]string{}
		}
		st.Mapping.Default["currency"] = st.Mapping.Currency
	}
}

// checkStart refuses what no import can be.
func checkStart(typ string, st *app.ImportStart) error {
	if !slices.Contains([]transfer.Mode{transfer.Create, transfer.Update, transfer.Both}, st.Mode) || !slices.Contains(app.DuplicateWords, st.Duplicates) {
		return errBadRequest
	}
	if st.Mode != transfer.Create && st.Mapping.Key == "" {
		return transfer.ErrMapping
	}
	seen := map[string]bool{}
	for _, f := range st.Mapping.Fields() {
		if seen[f] {
			return transfer.ErrMapping
		}
		seen[f] = true
	}
	if len(seen) == 0 {
		return transfer.ErrMapping
	}
	return app.Named(typ, st.Mapping)
}

func (s *Server) startRehearsal(r *request, d *draft) error {
	d.rehearse.running, d.rehearse.over, d.rehearse.err, d.rehearse.counts, d.rehearse.began = true, false, nil, transfer.Counts{}, time.Now()
	c := r.caller()
	start := d.start
	start.Mapping.Columns = slices.Clone(start.Mapping.Columns)
	err := s.app.RehearseImport(c, d.upload, start, func(n transfer.Counts) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rehearse.counts = n
	}, func(rep transfer.Report, err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rehearse.running, d.rehearse.over, d.rehearse.report, d.rehearse.err = false, true, rep, err
	})
	if err != nil {
		d.rehearse.running = false
	}
	return err
}

// working shows how far work is; the browser asks again by itself.
func working(w http.ResponseWriter, label page.Text, done, total int64, since time.Time) *page.Progress {
	w.Header().Set("Refresh", "2")
	p := &page.Progress{Label: label, Done: done, Total: total}
	if took := time.Since(since); took > time.Second {
		p.Rate = int64(float64(done) / took.Seconds())
		if p.Rate > 0 && total > done {
			p.Left = (time.Duration((total-done)/p.Rate) * time.Second).Round(time.Second)
		}
	}
	return p
}

func countFacts(n transfer.Counts) []page.Fact {
	var out []page.Fact
	for _, x := range []struct {
		name string
		n    int64
		must bool
	}{
		{"rows", n.Rows, true}, {"created", n.Created, true}, {"updated", n.Updated, false}, {"unchanged", n.Unchanged, false},
		{"rejected", n.Rejected, true}, {"matched", n.Matched, false}, {"erased", n.Erased, false}, {"unchecked", n.Unchecked, false},
	} {
		if x.must || x.n > 0 {
			out = append(out, page.Fact{Label: page.T("imports.count." + x.name), Cell: page.Cell{Kind: page.KindNumber, Amount: x.n}})
		}
	}
	return out
}

// reasonText says one reason without what stands in the row.
func reasonText(typ string, r transfer.Reason) page.Text {
	rule := page.T("rule." + r.Rule)
	if r.Field == "" {
		return rule
	}
	return page.T("format.pair", fieldLabel(typ, r.Field), rule)
}

// reasonFacts lists how many rows were rejected for what, the most first.
func reasonFacts(typ string, by map[string]int64) []page.Fact {
	keys := make([]string, 0, len(by))
	for k := range by {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if by[a] != by[b] {
			return int(by[b] - by[a])
		}
		return strings.Compare(a, b)
	})
	var out []page.Fact
	for _, k := range keys {
		field, rule, _ := strings.Cut(k, ":")
		label := reasonText(typ, transfer.Reason{Field: field, Rule: rule})
		if k == "other" {
			label = page.T("imports.other_reasons")
		}
		out = append(out, page.Fact{Label: label, Cell: page.Cell{Kind: page.KindNumber, Amount: by[k]}})
	}
	return out
}

// shownRows is how many rejected rows, and how many duplicates, a page lists.
const shownRows = 20

func rejectedList(typ string, rows []transfer.Rejected, all int64) page.List {
	l := page.List{ID: "rejected", Title: page.T("imports.rejected"), Count: all, Empty: page.Empty{Text: page.T("imports.rejected.none")},
		Columns: []page.Column{{Label: page.T("imports.line"), Kind: page.KindNumber}, {Label: page.T("imports.reasons"), Kind: page.KindList}}}
	for _, x := range rows[:min(len(rows), shownRows)] {
		c := page.Cell{Kind: page.KindList}
		for _, why := range x.Reasons {
			c.Items = append(c.Items, reasonText(typ, why))
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindNumber, Amount: x.Line}, c}})
	}
	return l
}

// matchedList lists rows that are there already.
func matchedList(rows []transfer.Matched, all int64) page.List {
	l := page.List{ID: "matched", Title: page.T("imports.matched"), Count: all, Empty: page.Empty{Text: page.T("imports.matched.none")},
		Columns: []page.Column{{Label: page.T("imports.line"), Kind: page.KindNumber}, {Label: page.T("imports.matched.band"), Kind: page.KindBadge}}}
	for _, x := range rows[:min(len(rows), shownRows)] {
		tone := page.Neutral
		if x.Band == guard.Certain.String() {
			tone = page.Warning
		}
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindNumber, Amount: x.Line}, {Kind: page.KindBadge, Key: "imports.band." + x.Band, Tone: tone}}})
	}
	return l
}

// erasedList lists rows with a number of somebody who was erased. Which number it is stays untold.
func erasedList(rows []transfer.Erased, all int64) page.List {
	l := page.List{ID: "erased", Title: page.T("imports.erased"), Count: all, Empty: page.Empty{Text: page.T("imports.erased.none")},
		Columns: []page.Column{{Label: page.T("imports.line"), Kind: page.KindNumber}}}
	for _, x := range rows[:min(len(rows), shownRows)] {
		l.Rows = append(l.Rows, page.Row{Cells: []page.Cell{{Kind: page.KindNumber, Amount: x.Line}}})
	}
	return l
}

// showRehearsal says what the import would do.
func (s *Server) showRehearsal(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	base := "/uploads/" + d.upload.ID
	re := &d.rehearse
	p := &page.Detail{
		Title: page.Cell{Key: "imports.rehearsal", Strong: true}, Subtitle: []page.Text{page.T("type." + d.upload.Type + ".many"), page.Plain(d.upload.Name)},
		Secondary: []page.Action{{Label: page.T("imports.mapping.change"), Href: base}},
	}
	forget := page.Action{Label: page.T("imports.forget"), Href: base + "/forget", Post: true, Tone: page.Danger}
	switch {
	case re.running:
		p.Secondary = nil
		p.Progress = working(w, page.T("imports.rehearsing"), re.counts.Rows, d.start.Rows, re.began)
	case !re.over:
		http.Redirect(w, r.Request, base, http.StatusSeeOther)
		return nil
	case re.err != nil:
		_, word := importFault(re.err)
		p.Notice = page.T("imports.fault." + cmpOr(word, faultWord(re.err)))
		p.Moves = []page.Action{forget}
	default:
		n := re.report.Counts
		p.Notice = page.T("imports.rehearsal.note")
		p.Moves = append(p.Moves, page.Action{Label: page.T("imports.start", n.Created+n.Updated), Href: base + "/start", Post: true, Tone: page.Accent}, forget)
	}
	p.Sections = []page.Section{{Title: page.T("imports.counts"), Rows: countFacts(re.report.Counts)}}
	if re.running {
		p.Sections[0].Rows = countFacts(re.counts)
	}
	if len(re.report.Reasons) > 0 && !re.running {
		p.Sections = append(p.Sections, page.Section{Title: page.T("imports.why"), Rows: reasonFacts(d.upload.Type, re.report.Reasons)})
		p.Lists = append(p.Lists, rejectedList(d.upload.Type, re.report.Rejected, re.report.Counts.Rejected))
	}
	if len(re.report.Matched) > 0 && !re.running {
		p.Lists = append(p.Lists, matchedList(re.report.Matched, re.report.Counts.Matched))
	}
	if len(re.report.Erased) > 0 && !re.running {
		p.Lists = append(p.Lists, erasedList(re.report.Erased, re.report.Counts.Erased))
	}
	return s.show(w, r, http.StatusOK, page.T("imports.rehearsal"), p)
}

// faultWord says why work ended, where importFault has no word for it.
func faultWord(err error) string {
	switch {
	case guard.Denied(err), errors.Is(err, crm.ErrNotFound):
		return "denied"
	case errors.Is(err, guard.ErrQuota):
		return "quota"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "ended"
	}
	return "unknown"
}

func (s *Server) startImport(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rehearse.running || !d.rehearse.over || d.rehearse.err != nil {
		return crm.ErrConflict
	}
	u, err := s.app.BeginImport(r.Context(), r.caller(), d.upload, d.start)
	if err != nil {
		return err
	}
	s.drafts.drop(d)
	http.Redirect(w, r.Request, "/imports/"+u.String(), http.StatusSeeOther)
	return nil
}

func (d *drafts) drop(x *draft) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, x.upload.ID)
}

func (s *Server) forgetUpload(w http.ResponseWriter, r *request) error {
	d, err := s.draft(r)
	if err != nil {
		return err
	}
	s.drafts.drop(d)
	s.app.Forget(d.upload)
	http.Redirect(w, r.Request, "/imports", http.StatusSeeOther)
	return nil
}

// importOf reads an import and the importer of its type, as the caller.
func (s *Server) importOf(ctx context.Context, c guard.Caller, u crm.UUID) (*guard.View[*transfer.Import], app.Importing, error) {
	v, err := s.app.Imports.Get(ctx, c, u)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.app.Importer(ctx, c, v.Value.RecordType, app.ImportOptions{})
	return &v, m, err
}

// own tells whether the caller may go on with an import or undo it.
func (s *Server) own(r *request, j *transfer.Import) (bool, error) {
	ok, _, err := s.app.Imports.May(r.Context(), r.caller(), authz.Update, j)
	return ok, err
}

var errEnough = errors.New("enough")

// firstRows takes the first rows of what an import keeps.
func firstRows[R any](of func(func(R) error) error) ([]R, error) {
	var out []R
	err := of(func(x R) error {
		if len(out) == shownRows {
			return errEnough
		}
		out = append(out, x)
		return nil
	})
	if errors.Is(err, errEnough) || guard.Denied(err) { // of somebody else's import there are the counts
		err = nil
	}
	return out, err
}

func (k *importKind) showImport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	ctx, c, s := r.Context(), r.caller(), k.s
	v, err := s.app.Imports.Get(ctx, c, u)
	if err != nil {
		return err
	}
	j := v.Value
	base := "/imports/" + u.String()
	state := s.importState(j)
	d := &page.Detail{Title: importName(&v), Badge: &state, Version: j.Version, Subtitle: []page.Text{page.T("type." + j.RecordType + ".many")}}
	if e := s.names.get(j.Owner.UUID()); e != nil {
		d.Subtitle = append(d.Subtitle, page.T("detail.owner", page.Plain(e.Name.Expose())))
	}
	work, here := s.app.ImportWork(u)
	mine, err := s.own(r, j)
	if err != nil {
		return err
	}
	busy := work.Running || work.Waiting
	switch {
	case busy && j.State == transfer.Running:
		d.Progress = working(w, page.T("imports.running"), j.Position, work.Total, work.Started)
	case busy:
		d.Progress = working(w, page.T("imports.undoing"), j.UndoneTo, j.Position, work.Started)
	case j.State == transfer.Running || j.State == transfer.Undoing:
		word := "ended"
		if here && work.Err != nil {
			_, word = importFault(work.Err)
			word = cmpOr(word, faultWord(work.Err))
		}
		d.Notice = page.T("imports.fault." + word)
		if j.State == transfer.Running && !s.app.HasImportFile(u) {
			d.Notice = page.T("imports.fault.elsewhere", j.ID.String())
		} else if mine {
			d.Moves = append(d.Moves, page.Action{Label: page.T("imports.continue"), Href: base + "/continue", Post: true})
		}
	}
	if mine && !busy && j.State != transfer.Undone && j.State != transfer.Undoing {
		d.Moves = append(d.Moves, page.Action{Label: page.T("imports.undo"), Href: base + "/undo", Tone: page.Danger})
	}
	counts := page.Section{Title: page.T("imports.counts"), Note: page.T("detail.edited", j.UpdatedAt), Rows: countFacts(j.Counts())}
	if j.State == transfer.Undoing || j.State == transfer.Undone {
		for name, n := range map[string]int64{"undone": j.Undone, "left": j.Left} {
			counts.Rows = append(counts.Rows, page.Fact{Label: page.T("imports.count." + name), Cell: page.Cell{Kind: page.KindNumber, Amount: n}})
		}
		slices.SortFunc(counts.Rows[len(counts.Rows)-2:], func(a, b page.Fact) int { return strings.Compare(b.Label.Key, a.Label.Key) })
		if j.Left > 0 && j.State == transfer.Undone {
			d.Notice = page.T("imports.left", j.Left)
		}
	}
	how := page.Section{Title: page.T("imports.how"), Rows: []page.Fact{{Label: page.T("imports.of.mode"), Cell: page.Cell{Key: "imports.mode." + string(j.Mode)}}}}
	if m, ok := j.Means(); ok {
		if m.Key != "" {
			how.Rows = append(how.Rows, page.Fact{Label: page.T("imports.of.key"), Cell: page.Cell{Key: fieldLabel(j.RecordType, m.Key).Key}})
		}
		columns := page.Cell{Kind: page.KindList}
		for _, f := range m.Fields() {
			columns.Items = append(columns.Items, fieldLabel(j.RecordType, f))
		}
		how.Rows = append(how.Rows, page.Fact{Label: page.T("imports.columns"), Cell: columns}, page.Fact{Label: page.T("imports.ignored_columns"), Cell: page.Cell{Kind: page.KindNumber, Amount: int64(len(m.Ignored()))}})
	}
	d.Sections = []page.Section{counts, how}
	if reasons := reasonFacts(j.RecordType, j.ByReason()); len(reasons) > 0 {
		d.Sections = append(d.Sections, page.Section{Title: page.T("imports.why"), Rows: reasons})
	}
	if j.Rejected+j.Matched+j.Erased > 0 {
		if err := s.importRows(r, d, &v, base); err != nil {
			return err
		}
	}
	return s.show(w, r, http.StatusOK, page.T("imports.title"), d)
}

// importRows lists the rows that an import keeps.
func (s *Server) importRows(r *request, d *page.Detail, v *guard.View[*transfer.Import], base string) error {
	ctx, c, j := r.Context(), r.caller(), v.Value
	m, err := s.app.Importer(ctx, c, j.RecordType, app.ImportOptions{})
	if err != nil {
		return err
	}
	rejected, err := firstRows(func(each func(transfer.Rejected) error) error { return m.Rejected(ctx, c, j.ID, each) })
	if err != nil {
		return err
	}
	if len(rejected) > 0 {
		d.Secondary = append(d.Secondary, page.Action{Label: page.T("imports.download"), Href: base + "/rejected.csv"})
		d.Lists = append(d.Lists, rejectedList(j.RecordType, rejected, j.Rejected))
	}
	matched, err := firstRows(func(each func(transfer.Matched) error) error { return m.Matched(ctx, c, j.ID, each) })
	if err != nil {
		return err
	}
	if len(matched) > 0 {
		d.Lists = append(d.Lists, matchedList(matched, j.Matched))
	}
	erased, err := firstRows(func(each func(transfer.Erased) error) error { return m.Erased(ctx, c, j.ID, each) })
	if err != nil {
		return err
	}
	if len(erased) > 0 {
		d.Lists = append(d.Lists, erasedList(erased, j.Erased))
	}
	return nil
}

func (s *Server) continueImport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	if err := s.app.ContinueImport(r.Context(), r.caller(), u); err != nil {
		return err
	}
	http.Redirect(w, r.Request, "/imports/"+u.String(), http.StatusSeeOther)
	return nil
}

// askUndo says what an undo does before it is done.
func (k *importKind) askUndo(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	j := v.Value
	if ok, err := k.s.own(r, j); err != nil || !ok {
		return errors.Join(err, &authz.DeniedError{Controls: []string{"rbac.permit"}})
	}
	f := &page.Form{
		Title: page.T("imports.undo.title"), Action: "/imports/" + u.String() + "/undo", Submit: page.T("imports.undo.do"), Cancel: "/imports/" + u.String(),
		Note:     page.T("imports.undo.note", j.Created, j.Updated),
		Sections: []page.FormSection{{Fields: []page.Field{{Name: "sure", Kind: page.FieldCheckbox, Label: page.T("imports.undo.sure"), Required: true}}}},
	}
	status := http.StatusOK
	if r.FormValue("again") != "" {
		status, f.Errors = http.StatusUnprocessableEntity, []page.Text{page.T("imports.undo.unsure")}
	}
	return k.s.show(w, r, status, f.Title, f)
}

func (s *Server) undoImport(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	if r.PostFormValue("sure") != "on" {
		http.Redirect(w, r.Request, "/imports/"+u.String()+"/undo?again=1", http.StatusSeeOther)
		return nil
	}
	if err := s.app.UndoImport(r.Context(), r.caller(), u); err != nil {
		return err
	}
	http.Redirect(w, r.Request, "/imports/"+u.String(), http.StatusSeeOther)
	return nil
}

// rejectedRows is the file of the rows that were not stored: the line, the reasons, and the cells as they were, so that it can be put right and imported.
func (s *Server) rejectedRows(w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	ctx, c := r.Context(), r.caller()
	v, m, err := s.importOf(ctx, c, u)
	if err != nil {
		return err
	}
	mapping, ok := v.Value.Means()
	if !ok {
		return crm.ErrNotFound
	}
	head := []string{s.pages.Say(r.lang, page.T("imports.line")), s.pages.Say(r.lang, page.T("imports.reasons"))}
	for _, col := range mapping.Columns {
		head = append(head, col.Header)
	}
	out := csv.NewWriter(w)
	out.UseCRLF = true
	begun := false
	control := http.NewResponseController(w)
	write := func(cells []string) error {
		if !begun {
			begun = true
			h := w.Header()
			h.Set("Content-Type", "text/csv; charset=utf-8")
			h.Set("Content-Disposition", `attachment; filename="rejected-`+u.String()[24:]+`.csv"`)
			if _, err := io.WriteString(w, "\ufeff"); err != nil { // spreadsheets take it for UTF-8 then
				return err
			}
		}
		_ = control.SetWriteDeadline(time.Now().Add(time.Minute))
		for i := range cells {
			cells[i] = transfer.Harmless(cells[i])
		}
		return out.Write(cells)
	}
	err = m.Rejected(ctx, c, crm.ID[transfer.Import](u), func(x transfer.Rejected) error {
		if !begun {
			if err := write(head); err != nil {
				return err
			}
		}
		var why []string
		for _, reason := range x.Reasons {
			text := s.pages.Say(r.lang, reasonText(v.Value.RecordType, reason))
			if len(reason.Near) > 0 {
				text += " (" + strings.Join(reason.Near, ", ") + "?)"
			}
			why = append(why, text)
		}
		return write(append([]string{fmt.Sprint(x.Line), strings.Join(why, "; ")}, x.Cells...))
	})
	if err == nil && !begun {
		err = write(head)
	}
	if err == nil {
		out.Flush()
		err = out.Error()
	}
	if err != nil && begun {
		panic(http.ErrAbortHandler) // the file must not look complete
	}
	return err
}

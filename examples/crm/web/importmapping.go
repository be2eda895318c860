package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

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

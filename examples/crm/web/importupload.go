package web

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/crm/transfer/csvfile"
	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/page"
)

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

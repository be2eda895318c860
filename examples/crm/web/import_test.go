package web

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/xuri/excelize/v2"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// sendFile posts a file as a browser does: the fields first.
func (b *browser) sendFile(path, name string, content []byte, fields ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	return b.sendIn("en", path, name, content, fields...)
}

// upload sends a file of customers to the pages and returns the page of its mapping.
func (b *browser) upload(name, content string, fields ...string) string {
	b.t.Helper()
	w := b.sendFile("/uploads", name, []byte(content), append([]string{"type", crm.TypeCustomer}, fields...)...)
	require.Equal(b.t, http.StatusSeeOther, w.Code, w.Body.String())
	return w.Header().Get("Location")
}

var inputs = regexp.MustCompile(`<select id="[^"]*" name="([^"]*)"[^>]*>(.*?)</select>`)

// chosen reads what a form has chosen: what a browser would post.
func chosen(body string) url.Values {
	v := url.Values{}
	for _, m := range inputs.FindAllStringSubmatch(body, -1) {
		value := ""
		if c := regexp.MustCompile(`<option value="([^"]*)" selected`).FindStringSubmatch(m[2]); c != nil {
			value = c[1]
		}
		v.Set(m[1], value)
	}
	return v
}

// rehearsed goes from the mapping, with changes, to the page of the dry run.
func (b *browser) rehearsed(at string, changes ...string) string {
	b.t.Helper()
	form := chosen(b.body(at))
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
	}
	code, to := b.post(at, form)
	require.Equal(b.t, http.StatusSeeOther, code)
	b.until(to, "Nothing is stored yet")
	return to
}

// until waits for a page to say something.
func (b *browser) until(at, text string) string {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		body := b.body(at)
		if strings.Contains(body, text) {
			return body
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s does not say %q: %s", at, text, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// filesLeft are the files of uploads that lie in the data folder.
func (o *office) filesLeft() []string {
	o.t.Helper()
	all, err := filepath.Glob(filepath.Join(o.app.Config.Data, "uploads", "*"))
	require.NoError(o.t, err)
	return all
}

const badFile = "Company,Name,Phone,Email\n" +
	"Ulm Maschinen,Anna Leise,+49 731 555001,anna@mail.example\n" +
	"Bonn Handel,Bert Leise,+49 228 555002,bert at home\n" +
	"=1+1,Cleo Leise,+49 228 555003,cleo@mail.example\n" +
	"Kiel Handel,Dora Leise\n" +
	",,138 0013 9999,=cmd@mail\n"

// TestImportPages: a manager uploads a file with bad rows, sees what the columns mean and what would happen, imports it, downloads what was refused, and undoes it. While the file waits
// nothing of it is readable on the disk, and afterwards it is gone.
//
//crm:item 13 partly
func TestImportPages(t *testing.T) {
	o := newOffice(t)
	manager := o.as("manager")
	require.Contains(t, manager.body("/customers"), `href="/imports/new?type=customer"`)
	require.Equal(t, http.StatusOK, manager.get("/imports/new?type=customer"))
	at := manager.upload(`C:\files\Kunden.csv`, badFile)
	form := chosen(manager.body(at))
	assert.Equal(t, []string{"company", "contact", "phone", "email"}, []string{form.Get("column.0"), form.Get("column.1"), form.Get("column.2"), form.Get("column.3")})
	assert.Contains(t, manager.body(at), "Kunden.csv")
	assert.NotContains(t, manager.body(at), `C:\files`)

	left := o.filesLeft()
	require.Len(t, left, 1)
	raw, err := os.ReadFile(left[0])
	require.NoError(t, err)
	assert.NotContains(t, string(raw), "Leise", "sealed on the disk")
	info, err := os.Stat(left[0])
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	before := o.count()
	dry := manager.rehearsed(at)
	body := manager.body(dry)
	assert.Contains(t, body, "not an e-mail address")
	assert.Contains(t, body, "more or fewer cells")
	assert.NotContains(t, body, "bert at home")
	assert.Equal(t, before, o.count(), "a dry run stores nothing")

	code, job := manager.post(dry[:len(dry)-len("rehearsal")]+"start", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	body = manager.until(job, "Done")
	assert.Equal(t, before+2, o.count())
	assert.Empty(t, o.filesLeft(), "the file goes with the import")
	assert.NotContains(t, body, "bert at home")
	assert.Contains(t, manager.body("/imports"), job)

	// The rows that were refused, harmless and as they were.
	w := manager.do(http.MethodGet, job+"/rejected.csv", nil)
	require.Equal(t, http.StatusOK, w.Code)
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(w.Body.String(), "\ufeff")))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 4)
	assert.Equal(t, []string{"Line", "Reasons", "Company", "Name", "Phone", "Email"}, rows[0])
	assert.Equal(t, []string{"3", "Bonn Handel", "Bert Leise", "'+49 228 555002", "bert at home"}, append([]string{rows[1][0]}, rows[1][2:]...))
	assert.Equal(t, "'=cmd@mail", rows[3][5])
	assert.Equal(t, http.StatusOK, manager.get(job))

	// Put right, the download is a file that can be imported: what was made harmless is read as it was.
	fixed := strings.ReplaceAll(strings.Join(strings.Split(w.Body.String(), "\n")[:2], "\n"), "bert at home", "bert@mail.example")
	second := manager.upload("fixed.csv", fixed)
	dry = manager.rehearsed(second)
	code, again := manager.post(dry[:len(dry)-len("rehearsal")]+"start", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	manager.until(again, "Done")
	found, err := o.app.Customers.Search(t.Context(), app.System("test"), "bert@mail.example", 5, "email")
	require.NoError(t, err)
	require.Len(t, found.Items, 1)
	stored, err := o.app.Customers.Get(t.Context(), app.System("test"), found.Items[0].Value.ID.UUID())
	require.NoError(t, err)
	assert.Equal(t, "+49 228 555002", stored.Value.Phone.Expose())

	// Undone when somebody is sure.
	assert.Contains(t, manager.body(job+"/undo"), "recycle bin")
	code, to := manager.post(job+"/undo", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	assert.Equal(t, http.StatusUnprocessableEntity, manager.get(to))
	code, _ = manager.post(job+"/undo", url.Values{"sure": {"on"}})
	require.Equal(t, http.StatusSeeOther, code)
	manager.until(job, "Taken back")
	manager.until(job, "Undone")
	assert.Equal(t, before+1, o.count(), "the second import stays")
	code, _ = manager.post(job+"/undo", url.Values{"sure": {"on"}})
	assert.Equal(t, http.StatusForbidden, code, "it is final")
}

// count is how many customers there are.
func (o *office) count() int64 {
	o.t.Helper()
	n, err := o.app.Customers.Count(o.t.Context(), app.System("test"), guard.Query{})
	require.NoError(o.t, err)
	return n
}

// TestImportIsNotForEverybody: who may not import has no page, no upload and no act for it, and nobody has another's.
func TestImportIsNotForEverybody(t *testing.T) {
	o := newOffice(t)
	manager, sales, auditor, admin := o.as("manager"), o.as("sales"), o.as("auditor"), o.as("admin")
	at := manager.upload("in.csv", badFile)
	for _, b := range []*browser{sales, auditor} {
		assert.NotContains(t, b.body("/customers"), "/imports/new")
		assert.GreaterOrEqual(t, b.get("/imports/new"), 400, b.name)
		for _, path := range []string{"/uploads", "/api/v1/imports"} {
			w := b.sendFile(path, "in.csv", []byte(badFile), "type", "customer")
			assert.Equal(t, http.StatusForbidden, w.Code, "%s %s", b.name, path)
		}
	}
	assert.Len(t, o.filesLeft(), 1, "nothing of theirs was kept")
	for _, b := range []*browser{sales, auditor, admin} {
		assert.Equal(t, http.StatusNotFound, b.get(at), b.name)
		assert.Equal(t, http.StatusNotFound, b.get(at+"/rehearsal"), b.name)
		for _, act := range []string{"", "/start", "/forget"} {
			code, _ := b.post(at+act, url.Values{})
			assert.Equal(t, http.StatusNotFound, code, "%s %s", b.name, act)
		}
	}
	code, _ := manager.post(at+"/start", url.Values{})
	assert.Equal(t, http.StatusConflict, code, "not before a dry run")
	w := manager.sendFile("/uploads", "in.csv", []byte(badFile), "type", "product")
	assert.Equal(t, http.StatusForbidden, w.Code, "managers import no products")
	dry := manager.rehearsed(at)
	_, job := manager.post(strings.TrimSuffix(dry, "rehearsal")+"start", url.Values{})
	manager.until(job, "Done")
	assert.GreaterOrEqual(t, sales.get(job), 400)
	assert.GreaterOrEqual(t, sales.get("/api/v1"+job), 400)
	for _, b := range []*browser{auditor, admin} { // who sees all imports sees counts, no rows, and undoes nothing
		body := b.body(job)
		assert.Contains(t, body, "Rejected", b.name)
		assert.NotContains(t, body, "rejected.csv", b.name)
		rows := b.do(http.MethodGet, job+"/rejected.csv", nil)
		assert.NotContains(t, rows.Body.String(), "Leise", b.name)
		rows = b.do(http.MethodGet, "/api/v1"+job+"/rejected", nil)
		assert.NotContains(t, rows.Body.String(), "Leise", b.name)
		code, _ := b.post(job+"/undo", url.Values{"sure": {"on"}})
		assert.GreaterOrEqual(t, code, 400, b.name)
		code, _ = b.post(job+"/continue", url.Values{})
		assert.GreaterOrEqual(t, code, 400, b.name)
	}
	assert.Contains(t, manager.body(job), "rejected.csv")
	// A form of another site is refused.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, job+"/undo", strings.NewReader("sure=on"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.AddCookie(manager.cookie)
	out := httptest.NewRecorder()
	o.server.ServeHTTP(out, r)
	assert.Equal(t, http.StatusForbidden, out.Code)
}

// bomb is a workbook that unpacks to a gigabyte.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range map[string]string{
		"[Content_Types].xml": `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`, "xl/workbook.xml": "<workbook/>",
	} {
		f, err := z.Create(name)
		require.NoError(t, err)
		_, err = io.WriteString(f, text)
		require.NoError(t, err)
	}
	f, err := z.Create("xl/worksheets/sheet1.xml")
	require.NoError(t, err)
	zeros := make([]byte, 1<<20)
	for range 600 {
		_, err = f.Write(zeros)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

// TestImportHostileFiles: what is wrong with a file is said in both languages, without anything that stands in it, and nothing of it stays.
func TestImportHostileFiles(t *testing.T) {
	o := newOffice(t)
	manager := o.as("manager")
	head := "Company,Name,Phone,Email\n"
	good := "Geheim GmbH,Jan Leise,+49 30 5550001,leise@mail.example\n"
	long := strings.Repeat("Leise77", 10<<20/7)
	for _, tc := range []struct {
		name    string
		content []byte
		en, zh  string
	}{
		{"empty", nil, "header of the file cannot be read", "无法读取文件的表头"},
		{"the same header twice", []byte("Leise,Leise\n1,2\n"), "Two columns", "两列表头相同"},
		{"broken quotes in the header", []byte("\"Leise,Name\nx,y\n"), "header of the file cannot be read", "无法读取文件的表头"},
		{"invalid UTF-8 in the header", []byte("Leise\xff\xfe\x00,Name\n"), "header of the file cannot be read", "无法读取文件的表头"},
		{"a header of 10 MB", []byte(long + ",Name\n"), "header of the file cannot be read", "无法读取文件的表头"},
		{"a zip bomb", bomb(t), "too large", "文件过大"},
		{"a zip that is no workbook", []byte("PK\x03\x04Leise77"), "no workbook", "不是可以读取的工作簿"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for lang, want := range map[string]string{"en": tc.en, "zh-CN": tc.zh} {
				b := *manager
				b.t = t
				w := b.sendIn(lang, "/uploads", "Leise.csv", tc.content, "type", "customer")
				assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
				assert.Contains(t, w.Body.String(), want)
				assert.NotContains(t, w.Body.String(), "Leise")
				w = b.sendIn(lang, "/api/v1/imports", "Leise.csv", tc.content, "type", "customer")
				assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
				assert.Contains(t, w.Body.String(), `"reason":"file_`)
				assert.NotContains(t, w.Body.String(), "Leise")
			}
			assert.Empty(t, o.filesLeft())
		})
	}
	for _, tc := range []struct {
		name, content, rule string
		stored              int64
	}{
		{"a row of 10 MB", head + good + "Geheim," + long + ",1,\n" + good, "This is too long", 2},
		{"a quote that is never closed", head + good + "\"Geheim,Leise77,1,\n" + good, "never closed", 2},
		{"a quote inside", head + "Ge\"heim\",Leise77,1,\n" + good, "inside a value", 1},
		{"invalid UTF-8", head + good + "Geheim \xff\xfe,Leise77,1,\n" + good, "not in the encoding", 2},
		{"columns that move half-way", head + good + "Company,Phone,Name,Email\nGeheim,+49 30 555,Leise77,\n" + good, "columns moved", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := *manager
			b.t = t
			w := b.sendIn("en", "/api/v1/imports", "in.csv", []byte(tc.content), "type", "customer", "dry_run", "true", "encoding", "UTF-8", "duplicates", "off")
			require.Equal(t, http.StatusOK, w.Code, w.Body.String())
			var rep struct {
				Counts  struct{ Created, Rejected int64 }
				Reasons map[string]int64
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &rep))
			assert.Equal(t, tc.stored, rep.Counts.Created)
			assert.NotZero(t, rep.Counts.Rejected)
			at := b.upload("in.csv", tc.content, "encoding", "UTF-8")
			dry := b.rehearsed(at, "duplicates", "off")
			assert.Contains(t, b.body(dry), tc.rule)
			assert.NotContains(t, b.body(dry), "Leise77")
			code, _ := b.post(at+"/forget", url.Values{})
			assert.Equal(t, http.StatusSeeOther, code)
			assert.Empty(t, o.filesLeft())
			assert.Equal(t, http.StatusNotFound, b.get(at))
		})
	}
}

// sendIn is sendFile in a language.
func (b *browser) sendIn(lang, path, name string, content []byte, fields ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i < len(fields); i += 2 {
		require.NoError(b.t, w.WriteField(fields[i], fields[i+1]))
	}
	f, err := w.CreateFormFile("file", name)
	require.NoError(b.t, err)
	_, err = f.Write(content)
	require.NoError(b.t, err)
	require.NoError(b.t, w.Close())
	r := httptest.NewRequestWithContext(b.t.Context(), http.MethodPost, path, &body)
	r.RemoteAddr = "127.0.0.1:4000"
	r.Header.Set("Content-Type", w.FormDataContentType())
	r.AddCookie(b.cookie)
	r.AddCookie(&http.Cookie{Name: "crm-lang", Value: lang})
	out := httptest.NewRecorder()
	b.server.ServeHTTP(out, r)
	return out
}

// TestImportAPI: a program imports with a mapping of its own, sees how far it is, lists what was refused, and undoes it; what does not fit is refused before anything is stored.
func TestImportAPI(t *testing.T) {
	o := newOffice(t)
	manager := o.as("manager")
	api := func(method, path string) (int, map[string]any) {
		w := manager.do(method, path, nil)
		out := map[string]any{}
		_ = json.Unmarshal(w.Body.Bytes(), &out)
		return w.Code, out
	}
	before := o.count()
	w := manager.sendFile("/api/v1/imports", "in.csv", []byte(badFile), "type", "customer", "dry_run", "true")
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	assert.Contains(t, w.Body.String(), `"created":2`)
	assert.Equal(t, before, o.count())
	assert.Empty(t, o.filesLeft())

	w = manager.sendFile("/api/v1/imports", "in.csv", []byte(badFile), "type", "customer")
	require.Equal(t, http.StatusAccepted, w.Code, w.Body.String())
	var job struct{ ID string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &job))
	at := "/api/v1/imports/" + job.ID
	done := func(state string) map[string]any {
		var last map[string]any
		require.Eventually(t, func() bool {
			code, got := api(http.MethodGet, at)
			last = got
			return code == http.StatusOK && got["state"] == state && got["working"] == false
		}, time.Minute, 20*time.Millisecond, "%v", last)
		return last
	}
	got := done("done")
	assert.EqualValues(t, 2, got["counts"].(map[string]any)["created"])
	assert.EqualValues(t, 3, got["counts"].(map[string]any)["rejected"])
	code, rejected := api(http.MethodGet, at+"/rejected?limit=2")
	require.Equal(t, http.StatusOK, code)
	assert.Len(t, rejected["items"], 2)
	assert.Equal(t, true, rejected["more"])
	code, rejected = api(http.MethodGet, at+"/rejected?after=4")
	require.Equal(t, http.StatusOK, code)
	assert.Len(t, rejected["items"], 1)
	code, list := api(http.MethodGet, "/api/v1/imports")
	require.Equal(t, http.StatusOK, code)
	assert.Len(t, list["items"], 1)
	assert.NotContains(t, fmt.Sprint(list), "salt")
	code, _ = api(http.MethodPost, at+"/undo")
	require.Equal(t, http.StatusAccepted, code)
	got = done("undone")
	assert.EqualValues(t, 2, got["undone"])
	assert.Equal(t, before, o.count())
	for _, act := range []string{"/undo", "/continue"} {
		code, _ = api(http.MethodPost, at+act)
		assert.Equal(t, http.StatusForbidden, code, "what is undone is final")
	}

	for name, fields := range map[string][]string{
		"no such type": {"type", "secret"}, "a type of others": {"type", "product"}, "no type": {},
		"no such mode": {"type", "customer", "mode", "replace"}, "an update without a key": {"type", "customer", "mode", "update"},
		"no such key": {"type", "customer", "key", "phone"}, "no such encoding": {"type", "customer", "encoding", "EBCDIC"},
		"no such separator": {"type", "customer", "separator", "x"}, "no such choice": {"type", "customer", "duplicates", "maybe"},
		"a mapping that is no JSON": {"type", "customer", "mapping", "{"}, "a mapping of other columns": {"type", "customer", "mapping", `{"columns":[{"header":"x","field":"company"}]}`},
		"a mapping without a name": {"type", "customer", "mapping", `{"columns":[{"header":"Company"},{"header":"Name"},{"header":"Phone","field":"phone"},{"header":"Email"}]}`},
	} {
		w := manager.sendFile("/api/v1/imports", "in.csv", []byte(badFile), fields...)
		assert.GreaterOrEqual(t, w.Code, 400, name)
		assert.Less(t, w.Code, 500, name)
		assert.NotContains(t, w.Body.String(), "Leise", name)
	}
	assert.Empty(t, o.filesLeft())
	assert.Equal(t, before, o.count())
	spec := manager.body("/api/openapi.json")
	for _, id := range []string{"create-import", "list-imports", "get-import", "undo-import", "continue-import", "list-rejected"} {
		assert.Contains(t, spec, id)
	}
}

// TestImportDuplicates: a row that is certainly a record that is there is stored and listed, or refused; a record that the importer may not read changes nothing.
func TestImportDuplicates(t *testing.T) {
	o := newOffice(t)
	manager := o.as("manager")
	make := func(name, phone, team string, owner *crm.Employee) {
		c := &crm.Customer{
			Name: crm.NewText(name), Phone: crm.NewText(phone), Email: crm.NewText(strings.Fields(name)[0] + "@there.example"), Kind: crm.CompanyCustomer, Stage: crm.CustomerNew, Currency: "CNY",
			Meta: crm.Meta[crm.Customer]{Owner: owner.ID, Team: team},
		}
		_, err := o.app.Customers.Create(t.Context(), app.System("test"), c)
		require.NoError(t, err)
	}
	make("Hohenheim Maschinenbau GmbH", "+49 711 5550101", "/east/1/", o.people["sales"])
	make("Tübingen Werkzeuge GmbH", "+49 7071 5550102", "/west/1/", o.people["peer"])
	file := "Company,Phone,Email\nHohenheim Maschinenbau GmbH,+49 711 5550101,Hohenheim@there.example\nTübingen Werkzeuge GmbH,+49 7071 5550102,Tübingen@there.example\nNeu GmbH,+49 7071 5550103,neu@there.example\n"
	dry := func(what string) (created, rejected, matched float64) {
		w := manager.sendFile("/api/v1/imports", "in.csv", []byte(file), "type", "customer", "dry_run", "true", "duplicates", what)
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		var rep struct{ Counts map[string]float64 }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &rep))
		return rep.Counts["created"], rep.Counts["rejected"], rep.Counts["matched"]
	}
	for what, want := range map[string][3]float64{"warn": {3, 0, 1}, "refuse": {2, 1, 0}, "off": {3, 0, 0}, "": {3, 0, 1}} {
		created, rejected, matched := dry(what)
		assert.Equal(t, want, [3]float64{created, rejected, matched}, what)
	}
	at := manager.upload("in.csv", file)
	to := manager.rehearsed(at)
	body := manager.body(to)
	assert.Contains(t, body, "Rows that are there already")
	assert.Contains(t, body, ">certain<")
	_, job := manager.post(strings.TrimSuffix(to, "rehearsal")+"start", url.Values{})
	body = manager.until(job, "Done")
	assert.Contains(t, body, ">certain<")
	assert.NotContains(t, body, "Tübingen")
}

// TestImportResumed: an import that the end of the process cut off is gone on with by the next one, from the sealed file, as the employee whose it is; who may not import any more
// does not go on.
func TestImportResumed(t *testing.T) {
	for _, fired := range []bool{false, true} {
		t.Run(map[bool]string{false: "goes on", true: "rights gone"}[fired], func(t *testing.T) {
			o := newOffice(t)
			manager := o.people["manager"]
			c, err := o.app.As(t.Context(), manager, "import")
			require.NoError(t, err)
			before := o.count()
			over, stop := context.WithCancel(t.Context())
			stop()
			o.app.RunImports(over) // the process is about to end: nothing is worked on any more
			u, err := o.app.Receive(manager.ID.UUID(), crm.TypeCustomer, "in.csv", strings.NewReader(badFile))
			require.NoError(t, err)
			g, err := u.Look(app.FileOptions{})
			require.NoError(t, err)
			m, err := o.app.Importer(t.Context(), c, crm.TypeCustomer, app.ImportOptions{})
			require.NoError(t, err)
			start := app.ImportStart{Mapping: transfer.Suggest(m.Fields(), g.Header, g.Samples), Mode: transfer.Create, Header: g.Header, Rows: g.Rows, Duplicates: app.WarnDuplicates}
			id, err := o.app.BeginImport(t.Context(), c, u, start)
			require.ErrorIs(t, err, crm.ErrUnavailable)
			require.True(t, o.app.HasImportFile(id))
			require.NoError(t, o.app.Close())
			if fired {
				cfg := o.app.Config
				a, err := app.Open(t.Context(), cfg)
				require.NoError(t, err)
				v, err := a.Employees.Get(t.Context(), app.System("test"), manager.ID.UUID())
				require.NoError(t, err)
				v.Value.State = crm.EmployeeSuspended
				_, err = a.Employees.Update(t.Context(), app.System("test"), v.Value)
				require.NoError(t, err)
				require.NoError(t, a.Close())
			}
			a, err := app.Open(t.Context(), o.app.Config)
			require.NoError(t, err)
			t.Cleanup(func() { _ = a.Close() })
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); a.RunImports(ctx) }()
			require.Eventually(t, func() bool {
				w, ok := a.ImportWork(id)
				return ok && !w.Running && !w.Waiting
			}, time.Minute, 20*time.Millisecond)
			v, err := a.Imports.Get(t.Context(), app.System("test"), id)
			require.NoError(t, err)
			n, err := a.Customers.Count(t.Context(), app.System("test"), guard.Query{})
			require.NoError(t, err)
			if fired {
				assert.Equal(t, transfer.Running, v.Value.State)
				assert.Equal(t, before, n)
			} else {
				assert.Equal(t, transfer.Done, v.Value.State)
				assert.Equal(t, before+2, n)
				assert.False(t, a.HasImportFile(id))
			}
			cancel()
			<-ended
		})
	}
}

// TestImportSheet: of a workbook that sheet is imported which is named, by the page, by REST and on; one that there is not is refused, and the names of the sheets are offered.
func TestImportSheet(t *testing.T) {
	o := newOffice(t)
	x := excelize.NewFile()
	require.NoError(t, x.SetSheetRow("Sheet1", "A1", &[]string{"read me"}))
	_, err := x.NewSheet("People & <b>")
	require.NoError(t, err)
	require.NoError(t, x.SetSheetRow("People & <b>", "A1", &[]string{"name", "phone"}))
	require.NoError(t, x.SetSheetRow("People & <b>", "A2", &[]string{"Ann Lee", "13800135678"}))
	var b bytes.Buffer
	require.NoError(t, x.Write(&b))
	admin, before := o.as("admin"), o.count()
	dry := func(sheet string) (int, string) {
		w := admin.sendFile("/api/v1/imports", "people.xlsx", b.Bytes(), "type", crm.TypeLead, "dry_run", "true", "sheet", sheet)
		return w.Code, w.Body.String()
	}
	code, body := dry("People & <b>")
	require.Equal(t, http.StatusOK, code, body)
	assert.Contains(t, body, `"created":1`)
	code, body = dry("")
	assert.NotContains(t, body, `"created":1`, code)
	for _, sheet := range []string{"Sheet9", "../People"} {
		code, body = dry(sheet)
		assert.Equal(t, http.StatusUnprocessableEntity, code, sheet)
		assert.NotContains(t, body, sheet)
	}

	at := admin.upload("people.xlsx", b.String())
	page := admin.body(at)
	assert.Contains(t, page, "read me")
	assert.Contains(t, page, `<option value="People &amp; &lt;b&gt;"`)
	form := chosen(page)
	require.Equal(t, "Sheet1", form.Get("sheet"))
	form.Set("sheet", "Sheet9")
	w := admin.do(http.MethodPost, at, form)
	assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
	form.Set("sheet", "People & <b>")
	w = admin.do(http.MethodPost, at, form)
	require.Equal(t, http.StatusOK, w.Code, "its columns are shown first")
	form = chosen(w.Body.String())
	form.Set("sheet", "People & <b>") // the reader of forms leaves what is escaped
	code, to := admin.post(at, form)
	require.Equal(t, http.StatusSeeOther, code)
	admin.until(to, "Nothing is stored yet")
	code, to = admin.post(strings.TrimSuffix(to, "rehearsal")+"start", url.Values{})
	require.Equal(t, http.StatusSeeOther, code)
	require.Eventually(t, func() bool { return o.count() == before+1 }, time.Minute, 20*time.Millisecond, to)
}

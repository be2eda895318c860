package web

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/transfer/xlsx"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// cellsOf reads a CSV of an export without its mark.
func cellsOf(t *testing.T, text string) [][]string {
	t.Helper()
	in := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	in.FieldsPerRecord = -1
	rows, err := in.ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(rows), 2)
	require.Equal(t, []string{"# end"}, rows[len(rows)-1])
	return rows
}

// madeUp is the row of a file that is no record of the office.
func (o *office) madeUp(rows [][]string) []string {
	known := map[string]bool{"id": true}
	for _, c := range o.customers {
		known[c.ID.String()] = true
	}
	for _, row := range rows {
		if len(row) > 1 && len(row[0]) == 36 && !known[row[0]] {
			return row
		}
	}
	return nil
}

// api posts JSON.
func (b *browser) api(path string, body any) *httptest.ResponseRecorder {
	b.t.Helper()
	text, err := json.Marshal(body)
	require.NoError(b.t, err)
	r := httptest.NewRequestWithContext(b.t.Context(), http.MethodPost, path, bytes.NewReader(text))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.RemoteAddr = "127.0.0.1:4000"
	r.AddCookie(b.cookie)
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	b.keep(w)
	return w
}

// TestExportTraced: a row of a leaked file, in CSV and in a workbook, by pages and by REST, names the export that it comes from to who may read the log, and to nobody else; the made-up
// record is in no list, and no page shows from what it follows.
//
//crm:item 13
func TestExportTraced(t *testing.T) {
	o := newOffice(t)
	admin, auditor, sales := o.as("admin"), o.as("auditor"), o.as("sales")
	reason := url.Values{"reason": {"year-end audit"}}
	w := admin.do(http.MethodPost, "/customers/export", reason)
	require.Equal(t, http.StatusOK, w.Code)
	fake := o.madeUp(cellsOf(t, w.Body.String()))
	require.NotNil(t, fake)
	page, err := o.app.Exports.List(t.Context(), o.caller("admin"), guard.Query{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	id := page.Items[0].Value.ID.String()
	require.Equal(t, "csv", page.Items[0].Value.Format)

	for name, text := range map[string]string{"a row": strings.Join(fake, ","), "the mark": "x " + id + " y", "its id": strings.ToUpper(fake[0])} {
		body := auditor.do(http.MethodPost, "/exports/trace", url.Values{"text": {text}}).Body.String()
		assert.Contains(t, body, "/exports/"+id, name)
	}
	assert.Equal(t, 3, o.logged("export.trace", o.id("auditor"), audit.Allowed))
	assert.Equal(t, http.StatusOK, auditor.get("/exports/trace"))
	for name, text := range map[string]string{"another id": crm.NewUUID().String(), "a real customer": o.customers[0].ID.String(), "words": "nobody@example.com"} {
		code, _ := auditor.post("/exports/trace", url.Values{"text": {text}})
		assert.Equal(t, http.StatusUnprocessableEntity, code, name)
	}
	assert.GreaterOrEqual(t, sales.get("/exports/trace"), 400)
	code, _ := sales.post("/exports/trace", url.Values{"text": {fake[0]}})
	assert.Equal(t, http.StatusForbidden, code)
	assert.Equal(t, http.StatusForbidden, sales.api("/api/v1/exports/trace", map[string]string{"text": fake[0]}).Code)
	seed, err := o.app.Exports.Get(t.Context(), app.System("test"), page.Items[0].Value.ID.UUID())
	require.NoError(t, err)
	require.Len(t, seed.Value.Canary.Expose(), 32)
	for _, text := range []string{admin.body("/exports/" + id), admin.body("/api/v1/exports/" + id), auditor.body("/api/v1/exports"), admin.body("/exports")} {
		assert.NotContains(t, text, seed.Value.Canary.Expose())
		assert.NotContains(t, text, fake[0])
	}
	assert.NotContains(t, admin.body("/customers"), fake[0])

	// The same by REST, as a workbook of two columns.
	r := admin.api("/api/v1/customers/exports", map[string]any{"format": "xlsx", "columns": []string{"name", "phone"}, "filter": "stage=new", "reason": "audit"})
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	var made struct{ ID, State string }
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &made))
	require.Equal(t, "open", made.State)
	r = admin.do(http.MethodPost, "/api/v1/exports/"+made.ID+"/download", nil)
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	assert.Contains(t, r.Header().Get("Content-Disposition"), ".xlsx")
	book, err := xlsx.Open(bytes.NewReader(r.Body.Bytes()), nil)
	require.NoError(t, err)
	defer book.Close()
	assert.Contains(t, book.Header(), made.ID)
	var rows [][]string
	for row, err := range book.Rows() {
		require.NoError(t, err)
		rows = append(rows, slices.Clone(row.Cells[:3]))
	}
	require.Len(t, rows, 1+5+1)
	assert.Equal(t, []string{"id", "name", "phone"}, rows[0])
	assert.NotContains(t, fmt.Sprint(rows), "13800138")
	r = auditor.api("/api/v1/exports/trace", map[string]string{"text": strings.Join(o.madeUp(rows), "\t")})
	assert.Contains(t, r.Body.String(), made.ID)
	assert.NotEqual(t, http.StatusOK, admin.api("/api/v1/exports/"+made.ID+"/download", struct{}{}).Code, "once")
	for name, bad := range map[string]map[string]any{
		"a hidden column": {"columns": []string{"id_number", "note"}, "reason": "x"}, "no such column": {"columns": []string{"salary"}, "reason": "x"},
		"no reason": {"reason": " "}, "a format": {"format": "pdf", "reason": "x"}, "a personal filter": {"filter": "phone=138", "reason": "x"}, "no filter": {"filter": "show=everything", "reason": "x"},
		"the program's field": {"filter": "free_in=x", "reason": "x"},
	} {
		assert.Equal(t, http.StatusUnprocessableEntity, admin.api("/api/v1/customers/exports", bad).Code, name)
	}
	assert.Equal(t, http.StatusForbidden, sales.api("/api/v1/customers/exports", map[string]any{"reason": "x"}).Code)
}

// TestExportByTwoREST: above the policy's number somebody else approves, by REST too; the password is asked for once more.
func TestExportByTwoREST(t *testing.T) {
	o := newOffice(t)
	o.strict()
	admin, other := o.as("admin"), o.as("admin2")
	r := admin.api("/api/v1/customers/exports", map[string]any{"reason": "audit"})
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	var made struct {
		ID, State string
		Rows      int
	}
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &made))
	require.Equal(t, "requested", made.State)
	require.Equal(t, 5, made.Rows)
	at := "/api/v1/exports/" + made.ID
	assert.Equal(t, http.StatusUnprocessableEntity, admin.api(at+"/download", struct{}{}).Code, "not approved")
	assert.Equal(t, http.StatusForbidden, admin.api(at+"/approve", map[string]any{"version": 1}).Code, "nobody approves their own")
	assert.Equal(t, http.StatusForbidden, other.api(at+"/download", struct{}{}).Code)
	assert.Equal(t, http.StatusConflict, other.api(at+"/approve", map[string]any{"version": 9}).Code)
	assert.Less(t, other.api(at+"/approve", map[string]any{"version": 1}).Code, 300)
	o.ahead.Store(int64(10 * time.Minute))
	r = admin.api(at+"/download", struct{}{})
	assert.Equal(t, http.StatusForbidden, r.Code)
	assert.Contains(t, r.Body.String(), "obligation.step_up")
	assert.Equal(t, http.StatusForbidden, admin.api(at+"/download", map[string]any{"password": "wrong wrong wrong"}).Code)
	o.ahead.Store(0)
	r = admin.api(at+"/download", struct{}{})
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	assert.Contains(t, r.Body.String(), "# end")
}

// cut is a connection that breaks off.
type cut struct {
	*httptest.ResponseRecorder
	left int
}

func (c *cut) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		return 0, errors.New("connection reset")
	}
	return c.ResponseRecorder.Write(b)
}

// TestExportBroken: a download that breaks off is logged as such, has no end, and is used up.
func TestExportBroken(t *testing.T) {
	o := newOffice(t)
	admin := o.as("admin")
	for _, format := range []string{"csv", "xlsx"} {
		form := url.Values{"reason": {"audit"}, "format": {format}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/customers/export", strings.NewReader(form.Encode()))
		r.RemoteAddr = "127.0.0.1:4000"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.AddCookie(admin.cookie)
		w := &cut{httptest.NewRecorder(), 100}
		assert.Panics(t, func() { o.server.ServeHTTP(w, r) }, "the connection is cut")
		assert.NotContains(t, w.Body.String(), "# end")
		_, err := xlsx.Open(bytes.NewReader(w.Body.Bytes()), nil)
		assert.Error(t, err)
	}
	assert.Equal(t, 2, o.logged("export.broken", o.id("admin"), audit.Failed))
	assert.Zero(t, o.logged("export.written", o.id("admin"), audit.Allowed))
	found, err := o.app.Log.Query(t.Context(), audit.Filter{Action: "export.broken"}, math.MaxUint64, 1)
	require.NoError(t, err)
	assert.Zero(t, found[0].Event.Count)
	page, err := o.app.Exports.List(t.Context(), o.caller("admin"), guard.Query{})
	require.NoError(t, err)
	for _, v := range page.Items {
		assert.Equal(t, crm.ExportTaken, v.Value.State)
		code, _ := admin.post("/exports/"+v.Value.ID.String()+"/download", nil)
		assert.Equal(t, http.StatusForbidden, code)
	}
}

// memory is a file in memory.
type memory struct{ bytes.Buffer }

func (*memory) Close() error { return nil }

// exported is the file of an export in columns that do not change with what is hidden, without what differs between two files: the mark and the made-up record.
func (o *office) exported(who, format string) string {
	o.t.Helper()
	c := o.caller(who)
	c.Met = []authz.Obligation{authz.NeedWatermark, authz.NeedStepUp}
	e, err := o.app.AskExport(o.t.Context(), c, app.ExportAsk{Type: crm.TypeCustomer, Columns: []string{"name", "contact", "phone", "email", "stage", "city", "owner", "open_value"}, Format: format, Reason: "audit"})
	require.NoError(o.t, err)
	var file memory
	_, err = o.app.WriteExport(o.t.Context(), c, e.ID.UUID(), func(app.ExportFile) (io.WriteCloser, error) { return &file, nil }, nil)
	require.NoError(o.t, err)
	var out []string
	if format == "xlsx" {
		book, err := xlsx.Open(&file.Buffer, nil)
		require.NoError(o.t, err)
		defer book.Close()
		for row, err := range book.Rows() {
			require.NoError(o.t, err)
			out = append(out, strings.Join(row.Cells, "\x00"))
		}
	} else {
		out = strings.Split(file.String(), "\r\n")[1:]
	}
	fakes := 0
	out = slices.DeleteFunc(out, func(line string) bool {
		m := uuid.FindString(line)
		fake := m != "" && !slices.ContainsFunc(o.customers, func(c *crm.Customer) bool { return c.ID.String() == m })
		if fake {
			fakes++
		}
		return fake
	})
	require.Equal(o.t, 1, fakes)
	return strings.Join(out, "\n")
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// TestExportOracle: the file of an export is the same, byte for byte but for its mark and its made-up record, in two worlds that differ only in what the policy hides from who exports:
// fields that it hides or masks, and records of another team. What they may see makes another file.
//
//crm:item 13
func TestExportOracle(t *testing.T) { onDatabases(t, exportOracle) }

func exportOracle(t *testing.T, newOffice func(*testing.T) *office) {
	o := newOffice(t)
	ctx := t.Context()
	before := map[string]string{}
	for _, format := range app.ExportFormats {
		before[format] = o.exported("manager", format)
		require.Contains(t, before[format], o.customers[4].ID.String())
	}
	for _, c := range o.customers {
		v, err := o.app.Customers.Get(ctx, app.System("test"), c.ID.UUID())
		require.NoError(t, err)
		v.Value.IDNumber, v.Value.Note = crm.NewText("11010519491231002X"), crm.NewText("secret")
		_, err = o.app.Customers.Update(ctx, app.System("test"), v.Value)
		require.NoError(t, err)
	}
	for i := range 3 {
		_, err := o.app.Customers.Create(ctx, app.System("test"), &crm.Customer{
			Name: crm.NewText("Other"), Kind: crm.CompanyCustomer, Stage: crm.CustomerNew, Currency: "CNY", OpenValue: int64(i), Meta: crm.Meta[crm.Customer]{Owner: o.people["peer"].ID, Team: "/west/1/"},
		})
		require.NoError(t, err)
	}
	for _, format := range app.ExportFormats {
		assert.Equal(t, before[format], o.exported("manager", format))
	}

	// An erased person is in no later export: the row says that there was one, and nothing of them.
	v, err := o.app.Customers.Get(ctx, app.System("test"), o.customers[0].ID.UUID())
	require.NoError(t, err)
	_, err = o.app.Keeper.Erase(ctx, app.Tenant, v.Value.Person, nil)
	require.NoError(t, err)
	for _, format := range app.ExportFormats {
		after := o.exported("manager", format)
		assert.NotEqual(t, before[format], after)
		assert.NotContains(t, after, "calc'!A0")
		assert.Contains(t, after, "calc'!A1")
	}
}

// TestEndpointREST: endpoints are made, rotated, paused, tried and deleted by REST, by who may, with the secret shown once.
//
//crm:item 59 partly
func TestEndpointREST(t *testing.T) {
	o := newOffice(t)
	admin, sales := o.as("admin"), o.as("sales")
	body := map[string]any{"name": "shop", "url": "https://shop.example/in?key=SECRET-TOKEN", "types": []string{"customer"}}
	assert.GreaterOrEqual(t, sales.api("/api/v1/endpoints", body).Code, 400)
	for _, bad := range []string{"http://shop.example/", "https://127.0.0.1/", "https://10.0.0.8/"} {
		assert.Equal(t, http.StatusUnprocessableEntity, admin.api("/api/v1/endpoints", map[string]any{"name": "x", "url": bad, "types": []string{"customer"}}).Code, bad)
	}
	r := admin.api("/api/v1/endpoints", body)
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	var made struct{ ID, Secret string }
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &made))
	require.Regexp(t, `^whsec_`, made.Secret)
	at := "/api/v1/endpoints/" + made.ID
	for _, text := range []string{admin.body(at), admin.body("/api/v1/endpoints")} {
		assert.Contains(t, text, "shop.example")
		assert.NotContains(t, text, made.Secret)
		assert.NotContains(t, text, "SECRET-TOKEN")
	}
	first := made.Secret
	r = admin.api(at+"/rotate", struct{}{})
	require.Equal(t, http.StatusOK, r.Code, r.Body.String())
	require.NoError(t, json.Unmarshal(r.Body.Bytes(), &made))
	assert.NotEqual(t, first, made.Secret)
	for _, act := range []string{"test", "replay", "pause", "resume"} {
		assert.Less(t, admin.api(at+"/"+act, struct{}{}).Code, 300, act)
		assert.GreaterOrEqual(t, sales.api(at+"/"+act, struct{}{}).Code, 400, act)
	}
	assert.GreaterOrEqual(t, sales.api(at+"/rotate", struct{}{}).Code, 400)
	assert.Contains(t, admin.body("/api/v1/deliveries"), made.ID)
	page, err := o.app.Deliveries.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	delivery := "/api/v1/deliveries/" + page.Items[0].Value.ID.String()
	assert.GreaterOrEqual(t, admin.api(delivery+"/replay", struct{}{}).Code, 400, "it is not dead")
	assert.GreaterOrEqual(t, sales.api(delivery+"/replay", struct{}{}).Code, 400)
	assert.GreaterOrEqual(t, sales.do(http.MethodDelete, at, nil).Code, 400)
	assert.Less(t, admin.do(http.MethodDelete, at, nil).Code, 300)
	v, err := o.app.Endpoints.List(t.Context(), app.System("test"), guard.Query{})
	require.NoError(t, err)
	assert.Empty(t, v.Items)
}

package main_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"math"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz/rego"
	"github.com/crmguard/crmguard/crm/transfer/xlsx"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// policyOf puts a signed policy with other numbers of exports into a data folder and returns the file of its key.
func policyOf(t *testing.T, data string, export map[string]any) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	files := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(rego.Embedded(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, "_test.rego") && !strings.Contains(name, "tenant") { // some know the shipped numbers
			return err
		}
		b, err := fs.ReadFile(rego.Embedded(), name)
		if err == nil && name == "data.json" {
			var all map[string]map[string]any
			if err := json.Unmarshal(b, &all); err != nil {
				return err
			}
			all["settings"]["export"] = export
			b, err = json.Marshal(all)
		}
		files[name] = &fstest.MapFile{Data: b}
		return err
	}))
	var b bytes.Buffer
	require.NoError(t, rego.SignBundle(t.Context(), &b, files, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	require.NoError(t, os.WriteFile(filepath.Join(data, "policy.tar.gz"), b.Bytes(), 0o600))
	name := filepath.Join(t.TempDir(), "policy.pub")
	require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
	return name
}

var exportLine = regexp.MustCompile(`export ([0-9a-f-]{36})`)

// TestExportCommand: the command writes what the employee may export, privately, whole or not at all, and finds whose a file is; above the policy's number it waits for somebody else.
func TestExportCommand(t *testing.T) {
	data := small(t, nil)
	mustRun(t, nil, "import", csvOf(t, people(worlds.Add(1), 12)), "--data", data)
	dir := t.TempDir()
	file := filepath.Join(dir, "customers.csv")
	args := func(more ...string) []string {
		return append([]string{"export", "--data", data, "--as", "admin@demo.example"}, more...)
	}
	said := mustRun(t, nil, args("customer", "--reason", "audit", "--out", file)...)
	assert.Contains(t, said, "12 records as csv")
	require.Regexp(t, exportLine, said)
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	in := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(b), "\ufeff")))
	in.FieldsPerRecord = -1
	rows, err := in.ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 2+12+1+1)
	assert.Equal(t, []string{"# end"}, rows[15])

	// One of the rows names the export, a row of another file none.
	id := exportLine.FindStringSubmatch(said)[1]
	var ids []string
	for _, row := range rows[3:15] {
		ids = append(ids, row[0])
	}
	ids = append(ids, rows[2][0])
	out, code := run(t, nil, args("--trace", strings.Join(ids, "\n"))...)
	assert.Zero(t, code, out)
	assert.Contains(t, out, "export "+id)
	_, code = run(t, nil, args("--trace", "01a21a7b-e4bc-7b2d-8f2c-5558a61376e9,Ann Lee")...)
	assert.NotZero(t, code)

	for name, bad := range map[string][]string{
		"the file is there": {"customer", "--reason", "audit", "--out", file}, "no reason": {"customer", "--out", filepath.Join(dir, "a")},
		"nobody": {"customer", "--reason", "x", "--out", filepath.Join(dir, "b"), "--as", "nobody@demo.example"}, "no such type": {"payslip", "--reason", "x", "--out", filepath.Join(dir, "c")},
		"no folder": {"customer", "--reason", "x", "--out", filepath.Join(dir, "none", "d")}, "a hidden column": {"customer", "--columns", "note", "--reason", "x", "--out", filepath.Join(dir, "e")},
		"taken before": {"--request", id, "--out", filepath.Join(dir, "f")},
	} {
		out, code := run(t, nil, args(bad...)...)
		assert.NotZero(t, code, "%s: %s", name, out)
	}
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, b, after)
	book := filepath.Join(dir, "customers.xlsx")
	mustRun(t, nil, args("customer", "--columns", "name,city", "--reason", "audit", "--out", book)...)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "what failed has left nothing")
	r, err := os.Open(book)
	require.NoError(t, err)
	defer r.Close()
	x, err := xlsx.Open(r, nil)
	require.NoError(t, err)
	defer x.Close()

	// More than the policy's number wait for somebody else, and nothing is written before.
	key := policyOf(t, data, map[string]any{"rows": map[string]any{"admin": 100}, "step_up_rows": 100, "approval_rows": 3})
	out, code = run(t, nil, args("customer", "--reason", "audit", "--out", filepath.Join(dir, "two.csv"), "--policy-key", key)...)
	assert.NotZero(t, code)
	assert.Contains(t, out, "somebody else has to approve")
	_, err = os.Stat(filepath.Join(dir, "two.csv"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	waiting := exportLine.FindStringSubmatch(out)[1]
	_, code = run(t, nil, args("--request", waiting, "--out", filepath.Join(dir, "two.csv"), "--policy-key", key)...)
	assert.NotZero(t, code)
	green(t, nil, "--data", data, "--policy-key", key)
}

// TestKillExport: kill -9 in the middle of an export leaves no file under its name that is not whole; the log names each record that is in the part that was written; the request is
// used up, and rows and log are as they were.
func TestKillExport(t *testing.T) {
	if !soak {
		t.Skip("kills twenty times; CRMGUARD_SOAK=1 runs it")
	}
	const times, rows = 20, 9000
	path, err := binary()
	require.NoError(t, err)
	data := small(t, nil)
	mustRun(t, nil, "import", csvOf(t, people(worlds.Add(1), rows)), "--data", data)
	key := policyOf(t, data, map[string]any{"rows": map[string]any{"admin": 100_000}, "step_up_rows": 100_000, "approval_rows": 100_000})
	cut, whole := 0, 0
	for i := range times {
		format := app.ExportFormats[i%2]
		name := filepath.Join(t.TempDir(), "customers."+format)
		cmd := exec.Command(path, "export", "customer", "--data", data, "--policy-key", key, "--as", "admin@demo.example", "--reason", "audit", "--out", name)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		require.NoError(t, cmd.Start())
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
			if info, err := os.Stat(name + ".part"); err == nil && info.Size() > 0 {
				break
			}
			if _, err := os.Stat(name); err == nil { // a workbook that was written in one go
				break
			}
		}
		time.Sleep(time.Duration(mathrand.IntN(200)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b, err := os.ReadFile(name); err == nil {
			whole++
			if format == "csv" {
				assert.True(t, strings.HasSuffix(string(b), "# end\r\n"), "a file that is not whole has its name")
			} else {
				x, err := xlsx.Open(bytes.NewReader(b), nil)
				require.NoError(t, err)
				require.NoError(t, x.Close())
			}
			continue
		}
		cut++
		part, err := os.ReadFile(name + ".part")
		require.NoError(t, err)
		if format == "xlsx" {
			_, err := xlsx.Open(bytes.NewReader(part), nil)
			assert.Error(t, err)
		}
		out, code := run(t, nil, "export", "customer", "--data", data, "--policy-key", key, "--as", "admin@demo.example", "--reason", "audit", "--out", name)
		assert.NotZero(t, code)
		assert.Contains(t, out, ".part")
		require.NoError(t, os.Remove(name+".part"))
		check := func() {
			a, err := app.Open(t.Context(), app.Config{Data: data, Addr: "localhost:0", Plain: true, PolicyKey: key})
			require.NoError(t, err)
			defer func() { require.NoError(t, a.Close()) }()
			if format != "csv" {
				return
			}
			request := regexp.MustCompile(`request,([0-9a-f-]{36})`).FindStringSubmatch(string(part))
			if request == nil {
				return // not even the first row was written
			}
			named := namedUnder(t, a, request[1])
			fakes := 0
			for _, id := range regexp.MustCompile(`(?m)^[0-9a-f-]{36},`).FindAllString(string(part), -1) {
				if !named[strings.TrimSuffix(id, ",")] {
					fakes++
				}
			}
			assert.LessOrEqual(t, fakes, 1, "a record is in the file and not in the log, beside the made-up one")
		}
		check()
		green(t, nil, "--data", data, "--policy-key", key)
	}
	t.Logf("%d exports cut off, %d whole", cut, whole)
	mustRun(t, nil, "export", "customer", "--data", data, "--policy-key", key, "--as", "admin@demo.example", "--reason", "audit", "--out", filepath.Join(t.TempDir(), "last.csv"))
}

// namedUnder are the records that the log names under an export.
func namedUnder(t *testing.T, a *app.App, request string) map[string]bool {
	t.Helper()
	named := map[string]bool{}
	for before := uint64(math.MaxUint64); ; {
		found, err := a.Log.Query(context.WithoutCancel(t.Context()), audit.Filter{Action: "customer.export"}, before, 200)
		require.NoError(t, err)
		for _, e := range found {
			before = e.Index
			if e.Event.Note == request {
				for _, target := range e.Event.Targets {
					named[target.ID] = true
				}
			}
		}
		if len(found) == 0 {
			return named
		}
	}
}

// TestJourneyExport: in a browser, somebody asks for an export that another has to approve, as a workbook and as CSV, and whoever reads the log finds whose file it is.
func TestJourneyExport(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := serve(t, data, nil)
	p.signIn(t, "admin")
	p.signIn(t, "manager")
	p.stop(t)
	key := policyOf(t, data, map[string]any{"rows": map[string]any{"admin": 10_000, "manager": 10_000}, "step_up_rows": 10_000, "approval_rows": 3})
	p = serve(t, data, nil, "--policy-key", key)
	b := open(t, p)
	as := func(role string) {
		b.visit("/")
		if b.eval(`document.querySelector('form[action="/sign-out"]') ? "in" : ""`) == "in" {
			b.submit(`form[action="/sign-out"]`)
		}
		b.signIn(role+"@demo.example", newPassword)
	}
	for i, format := range []string{"xlsx", "csv"} {
		as("manager")
		if i == 0 {
			b.pictures("export-form", "/customers/export")
		}
		b.visit("/customers/export")
		assert.Contains(t, b.text(), "Somebody else has to approve")
		b.eval(`document.querySelector('[name=format]').value = '` + format + `'; document.querySelector('[name=reason]').value = 'year-end audit'; ""`)
		b.press(`main form[action="/customers/export"] button`)
		at := b.eval(`location.pathname`)
		require.Regexp(t, `^/exports/[0-9a-f-]{36}$`, at, b.text())
		assert.Contains(t, b.text(), "Waits for approval")
		assert.Equal(t, "", b.eval(`document.querySelector('form[action$="/approve"]') ? "offered" : ""`), "nobody approves their own")
		if i == 0 {
			b.pictures("export-waits", at)
		}
		as("admin")
		b.visit("/exports?show=waiting")
		b.visit(at)
		if i == 0 {
			b.pictures("export-approve", at)
			b.visit(at)
		}
		b.submit(`form[action$="/approve"]`)
		assert.Contains(t, b.text(), "Approved")
		as("manager")
		b.visit(at)
		if i == 0 {
			b.pictures("export-approved", at)
			b.visit(at)
		}
		take := `(() => { const x = new XMLHttpRequest(); x.open("POST", location.pathname + "/download", false); x.overrideMimeType("text/plain; charset=x-user-defined"); x.send(); ` +
			`return x.status + " " + (x.getResponseHeader("Content-Disposition") || "") + "\n" + x.responseText; })()`
		got := b.eval(take)
		require.True(t, strings.HasPrefix(got, "200 attachment"), "%.300s", got)
		assert.Contains(t, strings.SplitN(got, "\n", 2)[0], "."+format)
		if format == "xlsx" {
			assert.Contains(t, got, "\nPK")
		} else {
			assert.Contains(t, got, "# end")
		}
		assert.True(t, strings.HasPrefix(b.eval(take), "403"), "once")
		b.visit(at)
		assert.Contains(t, b.text(), "Downloaded")
		as("admin")
		if i == 0 {
			b.pictures("exports", "/exports")
			b.pictures("export-trace", "/exports/trace")
		}
		b.visit("/exports/trace")
		b.eval(`document.querySelector('[name=text]').value = ` + strconv.Quote(strings.TrimPrefix(at, "/exports/")) + `; ""`)
		b.press(`main form[action="/exports/trace"] button`)
		assert.Contains(t, b.text(), "It comes from")
		assert.NotEqual(t, "", b.eval(`document.querySelector('a[href="`+at+`"]') ? "found" : ""`))
		b.picture("export-found-" + format + "-en-1280")
	}
}

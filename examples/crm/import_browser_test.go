package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestImportJourney: in a browser, an administrator uploads a file with bad rows, looks at what its columns mean, sees what would happen, imports it, takes the rejected rows, and undoes it; in
// both languages and widths every page fits.
func TestImportJourney(t *testing.T) {
	long(t)
	p := serve(t, filepath.Join(t.TempDir(), "data"), nil)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.output)
		}
	})
	c := p.signIn(t, "admin")
	path := filepath.Join(t.TempDir(), "客户 2026.csv")
	require.NoError(t, os.WriteFile(path, []byte("公司名称;联系人;手机号;邮箱;城市;Farbe\n"+
		"乌尔姆机械公司;王小明;138 0013 5551;wang@ulm.example;Ulm;rot\n"+
		"Bonn Handel GmbH;Bert Leise;+49 228 555002;bert at home;Bonn;blau\n"+
		"=HYPERLINK(1);Cleo Leise;+49 228 555003;cleo@mail.example;Bonn;\n"+
		"Kiel Handel;Dora Leise\n"+
		";;138 0013 9999;=cmd@mail;;grün\n"), 0o600))

	b := open(t, p)
	b.signIn("admin@demo.example", newPassword)
	b.visit("/customers")
	b.press(`a[href="/imports/new?type=customer"]`)
	b.pictures("import-1-upload", "/imports/new?type=customer")
	b.visit("/imports/new?type=customer")
	b.do(chromedp.SetUploadFiles(chromedp.CSS(`input[type=file]`), []string{path}))
	b.press(`main form[action="/uploads"] button.primary`)
	at := b.eval(`location.pathname`)
	require.Contains(t, at, "/uploads/")
	assert.Contains(t, b.text(), "客户 2026.csv")
	for column, field := range map[string]string{"0": "company", "1": "contact", "2": "phone", "3": "email", "4": "city", "5": ""} {
		assert.Equal(t, field, b.eval(`document.querySelector('[name="column.`+column+`"]').value`), column)
	}
	b.pictures("import-2-mapping", at)
	b.visit(at)
	b.press(`main form[action="` + at + `"] button.primary`)
	dry := at + "/rehearsal"
	b.until(`location.pathname === "` + dry + `" && document.body.innerText.includes("Nothing is stored yet")`)
	assert.Contains(t, b.text(), "not an e-mail address")
	assert.NotContains(t, b.text(), "bert at home")
	b.pictures("import-3-dry-run", dry)
	b.visit(dry)
	b.press(`form[action="` + at + `/start"] button`)
	job := b.eval(`location.pathname`)
	require.Regexp(t, `^/imports/[0-9a-f-]{36}$`, job)
	b.until(`document.body.innerText.includes("Done")`)
	b.pictures("import-4-report", job)
	b.pictures("import-5-list", "/imports")

	r := c.get(t, job+"/rejected.csv")
	assert.Contains(t, r.header.Get("Content-Disposition"), "rejected-")
	assert.Contains(t, r.body, "'=cmd@mail")
	assert.Equal(t, 4, strings.Count(r.body, "\r\n"), r.body)

	b.visit(job)
	b.press(`a[href="` + job + `/undo"]`)
	b.pictures("import-6-undo", job+"/undo")
	b.visit(job + "/undo")
	b.do(chromedp.Click(chromedp.CSS(`[name=sure]`)))
	b.press(`main form[action="` + job + `/undo"] button.primary`)
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(b.text(), "Undone") && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
		b.visit(job)
	}
	assert.Contains(t, b.text(), "Taken back")
	b.pictures("import-7-undone", job)
	b.calm()
}

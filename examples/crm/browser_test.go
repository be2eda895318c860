package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/seed"
	"github.com/crmguard/crmguard/internal/realtest"
)

// TestJourney is the whole browser test on embedded defaults.
func TestJourney(t *testing.T) {
	journey(t, serve(t, filepath.Join(t.TempDir(), "data"), nil))
}

// TestJourneyOnVaultAndPostgres is the same on the servers of a real installation.
func TestJourneyOnVaultAndPostgres(t *testing.T) {
	env, flags := servers(t)
	journey(t, serve(t, filepath.Join(t.TempDir(), "data"), env, flags...))
}

// servers starts a real Vault, whose token the program gets by AppRole, and a real PostgreSQL.
func servers(t *testing.T) (env, flags []string) {
	v := realtest.Vault(t)
	v.Key("crm")
	role, secret := v.AppRole("crm", `path "transit/encrypt/crm" { capabilities = ["update"] }
path "transit/decrypt/crm" { capabilities = ["update"] }
path "transit/keys/crm" { capabilities = ["read"] }
path "transit/keys/crm/rotate" { capabilities = ["update"] }
path "transit/keys/crm/trim" { capabilities = ["update"] }
path "transit/keys/crm/config" {
  capabilities       = ["update"]
  allowed_parameters = { "min_decryption_version" = [], "min_encryption_version" = [] }
}`, "10m")
	pg := realtest.Postgres(t)
	env = []string{"VAULT_ADDR=" + v.Addr, "VAULT_TOKEN=", "VAULT_ROLE_ID=" + role, "VAULT_SECRET_ID=" + secret}
	return env, []string{"--kek", "vault:crm", "--db", pg.DSN}
}

// tab is a browser in front of one serving process.
type tab struct {
	*realtest.Browser
	t    *testing.T
	base string
	shot string
}

func open(t *testing.T, p *process) *tab {
	b := realtest.Chromium(t, realtest.BrowserOptions{SPKI: p.spki(t)})
	b.Viewport(t, 1280)
	b.Language(t, "en")
	return &tab{Browser: b, t: t, base: p.url, shot: os.Getenv("CRMGUARD_SHOTS")}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.Context, actions...))
}

func (b *tab) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

func (b *tab) eval(js string) string {
	b.t.Helper()
	s, err := chromedp.Run(b.Context, chromedp.Evaluate[string](js))
	require.NoError(b.t, err)
	return s
}

func (b *tab) text() string { return b.eval(`document.body.innerText`) }

// until waits for a script to become true. A page that is just being left answers with an error.
func (b *tab) until(js string) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, err := chromedp.Run(b.Context, chromedp.Evaluate[bool](js))
		if ok && err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %v", js, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// press clicks and waits for the next page.
func (b *tab) press(selector string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](`window.__old = true`), chromedp.Click(chromedp.CSS(selector)))
	b.until(`!window.__old && document.readyState === "complete"`)
}

// submit sends a form that need not be in sight, such as one in a closed menu.
func (b *tab) submit(selector string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void]("window.__old = true; document.querySelector(" + strconv.Quote(selector) + ").submit()"))
	b.until(`!window.__old && document.readyState === "complete"`)
}

// picture keeps a screenshot of the page where CRMGUARD_SHOTS names a folder, and checks that the page
// fits its width.
func (b *tab) picture(name string) {
	b.t.Helper()
	fits, err := chromedp.Run(b.Context, chromedp.Evaluate[bool](`document.scrollingElement.scrollWidth <= window.innerWidth`))
	require.NoError(b.t, err)
	assert.True(b.t, fits, "%s is wider than the window", name)
	if b.shot == "" {
		return
	}
	png, err := chromedp.Run(b.Context, chromedp.FullScreenshot(100))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(b.shot, name+".png"), png, 0o644))
}

// pictures keeps a screenshot of a page in both languages at both widths.
func (b *tab) pictures(name, path string) {
	b.t.Helper()
	for _, lang := range []string{"en", "zh-CN,zh"} {
		b.Language(b.t, lang)
		for _, width := range []int64{1280, 390} {
			b.Viewport(b.t, width)
			b.visit(path)
			b.picture(shotName(name, lang, width))
		}
	}
	b.Language(b.t, "en")
	b.Viewport(b.t, 1280)
}

// calm fails when the browser complained about anything but the statuses that the test provoked.
func (b *tab) calm() {
	b.t.Helper()
	for _, c := range b.Complaints() {
		if strings.Contains(c, "the server responded with a status of 4") ||
			strings.Contains(c, "Clear-Site-Data header") || // says that it was obeyed
			strings.Contains(c, "Autofocus processing was blocked because a document already has a focused element") || // the test was faster
			strings.Contains(c, "NavigationEntryMarkedSkippable") { // the test navigates without a gesture
			continue
		}
		b.t.Errorf("the browser complains: %s", c)
	}
}

func (b *tab) signIn(email, password string) {
	b.t.Helper()
	b.visit("/sign-in")
	b.do(chromedp.SendKeys(chromedp.CSS("#email"), email), chromedp.SendKeys(chromedp.CSS("#password"), password))
	b.press("main form button")
}

var customerPath = regexp.MustCompile(`^/customers/[0-9a-f-]{36}$`)

func journey(t *testing.T, p *process) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.output)
		}
	})
	b := open(t, p)
	for _, lang := range []string{"en", "zh-CN,zh"} {
		b.Language(t, lang)
		for _, width := range []int64{1280, 390} {
			b.Viewport(t, width)
			b.visit("/")
			b.picture(shotName("sign-in", lang, width))
		}
	}
	b.Language(t, "en")
	b.Viewport(t, 1280)

	// A wrong password and an unknown login get the same answer.
	b.signIn("sales@demo.example", "not the password")
	wrong := b.text()
	b.signIn("nobody@demo.example", "not the password")
	assert.Equal(t, wrong, b.text())
	b.signIn("sales@demo.example", p.passwords["sales"])
	assert.Contains(t, b.text(), "New password")
	b.visit("/customers")
	assert.Contains(t, b.eval(`location.pathname`), "/password", "a one-time password opens nothing else")
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=old]`), p.passwords["sales"]),
		chromedp.SendKeys(chromedp.CSS(`[name=new]`), newPassword), chromedp.SendKeys(chromedp.CSS(`[name=again]`), newPassword))
	b.press("main form button")
	delete(p.passwords, "sales")
	assert.Contains(t, b.text(), "Good day")
	b.picture("home-en-1280")

	// The list masks phones; another's customer is not there.
	b.visit("/customers")
	list := b.text()
	assert.Regexp(t, `\d{3}\*\*\*\*\d{4}`, list)
	assert.Contains(t, list, "masked by policy field.personal")
	mine := b.eval(`document.querySelector('a[href^="/customers/0"]').getAttribute("href")`)
	require.Regexp(t, customerPath, mine)
	for _, lang := range []string{"en", "zh-CN,zh"} {
		b.Language(t, lang)
		for _, width := range []int64{1280, 390} {
			b.Viewport(t, width)
			b.visit("/customers")
			b.picture(shotName("list", lang, width))
			b.visit(mine)
			b.picture(shotName("customer", lang, width))
		}
	}
	b.Language(t, "en")
	b.Viewport(t, 1280)

	// Reveal in place asks for a reason and leaves a line in the timeline.
	b.visit(mine)
	assert.Contains(t, b.text(), "Why you can see this")
	b.do(chromedp.Click(chromedp.CSS(`a[href$="/reveal/phone"]`)))
	b.until(`!!document.querySelector('[name=reason]')`)
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=reason]`), "confirm the delivery"))
	b.do(chromedp.Click(chromedp.CSS(`form[action$="/reveal/phone"] button`)))
	b.until(`!!document.querySelector('.protected.open .value')`)
	b.picture("revealed-en-1280")
	b.visit(mine)
	assert.Contains(t, b.text(), "confirm the delivery")

	// Edit: a field that was only seen masked stays; a hidden one is not offered.
	b.visit(mine + "/edit")
	assert.Contains(t, b.text(), "needs the finance role")
	b.picture("edit-en-1280")
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('[name=city]').value = ''`), chromedp.SendKeys(chromedp.CSS(`[name=city]`), "Ningbo"))
	b.press(`main form[action^="/customers/"] button`)
	assert.Contains(t, b.text(), "Ningbo")
	assert.Regexp(t, `\*\*\*\*`, b.text())

	// A new customer, a wrong field, a follow-up.
	b.visit("/customers/new")
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=name]`), `<b>"Zhang & Söhne"</b> 曾氏`), chromedp.SendKeys(chromedp.CSS(`[name=phone]`), "138 0013 5678"))
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('[name=email]').type = 'text'`), chromedp.SendKeys(chromedp.CSS(`[name=email]`), "nonsense"))
	b.press(`main form[action="/customers"] button`)
	assert.Contains(t, b.text(), "not an e-mail address")
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('[name=email]').value = ''`))
	b.press(`main form[action="/customers"] button`)
	assert.Contains(t, b.text(), `<b>"Zhang & Söhne"</b> 曾氏`)
	created := b.eval(`location.pathname`)
	b.visit("/follow-ups/new?customer=" + strings.TrimPrefix(created, "/customers/"))
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=text]`), "Wants two lots"))
	b.press(`main form[action="/follow-ups"] button`)
	b.visit(created)
	assert.Contains(t, b.text(), "Wants two lots")

	// An opportunity goes on to its next stage, and is won.
	b.visit("/opportunities/new?customer=" + strings.TrimPrefix(created, "/customers/"))
	b.do(chromedp.SendKeys(chromedp.CSS(`[name=name]`), "Two lots of pumps"), chromedp.SendKeys(chromedp.CSS(`[name=amount]`), "12000"))
	b.press(`main form[action="/opportunities"] button`)
	assert.Contains(t, b.text(), "First talk")
	sale := b.eval(`location.pathname`)
	b.pictures("opportunity", sale)
	b.visit(sale)
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelector('[name=stage]').value = 'Negotiation'`))
	b.submit(`form[action$="/stage"]`)
	assert.Contains(t, b.text(), "80 %")
	b.submit(`form:has([name=to][value=won])`)
	assert.Contains(t, b.text(), "Won")
	b.pictures("opportunities", "/opportunities")
	b.pictures("products", "/products")
	b.visit("/products")
	assert.Contains(t, b.text(), "GX-200 gauge")

	// Search by another spelling; the term is in no address.
	b.do(chromedp.SendKeys(chromedp.CSS(`input[name=q]`), "+86 13800135678"))
	b.submit(`form[action="/search"]`)
	assert.Contains(t, b.text(), "Söhne")
	assert.NotContains(t, b.eval(`location.href`), "138")

	// A customer that nobody has: masked in the pool, claimed there, theirs from then on.
	b.visit("/pools")
	assert.Contains(t, b.text(), "East")
	pool := b.eval(`document.querySelector('main a[href^="/pools/"]').getAttribute("href")`)
	b.visit(pool)
	claims := `String(document.querySelectorAll('form[action$="/claim"]').length)`
	assert.Equal(t, strconv.Itoa(seed.FreeCustomers), b.eval(claims))
	assert.NotContains(t, b.text(), "@example.c")
	assert.Regexp(t, `\*\*\*`, b.text())
	b.pictures("pools", "/pools")
	b.pictures("pool", pool)
	b.visit(pool)
	b.press(`form[action$="/claim"] button`)
	assert.Contains(t, b.text(), "Claimed. It is yours now.")
	ours := b.eval(`location.pathname`)
	require.Regexp(t, customerPath, ours)
	assert.Contains(t, b.text(), "Owner and pool")
	assert.Contains(t, b.text(), "Who has had it")
	b.do(chromedp.Click(chromedp.CSS(`details.more summary`)))
	b.until(`!!document.querySelector('details.more[open] select[name=to]')`)
	b.picture("hand-en-1280")
	b.pictures("owned", ours)
	b.visit(pool)
	assert.Equal(t, strconv.Itoa(seed.FreeCustomers-1), b.eval(claims))

	// The log and the backups are not for sales.
	b.visit("/log")
	assert.Contains(t, b.text(), "Denied by")
	b.visit("/customers/00000000-0000-7000-8000-000000000000")
	assert.Contains(t, b.text(), "There is no such page")
	b.calm()

	// The administrator sees every customer, clear phones, the log and the backups.
	admin := p.passwords["admin"]
	p.signIn(t, "admin")
	b.submit(`form[action="/sign-out"]`)
	b.signIn("admin@demo.example", admin)
	assert.Contains(t, b.text(), "do not match", "a one-time password works once")
	b.signIn("admin@demo.example", newPassword)
	b.visit(created)
	assert.Contains(t, b.text(), "138 0013 5678")
	for _, lang := range []string{"en", "zh-CN,zh"} {
		b.Language(t, lang)
		for _, width := range []int64{1280, 390} {
			b.Viewport(t, width)
			b.visit("/log")
			b.picture(shotName("log", lang, width))
		}
	}
	b.Language(t, "en")
	b.Viewport(t, 1280)
	b.visit("/numbers")
	assert.Contains(t, b.text(), "By stage")
	b.pictures("numbers", "/numbers")
	b.pictures("pool-edit", pool+"/edit")
	b.visit("/log")
	assert.Contains(t, b.text(), "Log pinned")
	b.visit("/log/5")
	b.picture("event-en-1280")
	b.visit("/backups")
	b.press(`main form[action="/backups"] button`)
	for range 100 {
		b.visit("/backups")
		if strings.Contains(b.text(), "crm restore") && b.eval(`String(document.querySelectorAll("tbody tr").length)`) != "0" {
			break
		}
	}
	b.picture("backups-en-1280")
	b.visit(created)
	b.submit(`form[action$="/delete"]`)
	b.visit("/customers?show=bin")
	assert.Contains(t, b.text(), "Söhne")
	b.visit(created)
	b.submit(`form[action$="/restore"]`)
	assert.Contains(t, b.text(), "Restored")
	for _, path := range []string{"/leads", "/contacts", "/quotes", "/contracts", "/tickets", "/employees", "/follow-ups"} {
		b.visit(path)
		first := b.eval(`document.querySelector('main tbody a, main table a')?.getAttribute("href") || ""`)
		require.NotEmpty(t, first, path)
		b.visit(first)
		assert.Contains(t, b.text(), "Why you can see this", path)
		b.picture("detail" + strings.ReplaceAll(path, "/", "-") + "-en-1280")
	}

	// The switch of language holds.
	b.do(chromedp.Evaluate[chromedp.Void](`window.__old = true; (() => { const f = document.querySelector('form[action="/language"]'); const s = f.querySelector('[name=lang][value="zh-CN"]') || f.querySelector('[name=lang]'); if (s.tagName === 'SELECT') { s.value = 'zh-CN'; f.submit(); } else if (s.type === 'hidden') { f.submit(); } else { s.click(); } })()`))
	b.until(`!window.__old && document.readyState === "complete"`)
	assert.Equal(t, "zh-CN", b.eval(`document.documentElement.lang`))
	b.visit("/customers")
	assert.Contains(t, b.text(), "客户")
	b.calm()
}

func shotName(page, lang string, width int64) string {
	if lang != "en" {
		lang = "zh"
	}
	if width < 700 {
		return page + "-" + lang + "-390"
	}
	return page + "-" + lang + "-1280"
}

package page_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/examples/crm/page"
	"github.com/crmguard/crmguard/internal/realtest"
)

// policy is the Content-Security-Policy that the pages are made for.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const company = "华东精密仪器有限公司"

// site serves the samples; the language comes from the cookie or the browser.
func site(t *testing.T) *httptest.Server {
	r := renderer(t)
	mux := http.NewServeMux()
	mux.Handle("GET /static/", page.Static())
	lang := func(q *http.Request) string {
		cookie := ""
		if c, err := q.Cookie("lang"); err == nil {
			cookie = c.Value
		}
		return page.Match(q.Header.Get("Accept-Language"), cookie)
	}
	for _, s := range samples(company) {
		pattern := s.path
		if pattern == "/" {
			pattern = "/{$}"
		}
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, q *http.Request) {
			f := frame(lang(q), s.title, s.path)
			if s.title == "" {
				f.Title = page.Text{}
			}
			if s.out {
				f.User, f.Plain = nil, true
			}
			f.DevKey = s.out || s.path == "/"
			content := s.content
			if list, ok := content.(*page.List); ok && q.URL.Query().Has("after") {
				next := *list
				next.Rows, next.First, next.NextHref, next.PrevHref = list.Rows[5:], 11, "", s.path
				content = &next
			}
			var b bytes.Buffer
			if err := r.Page(&b, f, content); err != nil {
				t.Error(err)
			}
			_, _ = w.Write(b.Bytes())
		})
	}
	reveal := func(w http.ResponseWriter, q *http.Request) {
		v := &page.Reveal{Label: page.T("field.phone"), Record: company, Mask: "138****5678", Action: q.URL.Path, Back: "/customer"}
		if q.Method == "POST" {
			if v.Reason = q.PostFormValue("reason"); v.Reason == "none" {
				v.Error = page.T("reveal.reason.required")
			} else {
				v.Value = &page.Value{Text: "13800135678", Mask: v.Mask, Again: q.URL.Path, Event: 12409, For: time.Hour}
				if v.Reason == "be quick" {
					v.Value.For = time.Second
				}
			}
		}
		w.Header().Set("Vary", "HX-Request")
		if q.Header.Get("HX-Request") == "true" {
			if err := r.Fragment(w, lang(q), v); err != nil {
				t.Error(err)
			}
			return
		}
		if err := r.Page(w, frame(lang(q), "act.reveal", q.URL.Path), v); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /customers/1/reveal/phone", reveal)
	mux.HandleFunc("POST /customers/1/reveal/phone", reveal)
	mux.HandleFunc("POST /language", func(w http.ResponseWriter, q *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "lang", Value: q.PostFormValue("lang"), Path: "/"})
		http.Redirect(w, q, q.PostFormValue("back"), http.StatusSeeOther)
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, q)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// browser opens a tab. A browser without script is asked for with script false.
func browser(t *testing.T, script bool) (context.Context, *realtest.Browser) {
	b := realtest.Chromium(t, realtest.BrowserOptions{NoScript: !script})
	return b.Context, b
}

func scheme(t *testing.T, ctx context.Context, name string) {
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
	require.NoError(t, err)
}

// faint lists texts whose contrast with their ground is below 4.5 (WCAG 2.2, 1.4.3). Separators and the
// dash of an empty value may be missed.
const faint = `(() => {
  const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (s) => { c.clearRect(0, 0, 1, 1); c.fillStyle = s; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
  const lum = (v) => { const [r, g, b] = v.map((x) => { x /= 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const v = rgb(getComputedStyle(e).backgroundColor); if (v[3] === 255) return v; } return [255, 255, 255]; };
  const bad = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.checkVisibility({visibilityProperty: true}) || e.closest('.sep, .dash, option, noscript')) continue;
    const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.add(e.className + ' ' + n.data.trim().slice(0, 20) + ' ' + ratio.toFixed(2));
  }
  return [...bad];
})()`

// small lists controls that are lower than 44 px; a link inside text is excepted (WCAG 2.2, 2.5.8).
const small = `[...document.querySelectorAll('summary, .find-button, .button, .chip, .tabs a, select, textarea, .pair-row > label, input:not([type=hidden]):not([type=checkbox]):not([type=radio])')]
  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44)
  .map((e) => e.className + ' ' + (e.name || e.textContent).trim().slice(0, 20) + ' ' + e.getBoundingClientRect().height)`

// wide lists what reaches beyond the right edge.
const wide = `document.scrollingElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map((e) => e.tagName + '.' + e.className)`

func TestInChromium(t *testing.T) {
	if testing.Short() && !realtest.Required("chromium") {
		t.Skip("takes half a minute")
	}
	ctx, b := browser(t, true)
	srv := site(t)
	shots := os.Getenv("CRMGUARD_SHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	require.NoError(t, os.MkdirAll(shots, 0o755))
	look := func(name string) {
		png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(shots, name+".png"), png, 0o644))
	}
	lists := func(script string) []string {
		list, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](script))
		require.NoError(t, err)
		return list
	}
	for lang, accept := range map[string]string{"en": "en-GB,en", "zh-CN": "zh-CN,zh"} {
		b.Language(t, accept)
		for _, width := range []int64{1280, 390} {
			b.Viewport(t, width)
			for _, s := range samples(company) {
				name := lang + "-" + strconv.FormatInt(width, 10) + strings.ReplaceAll(s.path, "/", "-")
				t.Run(name, func(t *testing.T) {
					for _, mode := range []string{"light", "dark"} {
						if mode == "dark" && lang != "en" {
							continue // the colours know no language
						}
						scheme(t, ctx, mode)
						require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+s.path)))
						got, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.documentElement.lang"))
						require.NoError(t, err)
						require.Equal(t, lang, got)
						require.Empty(t, lists(faint), mode)
						if mode == "dark" && s.path != "/customer" && s.path != "/customers" {
							continue
						}
						require.Empty(t, lists(wide))
						if width < 700 {
							require.Empty(t, lists(small))
						}
						suffix := ""
						if mode == "dark" {
							suffix = "-dark"
						}
						look(name + suffix)
					}
					require.Empty(t, b.Complaints())
				})
			}
		}
	}
	scheme(t, ctx, "light")

	t.Run("drawer", func(t *testing.T) {
		b.Viewport(t, 390)
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customers"), chromedp.Click(chromedp.CSS(".drawer summary"))))
		require.Empty(t, lists(wide))
		look("drawer")
		require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`.drawer a[href="/log"]`)), chromedp.Query(chromedp.CSS(".events"))))
	})

	t.Run("reveal in place", func(t *testing.T) {
		b.Viewport(t, 1280)
		b.Language(t, "en")
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customer"), chromedp.Click(chromedp.CSS(".reveal")),
			chromedp.SendKeys(chromedp.CSS(".ask input"), "none")))
		look("reveal-asked")
		require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(".ask button")), chromedp.Query(chromedp.CSS(".ask .wrong"))))
		require.NoError(t, chromedp.Do(ctx, chromedp.Clear(chromedp.CSS(".ask input")), chromedp.SendKeys(chromedp.CSS(".ask input"), "confirm delivery"),
			chromedp.Click(chromedp.CSS(".ask button")), chromedp.Query(chromedp.CSS(".value"))))
		look("reveal-shown")
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.querySelector('.value').textContent"))
		require.NoError(t, err)
		require.Equal(t, "13800135678", text)
		// After its time the mask is back, and it can be asked again.
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customer"), chromedp.Click(chromedp.CSS(".reveal")),
			chromedp.SendKeys(chromedp.CSS(".ask input"), "be quick"), chromedp.Click(chromedp.CSS(".ask button")),
			chromedp.Query(chromedp.CSS(".facts .reveal"))))
		page, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.documentElement.outerHTML"))
		require.NoError(t, err)
		require.NotContains(t, page, "13800135678")
		require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(".reveal")), chromedp.Query(chromedp.CSS(".ask")),
			chromedp.Click(chromedp.CSS(".ask [data-close]")), chromedp.Query(chromedp.CSS(".ask"), chromedp.NodeNotPresent)))
		url, err := chromedp.Run(ctx, chromedp.Location())
		require.NoError(t, err)
		require.Equal(t, srv.URL+"/customer", url)
		require.Empty(t, b.Complaints())
	})

	t.Run("paging in place", func(t *testing.T) {
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customers")))
		_, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("window.sameDocument = true"))
		require.NoError(t, err)
		require.NoError(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS("a[rel=next]")), chromedp.Query(chromedp.CSS("a[rel=next]"), chromedp.NodeNotPresent)))
		same, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("window.sameDocument === true && location.search === '?after=x' && document.querySelectorAll('#list').length === 1"))
		require.NoError(t, err)
		require.True(t, same)
		require.NoError(t, chromedp.Do(ctx, chromedp.NavigateBack(), chromedp.Query(chromedp.CSS("a[rel=next]"))))
		require.Empty(t, b.Complaints())
	})

	t.Run("keyboard", func(t *testing.T) {
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customers"), chromedp.KeyEvent("\t")))
		first, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.activeElement.className"))
		require.NoError(t, err)
		require.Equal(t, "skip", first)
	})

	t.Run("language switch", func(t *testing.T) {
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customers"), chromedp.Click(chromedp.CSS(".account summary")),
			chromedp.Click(chromedp.CSS(`.account button[value="zh-CN"]`)), chromedp.Query(chromedp.CSS(`html[lang="zh-CN"]`))))
		url, err := chromedp.Run(ctx, chromedp.Location())
		require.NoError(t, err)
		require.Equal(t, srv.URL+"/customers", url)
	})
}

// TestWithoutScript asks for a value, is refused, and is shown it, in a browser that runs no script.
func TestWithoutScript(t *testing.T) {
	ctx, b := browser(t, false)
	srv := site(t)
	b.Viewport(t, 1280)
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customer"), chromedp.Click(chromedp.CSS(".reveal")),
		chromedp.SendKeys(chromedp.CSS("#reason"), "none"), chromedp.Click(chromedp.CSS("main button.primary")), chromedp.Query(chromedp.CSS(".wrong")),
		chromedp.Clear(chromedp.CSS("#reason")), chromedp.SendKeys(chromedp.CSS("#reason"), "confirm delivery"),
		chromedp.Click(chromedp.CSS("main button.primary")), chromedp.Query(chromedp.CSS(".value"))))
	text, err := chromedp.Run(ctx, chromedp.InnerHTML(chromedp.CSS("main")))
	require.NoError(t, err)
	require.Contains(t, text, "13800135678")
	require.Contains(t, text, "without script")
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/customers"), chromedp.Click(chromedp.CSS("a[rel=next]")),
		chromedp.Query(chromedp.CSS(".pager a"))))
	require.Empty(t, b.Complaints())
}

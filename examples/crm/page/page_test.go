package page_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/crmguard/crmguard/examples/crm/page"
)

func renderer(t testing.TB) *page.Renderer {
	r, err := page.New(&page.Options{Now: now, Zone: time.UTC})
	require.NoError(t, err)
	return r
}

func render(t testing.TB, r *page.Renderer, lang string, s sample) string {
	f := frame(lang, s.title, s.path)
	if s.title == "" {
		f.Title = page.Text{}
	}
	if s.out {
		f.User = nil
	}
	f.DevKey, f.Plain = true, s.out
	f.Flash = &page.Flash{Text: page.T("flash.saved"), Tone: page.Accent}
	var b bytes.Buffer
	require.NoError(t, r.Page(&b, f, s.content), s.path)
	return b.String()
}

// walk calls f for every element.
func walk(n *html.Node, f func(*html.Node)) {
	if n.Type == html.ElementNode {
		f(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		walk(c, f)
	}
}

func attr(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// balanced checks that every element that is opened is closed in its turn, so that what the parser
// makes of the page is what the template says.
func balanced(t *testing.T, text string) {
	t.Helper()
	void := map[string]bool{"meta": true, "link": true, "input": true, "br": true, "path": true, "circle": true}
	var open []string
	z := html.NewTokenizer(strings.NewReader(text))
	for {
		switch z.Next() {
		case html.ErrorToken:
			require.Equal(t, io.EOF, z.Err())
			require.Empty(t, open)
			return
		case html.StartTagToken:
			if n, _ := z.TagName(); !void[string(n)] {
				open = append(open, string(n))
			}
		case html.EndTagToken:
			n, _ := z.TagName()
			require.NotEmpty(t, open, "</%s>", n)
			require.Equal(t, open[len(open)-1], string(n), "in %v", open)
			open = open[:len(open)-1]
		}
	}
}

func TestEveryPageInBothLanguages(t *testing.T) {
	r := renderer(t)
	for _, lang := range page.Languages() {
		for _, s := range samples("华东精密仪器有限公司") {
			t.Run(lang+s.path, func(t *testing.T) {
				text := render(t, r, lang, s)
				balanced(t, text)
				doc, err := html.Parse(strings.NewReader(text))
				require.NoError(t, err)
				ids, labels, h1 := map[string]bool{}, map[string]bool{}, 0
				walk(doc, func(n *html.Node) {
					switch n.Data {
					case "h1":
						h1++
					case "html":
						got, _ := attr(n, "lang")
						require.Equal(t, lang, got)
					case "style":
						t.Error("inline style")
					case "script":
						_, ok := attr(n, "src")
						require.True(t, ok)
						require.Nil(t, n.FirstChild)
					case "label":
						if id, ok := attr(n, "for"); ok {
							labels[id] = true
						}
					case "form":
						if m, _ := attr(n, "method"); m != "post" {
							a, _ := attr(n, "action")
							require.True(t, m == "get" && a == "", "form %v", n.Attr)
						}
					}
					for _, a := range n.Attr {
						require.NotEqual(t, "style", a.Key)
						require.False(t, strings.HasPrefix(a.Key, "on"), a.Key)
						require.False(t, strings.HasPrefix(a.Key, "hx-on") || a.Key == "hx-vals", a.Key)
						require.NotContains(t, a.Val, "ZgotmplZ")
						require.NotContains(t, a.Val, "javascript:")
						if a.Key == "id" {
							require.False(t, ids[a.Val], "two of id %s", a.Val)
							ids[a.Val] = true
						}
					}
				})
				require.Equal(t, 1, h1)
				walk(doc, func(n *html.Node) {
					for _, key := range []string{"for", "aria-labelledby", "aria-describedby"} {
						if id, ok := attr(n, key); ok {
							require.True(t, ids[id], "%s names no element: %s", key, id)
						}
					}
					if n.Data == "input" || n.Data == "select" || n.Data == "textarea" {
						kind, _ := attr(n, "type")
						id, _ := attr(n, "id")
						_, aria := attr(n, "aria-label")
						require.True(t, kind == "hidden" || aria || labels[id] || inLabel(n), "unlabelled %v", n.Attr)
					}
				})
				require.NotContains(t, text, "{0}")
				require.NotContains(t, text, "ZgotmplZ")
			})
		}
	}
}

func inLabel(n *html.Node) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if p.Data == "label" {
			return true
		}
	}
	return false
}

// TestHostileValues shows every page with names that try to leave their place.
func TestHostileValues(t *testing.T) {
	r := renderer(t)
	for _, evil := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</textarea></title><svg onload=alert(1)>`,
		`{{.User}}`, "a\u202egnp.exe", "\u2067rtl\u2069", `javascript:alert(1)`, "\x00\xff", `{0}{1}`, strings.Repeat("长", 2000),
	} {
		for _, s := range samples(evil) {
			text := render(t, r, "en", s)
			balanced(t, text)
			doc, err := html.Parse(strings.NewReader(text))
			require.NoError(t, err)
			scripts := 0
			var visit func(n *html.Node, isolated bool)
			_, leaves := s.content.(*page.Leave)
			visit = func(n *html.Node, isolated bool) {
				if n.Type == html.ElementNode {
					if n.Data == "script" {
						scripts++
					}
					require.False(t, n.Data == "img" || n.Data == "svg" && len(n.Attr) < 3, "%s: %s", s.path, n.Data)
					for _, a := range n.Attr {
						require.False(t, strings.HasPrefix(a.Key, "on"))
						if a.Key == "href" || a.Key == "action" {
							require.True(t, strings.HasPrefix(a.Val, "/") || a.Val == "#content" || leaves && strings.HasPrefix(a.Val, "https://id.example.com/"), a.Val)
						}
					}
					isolated = isolated || n.Data == "bdi" || n.Data == "textarea"
				}
				if n.Type == html.TextNode && strings.ContainsAny(n.Data, "\u202e\u2067") {
					require.True(t, isolated, "%s: turned text stands free in %s", s.path, n.Parent.Data)
				}
				for c := n.FirstChild; c != nil; c = c.NextSibling {
					visit(c, isolated)
				}
			}
			visit(doc, false)
			require.Equal(t, 3, scripts, s.path)
		}
	}
}

func TestHostileLinksAreRefused(t *testing.T) {
	r := renderer(t)
	l := customers("x")
	l.Rows[0].Href, l.NextHref = "javascript:alert(1)", "javascript:alert(2)"
	text := render(t, r, "en", sample{"/customers", "type.customer.many", l, false})
	require.NotContains(t, text, `href="javascript:`)
	l.Rows[1].Cells[2].RevealURL, l.Chips[0].Href = "javascript:alert(3)", "//elsewhere.example/"
	text = render(t, r, "en", sample{"/customers", "type.customer.many", l, false})
	require.NotContains(t, text, `hx-get="javascript:`)
	require.NotContains(t, text, `hx-get="//`)
	require.NotContains(t, text, `href="javascript:`)
}

// TestHiddenLooksTheSame: a hidden field looks the same whatever the view model holds beside it.
func TestHiddenLooksTheSame(t *testing.T) {
	r := renderer(t)
	show := func(c page.Cell) string {
		d := &page.Detail{Title: page.Cell{Text: "x"}, Sections: []page.Section{{Rows: []page.Fact{{Label: page.T("field.phone"), Cell: c}}}}}
		return render(t, r, "en", sample{"/", "type.customer", d, false})
	}
	want := show(page.Cell{State: page.Hidden})
	require.Equal(t, want, show(page.Cell{State: page.Hidden, Text: "13800135678", RevealURL: "/r", Kind: page.KindMono, Href: "/x", Strong: true}))
	for _, st := range []page.State{page.Hidden, page.Sealed, page.Erased, 5, 255} {
		require.NotContains(t, show(page.Cell{State: st, Text: "13800135678"}), "13800135678")
	}
	f := &page.Form{Sections: []page.FormSection{{Fields: []page.Field{{Name: "phone", Locked: true, Value: "13800135678", Label: page.T("field.phone")}}}}}
	text := render(t, r, "en", sample{"/", "act.edit", f, false})
	require.NotContains(t, text, "13800135678")
	require.NotContains(t, text, `name="phone"`)
	f.Sections[0].Fields = []page.Field{{Name: "old", Kind: page.FieldPassword, Value: "13800135678"}, {Name: "new", Kind: page.FieldPassword, Value: "13800135678"}}
	text = render(t, r, "en", sample{"/", "act.edit", f, false})
	require.NotContains(t, text, "13800135678")
	require.Contains(t, text, `type="password" value="" autocomplete="current-password"`)
	require.Contains(t, text, `type="password" value="" autocomplete="new-password"`)
}

func TestCatalogues(t *testing.T) {
	words := map[string]map[string]any{}
	for _, lang := range page.Languages() {
		b, err := os.ReadFile(filepath.Join("catalogue", lang+".json"))
		require.NoError(t, err)
		m := map[string]any{}
		require.NoError(t, json.Unmarshal(b, &m))
		words[lang] = m
	}
	holes := regexp.MustCompile(`\{\d\}`)
	count := func(v any) map[string]bool {
		set := map[string]bool{}
		b, _ := json.Marshal(v)
		for _, h := range holes.FindAllString(string(b), -1) {
			set[h] = true
		}
		return set
	}
	for key, en := range words["en"] {
		zh, ok := words["zh-CN"][key]
		require.True(t, ok, "zh-CN lacks %s", key)
		require.Equal(t, count(en), count(zh), key)
		require.NotEmpty(t, zh, key)
	}
	// Keys in the sources of this package.
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	uses := regexp.MustCompile(`(?:T\(|say\(|lookup\(|Key: )"([a-z_]+(?:\.[a-z_0-9]+)+)"`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		for _, m := range uses.FindAllStringSubmatch(string(b), -1) {
			parts := strings.Split(m[1], ".")
			_, whole := words["en"][m[1]]
			_, short := words["en"][parts[0]+"."+parts[len(parts)-1]]
			require.True(t, whole || short, "%s uses %s", f, m[1])
		}
	}
	for _, status := range []string{"400", "403", "404", "405", "409", "413", "422", "429", "500", "503"} {
		for _, part := range []string{"title", "what", "kept", "do"} {
			require.Contains(t, words["en"], "error."+status+"."+part)
		}
	}
	for _, key := range []string{
		// the rules of crm.FieldError
		"required", "too_long", "not_text", "not_an_email", "negative", "out_of_range", "unknown_value", "before_start", "too_early",
		"too_late", "mismatch", "bad_reference", "fixed", "not_open", "not_a_number", "not_a_date", "not_hours", "repeated", "not_in_order", "not_empty",
		"lowered", "four_eyes", "not_approver", "no_approver", "not_signed", "unreachable", "endless", "unmet",
	} {
		require.Contains(t, words["en"], "rule."+key)
	}
}

func TestFragments(t *testing.T) {
	r := renderer(t)
	fragment := func(content any) string {
		var b bytes.Buffer
		require.NoError(t, r.Fragment(&b, "zh-CN", content))
		balanced(t, b.String())
		return b.String()
	}
	list := fragment(customers("x"))
	require.Contains(t, list, `id="list"`)
	require.NotContains(t, list, "<html")
	ask := fragment(&page.Reveal{Mask: "138****5678", Action: "/r", Back: "/b", Error: page.T("reveal.reason.required")})
	require.Contains(t, ask, `hx-post="/r"`)
	require.Contains(t, ask, "请说明理由")
	value := fragment(&page.Reveal{Value: &page.Value{Text: "13800135678", Mask: "138****5678", Again: "/r"}})
	require.Contains(t, value, `data-seconds="30"`)
	require.Equal(t, value, fragment(&page.Value{Text: "13800135678", Mask: "138****5678", Again: "/r"}))
	require.Contains(t, fragment(&page.Error{Status: 403, Controls: []string{"rbac.permit"}}), "rbac.permit")

	require.Error(t, r.Fragment(io.Discard, "en", &page.Home{}))
	require.Error(t, r.Fragment(io.Discard, "en", page.List{}))
	require.Error(t, r.Fragment(io.Discard, "en", nil))
	require.Error(t, r.Page(io.Discard, page.Frame{}, nil))
	require.Error(t, r.Page(io.Discard, page.Frame{}, page.Home{}))
	require.Error(t, r.Page(io.Discard, page.Frame{}, &page.Value{}))
}

func TestWordsOfTimesAndAmounts(t *testing.T) {
	r := renderer(t)
	show := func(lang string, c page.Cell, list bool) string {
		var content any = &page.Detail{Title: page.Cell{Text: "x"}, Sections: []page.Section{{Rows: []page.Fact{{Cell: c}}}}}
		begin, end := "<dd>", "</dd>"
		if list {
			content = &page.List{Columns: []page.Column{{}, {}}, Rows: []page.Row{{Cells: []page.Cell{{Text: "x"}, c}}}}
			begin, end = "</td><td", "</td>"
		}
		_, text, _ := strings.Cut(render(t, r, lang, sample{"/", "type.customer", content, false}), begin)
		text, _, _ = strings.Cut(text, end)
		if list {
			_, text, _ = strings.Cut(text, ">")
		}
		return strings.ReplaceAll(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(text, ""), "\u00a0", " ")
	}
	at := func(d time.Duration) page.Cell { return page.Cell{Kind: page.KindTime, Time: now().Add(d)} }
	money := func(n int64, c string) page.Cell { return page.Cell{Kind: page.KindMoney, Amount: n, Currency: c} }
	for _, c := range []struct {
		cell            page.Cell
		list            bool
		english, chines string
	}{
		{money(48600000, "CNY"), true, "¥ 486,000", "¥ 486,000"},
		{money(48600050, "CNY"), true, "¥ 486,000.50", "¥ 486,000.50"},
		{money(50000000, "CNY"), false, "¥ 500,000.00", "¥ 500,000.00"},
		{money(-5, "USD"), false, "−$ 0.05", "−US$ 0.05"},
		{money(1234, "JPY"), false, "JPY 1,234", "JPY 1,234"},
		{money(1234567, "KWD"), false, "KWD 1,234.567", "KWD 1,234.567"},
		{money(0, "CNY"), true, "—", "—"},
		{money(0, "CNY"), false, "¥ 0.00", "¥ 0.00"},
		{money(-1<<63, "EUR"), false, "−€ 92,233,720,368,547,758.08", "−€ 92,233,720,368,547,758.08"},
		{at(-30 * time.Second), true, "just now", "刚刚"},
		{at(-5 * time.Minute), true, "5 min ago", "5 分钟前"},
		{at(-2 * time.Hour), true, "2 h ago", "2 小时前"},
		{at(-8 * time.Hour), true, "today", "今天"},
		{at(-day), true, "yesterday", "昨天"},
		{at(-3 * day), true, "3 days ago", "3 天前"},
		{at(-8 * day), true, "1 week ago", "1 周前"},
		{at(-15 * day), true, "2 weeks ago", "2 周前"},
		{at(-40 * day), true, "12 Oct", "10月12日"},
		{at(-400 * day), true, "17 Oct 2025", "2025年10月17日"},
		{at(day), true, "tomorrow", "明天"},
		{at(3 * day), true, "in 3 days", "3 天后"},
		{at(-8 * time.Hour), false, "today 08:40", "今天 08:40"},
		{at(-day), false, "yesterday 16:40", "昨天 16:40"},
		{page.Cell{Kind: page.KindTime}, false, "—", "—"},
		{page.Cell{Kind: page.KindDate, Time: now()}, false, "21 Nov", "11月21日"},
		{page.Cell{Kind: page.KindNumber, Amount: 1234567}, false, "1,234,567", "1,234,567"},
		{page.Cell{Kind: page.KindBadge, Key: "state.employee.active"}, false, "Active", "在职"},
		{page.Cell{Kind: page.KindBadge, Key: "state.contract.active"}, false, "Active", "生效"},
		{page.Cell{Kind: page.KindBadge, Key: "state." + "contract.not_yet_known"}, false, "Not yet known", "Not yet known"},
	} {
		require.Equal(t, c.english, show("en", c.cell, c.list))
		require.Equal(t, c.chines, show("zh-CN", c.cell, c.list))
	}
	plural := func(n int) string {
		f := frame("en", "nav.home", "/")
		f.Title = page.T("verdict.events", n)
		var b bytes.Buffer
		require.NoError(t, r.Page(&b, f, &page.Home{}))
		_, text, _ := strings.Cut(b.String(), "<title>")
		text, _, _ = strings.Cut(text, " · ")
		return text
	}
	require.Equal(t, "1 event", plural(1))
	require.Equal(t, "0 events", plural(0))
	require.Equal(t, "1,002 events", plural(1002))
}

func TestVerdictIsGreenOnlyWhenCompared(t *testing.T) {
	r := renderer(t)
	for state, class := range map[string]string{
		"anchored": "accent", "pinned": "accent", "unanchored": "warning", "unchecked": "warning", "altered": "danger", "withheld": "danger",
		"something new": "danger", "": "danger",
	} {
		f := frame("en", "nav.home", "/")
		f.Verdict.State = state
		var b bytes.Buffer
		require.NoError(t, r.Page(&b, f, &page.Home{}))
		require.Contains(t, b.String(), `class="verdict `+class+`"`, state)
	}
	f := frame("en", "nav.home", "/")
	f.Verdict.OK = false
	var b bytes.Buffer
	require.NoError(t, r.Page(&b, f, &page.Home{}))
	require.NotContains(t, b.String(), `class="verdict accent"`)
}

func TestMatch(t *testing.T) {
	for _, c := range []struct{ header, cookie, want string }{
		{"", "", "en"},
		{"zh-CN,zh;q=0.9,en;q=0.8", "", "zh-CN"},
		{"zh-TW", "", "zh-CN"},
		{"ZH", "", "zh-CN"},
		{"en-GB,zh;q=0.9", "", "en"},
		{"en;q=0.1,zh;q=0.2", "", "zh-CN"},
		{"fr, de", "", "en"},
		{"fr, zh;q=0.3", "", "zh-CN"},
		{"zh;q=0", "", "en"},
		{"zh;q=2", "", "en"},
		{"zh;q=NaN", "", "en"},
		{"zh;q=-1, *;q=0.5", "", "en"},
		{";;;,,,=", "", "en"},
		{strings.Repeat("fr,", 5000) + "zh", "", "en"},
		{"zh-CN", "en", "en"},
		{"en", "zh-CN", "zh-CN"},
		{"zh-CN", "klingon", "zh-CN"},
		{"en", "zh", "en"},
	} {
		require.Equal(t, c.want, page.Match(c.header, c.cookie), "%.40q %q", c.header, c.cookie)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("zh-CN,zh;q=0.9", "")
	f.Add("en;q=,;=", "zh-CN")
	f.Fuzz(func(t *testing.T, header, cookie string) {
		require.Contains(t, page.Languages(), page.Match(header, cookie))
	})
}

func TestStatic(t *testing.T) {
	h := page.Static()
	text := render(t, renderer(t), "en", samples("x")[0])
	paths := regexp.MustCompile(`/static/[^"]+`).FindAllString(text, -1)
	require.Len(t, paths, 5)
	get := func(path string) *http.Response {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Result()
	}
	for _, p := range paths {
		res := get(p)
		require.Equal(t, 200, res.StatusCode, p)
		require.Contains(t, res.Header.Get("Cache-Control"), "immutable")
		require.NotEmpty(t, res.Header.Get("Content-Type"))
		require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
	}
	for _, p := range []string{"/static/", "/static/page.css", "/static/../render.go", "/static/page.000000000000.css", "/"} {
		require.Equal(t, 404, get(p).StatusCode, p)
	}
}

func TestNothingIsWrittenOnError(t *testing.T) {
	var b bytes.Buffer
	require.Error(t, renderer(t).Page(&b, frame("en", "nav.home", "/"), "text"))
	require.Zero(t, b.Len())
}

func BenchmarkList(b *testing.B) {
	r, l, f := renderer(b), customers("华东精密仪器有限公司"), frame("en", "type.customer.many", "/customers")
	l.Rows = append(append(append(append(l.Rows, l.Rows...), l.Rows...), l.Rows...), l.Rows[:10]...)
	for b.Loop() {
		if err := r.Page(io.Discard, f, l); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNarrowLabels: a cell of a table that is not the only number, amount or time of its row names its column where the head is not shown; others do not, and data stays escaped.
func TestNarrowLabels(t *testing.T) {
	r := renderer(t)
	l := &page.List{Title: page.T("imports.title"), Columns: []page.Column{
		{Label: page.T("imports.of.name")}, {Label: page.T("imports.of.rows"), Kind: page.KindNumber}, {Label: page.Plain(`"><b>stored`), Kind: page.KindNumber}, {Label: page.T("imports.of.begun")},
	}, Rows: []page.Row{{Cells: []page.Cell{{Text: "people.csv"}, {Kind: page.KindNumber, Amount: 7}, {Kind: page.KindNumber, Amount: 6}, {Kind: page.KindTime, Time: now()}}}}}
	text := render(t, r, "en", sample{"/imports", "imports.title", l, false})
	require.Contains(t, text, `data-label="Rows"`)
	require.Contains(t, text, `data-label="&#34;&gt;&lt;b&gt;stored"`)
	require.NotContains(t, text, `data-label="Begun"`)
	require.NotContains(t, text, `data-label="File"`)
	require.Contains(t, render(t, r, "zh-CN", sample{"/imports", "imports.title", l, false}), `data-label="行数"`)
	l.Rows[0].Cells = l.Rows[0].Cells[:2]
	require.NotContains(t, render(t, r, "en", sample{"/imports", "imports.title", l, false}), "data-label")
}

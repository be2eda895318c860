package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"text/template/parse"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed templates
var templates embed.FS

// language is what pages of one language are made with.
type language struct {
	tag   string
	words map[string]entry
	tmpl  *template.Template
	now   func() time.Time
	zone  *time.Location
}

// New parses all templates and both catalogues. A template that does not parse, a catalogue that does
// not, or a key that only one of them has or that a template uses in vain, is an error.
func New(opts *Options) (*Renderer, error) {
	if opts == nil {
		opts = &Options{}
	}
	r := &Renderer{langs: map[string]*language{}}
	files, err := assets()
	if err != nil {
		return nil, err
	}
	for _, tag := range Languages() {
		l := &language{tag: tag, now: opts.Now, zone: opts.Zone}
		if l.now == nil {
			l.now = time.Now
		}
		if l.zone == nil {
			l.zone = time.Local
		}
		if l.words, err = loadWords(tag); err != nil {
			return nil, err
		}
		l.tmpl, err = template.New("").Funcs(l.funcs(files)).ParseFS(templates, "templates/*.html")
		if err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
		r.langs[tag] = l
	}
	return r, r.check()
}

// check compares the catalogues with each other and with what the templates use.
func (r *Renderer) check() error {
	var missing []string
	for tag, l := range r.langs {
		for other, o := range r.langs {
			for key := range o.words {
				if _, ok := l.words[key]; !ok {
					missing = append(missing, tag+" lacks "+key+", which "+other+" has")
				}
			}
		}
		for _, t := range l.tmpl.Templates() {
			if t.Tree == nil {
				continue
			}
			for _, key := range keysOf(t.Tree.Root) {
				if _, ok := l.words[key]; !ok {
					missing = append(missing, tag+" lacks "+key+", which template "+t.Name()+" uses")
				}
			}
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("page: catalogue %s", strings.Join(missing, "; "))
}

// keysOf returns the literal keys that the functions t and ts are called with below n.
func keysOf(n parse.Node) []string {
	var keys []string
	branch := func(b *parse.BranchNode) {
		keys = append(keys, keysOf(b.Pipe)...)
		keys = append(keys, keysOf(b.List)...)
		if b.ElseList != nil {
			keys = append(keys, keysOf(b.ElseList)...)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, c := range n.Nodes {
			keys = append(keys, keysOf(c)...)
		}
	case *parse.ActionNode:
		keys = keysOf(n.Pipe)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			keys = keysOf(n.Pipe)
		}
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			keys = append(keys, keysOf(c)...)
		}
	case *parse.CommandNode:
		for i, a := range n.Args {
			if id, ok := a.(*parse.IdentifierNode); ok && i == 0 && len(n.Args) > 1 && (id.Ident == "t" || id.Ident == "ts") {
				if s, ok := n.Args[1].(*parse.StringNode); ok {
					keys = append(keys, s.Text)
				}
			}
			keys = append(keys, keysOf(a)...)
		}
	}
	return keys
}

// framed is a Frame with its content.
type framed struct {
	Frame
	Body template.HTML
}

// Page writes a whole page around content: a pointer to SignIn, Home, List, Detail, Form, Reveal, Log,
// Event, Backups, Error, Numbers, Pair, Second, Security or Search. It is rendered completely before the first byte is written, so an
// error of the template leaves w untouched.
func (r *Renderer) Page(w io.Writer, f Frame, content any) error {
	l := r.language(f.Lang)
	f.Lang = l.tag
	name := ""
	switch c := content.(type) {
	case *SignIn:
		name = "signin"
	case *Leave:
		name = "leave"
	case *Second:
		name = "second"
	case *Security:
		name = "security"
	case *Home:
		name = "home"
	case *List:
		name = "list"
	case *Detail:
		name = "detail"
	case *Form:
		name = "form"
	case *Reveal:
		name = "reveal"
	case *Log:
		name = "log"
	case *Event:
		name = "event"
	case *Backups:
		name = "backups"
	case *Search:
		name = "search"
	case *Numbers:
		name = "numbers"
	case *Pair:
		name = "pair"
	case *Error:
		name = "error"
		e := c.filled()
		content = &e
		if f.Title.IsZero() {
			f.Title = e.Title
		}
	default:
		return fmt.Errorf("page: no page for %T", content)
	}
	var body, all bytes.Buffer
	if err := l.tmpl.ExecuteTemplate(&body, name, content); err != nil {
		return fmt.Errorf("page: %w", quiet(err))
	}
	// The body was escaped by the template that made it.
	if err := l.tmpl.ExecuteTemplate(&all, "page", framed{f, template.HTML(body.String())}); err != nil { //nolint:gosec // see above
		return fmt.Errorf("page: %w", quiet(err))
	}
	_, err := w.Write(all.Bytes())
	return err
}

// Fragment writes content alone, as the answer to a request with the header HX-Request: a pointer to
// List, Reveal, Value, or Error in the place of a value.
func (r *Renderer) Fragment(w io.Writer, lang string, content any) error {
	l := r.language(lang)
	name := ""
	switch c := content.(type) {
	case *List:
		name = "list"
		if listID(c) != "list" {
			name = "sublist"
		}
	case *Reveal:
		name = "fragment.reveal"
	case *Value:
		name = "fragment.value"
	case *Error:
		name = "fragment.error"
		e := c.filled()
		content = &e
	default:
		return fmt.Errorf("page: no fragment for %T", content)
	}
	var b bytes.Buffer
	if err := l.tmpl.ExecuteTemplate(&b, name, content); err != nil {
		return fmt.Errorf("page: %w", quiet(err))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Say returns a text in a language, for files: as it is, without markup.
func (r *Renderer) Say(lang string, t Text) string { return r.language(lang).plain(t) }

func (r *Renderer) language(tag string) *language {
	if l, ok := r.langs[tag]; ok {
		return l
	}
	return r.langs[Languages()[0]]
}

// quiet keeps the place of an error of text/template and drops its text, which may quote data.
func quiet(err error) error {
	text, _, _ := strings.Cut(err.Error(), ": executing ")
	return fmt.Errorf("%s", text)
}

// statuses are those with words of their own.
var statuses = []int{400, 403, 404, 405, 409, 413, 422, 429, 500, 503}

// filled returns e with the usual words where it has none.
func (e *Error) filled() Error {
	out := *e
	status := out.Status
	if !slices.Contains(statuses, status) {
		status = 500
		if out.Status >= 400 && out.Status < 500 {
			status = 400
		}
	}
	for part, t := range map[string]*Text{"title": &out.Title, "what": &out.What, "kept": &out.Kept, "do": &out.Do} {
		if t.IsZero() {
			*t = T(fmt.Sprintf("error.%d.%s", status, part))
		}
	}
	if len(out.Controls) > 0 && out.Ask.IsZero() {
		out.Ask = T("error.ask")
	}
	return out
}

// cellView is a Cell in its place.
type cellView struct {
	Cell    *Cell
	Compact bool // in a list
}

// Open tells whether the reader holds the value itself. An unknown state is shown as hidden.
func (v *cellView) Open() bool { return v.Cell.State == Clear }

// Words tells whether the value is shown as it is.
func (v *cellView) Words() bool { return v.Cell.Kind == KindText || v.Cell.Kind > KindActions }

// Blank tells whether there is nothing to show.
func (v *cellView) Blank() bool {
	c := v.Cell
	switch c.Kind {
	case KindMoney:
		return c.Amount == 0 && (v.Compact || c.Currency == "")
	case KindTime, KindDate:
		return c.Time.IsZero()
	case KindNumber:
		return false
	case KindList:
		return len(c.Items) == 0
	case KindActions:
		return len(c.Actions) == 0
	}
	return c.Text == "" && c.Key == ""
}

// MaskClass returns the class of the mask: names are set as text, numbers and addresses in fixed width.
func (v *cellView) MaskClass() string {
	if v.Cell.RevealURL == "" && !strings.ContainsFunc(v.Cell.Text, func(r rune) bool { return r == '@' || unicode.IsDigit(r) }) {
		return "mask-name"
	}
	return "mask"
}

// actionView is an Action in its place.
type actionView struct {
	Action  Action
	Class   string
	Version int64
}

type barView struct {
	Primary   *Action
	Secondary []Action
	Edit      string
}

func listID(l *List) string {
	if l.ID == "" {
		return "list"
	}
	return l.ID
}

func tone(t Tone) string {
	return [...]string{"neutral", "accent", "warning", "danger"}[min(t, Danger)]
}

// verdictTone is green for a log that was compared with a head kept elsewhere, and for no other.
func verdictTone(state string, ok bool) string {
	switch {
	case ok && (state == "pinned" || state == "anchored"):
		return "accent"
	case state == "unanchored" || state == "unchecked":
		return "warning"
	}
	return "danger"
}

// local returns a link of this site, for attributes that html/template does not know to be links.
func local(href string) string {
	if strings.HasPrefix(href, "/") && !strings.HasPrefix(href, "//") && !strings.HasPrefix(href, "/\\") || strings.HasPrefix(href, "?") {
		return href
	}
	return "#"
}

func initials(name string) string {
	words := strings.Fields(name)
	if len(words) == 0 {
		return "?"
	}
	first, _ := utf8.DecodeRuneInString(words[0])
	if len(words) == 1 || first >= 0x2e80 {
		return strings.ToUpper(string(first))
	}
	last, _ := utf8.DecodeRuneInString(words[len(words)-1])
	return strings.ToUpper(string(first) + string(last))
}

// likeAnother tells whether a cell is an amount, a number or a time and not the only one of its kind in a row. Where a screen is too narrow for the head of a table, such a cell is labelled.
func likeAnother(cells []Cell, i int) bool {
	switch cells[i].Kind {
	case KindMoney, KindNumber, KindTime, KindDate:
	default:
		return false
	}
	for k := range cells {
		if k != i && cells[k].Kind == cells[i].Kind {
			return true
		}
	}
	return false
}

func (l *language) funcs(files map[string]asset) template.FuncMap {
	return template.FuncMap{
		"t":    func(key string, args ...any) template.HTML { return l.html(T(key, args...)) },
		"ts":   func(key string, args ...any) string { return l.plain(T(key, args...)) },
		"text": l.html,
		"txt":  l.plain,
		"narrow": func(columns []Column, cells []Cell, i int) string {
			if !likeAnother(cells, i) || i >= len(columns) {
				return ""
			}
			return l.plain(columns[i].Label)
		},
		"plain": func(s string) Text {
			return Plain(s)
		},
		"join": l.join,
		"words": func(c *Cell) template.HTML {
			if c.Key != "" {
				return l.html(T(c.Key, c.Args...))
			}
			return l.html(Plain(c.Text))
		},
		"asset": func(name string) (string, error) {
			f, ok := files[name]
			if !ok {
				return "", fmt.Errorf("no static file %s", name)
			}
			return f.path, nil
		},
		"money":    l.money,
		"number":   l.number,
		"count":    l.count,
		"index64":  func(n uint64) string { return group(fmt.Sprint(n)) },
		"bytes":    l.bytes,
		"duration": func(d time.Duration) string { return l.duration(lasts(d)) },
		"seconds":  func(d time.Duration) int { return int(lasts(d) / time.Second) },
		"ago":      func(t time.Time) template.HTML { return l.timeTag(t, l.ago(t)) },
		"when":     func(t time.Time) template.HTML { return l.timeTag(t, l.when(t)) },
		"date":     func(t time.Time) template.HTML { return l.timeTag(t, l.date(t)) },
		"clock":    func(t time.Time) template.HTML { return l.timeTag(t, l.clock(t)) },
		"local":    local,
		"initials": initials, "tone": tone, "verdictTone": verdictTone,
		"verdictText": func(s string) Text { return T("verdict." + s) },
		"verdictNote": func(s string) Text { return T("verdict." + s + ".note") },
		"actionText":  func(s string) Text { return T("action." + s) },
		"outcomeText": func(s string) Text { return T("outcome." + s) },
		"detailText":  func(s string) Text { return T("personal." + s) },
		"outcomeTone": func(s string) string {
			switch s {
			case "denied", "failed":
				return "danger"
			case "aborted":
				return "warning"
			}
			return "neutral"
		},
		"languages": Languages,
		"nameOf":    func(tag string) string { return map[string]string{"en": "English", "zh-CN": "简体中文"}[tag] },
		"button":    func(a Action, class string) actionView { return actionView{Action: a, Class: class} },
		"move":      func(a Action, version int64) actionView { return actionView{Action: a, Version: version} },
		"bar": func(primary *Action, secondary []Action, edit string) barView {
			return barView{primary, secondary, edit}
		},
		"compact": func(c Cell, i int, href string) *cellView {
			if i == 0 {
				c.Strong = true
				if c.Href == "" {
					c.Href = href
				}
			}
			return &cellView{&c, true}
		},
		"whole": func(c Cell) *cellView { return &cellView{&c, false} },
		"heading": func(c Cell) *cellView {
			c.RevealURL = ""
			return &cellView{&c, false}
		},
		"listID": listID,
		"last":   func(first int64, rows []Row) int64 { return first + int64(len(rows)) - 1 },
		"nth":    func(i int) int { return i + 1 },
		"fiveRows": func(rows []LineRow) []LineRow {
			return append(slices.Clone(rows), make([]LineRow, max(0, 5-len(rows)))...)
		},
		"fieldID": func(f Field) string {
			if f.ID != "" {
				return f.ID
			}
			return "f-" + strings.ReplaceAll(f.Name, ".", "-")
		},
		"chosen": func(f Field, value string) bool {
			return f.Kind == FieldChecks && slices.Contains(f.Values, value) || f.Kind == FieldSelect && f.Value == value
		},
		"fixed": func(f Field) string {
			for _, o := range f.Options {
				if o.Value == f.Value {
					return l.plain(o.Label)
				}
			}
			if f.Value == "" {
				return "—"
			}
			return strings.TrimSpace(f.Value + " " + f.Currency)
		},
		"onlyHidden": func(fields []Field) bool {
			return !slices.ContainsFunc(fields, func(f Field) bool { return f.Kind != FieldHidden })
		},
		"hasFile": func(sections []FormSection) bool {
			return slices.ContainsFunc(sections, func(s FormSection) bool {
				return slices.ContainsFunc(s.Fields, func(f Field) bool { return f.Kind == FieldFile })
			})
		},
		"inputType": func(k FieldKind) string {
			switch k {
			case FieldFile:
				return "file"
			case FieldPassword:
				return "password"
			case FieldEmail:
				return "email"
			case FieldTel:
				return "tel"
			case FieldDate:
				return "date"
			case FieldTime:
				return "datetime-local"
			}
			return "text"
		},
		"autocomplete": func(f Field) string {
			switch {
			case f.Kind != FieldPassword:
				return "off"
			case f.Name == "old" || f.Name == "current":
				return "current-password"
			}
			return "new-password"
		},
		"longest": func(k FieldKind) int {
			switch k {
			case FieldEmail:
				return 254
			case FieldPassword: // a longer one would be cut without a word
				return 1024
			}
			return 500
		},
	}
}

// lasts is how long a revealed value is shown.
func lasts(d time.Duration) time.Duration {
	if d <= 0 {
		return 30 * time.Second
	}
	return d
}

package page

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed catalogue
var catalogues embed.FS

// entry is one line of a catalogue. Where the language has a singular of its own, the catalogue gives
// an object with one and other.
type entry struct{ one, other string }

// UnmarshalJSON reads a string or an object.
func (e *entry) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &e.other)
	}
	var o struct{ One, Other string }
	if err := json.Unmarshal(b, &o); err != nil {
		return err
	}
	if o.One == "" || o.Other == "" {
		return fmt.Errorf("an entry lacks one or other")
	}
	e.one, e.other = o.One, o.Other
	return nil
}

func loadWords(tag string) (map[string]entry, error) {
	b, err := catalogues.ReadFile("catalogue/" + tag + ".json")
	if err != nil {
		return nil, fmt.Errorf("page: no catalogue %s", tag)
	}
	words := map[string]entry{}
	if err := json.Unmarshal(b, &words); err != nil {
		return nil, fmt.Errorf("page: catalogue %s: %w", tag, err)
	}
	return words, nil
}

// lookup finds a key, then its first and last part; failing both it makes words of the last part, so
// that a state or an action that nobody has translated yet can be read.
func (l *language) lookup(key string) entry {
	if e, ok := l.words[key]; ok {
		return e
	}
	first, last := strings.IndexByte(key, '.'), strings.LastIndexByte(key, '.')
	if first != last {
		if e, ok := l.words[key[:first]+key[last:]]; ok {
			return e
		}
	}
	s := strings.ReplaceAll(key[last+1:], "_", " ")
	r, n := utf8.DecodeRuneInString(s)
	return entry{other: strings.NewReplacer("{", "", "}", "").Replace(string(unicode.ToUpper(r)) + s[n:])}
}

// fill puts args into the words of key: lit is given the words between, arg each argument.
func (l *language) fill(t Text, lit func(string), arg func(any)) {
	e := l.lookup(t.Key)
	s := e.other
	if e.one != "" {
		for _, a := range t.Args {
			if n, ok := integer(a); ok {
				if n == 1 {
					s = e.one
				}
				break
			}
		}
	}
	for {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			break
		}
		end := strings.IndexByte(s[open:], '}')
		if end < 0 {
			break
		}
		lit(s[:open])
		if i, err := strconv.Atoi(s[open+1 : open+end]); err == nil && i >= 0 && i < len(t.Args) {
			arg(t.Args[i])
		}
		s = s[open+end+1:]
	}
	lit(s)
}

func integer(a any) (int64, bool) {
	switch n := a.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(min(n, 1<<63-1)), true //nolint:gosec // bounded
	}
	return 0, false
}

// html gives t for the content of an element.
func (l *language) html(t Text) template.HTML {
	if t.Key == "" {
		if t.Plain == "" {
			return ""
		}
		return template.HTML("<bdi>" + template.HTMLEscapeString(t.Plain) + "</bdi>") //nolint:gosec // escaped
	}
	var b strings.Builder
	l.fill(t, func(s string) { b.WriteString(template.HTMLEscapeString(s)) }, func(a any) {
		switch a := a.(type) {
		case Text:
			b.WriteString(string(l.html(a)))
		case []Text:
			b.WriteString(string(l.join(a)))
		case string:
			b.WriteString(string(l.html(Plain(a))))
		case time.Time:
			b.WriteString(string(l.timeTag(a, l.when(a))))
		default:
			b.WriteString(template.HTMLEscapeString(l.value(a)))
		}
	})
	return template.HTML(b.String()) //nolint:gosec // every part is escaped
}

// plain gives t for an attribute, a title or an option, where no element can isolate data: characters
// that turn the direction of text are left out.
func (l *language) plain(t Text) string {
	if t.Key == "" {
		return strings.Map(func(r rune) rune {
			if unicode.Is(unicode.Bidi_Control, r) {
				return -1
			}
			return r
		}, t.Plain)
	}
	var b strings.Builder
	l.fill(t, func(s string) { b.WriteString(s) }, func(a any) {
		switch a := a.(type) {
		case Text:
			b.WriteString(l.plain(a))
		case []Text:
			for i, x := range a {
				b.WriteString(l.between(i, len(a)))
				b.WriteString(l.plain(x))
			}
		case string:
			b.WriteString(l.plain(Plain(a)))
		case time.Time:
			b.WriteString(l.when(a))
		default:
			b.WriteString(l.value(a))
		}
	})
	return b.String()
}

// join lists texts: a, b and c.
func (l *language) join(list []Text) template.HTML {
	var b strings.Builder
	for i, t := range list {
		b.WriteString(template.HTMLEscapeString(l.between(i, len(list))))
		b.WriteString(string(l.html(t)))
	}
	return template.HTML(b.String()) //nolint:gosec // every part is escaped
}

// between stands before the text of index i of n.
func (l *language) between(i, n int) string {
	switch {
	case i == 0:
		return ""
	case i == n-1:
		return l.lookup("format.and").other
	}
	return l.lookup("format.comma").other
}

// value writes a number, a time or an amount.
func (l *language) value(a any) string {
	if n, ok := integer(a); ok {
		return l.number(n)
	}
	switch a := a.(type) {
	case time.Duration:
		return l.duration(a)
	case Money:
		return l.money(a.Amount, a.Currency, false)
	case Kind, Tone, State:
		return ""
	}
	return ""
}

// say is plain for words of this package.
func (l *language) say(key string, args ...any) string { return l.plain(T(key, args...)) }

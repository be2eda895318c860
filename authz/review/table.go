package review

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Table is a report. It is plain: a program may add rows, or leave some out, before it writes it.
type Table struct {
	Title   string
	Note    string // below the title, such as the day and the revision of the policy; "" for none
	Lang    string // BCP 47 tag of the title and the columns; "" for en
	Columns []string
	Rows    [][]string // as long as Columns
}

// row is what a report consists of.
type row interface {
	Permission | Idle | Item | Change | Conflict
	head() []string
	cells() []string
}

// NewTable returns a report as a table: of what [WhoCan], [WhatCan], [Unused], [Movers] or [Conflicts]
// answered, or of the items of a [Campaign].
func NewTable[R row](title string, rows []R) *Table {
	var one R
	t := &Table{Title: title, Columns: one.head()}
	for _, r := range rows {
		t.Rows = append(t.Rows, r.cells())
	}
	return t
}

func (Permission) head() []string {
	return []string{"subject", "action", "type", "resource", "controls", "obligations"}
}

func (p Permission) cells() []string {
	return []string{p.Subject, string(p.Action), p.Type, p.Resource, strings.Join(p.Decision.Controls, " "),
		strings.Join(words(p.Decision.Obligations), " ")}
}

func (Idle) head() []string {
	return []string{"subject", "role", "type", "action", "since", "last use"}
}

func (i Idle) cells() []string {
	return []string{i.Subject, i.Role, i.Type, string(i.Action), day(i.Since, ""), day(i.Last, "never")}
}

func (Item) head() []string {
	return []string{"subject", "role", "reviewer", "outcome", "by", "at"}
}

func (i Item) cells() []string {
	return []string{i.Subject, i.Role, i.Reviewer, cmp.Or(string(i.Outcome), "open"), i.By, day(i.At, "")}
}

func (Change) head() []string {
	return []string{"subject", "change", "from", "to", "gained", "lost", "kept"}
}

func (c Change) cells() []string {
	return []string{c.Subject, string(c.Kind), c.From, c.To, strings.Join(c.Gained, " "),
		strings.Join(c.Lost, " "), strings.Join(c.Kept, " ")}
}

func (Conflict) head() []string { return []string{"subject", "role", "excludes"} }

func (c Conflict) cells() []string { return []string{c.Subject, c.Roles[0], c.Roles[1]} }

func day(t time.Time, zero string) string {
	if t.IsZero() {
		return zero
	}
	return t.UTC().Format(time.DateOnly)
}

// String returns the table as lines of text: the title with the columns, then a line for each row, whose
// first two cells are padded. A new row moves no other one.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s. Columns: %s\n", line(t.Title), line(strings.Join(t.Columns, " ")))
	if t.Note != "" {
		fmt.Fprintf(&b, "# %s\n", line(t.Note))
	}
	for _, r := range t.Rows {
		var text strings.Builder
		for i, c := range r {
			switch i {
			case 0:
				fmt.Fprintf(&text, "%-10s", line(c))
			case 1:
				fmt.Fprintf(&text, " %-9s", line(c))
			default:
				text.WriteString(" " + line(c))
			}
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	return b.String()
}

// line keeps a cell on its line.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// CSV writes the columns and the rows. A cell that a spreadsheet would calculate gets an apostrophe in
// front, which it takes for "this is text".
func (t *Table) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	for i := -1; i < len(t.Rows); i++ {
		cells := t.Columns
		if i >= 0 {
			cells = t.Rows[i]
		}
		safe := make([]string, len(cells))
		for j, c := range cells {
			safe[j] = inert(c)
		}
		if err := out.Write(safe); err != nil {
			return fmt.Errorf("review: csv: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("review: csv: %w", err)
	}
	return nil
}

// inert returns s so that no spreadsheet takes it for a formula. A lone dash is none.
func inert(s string) string {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeftFunc(s, func(r rune) bool {
		return r == ' ' || r == '\u00a0' || r == '\u3000' || r == '\ufeff'
	}))
	if s != "-" && strings.ContainsRune("=+-@\t\r\n|%＝＋－＠", first) && s != "" {
		return "'" + s
	}
	return s
}

// HTML writes a page of its own, without scripts and without anything from elsewhere.
func (t *Table) HTML(w io.Writer) error {
	if err := page.Execute(w, t); err != nil {
		return fmt.Errorf("review: html: %w", err)
	}
	return nil
}

var page = template.Must(template.New("table").Parse(`<!DOCTYPE html>
<html lang="{{or .Lang "en"}}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem; color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; }
caption { text-align: left; font-size: 1.25rem; font-weight: 600; padding-bottom: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem; border-bottom: 1px solid #767676; }
thead th { position: sticky; top: 0; background: #fff; border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: #f4f4f4; }
@media print { body { margin: 0; } thead th { position: static; } }
</style>
</head>
<body>
<main>
{{with .Note}}<p>{{.}}</p>
{{end}}<table>
<caption>{{.Title}}</caption>
<thead><tr>{{range .Columns}}<th scope="col">{{.}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr>{{range $i, $c := .}}{{if $i}}<td>{{$c}}</td>{{else}}<th scope="row">{{$c}}</th>{{end}}{{end}}</tr>
{{end}}</tbody>
</table>
</main>
</body>
</html>
`))

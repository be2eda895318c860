package transfer

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Kind says what the values of a field are.
type Kind string

// The kinds of a field.
const (
	Text      Kind = "text"
	Enum      Kind = "enum" // one of Values
	Money     Kind = "money"
	Integer   Kind = "integer"
	Day       Kind = "date"
	Bool      Kind = "bool"
	Reference Kind = "reference" // a record of another type by its name
)

// Field is one field that a file can fill.
type Field struct {
	Name   string // as in the record's JSON, or one that only Finish knows
	Kind   Kind
	Words  []string            // how headers of files name it, in any spelling; the name itself is one
	Values map[string][]string // of an Enum: how files write each value
	Names  *Names              // of a Reference
	Part   bool                // the record has no such field: Finish makes something of it
}

// Layout says how rows of files become records of one type. It is read only once an importer has it.
type Layout[P guard.Record] struct {
	Fields []Field
	New    func() P // a record with its defaults; nil: an empty one
	// Finish completes a record when the cells are in it; get returns the text of any mapped field, parts included. nil: nothing to do.
	Finish func(v P, get func(field string) string) []Reason
	Keys   []string // the fields that a record may be found by: clear columns
}

// Column is what one column of a file means.
type Column struct {
	Header  string            `json:"header"`
	Field   string            `json:"field"`             // "": nothing here
	Replace map[string]string `json:"replace,omitempty"` // whole values to be read as others, such as a misspelt name
}

// Mapping says what the columns of a file mean. It is data: it is suggested, shown, changed and kept.
type Mapping struct {
	Columns  []Column          `json:"columns"`
	Key      string            `json:"key,omitempty"`      // the field by which records are found
	Dates    DateOrder         `json:"dates,omitempty"`    // "": only dates that can be read in one way
	Currency string            `json:"currency,omitempty"` // of amounts, ISO 4217
	Default  map[string]string `json:"default,omitempty"`  // of a field whose cell is empty or which has no column
}

// Ignored returns the columns that mean nothing.
func (m *Mapping) Ignored() []string {
	var out []string
	for _, c := range m.Columns {
		if c.Field == "" {
			out = append(out, c.Header)
		}
	}
	return out
}

// Fields returns the fields that have a column, in the order of the columns.
func (m *Mapping) Fields() []string {
	var out []string
	for _, c := range m.Columns {
		if c.Field != "" {
			out = append(out, c.Field)
		}
	}
	return out
}

// Suggest proposes what the columns of a file mean, from their names, in English and Chinese and with slips of the pen, and from sample rows, which also tell how dates are
// written. A field is proposed once. Nothing is sure: a person looks at it.
func Suggest(fields []Field, header []string, samples [][]string) Mapping {
	m := Mapping{Columns: make([]Column, len(header))}
	taken := map[string]bool{}
	take := func(column int, field string) {
		if m.Columns[column].Field == "" && field != "" && !taken[field] {
			m.Columns[column].Field, taken[field] = field, true
		}
	}
	names := make([]string, len(header))
	for i, h := range header {
		m.Columns[i].Header = h
		names[i] = plain(h)
	}
	for far := range 3 { // the sure ones first
		for i, h := range names {
			take(i, meaning(fields, h, far))
		}
	}
	for i := range header {
		take(i, looksLike(fields, column(samples, i)))
	}
	var dates []string
	for i, c := range m.Columns {
		if at := slices.IndexFunc(fields, func(f Field) bool { return f.Name == c.Field }); at >= 0 && fields[at].Kind == Day {
			dates = append(dates, column(samples, i)...)
		}
	}
	m.Dates = FindDateOrder(dates)
	return m
}

// meaning returns the field that a header names with as many slips, "" for none.
func meaning(fields []Field, header string, slips int) string {
	if header == "" {
		return ""
	}
	for _, f := range fields {
		for _, w := range append([]string{f.Name}, f.Words...) {
			w = plain(w)
			if slips == 0 && w == header {
				return f.Name
			}
			long := len([]rune(w)) >= 4*slips+1 && w[0] < 0x80
			if slips > 0 && long && distance([]rune(header), []rune(w), slips) <= slips {
				return f.Name
			}
		}
	}
	return ""
}

// column returns the values of a column that are not empty.
func column(rows [][]string, i int) []string {
	var out []string
	for _, r := range rows {
		if i < len(r) && strings.TrimSpace(r[i]) != "" {
			out = append(out, strings.TrimSpace(r[i]))
		}
	}
	return out
}

// looksLike returns the field whose values look like these: most of them addresses of mail, of pages, or telephone numbers.
func looksLike(fields []Field, values []string) string {
	if len(values) == 0 {
		return ""
	}
	most := func(ok func(string) bool) bool {
		n := 0
		for _, v := range values {
			if ok(v) {
				n++
			}
		}
		return n*10 >= len(values)*8
	}
	guess := ""
	switch {
	case most(func(s string) bool {
		return strings.Count(s, "@") == 1 && strings.Contains(s, ".") && !strings.Contains(s, " ")
	}):
		guess = "email"
	case most(func(s string) bool {
		return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "www.")
	}):
		guess = "website"
	case most(telephone):
		guess = "phone"
	}
	if slices.ContainsFunc(fields, func(f Field) bool { return f.Name == guess }) {
		return guess
	}
	return ""
}

// telephone tells whether s looks like a number that is dialled: it begins with a plus, or is a Chinese mobile number.
func telephone(s string) bool {
	digits := 0
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			digits++
		case !strings.ContainsRune("+-() ./", r):
			return false
		}
	}
	return digits >= 8 && digits <= 15 && (s[0] == '+' || digits == 11 && s[0] == '1')
}

// reader makes records of rows under one mapping.
type reader[P guard.Record] struct {
	layout  *Layout[P]
	mapping *Mapping
	cells   []cell[P]
	at      map[string]int // the cell of a field
	key     int            // the cell of the key, -1
}

type cell[P guard.Record] struct {
	field   *Field
	column  int // -1: only a default
	replace map[string]string
	other   string // when it is empty
	index   []int  // of the struct's field; nil for a part
}

// newReader checks that mapping, header and layout fit: ErrMapping.
func newReader[P guard.Record](layout *Layout[P], mapping *Mapping, header []string) (*reader[P], error) {
	if len(mapping.Columns) != len(header) {
		return nil, fmt.Errorf("%w: another number of columns", ErrMapping)
	}
	fields := indexes[P]()
	r := &reader[P]{layout: layout, mapping: mapping, at: map[string]int{}, key: -1}
	add := func(name string, column int, replace map[string]string) error {
		i := slices.IndexFunc(layout.Fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("%w: a field is unknown", ErrMapping)
		}
		if _, twice := r.at[name]; twice {
			return fmt.Errorf("%w: two columns are %s", ErrMapping, name)
		}
		f := &layout.Fields[i]
		index, ok := fields[name]
		if !ok && !f.Part {
			return fmt.Errorf("%w: the record has no %s", ErrMapping, name)
		}
		if f.Part {
			index = nil
		}
		r.at[name] = len(r.cells)
		r.cells = append(r.cells, cell[P]{field: f, column: column, replace: replace, other: mapping.Default[name], index: index})
		return nil
	}
	for i, c := range mapping.Columns {
		if c.Header != header[i] {
			return nil, fmt.Errorf("%w: another header", ErrMapping)
		}
		if c.Field == "" {
			continue
		}
		if err := add(c.Field, i, c.Replace); err != nil {
			return nil, err
		}
	}
	if len(r.cells) == 0 {
		return nil, fmt.Errorf("%w: no column means anything", ErrMapping)
	}
	for _, name := range slices.Sorted(maps.Keys(mapping.Default)) {
		if _, has := r.at[name]; !has {
			if err := add(name, -1, nil); err != nil {
				return nil, err
			}
		}
	}
	if mapping.Key != "" {
		at, ok := r.at[mapping.Key]
		if !ok || !slices.Contains(layout.Keys, mapping.Key) || r.cells[at].column < 0 {
			return nil, fmt.Errorf("%w: no column is the key", ErrMapping)
		}
		r.key = at
	}
	switch mapping.Dates {
	case "", DayMonthYear, MonthDayYear, YearMonthDay:
	default:
		return nil, fmt.Errorf("%w: no such order of dates", ErrMapping)
	}
	return r, nil
}

// indexes maps the JSON names of the fields, those of what it embeds too, to their places.
func indexes[P guard.Record]() map[string][]int {
	out := map[string][]int{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[P]().Elem()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && f.IsExported() && !f.Anonymous {
			out[name] = f.Index
		}
	}
	return out
}

// text returns what a row says of a cell.
func (c *cell[P]) text(row *Row) string {
	s := ""
	if c.column >= 0 && c.column < len(row.Cells) {
		s = strings.TrimSpace(row.Cells[c.column])
		if rest, quoted := strings.CutPrefix(s, "'"); quoted && Harmless(rest) == s { // as a file of ours has it
			s = rest
		}
		if with, ok := c.replace[s]; ok {
			s = with
		}
	}
	if s == "" {
		s = c.other
	}
	return s
}

// read makes a record of a row. With reasons it is not whole.
func (r *reader[P]) read(row *Row) (P, []Reason) {
	if r.layout.New != nil {
		v := r.layout.New()
		return v, r.into(v, row, false)
	}
	v := reflect.New(reflect.TypeFor[P]().Elem()).Interface().(P)
	return v, r.into(v, row, false)
}

// into puts a row into a record; on an update only cells that are not empty.
func (r *reader[P]) into(v P, row *Row, update bool) []Reason {
	var reasons []Reason
	val := reflect.ValueOf(v).Elem()
	var team string
	for i := range r.cells {
		c := &r.cells[i]
		s := c.text(row)
		if s == "" {
			continue
		}
		if update && c.column < 0 {
			continue // a default is for new records
		}
		if reason, t := r.set(val, c, s); reason.Rule != "" {
			reasons = append(reasons, reason)
		} else if c.field.Name == "owner" {
			team = t
		}
	}
	if team != "" {
		val.FieldByName("Team").SetString(team)
	}
	if r.layout.Finish != nil && len(reasons) == 0 {
		reasons = r.layout.Finish(v, func(field string) string {
			if i, ok := r.at[field]; ok {
				return r.cells[i].text(row)
			}
			return ""
		})
	}
	return reasons
}

// set parses one value and puts it into its field, if it has one.
func (r *reader[P]) set(val reflect.Value, c *cell[P], s string) (reason Reason, team string) {
	bad := func(rule string) (Reason, string) { return Reason{Field: c.field.Name, Rule: rule}, "" }
	var field reflect.Value
	if c.index != nil {
		field = val.FieldByIndex(c.index)
	}
	switch c.field.Kind {
	case Enum:
		value, ok := wordOf(c.field.Values, s)
		if !ok {
			return bad(ruleUnknown)
		}
		s = value
	case Money:
		n, rule := amount(s, r.mapping.Currency)
		if rule != "" {
			return bad(rule)
		}
		setInt(field, n)
		return Reason{}, ""
	case Integer:
		n, err := strconv.ParseInt(strings.TrimSuffix(decimal(s), ".0"), 10, 64)
		if err != nil {
			return bad(ruleNumber)
		}
		setInt(field, n)
		return Reason{}, ""
	case Bool:
		word := plain(s)
		if !slices.Contains(yes, word) && !slices.Contains(no, word) {
			return bad(ruleUnknown)
		}
		if field.IsValid() {
			field.SetBool(slices.Contains(yes, word))
		}
		return Reason{}, ""
	case Day:
		t, rule := date(s, r.mapping.Dates)
		if rule == "" && (t.Year() < 1900 || t.Year() > 2200) {
			rule = ruleRange
		}
		if rule != "" {
			return bad(rule)
		}
		if field.IsValid() {
			field.Set(reflect.ValueOf(t))
		}
		return Reason{}, ""
	case Reference:
		id, team, rule := c.field.Names.Find(s)
		if rule != "" {
			return Reason{Field: c.field.Name, Rule: rule, Near: c.field.Names.Near(s)}, ""
		}
		if field.IsValid() {
			field.Set(reflect.ValueOf(id).Convert(field.Type()))
		}
		return Reason{}, team
	}
	if !field.IsValid() {
		return Reason{}, ""
	}
	if field.Type() == reflect.TypeFor[crm.Text]() {
		field.Set(reflect.ValueOf(crm.NewText(s)))
	} else {
		field.SetString(s)
	}
	return Reason{}, ""
}

func setInt(field reflect.Value, n int64) {
	if field.IsValid() {
		field.SetInt(n)
	}
}

// wordOf finds the value that a word means.
func wordOf(values map[string][]string, s string) (string, bool) {
	word := plain(s)
	for value, words := range values {
		if plain(value) == word || slices.ContainsFunc(words, func(w string) bool { return plain(w) == word }) {
			return value, true
		}
	}
	return "", false
}

// former returns the values of the fields that differ, as text that can be put back, and whether all of them could be seen. Only the
// fields of changed are looked at.
func former[P guard.Record](old, changed P) (values map[string]any, seen bool) {
	values = map[string]any{}
	a, b := reflect.ValueOf(old).Elem(), reflect.ValueOf(changed).Elem()
	for name, index := range indexes[P]() {
		x, y := a.FieldByIndex(index), b.FieldByIndex(index)
		if t, ok := x.Interface().(crm.Text); ok {
			u := y.Interface().(crm.Text)
			if t.Equal(u) {
				continue
			}
			if t.State() != crm.Clear {
				return nil, false
			}
			values[name] = t.Expose()
			continue
		}
		if ta, ok := x.Interface().(time.Time); ok {
			if !ta.Equal(y.Interface().(time.Time)) {
				values[name] = x.Interface()
			}
			continue
		}
		if !reflect.DeepEqual(x.Interface(), y.Interface()) {
			values[name] = x.Interface()
		}
	}
	return values, true
}

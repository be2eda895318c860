package form

import (
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// ordered tells whether values of a kind have an order.
func ordered(k Kind) bool { return k == Number || k == Money || k == Date || k == Time }

// less compares two values of one ordered kind in their stored form.
func less(a, b string) bool {
	x, ok1 := rat(a)
	y, ok2 := rat(b)
	if ok1 && ok2 {
		return x.Cmp(y) < 0
	}
	return a < b // dates, and times in UTC
}

// rat reads a plain decimal. Exponents are none: a short text would be a number that fills the memory.
func rat(s string) (*big.Rat, bool) {
	if len(s) > 40 || strings.ContainsFunc(s, func(r rune) bool { return r != '-' && r != '.' && (r < '0' || r > '9') }) {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// read returns a value of the field in its stored form; rule says what is wrong with it, or "".
func (x *Field) read(typed string) (value, rule string) {
	if strings.TrimSpace(typed) == "" {
		return "", ""
	}
	v := crm.Checks{}
	limit := crm.MaxLine
	if x.Kind == Long {
		limit = crm.MaxText
	}
	v.Str("", typed, false, limit)
	if x.Kind != Text && x.Kind != Long {
		typed = strings.TrimSpace(typed)
	}
	if x.Longest > 0 && (x.Kind == Text || x.Kind == Long) && int64(len([]rune(typed))) > x.Longest {
		return "", "too_long"
	}
	switch x.Kind {
	case Text, Long, Phone:
		value = typed
	case Email:
		v.Email("", crm.NewText(typed), true)
		value = typed
	case Number:
		value, rule = decimal(typed, int(x.Digits))
	case Money:
		n, err := money.Parse(typed, x.Currency)
		if value = money.Format(n, x.Currency); err != nil {
			rule = "not_a_number"
		}
	case Bool:
		if value = typed; typed != "true" && typed != "false" {
			rule = "unknown_value"
		}
	case Date:
		t, err := time.Parse(time.DateOnly, typed)
		if value = t.Format(time.DateOnly); err != nil {
			rule = "not_a_date"
		}
	case Time:
		t, err := time.Parse(time.RFC3339, typed)
		if value = t.UTC().Format(time.RFC3339); err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
			rule = "not_a_date"
		}
	case Choice:
		if value = typed; !slices.Contains(x.Options, typed) {
			rule = "unknown_value"
		}
	case Choices:
		chosen := strings.Split(typed, ",")
		var list []string
		for _, o := range x.Options {
			if slices.Contains(chosen, o) {
				list = append(list, o)
			}
		}
		if value = strings.Join(list, ","); len(list) != len(chosen) {
			rule = "unknown_value"
		}
	case Record:
		id, err := crm.ParseUUID(typed)
		if value = id.String(); err != nil || id.IsZero() {
			rule = "bad_reference"
		}
	default:
		rule = "unknown_value"
	}
	var invalid *crm.InvalidError
	if errors.As(v.Err(), &invalid) {
		rule = invalid.Fields[0].Rule
	}
	if rule == "" && (x.Min != "" && less(value, x.Min) || x.Max != "" && less(x.Max, value)) {
		rule = "out_of_range"
	}
	if rule != "" {
		return "", rule
	}
	return value, ""
}

// decimal reads a decimal with at most so many digits behind the point and 18 in all, and writes it without needless zeros.
func decimal(s string, digits int) (value, rule string) {
	text, negative := strings.CutPrefix(s, "-")
	whole, frac, point := strings.Cut(text, ".")
	if whole == "" || point && frac == "" || strings.ContainsFunc(whole+frac, func(r rune) bool { return r < '0' || r > '9' }) {
		return "", "not_a_number"
	}
	whole, frac = strings.TrimLeft(whole, "0"), strings.TrimRight(frac, "0")
	if len(frac) > digits || len(whole)+len(frac) > 18 {
		return "", "out_of_range"
	}
	if whole == "" {
		whole = "0"
	}
	if frac != "" {
		whole += "." + frac
	}
	if negative && whole != "0" {
		whole = "-" + whole
	}
	return whole, ""
}

// Entry is what somebody wrote in a form: a record of its own, or more about another record. Values lie by the classes of their fields.
type Entry struct {
	crm.Meta[Entry]
	Form        crm.ID[Form]        `protect:"internal,indexed" json:"form"`
	Revision    int64               `protect:"internal" json:"revision"`
	SubjectType string              `protect:"internal,indexed" json:"subject_type"` // of the record that it is about; "": it stands alone
	Subject     crm.UUID            `protect:"internal,indexed" json:"subject"`
	Open        map[string]string   `protect:"internal" json:"open"` // public and internal
	Personal    map[string]crm.Text `protect:"personal" json:"personal"`
	Sensitive   map[string]crm.Text `protect:"sensitive" json:"sensitive"`
	Financial   map[string]crm.Text `protect:"financial,retention=tax" json:"financial"`
}

// sealed returns the place of a sealed class.
func (e *Entry) sealed(c Class) *map[string]crm.Text {
	switch c {
	case Personal:
		return &e.Personal
	case Sensitive:
		return &e.Sensitive
	case Financial:
		return &e.Financial
	}
	return nil
}

// Validate returns a *crm.InvalidError that lists what is wrong whatever the form is, or nil. What its form asks is checked by Form.Check.
func (e *Entry) Validate() error {
	v := crm.Checks{Type: crm.TypeEntry}
	v.Team(e.Team)
	v.Required("form", e.Form.IsZero())
	v.Range("revision", e.Revision, 1, 1_000_000)
	if (e.SubjectType == "") != e.Subject.IsZero() {
		v.Add("subject", "mismatch")
	}
	for _, n := range []int{len(e.Open), len(e.Personal), len(e.Sensitive), len(e.Financial)} {
		if n > maxFields {
			v.Add("open", "too_long")
		}
	}
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become e: a *crm.InvalidError with the rule fixed for another form or subject.
func (e *Entry) CheckUpdate(prev *Entry) error {
	v := crm.Checks{Type: crm.TypeEntry}
	v.Unchanged("form", e.Form == prev.Form && e.Revision == prev.Revision)
	v.Unchanged("subject", e.SubjectType == prev.SubjectType && e.Subject == prev.Subject)
	return v.Err()
}

// New begins an entry of a published form about a record, or about none. A *crm.TransitionError when the form is not published; a
// *crm.InvalidError has the rule mismatch for a subject of another type than the form's.
func (f *Form) New(id crm.ID[Entry], subjectType string, subject crm.UUID, at time.Time) (*Entry, error) {
	if f.State != Published {
		from := "unknown"
		if Lifecycle().Has(f.State) {
			from = string(f.State)
		}
		return nil, &crm.TransitionError{Type: crm.TypeForm, From: from, To: "filled"}
	}
	v := crm.Checks{Type: crm.TypeEntry}
	v.Required("id", id.IsZero())
	if f.For != subjectType || (subjectType == "") != subject.IsZero() {
		v.Add("subject", "mismatch")
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	return &Entry{
		Meta: crm.Meta[Entry]{ID: id, CreatedAt: at, UpdatedAt: at}, Form: f.ID, Revision: f.Revision, SubjectType: subjectType, Subject: subject,
	}, nil
}

// Set reads what was typed for a field and keeps it where its class belongs; "" takes the value away. A *crm.InvalidError names the field and the rule,
// never the value.
func (f *Form) Set(e *Entry, name, typed string) error {
	v := crm.Checks{Type: crm.TypeEntry}
	x, ok := f.Field(name)
	if !ok || e.Form != f.ID {
		v.Add("form", "bad_reference")
		return v.Err()
	}
	value, rule := x.read(typed)
	if rule != "" {
		v.Add(name, rule)
		return v.Err()
	}
	if x.Class.Clear() {
		if e.Open == nil {
			e.Open = map[string]string{}
		}
		if e.Open[name] = value; value == "" {
			delete(e.Open, name)
		}
		return nil
	}
	m := e.sealed(x.Class)
	if m == nil {
		v.Add(name, "mismatch")
		return v.Err()
	}
	if *m == nil {
		*m = map[string]crm.Text{}
	}
	if (*m)[name] = crm.NewText(value); value == "" {
		delete(*m, name)
	}
	return nil
}

// Value returns a value of an entry as a text; an empty one for a field that has none. A clear value is clear.
func (f *Form) Value(e *Entry, name string) crm.Text {
	x, ok := f.Field(name)
	if !ok {
		return crm.Text{}
	}
	if m := e.sealed(x.Class); m != nil {
		return (*m)[name]
	}
	return crm.NewText(e.Open[name])
}

// Check returns a *crm.InvalidError that lists every rule of the form that an entry breaks, or nil: required for a value that lacks, mismatch for one that
// does not lie where its class belongs or is not in its stored form, bad_reference for one of a field that the form does not have. What was not opened counts as a value that is
// good.
func (f *Form) Check(e *Entry) error {
	v := crm.Checks{Type: crm.TypeEntry}
	if e.Form != f.ID || e.Revision != f.Revision || e.SubjectType != f.For {
		v.Add("form", "mismatch")
		return v.Err()
	}
	// The names of values come from outside: only those that the form has are repeated.
	stray := func(class Class, name string) {
		x, ok := f.Field(name)
		switch {
		case !ok:
			v.Add("form", "bad_reference")
		case x.Class != class && (!x.Class.Clear() || !class.Clear()):
			v.Add(name, "mismatch")
		}
	}
	for _, name := range sortedKeys(e.Open) {
		stray(Internal, name)
	}
	for _, c := range []Class{Personal, Sensitive, Financial} {
		for _, name := range sortedKeys(*e.sealed(c)) {
			stray(c, name)
		}
	}
	for _, x := range f.Fields {
		t := f.Value(e, x.Name)
		if t.State() != crm.Clear {
			continue
		}
		value, rule := x.read(t.Expose())
		switch {
		case rule != "":
			v.Add(x.Name, rule)
		case value != t.Expose():
			v.Add(x.Name, "mismatch")
		case value == "" && x.Required:
			v.Add(x.Name, "required")
		}
	}
	return v.Err()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

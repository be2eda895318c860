package form

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Class says how a value is protected.
type Class string

// The classes, the least protected first.
const (
	Public    Class = "public"
	Internal  Class = "internal"
	Personal  Class = "personal"
	Sensitive Class = "sensitive"
	Financial Class = "financial"
)

var classes = []Class{Public, Internal, Personal, Sensitive, Financial}

// Clear tells whether values of the class are stored in the clear.
func (c Class) Clear() bool { return c == Public || c == Internal }

// Kind says what values a field has.
type Kind string

// The kinds of a field.
const (
	Text    Kind = "text"   // one line
	Long    Kind = "long"   // several lines
	Number  Kind = "number" // with Digits decimals
	Money   Kind = "money"  // of Currency
	Bool    Kind = "bool"
	Date    Kind = "date"
	Time    Kind = "time"
	Choice  Kind = "choice"  // one of Options
	Choices Kind = "choices" // several of Options
	Email   Kind = "email"
	Phone   Kind = "phone"
	Record  Kind = "record" // the id of a record of Target
)

var kinds = []Kind{Text, Long, Number, Money, Bool, Date, Time, Choice, Choices, Email, Phone, Record}

// Field is one field of a form.
type Field struct {
	Name     string            `json:"name"`   // lower-case letters, digits and _, at most 40, a letter first
	Labels   map[string]string `json:"labels"` // by language, such as en and zh-CN
	Kind     Kind              `json:"kind"`
	Class    Class             `json:"class"` // required
	Required bool              `json:"required,omitempty"`
	Min      string            `json:"min,omitempty"` // of number, money, date and time, as a value; "": none
	Max      string            `json:"max,omitempty"`
	Longest  int64             `json:"longest,omitempty"` // characters of text and long; 0: what the kind allows
	Digits   int64             `json:"digits,omitempty"`  // decimals of a number, 0 to 9
	Currency string            `json:"currency,omitempty"`
	Options  []string          `json:"options,omitempty"` // words as Name
	Target   string            `json:"target,omitempty"`  // a type's name
}

// State says whether a form is used.
type State string

// The states of a form.
const (
	Draft     State = "draft"
	Published State = "published"
	Retired   State = "retired" // final: entries stay, new ones are refused
)

// Lifecycle returns the transition table of forms.
func Lifecycle() crm.Lifecycle[State] {
	return crm.NewLifecycle(crm.TypeForm, []State{Draft, Published, Retired}, map[State][]State{Draft: {Published, Retired}, Published: {Retired}})
}

// Form is one version of a form.
type Form struct {
	crm.Meta[Form]
	Key      string            `protect:"internal,indexed" json:"key"`      // the same for all versions
	Titles   map[string]string `protect:"internal" json:"titles"`           // by language
	For      string            `protect:"internal,indexed" json:"for"`      // the type whose records it extends; "": it stands alone
	Revision int64             `protect:"internal,indexed" json:"revision"` // from 1
	Before   crm.ID[Form]      `protect:"internal" json:"before"`           // the version before; none for the first
	Fields   []Field           `protect:"internal" json:"fields"`
	State    State             `protect:"internal,indexed" json:"state"`
}

const (
	maxFields  = 200
	maxOptions = 200
)

// word tells whether s is a name: lower-case letters, digits and _, a letter first.
func word(s string) bool {
	return s != "" && len(s) <= 40 && s[0] >= 'a' && s[0] <= 'z' &&
		!strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

func labels(v *crm.Checks, field string, m map[string]string) {
	v.Required(field, len(m) == 0)
	for _, lang := range sortedKeys(m) {
		v.Str(field, m[lang], true, crm.MaxName)
	}
	if len(m) > 20 {
		v.Add(field, "too_long")
	}
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil. A field without a class has the rule required.
func (f *Form) Validate() error {
	v := crm.Checks{Type: crm.TypeForm}
	v.Team(f.Team)
	if !word(f.Key) {
		v.Add("key", "unknown_value")
	}
	labels(&v, "titles", f.Titles)
	if f.For != "" && !word(f.For) {
		v.Add("for", "unknown_value")
	}
	v.Range("revision", f.Revision, 1, 1_000_000)
	if (f.Revision > 1) == f.Before.IsZero() {
		v.Add("before", "mismatch")
	}
	Lifecycle().State(&v, "state", f.State)
	v.Required("fields", len(f.Fields) == 0 && f.State == Published)
	if len(f.Fields) > maxFields {
		v.Add("fields", "too_long")
		return v.Err()
	}
	for i := range f.Fields {
		f.Fields[i].check(&v, "fields."+strconv.Itoa(i))
		if slices.ContainsFunc(f.Fields[:i], func(o Field) bool { return o.Name == f.Fields[i].Name }) {
			v.Add("fields."+strconv.Itoa(i)+".name", "repeated")
		}
	}
	return v.Err()
}

func (x *Field) check(v *crm.Checks, at string) {
	if !word(x.Name) {
		v.Add(at+".name", "unknown_value")
	}
	labels(v, at+".labels", x.Labels)
	v.OneOf(at+".kind", string(x.Kind), words(kinds)...)
	v.OneOf(at+".class", string(x.Class), words(classes)...)
	v.Range(at+".longest", x.Longest, 0, crm.MaxText)
	v.Range(at+".digits", x.Digits, 0, 9)
	v.Currency(at+".currency", x.Currency, x.Kind == Money)
	if x.Kind != Money && x.Currency != "" {
		v.Add(at+".currency", "mismatch")
	}
	choice := x.Kind == Choice || x.Kind == Choices
	v.Required(at+".options", choice && len(x.Options) == 0)
	if !choice && len(x.Options) > 0 {
		v.Add(at+".options", "mismatch")
	}
	if len(x.Options) > maxOptions {
		v.Add(at+".options", "too_long")
	}
	for i, o := range x.Options {
		if !word(o) {
			v.Add(at+".options", "unknown_value")
			break
		}
		if slices.Contains(x.Options[:i], o) {
			v.Add(at+".options", "repeated")
			break
		}
	}
	if (x.Kind == Record) != word(x.Target) {
		v.Add(at+".target", "mismatch")
	}
	bare := *x
	bare.Min, bare.Max = "", ""
	for _, b := range []struct{ name, value string }{{"min", x.Min}, {"max", x.Max}} {
		if b.value == "" {
			continue
		}
		if got, rule := bare.read(b.value); rule != "" || got != b.value || !ordered(x.Kind) {
			v.Add(at+"."+b.name, "mismatch")
		}
	}
	if x.Min != "" && x.Max != "" && ordered(x.Kind) && less(x.Max, x.Min) {
		v.Add(at+".max", "before_start")
	}
}

func words[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// CheckNew refuses a form that does not begin as a draft: a *crm.TransitionError.
func (f *Form) CheckNew() error {
	if f.State == Draft {
		return nil
	}
	to := "unknown"
	if Lifecycle().Has(f.State) {
		to = string(f.State)
	}
	return &crm.TransitionError{Type: crm.TypeForm, From: "new", To: to}
}

// Reserved names the fields that no update sets: Publish looks at the version before, and retires it.
func (f *Form) Reserved(isNew bool) []string {
	if isNew { // CheckNew
		return nil
	}
	return []string{"state"}
}

// CheckUpdate tells whether the stored record prev may become f: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for a change of what is published.
func (f *Form) CheckUpdate(prev *Form) error {
	if err := Lifecycle().CheckUpdate(prev.State, f.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeForm}
	v.Unchanged("key", f.Key == prev.Key)
	v.Unchanged("for", f.For == prev.For)
	v.Unchanged("revision", f.Revision == prev.Revision && f.Before == prev.Before)
	if prev.State != Draft {
		v.Unchanged("fields", slices.EqualFunc(f.Fields, prev.Fields, same))
	}
	return v.Err()
}

// same tells whether two fields take the same values. How a field is called in a language may be corrected.
func same(a, b Field) bool {
	options := slices.Equal(a.Options, b.Options)
	a.Labels, b.Labels, a.Options, b.Options = nil, nil, nil, nil
	return options && a.Name == b.Name && a.Kind == b.Kind && a.Class == b.Class && a.Required == b.Required && a.Min == b.Min && a.Max == b.Max &&
		a.Longest == b.Longest && a.Digits == b.Digits && a.Currency == b.Currency && a.Target == b.Target
}

// Publish makes a draft the form that is used. before is the version before, as it is stored, or nil for the first; it is retired, and both are stored in
// one batch. A *crm.TransitionError for a form that is no draft, or a version before that is not published; a *crm.InvalidError has the rule mismatch
// for another version before, fixed for a field whose kind, digits, currency or target changed, lowered for one whose class is below that of before,
// and the rules of Validate.
func (f *Form) Publish(before *Form, at time.Time) error {
	if err := Lifecycle().Check(f.State, Published); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeForm}
	if before == nil && f.Revision != 1 ||
		before != nil && (before.ID != f.Before || before.Key != f.Key || before.For != f.For || before.Revision != f.Revision-1) {
		v.Add("before", "mismatch")
		return v.Err()
	}
	if before != nil {
		if err := Lifecycle().Check(before.State, Retired); err != nil || before.State != Published {
			return &crm.TransitionError{Type: crm.TypeForm, From: string(Draft), To: string(Retired)}
		}
		for i, x := range f.Fields {
			old, ok := before.Field(x.Name)
			at := "fields." + strconv.Itoa(i)
			if ok && (old.Kind != x.Kind || old.Digits != x.Digits || old.Currency != x.Currency || old.Target != x.Target) {
				v.Add(at+".kind", "fixed")
			}
			if ok && slices.Index(classes, x.Class) < slices.Index(classes, old.Class) {
				v.Add(at+".class", "lowered")
			}
		}
	}
	next := *f
	next.State, next.UpdatedAt = Published, at
	if err := v.Err(); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*f = next
	if before != nil {
		before.State, before.UpdatedAt = Retired, at
	}
	return nil
}

// Revise makes the draft of the next version of a published form. A *crm.TransitionError for another state; a *crm.InvalidError without an id.
func (f *Form) Revise(id crm.ID[Form], at time.Time) (*Form, error) {
	if f.State != Published {
		from := "unknown"
		if Lifecycle().Has(f.State) {
			from = string(f.State)
		}
		return nil, &crm.TransitionError{Type: crm.TypeForm, From: from, To: string(Draft)}
	}
	if id.IsZero() {
		return nil, &crm.InvalidError{Type: crm.TypeForm, Fields: []crm.FieldError{{Field: "id", Rule: "required"}}}
	}
	next := *f
	next.Meta = crm.Meta[Form]{ID: id, Owner: f.Owner, Team: f.Team, CreatedAt: at, UpdatedAt: at}
	next.Revision, next.Before, next.State, next.Fields = f.Revision+1, f.ID, Draft, slices.Clone(f.Fields)
	return &next, nil
}

// Field returns a field by its name.
func (f *Form) Field(name string) (Field, bool) {
	i := slices.IndexFunc(f.Fields, func(x Field) bool { return x.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return f.Fields[i], true
}

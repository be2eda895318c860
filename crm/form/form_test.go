package form_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/form"
	"github.com/crmguard/crmguard/crm/guard"
)

var start = crmtest.Start()

func label(s string) map[string]string { return map[string]string{"en": s, "zh-CN": s} }

func sample() *form.Form {
	return &form.Form{
		Meta: crm.Meta[form.Form]{ID: crm.ID[form.Form]{1}}, Key: "visit", Titles: label("visit"), For: crm.TypeTicket, Revision: 1, State: form.Draft,
		Fields: []form.Field{
			{Name: "reason", Labels: label("reason"), Kind: form.Choice, Class: form.Internal, Required: true, Options: []string{"repair", "training"}},
			{Name: "days", Labels: label("days"), Kind: form.Number, Class: form.Internal, Digits: 1, Min: "0.5", Max: "30"},
			{Name: "who", Labels: label("who"), Kind: form.Text, Class: form.Personal, Longest: 10},
			{Name: "iban", Labels: label("iban"), Kind: form.Text, Class: form.Financial},
			{Name: "illness", Labels: label("illness"), Kind: form.Long, Class: form.Sensitive},
			{Name: "price", Labels: label("price"), Kind: form.Money, Class: form.Internal, Currency: "JPY"},
			{Name: "on", Labels: label("on"), Kind: form.Date, Class: form.Public, Min: "2026-01-01"},
			{Name: "at", Labels: label("at"), Kind: form.Time, Class: form.Public},
			{Name: "tools", Labels: label("tools"), Kind: form.Choices, Class: form.Internal, Options: []string{"a", "b", "c"}},
			{Name: "mail", Labels: label("mail"), Kind: form.Email, Class: form.Personal},
			{Name: "call", Labels: label("call"), Kind: form.Phone, Class: form.Personal},
			{Name: "paid", Labels: label("paid"), Kind: form.Bool, Class: form.Internal},
			{Name: "boss", Labels: label("boss"), Kind: form.Record, Class: form.Internal, Target: crm.TypeEmployee},
		},
	}
}

func published(t testing.TB) *form.Form {
	t.Helper()
	f := sample()
	if err := f.Publish(nil, start); err != nil {
		t.Fatal(err)
	}
	return f
}

func entry(t testing.TB, f *form.Form) *form.Entry {
	t.Helper()
	e, err := f.New(crm.ID[form.Entry]{2}, crm.TypeTicket, crm.UUID{3}, start)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestStored(t *testing.T) {
	s, err := guard.Schema[*form.Entry](nil)
	if err != nil || s.Type != crm.TypeEntry {
		t.Fatalf("%q, %v", s.Type, err)
	}
	for _, c := range s.Columns {
		if c.Name == "personal" || c.Name == "sensitive" || c.Name == "financial" {
			t.Errorf("%s is clear", c.Name)
		}
	}
	if s, err := guard.Schema[*form.Form](nil); err != nil || s.Type != crm.TypeForm {
		t.Errorf("%q, %v", s.Type, err)
	}
}

// TestItem07Forms: a form is data: its fields have kinds, bounds and a class, a published version is fixed, and no later one lowers a class.
func TestItem07Forms(t *testing.T) {
	type f = form.Form
	crmtest.Edits(t, sample, (*f).Validate,
		crmtest.Breaks(func(*f) {}),
		crmtest.Breaks(func(r *f) { r.Fields[2].Class = "" }, "fields.2.class required"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Class = crmtest.Secret }, "fields.2.class unknown_value"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Kind = "" }, "fields.2.kind required"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Kind = "float" }, "fields.2.kind unknown_value"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Name = "Who" }, "fields.2.name unknown_value"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Name = "days" }, "fields.2.name repeated"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Labels = nil }, "fields.2.labels required"),
		crmtest.Breaks(func(r *f) { r.Fields[0].Options = nil }, "fields.0.options required"),
		crmtest.Breaks(func(r *f) { r.Fields[0].Options = []string{"a", "a"} }, "fields.0.options repeated"),
		crmtest.Breaks(func(r *f) { r.Fields[0].Options = []string{"a,b"} }, "fields.0.options unknown_value"),
		crmtest.Breaks(func(r *f) { r.Fields[1].Options = []string{"a"} }, "fields.1.options mismatch"),
		crmtest.Breaks(func(r *f) { r.Fields[1].Min = "31" }, "fields.1.max before_start"),
		crmtest.Breaks(func(r *f) { r.Fields[1].Max = "1e9999999" }, "fields.1.max mismatch"),
		crmtest.Breaks(func(r *f) { r.Fields[1].Digits = 10 }, "fields.1.digits out_of_range"),
		crmtest.Breaks(func(r *f) { r.Fields[2].Min = "a" }, "fields.2.min mismatch"),
		crmtest.Breaks(func(r *f) { r.Fields[5].Currency = "" }, "fields.5.currency required"),
		crmtest.Breaks(func(r *f) { r.Fields[1].Currency = "EUR" }, "fields.1.currency mismatch"),
		crmtest.Breaks(func(r *f) { r.Fields[12].Target = "" }, "fields.12.target mismatch"),
		crmtest.Breaks(func(r *f) { r.Fields[1].Target = "lead" }, "fields.1.target mismatch"),
		crmtest.Breaks(func(r *f) { r.Key, r.Titles = "", nil }, "key unknown_value", "titles required"),
		crmtest.Breaks(func(r *f) { r.Revision = 2 }, "before mismatch"),
		crmtest.Breaks(func(r *f) { r.State, r.Fields = form.Published, nil }, "fields required"),
	)

	// Versions.
	one := published(t)
	crmtest.Stays(t, "published twice", one.Publish(nil, start), "published", "published")
	crmtest.Fixed(t, one, (*f).CheckUpdate, map[string]func(*f){
		"fields fixed": func(r *f) { r.Fields = r.Fields[1:] }, "key fixed": func(r *f) { r.Key = "x" }, "revision fixed": func(r *f) { r.Revision = 2 },
	})
	_, err := sample().Revise(crm.ID[f]{9}, start)
	crmtest.Stays(t, "a draft is revised", err, "draft", "draft")
	_, err = one.Revise(crm.ID[f]{}, start)
	crmtest.Broken(t, "no id", err, "id required")
	next := func() *f {
		n, err := one.Revise(crm.ID[f]{9}, start)
		if err != nil || n.Revision != 2 || n.Before != one.ID {
			t.Fatalf("%+v, %v", n, err)
		}
		return n
	}
	for want, edit := range map[string]func(*f){
		"fields.2.class lowered":    func(r *f) { r.Fields[2].Class = form.Internal },
		"fields.4.class lowered":    func(r *f) { r.Fields[4].Class = form.Personal },
		"fields.1.kind fixed":       func(r *f) { r.Fields[1].Kind, r.Fields[1].Min, r.Fields[1].Max = form.Text, "", "" },
		"fields.5.kind fixed":       func(r *f) { r.Fields[5].Currency = "EUR" },
		"before mismatch":           func(r *f) { r.Before = crm.ID[f]{8} },
		"fields.2.class required":   func(r *f) { r.Fields[2].Class = ""; r.Fields[2].Name = "whom" },
		"fields.0.options repeated": func(r *f) { r.Fields[0].Options = []string{"a", "a"} },
	} {
		n, old := next(), *one
		edit(n)
		crmtest.Broken(t, want, n.Publish(&old, start), want)
		if n.State != form.Draft || old.State != form.Published {
			t.Errorf("%s: published", want)
		}
	}
	n := next()
	n.Fields[0].Class = form.Personal // raised
	old := *one
	if err := n.Publish(&old, start); err != nil || n.State != form.Published || old.State != form.Retired || one.Fields[0].Class != form.Internal {
		t.Error(err)
	}
	_, err = old.New(crm.ID[form.Entry]{2}, crm.TypeTicket, crm.UUID{3}, start)
	crmtest.Stays(t, "filled after it was retired", err, "retired", "filled")
	_, err = n.New(crm.ID[form.Entry]{2}, crm.TypeProject, crm.UUID{3}, start)
	crmtest.Broken(t, "about another type", err, "subject mismatch")
	_, err = n.New(crm.ID[form.Entry]{}, crm.TypeTicket, crm.UUID{}, start)
	crmtest.Broken(t, "no id, about nothing", err, "id required", "subject mismatch")
}

func TestValues(t *testing.T) {
	f := published(t)
	for _, c := range []struct{ field, typed, want, rule string }{
		{"reason", "repair", "repair", ""}, {"reason", "SECRET", "", "unknown_value"}, {"reason", "a,b", "", "unknown_value"},
		{"days", " 2.50 ", "2.5", ""}, {"days", "0007", "7", ""}, {"days", "0.55", "", "out_of_range"}, {"days", "0.4", "", "out_of_range"}, {"days", "31", "", "out_of_range"},
		{"days", "1e1", "", "not_a_number"}, {"days", "-", "", "not_a_number"}, {"days", "1.", "", "not_a_number"}, {"days", "9999999999999999999", "", "out_of_range"},
		{"who", "王芳", "王芳", ""}, {"who", "SECRET SECRET", "", "too_long"}, {"who", "a\nb", "", "not_text"},
		{"illness", "a\nb", "a\nb", ""}, {"illness", "a\x00", "", "not_text"},
		{"price", "1200", "1200", ""}, {"price", "1200.5", "", "not_a_number"}, {"price", "SECRET", "", "not_a_number"},
		{"on", "2026-03-31", "2026-03-31", ""}, {"on", "2026-02-30", "", "not_a_date"}, {"on", "2025-12-31", "", "out_of_range"}, {"on", "31.3.2026", "", "not_a_date"},
		{"at", "2026-03-31T10:00:00+08:00", "2026-03-31T02:00:00Z", ""}, {"at", "10:00", "", "not_a_date"},
		{"tools", "c,a", "a,c", ""}, {"tools", "a,a", "", "unknown_value"}, {"tools", "a,SECRET", "", "unknown_value"},
		{"mail", "a@b.example", "a@b.example", ""}, {"mail", "SECRET", "", "not_an_email"},
		{"call", "138 0013 8000", "138 0013 8000", ""}, {"paid", "true", "true", ""}, {"paid", "yes", "", "unknown_value"},
		{"boss", crmtest.EmployeeID(1).String(), crmtest.EmployeeID(1).String(), ""}, {"boss", "SECRET", "", "bad_reference"},
		{"who", "  ", "", ""},
	} {
		e := entry(t, f)
		err := f.Set(e, c.field, c.typed)
		if c.rule != "" {
			crmtest.Broken(t, c.field+" "+c.typed, err, c.field+" "+c.rule)
		} else if err != nil {
			t.Errorf("%s %q: %v", c.field, c.typed, err)
		}
		if got := f.Value(e, c.field); got.Expose() != c.want {
			t.Errorf("%s %q: %q", c.field, c.typed, got.Expose())
		}
	}

	e := entry(t, f)
	crmtest.Broken(t, "nothing is filled in", f.Check(e), "reason required")
	for field, typed := range map[string]string{"reason": "repair", "who": "Ana", "iban": "DE02", "illness": "none", "days": "3"} {
		if err := f.Set(e, field, typed); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Check(e); err != nil || e.Validate() != nil {
		t.Error(err)
	}
	if e.Open["reason"] != "repair" || e.Personal["who"].Expose() != "Ana" || e.Financial["iban"].Expose() != "DE02" || e.Sensitive["illness"].Expose() != "none" ||
		strings.Contains(fmt.Sprintf("%+v", *e), "Ana") {
		t.Errorf("%+v", e)
	}
	crmtest.Broken(t, "no such field", f.Set(e, crmtest.Secret, "x"), "form bad_reference")
	for want, edit := range map[string]func(*form.Entry){
		"who mismatch":       func(e *form.Entry) { e.Open["who"] = crmtest.Secret },
		"reason mismatch":    func(e *form.Entry) { e.Personal["reason"] = crm.NewText("repair") },
		"form bad_reference": func(e *form.Entry) { e.Open[crmtest.Secret] = "x" },
		"days mismatch":      func(e *form.Entry) { e.Open["days"] = "3.0" },
		"days not_a_number":  func(e *form.Entry) { e.Open["days"] = crmtest.Secret },
		"form mismatch":      func(e *form.Entry) { e.Revision = 7 },
	} {
		e := entry(t, f)
		_, _ = f.Set(e, "reason", "repair"), f.Set(e, "who", "Ana")
		edit(e)
		crmtest.Broken(t, want, f.Check(e), want)
	}
	// What was not opened is not checked and not lost.
	var hidden crm.Text
	hidden.SetExposed("A**", uint8(crm.Masked))
	e.Personal["who"] = hidden
	if err := f.Check(e); err != nil {
		t.Error(err)
	}
	if err := f.Set(e, "who", ""); err != nil || len(e.Personal) != 0 {
		t.Errorf("taken away: %v", err)
	}
	crmtest.Fixed(t, e, (*form.Entry).CheckUpdate, map[string]func(*form.Entry){
		"form fixed": func(e *form.Entry) { e.Revision++ }, "subject fixed": func(e *form.Entry) { e.Subject = crm.UUID{8} },
	})
}

// FuzzSet: what is accepted is kept in a form that is read as itself, and no error repeats what was typed.
func FuzzSet(f *testing.F) {
	for _, s := range []string{"2.5", "-0", "2026-03-31", "2026-03-31T10:00:00+08:00", "c,a", "a@b", "true", "1e999999999", "\xff", " "} {
		for i := range uint8(13) {
			f.Add(i, s)
		}
	}
	x := published(f)
	f.Fuzz(func(t *testing.T, i uint8, typed string) {
		name := x.Fields[int(i)%len(x.Fields)].Name
		e := entry(t, x)
		if err := x.Set(e, name, typed); err != nil {
			if strings.Count(err.Error(), ",") > 0 || !strings.Contains(err.Error(), name) {
				t.Fatal(err)
			}
			return
		}
		value := x.Value(e, name).Expose()
		if err := x.Set(e, name, value); err != nil || x.Value(e, name).Expose() != value {
			t.Fatalf("%s: %q becomes %q", name, value, x.Value(e, name).Expose())
		}
	})
}

func ExampleForm_Set() {
	f := &form.Form{
		Meta: crm.Meta[form.Form]{ID: crm.NewID[form.Form]()}, Key: "feedback", Titles: map[string]string{"en": "Feedback"}, Revision: 1, State: form.Draft,
		Fields: []form.Field{
			{Name: "stars", Labels: map[string]string{"en": "Stars"}, Kind: form.Number, Class: form.Internal, Min: "1", Max: "5"},
			{Name: "name", Labels: map[string]string{"en": "Name"}, Kind: form.Text},
		},
	}
	fmt.Println(f.Publish(nil, crmtest.Start()))
	f.Fields[1].Class = form.Personal
	fmt.Println(f.Publish(nil, crmtest.Start()))
	e, err := f.New(crm.NewID[form.Entry](), "", crm.UUID{}, crmtest.Start())
	if err != nil {
		panic(err)
	}
	fmt.Println(f.Set(e, "stars", "6"))
	fmt.Println(f.Set(e, "name", "Ana Moreau"), e.Personal["name"])
	// Output:
	// crm: invalid form: fields.1.class required
	// <nil>
	// crm: invalid entry: stars out_of_range
	// <nil> ***
}

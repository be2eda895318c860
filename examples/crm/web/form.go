package web

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/examples/crm/page"
)

func (k *resource[P]) showNew(s *Server, w http.ResponseWriter, r *request) error {
	ok, fields, err := k.records.MayOwn(r.Context(), r.caller(), authz.Create)
	if err != nil {
		return err
	}
	if !ok {
		return &authz.DeniedError{Controls: []string{"access.granted"}}
	}
	v := k.records.New()
	if k.prepare != nil {
		k.prepare(v, r.Request)
	}
	return k.form(s, w, r, http.StatusOK, v, nil, fields, "/"+k.plural, nil)
}

func (k *resource[P]) showEdit(s *Server, w http.ResponseWriter, r *request) error {
	u, err := id(r)
	if err != nil {
		return err
	}
	v, err := k.records.Get(r.Context(), r.caller(), u)
	if err != nil {
		return err
	}
	ok, fields, err := k.records.May(r.Context(), r.caller(), authz.Update, v.Value)
	if err != nil {
		return err
	}
	if !ok {
		return &authz.DeniedError{Controls: []string{"access.granted"}}
	}
	return k.form(s, w, r, http.StatusOK, v.Value, v.Fields, fields, "/"+k.plural+"/"+u.String(), nil)
}

// form shows the record as inputs. seen is what the reader sees of each field, nil for a new record;
// writable is what they may set.
func (k *resource[P]) form(s *Server, w http.ResponseWriter, r *request, status int, v P, seen, writable map[string]authz.Access, action string, problem error) error {
	f := &page.Form{Action: action, Submit: page.T("act.save"), Cancel: action}
	title := page.T("form.edit." + k.typ)
	if seen == nil {
		title = page.T("act.new." + k.typ)
	} else {
		f.Version = v.Header().Version
	}
	f.Title = title
	rules := map[string][]page.Text{}
	var invalid *crm.InvalidError
	var transition *crm.TransitionError
	var dup *duplicateError
	switch {
	case problem == nil:
	case errors.As(problem, &invalid):
		f.Errors = []page.Text{page.T("form.invalid")}
		for _, e := range invalid.Fields {
			name, _, _ := strings.Cut(e.Field, ".")
			rules[name] = append(rules[name], page.T("rule."+e.Rule))
		}
	case errors.As(problem, &transition):
		f.Errors = []page.Text{page.T("form.transition", page.T("state."+k.typ+"."+transition.From), page.T("state."+k.typ+"."+transition.To))}
	case errors.As(problem, &dup):
		if err := k.warn(s, r, f, dup); err != nil {
			return err
		}
	case errors.Is(problem, crm.ErrConflict):
		f.Errors = []page.Text{page.T("form.conflict")}
	case errors.Is(problem, crm.ErrDuplicate):
		f.Errors = []page.Text{page.T("form.duplicate")}
	default:
		return problem
	}
	anyMask := false
	for _, sec := range k.sections {
		out := page.FormSection{Title: page.T("section." + sec.title)}
		for _, in := range sec.fields {
			if in.kind == page.FieldHidden && in.name == "" || in.create && seen != nil {
				continue
			}
			pf, ok := k.input(s, r, v, in, seen, writable)
			if !ok {
				continue
			}
			pf.Errors = rules[in.name]
			delete(rules, in.name)
			anyMask = anyMask || pf.Mask != ""
			out.Fields = append(out.Fields, pf)
		}
		if len(out.Fields) > 0 {
			f.Sections = append(f.Sections, out)
		}
	}
	if anyMask {
		f.Note = page.T("form.masked.note")
	}
	if q, ok := any(v).(*crm.Quote); ok && k.lines {
		f.Lines = lineRows(q)
		f.Lines.Products = s.productNames(r)
		f.Lines.Errors = rules["lines"]
		delete(rules, "lines")
	}
	for name, texts := range rules { // rules of fields that the form does not have
		for _, t := range texts {
			f.Errors = append(f.Errors, page.Text{Key: "format.pair", Args: []any{k.label(name), t}})
		}
	}
	return s.show(w, r, status, title, f)
}

// input shows one field; ok is false for one that a form never has.
func (k *resource[P]) input(s *Server, r *request, v P, in field, seen, writable map[string]authz.Access) (page.Field, bool) {
	if in.kind == noInput {
		return page.Field{}, false
	}
	pf := page.Field{Name: in.name, Kind: in.kind, Label: k.label(in.name), Required: in.required, Wide: in.wide}
	f := k.byName[in.name]
	if writable[in.name] == authz.Hidden || seen != nil && seen[in.name] == authz.Hidden {
		pf.Locked, pf.Role = true, page.T("role."+seers[f.Class])
		return pf, true
	}
	val := k.value(v, in.name)
	switch x := val.Interface().(type) {
	case crm.Text:
		switch x.State() {
		case crm.Masked:
			pf.Mask, pf.Required = x.Expose(), false
			if pf.Mask == "" {
				pf.Mask = "•••"
			}
		case crm.Clear:
			pf.Value = x.Expose()
		default:
			pf.Locked = true
		}
	case time.Time:
		if !x.IsZero() {
			layout := time.DateOnly
			if in.kind == page.FieldTime {
				layout = "2006-01-02T15:04"
			}
			pf.Value = x.Local().Format(layout)
		}
	case bool:
		if x {
			pf.Value = "on"
		}
	case []string:
		pf.Values = x
	default:
		if u, ok := asUUID(val); ok {
			pf.Value = u.String()
			break
		}
		switch {
		case in.kind == page.FieldMoney && val.Int() != 0:
			pf.Value = fmt.Sprintf("%d.%02d", val.Int()/100, val.Int()%100)
		case in.kind == page.FieldMoney:
		case slices.Contains(k.percents, in.name):
			pf.Value = percent(val.Int())
		case val.CanInt():
			pf.Value = strconv.FormatInt(val.Int(), 10)
		default:
			pf.Value = val.String()
		}
	}
	switch {
	case in.people:
		pf.Options = s.people(r)
	case in.from != nil:
		pf.Options = in.from(r)
	case len(in.options) > 0 && pf.Value != "" && !slices.Contains(in.options, pf.Value): // one that an import brought
		pf.Options = []page.Option{{Value: pf.Value, Label: page.Plain(pf.Value)}}
	}
	for _, o := range in.options {
		label := page.Plain(o)
		if in.labels != "" {
			label = page.T(in.labels + "." + o)
		}
		pf.Options = append(pf.Options, page.Option{Value: o, Label: label})
	}
	return pf, true
}

// noInput is the kind of a field that a page shows and a form does not have.
const noInput = page.FieldKind(255)

// read sets the fields of v from a posted form. What cannot be read is an *crm.InvalidError.
func (k *resource[P]) read(r *request, v P, isNew bool) error {
	if err := r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return errBadRequest
	}
	invalid := &crm.InvalidError{Type: k.typ}
	bad := func(name, rule string) {
		invalid.Fields = append(invalid.Fields, crm.FieldError{Field: name, Rule: rule})
	}
	for _, sec := range k.sections {
		for _, in := range sec.fields {
			if in.kind == noInput || in.create && !isNew {
				continue
			}
			values, posted := r.PostForm[in.name]
			if in.kind == page.FieldCheckbox || in.kind == page.FieldChecks {
				posted = true // a browser leaves out what is not ticked
			}
			if !posted {
				continue
			}
			text := ""
			if len(values) > 0 {
				text = strings.TrimSpace(strings.ReplaceAll(values[0], "\r\n", "\n"))
			}
			val := k.value(v, in.name)
			switch x := val.Addr().Interface().(type) {
			case *crm.Text:
				if text == "" && x.State() != crm.Clear {
					continue // a mask that was left alone
				}
				*x = crm.NewText(text)
			case *time.Time:
				layout := time.DateOnly
				if in.kind == page.FieldTime {
					layout = "2006-01-02T15:04"
				}
				t := time.Time{}
				if text != "" {
					var err error
					if t, err = time.ParseInLocation(layout, text, time.Local); err != nil {
						bad(in.name, "not_a_date")
						continue
					}
				}
				*x = t.UTC()
			case *bool:
				*x = text == "on"
			case *[]string:
				*x = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return !slices.Contains(in.options, s) })
			default:
				switch {
				case val.Kind() == reflect.Array:
					var u crm.UUID
					if err := u.UnmarshalText([]byte(text)); err != nil {
						bad(in.name, "bad_reference")
						continue
					}
					val.Set(reflect.ValueOf(u).Convert(val.Type()))
				case in.kind == page.FieldMoney:
					n, err := minor(text)
					if err != nil {
						bad(in.name, "not_a_number")
						continue
					}
					val.SetInt(n)
				case slices.Contains(k.percents, in.name):
					n, err := points(text)
					if err != nil {
						bad(in.name, "not_a_number")
						continue
					}
					val.SetInt(n)
				case val.CanInt():
					n, err := strconv.ParseInt(text, 10, 64)
					if err != nil {
						bad(in.name, "not_a_number")
						continue
					}
					val.SetInt(n)
				default:
					val.SetString(text)
				}
			}
		}
	}
	if q, ok := any(v).(*crm.Quote); ok && k.lines {
		if err := readLines(r.Request, q); err != nil {
			bad("lines", "not_a_number")
		}
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

// minor reads an amount such as 1234.50 as minor units.
func minor(text string) (int64, error) {
	text = strings.NewReplacer(",", "", " ", "").Replace(text)
	if text == "" {
		return 0, nil
	}
	whole, frac, _ := strings.Cut(text, ".")
	if len(frac) > 2 {
		return 0, errBadRequest
	}
	n, err := strconv.ParseInt(whole+(frac + "00")[:2], 10, 64)
	if err != nil || n < 0 {
		return 0, errBadRequest
	}
	return n, nil
}

package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Source is a type of records that endpoints may hear of; From makes it.
type Source interface {
	Type() string
	head(ctx context.Context, c guard.Caller) (int64, error)
	changes(ctx context.Context, c guard.Caller, since int64, only []string) (batch, error)
}

// batch is some changes of one type.
type batch struct {
	items []told
	next  int64
	more  bool
}

// told is what a message says of a record.
type told struct {
	id      crm.UUID
	person  crm.UUID
	version int64
	deleted bool
	private bool   // own has a value that is sealed under the person
	own     string // JSON of the fields of the record's person, and of what is nobody's; "" for a deleted record
	other   string // of the fields of another person; "" for none
	others  crm.UUID
}

// readAtOnce is how many changes are read and stored together.
const readAtOnce = 100

type source[P guard.Record] struct {
	r      *guard.Records[P]
	fields []sourceField
}

type sourceField struct {
	name   string
	index  []int
	sealed bool
	person []int // of the field that holds the id of another person
}

// From makes a source of the records of a type.
func From[P guard.Record](r *guard.Records[P]) Source {
	s := &source[P]{r: r}
	typ := reflect.TypeFor[P]().Elem()
	for _, f := range r.Fields() {
		at, ok := typ.FieldByName(f.GoName)
		if !ok {
			continue
		}
		sf := sourceField{name: f.Name, index: at.Index, sealed: !f.Clear}
		if f.Person != "" {
			of, ok := typ.FieldByName(f.Person)
			if !ok {
				continue // whose it is cannot be told: it is not sent
			}
			sf.person = of.Index
		}
		s.fields = append(s.fields, sf)
	}
	return s
}

func (s *source[P]) Type() string { return s.r.Type() }

func (s *source[P]) head(ctx context.Context, c guard.Caller) (int64, error) { return s.r.Head(ctx, c) }

func (s *source[P]) changes(ctx context.Context, c guard.Caller, since int64, only []string) (batch, error) {
	page, err := s.r.Changes(ctx, c, since, readAtOnce)
	if err != nil {
		return batch{}, err
	}
	b := batch{next: page.Next, more: page.More}
	for i := range page.Items {
		t, err := s.tell(&page.Items[i], only)
		if err != nil {
			return batch{}, fmt.Errorf("outbox: %s %s: %w", s.Type(), t.id, err)
		}
		b.items = append(b.items, t)
	}
	return b, nil
}

// part is the fields of one person in a payload.
type part struct {
	Fields map[string]any `json:"fields"`
	Masked []string       `json:"masked,omitempty"` // fields whose value is a mask
	Erased []string       `json:"erased,omitempty"` // fields whose person was erased
}

func (p *part) empty() bool { return len(p.Fields)+len(p.Masked) == 0 }

func (p *part) text() (string, error) {
	if p.Fields == nil {
		p.Fields = map[string]any{}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return "", errEncoding // the encoder's words may repeat a value
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// tell makes what a message says of a record as the caller of its reading sees it.
func (s *source[P]) tell(c *guard.Changed[P], only []string) (told, error) {
	h := c.Value.Header()
	t := told{id: h.ID, person: h.Person, version: h.Version, deleted: c.Deleted}
	if c.Deleted {
		return t, nil
	}
	var own, other part
	v := reflect.ValueOf(c.Value).Elem()
	for _, f := range s.fields {
		access := c.Fields[f.name].String()
		if access == "hidden" || len(only) > 0 && !slices.Contains(only, f.name) {
			continue
		}
		value := v.FieldByIndex(f.index)
		if x, ok := value.Interface().(crm.Text); ok && x.State() == crm.Erased {
			own.Erased = append(own.Erased, f.name)
			continue
		}
		to := &own
		if f.person != nil {
			id := reflect.Indirect(v.FieldByIndex(f.person))
			person, _ := id.Interface().(interface{ UUID() crm.UUID })
			switch {
			case person == nil || person.UUID().IsZero():
				continue
			case person.UUID() == h.Person:
			case t.others.IsZero() || t.others == person.UUID():
				t.others, to = person.UUID(), &other
			default:
				continue // a third person's: there is no place to seal it
			}
		}
		if to.add(f.name, value.Interface(), access == "masked") && to == &own && f.sealed {
			t.private = true
		}
	}
	var err error
	if t.own, err = own.text(); err != nil || other.empty() {
		t.others = crm.UUID{}
		return t, err
	}
	t.other, err = other.text()
	return t, err
}

// add puts one field in, unless it is empty or was not opened: its person is about to be erased.
func (p *part) add(name string, value any, isMasked bool) bool {
	if p.Fields == nil {
		p.Fields = map[string]any{}
	}
	switch x := value.(type) {
	case crm.Text:
		if x.IsEmpty() || x.State() != crm.Clear && x.State() != crm.Masked {
			return false
		}
		if x.State() == crm.Masked {
			p.Masked = append(p.Masked, name)
		}
		if x.Expose() == "" { // a mask that shows nothing, also of what was not opened
			return false
		}
		p.Fields[name] = x.Expose()
		return true
	case time.Time:
		if x.IsZero() {
			return false
		}
		value = x.UTC().Format(time.RFC3339Nano)
	}
	if isMasked {
		p.Masked = append(p.Masked, name) // its value is not there
		return false
	}
	v := reflect.ValueOf(value)
	if !v.IsValid() || v.IsZero() {
		return false
	}
	p.Fields[name] = value
	return true
}

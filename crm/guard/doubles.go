package guard

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/internal/rowformat"
	"github.com/crmguard/crmguard/encrypt"
)

// Doubles makes bodies of rows that stand for those of somebody else's database, in one that has no real person in it: a
// sandbox. It opens nothing: each sealed value is replaced by an invented one and sealed by keys of the sandbox's own. It is safe for
// concurrent use.
type Doubles struct {
	schema crm.Schema
	fields []encrypt.Field
	body   func(ctx context.Context, row, was *crm.Row, with Invention) ([]byte, error)
}

// Invention is what Doubles asks for what it cannot know.
type Invention struct {
	Person func(crm.UUID) crm.UUID // the stand-in of a person
	// Value invents the text of a field of a person, which is a stand-in already. sealed is what stood there and is not to be
	// opened. Empty = the field has no value.
	Value func(f encrypt.Field, person crm.UUID, sealed []byte) (string, error)
}

// DoublesOf makes the doubles of the records of one type, sealed by keeper; opts as for For.
func DoublesOf[P Record](keeper *encrypt.Keeper, opts *TypeOptions) (*Doubles, error) {
	r, schema, err := door[P](&Guard{keeper: keeper, region: "CN"}, opts)
	if err != nil {
		return nil, err
	}
	return &Doubles{schema: schema, fields: r.fields, body: r.double}, nil
}

// Schema returns how the rows are stored.
func (d *Doubles) Schema() crm.Schema { return d.schema }

// Fields describes the fields of the type.
func (d *Doubles) Fields() []encrypt.Field { return d.fields }

// Person returns whose row it is that has this body. Error: crm.ErrDamaged.
func (d *Doubles) Person(body []byte) (crm.UUID, error) {
	var row crm.Row
	if err := rowformat.Parse(body, &row); err != nil {
		return crm.UUID{}, err
	}
	return personOf(&row), nil
}

// Body returns the body that stands for another: with the same fields filled, index tokens and a MAC over row, which has its
// id, version and clear columns as they will be stored. A sealed field that is no text is left out. Errors: crm.ErrDamaged, those of with and of the
// keeper.
func (d *Doubles) Body(ctx context.Context, row crm.Row, body []byte, with Invention) ([]byte, error) {
	var was crm.Row
	if err := rowformat.Parse(body, &was); err != nil {
		return nil, err
	}
	if row.Type != d.schema.Type || len(row.Clear) != len(d.schema.Columns) {
		return nil, fmt.Errorf("guard: not a row of type %s", d.schema.Type)
	}
	return d.body(ctx, &row, &was, with)
}

// double seals inventions in the places of what was sealed.
func (r *Records[P]) double(ctx context.Context, row, was *crm.Row, with Invention) ([]byte, error) {
	if len(was.Persons) == 0 || r.purged(row) { // a purged row stays one, and names nobody
		row.Persons, row.Sealed = nil, nil
		w, err := r.seal(ctx, *row, 0)
		if err != nil {
			return nil, err
		}
		return rowformat.Append(nil, &w.row), nil
	}
	own := with.Person(personOf(was))
	row.Persons, row.Sealed, row.MAC = []crm.UUID{own}, nil, nil
	v := r.codec.New()
	if err := r.hydrate(row, v); err != nil {
		return nil, err
	}
	val := reflect.ValueOf(v).Elem()
	for _, f := range was.Sealed {
		i := slices.IndexFunc(r.sealed, func(s encrypt.Field) bool { return s.Name == f.Name })
		if i < 0 {
			continue // the type does not have it any more
		}
		person := own
		if name := r.sealed[i].Person; name != "" {
			if p := val.FieldByName(name); p.Kind() == reflect.Array && p.Len() == len(person) {
				reflect.Copy(reflect.ValueOf(&person).Elem(), p)
			}
		}
		into, ok := val.FieldByName(r.sealed[i].GoName).Addr().Interface().(interface{ SetExposed(string, uint8) })
		if !ok || person.IsZero() {
			continue
		}
		text, err := with.Value(r.sealed[i], person, f.Data)
		if err != nil {
			return nil, err
		}
		into.SetExposed(text, uint8(crm.Clear))
	}
	sealed, err := r.codec.Seal(ctx, r.g.keeper, recordOf(row), v, nil)
	if err != nil {
		return nil, fmt.Errorf("guard: %s: %w", r.typ, err)
	}
	row.Persons, row.Sealed = persons(own, sealed.Persons), rowSealed(sealed.Fields)
	w, err := r.seal(ctx, *row, 0)
	if err != nil {
		return nil, err
	}
	return rowformat.Append(nil, &w.row), nil
}

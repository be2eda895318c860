package encrypt

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// SealedNames returns the names of all sealed fields, for an Open that opens everything.
func (c *Codec[T]) SealedNames() []string {
	out := make([]string, len(c.sealed))
	for i, at := range c.sealed {
		out[i] = c.plans[at].Name
	}
	return out
}

// Open decrypts the named fields into v, and only those: the plaintext of the others never exists,
// and they become empty with StateSealed. A field whose key was destroyed becomes empty with
// StateErased; that is no error. Fields that the type no longer has are left alone.
//
// Errors: ErrTampered, ErrKeyMissing, ErrKMSUnavailable, ErrAuth. After an error v holds nothing
// that can be relied on.
func (c *Codec[T]) Open(ctx context.Context, k *Keeper, rec Record, fields []SealedField, v *T, names ...string) (States, error) {
	states, err := c.OpenAll(ctx, k, []Record{rec}, [][]SealedField{fields}, []*T{v}, names...)
	if err != nil {
		return nil, err
	}
	return states[0], nil
}

// OpenAll opens the named fields of a page of records of one tenant. The keys of all persons who
// are not cached are read in one store query. fields[i] belongs to recs[i] and vs[i].
func (c *Codec[T]) OpenAll(ctx context.Context, k *Keeper, recs []Record, fields [][]SealedField, vs []*T, names ...string) ([]States, error) {
	if len(recs) != len(vs) || len(recs) != len(fields) {
		return nil, errors.New("encrypt: as many records as values, please")
	}
	if err := c.known(names); err != nil {
		return nil, err
	}
	if len(recs) == 0 {
		return nil, nil
	}
	wanted := make([]bool, len(c.plans))
	for _, n := range names {
		wanted[c.byName[n]] = true
	}
	t, err := k.tenant(recs[0].Tenant)
	if err != nil {
		return nil, err
	}
	var ids []keys.ID
	var told uint64
	for i := range recs {
		if recs[i].Tenant != t.name {
			return nil, errors.New("encrypt: records of several tenants")
		}
		told = lowest(told, recs[i].Erasure, i == 0)
		for j := range fields[i] {
			at, ok := c.byName[fields[i][j].Name]
			if !ok || !wanted[at] {
				continue
			}
			h, err := parseHeader(fields[i][j].Data)
			if err != nil {
				return nil, c.at(fieldError(err, c.plans[at].Name), i, len(recs))
			}
			// Fields of one record mostly share a key.
			if n := len(ids); n == 0 || ids[n-1] != h.key {
				ids = append(ids, h.key)
			}
		}
	}
	got := make(map[keys.ID]found, len(ids))
	if len(ids) > 0 {
		number, err := k.observe(ctx, t, told)
		if err != nil {
			return nil, err
		}
		if err := k.find(ctx, t, number, ids, got); err != nil {
			return nil, err
		}
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	out := make([]States, len(recs))
	for i := range recs {
		out[i] = make(States, len(c.plans))
		rv := reflect.ValueOf(vs[i]).Elem()
		for _, at := range c.sealed {
			p := &c.plans[at]
			f := rv.FieldByIndex(p.index)
			if !wanted[at] {
				p.setState(f, StateSealed)
				out[i][at] = StateSealed
				continue
			}
			state, err := c.openField(ctx, k, t, sc, p, &recs[i], rv, f, fields[i], got)
			if err != nil {
				return nil, c.at(fieldError(err, p.Name), i, len(recs))
			}
			out[i][at] = state
		}
	}
	return out, nil
}

// at names the record of a page in an error.
func (c *Codec[T]) at(err error, i, n int) error {
	if n == 1 {
		return err
	}
	return fmt.Errorf("%w (record %d)", err, i)
}

// openField opens one field of one record, or empties it.
func (c *Codec[T]) openField(ctx context.Context, k *Keeper, t *tenant, sc *scratch, p *fieldPlan, rec *Record,
	rv, f reflect.Value, fields []SealedField, got map[keys.ID]found) (State, error) {
	var data []byte
	for i := range fields {
		if fields[i].Name == p.Name {
			if data != nil {
				return 0, ErrTampered // twice
			}
			data = fields[i].Data
		}
	}
	if data == nil {
		p.setState(f, StateClear)
		return StateClear, nil
	}
	h, err := parseHeader(data)
	if err != nil {
		return 0, err
	}
	person := rec.Person
	if p.person != nil {
		copy(person[:], rv.FieldByIndex(p.person).Bytes())
	}
	key, err := k.keyOf(ctx, t, got, h.key, person)
	if errors.Is(err, ErrErased) {
		p.setState(f, StateErased)
		return StateErased, nil
	}
	if err != nil {
		return 0, err
	}
	sc.ad = fieldAD(sc.ad[:0], rec, &person, c.typ, p.Name, string(p.Class), data[:headerSize])
	body := data[headerSize:]
	plain, err := key.field.Open(sc.plain[:0], body[:nonceSize], body[nonceSize:], sc.ad)
	if err != nil {
		return 0, ErrTampered
	}
	sc.plain = plain
	if h.kind != p.kindByte {
		return 0, errValue // authentic, but sealed when the field had another type
	}
	return StateClear, p.setPlain(f, plain)
}

// State returns the state of a field in states that Open returned; StateHidden for an unknown name.
func (c *Codec[T]) State(states States, field string) State {
	if at, ok := c.byName[field]; ok && at < len(states) {
		return states[at]
	}
	return StateHidden
}

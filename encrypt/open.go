package encrypt

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// SealedNames returns the names of all sealed fields, for an Open that opens everything. The caller may
// keep but not change it.
func (c *codec) SealedNames() []string { return c.names }

// Open decrypts the named fields into v, and only those: the plaintext of the others never exists,
// and they become empty with StateSealed. A field whose key was destroyed becomes empty with
// StateErased, and one whose person is blocked with StateSealed; neither is an error. Fields that the
// type no longer has are left alone. The states come in the order of Fields; see State.
//
// Errors: ErrTampered, ErrKeyMissing, ErrRetired, ErrKMSUnavailable, ErrAuth. After an error v holds
// nothing that can be relied on.
func (c *Codec[P]) Open(ctx context.Context, k *Keeper, rec Record, fields []SealedField, v P, names ...string) ([]State, error) {
	return c.open(ctx, k, rec, fields, reflect.ValueOf(v).Elem(), names)
}

func (c *codec) open(ctx context.Context, k *Keeper, rec Record, fields []SealedField, rv reflect.Value, names []string) ([]State, error) {
	out := make([]State, len(c.plans))
	recs, all, rvs := [1]Record{rec}, [1][]SealedField{fields}, [1]reflect.Value{rv}
	if err := c.openAll(ctx, k, recs[:], all[:], rvs[:], names, out); err != nil {
		return nil, err
	}
	return out, nil
}

// OpenAll opens the named fields of a page of records of one tenant. The keys of all persons who
// are not cached are read in one store query. fields[i] belongs to recs[i] and vs[i].
func (c *Codec[P]) OpenAll(ctx context.Context, k *Keeper, recs []Record, fields [][]SealedField, vs []P, names ...string) ([][]State, error) {
	return c.openPage(ctx, k, recs, fields, valuesOf(vs), names)
}

// valuesOf returns the structs to which vs point; the zero Value for nil.
func valuesOf[P any](vs []P) []reflect.Value {
	out := make([]reflect.Value, len(vs))
	for i, v := range vs {
		out[i] = reflect.ValueOf(v).Elem()
	}
	return out
}

func (c *codec) openPage(ctx context.Context, k *Keeper, recs []Record, fields [][]SealedField, vs []reflect.Value, names []string) ([][]State, error) {
	if len(recs) != len(vs) || len(recs) != len(fields) {
		return nil, errors.New("encrypt: as many records as values, please")
	}
	states := make([]State, len(recs)*len(c.plans))
	if err := c.openAll(ctx, k, recs, fields, vs, names, states); err != nil {
		return nil, err
	}
	out := make([][]State, len(recs))
	for i := range out {
		out[i] = states[i*len(c.plans) : (i+1)*len(c.plans) : (i+1)*len(c.plans)]
	}
	return out, nil
}

func (c *codec) openAll(ctx context.Context, k *Keeper, recs []Record, fields [][]SealedField, vs []reflect.Value, names []string, states []State) error {
	if len(recs) == 0 {
		return c.known(names)
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	sc.wanted = append(sc.wanted[:0], make([]bool, len(c.plans))...)
	for i, n := range names {
		place := c.lookup(n, i)
		if place < 0 {
			return c.known(names)
		}
		sc.wanted[c.sealed[place]] = true
	}
	told := recs[0].Erasure
	sealed := false
	for i := range recs {
		if !vs[i].IsValid() {
			return errNil
		}
		if recs[i].Tenant != recs[0].Tenant {
			return errors.New("encrypt: records of several tenants")
		}
		told = newest(told, recs[i].Erasure)
		sealed = sealed || len(fields[i]) > 0
	}
	open := opening{k: k}
	if sealed && len(names) > 0 {
		var err error
		if open.visit, err = k.enter(ctx, recs[0].Tenant, told, false); err != nil {
			return err
		}
		if len(recs) > 1 {
			if err := c.prefetch(ctx, &open, sc, recs, fields, vs); err != nil {
				return err
			}
		}
	}
	for i := range recs {
		field, err := c.openRecord(ctx, &open, sc, &recs[i], fields[i], vs[i], states[i*len(c.plans):])
		switch {
		case err == nil:
			continue
		case field != "":
			err = fieldError(err, field)
		}
		if len(recs) > 1 {
			err = fmt.Errorf("%w (record %d)", err, i)
		}
		return err
	}
	return nil
}

// opening is what the records of one page share.
type opening struct {
	k     *Keeper
	visit visit
	got   map[keys.ID]found // those that were not cached

	id   keys.ID // the last one asked for
	of   [16]byte
	last *personKey
}

// key returns the key with this id, which must be the person's.
func (o *opening) key(ctx context.Context, id keys.ID, person *[16]byte, class keys.Retention) (*personKey, error) {
	if o.last != nil && o.id == id && o.of == *person {
		return o.last, nil
	}
	f, loaded := o.got[id]
	var key *personKey
	var err error
	if loaded {
		key, err = o.visit.tk.judge(o.visit.t.name, f, id, *person)
		err = o.k.missing(ctx, o.visit.t.name, err, *person, class)
	} else if key = o.k.cache.byID(o.visit.t, person, id, o.visit.now); key == nil {
		key, err = o.k.keyOf(ctx, &o.visit, id, *person, class)
	}
	if err == nil {
		o.id, o.of, o.last = id, *person, key
	}
	return key, err
}

// prefetch reads the keys of a page that are not cached in one query.
func (c *codec) prefetch(ctx context.Context, o *opening, sc *scratch, recs []Record, fields [][]SealedField, vs []reflect.Value) error {
	var wants []want
	for i := range recs {
		var last keys.ID
		for j := range fields[i] {
			at, ok := c.byName[fields[i][j].Name]
			if !ok || !sc.wanted[at] || fields[i][j].Clear {
				continue
			}
			h, err := parseHeader(fields[i][j].Data)
			if err != nil || h.key == last {
				continue // a damaged one fails at its place
			}
			last = h.key
			person := recs[i].Person
			if p := &c.plans[at]; p.person != nil {
				copy(person[:], vs[i].FieldByIndex(p.person).Bytes())
			}
			wants = append(wants, want{h.key, person})
		}
	}
	var err error
	o.got, err = o.k.find(ctx, &o.visit, wants)
	return err
}

// openRecord opens the wanted fields of one record and empties the others. With an error it returns the
// field's name.
func (c *codec) openRecord(ctx context.Context, o *opening, sc *scratch, rec *Record, fields []SealedField, rv reflect.Value, states []State) (string, error) {
	sc.at = append(sc.at[:0], make([]int, len(c.plans))...)
	guess := 0
	for i := range fields {
		place := c.lookup(fields[i].Name, guess)
		if place < 0 {
			continue
		}
		guess = place + 1 // both are sorted by name
		at := c.sealed[place]
		if !sc.wanted[at] {
			continue
		}
		if sc.at[at] != 0 {
			return fields[i].Name, ErrTampered // twice
		}
		sc.at[at] = i + 1
	}
	sc.plain, sc.texts = sc.plain[:0], sc.texts[:0]
	for _, at := range c.sealed {
		p := &c.plans[at]
		if !sc.wanted[at] || sc.at[at] == 0 {
			s := StateClear
			if !sc.wanted[at] {
				s = StateSealed
			}
			p.setState(rv.FieldByIndex(p.index), s)
			states[at] = s
			continue
		}
		state, err := c.openField(ctx, o, sc, p, rec, rv, &fields[sc.at[at]-1])
		if err != nil {
			return p.Name, err
		}
		states[at] = state
	}
	// All texts of a record are one string, and those of type Text are made together.
	if len(sc.texts) > 0 {
		all := string(sc.plain)
		var own []string
		for i := range sc.texts {
			t := &sc.texts[i]
			f := rv.FieldByIndex(t.plan.index)
			if !t.plan.own || t.from == t.to {
				t.plan.setText(f, all[t.from:t.to])
				continue
			}
			if own == nil {
				own = make([]string, 0, len(sc.texts)-i)
			}
			own = append(own, all[t.from:t.to])
			*f.Addr().Interface().(*Text) = Text{value: &own[len(own)-1]}
		}
	}
	return "", nil
}

// openField opens one field of one record. A text is left in the scratch.
func (c *codec) openField(ctx context.Context, o *opening, sc *scratch, p *fieldPlan, rec *Record, rv reflect.Value, sealed *SealedField) (State, error) {
	from := len(sc.plain)
	if sealed.Clear {
		if !c.moving[p.Name] {
			return 0, ErrTampered
		}
		sc.plain = append(sc.plain, sealed.Data...)
	} else {
		h, err := parseHeader(sealed.Data)
		if err != nil {
			return 0, err
		}
		person := &rec.Person
		if p.person != nil {
			var other [16]byte
			copy(other[:], rv.FieldByIndex(p.person).Bytes())
			person = &other
		}
		key, err := o.key(ctx, h.key, person, p.Retention)
		switch {
		case err == nil:
		case errors.Is(err, ErrErased):
			p.setState(rv.FieldByIndex(p.index), StateErased)
			return StateErased, nil
		case errors.Is(err, ErrBlocked):
			p.setState(rv.FieldByIndex(p.index), StateSealed)
			return StateSealed, nil
		default:
			return 0, err
		}
		body := sealed.Data[headerSize:]
		sc.room(len(body))
		// A failure returns nil: the texts before this one stay in the scratch, which wipes them.
		plain, err := key.field.Open(sc.plain, body[:nonceSize], body[nonceSize:], sc.fieldAD(sealed.Data, &p.place, &rec.ID))
		if err != nil {
			return 0, ErrTampered
		}
		sc.plain = plain
		if h.kind != p.kindByte {
			return 0, errValue // authentic, but sealed when the field had another type
		}
	}
	if p.Kind == KindText {
		sc.texts = append(sc.texts, openText{p, from, len(sc.plain)})
		return StateClear, nil
	}
	err := p.setPlain(rv.FieldByIndex(p.index), sc.plain[from:])
	clear(sc.plain[from:])
	sc.plain = sc.plain[:from]
	return StateClear, err
}

// State returns the state of a field in states that Open returned; StateHidden for an unknown name.
func (c *codec) State(states []State, field string) State {
	if at, ok := c.byName[field]; ok && at < len(states) {
		return states[at]
	}
	return StateHidden
}

// keyOf finds the key with this id and checks that it is the person's.
func (k *Keeper) keyOf(ctx context.Context, v *visit, id keys.ID, person [16]byte, class keys.Retention) (*personKey, error) {
	got, err := k.find(ctx, v, []want{{id, person}})
	if err != nil {
		return nil, err
	}
	key, err := v.tk.judge(v.t.name, got[id], id, person)
	return key, k.missing(ctx, v.t.name, err, person, class)
}

// missing tells, of an id that leads nowhere, a damaged or foreign value from a lost key. A person has one key of each
// class and generation, so where the person has one of the class the id is not the person's: ErrTampered. Where there
// is none the key is lost: ErrKeyMissing.
func (k *Keeper) missing(ctx context.Context, tenant string, err error, person [16]byte, class keys.Retention) error {
	if err != ErrKeyMissing { //nolint:errorlint // judge's own answer; a lost epoch key says more
		return err
	}
	records, ferr := k.keys.Find(ctx, tenant, keys.Query{Persons: [][16]byte{person}})
	switch {
	case ferr != nil:
		return ferr
	case slices.ContainsFunc(records, func(r keys.Record) bool { return r.Retention == class }):
		return ErrTampered
	}
	return err
}

// judge says what a key id that a value names has led to.
func (tk *tenantKeys) judge(tenant string, f found, id keys.ID, person [16]byte) (*personKey, error) {
	switch {
	case f.err != nil:
		return nil, f.err
	case f.key != nil && f.key.person == person:
		return f.key, nil
	case f.key != nil:
		return nil, ErrTampered // another person's key
	case f.erased != nil:
		if !tk.authentic(f.erased) || !hmac.Equal(f.erased.Commitment, tk.tombOwner(tenant, id, person)) {
			return nil, fmt.Errorf("%w: tombstone", ErrTampered)
		}
		return nil, ErrErased
	}
	return nil, ErrKeyMissing
}

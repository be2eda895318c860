package encrypt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Seal encrypts the protected fields of v for the record. prev is what the store holds of the record
// now: nil when it is new, never nil when it exists.
//
// A field that v does not hold in the clear (masked, hidden, sealed, erased) keeps its previous
// ciphertext and tokens, so that writing back what was read never destroys what was not shown; so
// does a field named in keep, for types that do not remember a state. Without prev such a field is
// ErrNotClear. It is an error to give a kept field to another person.
//
// Errors: ErrNotClear, ErrKMSUnavailable, ErrAuth, ErrKeyMissing, ErrTampered.
func (c *Codec[T]) Seal(ctx context.Context, k *Keeper, rec Record, v *T, prev []SealedField, keep ...string) (Sealed, error) {
	if err := c.known(keep); err != nil {
		return Sealed{}, err
	}
	t, err := k.tenant(rec.Tenant)
	if err != nil {
		return Sealed{}, err
	}
	job := sealJob[T]{codec: c, rec: &rec, v: reflect.ValueOf(v).Elem()}
	if err := job.plan(prev, keep); err != nil {
		return Sealed{}, err
	}
	number, err := k.observe(ctx, t, rec.Erasure)
	if err != nil {
		return Sealed{}, err
	}
	if err := k.keysFor(ctx, t, number, job.slots); err != nil {
		return Sealed{}, err
	}
	if err := job.checkKept(ctx, k, t, number); err != nil {
		return Sealed{}, err
	}
	tk, err := k.tenantKeys(ctx, t, true)
	if err != nil {
		return Sealed{}, err
	}
	return job.seal(tk)
}

// SealAll seals new records of one tenant. The keys of all persons who have none yet are made in
// one store call. The error of a record names its place in recs.
func (c *Codec[T]) SealAll(ctx context.Context, k *Keeper, recs []Record, vs []*T) ([]Sealed, error) {
	if len(recs) != len(vs) {
		return nil, errors.New("encrypt: as many records as values, please")
	}
	if len(recs) == 0 {
		return nil, nil
	}
	t, err := k.tenant(recs[0].Tenant)
	if err != nil {
		return nil, err
	}
	jobs := make([]sealJob[T], len(recs))
	var slots []*slot
	var told uint64
	for i := range recs {
		if recs[i].Tenant != t.name {
			return nil, errors.New("encrypt: records of several tenants")
		}
		told = lowest(told, recs[i].Erasure, i == 0)
		jobs[i] = sealJob[T]{codec: c, rec: &recs[i], v: reflect.ValueOf(vs[i]).Elem()}
		if err := jobs[i].plan(nil, nil); err != nil {
			return nil, fmt.Errorf("%w (record %d)", err, i)
		}
		slots = append(slots, jobs[i].slots...)
	}
	number, err := k.observe(ctx, t, told)
	if err != nil {
		return nil, err
	}
	if err := k.keysFor(ctx, t, number, slots); err != nil {
		return nil, err
	}
	tk, err := k.tenantKeys(ctx, t, true)
	if err != nil {
		return nil, err
	}
	out := make([]Sealed, len(recs))
	for i := range jobs {
		if out[i], err = jobs[i].seal(tk); err != nil {
			return nil, fmt.Errorf("%w (record %d)", err, i)
		}
	}
	return out, nil
}

// lowest combines the erasure numbers of a page: 0, not told, wins.
func lowest(a, b uint64, first bool) uint64 {
	if first || b < a {
		return b
	}
	return a
}

// known refuses names that are no sealed fields.
func (c *Codec[T]) known(names []string) error {
	for _, n := range names {
		if i, ok := c.byName[n]; !ok || c.plans[i].Clear {
			return fmt.Errorf("encrypt: type %s has no sealed field %s", c.typ, n)
		}
	}
	return nil
}

// sealJob seals one record.
type sealJob[T any] struct {
	codec *Codec[T]
	rec   *Record
	v     reflect.Value
	slots []*slot
	steps []sealStep
}

// sealStep is what happens to one sealed field.
type sealStep struct {
	plan   *fieldPlan
	person [16]byte
	slot   *slot        // seal anew under this key; nil = keep or absent
	kept   *SealedField // keep this
}

// plan decides for each field whether it is sealed, kept or absent.
func (j *sealJob[T]) plan(prev []SealedField, keep []string) error {
	c := j.codec
	j.steps = make([]sealStep, 0, len(c.sealed))
	for _, at := range c.sealed {
		p := &c.plans[at]
		f := j.v.FieldByIndex(p.index)
		step := sealStep{plan: p, person: j.rec.Person}
		if p.person != nil {
			copy(step.person[:], j.v.FieldByIndex(p.person).Bytes())
		}
		state := StateClear
		if p.text {
			state = State(f.Addr().Interface().(protectedText).ExposedState())
		}
		if state != StateClear || slices.Contains(keep, p.Name) {
			if prev == nil {
				return fieldError(ErrNotClear, p.Name)
			}
			i := slices.IndexFunc(prev, func(s SealedField) bool { return s.Name == p.Name })
			switch {
			case i >= 0:
				step.kept = &prev[i]
			case state == StateMasked || state == StateErased:
				return fieldError(ErrNotClear, p.Name) // there must have been a value
			default:
				continue
			}
		} else {
			if p.empty(f) {
				continue
			}
			if step.person == ([16]byte{}) {
				return fmt.Errorf("encrypt: field %s has a value and no person", p.Name)
			}
			step.slot = j.slot(step.person, p.Retention)
		}
		j.steps = append(j.steps, step)
	}
	return nil
}

func (j *sealJob[T]) slot(person [16]byte, class keys.Retention) *slot {
	for _, s := range j.slots {
		if s.person == person && s.retention == class {
			return s
		}
	}
	s := &slot{person: person, retention: class}
	j.slots = append(j.slots, s)
	return s
}

// checkKept refuses to keep a ciphertext for a person whose key did not seal it: it would never
// open again. An erased one stays as it is.
func (j *sealJob[T]) checkKept(ctx context.Context, k *Keeper, t *tenant, number uint64) error {
	var ids []keys.ID
	for _, s := range j.steps {
		if s.kept != nil {
			h, err := parseHeader(s.kept.Data)
			if err != nil {
				return fieldError(err, s.plan.Name)
			}
			ids = append(ids, h.key)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	got := make(map[keys.ID]found, len(ids))
	if err := k.find(ctx, t, number, ids, got); err != nil {
		return err
	}
	for _, s := range j.steps {
		if s.kept == nil {
			continue
		}
		h, _ := parseHeader(s.kept.Data)
		if _, err := k.keyOf(ctx, t, got, h.key, s.person); err != nil && !errors.Is(err, ErrErased) {
			return fieldError(err, s.plan.Name)
		}
	}
	return nil
}

func (j *sealJob[T]) seal(tk *tenantKeys) (Sealed, error) {
	out := Sealed{Fields: make([]SealedField, 0, len(j.steps))}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	for i := range j.steps {
		s := &j.steps[i]
		if !slices.Contains(out.Persons, s.person) {
			out.Persons = append(out.Persons, s.person)
		}
		if s.kept != nil {
			out.Fields = append(out.Fields, *s.kept)
			continue
		}
		p := s.plan
		plain, _, err := p.appendPlain(sc.plain[:0], j.v.FieldByIndex(p.index))
		sc.plain = plain
		if err != nil {
			return Sealed{}, fieldError(errValue, p.Name)
		}
		data := j.sealField(sc, s)
		field := SealedField{Name: p.Name, Data: data}
		if len(p.indexes) > 0 {
			field.Tokens = p.tokens(tk, j.codec.typ, string(plain))
		}
		out.Fields = append(out.Fields, field)
	}
	slices.SortFunc(out.Persons, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return out, nil
}

// sealField encrypts sc.plain: one allocation, the ciphertext.
func (j *sealJob[T]) sealField(sc *scratch, s *sealStep) []byte {
	p, key := s.plan, s.slot.key
	key.sealed.Add(1)
	data := appendHeader(make([]byte, 0, overhead+len(sc.plain)), p.kindByte, key.id)
	data = data[:headerSize+nonceSize]
	rand.Read(data[headerSize:])
	sc.ad = fieldAD(sc.ad[:0], j.rec, &s.person, j.codec.typ, p.Name, string(p.Class), data[:headerSize])
	return key.field.Seal(data, data[headerSize:headerSize+nonceSize], sc.plain, sc.ad)
}

// empty tells whether a clear field has no value. It does so without encoding it, but for JSON.
func (p *fieldPlan) empty(f reflect.Value) bool {
	switch {
	case p.text:
		return f.Addr().Interface().(protectedText).Expose() == ""
	case p.pointer:
		return f.IsNil()
	}
	switch p.Kind {
	case KindInt, KindBool:
		return false
	case KindText, KindBytes:
		return f.Len() == 0
	case KindTime, KindID:
		return f.IsZero()
	}
	switch f.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer:
		return f.IsNil()
	}
	return false
}

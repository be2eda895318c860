package encrypt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// Seal encrypts the protected fields of v for the record. prev is what the store holds of the record
// now: nil when it is new, never nil when it exists.
//
// A field that v does not hold in the clear (masked, hidden, sealed, erased) keeps its previous
// ciphertext and tokens, so that writing back what was read never destroys what was not shown; so
// does a field named in keep, for types that do not remember a state. Without prev such a field is
// ErrNotClear; so is one field of a compound index when another one is written anew: see [Codec.Beside]. A nil slice or map of texts
// does not say whether it was opened: with a previous value it is ErrNotClear, unless keep names it; a non-nil empty
// one clears the field. Every other type (strings, bytes, JSON, pointers) is written as it is: an empty
// one clears it, so name what you did not open in keep. It is an error to
// give a kept field to another person.
//
// Errors: ErrNotClear, ErrBlocked, ErrKMSUnavailable, ErrAuth, ErrKeyMissing, ErrTampered.
func (c *Codec[P]) Seal(ctx context.Context, k *Keeper, rec Record, v P, prev []SealedField, keep ...string) (Sealed, error) {
	return c.sealOne(ctx, k, rec, reflect.ValueOf(v).Elem(), prev, keep)
}

func (c *codec) sealOne(ctx context.Context, k *Keeper, rec Record, rv reflect.Value, prev []SealedField, keep []string) (Sealed, error) {
	if err := c.known(keep); err != nil {
		return Sealed{}, err
	}
	if !rv.IsValid() {
		return Sealed{}, errNil
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	if err := c.planSeal(sc, &rec, rv, prev, keep); err != nil {
		return Sealed{}, err
	}
	visit, err := k.enter(ctx, rec.Tenant, rec.Erasure, true)
	if err != nil {
		return Sealed{}, err
	}
	if err := c.checkKept(ctx, k, &visit, sc.steps); err != nil {
		return Sealed{}, err
	}
	if err := c.checkCompounds(sc.steps, prev); err != nil {
		return Sealed{}, err
	}
	if err := k.keysFor(ctx, &visit, sc.slots); err != nil {
		return Sealed{}, err
	}
	return c.seal(sc, visit.tk, &rec, rv, sc.steps)
}

// SealAll seals new records of one tenant. The keys of all persons who have none yet are made in
// one store call. The error of a record names its place in recs.
func (c *Codec[P]) SealAll(ctx context.Context, k *Keeper, recs []Record, vs []P) ([]Sealed, error) {
	return c.sealAll(ctx, k, recs, valuesOf(vs))
}

func (c *codec) sealAll(ctx context.Context, k *Keeper, recs []Record, vs []reflect.Value) ([]Sealed, error) {
	if len(recs) != len(vs) {
		return nil, errors.New("encrypt: as many records as values, please")
	}
	if len(recs) == 0 {
		return nil, nil
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	told := recs[0].Erasure
	ends := make([]int, len(recs))
	for i := range recs {
		if !vs[i].IsValid() {
			return nil, fmt.Errorf("%w (record %d)", errNil, i)
		}
		if recs[i].Tenant != recs[0].Tenant {
			return nil, errors.New("encrypt: records of several tenants")
		}
		told = newest(told, recs[i].Erasure)
		if err := c.planSeal(sc, &recs[i], vs[i], nil, nil); err != nil {
			return nil, fmt.Errorf("%w (record %d)", err, i)
		}
		ends[i] = len(sc.steps)
	}
	visit, err := k.enter(ctx, recs[0].Tenant, told, true)
	if err != nil {
		return nil, err
	}
	if err := k.keysFor(ctx, &visit, sc.slots); err != nil {
		return nil, err
	}
	out := make([]Sealed, len(recs))
	from := 0
	for i, to := range ends {
		if out[i], err = c.seal(sc, visit.tk, &recs[i], vs[i], sc.steps[from:to]); err != nil {
			return nil, fmt.Errorf("%w (record %d)", err, i)
		}
		from = to
	}
	return out, nil
}

var errNil = errors.New("encrypt: no record: a nil pointer")

// newest combines the erasure numbers that the records of a page were read with: the highest, or 0 when one
// was not told.
func newest(a, b uint64) uint64 {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// SealTo appends to dst the sealed value of one text field, without its tokens: for those who store fields
// on their own. rec.Person is whose data it is, whatever the tag says. An empty text is absent: dst
// is returned as it is. Its errors are those of Seal, and one for what is no sealed text.
func (c *codec) SealTo(ctx context.Context, k *Keeper, rec *Record, dst []byte, field string, text []byte) ([]byte, error) {
	p, err := c.textField(field)
	if err != nil || len(text) == 0 {
		return dst, err
	}
	if rec.Person == ([16]byte{}) {
		return dst, errNoPerson(p.Name)
	}
	visit, err := k.enter(ctx, rec.Tenant, rec.Erasure, true)
	if err != nil {
		return dst, err
	}
	sc := scratches.Get().(*scratch)
	key := k.cache.last(sc, &visit, &rec.Person)
	if key == nil || key.retention != p.Retention || key.version != visit.tk.newest() {
		slots := []slot{{person: rec.Person, retention: p.Retention}}
		if err := k.keysFor(ctx, &visit, slots); err != nil {
			return dst, err
		}
		key = slots[0].key
		k.cache.keep(sc, &visit, key)
	}
	key.sealed.Add(1)
	dst = grow(dst, overhead+len(text))
	at := len(dst)
	dst = appendHeader(dst, p.kindByte, key.id)
	ad := sc.fieldAD(dst[at:], &p.place, &rec.ID)
	dst = dst[:at+headerSize+nonceSize]
	nonce := dst[at+headerSize:]
	rand.Read(nonce)
	dst = key.field.Seal(dst, nonce, text, ad)
	scratches.Put(sc) // it holds no plaintext
	return dst, nil
}

// OpenTo appends to dst the text of one sealed field, as SealTo and Seal write it. rec.Person is whose
// data it is. Errors: ErrErased, ErrBlocked, ErrTampered, ErrKeyMissing, ErrRetired, ErrKMSUnavailable,
// ErrAuth.
func (c *codec) OpenTo(ctx context.Context, k *Keeper, rec *Record, dst []byte, field string, sealed []byte) ([]byte, error) {
	p, err := c.textField(field)
	if err != nil {
		return dst, err
	}
	h, err := parseHeader(sealed)
	if err != nil || h.kind != p.kindByte {
		return dst, ErrTampered
	}
	visit, err := k.enter(ctx, rec.Tenant, rec.Erasure, false)
	if err != nil {
		return dst, err
	}
	sc := scratches.Get().(*scratch)
	key := k.cache.last(sc, &visit, &rec.Person)
	if key == nil || key.id != h.key {
		if key = k.cache.byID(visit.t, &rec.Person, h.key, visit.now); key == nil {
			if key, err = k.keyOf(ctx, &visit, h.key, rec.Person, p.Retention); err != nil {
				return dst, err
			}
		}
		k.cache.keep(sc, &visit, key)
	}
	ad := sc.fieldAD(sealed, &p.place, &rec.ID)
	out, err := key.field.Open(dst, sealed[headerSize:headerSize+nonceSize], sealed[headerSize+nonceSize:], ad)
	scratches.Put(sc) // it holds no plaintext
	if err != nil {
		return dst, ErrTampered
	}
	return out, nil
}

// grow makes room for n bytes behind dst.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	return append(make([]byte, 0, len(dst)+n), dst...)
}

// textField returns the plan of a sealed field of text or bytes.
func (c *codec) textField(field string) (*fieldPlan, error) {
	if at := c.lookup(field, 0); at >= 0 {
		if p := &c.plans[c.sealed[at]]; p.kindByte == kindText || p.kindByte == kindBytes {
			return p, nil
		}
	}
	return nil, fmt.Errorf("encrypt: type %s has no sealed text %s", c.typ, field)
}

// lookup returns the place of a sealed field in c.sealed, -1 when there is none. guess is the place where it
// probably is.
func (c *codec) lookup(field string, guess int) int {
	if guess < len(c.names) && c.names[guess] == field {
		return guess
	}
	if len(c.names) > 12 {
		if at, ok := slices.BinarySearch(c.names, field); ok {
			return at
		}
		return -1
	}
	for i := range c.names {
		if c.names[i] == field {
			return i
		}
	}
	return -1
}

func errNoPerson(field string) error {
	return fmt.Errorf("encrypt: field %s has a value and no person", field)
}

// known refuses names that are no sealed fields.
func (c *codec) known(names []string) error {
	for _, n := range names {
		if i, ok := c.byName[n]; !ok || c.plans[i].Clear {
			return fmt.Errorf("encrypt: type %s has no sealed field %s", c.typ, n)
		}
	}
	return nil
}

// sealStep is what happens to one sealed field.
type sealStep struct {
	at     int // its plan
	person [16]byte
	slot   int          // seal anew under the key of this slot; -1 = keep
	kept   *SealedField // keep this; with a slot: seal its clear data
	erased bool         // kept, and nobody can open it any more
	text   string       // what it holds, if it is text
	to     int          // where its plaintext ends in the scratch
}

// planSeal decides for each field whether it is sealed, kept or absent.
func (c *codec) planSeal(sc *scratch, rec *Record, rv reflect.Value, prev []SealedField, keep []string) error {
	firstSlot := len(sc.slots)
	for _, at := range c.sealed {
		p := &c.plans[at]
		f := rv.FieldByIndex(p.index)
		step := sealStep{at: at, person: rec.Person, slot: -1}
		if p.person != nil {
			copy(step.person[:], rv.FieldByIndex(p.person).Bytes())
		}
		state := StateClear
		switch {
		case p.text:
			t := p.protected(f)
			if state = State(t.ExposedState()); state == StateClear {
				step.text = t.Expose()
			}
		case p.many:
			state = manyState(f)
			if f.IsNil() && stored(prev, p.Name) && !slices.Contains(keep, p.Name) {
				return fieldError(ErrNotClear, p.Name) // nil does not say whether it was opened; empty clears it
			}
		case p.Kind == KindText:
			step.text = p.textOf(f)
		}
		if state != StateClear || len(keep) > 0 && slices.Contains(keep, p.Name) {
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
			if step.kept.Clear && !c.moving[p.Name] {
				return fieldError(ErrTampered, p.Name)
			}
		} else if step.text == "" && p.empty(f) {
			continue
		}
		if step.kept == nil || step.kept.Clear {
			if step.person == ([16]byte{}) {
				return errNoPerson(p.Name)
			}
			step.slot = addSlot(sc, firstSlot, step.person, p)
		}
		sc.steps = append(sc.steps, step)
	}
	return nil
}

func addSlot(sc *scratch, from int, person [16]byte, p *fieldPlan) int {
	for i := from; i < len(sc.slots); i++ {
		if s := &sc.slots[i]; s.person == person && s.retention == p.Retention {
			return i
		}
	}
	sc.slots = append(sc.slots, slot{person: person, retention: p.Retention})
	return len(sc.slots) - 1
}

// Beside names the fields that v keeps and that must be open for Seal all the same, because a compound index has them together with one
// that v writes anew or takes away. They need not be shown to whoever writes: open them into a copy of v and seal that. The arguments are
// those of Seal; a field that nobody can open any more may be named.
func (c *Codec[P]) Beside(rec Record, v P, prev []SealedField, keep ...string) ([]string, error) {
	if err := c.known(keep); err != nil {
		return nil, err
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	if err := c.planSeal(sc, &rec, reflect.ValueOf(v).Elem(), prev, keep); err != nil {
		return nil, err
	}
	var names []string
	c.torn(sc.steps, prev, func(name string) bool {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return true
	})
	return names, nil
}

// checkCompounds refuses a record of which one field of a compound index is kept and another is not: its
// token can neither be kept nor made. What nobody can open any more does not count.
func (c *codec) checkCompounds(steps []sealStep, prev []SealedField) (err error) {
	c.torn(steps, prev, func(name string) bool {
		err = fieldError(ErrNotClear, name)
		return false
	})
	return err
}

// torn yields the kept fields of compound indexes that have another field which is not kept.
func (c *codec) torn(steps []sealStep, prev []SealedField, yield func(name string) bool) {
	for i := range steps {
		first := &steps[i]
		for j := range c.plans[first.at].indexes {
			for _, at := range c.plans[first.at].indexes[j].of {
				other, name := stepOf(steps, at), ""
				switch {
				case first.slot < 0 && first.erased:
				case first.slot < 0 && (other != nil && other.slot >= 0 || other == nil && stored(prev, c.plans[at].Name)):
					name = c.plans[first.at].Name
				case first.slot >= 0 && other != nil && other.slot < 0 && !other.erased:
					name = c.plans[at].Name
				}
				if name != "" && !yield(name) {
					return
				}
			}
		}
	}
}

// stepOf returns the step of a plan; nil when its field is absent.
func stepOf(steps []sealStep, at int) *sealStep {
	for i := range steps {
		if steps[i].at == at {
			return &steps[i]
		}
	}
	return nil
}

func stored(fields []SealedField, name string) bool {
	return slices.ContainsFunc(fields, func(f SealedField) bool { return f.Name == name })
}

// checkKept refuses to keep a ciphertext for a person whose key did not seal it: it would never
// open again. An erased or blocked one stays as it is.
func (c *codec) checkKept(ctx context.Context, k *Keeper, visit *visit, steps []sealStep) error {
	var wants []want
	for i := range steps {
		if s := &steps[i]; s.slot < 0 {
			h, err := parseHeader(s.kept.Data)
			if err != nil {
				return fieldError(err, c.plans[s.at].Name)
			}
			wants = append(wants, want{h.key, s.person})
		}
	}
	if len(wants) == 0 {
		return nil
	}
	got, err := k.find(ctx, visit, wants)
	if err != nil {
		return err
	}
	for i := range steps {
		s := &steps[i]
		if s.slot >= 0 {
			continue
		}
		h, _ := parseHeader(s.kept.Data)
		_, err := visit.tk.judge(visit.t.name, got[h.key], h.key, s.person)
		err = k.missing(ctx, visit.t.name, err, s.person, c.plans[s.at].Retention)
		s.erased = errors.Is(err, ErrErased)
		if err != nil && !s.erased && !errors.Is(err, ErrBlocked) {
			return fieldError(err, c.plans[s.at].Name)
		}
	}
	return nil
}

// seal encrypts the fields of one record into one buffer.
func (c *codec) seal(sc *scratch, tk *tenantKeys, rec *Record, rv reflect.Value, steps []sealStep) (Sealed, error) {
	sc.plain = sc.plain[:0]
	fresh, size := 0, 0
	for i := range steps {
		s := &steps[i]
		if s.slot < 0 {
			continue
		}
		p := &c.plans[s.at]
		switch {
		case s.kept != nil:
			sc.plain = append(sc.plain, s.kept.Data...)
		case p.Kind == KindText:
			sc.plain = append(sc.plain, s.text...)
		default:
			var err error
			if sc.plain, err = p.appendPlain(sc.plain, rv.FieldByIndex(p.index)); err != nil {
				return Sealed{}, fieldError(err, p.Name)
			}
		}
		s.to = len(sc.plain)
		fresh++
	}
	size = len(sc.plain) + fresh*overhead
	buf := make([]byte, 0, size)
	sc.nonces = slices.Grow(sc.nonces[:0], fresh*nonceSize)[:fresh*nonceSize]
	rand.Read(sc.nonces)
	out := Sealed{Fields: make([]SealedField, 0, len(steps)), Persons: make([][16]byte, 0, 1)}
	sc.tokens = sc.tokens[:0]
	from, n := 0, 0
	out.Fields = out.Fields[:len(steps)]
	for i := range steps {
		s, field := &steps[i], &out.Fields[i]
		if n := len(out.Persons); n == 0 || out.Persons[n-1] != s.person && !slices.Contains(out.Persons, s.person) {
			out.Persons = append(out.Persons, s.person)
		}
		if s.slot < 0 {
			*field = *s.kept
			continue
		}
		p, key := &c.plans[s.at], sc.slots[s.slot].key
		key.sealed.Add(1)
		plain := sc.plain[from:s.to]
		from = s.to
		at := len(buf)
		buf = appendHeader(buf, p.kindByte, key.id)
		buf = append(buf, sc.nonces[n*nonceSize:(n+1)*nonceSize]...)
		n++
		buf = key.field.Seal(buf, buf[at+headerSize:], plain, sc.fieldAD(buf[at:], &p.place, &rec.ID))
		field.Name, field.Data = p.Name, buf[at:len(buf):len(buf)]
		if len(p.indexes) > 0 {
			// The tokens are copied out of the scratch at the end; until then only their places count.
			before := len(sc.tokens)
			var err error
			if s.kept != nil {
				s.text = string(plain)
			}
			sc.tokens, err = p.tokens(sc.tokens, tk, sc, s.text, func(at int) string {
				if other := stepOf(steps, at); other != nil && other.kept != nil {
					if other.slot < 0 {
						return "" // nobody can open it any more
					}
					return string(other.kept.Data) // of an old clear column
				}
				return c.plans[at].textOf(rv.FieldByIndex(c.plans[at].index))
			})
			if err != nil {
				return Sealed{}, fieldError(err, p.Name)
			}
			field.Tokens = sc.tokens[before:]
		}
	}
	if len(sc.tokens) > 0 {
		all := slices.Clone(sc.tokens)
		for i := range out.Fields {
			f := &out.Fields[i]
			switch n := len(f.Tokens); {
			case steps[i].slot < 0:
			case n > 0:
				f.Tokens, all = all[:n:n], all[n:]
			default:
				f.Tokens = nil
			}
		}
	}
	if len(out.Persons) > 1 {
		slices.SortFunc(out.Persons, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	}
	return out, nil
}

// empty tells whether a clear field without a text has no value. It does so without encoding it.
func (p *fieldPlan) empty(f reflect.Value) bool {
	switch {
	case p.text:
		return true // else it had a text
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

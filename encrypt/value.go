package encrypt

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
	"unicode/utf8"
)

var errValue = errors.New("encrypt: value does not fit its field")

// Type returns the record type's name in ciphertexts and tokens.
func (c *codec) Type() string { return c.typ }

// Fields describes the stored fields in struct order. The caller may keep but not change it.
func (c *codec) Fields() []Field { return c.fields }

// ClearValues returns the clear columns of v, in the order of Fields: nil, string, int64, bool or time.Time.
// Zero ids, zero times and nil pointers are nil.
func (c *Codec[P]) ClearValues(v P) ([]any, error) { return c.clearValues(reflect.ValueOf(v).Elem()) }

func (c *codec) clearValues(rv reflect.Value) ([]any, error) {
	if !rv.IsValid() {
		return nil, errNil
	}
	out := make([]any, len(c.clear))
	for i, at := range c.clear {
		p := &c.plans[at]
		f := rv.FieldByIndex(p.index)
		if p.pointer {
			if f.IsNil() {
				continue
			}
			f = f.Elem()
		}
		switch p.Kind {
		case KindText:
			out[i] = f.String()
		case KindInt:
			if f.CanUint() {
				out[i] = int64(f.Uint())
			} else {
				out[i] = f.Int()
			}
		case KindBool:
			out[i] = f.Bool()
		case KindTime:
			if t := f.Interface().(time.Time); !t.IsZero() {
				out[i] = t
			}
		case KindID:
			if f.IsZero() {
				continue
			}
			b, err := f.Interface().(encoding.TextMarshaler).MarshalText()
			if err != nil {
				return nil, fieldError(errValue, p.Name)
			}
			out[i] = string(b)
		default:
			b, err := json.Marshal(f.Addr().Interface())
			if err != nil {
				return nil, fieldError(errValue, p.Name)
			}
			if !bytes.Equal(b, []byte("null")) {
				out[i] = string(b)
			}
		}
	}
	return out, nil
}

// SetClear sets the clear columns of v to what ClearValues returned.
func (c *Codec[P]) SetClear(v P, values []any) error {
	return c.setClear(reflect.ValueOf(v).Elem(), values)
}

func (c *codec) setClear(rv reflect.Value, values []any) error {
	if !rv.IsValid() {
		return errNil
	}
	if len(values) != len(c.clear) {
		return fmt.Errorf("encrypt: %d clear columns for %d values", len(c.clear), len(values))
	}
	for i, at := range c.clear {
		p := &c.plans[at]
		f := rv.FieldByIndex(p.index)
		if values[i] == nil {
			f.SetZero()
			continue
		}
		if err := p.setClear(f, values[i]); err != nil {
			return fieldError(errValue, p.Name)
		}
	}
	return nil
}

func (p *fieldPlan) setClear(f reflect.Value, value any) error {
	if p.pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	switch x := value.(type) {
	case string:
		switch p.Kind {
		case KindText:
			f.SetString(x)
			return nil
		case KindID:
			return f.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(x))
		case KindJSON:
			f.SetZero()
			return json.Unmarshal([]byte(x), f.Addr().Interface())
		}
	case int64:
		if p.Kind == KindInt {
			return setInt(f, x)
		}
	case bool:
		if p.Kind == KindBool {
			f.SetBool(x)
			return nil
		}
	case time.Time:
		if p.Kind == KindTime {
			f.Set(reflect.ValueOf(x))
			return nil
		}
	}
	return errValue
}

func setInt(f reflect.Value, x int64) error {
	if f.CanUint() {
		if x < 0 || f.OverflowUint(uint64(x)) {
			return errValue
		}
		f.SetUint(uint64(x))
		return nil
	}
	if f.OverflowInt(x) {
		return errValue
	}
	f.SetInt(x)
	return nil
}

// Conceal shows less of a field: StateMasked puts the field's mask in the place of its value (nothing,
// when it has no mask), StateHidden puts nothing. A protected text remembers the state; any other
// type is set to its zero value or, for a string, to its masked form.
func (c *Codec[P]) Conceal(v P, field string, s State) error {
	return c.conceal(reflect.ValueOf(v).Elem(), field, s)
}

func (c *codec) conceal(rv reflect.Value, field string, s State) error {
	at, ok := c.byName[field]
	if !ok {
		return fmt.Errorf("encrypt: type %s has no field %s", c.typ, field)
	}
	if s != StateMasked && s != StateHidden {
		return errors.New("encrypt: Conceal makes masked or hidden")
	}
	if !rv.IsValid() {
		return errNil
	}
	p := &c.plans[at]
	f := rv.FieldByIndex(p.index)
	if p.text {
		t := p.protected(f)
		masked := ""
		switch {
		case State(t.ExposedState()) == StateErased:
			return nil // there is nothing left to conceal
		case s == StateMasked && State(t.ExposedState()) == StateClear:
			if t.Expose() == "" {
				return nil // absent
			}
			if p.mask != nil {
				masked = p.mask(t.Expose())
			}
		case s == StateMasked && State(t.ExposedState()) == StateMasked:
			return nil
		}
		t.SetExposed(masked, uint8(s))
		return nil
	}
	if s == StateMasked && p.mask != nil {
		if p.pointer {
			if f.IsNil() {
				return nil
			}
			masked := reflect.New(f.Type().Elem())
			masked.Elem().SetString(p.mask(f.Elem().String()))
			f.Set(masked)
			return nil
		}
		f.SetString(p.mask(f.String()))
		return nil
	}
	f.SetZero()
	return nil
}

// appendPlain appends the plaintext of a field that is not empty. Whether a number or a bool is zero is
// not revealed: those are always present.
func (p *fieldPlan) appendPlain(dst []byte, f reflect.Value) ([]byte, error) {
	if p.pointer {
		f = f.Elem()
	}
	switch p.Kind {
	case KindText:
		if p.text {
			return append(dst, p.protected(f).Expose()...), nil
		}
		return append(dst, f.String()...), nil
	case KindInt:
		if f.CanUint() {
			return binary.BigEndian.AppendUint64(dst, f.Uint()), nil
		}
		return binary.BigEndian.AppendUint64(dst, uint64(f.Int())), nil
	case KindBool:
		if f.Bool() {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case KindTime:
		t := *f.Addr().Interface().(*time.Time)
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.Unix()))
		return binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond())), nil
	case KindID:
		b, err := f.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return dst, errValue
		}
		return append(dst, b...), nil
	case KindBytes:
		return append(dst, f.Bytes()...), nil
	default:
		v := f.Addr().Interface() // so that methods of the pointer are found
		if p.many {
			v = exposeMany(f)
		}
		if !validJSON(reflect.ValueOf(v), 0) {
			return dst, errUTF8
		}
		b, err := json.Marshal(v)
		if err != nil {
			return dst, errValue
		}
		return append(dst, b...), nil
	}
}

// protected returns a field of a protected text type.
func (p *fieldPlan) protected(f reflect.Value) protectedText {
	if p.own {
		return f.Addr().Interface().(*Text)
	}
	return f.Addr().Interface().(protectedText)
}

// textOf returns a field of text in the clear; "" when it holds none.
func (p *fieldPlan) textOf(f reflect.Value) string {
	switch {
	case p.text:
		return p.protected(f).Expose()
	case p.pointer && f.IsNil():
		return ""
	case p.pointer:
		f = f.Elem()
	}
	return f.String()
}

// text returns the text that rv holds in a field.
func (c *codec) text(rv reflect.Value, at int) string {
	return c.plans[at].textOf(rv.FieldByIndex(c.plans[at].index))
}

// setText sets a field of text.
func (p *fieldPlan) setText(f reflect.Value, s string) {
	if p.text {
		p.protected(f).SetExposed(s, uint8(StateClear))
		return
	}
	if p.pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	f.SetString(s)
}

// exposeMany shows a slice or map of protected texts to the JSON encoder.
func exposeMany(f reflect.Value) any {
	expose := func(e reflect.Value) string {
		at := reflect.New(e.Type())
		at.Elem().Set(e)
		return at.Interface().(protectedText).Expose()
	}
	if f.Kind() == reflect.Slice {
		out := make([]string, f.Len())
		for i := range out {
			out[i] = expose(f.Index(i))
		}
		return out
	}
	out := make(map[string]string, f.Len())
	for it := f.MapRange(); it.Next(); {
		out[it.Key().String()] = expose(it.Value())
	}
	return out
}

// manyState is the state of a slice or map of protected texts: clear, unless one of them is not.
func manyState(f reflect.Value) State {
	state := func(e reflect.Value) State {
		at := reflect.New(e.Type())
		at.Elem().Set(e)
		return State(at.Interface().(protectedText).ExposedState())
	}
	if f.Kind() == reflect.Slice {
		for i := range f.Len() {
			if s := state(f.Index(i)); s != StateClear {
				return s
			}
		}
		return StateClear
	}
	for it := f.MapRange(); it.Next(); {
		if s := state(it.Value()); s != StateClear {
			return s
		}
	}
	return StateClear
}

// setMany sets a slice or map of protected texts.
func setMany(f reflect.Value, plain []byte) error {
	set := func(s string) reflect.Value {
		at := reflect.New(f.Type().Elem())
		at.Interface().(protectedText).SetExposed(s, uint8(StateClear))
		return at.Elem()
	}
	if f.Kind() == reflect.Slice {
		var in []string
		if json.Unmarshal(plain, &in) != nil {
			return errValue
		}
		f.Set(reflect.MakeSlice(f.Type(), 0, len(in)))
		for _, s := range in {
			f.Set(reflect.Append(f, set(s)))
		}
		return nil
	}
	var in map[string]string
	if json.Unmarshal(plain, &in) != nil {
		return errValue
	}
	f.Set(reflect.MakeMapWithSize(f.Type(), len(in)))
	for k, s := range in {
		f.SetMapIndex(reflect.ValueOf(k).Convert(f.Type().Key()), set(s))
	}
	return nil
}

// setPlain sets a field that is no text to an opened plaintext. It keeps no reference to plain.
func (p *fieldPlan) setPlain(f reflect.Value, plain []byte) error {
	if p.many {
		return setMany(f, plain)
	}
	if p.pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	switch p.Kind {
	case KindInt:
		if len(plain) != 8 {
			return errValue
		}
		return setInt(f, int64(binary.BigEndian.Uint64(plain)))
	case KindBool:
		if len(plain) != 1 || plain[0] > 1 {
			return errValue
		}
		f.SetBool(plain[0] == 1)
		return nil
	case KindTime:
		if len(plain) != 12 {
			return errValue
		}
		t := time.Unix(int64(binary.BigEndian.Uint64(plain)), int64(binary.BigEndian.Uint32(plain[8:]))).UTC()
		*f.Addr().Interface().(*time.Time) = t
		return nil
	case KindID:
		if f.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(plain) != nil {
			return errValue // its own error may show the value
		}
		return nil
	case KindBytes:
		f.SetBytes(bytes.Clone(plain))
		return nil
	default:
		f.SetZero()
		if json.Unmarshal(plain, f.Addr().Interface()) != nil {
			return errValue
		}
		return nil
	}
}

// errUTF8 refuses what JSON would change without a word.
var errUTF8 = fmt.Errorf("%w: JSON cannot hold it: text that is not UTF-8, or an integer of an interface beyond 2^53", errValue)

// validJSON tells whether JSON keeps the texts and the numbers of v that an interface holds, which are read as float64.
func validJSON(v reflect.Value, depth int) bool {
	if depth > 64 {
		return true // json.Marshal refuses what goes in circles
	}
	if v.IsValid() && v.CanInterface() {
		switch v.Interface().(type) {
		case json.Marshaler, encoding.TextMarshaler, json.Number, json.RawMessage:
			return true // they write themselves
		}
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Interface:
		const most = 1 << 53
		switch e := v.Elem(); {
		case e.CanInt() && (e.Int() > most || e.Int() < -most), e.CanUint() && e.Uint() > most:
			return false
		default:
			return validJSON(e, depth+1)
		}
	case reflect.Pointer:
		return validJSON(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return true
		}
		for i := range v.Len() {
			if !validJSON(v.Index(i), depth+1) {
				return false
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if !validJSON(it.Key(), depth+1) || !validJSON(it.Value(), depth+1) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && !validJSON(v.Field(i), depth+1) {
				return false
			}
		}
	}
	return true
}

// setState empties a field that is not opened.
func (p *fieldPlan) setState(f reflect.Value, s State) {
	if p.text {
		p.protected(f).SetExposed("", uint8(s))
		return
	}
	f.SetZero()
}

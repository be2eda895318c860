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
)

var errValue = errors.New("encrypt: value does not fit its field")

// Type returns the record type's name in ciphertexts and tokens.
func (c *Codec[T]) Type() string { return c.typ }

// Fields describes the stored fields in struct order. The caller may keep but not change it.
func (c *Codec[T]) Fields() []Field { return c.fields }

// ClearValues returns the clear columns of v, in the order of Fields: nil, string, int64, bool or time.Time.
// Zero ids, zero times and nil pointers are nil.
func (c *Codec[T]) ClearValues(v *T) ([]any, error) {
	rv := reflect.ValueOf(v).Elem()
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
			b, err := json.Marshal(f.Interface())
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
func (c *Codec[T]) SetClear(v *T, values []any) error {
	if len(values) != len(c.clear) {
		return fmt.Errorf("encrypt: %d clear columns for %d values", len(c.clear), len(values))
	}
	rv := reflect.ValueOf(v).Elem()
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
func (c *Codec[T]) Conceal(v *T, field string, s State) error {
	at, ok := c.byName[field]
	if !ok {
		return fmt.Errorf("encrypt: type %s has no field %s", c.typ, field)
	}
	if s != StateMasked && s != StateHidden {
		return errors.New("encrypt: Conceal makes masked or hidden")
	}
	p := &c.plans[at]
	f := reflect.ValueOf(v).Elem().FieldByIndex(p.index)
	if p.text {
		t := f.Addr().Interface().(protectedText)
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

// appendPlain appends the plaintext of a sealed field; ok is false when the value is absent. Whether
// a number or a bool is zero is not revealed: those are always present.
func (p *fieldPlan) appendPlain(dst []byte, f reflect.Value) (out []byte, ok bool, err error) {
	if p.pointer {
		if f.IsNil() {
			return dst, false, nil
		}
		f = f.Elem()
	}
	switch p.Kind {
	case KindText:
		if p.text {
			s := f.Addr().Interface().(protectedText).Expose()
			return append(dst, s...), s != "", nil
		}
		s := f.String()
		return append(dst, s...), s != "" || p.pointer, nil
	case KindInt:
		x := uint64(0)
		if f.CanUint() {
			x = f.Uint()
		} else {
			x = uint64(f.Int())
		}
		return binary.BigEndian.AppendUint64(dst, x), true, nil
	case KindBool:
		if f.Bool() {
			return append(dst, 1), true, nil
		}
		return append(dst, 0), true, nil
	case KindTime:
		t := *f.Addr().Interface().(*time.Time)
		if t.IsZero() {
			return dst, false, nil
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.Unix()))
		return binary.BigEndian.AppendUint32(dst, uint32(t.Nanosecond())), true, nil
	case KindID:
		if f.IsZero() {
			return dst, false, nil
		}
		b, err := f.Interface().(encoding.TextMarshaler).MarshalText()
		return append(dst, b...), true, err
	case KindBytes:
		b := f.Bytes()
		return append(dst, b...), len(b) > 0, nil
	default:
		b, err := json.Marshal(f.Interface())
		if err != nil {
			return dst, false, errValue
		}
		return append(dst, b...), !bytes.Equal(b, []byte("null")), nil
	}
}

// setPlain sets a field to an opened plaintext. It keeps no reference to plain.
func (p *fieldPlan) setPlain(f reflect.Value, plain []byte) error {
	if p.text {
		f.Addr().Interface().(protectedText).SetExposed(string(plain), uint8(StateClear))
		return nil
	}
	if p.pointer {
		f.Set(reflect.New(f.Type().Elem()))
		f = f.Elem()
	}
	switch p.Kind {
	case KindText:
		f.SetString(string(plain))
		return nil
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
		return f.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(plain)
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

// setState empties a field that is not opened.
func (p *fieldPlan) setState(f reflect.Value, s State) {
	if p.text {
		f.Addr().Interface().(protectedText).SetExposed("", uint8(s))
		return
	}
	f.SetZero()
}

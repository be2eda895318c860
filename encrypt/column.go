package encrypt

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
)

const sealedVersion = 1

var errSealed = errors.New("encrypt: not sealed fields")

// AppendBinary appends the sealed fields, tokens and persons of one record in the form of
// docs/formats/encrypt.md, for a store that keeps them in one column.
func (s Sealed) AppendBinary(dst []byte) ([]byte, error) {
	dst = append(dst, sealedVersion)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.Fields)))
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.Clear {
			return nil, fmt.Errorf("encrypt: field %s is not sealed", f.Name)
		}
		dst = appendPart(dst, f.Name)
		dst = appendBytesPart(dst, f.Data)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Tokens)))
		for _, t := range f.Tokens {
			dst = binary.BigEndian.AppendUint64(dst, uint64(t.Value))
			if t.Unique {
				dst = append(dst, 1)
			} else {
				dst = append(dst, 0)
			}
		}
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.Persons)))
	for i := range s.Persons {
		dst = append(dst, s.Persons[i][:]...)
	}
	return dst, nil
}

// MarshalBinary is AppendBinary to nothing.
func (s Sealed) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// UnmarshalBinary reads what MarshalBinary wrote, and nothing else.
func (s *Sealed) UnmarshalBinary(b []byte) error {
	r := reader{b: b}
	if r.byte() != sealedVersion {
		return errSealed
	}
	var out Sealed
	for n := r.count(9); n > 0; n-- {
		f := SealedField{Name: string(r.part()), Data: append([]byte(nil), r.part()...)}
		for m := r.count(9); m > 0; m-- {
			t := Token{Value: int64(r.u64())}
			switch r.byte() {
			case 0:
			case 1:
				t.Unique = true
			default:
				r.bad = true
			}
			f.Tokens = append(f.Tokens, t)
		}
		out.Fields = append(out.Fields, f)
	}
	for n := r.count(16); n > 0; n-- {
		out.Persons = append(out.Persons, [16]byte(r.take(16)))
	}
	if r.bad || len(r.b) > 0 {
		return errSealed
	}
	*s = out
	return nil
}

// Value implements driver.Valuer: the fields as one column of bytes.
func (s Sealed) Value() (driver.Value, error) { return s.MarshalBinary() }

// Scan implements sql.Scanner. NULL is a record without sealed fields.
func (s *Sealed) Scan(src any) error {
	switch b := src.(type) {
	case nil:
		*s = Sealed{}
		return nil
	case []byte:
		return s.UnmarshalBinary(b)
	}
	return errSealed
}

// reader takes apart what was written in parts. After a fault everything it returns is empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return make([]byte, min(max(n, 0), 16))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte  { return r.take(1)[0] }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) part() []byte {
	n := r.u32()
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// count reads how many things follow, of at least size bytes each.
func (r *reader) count(size int) int {
	n := r.u32()
	if r.bad || uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

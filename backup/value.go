package backup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// Tags of values: docs/formats/backup.md, Rows.
const (
	tagNull = iota
	tagInt
	tagFloat
	tagText
	tagBytes
	tagFalse
	tagTrue
	tagTime
)

// appendValue writes a value. The error names its Go type, never the value.
func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, tagNull), nil
	case int64:
		return binary.AppendVarint(append(b, tagInt), v), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, tagFloat), math.Float64bits(v)), nil
	case string:
		b = binary.AppendUvarint(append(b, tagText), uint64(len(v)))
		return append(b, v...), nil
	case []byte:
		b = binary.AppendUvarint(append(b, tagBytes), uint64(len(v)))
		return append(b, v...), nil
	case bool:
		if v {
			return append(b, tagTrue), nil
		}
		return append(b, tagFalse), nil
	case time.Time:
		b = binary.AppendVarint(append(b, tagTime), v.Unix())
		return binary.AppendUvarint(b, uint64(v.Nanosecond())), nil
	}
	return nil, fmt.Errorf("backup: values of type %T are not known", v)
}

var errRows = errors.New("backup: malformed rows")

// parseRow reads one row of len(row) values and returns the rest of b. Byte slices point into b.
func parseRow(b []byte, row []any) ([]byte, error) {
	for i := range row {
		if len(b) == 0 {
			return nil, errRows
		}
		tag := b[0]
		b = b[1:]
		switch tag {
		case tagNull:
			row[i] = nil
		case tagInt:
			v, rest, ok := varint(b)
			if !ok {
				return nil, errRows
			}
			row[i], b = v, rest
		case tagFloat:
			if len(b) < 8 {
				return nil, errRows
			}
			row[i], b = math.Float64frombits(binary.BigEndian.Uint64(b)), b[8:]
		case tagText, tagBytes:
			n, rest, ok := uvarint(b)
			if !ok || n > uint64(len(rest)) {
				return nil, errRows
			}
			if tag == tagText {
				row[i] = string(rest[:n])
			} else {
				row[i] = rest[:n:n]
			}
			b = rest[n:]
		case tagFalse:
			row[i] = false
		case tagTrue:
			row[i] = true
		case tagTime:
			sec, rest, ok := varint(b)
			if !ok {
				return nil, errRows
			}
			nsec, rest, ok := uvarint(rest)
			if !ok || nsec >= 1e9 {
				return nil, errRows
			}
			row[i], b = time.Unix(sec, int64(nsec)).UTC(), rest
		default:
			return nil, errRows
		}
	}
	return b, nil
}

// skipValue returns what follows the first value of b.
func skipValue(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	tag := b[0]
	b = b[1:]
	switch tag {
	case tagNull, tagFalse, tagTrue:
		return b, true
	case tagInt:
		_, b, ok = uvarint(b)
		return b, ok
	case tagFloat:
		if len(b) < 8 {
			return nil, false
		}
		return b[8:], true
	case tagText, tagBytes:
		n, rest, ok := uvarint(b)
		if !ok || n > uint64(len(rest)) {
			return nil, false
		}
		return rest[n:], true
	case tagTime:
		if _, b, ok = uvarint(b); ok {
			var nsec uint64
			nsec, b, ok = uvarint(b)
			ok = ok && nsec < 1e9
		}
		return b, ok
	}
	return nil, false
}

// uvarint reads a number in its shortest form.
func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

func varint(b []byte) (int64, []byte, bool) {
	u, rest, ok := uvarint(b)
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v, rest, ok
}

package request

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"

	"github.com/crmguard/crmguard/crm"
)

// Cursor is the place of a row in a list: its value in the sort column and its number. The zero Cursor
// is before the first row.
type Cursor struct {
	Value crm.Value
	Row   int64
}

const cursorVersion = 1

// Encode writes the cursor for the query it came from, as base64url of: version 1, the row as 8 bytes,
// the value's kind, the value (text, or 8 bytes), and a CRC-32C that also covers tenant, type and sort, so
// that a cursor cannot be carried to another list by mistake.
func (c Cursor) Encode(q *crm.Query) string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(c.Row))
	b = append(b, byte(c.Value.Kind()))
	switch c.Value.Kind() {
	case 0:
	case crm.KindString:
		b = append(b, c.Value.Str()...)
	default:
		b = binary.BigEndian.AppendUint64(b, uint64(c.Value.Int()))
	}
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, sum(b, q)))
}

func sum(b []byte, q *crm.Query) uint32 {
	list := append([]byte(nil), b...)
	for _, s := range []string{q.Tenant, q.Type, q.Sort} {
		list = binary.AppendUvarint(list, uint64(len(s)))
		list = append(list, s...)
	}
	if q.Desc {
		list = append(list, 1)
	}
	return crc32.Checksum(list, crc32.MakeTable(crc32.Castagnoli))
}

// parseCursor reads q.After; kind is that of the sort column, 0 for none.
func parseCursor(q *crm.Query, kind crm.Kind) (Cursor, error) {
	garbled := bad("cursor", "not of this list")
	b, err := base64.RawURLEncoding.Strict().DecodeString(q.After)
	if err != nil || len(b) < 14 || b[0] != cursorVersion {
		return Cursor{}, garbled
	}
	b, check := b[:len(b)-4], b[len(b)-4:]
	if binary.BigEndian.Uint32(check) != sum(b, q) {
		return Cursor{}, garbled
	}
	row, rest := binary.BigEndian.Uint64(b[1:9]), b[10:]
	if row == 0 || row > math.MaxInt64 {
		return Cursor{}, garbled
	}
	c := Cursor{Row: int64(row)}
	switch k := crm.Kind(b[9]); {
	case k == 0 && len(rest) == 0:
	case k != kind:
		return Cursor{}, garbled
	case k == crm.KindString && text(string(rest)):
		c.Value = crm.StringValue(string(rest))
	case len(rest) != 8 || k == crm.KindString:
		return Cursor{}, garbled
	default:
		if c.Value = Number(k, int64(binary.BigEndian.Uint64(rest))); c.Value.Kind() != k {
			return Cursor{}, garbled
		}
	}
	if c.Encode(q) != q.After { // base64 skips line breaks, and a boolean has many numbers
		return Cursor{}, garbled
	}
	return c, nil
}

// Number is the inverse of crm.Value.Int.
func Number(k crm.Kind, n int64) crm.Value {
	switch k {
	case crm.KindBool:
		return crm.BoolValue(n != 0)
	case crm.KindTime:
		return crm.TimeValue(time.UnixMicro(n))
	}
	return crm.IntValue(n)
}

package guard

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/crmguard/crmguard/crm"
)

// macLabel separates the MAC of rows from other uses of the tenant's MAC key.
const macLabel = "row"

// digestVersion is the first byte of what a row's digest covers; see docs/formats/row.md.
const digestVersion = 1

// spaces are what digests are written into before they are hashed: one long write is much cheaper than many short ones.
var spaces = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// mostSpace is how much of it is kept.
const mostSpace = 64 << 10

// digest is SHA-256 over everything of a row but its change sequence and its MAC: every part is
// length-prefixed, null columns are left out, so that a column added later changes nothing.
func digest(row *crm.Row, columns []crm.Column) []byte {
	space := spaces.Get().(*[]byte)
	b := append((*space)[:0], digestVersion)
	num := func(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }
	str := func(b []byte, s string) []byte { return append(num(b, uint64(len(s))), s...) }
	b = str(b, row.Tenant)
	b = str(b, row.Type)
	b = append(b, row.ID[:]...)
	b = num(b, uint64(row.Version))
	deleted := byte(0)
	if row.Deleted {
		deleted = 1
	}
	b = append(b, deleted)
	b = num(b, uint64(len(row.Persons)))
	for _, p := range row.Persons {
		b = append(b, p[:]...)
	}
	for i := range row.Clear {
		v := &row.Clear[i]
		if v.Kind() == 0 || i >= len(columns) {
			continue
		}
		b = append(str(b, columns[i].Name), byte(v.Kind()))
		if v.Kind() == crm.KindString {
			b = str(b, v.Str())
		} else {
			b = num(b, uint64(v.Int()))
		}
	}
	b = num(b, uint64(len(row.Sealed)))
	for i := range row.Sealed {
		f := &row.Sealed[i]
		b = str(b, f.Name)
		b = append(num(b, uint64(len(f.Data))), f.Data...)
		b = num(b, uint64(len(f.Tokens)))
		for _, t := range f.Tokens {
			unique := byte(0)
			if t.Unique {
				unique = 1
			}
			b = append(num(b, uint64(t.Value)), unique)
		}
	}
	sum := sha256.Sum256(b)
	if cap(b) <= mostSpace {
		*space = b
		spaces.Put(space)
	}
	return sum[:]
}

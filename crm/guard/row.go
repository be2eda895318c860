package guard

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"

	"github.com/crmguard/crmguard/crm"
)

// macLabel separates the MAC of rows from other uses of the tenant's MAC key.
const macLabel = "row"

// digestVersion is the first byte of what a row's digest covers; see docs/formats/row.md.
const digestVersion = 1

var hashers = sync.Pool{New: func() any { return sha256.New() }}

// digest is SHA-256 over everything of a row but its change sequence and its MAC: every part is
// length-prefixed, null columns are left out, so that a column added later changes nothing.
func digest(row *crm.Row, columns []crm.Column) []byte {
	h := hashers.Get().(hash.Hash)
	h.Reset()
	var buf [8]byte
	num := func(n uint64) {
		binary.BigEndian.PutUint64(buf[:], n)
		h.Write(buf[:])
	}
	str := func(s string) {
		num(uint64(len(s)))
		h.Write([]byte(s))
	}
	h.Write([]byte{digestVersion})
	str(row.Tenant)
	str(row.Type)
	h.Write(row.ID[:])
	num(uint64(row.Version))
	deleted := byte(0)
	if row.Deleted {
		deleted = 1
	}
	h.Write([]byte{deleted})
	num(uint64(len(row.Persons)))
	for _, p := range row.Persons {
		h.Write(p[:])
	}
	for i, v := range row.Clear {
		if v.Kind() == 0 || i >= len(columns) {
			continue
		}
		str(columns[i].Name)
		h.Write([]byte{byte(v.Kind())})
		if v.Kind() == crm.KindString {
			str(v.Str())
		} else {
			num(uint64(v.Int()))
		}
	}
	num(uint64(len(row.Sealed)))
	for _, f := range row.Sealed {
		str(f.Name)
		num(uint64(len(f.Data)))
		h.Write(f.Data)
		num(uint64(len(f.Tokens)))
		for _, t := range f.Tokens {
			num(uint64(t.Value))
			unique := byte(0)
			if t.Unique {
				unique = 1
			}
			h.Write([]byte{unique})
		}
	}
	sum := h.Sum(nil)
	hashers.Put(h)
	return sum
}

package keys

import (
	"encoding/binary"
	"errors"
	"time"
)

// The versions of the exported form. The first one has no blocked time.
const (
	recordVersion1 = 1
	recordVersion2 = 2
)

// MarshalBinary writes the record in the form of backups, always in its newest version: see
// docs/formats/encrypt.md.
func (r *Record) MarshalBinary() ([]byte, error) {
	b := []byte{recordVersion2}
	b = appendText(b, r.Tenant)
	b = appendPart(b, r.ID[:])
	b = appendText(b, string(r.Kind))
	b = binary.BigEndian.AppendUint32(b, r.Version)
	b = appendText(b, r.Purpose)
	b = appendPart(b, r.Person[:])
	b = appendText(b, string(r.Retention))
	b = appendPart(b, r.Epoch[:])
	b = appendPart(b, r.Wrapped)
	b = appendPart(b, r.Commitment)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created.Unix()))
	b = binary.BigEndian.AppendUint64(b, r.Number)
	var blocked uint64
	if !r.Blocked.IsZero() {
		blocked = uint64(r.Blocked.Unix())
	}
	return binary.BigEndian.AppendUint64(b, blocked), nil
}

// ErrRecord says that bytes are not a key record in the form of backups.
var ErrRecord = errors.New("encrypt: not a key record")

// UnmarshalBinary reads what MarshalBinary wrote, in either version, and nothing else: no two texts of
// one version give one record. The error is [ErrRecord]; r is then as it was.
func (r *Record) UnmarshalBinary(b []byte) error {
	tail := 0
	switch {
	case len(b) > 0 && b[0] == recordVersion1:
		tail = 16
	case len(b) > 0 && b[0] == recordVersion2:
		tail = 24
	default:
		return ErrRecord
	}
	b = b[1:]
	ok := true
	part := func(most int) []byte {
		if len(b) < 4 {
			ok = false
			return nil
		}
		n := int(binary.BigEndian.Uint32(b))
		if n > most || n > len(b)-4 {
			ok = false
			return nil
		}
		p := b[4 : 4+n]
		b = b[4+n:]
		return p
	}
	fixed := func(dst []byte) {
		if p := part(len(dst)); len(p) == len(dst) {
			copy(dst, p)
		} else {
			ok = false
		}
	}
	var out Record
	out.Tenant = string(part(128))
	fixed(out.ID[:])
	out.Kind = Kind(part(16))
	if len(b) < 4 {
		return ErrRecord
	}
	out.Version, b = binary.BigEndian.Uint32(b), b[4:]
	out.Purpose = string(part(256))
	fixed(out.Person[:])
	out.Retention = Retention(part(16))
	fixed(out.Epoch[:])
	out.Wrapped = append([]byte(nil), part(1<<16)...)
	out.Commitment = append([]byte(nil), part(64)...)
	if !ok || len(b) != tail {
		return ErrRecord
	}
	out.Created = time.Unix(int64(binary.BigEndian.Uint64(b)), 0).UTC()
	out.Number = binary.BigEndian.Uint64(b[8:])
	if tail == 24 {
		blocked := int64(binary.BigEndian.Uint64(b[16:]))
		if blocked < 0 {
			return ErrRecord
		}
		if blocked > 0 {
			out.Blocked = time.Unix(blocked, 0).UTC()
		}
	}
	switch out.Kind {
	case EpochKey, TenantKey, PersonKey, Tombstone, Join:
	default:
		return ErrRecord
	}
	*r = out
	return nil
}

func appendText(dst []byte, part string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}

func appendPart(dst, part []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}

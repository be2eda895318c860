package totp

import "encoding/binary"

const (
	recordVersion = 1
	maxAccount    = 1024
)

// record is what an account has.
type record struct {
	active, pending *enrolled
}

// enrolled is a key with the step of its last code and the second in which it was made.
type enrolled struct {
	key        Key
	last, made int64
}

const (
	hasActive  = 1
	hasPending = 2
)

func (r record) marshal() []byte {
	b := []byte{0}
	if r.active != nil {
		b[0] |= hasActive
		b = r.active.append(b)
	}
	if r.pending != nil {
		b[0] |= hasPending
		b = r.pending.append(b)
	}
	return b
}

func (e *enrolled) append(b []byte) []byte {
	b = append(b, byte(e.key.hash), byte(e.key.digits))
	b = binary.BigEndian.AppendUint64(b, uint64(e.last))
	b = binary.BigEndian.AppendUint64(b, uint64(e.made))
	b = append(b, byte(len(e.key.secret)))
	return append(b, e.key.secret...)
}

func unmarshal(b []byte) (r record, err error) {
	if len(b) < 1 || b[0] > hasActive|hasPending {
		return record{}, ErrRecord
	}
	flags, rest := b[0], b[1:]
	for _, part := range []struct {
		flag byte
		to   **enrolled
	}{{hasActive, &r.active}, {hasPending, &r.pending}} {
		if flags&part.flag == 0 {
			continue
		}
		const head = 1 + 1 + 8 + 8 + 1
		if len(rest) < head || len(rest) < head+int(rest[head-1]) {
			return record{}, ErrRecord
		}
		e := &enrolled{last: int64(binary.BigEndian.Uint64(rest[2:])), made: int64(binary.BigEndian.Uint64(rest[10:]))}
		n := head + int(rest[head-1])
		if e.key, err = ImportKey(rest[head:n], Hash(rest[0]), int(rest[1])); err != nil || e.last < 0 || e.made < 0 {
			return record{}, ErrRecord
		}
		*part.to, rest = e, rest[n:]
	}
	if len(rest) != 0 {
		return record{}, ErrRecord
	}
	return r, nil
}

// associated binds a record to its account.
func associated(account string) []byte {
	b := append([]byte("crmguard authn totp v1"), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(account)))
	return append(b, account...)
}

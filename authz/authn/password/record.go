package password

import "encoding/binary"

const (
	recordVersion = 1
	argon2id13    = 1 // Argon2id, version 0x13
	saltSize      = 16
	hashSize      = 32
	plainSize     = 1 + 4 + 4 + 1 + saltSize + hashSize
)

// hashed is what a record seals.
type hashed struct {
	params Params
	salt   [saltSize]byte
	sum    [hashSize]byte
}

func (r hashed) marshal() []byte {
	b := make([]byte, 0, plainSize)
	b = append(b, argon2id13)
	b = binary.BigEndian.AppendUint32(b, r.params.Memory)
	b = binary.BigEndian.AppendUint32(b, r.params.Time)
	b = append(b, r.params.Threads)
	b = append(b, r.salt[:]...)
	return append(b, r.sum[:]...)
}

func unmarshal(b []byte) (r hashed, err error) {
	if len(b) != plainSize || b[0] != argon2id13 {
		return hashed{}, ErrRecord
	}
	r.params = Params{Memory: binary.BigEndian.Uint32(b[1:]), Time: binary.BigEndian.Uint32(b[5:]), Threads: b[9]}
	copy(r.salt[:], b[10:])
	copy(r.sum[:], b[10+saltSize:])
	if !r.params.valid() {
		return hashed{}, ErrRecord
	}
	return r, nil
}

// associated binds a record to its account.
func associated(account string) []byte {
	b := append([]byte("crmguard authn password v1"), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(account)))
	return append(b, account...)
}

package encrypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// The layout of every sealed value, version 1; see docs/formats/encrypt.md.
const (
	formatVersion = 1
	headerSize    = 1 + 1 + 8 // version, kind, key id
	nonceSize     = 12
	tagSize       = 16
	overhead      = headerSize + nonceSize + tagSize // 38
)

// Kind bytes of the header.
const (
	kindText   = 1
	kindInt    = 2
	kindBool   = 3
	kindTime   = 4
	kindID     = 5
	kindBytes  = 6
	kindJSON   = 7
	kindDetail = 16 // SealFor
	kindSecret = 17 // SealTenant
	kindStream = 18 // SealStream
)

// Labels that separate the uses of a key.
const (
	labelField     = "crmguard/field"
	labelDetail    = "crmguard/detail"
	labelStream    = "crmguard/stream"
	labelSecret    = "crmguard/secret"
	labelEpoch     = "crmguard/epoch"
	labelKey       = "crmguard/key"
	labelCommit    = "crmguard/commit"
	labelSubkey    = "crmguard/subkey"
	labelIndex     = "crmguard/index"
	labelMAC       = "crmguard/mac"
	labelTomb      = "crmguard/tombstone"
	labelTombOwner = "crmguard/tombstone-person"
	labelJoin      = "crmguard/join"
)

// header is the clear beginning of a sealed value. All of it is authenticated.
type header struct {
	kind byte
	key  keys.ID
}

// parseHeader reads the header of a sealed value. Whatever is not version 1 is not authentic: an
// attacker must not learn more, and no other version exists.
func parseHeader(data []byte) (header, error) {
	if len(data) < overhead || data[0] != formatVersion {
		return header{}, ErrTampered
	}
	h := header{kind: data[1]}
	copy(h.key[:], data[2:headerSize])
	return h, nil
}

func appendHeader(dst []byte, kind byte, key keys.ID) []byte {
	dst = append(dst, formatVersion, kind)
	return append(dst, key[:]...)
}

// appendPart appends a length-prefixed part of associated data, HKDF info or MAC input.
func appendPart(dst []byte, part string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}

func appendBytesPart(dst, part []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
	return append(dst, part...)
}

// scratch holds buffers of one sealing or opening, wiped before it is reused.
type scratch struct {
	plain, term, nonces []byte
	ad                  [adSize]byte

	// The key that was used last, and the erasure number that vouches for it.
	key    *personKey
	of     *tenant
	number uint64
	block  [16]byte
	steps  []sealStep
	slots  []slot
	tokens []Token
	wanted []bool
	at     []int // by plan: the place of its sealed value among the record's, and one
	texts  []openText
}

// openText is a text that was opened into plain and is not set yet.
type openText struct {
	plan     *fieldPlan
	from, to int
}

var scratches = sync.Pool{New: func() any {
	return &scratch{plain: make([]byte, 0, 512), term: make([]byte, 0, 128), nonces: make([]byte, 0, 256)}
}}

func (s *scratch) free() {
	clear(s.plain[:cap(s.plain)])
	clear(s.term[:cap(s.term)])
	if cap(s.plain) > 1<<16 {
		s.plain = nil
	}
	if cap(s.term) > 1<<16 {
		s.term = nil
	}
	s.plain, s.term = s.plain[:0], s.term[:0]
	clear(s.steps)
	clear(s.slots)
	clear(s.texts)
	s.steps, s.slots, s.tokens, s.texts = s.steps[:0], s.slots[:0], s.tokens[:0], s.texts[:0]
	s.block = [16]byte{}
	scratches.Put(s)
}

// room makes room for n bytes behind plain, and leaves none of it behind when it has to move.
func (s *scratch) room(n int) {
	if cap(s.plain)-len(s.plain) < n {
		more := append(make([]byte, 0, 2*cap(s.plain)+n), s.plain...)
		clear(s.plain)
		s.plain = more
	}
}

// contextSize is how much of the digest of a field's place is authenticated with each value: with
// header and record id it makes three blocks of the cipher.
const (
	contextSize = 22
	adSize      = headerSize + contextSize + 16
)

// fieldContext is the fixed part of a field's associated data. Tenant and person are bound by the
// subkey.
func fieldContext(typ, field, class string) (out [contextSize]byte) {
	var b []byte
	for _, p := range []string{labelField, typ, field, class} {
		b = appendPart(b, p)
	}
	sum := sha256.Sum256(b)
	copy(out[:], sum[:])
	return out
}

// fieldAD returns the associated data of a field value, which is good until the next call.
func (s *scratch) fieldAD(head []byte, place *[contextSize]byte, record *[16]byte) []byte {
	*(*[headerSize]byte)(s.ad[:]) = [headerSize]byte(head)
	*(*[contextSize]byte)(s.ad[headerSize:]) = *place
	*(*[16]byte)(s.ad[headerSize+contextSize:]) = *record
	return s.ad[:]
}

// newGCM makes AES-256-GCM of a subkey.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// expand derives 32 bytes of a uniformly random 32-byte key: HKDF-Expand of RFC 5869 with SHA-256. So many bytes
// are one block of it, HMAC(key, info ‖ 1); written out, a person's key is opened without a dozen allocations.
func expand(key []byte, parts ...string) []byte {
	if len(key) != 32 {
		panic("encrypt: a key has 32 bytes")
	}
	var inner [256]byte // of the longest info but few
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range sha256.BlockSize {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	text := inner[:sha256.BlockSize]
	for _, p := range parts {
		text = appendPart(text, p)
	}
	text = append(text, 1)
	sum := sha256.Sum256(text)
	copy(outer[sha256.BlockSize:], sum[:])
	sum = sha256.Sum256(outer[:])
	clear(inner[:])
	clear(text)
	clear(outer[:])
	return sum[:]
}

// commitment binds a key record to its key: no second key gives the same 32 bytes.
func commitment(key []byte, tenant string, id keys.ID) []byte {
	return expand(key, labelCommit, tenant, string(id[:]))
}

// macOf is HMAC-SHA-256 over length-prefixed parts.
func macOf(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	buf := make([]byte, 0, 128)
	for _, p := range parts {
		buf = appendPart(buf, p)
	}
	h.Write(buf)
	return h.Sum(buf[:0])
}

func randomID() (id keys.ID) {
	rand.Read(id[:])
	return id
}

// randomIDs makes the ids of keys that are made together, in their order. They share their first half, so that an index of a store has them in
// one place: with ids that lie anywhere a thousand new keys write a thousand pages. Each by itself is as random as one of randomID.
func randomIDs(n int) []keys.ID {
	ids := make([]keys.ID, n)
	first := randomID()
	for i := range ids {
		ids[i] = randomID()
		copy(ids[i][:4], first[:4])
	}
	slices.SortFunc(ids, func(a, b keys.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// indexKey makes tokens of one index: AES-256-CMAC (NIST SP 800-38B, RFC 4493), cut to 64 bits.
type indexKey struct {
	block  cipher.Block
	k1, k2 [16]byte
	bits   uint8
	tag    int64 // of an index with fewer bits: what all its tokens begin with
}

func newIndexKey(key []byte, bits uint8) *indexKey {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("encrypt: AES refused 32 bytes")
	}
	x := &indexKey{block: block, bits: bits}
	block.Encrypt(x.k1[:], x.k1[:])
	double(&x.k1)
	x.k2 = x.k1
	double(&x.k2)
	if bits > 0 && bits < 64 {
		sc := scratches.Get().(*scratch)
		defer sc.free()
		x.tag = int64(x.mac(sc, nil)) << bits // no term is empty, so this input is free
	}
	return x
}

// double multiplies by x in GF(2^128), as CMAC makes its subkeys.
func double(b *[16]byte) {
	carry := b[0] >> 7
	for i := range 15 {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[15] = b[15]<<1 ^ carry*0x87
}

// mac returns the first 64 bits of CMAC(msg).
func (x *indexKey) mac(sc *scratch, msg []byte) uint64 {
	b := &sc.block
	*b = [16]byte{}
	for len(msg) > 16 {
		for i := range 16 {
			b[i] ^= msg[i]
		}
		x.block.Encrypt(b[:], b[:])
		msg = msg[16:]
	}
	last := &x.k1
	if len(msg) < 16 {
		last = &x.k2
		b[len(msg)] ^= 0x80
	}
	for i := range msg {
		b[i] ^= msg[i]
	}
	for i := range 16 {
		b[i] ^= last[i]
	}
	x.block.Encrypt(b[:], b[:])
	return binary.BigEndian.Uint64(b[:])
}

// token returns the token of a term.
func (x *indexKey) token(sc *scratch, term string) int64 {
	sc.term = append(sc.term[:0], term...)
	t := x.mac(sc, sc.term)
	if x.bits == 0 || x.bits >= 64 {
		return int64(t)
	}
	return x.tag | int64(t>>(64-x.bits))
}

package encrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
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
)

// Labels that separate the uses of a key.
const (
	labelField     = "crmguard/field"
	labelDetail    = "crmguard/detail"
	labelSecret    = "crmguard/secret"
	labelEpoch     = "crmguard/epoch"
	labelKey       = "crmguard/key"
	labelCommit    = "crmguard/commit"
	labelSubkey    = "crmguard/subkey"
	labelIndex     = "crmguard/index"
	labelMAC       = "crmguard/mac"
	labelTomb      = "crmguard/tombstone"
	labelTombOwner = "crmguard/tombstone-person"
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
	ad, plain []byte
}

var scratches = sync.Pool{New: func() any { return &scratch{ad: make([]byte, 0, 256), plain: make([]byte, 0, 256)} }}

func (s *scratch) free() {
	clear(s.plain[:cap(s.plain)])
	if cap(s.plain) > 1<<16 {
		s.plain = nil
	}
	s.ad, s.plain = s.ad[:0], s.plain[:0]
	scratches.Put(s)
}

// fieldAD appends the associated data of a field value.
func fieldAD(dst []byte, rec *Record, person *[16]byte, typ, field, class string, head []byte) []byte {
	dst = appendPart(dst, labelField)
	dst = appendPart(dst, rec.Tenant)
	dst = appendBytesPart(dst, person[:])
	dst = appendPart(dst, typ)
	dst = appendBytesPart(dst, rec.ID[:])
	dst = appendPart(dst, field)
	dst = appendPart(dst, class)
	return appendBytesPart(dst, head)
}

// newGCM makes AES-256-GCM of a subkey.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// expand derives 32 bytes of a uniformly random 32-byte key: HKDF-Expand of RFC 5869 with SHA-256.
func expand(key []byte, parts ...string) []byte {
	var info []byte
	for _, p := range parts {
		info = appendPart(info, p)
	}
	out, err := hkdf.Expand(sha256.New, key, string(info), 32)
	if err != nil {
		panic("encrypt: HKDF refused 32 bytes") // its only error is a length above 8160
	}
	return out
}

// commitment binds a key record to its key: no second key gives the same 32 bytes.
func commitment(key []byte, tenant string, id keys.ID) []byte {
	return expand(key, labelCommit, tenant, string(id[:]))
}

// macOf is HMAC-SHA-256 over length-prefixed parts.
func macOf(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	var buf []byte
	for _, p := range parts {
		buf = appendPart(buf[:0], p)
		h.Write(buf)
	}
	return h.Sum(nil)
}

func randomID() (id keys.ID) {
	rand.Read(id[:])
	return id
}

// indexKey makes tokens of one index. HMAC states are reused: a token costs no allocation.
type indexKey struct {
	states sync.Pool // *indexState
}

type indexState struct {
	mac hash.Hash
	buf []byte
}

func newIndexKey(key []byte) *indexKey {
	k := &indexKey{}
	k.states.New = func() any { return &indexState{mac: hmac.New(sha256.New, key)} }
	return k
}

func (k *indexKey) token(term string) int64 {
	s := k.states.Get().(*indexState)
	s.mac.Reset()
	s.buf = append(s.buf[:0], term...)
	s.mac.Write(s.buf)
	clear(s.buf)
	s.buf = s.mac.Sum(s.buf[:0])
	t := int64(binary.BigEndian.Uint64(s.buf))
	k.states.Put(s)
	return t
}

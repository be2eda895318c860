package intake

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

const (
	week  = 7 * 24 * time.Hour
	grace = 24 * time.Hour
	// skew is how much earlier than its making a key is valid, for clocks that go behind.
	skew = 10 * time.Minute

	publicVersion = 1
	sealedVersion = 1
	keySize       = 1216 // of an MLKEM768-X25519 public key
	seedSize      = 32
	encSize       = 1120
	tagSize       = 16
	maxTenant     = 200

	// Overhead is how many bytes longer a sealed text is.
	Overhead = headSize + encSize + tagSize
	// MaxPlaintext bounds one text, in bytes: 16 MiB. Attachments go through a stream whose key is sealed here.
	MaxPlaintext = 16 << 20

	headSize = 1 + 16 + 8
)

// ID names a key: the first 16 bytes of the SHA-256 of its public form.
type ID [16]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Public is the half of a key that seals. The zero value is not valid.
type Public struct {
	tenant              string
	notBefore, notAfter int64 // seconds since 1970
	key                 hpke.PublicKey
	raw                 []byte
	id                  ID
}

// newPublic describes key for tenant.
func newPublic(tenant string, notBefore, notAfter int64, key hpke.PublicKey) (*Public, error) {
	if tenant == "" || len(tenant) > maxTenant {
		return nil, fmt.Errorf("intake: a tenant has 1 to %d bytes", maxTenant)
	}
	raw := []byte{publicVersion, byte(len(tenant))}
	raw = append(raw, tenant...)
	raw = binary.BigEndian.AppendUint64(raw, uint64(notBefore))
	raw = binary.BigEndian.AppendUint64(raw, uint64(notAfter))
	raw = append(raw, key.Bytes()...)
	return ParsePublic(raw)
}

var errPublic = errors.New("intake: not a public key of this format")

// ParsePublic reads what Marshal returned; nothing else passes.
func ParsePublic(b []byte) (*Public, error) {
	if len(b) < 2 || b[0] != publicVersion || b[1] == 0 || b[1] > maxTenant || len(b) != 2+int(b[1])+16+keySize {
		return nil, errPublic
	}
	n := 2 + int(b[1])
	p := &Public{tenant: string(b[2:n]), raw: bytes.Clone(b)}
	before, after := binary.BigEndian.Uint64(b[n:]), binary.BigEndian.Uint64(b[n+8:])
	if after >= 1<<40 || before >= after || after-before > uint64((week+skew)/time.Second) {
		return nil, errPublic
	}
	p.notBefore, p.notAfter = int64(before), int64(after)
	key, err := hpke.MLKEM768X25519().NewPublicKey(b[n+16:])
	if err != nil || !bytes.Equal(key.Bytes(), b[n+16:]) {
		return nil, errPublic
	}
	p.key = key
	sum := sha256.Sum256(b)
	copy(p.id[:], sum[:])
	return p, nil
}

// Marshal returns the key in its binary form, docs/formats/intake.md.
func (p *Public) Marshal() []byte { return bytes.Clone(p.raw) }

// ID returns the fingerprint of the whole key: its dates and tenant too.
func (p *Public) ID() ID { return p.id }

// Tenant returns whose key it is.
func (p *Public) Tenant() string { return p.tenant }

// NotBefore returns from when on the key seals.
func (p *Public) NotBefore() time.Time { return time.Unix(p.notBefore, 0).UTC() }

// NotAfter returns until when the key seals, at most one week after NotBefore; fetch the next one a day before.
func (p *Public) NotAfter() time.Time { return time.Unix(p.notAfter, 0).UTC() }

// Seal encrypts plaintext so that only the tenant's Box opens it, with the same ad: what the entry is
// ("form/contact/3"), authenticated and not sent. now is the present time. Errors: keys.ErrRetired when
// the key is no longer valid; a key not yet valid, a text over MaxPlaintext.
func (p *Public) Seal(now time.Time, ad, plaintext []byte) ([]byte, error) {
	switch at := now.Unix(); {
	case at > p.notAfter:
		return nil, fmt.Errorf("intake: the public key has ended: %w", keys.ErrRetired)
	case at < p.notBefore:
		return nil, errors.New("intake: the public key is not yet valid")
	case len(plaintext) > MaxPlaintext:
		return nil, errors.New("intake: the text is longer than 16 MiB")
	}
	out := make([]byte, 0, Overhead+len(plaintext))
	out = append(out, sealedVersion)
	out = append(out, p.id[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(p.notAfter))
	enc, sender, err := hpke.NewSender(p.key, hpke.HKDFSHA256(), hpke.AES256GCM(), p.info(out))
	if err != nil || len(enc) != encSize {
		return nil, errors.New("intake: cannot seal")
	}
	sealed, err := sender.Seal(ad, plaintext)
	if err != nil {
		return nil, errors.New("intake: cannot seal")
	}
	return append(append(out, enc...), sealed...), nil
}

const infoLabel = "crmguard intake v1"

// info binds the head of a sealed text and the tenant.
func (p *Public) info(head []byte) []byte {
	info := append([]byte(infoLabel), head...)
	return append(info, p.tenant...)
}

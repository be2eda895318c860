package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // HMAC-SHA-1 of RFC 6238
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Hash is the hash function of a key.
type Hash uint8

// The hash functions. Many apps know SHA1 only, and some take another for SHA1 without a word.
const (
	SHA1 Hash = iota + 1
	SHA256
	SHA512
)

// String returns the name that a URI has for it.
func (h Hash) String() string {
	switch h {
	case SHA1:
		return "SHA1"
	case SHA256:
		return "SHA256"
	case SHA512:
		return "SHA512"
	}
	return "invalid"
}

func (h Hash) new() func() hash.Hash {
	switch h {
	case SHA256:
		return sha256.New
	case SHA512:
		return sha512.New
	}
	return sha1.New
}

// Period is the length of a step.
const Period = 30 * time.Second

const (
	secretSize = 20 // bytes of new secrets
	minSecret  = 16
	maxSecret  = 64
)

// Key is a secret that an app and this program share. It prints as ***.
type Key struct {
	secret []byte
	hash   Hash
	digits int
}

// NewKey returns a key with a random secret of 160 bits. digits is 6 or 8.
func NewKey(h Hash, digits int) (Key, error) {
	secret := make([]byte, secretSize)
	if _, err := rand.Read(secret); err != nil {
		return Key{}, err
	}
	return ImportKey(secret, h, digits)
}

// ImportKey returns a key with a secret of 16 to 64 bytes, such as one that another system enrolled.
func ImportKey(secret []byte, h Hash, digits int) (Key, error) {
	if len(secret) < minSecret || len(secret) > maxSecret || h < SHA1 || h > SHA512 || digits != 6 && digits != 8 {
		return Key{}, errors.New("totp: a key has 16 to 64 bytes, one of three hashes, and 6 or 8 digits")
	}
	return Key{append([]byte(nil), secret...), h, digits}, nil
}

// Code returns the code of the step that t is in; "" before 1970 and for the zero Key.
func (k Key) Code(t time.Time) string {
	if t.Unix() < 0 || k.secret == nil {
		return ""
	}
	return k.code(stepOf(t))
}

func stepOf(t time.Time) int64 { return t.Unix() / int64(Period/time.Second) }

// code is HOTP of RFC 4226, section 5.3, with the step as its counter.
func (k Key) code(step int64) string {
	mac := hmac.New(k.hash.new(), k.secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	if k.digits == 8 {
		return fmt.Sprintf("%08d", n%100_000_000)
	}
	return fmt.Sprintf("%06d", n%1_000_000)
}

// URI returns the otpauth URI for a QR code. It holds the secret: show it once, to the person, and never log it. issuer
// and account are what the app shows; a colon in them is taken out, for it parts the two.
func (k Key) URI(issuer, account string) string {
	plain := func(s string) string { return strings.ReplaceAll(s, ":", "") }
	q := url.Values{
		"secret": {k.Base32()}, "issuer": {plain(issuer)}, "algorithm": {k.hash.String()},
		"digits": {strconv.Itoa(k.digits)}, "period": {strconv.Itoa(int(Period / time.Second))},
	}
	// Apps read %20 and take + for a plus.
	return "otpauth://totp/" + url.PathEscape(plain(issuer)) + ":" + url.PathEscape(plain(account)) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// Base32 returns the secret as it is typed by hand where there is no camera.
func (k Key) Base32() string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(k.secret)
}

// Format prints ***, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "***") }

// MarshalText writes ***, so that no encoder writes the secret.
func (k Key) MarshalText() ([]byte, error) { return []byte("***"), nil }

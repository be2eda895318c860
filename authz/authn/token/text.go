package token

import (
	"crypto/rand"
	"hash/crc32"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
)

// Pattern is the regular expression (RE2) of a token's text, for secret scanners. [Checksum] tells a find from a
// coincidence.
const Pattern = `crmg_[0-9a-hjkmnp-tv-z]{10}_[0-9A-Za-z]{49}`

const (
	mark         = "crmg_"
	idAlphabet   = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's
	idSize       = 10
	secretSize   = 43 // characters of 256 bits to the base 62
	checksumSize = 6
	textSize     = len(mark) + idSize + 1 + secretSize + checksumSize
)

// Secret is the text of a token. It prints as ***.
type Secret struct{ text string }

// Reveal returns the text, to be shown once. It never goes into a URL or a log.
func (s Secret) Reveal() string { return s.text }

// String returns ***.
func (s Secret) String() string { return "***" }

// GoString returns ***.
func (s Secret) GoString() string { return "***" }

// LogValue returns ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalJSON returns "***".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// base62 writes a number with digits 0-9a-zA-Z to a width.
func base62(n *big.Int, width int) string {
	s := n.Text(62)
	return strings.Repeat("0", max(0, width-len(s))) + s
}

// checksum is CRC-32 (IEEE) of text to the base 62.
func checksum(text string) string {
	return base62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(text)))), checksumSize)
}

// Checksum tells whether text has the form of a token and its checksum is right. It is no sign that such a token was
// ever issued.
func Checksum(text string) bool {
	id, ok := parse(text)
	return ok && id != ""
}

// parse returns the id within a token's text.
func parse(text string) (id string, ok bool) {
	if len(text) != textSize || !strings.HasPrefix(text, mark) || text[len(mark)+idSize] != '_' {
		return "", false
	}
	id, secret := text[len(mark):len(mark)+idSize], text[len(mark)+idSize+1:]
	for i := range len(id) {
		if strings.IndexByte(idAlphabet, id[i]) < 0 {
			return "", false
		}
	}
	for i := range len(secret) {
		if c := secret[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", false
		}
	}
	body := text[:textSize-checksumSize]
	return id, text[len(body):] == checksum(body)
}

func newSecret() (id string, s Secret) {
	var random [idSize + 32]byte
	_, _ = rand.Read(random[:]) // never fails
	var b strings.Builder
	for _, c := range random[:idSize] {
		b.WriteByte(idAlphabet[c%32])
	}
	id = b.String()
	body := mark + id + "_" + base62(new(big.Int).SetBytes(random[idSize:]), secretSize)
	return id, Secret{body + checksum(body)}
}

// FromRequest returns the token of the header "Authorization: Bearer ...", "" when there is none or more than one
// such header. A token in a URL is not read.
func FromRequest(r *http.Request) string {
	all := r.Header.Values("Authorization")
	if len(all) != 1 {
		return ""
	}
	scheme, text, ok := strings.Cut(all[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimLeft(text, " ")
}

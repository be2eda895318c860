package session

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
)

// tokenSize is how many random bytes a token has.
const tokenSize = 32

// Token is what a cookie holds: 256 random bits. The zero Token is of no session. It prints as ***.
type Token struct{ text string }

// ParseToken reads what [Token.Reveal] returned. Anything else is an error, which does not repeat it.
func ParseToken(text string) (Token, error) {
	if len(text) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return Token{}, errors.New("session: not a token")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != text {
		return Token{}, errors.New("session: not a token")
	}
	return Token{text}, nil
}

// Reveal returns the token for a cookie: 43 characters of base64url. It never goes into a URL or a log.
func (t Token) Reveal() string { return t.text }

// String returns ***.
func (t Token) String() string { return "***" }

// GoString returns ***.
func (t Token) GoString() string { return "***" }

// LogValue returns ***.
func (t Token) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalJSON returns "***".
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

func newToken() Token {
	var b [tokenSize]byte
	_, _ = rand.Read(b[:]) // never fails
	return Token{base64.RawURLEncoding.EncodeToString(b[:])}
}

// keyring is what one key is split into.
type keyring struct{ token, external, row []byte }

func newKeyring(key []byte) (keyring, error) {
	if len(key) < 32 {
		return keyring{}, errors.New("session: a key has at least 32 bytes")
	}
	var k keyring
	for label, into := range map[string]*[]byte{"token": &k.token, "external": &k.external, "row": &k.row} {
		sub, err := hkdf.Key(sha256.New, key, nil, "crmguard session 1 "+label, 32)
		if err != nil {
			return keyring{}, err
		}
		*into = sub
	}
	return k, nil
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return h.Sum(nil)
}

package outbox

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

const (
	secretPrefix = "whsec_"
	newestBytes  = 32 // of a secret that NewSecret makes
	leastBytes   = 24
	mostBytes    = 64
	mostSigned   = 20   // signatures that Verify looks at
	mostHeader   = 4096 // bytes of the signature header
)

// DefaultTolerance is how far the time of a message may be from the receiver's.
const DefaultTolerance = 5 * time.Minute

// Errors of Verify and ParseSecret.
var (
	// ErrSignature: no signature of the message is right, or a header is missing or not as it must be.
	ErrSignature = errors.New("outbox: signature is not right")
	// ErrTimestamp: the message is too old or of the future.
	ErrTimestamp = errors.New("outbox: timestamp is out of tolerance")
	// ErrSecret: not "whsec_" and the base64 of 24 to 64 bytes.
	ErrSecret = errors.New("outbox: not a secret of a webhook")
)

// Secret is the key that an endpoint and its receiver share. It prints as ***.
type Secret struct{ key []byte }

// NewSecret returns a secret of 256 random bits.
func NewSecret() Secret {
	key := make([]byte, newestBytes)
	_, _ = rand.Read(key) // it never fails
	return Secret{key}
}

// ParseSecret reads what Expose wrote. Error: ErrSecret.
func ParseSecret(s string) (Secret, error) {
	text, ok := strings.CutPrefix(s, secretPrefix)
	if !ok || len(text) > base64.StdEncoding.EncodedLen(mostBytes) {
		return Secret{}, ErrSecret
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(key) < leastBytes || len(key) > mostBytes || base64.StdEncoding.EncodeToString(key) != text {
		return Secret{}, ErrSecret
	}
	return Secret{key}, nil
}

// Expose returns the secret as the receiver is given it: "whsec_" and base64.
func (s Secret) Expose() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// String returns ***.
func (s Secret) String() string { return "***" }

// GoString returns ***.
func (s Secret) GoString() string { return "***" }

// mac is HMAC-SHA256 over id, timestamp and payload with dots between.
func (s Secret) mac(id string, at int64, payload []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(id + "." + strconv.FormatInt(at, 10) + "."))
	h.Write(payload)
	return h.Sum(nil)
}

// Sign returns the signature of a message, "v1," and base64.
func (s Secret) Sign(id string, at time.Time, payload []byte) string {
	return "v1," + base64.StdEncoding.EncodeToString(s.mac(id, at.Unix(), payload))
}

// Verify tells a receiver whether a message is from who shares one of the secrets: nil, ErrTimestamp when its time is further from now than
// tolerance (0: DefaultTolerance), else ErrSignature. payload is the body as it came, byte for byte. A receiver keeps the header webhook-id
// of each message that it has taken for as long as tolerance and retries last, and answers a second one with success.
func Verify(h http.Header, payload []byte, now time.Time, tolerance time.Duration, secrets ...Secret) error {
	if tolerance == 0 {
		tolerance = DefaultTolerance
	}
	id, stamp, signed := h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderSignature)
	if id == "" || strings.Contains(id, ".") || len(signed) > mostHeader || len(h.Values(HeaderID)) != 1 || len(h.Values(HeaderTimestamp)) != 1 {
		return ErrSignature
	}
	at, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || at < 0 || strconv.FormatInt(at, 10) != stamp {
		return ErrSignature
	}
	right := false
	for i, part := range strings.Fields(signed) {
		text, ok := strings.CutPrefix(part, "v1,")
		if i == mostSigned {
			break
		}
		if !ok {
			continue // another version
		}
		sum, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			continue
		}
		for _, s := range secrets {
			if len(s.key) >= leastBytes && hmac.Equal(sum, s.mac(id, at, payload)) {
				right = true
			}
		}
	}
	if !right {
		return ErrSignature
	}
	if apart := now.Sub(time.Unix(at, 0)); apart > tolerance || apart < -tolerance {
		return ErrTimestamp
	}
	return nil
}

package outbox_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm/outbox"
)

// The vector that the libraries of Standard Webhooks test with.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorPayload   = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func headers(id, at, signed string) http.Header {
	h := http.Header{}
	for k, v := range map[string]string{"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signed} {
		if v != "" {
			h.Set(k, v)
		}
	}
	return h
}

// TestKnownAnswer: our signature is that of the specification's vector, and so is one that is computed here by hand.
func TestKnownAnswer(t *testing.T) {
	s, err := outbox.ParseSecret(vectorSecret)
	require.NoError(t, err)
	at := time.Unix(vectorTime, 0)
	require.Equal(t, vectorSignature, s.Sign(vectorID, at, []byte(vectorPayload)))
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(vectorSecret, "whsec_"))
	require.NoError(t, err)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", vectorID, vectorTime, vectorPayload)
	require.Equal(t, vectorSignature, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	require.NoError(t, outbox.Verify(headers(vectorID, "1614265330", vectorSignature), []byte(vectorPayload), at, 0, s))
	require.Equal(t, vectorSecret, s.Expose())
}

// TestVerify: what is right in one of several signatures or secrets, and everything that is not.
func TestVerify(t *testing.T) {
	s, err := outbox.ParseSecret(vectorSecret)
	require.NoError(t, err)
	other, stamp, at := outbox.NewSecret(), strconv.Itoa(vectorTime), time.Unix(vectorTime, 0)
	bad := "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for what, test := range map[string]struct {
		h       http.Header
		body    string
		after   time.Duration
		secrets []outbox.Secret
		want    error
	}{
		"right":               {headers(vectorID, stamp, vectorSignature), vectorPayload, 0, []outbox.Secret{s}, nil},
		"the second":          {headers(vectorID, stamp, bad+" "+vectorSignature), vectorPayload, 0, []outbox.Secret{s}, nil},
		"another version":     {headers(vectorID, stamp, "v1a,xx "+vectorSignature+" v2,yy"), vectorPayload, 0, []outbox.Secret{s}, nil},
		"two secrets":         {headers(vectorID, stamp, vectorSignature), vectorPayload, 0, []outbox.Secret{other, s}, nil},
		"late, within":        {headers(vectorID, stamp, vectorSignature), vectorPayload, 299 * time.Second, []outbox.Secret{s}, nil},
		"too late":            {headers(vectorID, stamp, vectorSignature), vectorPayload, 301 * time.Second, []outbox.Secret{s}, outbox.ErrTimestamp},
		"of the future":       {headers(vectorID, stamp, vectorSignature), vectorPayload, -301 * time.Second, []outbox.Secret{s}, outbox.ErrTimestamp},
		"another secret":      {headers(vectorID, stamp, vectorSignature), vectorPayload, 0, []outbox.Secret{other}, outbox.ErrSignature},
		"no secret":           {headers(vectorID, stamp, vectorSignature), vectorPayload, 0, nil, outbox.ErrSignature},
		"the zero secret":     {headers(vectorID, stamp, outbox.Secret{}.Sign(vectorID, at, []byte(vectorPayload))), vectorPayload, 0, []outbox.Secret{{}}, outbox.ErrSignature},
		"another body":        {headers(vectorID, stamp, vectorSignature), vectorPayload + " ", 0, []outbox.Secret{s}, outbox.ErrSignature},
		"another id":          {headers("msg_x", stamp, vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"another time":        {headers(vectorID, "1614265331", vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"a plus":              {headers(vectorID, "+1614265330", vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"a zero before":       {headers(vectorID, "01614265330", vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"no time":             {headers(vectorID, "", vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"no id":               {headers("", stamp, vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"no signature":        {headers(vectorID, stamp, ""), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"without its version": {headers(vectorID, stamp, vectorSignature[3:]), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"a moved dot":         {headers(vectorID+".1614265330", "1", s.Sign(vectorID, at, []byte("1."+vectorPayload))), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
		"a flood":             {headers(vectorID, stamp, strings.Repeat(bad+" ", 30)+vectorSignature), vectorPayload, 0, []outbox.Secret{s}, outbox.ErrSignature},
	} {
		err := outbox.Verify(test.h, []byte(test.body), at.Add(test.after), 0, test.secrets...)
		assert.ErrorIs(t, err, test.want, what)
	}
	twice := headers(vectorID, stamp, vectorSignature)
	twice.Add("webhook-id", "msg_other")
	require.ErrorIs(t, outbox.Verify(twice, []byte(vectorPayload), at, 0, s), outbox.ErrSignature)
}

// TestSecretsRefused: what is no secret, in an error that does not repeat it.
func TestSecretsRefused(t *testing.T) {
	for _, text := range []string{
		"", "whsec_", vectorSecret[6:], "WHSEC_" + vectorSecret[6:], "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23)), "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65)),
		vectorSecret + "=", vectorSecret + "\n", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!w", "whsec_" + strings.Repeat("A", 10000),
	} {
		_, err := outbox.ParseSecret(text)
		require.Equal(t, outbox.ErrSecret, err)
	}
}

// FuzzVerify: whatever comes is refused unless it is signed, and nothing panics.
func FuzzVerify(f *testing.F) {
	f.Add(vectorID, "1614265330", vectorSignature, vectorPayload)
	f.Add(vectorID, "1614265330", "v1, v1,= v2,", "")
	f.Add("a.b", "-1", vectorSignature, "x")
	s, err := outbox.ParseSecret(vectorSecret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, at, signed, body string) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {signed}}
		n, _ := strconv.ParseInt(at, 10, 64)
		if err := outbox.Verify(h, []byte(body), time.Unix(n, 0), 0, s); err == nil && !strings.Contains(signed, s.Sign(id, time.Unix(n, 0), []byte(body))) {
			t.Errorf("a signature that is not ours was taken")
		}
	})
}

// FuzzParseSecret: what parses is written back as it was.
func FuzzParseSecret(f *testing.F) {
	f.Add(vectorSecret)
	f.Add("whsec_=")
	f.Add("whsec_" + strings.Repeat("A", 32))
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := outbox.ParseSecret(text); err == nil && s.Expose() != text {
			t.Errorf("not one spelling")
		}
	})
}

// A receiver verifies a message before it reads it.
func ExampleVerify() {
	secret, err := outbox.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		panic(err)
	}
	body := []byte(`{"test": 2432232314}`)
	h := http.Header{}
	h.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	h.Set("webhook-timestamp", "1614265330")
	h.Set("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	now := time.Unix(1614265400, 0) // time.Now()
	fmt.Println(outbox.Verify(h, body, now, 0, secret))
	fmt.Println(outbox.Verify(h, body, now.Add(time.Hour), 0, secret))
	fmt.Println(outbox.Verify(h, []byte(`{"test": 1}`), now, 0, secret))
	// Output:
	// <nil>
	// outbox: timestamp is out of tolerance
	// outbox: signature is not right
}

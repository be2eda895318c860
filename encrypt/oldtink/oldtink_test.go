package oldtink_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac/hmac"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	streamctr "github.com/tink-crypto/tink-go/v2/streamingaead/aesctrhmac"
	streamgcm "github.com/tink-crypto/tink-go/v2/streamingaead/aesgcmhkdf"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/oldtink"
)

// is tells whether err is want itself, with nothing wrapped around it that could be an oracle.
func is(err, want error) bool { return any(err) == any(want) }

// vectors is what internal/realtest/oldtink writes.
type vectors struct {
	Made      string
	KEK       []byte
	Keysets   []keysetVector
	Envelopes []struct {
		DEK           string
		Text, AD, Out []byte
	}
}

type keysetVector struct {
	Name, Primitive                             string
	KeysetAD, Encrypted, JSON, Clear, ClearJSON []byte
	Values                                      []value
}

type value struct {
	Old           bool
	Text, AD, Out []byte
}

func load(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/v1.7.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if v.Made != "github.com/google/tink/go v1.7.0" || len(v.Keysets) < 25 || len(v.Envelopes) < 10 {
		t.Fatalf("vectors of %s: %d keysets, %d envelopes", v.Made, len(v.Keysets), len(v.Envelopes))
	}
	return v
}

// gcmKEK opens nonce, ciphertext and tag, as the old local KEK wrote them.
type gcmKEK struct {
	gcm   cipher.AEAD
	asked int
	fail  error
}

func newKEK(t testing.TB, key []byte) *gcmKEK {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return &gcmKEK{gcm: gcm}
}

func (k *gcmKEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	k.asked++
	if k.fail != nil {
		return nil, k.fail
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := k.gcm.Open(nil, nil, wrapped, ad)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return out, nil
}

var ctx = context.Background()

// open opens out with whatever the keyset is for; a MAC has the text itself as its answer.
func open(ks *oldtink.Keyset, v value) ([]byte, error) {
	switch ks.Purpose() {
	case "AEAD":
		return ks.Open(v.Out, v.AD)
	case "deterministic AEAD":
		return ks.OpenDeterministic(v.Out, v.AD)
	case "MAC":
		return v.Text, ks.VerifyMAC(v.Out, v.Text)
	}
	r, err := ks.OpenStream(bytes.NewReader(v.Out), v.AD)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

var purposes = map[string]string{
	"aead": "AEAD", "deterministic": "deterministic AEAD", "mac": "MAC", "streaming": "streaming AEAD",
}

// TestEveryVector opens every value that v1.7.0 made, with every form of its keyset.
func TestEveryVector(t *testing.T) {
	v := load(t)
	kek := newKEK(t, v.KEK)
	opened := map[string]int{}
	for _, k := range v.Keysets {
		forms := map[string]func() (*oldtink.Keyset, error){
			"binary":          func() (*oldtink.Keyset, error) { return oldtink.Import(ctx, k.Encrypted, kek, k.KeysetAD) },
			"JSON":            func() (*oldtink.Keyset, error) { return oldtink.Import(ctx, k.JSON, kek, k.KeysetAD) },
			"cleartext":       func() (*oldtink.Keyset, error) { return oldtink.InsecureImportCleartext(k.Clear) },
			"cleartext, JSON": func() (*oldtink.Keyset, error) { return oldtink.InsecureImportCleartext(k.ClearJSON) },
		}
		for form, read := range forms {
			ks, err := read()
			if k.Primitive == "other" {
				if !errors.Is(err, keys.ErrAlgorithm) {
					t.Errorf("%s, %s: %v", k.Name, form, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, %s: %v", k.Name, form, err)
				continue
			}
			if ks.Purpose() != purposes[k.Primitive] {
				t.Errorf("%s is for %s", k.Name, ks.Purpose())
			}
			if len(k.Values) < 2 {
				t.Errorf("%s has %d values", k.Name, len(k.Values))
			}
			for i, val := range k.Values {
				got, err := open(ks, val)
				if err != nil || !bytes.Equal(got, val.Text) {
					t.Errorf("%s, %s, value %d: %v", k.Name, form, i, err)
				}
				opened[k.Primitive]++
				if k.Primitive == "deterministic" && !val.Old {
					if again, err := ks.SealDeterministic(val.Text, val.AD); err != nil || !bytes.Equal(again, val.Out) {
						t.Errorf("%s, value %d: sealed again it differs: %v", k.Name, i, err)
					}
				}
			}
		}
	}
	for primitive := range purposes {
		if opened[primitive] < 16 {
			t.Errorf("%s: %d values opened", primitive, opened[primitive])
		}
	}
}

// TestEveryFlip changes and cuts every value; nothing of it opens.
func TestEveryFlip(t *testing.T) {
	for _, k := range load(t).Keysets {
		if k.Primitive == "other" {
			continue
		}
		ks, err := oldtink.InsecureImportCleartext(k.Clear)
		if err != nil {
			t.Fatal(err)
		}
		for i, val := range k.Values {
			step := 1 + len(val.Out)/200 // all of a short one
			for at := 0; at < len(val.Out); at += step {
				bad := val
				bad.Out = bytes.Clone(val.Out)
				bad.Out[at] ^= 1
				if _, err := open(ks, bad); !is(err, keys.ErrTampered) {
					t.Fatalf("%s, value %d, byte %d: %v", k.Name, i, at, err)
				}
				bad.Out = val.Out[:at]
				if _, err := open(ks, bad); !is(err, keys.ErrTampered) {
					t.Fatalf("%s, value %d, %d bytes: %v", k.Name, i, at, err)
				}
			}
			bad := val
			bad.Out = append(bytes.Clone(val.Out), 0)
			if _, err := open(ks, bad); !is(err, keys.ErrTampered) {
				t.Fatalf("%s, value %d, byte appended: %v", k.Name, i, err)
			}
			bad = val
			if k.Primitive == "mac" {
				bad.Text = append(bytes.Clone(val.Text), 'x')
			} else {
				bad.AD = append(bytes.Clone(val.AD), 'x')
			}
			if _, err := open(ks, bad); !is(err, keys.ErrTampered) {
				t.Fatalf("%s, value %d, other data: %v", k.Name, i, err)
			}
		}
	}
}

// TestOtherKeysets: a value opens with its own keyset only.
func TestOtherKeysets(t *testing.T) {
	v := load(t)
	var all []*oldtink.Keyset
	for _, k := range v.Keysets {
		ks, err := oldtink.InsecureImportCleartext(k.Clear)
		if k.Primitive != "other" && err != nil {
			t.Fatal(err)
		}
		all = append(all, ks)
	}
	for i, k := range v.Keysets {
		for j, ks := range all {
			if i == j || ks == nil || len(k.Values) == 0 {
				continue
			}
			if _, err := open(ks, k.Values[len(k.Values)-1]); !is(err, keys.ErrTampered) {
				t.Errorf("%s opened by %s: %v", k.Name, v.Keysets[j].Name, err)
			}
		}
	}
}

func TestOtherPurposes(t *testing.T) {
	for _, k := range load(t).Keysets {
		if k.Primitive == "other" {
			continue
		}
		ks, err := oldtink.InsecureImportCleartext(k.Clear)
		if err != nil {
			t.Fatal(err)
		}
		calls := map[string]error{}
		_, calls["AEAD"] = ks.Open(nil, nil)
		_, calls["deterministic AEAD"] = ks.OpenDeterministic(nil, nil)
		calls["MAC"] = ks.VerifyMAC(nil, nil)
		_, calls["streaming AEAD"] = ks.OpenStream(strings.NewReader(""), nil)
		for purpose, err := range calls {
			if (ks.Purpose() == purpose) == errors.Is(err, keys.ErrAlgorithm) {
				t.Errorf("%s for %s: %v", k.Name, purpose, err)
			}
		}
		if _, err := ks.SealDeterministic(nil, nil); (err == nil) != (ks.Purpose() == "deterministic AEAD") {
			t.Errorf("%s seals: %v", k.Name, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	v := load(t)
	kek := newKEK(t, v.KEK)
	for _, k := range v.Keysets {
		// In the clear: refused before the keys reach the key service.
		for _, b := range [][]byte{k.Clear, k.ClearJSON, append([]byte(" \n"), k.ClearJSON...)} {
			kek.asked = 0
			if _, err := oldtink.Import(ctx, b, kek, nil); err == nil || !strings.Contains(err.Error(), "not encrypted") || kek.asked > 0 {
				t.Errorf("%s in the clear: %v, the KEK was asked %d times", k.Name, err, kek.asked)
			}
		}
		for _, b := range [][]byte{k.Encrypted, k.JSON} {
			if _, err := oldtink.InsecureImportCleartext(b); err == nil || errors.Is(err, keys.ErrAlgorithm) {
				t.Errorf("%s: an encrypted keyset passed for a clear one: %v", k.Name, err)
			}
			if _, err := oldtink.Import(ctx, b, kek, append(bytes.Clone(k.KeysetAD), 'x')); !is(err, keys.ErrTampered) {
				t.Errorf("%s with other associated data: %v", k.Name, err)
			}
			other := newKEK(t, make([]byte, 32))
			if _, err := oldtink.Import(ctx, b, other, k.KeysetAD); !is(err, keys.ErrTampered) {
				t.Errorf("%s with another KEK: %v", k.Name, err)
			}
			if _, err := oldtink.Import(ctx, b, nil, k.KeysetAD); err == nil {
				t.Errorf("%s without a KEK", k.Name)
			}
			// An outage is no forgery.
			for _, want := range []error{keys.ErrKMSUnavailable, keys.ErrAuth, context.DeadlineExceeded, io.ErrUnexpectedEOF} {
				down := &gcmKEK{fail: want}
				if _, err := oldtink.Import(ctx, b, down, k.KeysetAD); !errors.Is(err, want) || errors.Is(err, keys.ErrTampered) {
					t.Errorf("%s while the KEK says %v: %v", k.Name, want, err)
				}
			}
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := oldtink.Import(cancelled, k.Encrypted, kek, k.KeysetAD); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "JSON": []byte("{}"), "JSON, cut": v.Keysets[0].JSON[:50],
		"huge": make([]byte, 2<<20), "zeros": make([]byte, 100), "array": []byte("[]"),
	} {
		if _, err := oldtink.Import(ctx, b, kek, nil); err == nil {
			t.Errorf("%s is a keyset", name)
		}
		if _, err := oldtink.InsecureImportCleartext(b); err == nil {
			t.Errorf("%s is a clear keyset", name)
		}
	}
}

// TestKeysetFlips changes each byte of an encrypted keyset. The part outside the ciphertext (Tink's
// keyset_info) is not authenticated by Tink, and not looked at.
func TestKeysetFlips(t *testing.T) {
	v := load(t)
	kek := newKEK(t, v.KEK)
	for _, k := range v.Keysets[:3] {
		failed := 0
		for at := range k.Encrypted {
			bad := bytes.Clone(k.Encrypted)
			bad[at] ^= 1
			ks, err := oldtink.Import(ctx, bad, kek, k.KeysetAD)
			if err != nil {
				failed++
				continue
			}
			if got, err := open(ks, k.Values[0]); err != nil || !bytes.Equal(got, k.Values[0].Text) {
				t.Fatalf("%s, byte %d: another keyset", k.Name, at)
			}
		}
		if failed < 100 {
			t.Errorf("%s: only %d flips failed", k.Name, failed)
		}
	}
}

func clearKeyset(t *testing.T, k key.Key, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	m := keyset.NewManager()
	id, err := m.AddKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	h, err := m.Handle()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSHA1Refused(t *testing.T) {
	secret := secretdata.NewBytesFromData(make([]byte, 32), insecuresecretdataaccess.Token{})
	hp, err := hmac.NewParameters(hmac.ParametersOpts{KeySizeInBytes: 32, TagSizeInBytes: 16, HashType: hmac.SHA1, Variant: hmac.VariantNoPrefix})
	if err != nil {
		t.Fatal(err)
	}
	hk, err := hmac.NewKey(secret, hp, 0)
	hmacKeyset := clearKeyset(t, hk, err)
	gp, err := streamgcm.NewParameters(streamgcm.ParametersOpts{
		KeySizeInBytes: 32, DerivedKeySizeInBytes: 32, HKDFHashType: streamgcm.SHA1, SegmentSizeInBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	gk, err := streamgcm.NewKey(gp, secret)
	gcmKeyset := clearKeyset(t, gk, err)
	cp, err := streamctr.NewParameters(streamctr.ParametersOpts{
		KeySizeInBytes: 32, DerivedKeySizeInBytes: 32, HkdfHashType: streamctr.SHA256, HmacHashType: streamctr.SHA1, HmacTagSizeInBytes: 16, SegmentSizeInBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	ck, err := streamctr.NewKey(cp, secret)
	ctrKeyset := clearKeyset(t, ck, err)
	for name, b := range map[string][]byte{"HMAC": hmacKeyset, "AES-GCM-HKDF": gcmKeyset, "AES-CTR-HMAC": ctrKeyset} {
		if _, err := oldtink.InsecureImportCleartext(b); !errors.Is(err, keys.ErrAlgorithm) || !strings.Contains(err.Error(), "SHA-1") {
			t.Errorf("%s with SHA-1: %v", name, err)
		}
	}
}

func TestStreamFailures(t *testing.T) {
	errDisk := errors.New("disk")
	for _, k := range load(t).Keysets {
		if k.Primitive != "streaming" {
			continue
		}
		ks, err := oldtink.InsecureImportCleartext(k.Clear)
		if err != nil {
			t.Fatal(err)
		}
		val := k.Values[len(k.Values)-1]
		for n := 0; n < len(val.Out); n += 1 + len(val.Out)/50 {
			for _, want := range []error{errDisk, io.ErrUnexpectedEOF} {
				r, err := ks.OpenStream(io.MultiReader(bytes.NewReader(val.Out[:n]), iotest.ErrReader(want)), val.AD)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(r); !is(err, want) {
					t.Fatalf("%s after %d bytes: %v", k.Name, n, err)
				}
				if _, err := r.Read(make([]byte, 1)); !is(err, want) {
					t.Fatalf("%s: the failure did not last: %v", k.Name, err)
				}
			}
		}
		r, err := ks.OpenStream(iotest.OneByteReader(bytes.NewReader(val.Out)), val.AD)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(iotest.OneByteReader(r)); err != nil || !bytes.Equal(got, val.Text) {
			t.Fatalf("%s byte by byte: %v", k.Name, err)
		}
	}
}

func TestEnvelopes(t *testing.T) {
	v := load(t)
	kek := newKEK(t, v.KEK)
	for i, e := range v.Envelopes {
		got, err := oldtink.OpenEnvelope(ctx, kek, e.DEK, e.Out, e.AD)
		if err != nil || !bytes.Equal(got, e.Text) {
			t.Fatalf("envelope %d, %s: %v", i, e.DEK, err)
		}
		for at := range e.Out {
			bad := bytes.Clone(e.Out)
			bad[at] ^= 1
			if got, err := oldtink.OpenEnvelope(ctx, kek, e.DEK, bad, e.AD); !is(err, keys.ErrTampered) {
				t.Fatalf("envelope %d, byte %d: %v %x", i, at, err, got)
			}
			if _, err := oldtink.OpenEnvelope(ctx, kek, e.DEK, e.Out[:at], e.AD); !is(err, keys.ErrTampered) {
				t.Fatalf("envelope %d, %d bytes: %v", i, at, err)
			}
		}
		if _, err := oldtink.OpenEnvelope(ctx, kek, e.DEK, e.Out, nil); !is(err, keys.ErrTampered) {
			t.Errorf("envelope %d without associated data: %v", i, err)
		}
		for _, dek := range []string{"", "AES", "DES", "AES-EAX"} {
			if _, err := oldtink.OpenEnvelope(ctx, kek, dek, e.Out, e.AD); !errors.Is(err, keys.ErrAlgorithm) {
				t.Errorf("%q: %v", dek, err)
			}
		}
		for _, dek := range []string{"AES-GCM", "AES-CTR-HMAC", "ChaCha20-Poly1305", "XChaCha20-Poly1305", "AES-GCM-SIV"} {
			if _, err := oldtink.OpenEnvelope(ctx, kek, dek, e.Out, e.AD); dek != e.DEK && !is(err, keys.ErrTampered) {
				t.Errorf("envelope %d of %s opened as %s: %v", i, e.DEK, dek, err)
			}
		}
		down := &gcmKEK{fail: keys.ErrKMSUnavailable}
		if _, err := oldtink.OpenEnvelope(ctx, down, e.DEK, e.Out, e.AD); !errors.Is(err, keys.ErrKMSUnavailable) {
			t.Errorf("outage: %v", err)
		}
		if _, err := oldtink.OpenEnvelope(ctx, nil, e.DEK, e.Out, e.AD); err == nil {
			t.Error("no KEK")
		}
	}
}

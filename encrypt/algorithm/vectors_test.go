package algorithm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"testing"

	"github.com/crmguard/crmguard/encrypt/algorithm"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// is tells whether err is want itself, with nothing wrapped around it that could be an oracle.
func is(err, want error) bool { return any(err) == any(want) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load[T any](t testing.TB, file string) (out T) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestVectors runs the published vectors of every cipher and what is wrong about each.
func TestVectors(t *testing.T) {
	valid, invalid := map[string]int{}, 0
	for _, v := range load[[]struct {
		Algorithm, Comment, Key, Nonce, AD, Plain, Sealed string
		Valid                                             bool
	}](t, "testdata/aead.json") {
		a, err := algorithm.New(v.Algorithm, unhex(t, v.Key))
		if err != nil {
			t.Fatalf("%s: %v", v.Algorithm, err)
		}
		nonce, ad, plain, sealed := unhex(t, v.Nonce), unhex(t, v.AD), unhex(t, v.Plain), unhex(t, v.Sealed)
		if v.Valid {
			if got := a.Seal([]byte("head"), nonce, plain, ad); !bytes.Equal(got, append([]byte("head"), sealed...)) {
				t.Errorf("%s, %s: sealed %x, want %x", v.Algorithm, v.Comment, got[4:], sealed)
			}
			got, err := a.Open([]byte("head"), nonce, sealed, ad)
			if err != nil || !bytes.Equal(got, append([]byte("head"), plain...)) {
				t.Errorf("%s, %s: opened: %v", v.Algorithm, v.Comment, err)
			}
			inPlace := bytes.Clone(sealed)
			if got, err = a.Open(inPlace[:0], nonce, inPlace, ad); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s, %s: opened in place: %v", v.Algorithm, v.Comment, err)
			}
			buf := append(bytes.Clone(plain), make([]byte, 16)...)[:len(plain)]
			if got := a.Seal(buf[:0], nonce, buf, ad); !bytes.Equal(got, sealed) {
				t.Errorf("%s, %s: sealed in place differs", v.Algorithm, v.Comment)
			}
			valid[v.Algorithm]++
			continue
		}
		invalid++
		if got, err := a.Open(nil, nonce, sealed, ad); !is(err, keys.ErrTampered) || got != nil {
			t.Errorf("%s, %s: opened: %v", v.Algorithm, v.Comment, err)
		}
	}
	if len(valid) != 7 || invalid < 100 {
		t.Fatalf("%d ciphers, %d invalid vectors", len(valid), invalid)
	}
}

// TestGCMCases runs the cases of AES-GCM with one known modification each. What this package refuses although GCM has it is
// "acceptable".
//
//crm:item 17
func TestGCMCases(t *testing.T) {
	v := load[struct {
		Comment []string
		Cases   []struct {
			Algorithm, Comment, Key, Nonce, AD, Plain, Sealed, Result, Reason string
		}
	}](t, "testdata/gcm.json")
	count := map[string]int{}
	for _, c := range v.Cases {
		key, nonce, ad, plain, sealed := unhex(t, c.Key), unhex(t, c.Nonce), unhex(t, c.AD), unhex(t, c.Plain), unhex(t, c.Sealed)
		a, err := algorithm.New(c.Algorithm, key)
		if err != nil || c.Reason == "" {
			t.Fatalf("%s, %s: %v", c.Algorithm, c.Comment, err)
		}
		got, err := a.Open(nil, nonce, sealed, ad)
		switch c.Result {
		case "valid":
			if err != nil || !bytes.Equal(got, plain) || !bytes.Equal(a.Seal(nil, nonce, plain, ad), sealed) {
				t.Errorf("%s, %s: %v (%s)", c.Algorithm, c.Comment, err, c.Reason)
			}
		case "acceptable", "invalid":
			if !is(err, keys.ErrTampered) || got != nil {
				t.Errorf("%s, %s: opened: %v (%s)", c.Algorithm, c.Comment, err, c.Reason)
			}
			if opens := anyGCM(t, key, nonce, sealed, ad); opens != (c.Result == "acceptable") {
				t.Errorf("%s, %s: %s, but GCM of some sizes opens it: %v", c.Algorithm, c.Comment, c.Result, opens)
			}
		default:
			t.Fatalf("%s, %s: result %q", c.Algorithm, c.Comment, c.Result)
		}
		count[c.Result]++
	}
	if count["valid"] < 50 || count["acceptable"] < 50 || count["invalid"] < 200 {
		t.Fatalf("cases: %v", count)
	}
}

// anyGCM reports that GCM with nonces of this length and tags of some length opens it.
func anyGCM(t *testing.T, key, nonce, sealed, ad []byte) bool {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if len(nonce) != 12 {
		a, err := cipher.NewGCMWithNonceSize(block, len(nonce))
		if err != nil {
			return false
		}
		_, err = a.Open(nil, nonce, sealed, ad)
		return err == nil
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{4, 8, 12, 13, 14, 15, 16} {
		if len(sealed) < n {
			continue
		}
		text, tag := sealed[:len(sealed)-n], sealed[len(sealed)-n:]
		plain := make([]byte, len(text))
		cipher.NewCTR(block, append(bytes.Clone(nonce), 0, 0, 0, 2)).XORKeyStream(plain, text)
		if bytes.HasPrefix(a.Seal(nil, nonce, plain, ad)[len(text):], tag) {
			return true
		}
	}
	return false
}

func TestEd25519Vectors(t *testing.T) {
	for _, v := range load[[]struct {
		Comment, Seed, Public, Message, Signature string
		Valid                                     bool
	}](t, "testdata/ed25519.json") {
		der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(unhex(t, v.Public)))
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := algorithm.ParseVerifier(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		if err != nil {
			t.Fatal(err)
		}
		message, sig := unhex(t, v.Message), unhex(t, v.Signature)
		want := error(keys.ErrTampered)
		if v.Valid {
			want = nil
			der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(unhex(t, v.Seed)))
			if err != nil {
				t.Fatal(err)
			}
			signer, err := algorithm.ParseSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := signer.Sign(message); err != nil || !bytes.Equal(got, sig) {
				t.Errorf("%s: signed %x: %v", v.Comment, got, err)
			}
		}
		if err := verifier.Verify(message, sig); !is(err, want) {
			t.Errorf("%s: %v", v.Comment, err)
		}
	}
}

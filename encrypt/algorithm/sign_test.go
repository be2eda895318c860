package algorithm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/crmguard/crmguard/encrypt/algorithm"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// opensslSigns holds keys and signatures that OpenSSL made.
type opensslSigns struct {
	Message []byte
	Keys    []struct {
		Comment, Public, Private string
		Verifies, Signs          string // the algorithm, "refused" or "form"
	}
	Signatures []struct {
		Comment, Public string
		Signature       []byte
		Valid           bool
	}
}

func TestKeysOfOpenSSL(t *testing.T) {
	v := load[opensslSigns](t, "testdata/sign.json")
	check := func(comment, want, got string, err error) {
		t.Helper()
		switch want {
		case "refused":
			if !errors.Is(err, keys.ErrAlgorithm) || !strings.Contains(err.Error(), "; use ") {
				t.Errorf("%s: %v", comment, err)
			}
		case "form":
			if err == nil || errors.Is(err, keys.ErrAlgorithm) {
				t.Errorf("%s: %v", comment, err)
			}
		default:
			if err != nil || got != want {
				t.Errorf("%s: %s, %v; want %s", comment, got, err, want)
			}
		}
	}
	for _, k := range v.Keys {
		if k.Public != "" {
			verifier, err := algorithm.ParseVerifier([]byte(k.Public))
			var got string
			if err == nil {
				got = verifier.Algorithm()
			}
			check(k.Comment+", public", k.Verifies, got, err)
		}
		signer, err := algorithm.ParseSigner([]byte(k.Private))
		var got string
		if err == nil {
			got = signer.Algorithm()
			roundTrip(t, signer)
		}
		check(k.Comment+", private", k.Signs, got, err)
	}
}

// TestSignaturesOfOpenSSL: RSA and other signatures of OpenSSL verify, and those over anything else do not.
//
//crm:item 18 partly
func TestSignaturesOfOpenSSL(t *testing.T) {
	v := load[opensslSigns](t, "testdata/sign.json")
	for _, s := range v.Signatures {
		verifier, err := algorithm.ParseVerifier([]byte(s.Public))
		if err != nil {
			t.Fatalf("%s: %v", s.Comment, err)
		}
		want := error(keys.ErrTampered)
		if s.Valid {
			want = nil
		}
		if err := verifier.Verify(v.Message, s.Signature); !is(err, want) {
			t.Errorf("%s: %v", s.Comment, err)
		}
		if err := verifier.Verify(append(v.Message, '.'), s.Signature); !is(err, keys.ErrTampered) {
			t.Errorf("%s, other message: %v", s.Comment, err)
		}
	}
}

// roundTrip signs, verifies, writes and reads the key, and refuses every changed byte.
func roundTrip(t *testing.T, s *algorithm.Signer) {
	t.Helper()
	message := []byte("a manifest")
	private, err := s.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if s, err = algorithm.ParseSigner(private); err != nil {
		t.Fatal(err)
	}
	sig, err := s.Sign(message)
	if err != nil {
		t.Fatal(err)
	}
	public, err := s.Verifier().PEM()
	if err != nil {
		t.Fatal(err)
	}
	v, err := algorithm.ParseVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	if v.Algorithm() != s.Algorithm() {
		t.Fatalf("%s became %s", s.Algorithm(), v.Algorithm())
	}
	if err := v.Verify(message, sig); err != nil {
		t.Fatal(err)
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 1
		if err := v.Verify(message, bad); !is(err, keys.ErrTampered) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for n := range sig {
		if err := v.Verify(message, sig[:n]); !is(err, keys.ErrTampered) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if err := v.Verify(message, append(sig, 0)); !is(err, keys.ErrTampered) {
		t.Fatalf("byte more: %v", err)
	}
}

func TestNewSigner(t *testing.T) {
	for _, name := range []string{algorithm.Ed25519, algorithm.RSAPSS} {
		s, err := algorithm.NewSigner(name)
		if err != nil {
			t.Fatal(err)
		}
		if s.Algorithm() != name {
			t.Fatalf("%s became %s", name, s.Algorithm())
		}
		roundTrip(t, s)
	}
	for _, name := range []string{"", "RS256", "RSA-SHA1", "DSA", "AES-256-GCM", "ECDSA-P-256", "rsa", "frobnicate"} {
		if _, err := algorithm.NewSigner(name); !errors.Is(err, keys.ErrAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyForms(t *testing.T) {
	v := load[opensslSigns](t, "testdata/sign.json")
	good := v.Keys[0].Public
	for name, text := range map[string]string{
		"empty":       "",
		"no PEM":      "hello",
		"two":         good + good,
		"text behind": good + "x",
		"text before": "x\n" + good,
		"headers":     strings.Replace(good, "KEY-----\n", "KEY-----\nA: b\n\n", 1),
		"private":     v.Keys[0].Private,
		"certificate": strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE"),
		"cut":         good[:len(good)-40],
		"huge":        good + strings.Repeat("\n", 1<<17),
	} {
		if _, err := algorithm.ParseVerifier([]byte(text)); err == nil {
			t.Errorf("%s: a key", name)
		}
	}
	if _, err := algorithm.ParseVerifier([]byte("\n" + good + "\n\n")); err != nil {
		t.Errorf("blank lines: %v", err)
	}
}

// imports holds a private key and what OpenSSL wrapped for it.
type imports struct {
	Private, Customer []byte
	Wrapped           []struct {
		Comment string
		Wrapped []byte
		Opens   bool
	}
}

func TestImportOfOpenSSL(t *testing.T) {
	v := load[imports](t, "testdata/import.json")
	i, err := algorithm.ParseImport(v.Private)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range v.Wrapped {
		got, err := i.Unwrap(w.Wrapped)
		if w.Opens {
			if err != nil || !bytes.Equal(got, v.Customer) {
				t.Errorf("%s: %v", w.Comment, err)
			}
			for at := 0; at < len(w.Wrapped); at += 37 { // RSA is slow
				bad := bytes.Clone(w.Wrapped)
				bad[at] ^= 1
				if _, err := i.Unwrap(bad); !is(err, keys.ErrTampered) {
					t.Errorf("%s, byte %d: %v", w.Comment, at, err)
				}
			}
			for at := 512; at < len(w.Wrapped); at++ {
				bad := bytes.Clone(w.Wrapped)
				bad[at] ^= 1
				if _, err := i.Unwrap(bad); !is(err, keys.ErrTampered) {
					t.Errorf("%s, byte %d: %v", w.Comment, at, err)
				}
			}
			for n := range w.Wrapped {
				if n == 512 {
					continue
				}
				if _, err := i.Unwrap(w.Wrapped[:n]); !is(err, keys.ErrTampered) {
					t.Errorf("%s, %d bytes: %v", w.Comment, n, err)
				}
			}
			continue
		}
		if !is(err, keys.ErrTampered) || got != nil {
			t.Errorf("%s: %v", w.Comment, err)
		}
	}
	if _, err := newImport(t).Unwrap(v.Wrapped[0].Wrapped); !is(err, keys.ErrTampered) {
		t.Errorf("another import opened it: %v", err)
	}
}

var newImport = func() func(testing.TB) *algorithm.Import {
	made := sync.OnceValues(algorithm.NewImport)
	return func(t testing.TB) *algorithm.Import {
		t.Helper()
		i, err := made()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
}()

func TestParseImport(t *testing.T) {
	der, err := newImport(t).Private()
	if err != nil {
		t.Fatal(err)
	}
	again, err := algorithm.ParseImport(der)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := newImport(t).PublicPEM()
	if b, err := again.PublicPEM(); err != nil || !bytes.Equal(a, b) {
		t.Fatal("another key came back")
	}
	if _, err := algorithm.ParseVerifier(a); err != nil {
		t.Fatalf("the public key does not parse: %v", err)
	}
	for _, bad := range [][]byte{nil, {1}, der[:len(der)-1], append(bytes.Clone(der), 0)} {
		if _, err := algorithm.ParseImport(bad); err == nil {
			t.Errorf("%d bytes are a key", len(bad))
		}
	}
	random := make([]byte, 512)
	rand.Read(random)
	if _, err := again.Unwrap(random); !is(err, keys.ErrTampered) {
		t.Errorf("random bytes: %v", err)
	}
}

package algorithm_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/encrypt/algorithm"
	"github.com/crmguard/crmguard/encrypt/keys"
)

// FuzzCheck: any name passes or is refused with ErrAlgorithm, in any case and with any separators alike.
func FuzzCheck(f *testing.F) {
	for _, name := range []string{"AES-256-GCM", "des-ede3-cbc", "RSA/ECB/PKCS1Padding", "SHA256withRSA", "sha128", "rsa1024", ""} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := algorithm.Check(name)
		if err != nil && !errors.Is(err, keys.ErrAlgorithm) {
			t.Fatal(err)
		}
		spaced := algorithm.Check("-" + name + "_")
		if (err == nil) != (spaced == nil) {
			t.Fatalf("separators count: %v, %v", err, spaced)
		}
		if _, newErr := algorithm.New(name, make([]byte, 16)); newErr == nil && err != nil {
			t.Fatal("New takes what Check refuses")
		}
	})
}

// FuzzParseKey: any text is a key that survives writing and reading, or an error.
func FuzzParseKey(f *testing.F) {
	s, err := algorithm.NewSigner(algorithm.Ed25519)
	if err != nil {
		f.Fatal(err)
	}
	private, _ := s.PEM()
	public, _ := s.Verifier().PEM()
	f.Add(private)
	f.Add(public)
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := algorithm.ParseSigner(text); err == nil {
			again, err := s.PEM()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := algorithm.ParseSigner(again); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := algorithm.ParseVerifier(text); err == nil {
			again, err := v.PEM()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := algorithm.ParseVerifier(again); err != nil {
				t.Fatal(err)
			}
			if v.Verify(nil, text) == nil {
				t.Fatal("the key is its own signature")
			}
		}
		if _, err := algorithm.ParseImport(text); err == nil {
			t.Log("an RSA key")
		}
	})
}

// FuzzOpen: nothing but what was sealed opens, in any cipher.
func FuzzOpen(f *testing.F) {
	ciphers := []string{algorithm.AES256GCM, algorithm.AES256GCMSIV, algorithm.XAES256GCM, algorithm.XChaCha20Poly1305}
	f.Add(uint8(0), []byte("nonce of 12b"), []byte("text"), []byte("ad"))
	f.Add(uint8(1), []byte("nonce of 12b"), []byte{}, []byte{})
	f.Add(uint8(2), []byte("nonce of twenty-four byt"), bytes.Repeat([]byte{1}, 33), []byte("ad"))
	f.Add(uint8(3), []byte("short"), []byte("0123456789abcdef"), []byte("ad"))
	f.Fuzz(func(t *testing.T, which uint8, nonce, text, ad []byte) {
		a, err := algorithm.New(ciphers[int(which)%len(ciphers)], bytes.Repeat([]byte{1}, 32))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Open(nil, nonce, text, ad); err != nil && !is(err, keys.ErrTampered) {
			t.Fatal(err)
		}
		if len(nonce) != a.NonceSize() {
			return
		}
		sealed := a.Seal(nil, nonce, text, ad)
		if got, err := a.Open(nil, nonce, sealed, ad); err != nil || !bytes.Equal(got, text) {
			t.Fatal(err)
		}
		sealed[len(text)/2] ^= 1
		if _, err := a.Open(nil, nonce, sealed, ad); !is(err, keys.ErrTampered) {
			t.Fatal(err)
		}
	})
}

// FuzzUnwrap: nothing but what a customer wrapped opens, alone or as the first part of two.
func FuzzUnwrap(f *testing.F) {
	v := load[imports](f, "testdata/import.json")
	i, err := algorithm.ParseImport(v.Private)
	if err != nil {
		f.Fatal(err)
	}
	var opens [][]byte
	for _, w := range v.Wrapped {
		f.Add(w.Wrapped, []byte{})
		if w.Opens {
			opens = append(opens, w.Wrapped)
		}
	}
	f.Add([]byte{}, []byte{})
	f.Add([]byte{}, []byte{1})
	// A mask is laid over the end of what opens, in the place of wrapped, so that the fuzzer comes near it. RSA is slow.
	f.Fuzz(func(t *testing.T, wrapped, mask []byte) {
		if len(mask) > 0 {
			wrapped = bytes.Clone(opens[len(mask)%len(opens)])
			for i := range min(len(mask), len(wrapped)) {
				wrapped[len(wrapped)-1-i] ^= mask[i]
			}
		}
		same := slices.ContainsFunc(opens, func(o []byte) bool { return bytes.Equal(o, wrapped) })
		got, err := i.Unwrap(wrapped)
		if same && (err != nil || !bytes.Equal(got, v.Customer)) || !same && (!is(err, keys.ErrTampered) || got != nil) {
			t.Fatalf("%d bytes: %v", len(wrapped), err)
		}
	})
}

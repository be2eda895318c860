package oldtink_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/oldtink"
)

// FuzzImport: any bytes are a keyset that opens nothing foreign, or an error; nothing panics.
func FuzzImport(f *testing.F) {
	v := load(f)
	kek := newKEK(f, v.KEK)
	for _, k := range v.Keysets {
		f.Add(k.Clear)
		f.Add(k.Encrypted)
	}
	f.Add(v.Keysets[0].JSON)
	f.Add(v.Keysets[0].ClearJSON)
	junk := bytes.Repeat([]byte("junk"), 100)
	f.Fuzz(func(t *testing.T, b []byte) {
		encrypted, encErr := oldtink.Import(ctx, b, kek, nil)
		clear, clearErr := oldtink.InsecureImportCleartext(b)
		if encErr == nil && clearErr == nil {
			t.Fatal("encrypted and clear at once")
		}
		for _, ks := range []*oldtink.Keyset{encrypted, clear} {
			if ks == nil {
				continue
			}
			if _, err := open(ks, value{Text: junk, Out: junk}); err == nil {
				t.Fatal("junk opened")
			}
		}
	})
}

// FuzzOpen gives ciphertexts of every purpose any bytes.
func FuzzOpen(f *testing.F) {
	v := load(f)
	kek := newKEK(f, v.KEK)
	var all []*oldtink.Keyset
	known := map[string]bool{}
	for _, k := range v.Keysets {
		if k.Primitive == "other" {
			continue
		}
		ks, err := oldtink.InsecureImportCleartext(k.Clear)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, ks)
		for _, val := range k.Values {
			if len(val.Out) < 300 {
				f.Add(val.Out, val.AD)
			}
			known[string(val.Out)] = true
		}
	}
	for _, e := range v.Envelopes {
		f.Add(e.Out, e.AD)
		known[string(e.Out)] = true
	}
	f.Fuzz(func(t *testing.T, b, ad []byte) {
		for _, ks := range all {
			var err error
			switch ks.Purpose() {
			case "AEAD":
				_, err = ks.Open(b, ad)
			case "deterministic AEAD":
				_, err = ks.OpenDeterministic(b, ad)
			case "MAC":
				err = ks.VerifyMAC(b, ad)
			default:
				r, rerr := ks.OpenStream(bytes.NewReader(b), ad)
				if rerr != nil {
					t.Fatal(rerr)
				}
				_, err = io.ReadAll(r)
			}
			if err != nil && !is(err, keys.ErrTampered) || err == nil && !known[string(b)] {
				t.Fatalf("%s: %v", ks.Purpose(), err)
			}
		}
		if _, err := oldtink.OpenEnvelope(ctx, kek, "AES-GCM", b, ad); err != nil && !is(err, keys.ErrTampered) || err == nil && !known[string(b)] {
			t.Fatalf("envelope: %v", err)
		}
	})
}

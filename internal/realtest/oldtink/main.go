// Command oldtink writes, with github.com/google/tink/go v1.7.0, the vectors that encrypt/oldtink must open.
// It is a module of its own because that version and tink-go v2 cannot be linked into one program:
//
//	go run . >../../../encrypt/oldtink/testdata/v1.7.0.json
//
// Every run makes new keys, all of them for tests.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/google/tink/go/aead"
	"github.com/google/tink/go/aead/subtle"
	"github.com/google/tink/go/daead"
	"github.com/google/tink/go/insecurecleartextkeyset"
	"github.com/google/tink/go/keyset"
	"github.com/google/tink/go/mac"
	tinkpb "github.com/google/tink/go/proto/tink_go_proto"
	"github.com/google/tink/go/signature"
	"github.com/google/tink/go/streamingaead"
	"github.com/google/tink/go/tink"
)

// vectors is the file. Bytes are base64 in JSON.
type vectors struct {
	Made      string
	KEK       []byte // AES-256-GCM key; what it wraps is nonce | ciphertext | tag
	Keysets   []keysetVector
	Envelopes []envelope
}

type keysetVector struct {
	Name      string
	Primitive string // aead, deterministic, mac, streaming, other
	KeysetAD  []byte // associated data of the encrypted keyset
	Encrypted []byte // binary
	JSON      []byte // encrypted, JSON
	Clear     []byte // cleartext, binary
	ClearJSON []byte
	Values    []value
}

// value is a ciphertext or tag. Made by an old key of the keyset where Old.
type value struct {
	Old           bool
	Text, AD, Out []byte
}

type envelope struct {
	DEK           string
	Text, AD, Out []byte
}

func main() {
	log.SetFlags(0)
	v, err := makeVectors()
	if err != nil {
		log.Fatal(err)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		log.Fatal(err)
	}
}

// with is a template with another output prefix.
func with(t *tinkpb.KeyTemplate, prefix tinkpb.OutputPrefixType) *tinkpb.KeyTemplate {
	return &tinkpb.KeyTemplate{TypeUrl: t.TypeUrl, Value: t.Value, OutputPrefixType: prefix}
}

func makeVectors() (*vectors, error) {
	v := &vectors{Made: "github.com/google/tink/go v1.7.0", KEK: make([]byte, 32)}
	if _, err := rand.Read(v.KEK); err != nil {
		return nil, err
	}
	kek, err := subtle.NewAESGCM(v.KEK)
	if err != nil {
		return nil, err
	}
	raw, crunchy, legacy := tinkpb.OutputPrefixType_RAW, tinkpb.OutputPrefixType_CRUNCHY, tinkpb.OutputPrefixType_LEGACY
	for _, c := range []struct {
		name, primitive string
		ad              string
		templates       []*tinkpb.KeyTemplate // the last one is primary, the others made values before it was
	}{
		{"AES128_GCM", "aead", "", []*tinkpb.KeyTemplate{aead.AES128GCMKeyTemplate()}},
		{"AES256_GCM", "aead", "tenant acme", []*tinkpb.KeyTemplate{aead.AES256GCMKeyTemplate()}},
		{"AES256_GCM_RAW", "aead", "", []*tinkpb.KeyTemplate{aead.AES256GCMNoPrefixKeyTemplate()}},
		{"AES256_GCM_CRUNCHY", "aead", "", []*tinkpb.KeyTemplate{with(aead.AES256GCMKeyTemplate(), crunchy)}},
		{"AES128_CTR_HMAC_SHA256", "aead", "", []*tinkpb.KeyTemplate{aead.AES128CTRHMACSHA256KeyTemplate()}},
		{"AES256_CTR_HMAC_SHA256", "aead", "", []*tinkpb.KeyTemplate{aead.AES256CTRHMACSHA256KeyTemplate()}},
		{"CHACHA20_POLY1305", "aead", "", []*tinkpb.KeyTemplate{aead.ChaCha20Poly1305KeyTemplate()}},
		{"XCHACHA20_POLY1305", "aead", "", []*tinkpb.KeyTemplate{aead.XChaCha20Poly1305KeyTemplate()}},
		{"ROTATED", "aead", "tenant acme", []*tinkpb.KeyTemplate{
			aead.AES128GCMKeyTemplate(), aead.AES256GCMNoPrefixKeyTemplate(), aead.XChaCha20Poly1305KeyTemplate(), aead.AES256GCMKeyTemplate()}},
		{"AES256_SIV", "deterministic", "", []*tinkpb.KeyTemplate{daead.AESSIVKeyTemplate()}},
		{"AES256_SIV_RAW", "deterministic", "", []*tinkpb.KeyTemplate{with(daead.AESSIVKeyTemplate(), raw)}},
		{"AES256_SIV_ROTATED", "deterministic", "", []*tinkpb.KeyTemplate{daead.AESSIVKeyTemplate(), daead.AESSIVKeyTemplate()}},
		{"HMAC_SHA256_128BITTAG", "mac", "", []*tinkpb.KeyTemplate{mac.HMACSHA256Tag128KeyTemplate()}},
		{"HMAC_SHA256_256BITTAG", "mac", "", []*tinkpb.KeyTemplate{mac.HMACSHA256Tag256KeyTemplate()}},
		{"HMAC_SHA512_512BITTAG", "mac", "", []*tinkpb.KeyTemplate{mac.HMACSHA512Tag512KeyTemplate()}},
		{"HMAC_SHA256_LEGACY", "mac", "", []*tinkpb.KeyTemplate{with(mac.HMACSHA256Tag256KeyTemplate(), legacy)}},
		{"AES_CMAC", "mac", "", []*tinkpb.KeyTemplate{mac.AESCMACTag128KeyTemplate()}},
		{"AES_CMAC_RAW", "mac", "", []*tinkpb.KeyTemplate{with(mac.AESCMACTag128KeyTemplate(), raw)}},
		{"MAC_ROTATED", "mac", "", []*tinkpb.KeyTemplate{mac.AESCMACTag128KeyTemplate(), mac.HMACSHA256Tag256KeyTemplate()}},
		{"AES128_GCM_HKDF_4KB", "streaming", "", []*tinkpb.KeyTemplate{streamingaead.AES128GCMHKDF4KBKeyTemplate()}},
		{"AES256_GCM_HKDF_4KB", "streaming", "", []*tinkpb.KeyTemplate{streamingaead.AES256GCMHKDF4KBKeyTemplate()}},
		{"AES256_GCM_HKDF_1MB", "streaming", "", []*tinkpb.KeyTemplate{streamingaead.AES256GCMHKDF1MBKeyTemplate()}},
		{"AES128_CTR_HMAC_SHA256_4KB", "streaming", "", []*tinkpb.KeyTemplate{streamingaead.AES128CTRHMACSHA256Segment4KBKeyTemplate()}},
		{"AES256_CTR_HMAC_SHA256_4KB", "streaming", "", []*tinkpb.KeyTemplate{streamingaead.AES256CTRHMACSHA256Segment4KBKeyTemplate()}},
		{"STREAMING_ROTATED", "streaming", "", []*tinkpb.KeyTemplate{
			streamingaead.AES256CTRHMACSHA256Segment4KBKeyTemplate(), streamingaead.AES256GCMHKDF4KBKeyTemplate()}},
		{"ED25519", "other", "", []*tinkpb.KeyTemplate{signature.ED25519KeyTemplate()}},
		{"KMS_ENVELOPE", "other", "", []*tinkpb.KeyTemplate{aead.KMSEnvelopeAEADKeyTemplate("fake-kms://test", aead.AES128GCMKeyTemplate())}},
	} {
		k := keysetVector{Name: c.name, Primitive: c.primitive, KeysetAD: []byte(c.ad)}
		m := keyset.NewManager()
		for i, t := range c.templates {
			id, err := m.Add(t)
			if err != nil {
				return nil, fmt.Errorf("%s: %v", c.name, err)
			}
			if err := m.SetPrimary(id); err != nil {
				return nil, err
			}
			h, err := m.Handle()
			if err != nil {
				return nil, err
			}
			values, err := makeValues(h, c.primitive, i < len(c.templates)-1)
			if err != nil {
				return nil, fmt.Errorf("%s: %v", c.name, err)
			}
			k.Values = append(k.Values, values...)
		}
		h, err := m.Handle()
		if err != nil {
			return nil, err
		}
		if err := k.write(h, kek); err != nil {
			return nil, fmt.Errorf("%s: %v", c.name, err)
		}
		v.Keysets = append(v.Keysets, k)
	}
	for _, c := range []struct {
		name string
		t    *tinkpb.KeyTemplate
	}{
		{"AES-GCM", aead.AES128GCMKeyTemplate()},
		{"AES-GCM", aead.AES256GCMKeyTemplate()},
		{"AES-CTR-HMAC", aead.AES256CTRHMACSHA256KeyTemplate()},
		{"ChaCha20-Poly1305", aead.ChaCha20Poly1305KeyTemplate()},
		{"XChaCha20-Poly1305", aead.XChaCha20Poly1305KeyTemplate()},
	} {
		e := aead.NewKMSEnvelopeAEAD2(c.t, kek)
		for _, text := range texts(false) {
			ad := []byte("record 7")
			out, err := e.Encrypt(text, ad)
			if err != nil {
				return nil, err
			}
			v.Envelopes = append(v.Envelopes, envelope{c.name, text, ad, out})
		}
	}
	return v, nil
}

// write fills in the four forms of the keyset.
func (k *keysetVector) write(h *keyset.Handle, kek tink.AEAD) error {
	var encrypted, encryptedJSON, clear, clearJSON bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&encrypted), kek, k.KeysetAD); err != nil {
		return err
	}
	if err := h.WriteWithAssociatedData(keyset.NewJSONWriter(&encryptedJSON), kek, k.KeysetAD); err != nil {
		return err
	}
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&clear)); err != nil {
		return err
	}
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&clearJSON)); err != nil {
		return err
	}
	k.Encrypted, k.JSON, k.Clear, k.ClearJSON = encrypted.Bytes(), encryptedJSON.Bytes(), clear.Bytes(), clearJSON.Bytes()
	return nil
}

func texts(long bool) [][]byte {
	out := [][]byte{{}, []byte("张伟, 138 0013 8000")}
	if long {
		b := make([]byte, 9000) // three segments of 4 KiB
		for i := range b {
			b[i] = byte(i)
		}
		out = append(out, b)
	}
	return out
}

func makeValues(h *keyset.Handle, primitive string, old bool) ([]value, error) {
	var out []value
	for _, text := range texts(primitive == "streaming" && !old) {
		for _, ad := range [][]byte{{}, []byte("record 7")} {
			if primitive == "mac" && len(ad) > 0 || len(text) > 100 && len(ad) == 0 {
				continue
			}
			made, err := make1(h, primitive, text, ad)
			if err != nil {
				return nil, err
			}
			if made != nil {
				out = append(out, value{old, text, ad, made})
			}
		}
	}
	return out, nil
}

func make1(h *keyset.Handle, primitive string, text, ad []byte) ([]byte, error) {
	switch primitive {
	case "aead":
		a, err := aead.New(h)
		if err != nil {
			return nil, err
		}
		return a.Encrypt(text, ad)
	case "deterministic":
		a, err := daead.New(h)
		if err != nil {
			return nil, err
		}
		return a.EncryptDeterministically(text, ad)
	case "mac":
		m, err := mac.New(h)
		if err != nil {
			return nil, err
		}
		return m.ComputeMAC(text)
	case "streaming":
		a, err := streamingaead.New(h)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		w, err := a.NewEncryptingWriter(&b, ad)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return b.Bytes(), nil
	}
	return nil, nil
}

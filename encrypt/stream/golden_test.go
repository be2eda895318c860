package stream_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"testing"

	"github.com/crmguard/crmguard/encrypt/stream"
)

// decode is a second implementation, written from docs/formats/stream.md alone.
func decode(sealed, key, ad []byte, size int) ([]byte, bool) {
	if len(sealed) < 56 || sealed[0] != 40 {
		return nil, false
	}
	k, err := hkdf.Key(sha256.New, key, sealed[1:33], string(ad), 32)
	if err != nil {
		return nil, false
	}
	block, _ := aes.NewCipher(k)
	gcm, _ := cipher.NewGCM(block)
	var out []byte
	for n, at := 0, 40; ; n++ {
		end := min((n+1)*size, len(sealed))
		nonce := append([]byte(nil), sealed[33:40]...)
		nonce = binary.BigEndian.AppendUint32(nonce, uint32(n))
		if end == len(sealed) {
			nonce = append(nonce, 1)
		} else {
			nonce = append(nonce, 0)
		}
		if n > 0 && end-at <= 16 {
			return nil, false
		}
		if out, err = gcm.Open(out, nonce, sealed[at:end], nil); err != nil {
			return nil, false
		}
		if at = end; at == len(sealed) {
			return out, true
		}
	}
}

// forgeEmptyLast seals a full first segment and an empty last one, as only a holder of the key can.
func forgeEmptyLast(t *testing.T) []byte {
	t.Helper()
	full := sealSize(t, text(first+1), ad, small)[:small] // its first segment is not the last
	k, err := hkdf.Key(sha256.New, key, full[1:33], string(ad), 32)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(k)
	gcm, _ := cipher.NewGCM(block)
	nonce := append(bytes.Clone(full[33:40]), 0, 0, 0, 1, 1)
	return gcm.Seal(bytes.Clone(full), nonce, nil, nil)
}

type vector struct {
	Comment string
	Key, AD string // hexadecimal
	Segment int
	Plain   string
	Sealed  string
	Opens   bool
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors opens the committed streams with all three readers; CRMGUARD_WRITE_VECTORS=1 writes new ones.
func TestVectors(t *testing.T) {
	const file = "testdata/v1.json"
	if os.Getenv("CRMGUARD_WRITE_VECTORS") != "" {
		writeVectors(t, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 20 {
		t.Fatalf("%d vectors only", len(vectors))
	}
	for _, v := range vectors {
		key, ad, plain, sealed := unhex(t, v.Key), unhex(t, v.AD), unhex(t, v.Plain), unhex(t, v.Sealed)
		opts := &stream.Options{SegmentSize: v.Segment}
		r, err := stream.NewReader(bytes.NewReader(sealed), key, ad, opts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if v.Opens != (err == nil) || v.Opens && !bytes.Equal(got, plain) {
			t.Errorf("%s: Reader: %v", v.Comment, err)
		}
		ra, err := stream.NewReaderAt(bytes.NewReader(sealed), int64(len(sealed)), key, ad, opts)
		if err == nil {
			got, err = io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
		}
		if v.Opens != (err == nil) || v.Opens && !bytes.Equal(got, plain) {
			t.Errorf("%s: ReaderAt: %v", v.Comment, err)
		}
		got, ok := decode(sealed, key, ad, v.Segment)
		if v.Opens != ok || v.Opens && !bytes.Equal(got, plain) {
			t.Errorf("%s: independent decoder: %v", v.Comment, ok)
		}
	}
}

func writeVectors(t *testing.T, file string) {
	var out []vector
	h := hex.EncodeToString
	add := func(comment string, ad, plain, sealed []byte, opens bool) {
		out = append(out, vector{comment, h(key), h(ad), 4096, h(plain), h(sealed), opens})
	}
	for _, n := range []int{0, 1, 16, 4039, 4040, 4041, 4040 + 4080, 4040 + 4080 + 1} {
		add("ours", ad, text(n), sealSize(t, text(n), ad, 4096), true)
	}
	add("ours, no associated data", nil, text(100), sealSize(t, text(100), nil, 4096), true)
	add("tink-go v2.9.0", ad, text(4041), sealTink(t, text(4041), ad, 4096), true)
	sealed := sealSize(t, text(4050), ad, 4096)
	flip := func(i int) []byte {
		b := bytes.Clone(sealed)
		b[i] ^= 0x80
		return b
	}
	add("header length changed", ad, nil, flip(0), false)
	add("salt changed", ad, nil, flip(1), false)
	add("nonce prefix changed", ad, nil, flip(39), false)
	add("first segment changed", ad, nil, flip(40), false)
	add("tag of the first segment changed", ad, nil, flip(4095), false)
	add("last segment changed", ad, nil, flip(4096), false)
	add("last tag changed", ad, nil, flip(len(sealed)-1), false)
	add("one byte cut off", ad, nil, sealed[:len(sealed)-1], false)
	add("last segment cut off", ad, nil, sealed[:4096], false)
	add("header only", ad, nil, sealed[:40], false)
	add("empty", ad, nil, nil, false)
	add("byte appended", ad, nil, append(bytes.Clone(sealed), 0), false)
	add("other associated data", []byte("else"), nil, sealed, false)
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	os.MkdirAll("testdata", 0o755)
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

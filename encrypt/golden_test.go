package encrypt_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

var update = flag.Bool("update", false, "write testdata/v1.json anew")

// golden is a whole small store of format version 1, with everything needed to open it.
type golden struct {
	KEK     string            // the local KEK's file
	Records []string          // exported key records, hex
	Fields  map[string]string // sealed fields of the record, hex
	Plain   map[string]string // what they hold, hex of the plaintext encoding
	Class   map[string]string
	Token   int64  // of Term, index exact of phone with phone/1
	Suffix  int64  // of its last four characters, index suffix4 of phone with phone/1, 12 bits
	Term    string // normalised
	Detail  string // SealFor(person 2, "log", "ad")
	Secret  string // SealTenant("password", "ad")
	MAC     string // MAC("row", "data")
}

type person struct {
	Name  text   `protect:"personal"`
	Phone text   `protect:"sensitive,index=exact:phone,index=suffix4:phone:12"`
	Age   int    `protect:"personal,retention=tax"`
	Bits  []byte `protect:"financial"`
}

const goldenFile = "testdata/v1.json"

func writeGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	kek, err := localkek.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, kek, keys.NewMemory(), nil)
	c, err := encrypt.NewCodec[*person](codecOptions())
	if err != nil {
		t.Fatal(err)
	}
	v := &person{text{s: "张伟"}, text{s: "138 0013 8000"}, -7, []byte{0, 0xff}}
	sealed, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, _ := os.ReadFile(path)
	g := golden{
		KEK: string(file), Fields: map[string]string{}, Term: "+8613800138000",
		Plain: map[string]string{"name": hex.EncodeToString([]byte("张伟")), "phone": hex.EncodeToString([]byte("138 0013 8000")), "age": "fffffffffffffff9", "bits": "00ff"},
		Class: map[string]string{"name": "personal", "phone": "sensitive", "age": "personal", "bits": "financial"},
	}
	for _, f := range sealed.Fields {
		g.Fields[f.Name] = hex.EncodeToString(f.Data)
		if len(f.Tokens) > 0 {
			g.Token, g.Suffix = f.Tokens[0].Value, f.Tokens[1].Value
		}
	}
	detail, err1 := k.SealFor(ctx, "acme", rec.Person, "log", []byte("ad"), []byte("a detail"))
	secret, err2 := k.SealTenant(ctx, "acme", "password", []byte("ad"), []byte("a secret"))
	mac, err3 := k.MAC(ctx, "acme", "row", []byte("data"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	g.Detail, g.Secret, g.MAC = hex.EncodeToString(detail), hex.EncodeToString(secret), hex.EncodeToString(mac)
	if err := k.ExportKeys(ctx, "acme", func(_ [8]byte, r []byte) error {
		g.Records = append(g.Records, hex.EncodeToString(r))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b, _ := json.MarshalIndent(g, "", "\t")
	if err := os.WriteFile(goldenFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t testing.TB) (g golden) {
	t.Helper()
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What version 1 sealed, this package opens for ever.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	g := readGolden(t)
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, []byte(g.KEK), 0o600); err != nil {
		t.Fatal(err)
	}
	kek, err := localkek.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, kek, keys.NewMemory(), nil)
	var records [][]byte
	for _, r := range g.Records {
		records = append(records, unhex(t, r))
	}
	if err := k.ImportKeys(ctx, "acme", records); err != nil {
		t.Fatal(err)
	}
	c, err := encrypt.NewCodec[*person](codecOptions())
	if err != nil {
		t.Fatal(err)
	}
	var fields []encrypt.SealedField
	for name, data := range g.Fields {
		fields = append(fields, encrypt.SealedField{Name: name, Data: unhex(t, data)})
	}
	var v person
	if _, err := c.Open(ctx, k, rec, fields, &v, c.SealedNames()...); err != nil {
		t.Fatal(err)
	}
	if v.Name.s != "张伟" || v.Phone.s != "138 0013 8000" || v.Age != -7 || !bytes.Equal(v.Bits, []byte{0, 0xff}) {
		t.Fatal("the golden record reads differently")
	}
	q, err := c.Query(ctx, k, "acme", "phone", "exact", "13800138000")
	if err != nil || len(q.Groups) != 1 || !slices.Equal(q.Groups[0], []int64{g.Token}) || !c.Match(q, &v) {
		t.Fatalf("query %v, %v", q.Groups, err)
	}
	if q, err = c.Query(ctx, k, "acme", "phone", "suffix4", "8000"); err != nil || !slices.Equal(q.Groups[0], []int64{g.Suffix}) || !c.Match(q, &v) {
		t.Fatalf("query of a suffix: %v, %v", q.Groups, err)
	}
	if b, err := k.OpenFor(ctx, "acme", rec.Person, "log", []byte("ad"), unhex(t, g.Detail)); err != nil || string(b) != "a detail" {
		t.Fatalf("detail: %v", err)
	}
	if b, err := k.OpenTenant(ctx, "acme", "password", []byte("ad"), unhex(t, g.Secret)); err != nil || string(b) != "a secret" {
		t.Fatalf("secret: %v", err)
	}
	if err := k.VerifyMAC(ctx, "acme", "row", []byte("data"), unhex(t, g.MAC)); err != nil {
		t.Fatal(err)
	}
}

// The rest of this file is a second implementation, written from docs/formats/encrypt.md with
// nothing but the standard library.

func parts(ps ...string) string {
	var b []byte
	for _, p := range ps {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return string(b)
}

func expand(key []byte, ps ...string) []byte {
	out, err := hkdf.Expand(sha256.New, key, parts(ps...), 32)
	if err != nil {
		panic(err)
	}
	return out
}

func hmacOf(key []byte, msg string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(msg))
	return h.Sum(nil)
}

// cmacOf is the first 64 bits of AES-CMAC, as RFC 4493 writes it.
func cmacOf(key []byte, msg string) uint64 {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	l := make([]byte, 16)
	block.Encrypt(l, l)
	k := new(big.Int).SetBytes(l)
	subkey := func() []byte {
		k.Lsh(k, 1)
		if k.Bit(128) == 1 {
			k.SetBit(k, 128, 0)
			k.Xor(k, big.NewInt(0x87))
		}
		return k.FillBytes(make([]byte, 16))
	}
	last := subkey()
	if len(msg) == 0 || len(msg)%16 != 0 {
		last = subkey()
		msg += "\x80" + strings.Repeat("\x00", 15-len(msg)%16)
	}
	x := make([]byte, 16)
	for len(msg) > 0 {
		for i := range x {
			x[i] ^= msg[i]
			if len(msg) == 16 {
				x[i] ^= last[i]
			}
		}
		block.Encrypt(x, x)
		msg = msg[16:]
	}
	return binary.BigEndian.Uint64(x)
}

func gcmOpen(key, nonce, sealed []byte, ad string) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, nonce, sealed, []byte(ad))
}

// xaesOpen is XAES-256-GCM of C2SP.
func xaesOpen(key, sealed []byte, ad string) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(sealed) < 40 {
		return nil, errors.New("xaes")
	}
	var k1, zero [16]byte
	block.Encrypt(k1[:], zero[:])
	msb := k1[0] >> 7
	for i := range k1 {
		k1[i] <<= 1
		if i < 15 {
			k1[i] |= k1[i+1] >> 7
		}
	}
	k1[15] ^= msb * 0x87
	var kx []byte
	for _, n := range []byte{1, 2} {
		m := append([]byte{0, n, 'X', 0}, sealed[:12]...)
		for i := range m {
			m[i] ^= k1[i]
		}
		block.Encrypt(m, m)
		kx = append(kx, m...)
	}
	return gcmOpen(kx, sealed[12:24], sealed[24:], ad)
}

// proto returns the first length-delimited field with a number.
func proto(b []byte, number uint64) []byte {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		b = b[n:]
		switch tag & 7 {
		case 0:
			_, n := binary.Uvarint(b)
			b = b[n:]
		case 2:
			size, n := binary.Uvarint(b)
			b = b[n:]
			if tag>>3 == number {
				return b[:size]
			}
			b = b[size:]
		default:
			return nil
		}
	}
	return nil
}

type record struct {
	tenant, id, kind, purpose, person, retention, epoch, wrapped, commitment string
	version                                                                  [4]byte
}

func parseRecord(b []byte) (r record) {
	b = b[1:]
	part := func() string {
		n := binary.BigEndian.Uint32(b)
		p := string(b[4 : 4+n])
		b = b[4+n:]
		return p
	}
	r.tenant, r.id, r.kind = part(), part(), part()
	copy(r.version[:], b)
	b = b[4:]
	r.purpose, r.person, r.retention, r.epoch, r.wrapped, r.commitment = part(), part(), part(), part(), part(), part()
	return r
}

func TestSecondImplementation(t *testing.T) {
	g := readGolden(t)
	var kek []byte
	for line := range strings.Lines(g.KEK) {
		if w := strings.Fields(line); w[0] == "key" {
			kek, _ = base64.StdEncoding.DecodeString(w[2])
		}
	}
	keys := make(map[string][]byte)
	purposes := make(map[string][]byte)
	var all []record
	epochs := make(map[string][]byte)
	for _, s := range g.Records {
		r := parseRecord(unhex(t, s))
		all = append(all, r)
		if r.kind != "epoch" {
			continue
		}
		wrapped := proto([]byte(r.wrapped), 2)
		ad := parts("crmguard/epoch", r.tenant, r.id, string(r.version[:]))
		ks, err := gcmOpen(kek, wrapped[5:17], wrapped[17:], "crmguard/localkek"+string(wrapped[:5])+ad)
		if err != nil {
			t.Fatalf("epoch key: %v", err)
		}
		epochs[r.id] = proto(proto(proto(proto(ks, 2), 1), 2), 3)
	}
	for _, r := range all {
		if r.kind != "person" && r.kind != "tenant" {
			continue
		}
		ad := parts("crmguard/key", r.tenant, r.id, r.kind, string(r.version[:]), r.purpose, r.person, r.retention, r.epoch)
		key, err := xaesOpen(epochs[r.epoch], []byte(r.wrapped)[5:], ad) // after the 5 bytes of Tink's prefix
		if err != nil {
			t.Fatalf("%s key: %v", r.kind, err)
		}
		if string(expand(key, "crmguard/commit", r.tenant, r.id)) != r.commitment {
			t.Fatal("commitment")
		}
		keys[r.id], purposes[r.purpose] = key, key
	}
	me, person := string(rec.ID[:]), string(rec.Person[:])
	for name, s := range g.Fields {
		data := unhex(t, s)
		if data[0] != 1 {
			t.Fatal("version")
		}
		place := sha256.Sum256([]byte(parts("crmguard/field", "person", name, g.Class[name])))
		subkey := expand(keys[string(data[2:10])], "crmguard/subkey", "field", "acme", person)
		plain, err := gcmOpen(subkey, data[10:22], data[22:], string(data[:10])+string(place[:22])+me)
		if err != nil || hex.EncodeToString(plain) != g.Plain[name] {
			t.Fatalf("field %s: %v", name, err)
		}
	}
	detail := unhex(t, g.Detail)
	plain, err := gcmOpen(expand(keys[string(detail[2:10])], "crmguard/subkey", "log"), detail[10:22], detail[22:],
		parts("crmguard/detail", "acme", person, "log", "ad", string(detail[:10])))
	if err != nil || string(plain) != "a detail" {
		t.Fatalf("detail: %v", err)
	}
	secret := unhex(t, g.Secret)
	plain, err = xaesOpen(expand(keys[string(secret[2:10])], "crmguard/subkey", "password"), secret[10:],
		parts("crmguard/secret", "acme", "password", "ad", string(secret[:10])))
	if err != nil || string(plain) != "a secret" {
		t.Fatalf("secret: %v", err)
	}
	index := expand(purposes["index"], "crmguard/index", "person", "phone", "exact", "phone/1")
	if got := int64(cmacOf(index, g.Term)); got != g.Token {
		t.Fatalf("token %d, want %d", got, g.Token)
	}
	index = expand(purposes["index"], "crmguard/index", "person", "phone", "suffix4", "phone/1")
	if got := int64(cmacOf(index, "")<<12 | cmacOf(index, g.Term[len(g.Term)-4:])>>52); got != g.Suffix {
		t.Fatalf("token of a suffix %d, want %d", got, g.Suffix)
	}
	if hex.EncodeToString(hmacOf(purposes["mac"], parts("crmguard/mac", "row", "data"))) != g.MAC {
		t.Fatal("mac")
	}
}

// No sealed value but the true one opens, and none makes Open panic.
func FuzzOpen(f *testing.F) {
	g := readGolden(f)
	path := filepath.Join(f.TempDir(), "kek")
	if err := os.WriteFile(path, []byte(g.KEK), 0o600); err != nil {
		f.Fatal(err)
	}
	kek, err := localkek.Open(path, nil)
	if err != nil {
		f.Fatal(err)
	}
	k := newKeeper(f, kek, keys.NewMemory(), nil)
	var records [][]byte
	for _, r := range g.Records {
		records = append(records, unhex(f, r))
	}
	if err := k.ImportKeys(ctx, "acme", records); err != nil {
		f.Fatal(err)
	}
	c, err := encrypt.NewCodec[*person](codecOptions())
	if err != nil {
		f.Fatal(err)
	}
	truth := unhex(f, g.Fields["phone"])
	for _, s := range g.Fields {
		f.Add(unhex(f, s))
	}
	f.Add([]byte{})
	f.Add(truth[:38])
	others := map[string][]byte{}
	for name, s := range g.Fields {
		if name != "phone" {
			others[name] = unhex(f, s)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v person
		_, err := c.Open(ctx, k, rec, []encrypt.SealedField{{Name: "phone", Data: b}}, &v, "phone")
		switch {
		case bytes.Equal(b, truth) && err != nil:
			t.Fatal(err)
		case len(b) > 0 && !bytes.Equal(b, truth) && !errors.Is(err, encrypt.ErrTampered) && !errors.Is(err, encrypt.ErrKeyMissing):
			t.Fatalf("got %v", err)
		}
		// Among the other fields of its record it is no different.
		all := []encrypt.SealedField{{Name: "phone", Data: b}}
		for name, s := range others {
			all = append(all, encrypt.SealedField{Name: name, Data: s})
		}
		if _, among := c.Open(ctx, k, rec, all, &v, c.SealedNames()...); (among == nil) != (err == nil) {
			t.Fatalf("alone %v, among others %v", err, among)
		}
	})
}

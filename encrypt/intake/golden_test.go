package intake_test

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/intake"
)

// decode is a second implementation, written from docs/formats/intake.md alone.
func decode(seed, public, ad, sealed []byte) ([]byte, bool) {
	n := int(public[1])
	tenant := public[2 : 2+n]
	sum := sha256.Sum256(public)
	if len(sealed) < 1161 || sealed[0] != 1 || !bytes.Equal(sealed[1:17], sum[:16]) || !bytes.Equal(sealed[17:25], public[2+n+8:2+n+16]) {
		return nil, false
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	if err != nil || !bytes.Equal(key.PublicKey().Bytes(), public[2+n+16:]) {
		return nil, false
	}
	info := bytes.Join([][]byte{[]byte("crmguard intake v1"), sealed[:25], tenant}, nil)
	r, err := hpke.NewRecipient(sealed[25:25+1120], key, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, false
	}
	out, err := r.Open(ad, sealed[25+1120:])
	return out, err == nil
}

// golden is an entry of format version 1, with everything that opens it.
type golden struct {
	Seed, Public, AD, Sealed, Plain string // base64
	ID                              string
	NotAfter                        int64
}

// TestGolden keeps version 1 readable; CRMGUARD_WRITE_VECTORS=1 writes a new one.
func TestGolden(t *testing.T) {
	const file = "testdata/v1.json"
	b64 := base64.StdEncoding.EncodeToString
	if os.Getenv("CRMGUARD_WRITE_VECTORS") != "" {
		w := newWorld(t)
		p := public(t, w.box(t, "acme"))
		records, _ := w.store.List(ctx, "acme")
		seed, err := w.keeper.OpenTenant(ctx, "acme", "intake", records[0].Public, records[0].Sealed)
		if err != nil {
			t.Fatal(err)
		}
		g := golden{b64(seed), b64(p.Marshal()), b64(form), b64(seal(t, p, w.clock.now())), b64(text), p.ID().String(), p.NotAfter().Unix()}
		b, err := json.MarshalIndent(g, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	raw := func(s string) []byte {
		out, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	seed, pub, ad, sealed, plain := raw(g.Seed), raw(g.Public), raw(g.AD), raw(g.Sealed), raw(g.Plain)
	if got, ok := decode(seed, pub, ad, sealed); !ok || !bytes.Equal(got, plain) {
		t.Fatal("the independent decoder does not open it")
	}
	w := newWorld(t)
	box := w.box(t, "acme")
	p, err := intake.ParsePublic(pub)
	if err != nil || p.ID().String() != g.ID || p.NotAfter().Unix() != g.NotAfter {
		t.Fatalf("public key: %v", err)
	}
	w.clock.t = time.Unix(g.NotAfter, 0)
	inner, err := w.keeper.SealTenant(ctx, "acme", "intake", pub, seed)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Add(ctx, "acme", intake.Record{ID: p.ID(), Public: pub, Sealed: inner}); err != nil {
		t.Fatal(err)
	}
	if got, err := box.Open(ctx, ad, sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("the golden entry does not open: %v", err)
	}
	// And the decoder opens what is sealed today.
	if got, ok := decode(seed, pub, ad, seal(t, p, w.clock.now())); !ok || !bytes.Equal(got, text) {
		t.Fatal("the independent decoder does not open a new entry")
	}
	sealed[17]++
	if binary.BigEndian.Uint64(sealed[17:]); func() bool { _, ok := decode(seed, pub, ad, sealed); return ok }() {
		t.Fatal("the decoder takes another date")
	}
}

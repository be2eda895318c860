package encrypt_test

import (
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

type note struct {
	Body string `protect:"personal"`
}

func benchmark(b *testing.B, f func(c *encrypt.Codec[note], k *encrypt.Keeper, r encrypt.Record, v *note, s encrypt.Sealed)) {
	c, err := encrypt.NewCodec[note](nil)
	if err != nil {
		b.Fatal(err)
	}
	k := newKeeper(b, newKEK(b), keys.NewMemory(), nil)
	r := rec
	r.Erasure = 1
	v := &note{strings.Repeat("x", 64)}
	s, err := c.Seal(ctx, k, r, v, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		f(c, k, r, v, s)
	}
}

func BenchmarkSealRecordOfOne(b *testing.B) {
	benchmark(b, func(c *encrypt.Codec[note], k *encrypt.Keeper, r encrypt.Record, v *note, _ encrypt.Sealed) {
		if _, err := c.Seal(ctx, k, r, v, nil); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkOpenRecordOfOne(b *testing.B) {
	benchmark(b, func(c *encrypt.Codec[note], k *encrypt.Keeper, r encrypt.Record, v *note, s encrypt.Sealed) {
		if _, err := c.Open(ctx, k, r, s.Fields, v, "body"); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkToken(b *testing.B) {
	benchmark(b, func(c *encrypt.Codec[note], k *encrypt.Keeper, _ encrypt.Record, _ *note, _ encrypt.Sealed) {
		if _, err := c.Query(ctx, k, "acme", "body", "exact", "+8613800138000"); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkCustomer seals a record of ten fields with two indexes.
func BenchmarkCustomer(b *testing.B) {
	c := newCodec(b)
	k := newKeeper(b, newKEK(b), keys.NewMemory(), nil)
	r := rec
	r.Erasure = 1
	v := sample()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Seal(ctx, k, r, v, nil); err != nil {
			b.Fatal(err)
		}
	}
}

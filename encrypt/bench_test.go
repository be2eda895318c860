package encrypt_test

import (
	"crypto/aes"
	"crypto/cipher"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
)

type note struct {
	Body string `protect:"personal,index=exact:text"`
}

// eight is a record of eight protected fields with three indexes. Its normalisers cost nothing, so that the
// time is this package's; those of package normalize are timed there.
type eight struct {
	Name    encrypt.Text `protect:"personal,index=exact:same"`
	Phone   encrypt.Text `protect:"personal,index=exact:same,index=suffix4:same:12"`
	Email   encrypt.Text `protect:"personal"`
	Address encrypt.Text `protect:"personal"`
	Contact encrypt.Text `protect:"personal"`
	ID      encrypt.Text `protect:"sensitive"`
	Bank    encrypt.Text `protect:"financial"`
	Note    encrypt.Text `protect:"personal"`
}

func same(s string) []string { return []string{s} }

func eightOf() *eight {
	t := encrypt.NewText
	return &eight{
		t("Zhang Wei"), t("+8613800138000"), t("zhang.wei@example.com"), t("88 Century Avenue, Pudong, Shanghai"),
		t("Li Na"), t("110101199003074514"), t("6222021234567890123"), t("prefers calls after six; VIP since 2019"),
	}
}

func BenchmarkField(b *testing.B) {
	c, err := encrypt.NewCodec[*note](codecOptions())
	if err != nil {
		b.Fatal(err)
	}
	k := newKeeper(b, newKEK(b), keys.NewMemory(), nil)
	r := rec
	r.Erasure = 1
	plain := []byte(strings.Repeat("x", 64))
	sealed, err := c.SealTo(ctx, k, &r, nil, "body", plain)
	if err != nil {
		b.Fatal(err)
	}
	key := make([]byte, 32)
	block, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCMWithRandomNonce(block)
	theirs := gcm.Seal(nil, nil, plain, nil)
	buf := make([]byte, 0, 256)
	for _, w := range []struct {
		name string
		f    func() error
	}{
		{"seal/peer", func() error { gcm.Seal(nil, nil, plain, nil); return nil }},
		{"seal/ours", func() error { _, err := c.SealTo(ctx, k, &r, nil, "body", plain); return err }},
		{"open/peer", func() error { _, err := gcm.Open(nil, nil, theirs, nil); return err }},
		{"open/reused", func() error { _, err := c.OpenTo(ctx, k, &r, buf[:0], "body", sealed); return err }},
		{"seal/reused", func() error { _, err := c.SealTo(ctx, k, &r, buf[:0], "body", plain); return err }},
		{"open/ours", func() error { _, err := c.OpenTo(ctx, k, &r, nil, "body", sealed); return err }},
	} {
		b.Run(w.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := w.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	c, err := encrypt.NewCodec[*eight](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"same": same}})
	if err != nil {
		b.Fatal(err)
	}
	k := newKeeper(b, newKEK(b), keys.NewMemory(), nil)
	r := rec
	r.Erasure = 1
	v := eightOf()
	s, err := c.Seal(ctx, k, r, v, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Seal(ctx, k, r, v, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	names := c.SealedNames()
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		var out eight
		for b.Loop() {
			if _, err := c.Open(ctx, k, r, s.Fields, &out, names...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("query", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Query(ctx, k, "acme", "phone", "exact", "+8613800138000"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTokensTo(b *testing.B) {
	c, err := encrypt.NewCodec[*note](codecOptions())
	if err != nil {
		b.Fatal(err)
	}
	k := newKeeper(b, newKEK(b), keys.NewMemory(), nil)
	r := rec
	r.Erasure = 1
	if _, err := c.SealTo(ctx, k, &r, nil, "body", []byte("x")); err != nil {
		b.Fatal(err)
	}
	dst := make([]encrypt.Token, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.TokensTo(ctx, k, &r, dst[:0], "body", "+8613800138000"); err != nil {
			b.Fatal(err)
		}
	}
}

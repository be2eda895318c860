// Package encryptbench measures package encrypt beside the standard library, Tink and a real Vault.
package encryptbench

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// note has one field of 64 bytes.
type note struct {
	Body string `protect:"personal,index=exact:same"`
}

// eight is a record of eight protected fields with three indexes, of the lengths that a CRM has.
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

var texts = [8]string{
	"Zhang Wei", "+8613800138000", "zhang.wei@example.com", "88 Century Avenue, Pudong, Shanghai", "Li Na",
	"110101199003074514", "6222021234567890123", "prefers calls after six; since 2019",
}

func newEight() *eight {
	t := encrypt.NewText
	return &eight{t(texts[0]), t(texts[1]), t(texts[2]), t(texts[3]), t(texts[4]), t(texts[5]), t(texts[6]), t(texts[7])}
}

// options has a normaliser that costs nothing, so that the figures are those of package encrypt; those of
// package normalize stand beside them.
func options() *encrypt.CodecOptions {
	return &encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"same": func() func(string) []string {
		return func(s string) []string { return []string{s} }
	}()}}
}

// newKeeper returns a Keeper over a KEK in a file and the given store.
func newKeeper(dir string, store keys.Store, opts *encrypt.Options) (*encrypt.Keeper, error) {
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	if err != nil {
		return nil, err
	}
	return encrypt.NewKeeper(kek, store, opts)
}

// peer is AES-256-GCM with a random nonce of the standard library. It binds nothing and knows one key.
func peer() (cipher.AEAD, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// floor is AES-256-GCM as package encrypt uses it: with as many bytes of associated data as bind a value to its
// place, which the peer lacks, and none of the rest. What it costs beyond the peer no caller of crypto/cipher can save.
func floor() (cipher.AEAD, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound has the length of the associated data of a field.
var bound = make([]byte, 48)

const floorName = "floor: cipher alone, 48 bytes bound"

const peerName = "crypto/cipher AES-256-GCM"

// Run measures fields, records and tokens: ours finds the cached key of the person, checks that nobody was
// erased since, binds the value to its place, and writes a header; the peer does none of this.
func Run(ctx context.Context, opts measure.Options) ([]measure.Figure, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	keeper, err := newKeeper(dir, keys.NewMemory(), nil)
	if err != nil {
		return nil, err
	}
	gcm, err := peer()
	if err != nil {
		return nil, err
	}
	var all []measure.Figure
	for _, part := range []func(context.Context, *encrypt.Keeper, cipher.AEAD, measure.Options) ([]measure.Figure, error){
		fields, records, tokens,
	} {
		figures, err := part(ctx, keeper, gcm, opts)
		if err != nil {
			return nil, err
		}
		all = append(all, figures...)
	}
	return all, nil
}

// here is the record of the benchmarks; its erasure number was read with it, as a store does.
var here = encrypt.Record{Tenant: "default", ID: [16]byte{1}, Person: [16]byte{2}, Erasure: 1}

func fields(ctx context.Context, k *encrypt.Keeper, gcm cipher.AEAD, opts measure.Options) ([]measure.Figure, error) {
	c, err := encrypt.NewCodec[*note](options())
	if err != nil {
		return nil, err
	}
	rec := here
	plain := []byte(strings.Repeat("x", 64))
	sealed, err := c.SealTo(ctx, k, &rec, nil, "body", plain)
	if err != nil {
		return nil, err
	}
	theirs := gcm.Seal(nil, nil, plain, nil)
	least, err := floor()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 12)
	bare := least.Seal(nil, nonce, plain, bound)
	buf, out := make([]byte, 0, 256), make([]byte, 0, 256)
	seal, err := measure.Compare("seal a field of 64 bytes", opts,
		measure.Variant{Name: peerName, Peer: true, Do: func() error { gcm.Seal(nil, nil, plain, nil); return nil }},
		measure.Variant{Name: floorName, Do: func() error {
			b := make([]byte, 38-16, 38+len(plain)) // header and nonce before, tag behind
			rand.Read(b[10:])
			least.Seal(b, b[10:], plain, bound)
			return nil
		}},
		measure.Variant{Name: "encrypt, SealTo", Do: func() error { _, err := c.SealTo(ctx, k, &rec, nil, "body", plain); return err }},
		measure.Variant{Name: "encrypt, SealTo a reused buffer", Do: func() error { _, err := c.SealTo(ctx, k, &rec, buf[:0], "body", plain); return err }})
	if err != nil {
		return nil, err
	}
	open, err := measure.Compare("open a field of 64 bytes", opts,
		measure.Variant{Name: peerName, Peer: true, Do: func() error { _, err := gcm.Open(nil, nil, theirs, nil); return err }},
		measure.Variant{Name: floorName, Do: func() error { _, err := least.Open(nil, nonce, bare, bound); return err }},
		measure.Variant{Name: "encrypt, OpenTo", Do: func() error { _, err := c.OpenTo(ctx, k, &rec, nil, "body", sealed); return err }},
		measure.Variant{Name: "encrypt, OpenTo a reused buffer", Do: func() error { _, err := c.OpenTo(ctx, k, &rec, out[:0], "body", sealed); return err }})
	return append(seal, open...), err
}

func records(ctx context.Context, k *encrypt.Keeper, gcm cipher.AEAD, opts measure.Options) ([]measure.Figure, error) {
	c, err := encrypt.NewCodec[*eight](options())
	if err != nil {
		return nil, err
	}
	v := newEight()
	sealed, err := c.Seal(ctx, k, here, v, nil)
	if err != nil {
		return nil, err
	}
	theirs := make([][]byte, len(texts))
	for i, s := range texts {
		theirs[i] = gcm.Seal(nil, nil, []byte(s), nil)
	}
	least, err := floor()
	if err != nil {
		return nil, err
	}
	nonces, zero := make([]byte, 12*len(texts)), make([]byte, 12)
	var plains, bodies [][]byte
	size := 0
	for _, s := range texts {
		plains = append(plains, []byte(s))
		bodies = append(bodies, least.Seal(nil, zero, []byte(s), bound))
		size += 38 + len(s)
	}
	opened := make([]byte, 0, size)
	names := c.SealedNames()
	var into eight
	seal, err := measure.Compare("seal a record: 8 fields, 3 indexes", opts,
		measure.Variant{Name: peerName + ", 8 times, no index", Peer: true, Do: func() error {
			for _, s := range texts {
				gcm.Seal(nil, nil, []byte(s), nil)
			}
			return nil
		}},
		measure.Variant{Name: floorName + ", 8 times, no index", Do: func() error {
			rand.Read(nonces)
			b := make([]byte, 0, size)
			for i, p := range plains {
				b = least.Seal(b[:len(b)+22], nonces[12*i:12*i+12], p, bound)
			}
			return nil
		}},
		measure.Variant{Name: "encrypt, Seal", Do: func() error { _, err := c.Seal(ctx, k, here, v, nil); return err }})
	if err != nil {
		return nil, err
	}
	open, err := measure.Compare("open a record: 8 fields", opts,
		measure.Variant{Name: peerName + ", 8 times", Peer: true, Do: func() error {
			for _, b := range theirs {
				plain, err := gcm.Open(nil, nil, b, nil)
				if err != nil || string(plain) == "" {
					return errors.New("not opened")
				}
			}
			return nil
		}},
		measure.Variant{Name: floorName + ", 8 times", Do: func() error {
			b := opened
			for _, sealed := range bodies {
				var err error
				if b, err = least.Open(b, zero, sealed, bound); err != nil {
					return err
				}
			}
			return nil
		}},
		measure.Variant{Name: "encrypt, Open", Do: func() error { _, err := c.Open(ctx, k, here, sealed.Fields, &into, names...); return err }})
	return append(seal, open...), err
}

func tokens(ctx context.Context, k *encrypt.Keeper, gcm cipher.AEAD, opts measure.Options) ([]measure.Figure, error) {
	c, err := encrypt.NewCodec[*note](options())
	if err != nil {
		return nil, err
	}
	rec := here
	dst := make([]encrypt.Token, 0, 8)
	term := "+8613800138000"
	token, err := measure.Compare("token of a term", opts,
		measure.Variant{Name: peerName + ", the term sealed", Peer: true, Do: func() error { gcm.Seal(nil, nil, []byte(term), nil); return nil }},
		measure.Variant{Name: "encrypt, TokensTo", Do: func() error { _, err := c.TokensTo(ctx, k, &rec, dst[:0], "body", term); return err }})
	if err != nil {
		return nil, err
	}
	var variants []measure.Variant
	all := normalize.Normalizers("CN")
	for i, n := range []struct{ name, typed string }{
		{"phone", "138 0013 8000"}, {"phone", "+44 20 7946 0958"}, {"email", "Zhang.Wei@Example.com"}, {"name", "张伟"},
		{"name", "Anna Lee"}, {"pinyin", "曾小明"}, {"idnumber", "110101199003074514"},
	} {
		variants = append(variants, measure.Variant{Name: n.name + " of " + n.typed, Peer: i == 0, Do: func() error {
			if len(all[n.name](n.typed)) == 0 {
				return errors.New("no term")
			}
			return nil
		}})
	}
	norm, err := measure.Compare("normalise (ratio to the first)", opts, variants...)
	return append(token, norm...), err
}

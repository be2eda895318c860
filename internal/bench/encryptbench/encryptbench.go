// Package encryptbench compares a sealed 64-byte field with AES-256-GCM of the standard library.
package encryptbench

import (
	"bytes"
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
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// one is a record with one sealed field, ten one with ten.
type one struct {
	A string `protect:"personal"`
}

type ten struct {
	A string `protect:"personal"`
	B string `protect:"personal"`
	C string `protect:"personal"`
	D string `protect:"personal"`
	E string `protect:"personal"`
	F string `protect:"personal"`
	G string `protect:"personal"`
	H string `protect:"personal"`
	I string `protect:"personal"`
	J string `protect:"personal"`
}

// codecs seals and opens one T again and again.
func codecs[T any](ctx context.Context, k *encrypt.Keeper, v *T) (seal, open func() error, err error) {
	c, err := encrypt.NewCodec[T](nil)
	if err != nil {
		return nil, nil, err
	}
	rec := encrypt.Record{Tenant: "default", ID: [16]byte{1}, Person: [16]byte{2}}
	sealed, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		return nil, nil, err
	}
	names := c.SealedNames()
	var out T
	seal = func() error { _, err := c.Seal(ctx, k, rec, v, nil); return err }
	open = func() error { _, err := c.Open(ctx, k, rec, sealed.Fields, &out, names...); return err }
	return seal, open, nil
}

// Run measures. Ours finds the person's cached key, asks a key store in memory whether the person was
// erased, binds the value to its place, and returns it with its header; the peer has its key at hand
// and binds nothing. Both draw a random nonce of 96 bits for each value.
func Run(ctx context.Context, opts measure.Options) ([]measure.Figure, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil)
	if err != nil {
		return nil, err
	}
	keeper, err := encrypt.NewKeeper(kek, keys.NewMemory(), nil)
	if err != nil {
		return nil, err
	}
	text := strings.Repeat("x", 64)
	seal1, open1, err := codecs(ctx, keeper, &one{text})
	if err != nil {
		return nil, err
	}
	seal10, open10, err := codecs(ctx, keeper, &ten{text, text, text, text, text, text, text, text, text, text})
	if err != nil {
		return nil, err
	}

	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain := []byte(text)
	peerSeal := func() ([]byte, error) {
		out := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(plain)+gcm.Overhead())
		if _, err := rand.Read(out); err != nil {
			return nil, err
		}
		return gcm.Seal(out, out, plain, nil), nil
	}
	sealed, err := peerSeal()
	if err != nil {
		return nil, err
	}
	peerOpen := func() error {
		b, err := gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], nil)
		if err == nil && !bytes.Equal(b, plain) {
			err = errors.New("another text")
		}
		return err
	}
	times10 := func(f func() error) func() error {
		return func() error {
			for range 10 {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		}
	}
	sealOnce := func() error { _, err := peerSeal(); return err }

	var all []measure.Figure
	for _, w := range []struct {
		work       string
		ours, peer func() error
	}{
		{"seal 64 bytes", seal1, sealOnce},
		{"open 64 bytes", open1, peerOpen},
		{"seal 10 fields of 64 bytes", seal10, times10(sealOnce)},
		{"open 10 fields of 64 bytes", open10, times10(peerOpen)},
	} {
		figures, err := measure.Compare(w.work, opts,
			measure.Variant{Name: "crypto/cipher AES-256-GCM", Peer: true, Do: w.peer},
			measure.Variant{Name: "encrypt", Do: w.ours})
		if err != nil {
			return nil, err
		}
		all = append(all, figures...)
	}
	return all, nil
}

package encryptbench

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/encrypt/vault"
	"github.com/crmguard/crmguard/internal/bench/measure"
	"github.com/crmguard/crmguard/internal/dialect"

	_ "modernc.org/sqlite"
)

// counted counts the calls of a KEK.
type counted struct {
	keys.KEK
	calls atomic.Int64
}

func (c *counted) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	c.calls.Add(1)
	return c.KEK.Wrap(ctx, plaintext, ad)
}

func (c *counted) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	c.calls.Add(1)
	return c.KEK.Unwrap(ctx, wrapped, ad)
}

func person(i int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(id[8:], uint64(i)+1)
	return id
}

func place(i int) encrypt.Record {
	return encrypt.Record{Tenant: "default", ID: person(i), Person: person(i), Erasure: 1}
}

// Vault measures against one call of Transit for each field, and counts the calls of sealing and opening ten
// fields of each person.
func Vault(ctx context.Context, kek *vault.KEK, persons int, opts measure.Options) ([]measure.Figure, string, error) {
	through := &counted{KEK: kek}
	k, err := encrypt.NewKeeper(through, keys.NewMemory(), nil)
	if err != nil {
		return nil, "", err
	}
	c, err := encrypt.NewCodec[*note](options())
	if err != nil {
		return nil, "", err
	}
	rec := here
	plain := []byte("64 bytes of text, as it is typed into the notes of a customer.....")[:64]
	sealed, err := c.SealTo(ctx, k, &rec, nil, "body", plain)
	if err != nil {
		return nil, "", err
	}
	wrapped, err := kek.Wrap(ctx, plain, []byte("ad"))
	if err != nil {
		return nil, "", err
	}
	seal, err := measure.Compare("seal a field, against Vault", opts,
		measure.Variant{Name: "encrypt, SealTo", Peer: true, Do: func() error { _, err := c.SealTo(ctx, k, &rec, nil, "body", plain); return err }},
		measure.Variant{Name: "a Transit call for each field", Do: func() error { _, err := kek.Wrap(ctx, plain, []byte("ad")); return err }})
	if err != nil {
		return nil, "", err
	}
	open, err := measure.Compare("open a field, against Vault", opts,
		measure.Variant{Name: "encrypt, OpenTo", Peer: true, Do: func() error { _, err := c.OpenTo(ctx, k, &rec, nil, "body", sealed); return err }},
		measure.Variant{Name: "a Transit call for each field", Do: func() error { _, err := kek.Unwrap(ctx, wrapped, []byte("ad")); return err }})
	if err != nil {
		return nil, "", err
	}
	// A new Keeper and store: everything from the first call on.
	through.calls.Store(0)
	if k, err = encrypt.NewKeeper(through, keys.NewMemory(), nil); err != nil {
		return nil, "", err
	}
	const each = 10
	start := time.Now()
	buf := make([]byte, 0, 256)
	for i := range persons {
		rec := place(i)
		for range each {
			if _, err := c.SealTo(ctx, k, &rec, buf[:0], "body", plain); err != nil {
				return nil, "", err
			}
		}
	}
	line := fmt.Sprintf("%d fields of %d persons in one tenant, sealed in %.1f s: %d calls of Vault",
		persons*each, persons, time.Since(start).Seconds(), through.calls.Load())
	return append(seal, open...), line, nil
}

// Cold measures opening one field of each of many persons whose keys are not cached, and what of it is the
// query of the key store.
func Cold(ctx context.Context, persons int) (string, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	store := &timed{Store: keys.NewMemory()}
	warm, err := newKeeper(dir, store, nil)
	if err != nil {
		return "", err
	}
	c, err := encrypt.NewCodec[*note](options())
	if err != nil {
		return "", err
	}
	const page = 500
	v := &note{"64 bytes of text, as it is typed into the notes of a customer....."[:64]}
	var recs []encrypt.Record
	var fields [][]encrypt.SealedField
	for from := 0; from < persons; from += page {
		batch := make([]encrypt.Record, page)
		values := make([]*note, page)
		for i := range batch {
			batch[i], values[i] = place(from+i), v
		}
		sealed, err := c.SealAll(ctx, warm, batch, values)
		if err != nil {
			return "", err
		}
		recs = append(recs, batch...)
		for i := range sealed {
			fields = append(fields, sealed[i].Fields)
		}
	}
	cold, err := newKeeper(dir, store, nil)
	if err != nil {
		return "", err
	}
	into := make([]*note, page)
	for i := range into {
		into[i] = &note{}
	}
	store.spent.Store(0)
	runtime.GC()
	start := measure.ProcessorTime()
	for from := 0; from < len(recs); from += page {
		if _, err := c.OpenAll(ctx, cold, recs[from:from+page], fields[from:from+page], into, "body"); err != nil {
			return "", err
		}
	}
	took, query := measure.ProcessorTime()-start, time.Duration(store.spent.Load())
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(len(recs)) / 1000 }
	least, err := coldFloor(len(recs))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d cold persons, a field each: %.1f µs a person without the query, %.1f µs with it (store in memory; processor time)\n"+
		"  the primitives alone, unwrapping, two HKDFs, a key schedule and the field, by Tink and the standard library: %.1f µs a person",
		len(recs), each(took-query), each(took), each(least)), nil
}

// coldFloor measures the primitives of opening a field of a person whose key is not cached, with nothing
// looked up or kept.
func coldFloor(persons int) (time.Duration, error) {
	h, err := keyset.NewHandle(aead.XAES256GCM192BitNonceKeyTemplate())
	if err != nil {
		return 0, err
	}
	epoch, err := aead.New(h)
	if err != nil {
		return 0, err
	}
	wrapped, err := epoch.Encrypt(make([]byte, 32), make([]byte, 128))
	if err != nil {
		return 0, err
	}
	nonce, ad, info := make([]byte, 12), make([]byte, 128), "of the length that an info has, or nearly so: 48."
	var sealed []byte
	runtime.GC()
	start := measure.ProcessorTime()
	for i := range persons {
		key, err := epoch.Decrypt(wrapped, ad)
		if err != nil {
			return 0, err
		}
		if _, err := hkdf.Expand(sha256.New, key, info, 32); err != nil {
			return 0, err
		}
		subkey, err := hkdf.Expand(sha256.New, key, info+info, 32)
		if err != nil {
			return 0, err
		}
		block, err := aes.NewCipher(subkey)
		if err != nil {
			return 0, err
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			sealed = gcm.Seal(nil, nonce, make([]byte, 64), bound)
		}
		if _, err := gcm.Open(nil, nonce, sealed, bound); err != nil {
			return 0, err
		}
	}
	return measure.ProcessorTime() - start, nil
}

// timed measures how long Find takes.
type timed struct {
	keys.Store
	spent atomic.Int64
}

func (t *timed) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	start := measure.ProcessorTime()
	defer func() { t.spent.Add(int64(measure.ProcessorTime() - start)) }()
	return t.Store.Find(ctx, tenant, q)
}

// Memory reads the keys of many persons, which lie in SQLite, through a cache of fewer, and tells what the heap
// holds afterwards.
func Memory(ctx context.Context, persons, cache int) (string, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	db, reads, err := dialect.OpenSQLite(ctx, filepath.Join(dir, "keys.db"))
	if err != nil {
		return "", err
	}
	defer db.Close()
	defer reads.Close()
	store, err := sqlstore.Open(ctx, db, "sqlite", &sqlstore.Options{Reads: reads})
	if err != nil {
		return "", err
	}
	k, err := newKeeper(dir, store, &encrypt.Options{CacheEntries: cache, CacheBytes: 1 << 40})
	if err != nil {
		return "", err
	}
	c, err := encrypt.NewCodec[*note](options())
	if err != nil {
		return "", err
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const page = 1000
	v := &note{"x"}
	start := time.Now()
	for from := 0; from < persons; from += page {
		batch := make([]encrypt.Record, page)
		values := make([]*note, page)
		for i := range batch {
			batch[i], values[i] = place(from+i), v
		}
		if _, err := c.SealAll(ctx, k, batch, values); err != nil {
			return "", err
		}
	}
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	h := k.Health("default")
	return fmt.Sprintf("%d person keys made in SQLite in %.0f s through a cache of %d: %d cached, heap grown by %.1f MiB (%d bytes a key)",
		persons, took.Seconds(), cache, h.Persons, float64(held)/(1<<20), held/int64(max(1, h.Persons))), nil
}

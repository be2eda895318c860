package intake

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Keeper seals the private halves under the tenant's key; encrypt.Keeper is one.
type Keeper interface {
	SealTenant(ctx context.Context, tenant, label string, ad, plaintext []byte) ([]byte, error)
	OpenTenant(ctx context.Context, tenant, label string, ad, sealed []byte) ([]byte, error)
}

// label is the Keeper's label of private halves.
const label = "intake"

var (
	errExists  = errors.New("intake: the record exists already")
	errRetired = fmt.Errorf("intake: the key is destroyed: %w", keys.ErrRetired)
)

// Options of a Box.
type Options struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Box opens what was sealed to a tenant.
type Box struct {
	tenant string
	keeper Keeper
	store  Store
	now    func() time.Time
	making sync.Mutex // one new pair at a time in this process
}

// NewBox returns the Box of tenant. It reads nothing yet. Error: a tenant's name that is empty or longer than 200 bytes.
func NewBox(tenant string, keeper Keeper, store Store, opts *Options) (*Box, error) {
	if tenant == "" || len(tenant) > maxTenant {
		return nil, fmt.Errorf("intake: a tenant has 1 to %d bytes", maxTenant)
	}
	b := &Box{tenant: tenant, keeper: keeper, store: store, now: time.Now}
	if opts != nil && opts.Now != nil {
		b.now = opts.Now
	}
	return b, nil
}

// Public returns the key for the form's hosts, with at least a day left. It makes a new pair when there is none.
// Several processes that do so at once make several, all of which open.
func (b *Box) Public(ctx context.Context) (*Public, error) {
	b.making.Lock()
	defer b.making.Unlock()
	records, err := b.store.List(ctx, b.tenant)
	if err != nil {
		return nil, err
	}
	now := b.now().Unix()
	var best *Public
	for _, r := range records {
		p, err := b.public(r)
		if err != nil || p.notBefore > now || p.notAfter < now+int64(grace/time.Second) {
			continue // a forged record is found when it is opened or swept
		}
		if best == nil || p.notAfter > best.notAfter || p.notAfter == best.notAfter && bytes.Compare(p.id[:], best.id[:]) < 0 {
			best = p
		}
	}
	if best != nil {
		// A record that somebody put there must not become the key that visitors seal to.
		for _, r := range records {
			if r.ID == best.id {
				if _, err := b.private(ctx, best, r); err != nil {
					return nil, err
				}
			}
		}
		return best, nil
	}
	return b.make(ctx, now)
}

// make makes and keeps a new pair.
func (b *Box) make(ctx context.Context, now int64) (*Public, error) {
	kem := hpke.MLKEM768X25519()
	seed := make([]byte, seedSize)
	rand.Read(seed)
	defer clear(seed)
	key, err := kem.NewPrivateKey(seed)
	if err != nil {
		return nil, errors.New("intake: cannot make a key")
	}
	p, err := newPublic(b.tenant, now-int64(skew/time.Second), now+int64(week/time.Second), key.PublicKey())
	if err != nil {
		return nil, err
	}
	sealed, err := b.keeper.SealTenant(ctx, b.tenant, label, p.raw, seed)
	if err != nil {
		return nil, err
	}
	if err := b.store.Add(ctx, b.tenant, Record{p.id, p.Marshal(), sealed}); err != nil {
		return nil, err
	}
	return p, nil
}

// public checks what a record says about itself.
func (b *Box) public(r Record) (*Public, error) {
	p, err := ParsePublic(r.Public)
	if err != nil || p.id != r.ID || p.tenant != b.tenant {
		return nil, keys.ErrTampered
	}
	return p, nil
}

// private opens the private half of p.
func (b *Box) private(ctx context.Context, p *Public, r Record) (hpke.PrivateKey, error) {
	seed, err := b.keeper.OpenTenant(ctx, b.tenant, label, p.raw, r.Sealed)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	key, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	if err != nil || !bytes.Equal(key.PublicKey().Bytes(), p.key.Bytes()) {
		return nil, keys.ErrTampered
	}
	return key, nil
}

// Open opens what Public.Seal sealed with the same ad, until one day after the key's NotAfter. Errors: keys.ErrTampered,
// keys.ErrRetired, keys.ErrKeyMissing, those of the store and the Keeper.
func (b *Box) Open(ctx context.Context, ad, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || len(sealed) > Overhead+MaxPlaintext || sealed[0] != sealedVersion {
		return nil, keys.ErrTampered
	}
	head, enc, body := sealed[:headSize], sealed[headSize:headSize+encSize], sealed[headSize+encSize:]
	id := ID(head[1:17])
	ends := binary.BigEndian.Uint64(head[17:])
	if ends >= 1<<40 {
		return nil, keys.ErrTampered
	}
	records, err := b.store.List(ctx, b.tenant)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(records, func(r Record) bool { return r.ID == id })
	if at < 0 {
		if b.over(int64(ends)) {
			return nil, errRetired
		}
		return nil, fmt.Errorf("intake: no such key: %w", keys.ErrKeyMissing)
	}
	p, err := b.public(records[at])
	if err != nil {
		return nil, err
	}
	if p.notAfter != int64(ends) {
		return nil, keys.ErrTampered
	}
	if b.over(p.notAfter) { // not yet swept, or put back
		return nil, errRetired
	}
	key, err := b.private(ctx, p, records[at])
	if err != nil {
		return nil, err
	}
	r, err := hpke.NewRecipient(enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), p.info(head))
	if err != nil {
		return nil, keys.ErrTampered
	}
	plaintext, err := r.Open(ad, body)
	if err != nil {
		return nil, keys.ErrTampered
	}
	return plaintext, nil
}

// over tells whether a key that seals until notAfter opens no more.
func (b *Box) over(notAfter int64) bool {
	return b.now().Unix() > notAfter+int64(grace/time.Second)
}

// Sweep destroys the keys whose last day is over and returns how many. Call it daily. A record that is
// not in order is left for an investigation: keys.ErrTampered, after the others were destroyed.
func (b *Box) Sweep(ctx context.Context) (int, error) {
	records, err := b.store.List(ctx, b.tenant)
	if err != nil {
		return 0, err
	}
	n := 0
	var bad error
	for _, r := range records {
		p, err := b.public(r)
		if err != nil {
			bad = err
			continue
		}
		if !b.over(p.notAfter) {
			continue
		}
		if err := b.store.Delete(ctx, b.tenant, r.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, bad
}

package encrypt

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// The purposes of tenant keys.
const (
	purposeIndex  = "index"
	purposeMAC    = "mac"
	purposeSecret = "secret"
	purposeTomb   = "tombstone"
)

// kekPatience bounds one call of a keys.KEK that has no deadline of its own.
const kekPatience = 15 * time.Second

// tenant is the state of one tenant in a Keeper.
type tenant struct {
	name    string
	erasure uint64        // last number seen; guarded by the cache's mutex, as the keys it vouches for
	loading chan struct{} // holds one token: who has it may ask the keys.KEK

	mu      sync.Mutex
	keys    *tenantKeys
	retryAt time.Time // after a failure the keys.KEK is left alone until then
}

// tenantKeys are the opened epoch and tenant keys. They never change; a reload makes new ones.
type tenantKeys struct {
	epochs  map[keys.ID]tink.AEAD
	current keys.ID
	version uint32 // of the current epoch
	loaded  time.Time

	index, mac, tomb []byte
	secret           []byte
	secretID         keys.ID

	mu      sync.RWMutex
	indexes map[indexRef]*indexKey
	labels  map[string]tink.AEAD // of SealTenant
}

type indexRef struct{ typ, field, kind, normalizer string }

func (k *Keeper) tenant(name string) (*tenant, error) {
	if err := checkTenant(name); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tenants[name]
	if t == nil {
		t = &tenant{name: name, loading: make(chan struct{}, 1)}
		k.tenants[name] = t
	}
	return t, nil
}

// tenantKeys returns the tenant's opened keys. Past Refresh the keys.KEK is asked again; when it is
// away they serve reads and writes for as long as the Options allow.
func (k *Keeper) tenantKeys(ctx context.Context, t *tenant, write bool) (*tenantKeys, error) {
	bound := k.opts.Refresh + k.opts.StaleReads
	if write {
		bound = k.opts.Refresh + k.opts.StaleWrites
	}
	now := k.opts.Now()
	t.mu.Lock()
	tk, retryAt := t.keys, t.retryAt
	t.mu.Unlock()
	if tk != nil && now.Sub(tk.loaded) < k.opts.Refresh {
		return tk, nil
	}
	usable := tk != nil && now.Sub(tk.loaded) < bound
	if now.Before(retryAt) {
		if usable {
			return tk, nil
		}
		return nil, ErrKMSUnavailable
	}
	if usable {
		select {
		case t.loading <- struct{}{}:
		default:
			return tk, nil // another caller asks the keys.KEK already
		}
	} else {
		select {
		case t.loading <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-t.loading }()
	t.mu.Lock()
	latest, retryAt := t.keys, t.retryAt
	t.mu.Unlock()
	if latest != nil && latest != tk {
		return latest, nil // loaded while we waited
	}
	if !usable && now.Before(retryAt) {
		return nil, ErrKMSUnavailable
	}
	fresh, err := k.loadTenant(ctx, t)
	if err == nil {
		return fresh, nil
	}
	if errors.Is(err, ErrKMSUnavailable) {
		t.mu.Lock()
		t.retryAt = k.opts.Now().Add(time.Second)
		t.mu.Unlock()
		if usable {
			return tk, nil
		}
	}
	return nil, err
}

// reload reads the tenant's keys again, unless somebody has since old was read.
func (k *Keeper) reload(ctx context.Context, t *tenant, old *tenantKeys) (*tenantKeys, error) {
	select {
	case t.loading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-t.loading }()
	t.mu.Lock()
	now := t.keys
	t.mu.Unlock()
	if now != nil && now != old {
		return now, nil
	}
	return k.loadTenant(ctx, t)
}

// loadTenant reads, opens and installs the tenant's keys, and makes them for a new tenant. The
// caller holds the loading token.
func (k *Keeper) loadTenant(ctx context.Context, t *tenant) (*tenantKeys, error) {
	records, err := k.keys.Find(ctx, t.name, keys.Query{Tenant: true})
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		if err := k.foundTenant(ctx, t.name); err != nil {
			return nil, err
		}
		if records, err = k.keys.Find(ctx, t.name, keys.Query{Tenant: true}); err != nil {
			return nil, err
		}
	}
	tk := &tenantKeys{
		epochs: make(map[keys.ID]tink.AEAD), indexes: make(map[indexRef]*indexKey),
		labels: make(map[string]tink.AEAD), loaded: k.opts.Now(),
	}
	for i := range records {
		r := &records[i]
		if r.Kind != keys.EpochKey || len(r.Wrapped) == 0 {
			continue
		}
		a, err := k.openEpoch(ctx, r)
		if err != nil {
			return nil, err
		}
		tk.epochs[r.ID] = a
		if r.Version > tk.version {
			tk.current, tk.version = r.ID, r.Version
		}
	}
	for i := range records {
		r := &records[i]
		if r.Kind != keys.TenantKey || r.Version != 1 {
			continue
		}
		key, err := tk.unwrap(r)
		if err != nil {
			return nil, err
		}
		switch r.Purpose {
		case purposeIndex:
			tk.index = key
		case purposeMAC:
			tk.mac = key
		case purposeSecret:
			tk.secret, tk.secretID = key, r.ID
		case purposeTomb:
			tk.tomb = key
		}
	}
	if tk.version == 0 || tk.index == nil || tk.mac == nil || tk.secret == nil || tk.tomb == nil {
		return nil, fmt.Errorf("%w: a tenant key", ErrKeyMissing)
	}
	t.mu.Lock()
	t.keys, t.retryAt = tk, time.Time{}
	t.mu.Unlock()
	return tk, nil
}

// foundTenant makes the first epoch key and the tenant keys, in one transaction: of two processes
// that do it at once the second one adds nothing.
func (k *Keeper) foundTenant(ctx context.Context, name string) error {
	now := k.opts.Now().UTC().Truncate(time.Second)
	epoch, a, err := k.newEpoch(ctx, name, 1, now)
	if err != nil {
		return err
	}
	tk := &tenantKeys{epochs: map[keys.ID]tink.AEAD{epoch.ID: a}, current: epoch.ID}
	records := []keys.Record{epoch}
	for _, purpose := range []string{purposeIndex, purposeMAC, purposeSecret, purposeTomb} {
		r, err := tk.newKey(keys.Record{
			Tenant: name, ID: randomID(), Kind: keys.TenantKey, Version: 1, Purpose: purpose, Created: now,
		})
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	return k.keys.Add(ctx, name, records)
}

// newEpoch makes an epoch key: a Tink keyset of one XAES-256-GCM key, wrapped by the keys.KEK.
func (k *Keeper) newEpoch(ctx context.Context, tenant string, version uint32, now time.Time) (keys.Record, tink.AEAD, error) {
	r := keys.Record{
		Tenant: tenant, ID: randomID(), Kind: keys.EpochKey, Version: version, Purpose: k.kek.ID(), Created: now,
	}
	h, err := keyset.NewHandle(aead.XAES256GCM192BitNonceKeyTemplate())
	if err != nil {
		return r, nil, errors.New("encrypt: cannot make an epoch key")
	}
	a, err := aead.New(h)
	if err != nil {
		return r, nil, errors.New("encrypt: cannot make an epoch key")
	}
	ctx, cancel := context.WithTimeout(ctx, kekPatience)
	defer cancel()
	var buf bytes.Buffer
	through := &kekAEAD{kek: k.kek, outer: ctx}
	if err := h.WriteWithContext(ctx, keyset.NewBinaryWriter(&buf), through, epochAD(&r)); err != nil {
		return r, nil, through.cause()
	}
	r.Wrapped = buf.Bytes()
	return r, a, nil
}

func (k *Keeper) openEpoch(ctx context.Context, r *keys.Record) (tink.AEAD, error) {
	ctx, cancel := context.WithTimeout(ctx, kekPatience)
	defer cancel()
	through := &kekAEAD{kek: k.kek, outer: ctx}
	h, err := keyset.ReadWithContext(ctx, keyset.NewBinaryReader(bytes.NewReader(r.Wrapped)), through, epochAD(r))
	if err != nil {
		return nil, through.cause()
	}
	p, err := h.Primary()
	if err != nil || h.Len() != 1 {
		return nil, ErrTampered
	}
	if _, ok := p.Key().(*xaesgcm.Key); !ok {
		return nil, ErrTampered
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, ErrTampered
	}
	return a, nil
}

// kekAEAD shows a keys.KEK to Tink and remembers the keys.KEK's own error.
type kekAEAD struct {
	kek   keys.KEK
	outer context.Context
	err   error
}

func (a *kekAEAD) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	out, err := a.kek.Wrap(ctx, plaintext, ad)
	a.err = err
	return out, err
}

func (a *kekAEAD) DecryptWithContext(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	out, err := a.kek.Unwrap(ctx, wrapped, ad)
	a.err = err
	return out, err
}

// cause turns a failure into an error of this package. A keys.KEK that does not answer in time is
// unavailable; the caller's own cancellation is the caller's.
func (a *kekAEAD) cause() error {
	switch {
	case a.err == nil:
		return ErrTampered // the keys.KEK was content, the keyset inside was not
	case errors.Is(a.err, ErrTampered), errors.Is(a.err, ErrAuth), errors.Is(a.err, ErrKMSUnavailable), errors.Is(a.err, context.Canceled):
		return a.err
	case errors.Is(a.err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer in time", ErrKMSUnavailable)
	}
	return fmt.Errorf("encrypt: key service: %w", a.err)
}

// epochAD is what the keys.KEK authenticates with an epoch key.
func epochAD(r *keys.Record) []byte {
	var v [4]byte
	binary.BigEndian.PutUint32(v[:], r.Version)
	ad := appendPart(nil, labelEpoch)
	ad = appendPart(ad, r.Tenant)
	ad = appendBytesPart(ad, r.ID[:])
	return appendBytesPart(ad, v[:])
}

// keyAD is what an epoch key authenticates with a tenant or person key.
func keyAD(r *keys.Record) []byte {
	var v [4]byte
	binary.BigEndian.PutUint32(v[:], r.Version)
	ad := appendPart(nil, labelKey)
	ad = appendPart(ad, r.Tenant)
	ad = appendBytesPart(ad, r.ID[:])
	ad = appendPart(ad, string(r.Kind))
	ad = appendBytesPart(ad, v[:])
	ad = appendPart(ad, r.Purpose)
	ad = appendBytesPart(ad, r.Person[:])
	ad = appendPart(ad, string(r.Retention))
	return appendBytesPart(ad, r.Epoch[:])
}

// newKey fills in Epoch, Wrapped and Commitment of a fresh random key.
func (tk *tenantKeys) newKey(r keys.Record) (keys.Record, error) {
	key := make([]byte, 32)
	rand.Read(key)
	defer clear(key)
	r.Commitment = commitment(key, r.Tenant, r.ID)
	return tk.wrap(r, key)
}

// wrap wraps key under the current epoch.
func (tk *tenantKeys) wrap(r keys.Record, key []byte) (keys.Record, error) {
	r.Epoch = tk.current
	wrapped, err := tk.epochs[tk.current].Encrypt(key, keyAD(&r))
	if err != nil {
		return keys.Record{}, errors.New("encrypt: cannot wrap a key")
	}
	r.Wrapped = wrapped
	return r, nil
}

// unwrap opens a tenant or person key and checks its commitment.
func (tk *tenantKeys) unwrap(r *keys.Record) ([]byte, error) {
	a := tk.epochs[r.Epoch]
	if a == nil {
		return nil, ErrRetired
	}
	key, err := a.Decrypt(r.Wrapped, keyAD(r))
	if err != nil || len(key) != 32 || !hmac.Equal(commitment(key, r.Tenant, r.ID), r.Commitment) {
		return nil, fmt.Errorf("%w: key record", ErrTampered)
	}
	return key, nil
}

// indexKey returns the key of one index, derived once.
func (tk *tenantKeys) indexKey(ref indexRef) *indexKey {
	tk.mu.RLock()
	x := tk.indexes[ref]
	tk.mu.RUnlock()
	if x != nil {
		return x
	}
	tk.mu.Lock()
	defer tk.mu.Unlock()
	if x = tk.indexes[ref]; x == nil {
		x = newIndexKey(expand(tk.index, labelIndex, ref.typ, ref.field, ref.kind, ref.normalizer))
		if len(tk.indexes) < 4096 {
			tk.indexes[ref] = x
		}
	}
	return x
}

// secretAEAD returns the XAES-256-GCM of a SealTenant label, derived once.
func (tk *tenantKeys) secretAEAD(label string) (tink.AEAD, error) {
	tk.mu.Lock()
	defer tk.mu.Unlock()
	if a := tk.labels[label]; a != nil {
		return a, nil
	}
	a, err := newXAES(expand(tk.secret, labelSubkey, label))
	if err != nil {
		return nil, err
	}
	if len(tk.labels) < 64 {
		tk.labels[label] = a
	}
	return a, nil
}

// newXAES makes XAES-256-GCM (192-bit nonce, no Tink prefix) of 32 key bytes.
func newXAES(key []byte) (tink.AEAD, error) {
	params, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, 12)
	if err != nil {
		return nil, err
	}
	xk, err := xaesgcm.NewKey(secretdata.NewBytesFromData(key, insecuresecretdataaccess.Token{}), 0, params)
	if err != nil {
		return nil, err
	}
	m := keyset.NewManager()
	id, err := m.AddKey(xk)
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return aead.New(h)
}

package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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

// kekPatience bounds one call of a KEK that has no deadline of its own.
const kekPatience = 15 * time.Second

// fenced is how often a new epoch key is wrapped again because somebody looked through the KEK's versions meanwhile.
const fenced = 9

// flightPatience bounds the loading of a tenant's keys: a call of the KEK for each epoch key, of which there are two
// during a rotation, and the queries of the store.
const flightPatience = 4 * kekPatience

// tenant is the state of one tenant in a Keeper.
type tenant struct {
	name      string
	keys      atomic.Pointer[tenantKeys]
	erasure   atomic.Uint64 // the erasure number that the cached keys are vouched for by
	admits    atomic.Uint64 // the number under which a key may be cached; ahead of erasure while ended ones are dropped
	observing chan struct{} // holds one token: who has it may raise erasure
	loading   chan struct{} // holds one token: who has it may ask the KEK

	mu      sync.Mutex
	retryAt time.Duration // after a failure the KEK is left alone until then
	failed  error         // the last failure since the KEK answered
}

// tenantKeys are the opened epoch and tenant keys. They never change; a reload makes new ones.
type tenantKeys struct {
	epochs  map[keys.ID]openEpoch
	ended   map[keys.ID]bool // epoch keys whose records say that they are retired
	current keys.ID
	version uint32    // of the current epoch
	began   time.Time // the current epoch
	number  uint64    // the erasure number that was read before the records
	loaded  time.Duration
	asked   time.Duration // when the KEK last opened the current epoch

	index     []indexRoot // by version, at least one
	mac, tomb []byte
	secret    []byte
	secretID  keys.ID

	indexes atomic.Pointer[map[indexAt]*indexKey]
	macs    sync.Pool // hash.Hash under mac, reset: to set one up costs more than a short message
	mu      sync.Mutex
	labels  map[string]tink.AEAD // of SealTenant
}

// openEpoch is an opened epoch key and what it was opened from.
type openEpoch struct {
	aead    tink.AEAD
	wrapped string
	kek     string    // name of the KEK
	began   time.Time // its record
}

// indexRoot is one version of the tenant's index key. The version is also the generation of the person
// keys that are written while it is the newest.
type indexRoot struct {
	version uint32
	id      keys.ID
	key     []byte
}

// newest is the generation that is written, oldest the oldest one that is still read.
func (tk *tenantKeys) newest() uint32 { return tk.index[len(tk.index)-1].version }
func (tk *tenantKeys) oldest() uint32 { return tk.index[0].version }

func (k *Keeper) tenant(name string) (*tenant, error) {
	if t := k.last.Load(); t != nil && t.name == name {
		return t, nil
	}
	if err := checkTenant(name); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tenants[name]
	if t == nil {
		t = &tenant{name: name, loading: make(chan struct{}, 1), observing: make(chan struct{}, 1)}
		k.tenants[name] = t
	}
	k.last.Store(t)
	return t, nil
}

// tenantKeys returns the tenant's opened keys. Past Refresh the KEK is asked again; when it is
// away they serve reads and writes for as long as the Options allow.
func (k *Keeper) tenantKeys(ctx context.Context, t *tenant, write bool) (*tenantKeys, error) {
	bound := k.opts.Refresh + k.opts.StaleReads
	if write {
		bound = k.opts.Refresh + k.opts.StaleWrites
	}
	now := k.clock()
	tk := t.keys.Load()
	if tk != nil && now-tk.loaded < k.opts.Refresh {
		return tk, nil
	}
	usable := tk != nil && now-tk.asked < bound
	if err := t.resting(now); err != nil {
		if usable && errors.Is(err, ErrKMSUnavailable) {
			return tk, nil
		}
		return nil, err
	}
	if usable {
		select {
		case t.loading <- struct{}{}:
		default:
			return tk, nil // another caller asks the KEK already
		}
	} else {
		select {
		case t.loading <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if latest := t.keys.Load(); latest != nil && latest != tk {
		<-t.loading
		return latest, nil // loaded while we waited
	}
	if err := t.resting(now); err != nil && !usable {
		<-t.loading
		return nil, err // it failed while we waited
	}
	fresh, err := k.flight(ctx, t, true, write)
	if err == nil {
		return fresh, nil
	}
	if usable && errors.Is(err, ErrKMSUnavailable) {
		return tk, nil
	}
	return nil, err
}

// resting returns why the KEK did not answer a moment ago: it is left alone for a while then.
func (t *tenant) resting(now time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now < t.retryAt {
		return t.failed
	}
	return nil
}

// reload reads the tenant's keys again, unless somebody has since old was read. The KEK is only asked for
// epoch keys that are not open yet.
func (k *Keeper) reload(ctx context.Context, t *tenant, old *tenantKeys) (*tenantKeys, error) {
	select {
	case t.loading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if now := t.keys.Load(); now != nil && now != old {
		<-t.loading
		return now, nil
	}
	return k.flight(ctx, t, false, false)
}

// reloadNow reads the tenant's keys again, whoever else has.
func (k *Keeper) reloadNow(ctx context.Context, t *tenant) (*tenantKeys, error) {
	select {
	case t.loading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t.mu.Lock()
	t.retryAt = 0 // a job that somebody began does not wait
	t.mu.Unlock()
	return k.flight(ctx, t, false, false)
}

// flight runs loadTenant for everybody who waits for it. It takes as long as the key service may, however little time
// the caller has who began it: a caller whose context ends leaves with that context's error, the flight goes on, and
// no failure of the service is noted. The caller holds the loading token and hands it over.
func (k *Keeper) flight(ctx context.Context, t *tenant, ask, write bool) (*tenantKeys, error) {
	type landed struct {
		tk  *tenantKeys
		err error
	}
	done := make(chan landed, 1)
	go func() {
		far, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightPatience)
		defer cancel()
		tk, err := k.loadTenant(far, t, ask, write)
		<-t.loading
		done <- landed{tk, err}
	}()
	select {
	case l := <-done:
		return l.tk, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// loadTenant reads, opens and installs the tenant's keys, and for a write makes them for a new tenant.
// ask says to open every epoch key anew, so that a KEK that is away or has ended is noticed. The
// caller holds the loading token, and has no deadline of a client's.
func (k *Keeper) loadTenant(ctx context.Context, t *tenant, ask, write bool) (*tenantKeys, error) {
	tk, err := k.readTenant(ctx, t, ask, write)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		if errors.Is(err, ErrKMSUnavailable) || errors.Is(err, ErrAuth) {
			t.failed, t.retryAt = err, k.clock()+time.Second
		}
		return nil, err
	}
	t.failed = nil
	t.keys.Store(tk)
	return tk, nil
}

func (k *Keeper) readTenant(ctx context.Context, t *tenant, ask, write bool) (*tenantKeys, error) {
	// The number first: what is read afterwards is at least as new.
	number, err := k.keys.Erasures(ctx, t.name)
	if err != nil {
		return nil, err
	}
	records, err := k.keys.Find(ctx, t.name, keys.Query{Tenant: true})
	if err != nil {
		return nil, err
	}
	known := map[keys.ID]openEpoch{}
	old := t.keys.Load()
	if old != nil && !ask {
		known = old.epochs
	}
	if len(records) == 0 {
		if !write {
			return nil, fmt.Errorf("%w: the tenant has none", ErrKeyMissing)
		}
		// A tenant that has anything had keys: new ones in the place of lost ones would make all that it has
		// unreadable without a word.
		any, err := k.keys.Find(ctx, t.name, keys.Query{All: true, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(any) == 0 && number <= 1 {
			if known, err = k.foundTenant(ctx, t.name); err != nil {
				return nil, err
			}
		}
		if records, err = k.keys.Find(ctx, t.name, keys.Query{Tenant: true}); err != nil {
			return nil, err
		}
		if len(records) == 0 {
			return nil, fmt.Errorf("%w: all epoch and tenant keys, though the tenant has other records or erasures", ErrKeyMissing)
		}
	}
	now := k.clock()
	tk := &tenantKeys{
		epochs: make(map[keys.ID]openEpoch), ended: make(map[keys.ID]bool), labels: make(map[string]tink.AEAD), number: number, loaded: now, asked: now,
	}
	asked := false
	for i := range records {
		r := &records[i]
		if r.Kind != keys.EpochKey {
			continue
		}
		if len(r.Wrapped) == 0 {
			tk.ended[r.ID] = true
			continue
		}
		e := known[r.ID]
		if e.aead == nil || e.wrapped != string(r.Wrapped) {
			if !ask {
				if err := t.resting(now); err != nil {
					return nil, err
				}
			}
			if e.aead, err = k.openEpoch(ctx, r); err != nil {
				return nil, err
			}
			e.wrapped, e.kek, e.began, asked = string(r.Wrapped), r.Purpose, r.Created, true
		}
		tk.epochs[r.ID] = e
		if r.Version > tk.version {
			tk.current, tk.version, tk.began = r.ID, r.Version, r.Created
		}
	}
	if old != nil && !asked {
		tk.loaded, tk.asked = old.loaded, old.asked // a look at the store is no answer of the KEK
	}
	for i := range records {
		r := &records[i]
		if r.Kind != keys.TenantKey || len(r.Wrapped) == 0 {
			continue
		}
		key, err := tk.unwrap(r)
		if err != nil {
			return nil, err
		}
		switch r.Purpose {
		case purposeIndex:
			tk.index = append(tk.index, indexRoot{r.Version, r.ID, key})
		case purposeMAC:
			tk.mac = key
		case purposeSecret:
			tk.secret, tk.secretID = key, r.ID
		case purposeTomb:
			tk.tomb = key
		}
	}
	slices.SortFunc(tk.index, func(a, b indexRoot) int { return cmp.Compare(a.version, b.version) })
	if tk.version == 0 || len(tk.index) == 0 || tk.mac == nil || tk.secret == nil || tk.tomb == nil {
		return nil, fmt.Errorf("%w: a tenant key", ErrKeyMissing)
	}
	t.admits.CompareAndSwap(0, number)
	t.erasure.CompareAndSwap(0, number)
	return tk, nil
}

// foundTenant makes the first epoch key and the tenant keys, in one transaction: of two processes
// that do it at once the second one adds nothing.
func (k *Keeper) foundTenant(ctx context.Context, name string) (map[keys.ID]openEpoch, error) {
	for attempt := 0; ; attempt++ {
		now := k.now()
		epoch, a, err := k.newEpoch(ctx, name, 1, now)
		if err != nil {
			return nil, err
		}
		known := map[keys.ID]openEpoch{epoch.ID: {a, string(epoch.Wrapped), epoch.Purpose, epoch.Created}}
		tk := &tenantKeys{epochs: known, current: epoch.ID}
		records := []keys.Record{epoch}
		for _, purpose := range []string{purposeIndex, purposeMAC, purposeSecret, purposeTomb} {
			r, err := tk.newKey(keys.Record{
				Tenant: name, ID: randomID(), Kind: keys.TenantKey, Version: 1, Purpose: purpose, Created: now,
			})
			if err != nil {
				return nil, err
			}
			records = append(records, r)
		}
		// ErrRetired: meanwhile the KEK's versions were looked through, to end some.
		if err = k.keys.Add(ctx, name, records); !errors.Is(err, ErrRetired) || attempt == fenced {
			return known, err
		}
	}
}

// newEpoch makes an epoch key: a Tink keyset of one XAES-256-GCM key, wrapped by the KEK.
func (k *Keeper) newEpoch(ctx context.Context, tenant string, version uint32, now time.Time) (keys.Record, tink.AEAD, error) {
	kek, err := k.kekOf(ctx, tenant)
	if err != nil {
		return keys.Record{}, nil, err
	}
	fence, err := k.keys.Fence(ctx, kek.ID())
	if err != nil {
		return keys.Record{}, nil, err
	}
	r := keys.Record{
		Tenant: tenant, ID: randomID(), Kind: keys.EpochKey, Version: version, Purpose: kek.ID(), Created: now, Fence: fence,
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
	through := &kekAEAD{kek: kek}
	if err := h.WriteWithContext(ctx, keyset.NewBinaryWriter(&buf), through, epochAD(&r)); err != nil {
		return r, nil, through.cause()
	}
	r.Wrapped = buf.Bytes()
	return r, a, nil
}

func (k *Keeper) openEpoch(ctx context.Context, r *keys.Record) (tink.AEAD, error) {
	ctx, cancel := context.WithTimeout(ctx, kekPatience)
	defer cancel()
	kek, err := k.kekNamed(ctx, r.Tenant, r.Purpose)
	if err != nil {
		return nil, err
	}
	through := &kekAEAD{kek: kek}
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

// kekAEAD shows a KEK to Tink and remembers the KEK's own error.
type kekAEAD struct {
	kek keys.KEK
	err error
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

// cause turns a failure into an error of this package. A KEK that does not answer in time is
// unavailable; the caller's own cancellation is the caller's.
func (a *kekAEAD) cause() error {
	switch {
	case a.err == nil:
		return ErrTampered // the KEK was content, the keyset inside was not
	case errors.Is(a.err, ErrTampered), errors.Is(a.err, ErrAuth), errors.Is(a.err, ErrKMSUnavailable), errors.Is(a.err, context.Canceled):
		return a.err
	case errors.Is(a.err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer in time", ErrKMSUnavailable)
	}
	return fmt.Errorf("encrypt: key service: %w", a.err)
}

// epochAD is what the KEK authenticates with an epoch key.
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
	ad := appendPart(make([]byte, 0, 192), labelKey)
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
	return tk.sealKey(r, key)
}

// sealKey fills in Epoch, Wrapped and Commitment of a key.
func (tk *tenantKeys) sealKey(r keys.Record, key []byte) (keys.Record, error) {
	r.Commitment = commitment(key, r.Tenant, r.ID)
	return tk.wrap(r, key)
}

// wrap wraps key under the current epoch.
func (tk *tenantKeys) wrap(r keys.Record, key []byte) (keys.Record, error) {
	r.Epoch = tk.current
	wrapped, err := tk.epochs[tk.current].aead.Encrypt(key, keyAD(&r))
	if err != nil {
		return keys.Record{}, errors.New("encrypt: cannot wrap a key")
	}
	r.Wrapped = wrapped
	return r, nil
}

// unwrap opens a tenant or person key and checks its commitment.
func (tk *tenantKeys) unwrap(r *keys.Record) ([]byte, error) {
	a := tk.epochs[r.Epoch].aead
	switch {
	case a != nil:
	case tk.ended[r.Epoch]:
		return nil, errRewrapped
	default: // no record of an epoch key ever leaves
		return nil, fmt.Errorf("%w: epoch key %s", ErrKeyMissing, r.Epoch)
	}
	key, err := a.Decrypt(r.Wrapped, keyAD(r))
	if err != nil || len(key) != 32 || !hmac.Equal(commitment(key, r.Tenant, r.ID), r.Commitment) {
		return nil, fmt.Errorf("%w: key record", ErrTampered)
	}
	return key, nil
}

// indexAt names an index key to its cache.
type indexAt struct {
	ref  *indexRef
	root int
}

// indexKey returns the key of one index under one version of the tenant's index key, derived once.
func (tk *tenantKeys) indexKey(ref *indexRef, root int) *indexKey {
	at := indexAt{ref, root}
	if all := tk.indexes.Load(); all != nil {
		if x := (*all)[at]; x != nil {
			return x
		}
	}
	x := newIndexKey(expand(tk.index[root].key, labelIndex, ref.typ, ref.field, ref.kind, ref.normalizer), ref.bits)
	tk.mu.Lock()
	defer tk.mu.Unlock()
	more := make(map[indexAt]*indexKey)
	if all := tk.indexes.Load(); all != nil {
		maps.Copy(more, *all)
	}
	more[at] = x
	tk.indexes.Store(&more)
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

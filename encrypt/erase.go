package encrypt

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Erase destroys the person's keys of the given retention classes: every value sealed under them,
// wherever a copy lies, no longer opens once the wrapped keys are gone everywhere. In the place of
// each key stays a tombstone, authentic under a tenant key that never rotates. The erasure number
// grows, so that no other process serves a cached key at its next read. A later Seal for the same
// person makes a new key.
//
// Legal holds and graces are the caller's to keep. Errors: ErrKMSUnavailable, ErrAuth, ErrTampered.
func (k *Keeper) Erase(ctx context.Context, tenant string, person [16]byte, classes ...keys.Retention) (Receipt, error) {
	if len(classes) == 0 {
		return Receipt{}, errors.New("encrypt: erase which retention classes?")
	}
	t, err := k.tenant(tenant)
	if err != nil {
		return Receipt{}, err
	}
	tk, err := k.tenantKeys(ctx, t, true)
	if err != nil {
		return Receipt{}, err
	}
	records, err := k.keys.Find(ctx, tenant, keys.Query{Persons: [][16]byte{person}})
	if err != nil {
		return Receipt{}, err
	}
	out := Receipt{At: k.opts.Now().UTC().Truncate(time.Second)}
	var tombs []keys.Record
	for _, r := range records {
		if !slices.Contains(classes, r.Retention) {
			continue
		}
		tomb := keys.Record{
			Tenant: tenant, ID: r.ID, Kind: keys.Tombstone, Retention: r.Retention, Created: out.At,
			Commitment: tk.tombOwner(tenant, r.ID, person),
		}
		tomb.Wrapped = tk.tombMAC(&tomb)
		tombs = append(tombs, tomb)
		out.Keys = append(out.Keys, r.ID)
	}
	if len(tombs) == 0 {
		out.Number, err = k.keys.Erasures(ctx, tenant)
		return out, err
	}
	if out.Number, err = k.keys.Erase(ctx, tenant, tombs); err != nil {
		return Receipt{}, err
	}
	k.cache.mu.Lock()
	defer k.cache.mu.Unlock()
	for _, id := range out.Keys {
		k.cache.drop(keyRef{tenant, id})
	}
	return out, nil
}

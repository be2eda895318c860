package encrypt

import (
	"context"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// MissingKeys tells which sealed values, by their places, name a key that the store neither has nor knows
// as destroyed, or that a rotation has ended, or whose epoch key is gone: nobody will open them again, unless a
// backup of the keys is brought back. Nothing is opened and the KEK is not asked. A value that is too short to name a key counts as missing.
func (k *Keeper) MissingKeys(ctx context.Context, tenant string, sealed [][]byte) ([]int, error) {
	if err := checkTenant(tenant); err != nil {
		return nil, err
	}
	known := map[keys.ID]bool{}
	for _, data := range sealed {
		if h, err := parseHeader(data); err == nil {
			known[h.key] = false
		}
	}
	ids := make([]keys.ID, 0, len(known))
	for id := range known {
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		records, err := k.keys.Find(ctx, tenant, keys.Query{IDs: ids})
		if err != nil {
			return nil, err
		}
		// The epoch keys after the keys that name them: an epoch key that is not there now never was, or is lost.
		roots, err := k.keys.Find(ctx, tenant, keys.Query{Tenant: true})
		if err != nil {
			return nil, err
		}
		epochs := make(map[keys.ID]bool)
		for i := range roots {
			epochs[roots[i].ID] = true
		}
		for i := range records {
			r := &records[i]
			known[r.ID] = r.Kind == keys.Tombstone || len(r.Wrapped) > 0 && epochs[r.Epoch]
		}
	}
	var missing []int
	for i, data := range sealed {
		if h, err := parseHeader(data); err != nil || !known[h.key] {
			missing = append(missing, i)
		}
	}
	return missing, nil
}

package encrypt

import (
	"context"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// MissingKeys tells which sealed values, by their places, name a key that the store neither has nor knows
// as destroyed, or that a rotation has ended: nobody will open them again, unless a backup of the keys is brought
// back. Nothing is
// opened and the KEK is not asked. A value that is too short to name a key counts as missing.
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
		for i := range records {
			known[records[i].ID] = records[i].Kind == keys.Tombstone || len(records[i].Wrapped) > 0
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

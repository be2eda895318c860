package encrypt

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// ExportKeys calls emit for every key record of a tenant, tombstones and retired epoch keys too, in
// the order of their ids. The records hold wrapped keys only: without the KEK they open nothing,
// but with it they do, so they belong where they can be deleted, never in an immutable backup.
// A record may change between two exports (rotation, erasure) under the same id.
func (k *Keeper) ExportKeys(ctx context.Context, tenant string, emit func(id [8]byte, record []byte) error) error {
	if err := checkTenant(tenant); err != nil {
		return err
	}
	var after keys.ID
	for {
		records, err := k.keys.Find(ctx, tenant, keys.Query{All: true, After: after, Limit: rotateBatch})
		if err != nil || len(records) == 0 {
			return err
		}
		for i := range records {
			b, err := records[i].MarshalBinary()
			if err != nil {
				return err
			}
			if err := emit(records[i].ID, b); err != nil {
				return err
			}
		}
		after = records[len(records)-1].ID
	}
}

// ImportKeys takes exported records back. What exists already is skipped; a tombstone, here or
// among the records, wins over a key. Tombstones are checked before they destroy anything, which
// asks the KEK. A malformed record or one of another tenant is an error before anything is stored.
// Errors: ErrTampered (a forged tombstone), ErrRetired (a key whose epoch key is not among the
// records), keys.ErrTraces after everything else was done, ErrKMSUnavailable, ErrAuth.
func (k *Keeper) ImportKeys(ctx context.Context, tenant string, records [][]byte) error {
	t, err := k.tenant(tenant)
	if err != nil {
		return err
	}
	var roots, tombs, persons []keys.Record
	var traces error
	for i, b := range records {
		var r keys.Record
		if err := r.UnmarshalBinary(b); err != nil || r.Tenant != tenant {
			return fmt.Errorf("%w (record %d)", keys.ErrRecord, i)
		}
		switch r.Kind {
		case keys.EpochKey, keys.TenantKey:
			roots = append(roots, r)
		case keys.Tombstone:
			tombs = append(tombs, r)
		default:
			persons = append(persons, r)
		}
	}
	for i := range roots {
		if roots[i].Kind != keys.EpochKey {
			continue
		}
		if roots[i].Fence, err = k.keys.Fence(ctx, roots[i].Purpose); err != nil {
			return err
		}
	}
	if len(roots) > 0 {
		if err := k.keys.Add(ctx, tenant, roots); err != nil {
			return err
		}
	}
	if len(tombs) > 0 {
		tk, err := k.reloadNow(ctx, t)
		if err != nil {
			return err
		}
		for i := range tombs {
			if !tk.authentic(&tombs[i]) {
				return fmt.Errorf("%w: tombstone", ErrTampered)
			}
		}
		// Traces: the tombstones are in, and the store will overwrite what they stand for later.
		if _, traces = k.keys.Erase(ctx, tenant, tombs); traces != nil && !errors.Is(traces, keys.ErrTraces) {
			return traces
		}
	}
	for len(persons) > 0 {
		n := min(len(persons), rotateBatch)
		if err := k.keys.Add(ctx, tenant, persons[:n]); err != nil {
			return err
		}
		persons = persons[n:]
	}
	return traces
}

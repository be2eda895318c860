package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/crmguard/crmguard/encrypt/keys"
)

const rotateBatch = 500

// Rotate begins a new epoch of a tenant: a new version of the KEK when it can make one, a new epoch
// key, all living person and tenant keys rewrapped under it, the old epoch key retired. Data is not
// touched. progress, which may be nil, hears how many keys are done of how many. When the KEK can trim,
// its versions that no tenant's epoch key needs any more are ended: from then on stray copies of destroyed
// keys open nothing. The KEK ends versions from the oldest, so every tenant under it must be rotated;
// [Keeper.Behind] names those that hold it back. All Keepers of a KEK must share one key store: Rotate
// cannot see the epoch keys of another store, and ends the versions that they need.
//
// A tenant whose KEK is another one now is moved to it.
//
// It is resumable: after an interruption the next Rotate finishes the epoch that was begun, in any
// process. Readers and writers go on meanwhile. Errors: ErrKMSUnavailable, ErrAuth, and ErrTampered
// when key records do not open: a *keys.DamagedError names them. Everything else has then been rewrapped, but the
// old epoch key lives until they were brought back from a copy of the keys, erased, or set aside by
// [Keeper.Quarantine], and Rotate was run again.
func (k *Keeper) Rotate(ctx context.Context, tenant string, progress func(done, total int)) error {
	t, err := k.tenant(tenant)
	if err != nil {
		return err
	}
	kek, err := k.kekOf(ctx, tenant)
	if err != nil {
		return err
	}
	tk, err := k.reloadNow(ctx, t)
	if err != nil {
		return err
	}
	if len(tk.epochs) == 1 || tk.epochs[tk.current].kek != kek.ID() {
		if r, ok := kek.(keys.Rotator); ok {
			// A key that a customer brought may not make versions of itself: then the epoch is new alone.
			err := r.Rotate(ctx)
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("encrypt: new version of the KEK: %w", err)
			}
			k.endless.Store(kek.ID(), err != nil)
		}
		for attempt := 0; ; attempt++ {
			epoch, _, err := k.newEpoch(ctx, tenant, tk.version+1, k.now())
			if err != nil {
				return cmp.Or(ctx.Err(), err) // the caller's own deadline is no outage
			}
			// ErrRetired: meanwhile the KEK's versions were looked through, to end some.
			if err = k.keys.Add(ctx, tenant, []keys.Record{epoch}); err == nil {
				break
			} else if !errors.Is(err, ErrRetired) || attempt == fenced {
				return err
			}
		}
	}
	if tk, err = k.reloadNow(ctx, t); err != nil {
		return err
	}
	var old []keys.ID
	total := 0
	for id := range tk.epochs {
		if id == tk.current {
			continue
		}
		old = append(old, id)
		n, err := k.keys.Retire(ctx, tenant, id)
		if err != nil {
			return err
		}
		total += n
	}
	slices.SortFunc(old, func(a, b keys.ID) int { return slices.Compare(a[:], b[:]) })
	done := 0
	report := func() {
		if progress != nil {
			progress(done, max(done, total))
		}
	}
	report()
	var damaged []keys.Damaged
	for _, epoch := range old {
		for {
			moved, bad, err := k.rewrapAll(ctx, tk, tenant, epoch, func(n int) { done += n; report() })
			if err != nil {
				return err
			}
			left, err := k.keys.Retire(ctx, tenant, epoch)
			if err != nil {
				return err
			}
			if left == 0 {
				break
			}
			if moved == 0 && len(bad) > 0 {
				damaged = append(damaged, bad...)
				break
			}
		}
	}
	if _, err = k.reloadNow(ctx, t); err != nil {
		return err
	}
	err = k.trim(ctx, kek)
	for _, epoch := range old { // a KEK that the tenant has left
		if name := tk.epochs[epoch].kek; err == nil && name != kek.ID() {
			var left keys.KEK
			if left, err = k.kekNamed(ctx, tenant, name); err == nil && left.ID() == name {
				err = k.trim(ctx, left)
			}
		}
	}
	if len(damaged) > 0 {
		return errors.Join(&keys.DamagedError{Records: damaged}, err)
	}
	return err
}

// Quarantine sets key records of persons aside that do not open, as [Keeper.Rotate] names them, so that the epoch can
// end. Each is given to export first, in the form of [Keeper.ExportKeys]; then its wrapped key is emptied for good
// and what it sealed is refused with ErrRetired. The person is sealed for again after Renew, or after
// an Erase. A record that opens, or is no person's, is an error, and nothing is set aside.
// Errors: ErrKeyMissing for an id that is not there, ErrKMSUnavailable, ErrAuth, and those of export.
func (k *Keeper) Quarantine(ctx context.Context, tenant string, ids []keys.ID, export func(id [8]byte, record []byte) error) error {
	if export == nil {
		return errors.New("encrypt: a quarantine needs a place for the records")
	}
	if len(ids) == 0 {
		return nil
	}
	t, err := k.tenant(tenant)
	if err != nil {
		return err
	}
	tk, err := k.reloadNow(ctx, t)
	if err != nil {
		return err
	}
	records, err := k.keys.Find(ctx, tenant, keys.Query{IDs: ids})
	if err != nil {
		return err
	}
	found := make(map[keys.ID]bool)
	for i := range records {
		r := &records[i]
		found[r.ID] = true
		if r.Kind != keys.PersonKey {
			return fmt.Errorf("encrypt: key record %s is no person's", r.ID)
		}
		if len(r.Wrapped) == 0 {
			continue // set aside already
		}
		if key, err := tk.unwrap(r); err == nil {
			clear(key)
			return fmt.Errorf("encrypt: key record %s opens", r.ID)
		} else if !errors.Is(err, ErrTampered) {
			return err
		}
	}
	for _, id := range ids {
		if !found[id] {
			return fmt.Errorf("%w: %s", ErrKeyMissing, id)
		}
	}
	var aside []keys.ID
	for i := range records {
		if r := &records[i]; len(r.Wrapped) > 0 {
			b, err := r.MarshalBinary()
			if err != nil {
				return err
			}
			if err := export(r.ID, b); err != nil {
				return err
			}
			aside = append(aside, r.ID)
		}
	}
	if len(aside) == 0 {
		return nil
	}
	// Blocked first, and for good: so every process that has the key in its cache forgets it, and seals nothing more
	// with a key that is lost.
	if err := k.keys.Block(ctx, tenant, aside, k.now()); err != nil {
		return err
	}
	_, err = k.keys.Retire(ctx, tenant, aside...)
	return err
}

// Behind returns the epoch keys, of any tenant under this tenant's KEK, that began before its newest: while they live,
// the versions of the KEK that wrap them do, and stray copies of destroyed keys of all tenants under those open.
// Oldest first, without their wrapped keys; Version is the epoch's. To end them, Rotate their tenants.
func (k *Keeper) Behind(ctx context.Context, tenant string) ([]keys.Record, error) {
	if err := checkTenant(tenant); err != nil {
		return nil, err
	}
	kek, err := k.kekOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	epochs, err := k.keys.Epochs(ctx, kek.ID())
	if err != nil {
		return nil, err
	}
	var newest keys.Record
	for i := range epochs {
		if r := &epochs[i]; r.Tenant == tenant && r.Version >= newest.Version {
			newest = *r
		}
	}
	out := slices.DeleteFunc(epochs, func(r keys.Record) bool { return r.ID == newest.ID || r.Created.After(newest.Created) })
	for i := range out {
		out[i].Wrapped = nil
	}
	slices.SortStableFunc(out, func(a, b keys.Record) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// trim ends the versions of a KEK that wrap no living epoch key of any tenant.
func (k *Keeper) trim(ctx context.Context, kek keys.KEK) error {
	trimmer, ok := kek.(keys.Trimmer)
	if !ok {
		return nil
	}
	epochs, err := k.keys.Epochs(ctx, kek.ID())
	if err != nil {
		return err
	}
	var living [][]byte
	for i := range epochs {
		set, err := keyset.NewBinaryReader(bytes.NewReader(epochs[i].Wrapped)).ReadEncrypted()
		if err != nil {
			return fmt.Errorf("%w: epoch key %s of tenant %q", ErrTampered, epochs[i].ID, epochs[i].Tenant)
		}
		living = append(living, set.GetEncryptedKeyset())
	}
	if err := trimmer.Trim(ctx, living); err != nil {
		return fmt.Errorf("encrypt: all keys are rewrapped, but the old versions of the KEK are not ended: %w", err)
	}
	return nil
}

// rewrapAll rewraps the keys that one old epoch key wraps, in batches.
func (k *Keeper) rewrapAll(ctx context.Context, tk *tenantKeys, tenant string, epoch keys.ID, step func(n int)) (moved int, bad []keys.Damaged, err error) {
	var after keys.ID
	for {
		records, err := k.keys.Find(ctx, tenant, keys.Query{All: true, Under: epoch, After: after, Limit: rotateBatch})
		if err != nil || len(records) == 0 {
			return moved, bad, err
		}
		after = records[len(records)-1].ID
		fresh := records[:0]
		for i := range records {
			key, err := tk.unwrap(&records[i])
			if errors.Is(err, ErrTampered) {
				bad = append(bad, keys.Damaged{ID: records[i].ID, Person: records[i].Person, Retention: records[i].Retention})
				continue
			}
			if err != nil {
				return moved, bad, err
			}
			r, err := tk.wrap(records[i], key)
			clear(key)
			if err != nil {
				return moved, bad, err
			}
			fresh = append(fresh, r)
		}
		if err := k.keys.Rewrap(ctx, tenant, fresh); err != nil {
			return moved, bad, err
		}
		moved += len(fresh)
		step(len(fresh))
	}
}

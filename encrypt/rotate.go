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
// keys open nothing.
//
// It is resumable: after an interruption the next Rotate finishes the epoch that was begun, in any
// process. Readers and writers go on meanwhile. Errors: ErrKMSUnavailable, ErrAuth, and ErrTampered
// when a key record does not open; everything else has then been rewrapped.
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
	if len(tk.epochs) == 1 {
		if r, ok := kek.(keys.Rotator); ok {
			// A key that a customer brought may not make versions of itself: then the epoch is new alone.
			if err := r.Rotate(ctx); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("encrypt: new version of the KEK: %w", err)
			}
		}
		for attempt := 0; ; attempt++ {
			epoch, _, err := k.newEpoch(ctx, tenant, tk.version+1, k.now())
			if err != nil {
				return cmp.Or(ctx.Err(), err) // the caller's own deadline is no outage
			}
			// ErrRetired: meanwhile the KEK's versions were looked through, to end some.
			if err = k.keys.Add(ctx, tenant, []keys.Record{epoch}); err == nil {
				break
			} else if !errors.Is(err, ErrRetired) || attempt == 3 {
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
			if moved == 0 && bad > 0 {
				return fmt.Errorf("%w: %d key records", ErrTampered, bad)
			}
		}
	}
	if _, err = k.reloadNow(ctx, t); err != nil {
		return err
	}
	return k.trim(ctx, kek)
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
			return fmt.Errorf("%w: an epoch key of tenant %q", ErrTampered, epochs[i].Tenant)
		}
		living = append(living, set.GetEncryptedKeyset())
	}
	if err := trimmer.Trim(ctx, living); err != nil {
		return fmt.Errorf("encrypt: all keys are rewrapped, but the old versions of the KEK are not ended: %w", err)
	}
	return nil
}

// rewrapAll rewraps the keys that one old epoch key wraps, in batches.
func (k *Keeper) rewrapAll(ctx context.Context, tk *tenantKeys, tenant string, epoch keys.ID, step func(n int)) (moved, bad int, err error) {
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
				bad++
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

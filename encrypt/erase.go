package encrypt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// EraseOptions of [Keeper.Erase].
type EraseOptions struct {
	Classes  []keys.Retention // what to destroy; nil = ordinary only
	Approved bool             // a second person approved going beyond Options.EraseLimit
}

// Receipt tells what [Keeper.Erase] did.
type Receipt struct {
	Persons [][16]byte // all ids of the human: the one asked for first, then those joined to it
	Keys    []keys.ID  // destroyed by this call; empty during the grace, or when nothing was left
	Number  uint64     // the tenant's erasure number afterwards
	At      time.Time  // UTC
	Due     time.Time  // during the grace: when the keys can be destroyed; else zero
	// GoneBy is when no copy of the keys opens any more that was kept as long as Options.Copies allows:
	// those in key shards have expired, and the epoch that wrapped them has been trimmed. Zero during
	// the grace.
	GoneBy time.Time
}

// Erase destroys the keys of a human, of all ids that were joined: every value sealed under them, wherever
// a copy lies, no longer opens once the wrapped keys are gone everywhere. Asked for the first time it
// blocks the keys at once: nobody opens or seals with them. Asked again when Options.Grace is over it
// destroys them; until then [Keeper.Spare] takes it back. In the place of each key stays a tombstone,
// authentic under a tenant key that never rotates. The erasure number grows, so that no other process
// serves a cached key at its next read. A later Seal for the same person makes a new key.
//
// Errors: ErrHeld, ErrLimit, ErrKMSUnavailable, ErrAuth, ErrTampered. After an error that the store
// returned beside a destruction, such as its failure to overwrite, the Receipt is filled in.
func (k *Keeper) Erase(ctx context.Context, tenant string, person [16]byte, opts *EraseOptions) (Receipt, error) {
	if opts == nil {
		opts = &EraseOptions{}
	}
	classes := opts.Classes
	if len(classes) == 0 {
		classes = []keys.Retention{keys.Ordinary}
	}
	v, err := k.enter(ctx, tenant, 0, true)
	if err != nil {
		return Receipt{}, err
	}
	out := Receipt{At: k.now()}
	if out.Persons, err = k.joined(ctx, &v, person); err != nil {
		return Receipt{}, err
	}
	if k.opts.Held != nil {
		for _, p := range out.Persons {
			held, err := k.opts.Held(ctx, tenant, p, classes)
			if err != nil {
				return Receipt{}, fmt.Errorf("encrypt: legal holds: %w", err)
			}
			if held {
				return Receipt{}, keys.ErrHeld
			}
		}
	}
	records, err := k.keys.Find(ctx, tenant, keys.Query{Persons: out.Persons})
	if err != nil {
		return Receipt{}, err
	}
	records = slices.DeleteFunc(records, func(r keys.Record) bool { return !slices.Contains(classes, r.Retention) })
	if len(records) == 0 {
		out.Number, err = k.keys.Erasures(ctx, tenant)
		return out, err
	}
	if k.opts.Grace > 0 {
		if out.Due, err = k.block(ctx, &v, records, out.At); err != nil {
			return Receipt{}, err
		}
		if out.At.Before(out.Due) {
			out.Number, err = k.keys.Erasures(ctx, tenant)
			return out, err
		}
		out.Due = time.Time{}
	}
	if !opts.Approved && k.opts.EraseLimit > 0 {
		n, err := k.erasedSince(ctx, tenant, out.At.Add(-24*time.Hour))
		if err != nil {
			return Receipt{}, err
		}
		if n >= k.opts.EraseLimit {
			return Receipt{}, fmt.Errorf("%w: %d", keys.ErrLimit, k.opts.EraseLimit)
		}
	}
	return k.destroy(ctx, &v, records, out)
}

// block blocks those of the records that are not yet, and returns when the grace is over. A key that was made
// since the erasure was first asked for does not put it off.
func (k *Keeper) block(ctx context.Context, v *visit, records []keys.Record, now time.Time) (due time.Time, err error) {
	for i := range records {
		if at := records[i].Blocked; !at.IsZero() && at.Before(now) {
			now = at
		}
	}
	var ids []keys.ID
	gone := make(map[keys.ID]bool)
	for i := range records {
		at := records[i].Blocked
		if at.IsZero() {
			ids = append(ids, records[i].ID)
			gone[records[i].ID] = true
			at = now
		}
		if end := at.Add(k.opts.Grace); end.After(due) {
			due = end
		}
	}
	if len(ids) > 0 {
		if err := k.keys.Block(ctx, v.t.name, ids, now); err != nil {
			return time.Time{}, err
		}
		k.cache.drop(v.t, gone, 0)
	}
	return due, nil
}

// erasedSince counts the humans that were destroyed since a time.
func (k *Keeper) erasedSince(ctx context.Context, tenant string, since time.Time) (int, error) {
	tombs, err := k.keys.Find(ctx, tenant, keys.Query{Since: 0})
	if err != nil {
		return 0, err
	}
	numbers := make(map[uint64]bool)
	for i := range tombs {
		if !tombs[i].Created.Before(since) {
			numbers[tombs[i].Number] = true
		}
	}
	return len(numbers), nil
}

func (k *Keeper) destroy(ctx context.Context, v *visit, records []keys.Record, out Receipt) (Receipt, error) {
	var tombs []keys.Record
	gone := make(map[keys.ID]bool)
	for i := range records {
		r := &records[i]
		tomb := keys.Record{
			Tenant: v.t.name, ID: r.ID, Kind: keys.Tombstone, Retention: r.Retention, Created: out.At,
			Commitment: v.tk.tombOwner(v.t.name, r.ID, r.Person),
		}
		tomb.Wrapped = v.tk.tombMAC(&tomb)
		tombs = append(tombs, tomb)
		out.Keys = append(out.Keys, r.ID)
		gone[r.ID] = true
	}
	var err error
	out.Number, err = k.keys.Erase(ctx, v.t.name, tombs)
	if out.Number == 0 {
		return Receipt{}, err
	}
	k.cache.drop(v.t, gone, 0)
	epoch := v.tk.began.Add(k.opts.Epoch)
	if !epoch.After(out.At) { // its rotation is overdue
		epoch = out.At.Add(k.opts.Epoch)
	}
	if out.GoneBy = out.At.Add(k.opts.Copies); epoch.After(out.GoneBy) {
		out.GoneBy = epoch
	}
	return out, err
}

// Spare takes an erasure back during its grace: the keys of the human serve again. What is destroyed
// stays destroyed.
func (k *Keeper) Spare(ctx context.Context, tenant string, person [16]byte) error {
	v, err := k.enter(ctx, tenant, 0, true)
	if err != nil {
		return err
	}
	persons, err := k.joined(ctx, &v, person)
	if err != nil {
		return err
	}
	records, err := k.keys.Find(ctx, tenant, keys.Query{Persons: persons})
	if err != nil {
		return err
	}
	var ids []keys.ID
	for i := range records {
		if !records[i].Blocked.IsZero() {
			ids = append(ids, records[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return k.keys.Block(ctx, tenant, ids, time.Time{})
}

// Due returns the persons whose grace is over and who wait for the Erase that destroys their keys.
func (k *Keeper) Due(ctx context.Context, tenant string) ([][16]byte, error) {
	if err := checkTenant(tenant); err != nil {
		return nil, err
	}
	records, err := k.keys.Find(ctx, tenant, keys.Query{Blocked: true})
	if err != nil {
		return nil, err
	}
	now := k.now()
	var out [][16]byte
	for i := range records {
		if r := &records[i]; !now.Before(r.Blocked.Add(k.opts.Grace)) && !slices.Contains(out, r.Person) {
			out = append(out, r.Person)
		}
	}
	return out, nil
}

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
	// GoneBy is when no copy of the keys opens any more, wherever it was kept: those in key shards have
	// expired (Options.Copies), every tenant under the same KEK has been rotated (Options.Epoch), and the KEK has
	// ended the versions that wrapped the epoch. It counts on Rotate being run for every tenant under the KEK as often
	// as Options.Epoch says; Behind names those that are late.
	//
	// Zero = not known: during the grace; when the KEK cannot make versions and end them; when a tenant under it
	// has missed a rotation, or this one is moving from one KEK to another; when the key store or KEKFor did not answer.
	// Then whoever has both an old copy of the key store and access to the KEK may still open what was erased.
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
	v, records, out, err := k.erasing(ctx, tenant, person, opts)
	if err != nil {
		return Receipt{}, err
	}
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
	return k.destroy(ctx, &v, records, out)
}

// MayErase returns the error with which Erase would refuse now, ErrHeld or ErrLimit among them, and nil when it would not. It changes nothing.
func (k *Keeper) MayErase(ctx context.Context, tenant string, person [16]byte, opts *EraseOptions) error {
	_, _, _, err := k.erasing(ctx, tenant, person, opts)
	return err
}

// erasing finds the keys of a human that an erasure is about, and refuses it where a hold or the limit does.
func (k *Keeper) erasing(ctx context.Context, tenant string, person [16]byte, opts *EraseOptions) (v visit, records []keys.Record, out Receipt, err error) {
	fail := func(err error) (visit, []keys.Record, Receipt, error) { return visit{}, nil, Receipt{}, err }
	if opts == nil {
		opts = &EraseOptions{}
	}
	classes := opts.Classes
	if len(classes) == 0 {
		classes = []keys.Retention{keys.Ordinary}
	}
	if v, err = k.enter(ctx, tenant, 0, true); err != nil {
		return fail(err)
	}
	out = Receipt{At: k.now()}
	if out.Persons, err = k.joined(ctx, &v, person); err != nil {
		return fail(err)
	}
	if k.opts.Held != nil {
		for _, p := range out.Persons {
			held, err := k.opts.Held(ctx, tenant, p, classes)
			if err != nil {
				return fail(fmt.Errorf("encrypt: legal holds: %w", err))
			}
			if held {
				return fail(keys.ErrHeld)
			}
		}
	}
	if records, err = k.keys.Find(ctx, tenant, keys.Query{Persons: out.Persons}); err != nil {
		return fail(err)
	}
	records = slices.DeleteFunc(records, func(r keys.Record) bool { return !slices.Contains(classes, r.Retention) })
	if len(records) > 0 && !opts.Approved && k.opts.EraseLimit > 0 {
		if err := k.brake(ctx, tenant, records, out.At.Add(-24*time.Hour)); err != nil {
			return fail(err)
		}
	}
	return v, records, out, nil
}

// Held tells whether a legal hold forbids to erase a person, or one who was joined to them, in any retention class: what Options.Held answers. Error: that
// of Options.Held and of the key store.
func (k *Keeper) Held(ctx context.Context, tenant string, person [16]byte) (bool, error) {
	if k.opts.Held == nil {
		return false, nil
	}
	persons, err := k.Joined(ctx, tenant, person)
	if err != nil {
		return false, err
	}
	classes := []keys.Retention{keys.Ordinary, keys.Contract, keys.Tax, keys.Evidence}
	for _, p := range append([][16]byte{person}, persons...) {
		held, err := k.opts.Held(ctx, tenant, p, classes)
		if err != nil {
			return false, fmt.Errorf("encrypt: legal holds: %w", err)
		}
		if held {
			return true, nil
		}
	}
	return false, nil
}

// waits tells whether a key waits for its destruction. One in quarantine is blocked too, but empty.
func waits(r *keys.Record) bool { return !r.Blocked.IsZero() && len(r.Wrapped) > 0 }

// block blocks those of the records that are not yet, and returns when the grace is over. A key that was made
// since the erasure was first asked for does not put it off.
func (k *Keeper) block(ctx context.Context, v *visit, records []keys.Record, now time.Time) (due time.Time, err error) {
	for i := range records {
		if at := records[i].Blocked; waits(&records[i]) && at.Before(now) {
			now = at
		}
	}
	var ids []keys.ID
	gone := make(map[keys.ID]bool)
	for i := range records {
		at := records[i].Blocked
		if !waits(&records[i]) {
			if len(records[i].Wrapped) == 0 {
				continue // retired, or in quarantine
			}
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

// brake refuses an erasure with which more persons were blocked or destroyed since a time than the limit allows. A
// person is counted when it is blocked, and by its tombstones when there was no grace; not again at its destruction.
func (k *Keeper) brake(ctx context.Context, tenant string, records []keys.Record, since time.Time) error {
	persons := make(map[[16]byte]bool)
	for i := range records {
		if r := &records[i]; k.opts.Grace <= 0 || !waits(r) {
			persons[r.Person] = true
		}
	}
	if len(persons) == 0 {
		return nil // all are blocked already, and were counted then
	}
	blocked, err := k.keys.Find(ctx, tenant, keys.Query{Blocked: true})
	if err != nil {
		return err
	}
	for i := range blocked {
		if r := &blocked[i]; waits(r) && !r.Blocked.Before(since) {
			persons[r.Person] = true
		}
	}
	n := len(persons)
	if n <= k.opts.EraseLimit {
		dead, err := k.destroyedSince(ctx, tenant, since)
		if err != nil {
			return err
		}
		n += dead
	}
	if n > k.opts.EraseLimit {
		return fmt.Errorf("%w: %d", keys.ErrLimit, k.opts.EraseLimit)
	}
	return nil
}

// destroyedSince counts the persons that were destroyed since a time, as far as the limit wants to know. A tombstone
// does not say whose it is; those of one erasure that have one class are as many persons, of one generation.
func (k *Keeper) destroyedSince(ctx context.Context, tenant string, since time.Time) (int, error) {
	number, err := k.keys.Erasures(ctx, tenant)
	if err != nil {
		return 0, err
	}
	type of struct {
		number uint64
		class  keys.Retention
	}
	for step := uint64(max(64, 4*k.opts.EraseLimit)); ; step *= 4 {
		from := number - min(number, step)
		tombs, err := k.keys.Find(ctx, tenant, keys.Query{Since: from})
		if err != nil {
			return 0, err
		}
		count, older := make(map[of]int), false
		for i := range tombs {
			if r := &tombs[i]; r.Created.Before(since) {
				older = true
			} else {
				count[of{r.Number, r.Retention}]++
			}
		}
		persons := make(map[uint64]int)
		for at, n := range count {
			persons[at.number] = max(persons[at.number], n)
		}
		sum := 0
		for _, n := range persons {
			sum += n
		}
		if older || from == 0 || sum > k.opts.EraseLimit {
			return sum, nil
		}
	}
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
	out.GoneBy = k.goneBy(ctx, v, out.At)
	return out, err
}

// goneBy is the date of a Receipt; zero when it is not known.
func (k *Keeper) goneBy(ctx context.Context, v *visit, now time.Time) time.Time {
	kek, err := k.kekOf(ctx, v.t.name)
	if err != nil {
		return time.Time{}
	}
	_, rotates := kek.(keys.Rotator)
	_, trims := kek.(keys.Trimmer)
	if endless, told := k.endless.Load(kek.ID()); !rotates || !trims || told && endless.(bool) {
		return time.Time{}
	}
	for _, e := range v.tk.epochs {
		if e.kek != kek.ID() {
			return time.Time{}
		}
	}
	epochs, err := k.keys.Epochs(ctx, kek.ID())
	if err != nil || len(epochs) == 0 {
		return time.Time{}
	}
	// Until the first of these tenants is rotated the KEK has no newer version, and a tenant that is founded
	// meanwhile is wrapped by the same; so the last one that needs it is gone an epoch later.
	first := now.Add(k.opts.Epoch)
	for i := range epochs {
		age := now.Sub(epochs[i].Created)
		if age >= 2*k.opts.Epoch {
			return time.Time{} // it missed a rotation and may miss others
		}
		if next := epochs[i].Created.Add(k.opts.Epoch); next.After(now) && next.Before(first) {
			first = next
		}
	}
	by := first.Add(k.opts.Epoch)
	if copies := now.Add(k.opts.Copies); copies.After(by) {
		return copies
	}
	return by
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
		if waits(&records[i]) {
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
		if r := &records[i]; waits(r) && !now.Before(r.Blocked.Add(k.opts.Grace)) && !slices.Contains(out, r.Person) {
			out = append(out, r.Person)
		}
	}
	return out, nil
}

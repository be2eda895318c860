package encrypt

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Renew begins a new generation of a tenant's person keys and index key, for when those themselves may
// be known to somebody. From now on every process writes under the new generation and stores the tokens of
// both; reading and searching go on for both. Then every record is passed through [Codec.Reseal], and when a
// whole pass has changed nothing, [Keeper.Retire] ends the old one. A Renew that is repeated before returns the
// generation that was begun. Errors: ErrKMSUnavailable, ErrAuth, ErrKeyMissing, ErrTampered.
func (k *Keeper) Renew(ctx context.Context, tenant string) (generation uint32, err error) {
	t, err := k.tenant(tenant)
	if err != nil {
		return 0, err
	}
	tk, err := k.reloadNow(ctx, t)
	if err != nil {
		return 0, err
	}
	if len(tk.index) == 1 {
		r, err := tk.newKey(keys.Record{
			Tenant: tenant, ID: randomID(), Kind: keys.TenantKey, Version: tk.newest() + 1, Purpose: purposeIndex, Created: k.now(),
		})
		if err != nil {
			return 0, err
		}
		if err := k.keys.Add(ctx, tenant, []keys.Record{r}); err != nil {
			return 0, err
		}
		if tk, err = k.reloadNow(ctx, t); err != nil {
			return 0, err
		}
	}
	return tk.newest(), nil
}

// Retire ends all generations but the newest: the keys of older ones are destroyed, and what is still
// sealed under them is refused with ErrRetired, also by a process that has them cached, at its next read.
//
// A write that sealed before Renew and stores after the pass that changed nothing would be lost. So let as much
// time pass between Renew and Retire as a write can take, or have the store compare the erasure number in the
// transaction of the write.
//
// What was sealed by SealFor and SealStream is no field of a record: open it and seal it again before.
// progress, which may be nil, hears how many keys have ended. It can be repeated. While a person with older
// keys is blocked it ends nothing, because Reseal passed over them and Spare must be able to bring
// them back. Errors: ErrBlocked, ErrKMSUnavailable, ErrAuth, ErrKeyMissing, ErrTampered.
func (k *Keeper) Retire(ctx context.Context, tenant string, progress func(ended int)) error {
	t, err := k.tenant(tenant)
	if err != nil {
		return err
	}
	tk, err := k.reloadNow(ctx, t)
	if err != nil {
		return err
	}
	newest := tk.newest()
	if newest == 1 {
		return nil
	}
	blocked, err := k.keys.Find(ctx, tenant, keys.Query{Blocked: true})
	if err != nil {
		return err
	}
	for i := range blocked {
		if r := &blocked[i]; generation(r.Version) < newest && len(r.Wrapped) > 0 {
			return fmt.Errorf("%w: what a person's older keys sealed was not resealed; erase or spare the person first", ErrBlocked)
		}
	}
	ended := 0
	var after keys.ID
	for {
		records, err := k.keys.Find(ctx, tenant, keys.Query{All: true, After: after, Limit: rotateBatch})
		if err != nil {
			return err
		}
		if len(records) == 0 {
			break
		}
		after = records[len(records)-1].ID
		var ids []keys.ID
		for i := range records {
			r := &records[i]
			if r.Kind == keys.PersonKey && generation(r.Version) < newest && len(r.Wrapped) > 0 {
				ids = append(ids, r.ID)
			}
		}
		if len(ids) == 0 {
			continue
		}
		if _, err := k.keys.Retire(ctx, tenant, ids...); err != nil {
			return err
		}
		if ended += len(ids); progress != nil {
			progress(ended)
		}
	}
	// The index keys last: as long as they live, the work above is known to be unfinished.
	var old []keys.ID
	for _, r := range tk.index[:len(tk.index)-1] {
		old = append(old, r.id)
	}
	if len(old) > 0 {
		if _, err := k.keys.Retire(ctx, tenant, old...); err != nil {
			return err
		}
	}
	number, err := k.keys.Erasures(ctx, tenant)
	if err != nil {
		return err
	}
	return k.observe(ctx, t, number, true)
}

// Reseal brings the sealed fields of a stored record to the newest generation: what is sealed under older
// keys is opened and sealed anew, values of old clear columns (SealedField.Clear) are sealed, and tokens
// are made again. changed is false when the record is as it should be; then nothing need be written. v
// holds the record's clear columns and is not changed. Erased fields stay as they are; so does a whole
// record while its person is blocked.
//
// It is one step of a job that goes over all records, such as after Renew or a new version of a
// normaliser, or to migrate. The store writes the result like any update, under the record's version, so
// that no newer write is lost. Errors as for Open and Seal.
func (c *Codec[P]) Reseal(ctx context.Context, k *Keeper, rec Record, v P, fields []SealedField) (out Sealed, changed bool, err error) {
	return c.reseal(ctx, k, rec, reflect.ValueOf(v).Elem(), fields)
}

func (c *codec) reseal(ctx context.Context, k *Keeper, rec Record, rv reflect.Value, fields []SealedField) (out Sealed, changed bool, err error) {
	if !rv.IsValid() {
		return Sealed{}, false, errNil
	}
	sc := scratches.Get().(*scratch)
	defer sc.free()
	visit, err := k.enter(ctx, rec.Tenant, rec.Erasure, true)
	if err != nil {
		return Sealed{}, false, err
	}
	o := opening{k: k, visit: visit}
	cv := reflect.New(c.of).Elem() // only what is opened here; the person fields come from rv
	cv.Set(rv)
	var keep []string
	stale, opened := false, false
	for i := range fields {
		f := &fields[i]
		at, ok := c.byName[f.Name]
		if !ok || c.plans[at].Clear {
			continue // of a field that the type no longer has; the caller's update drops it
		}
		p := &c.plans[at]
		sc.plain, sc.texts = sc.plain[:0], sc.texts[:0]
		state, err := c.openField(ctx, &o, sc, p, &rec, cv, f)
		switch {
		case err != nil:
			return Sealed{}, false, fieldError(err, p.Name)
		case state == StateSealed:
			return Sealed{Fields: fields}, false, nil
		case state == StateErased:
			keep = append(keep, p.Name)
			continue
		}
		for _, t := range sc.texts {
			p.setText(cv.FieldByIndex(p.index), string(sc.plain[t.from:t.to]))
		}
		opened = true
		stale = stale || f.Clear || o.last.version != o.visit.tk.newest()
	}
	if !opened {
		return Sealed{Fields: fields}, false, nil
	}
	for _, at := range c.sealed { // what is not stored is absent, not unopened
		p := &c.plans[at]
		if !slices.ContainsFunc(fields, func(f SealedField) bool { return f.Name == p.Name }) {
			p.setState(cv.FieldByIndex(p.index), StateClear)
		}
	}
	out, err = c.sealOne(ctx, k, rec, cv, fields, keep)
	if err != nil {
		return Sealed{}, false, err
	}
	return out, stale || !sameTokens(out.Fields, fields), nil
}

// sameTokens tells whether two sealings of a record are found by the same tokens.
func sameTokens(a, b []SealedField) bool {
	set := func(fields []SealedField) []Token {
		var all []Token
		for i := range fields {
			all = append(all, fields[i].Tokens...)
		}
		slices.SortFunc(all, func(a, b Token) int { return bytes.Compare(tokenBytes(a), tokenBytes(b)) })
		return slices.Compact(all)
	}
	return slices.Equal(set(a), set(b))
}

func tokenBytes(t Token) []byte {
	b := fmt.Appendf(nil, "%016x", uint64(t.Value))
	if t.Unique {
		b = append(b, 'u')
	}
	return b
}

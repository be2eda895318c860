package encrypt

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Join says that two person ids are one human, as a merge finds out. Each keeps its keys, so nothing is
// sealed again, but an erasure of one destroys the keys of both. Joining again does nothing.
func (k *Keeper) Join(ctx context.Context, tenant string, a, b [16]byte) error {
	if a == b || a == ([16]byte{}) || b == ([16]byte{}) {
		return errors.New("encrypt: two different persons are joined")
	}
	v, err := k.enter(ctx, tenant, 0, true)
	if err != nil {
		return err
	}
	now := k.now()
	var records []keys.Record
	for _, p := range [][2][16]byte{{a, b}, {b, a}} {
		r := keys.Record{Tenant: tenant, ID: randomID(), Kind: keys.Join, Person: p[0], Purpose: hex.EncodeToString(p[1][:]), Created: now}
		r.Wrapped = v.tk.joinMAC(&r)
		records = append(records, r)
	}
	return k.keys.Add(ctx, tenant, records)
}

// Joined returns all ids of a human: person first, then those joined to it, directly or through others.
// Errors: ErrTampered for a forged join, ErrKeyMissing, ErrKMSUnavailable, ErrAuth.
func (k *Keeper) Joined(ctx context.Context, tenant string, person [16]byte) ([][16]byte, error) {
	v, err := k.enter(ctx, tenant, 0, false)
	if err != nil {
		return nil, err
	}
	return k.joined(ctx, &v, person)
}

func (k *Keeper) joined(ctx context.Context, v *visit, person [16]byte) ([][16]byte, error) {
	all := [][16]byte{person}
	for next := all; len(next) > 0; {
		joins, err := k.keys.Find(ctx, v.t.name, keys.Query{Joins: next})
		if err != nil {
			return nil, err
		}
		next = nil
		for i := range joins {
			r := &joins[i]
			var other [16]byte
			n, err := hex.Decode(other[:], []byte(r.Purpose[:min(len(r.Purpose), 32)]))
			if err != nil || n != 16 || !hmac.Equal(r.Wrapped, v.tk.joinMAC(r)) {
				return nil, fmt.Errorf("%w: join of persons", ErrTampered)
			}
			for _, p := range [][16]byte{r.Person, other} { // a join counts from both sides
				if !slices.Contains(all, p) {
					all, next = append(all, p), append(next, p)
				}
			}
		}
	}
	return all, nil
}

// joinMAC authenticates a join.
func (tk *tenantKeys) joinMAC(r *keys.Record) []byte {
	return macOf(tk.tomb, labelJoin, r.Tenant, string(r.Person[:]), r.Purpose)
}

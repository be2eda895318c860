package encrypt

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Join says that two person ids are one human, as a merge finds out. Each keeps its keys, so nothing is
// sealed again, but an erasure of one destroys the keys of both. Joining again does nothing.
func (k *Keeper) Join(ctx context.Context, tenant string, a, b [16]byte) error {
	return k.link(ctx, tenant, a, b, true)
}

// Part takes a Join back: the two ids are two humans, as who undoes a merge says. They stay joined where others join them still.
// What was erased meanwhile stays erased. Parting what is not joined does nothing.
func (k *Keeper) Part(ctx context.Context, tenant string, a, b [16]byte) error {
	return k.link(ctx, tenant, a, b, false)
}

// link joins or parts two ids, unless they are so. Each change has a number of its own, and the highest says how things stand: even ones join.
func (k *Keeper) link(ctx context.Context, tenant string, a, b [16]byte, join bool) error {
	if a == b || a == ([16]byte{}) || b == ([16]byte{}) {
		return errors.New("encrypt: two different persons are joined")
	}
	v, err := k.enter(ctx, tenant, 0, true)
	if err != nil {
		return err
	}
	links, err := k.links(ctx, &v, [][16]byte{a})
	if err != nil {
		return err
	}
	last, ok := links[pairOf(a, b)]
	if ok && (last%2 == 0) == join || !ok && !join {
		return nil
	}
	number := 0
	if ok {
		number = last + 1
	}
	now := k.now()
	var records []keys.Record
	for _, p := range [][2][16]byte{{a, b}, {b, a}} {
		r := keys.Record{Tenant: tenant, ID: randomID(), Kind: keys.Join, Person: p[0], Purpose: hex.EncodeToString(p[1][:]), Created: now}
		if number > 0 {
			r.Purpose += "#" + strconv.Itoa(number)
		}
		r.Wrapped = v.tk.joinMAC(&r)
		records = append(records, r)
	}
	return k.keys.Add(ctx, tenant, records)
}

// pairOf is two ids, the lesser first.
func pairOf(a, b [16]byte) [2][16]byte {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return [2][16]byte{a, b}
}

// links returns the newest number of each pair of which one is among persons.
func (k *Keeper) links(ctx context.Context, v *visit, persons [][16]byte) (map[[2][16]byte]int, error) {
	joins, err := k.keys.Find(ctx, v.t.name, keys.Query{Joins: persons})
	if err != nil {
		return nil, err
	}
	links := map[[2][16]byte]int{}
	for i := range joins {
		r := &joins[i]
		other, number, err := joinOf(r.Purpose)
		if err != nil || !hmac.Equal(r.Wrapped, v.tk.joinMAC(r)) {
			return nil, fmt.Errorf("%w: join of persons", ErrTampered)
		}
		p := pairOf(r.Person, other)
		links[p] = max(links[p], number)
	}
	return links, nil
}

// joinOf reads the other person and the number of a link.
func joinOf(purpose string) (other [16]byte, number int, err error) {
	text, rest, numbered := strings.Cut(purpose, "#")
	if n, err := hex.Decode(other[:], []byte(text[:min(len(text), 32)])); err != nil || n != 16 {
		return other, 0, ErrTampered
	}
	if numbered {
		if number, err = strconv.Atoi(rest); err != nil || number < 1 {
			return other, 0, ErrTampered
		}
	}
	return other, number, nil
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
		links, err := k.links(ctx, v, next)
		if err != nil {
			return nil, err
		}
		next = nil
		for pair, number := range links {
			if number%2 == 1 {
				continue
			}
			for _, p := range pair { // a join counts from both sides
				if !slices.Contains(all, p) {
					all, next = append(all, p), append(next, p)
				}
			}
		}
	}
	slices.SortFunc(all[1:], func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return all, nil
}

// joinMAC authenticates a join.
func (tk *tenantKeys) joinMAC(r *keys.Record) []byte {
	return macOf(tk.tomb, labelJoin, r.Tenant, string(r.Person[:]), r.Purpose)
}

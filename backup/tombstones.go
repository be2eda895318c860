package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// marshal writes the payload of a list.
func (t Tombstones) marshal(repository id16) ([]byte, error) {
	records := slices.Clone(t.Records)
	slices.SortFunc(records, bytes.Compare)
	records = slices.CompactFunc(records, bytes.Equal)
	b := append([]byte(nil), repository[:]...)
	b = binary.BigEndian.AppendUint64(b, t.Number)
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)))
	for _, r := range records {
		if len(r) == 0 || len(r) > maxRecord {
			return nil, errors.New("backup: a tombstone is empty or above 1 MiB")
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(r)))
		b = append(b, r...)
	}
	if len(b)+signedHead > maxTombstones {
		return nil, errors.New("backup: the tombstone list is too large")
	}
	return b, nil
}

func parseTombstones(b []byte, repository id16) (t Tombstones, err error) {
	if len(b) < 28 || !bytes.Equal(b[:16], repository[:]) {
		return t, errMalformed
	}
	t.Number = binary.BigEndian.Uint64(b[16:])
	n := binary.BigEndian.Uint32(b[24:])
	b = b[28:]
	for range n {
		if len(b) < 4 {
			return t, errMalformed
		}
		size := binary.BigEndian.Uint32(b)
		if size == 0 || size > maxRecord || uint64(size) > uint64(len(b)-4) {
			return t, errMalformed
		}
		r := b[4 : 4+size : 4+size]
		if k := len(t.Records); k > 0 && bytes.Compare(t.Records[k-1], r) >= 0 {
			return t, errMalformed
		}
		t.Records, b = append(t.Records, r), b[4+size:]
	}
	if len(b) != 0 {
		return t, errMalformed
	}
	return t, nil
}

// PutTombstones writes the list now instead of with the next backup: call it after each erasure. The
// list is whole, and its number above that of every list before. The same list again is no error.
// Errors: ErrStale when a higher number is there already, ErrExists when this number has another
// list, ErrFull, ErrKey (opened for reading).
func (r *Repository) PutTombstones(ctx context.Context, list Tombstones) error {
	if r.opts.Signer == nil {
		return fmt.Errorf("%w: the repository was opened for reading", ErrKey)
	}
	if list.Number == 0 || list.Number >= 1e16 {
		return errors.New("backup: a tombstone list is numbered from 1")
	}
	name := tombstonesName(list.Number)
	highest, err := r.data.highestList(ctx)
	if err != nil {
		return err
	}
	if max(highest, r.data.head().Tombstones) > list.Number {
		return object(name, ErrStale)
	}
	payload, err := list.marshal(r.data.id)
	if err != nil {
		return err
	}
	if highest == list.Number {
		there, err := r.data.list(ctx, highest)
		if err != nil {
			return err
		}
		old, err := there.marshal(r.data.id)
		if err != nil {
			return err
		}
		if !bytes.Equal(old, payload) {
			return object(name, ErrExists)
		}
	} else {
		b, err := signed(magicTombstones, payload, r.opts.Signer, r.data.pin)
		if err != nil {
			return err
		}
		if _, err := r.data.put(ctx, name, b); err != nil {
			return err
		}
	}
	r.data.mu.Lock()
	defer r.data.mu.Unlock()
	r.data.seen.Tombstones = max(r.data.seen.Tombstones, list.Number)
	return nil
}

// highestList returns the number of the newest list by name, 0 when there is none.
func (s *space) highestList(ctx context.Context) (n uint64, err error) {
	return s.highest(ctx, tombstonesPrefix)
}

func (s *space) highest(ctx context.Context, prefix string) (n uint64, err error) {
	for o, err := range s.bucket.List(ctx, prefix) {
		if err != nil {
			return 0, object(prefix, err)
		}
		if k, ok := parseNumber(prefix, o.Name); ok {
			n = max(n, k)
		}
	}
	return n, nil
}

func (s *space) list(ctx context.Context, number uint64) (Tombstones, error) {
	name := tombstonesName(number)
	b, err := s.bucket.Get(ctx, name, 0, maxTombstones+1)
	if err != nil {
		return Tombstones{}, object(name, err)
	}
	payload, err := openSigned(magicTombstones, b, s.pin)
	if errors.Is(err, ErrKey) {
		err = ErrTampered
	}
	if err != nil {
		return Tombstones{}, object(name, err)
	}
	t, err := parseTombstones(payload, s.id)
	if err == nil && t.Number != number {
		err = errMalformed
	}
	return t, object(name, err)
}

// tombstones returns the newest list, or ErrStale when the manifest, the pinned head or this process knows a newer one.
func (r *Repository) tombstones(ctx context.Context, newest *manifest) (Tombstones, error) {
	least := r.data.head().Tombstones
	if newest != nil {
		least = max(least, newest.Tombstones)
	}
	n, err := r.data.highestList(ctx)
	if err != nil {
		return Tombstones{}, err
	}
	if n < least {
		return Tombstones{}, object(tombstonesName(least), ErrStale)
	}
	if n == 0 {
		return Tombstones{}, nil
	}
	return r.data.list(ctx, n)
}

package encrypt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const recordVersion = 1

// MarshalBinary writes the record in the form of backups: see docs/formats/encrypt.md.
func (r *KeyRecord) MarshalBinary() ([]byte, error) {
	b := []byte{recordVersion}
	b = appendPart(b, r.Tenant)
	b = appendBytesPart(b, r.ID[:])
	b = appendPart(b, string(r.Kind))
	b = binary.BigEndian.AppendUint32(b, r.Version)
	b = appendPart(b, r.Purpose)
	b = appendBytesPart(b, r.Person[:])
	b = appendPart(b, string(r.Retention))
	b = appendBytesPart(b, r.Epoch[:])
	b = appendBytesPart(b, r.Wrapped)
	b = appendBytesPart(b, r.Commitment)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created.Unix()))
	return binary.BigEndian.AppendUint64(b, r.Number), nil
}

var errRecord = errors.New("encrypt: not a key record")

// UnmarshalBinary reads what MarshalBinary wrote, and nothing else: no two texts give one record.
func (r *KeyRecord) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != recordVersion {
		return errRecord
	}
	b = b[1:]
	ok := true
	part := func(most int) []byte {
		if len(b) < 4 {
			ok = false
			return nil
		}
		n := int(binary.BigEndian.Uint32(b))
		if n > most || n > len(b)-4 {
			ok = false
			return nil
		}
		p := b[4 : 4+n]
		b = b[4+n:]
		return p
	}
	fixed := func(dst []byte) {
		if p := part(len(dst)); len(p) == len(dst) {
			copy(dst, p)
		} else {
			ok = false
		}
	}
	var out KeyRecord
	out.Tenant = string(part(128))
	fixed(out.ID[:])
	out.Kind = KeyKind(part(16))
	if len(b) < 4 {
		return errRecord
	}
	out.Version, b = binary.BigEndian.Uint32(b), b[4:]
	out.Purpose = string(part(256))
	fixed(out.Person[:])
	out.Retention = Retention(part(16))
	fixed(out.Epoch[:])
	out.Wrapped = append([]byte(nil), part(1<<16)...)
	out.Commitment = append([]byte(nil), part(64)...)
	if !ok || len(b) != 16 {
		return errRecord
	}
	out.Created = time.Unix(int64(binary.BigEndian.Uint64(b)), 0).UTC()
	out.Number = binary.BigEndian.Uint64(b[8:])
	switch out.Kind {
	case EpochKey, TenantKey, PersonKey, Tombstone:
	default:
		return errRecord
	}
	*r = out
	return nil
}

// ExportKeys calls emit for every key record of a tenant, tombstones and retired epoch keys too, in
// the order of their ids. The records hold wrapped keys only: without the KEK they open nothing,
// but with it they do, so they belong where they can be deleted, never in an immutable backup.
// A record may change between two exports (rotation, erasure) under the same id.
func (k *Keeper) ExportKeys(ctx context.Context, tenant string, emit func(id [8]byte, record []byte) error) error {
	if err := checkTenant(tenant); err != nil {
		return err
	}
	var after KeyID
	for {
		records, err := k.keys.Find(ctx, tenant, KeyQuery{All: true, After: after, Limit: rotateBatch})
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
// records), ErrKMSUnavailable, ErrAuth.
func (k *Keeper) ImportKeys(ctx context.Context, tenant string, records [][]byte) error {
	t, err := k.tenant(tenant)
	if err != nil {
		return err
	}
	var roots, tombs, persons []KeyRecord
	for i, b := range records {
		var r KeyRecord
		if err := r.UnmarshalBinary(b); err != nil || r.Tenant != tenant {
			return fmt.Errorf("%w (record %d)", errRecord, i)
		}
		switch r.Kind {
		case EpochKey, TenantKey:
			roots = append(roots, r)
		case Tombstone:
			tombs = append(tombs, r)
		default:
			persons = append(persons, r)
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
		if _, err := k.keys.Erase(ctx, tenant, tombs); err != nil {
			return err
		}
	}
	for len(persons) > 0 {
		n := min(len(persons), rotateBatch)
		if err := k.keys.Add(ctx, tenant, persons[:n]); err != nil {
			return err
		}
		persons = persons[n:]
	}
	return nil
}

package backup

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Healed is what one [Heal] did.
type Healed struct {
	Objects []string // that were written anew, in the order in which they were
	Bytes   int64    // of them
	// Faults are what the other bucket has not whole either, and what this one does not let go.
	Faults []*ObjectError
}

// Heal writes anew what is damaged or missing in a bucket, of data or of key shards, from another bucket with the same repository.
// Everything is checked with pin, and against the signed manifests, before it is written; so the other bucket need not be
// trusted, and what it lacks or has damaged itself is in Healed.Faults. Of key shards
// older sets than this bucket has do not come back. It reads all objects of the bucket, and of the other one those that are
// wanted. Manifests come last, so that an interrupted run leaves no snapshot that looks whole, and may be called again. An empty bucket
// becomes a copy. In a bucket with versions a method Replace(ctx, name, data) puts an object over one that is locked;
// without it such an object is a fault. Errors: ErrKey, ErrNotFound (no repository in from), ErrExists (two repositories, or a
// manifest that both have soundly and differently: somebody signed two histories).
func Heal(ctx context.Context, bucket, from Bucket, pin ed25519.PublicKey) (*Healed, error) {
	h := &healer{to: bucket, rep: &Healed{}}
	head, err := from.Get(ctx, repositoryName, 0, 1<<16)
	if err != nil {
		return nil, object(repositoryName, err)
	}
	kind := kindData
	h.from, err = openSpace(ctx, from, kind, pin, &Options{})
	if errors.Is(err, ErrTampered) {
		kind = kindShards
		h.from, err = openSpace(ctx, from, kind, pin, &Options{})
	}
	if err != nil {
		return nil, err
	}
	h.own = &space{bucket: bucket, kind: kind, id: h.from.id, pin: pin, opts: &Options{}}
	own, err := bucket.Get(ctx, repositoryName, 0, 1<<16)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, object(repositoryName, err)
	}
	if payload, serr := openSigned(magicRepository, own, pin); serr == nil && !bytes.Equal(own, head) {
		var other repositoryHead
		if strictJSON(payload, &other) == nil {
			return nil, object(repositoryName, fmt.Errorf("%w: another repository", ErrExists))
		}
	}
	if err := h.same(ctx); err != nil {
		return nil, err
	}
	if err := h.lists(ctx); err != nil {
		return nil, err
	}
	if err := h.put(ctx, repositoryName, own, head); err != nil {
		return nil, err
	}
	return h.rep, h.snapshots(ctx)
}

type healer struct {
	to        Bucket
	own, from *space
	rep       *Healed
	need      map[id16]time.Time // whose objects are to be whole
}

// same refuses a bucket whose manifests are soundly of another repository, whatever became of the object that says which.
func (h *healer) same(ctx context.Context) error {
	numbers, err := h.own.numbers(ctx)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		b, err := h.own.raw(ctx, n)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if m, err := parseManifest(b, h.own.pin, n); err == nil && (m.Repository != h.own.id || m.Kind != h.own.kind) {
			return object(manifestName(n), fmt.Errorf("%w: of another repository", ErrExists))
		}
	}
	return nil
}

func (h *healer) fault(name, snapshot string, err error) {
	var oe *ObjectError
	if errors.As(err, &oe) {
		name, err = oe.Object, oe.Err
	}
	h.rep.Faults = append(h.rep.Faults, &ObjectError{Object: name, Snapshot: snapshot, Err: err})
}

// put writes an object whose content is known, in place of what is there.
func (h *healer) put(ctx context.Context, name string, there, want []byte) error {
	if bytes.Equal(there, want) {
		return nil
	}
	var err error
	if r, ok := h.to.(interface {
		Replace(ctx context.Context, name string, data []byte) error
	}); ok {
		err = r.Replace(ctx, name, want)
	} else {
		if there != nil {
			err = h.to.Delete(ctx, name)
		}
		if err == nil || errors.Is(err, ErrLocked) { // a version below the damaged one may have come up
			err = h.to.Put(ctx, name, want)
		}
		if errors.Is(err, ErrExists) {
			var now []byte
			if now, err = h.to.Get(ctx, name, 0, int64(len(want))+1); err == nil && !bytes.Equal(now, want) {
				h.fault(name, "", ErrLocked)
				return nil
			}
		}
	}
	if err != nil {
		return object(name, err)
	}
	h.rep.Objects = append(h.rep.Objects, name)
	h.rep.Bytes += int64(len(want))
	return nil
}

// lists heals tombstone and prune lists: those that are damaged here, and the newest.
func (h *healer) lists(ctx context.Context) error {
	if h.own.kind != kindData {
		return nil
	}
	for _, l := range []struct {
		prefix, magic string
		name          func(uint64) string
		most          int64
		parse         func(payload []byte, n uint64) error
	}{
		{tombstonesPrefix, magicTombstones, tombstonesName, maxTombstones, func(p []byte, n uint64) error {
			t, err := parseTombstones(p, h.own.id)
			if err == nil && t.Number != n {
				err = errMalformed
			}
			return err
		}},
		{prunesPrefix, magicPrunes, prunesName, maxManifest, func(p []byte, n uint64) error {
			_, err := parsePrunes(p, h.own.id, n)
			return err
		}},
	} {
		sound := func(b []byte, n uint64) bool {
			p, err := openSigned(l.magic, b, h.own.pin)
			return err == nil && l.parse(p, n) == nil
		}
		here := map[uint64]bool{}
		for o, err := range h.to.List(ctx, l.prefix) {
			if err != nil {
				return object(l.prefix, err)
			}
			if n, ok := parseNumber(l.prefix, o.Name); ok {
				here[n] = true
			}
		}
		newest, err := h.from.highest(ctx, l.prefix)
		if err != nil {
			return err
		}
		if newest > 0 {
			here[newest] = true
		}
		for n := range here {
			name := l.name(n)
			own, err := h.to.Get(ctx, name, 0, l.most+1)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return object(name, err)
			}
			if sound(own, n) {
				continue
			}
			other, err := h.from.bucket.Get(ctx, name, 0, l.most+1)
			if err != nil || !sound(other, n) {
				h.fault(name, "", ErrTampered)
				continue
			}
			if err := h.put(ctx, name, own, other); err != nil {
				return err
			}
		}
	}
	return nil
}

// snapshots heals what the other bucket's manifests name, then what the manifests here name beyond them.
func (h *healer) snapshots(ctx context.Context) error {
	list := &prunes{}
	if h.own.kind == kindData {
		var err error
		if list, err = h.own.pruned(ctx); err != nil {
			list = &prunes{}
		}
	}
	h.need = map[id16]time.Time{}
	var sound []*manifest // here
	for _, s := range []*space{h.from, h.own} {
		all, err := s.sequence(ctx)
		if err != nil {
			return err
		}
		maps.Copy(h.need, needed(all, list))
		sound = all
	}
	here, err := h.own.numbers(ctx)
	if err != nil {
		return err
	}
	there, err := h.from.numbers(ctx)
	if err != nil {
		return err
	}
	if h.own.kind == kindShards {
		if there, err = h.unexpired(ctx, there, here, sound); err != nil {
			return err
		}
	}
	both := map[uint64]bool{}
	for _, n := range there {
		both[n] = true
	}
	for _, n := range there {
		if err := h.snapshot(ctx, n); err != nil {
			return err
		}
	}
	for _, n := range here {
		if !both[n] {
			m, err := h.own.manifest(ctx, n)
			if err != nil {
				h.fault(manifestName(n), "", err)
				continue
			}
			if err := h.objects(ctx, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// unexpired leaves out the sets of key shards that went for good and must not come back: those before the oldest sound one here, but for a damaged one, of which
// other objects are here still. In an empty bucket only the newest is wanted.
func (h *healer) unexpired(ctx context.Context, there, here []uint64, sound []*manifest) (kept []uint64, err error) {
	if len(there) == 0 {
		return nil, nil
	}
	least := there[len(there)-1]
	if len(sound) > 0 {
		least = sound[0].Number
	}
	have := map[string]bool{}
	for o, err := range h.to.List(ctx, segmentPrefix) {
		if err != nil {
			return nil, object(segmentPrefix, err)
		}
		have[o.Name] = true
	}
	for _, n := range there {
		if n < least && slices.Contains(here, n) {
			m, err := h.from.manifest(ctx, n)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err == nil && slices.ContainsFunc(m.Segments, func(o manifestObject) bool { return have[o.Name] }) {
				kept = append(kept, n)
			}
		} else if n >= least {
			kept = append(kept, n)
		}
	}
	return kept, nil
}

func (h *healer) snapshot(ctx context.Context, n uint64) error {
	name := manifestName(n)
	own, err := h.to.Get(ctx, name, 0, maxManifest+1)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return object(name, err)
	}
	raw, err := h.from.raw(ctx, n)
	var m *manifest
	if err == nil {
		m, err = h.from.check(raw, n)
	}
	mine, merr := h.own.check(own, n)
	switch {
	case err != nil && merr != nil:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.fault(name, "", err)
		return nil
	case err != nil:
		m = mine
	case merr == nil && mine.digest != m.digest:
		return object(name, fmt.Errorf("%w: another manifest, signed too", ErrExists))
	case merr != nil:
		// Ours is damaged or missing: theirs must be the one that its neighbours name.
		if next, nerr := h.own.manifest(ctx, n+1); nerr == nil && next.Previous != m.digest && !next.Unread {
			h.fault(name, m.Snapshot.String(), ErrStale)
			return nil
		}
		if last, lerr := h.own.manifest(ctx, n-1); n > 1 && lerr == nil && m.Previous != last.digest && !m.Unread {
			h.fault(name, m.Snapshot.String(), ErrStale)
			return nil
		}
	}
	if err := h.objects(ctx, m); err != nil {
		return err
	}
	if merr != nil {
		return h.put(ctx, name, own, raw)
	}
	return nil
}

// objects heals those of one snapshot.
func (h *healer) objects(ctx context.Context, m *manifest) error {
	if _, ok := h.need[m.Snapshot]; !ok {
		return nil
	}
	for _, o := range m.objects() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		own, err := h.to.Get(ctx, o.Name, 0, o.Size+1)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return object(o.Name, err)
		}
		if int64(len(own)) == o.Size && sha256.Sum256(own) == o.SHA256 {
			continue
		}
		b, err := h.from.fetch(ctx, o)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			h.fault(o.Name, m.Snapshot.String(), err)
			continue
		}
		if err := h.put(ctx, o.Name, own, b); err != nil {
			return err
		}
	}
	return nil
}

package backup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
)

// Snapshots returns what is there, oldest first, by their signed manifests, without those that were pruned. An error says what is
// wrong with others, or with the chain; the sound ones are returned all the same.
func (r *Repository) Snapshots(ctx context.Context) ([]Snapshot, error) {
	var all []Snapshot
	var errs []error
	list, err := r.data.pruned(ctx)
	if err != nil {
		errs, list = append(errs, err), &prunes{}
	}
	there := map[string]int64{}
	if len(list.Condemned) > 0 {
		for o, err := range r.data.bucket.List(ctx, "") {
			if err != nil {
				return nil, object(segmentPrefix, err)
			}
			there[o.Name] = o.Size
		}
	}
	date := r.data.dates(list)
	for m, err := range r.data.chain(ctx) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.data.saw(m)
		wrong := date(m)
		if m.partial() {
			continue
		}
		snap := m.snapshot()
		if wrong != nil {
			snap.Anomalies = append(slices.Clip(snap.Anomalies), policy.Anomaly{Kind: kindClock})
		}
		var gone bool
		if snap.Condemned, gone = list.since(m); gone && missing(m, there) != "" {
			continue
		}
		all = append(all, snap)
	}
	return all, errors.Join(errs...)
}

// Verify looks whether everything could be restored. The error is for what kept it from looking; what
// it found wrong is in the report, with the key shards, which it names with the prefix "shards:".
// That the newest snapshots were taken away whole shows by Options.Head only: see Report.Anchored.
func (r *Repository) Verify(ctx context.Context, opts *VerifyOptions) (*Report, error) {
	var o VerifyOptions
	if opts != nil {
		o = *opts
	}
	rep := &Report{Level: o.Level, Opened: o.Level == Full && o.Key != nil, named: map[string]bool{}}
	newest, err := r.data.verify(ctx, &o, rep, "")
	if err != nil {
		return nil, err
	}
	rep.Anchored = r.opts.Head.Number > 0 && newest != nil && newest.Number >= r.opts.Head.Number &&
		!slices.ContainsFunc(rep.Faults, func(f *ObjectError) bool { return f.Object == manifestName(r.opts.Head.Number) })
	if _, err := r.tombstones(ctx, newest); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		rep.add("", "", tombstonesPrefix, err)
	}
	switch {
	case r.shards != nil:
		set, err := r.shards.verify(ctx, &o, rep, "shards:")
		if err != nil {
			return nil, err
		}
		if newest != nil && newest.Shards > 0 && (set == nil || set.Number < newest.Shards) {
			rep.add("shards:", newest.Snapshot.String(), manifestName(newest.Shards), ErrStale)
		}
	case newest != nil && newest.Shards > 0:
		rep.add("shards:", newest.Snapshot.String(), manifestName(newest.Shards),
			errors.New("backup: not looked at, for Options.Shards is nil"))
	}
	if o.Snapshot != "" && rep.Snapshots == 0 {
		return nil, fmt.Errorf("%w: no such snapshot", ErrNotFound)
	}
	for name := range o.Seen {
		if !rep.named[name] {
			delete(o.Seen, name)
		}
	}
	rep.Opened = rep.Opened && len(rep.Faults) == 0
	return rep, nil
}

// add notes a fault once, under the name of the object that the error is about.
func (r *Report) add(prefix, snapshot, name string, err error) {
	var oe *ObjectError
	if errors.As(err, &oe) {
		name, err = oe.Object, oe.Err
	}
	f := &ObjectError{Object: prefix + name, Snapshot: snapshot, Err: err}
	if !slices.ContainsFunc(r.Faults, func(g *ObjectError) bool { return g.Object == f.Object && g.Snapshot == f.Snapshot }) {
		r.Faults = append(r.Faults, f)
	}
}

// verify looks at one bucket and returns its newest sound manifest.
func (s *space) verify(ctx context.Context, o *VerifyOptions, rep *Report, prefix string) (newest *manifest, err error) {
	there := map[string]int64{}
	for obj, err := range s.bucket.List(ctx, "") {
		if err != nil {
			return nil, object(prefix, err)
		}
		there[obj.Name] = obj.Size
	}
	used := map[string]bool{repositoryName: true}
	if _, err := openSpace(ctx, s.bucket, s.kind, s.pin, &Options{}); err != nil {
		rep.add(prefix, "", repositoryName, err)
	}
	snapshots := map[string]bool{}
	last := uint64(0)
	for name := range there {
		if n, ok := parseNumber(snapshotPrefix, name); ok {
			last = max(last, n)
		}
	}
	list := &prunes{}
	if s.kind == kindData {
		if list, err = s.pruned(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			rep.add(prefix, "", prunesPrefix, err)
			list = &prunes{}
		}
	}
	var all []*manifest
	for m, err := range s.chain(ctx) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			rep.add(prefix, "", snapshotPrefix, err)
			var oe *ObjectError
			if errors.As(err, &oe) {
				used[oe.Object] = true
			}
			continue
		}
		all = append(all, m)
	}
	need := needed(all, list)
	var pick map[string]bool
	if o.Level == Sampled {
		pick = sample(all, o, need, prefix)
	}
	for _, m := range all {
		newest = m
		used[manifestName(m.Number)] = true
		snapshots[m.Snapshot.String()] = true
		id := m.Snapshot.String()
		objects := m.objects()
		for _, obj := range objects {
			used[obj.Name] = true
			if o.Seen != nil {
				rep.named[prefix+obj.Name] = true
			}
		}
		if s.kind == kindData {
			if _, ok := need[m.Snapshot]; o.Snapshot != id && (o.Snapshot != "" || !ok) {
				continue
			}
			if _, condemned := list.since(m); !m.partial() && (o.Snapshot == id || !condemned) {
				rep.Snapshots++
			}
		}
		rep.Objects += len(objects) + 1
		sound := true
		if s.kind == kindShards && m.Number < last && m.Created.Before(s.opts.Now().Add(-s.opts.KeepShards-s.opts.Grace)) {
			rep.Overdue++
		}
		if chain, err := s.below(ctx, m); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			sound = false
			rep.add(prefix, id, manifestName(m.Parent), err)
		} else {
			for _, below := range chain[1:] {
				if o.Snapshot != "" { // what it builds on is looked at with it
					objects = append(objects, below.objects()...)
					rep.Objects += len(below.objects()) + 1
					continue
				}
				for _, obj := range below.objects() {
					if size, ok := there[obj.Name]; !ok || size != obj.Size {
						sound = false
						rep.add(prefix, id, obj.Name, ErrTampered)
					}
				}
			}
		}
		for _, obj := range objects {
			size, ok := there[obj.Name]
			switch {
			case !ok:
				err = fmt.Errorf("%w: %w", ErrTampered, ErrNotFound)
			case size != obj.Size:
				err = ErrTampered
			case o.Level == Full || pick[obj.Name]:
				if _, err = s.fetch(ctx, obj); err == nil {
					rep.Bytes += obj.Size
					if o.Seen != nil {
						o.Seen[prefix+obj.Name] = s.opts.Now().UTC()
					}
				}
			default:
				err = nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				sound = false
				rep.add(prefix, id, obj.Name, err)
			}
		}
		if err := s.locked(ctx, m, need[m.Snapshot], o.Level, rep, prefix); err != nil {
			return nil, err
		}
		if o.Level == Full && o.Key != nil && sound {
			load := discard
			if s.kind == kindShards {
				load = keyLoad(nil)
			}
			err := s.read(ctx, m, o.Key, newProgress(s.opts.Observer, m.rows()), load)
			if err == nil && len(m.Index) > 0 {
				err = s.readIndex(ctx, m, o.Key)
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				rep.add(prefix, id, manifestName(m.Number), err)
			}
		}
	}
	for name := range there {
		switch {
		case used[name], s.kind == kindData && (strings.HasPrefix(name, tombstonesPrefix) || strings.HasPrefix(name, prunesPrefix)),
			keyOf(name) != "" && snapshots[keyOf(name)]:
		default:
			rep.Loose++
		}
	}
	return newest, nil
}

// keyOf returns the snapshot id in the name of a key header, "" for any other name.
func keyOf(name string) string {
	rest, ok := strings.CutPrefix(name, keyPrefix)
	if !ok || len(rest) < 32 {
		return ""
	}
	return rest[:32]
}

// Sweep removes what interrupted backups left, when it is older than Options.Grace, lists of tombstones and of condemned snapshots
// that a newer one replaces, and key shards that are too old. It removes nothing while a manifest is
// damaged or missing, for then it cannot know what is needed: ErrTampered, ErrStale. No backup may
// take longer than the grace.
func (r *Repository) Sweep(ctx context.Context) (removed int, err error) {
	highest, err := r.data.highestList(ctx)
	if err != nil {
		return 0, err
	}
	if highest > 0 {
		if _, err := r.data.list(ctx, highest); err != nil {
			return 0, err
		}
	}
	removed, err = r.data.sweep(ctx, highest)
	if err != nil || r.shards == nil {
		return removed, err
	}
	n, err := r.shards.expire(ctx)
	removed += n
	if err != nil {
		return removed, err
	}
	n, err = r.shards.sweep(ctx, 0)
	return removed + n, err
}

func (s *space) sweep(ctx context.Context, list uint64) (removed int, err error) {
	// The objects first: what is committed after that is younger than the grace.
	var old []string
	limit := s.opts.Now().Add(-s.opts.Grace)
	for _, prefix := range []string{segmentPrefix, keyPrefix, tombstonesPrefix, prunesPrefix} {
		for o, err := range s.bucket.List(ctx, prefix) {
			if err != nil {
				return 0, object(prefix, err)
			}
			if o.Modified.Before(limit) {
				old = append(old, o.Name)
			}
		}
	}
	used, snapshots := map[string]bool{}, map[string]bool{}
	for m, err := range s.chain(ctx) {
		if err != nil {
			return 0, err
		}
		snapshots[m.Snapshot.String()] = true
		for _, o := range m.objects() {
			used[o.Name] = true
		}
	}
	condemned, err := s.highest(ctx, prunesPrefix)
	if err != nil {
		return 0, err
	}
	if condemned > 0 {
		if _, err := s.pruned(ctx); err != nil {
			return 0, err
		}
	}
	for _, name := range old {
		tomb, isTomb := parseNumber(tombstonesPrefix, name)
		prune, isPrune := parseNumber(prunesPrefix, name)
		if used[name] || isTomb && tomb >= list || isPrune && prune >= condemned || snapshots[keyOf(name)] {
			continue
		}
		if err := s.bucket.Delete(ctx, name); errors.Is(err, ErrLocked) {
			continue
		} else if err != nil {
			return removed, object(name, err)
		}
		removed++
	}
	return removed, nil
}

// sample chooses what a sampled run reads.
func sample(manifests []*manifest, o *VerifyOptions, need map[id16]time.Time, prefix string) map[string]bool {
	type candidate struct {
		manifestObject
		seen  time.Time
		order [32]byte
	}
	var all []candidate
	var total, sum int64
	for _, m := range manifests {
		if _, ok := need[m.Snapshot]; !ok || o.Snapshot != "" && o.Snapshot != m.Snapshot.String() {
			continue
		}
		for _, obj := range m.objects() {
			all = append(all, candidate{manifestObject: obj, seen: o.Seen[prefix+obj.Name]})
			total += obj.Size
		}
	}
	salt := newID()
	for i := range all { // names are random; with a salt, so is their order each time
		all[i].order = sha256.Sum256(append(salt[:], all[i].Name...))
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(a.seen.Compare(b.seen), bytes.Compare(a.order[:], b.order[:])) })
	share := o.Share
	if share <= 0 {
		share = 0.05
	}
	pick := map[string]bool{}
	for _, c := range all {
		if float64(sum) >= share*float64(total) {
			break
		}
		pick[c.Name] = true
		sum += c.Size
	}
	return pick
}

package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
)

// prunes is the payload of a list of what is not kept. It replaces the lists before it.
type prunes struct {
	Repository id16        `json:"repository"`
	Number     uint64      `json:"number"`
	Created    time.Time   `json:"created"`
	Condemned  []condemned `json:"condemned"`
	Accepted   []id16      `json:"accepted"`

	by map[id16]condemned
}

type condemned struct {
	Number   uint64    `json:"number"`
	Snapshot id16      `json:"snapshot"`
	Since    time.Time `json:"since"`
}

// since returns when a snapshot was condemned.
func (p *prunes) since(m *manifest) (time.Time, bool) {
	if p.by == nil {
		p.by = map[id16]condemned{}
		for _, c := range p.Condemned {
			p.by[c.Snapshot] = c
		}
	}
	c, ok := p.by[m.Snapshot]
	return c.Since, ok && c.Number == m.Number
}

func parsePrunes(payload []byte, repository id16, number uint64) (*prunes, error) {
	p := &prunes{}
	if err := strictJSON(payload, p); err != nil {
		return nil, err
	}
	if p.Repository != repository || p.Number != number {
		return nil, errMalformed
	}
	for i, c := range p.Condemned {
		if c.Number == 0 || i > 0 && c.Number <= p.Condemned[i-1].Number {
			return nil, errMalformed
		}
	}
	for i := 1; i < len(p.Accepted); i++ {
		if p.Accepted[i-1].String() >= p.Accepted[i].String() {
			return nil, errMalformed
		}
	}
	return p, nil
}

// pruned reads the newest list; an empty one when there is none.
func (s *space) pruned(ctx context.Context) (*prunes, error) {
	n, err := s.highest(ctx, prunesPrefix)
	if err != nil || n == 0 {
		return &prunes{}, err
	}
	name := prunesName(n)
	b, err := s.bucket.Get(ctx, name, 0, maxManifest+1)
	var payload []byte
	if err == nil && len(b) > maxManifest {
		err = ErrTampered
	}
	if err == nil {
		payload, err = openSigned(magicPrunes, b, s.pin)
	}
	if errors.Is(err, ErrKey) || errors.Is(err, ErrNotFound) {
		err = ErrTampered
	}
	if err != nil {
		return nil, object(name, err)
	}
	p, err := parsePrunes(payload, s.id, n)
	return p, object(name, err)
}

// putPrunes writes p as the list after that of its number.
func (s *space) putPrunes(ctx context.Context, p *prunes) error {
	p.Repository, p.Created = s.id, s.opts.Now().UTC()
	p.Number++
	slices.SortFunc(p.Condemned, func(a, b condemned) int { return cmp.Compare(a.Number, b.Number) })
	slices.SortFunc(p.Accepted, func(a, b id16) int { return strings.Compare(a.String(), b.String()) })
	p.Accepted = slices.Compact(p.Accepted)
	payload, err := json.Marshal(p)
	if err != nil {
		return err
	}
	b, err := signed(magicPrunes, payload, s.opts.Signer, s.pin)
	if err != nil {
		return err
	}
	if len(b) > maxManifest {
		return errors.New("backup: the list of condemned snapshots is too large")
	}
	_, err = s.put(ctx, prunesName(p.Number), b)
	return err
}

// Pruned is what one [Repository.Prune] did.
type Pruned struct {
	Kept      []string       // ids, oldest first
	Condemned []string       // not kept from now on
	Spared    []string       // condemned before and kept again
	Removed   []string       // whose objects are gone now
	Objects   int            // that were deleted
	Bytes     int64          // of them
	Locked    []*ObjectError // what the bucket keeps, to be tried again
}

// Prune removes snapshots that retention does not keep, in two steps: it condemns them, and a later call deletes their objects once
// they were condemned for Options.Grace, again only what no kept snapshot needs. Their manifests stay. It does nothing
// while it cannot be sure: ErrTampered, ErrStale or ErrChain (a manifest, an object of a kept snapshot or the list is damaged or
// missing), ErrClock (a snapshot is dated in the future, or long before the ones before: see Accept), ErrAnomaly, ErrNotFound (Retention.Hold names no snapshot), ErrKey (opened for reading), ErrExists (another prune
// ran at once). It may be interrupted anywhere and called again.
func (r *Repository) Prune(ctx context.Context, retention policy.Retention) (*Pruned, error) {
	s := r.data
	if s.opts.Signer == nil {
		return nil, fmt.Errorf("%w: the repository was opened for reading", ErrKey)
	}
	if err := retention.Valid(); err != nil {
		return nil, err
	}
	list, err := s.pruned(ctx)
	if err != nil {
		return nil, err
	}
	there := map[string]int64{}
	for o, err := range s.bucket.List(ctx, "") {
		if err != nil {
			return nil, object(keyPrefix, err)
		}
		there[o.Name] = o.Size
	}
	now := s.opts.Now().UTC()
	var all []*manifest // that could be restored
	date := s.dates(list)
	for m, err := range s.chain(ctx) {
		if err != nil {
			return nil, err
		}
		if err := date(m); err != nil {
			return nil, err
		}
		if _, ok := list.since(m); ok && missing(m, there) != "" {
			continue // being deleted, or gone
		}
		all = append(all, m)
	}
	rep := &Pruned{}
	keep, err := s.keep(retention, all, list, there)
	if err != nil {
		return nil, err
	}
	parts, spared := map[id16]bool{}, false
	for _, m := range all {
		parts[m.Snapshot] = m.partial()
	}
	next := &prunes{Number: list.Number, Accepted: list.Accepted}
	for _, c := range list.Condemned {
		if keep[c.Snapshot] {
			spared = true
			if !parts[c.Snapshot] {
				rep.Spared = append(rep.Spared, c.Snapshot.String())
			}
			continue
		}
		next.Condemned = append(next.Condemned, c)
	}
	for _, m := range all {
		_, before := list.since(m)
		switch {
		case keep[m.Snapshot] && !m.partial():
			rep.Kept = append(rep.Kept, m.Snapshot.String())
		case !keep[m.Snapshot] && !before:
			next.Condemned = append(next.Condemned, condemned{m.Number, m.Snapshot, now})
			if !m.partial() {
				rep.Condemned = append(rep.Condemned, m.Snapshot.String())
			}
		}
	}
	if spared || len(next.Condemned) > len(list.Condemned) {
		if err := s.putPrunes(ctx, next); err != nil {
			return nil, err
		}
	}
	return rep, s.remove(ctx, next, now, there, rep)
}

// Kept returns the ids of the snapshots that retention keeps as things are, oldest first, and changes nothing: for looking before
// pruning. Errors as of Snapshots.
func (r *Repository) Kept(ctx context.Context, retention policy.Retention) ([]string, error) {
	all, err := r.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	points := make([]policy.Snapshot, len(all))
	for i, s := range all {
		points[i] = policy.Snapshot{ID: s.ID, Name: s.Name, Number: s.Head.Number, Parent: s.Parent, Created: s.Created}
	}
	return retention.Keep(points), nil
}

func (m *manifest) point() policy.Snapshot {
	return policy.Snapshot{ID: m.Snapshot.String(), Name: m.Name, Number: m.Number, Parent: m.Parent, Created: m.Created, Partial: m.partial()}
}

// dates returns what goes through all manifests in order and tells those that are dated in the future, or long before one that came before: ErrClock. One that
// somebody accepted counts as made when the one before was, or the repository; so does a part.
func (s *space) dates(list *prunes) func(*manifest) error {
	now := s.opts.Now()
	latest := s.created
	if latest.After(now) {
		latest = time.Time{}
	}
	first := true
	return func(m *manifest) error {
		wrong := m.Created.After(now.Add(time.Hour)) || !first && m.Created.Before(latest.Add(-s.opts.Grace))
		switch {
		case !wrong:
			if first || m.Created.After(latest) {
				latest = m.Created
			}
		case m.partial() || slices.Contains(list.Accepted, m.Snapshot):
			m.Created = latest
		default:
			return object(manifestName(m.Number), ErrClock)
		}
		first = false
		return nil
	}
}

// missing names an object of a snapshot that is not there, or "".
func missing(m *manifest, there map[string]int64) string {
	for _, o := range m.objects() {
		if size, ok := there[o.Name]; !ok || size != o.Size {
			return o.Name
		}
	}
	return ""
}

// keep applies the retention and looks that everything kept is whole.
func (s *space) keep(retention policy.Retention, all []*manifest, list *prunes, there map[string]int64) (map[id16]bool, error) {
	var snapshots []policy.Snapshot
	byID := map[string]*manifest{}
	byNumber := map[uint64]*manifest{}
	for _, m := range all {
		snapshots = append(snapshots, m.point())
		byID[m.Snapshot.String()] = m
		byNumber[m.Number] = m
	}
	for _, id := range retention.Hold {
		if byID[id] == nil {
			return nil, fmt.Errorf("%w: a snapshot that is to be held", ErrNotFound)
		}
	}
	keep := map[id16]bool{}
	for _, id := range retention.Keep(snapshots) {
		m := byID[id]
		keep[m.Snapshot] = true
		if name := missing(m, there); name != "" {
			return nil, object(name, ErrTampered)
		}
		if m.Parent > 0 {
			if p := byNumber[m.Parent]; p == nil || p.digest != m.ParentDigest {
				return nil, object(manifestName(m.Parent), ErrChain)
			}
		}
	}
	for _, m := range all {
		if _, gone := list.since(m); len(m.Anomalies) > 0 && !gone && !slices.Contains(list.Accepted, m.Snapshot) {
			return nil, object(manifestName(m.Number), ErrAnomaly)
		}
	}
	return keep, nil
}

// remove deletes what was condemned long enough.
func (s *space) remove(ctx context.Context, list *prunes, now time.Time, there map[string]int64, rep *Pruned) error {
	needed := map[string]bool{}
	due := map[id16]bool{}
	for _, c := range list.Condemned {
		due[c.Snapshot] = !c.Since.Add(s.opts.Grace).After(now)
	}
	var gone []*manifest
	for m, err := range s.chain(ctx) { // again: what was committed meanwhile may need more
		if err != nil {
			return err
		}
		if due[m.Snapshot] {
			gone = append(gone, m)
			continue
		}
		_, condemned := list.since(m) // within its grace: it may be spared
		below, err := s.below(ctx, m)
		if err != nil && condemned {
			continue
		}
		if err != nil {
			return err
		}
		for _, b := range below {
			due[b.Snapshot] = false
			for _, o := range b.objects() {
				needed[o.Name] = true
			}
		}
	}
	for _, m := range slices.Backward(gone) {
		if !due[m.Snapshot] {
			continue
		}
		var names []string
		for name := range there {
			if keyOf(name) == m.Snapshot.String() {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, o := range slices.Concat(m.Segments, m.Index) {
			if _, ok := there[o.Name]; ok && strings.HasPrefix(o.Name, segmentPrefix) {
				names = append(names, o.Name)
			}
		}
		// A list that came meanwhile may spare it: whoever was held up stops here.
		if newest, err := s.highest(ctx, prunesPrefix); err != nil {
			return err
		} else if newest != list.Number {
			return object(prunesName(newest), ErrExists)
		}
		removed, locked := 0, 0
		for _, name := range names {
			if needed[name] {
				continue
			}
			switch err := s.bucket.Delete(ctx, name); {
			case errors.Is(err, ErrLocked):
				locked++
				rep.Locked = append(rep.Locked, &ObjectError{Object: name, Snapshot: m.Snapshot.String(), Err: ErrLocked})
			case err != nil:
				return object(name, err)
			default:
				removed++
				rep.Objects++
				rep.Bytes += there[name]
			}
		}
		if removed > 0 && locked == 0 && !m.partial() {
			rep.Removed = append(rep.Removed, m.Snapshot.String())
		}
	}
	return nil
}

// Accept says that somebody looked at the anomalies of a snapshot and found them right, so that pruning goes on. One whose date is wrong counts from then on as
// made when the one before it was. Errors: ErrNotFound, ErrKey (opened for reading), ErrExists (a prune ran at once).
func (r *Repository) Accept(ctx context.Context, id string) error {
	if r.data.opts.Signer == nil {
		return fmt.Errorf("%w: the repository was opened for reading", ErrKey)
	}
	m, _, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	list, err := r.data.pruned(ctx)
	if err != nil || slices.Contains(list.Accepted, m.Snapshot) {
		return err
	}
	list.Accepted = append(list.Accepted, m.Snapshot)
	return r.data.putPrunes(ctx, list)
}

// Accepted returns the ids of the snapshots whose anomalies somebody found right. Errors as of Snapshots.
func (r *Repository) Accepted(ctx context.Context) ([]string, error) {
	list, err := r.data.pruned(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list.Accepted))
	for i, id := range list.Accepted {
		ids[i] = id.String()
	}
	return ids, nil
}

package backup

import (
	"cmp"
	"errors"

	"github.com/crmguard/crmguard/backup/policy"
)

// Kinds of anomalies.
const (
	kindChanged    = "changed"
	kindRemoved    = "removed"
	kindEntropy    = "entropy"
	kindUncompared = "uncompared"
)

// enoughBytes are those of rows whose compression says something.
const enoughBytes = 64 << 10

// checkGate looks at a snapshot that was written, compared with base.
func checkGate(g *policy.Gate, m *manifest, base *base) (found []policy.Anomaly) {
	before := base.levels[0].m
	enough := cmp.Or(max(g.Rows, 0), 100)
	for i := range before.Tables {
		old := &before.Tables[i]
		var t *manifestTable
		for k := range m.Tables {
			if m.Tables[k].Name == old.Name {
				t = &m.Tables[k]
			}
		}
		changed, removed := int64(0), old.Rows
		switch {
		case t == nil:
		case t.compared:
			changed, removed = t.Changed, t.Removed
		default: // it has another form and could not be compared
			removed = max(0, old.Rows-t.Rows)
		}
		for _, c := range []struct {
			kind  string
			n     int64
			limit float64
		}{{kindChanged, changed, cmp.Or(g.Changed, 0.5)}, {kindRemoved, removed, cmp.Or(g.Removed, 0.2)}} {
			if share := float64(c.n) / float64(max(old.Rows, 1)); old.Rows >= enough && share > c.limit {
				found = append(found, policy.Anomaly{Table: old.Name, Kind: c.kind, Share: share})
			}
		}
		if t == nil || t.Bytes < enoughBytes {
			continue
		}
		for _, l := range base.levels {
			k := l.table(old.Name)
			if k < 0 || l.m.Tables[k].Bytes < enoughBytes {
				continue
			}
			ratio := func(t *manifestTable) float64 { return float64(t.Packed) / float64(t.Bytes) }
			if rise := ratio(t) - ratio(&l.m.Tables[k]); rise > cmp.Or(g.Entropy, 0.25) {
				found = append(found, policy.Anomaly{Table: old.Name, Kind: kindEntropy, Share: rise})
			}
			break
		}
	}
	return found
}

// anomalies joins them to one error, nil when there are none.
func anomalies(all []policy.Anomaly) error {
	errs := make([]error, len(all))
	for i, a := range all {
		errs[i] = a
	}
	return errors.Join(errs...)
}

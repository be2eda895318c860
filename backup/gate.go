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
	kindClock      = "clock" // never in a manifest
)

// enoughBytes are those of rows whose compression says something.
const enoughBytes = 64 << 10

// checkGate looks at a snapshot that was written, with the parts of it that were sent before an interruption, compared with base.
func checkGate(g *policy.Gate, m *manifest, parts []*manifest, base *base) (found []policy.Anomaly) {
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
		if t == nil {
			continue
		}
		var own packing
		own.add(m, old.Name)
		for _, p := range parts {
			own.add(p, old.Name)
		}
		if own.bytes < enoughBytes {
			continue
		}
		for i := 0; i < len(base.levels); {
			var was packing // of the newest one, with its own parts, that has enough of it
			was.add(base.levels[i].m, old.Name)
			for i++; i < len(base.levels) && base.levels[i].m.partial(); i++ {
				was.add(base.levels[i].m, old.Name)
			}
			if was.bytes < enoughBytes {
				continue
			}
			if rise := own.ratio() - was.ratio(); rise > cmp.Or(g.Entropy, 0.25) {
				found = append(found, policy.Anomaly{Table: old.Name, Kind: kindEntropy, Share: rise})
			}
			break
		}
	}
	return found
}

// packing is how much of a table snapshots hold, and what compression made of it.
type packing struct{ bytes, packed int64 }

func (p *packing) add(m *manifest, table string) {
	for i := range m.Tables {
		if t := &m.Tables[i]; t.Name == table {
			p.bytes += t.Bytes
			p.packed += t.Packed
		}
	}
}

func (p *packing) ratio() float64 { return float64(p.packed) / float64(p.bytes) }

// anomalies joins them to one error, nil when there are none.
func anomalies(all []policy.Anomaly) error {
	errs := make([]error, len(all))
	for i, a := range all {
		errs[i] = a
	}
	return errors.Join(errs...)
}

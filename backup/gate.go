package backup

import (
	"cmp"
	"errors"
	"fmt"
)

// Gate says how much may change from one snapshot to the next of the same name. What is above it is an [Anomaly]: an attacker who
// encrypts or deletes rows, or a mistake. A nil *Gate finds nothing unusual.
type Gate struct {
	Changed float64 // share of the rows that a table had, above 0 to 1; 0 = 0.5
	Removed float64 // likewise of rows that are gone; 0 = 0.2
	Entropy float64 // rise of the size after compression through the size before, for 64 KiB of rows or more; 0 = 0.25
	Rows    int64   // of fewer rows than these in a table nothing is unusual; 0 = 100
}

// Kinds of anomalies.
const (
	kindChanged    = "changed"
	kindRemoved    = "removed"
	kindEntropy    = "entropy"
	kindUncompared = "uncompared"
)

// Anomaly is one thing that was unusual, as an error. It is ErrAnomaly.
type Anomaly struct {
	Table string  `json:"table"`
	Kind  string  `json:"kind"`  // changed, removed, entropy, or uncompared: the snapshot before could not be read
	Share float64 `json:"share"` // of the rows; the rise, for entropy
}

// Error says what is unusual.
func (a Anomaly) Error() string {
	if a.Table == "" {
		return fmt.Sprintf("%v: %s", ErrAnomaly, a.Kind)
	}
	return fmt.Sprintf("%v: table %s: %s %.2f", ErrAnomaly, a.Table, a.Kind, a.Share)
}

// Unwrap returns ErrAnomaly.
func (a Anomaly) Unwrap() error { return ErrAnomaly }

// enoughBytes are those of rows whose compression says something.
const enoughBytes = 64 << 10

// check looks at a snapshot that was written, compared with base.
func (g *Gate) check(m *manifest, base *base) (found []Anomaly) {
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
				found = append(found, Anomaly{old.Name, c.kind, share})
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
				found = append(found, Anomaly{old.Name, kindEntropy, rise})
			}
			break
		}
	}
	return found
}

// anomalies joins them to one error, nil when there are none.
func anomalies(all []Anomaly) error {
	errs := make([]error, len(all))
	for i, a := range all {
		errs[i] = a
	}
	return errors.Join(errs...)
}

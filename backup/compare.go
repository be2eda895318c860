package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/crmguard/crmguard/backup/backupkey"
)

// Change says how a table differs between two snapshots.
type Change struct {
	Table    string
	Added    int64 // rows
	Changed  int64
	Removed  int64
	Reshaped bool // its form is another, or its rows cannot be told apart: all rows count as removed and added
	// The keys of rows, when they were asked for; of a table without a key its whole rows.
	AddedKeys, ChangedKeys, RemovedKeys [][]any
}

// Compare says which tables differ from one snapshot to another, by their record indexes, which private opens or, when it is nil, the
// signer's index key. For each table and kind of change as many keys of rows are listed as keys says, which takes private. Large
// tables take some bits of memory for each row, and a temporary file. Errors: ErrNotFound, ErrTampered, ErrChain, ErrKey, and one for
// snapshots of version 1, which have no index.
func (r *Repository) Compare(ctx context.Context, from, to string, private *backupkey.Private, keys int) ([]Change, error) {
	if keys > 0 && private == nil {
		return nil, fmt.Errorf("%w: the keys of rows need the private key", ErrKey)
	}
	var levels [2][]*level
	for i, id := range []string{from, to} {
		m, _, err := r.find(ctx, id)
		if err != nil {
			return nil, err
		}
		if levels[i], err = r.data.levels(ctx, m, private); err != nil {
			return nil, err
		}
		defer clearLevels(levels[i])
	}
	if *levels[0][0].index != *levels[1][0].index {
		return nil, errors.New("backup: the record indexes are under different keys")
	}
	zdec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer zdec.Close()
	var out []Change
	for _, t := range levels[0][0].m.Tables {
		c := Change{Table: t.Name, Removed: t.Rows}
		if k := levels[1][0].table(t.Name); k >= 0 {
			if c, err = r.data.compare(ctx, levels, t.Name, keys, zdec); err != nil {
				return nil, err
			}
		}
		if c.Added+c.Changed+c.Removed > 0 || c.Reshaped {
			out = append(out, c)
		}
	}
	for _, t := range levels[1][0].m.Tables {
		if levels[0][0].table(t.Name) < 0 {
			out = append(out, Change{Table: t.Name, Added: t.Rows})
		}
	}
	return out, nil
}

func (s *space) compare(ctx context.Context, levels [2][]*level, name string, keys int, zdec *zstd.Decoder) (Change, error) {
	c := Change{Table: name}
	var tables [2]*manifestTable
	var shapes [2]uint64
	for i, l := range levels {
		k := l[0].table(name)
		tables[i], shapes[i] = &l[0].m.Tables[k], l[0].dir.shapes[k]
	}
	old, err := s.oldTable(ctx, levels[0], name, shapes[1])
	if err != nil {
		return c, err
	}
	var added, changed, removed []viewEntry
	note := func(list *[]viewEntry, n *int64, e viewEntry) {
		if *n++; len(*list) < keys {
			*list = append(*list, e)
		}
	}
	defer old.close()
	ok := old != nil
	var ferr error
	if ok {
		ok, err = s.view(ctx, levels[1], name, zdec, func(e viewEntry) {
			i, mac, err := old.find(e.id)
			switch {
			case err != nil:
				ferr = err
			case i < 0:
				note(&added, &c.Added, e)
			default:
				mark(old.seen, i)
				if mac != e.mac {
					note(&changed, &c.Changed, e)
				}
			}
		})
	}
	if err == nil {
		err = ferr
	}
	if err != nil {
		return c, err
	}
	if !ok {
		if shapes[0] == shapes[1] && tables[0].State == tables[1].State && tables[0].Rows == tables[1].Rows {
			return c, nil
		}
		return Change{Table: name, Added: tables[1].Rows, Removed: tables[0].Rows, Reshaped: true}, nil
	}
	place := -1 // view gives what old has, in its order
	if _, err := s.view(ctx, levels[0], name, zdec, func(e viewEntry) {
		if place++; !bit(old.seen, place) {
			note(&removed, &c.Removed, e)
		}
	}); err != nil {
		return c, err
	}
	for _, l := range []struct {
		from []viewEntry
		in   []*level
		to   *[][]any
	}{{added, levels[1], &c.AddedKeys}, {changed, levels[1], &c.ChangedKeys}, {removed, levels[0], &c.RemovedKeys}} {
		rows, err := s.rows(ctx, l.in, name, l.from, zdec)
		if err != nil {
			return c, err
		}
		for _, r := range rows {
			*l.to = append(*l.to, r.key())
		}
	}
	return c, nil
}

// row is one row that was found by the index.
type row struct {
	shape  *shape
	values []any // as stored, with the count of a counted table
}

func (r row) key() (out []any) {
	for _, i := range r.shape.key {
		if i < len(r.shape.t.Columns) {
			out = append(out, r.values[i])
		}
	}
	return out
}

// shape reads the form of a table of a level.
func (s *space) shape(ctx context.Context, l *level, table int, zdec *zstd.Decoder) (sh *shape, err error) {
	for _, f := range l.dir.frames {
		if f.kind == frameTable && f.table == uint32(table) {
			err = s.run(ctx, l.m.Segments[f.segment], l.data, l.m.Snapshot, []dataFrame{f}, zdec, func(f frame) error {
				t, err := parseTable(f.plain)
				if err == nil {
					sh, err = newShape(t)
				}
				return err
			})
			return sh, err
		}
	}
	return nil, object(manifestName(l.m.Number), errMalformed)
}

// rows reads the rows of a table that the index of a chain names, in the order of wanted, each frame once.
func (s *space) rows(ctx context.Context, levels []*level, name string, wanted []viewEntry, zdec *zstd.Decoder) ([]row, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	sh, err := s.shape(ctx, levels[0], levels[0].table(name), zdec)
	if err != nil {
		return nil, err
	}
	type at struct {
		level int
		frame uint32
	}
	places := map[at]map[uint64]uint64{} // id and MAC
	for _, e := range wanted {
		k := at{e.level, e.frame}
		if places[k] == nil {
			places[k] = map[uint64]uint64{}
		}
		places[k][e.id] = e.mac
	}
	mac := levels[0].index.records(name)
	ends := make([]int, sh.cols)
	var scratch []byte
	found := map[uint64]row{}
	for k, ids := range places {
		l := levels[k.level]
		f := l.dir.frames[k.frame]
		if f.kind != frameRows || f.table != uint32(l.table(name)) {
			return nil, object(manifestName(l.m.Number), errMalformed)
		}
		err := s.run(ctx, l.m.Segments[f.segment], l.data, l.m.Snapshot, []dataFrame{f}, zdec, func(f frame) error {
			b := f.plain
			for range f.rows {
				rest, err := split(b, ends)
				if err != nil {
					return err
				}
				encoded := b[:len(b)-len(rest)]
				b = rest
				id := sh.id(mac, encoded, ends, &scratch)
				want, ok := ids[id]
				if !ok {
					continue
				}
				if mac.of(macRow, encoded) != want {
					return errMalformed
				}
				r := row{sh, make([]any, sh.cols)}
				if _, err := parseRow(slices.Clone(encoded), r.values); err != nil {
					return err
				}
				found[id] = r
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]row, len(wanted))
	for i, e := range wanted {
		r, ok := found[e.id]
		if !ok {
			return nil, object(manifestName(levels[e.level].m.Number), errMalformed)
		}
		out[i] = r
	}
	return out, nil
}

package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/crmguard/crmguard/backup/backupkey"
)

// Record is one row as a snapshot has it.
type Record struct {
	Snapshot string    // the id of the snapshot
	Created  time.Time // of it
	Table    string
	Columns  []string
	Key      []string          // the columns that tell rows apart
	Row      []any             // a value for each column; nil = the row is gone
	Parents  map[string]string // as of its Table
}

// RecordOptions of [Repository.Record]. A nil *RecordOptions is the zero value: the record alone.
type RecordOptions struct {
	// Parents is how many steps of Table.Parents are followed up, from the record. 0 = none.
	Parents int
	// Children is how many steps are followed down, to the rows that name a row in a column of
	// Table.Parents. 0 = none.
	Children int
	// Most is how many records there may be before it is an error. 0 = 10,000.
	Most int
}

// Record reads one row of a snapshot, the newest for an empty id, by the values of Table.Key in their order, and the rows that it
// belongs with: itself first, then by distance. It reads the parts of the index and of the segments that hold them and
// nothing else. No key of a person is imported: what was sealed for an erased one stays closed. Errors: ErrNotFound (no such snapshot, table or
// row), ErrStale (the tombstone list is older than was seen), ErrKey, ErrTampered, ErrChain, and one for tables without a key and for snapshots of version 1.
func (r *Repository) Record(ctx context.Context, id, table string, key []any, private *backupkey.Private, opts *RecordOptions) ([]Record, error) {
	var o RecordOptions
	if opts != nil {
		o = *opts
	}
	if o.Most <= 0 {
		o.Most = 10_000
	}
	if private == nil {
		return nil, fmt.Errorf("%w: no private key was given", ErrKey)
	}
	m, newest, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := r.tombstones(ctx, newest); err != nil {
		return nil, err
	}
	f, err := r.data.finder(ctx, m, private, map[uint64]*level{})
	if err != nil {
		return nil, err
	}
	defer f.close()
	first, err := f.byKey(ctx, table, key)
	if err != nil {
		return nil, err
	}
	if first == nil {
		return nil, fmt.Errorf("%w: no such row", ErrNotFound)
	}
	all := []*found{first}
	seen := map[string]bool{first.name(): true}
	follow := func(from []*found, steps int, next func(context.Context, *found) ([]*found, error)) error {
		for ; steps > 0 && len(from) > 0; steps-- {
			var more []*found
			for _, x := range from {
				list, err := next(ctx, x)
				if err != nil {
					return err
				}
				for _, y := range list {
					if seen[y.name()] {
						continue
					}
					if seen[y.name()] = true; len(all) >= o.Most {
						return errors.New("backup: too many records belong with this one")
					}
					all, more = append(all, y), append(more, y)
				}
			}
			from = more
		}
		return nil
	}
	if err := follow(all[:1:1], o.Parents, f.parents); err != nil {
		return nil, err
	}
	if err := follow(all[:1:1], o.Children, f.children); err != nil {
		return nil, err
	}
	out := make([]Record, len(all))
	for i, x := range all {
		out[i] = f.record(x)
	}
	return out, nil
}

// Versions reads one row of all snapshots of a name, "" for "default", oldest first: each of its contents once, from the first snapshot
// that has it, and a Record without a Row where it was gone. Pruned snapshots and those of version 1 are passed over. Errors as of
// Record.
func (r *Repository) Versions(ctx context.Context, name, table string, key []any, private *backupkey.Private) ([]Record, error) {
	if name == "" {
		name = "default"
	}
	if private == nil {
		return nil, fmt.Errorf("%w: no private key was given", ErrKey)
	}
	newest, err := r.data.newest(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := r.tombstones(ctx, newest); err != nil {
		return nil, err
	}
	cache := map[uint64]*level{}
	defer func() {
		for _, l := range cache {
			clear(l.data[:])
		}
	}()
	var out []Record
	var last *viewEntry
	for m, err := range r.data.chain(ctx) {
		if err != nil {
			return nil, err
		}
		if m.Name != name || m.version == 1 || m.partial() {
			continue
		}
		if err := r.data.whole(ctx, m); errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		f, err := r.data.finder(ctx, m, private, cache)
		if err != nil {
			return nil, err
		}
		x, e, err := f.version(ctx, table, key, last)
		f.zdec.Close()
		switch {
		case err != nil:
			return nil, err
		case x != nil:
			out = append(out, f.record(x))
		case e == nil && last != nil:
			gone := out[len(out)-1]
			gone.Snapshot, gone.Created, gone.Row = m.Snapshot.String(), m.Created, nil
			out = append(out, gone)
		}
		last = e
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no such row", ErrNotFound)
	}
	return out, nil
}

// finder finds rows of one snapshot.
type finder struct {
	s      *space
	levels []*level
	zdec   *zstd.Decoder
	shapes map[string]*shape
}

func (s *space) finder(ctx context.Context, m *manifest, key *backupkey.Private, cache map[uint64]*level) (*finder, error) {
	if m.version == 1 {
		return nil, object(manifestName(m.Number), errNoIndex)
	}
	levels, err := s.cachedLevels(ctx, m, key, cache)
	if err != nil {
		return nil, err
	}
	zdec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &finder{s: s, levels: levels, zdec: zdec, shapes: map[string]*shape{}}, nil
}

func (f *finder) close() {
	clearLevels(f.levels)
	f.zdec.Close()
}

var errNoIndex = errors.New("backup: the snapshot has no record index")

// found is a row with its place.
type found struct {
	viewEntry
	table string
	row
}

func (x *found) name() string { return fmt.Sprint(x.id, x.table) }

func (f *finder) record(x *found) Record {
	m := f.levels[0].m
	return Record{Snapshot: m.Snapshot.String(), Created: m.Created, Table: x.table, Columns: x.shape.t.Columns, Key: x.shape.t.Key,
		Row: x.values[:len(x.shape.t.Columns)], Parents: x.shape.t.Parents}
}

func (f *finder) shape(ctx context.Context, table string) (*shape, error) {
	if sh := f.shapes[table]; sh != nil {
		return sh, nil
	}
	t := f.levels[0].table(table)
	if t < 0 {
		return nil, fmt.Errorf("%w: no such table", ErrNotFound)
	}
	sh, err := f.s.shape(ctx, f.levels[0], t, f.zdec)
	if err == nil {
		f.shapes[table] = sh
	}
	return sh, err
}

// keyID encodes a key.
func (f *finder) keyID(ctx context.Context, table string, key []any) (uint64, error) {
	sh, err := f.shape(ctx, table)
	if err != nil {
		return 0, err
	}
	if sh.t.Counted {
		return 0, fmt.Errorf("backup: table %s has no key", table)
	}
	if len(key) != len(sh.key) {
		return 0, fmt.Errorf("backup: the key of table %s has %d values", table, len(sh.key))
	}
	var b []byte
	for _, v := range key {
		if b, err = appendValue(b, v); err != nil {
			return 0, err
		}
	}
	return f.levels[0].index.records(table).of(macID, b), nil
}

// byKey finds a row, nil when there is none.
func (f *finder) byKey(ctx context.Context, table string, key []any) (*found, error) {
	id, err := f.keyID(ctx, table, key)
	if err != nil {
		return nil, err
	}
	return f.byID(ctx, table, id)
}

func (f *finder) byID(ctx context.Context, table string, id uint64) (*found, error) {
	e, err := f.entry(ctx, table, id)
	if err != nil || e == nil {
		return nil, err
	}
	return f.read(ctx, table, e)
}

func (f *finder) read(ctx context.Context, table string, e *viewEntry) (*found, error) {
	rows, err := f.s.rows(ctx, f.levels, table, []viewEntry{*e}, f.zdec)
	if err != nil {
		return nil, err
	}
	return &found{*e, table, rows[0]}, nil
}

// version finds a row and reads it, unless it is last; e is nil when there is none.
func (f *finder) version(ctx context.Context, table string, key []any, last *viewEntry) (x *found, e *viewEntry, err error) {
	if f.levels[0].table(table) < 0 {
		return nil, nil, nil
	}
	id, err := f.keyID(ctx, table, key)
	if err != nil {
		return nil, nil, err
	}
	if e, err = f.entry(ctx, table, id); err != nil || e == nil || last != nil && last.id == e.id && last.mac == e.mac {
		return nil, e, err
	}
	x, err = f.read(ctx, table, e)
	return x, e, err
}

// entry looks an id up, level by level; nil when there is no such row.
func (f *finder) entry(ctx context.Context, table string, id uint64) (*viewEntry, error) {
	for i, l := range f.levels {
		t := l.table(table)
		if t < 0 {
			return nil, object(manifestName(l.m.Number), errMalformed)
		}
		if l.dir.flags[t]&flagIndexed == 0 {
			return nil, fmt.Errorf("backup: table %s has rows of one key", table)
		}
		frames := l.frames(frameIndex, t)
		k := sort.Search(len(frames), func(k int) bool { return frames[k].first > id }) - 1
		if k >= 0 {
			var hit *entry
			err := f.s.run(ctx, l.m.Index[frames[k].segment], l.index, l.m.indexID(), []dataFrame{frames[k].dataFrame}, f.zdec, func(fr frame) error {
				all, err := parseEntries(fr.plain, fr.rows, nil)
				if err != nil {
					return err
				}
				if n, ok := slices.BinarySearchFunc(all, id, func(e entry, id uint64) int { return cmp.Compare(e.id, id) }); ok {
					hit = &all[n]
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			if hit != nil && hit.frame == noFrame {
				return nil, nil
			}
			if hit != nil {
				if int(hit.frame) >= len(l.dir.frames) {
					return nil, object(manifestName(l.m.Number), errMalformed)
				}
				return &viewEntry{*hit, i}, nil
			}
		}
		if l.m.Tables[t].Whole {
			return nil, nil
		}
	}
	return nil, object(manifestName(f.levels[0].m.Number), errMalformed)
}

// frames lists the frames of one kind and table of an index, which are in order.
func (l *level) frames(kind byte, table int) (out []indexFrame) {
	for _, f := range l.dir.index {
		if f.kind == kind && f.table == uint32(table) {
			out = append(out, f)
		}
	}
	return out
}

// parents reads the rows whose keys a row names.
func (f *finder) parents(ctx context.Context, x *found) (out []*found, err error) {
	for i, column := range x.shape.t.Columns {
		parent, ok := x.shape.t.Parents[column]
		if !ok || x.values[i] == nil || f.levels[0].table(parent) < 0 {
			continue
		}
		if sh, err := f.shape(ctx, parent); err != nil {
			return nil, err
		} else if len(sh.t.Key) != 1 {
			continue
		}
		p, err := f.byKey(ctx, parent, []any{x.values[i]})
		if err != nil {
			return nil, err
		}
		if p != nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// children reads the rows that name a row.
func (f *finder) children(ctx context.Context, x *found) (out []*found, err error) {
	if len(x.shape.t.Key) != 1 {
		return nil, nil
	}
	value, err := appendValue(nil, x.key()[0])
	if err != nil {
		return nil, err
	}
	for i := range f.levels[0].m.Tables {
		table := f.levels[0].m.Tables[i].Name
		sh, err := f.shape(ctx, table)
		if err != nil {
			return nil, err
		}
		for place, column := range sh.t.Columns {
			if sh.t.Parents[column] != x.table {
				continue
			}
			ids, err := f.links(ctx, table, sh.link(f.levels[0].index.records(table), column, value, new([]byte)))
			if err != nil {
				return nil, err
			}
			for _, id := range ids {
				c, err := f.byID(ctx, table, id)
				if err != nil {
					return nil, err
				}
				if c == nil { // gone meanwhile
					continue
				}
				now, err := appendValue(nil, c.values[place])
				if err != nil {
					return nil, err
				}
				if bytes.Equal(now, value) { // else it has another parent meanwhile
					out = append(out, c)
				}
			}
		}
	}
	return out, nil
}

// links returns the ids of rows that had a link in any level, ascending.
func (f *finder) links(ctx context.Context, table string, mac uint64) (ids []uint64, err error) {
	for _, l := range f.levels {
		t := l.table(table)
		if t < 0 {
			return nil, object(manifestName(l.m.Number), errMalformed)
		}
		frames := l.frames(frameLinks, t)
		k := max(0, sort.Search(len(frames), func(k int) bool { return frames[k].first >= mac })-1)
		for ; k < len(frames) && frames[k].first <= mac; k++ {
			err := f.s.run(ctx, l.m.Index[frames[k].segment], l.index, l.m.indexID(), []dataFrame{frames[k].dataFrame}, f.zdec, func(fr frame) error {
				all, err := parseLinks(fr.plain, fr.rows)
				for _, x := range all {
					if x.mac == mac {
						ids = append(ids, x.id)
					}
				}
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		if l.m.Tables[t].Whole {
			break
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/policy"
)

// level is one snapshot of a chain with its directory.
type level struct {
	m     *manifest
	dir   *directory
	index *dataKey
	data  *dataKey // nil on a host that only writes
}

// table returns the place of a table in the level, -1 when it has none.
func (l *level) table(name string) int {
	return slices.IndexFunc(l.m.Tables, func(t manifestTable) bool { return t.Name == name })
}

// below returns the manifests of m's chain, m first and the full one last. ErrChain names the one that is wrong.
func (s *space) below(ctx context.Context, m *manifest) ([]*manifest, error) {
	all := []*manifest{m}
	for m.Parent > 0 {
		p, err := s.manifest(ctx, m.Parent)
		switch {
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrTampered):
			return nil, object(manifestName(m.Parent), fmt.Errorf("%w: %w", ErrChain, bare(err)))
		case err != nil:
			return nil, err
		case p.digest != m.ParentDigest, p.Name != m.Name, p.Engine != m.Engine, p.Depth != m.Depth-1, p.version == 1:
			return nil, object(manifestName(m.Parent), ErrChain)
		}
		all = append(all, p)
		m = p
	}
	return all, nil
}

// bare takes the name off an error that gets another one.
func bare(err error) error {
	var oe *ObjectError
	if errors.As(err, &oe) {
		return oe.Err
	}
	return err
}

// levels opens a chain: with key all of it, without it what the signer's index key opens.
func (s *space) levels(ctx context.Context, m *manifest, key *backupkey.Private) ([]*level, error) {
	return s.cachedLevels(ctx, m, key, map[uint64]*level{})
}

// cachedLevels does so and keeps each level in cache, by its number.
func (s *space) cachedLevels(ctx context.Context, m *manifest, key *backupkey.Private, cache map[uint64]*level) ([]*level, error) {
	all, err := s.below(ctx, m)
	if err != nil {
		return nil, err
	}
	zdec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer zdec.Close()
	var out []*level
	for _, m := range all {
		if l := cache[m.Number]; l != nil {
			out = append(out, l)
			continue
		}
		if len(m.Index) == 0 {
			return nil, object(manifestName(m.Number), errNoIndex)
		}
		l := &level{m: m}
		if key != nil {
			if l.data, err = s.key(ctx, m, key); err != nil {
				return nil, err
			}
			if l.index, err = l.data.openIndexKey(m.IndexKey, m.Snapshot); err != nil {
				return nil, object(manifestName(m.Number), err)
			}
		} else if l.index, _, err = s.indexKey(); err != nil {
			return nil, err
		} else if l.index == nil {
			return nil, fmt.Errorf("%w: neither a private key nor the signer was given", ErrKey)
		}
		if l.dir, err = s.directory(ctx, l, zdec); err != nil {
			return nil, err
		}
		out = append(out, l)
		cache[m.Number] = l
	}
	return out, nil
}

func clearLevels(levels []*level) {
	for _, l := range levels {
		if l.data != nil {
			clear(l.data[:])
		}
	}
}

func newDecoder() (*zstd.Decoder, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame+1<<20))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return d, nil
}

// part reads a range of an object that a manifest names.
func (s *space) part(ctx context.Context, o manifestObject, offset, length int64) ([]byte, error) {
	b, err := s.bucket.Get(ctx, o.Name, offset, length)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err == nil && int64(len(b)) != length {
		err = ErrTampered
	}
	return b, object(o.Name, err)
}

const tailSize = 128 << 10 // bytes of the end of an index that are read at once

// directory reads the directory of a snapshot: it lies at the end of the last segment of the index.
func (s *space) directory(ctx context.Context, l *level, zdec *zstd.Decoder) (*directory, error) {
	last := len(l.m.Index) - 1
	o := l.m.Index[last]
	size := min(o.Size, tailSize)
	tail, err := s.part(ctx, o, o.Size-size, size)
	if err != nil {
		return nil, err
	}
	// want makes the tail reach back to offset.
	want := func(offset int64) error {
		if have := o.Size - int64(len(tail)); offset < have {
			more, err := s.part(ctx, o, offset, have-offset)
			if err != nil {
				return err
			}
			tail = append(more, tail...)
		}
		return nil
	}
	at := func(offset int64) []byte { return tail[offset-(o.Size-int64(len(tail))):] }
	damaged := object(o.Name, ErrTampered)
	if len(tail) < trailerSize || string(tail[len(tail)-magicSize:]) != magicSegmentEnd {
		return nil, damaged
	}
	footer := o.Size - trailerSize - int64(binary.BigEndian.Uint32(tail[len(tail)-trailerSize:]))
	if footer < segmentHead || o.Size-trailerSize-footer < frameHead+tagSize {
		return nil, damaged
	}
	if err := want(footer); err != nil {
		return nil, err
	}
	count := (o.Size - trailerSize - footer - frameHead - tagSize) / 13
	head := appendSegmentHead(nil, l.m.version, l.m.indexID(), uint32(last))
	aead := l.index.segmentAEAD(l.m.indexID(), uint32(last))
	var scratch []byte
	f, _, err := openFrame(at(footer), aead, head, uint32(count), zdec, &scratch)
	if err != nil || f.kind != frameFooter || count == 0 || int64(len(f.plain)) != 13*count {
		return nil, damaged
	}
	offset := int64(binary.BigEndian.Uint32(f.plain[13*(count-1):]))
	if offset < segmentHead || offset >= footer {
		return nil, damaged
	}
	if err := want(offset); err != nil {
		return nil, err
	}
	f, n, err := openFrame(at(offset), aead, head, uint32(count-1), zdec, &scratch)
	if err != nil || f.kind != frameDirectory || f.flags != flagLast || offset+int64(n) != footer {
		return nil, damaged
	}
	d, err := parseDirectory(f.plain, l.m)
	return d, object(o.Name, err)
}

// run reads frames that follow each other in one segment and gives them to emit, in order.
func (s *space) run(ctx context.Context, o manifestObject, k *dataKey, id id16, frames []dataFrame, zdec *zstd.Decoder, emit func(frame) error) error {
	b, err := s.sealedRun(ctx, o, frames)
	if err != nil {
		return err
	}
	return openRun(b, o, k, id, frames, zdec, emit)
}

// sealedRun reads them and opens none.
func (s *space) sealedRun(ctx context.Context, o manifestObject, frames []dataFrame) ([]byte, error) {
	from, last := int64(frames[0].offset), frames[len(frames)-1]
	return s.part(ctx, o, from, int64(last.offset)+int64(last.size)-from)
}

// openRun opens what sealedRun read.
func openRun(b []byte, o manifestObject, k *dataKey, id id16, frames []dataFrame, zdec *zstd.Decoder, emit func(frame) error) error {
	number := frames[0].segment
	head := appendSegmentHead(nil, snapshotVersion, id, number)
	aead := k.segmentAEAD(id, number)
	var scratch []byte
	for _, p := range frames {
		f, n, err := openFrame(b, aead, head, p.number, zdec, &scratch)
		if err == nil && (n != int(p.size) || f.kind != p.kind || f.table != p.table || f.rows != p.rows) {
			err = ErrTampered
		}
		if err != nil {
			return object(o.Name, err)
		}
		if err := emit(f); err != nil {
			return object(o.Name, err)
		}
		b = b[n:]
	}
	return nil
}

// indexed gives frames of a level's index to emit, in order. Each run is read while the one before is worked on.
func (s *space) indexed(ctx context.Context, l *level, frames []dataFrame, zdec *zstd.Decoder, emit func(frame) error) error {
	type sealed struct {
		b   []byte
		err error
	}
	all := runs(frames)
	ctx, cancel := context.WithCancel(ctx)
	next := make(chan sealed)
	go func() {
		defer close(next)
		for _, r := range all {
			b, err := s.sealedRun(ctx, l.m.Index[r[0].segment], r)
			select {
			case next <- sealed{b, err}:
			case <-ctx.Done():
			}
			if err != nil || ctx.Err() != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range next { // until it has ended
		}
	}()
	for _, r := range all {
		run, ok := <-next
		if !ok {
			return ctx.Err()
		}
		if run.err != nil {
			return run.err
		}
		if err := openRun(run.b, l.m.Index[r[0].segment], l.index, l.m.indexID(), r, zdec, emit); err != nil {
			return err
		}
	}
	return nil
}

const runSize = 4 << 20 // bytes that one run reads, at least a frame

// runs cuts frames into such that follow each other.
func runs(frames []dataFrame) (all [][]dataFrame) {
	for len(frames) > 0 {
		n, size := 1, frames[0].size
		for n < len(frames) && frames[n].segment == frames[0].segment && frames[n].number == frames[n-1].number+1 && size < runSize {
			size += frames[n].size
			n++
		}
		all = append(all, frames[:n])
		frames = frames[n:]
	}
	return all
}

// entries gives what the index of one level says of a table.
func (s *space) entries(ctx context.Context, l *level, table int, zdec *zstd.Decoder, each func(entry)) error {
	var frames []dataFrame
	for _, f := range l.dir.index {
		if f.kind == frameIndex && f.table == uint32(table) {
			frames = append(frames, f.dataFrame)
		}
	}
	var all []entry
	last, begun := uint64(0), false
	return s.indexed(ctx, l, frames, zdec, func(f frame) (err error) {
		if all, err = parseEntries(f.plain, f.rows, all[:0]); err != nil {
			return err
		}
		for _, e := range all {
			if begun && e.id <= last || e.frame != noFrame && int(e.frame) >= len(l.dir.frames) {
				return errMalformed
			}
			last, begun = e.id, true
			each(e)
		}
		return nil
	})
}

// view is what a chain says of the rows of one table: each living id once, ascending, with the level that holds its row.
type viewEntry struct {
	entry
	level int
}

// view calls each for the living rows of a table, ascending. It returns false when the index does not have them all.
func (s *space) view(ctx context.Context, levels []*level, name string, zdec *zstd.Decoder, each func(viewEntry)) (bool, error) {
	bottom, ok, err := bottomOf(levels, name)
	if err != nil || !ok {
		return false, err
	}
	var above []viewEntry // by id, the newest first
	for i := range bottom {
		err := s.entries(ctx, levels[i], levels[i].table(name), zdec, func(e entry) { above = append(above, viewEntry{e, i}) })
		if err != nil {
			return false, err
		}
	}
	slices.SortFunc(above, func(a, b viewEntry) int {
		switch {
		case a.id < b.id || a.id == b.id && a.level < b.level:
			return -1
		case a.id == b.id && a.level == b.level:
			return 0
		}
		return 1
	})
	above = slices.CompactFunc(above, func(a, b viewEntry) bool { return a.id == b.id })
	emit := func(e viewEntry) {
		if e.frame != noFrame {
			each(e)
		}
	}
	err = s.entries(ctx, levels[bottom], levels[bottom].table(name), zdec, func(e entry) {
		for len(above) > 0 && above[0].id < e.id {
			emit(above[0])
			above = above[1:]
		}
		if len(above) > 0 && above[0].id == e.id {
			emit(above[0])
			above = above[1:]
			return
		}
		emit(viewEntry{e, bottom})
	})
	for _, e := range above {
		emit(e)
	}
	return err == nil, err
}

// comparable returns what the newest manifest of a chain says of a table, nil when it cannot be compared with one of that shape.
func comparable(levels []*level, name string, shape uint64) (*manifestTable, error) {
	t := levels[0].table(name)
	if t < 0 || levels[0].dir.shapes[t] != shape || levels[0].m.Tables[t].Rows >= noFrame {
		return nil, nil
	}
	_, ok, err := bottomOf(levels, name)
	if err != nil || !ok {
		return nil, err
	}
	return &levels[0].m.Tables[t], nil
}

// bottomOf returns the place of the level that holds a table whole, and whether the index has all its rows.
func bottomOf(levels []*level, name string) (bottom int, ok bool, err error) {
	for i, l := range levels {
		t := l.table(name)
		if t < 0 || l.dir.flags[t]&flagIndexed == 0 {
			return 0, false, nil
		}
		if l.m.Tables[t].Whole {
			return i, true, nil
		}
	}
	return 0, false, object(manifestName(levels[len(levels)-1].m.Number), errMalformed)
}

// lookup finds what a chain says of ids, which are distinct and ascending, and calls found for each that has a living row, with its
// place in wanted. It reads the frames of the index that may have them.
func (s *space) lookup(ctx context.Context, levels []*level, name string, wanted []entry, zdec *zstd.Decoder, found func(i int, was entry)) error {
	bottom, ok, err := bottomOf(levels, name)
	if err == nil && !ok {
		err = object(manifestName(levels[0].m.Number), errMalformed)
	}
	if err != nil {
		return err
	}
	done := make([]bool, len(wanted))
	var all []entry
	for _, l := range levels[:bottom+1] {
		var frames []dataFrame
		at := 0
		list := l.frames(frameIndex, l.table(name))
		for k, f := range list {
			for at < len(wanted) && (done[at] || wanted[at].id < f.first) {
				at++
			}
			if at < len(wanted) && (k+1 == len(list) || wanted[at].id < list[k+1].first) {
				frames = append(frames, f.dataFrame)
			}
		}
		at = 0
		err := s.indexed(ctx, l, frames, zdec, func(f frame) (err error) {
			if all, err = parseEntries(f.plain, f.rows, all[:0]); err != nil {
				return err
			}
			for _, e := range all {
				for at < len(wanted) && wanted[at].id < e.id {
					at++
				}
				if at < len(wanted) && wanted[at].id == e.id && !done[at] {
					if done[at] = true; e.frame != noFrame {
						found(at, e)
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// oldTable loads a table as a chain leaves it, nil when it cannot be compared with one of that shape.
func (s *space) oldTable(ctx context.Context, levels []*level, name string, shape uint64) (*oldTable, error) {
	mt, err := comparable(levels, name, shape)
	if mt == nil {
		return nil, err
	}
	zdec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer zdec.Close()
	n := int(min(mt.Rows, oldRows))
	o := &oldTable{ids: make([]uint64, 0, n), macs: make([]uint64, 0, n)}
	state := uint64(0)
	var werr error
	ok, err := s.view(ctx, levels, name, zdec, func(e viewEntry) {
		if werr == nil {
			werr = o.add(e.id, e.mac)
		}
		state += e.mac
	})
	if err == nil {
		err = werr
	}
	if err == nil && ok && (int64(o.rows) != mt.Rows || state != uint64(mt.State)) {
		err = object(manifestName(levels[0].m.Number), errMalformed)
	}
	if err == nil && ok {
		err = o.ready()
	}
	if err != nil || !ok {
		o.close()
		return nil, err
	}
	return o, nil
}

// merge gives the frames of a snapshot that builds on others, as if it were full, and holds what it reads against every
// manifest of the chain.
func (s *space) merge(ctx context.Context, levels []*level, progress *progress, out func(frame) error) error {
	zdec, err := newDecoder()
	if err != nil {
		return err
	}
	defer zdec.Close()
	top := levels[0]
	if f := top.dir.frames[0]; f.kind != frameSchema || f.segment != 0 || f.number != 0 {
		return object(manifestName(top.m.Number), errMalformed)
	}
	read := func(l *level, frames []dataFrame, emit func(frame) error) error {
		return s.ahead(ctx, l, frames, zdec, progress, emit)
	}
	if err := read(top, top.dir.frames[:1], out); err != nil {
		return err
	}
	for i := range top.m.Tables {
		if err := s.mergeTable(levels, i, read, out); err != nil {
			return err
		}
	}
	return out(frame{kind: frameEnd, table: noTable})
}

// ahead reads frames of a level and opens some while emit works on those before.
func (s *space) ahead(ctx context.Context, l *level, frames []dataFrame, zdec *zstd.Decoder, progress *progress, emit func(frame) error) error {
	type opened struct {
		frame
		segment uint32
	}
	ctx, cancel := context.WithCancel(ctx)
	next := make(chan opened, 1)
	var rerr error
	go func() {
		defer close(next)
		for _, r := range runs(frames) {
			progress.add("", 0, 0, int64(r[len(r)-1].offset+r[len(r)-1].size-r[0].offset))
			rerr = s.run(ctx, l.m.Segments[r[0].segment], l.data, l.m.Snapshot, r, zdec, func(f frame) error {
				select {
				case next <- opened{f, r[0].segment}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if rerr != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range next { // until it has ended
		}
	}()
	for f := range next {
		if err := emit(f.frame); err != nil {
			return object(l.m.Segments[f.segment].Name, err)
		}
	}
	return rerr
}

func (s *space) mergeTable(levels []*level, number int, read func(*level, []dataFrame, func(frame) error) error, out func(frame) error) error {
	top := levels[0]
	mt := &top.m.Tables[number]
	wrong := func(l *level) error { return object(manifestName(l.m.Number), errMalformed) }
	var sh *shape
	var shapeMAC uint64
	var mac *recordMAC
	var ends []int
	var scratch []byte
	seen := map[uint64]struct{}{} // ids of rows and gone ones of the levels above
	state, count := uint64(0), int64(0)
	for i, l := range levels {
		t := l.table(mt.Name)
		if t < 0 {
			return wrong(l)
		}
		lt := &l.m.Tables[t]
		var frames []dataFrame
		for _, f := range l.dir.frames {
			if f.table == uint32(t) {
				frames = append(frames, f)
			}
		}
		if len(frames) == 0 || frames[0].kind != frameTable {
			return wrong(l)
		}
		digest := l.data.rowDigest(l.m.Snapshot, nil)
		var held, size int64
		var above []uint64 // ids of this level, which count for those below
		err := read(l, frames, func(f frame) error {
			switch f.kind {
			case frameTable:
				if sh != nil && l.dir.shapes[t] != shapeMAC {
					return errMalformed
				}
				if sh == nil {
					tf, err := parseTable(f.plain)
					if err != nil {
						return err
					}
					if sh, err = newShape(tf); err != nil {
						return err
					}
					shapeMAC, mac, ends = l.dir.shapes[t], l.index.records(mt.Name), make([]int, sh.cols)
					f.table = uint32(number)
					if err := out(f); err != nil {
						return err
					}
				}
				digest = l.data.rowDigest(l.m.Snapshot, f.plain)
			case frameRows:
				if sh == nil {
					return errMalformed
				}
				digest.Write(f.plain)
				held += int64(f.rows)
				size += int64(len(f.plain))
				b, kept, rows := f.plain, make([]byte, 0, len(f.plain)), uint32(0)
				for range f.rows {
					rest, err := split(b, ends)
					if err != nil {
						return err
					}
					row := b[:len(b)-len(rest)]
					b = rest
					id := sh.id(mac, row, ends, &scratch)
					if _, ok := seen[id]; ok {
						continue
					}
					if !lt.Whole {
						above = append(above, id)
					}
					state += mac.of(macRow, row)
					kept = append(kept, row...)
					rows++
				}
				if len(b) != 0 {
					return errMalformed
				}
				count += int64(rows)
				if rows > 0 {
					return out(frame{kind: frameRows, table: uint32(number), rows: rows, plain: kept})
				}
			case frameGone:
				digest.Write(f.plain)
				if lt.Whole || len(f.plain) != 8*int(f.rows) || f.rows == 0 {
					return errMalformed
				}
				for g := range slices.Chunk(f.plain, 8) {
					above = append(above, binary.BigEndian.Uint64(g))
				}
			default:
				return errMalformed
			}
			return nil
		})
		if err != nil {
			return err
		}
		if held != lt.Held || size != lt.Bytes || !bytes.Equal(digest.Sum(nil), lt.Digest[:]) {
			return wrong(l)
		}
		if lt.Whole {
			break
		}
		if i == len(levels)-1 {
			return wrong(l)
		}
		for _, id := range above {
			seen[id] = struct{}{}
		}
	}
	if count != mt.Rows || state != uint64(mt.State) {
		return wrong(top)
	}
	return nil
}

// readIndex reads the whole index of a snapshot.
func (s *space) readIndex(ctx context.Context, m *manifest, key *backupkey.Private) error {
	levels, err := s.levels(ctx, m, key)
	if err != nil {
		return err
	}
	defer clearLevels(levels)
	return s.checkIndex(ctx, levels[0])
}

// checkIndex opens every frame of a snapshot's index and holds it against the directory and the manifest.
func (s *space) checkIndex(ctx context.Context, l *level) error {
	zdec, err := newDecoder()
	if err != nil {
		return err
	}
	defer zdec.Close()
	var all []entry
	listed := l.dir.index
	var held, gone = make([]int64, len(l.m.Tables)), make([]int64, len(l.m.Tables))
	for i, o := range l.m.Index {
		b, err := s.fetch(ctx, o)
		if err != nil {
			return err
		}
		number := uint32(0)
		err = readSegment(b, l.index, l.m.version, l.m.indexID(), uint32(i), zdec, func(f frame) (err error) {
			defer func() { number++ }()
			if f.kind == frameDirectory {
				if i != len(l.m.Index)-1 || f.flags != flagLast || len(listed) > 0 {
					return errMalformed
				}
				return nil
			}
			if len(listed) == 0 || listed[0].segment != uint32(i) || listed[0].number != number || listed[0].kind != f.kind ||
				listed[0].table != f.table || listed[0].rows != f.rows {
				return errMalformed
			}
			if f.kind == frameIndex {
				if all, err = parseEntries(f.plain, f.rows, all[:0]); err != nil {
					return err
				}
				for _, e := range all {
					if e.frame == noFrame {
						gone[f.table]++
						continue
					}
					if int(e.frame) >= len(l.dir.frames) || l.dir.frames[e.frame].kind != frameRows || l.dir.frames[e.frame].table != f.table {
						return errMalformed
					}
					held[f.table]++
				}
				if all[0].id != listed[0].first {
					return errMalformed
				}
			} else if links, err := parseLinks(f.plain, f.rows); err != nil {
				return err
			} else if links[0].mac != listed[0].first {
				return errMalformed
			}
			listed = listed[1:]
			return nil
		})
		if err != nil {
			return object(o.Name, err)
		}
	}
	for i := range l.m.Tables {
		t := &l.m.Tables[i]
		if l.dir.flags[i]&flagIndexed != 0 && (held[i] != t.Held || !t.Whole && gone[i] != t.Removed) {
			return object(manifestName(l.m.Number), errMalformed)
		}
	}
	return nil
}

// parent chooses what a new snapshot is compared with and whether it builds on it: nil for a full one that is compared with
// nothing. What is damaged is passed over: the next snapshot is full then. before says that there is one to compare with.
func (s *space) parent(ctx context.Context, name string, c *policy.Chain, gate bool) (b *base, before bool, err error) {
	if c == nil && !gate {
		return nil, false, nil
	}
	numbers, err := s.numbers(ctx)
	if err != nil {
		return nil, false, err
	}
	list, err := s.pruned(ctx)
	if errors.Is(err, ErrTampered) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	for _, n := range slices.Backward(numbers) {
		m, err := s.manifest(ctx, n)
		if err != nil {
			if errors.Is(err, ErrTampered) {
				before = true // perhaps
				continue
			}
			return nil, false, err
		}
		if _, condemned := list.since(m); m.Name != name || m.version == 1 || condemned || m.partial() {
			continue
		}
		if _, lasting, err := s.indexKey(); err != nil || !lasting {
			return nil, true, err
		}
		b, err := s.baseOf(ctx, m, c, list)
		if errors.Is(err, ErrTampered) || errors.Is(err, ErrChain) {
			return nil, true, nil
		}
		if b != nil && !b.delta && !gate {
			b = nil
		}
		return b, true, err
	}
	return nil, before, nil
}

func (s *space) baseOf(ctx context.Context, m *manifest, c *policy.Chain, list *prunes) (*base, error) {
	all, err := s.below(ctx, m)
	if err != nil {
		return nil, err
	}
	full := all[len(all)-1]
	b := &base{}
	if c != nil {
		if c.Differential {
			m, all = full, all[len(all)-1:]
		}
		age := s.opts.Now().Sub(full.Created)
		b.scan = c.Scan
		b.delta = int(m.Depth) < c.MaxLength() && age >= 0 && age < c.MaxAge()
	}
	for _, m := range all {
		if _, condemned := list.since(m); condemned {
			b.delta = false
		}
	}
	if err := s.present(ctx, all...); err != nil {
		return nil, err
	}
	if b.delta && s.opts.Recipient != nil { // what the key of this snapshot would not open is nothing to build on
		for _, m := range all {
			if _, err := s.bucket.Get(ctx, keyName(m.Snapshot, s.opts.Recipient.ID()), 0, 1); errors.Is(err, ErrNotFound) {
				b.delta = false
			} else if err != nil {
				return nil, object(keyPrefix, err)
			}
		}
	}
	b.levels, err = s.levels(ctx, m, nil)
	return b, err
}

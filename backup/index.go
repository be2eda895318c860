package backup

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Kinds of frames of a record index.
const (
	frameGone = iota + 6
	frameIndex
	frameLinks
	frameDirectory
)

const (
	indexRows   = 4096 // entries of one index frame
	noFrame     = 1<<32 - 1
	flagIndexed = 1 // of a table in the directory

	indexLabel = "crmguard backup index key v1\x00"
)

// What a record's MAC is of.
const (
	macRow = iota
	macID
	macLink
	macShape
)

// recordMAC makes the MACs of one table.
type recordMAC struct {
	h   hash.Hash
	tag [1]byte
	buf []byte
}

func (k *dataKey) records(table string) *recordMAC {
	return &recordMAC{h: hmac.New(sha256.New, k.derive("record", []byte(table)))}
}

func (r *recordMAC) of(tag byte, b []byte) uint64 {
	r.h.Reset()
	r.tag[0] = tag
	r.h.Write(r.tag[:])
	r.h.Write(b)
	r.buf = r.h.Sum(r.buf[:0])
	return binary.BigEndian.Uint64(r.buf)
}

// shape names the columns of a rows frame: which of them are the key, and how many values a row has.
type shape struct {
	t    tableFrame
	cols int   // values of a stored row
	key  []int // places of the key's values in it
}

func newShape(t tableFrame) (*shape, error) {
	s := &shape{t: t, cols: len(t.Columns)}
	if len(t.Columns) == 0 || t.Counted != (len(t.Key) == 0) {
		return nil, errMalformed
	}
	if t.Counted {
		s.cols++
		for i := range s.cols {
			s.key = append(s.key, i)
		}
	}
	for _, name := range t.Key {
		i := slices.Index(t.Columns, name)
		if i < 0 || slices.Contains(s.key, i) {
			return nil, errMalformed
		}
		s.key = append(s.key, i)
	}
	for name := range t.Parents {
		if !slices.Contains(t.Columns, name) {
			return nil, errMalformed
		}
	}
	return s, nil
}

// id returns the MAC of a row's key; ends are the ends of its values.
func (s *shape) id(mac *recordMAC, row []byte, ends []int, scratch *[]byte) uint64 {
	b := (*scratch)[:0]
	for _, i := range s.key {
		from := 0
		if i > 0 {
			from = ends[i-1]
		}
		b = append(b, row[from:ends[i]]...)
	}
	*scratch = b
	return mac.of(macID, b)
}

// link returns the MAC by which the rows are found that have value in a column.
func (s *shape) link(mac *recordMAC, column string, value []byte, scratch *[]byte) uint64 {
	*scratch = append(append(append((*scratch)[:0], byte(len(column))), column...), value...)
	return mac.of(macLink, *scratch)
}

// split finds the ends of the values of one row and returns what follows it.
func split(b []byte, ends []int) (rest []byte, err error) {
	rest = b
	for i := range ends {
		var ok bool
		if rest, ok = skipValue(rest); !ok {
			return nil, errRows
		}
		ends[i] = len(b) - len(rest)
	}
	return rest, nil
}

// indexKey returns the key of this repository's record indexes, and whether the next run will find it again.
func (s *space) indexKey() (k *dataKey, lasting bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index != nil {
		return s.index, true, nil
	}
	if s.opts.Signer == nil {
		return nil, false, nil
	}
	message := append([]byte(indexLabel), s.id[:]...)
	var sum [2][32]byte
	for i := range sum {
		sig, err := s.opts.Signer.Sign(rand.Reader, message, crypto.Hash(0))
		if err != nil {
			return nil, false, fmt.Errorf("backup: sign: %w", err)
		}
		sum[i] = sha256.Sum256(append([]byte(indexLabel), sig...))
	}
	if sum[0] != sum[1] { // a signer that adds noise
		return newDataKey(), false, nil
	}
	k = (*dataKey)(&sum[0])
	s.index = k
	return k, true, nil
}

func (k *dataKey) indexAEAD(snapshot id16) cipher.AEAD {
	block, err := aes.NewCipher(k.derive("index key", snapshot[:]))
	if err != nil {
		panic("backup: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("backup: " + err.Error())
	}
	return aead
}

// sealIndexKey seals the index key under the data key of one snapshot, which seals nothing else so.
func (k *dataKey) sealIndexKey(index *dataKey, snapshot id16) []byte {
	return k.indexAEAD(snapshot).Seal(nil, make([]byte, 12), index[:], nil)
}

func (k *dataKey) openIndexKey(sealed []byte, snapshot id16) (*dataKey, error) {
	b, err := k.indexAEAD(snapshot).Open(nil, make([]byte, 12), sealed, nil)
	if err != nil || len(b) != len(dataKey{}) {
		return nil, ErrTampered
	}
	out := dataKey(b)
	return &out, nil
}

// entry is what the index says of one row.
type entry struct {
	id    uint64
	mac   uint64
	frame uint32 // the place of its frame in the snapshot; noFrame = the row is gone
}

// appendEntries writes an index frame.
func appendEntries(b []byte, all []entry) []byte {
	last := uint64(0)
	for _, e := range all {
		b = binary.AppendUvarint(b, e.id-last)
		last = e.id
	}
	for _, e := range all {
		b = binary.BigEndian.AppendUint64(b, e.mac)
	}
	for _, e := range all {
		b = binary.AppendUvarint(b, uint64(e.frame+1)) // noFrame becomes 0
	}
	return b
}

// parseEntries reads an index frame of n entries and appends them to all.
func parseEntries(b []byte, n uint32, all []entry) ([]entry, error) {
	if n == 0 || n > indexRows {
		return nil, errMalformed
	}
	at, last := len(all), uint64(0)
	for i := range n {
		d, rest, ok := uvarint(b)
		if !ok || i > 0 && d == 0 || last+d < last {
			return nil, errMalformed
		}
		last += d
		b = rest
		all = append(all, entry{id: last})
	}
	if uint64(len(b)) < uint64(n)*8 {
		return nil, errMalformed
	}
	for i := range n {
		all[at+int(i)].mac = binary.BigEndian.Uint64(b)
		b = b[8:]
	}
	for i := range n {
		f, rest, ok := uvarint(b)
		if !ok || f > noFrame {
			return nil, errMalformed
		}
		all[at+int(i)].frame = uint32(f) - 1
		b = rest
	}
	if len(b) != 0 {
		return nil, errMalformed
	}
	return all, nil
}

// link is one row that has a value in a column that names its parent.
type link struct{ mac, id uint64 }

func parseLinks(b []byte, n uint32) ([]link, error) {
	if n == 0 || n > indexRows || uint64(len(b)) != uint64(n)*16 {
		return nil, errMalformed
	}
	all := make([]link, n)
	for i := range all {
		all[i] = link{binary.BigEndian.Uint64(b[i*16:]), binary.BigEndian.Uint64(b[i*16+8:])}
		if i > 0 && compareLinks(all[i-1], all[i]) >= 0 {
			return nil, errMalformed
		}
	}
	return all, nil
}

func compareLinks(a, b link) int {
	switch {
	case a.mac < b.mac || a.mac == b.mac && a.id < b.id:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// place is where a frame lies in the segment that it is in.
type place struct {
	number, offset, size uint32 // size with its head
}

// dataFrame is a frame of a data segment.
type dataFrame struct {
	segment uint32
	place
	kind        byte
	table, rows uint32
}

// indexFrame is a frame of an index segment.
type indexFrame struct {
	dataFrame
	first uint64
}

// directory says where everything in a snapshot lies.
type directory struct {
	schema uint64
	flags  []byte
	shapes []uint64
	frames []dataFrame // of the data segments, in order, but for the footers
	ends   []uint32    // of each data segment
	index  []indexFrame
}

func (d *directory) marshal() []byte {
	b := binary.BigEndian.AppendUint64(nil, d.schema)
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.flags)))
	for i, f := range d.flags {
		b = binary.BigEndian.AppendUint64(append(b, f), d.shapes[i])
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.ends)))
	at := 0
	for s, end := range d.ends {
		n := at
		for n < len(d.frames) && d.frames[n].segment == uint32(s) {
			n++
		}
		b = binary.BigEndian.AppendUint32(b, uint32(n-at))
		for _, f := range d.frames[at:n] {
			b = binary.BigEndian.AppendUint32(b, f.offset)
			b = append(b, f.kind)
			b = binary.BigEndian.AppendUint32(b, f.table)
			b = binary.BigEndian.AppendUint32(b, f.rows)
		}
		b = binary.BigEndian.AppendUint32(b, end)
		at = n
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.index)))
	for _, f := range d.index {
		b = append(b, f.kind)
		for _, v := range []uint32{f.table, f.rows, f.segment, f.number, f.offset, f.size} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		b = binary.BigEndian.AppendUint64(b, f.first)
	}
	return b
}

// cursor reads numbers until the bytes end.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.bad = true
		c.b = nil
		return make([]byte, n)
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u8() byte    { return c.take(1)[0] }
func (c *cursor) u32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }
func (c *cursor) u64() uint64 { return binary.BigEndian.Uint64(c.take(8)) }

// count reads how many pieces follow, of at least size bytes each.
func (c *cursor) count(size int) int {
	n := c.u32()
	if uint64(n)*uint64(size) > uint64(len(c.b)) {
		c.bad = true
		return 0
	}
	return int(n)
}

// parseDirectory reads a directory and holds it against the manifest.
func parseDirectory(b []byte, m *manifest) (*directory, error) {
	c := &cursor{b: b}
	d := &directory{schema: c.u64()}
	for range c.count(9) {
		d.flags, d.shapes = append(d.flags, c.u8()), append(d.shapes, c.u64())
	}
	segments := c.count(8)
	if len(d.flags) != len(m.Tables) || segments != len(m.Segments) {
		return nil, errMalformed
	}
	for s := range segments {
		at, n := len(d.frames), c.count(13)
		for i := range n {
			d.frames = append(d.frames, dataFrame{segment: uint32(s), place: place{number: uint32(i), offset: c.u32()},
				kind: c.u8(), table: c.u32(), rows: c.u32()})
		}
		end := c.u32()
		d.ends = append(d.ends, end)
		if n == 0 || c.bad || int64(end) > m.Segments[s].Size {
			return nil, errMalformed
		}
		for i := at; i < len(d.frames); i++ {
			next := end
			if i+1 < len(d.frames) {
				next = d.frames[i+1].offset
			}
			f := &d.frames[i]
			if next < f.offset || next-f.offset < frameHead+tagSize || f.offset < segmentHead ||
				f.table != noTable && f.table >= uint32(len(m.Tables)) {
				return nil, errMalformed
			}
			f.size = next - f.offset
		}
	}
	for range c.count(33) {
		f := indexFrame{}
		f.kind, f.table, f.rows, f.segment, f.number, f.offset, f.size = c.u8(), c.u32(), c.u32(), c.u32(), c.u32(), c.u32(), c.u32()
		f.first = c.u64()
		if f.kind != frameIndex && f.kind != frameLinks || f.table >= uint32(len(m.Tables)) || f.segment >= uint32(len(m.Index)) ||
			f.rows == 0 || f.rows > indexRows || f.size < frameHead+tagSize || int64(f.offset)+int64(f.size) > m.Index[f.segment].Size {
			return nil, errMalformed
		}
		if n := len(d.index); n > 0 {
			p := &d.index[n-1]
			same := p.table == f.table && p.kind == f.kind
			if p.table > f.table || p.table == f.table && p.kind > f.kind || same && (p.first > f.first || p.first == f.first && f.kind == frameIndex) {
				return nil, errMalformed
			}
		}
		d.index = append(d.index, f)
	}
	if c.bad || len(c.b) != 0 {
		return nil, errMalformed
	}
	for i := range d.flags {
		if d.flags[i]&^flagIndexed != 0 {
			return nil, errMalformed
		}
	}
	return d, nil
}

// errFull says that what is dumped cannot build on the snapshot before: two rows of a table have one id, or it comes from
// another engine.
var errFull = errors.New("backup: a full snapshot is needed")

// indexWriter builds the record index of a snapshot beside its rows.
type indexWriter struct {
	s      *space
	ctx    context.Context
	m      *manifest
	key    *dataKey
	base   *base // nil: nothing to compare with
	zenc   *zstd.Encoder
	seg    *segmentWriter
	spare  []byte // the memory of a segment that was stored
	number uint32
	dir    directory
	same   bool // the schema is that of the snapshot below

	// Of the table at hand.
	shape   *shape
	mac     *recordMAC
	below   *manifestTable    // of the snapshot below; nil: nothing to compare with
	old     *oldTable         // below, row by row, once it is needed
	batch   batch             // rows that are not compared yet
	present []uint64          // ids of keys that are not marked yet
	delta   bool              // rows that are as they were are left out
	counts  map[uint64]uint32 // of equal rows, in a table without a key
	parents []parentColumn
	entries sorter
	links   sorter // a link's MAC is the id, and the row's id the MAC
	state   uint64
	added   int64
	changed int64
	bySeq   bool   // only changed rows come
	rest    bool   // all rows that did not come are unchanged
	byKey   bool   // the keys of all rows come
	total   int64  // rows that the source has, by its word
	replace uint64 // with bySeq: the sum of the MACs that changed rows had before
	keys    int64
	ends    []int
	scratch []byte
}

// parentColumn is a column that names a row of another table.
type parentColumn struct {
	name  string
	place int
}

// base is what a snapshot is compared with, and perhaps built on.
type base struct {
	levels []*level // newest first
	delta  bool     // build on it
	scan   bool     // and never by change numbers
}

func (x *indexWriter) schema(json []byte) {
	x.dir.schema = x.key.records("").of(macShape, json)
	x.same = x.base != nil && x.base.levels[0].dir.schema == x.dir.schema
}

// table begins a table. Its manifest entry is the last one.
func (x *indexWriter) table(t tableFrame, frame []byte, seq int64) (err error) {
	if x.shape, err = newShape(t); err != nil {
		return errors.New("backup: the key and the parents of a table are columns of it")
	}
	mt := &x.m.Tables[len(x.m.Tables)-1]
	mt.Whole, mt.Seq = true, seq
	x.mac = x.key.records(t.Name)
	x.dir.shapes = append(x.dir.shapes, x.mac.of(macShape, frame))
	x.dir.flags = append(x.dir.flags, flagIndexed)
	x.old.close()
	x.batch.reset()
	x.below, x.old, x.delta, x.counts, x.parents, x.present = nil, nil, false, nil, x.parents[:0], x.present[:0]
	x.entries.reset()
	x.links.reset()
	x.state, x.added, x.changed, x.bySeq, x.rest, x.byKey = 0, 0, 0, false, false, false
	x.total, x.keys, x.replace = 0, 0, 0
	for i, c := range t.Columns {
		if _, ok := t.Parents[c]; ok {
			x.parents = append(x.parents, parentColumn{c, i})
		}
	}
	x.ends = slices.Grow(x.ends[:0], x.shape.cols)[:x.shape.cols]
	if t.Counted {
		x.counts = map[uint64]uint32{}
	}
	if x.base == nil {
		return nil
	}
	if x.below, err = comparable(x.base.levels, t.Name, x.dir.shapes[len(x.dir.shapes)-1]); err != nil {
		return err
	}
	mt.compared = x.below != nil
	x.delta = x.base.delta && x.below != nil
	mt.Whole = !x.delta
	return nil
}

// load reads the table below, where there is one.
func (x *indexWriter) load() (err error) {
	if x.below != nil && x.old == nil {
		x.old, err = x.s.oldTable(x.ctx, x.base.levels, x.shape.t.Name, x.dir.shapes[len(x.dir.shapes)-1])
		if err == nil && x.old == nil {
			err = errMalformed // comparable said that there is one
		}
	}
	return err
}

// begun says that rows of the table came.
func (x *indexWriter) begun() bool {
	return x.old != nil || x.entries.all > 0 || len(x.batch.items) > 0
}

// comparing says that rows go through the batch.
func (x *indexWriter) comparing() bool { return x.below != nil && !x.bySeq }

// independent says that every row of the table is kept as it comes, whatever the others are.
func (x *indexWriter) independent() bool { return !x.comparing() && x.counts == nil }

// rows takes the rows of a frame of such a table.
func (x *indexWriter) rows(f frame, number uint32) error {
	b := f.plain
	for range f.rows {
		rest, err := split(b, x.ends)
		if err != nil {
			return err
		}
		x.row(b[:len(b)-len(rest)], 0, number)
		b = rest
	}
	return nil
}

// identify takes the last row of buf, whose values end at x.ends. A counted row gets its count.
func (x *indexWriter) identify(buf []byte, at int) ([]byte, entry) {
	if x.counts != nil {
		h := x.mac.of(macRow, buf[at:])
		n := x.counts[h]
		x.counts[h] = n + 1
		buf = binary.AppendVarint(append(buf, tagInt), int64(n))
		x.ends[x.shape.cols-1] = len(buf) - at
	}
	row := buf[at:]
	e := entry{id: x.shape.id(x.mac, row, x.ends, &x.scratch), mac: x.mac.of(macRow, row)}
	x.state += e.mac
	return buf, e
}

// keep notes a row that the snapshot holds, whose values end at x.ends.
func (x *indexWriter) keep(row []byte, e entry) {
	x.entries.add(e)
	for _, c := range x.parents {
		from := 0
		if c.place > 0 {
			from = x.ends[c.place-1]
		}
		if v := row[from:x.ends[c.place]]; v[0] != tagNull {
			x.links.add(entry{id: x.shape.link(x.mac, c.name, v, &x.scratch), mac: e.id})
		}
	}
}

// row takes the last row of buf, which is kept in a frame.
func (x *indexWriter) row(buf []byte, at int, frame uint32) []byte {
	buf, e := x.identify(buf, at)
	e.frame = frame
	x.keep(buf[at:], e)
	return buf
}

// compare says of each row of the batch whether it is to be kept.
func (x *indexWriter) compare() error {
	if err := x.load(); err != nil {
		return err
	}
	x.batch.sort()
	for _, k := range x.batch.order {
		r := &x.batch.items[k]
		i, mac, err := x.old.find(r.id)
		if err != nil {
			return err
		}
		if i >= 0 && bit(x.old.seen, i) {
			if x.delta {
				return errFull
			}
			i = -1
		}
		r.keep = true
		if i < 0 {
			x.added++
			continue
		}
		mark(x.old.seen, i)
		if mac != r.mac {
			x.changed++
		} else {
			r.keep = !x.delta
		}
	}
	return nil
}

// markKeys marks the rows whose keys came.
func (x *indexWriter) markKeys() error {
	slices.Sort(x.present)
	for _, id := range x.present {
		i, _, err := x.old.find(id)
		if err != nil {
			return err
		}
		if i >= 0 {
			mark(x.old.kept, i)
		}
	}
	x.present = x.present[:0]
	return nil
}

// settle compares the rows that came by change number with the table below.
func (x *indexWriter) settle() error {
	zdec, err := newDecoder()
	if err != nil {
		return err
	}
	defer zdec.Close()
	x.added, x.changed, x.replace = int64(x.entries.all), 0, 0
	batch := make([]entry, 0, min(x.entries.all, spillRows))
	flush := func() error {
		err := x.s.lookup(x.ctx, x.base.levels, x.shape.t.Name, batch, zdec, func(i int, was entry) {
			x.added--
			x.replace += was.mac
			if was.mac != batch[i].mac {
				x.changed++
			}
		})
		batch = batch[:0]
		return err
	}
	err = x.entries.each(func(e entry) error {
		if len(batch) > 0 && batch[len(batch)-1].id == e.id {
			return errFull
		}
		if len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return err
			}
		}
		batch = append(batch, e)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// loadKeys reads the table below and marks the rows that came.
func (x *indexWriter) loadKeys() error {
	if err := x.load(); err != nil {
		return err
	}
	return x.entries.each(func(e entry) error {
		i, _, err := x.old.find(e.id)
		if i >= 0 {
			mark(x.old.seen, i)
		}
		return err
	})
}

// endTable closes the table and returns the ids of rows that are gone.
func (x *indexWriter) endTable() (gone []uint64, err error) {
	mt := &x.m.Tables[len(x.m.Tables)-1]
	mt.Rows = mt.Held
	if x.bySeq && !x.rest && !x.byKey {
		return nil, errors.New("backup: a dump by change number ends with Rest, and with Key where that says so")
	}
	if x.comparing() { // also when no row came
		if err := x.load(); err != nil {
			return nil, err
		}
	}
	switch {
	case x.rest:
		x.state += uint64(x.below.State) - x.replace
		mt.Added, mt.Changed, mt.Rows = x.added, x.changed, x.total
	case x.old != nil:
		if err := x.markKeys(); err != nil {
			return nil, err
		}
		living := int64(0)
		if err := x.old.each(func(i int, id, mac uint64) {
			switch {
			case bit(x.old.seen, i):
				living++
			case bit(x.old.kept, i):
				living++
				x.state += mac
			default:
				gone = append(gone, id)
			}
		}); err != nil {
			return nil, err
		}
		mt.Added, mt.Changed, mt.Removed = x.added, x.changed, int64(len(gone))
		if x.delta {
			mt.Rows = living + x.added
			if x.byKey && (x.keys != x.total || mt.Rows != x.total) {
				return nil, errFull // what the source says of itself does not fit: it is read in full
			}
			for _, id := range gone {
				x.entries.add(entry{id: id, frame: noFrame})
			}
		} else {
			gone = nil
		}
		x.old.close()
		x.old = nil
	}
	mt.State = state64(x.state)
	last, some := uint64(0), false
	err = x.entries.each(func(e entry) error {
		if some && last == e.id {
			return errTwice
		}
		last, some = e.id, true
		return nil
	})
	switch {
	case errors.Is(err, errTwice) && x.delta:
		return nil, errFull
	case errors.Is(err, errTwice):
		x.dir.flags[len(x.dir.flags)-1] &^= flagIndexed
		return gone, nil
	case err != nil:
		return nil, err
	}
	part := make([]entry, 0, min(indexRows, x.entries.all))
	write := func() error {
		if len(part) == 0 {
			return nil
		}
		x.scratch = appendEntries(x.scratch[:0], part)
		err := x.add(frameIndex, len(part), part[0].id)
		part = part[:0]
		return err
	}
	err = x.entries.each(func(e entry) error {
		if part = append(part, e); len(part) < indexRows {
			return nil
		}
		return write()
	})
	if err == nil {
		err = write()
	}
	if err != nil {
		return nil, err
	}
	return gone, x.writeLinks()
}

var errTwice = errors.New("backup: two rows have one id")

func (x *indexWriter) writeLinks() error {
	x.scratch = x.scratch[:0]
	n, first, last := 0, uint64(0), link{}
	write := func() error {
		if n == 0 {
			return nil
		}
		err := x.add(frameLinks, n, first)
		x.scratch, n = x.scratch[:0], 0
		return err
	}
	begun := false
	err := x.links.each(func(e entry) error {
		l := link{e.id, e.mac}
		if begun && l == last {
			return nil
		}
		if last, begun = l, true; n == 0 {
			first = l.mac
		}
		x.scratch = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(x.scratch, l.mac), l.id)
		if n++; n < indexRows {
			return nil
		}
		return write()
	})
	if err != nil {
		return err
	}
	return write()
}

// add puts x.scratch into the index as a frame of the table at hand.
func (x *indexWriter) add(kind byte, rows int, first uint64) error {
	f := indexFrame{first: first}
	f.kind, f.table, f.rows = kind, uint32(len(x.dir.flags)-1), uint32(rows)
	if x.seg == nil {
		x.seg = reuseSegmentWriter(x.spare, x.key, x.m.indexID(), x.number, x.zenc)
		x.spare = nil
	}
	f.segment, f.number, f.offset = x.number, x.seg.count, uint32(len(x.seg.buf))
	full := len(x.seg.buf)+len(x.scratch) >= indexTarget
	flags := byte(0)
	if full {
		flags = flagLast
	}
	x.seg.add(frame{kind: kind, flags: flags, table: f.table, rows: f.rows, plain: x.scratch})
	f.size = uint32(len(x.seg.buf)) - f.offset
	x.dir.index = append(x.dir.index, f)
	if full {
		return x.flush()
	}
	return nil
}

func (x *indexWriter) flush() error {
	b := x.seg.finish()
	x.seg = nil
	x.number++
	o, err := x.s.put(x.ctx, segmentPrefix+newID().String(), b)
	x.m.Index = append(x.m.Index, o)
	if err == nil {
		x.spare = b
	}
	return err
}

// close gives back what the sorting took.
func (x *indexWriter) close() {
	x.old.close()
	x.entries.close()
	x.links.close()
}

// finish writes the directory, which closes the index.
func (x *indexWriter) finish(frames []dataFrame, ends []uint32) error {
	x.dir.frames, x.dir.ends = frames, ends
	if x.seg == nil {
		x.seg = reuseSegmentWriter(x.spare, x.key, x.m.indexID(), x.number, x.zenc)
		x.spare = nil
	}
	b := x.dir.marshal()
	if len(b) > maxRow {
		return errors.New("backup: too many segments")
	}
	x.seg.add(frame{kind: frameDirectory, flags: flagLast, table: noTable, plain: b})
	return x.flush()
}

// state64 is a number that is 16 hexadecimal digits in JSON.
type state64 uint64

func (s state64) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(s)), nil }

func (s *state64) UnmarshalText(b []byte) error {
	var v [8]byte
	if err := unhex(v[:], b); err != nil {
		return err
	}
	*s = state64(binary.BigEndian.Uint64(v[:]))
	return nil
}

// parseTable reads the JSON of a table frame.
func parseTable(b []byte) (tableFrame, error) {
	var t tableFrame
	err := strictJSON(b, &t)
	if len(t.Key) == 0 {
		t.Key = nil
	}
	if len(t.Parents) == 0 {
		t.Parents = nil
	}
	return t, err
}

func marshalTable(t Table) (tableFrame, []byte, error) {
	f := tableFrame{Name: t.Name, Columns: t.Columns, Key: []string{}, Counted: len(t.Key) == 0, Parents: map[string]string{}}
	f.Key = append(f.Key, t.Key...)
	maps.Copy(f.Parents, t.Parents)
	b, err := json.Marshal(f)
	return f, b, err
}

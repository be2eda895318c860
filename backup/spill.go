package backup

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math/bits"
	"os"
	"slices"
	"sort"
)

const (
	spillRows  = 1 << 15 // entries that a sorter keeps in memory
	spillBlock = 256     // entries that are written and read at once
	entrySize  = 8 + 8 + 4
	oldSize    = 8 + 8
)

// tempFile is a temporary file without a name. Its blocks are sealed under a key that nobody else has, and are written once.
type tempFile struct {
	f      *os.File
	name   string // where it could not be removed while it is open
	aead   cipher.AEAD
	stride int64 // of a block, sealed
	blocks int64 // that were written
	buf    []byte
}

func newTempFile(block int) (*tempFile, error) {
	f, err := os.CreateTemp("", "crmguard-backup-*")
	if err != nil {
		return nil, err
	}
	t := &tempFile{f: f, stride: int64(block + tagSize)}
	if os.Remove(f.Name()) != nil {
		t.name = f.Name()
	}
	var key [32]byte
	rand.Read(key[:])
	block256, err := aes.NewCipher(key[:])
	if err == nil {
		t.aead, err = cipher.NewGCM(block256)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *tempFile) close() {
	if t == nil {
		return
	}
	t.f.Close()
	if t.name != "" {
		os.Remove(t.name)
	}
}

func (t *tempFile) nonce(block int64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), uint64(block))
}

// write adds a block.
func (t *tempFile) write(plain []byte) error {
	t.buf = t.aead.Seal(t.buf[:0], t.nonce(t.blocks), plain, nil)
	t.blocks++ // also when it fails: no nonce comes twice
	_, err := t.f.WriteAt(t.buf, (t.blocks-1)*t.stride)
	return err
}

// read reads a block of so many bytes. Its memory is that of buf, and more where that is too little.
func (t *tempFile) read(block int64, size int, buf []byte) (plain []byte, err error) {
	size += tagSize
	buf = slices.Grow(buf[:0], size)[:size]
	if _, err := t.f.ReadAt(buf, block*t.stride); err != nil {
		return nil, errSpill
	}
	if plain, err = t.aead.Open(buf[:0], t.nonce(block), buf, nil); err != nil {
		return nil, errSpill
	}
	return plain, nil
}

var errSpill = errors.New("backup: the temporary file is damaged")

// sorter sorts entries by id and then by MAC. What is too much for the memory lies in sorted runs in a temporary file;
// where there can be none, all stays in the memory.
type sorter struct {
	rows   []entry
	all    int // entries, with those in the file
	limit  int // of rows; 0 = spillRows
	file   *tempFile
	runs   []spillRun
	noFile bool
}

// spillRun is a sorted run of the file.
type spillRun struct {
	block int64
	rows  int
}

func compareEntries(a, b entry) int {
	if c := cmp.Compare(a.id, b.id); c != 0 {
		return c
	}
	return cmp.Compare(a.mac, b.mac)
}

func (s *sorter) add(e entry) {
	if s.limit == 0 {
		s.limit = spillRows
	}
	if len(s.rows) >= s.limit && !s.noFile {
		s.noFile = !s.spill()
	}
	if len(s.rows) == cap(s.rows) {
		s.rows = slices.Grow(s.rows, max(indexRows, cap(s.rows))) // twice as large
	}
	s.rows = append(s.rows, e)
	s.all++
}

// reset forgets all entries and keeps the memory.
func (s *sorter) reset() {
	s.close()
	s.rows, s.all, s.runs = s.rows[:0], 0, s.runs[:0]
}

func (s *sorter) close() {
	s.file.close()
	s.file = nil
}

// spill writes the entries in memory as a run of the file.
func (s *sorter) spill() bool {
	if s.file == nil {
		f, err := newTempFile(spillBlock * entrySize)
		if err != nil {
			return false
		}
		s.file = f
	}
	slices.SortFunc(s.rows, compareEntries)
	r := spillRun{block: s.file.blocks, rows: len(s.rows)}
	plain := make([]byte, 0, spillBlock*entrySize)
	for part := range slices.Chunk(s.rows, spillBlock) {
		plain = plain[:0]
		for _, e := range part {
			plain = binary.BigEndian.AppendUint64(plain, e.id)
			plain = binary.BigEndian.AppendUint64(plain, e.mac)
			plain = binary.BigEndian.AppendUint32(plain, e.frame)
		}
		if s.file.write(plain) != nil {
			return false
		}
	}
	s.runs, s.rows = append(s.runs, r), s.rows[:0]
	return true
}

// spillReader reads one run.
type spillReader struct {
	file  *tempFile
	run   spillRun // what was not read yet
	rows  []entry  // read and not given
	store []entry
	buf   []byte
}

// fill makes rows hold something, unless the run has ended.
func (r *spillReader) fill() (err error) {
	if len(r.rows) > 0 || r.run.rows == 0 {
		return nil
	}
	n := min(spillBlock, r.run.rows)
	if r.store == nil {
		r.store = make([]entry, 0, spillBlock)
	}
	if r.buf, err = r.file.read(r.run.block, n*entrySize, r.buf); err != nil {
		return err
	}
	r.rows = r.store[:0]
	for b := r.buf; len(b) > 0; b = b[entrySize:] {
		r.rows = append(r.rows, entry{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])})
	}
	r.run.block++
	r.run.rows -= n
	return nil
}

// each gives all entries in order. It may be called again, and entries may be added between.
func (s *sorter) each(do func(entry) error) error {
	slices.SortFunc(s.rows, compareEntries)
	if len(s.runs) == 0 {
		for _, e := range s.rows {
			if err := do(e); err != nil {
				return err
			}
		}
		return nil
	}
	heap := make([]*spillReader, 0, len(s.runs)+1)
	for _, r := range s.runs {
		heap = append(heap, &spillReader{file: s.file, run: r})
	}
	if len(s.rows) > 0 {
		heap = append(heap, &spillReader{rows: s.rows})
	}
	for _, r := range heap {
		if err := r.fill(); err != nil {
			return err
		}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sift(heap, i)
	}
	for len(heap) > 0 {
		r := heap[0]
		if err := do(r.rows[0]); err != nil {
			return err
		}
		r.rows = r.rows[1:]
		if err := r.fill(); err != nil {
			return err
		}
		if len(r.rows) == 0 {
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		if len(heap) > 0 {
			sift(heap, 0)
		}
	}
	return nil
}

// sift lets the reader at i sink to where its first entry belongs.
func sift(heap []*spillReader, i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(heap); c++ {
			if compareEntries(heap[c].rows[0], heap[least].rows[0]) < 0 {
				least = c
			}
		}
		if least == i {
			return
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}

const oldRows = 1 << 17 // rows of a table below that are kept in memory

// oldTable is a table as the chain below leaves it, by the index: its living rows, ascending by id. Large ones lie in a temporary
// file, where there can be one, and take some bits of memory for each row; else they take about 18 bytes.
type oldTable struct {
	rows      int
	ids, macs []uint64
	seen      []uint64 // bits: rows that came again
	kept      []uint64 // bits: rows that are said to be unchanged
	bucket    []uint32 // by the first bits of an id, where to begin
	shift     int

	file   *tempFile // of blocks of ids and MACs; nil: all are in memory
	noFile bool
	firsts []uint64 // the first id of each block
	block  int      // that ids and macs hold; -1 = none
	buf    []byte
}

// add adds a row with an id above all others.
func (o *oldTable) add(id, mac uint64) error {
	if o.file == nil && !o.noFile && len(o.ids) == oldRows {
		f, err := newTempFile(spillBlock * oldSize)
		if o.noFile = err != nil; !o.noFile {
			o.file = f
			ids, macs := o.ids, o.macs
			o.ids, o.macs = make([]uint64, 0, spillBlock), make([]uint64, 0, spillBlock)
			o.rows = 0
			for i := range ids {
				if err := o.add(ids[i], macs[i]); err != nil {
					return err
				}
			}
		}
	}
	o.ids, o.macs = append(o.ids, id), append(o.macs, mac)
	o.rows++
	if o.file != nil && len(o.ids) == spillBlock {
		return o.flush()
	}
	return nil
}

// flush writes the block at hand.
func (o *oldTable) flush() error {
	if len(o.ids) == 0 {
		return nil
	}
	b := o.buf[:0]
	for i, id := range o.ids {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, id), o.macs[i])
	}
	o.buf, o.firsts = b, append(o.firsts, o.ids[0])
	o.ids, o.macs = o.ids[:0], o.macs[:0]
	if o.file.write(b) != nil {
		return errors.New("backup: a temporary file could not be written")
	}
	return nil
}

// ready makes the table fit for find.
func (o *oldTable) ready() error {
	words := (o.rows + 63) / 64
	o.seen, o.kept = make([]uint64, words), make([]uint64, words)
	if o.file != nil {
		o.block = -1
		return o.flush()
	}
	width := max(1, bits.Len(uint(len(o.ids)))-3)
	o.shift = 64 - width
	o.bucket = make([]uint32, 1<<width+1)
	at := 0
	for b := range o.bucket {
		for at < len(o.ids) && o.ids[at]>>o.shift < uint64(b) {
			at++
		}
		o.bucket[b] = uint32(at)
	}
	return nil
}

// find returns the place of an id, -1 for none, and the MAC of its row. Ids that ascend are found with less work.
func (o *oldTable) find(id uint64) (place int, mac uint64, err error) {
	if o.file == nil {
		b := id >> o.shift
		for i := o.bucket[b]; i < o.bucket[b+1]; i++ {
			if o.ids[i] == id {
				return int(i), o.macs[i], nil
			}
		}
		return -1, 0, nil
	}
	b := o.block
	if b < 0 || id < o.firsts[b] || b+1 < len(o.firsts) && id >= o.firsts[b+1] {
		if b = sort.Search(len(o.firsts), func(k int) bool { return o.firsts[k] > id }) - 1; b < 0 {
			return -1, 0, nil
		}
		if err := o.load(b); err != nil {
			return -1, 0, err
		}
	}
	if i, ok := slices.BinarySearch(o.ids, id); ok {
		return b*spillBlock + i, o.macs[i], nil
	}
	return -1, 0, nil
}

// load reads a block.
func (o *oldTable) load(b int) (err error) {
	n := min(spillBlock, o.rows-b*spillBlock)
	if o.buf, err = o.file.read(int64(b), n*oldSize, o.buf); err != nil {
		o.block = -1
		return err
	}
	o.block, o.ids, o.macs = b, o.ids[:0], o.macs[:0]
	for p := o.buf; len(p) > 0; p = p[oldSize:] {
		o.ids, o.macs = append(o.ids, binary.BigEndian.Uint64(p)), append(o.macs, binary.BigEndian.Uint64(p[8:]))
	}
	return nil
}

// each gives all rows in order.
func (o *oldTable) each(do func(place int, id, mac uint64)) error {
	for b := 0; o.file != nil && b < len(o.firsts); b++ {
		if err := o.load(b); err != nil {
			return err
		}
		for i, id := range o.ids {
			do(b*spillBlock+i, id, o.macs[i])
		}
	}
	for i := 0; o.file == nil && i < len(o.ids); i++ {
		do(i, o.ids[i], o.macs[i])
	}
	return nil
}

func (o *oldTable) close() {
	if o != nil {
		o.file.close()
	}
}

func bit(set []uint64, i int) bool { return set[i/64]&(1<<(i%64)) != 0 }
func mark(set []uint64, i int)     { set[i/64] |= 1 << (i % 64) }

// batch are rows that are compared together: in the order of their ids, which is that of the table below.
type batch struct {
	rows  []byte
	items []batchItem
	order []int32
}

type batchItem struct {
	entry
	end  int // of the row
	keep bool
}

const (
	batchBytes = 8 << 20
	batchRows  = 1 << 15
)

// add takes a copy of a row, and says whether there are enough.
func (b *batch) add(row []byte, e entry) (full bool) {
	b.rows = append(b.rows, row...)
	b.items = append(b.items, batchItem{entry: e, end: len(b.rows)})
	return len(b.rows) >= batchBytes || len(b.items) >= batchRows
}

func (b *batch) reset() {
	b.rows, b.items = b.rows[:0], b.items[:0]
	if cap(b.rows) > 2*batchBytes {
		b.rows = nil
	}
}

// sort fills order.
func (b *batch) sort() {
	b.order = b.order[:0]
	for i := range b.items {
		b.order = append(b.order, int32(i))
	}
	slices.SortFunc(b.order, func(i, j int32) int {
		return cmp.Or(cmp.Compare(b.items[i].id, b.items[j].id), cmp.Compare(i, j))
	})
}

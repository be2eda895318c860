package backup

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"slices"
)

const (
	spillRows  = 1 << 16 // entries that a sorter keeps in memory
	spillBlock = 256     // entries that are written and read at once
	entrySize  = 8 + 8 + 4
	spillSize  = spillBlock*entrySize + tagSize
)

// sorter sorts entries by id and then by MAC. What is too much for the memory lies in sorted runs in a temporary file
// without a name, sealed under a key that nobody else has; where there can be no such file, all stays in the memory.
type sorter struct {
	rows   []entry
	all    int // entries, with those in the file
	limit  int // of rows; 0 = spillRows
	file   *os.File
	name   string // of the file, where it could not be removed while it is open
	aead   cipher.AEAD
	runs   []spillRun
	block  int64 // the next one of the file
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
	s.rows, s.all, s.runs, s.block = s.rows[:0], 0, s.runs[:0], 0
	if s.file != nil { // another file has another key, so that no nonce comes twice
		s.close()
	}
}

func (s *sorter) close() {
	if s.file != nil {
		s.file.Close()
		if s.name != "" {
			os.Remove(s.name)
		}
	}
	s.file, s.name = nil, ""
}

func (s *sorter) create() error {
	f, err := os.CreateTemp("", "crmguard-backup-*")
	if err != nil {
		return err
	}
	s.file = f
	if os.Remove(f.Name()) != nil {
		s.name = f.Name()
	}
	var key [32]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err == nil {
		s.aead, err = cipher.NewGCM(block)
	}
	return err
}

// spill writes the entries in memory as a run of the file.
func (s *sorter) spill() bool {
	if s.file == nil && s.create() != nil {
		s.close()
		return false
	}
	slices.SortFunc(s.rows, compareEntries)
	r := spillRun{block: s.block, rows: len(s.rows)}
	plain, sealed := make([]byte, 0, spillSize), make([]byte, 0, spillSize)
	for part := range slices.Chunk(s.rows, spillBlock) {
		plain = plain[:0]
		for _, e := range part {
			plain = binary.BigEndian.AppendUint64(plain, e.id)
			plain = binary.BigEndian.AppendUint64(plain, e.mac)
			plain = binary.BigEndian.AppendUint32(plain, e.frame)
		}
		sealed = s.aead.Seal(sealed[:0], spillNonce(s.block), plain, nil)
		at := s.block * spillSize
		s.block++ // also when it fails: no nonce is used twice
		if _, err := s.file.WriteAt(sealed, at); err != nil {
			return false
		}
	}
	s.runs, s.rows = append(s.runs, r), s.rows[:0]
	return true
}

func spillNonce(block int64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), uint64(block))
}

var errSpill = errors.New("backup: the temporary file is damaged")

// spillReader reads one run.
type spillReader struct {
	s     *sorter
	run   spillRun // what was not read yet
	rows  []entry  // read and not given
	store []entry
	buf   []byte
	plain []byte
}

// fill makes rows hold something, unless the run has ended.
func (r *spillReader) fill() error {
	if len(r.rows) > 0 || r.run.rows == 0 {
		return nil
	}
	n := min(spillBlock, r.run.rows)
	if r.buf == nil {
		r.buf, r.plain, r.store = make([]byte, spillSize), make([]byte, 0, spillSize), make([]entry, 0, spillBlock)
	}
	b := r.buf[:n*entrySize+tagSize]
	if _, err := r.s.file.ReadAt(b, r.run.block*spillSize); err != nil {
		return errSpill
	}
	plain, err := r.s.aead.Open(r.plain[:0], spillNonce(r.run.block), b, nil)
	if err != nil {
		return errSpill
	}
	r.rows = r.store[:0]
	for ; len(plain) > 0; plain = plain[entrySize:] {
		r.rows = append(r.rows, entry{binary.BigEndian.Uint64(plain), binary.BigEndian.Uint64(plain[8:]), binary.BigEndian.Uint32(plain[16:])})
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
		heap = append(heap, &spillReader{s: s, run: r})
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

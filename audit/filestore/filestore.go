// Package filestore keeps an audit log in segment files of one folder, which
// it makes with mode 0700; all files have mode 0600. docs/formats/audit.md
// describes them.
//
// Each append is one write and one sync of the data. One writer holds the
// folder, in this and all other processes, by a lock on the file "lock";
// readers need no lock. A tail that a crash left unfinished is moved to a file
// "torn-*" before the first new append.
package filestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/crmguard/crmguard/audit/driver"
)

const (
	segmentHead  = 24
	batchHead    = 28
	version      = 1
	maxData      = 64 << 20
	segmentBytes = 64 << 20
	sparse       = 64 << 10 // distance in bytes of the positions kept in memory
	readAhead    = 128 << 10
	headFile     = "checkpoint"
	lockFile     = "lock"
)

var (
	segmentMagic = []byte("CGLOGSEG")
	batchMagic   = []byte("CGBA")
	crcTable     = crc32.MakeTable(crc32.Castagnoli)
)

// Options of Open. Nil means the zero value of each field.
type Options struct {
	SegmentBytes int64 // size at which a new segment file begins; 0: 64 MiB
}

// Store is a log in a folder.
type Store struct {
	dir     string
	segment int64

	mu     sync.Mutex
	known  []position // sparse, in order
	next   uint64     // the first event beyond what known covers
	writer *writer    // the open writer of this Store, if any
}

// position is where a batch lies.
type position struct {
	first   uint64 // its first event
	segment uint64 // first event of its segment
	off     int64
}

// Open returns the store in the folder dir. Nothing is made or locked before
// Writer is called, so a reader may open the folder of a running writer.
func Open(dir string, opts *Options) (*Store, error) {
	if dir == "" {
		return nil, errors.New("filestore: no folder")
	}
	s := &Store{dir: dir, segment: segmentBytes}
	if opts != nil && opts.SegmentBytes > 0 {
		s.segment = opts.SegmentBytes
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("filestore: %w", err)
	case !info.IsDir():
		return nil, errors.New("filestore: not a folder")
	}
	return s, nil
}

func (s *Store) path(first uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d.seg", first))
}

// segments lists the segments by their first event.
func (s *Store) segments() ([]uint64, error) {
	names, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	var list []uint64
	for _, e := range names {
		digits, ok := strings.CutSuffix(e.Name(), ".seg")
		if !ok || len(digits) != 20 {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Head implements driver.Store.
func (s *Store) Head(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(s.dir, headFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	return b, nil
}

// end is where this process's writer has the end of the durable log.
type end struct {
	segment uint64
	off     int64
}

// learn notes where a batch lies, when it follows what is known.
func (s *Store) learn(p position, count uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.first != s.next {
		return
	}
	s.next = p.first + uint64(count)
	if n := len(s.known); n == 0 || s.known[n-1].segment != p.segment || p.off-s.known[n-1].off >= sparse {
		s.known = append(s.known, p)
	}
}

// locate returns the known position nearest before event from.
func (s *Store) locate(from uint64) (position, bool, *end) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e *end
	if s.writer != nil {
		e = &end{s.writer.segment, s.writer.off}
	}
	i := sort.Search(len(s.known), func(i int) bool { return s.known[i].first > from })
	if i == 0 || from >= s.next {
		return position{}, false, e
	}
	return s.known[i-1], true, e
}

// Batches implements driver.Store.
func (s *Store) Batches(ctx context.Context, from uint64) iter.Seq2[driver.Batch, error] {
	return func(yield func(driver.Batch, error) bool) {
		at, ok, stop := s.locate(from)
		segs, err := s.segments()
		if err != nil {
			yield(driver.Batch{}, err)
			return
		}
		if ok && stop == nil && !slices.Contains(segs, at.segment) {
			ok = false // what is known is of a folder that is not there any more
			s.mu.Lock()
			s.known, s.next = nil, 0
			s.mu.Unlock()
		}
		if !ok {
			if len(segs) == 0 {
				return
			}
			i := sort.Search(len(segs), func(i int) bool { return segs[i] > from })
			at = position{segment: segs[max(i-1, 0)], off: 0}
		} else if i := sort.Search(len(segs), func(i int) bool { return segs[i] > from }); i > 0 && segs[i-1] > at.segment {
			at = position{segment: segs[i-1]} // nearer than what is known
		}
		for {
			w := walk{s: s, from: from, stop: stop}
			more, err := w.segment(ctx, at, yield)
			if err == nil && !more {
				return
			}
			// Is there another segment?
			segs, lerr := s.segments()
			if lerr != nil {
				yield(driver.Batch{}, lerr)
				return
			}
			i := sort.Search(len(segs), func(i int) bool { return segs[i] > at.segment })
			last := i == len(segs)
			if !last && !w.again {
				// The writer may have added to this segment before it began the
				// next one. Read on here once more.
				if more, err = w.resume(ctx, yield); err == nil && !more {
					return
				}
			}
			switch {
			case errors.Is(err, errEmpty) && last:
				err = nil
			case errors.Is(err, errEmpty):
				err = fmt.Errorf("%w: a segment is empty", driver.ErrDamaged)
			case errors.Is(err, driver.ErrTorn) && !last:
				err = fmt.Errorf("%w: a segment ends inside a batch", driver.ErrDamaged)
			case errors.Is(err, driver.ErrTorn) && (stop != nil || s.busy()):
				err = nil // an append is under way
			}
			if err != nil {
				yield(driver.Batch{}, err)
				return
			}
			if last || (stop != nil && at.segment >= stop.segment) {
				return
			}
			at = position{segment: segs[i]}
		}
	}
}

// busy reports whether a writer is at work in some process.
func (s *Store) busy() bool {
	f, err := os.Open(filepath.Join(s.dir, lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return lockShared(f) != nil
}

// errEmpty says that a segment was made and nothing written to it, as a crash
// between the two leaves the last one. Nothing of the log is missing then.
var errEmpty = errors.New("filestore: a segment is empty")

// walk reads one segment.
type walk struct {
	s     *Store
	from  uint64
	stop  *end
	at    position // of the next batch; off counts from the start of the file
	again bool
	buf   []byte
}

func (w *walk) resume(ctx context.Context, yield func(driver.Batch, error) bool) (bool, error) {
	w.again = true
	return w.segment(ctx, w.at, yield)
}

// segment yields the batches of a segment from at on. It returns false when
// the consumer has enough.
func (w *walk) segment(ctx context.Context, at position, yield func(driver.Batch, error) bool) (bool, error) {
	w.at = at
	limit := int64(1) << 62
	if w.stop != nil && w.stop.segment == at.segment {
		limit = w.stop.off
	} else if w.stop != nil && at.segment > w.stop.segment {
		return true, nil
	}
	f, err := os.Open(w.s.path(at.segment))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return true, fmt.Errorf("%w: a segment is gone", driver.ErrDamaged)
		}
		return true, fmt.Errorf("filestore: %w", err)
	}
	defer f.Close()
	r := &window{f: f, limit: limit, off: w.at.off, buf: w.buf}
	defer func() { w.buf = r.buf }()
	if w.at.off > 0 && !w.here(f, limit) {
		// The segment was written anew by a pruning. What was yielded of it
		// is not yielded again.
		w.from = max(w.from, w.at.first)
		w.at = position{segment: at.segment}
		r.off = 0
	}
	if w.at.off == 0 {
		head, err := r.next(segmentHead)
		if errors.Is(err, io.EOF) {
			return true, errEmpty
		}
		if err != nil {
			return true, err
		}
		if err := checkSegmentHead(head, at.segment); err != nil {
			return true, err
		}
		w.at.off, w.at.first = segmentHead, at.segment
	}
	for {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		head, err := r.next(batchHead)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		b, size, _, err := parseBatchHead(head)
		if err != nil {
			return true, err
		}
		if b.First+uint64(b.Count) <= w.from {
			err = r.skip(size)
		} else {
			b.Data, err = r.next(size)
		}
		if errors.Is(err, io.EOF) {
			err = driver.ErrTorn
		}
		if err != nil {
			return true, err
		}
		w.s.learn(position{b.First, at.segment, w.at.off}, b.Count)
		w.at.off += int64(batchHead + size)
		w.at.first = b.First + uint64(b.Count)
		if b.Data != nil && !yield(b, nil) {
			return false, nil
		}
	}
}

// here reports whether the place to begin at is one in this file: a batch
// header with the event that is expected, or the end.
func (w *walk) here(f *os.File, limit int64) bool {
	var head [batchHead]byte
	n, err := f.ReadAt(head[:], w.at.off)
	if n < batchHead {
		info, serr := f.Stat()
		return serr == nil && errors.Is(err, io.EOF) && info.Size() >= w.at.off && w.at.off <= limit && (w.again || n > 0)
	}
	b, _, _, err := parseBatchHead(head[:])
	return err == nil && b.First == w.at.first
}

// window reads a file forward. What next returns is valid until the next call.
type window struct {
	f     *os.File
	limit int64
	off   int64  // of buf[0]
	buf   []byte // allocated space
	lo    int    // buf[lo:hi] is read and not yet given out
	hi    int
}

// next returns the next n bytes: io.EOF when there is none, ErrTorn when
// there are fewer.
func (r *window) next(n int) ([]byte, error) {
	for r.hi-r.lo < n {
		if r.lo > 0 {
			copy(r.buf, r.buf[r.lo:r.hi])
			r.off += int64(r.lo)
			r.hi -= r.lo
			r.lo = 0
		}
		if want := max(n, readAhead); len(r.buf) < want {
			r.buf = append(make([]byte, 0, want), r.buf[:r.hi]...)[:want]
		}
		room := min(int64(len(r.buf)-r.hi), r.limit-r.off-int64(r.hi))
		if room <= 0 {
			return nil, r.short()
		}
		m, err := r.f.ReadAt(r.buf[r.hi:r.hi+int(room)], r.off+int64(r.hi))
		r.hi += m
		if m == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				return nil, r.short()
			}
			return nil, fmt.Errorf("filestore: %w", err)
		}
	}
	v := r.buf[r.lo : r.lo+n : r.lo+n]
	r.lo += n
	return v, nil
}

func (r *window) short() error {
	if r.hi == r.lo {
		return io.EOF
	}
	return driver.ErrTorn
}

// skip passes over n bytes, which must be there.
func (r *window) skip(n int) error {
	if n <= r.hi-r.lo {
		r.lo += n
		return nil
	}
	end := r.off + int64(r.lo) + int64(n)
	info, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	if end > min(info.Size(), r.limit) {
		return driver.ErrTorn
	}
	r.off, r.lo, r.hi = end, 0, 0
	return nil
}

func segmentHeader(first uint64) []byte {
	b := make([]byte, 0, segmentHead)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint64(b, first)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
}

func checkSegmentHead(b []byte, first uint64) error {
	if string(b[:8]) != string(segmentMagic) || crc32.Checksum(b[:20], crcTable) != binary.BigEndian.Uint32(b[20:]) {
		return fmt.Errorf("%w: segment header", driver.ErrDamaged)
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != version {
		return fmt.Errorf("%w: segment version %d", driver.ErrFormat, v)
	}
	if binary.BigEndian.Uint64(b[12:]) != first {
		return fmt.Errorf("%w: segment has the name of another", driver.ErrDamaged)
	}
	return nil
}

func batchHeader(dst []byte, b driver.Batch) []byte {
	dst = append(dst, batchMagic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b.Data)))
	dst = binary.BigEndian.AppendUint64(dst, b.First)
	dst = binary.BigEndian.AppendUint32(dst, b.Count)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(b.Data, crcTable))
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[len(dst)-24:], crcTable))
}

func parseBatchHead(h []byte) (b driver.Batch, size int, crc uint32, err error) {
	n := binary.BigEndian.Uint32(h[4:])
	if string(h[:4]) != string(batchMagic) || crc32.Checksum(h[:24], crcTable) != binary.BigEndian.Uint32(h[24:]) || n > maxData {
		return b, 0, 0, fmt.Errorf("%w: batch header", driver.ErrDamaged)
	}
	b.First, b.Count = binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint32(h[16:])
	if b.Count == 0 || b.First+uint64(b.Count) < b.First {
		return b, 0, 0, fmt.Errorf("%w: batch header", driver.ErrDamaged)
	}
	return b, int(n), binary.BigEndian.Uint32(h[20:]), nil
}

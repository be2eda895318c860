package filestore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/audit/driver"
)

// writer is the one writer of a folder.
type writer struct {
	s    *Store
	lock *os.File

	// Guarded by s.mu, for readers of the same Store: the durable end.
	segment uint64
	off     int64

	mu     sync.Mutex // held by Append
	f      *os.File   // the last segment, nil when there is none
	next   uint64     // the event the next batch begins with
	torn   []byte
	cut    bool // the torn tail is still in the file
	buf    []byte
	err    error // of the append that failed
	closed bool
}

// Writer implements driver.Store. It makes the folder when there is none, and
// refuses one that others may write to.
func (s *Store) Writer(ctx context.Context) (driver.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	info, err := os.Stat(s.dir)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("filestore: others may write to the folder (mode %04o)", info.Mode().Perm())
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	// A reader that meets an unfinished tail holds the lock for a moment.
	for try := 0; ; try++ {
		if err = lockExclusive(lock); err == nil {
			break
		}
		if !errors.Is(err, driver.ErrLocked) || try == 5 || ctx.Err() != nil {
			lock.Close()
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	// What a pruning that did not end has left.
	left, err := os.ReadDir(s.dir)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("filestore: %w", err)
	}
	for _, e := range left {
		if strings.HasSuffix(e.Name(), ".seg.new") {
			_ = os.Remove(filepath.Join(s.dir, e.Name())) // it does no harm
		}
	}
	w := &writer{s: s, lock: lock}
	if err := w.recover(); err != nil {
		_ = w.release() // err says what went wrong first
		return nil, err
	}
	s.mu.Lock()
	s.writer = w
	s.mu.Unlock()
	return w, nil
}

// recover finds the end of the log. It changes nothing: the tail is cut by the
// first append.
func (w *writer) recover() error {
	segs, err := w.s.segments()
	if err != nil || len(segs) == 0 {
		return err
	}
	w.segment = segs[len(segs)-1]
	w.next = w.segment
	if w.f, err = os.OpenFile(w.s.path(w.segment), os.O_RDWR, 0); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	info, err := w.f.Stat()
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	size := info.Size()
	r := &window{f: w.f, limit: size}
	head, err := r.next(segmentHead)
	if errors.Is(err, io.EOF) || errors.Is(err, driver.ErrTorn) {
		return w.tear(0, size)
	}
	if err != nil {
		return err
	}
	if err := checkSegmentHead(head, w.segment); err != nil {
		if errors.Is(err, driver.ErrDamaged) && w.unwritten(0, size) {
			return w.tear(0, size)
		}
		return err
	}
	w.off = segmentHead
	for {
		head, err := r.next(batchHead)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, driver.ErrTorn) {
			return w.tear(w.off, size)
		}
		if err != nil {
			return err
		}
		b, n, crc, err := parseBatchHead(head)
		if err != nil {
			if errors.Is(err, driver.ErrDamaged) && w.unwritten(w.off, size) {
				return w.tear(w.off, size)
			}
			return err
		}
		if w.off+batchHead+int64(n) > size {
			return w.tear(w.off, size)
		}
		data, err := r.next(n)
		if err != nil {
			return err
		}
		last := w.off+batchHead+int64(n) == size
		if last && crc32.Checksum(data, crcTable) != crc && w.unwritten(w.off, size) {
			return w.tear(w.off, size)
		}
		// Damage in a batch that was written whole is for the log to find.
		w.off += batchHead + int64(n)
		w.next = b.First + uint64(b.Count)
	}
}

// unwritten reports whether the file ends in zeros, as it does when a crash
// came between the growth of the file and the write of its blocks. A whole
// batch never ends so.
func (w *writer) unwritten(off, size int64) bool {
	const zeros = 16
	if size-off < zeros {
		return false
	}
	var b [zeros]byte
	_, err := w.f.ReadAt(b[:], size-zeros)
	return err == nil && b == [zeros]byte{}
}

// tear notes that the file is good up to off only.
func (w *writer) tear(off, size int64) error {
	w.off, w.cut = off, true
	w.torn = make([]byte, min(size-off, maxData+batchHead))
	if _, err := io.ReadFull(io.NewSectionReader(w.f, off, size-off), w.torn); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	if len(w.torn) == 0 {
		w.torn = nil
	}
	return nil
}

// Torn implements driver.Writer.
func (w *writer) Torn() []byte { return bytes.Clone(w.torn) }

// Append implements driver.Writer.
func (w *writer) Append(ctx context.Context, b driver.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errors.New("filestore: writer is closed")
	}
	if w.err != nil {
		return w.err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.Count == 0 || len(b.Data) > maxData {
		return errors.New("filestore: batch is empty or too large")
	}
	if b.First != w.next {
		return errors.New("filestore: batch does not follow the last one")
	}
	if w.err = w.write(b); w.err != nil {
		w.err = fmt.Errorf("filestore: %w", w.err)
	}
	return w.err
}

func (w *writer) write(b driver.Batch) error {
	if w.cut {
		if err := w.setAside(); err != nil {
			return err
		}
	}
	if err := w.fence(); err != nil {
		return err
	}
	segment, off := w.segment, w.off
	w.buf = w.buf[:0]
	fresh := w.f == nil || off >= w.s.segment
	if fresh {
		f, err := os.OpenFile(w.s.path(b.First), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if w.f != nil {
			w.f.Close()
		}
		w.f, segment, off = f, b.First, 0
	}
	if off == 0 {
		w.buf = append(w.buf, segmentHeader(segment)...)
	}
	at := position{b.First, segment, off + int64(len(w.buf))}
	w.buf = batchHeader(w.buf, b)
	w.buf = append(w.buf, b.Data...)
	if _, err := w.f.WriteAt(w.buf, off); err != nil {
		return err
	}
	if err := syncData(w.f); err != nil {
		return err
	}
	if fresh {
		if err := syncDir(w.s.dir); err != nil {
			return err
		}
	}
	w.next = b.First + uint64(b.Count)
	w.s.mu.Lock()
	w.segment, w.off = segment, off+int64(len(w.buf))
	w.s.mu.Unlock()
	w.s.learn(at, b.Count)
	if cap(w.buf) > 8<<20 {
		w.buf = nil
	}
	return nil
}

// fence makes sure that nobody got past the lock: its file and the segment are
// still in place, and the segment ends where this writer left it.
func (w *writer) fence() error {
	mine, err := w.lock.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(filepath.Join(w.s.dir, lockFile))
	if err != nil || !os.SameFile(mine, there) {
		return errors.New("the lock file was taken away")
	}
	if w.f == nil {
		return nil
	}
	info, err := w.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != w.off {
		return errors.New("somebody else has changed the segment")
	}
	if there, err = os.Stat(w.s.path(w.segment)); err != nil || !os.SameFile(info, there) {
		return errors.New("the segment was taken away")
	}
	return nil
}

// setAside copies the torn tail to a file of its own and cuts it off.
func (w *writer) setAside() error {
	if w.torn != nil {
		for n := 1; ; n++ {
			name := filepath.Join(w.s.dir, fmt.Sprintf("torn-%020d-%d", w.next, n))
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, os.ErrExist) {
				continue
			}
			if err != nil {
				return err
			}
			_, err = f.Write(w.torn)
			if err == nil {
				err = f.Sync()
			}
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err == nil {
				err = syncDir(w.s.dir)
			}
			if err != nil {
				return err
			}
			break
		}
	}
	if err := w.f.Truncate(w.off); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	w.cut = false
	return nil
}

// step is called between the steps of Prune, by tests only.
var step = func(string) error { return nil }

// Prune implements driver.Pruner. A stretch is a segment. It is written anew
// beside the old file and then put in its place.
func (w *writer) Prune(ctx context.Context, from, to uint64, replace func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error]) error {
	segs, err := w.closedBelow(to)
	if err == nil {
		for i, seg := range segs {
			if i+1 < len(segs) && segs[i+1] <= from {
				continue
			}
			if err = w.rewrite(ctx, seg, replace); err != nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("filestore: prune: %w", err)
	}
	return nil
}

// closedBelow returns the segments that begin below event to, after it has
// begun a new one when the last is among them.
func (w *writer) closedBelow(to uint64) ([]uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return nil, errors.New("writer is closed")
	case w.err != nil:
		return nil, w.err
	case w.f == nil || w.cut:
		return nil, nil // nothing was appended yet
	}
	if err := w.fence(); err != nil {
		return nil, err
	}
	if w.segment < to && w.next > w.segment {
		if err := step("roll"); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(w.s.path(w.next), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteAt(segmentHeader(w.next), 0)
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = syncDir(w.s.dir)
		}
		if err != nil {
			f.Close()
			w.err = err // which segment is the last is not known
			return nil, err
		}
		w.f.Close()
		w.f = f
		w.s.mu.Lock()
		w.segment, w.off = w.next, segmentHead
		w.s.mu.Unlock()
	}
	segs, err := w.s.segments()
	if err != nil {
		return nil, err
	}
	n := sort.Search(len(segs), func(i int) bool { return segs[i] >= to || segs[i] >= w.segment })
	return segs[:n], nil
}

// rewrite puts what replace makes of the batches of a segment in its place.
func (w *writer) rewrite(ctx context.Context, seg uint64, replace func(iter.Seq2[driver.Batch, error]) iter.Seq2[driver.Batch, error]) error {
	old := func(yield func(driver.Batch, error) bool) {
		r := walk{s: &Store{dir: w.s.dir}, from: seg}
		if _, err := r.segment(ctx, position{segment: seg}, yield); err != nil {
			yield(driver.Batch{}, err)
		}
	}
	var end uint64 // of the old batches
	path := w.s.path(seg)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path + ".new") // fails once it has its place
	out := bufio.NewWriterSize(f, 1<<20)
	err = step("write")
	if err == nil {
		_, err = out.Write(segmentHeader(seg))
	}
	next := seg
	var head []byte
	for b, berr := range replace(func(yield func(driver.Batch, error) bool) {
		for b, err := range old {
			end = b.First + uint64(b.Count)
			if !yield(b, err) {
				return
			}
		}
	}) {
		if err == nil {
			err = berr
		}
		if err == nil && (b.First != next || b.Count == 0 || len(b.Data) > maxData) {
			err = errors.New("the new batches do not cover the old ones")
		}
		if err != nil {
			break
		}
		head = batchHeader(head[:0], b)
		if _, err = out.Write(head); err == nil {
			_, err = out.Write(b.Data)
		}
		next = b.First + uint64(b.Count)
		if err != nil {
			break
		}
	}
	if err == nil && next != end {
		err = errors.New("the new batches do not cover the old ones")
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = step("sync")
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = step("rename")
	}
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	if err := syncDir(w.s.dir); err != nil {
		return err
	}
	w.s.mu.Lock()
	w.s.known = slices.DeleteFunc(slices.Clone(w.s.known), func(p position) bool { return p.segment == seg })
	w.s.mu.Unlock()
	return step("renamed")
}

// SetHead implements driver.Writer.
func (w *writer) SetHead(ctx context.Context, note []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(w.s.dir, headFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	_, err = f.Write(note)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(w.s.dir)
	}
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	return nil
}

// Close implements driver.Writer.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	w.s.mu.Lock()
	w.s.writer = nil
	w.s.mu.Unlock()
	return w.release()
}

func (w *writer) release() error {
	var err error
	if w.f != nil {
		err = w.f.Close()
	}
	if cerr := w.lock.Close(); err == nil { // gives the lock free
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	return nil
}

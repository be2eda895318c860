package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// FileOptions of OpenFile. Nil means the zero value of each field.
type FileOptions struct {
	MaxBytes int64 // size at which a new file begins; 0: 64 MiB
	Keep     int   // full files kept, older ones are removed; 0: all
}

// File is a Sink that appends lines to a file of mode 0600 and syncs it. A full
// one is renamed to path.N, N counting up from 1 in six digits or more.
type File struct {
	path string
	max  int64
	keep int

	mu   sync.Mutex
	f    *os.File
	size int64 // of what was acknowledged
}

// OpenFile opens or makes the file at path. A last line without end, which a
// crash left and nobody acknowledged, is cut off. A file that others than its
// owner may read is refused.
func OpenFile(path string, opts *FileOptions) (*File, error) {
	s := &File{path: path, max: 64 << 20}
	if opts != nil {
		if opts.MaxBytes > 0 {
			s.max = opts.MaxBytes
		}
		s.keep = opts.Keep
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return s, nil
}

func (s *File) open() error {
	if info, err := os.Lstat(s.path); err == nil && !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("the file has mode %04o, wider than 0600", info.Mode().Perm())
	}
	if err == nil {
		s.size, err = lastLine(f, info.Size())
	}
	if err == nil {
		err = f.Truncate(s.size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		f.Close()
		return err
	}
	s.f = f
	return nil
}

// lastLine returns where the last whole line of f ends.
func lastLine(f *os.File, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for size > 0 {
		n := min(int64(len(buf)), size)
		if _, err := f.ReadAt(buf[:n], size-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] == '\n' {
				return size - n + i + 1, nil
			}
		}
		size -= n
	}
	return 0, nil
}

// Deliver implements Sink. The records are on the disk when it returns nil.
func (s *File) Deliver(ctx context.Context, records []Record) error {
	if err := checkLines(records); err != nil || len(records) == 0 {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.deliver(lines(records)); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func (s *File) deliver(b []byte) error {
	if s.f != nil && !s.inPlace() {
		s.f.Close() // what was acknowledged is in it, wherever it is now
		s.f = nil
	}
	if s.f == nil { // or an earlier rotation failed
		if err := s.open(); err != nil {
			return err
		}
	}
	if s.size > 0 && s.size+int64(len(b)) > s.max {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	// A failed write is overwritten by the next.
	if err := s.f.Truncate(s.size); err != nil {
		return err
	}
	if _, err := s.f.WriteAt(b, s.size); err != nil {
		return err
	}
	err := s.f.Sync()
	if err == nil && !s.inPlace() {
		err = errors.New("the file was taken away")
	}
	if err != nil {
		// What is on the disk is not known any more: look anew.
		s.f.Close()
		s.f = nil
		return err
	}
	s.size += int64(len(b))
	return nil
}

// inPlace tells whether the file is still what its path names: another program may have moved it.
func (s *File) inPlace() bool {
	mine, err := s.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(s.path)
	return err == nil && os.SameFile(mine, there)
}

// rotate puts the full file aside and begins a new one.
func (s *File) rotate() error {
	old, err := s.full()
	if err != nil {
		return err
	}
	next := 1
	if len(old) > 0 {
		next = old[len(old)-1] + 1
	}
	err = s.f.Close()
	s.f = nil
	if err != nil {
		return err
	}
	if err := os.Rename(s.path, s.name(next)); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	old = append(old, next)
	for s.keep > 0 && len(old) > s.keep {
		if err := os.Remove(s.name(old[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		old = old[1:]
	}
	return nil
}

func (s *File) name(n int) string { return fmt.Sprintf("%s.%06d", s.path, n) }

// full lists the numbers of the full files.
func (s *File) full() (list []int, err error) {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), filepath.Base(s.path)+"."); ok {
			if n, err := strconv.Atoi(rest); err == nil && n > 0 && filepath.Base(s.name(n)) == e.Name() {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

// Close implements Sink.
func (s *File) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

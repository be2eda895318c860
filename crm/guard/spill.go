package guard

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// sorter sorts more items of one size than memory holds: sorted runs go to temporary files, which are gone when it is closed or the
// process ends. Equal items are kept once.
type sorter struct {
	dir  string
	size int
	most int // bytes of buf
	buf  []byte
	runs []*os.File
	n    int64 // items that were added, equal ones too
}

func newSorter(dir string, size, memory int) *sorter {
	return &sorter{dir: dir, size: size, most: max(memory/size, 16) * size}
}

// add adds whole items.
func (s *sorter) add(items []byte) error {
	s.n += int64(len(items) / s.size)
	for len(items) > 0 {
		n := min(s.most-len(s.buf), len(items))
		s.buf = append(s.buf, items[:n]...)
		if items = items[n:]; len(s.buf) == s.most {
			if err := s.spill(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sorted returns the items of the buffer in order.
func (s *sorter) sorted() [][]byte {
	list := make([][]byte, 0, len(s.buf)/s.size)
	for i := 0; i < len(s.buf); i += s.size {
		list = append(list, s.buf[i:i+s.size])
	}
	slices.SortFunc(list, bytes.Compare)
	return slices.CompactFunc(list, bytes.Equal)
}

// spill writes the buffer as a run.
func (s *sorter) spill() error {
	f, err := os.CreateTemp(s.dir, "crmguard-sort-")
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	s.runs = append(s.runs, f)
	_ = os.Remove(f.Name()) // where the system lets open files go; else close does it
	w := bufio.NewWriterSize(f, 1<<18)
	for _, item := range s.sorted() {
		_, _ = w.Write(item) // Flush returns the error
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	s.buf = s.buf[:0]
	return nil
}

// run is where the merge of a run stands.
type run struct {
	item []byte
	next func() ([]byte, error) // io.EOF at the end
}

type runs []*run

func (h runs) Len() int           { return len(h) }
func (h runs) Less(i, j int) bool { return bytes.Compare(h[i].item, h[j].item) < 0 }
func (h runs) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runs) Push(x any)        { *h = append(*h, x.(*run)) }
func (h *runs) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// each gives every item in order, equal ones once. The item is the callee's until it returns.
func (s *sorter) each(ctx context.Context, do func(item []byte) error) error {
	var h runs
	add := func(r *run) error {
		var err error
		if r.item, err = r.next(); err == nil {
			h = append(h, r)
		} else if !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	}
	rest := s.sorted()
	if err := add(&run{next: func() ([]byte, error) {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		item := rest[0]
		rest = rest[1:]
		return item, nil
	}}); err != nil {
		return err
	}
	for _, f := range s.runs {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		in, item := bufio.NewReaderSize(f, 1<<18), make([]byte, s.size)
		if err := add(&run{next: func() ([]byte, error) {
			_, err := io.ReadFull(in, item)
			if err != nil && !errors.Is(err, io.EOF) {
				err = fmt.Errorf("guard: %w", err)
			}
			return item, err
		}}); err != nil {
			return err
		}
	}
	heap.Init(&h)
	last := make([]byte, 0, s.size)
	for n := 0; len(h) > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := h[0]
		if n == 0 || !bytes.Equal(r.item, last) {
			last = append(last[:0], r.item...)
			if err := do(last); err != nil {
				return err
			}
		}
		var err error
		if r.item, err = r.next(); errors.Is(err, io.EOF) {
			heap.Pop(&h)
			continue
		} else if err != nil {
			return err
		}
		heap.Fix(&h, 0)
	}
	return nil
}

// close removes the runs.
func (s *sorter) close() {
	for _, f := range s.runs {
		f.Close()
		_ = os.Remove(f.Name()) // gone already, on most systems
	}
	s.runs, s.buf = nil, nil
}

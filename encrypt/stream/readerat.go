package stream

import (
	"errors"
	"io"
	"sync"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// ReaderAt opens any part of a stream. It is safe for concurrent use when the underlying
// io.ReaderAt is.
type ReaderAt struct {
	r        io.ReaderAt
	s        *sealer
	segments int64
	sealed   int64 // length of the stream
	plain    int64 // length of the plaintext

	mu     sync.Mutex
	cached []*opened // at most two, the latest first
	free   []*opened // at most two
}

// opened is a segment in memory. While refs > 0 its bytes are read and do not change.
type opened struct {
	seg   int64
	refs  int
	buf   []byte
	plain []byte
	nonce [nonceSize]byte
}

// NewReaderAt returns a ReaderAt of the stream of size bytes in r, with the writer's key, 32 bytes, and ad. It reads the
// header and the last segment: a stream that was truncated or appended to fails here. Errors:
// keys.ErrTampered, those of r, and a wrong key length or segment size.
func NewReaderAt(r io.ReaderAt, size int64, key, ad []byte, opts *Options) (*ReaderAt, error) {
	segment, err := opts.segmentSize()
	if err != nil {
		return nil, err
	}
	return newReaderAt(r, size, key, ad, segment)
}

func newReaderAt(r io.ReaderAt, size int64, key, ad []byte, segment int) (*ReaderAt, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if size < headerSize+tagSize {
		return nil, keys.ErrTampered
	}
	segments := (size-1)/int64(segment) + 1
	rest := size - (segments-1)*int64(segment)
	if segments > maxSegments || segments > 1 && rest <= tagSize {
		return nil, keys.ErrTampered
	}
	var header [headerSize]byte
	if err := readAt(r, header[:], 0); err != nil {
		return nil, err
	}
	if header[0] != headerSize {
		return nil, keys.ErrTampered
	}
	s, err := newSealer(key, ad, header[:], segment)
	if err != nil {
		return nil, err
	}
	a := &ReaderAt{r: r, s: s, segments: segments, sealed: size, plain: size - headerSize - segments*tagSize}
	o, err := a.open(segments - 1)
	if err != nil {
		return nil, err
	}
	a.release(o)
	return a, nil
}

// readAt fills p from off.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return errOf(err)
}

// Size returns the length of the plaintext in bytes.
func (a *ReaderAt) Size() int64 { return a.plain }

// ReadAt opens the bytes from off into p; it implements io.ReaderAt. Errors: keys.ErrTampered, those of the underlying
// reader, io.EOF when the plaintext ends before p does.
func (a *ReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("stream: negative offset")
	}
	total := 0
	for len(p) > 0 {
		if off >= a.plain {
			return total, io.EOF
		}
		// Plaintext of segment n begins at n*(size-tag)-header, but for the first.
		each := int64(a.s.size - tagSize)
		seg := (off + headerSize) / each
		in := off + headerSize - seg*each
		if seg == 0 {
			in = off
		}
		o, err := a.open(seg)
		if err != nil {
			return total, err
		}
		n := copy(p, o.plain[in:])
		a.release(o)
		p, off, total = p[n:], off+int64(n), total+n
	}
	return total, nil
}

// open returns segment n for reading; release gives it back.
func (a *ReaderAt) open(n int64) (*opened, error) {
	a.mu.Lock()
	if len(a.cached) == 2 && a.cached[1].seg == n {
		a.cached[0], a.cached[1] = a.cached[1], a.cached[0]
	}
	if len(a.cached) > 0 && a.cached[0].seg == n {
		o := a.cached[0]
		o.refs++
		a.mu.Unlock()
		return o, nil
	}
	var o *opened
	if k := len(a.free); k > 0 {
		o, a.free = a.free[k-1], a.free[:k-1]
	}
	a.mu.Unlock()
	if o == nil {
		o = &opened{buf: make([]byte, min(int64(a.s.size), a.sealed))}
	}
	o.seg, o.refs = n, 1
	if err := a.load(o); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.cached {
		if c.seg == n { // somebody else was faster; this one is not shared
			return o, nil
		}
	}
	o.refs++ // the cache's
	if len(a.cached) < 2 {
		a.cached = append(a.cached, nil)
	} else {
		a.drop(a.cached[1])
	}
	copy(a.cached[1:], a.cached)
	a.cached[0] = o
	return o, nil
}

// load reads and opens o.seg.
func (a *ReaderAt) load(o *opened) error {
	off := o.seg * int64(a.s.size)
	last := o.seg == a.segments-1
	end := min(off+int64(a.s.size), a.sealed)
	from := start(o.seg)
	sealed := o.buf[from : end-off]
	if err := readAt(a.r, sealed, off+int64(from)); err != nil {
		return err
	}
	a.s.putNonce(&o.nonce, o.seg, last)
	plain, err := a.s.gcm.Open(sealed[:0], o.nonce[:], sealed, nil)
	if err != nil {
		return keys.ErrTampered
	}
	o.plain = plain
	return nil
}

func (a *ReaderAt) release(o *opened) {
	a.mu.Lock()
	a.drop(o)
	a.mu.Unlock()
}

// drop takes one reference away; the caller holds the mutex.
func (a *ReaderAt) drop(o *opened) {
	if o.refs--; o.refs == 0 && len(a.free) < 2 {
		a.free = append(a.free, o)
	}
}

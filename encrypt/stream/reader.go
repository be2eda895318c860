package stream

import (
	"errors"
	"io"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Reader opens a stream from front to back.
type Reader struct {
	r       io.Reader
	key, ad []byte
	size    int
	s       *sealer // nil before the header was read
	buf     []byte  // a sealed segment and the first byte of the next
	ahead   byte    // that byte, once a segment was opened
	plain   []byte  // opened and not yet handed out; lies in buf
	nonce   [nonceSize]byte
	seg     int64 // number of the next segment
	last    bool  // the last segment was opened
	err     error
}

// NewReader returns a Reader that opens r with the writer's key, 32 bytes, and ad. It reads nothing yet. Errors:
// a wrong key length or segment size.
func NewReader(r io.Reader, key, ad []byte, opts *Options) (*Reader, error) {
	size, err := opts.segmentSize()
	if err != nil {
		return nil, err
	}
	return newReader(r, key, ad, size)
}

func newReader(r io.Reader, key, ad []byte, size int) (*Reader, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return &Reader{r: r, key: append([]byte(nil), key...), ad: append([]byte(nil), ad...), size: size}, nil
}

// Read returns the next authentic bytes, and io.EOF only behind the authentic last segment. Errors: keys.ErrTampered,
// and those of the underlying reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if n, direct := r.next(p); direct {
			return n, r.err
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// WriteTo writes the whole plaintext to w, without copying it; io.Copy uses it. What it wrote is
// only complete when it returns no error. Errors as for Read, and those of w.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(r.plain) > 0 {
			n, err := w.Write(r.plain)
			if n < 0 || n > len(r.plain) {
				return total, io.ErrShortWrite
			}
			total += int64(n)
			r.plain = r.plain[n:]
			if err != nil {
				return total, err
			}
			if len(r.plain) > 0 {
				return total, io.ErrShortWrite
			}
		}
		if errors.Is(r.err, io.EOF) {
			return total, nil
		}
		if r.err != nil {
			return total, r.err
		}
		r.next(nil)
	}
}

// next opens the next segment: into p when it fits there whole, else in place for r.plain. It
// sets r.err when there is none.
func (r *Reader) next(p []byte) (n int, direct bool) {
	fail := func(err error) (int, bool) {
		r.err, r.plain = errOf(err), nil
		clear(r.buf)
		return 0, false
	}
	if r.last {
		r.err = io.EOF
		return 0, false
	}
	if r.s == nil {
		r.buf = make([]byte, r.size+1)
		if _, err := readFull(r.r, r.buf[:headerSize]); err != nil {
			return fail(err)
		}
		if r.buf[0] != headerSize {
			return fail(keys.ErrTampered)
		}
		s, err := newSealer(r.key, r.ad, r.buf[:headerSize], r.size)
		if err != nil {
			return fail(err)
		}
		clear(r.key)
		r.s, r.key, r.ad = s, nil, nil
	}
	from := start(r.seg)
	end := from
	if r.seg > 0 {
		r.buf[0] = r.ahead
		end = 1
	}
	m, err := readFull(r.r, r.buf[end:])
	end += m
	switch {
	case err == nil:
		end--
		r.ahead = r.buf[end]
	case errors.Is(err, io.EOF):
		r.last = true
	default:
		return fail(err)
	}
	sealed := r.buf[from:end]
	// A stream has one form: a last segment is empty only when it is the only one.
	if len(sealed) < tagSize || len(sealed) == tagSize && r.seg > 0 || r.seg >= maxSegments {
		return fail(keys.ErrTampered)
	}
	r.s.putNonce(&r.nonce, r.seg, r.last)
	dst := sealed[:0]
	if len(p) >= len(sealed)-tagSize {
		dst, direct = p[:0], true
	}
	plain, err := r.s.gcm.Open(dst, r.nonce[:], sealed, nil)
	if err != nil {
		return fail(keys.ErrTampered)
	}
	r.seg++
	if direct && len(plain) > 0 {
		return len(plain), true
	}
	r.plain = plain
	return 0, false
}

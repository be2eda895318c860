package stream

import (
	"crypto/rand"
	"errors"
	"io"
)

var errClosed = errors.New("stream: write after close")

// Writer seals what is written to it. Only Close makes the stream whole: call it when everything was
// written and never in a bare defer, which would make half an attachment whole after an error.
type Writer struct {
	w     io.Writer
	s     *sealer
	buf   []byte // of s.size bytes: header and segment, first plain, then sealed in place
	nonce [nonceSize]byte
	next  [1]byte
	seg   int64 // number of the segment in buf
	pos   int   // end of the plaintext in buf
	err   error

	closed bool // by a Close that succeeded
}

// NewWriter returns a Writer that seals to w under key, 32 bytes, bound to ad. Nothing is written before the first
// segment is full or Close is called. Errors: a wrong key length or segment size.
func NewWriter(w io.Writer, key, ad []byte, opts *Options) (*Writer, error) {
	size, err := opts.segmentSize()
	if err != nil {
		return nil, err
	}
	return newWriter(w, key, ad, size)
}

func newWriter(w io.Writer, key, ad []byte, size int) (*Writer, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	buf := make([]byte, size)
	buf[0] = headerSize
	rand.Read(buf[1:headerSize])
	s, err := newSealer(key, ad, buf[:headerSize], size)
	if err != nil {
		return nil, err
	}
	return &Writer{w: w, s: s, buf: buf, pos: headerSize}, nil
}

// limit is where plaintext ends in a full segment.
func (w *Writer) limit() int { return len(w.buf) - tagSize }

// Write seals p. A full segment goes to the underlying writer when the first byte of the next one is
// known. It fails with the underlying writer's error, and after Close.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n := 0
	for len(p) > 0 {
		room := w.limit() - w.pos
		if len(p) <= room {
			w.pos += copy(w.buf[w.pos:], p)
			return n + len(p), nil
		}
		plain := p[:room]
		if w.pos > start(w.seg) { // the segment has a beginning already
			copy(w.buf[w.pos:], plain)
			plain = w.buf[start(w.seg):w.limit()]
		}
		if err := w.flush(plain, false); err != nil {
			return n, err
		}
		n, p = n+room, p[room:]
	}
	return n, nil
}

// ReadFrom seals all of r, reading straight into the segment; io.Copy uses it. After an error of r
// the stream cannot be closed any more.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if w.err != nil {
		return 0, w.err
	}
	var total int64
	for {
		if w.pos == w.limit() {
			// Whether this segment is the last one is known only by the next byte.
			if n, err := readFull(r, w.next[:]); n == 0 {
				return total, w.source(err)
			}
			if err := w.flush(w.buf[start(w.seg):w.pos], false); err != nil {
				return total, err
			}
			total++
			w.buf[w.pos] = w.next[0]
			w.pos++
		}
		n, err := readFull(r, w.buf[w.pos:w.limit()])
		w.pos += n
		total += int64(n)
		if err != nil {
			return total, w.source(err)
		}
	}
}

// source keeps an error of what is being sealed, so that Close cannot make half of it whole.
func (w *Writer) source(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	w.err = err
	return err
}

// flush seals plain, which is either the caller's or lies at its place in buf, and writes it.
func (w *Writer) flush(plain []byte, last bool) error {
	if w.seg >= maxSegments {
		w.err = errors.New("stream: too long")
		return w.err
	}
	from := start(w.seg)
	w.s.putNonce(&w.nonce, w.seg, last)
	sealed := w.s.gcm.Seal(w.buf[from:from], w.nonce[:], plain, nil)
	n, err := w.w.Write(w.buf[:from+len(sealed)])
	if err == nil && n != from+len(sealed) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = err
		return err
	}
	w.seg++
	w.pos = start(w.seg)
	return nil
}

// Close seals the last segment and writes it; it does not close the underlying writer. A stream
// without it opens nowhere. After a failure Close returns that failure again; after success nil.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	if err := w.flush(w.buf[start(w.seg):w.pos], true); err != nil {
		return err
	}
	w.closed, w.err = true, errClosed
	clear(w.buf)
	return nil
}

package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/stream"
	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
)

// is tells whether err is want itself, with nothing wrapped around it that could be an oracle.
func is(err, want error) bool { return any(err) == any(want) }

const (
	small  = 64 // segment size in the sweeps
	first  = small - 40 - 16
	others = small - 16
)

var (
	key      = bytes.Repeat([]byte{7}, 32)
	otherKey = bytes.Repeat([]byte{8}, 32)
	ad       = []byte("acme/person/file")
)

func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func sealSize(t testing.TB, plain, ad []byte, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := stream.NewWriterSize(&out, key, ad, size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openSize(sealed, key, ad []byte, size int) ([]byte, error) {
	r, err := stream.NewReaderSize(bytes.NewReader(sealed), key, ad, size)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func openAtSize(sealed, key, ad []byte, size int) ([]byte, error) {
	r, err := stream.NewReaderAtSize(bytes.NewReader(sealed), int64(len(sealed)), key, ad, size)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
}

func tinkOf(t testing.TB, size int) *subtle.AESGCMHKDF {
	t.Helper()
	a, err := subtle.NewAESGCMHKDF(key, "SHA256", 32, size, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sealTink(t testing.TB, plain, ad []byte, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := tinkOf(t, size).NewEncryptingWriter(&out, ad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func openTink(t testing.TB, sealed, ad []byte, size int) ([]byte, error) {
	t.Helper()
	r, err := tinkOf(t, size).NewDecryptingReader(bytes.NewReader(sealed), ad)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// lengths are around every boundary of a segment.
func lengths(size int) []int {
	first, others := size-56, size-16
	var out []int
	for _, edge := range []int{0, first, first + others, first + 2*others} {
		for d := -2; d <= 2; d++ {
			if edge+d >= 0 {
				out = append(out, edge+d)
			}
		}
	}
	return out
}

func TestTinkBothWays(t *testing.T) {
	for _, size := range []int{small, 4 << 10, 1 << 20} {
		for _, n := range lengths(size) {
			plain := text(n)
			for _, ad := range [][]byte{nil, ad} {
				got, err := openTink(t, sealSize(t, plain, ad, size), ad, size)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("size %d, %d bytes: tink opens ours: %v", size, n, err)
				}
				theirs := sealTink(t, plain, ad, size)
				got, err = openSize(theirs, key, ad, size)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("size %d, %d bytes: Reader opens tink's: %v", size, n, err)
				}
				got, err = openAtSize(theirs, key, ad, size)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("size %d, %d bytes: ReaderAt opens tink's: %v", size, n, err)
				}
			}
		}
	}
}

// TestChunks writes and reads in pieces of every size; the form of a stream does not depend on them.
func TestChunks(t *testing.T) {
	plain := text(first + 2*others + 5)
	for chunk := 1; chunk <= len(plain); chunk++ {
		var out bytes.Buffer
		w, err := stream.NewWriterSize(&out, key, ad, small)
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk(plain, chunk) {
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("chunk %d: wrote %d: %v", chunk, n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := stream.NewReaderSize(&out, key, ad, small)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		p := make([]byte, chunk)
		for {
			n, err := r.Read(p)
			got = append(got, p[:n]...)
			if is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("chunk %d: %v", chunk, err)
			}
		}
		if !bytes.Equal(got, plain) {
			t.Fatalf("chunk %d: read something else", chunk)
		}
	}
}

// TestCopy takes the ways of io.Copy: ReadFrom and WriteTo.
func TestCopy(t *testing.T) {
	for _, n := range lengths(small) {
		plain := text(n)
		for name, src := range map[string]io.Reader{
			"one byte":  iotest.OneByteReader(bytes.NewReader(plain)),
			"data, EOF": iotest.DataErrReader(bytes.NewReader(plain)),
			"whole":     struct{ io.Reader }{bytes.NewReader(plain)},
		} {
			var sealed, out bytes.Buffer
			w, err := stream.NewWriterSize(&sealed, key, ad, small)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := io.Copy(w, src); m != int64(n) || err != nil {
				t.Fatalf("%s, %d bytes: sealed %d: %v", name, n, m, err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := stream.NewReaderSize(&sealed, key, ad, small)
			if err != nil {
				t.Fatal(err)
			}
			if m, err := io.Copy(&out, r); m != int64(n) || err != nil || !bytes.Equal(out.Bytes(), plain) {
				t.Fatalf("%s, %d bytes: opened %d: %v", name, n, m, err)
			}
			if m, err := r.Read(make([]byte, 1)); m != 0 || !is(err, io.EOF) {
				t.Fatalf("after the end: %d, %v", m, err)
			}
		}
	}
}

// refused checks that no reader hands out the whole of sealed, that what Reader handed out before it
// noticed is a prefix of plain, and that the error is ErrTampered alone.
func refused(t *testing.T, what string, sealed, plain, key, ad []byte) {
	t.Helper()
	got, err := openSize(sealed, key, ad, small)
	if !is(err, keys.ErrTampered) {
		t.Fatalf("%s: Reader: %v", what, err)
	}
	if !bytes.HasPrefix(plain, got) {
		t.Fatalf("%s: Reader handed out what was never sealed", what)
	}
	r, err := stream.NewReaderSize(bytes.NewReader(sealed), key, ad, small)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := r.WriteTo(&out); !is(err, keys.ErrTampered) {
		t.Fatalf("%s: WriteTo: %v", what, err)
	}
	if !bytes.Equal(out.Bytes(), got) {
		t.Fatalf("%s: WriteTo and Read differ", what)
	}
	if _, err := r.Read(make([]byte, 10)); !is(err, keys.ErrTampered) {
		t.Fatalf("%s: the failure did not last: %v", what, err)
	}
	got, err = openAtSize(sealed, key, ad, small)
	if !is(err, keys.ErrTampered) {
		t.Fatalf("%s: ReaderAt: %v", what, err)
	}
	if !bytes.HasPrefix(plain, got) {
		t.Fatalf("%s: ReaderAt handed out what was never sealed", what)
	}
}

func TestEveryFlip(t *testing.T) {
	plain := text(first + others + 9)
	sealed := sealSize(t, plain, ad, small)
	for i := range sealed {
		for bit := range 8 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << bit
			refused(t, fmt.Sprintf("byte %d bit %d", i, bit), bad, plain, key, ad)
		}
	}
}

func TestEveryTruncation(t *testing.T) {
	for _, n := range []int{0, 1, first, first + 1, first + others, first + others + 9, first + 2*others} {
		plain := text(n)
		sealed := sealSize(t, plain, ad, small)
		for cut := range sealed {
			refused(t, fmt.Sprintf("%d of %d bytes", cut, len(sealed)), sealed[:cut], plain, key, ad)
			// ReaderAt hands out nothing at all.
			if _, err := stream.NewReaderAtSize(bytes.NewReader(sealed), int64(cut), key, ad, small); !is(err, keys.ErrTampered) {
				t.Fatalf("cut at %d: ReaderAt opened: %v", cut, err)
			}
		}
	}
}

func TestSegmentsMoved(t *testing.T) {
	plain := text(first + 2*others + 9)
	sealed := sealSize(t, plain, ad, small)
	seg := func(n int) []byte { return sealed[n*small : min((n+1)*small, len(sealed))] }
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	other := sealSize(t, plain, ad, small)
	for name, bad := range map[string][]byte{
		"swapped":                join(seg(0), seg(2), seg(1), seg(3)),
		"second dropped":         join(seg(0), seg(2), seg(3)),
		"last dropped":           join(seg(0), seg(1), seg(2)),
		"all but header dropped": sealed[:40],
		"middle doubled":         join(seg(0), seg(1), seg(1), seg(2), seg(3)),
		"last doubled":           join(sealed, seg(3)),
		"last first":             join(sealed[:40], seg(3)),
		"first doubled":          join(seg(0), seg(0), seg(1), seg(2), seg(3)),
		"of another stream":      join(seg(0), other[small:2*small], seg(2), seg(3)),
		"other header":           join(other[:40], sealed[40:]),
		"other end":              join(sealed[:3*small], other[3*small:]),
		"twice":                  join(sealed, sealed),
		"empty last segment":     join(sealed, make([]byte, 16)),
	} {
		refused(t, name, bad, plain, key, ad)
	}
	for n := 1; n <= 2*small; n++ {
		refused(t, fmt.Sprintf("%d bytes appended", n), join(sealed, make([]byte, n)), plain, key, ad)
	}
	refused(t, "other key", sealed, nil, otherKey, ad)
	refused(t, "other ad", sealed, nil, key, []byte("acme/person/fila"))
	refused(t, "no ad", sealed, nil, key, nil)
	refused(t, "ad with more", sealed, nil, key, append(bytes.Clone(ad), 0))
	if _, err := openSize(sealed, key, ad, small+1); !is(err, keys.ErrTampered) {
		t.Fatalf("other segment size: %v", err)
	}
	if _, err := openAtSize(sealed, key, ad, small+1); !is(err, keys.ErrTampered) {
		t.Fatalf("other segment size: %v", err)
	}
}

// TestEmptyLastSegment: a holder of the key could write an empty segment behind a full one. No writer
// does, and a stream has one form.
func TestEmptyLastSegment(t *testing.T) {
	// Tink's segments are sealed alike, so a last segment of the right number comes from a stream whose
	// second segment is empty; build one by sealing nothing behind a full first segment.
	forged := forgeEmptyLast(t)
	if got, err := openTink(t, forged, ad, small); err != nil || len(got) != first {
		t.Fatalf("the forgery is not what it should be: %v", err)
	}
	refused(t, "empty last segment", forged, text(first), key, ad)
}

func TestOptionsAndKeys(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		bad := make([]byte, n)
		if _, err := stream.NewWriter(io.Discard, bad, ad, nil); err == nil {
			t.Errorf("Writer took a key of %d bytes", n)
		}
		if _, err := stream.NewReader(strings.NewReader(""), bad, ad, nil); err == nil {
			t.Errorf("Reader took a key of %d bytes", n)
		}
		if _, err := stream.NewReaderAt(strings.NewReader(""), 100, bad, ad, nil); err == nil {
			t.Errorf("ReaderAt took a key of %d bytes", n)
		}
	}
	for _, n := range []int{-1, 1, 56, 57, 4095, 1<<20 + 1, math.MaxInt} {
		opts := &stream.Options{SegmentSize: n}
		if _, err := stream.NewWriter(io.Discard, key, ad, opts); err == nil {
			t.Errorf("Writer took segments of %d bytes", n)
		}
		if _, err := stream.NewReader(strings.NewReader(""), key, ad, opts); err == nil {
			t.Errorf("Reader took segments of %d bytes", n)
		}
		if _, err := stream.NewReaderAt(strings.NewReader(""), 100, key, ad, opts); err == nil {
			t.Errorf("ReaderAt took segments of %d bytes", n)
		}
	}
	for _, size := range []int64{math.MinInt64, -1, 0, 55, 1 << 53, math.MaxInt64} {
		if _, err := stream.NewReaderAt(strings.NewReader(""), size, key, ad, nil); !is(err, keys.ErrTampered) {
			t.Errorf("a stream of %d bytes: %v", size, err)
		}
	}
	for _, opts := range []*stream.Options{nil, {}, {SegmentSize: 4096}, {SegmentSize: 1 << 20}} {
		var b bytes.Buffer
		w, err := stream.NewWriter(&b, key, ad, opts)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(text(10000))
		w.Close()
		r, err := stream.NewReader(&b, key, ad, opts)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, text(10000)) {
			t.Fatal(err)
		}
	}
}

func TestFreshHeaders(t *testing.T) {
	a, b := sealSize(t, text(10), ad, small), sealSize(t, text(10), ad, small)
	if bytes.Equal(a[1:33], b[1:33]) || bytes.Equal(a[33:40], b[33:40]) || bytes.Equal(a[40:], b[40:]) {
		t.Fatal("two streams share a salt, a nonce prefix or a ciphertext")
	}
}

var errDisk = errors.New("disk full")

// failing fails at the n-th write, and writes half of it.
type failing struct {
	n    int
	err  error
	half bytes.Buffer
}

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		f.half.Write(p[:len(p)/2])
		return len(p) / 2, f.err
	}
	f.half.Write(p)
	return len(p), nil
}

func TestWriterFailures(t *testing.T) {
	plain := text(first + 3*others)
	for n := range 4 {
		for _, want := range []error{errDisk, nil} { // nil: a writer that breaks its contract
			f := &failing{n: n, err: want}
			w, err := stream.NewWriterSize(f, key, ad, small)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Write(plain)
			if err == nil {
				err = w.Close()
			}
			if want == nil {
				want = io.ErrShortWrite
			}
			if !is(err, want) {
				t.Fatalf("write %d: %v", n, err)
			}
			f.n = 100 // the disk has room again: too late
			if _, err := w.Write([]byte("x")); !is(err, want) {
				t.Fatalf("write after failure: %v", err)
			}
			if _, err := w.ReadFrom(strings.NewReader("x")); !is(err, want) {
				t.Fatalf("ReadFrom after failure: %v", err)
			}
			for range 2 {
				if err := w.Close(); !is(err, want) {
					t.Fatalf("close after failure: %v", err)
				}
			}
			if _, err := openSize(f.half.Bytes(), key, ad, small); !is(err, keys.ErrTampered) {
				t.Fatalf("half a stream opened: %v", err)
			}
		}
	}
}

func TestWriterClosed(t *testing.T) {
	var b bytes.Buffer
	w, err := stream.NewWriterSize(&b, key, ad, small)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n := b.Len()
	if _, err := w.Write([]byte("x")); err == nil {
		t.Fatal("write after close")
	}
	if _, err := w.ReadFrom(strings.NewReader("x")); err == nil {
		t.Fatal("ReadFrom after close")
	}
	if b.Len() != n {
		t.Fatal("something was written after close")
	}
}

// TestSourceFailure: half an attachment must not become a whole stream.
func TestSourceFailure(t *testing.T) {
	for _, n := range []int{0, 1, first, first + 1, first + others} {
		for _, want := range []error{errDisk, io.ErrUnexpectedEOF} {
			var b bytes.Buffer
			w, err := stream.NewWriterSize(&b, key, ad, small)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, io.MultiReader(bytes.NewReader(text(n)), iotest.ErrReader(want))); !is(err, want) {
				t.Fatalf("copy: %v", err)
			}
			if err := w.Close(); !is(err, want) {
				t.Fatalf("close: %v", err)
			}
			if _, err := openSize(b.Bytes(), key, ad, small); !is(err, keys.ErrTampered) {
				t.Fatalf("half an attachment opened: %v", err)
			}
		}
	}
}

type failingAt struct {
	b    []byte
	from int64 // reads at or behind it fail
	err  error
}

func (f *failingAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.from {
		return 0, f.err
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}

// TestReaderFailures: a broken disk is no tampering, in neither reader.
func TestReaderFailures(t *testing.T) {
	sealed := sealSize(t, text(first+2*others+9), ad, small)
	for n := range sealed {
		for _, want := range []error{errDisk, io.ErrUnexpectedEOF} {
			src := io.MultiReader(bytes.NewReader(sealed[:n]), iotest.ErrReader(want))
			r, err := stream.NewReaderSize(src, key, ad, small)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(r); !is(err, want) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			if _, err := r.Read(make([]byte, 1)); !is(err, want) {
				t.Fatalf("the failure did not last: %v", err)
			}
		}
	}
	if _, err := stream.NewReaderAtSize(&failingAt{sealed, 0, errDisk}, int64(len(sealed)), key, ad, small); !is(err, errDisk) {
		t.Fatalf("header: %v", err)
	}
	if _, err := stream.NewReaderAtSize(&failingAt{sealed, 100, errDisk}, int64(len(sealed)), key, ad, small); !is(err, errDisk) {
		t.Fatalf("last segment: %v", err)
	}
	f := &failingAt{b: sealed, from: math.MaxInt64, err: errDisk}
	r, err := stream.NewReaderAtSize(f, int64(len(sealed)), key, ad, small)
	if err != nil {
		t.Fatal(err)
	}
	f.from = small
	p := make([]byte, first+1)
	if n, err := r.ReadAt(p, 0); n != first || !is(err, errDisk) || !bytes.Equal(p[:n], text(first)) {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	f.from = math.MaxInt64
	if n, err := r.ReadAt(p, 0); n != len(p) || err != nil {
		t.Fatalf("ReadAt after recovery: %d, %v", n, err)
	}
	f.b = sealed[:small] // the file became shorter meanwhile
	if _, err := r.ReadAt(p, first+others); !is(err, keys.ErrTampered) {
		t.Fatalf("shorter file: %v", err)
	}
	if _, err := stream.NewReaderSize(bytes.NewReader(sealed), key, ad, small); err != nil {
		t.Fatal(err)
	}
	stuck, _ := stream.NewReaderSize(readerFunc(func([]byte) (int, error) { return 0, nil }), key, ad, small)
	if _, err := stuck.Read(make([]byte, 1)); !is(err, io.ErrNoProgress) {
		t.Fatalf("a reader that gives nothing: %v", err)
	}
	liar, _ := stream.NewReaderSize(readerFunc(func(p []byte) (int, error) { return len(p) + 1, nil }), key, ad, small)
	if _, err := liar.Read(make([]byte, 1)); err == nil || is(err, keys.ErrTampered) {
		t.Fatalf("a reader that lies: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestEveryRange reads every range of a stream of four segments, and past its end.
func TestEveryRange(t *testing.T) {
	for _, n := range []int{0, 1, first, first + 2*others + 9} {
		plain := text(n)
		sealed := sealSize(t, plain, ad, small)
		r, err := stream.NewReaderAtSize(bytes.NewReader(sealed), int64(len(sealed)), key, ad, small)
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != int64(n) {
			t.Fatalf("size %d, want %d", r.Size(), n)
		}
		want := bytes.NewReader(plain)
		for off := 0; off <= n+1; off++ {
			for length := 0; length <= n-off+2; length++ {
				p, q := make([]byte, length), make([]byte, length)
				m, err := r.ReadAt(p, int64(off))
				wm, werr := want.ReadAt(q, int64(off))
				if length == 0 {
					werr = nil // readers differ at the end; nothing was asked for
				}
				if m != wm || !is(err, werr) || !bytes.Equal(p, q) {
					t.Fatalf("%d bytes at %d: %d %v, want %d %v", length, off, m, err, wm, werr)
				}
			}
		}
		if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
			t.Fatal("negative offset")
		}
		if _, err := r.ReadAt(make([]byte, 1), math.MaxInt64); !is(err, io.EOF) {
			t.Fatalf("far behind the end: %v", err)
		}
	}
}

// countingAt counts reads by their offsets.
type countingAt struct {
	io.ReaderAt
	mu   sync.Mutex
	offs []int64
}

func (c *countingAt) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.offs = append(c.offs, off)
	c.mu.Unlock()
	return c.ReaderAt.ReadAt(p, off)
}

// TestReaderAtReads: the last segment is read first, two segments stay opened, and a range costs its
// own segments only.
func TestReaderAtReads(t *testing.T) {
	sealed := sealSize(t, text(first+3*others), ad, small)
	c := &countingAt{ReaderAt: bytes.NewReader(sealed)}
	r, err := stream.NewReaderAtSize(c, int64(len(sealed)), key, ad, small)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	for _, seg := range []int{3, 1, 1, 3, 1, 0, 1, 0, 2, 0} {
		if _, err := r.ReadAt(p, int64(max(0, seg*others-40))); err != nil {
			t.Fatal(err)
		}
	}
	want := []int64{0, 3 * small, small, 40, 2 * small}
	if !slices.Equal(c.offs, want) {
		t.Fatalf("read at %v, want %v", c.offs, want)
	}
}

func TestReaderAtConcurrent(t *testing.T) {
	plain := text(first + 6*others + 3)
	sealed := sealSize(t, plain, ad, small)
	r, err := stream.NewReaderAtSize(bytes.NewReader(sealed), int64(len(sealed)), key, ad, small)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				off := (i*31 + g*53) % len(plain)
				p := make([]byte, (i*13+g)%150)
				n, _ := r.ReadAt(p, int64(off))
				if !bytes.Equal(p[:n], plain[off:off+n]) || n < min(len(p), len(plain)-off) {
					t.Errorf("%d bytes at %d differ", len(p), off)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestAllocations: none for each segment.
func TestAllocations(t *testing.T) {
	const segments = 64
	plain := text(segments << 12)
	opts := &stream.Options{SegmentSize: 4096}
	var sealed bytes.Buffer
	sealed.Grow(len(plain) + 100*segments)
	seal := func() {
		sealed.Reset()
		w, _ := stream.NewWriter(&sealed, key, ad, opts)
		w.Write(plain)
		w.Close()
	}
	if n := testing.AllocsPerRun(10, seal); n > 40 {
		t.Errorf("sealing %d segments: %v allocations", segments, n)
	}
	b := bytes.Clone(sealed.Bytes())
	out := make([]byte, len(plain))
	open := func() {
		r, _ := stream.NewReader(bytes.NewReader(b), key, ad, opts)
		io.ReadFull(r, out)
	}
	if n := testing.AllocsPerRun(10, open); n > 40 {
		t.Errorf("opening %d segments: %v allocations", segments, n)
	}
	ra, err := stream.NewReaderAt(bytes.NewReader(b), int64(len(b)), key, ad, opts)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() { ra.ReadAt(out, 0) }); n > 10 {
		t.Errorf("ReadAt of %d segments: %v allocations", segments, n)
	}
	if !bytes.Equal(out, plain) {
		t.Fatal("read something else")
	}
}

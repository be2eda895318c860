package stream_test

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/stream"
)

// FuzzOpen gives both readers and the independent decoder any bytes: they agree, nothing panics, and a
// failure is ErrTampered.
func FuzzOpen(f *testing.F) {
	for _, n := range []int{0, 1, first, first + 1, first + others + 1} {
		f.Add(sealSize(f, text(n), ad, small))
	}
	f.Add([]byte{})
	f.Add([]byte{40})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		front, err := openSize(sealed, key, ad, small)
		if err != nil && !is(err, keys.ErrTampered) {
			t.Fatalf("Reader: %v", err)
		}
		at, atErr := openAtSize(sealed, key, ad, small)
		if atErr != nil && !is(atErr, keys.ErrTampered) {
			t.Fatalf("ReaderAt: %v", atErr)
		}
		plain, ok := decode(sealed, key, ad, small)
		if (err == nil) != (atErr == nil) || ok != (err == nil) {
			t.Fatalf("Reader %v, ReaderAt %v, decoder %v", err, atErr, ok)
		}
		if ok && (!bytes.Equal(front, at) || !bytes.Equal(front, plain)) {
			t.Fatal("the readers disagree")
		}
	})
}

// FuzzRoundTrip seals any text in any pieces.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), []byte("ad"), uint8(1))
	f.Add(text(first), []byte{}, uint8(7))
	f.Add(text(first+others), []byte("x"), uint8(48))
	f.Fuzz(func(t *testing.T, plain, ad []byte, chunk uint8) {
		var sealed bytes.Buffer
		w, err := stream.NewWriterSize(&sealed, key, ad, small)
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk(plain, int(chunk)+1) {
			if _, err := w.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func([]byte, []byte, []byte, int) ([]byte, error){
			"Reader": openSize, "ReaderAt": openAtSize,
		} {
			if got, err := open(sealed.Bytes(), key, ad, small); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		r, _ := stream.NewReaderSize(iotestChunks(&sealed, int(chunk)+1), key, ad, small)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("in pieces: %v", err)
		}
	})
}

// iotestChunks returns a reader that gives at most n bytes at once.
func iotestChunks(r io.Reader, n int) io.Reader {
	return readerFunc(func(p []byte) (int, error) { return r.Read(p[:min(n, len(p))]) })
}

// FuzzHeader: of all headers in front of sealed segments only their own opens anything, in both readers, at
// both sizes of a segment.
func FuzzHeader(f *testing.F) {
	plain := text(5000)
	sealed := map[int][]byte{}
	for _, size := range []int{4 << 10, 1 << 20} {
		var b bytes.Buffer
		w, err := stream.NewWriter(&b, key, ad, &stream.Options{SegmentSize: size})
		if err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		sealed[size] = b.Bytes()
	}
	const header = 40
	f.Add([]byte{}, []byte{})
	f.Add([]byte{40}, []byte{})
	f.Add([]byte{}, []byte{1})
	f.Add(bytes.Repeat([]byte{40}, header), bytes.Repeat([]byte{0}, header))
	// head stands in the place of the header; mask is laid over the header.
	f.Fuzz(func(t *testing.T, head, mask []byte) {
		for size, whole := range sealed {
			near := bytes.Clone(whole)
			for i := range min(len(mask), header) {
				near[i] ^= mask[i]
			}
			for _, in := range [][]byte{near, append(bytes.Clone(head), whole[header:]...), head} {
				r, err := stream.NewReader(bytes.NewReader(in), key, ad, &stream.Options{SegmentSize: size})
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				same := bytes.Equal(in, whole)
				if same != (err == nil) || err != nil && (!is(err, keys.ErrTampered) || len(got) > 0) || same && !bytes.Equal(got, plain) {
					t.Fatalf("Reader: %d bytes, %v", len(got), err)
				}
				at, err := stream.NewReaderAt(bytes.NewReader(in), int64(len(in)), key, ad, &stream.Options{SegmentSize: size})
				if err == nil {
					got = make([]byte, 1)
					_, err = at.ReadAt(got, 0)
				}
				if same != (err == nil) || err != nil && !is(err, keys.ErrTampered) {
					t.Fatalf("ReaderAt: %v", err)
				}
			}
		}
	})
}

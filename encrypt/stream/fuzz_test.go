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

package stream_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/crmguard/crmguard/encrypt/stream"
)

const benchSize = 64 << 20

// fixed is a writer into one buffer that is never grown.
type fixed struct{ b []byte }

func (f *fixed) Write(p []byte) (int, error) { f.b = append(f.b, p...); return len(p), nil }

// BenchmarkStream seals and opens 64 MiB with this package and with tink-go v2, in segments of 1 MiB.
func BenchmarkStream(b *testing.B) {
	plain := text(benchSize)
	sealed := sealSize(b, plain, ad, 1<<20)
	out := make([]byte, benchSize+1<<16)
	tink := tinkOf(b, 1<<20)
	writers := []struct {
		name string
		open func(io.Writer) (io.WriteCloser, error)
	}{
		{"ours", func(w io.Writer) (io.WriteCloser, error) { return stream.NewWriter(w, key, ad, nil) }},
		{"tink", func(w io.Writer) (io.WriteCloser, error) { return tink.NewEncryptingWriter(w, ad) }},
	}
	readers := []struct {
		name string
		open func(io.Reader) (io.Reader, error)
	}{
		{"ours", func(r io.Reader) (io.Reader, error) { return stream.NewReader(r, key, ad, nil) }},
		{"tink", func(r io.Reader) (io.Reader, error) { return tink.NewDecryptingReader(r, ad) }},
	}
	for _, c := range writers {
		b.Run("seal/"+c.name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				w, err := c.open(&fixed{out[:0]})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Write(plain); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("sealCopy/"+c.name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				w, err := c.open(&fixed{out[:0]})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(plain)}); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, c := range readers {
		b.Run("open/"+c.name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				r, err := c.open(bytes.NewReader(sealed))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, out[:benchSize]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("openCopy/"+c.name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				r, err := c.open(bytes.NewReader(sealed))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(&fixed{out[:0]}, r); err != nil || n != benchSize {
					b.Fatal(n, err)
				}
			}
		})
	}
	b.Run("range/ours", func(b *testing.B) {
		r, err := stream.NewReaderAt(bytes.NewReader(sealed), int64(len(sealed)), key, ad, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		off := int64(0)
		for b.Loop() {
			off = (off + 7919<<10) % r.Size()
			if _, err := r.ReadAt(out[:4096], off); err != nil && !is(err, io.EOF) {
				b.Fatal(err)
			}
		}
	})
}

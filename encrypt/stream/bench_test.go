package stream_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/stream"
)

const benchSize = 64 << 20

// fixed is a writer into one buffer that is never grown.
type fixed struct{ b []byte }

func (f *fixed) Write(p []byte) (int, error) { f.b = append(f.b, p...); return len(p), nil }

// BenchmarkStream seals and opens 64 MiB with this package and with tink-go v2, in segments of 1 MiB, in turn, so
// that a busy machine slows both. It reports the best time of each in MB/s, and our speed as a part of Tink's.
func BenchmarkStream(b *testing.B) {
	plain := text(benchSize)
	sealed := sealSize(b, plain, ad, 1<<20)
	out := make([]byte, benchSize+1<<16)
	tink := tinkOf(b, 1<<20)
	writer := func(w io.Writer) (io.WriteCloser, error) { return stream.NewWriter(w, key, ad, nil) }
	tinkWriter := func(w io.Writer) (io.WriteCloser, error) { return tink.NewEncryptingWriter(w, ad) }
	reader := func(r io.Reader) (io.Reader, error) { return stream.NewReader(r, key, ad, nil) }
	tinkReader := func(r io.Reader) (io.Reader, error) { return tink.NewDecryptingReader(r, ad) }
	seal := func(open func(io.Writer) (io.WriteCloser, error)) error {
		w, err := open(&fixed{out[:0]})
		if err != nil {
			return err
		}
		if _, err := w.Write(plain); err != nil {
			return err
		}
		return w.Close()
	}
	sealCopy := func(open func(io.Writer) (io.WriteCloser, error)) error {
		w, err := open(&fixed{out[:0]})
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(plain)}); err != nil {
			return err
		}
		return w.Close()
	}
	read := func(open func(io.Reader) (io.Reader, error)) error {
		r, err := open(bytes.NewReader(sealed))
		if err == nil {
			_, err = io.ReadFull(r, out[:benchSize])
		}
		return err
	}
	readCopy := func(open func(io.Reader) (io.Reader, error)) error {
		r, err := open(bytes.NewReader(sealed))
		if err == nil {
			_, err = io.Copy(&fixed{out[:0]}, r)
		}
		return err
	}
	for _, c := range []struct {
		name       string
		ours, tink func() error
	}{
		{"seal", func() error { return seal(writer) }, func() error { return seal(tinkWriter) }},
		{"sealCopy", func() error { return sealCopy(writer) }, func() error { return sealCopy(tinkWriter) }},
		{"open", func() error { return read(reader) }, func() error { return read(tinkReader) }},
		{"openCopy", func() error { return readCopy(reader) }, func() error { return readCopy(tinkReader) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			best := [2]time.Duration{time.Hour, time.Hour}
			for b.Loop() {
				for i, run := range []func() error{c.ours, c.tink} {
					began := time.Now()
					if err := run(); err != nil {
						b.Fatal(err)
					}
					best[i] = min(best[i], time.Since(began))
				}
			}
			speed := func(d time.Duration) float64 { return benchSize / 1e6 / d.Seconds() }
			b.ReportMetric(speed(best[0]), "ours-MB/s")
			b.ReportMetric(speed(best[1]), "tink-MB/s")
			b.ReportMetric(speed(best[0])/speed(best[1]), "of-tink")
		})
	}
	b.Run("range", func(b *testing.B) {
		r, err := stream.NewReaderAt(bytes.NewReader(sealed), int64(len(sealed)), key, ad, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		off := int64(0)
		for b.Loop() {
			off = (off + 7919<<10) % r.Size()
			if _, err := r.ReadAt(out[:4096], off); err != nil && !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		}
	})
}

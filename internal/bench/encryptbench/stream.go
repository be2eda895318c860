package encryptbench

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"

	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/streamingaead"
	"github.com/tink-crypto/tink-go/v2/streamingaead/aesgcmhkdf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt/stream"
	"github.com/crmguard/crmguard/internal/bench/measure"
)

// tinkStream is Tink's AES256-GCM-HKDF with segments of 1 MiB, under a key.
func tinkStream(key []byte) (tink.StreamingAEAD, error) {
	params, err := aesgcmhkdf.NewParameters(aesgcmhkdf.ParametersOpts{
		KeySizeInBytes: 32, DerivedKeySizeInBytes: 32, HKDFHashType: aesgcmhkdf.SHA256, SegmentSizeInBytes: 1 << 20,
	})
	if err != nil {
		return nil, err
	}
	k, err := aesgcmhkdf.NewKey(params, secretdata.NewBytesFromData(key, insecuresecretdataaccess.Token{}))
	if err != nil {
		return nil, err
	}
	m := keyset.NewManager()
	id, err := m.AddKey(k)
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return streamingaead.New(h)
}

// Streams measures attachments beside Tink, which reads and writes the same bytes.
func Streams(_ context.Context, size int, opts measure.Options) ([]measure.Figure, error) {
	key, ad := make([]byte, 32), []byte("contract 7")
	plain := make([]byte, size)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	theirs, err := tinkStream(key)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := stream.NewWriter(&sealed, key, ad, nil)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	write := func(w io.WriteCloser, err error) error {
		if err != nil {
			return err
		}
		if _, err := w.Write(plain); err != nil {
			return err
		}
		return w.Close()
	}
	buf := make([]byte, 1<<20)
	read := func(r io.Reader, err error) error {
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
		return err
	}
	seal, err := measure.Compare("seal a stream of 64 MiB", opts,
		measure.Variant{Name: "tink-go v2 AES256-GCM-HKDF-1MB", Peer: true, Do: func() error { return write(theirs.NewEncryptingWriter(io.Discard, ad)) }},
		measure.Variant{Name: "encrypt/stream", Do: func() error { return write(stream.NewWriter(io.Discard, key, ad, nil)) }})
	if err != nil {
		return nil, err
	}
	open, err := measure.Compare("open a stream of 64 MiB", opts,
		measure.Variant{Name: "tink-go v2 AES256-GCM-HKDF-1MB", Peer: true, Do: func() error { return read(theirs.NewDecryptingReader(bytes.NewReader(sealed.Bytes()), ad)) }},
		measure.Variant{Name: "encrypt/stream, Reader", Do: func() error { return read(stream.NewReader(bytes.NewReader(sealed.Bytes()), key, ad, nil)) }},
		measure.Variant{Name: "encrypt/stream, ReaderAt", Do: func() error {
			a, err := stream.NewReaderAt(bytes.NewReader(sealed.Bytes()), int64(sealed.Len()), key, ad, nil)
			if err != nil {
				return err
			}
			return read(io.NewSectionReader(a, 0, a.Size()), nil)
		}})
	return append(seal, open...), err
}

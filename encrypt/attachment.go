package encrypt

import (
	"context"
	"errors"
	"io"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/stream"
)

// SealStream seals an attachment of any size under the person's ordinary key: what is written to the
// returned writer goes to w sealed, in segments of 1 MiB (docs/formats/stream.md) behind a header that names
// the key. Nothing is complete before Close. label and ad are as for [Keeper.SealFor].
func (k *Keeper) SealStream(ctx context.Context, tenant string, person [16]byte, label string, ad []byte, w io.Writer) (io.WriteCloser, error) {
	key, err := k.ordinaryKey(ctx, tenant, person, label)
	if err != nil {
		return nil, err
	}
	key.sealed.Add(1)
	head := appendHeader(nil, kindStream, key.id)
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	return stream.NewWriter(w, key.streamKey(tenant, label), streamAD(label, ad, head), nil)
}

// OpenStream opens any part of what SealStream wrote, which lies in size bytes at r. It looks at the end
// first: a stream that was cut is ErrTampered here. The reader holds its key: one OpenStream is one
// reading, not something to keep. Errors as of [Keeper.OpenFor], and those of r.
func (k *Keeper) OpenStream(ctx context.Context, tenant string, person [16]byte, label string, ad []byte, r io.ReaderAt, size int64) (*stream.ReaderAt, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	head := make([]byte, headerSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrTampered
		}
		return nil, err
	}
	if head[0] != formatVersion || head[1] != kindStream {
		return nil, ErrTampered
	}
	v, err := k.enter(ctx, tenant, 0, false)
	if err != nil {
		return nil, err
	}
	id := keys.ID(head[2:])
	key := k.cache.byID(v.t, &person, id, v.now)
	if key == nil {
		if key, err = k.keyOf(ctx, &v, id, person, keys.Ordinary); err != nil {
			return nil, err
		}
	}
	rest := io.NewSectionReader(r, headerSize, size-headerSize)
	return stream.NewReaderAt(rest, size-headerSize, key.streamKey(tenant, label), streamAD(label, ad, head), nil)
}

// streamKey derives the key of a label's streams.
func (p *personKey) streamKey(tenant, label string) []byte {
	return expand(p.key, labelStream, tenant, string(p.person[:]), label)
}

func streamAD(label string, ad, head []byte) []byte {
	out := appendPart(nil, labelStream)
	out = appendPart(out, label)
	out = appendBytesPart(out, ad)
	return appendBytesPart(out, head)
}

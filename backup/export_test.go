package backup

import (
	"context"
	"crypto/ed25519"

	"github.com/klauspost/compress/zstd"
)

// ParseManifest, ParseTombstones, ParseRows and ReadSegment are the parsers, for fuzzing.
func ParseManifest(payload []byte, signer ed25519.PrivateKey) error {
	pin := signer.Public().(ed25519.PublicKey)
	b, err := signed(magicManifest, payload, signer, pin)
	if err != nil {
		return err
	}
	_, err = parseManifest(b, pin, 1)
	return err
}

// OpenSigned reads bytes that nobody signed.
func OpenSigned(b []byte, pin ed25519.PublicKey) error {
	_, err := parseManifest(b, pin, 1)
	return err
}

func ParseTombstones(b []byte) ([]byte, error) {
	t, err := parseTombstones(b, id16{})
	if err != nil {
		return nil, err
	}
	return t.marshal(id16{})
}

func ParseRows(b []byte, columns int) ([]byte, error) {
	row := make([]any, columns)
	var out []byte
	for len(b) > 0 {
		var err error
		if b, err = parseRow(b, row); err != nil {
			return nil, err
		}
		for _, v := range row {
			if out, err = appendValue(out, v); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Segment is a good one, and ReadSegment opens one with its key.
func Segment() []byte {
	zenc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		panic(err)
	}
	defer zenc.Close()
	w := newSegmentWriter(&dataKey{}, id16{}, 0, zenc)
	w.add(frame{kind: frameSchema, table: noTable, plain: []byte("{}")})
	w.add(frame{kind: frameEnd, table: noTable, flags: flagLast})
	return w.finish()
}

func ReadSegment(b []byte) error {
	zdec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame+1<<20))
	if err != nil {
		return err
	}
	defer zdec.Close()
	return readSegment(b, &dataKey{}, snapshotVersion, id16{}, 0, zdec, func(frame) error { return nil })
}

// ParseEntries, ParseLinks and ParseDirectory are the parsers of the record index; each gives what it read as it writes it.
func ParseEntries(b []byte, n uint32) ([]byte, error) {
	all, err := parseEntries(b, n, nil)
	return appendEntries(nil, all), err
}

func ParseLinks(b []byte, n uint32) (int, error) {
	all, err := parseLinks(b, n)
	return len(all), err
}

func ParseDirectory(b []byte) ([]byte, error) {
	d, err := parseDirectory(b, &manifest{Tables: make([]manifestTable, 2), Segments: []manifestObject{{Size: 1000}, {Size: 500}},
		Index: []manifestObject{{Size: 300}}})
	if err != nil {
		return nil, err
	}
	return d.marshal(), nil
}

// Directory is a good one.
func Directory() []byte {
	d := &directory{schema: 7, flags: []byte{1, 0}, shapes: []uint64{8, 9}, ends: []uint32{400, 300},
		frames: []dataFrame{{place: place{offset: 36}, kind: frameSchema, table: noTable}, {place: place{offset: 100}, kind: frameTable},
			{segment: 1, place: place{offset: 36}, kind: frameRows, table: 1, rows: 3}}}
	f := indexFrame{first: 5}
	f.kind, f.rows, f.offset, f.size = frameIndex, 3, 36, 60
	d.index = []indexFrame{f}
	return d.marshal()
}

// SplitRow finds the end of one row.
func SplitRow(b []byte, columns int) (size int, err error) {
	rest, err := split(b, make([]int, columns))
	return len(b) - len(rest), err
}

// ParsePrunes returns how many snapshots a list condemns.
func ParsePrunes(b []byte) (int, error) {
	p, err := parsePrunes(b, id16{}, 1)
	if err != nil {
		return 0, err
	}
	return len(p.Condemned), nil
}

// ObjectsOf names the objects of a snapshot and of those that it builds on.
func ObjectsOf(ctx context.Context, r *Repository, id string) (names []string) {
	m, _, err := r.find(ctx, id)
	if err != nil {
		return nil
	}
	chain, err := r.data.below(ctx, m)
	if err != nil {
		return nil
	}
	for _, m := range chain {
		for _, o := range m.objects() {
			names = append(names, o.Name)
		}
	}
	return names
}

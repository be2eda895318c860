package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit/driver"
)

// A frame is length, CRC, kind and body.
const (
	frameHead       = 9 // length 4, CRC 4, kind 1
	kindEvent       = 1
	kindCheckpoint  = 2
	maxFrame        = 2 << 20
	offChain        = frameHead
	offEventLen     = offChain + sha256.Size
	offEvent        = offEventLen + 2
	maxBatch        = 64 << 20
	prefixChainZero = 0x02
	prefixChain     = 0x03
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

var errFrame = errors.New("audit: bytes are not a whole frame")

// frame is one frame of a batch, pointing into it.
type frame struct {
	kind     byte
	chain    tlog.Hash // of an event
	event    []byte    // canonical bytes
	openings []byte    // what follows them
	note     []byte    // of a checkpoint
}

// nextFrame splits the first frame off b.
func nextFrame(b []byte) (f frame, rest []byte, err error) {
	if len(b) < frameHead {
		return f, nil, errFrame
	}
	n := binary.BigEndian.Uint32(b)
	if n < 1 || n > maxFrame || uint64(n) > uint64(len(b)-8) {
		return f, nil, errFrame
	}
	body := b[8 : 8+n]
	if crc32.Update(crc32.Checksum(b[:4], crcTable), crcTable, body) != binary.BigEndian.Uint32(b[4:]) {
		return f, nil, errFrame
	}
	rest = b[8+n:]
	f.kind = body[0]
	switch f.kind {
	case kindEvent:
		if len(body) < offEvent-8 {
			return f, nil, errFrame
		}
		copy(f.chain[:], body[offChain-8:])
		size := int(binary.BigEndian.Uint16(body[offEventLen-8:]))
		body = body[offEvent-8:]
		if size < offDetails || size > len(body) {
			return f, nil, errFrame
		}
		f.event, f.openings = body[:size:size], body[size:]
	case kindCheckpoint:
		f.note = body[1:]
	default:
		return f, nil, fmt.Errorf("%w: frame kind %d", driver.ErrFormat, f.kind)
	}
	return f, rest, nil
}

// sealFrame fills in length and CRC of a frame whose kind and body stand.
func sealFrame(b []byte) {
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	crc := crc32.Checksum(b[:4], crcTable)
	binary.BigEndian.PutUint32(b[4:], crc32.Update(crc, crcTable, b[8:]))
}

// appendOpening appends one opening to the end of an event frame.
func appendOpening(b, sealed []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(sealed)))
	return append(b, sealed...)
}

// splitOpenings takes the openings of a frame apart; ok is false when the
// bytes are not a sequence of openings.
func splitOpenings(b []byte) (list [][]byte, ok bool) {
	r := reader{b: b}
	for len(r.b) > 0 {
		v := r.take(r.count(1))
		if r.bad {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}

// chainZero is the head of the chain of an empty log.
func chainZero(id [16]byte, origin string) tlog.Hash {
	b := make([]byte, 0, 17+len(origin))
	b = append(b, prefixChainZero)
	b = append(b, id[:]...)
	return sha256.Sum256(append(b, origin...))
}

func chainNext(prev, leaf tlog.Hash) tlog.Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = prefixChain
	copy(b[1:], prev[:])
	copy(b[1+sha256.Size:], leaf[:])
	return sha256.Sum256(b[:])
}

// edge is the right edge of the tree: for each level the last complete
// subtree. That is all it takes to add a leaf and to compute the root.
type edge struct {
	size   int64
	level  [64]tlog.Hash
	answer [64]tlog.Hash
}

// ReadHashes implements tlog.HashReader for the hashes of the edge.
func (t *edge) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	for i, x := range indexes {
		l, n := tlog.SplitStoredHashIndex(x)
		if n != t.size>>l-1 {
			return nil, errors.New("audit: hash is not on the edge of the tree")
		}
		t.answer[i] = t.level[l]
	}
	return t.answer[:len(indexes)], nil
}

func (t *edge) add(leaf tlog.Hash) error {
	hs, err := tlog.StoredHashesForRecordHash(t.size, leaf, t)
	if err != nil {
		return err
	}
	copy(t.level[:], hs)
	t.size++
	return nil
}

func (t *edge) root() (tlog.Hash, error) { return tlog.TreeHash(t.size, t) }

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
	kindPruned      = 3
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
	id       []byte    // of the log, of pruned events
	leaves   []byte    // leaf hashes of pruned events
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
	case kindPruned:
		body = body[1:]
		if len(body) < 16+sha256.Size || (len(body)-16)%sha256.Size != 0 {
			return f, nil, errFrame
		}
		f.id, f.leaves = body[:16:16], body[16:]
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

// leafHash is the RFC 6962 leaf hash of an event. It works in the space of
// scratch, which it returns grown.
func leafHash(scratch, event []byte) (tlog.Hash, []byte) {
	scratch = append(append(scratch[:0], 0), event...)
	return sha256.Sum256(scratch), scratch
}

// prunedLeaves is how many leaf hashes one frame of pruned events holds.
const prunedLeaves = 4096

// appendPruned appends frames with the leaf hashes of pruned events.
func appendPruned(b []byte, id [16]byte, leaves []byte) []byte {
	for len(leaves) > 0 {
		n := min(len(leaves), prunedLeaves*sha256.Size)
		at := len(b)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, kindPruned)
		b = append(append(b, id[:]...), leaves[:n]...)
		sealFrame(b[at:])
		leaves = leaves[n:]
	}
	return b
}

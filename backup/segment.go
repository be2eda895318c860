package backup

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/klauspost/compress/zstd"

	"github.com/crmguard/crmguard/backup/backupkey"
)

// Kinds of frames.
const (
	frameSchema = iota + 1
	frameTable
	frameRows
	frameEnd
	frameFooter
)

// Flags of frames.
const flagLast = 1 // the last frame of its segment before the footer

const (
	frameTarget   = 1 << 20  // bytes of rows after which a frame is closed
	segmentTarget = 8 << 20  // bytes after which a segment is closed
	indexTarget   = 4 << 20  // likewise of a record index
	maxRow        = 64 << 20 // bytes of one encoded row
	maxCount      = 11       // bytes of what tells equal rows apart
	maxFrame      = maxRow + frameTarget
	maxSegment    = segmentTarget + maxFrame + 1<<20

	segmentHead = magicSize + 4 + 16 + 4
	frameHead   = 4 + 1 + 1 + 4 + 4
	trailerSize = 4 + magicSize
	tagSize     = 16
	noTable     = 1<<32 - 1
)

// dataKey is the key of one snapshot.
type dataKey [32]byte

func (k *dataKey) derive(label string, parts ...[]byte) []byte {
	info := "crmguard backup " + label + " v1\x00"
	for _, p := range parts {
		info += string(p)
	}
	out, err := hkdf.Expand(sha256.New, k[:], info, 32)
	if err != nil {
		panic("backup: " + err.Error()) // only for impossible lengths
	}
	return out
}

func (k *dataKey) commitment(repository, snapshot id16) (s sum32) {
	copy(s[:], k.derive("commitment", repository[:], snapshot[:]))
	return s
}

// rowDigest returns the keyed digest that the rows of a table are written to.
func (k *dataKey) rowDigest(snapshot id16, table []byte) hash.Hash {
	return newRowDigest(k.derive("digest", snapshot[:]), table)
}

func newRowDigest(key, table []byte) hash.Hash {
	h := hmac.New(sha256.New, key)
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(table))))
	h.Write(table)
	return h
}

// segmentAEAD returns the cipher of one segment; its nonces are frame numbers.
func (k *dataKey) segmentAEAD(snapshot id16, number uint32) cipher.AEAD {
	block, err := aes.NewCipher(k.derive("segment", snapshot[:], binary.BigEndian.AppendUint32(nil, number)))
	if err != nil {
		panic("backup: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("backup: " + err.Error())
	}
	return aead
}

// sealKey makes a key header.
func sealKey(k *dataKey, to *backupkey.Public, repository, snapshot id16) ([]byte, error) {
	head := keyHead(to, snapshot)
	sealed, err := to.Seal(keyInfo(head, repository), k[:])
	if err != nil {
		return nil, fmt.Errorf("backup: seal key: %w", err)
	}
	return append(head, sealed...), nil
}

const keyHeadSize = magicSize + 4 + 6 + 16 + 16

func keyHead(recipient *backupkey.Public, snapshot id16) []byte {
	b := binary.BigEndian.AppendUint32([]byte(magicKeyHeader), formatVersion)
	b = binary.BigEndian.AppendUint16(b, hpke.MLKEM768X25519().ID())
	b = binary.BigEndian.AppendUint16(b, hpke.HKDFSHA256().ID())
	b = binary.BigEndian.AppendUint16(b, hpke.AES256GCM().ID())
	id, _ := hex.DecodeString(recipient.ID())
	b = append(b, id...)
	return append(b, snapshot[:]...)
}

func keyInfo(head []byte, repository id16) []byte {
	info := append([]byte("crmguard backup key v1\x00"), head...)
	return append(info, repository[:]...)
}

// openKey opens a key header and holds the key against its commitment, which is signed.
func openKey(b []byte, key *backupkey.Private, m *manifest) (*dataKey, error) {
	if len(b) < keyHeadSize || string(b[:magicSize]) != magicKeyHeader {
		return nil, ErrTampered
	}
	if v := binary.BigEndian.Uint32(b[magicSize:]); v != formatVersion {
		return nil, versionError(v, formatVersion)
	}
	head := keyHead(key.Public(), m.Snapshot)
	if string(head) != string(b[:keyHeadSize]) {
		return nil, ErrTampered
	}
	plain, err := key.Open(keyInfo(head, m.Repository), b[keyHeadSize:])
	if err != nil || len(plain) != len(dataKey{}) {
		return nil, ErrTampered
	}
	k := dataKey(plain)
	if c := k.commitment(m.Repository, m.Snapshot); !hmac.Equal(c[:], m.Commitment[:]) {
		return nil, ErrTampered
	}
	return &k, nil
}

// frame is one piece of a segment, opened.
type frame struct {
	kind  byte
	flags byte
	table uint32 // position in the manifest's list, noTable if none
	rows  uint32 // how many, in a rows frame; else 0
	plain []byte // decompressed
}

// segmentWriter builds one segment.
type segmentWriter struct {
	buf    []byte
	aead   cipher.AEAD
	zenc   *zstd.Encoder
	count  uint32
	footer []byte
	zbuf   []byte
}

func newSegmentWriter(k *dataKey, snapshot id16, number uint32, zenc *zstd.Encoder) *segmentWriter {
	return reuseSegmentWriter(nil, k, snapshot, number, zenc)
}

// reuseSegmentWriter does so in the memory of a segment that is no longer needed.
func reuseSegmentWriter(buf []byte, k *dataKey, snapshot id16, number uint32, zenc *zstd.Encoder) *segmentWriter {
	if buf == nil {
		buf = make([]byte, 0, 256<<10) // of many snapshots the only one, and small
	}
	w := &segmentWriter{aead: k.segmentAEAD(snapshot, number), zenc: zenc, buf: buf[:0]}
	w.buf = appendSegmentHead(w.buf, snapshotVersion, snapshot, number)
	return w
}

func appendSegmentHead(b []byte, version uint32, snapshot id16, number uint32) []byte {
	b = append(b, magicSegment...)
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(b, snapshot[:]...)
	return binary.BigEndian.AppendUint32(b, number)
}

// add compresses and seals one frame, and returns how many bytes the compression made.
func (w *segmentWriter) add(f frame) int {
	w.zbuf = w.zenc.EncodeAll(f.plain, w.zbuf[:0])
	w.addPacked(f, w.zbuf)
	return len(w.zbuf)
}

// addPacked seals a frame that was compressed already.
func (w *segmentWriter) addPacked(f frame, packed []byte) {
	w.footer = binary.BigEndian.AppendUint32(w.footer, uint32(len(w.buf)))
	w.footer = append(w.footer, f.kind)
	w.footer = binary.BigEndian.AppendUint32(w.footer, f.table)
	w.footer = binary.BigEndian.AppendUint32(w.footer, f.rows)
	w.seal(f, packed)
}

func (w *segmentWriter) seal(f frame, plain []byte) {
	at := len(w.buf)
	if need := frameHead + len(plain) + tagSize + trailerSize; cap(w.buf)-at < need {
		size := at + need
		switch {
		case size <= indexTarget:
			size = min(2*size, indexTarget+frameTarget/8)
		case size < segmentTarget+frameTarget:
			size = segmentTarget + frameTarget
		}
		w.buf = append(make([]byte, 0, size), w.buf...) // slices.Grow would round up
	}
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(plain)+tagSize))
	w.buf = append(w.buf, f.kind, f.flags)
	w.buf = binary.BigEndian.AppendUint32(w.buf, f.table)
	w.buf = binary.BigEndian.AppendUint32(w.buf, f.rows)
	w.buf = w.aead.Seal(w.buf, nonce(w.count), plain, frameAAD(w.buf[:segmentHead], w.count, w.buf[at:at+frameHead]))
	w.count++
}

// finish closes the segment with its footer.
func (w *segmentWriter) finish() []byte {
	at := len(w.buf)
	w.seal(frame{kind: frameFooter, table: noTable}, w.footer)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(w.buf)-at))
	return append(w.buf, magicSegmentEnd...)
}

func nonce(frame uint32) []byte {
	n := make([]byte, 12)
	binary.BigEndian.PutUint32(n[8:], frame)
	return n
}

func frameAAD(segment []byte, number uint32, head []byte) []byte {
	b := make([]byte, 0, 64+segmentHead+frameHead)
	b = append(b, "crmguard backup frame v1\x00"...)
	b = append(b, segment...)
	b = binary.BigEndian.AppendUint32(b, number)
	return append(b, head...)
}

// readSegment opens every frame of a segment in order and calls emit for each but the footer, which it holds
// against what it saw. What emit gets is the receiver's to keep.
func readSegment(b []byte, k *dataKey, version uint32, snapshot id16, number uint32, zdec *zstd.Decoder, emit func(frame) error) error {
	if len(b) < segmentHead+trailerSize || string(b[:magicSize]) != magicSegment {
		return ErrTampered
	}
	if v := binary.BigEndian.Uint32(b[magicSize:]); v > snapshotVersion {
		return versionError(v, snapshotVersion)
	}
	head, end := b[:segmentHead], len(b)-trailerSize
	if !bytes.Equal(head, appendSegmentHead(nil, version, snapshot, number)) || string(b[end+4:]) != magicSegmentEnd {
		return ErrTampered
	}
	aead := k.segmentAEAD(snapshot, number)
	var seen, scratch []byte // the footer as it must be
	last := false
	at := segmentHead
	for count := uint32(0); ; count++ {
		f, size, err := openFrame(b[at:end], aead, head, count, zdec, &scratch)
		if err != nil {
			return err
		}
		next := at + size
		if f.kind == frameFooter {
			if !last || f.flags != 0 || f.table != noTable || f.rows != 0 || next != end ||
				int(binary.BigEndian.Uint32(b[end:])) != end-at || !bytes.Equal(f.plain, seen) {
				return ErrTampered
			}
			return nil
		}
		if last || f.flags&^flagLast != 0 || f.kind < frameSchema || f.kind > frameDirectory || version == 1 && f.kind > frameEnd {
			return ErrTampered
		}
		last = f.flags&flagLast != 0
		seen = binary.BigEndian.AppendUint32(seen, uint32(at))
		seen = append(seen, f.kind)
		seen = binary.BigEndian.AppendUint32(seen, f.table)
		seen = binary.BigEndian.AppendUint32(seen, f.rows)
		if err := emit(f); err != nil {
			return err
		}
		at = next
	}
}

// openFrame opens the frame at the beginning of b, which is number in a segment of that head, and returns its size
// there. Only a footer is not compressed. scratch is used again for each frame.
func openFrame(b []byte, aead cipher.AEAD, head []byte, number uint32, zdec *zstd.Decoder, scratch *[]byte) (f frame, size int, err error) {
	if len(b) < frameHead+tagSize {
		return f, 0, ErrTampered
	}
	fh := b[:frameHead]
	sealed := binary.BigEndian.Uint32(fh)
	if sealed < tagSize || uint64(sealed) > uint64(len(b)-frameHead) {
		return f, 0, ErrTampered
	}
	size = frameHead + int(sealed)
	f = frame{kind: fh[4], flags: fh[5], table: binary.BigEndian.Uint32(fh[6:]), rows: binary.BigEndian.Uint32(fh[10:])}
	plain, err := aead.Open((*scratch)[:0], nonce(number), b[frameHead:size], frameAAD(head, number, fh))
	if err != nil {
		return f, 0, ErrTampered
	}
	if *scratch = plain; f.kind == frameFooter {
		f.plain = plain // until the next frame
		return f, size, nil
	}
	if f.plain, err = zdec.DecodeAll(plain, nil); err != nil || len(f.plain) > maxFrame {
		return f, 0, ErrTampered
	}
	return f, size, nil
}

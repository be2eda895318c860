package verify_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
)

const origin = "crm.example.com/log"

// signer returns a signer of fixed keys, told apart by n.
func signer(t testing.TB, n byte) audit.Signer {
	t.Helper()
	s, err := audit.NewEd25519Signer(origin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealer seals with keys made from the person, for vectors only. When erased is
// set, persons that begin with 0xee are.
type sealer struct{ erased bool }

func (s sealer) aead(person [16]byte) (cipher.AEAD, error) {
	key := sha256.Sum256(append([]byte("vectors only"), person[:]...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s sealer) SealOpening(_ context.Context, _ string, person [16]byte, ad, plaintext []byte) ([]byte, error) {
	a, err := s.aead(person)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, ad[len(ad)-12:], plaintext, ad), nil // one commitment, one plaintext
}

func (s sealer) OpenOpening(_ context.Context, _ string, person [16]byte, ad, sealed []byte) ([]byte, error) {
	if s.erased && person[0] == 0xee {
		return nil, audit.ErrErased
	}
	a, err := s.aead(person)
	if err != nil {
		return nil, err
	}
	if len(sealed) < 16 {
		return nil, errors.New("sealed bytes are too short")
	}
	return a.Open(nil, ad[len(ad)-12:], sealed, ad)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is one batch of a segment.
type batch struct {
	first uint64
	count uint32
	data  []byte
}

// split takes a segment that begins with event 0 apart.
func split(t testing.TB, file []byte) (list []batch) {
	t.Helper()
	for p := file[24:]; len(p) > 0; {
		n := binary.BigEndian.Uint32(p[4:])
		list = append(list, batch{binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint32(p[16:]), bytes.Clone(p[28 : 28+n])})
		p = p[28+n:]
	}
	return list
}

// join is the inverse of split.
func join(list []batch) []byte {
	b := segmentHead(0, 1)
	for _, x := range list {
		at := len(b)
		b = binary.BigEndian.AppendUint32(append(b, "CGBA"...), uint32(len(x.data)))
		b = binary.BigEndian.AppendUint64(b, x.first)
		b = binary.BigEndian.AppendUint32(b, x.count)
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(x.data, castagnoli))
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
		b = append(b, x.data...)
	}
	return b
}

func segmentHead(first uint64, version uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte("CGLOGSEG"), version)
	b = binary.BigEndian.AppendUint64(b, first)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func renumbered(list []batch) (out []batch) {
	n := uint64(0)
	for _, b := range list {
		out = append(out, batch{n, b.count, b.data})
		n += uint64(b.count)
	}
	return out
}

// frames splits the data of a batch.
func frames(t testing.TB, data []byte) (list [][]byte) {
	t.Helper()
	for len(data) > 0 {
		n := 8 + binary.BigEndian.Uint32(data)
		list = append(list, bytes.Clone(data[:n]))
		data = data[n:]
	}
	return list
}

// sealed fills in length and CRC of a frame.
func sealed(f []byte) []byte {
	binary.BigEndian.PutUint32(f, uint32(len(f)-8))
	binary.BigEndian.PutUint32(f[4:], crc32.Update(crc32.Checksum(f[:4], castagnoli), castagnoli, f[8:]))
	return f
}

func frame(kind byte, parts ...[]byte) []byte {
	return sealed(append(append(make([]byte, 8), kind), bytes.Join(parts, nil)...))
}

func eventOf(f []byte) []byte { return f[43 : 43+int(binary.BigEndian.Uint16(f[41:]))] }

// repaired makes each CRC right again after a change at off: of the segment, of
// a batch header, of data and frame. nil when the change left nothing to repair.
func repaired(t testing.TB, b []byte, off int) []byte {
	t.Helper()
	if off < 20 {
		binary.BigEndian.PutUint32(b[20:], crc32.Checksum(b[:20], castagnoli))
		return b
	}
	for at := 24; at+28 <= len(b) && off >= 24; {
		if off < at+24 { // a header
			binary.BigEndian.PutUint32(b[at+24:], crc32.Checksum(b[at:at+24], castagnoli))
			return b
		}
		end := at + 28 + int(binary.BigEndian.Uint32(b[at+4:]))
		if off < at+28 {
			return nil
		}
		if off >= end {
			at = end
			continue
		}
		for f := at + 28; f < end; {
			n := int(binary.BigEndian.Uint32(b[f:]))
			if off < f+8 { // length or CRC
				return nil
			}
			if off < f+8+n {
				sealed(b[f : f+8+n])
				break
			}
			f += 8 + n
		}
		binary.BigEndian.PutUint32(b[at+20:], crc32.Checksum(b[at+28:end], castagnoli))
		binary.BigEndian.PutUint32(b[at+24:], crc32.Checksum(b[at:at+24], castagnoli))
		return b
	}
	return nil
}

// resigned makes a log anew, as the holder of the signing key can: edit changes
// events, and chain, tree and signatures follow.
func resigned(t testing.TB, list []batch, edit func(index uint64, ev []byte) []byte) (out []batch) {
	t.Helper()
	var chain tlog.Hash
	var leaves []tlog.Hash
	for _, b := range list {
		var data []byte
		for _, f := range frames(t, b.data) {
			if f[8] == 2 {
				var at int64
				text := string(f[9:])
				if _, err := fmt.Sscanf(text[bytes.Index(f[9:], []byte("\ntime ")):], "\ntime %d\n", &at); err != nil {
					t.Fatal(err)
				}
				data = append(data, frame(2, signedNote(t, 1, checkpointText(frames(t, list[0].data)[0][44:60], chain, leaves, at)))...)
				continue
			}
			old := eventOf(f)
			ev := edit(uint64(len(leaves)), old)
			if len(leaves) == 0 {
				chain = sha256.Sum256(append(append([]byte{2}, ev[1:17]...), origin...))
			}
			leaf := leafHash(ev)
			chain = sha256.Sum256(append(append([]byte{3}, chain[:]...), leaf[:]...))
			leaves = append(leaves, leaf)
			data = append(data, frame(1, chain[:], binary.BigEndian.AppendUint16(nil, uint16(len(ev))), ev, f[43+len(old):])...)
		}
		out = append(out, batch{b.first, b.count, data})
	}
	return out
}

func leafHash(ev []byte) tlog.Hash { return tlog.RecordHash(ev) }

func mth(leaves []tlog.Hash) tlog.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(mth(leaves[:k]), mth(leaves[k:]))
}

func checkpointText(id []byte, chain tlog.Hash, leaves []tlog.Hash, ms int64) string {
	return fmt.Sprintf("%s\n%d\n%v\nid %x\nchain %v\ntime %d\n", origin, len(leaves), mth(leaves), id, chain, ms)
}

// signedNote signs a text by the key n.
func signedNote(t testing.TB, n byte, text string) []byte {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
	hash := sha256.Sum256(append([]byte(origin+"\n\x01"), key.Public().(ed25519.PublicKey)...))
	return fmt.Appendf(nil, "%s\n— %s %s\n", text, origin, base64.StdEncoding.EncodeToString(append(hash[:4:4], ed25519.Sign(key, []byte(text))...)))
}

// witnessKey returns the key of a witness and what it adds to a note.
func witnessKey(n byte) (vkey string, cosign func(note []byte) []byte) {
	name := fmt.Sprintf("witness-%d.example.net", n)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x80 + n}, 32))
	raw := append([]byte{4}, key.Public().(ed25519.PublicKey)...)
	hash := sha256.Sum256(append([]byte(name+"\n"), raw...))
	vkey = fmt.Sprintf("%s+%x+%s", name, hash[:4], base64.StdEncoding.EncodeToString(raw))
	return vkey, func(note []byte) []byte {
		text := note[:bytes.LastIndex(note, []byte("\n\n"))+1]
		const seconds = 1_772_600_800
		line := binary.BigEndian.AppendUint64(bytes.Clone(hash[:4]), seconds)
		line = append(line, ed25519.Sign(key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, text))...)
		return fmt.Appendf(bytes.Clone(note), "— %s %s\n", name, base64.StdEncoding.EncodeToString(line))
	}
}

package password

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"sort"
)

// commonList is written by mklist.go.
//
//go:embed common.bin
var commonList []byte

// blocklist is a set of folded passwords, kept as the first 40 bits of their SHA-256: 16 choose a bucket, 24 are
// stored, in order. A text that is not in a set of 50,000 is taken for a member once in 20 million.
type blocklist struct {
	starts [1<<16 + 1]uint32
	tails  []byte // 3 bytes each
}

var listMagic = []byte("crmguard passwords 1\n")

const tailSize = 3

// parseBlocklist reads magic, number of entries (4 bytes), entries of each bucket (1 byte each), entries (3 bytes
// each).
func parseBlocklist(b []byte) (*blocklist, error) {
	wrong := errors.New("password: the list of common passwords is damaged")
	b, ok := bytes.CutPrefix(b, listMagic)
	if !ok || len(b) < 4+1<<16 {
		return nil, wrong
	}
	l := &blocklist{tails: b[4+1<<16:]}
	for i, n := range b[4 : 4+1<<16] {
		l.starts[i+1] = l.starts[i] + uint32(n)
	}
	if n := l.starts[1<<16]; n != binary.BigEndian.Uint32(b) || uint64(len(l.tails)) != uint64(n)*tailSize {
		return nil, wrong
	}
	return l, nil
}

// has tells whether the folded text is in the set.
func (l *blocklist) has(folded string) bool {
	sum := sha256.Sum256([]byte(folded))
	bucket := binary.BigEndian.Uint16(sum[:])
	first, tail := int(l.starts[bucket]), sum[2:2+tailSize]
	n := int(l.starts[bucket+1]) - first
	at := func(i int) []byte { return l.tails[(first+i)*tailSize:][:tailSize] }
	i := sort.Search(n, func(i int) bool { return bytes.Compare(at(i), tail) >= 0 })
	return i < n && bytes.Equal(at(i), tail)
}

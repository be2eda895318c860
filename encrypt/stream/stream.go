package stream

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/crmguard/crmguard/encrypt/keys"
)

const (
	// KeySize is the length of a key in bytes.
	KeySize = 32

	saltSize   = 32
	prefixSize = 7
	headerSize = 1 + saltSize + prefixSize
	tagSize    = 16
	nonceSize  = prefixSize + 4 + 1

	// maxSegments is what the 32-bit counter allows, as Tink counts: 2^32-1.
	maxSegments = math.MaxUint32
)

// Options changes how a stream is cut.
type Options struct {
	// SegmentSize is the length of a sealed segment in bytes: 1 MiB or 4 KiB, the sizes of Tink's
	// templates. Small segments open short ranges of small files faster. 0 means 1 MiB. A reader
	// needs the writer's size.
	SegmentSize int
}

// segmentSize returns the size that opts asks for.
func (opts *Options) segmentSize() (int, error) {
	if opts == nil || opts.SegmentSize == 0 {
		return 1 << 20, nil
	}
	if opts.SegmentSize != 1<<20 && opts.SegmentSize != 4<<10 {
		return 0, errors.New("stream: a segment has 1 MiB or 4 KiB")
	}
	return opts.SegmentSize, nil
}

func checkKey(key []byte) error {
	if len(key) != KeySize {
		return errors.New("stream: a key has 32 bytes")
	}
	return nil
}

// sealer has the key of one stream.
type sealer struct {
	gcm    cipher.AEAD
	prefix [prefixSize]byte
	size   int // of a sealed segment
}

// newSealer derives the stream's key from its header.
func newSealer(key, ad, header []byte, size int) (*sealer, error) {
	derived, err := hkdf.Key(sha256.New, key, header[1:1+saltSize], string(ad), KeySize)
	if err != nil {
		return nil, errors.New("stream: cannot derive a key")
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, errors.New("stream: cannot derive a key")
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errors.New("stream: cannot derive a key")
	}
	s := &sealer{gcm: gcm, size: size}
	copy(s.prefix[:], header[1+saltSize:])
	return s, nil
}

// putNonce writes the nonce of segment n into nonce.
func (s *sealer) putNonce(nonce *[nonceSize]byte, n int64, last bool) {
	copy(nonce[:], s.prefix[:])
	binary.BigEndian.PutUint32(nonce[prefixSize:], uint32(n))
	nonce[nonceSize-1] = 0
	if last {
		nonce[nonceSize-1] = 1
	}
}

// start is where segment n begins in the sealed segment's buffer: the first one follows the header
// and is shorter by it.
func start(n int64) int {
	if n == 0 {
		return headerSize
	}
	return 0
}

// readFull fills p. It returns io.EOF only when r ended, and then how much there was; other errors
// of r, io.ErrUnexpectedEOF too, are r's own failures.
func readFull(r io.Reader, p []byte) (n int, err error) {
	idle := 0
	for n < len(p) {
		m, err := r.Read(p[n:])
		if m < 0 || m > len(p)-n {
			return n, errors.New("stream: reader returned an invalid count")
		}
		n += m
		if err != nil {
			if n == len(p) {
				return n, nil // an error that lasts comes again
			}
			return n, err
		}
		if m > 0 {
			idle = 0
		} else if idle++; idle == 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// errOf turns the failure of a read into what a caller may see: the end of the input is a truncation.
func errOf(err error) error {
	if errors.Is(err, io.EOF) {
		return keys.ErrTampered
	}
	return err
}

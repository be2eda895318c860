package algorithm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	tinksubtle "github.com/tink-crypto/tink-go/v2/aead/subtle"
)

// gcmSIV is AES-GCM-SIV of RFC 8452, with Tink's POLYVAL. Tink's own cipher takes no nonce.
type gcmSIV struct {
	block   cipher.Block // of the key-generating key
	keySize int
}

var errOpen = errors.New("algorithm: authentication failed")

func newGCMSIV(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &gcmSIV{block, len(key)}, nil
}

func (g *gcmSIV) NonceSize() int { return 12 }
func (g *gcmSIV) Overhead() int  { return 16 }

// maxText is the longest plaintext or associated data, in bytes.
const maxText = 1 << 36

// derive gives the POLYVAL key and the cipher of one nonce.
func (g *gcmSIV) derive(nonce []byte) (auth []byte, enc cipher.Block) {
	var in, out [16]byte
	copy(in[4:], nonce)
	derived := make([]byte, 0, 48)
	for i := range (16 + g.keySize) / 8 {
		binary.LittleEndian.PutUint32(in[:], uint32(i))
		g.block.Encrypt(out[:], in[:])
		derived = append(derived, out[:8]...)
	}
	enc, err := aes.NewCipher(derived[16:])
	if err != nil {
		panic("algorithm: derived key of a wrong length") // its length is that of a key that worked
	}
	return derived[:16], enc
}

// tag computes the synthetic initial value.
func tag(auth []byte, enc cipher.Block, nonce, plaintext, ad []byte) (out [16]byte) {
	p, err := tinksubtle.NewPolyval(auth)
	if err != nil {
		panic("algorithm: POLYVAL key of a wrong length")
	}
	p.Update(ad)
	p.Update(plaintext)
	var lengths [16]byte
	binary.LittleEndian.PutUint64(lengths[:8], uint64(len(ad))*8)
	binary.LittleEndian.PutUint64(lengths[8:], uint64(len(plaintext))*8)
	p.Update(lengths[:])
	sum := p.Finish()
	subtle.XORBytes(sum[:12], sum[:12], nonce)
	sum[15] &= 0x7f
	enc.Encrypt(out[:], sum[:])
	return out
}

// ctr is the counter mode of RFC 8452: 32 bits, little-endian, at the front.
func ctr(enc cipher.Block, tag *[16]byte, dst, src []byte) {
	counter := *tag
	counter[15] |= 0x80
	n := binary.LittleEndian.Uint32(counter[:])
	var stream [16]byte
	for len(src) > 0 {
		enc.Encrypt(stream[:], counter[:])
		done := subtle.XORBytes(dst, src, stream[:])
		dst, src = dst[done:], src[done:]
		n++
		binary.LittleEndian.PutUint32(counter[:], n)
	}
}

func (g *gcmSIV) Seal(dst, nonce, plaintext, ad []byte) []byte {
	if len(nonce) != 12 {
		panic("algorithm: incorrect nonce length given to AES-GCM-SIV")
	}
	if uint64(len(plaintext)) > maxText || uint64(len(ad)) > maxText {
		panic("algorithm: message too large for AES-GCM-SIV")
	}
	auth, enc := g.derive(nonce)
	t := tag(auth, enc, nonce, plaintext, ad)
	out, tail := grow(dst, len(plaintext)+16)
	ctr(enc, &t, tail[:len(plaintext)], plaintext)
	copy(tail[len(plaintext):], t[:])
	return out
}

func (g *gcmSIV) Open(dst, nonce, ciphertext, ad []byte) ([]byte, error) {
	if len(nonce) != 12 || len(ciphertext) < 16 || uint64(len(ciphertext)) > maxText+16 || uint64(len(ad)) > maxText {
		return nil, errOpen
	}
	var t [16]byte
	body := ciphertext[:len(ciphertext)-16]
	copy(t[:], ciphertext[len(body):])
	auth, enc := g.derive(nonce)
	out, tail := grow(dst, len(body))
	ctr(enc, &t, tail, body)
	want := tag(auth, enc, nonce, tail, ad)
	if subtle.ConstantTimeCompare(t[:], want[:]) != 1 {
		clear(tail)
		return nil, errOpen
	}
	return out, nil
}

// grow appends n bytes to dst and returns the whole and the new part.
func grow(dst []byte, n int) (whole, tail []byte) {
	if total := len(dst) + n; cap(dst) >= total {
		whole = dst[:total]
	} else {
		whole = make([]byte, total)
		copy(whole, dst)
	}
	return whole, whole[len(dst):]
}

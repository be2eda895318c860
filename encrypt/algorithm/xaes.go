package algorithm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// xaes is XAES-256-GCM of C2SP: AES-256-GCM under a key that CMAC derives from the first half of a
// 24-byte nonce. Tink's own takes no nonce; the bytes are the same.
type xaes struct {
	block cipher.Block
	k1    [16]byte // the CMAC subkey
}

func newXAES(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	carry := x.k1[0] >> 7
	for i := range x.k1 {
		x.k1[i] <<= 1
		if i < 15 {
			x.k1[i] |= x.k1[i+1] >> 7
		}
	}
	x.k1[15] ^= carry * 0x87
	return x, nil
}

func (x *xaes) NonceSize() int { return 24 }
func (x *xaes) Overhead() int  { return 16 }

// derive returns the cipher of the first 12 bytes of a nonce.
func (x *xaes) derive(nonce []byte) cipher.AEAD {
	var key [32]byte
	for i := range 2 {
		half := key[16*i : 16*i+16]
		copy(half, []byte{0, byte(i + 1), 'X', 0})
		copy(half[4:], nonce[:12])
		subtle.XORBytes(half, half, x.k1[:])
		x.block.Encrypt(half, half)
	}
	g, err := newGCM(key[:])
	if err != nil {
		panic("algorithm: derived key of a wrong length") // it has 32 bytes
	}
	return g
}

func (x *xaes) Seal(dst, nonce, plaintext, ad []byte) []byte {
	if len(nonce) != 24 {
		panic("algorithm: incorrect nonce length given to XAES-256-GCM")
	}
	return x.derive(nonce).Seal(dst, nonce[12:], plaintext, ad)
}

func (x *xaes) Open(dst, nonce, ciphertext, ad []byte) ([]byte, error) {
	if len(nonce) != 24 {
		return nil, errOpen
	}
	return x.derive(nonce).Open(dst, nonce[12:], ciphertext, ad)
}

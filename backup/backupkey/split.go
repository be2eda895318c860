package backupkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

const (
	sharePrefix = "crmguard-backup-share-1:"
	shareHead   = 16 + 16 + 3 // set, key, needed, all, place
	scalarSize  = 32
	checkSize   = 4
)

// Split returns n shares of the key, of which any needed ones give it back by [Join] and fewer tell nothing: Shamir's scheme (A.
// Shamir, How to Share a Secret, 1979) over the scalars of Ristretto255. A share is one line of about 200 characters, made for paper: it
// carries a check against typing errors, and the key's id. needed is 2 or more, n at most 255.
func (k *Private) Split(needed, n int) ([]string, error) {
	if needed < 2 || n < needed || n > 255 {
		return nil, errors.New("backupkey: a key is split into 2 to 255 shares, of which 2 or more are needed")
	}
	secret := group.Ristretto255.RandomNonZeroScalar(rand.Reader)
	private, err := k.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("backupkey: %w", err)
	}
	var set [16]byte
	rand.Read(set[:])
	sealed, err := shareCipher(secret, set[:])
	if err != nil {
		return nil, err
	}
	wrapped := sealed.Seal(nil, make([]byte, sealed.NonceSize()), private, k.pub.id[:])
	dealer := secretsharing.New(rand.Reader, uint(needed-1), secret)
	var all []string
	for i, s := range dealer.Share(uint(n)) {
		value, err := s.Value.MarshalBinary()
		if err != nil || len(value) != scalarSize {
			return nil, errors.New("backupkey: the key cannot be split")
		}
		b := append(append([]byte(nil), set[:]...), k.pub.id[:]...)
		b = append(b, byte(needed), byte(n), byte(i+1))
		b = append(append(b, value...), wrapped...)
		sum := sha256.Sum256(b)
		all = append(all, sharePrefix+base64.StdEncoding.EncodeToString(append(b, sum[:checkSize]...)))
	}
	return all, nil
}

// shareCipher wraps a private key under what the shares give together. Its key is used once, with a nonce of zeros.
func shareCipher(secret group.Scalar, set []byte) (cipher.AEAD, error) {
	b, err := secret.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("backupkey: %w", err)
	}
	key, err := hkdf.Key(sha256.New, b, set, "crmguard backup share v1", 32)
	if err != nil {
		return nil, fmt.Errorf("backupkey: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("backupkey: %w", err)
	}
	return cipher.NewGCM(block)
}

// Join gives back the key of shares that Private.Split made, in any order, with white space around them. An error says which share,
// counted from 1, is mistyped or of another set. Error: ErrKey when there are too few, or they do not fit together.
func Join(shares []string) (*Private, error) {
	var first, wrapped []byte
	var points []secretsharing.Share
	seen := map[byte]bool{}
	for i, text := range shares {
		b, err := decodeKey(text, sharePrefix)
		if err != nil || len(b) < shareHead+scalarSize+checkSize {
			return nil, fmt.Errorf("backupkey: share %d: %w", i+1, errKeyText)
		}
		end := len(b) - checkSize
		if sum := sha256.Sum256(b[:end]); !bytes.Equal(sum[:checkSize], b[end:]) {
			return nil, fmt.Errorf("backupkey: share %d is mistyped or cut", i+1)
		}
		b = b[:end]
		if first == nil {
			first, wrapped = b, b[shareHead+scalarSize:]
		}
		if !bytes.Equal(first[:34], b[:34]) || !bytes.Equal(wrapped, b[shareHead+scalarSize:]) {
			return nil, fmt.Errorf("backupkey: share %d is of another set", i+1)
		}
		place := b[34]
		value := group.Ristretto255.NewScalar()
		if err := value.UnmarshalBinary(b[shareHead : shareHead+scalarSize]); err != nil || place == 0 {
			return nil, fmt.Errorf("backupkey: share %d: %w", i+1, errKeyText)
		}
		if seen[place] {
			continue
		}
		seen[place] = true
		points = append(points, secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(place)), Value: value})
	}
	if first == nil || len(points) < int(first[32]) || first[32] < 2 {
		return nil, fmt.Errorf("%w: too few shares", ErrKey)
	}
	secret, err := secretsharing.Recover(uint(first[32])-1, points)
	if err != nil {
		return nil, fmt.Errorf("%w: the shares do not fit together", ErrKey)
	}
	opener, err := shareCipher(secret, first[:16])
	if err != nil {
		return nil, err
	}
	private, err := opener.Open(nil, make([]byte, opener.NonceSize()), wrapped, first[16:32])
	if err != nil {
		return nil, fmt.Errorf("%w: the shares do not fit together", ErrKey)
	}
	k, err := hpke.MLKEM768X25519().NewPrivateKey(private)
	if err != nil {
		return nil, errKeyText
	}
	key := newPrivate(k)
	if !bytes.Equal(key.pub.id[:], first[16:32]) {
		return nil, fmt.Errorf("%w: the shares do not fit together", ErrKey)
	}
	return key, nil
}

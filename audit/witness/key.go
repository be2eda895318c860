package witness

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// ErrSignature says that a note has a wrong signature by a known key.
var ErrSignature = errors.New("witness: a signature by a known key is wrong")

const (
	algCosignature = 0x04 // Ed25519 tlog-cosignature/v1
	sigSize        = 8 + ed25519.SignatureSize
	maxNote        = 1 << 20
)

// Key is the public key of a witness. It is a note.Verifier.
type Key struct {
	name string
	pub  ed25519.PublicKey
	hash uint32
}

// ParseKey reads a key in the encoding of a signed note, "name+hash+base64", of
// the type of Ed25519 cosignatures, 0x04.
func ParseKey(vkey string) (Key, error) {
	bad := errors.New("witness: not the key of an Ed25519 cosigner")
	part := strings.SplitN(strings.TrimSpace(vkey), "+", 3)
	if len(part) != 3 {
		return Key{}, bad
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(part[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature {
		return Key{}, bad
	}
	k, err := newKey(part[0], raw[1:])
	if err != nil {
		return Key{}, err
	}
	if k.String() != strings.TrimSpace(vkey) { // also the hash
		return Key{}, bad
	}
	return k, nil
}

func newKey(name string, pub ed25519.PublicKey) (Key, error) {
	if name == "" || !utf8.ValidString(name) || strings.ContainsRune(name, '+') || strings.IndexFunc(name, unicode.IsSpace) >= 0 {
		return Key{}, errors.New("witness: the name of a key is not empty and has no spaces and no plus sign")
	}
	h := sha256.New()
	h.Write([]byte(name))
	h.Write([]byte{'\n', algCosignature})
	h.Write(pub)
	return Key{name: name, pub: bytes.Clone(pub), hash: binary.BigEndian.Uint32(h.Sum(nil))}, nil
}

// Name returns the name of the witness.
func (k Key) Name() string { return k.name }

// KeyHash returns the hash that stands in signature lines.
func (k Key) KeyHash() uint32 { return k.hash }

// Verify reports whether sig is a cosignature of the text of a note.
func (k Key) Verify(text, sig []byte) bool {
	at, ok := sigTime(sig)
	return ok && len(k.pub) == ed25519.PublicKeySize && ed25519.Verify(k.pub, message(at, text), sig[8:])
}

// String returns the key as ParseKey reads it.
func (k Key) String() string {
	var h [4]byte
	binary.BigEndian.PutUint32(h[:], k.hash)
	return k.name + "+" + hex.EncodeToString(h[:]) + "+" + base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, k.pub...))
}

// sigTime returns the seconds in a cosignature.
func sigTime(sig []byte) (int64, bool) {
	if len(sig) != sigSize {
		return 0, false
	}
	at := binary.BigEndian.Uint64(sig)
	return int64(at), at <= math.MaxInt64
}

// message is what a witness signs.
func message(at int64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), text...)
}

// Cosigner signs for a witness.
type Cosigner struct {
	key    Key
	signer crypto.Signer
}

// NewCosigner returns the cosigner called name, by custom a host and path
// without scheme. The key is an ed25519.PrivateKey or lies elsewhere; use it for
// no other name and nothing else.
func NewCosigner(name string, signer crypto.Signer) (*Cosigner, error) {
	pub, ok := signer.Public().(ed25519.PublicKey)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return nil, errors.New("witness: not an Ed25519 key")
	}
	key, err := newKey(name, pub)
	if err != nil {
		return nil, err
	}
	return &Cosigner{key: key, signer: signer}, nil
}

// Key returns the public key.
func (c *Cosigner) Key() Key { return c.key }

// String keeps the key out of logs.
func (c *Cosigner) String() string { return "witness.Cosigner(" + c.key.String() + ")" }

// GoString keeps the key out of logs.
func (c *Cosigner) GoString() string { return c.String() }

// sign returns a signature line over the text of a note.
func (c *Cosigner) sign(text []byte, at time.Time) ([]byte, error) {
	sec := at.Unix()
	if sec < 0 {
		return nil, errors.New("witness: the clock is before 1970")
	}
	raw, err := c.signer.Sign(nil, message(sec, text), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("witness: signer: %v", err)
	}
	sig := binary.BigEndian.AppendUint64(nil, uint64(sec))
	sig = append(sig, raw...)
	if !c.key.Verify(text, sig) {
		return nil, errors.New("witness: signer: its signature does not verify")
	}
	return sigLine(c.key.name, c.key.hash, sig), nil
}

func sigLine(name string, hash uint32, sig []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, hash)
	return fmt.Appendf(nil, "— %s %s\n", name, base64.StdEncoding.EncodeToString(append(b, sig...)))
}

// Cosignature says that a witness signed a note.
type Cosignature struct {
	Key  Key
	Time time.Time // when, by the clock of the witness, to the second
}

// Cosignatures returns the cosignatures of a note by the given keys, in the
// order of the keys. Signatures by other keys, also that of the log, are passed
// over unread. It returns ErrSignature when one by a given key is wrong, and
// another error when the bytes are not a note.
func Cosignatures(msg []byte, keys ...Key) ([]Cosignature, error) {
	n, err := openNote(msg, verifiers(keys))
	if err != nil {
		return nil, err
	}
	var out []Cosignature
	for _, k := range keys {
		for _, s := range n.Sigs {
			if s.Name != k.name || s.Hash != k.hash {
				continue
			}
			raw, err := base64.StdEncoding.DecodeString(s.Base64)
			if err != nil || len(raw) != 4+sigSize {
				return nil, ErrSignature
			}
			at, _ := sigTime(raw[4:])
			out = append(out, Cosignature{Key: k, Time: time.Unix(at, 0).UTC()})
			break
		}
	}
	return out, nil
}

// verifiers adapts keys to note.Verifiers. Two keys of one name and hash are
// told apart by nothing: the first one counts.
type verifiers []Key

func (v verifiers) Verifier(name string, hash uint32) (note.Verifier, error) {
	for _, k := range v {
		if k.name == name && k.hash == hash {
			return k, nil
		}
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
}

// openNote checks the signatures by known keys and takes a note without any.
func openNote(msg []byte, known note.Verifiers) (*note.Note, error) {
	if len(msg) > maxNote {
		return nil, errNote
	}
	n, err := note.Open(msg, known)
	var none *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	switch {
	case err == nil:
		return n, nil
	case errors.As(err, &none):
		return none.Note, nil
	case errors.As(err, &wrong):
		return nil, ErrSignature
	}
	return nil, errNote
}

var errNote = errors.New("witness: bytes are not a signed note")

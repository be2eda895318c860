// Package backupkey holds the keys of backups: the pair that they are sealed to and opened with, whose private half lies where backups are restored and not on
// the host that writes them; shares of that half for several persons to keep on paper; and the key that signs manifests.
//
// The pair is one of HPKE (RFC 9180) with the KEM MLKEM768-X25519, so that what is recorded today does not open to a quantum computer. Files and texts
// are described in docs/formats/backup.md. No key is in an error, and none prints itself.
package backupkey

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// Errors that callers branch on.
var (
	ErrKey      = errors.New("backupkey: the key does not fit") // what was sealed is for another key, or shares do not fit together
	ErrInsecure = errors.New("backupkey: the key file must have mode 0600")
)

// Private opens backups: an HPKE key of the KEM MLKEM768-X25519. It prints as its id.
type Private struct {
	key hpke.PrivateKey
	pub *Public
}

// Public seals backups. It is no secret, but whoever can exchange it reads the next backups.
type Public struct {
	key hpke.PublicKey
	id  [16]byte
}

const (
	publicPrefix  = "crmguard-backup-public-1:"
	privatePrefix = "crmguard-backup-private-1:"
	signerPrefix  = "crmguard-backup-signer-1:"
)

// Generate makes a key pair. Make it where backups will be restored, and give the host that
// writes them the public half only.
func Generate() (*Private, error) {
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("backupkey: generate key: %w", err)
	}
	return newPrivate(k), nil
}

func newPrivate(k hpke.PrivateKey) *Private {
	return &Private{key: k, pub: newPublic(k.PublicKey())}
}

func newPublic(k hpke.PublicKey) *Public {
	p := &Public{key: k}
	sum := sha256.Sum256(append([]byte("crmguard backup recipient v1\x00"), k.Bytes()...))
	copy(p.id[:], sum[:])
	return p
}

// Public returns the public half.
func (k *Private) Public() *Public { return k.pub }

// Open opens what Public.Seal sealed with the same info. Error: ErrKey.
func (k *Private) Open(info, sealed []byte) ([]byte, error) {
	b, err := hpke.Open(k.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil {
		return nil, ErrKey
	}
	return b, nil
}

// String returns the id of the public half and no secret.
func (k *Private) String() string { return "backupkey.Private(" + k.pub.ID() + ")" }

// GoString returns what String returns.
func (k *Private) GoString() string { return k.String() }

// Seal seals a message to the key: HPKE in base mode with HKDF-SHA256 and AES-256-GCM, the encapsulated key before the ciphertext. info says what it is for
// and is no part of it; one who opens it must name the same.
func (k *Public) Seal(info, message []byte) ([]byte, error) {
	b, err := hpke.Seal(k.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, message)
	if err != nil {
		return nil, fmt.Errorf("backupkey: %w", err)
	}
	return b, nil
}

// ID names the key pair: 32 hexadecimal digits.
func (k *Public) ID() string { return hex.EncodeToString(k.id[:]) }

// String returns the text that ParsePublic takes, one line of about 1,700 characters.
func (k *Public) String() string {
	return publicPrefix + base64.StdEncoding.EncodeToString(k.key.Bytes())
}

// ParsePublic reads what Public.String wrote, with white space around it.
func ParsePublic(text string) (*Public, error) {
	b, err := decodeKey(text, publicPrefix)
	if err != nil {
		return nil, err
	}
	k, err := hpke.MLKEM768X25519().NewPublicKey(b)
	if err != nil {
		return nil, errKeyText
	}
	return newPublic(k), nil
}

var errKeyText = errors.New("backupkey: not a key of this kind")

func decodeKey(text, prefix string) ([]byte, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok {
		return nil, errKeyText
	}
	b, err := base64.StdEncoding.Strict().DecodeString(rest)
	if err != nil {
		return nil, errKeyText
	}
	return b, nil
}

// WriteFile writes the private key to a new file of mode 0600. An existing file is an error.
func (k *Private) WriteFile(path string) error {
	b, err := k.key.Bytes()
	if err != nil {
		return fmt.Errorf("backupkey: %w", err)
	}
	return writeKeyFile(path, privatePrefix, b)
}

// Read reads a file that Private.WriteFile wrote. Error: ErrInsecure when others may read it.
func Read(path string) (*Private, error) {
	b, err := readKeyFile(path, privatePrefix)
	if err != nil {
		return nil, err
	}
	k, err := hpke.MLKEM768X25519().NewPrivateKey(b)
	if err != nil {
		return nil, errKeyText
	}
	return newPrivate(k), nil
}

// CreateSigner makes an Ed25519 key that signs manifests and writes it to a new file of mode 0600. An
// existing file is an error. Pin its public half where backups are checked.
func CreateSigner(path string) (ed25519.PrivateKey, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("backupkey: generate key: %w", err)
	}
	return k, writeKeyFile(path, signerPrefix, k.Seed())
}

// ReadSigner reads a file that CreateSigner wrote. Error: ErrInsecure when others may read it.
func ReadSigner(path string) (ed25519.PrivateKey, error) {
	b, err := readKeyFile(path, signerPrefix)
	if err != nil {
		return nil, err
	}
	if len(b) != ed25519.SeedSize {
		return nil, errKeyText
	}
	return ed25519.NewKeyFromSeed(b), nil
}

func writeKeyFile(path, prefix string, key []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("backupkey: key file: %w", err)
	}
	_, err = f.WriteString(prefix + base64.StdEncoding.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("backupkey: key file: %w", err)
	}
	return nil
}

func readKeyFile(path, prefix string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("backupkey: key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("backupkey: key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return nil, errKeyText
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %w", ErrInsecure, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission})
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("backupkey: key file: %w", err)
	}
	return decodeKey(string(b), prefix)
}

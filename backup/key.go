package backup

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

// PrivateKey opens backups: an HPKE key of the KEM MLKEM768-X25519. It prints as its id.
type PrivateKey struct {
	key hpke.PrivateKey
	pub *PublicKey
}

// PublicKey seals backups. It is no secret, but whoever can exchange it reads the next backups.
type PublicKey struct {
	key hpke.PublicKey
	id  [16]byte
}

const (
	publicPrefix  = "crmguard-backup-public-1:"
	privatePrefix = "crmguard-backup-private-1:"
	signerPrefix  = "crmguard-backup-signer-1:"
)

// GenerateKey makes a key pair. Make it where backups will be restored, and give the host that
// writes them the public half only.
func GenerateKey() (*PrivateKey, error) {
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("backup: generate key: %w", err)
	}
	return newPrivateKey(k), nil
}

func newPrivateKey(k hpke.PrivateKey) *PrivateKey {
	return &PrivateKey{key: k, pub: newPublicKey(k.PublicKey())}
}

func newPublicKey(k hpke.PublicKey) *PublicKey {
	p := &PublicKey{key: k}
	sum := sha256.Sum256(append([]byte("crmguard backup recipient v1\x00"), k.Bytes()...))
	copy(p.id[:], sum[:])
	return p
}

// Public returns the public half.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// String returns the id of the public half and no secret.
func (k *PrivateKey) String() string { return "backup.PrivateKey(" + k.pub.ID() + ")" }

// GoString returns what String returns.
func (k *PrivateKey) GoString() string { return k.String() }

// ID names the key pair: 32 hexadecimal digits.
func (k *PublicKey) ID() string { return hex.EncodeToString(k.id[:]) }

// String returns the text that ParsePublicKey takes, one line of about 1,700 characters.
func (k *PublicKey) String() string {
	return publicPrefix + base64.StdEncoding.EncodeToString(k.key.Bytes())
}

// ParsePublicKey reads what PublicKey.String wrote, with white space around it.
func ParsePublicKey(text string) (*PublicKey, error) {
	b, err := decodeKey(text, publicPrefix)
	if err != nil {
		return nil, err
	}
	k, err := hpke.MLKEM768X25519().NewPublicKey(b)
	if err != nil {
		return nil, errKeyText
	}
	return newPublicKey(k), nil
}

var errKeyText = errors.New("backup: not a key of this kind")

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
func (k *PrivateKey) WriteFile(path string) error {
	b, err := k.key.Bytes()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return writeKeyFile(path, privatePrefix, b)
}

// ReadKey reads a file that PrivateKey.WriteFile wrote. Error: ErrInsecure when others may read it.
func ReadKey(path string) (*PrivateKey, error) {
	b, err := readKeyFile(path, privatePrefix)
	if err != nil {
		return nil, err
	}
	k, err := hpke.MLKEM768X25519().NewPrivateKey(b)
	if err != nil {
		return nil, errKeyText
	}
	return newPrivateKey(k), nil
}

// CreateSigner makes an Ed25519 key that signs manifests and writes it to a new file of mode 0600. An
// existing file is an error. Pin its public half where backups are checked.
func CreateSigner(path string) (ed25519.PrivateKey, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("backup: generate key: %w", err)
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
		return fmt.Errorf("backup: key file: %w", err)
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
		return fmt.Errorf("backup: key file: %w", err)
	}
	return nil
}

func readKeyFile(path, prefix string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("backup: key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("backup: key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return nil, errKeyText
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %w", ErrInsecure, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission})
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("backup: key file: %w", err)
	}
	return decodeKey(string(b), prefix)
}

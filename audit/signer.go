package audit

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Signer signs checkpoints.
type Signer interface {
	// VerifierKey returns the public key in the encoding of a C2SP signed
	// note, "name+hash+key". Its name is the origin of the log.
	VerifierKey() string
	// Sign returns the raw signature of msg.
	Sign(ctx context.Context, msg []byte) ([]byte, error)
}

// NewEd25519Signer returns a signer for the log called name. The name is the
// origin of the log, by custom a host and path without scheme, as
// "crm.example.com/log"; it has no spaces and no plus sign. The key is an
// ed25519.PrivateKey, or anything that signs with an Ed25519 key elsewhere; what
// that returns is checked before it is used.
func NewEd25519Signer(name string, key crypto.Signer) (Signer, error) {
	own, local := key.(ed25519.PrivateKey)
	if key == nil || local && len(own) != ed25519.PrivateKeySize {
		return nil, errors.New("audit: not an Ed25519 private key")
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(public) != ed25519.PublicKeySize {
		return nil, errors.New("audit: not an Ed25519 key")
	}
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("audit: signer: %v", err)
	}
	if _, err := note.NewVerifier(vkey); err != nil {
		return nil, errors.New("audit: the name of a log is not empty and has no spaces and no plus sign")
	}
	return &ed25519Signer{vkey: vkey, key: key, public: public, local: local}, nil
}

type ed25519Signer struct {
	vkey   string
	key    crypto.Signer
	public ed25519.PublicKey
	local  bool
}

func (s *ed25519Signer) VerifierKey() string { return s.vkey }

func (s *ed25519Signer) Sign(_ context.Context, msg []byte) ([]byte, error) {
	sig, err := s.key.Sign(rand.Reader, msg, crypto.Hash(0))
	if err == nil && !s.local && !ed25519.Verify(s.public, msg, sig) {
		err = errors.New("audit: the signer returned a signature that does not verify")
	}
	return sig, err
}

// String keeps the key out of logs.
func (s *ed25519Signer) String() string { return "audit.Signer(" + s.vkey + ")" }

// GoString keeps the key out of logs.
func (s *ed25519Signer) GoString() string { return s.String() }

// OpenSigningKey returns a signer for the log called name with the key in the
// file path, one line in the encoding of golang.org/x/mod/sumdb/note. When
// there is no file, one is made with a new key and mode 0600. A file that
// others than its owner may read, or that belongs to another name, is refused.
func OpenSigningKey(path, name string) (Signer, error) {
	s, err := readSigningKey(path, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	skey, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, fmt.Errorf("audit: signing key: %v", err)
	}
	if err := writeNew(path, []byte(skey+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("audit: signing key: %w", err)
	}
	return readSigningKey(path, name)
}

func readSigningKey(path, name string) (Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("audit: signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit: signing key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("audit: signing key is not a regular file")
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("audit: signing key has mode %04o, wider than 0600", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, fmt.Errorf("audit: signing key: %w", err)
	}
	skey := strings.TrimSpace(string(text))
	ns, err := note.NewSigner(skey)
	if err != nil {
		return nil, errors.New("audit: signing key file is malformed")
	}
	if ns.Name() != name {
		return nil, fmt.Errorf("audit: signing key belongs to %q, not to %q", ns.Name(), name)
	}
	// PRIVATE+KEY+name+hash+keydata, and keydata is the algorithm and the seed.
	parts := strings.SplitN(skey, "+", 5)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, errors.New("audit: signing key file is malformed")
	}
	return NewEd25519Signer(name, ed25519.NewKeyFromSeed(raw[1:]))
}

// writeNew makes the file path with data, durably and in one step, and never
// replaces one.
func writeNew(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

package vault

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// Signer is a version of an Ed25519 key of Transit. It implements crypto.Signer for messages that are not hashed, as
// audit.NewEd25519Signer takes it, and is safe for concurrent use. The smallest policy is
//
//	path "transit/keys/crm-audit" { capabilities = ["read"] }
//	path "transit/sign/crm-audit" { capabilities = ["update"] }
//
// Each signature is a call of Vault: an audit log makes one for each batch, and takes no events while Vault is away.
type Signer struct {
	kek     *KEK
	version int
	public  ed25519.PublicKey
}

var _ crypto.Signer = (*Signer)(nil)

// OpenSigner connects, logs in and reads the public key of the newest version of cfg.Key, with which it signs until Close
// even when the key is rotated meanwhile; keep the verifier keys of old versions. It makes no key:
//
//	vault write transit/keys/crm-audit type=ed25519
//
// Errors: keys.ErrKMSUnavailable, keys.ErrAuth, keys.ErrKeyMissing, and a key of another type.
func OpenSigner(ctx context.Context, cfg Config) (*Signer, error) {
	k, err := dial(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	s := &Signer{kek: k}
	if err := s.load(ctx); err != nil {
		k.login.close()
		return nil, err
	}
	return s, nil
}

func (s *Signer) load(ctx context.Context) error {
	answer, err := s.kek.read(ctx, "keys/"+s.kek.key)
	switch {
	case err != nil:
		return refusedAs(err, "vault: the transit key was not read")
	case answer == nil:
		return fmt.Errorf("%w: vault has no such transit key", keys.ErrKeyMissing)
	}
	if derived, _ := data(answer, "derived").(bool); derived || data(answer, "type") != "ed25519" {
		return errors.New("vault: the transit key does not sign: its type must be ed25519, not derived")
	}
	latest, _ := data(answer, "latest_version").(json.Number)
	versions, _ := data(answer, "keys").(map[string]any)
	newest, _ := versions[latest.String()].(map[string]any)
	text, _ := newest["public_key"].(string)
	public, err := base64.StdEncoding.DecodeString(text)
	version, nerr := strconv.Atoi(latest.String())
	if err != nil || nerr != nil || len(public) != ed25519.PublicKeySize {
		return errors.New("vault: the answer has no public key")
	}
	s.version, s.public = version, public
	return nil
}

// Public returns the ed25519.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign signs a message, at most 64 KiB, within Config.Timeout. opts must say that it is not hashed. Errors:
// keys.ErrKMSUnavailable, keys.ErrAuth, keys.ErrKeyMissing, and keys.ErrRetired when Vault ended this version.
func (s *Signer) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != 0 {
		return nil, errors.New("vault: the key signs messages, not their hashes")
	}
	if len(message) > 1<<16 {
		return nil, errors.New("vault: more than 64 KiB")
	}
	answer, err := s.kek.write(context.Background(), "sign/"+s.kek.key, map[string]any{
		"input": base64.StdEncoding.EncodeToString(message), "key_version": s.version,
	})
	if err != nil {
		return nil, refusedAs(err, "vault: the transit key does not sign")
	}
	text, _ := data(answer, "signature").(string)
	sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, fmt.Sprintf("vault:v%d:", s.version)))
	if err != nil || !ed25519.Verify(s.public, message, sig) {
		return nil, errors.New("vault: the answer has no signature of the key")
	}
	return sig, nil
}

// Close ends the upkeep of the login and leaves its token to expire.
func (s *Signer) Close() error { return s.kek.Close() }

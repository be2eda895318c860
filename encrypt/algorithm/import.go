package algorithm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// importBits is the size of the RSA key of an Import, as key services use it.
const importBits = 4096

// Import receives one key of 32 bytes that a customer made (bring your own key): the customer seals
// it to PublicPEM, and Unwrap opens it. It is made for one key, which is used and then thrown away together with the Import.
type Import struct{ key *rsa.PrivateKey }

// NewImport makes an RSA key of 4096 bits, which takes about a second.
func NewImport() (*Import, error) {
	key, err := rsa.GenerateKey(rand.Reader, importBits)
	if err != nil {
		return nil, errors.New("algorithm: cannot make an RSA key")
	}
	return &Import{key}, nil
}

// ParseImport reads what Private returned. Errors: keys.ErrAlgorithm for another kind of key or one
// below 3072 bits, or a wrong form.
func ParseImport(der []byte) (*Import, error) {
	key, err := parsePrivate(der)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, refuseText(keys.ErrAlgorithm, "a key is imported with RSA-OAEP", "an RSA key")
	}
	return &Import{private}, nil
}

// Private returns the private key (PKCS#8, DER). It opens the customer's key: seal it before it is
// stored (encrypt.Keeper's SealTenant), and delete it after the import.
func (i *Import) Private() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return nil, errors.New("algorithm: cannot encode the private key")
	}
	return der, nil
}

// PublicPEM returns the public key (PKIX, PEM) for the customer.
func (i *Import) PublicPEM() ([]byte, error) { return publicPEM(&i.key.PublicKey) }

// Unwrap opens the customer's key. Two forms are understood: RSA-OAEP with SHA-256, MGF1-SHA-256 and no label over the 32 bytes; or
// an AES-256 key so wrapped, followed by the 32 bytes wrapped under it with AES-KWP (RFC 5649), which is PKCS#11's
// CKM_RSA_AES_KEY_WRAP and what Vault takes. Error: keys.ErrTampered alone.
func (i *Import) Unwrap(wrapped []byte) ([]byte, error) {
	size := i.key.Size()
	if len(wrapped) != size && len(wrapped) != size+40 {
		return nil, keys.ErrTampered
	}
	key, err := rsa.DecryptOAEP(sha256.New(), nil, i.key, wrapped[:size], nil)
	if err != nil || len(key) != 32 {
		return nil, keys.ErrTampered
	}
	if len(wrapped) == size {
		return key, nil
	}
	defer clear(key)
	kwp, err := subtle.NewKWP(key)
	if err != nil {
		return nil, keys.ErrTampered
	}
	inner, err := kwp.Unwrap(wrapped[size:])
	if err != nil || len(inner) != 32 {
		return nil, keys.ErrTampered
	}
	return inner, nil
}

func publicPEM(key any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, errors.New("algorithm: cannot encode the public key")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

package algorithm

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard/encrypt/keys"
)

// The signature algorithms. A key has one of them.
const (
	Ed25519 = "Ed25519"
	RSAPSS  = "RSA-PSS-SHA-256"
)

const (
	minVerifyBits = 2048
	minSignBits   = 3072
	maxBits       = 8192 // a larger key is an attack on the verifier's time
)

var pssOptions = &rsa.PSSOptions{SaltLength: sha256.Size, Hash: crypto.SHA256}

// Signer makes signatures.
type Signer struct{ key crypto.Signer }

// Verifier checks signatures.
type Verifier struct{ key crypto.PublicKey }

// NewSigner makes a key for Ed25519, or for RSAPSS with 3072 bits. Error: keys.ErrAlgorithm for any other name.
func NewSigner(algorithm string) (*Signer, error) {
	switch algorithm {
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, errors.New("algorithm: cannot make an Ed25519 key")
		}
		return &Signer{key}, nil
	case RSAPSS:
		key, err := rsa.GenerateKey(rand.Reader, minSignBits)
		if err != nil {
			return nil, errors.New("algorithm: cannot make an RSA key")
		}
		return &Signer{key}, nil
	}
	if err := Check(algorithm); err != nil {
		return nil, err
	}
	return nil, refuse(algorithm, "makes no signatures here", Ed25519+" or "+RSAPSS)
}

// ParseSigner reads a private key: one PEM block PRIVATE KEY (PKCS#8, not encrypted), Ed25519 or RSA of at least
// 3072 bits. Errors: keys.ErrAlgorithm for other and weaker keys, or a wrong form.
func ParseSigner(text []byte) (*Signer, error) {
	der, err := onePEM(text, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := parsePrivate(der)
	if err != nil {
		return nil, err
	}
	return &Signer{key}, nil
}

// ParseVerifier reads a public key: one PEM block PUBLIC KEY (PKIX), Ed25519 or RSA of at least 2048 bits. Errors: keys.ErrAlgorithm for
// other and weaker keys, or a wrong form.
func ParseVerifier(text []byte) (*Verifier, error) {
	der, err := onePEM(text, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := parsePublic(der)
	if err != nil {
		return nil, err
	}
	return &Verifier{key}, nil
}

// Algorithm returns Ed25519 or RSAPSS.
func (s *Signer) Algorithm() string { return algorithmOf(s.key.Public()) }

// Algorithm returns Ed25519 or RSAPSS.
func (v *Verifier) Algorithm() string { return algorithmOf(v.key) }

func algorithmOf(key crypto.PublicKey) string {
	if _, ok := key.(ed25519.PublicKey); ok {
		return Ed25519
	}
	return RSAPSS
}

// Verifier returns the public side.
func (s *Signer) Verifier() *Verifier { return &Verifier{s.key.Public()} }

// PEM returns the private key as ParseSigner reads it.
func (s *Signer) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, errors.New("algorithm: cannot encode the private key")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// PEM returns the public key as ParseVerifier reads it.
func (v *Verifier) PEM() ([]byte, error) { return publicPEM(v.key) }

// Sign returns the signature of message: 64 bytes for Ed25519, the size of the key for RSA-PSS.
func (s *Signer) Sign(message []byte) ([]byte, error) {
	input, opts := message, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := s.key.(*rsa.PrivateKey); ok {
		sum := sha256.Sum256(message)
		input, opts = sum[:], pssOptions
	}
	sig, err := s.key.Sign(rand.Reader, input, opts)
	if err != nil {
		return nil, errors.New("algorithm: cannot sign")
	}
	return sig, nil
}

// Verify returns nil when signature was made over message by the key and its one algorithm, else keys.ErrTampered.
func (v *Verifier) Verify(message, signature []byte) error {
	switch key := v.key.(type) {
	case ed25519.PublicKey:
		if ed25519.Verify(key, message, signature) {
			return nil
		}
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		if rsa.VerifyPSS(key, crypto.SHA256, sum[:], signature, pssOptions) == nil {
			return nil
		}
	}
	return keys.ErrTampered
}

// onePEM returns the one block of text. Nothing else may stand beside it.
func onePEM(text []byte, typ string) ([]byte, error) {
	if len(text) > 1<<16 {
		return nil, errors.New("algorithm: the key is too long")
	}
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || len(block.Headers) > 0 ||
		!bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN ")) {
		return nil, errors.New("algorithm: a key is one PEM block")
	}
	if block.Type != typ {
		return nil, fmt.Errorf("algorithm: the PEM block is not a %s (PKCS#8 or PKIX)", typ)
	}
	return block.Bytes, nil
}

func parsePrivate(der []byte) (crypto.Signer, error) {
	// crypto/x509 overlooks what follows a private key.
	if rest, err := asn1.Unmarshal(der, new(asn1.RawValue)); err != nil || len(rest) > 0 {
		return nil, errForm
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if key, err = parsePSSPrivate(der); err != nil {
			return nil, err
		}
	}
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		if err := checkRSA(&k.PublicKey, minSignBits); err != nil {
			return nil, err
		}
		return k, nil
	}
	return nil, errOtherKey
}

func parsePublic(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		if key, err = parsePSSPublic(der); err != nil {
			return nil, err
		}
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *rsa.PublicKey:
		if err := checkRSA(k, minVerifyBits); err != nil {
			return nil, err
		}
		return k, nil
	}
	return nil, errOtherKey
}

var (
	errForm     = errors.New("algorithm: cannot read the key")
	errOtherKey = refuseText(keys.ErrAlgorithm, "keys of this kind are not spoken", Ed25519+" or RSA")
	errPSS      = refuseText(keys.ErrAlgorithm, "the key is bound to another hash or salt", "RSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes")
)

func checkRSA(key *rsa.PublicKey, least int) error {
	switch bits := key.N.BitLen(); {
	case bits < least:
		return refuseText(keys.ErrAlgorithm, fmt.Sprintf("RSA of %d bits is too weak (SP 800-57)", bits), fmt.Sprintf("at least %d bits, or Ed25519", max(least, minSignBits)))
	case bits > maxBits:
		return refuseText(keys.ErrAlgorithm, "RSA of more than 8192 bits only costs time", "Ed25519")
	case key.E < 1<<16+1:
		return refuseText(keys.ErrAlgorithm, "a small public exponent is refused (FIPS 186-5)", "65537")
	}
	return nil
}

// The keys that are bound to RSA-PSS (RFC 4055, id-RSASSA-PSS); crypto/x509 does not read them.

var (
	oidPSS    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

type algorithmID struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type pssParameters struct {
	Hash    algorithmID `asn1:"explicit,tag:0,optional"`
	MGF     algorithmID `asn1:"explicit,tag:1,optional"`
	Salt    int         `asn1:"explicit,tag:2,optional,default:20"`
	Trailer int         `asn1:"explicit,tag:3,optional,default:1"`
}

// checkPSS accepts a key bound to our parameters, or to PSS alone.
func checkPSS(id algorithmID) error {
	if !id.Algorithm.Equal(oidPSS) {
		return errForm
	}
	if len(id.Parameters.FullBytes) == 0 {
		return nil
	}
	var p pssParameters
	if rest, err := asn1.Unmarshal(id.Parameters.FullBytes, &p); err != nil || len(rest) > 0 {
		return errForm
	}
	var inner algorithmID
	if rest, err := asn1.Unmarshal(p.MGF.Parameters.FullBytes, &inner); err != nil || len(rest) > 0 {
		return errPSS
	}
	if !p.Hash.Algorithm.Equal(oidSHA256) || !p.MGF.Algorithm.Equal(oidMGF1) || !inner.Algorithm.Equal(oidSHA256) ||
		p.Salt > sha256.Size || p.Trailer != 1 {
		return errPSS // the salt of a key is the least that it allows
	}
	return nil
}

func parsePSSPublic(der []byte) (any, error) {
	var info struct {
		ID  algorithmID
		Key asn1.BitString
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 || info.Key.BitLength%8 != 0 {
		return nil, errForm
	}
	if err := checkPSS(info.ID); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS1PublicKey(info.Key.Bytes)
	if err != nil {
		return nil, errForm
	}
	return key, nil
}

func parsePSSPrivate(der []byte) (any, error) {
	var info struct {
		Version    int
		ID         algorithmID
		Key        []byte
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 || info.Version != 0 {
		return nil, errForm
	}
	if err := checkPSS(info.ID); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS1PrivateKey(info.Key)
	if err != nil {
		return nil, errForm
	}
	return key, nil
}

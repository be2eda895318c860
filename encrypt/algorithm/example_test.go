package algorithm_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/crmguard/crmguard/encrypt/algorithm"
)

func Example() {
	choice, _ := algorithm.ByLevel(algorithm.LongTerm)
	fmt.Println(choice.Name)

	key := make([]byte, choice.KeyBytes)
	rand.Read(key)
	aead, _ := algorithm.New(choice.Name, key)
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	sealed := aead.Seal(nil, nonce, []byte("a contract of 1999"), []byte("archive/7"))
	_, err := aead.Open(nil, nonce, sealed, []byte("archive/8"))
	fmt.Println(err)
	// Output:
	// XAES-256-GCM
	// encrypt: authentication failed
}

func ExampleCheck() {
	fmt.Println(algorithm.Check("aes_256_gcm"))
	fmt.Println(algorithm.Check("AES/ECB/PKCS5Padding"))
	fmt.Println(algorithm.Check("des-ede3-cbc"))
	// Output:
	// <nil>
	// encrypt: algorithm refused: aes-ecb-pkcs5-padding shows equal blocks as equal and authenticates nothing; use AES-256-GCM
	// encrypt: algorithm refused: desede3-cbc has blocks of 64 bits, which collide after 32 GB (Sweet32, CVE-2016-2183); disallowed by SP 800-131A since 2024; use AES-256-GCM
}

func ExampleNewImport() {
	ours, _ := algorithm.NewImport()
	public, _ := ours.PublicPEM() // to the customer

	// The customer's side, in any tool that knows RSA-OAEP with SHA-256:
	block, _ := pem.Decode(public)
	key, _ := x509.ParsePKIXPublicKey(block.Bytes)
	customer := make([]byte, 32)
	rand.Read(customer)
	wrapped, _ := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.(*rsa.PublicKey), customer, nil)

	got, err := ours.Unwrap(wrapped)
	fmt.Println(string(got) == string(customer), err)
	// Output: true <nil>
}

func ExampleNewSigner() {
	signer, _ := algorithm.NewSigner(algorithm.Ed25519)
	signature, _ := signer.Sign([]byte("manifest 12"))

	verifier := signer.Verifier() // its PEM goes to whoever checks
	fmt.Println(verifier.Algorithm())
	fmt.Println(verifier.Verify([]byte("manifest 12"), signature))
	fmt.Println(verifier.Verify([]byte("manifest 13"), signature))
	// Output:
	// Ed25519
	// <nil>
	// encrypt: authentication failed
}

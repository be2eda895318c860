// Package algorithm picks algorithms by protection level, refuses broken ones by name, and has the
// public-key side of a CRM's keys: import of a key that the customer made, and signatures.
//
// What to choose: [ByLevel] and [New] for a cipher; [Check] for a name that comes from a configuration,
// an import or a partner; [Import] to receive a customer's key; [Signer] and [Verifier] for signatures.
//
// # What is refused
//
// DES, 3DES and other 64-bit block ciphers, RC4, ECB, CBC (with a MAC beside it too), counter modes without a MAC, names of
// several modes or of none, MD5, SHA-1, hashes of 224 bits, PKCS#1 v1.5, RSA below 2048 bits (below 3072 for what is made
// new), DSA, and curves below 256 bits. The error wraps [keys.ErrAlgorithm] and names the attack or standard and what to
// use instead. A name that nobody here knows is refused too.
//
// # Ciphers
//
// AES-128/192/256-GCM (SP 800-38D), AES-128/256-GCM-SIV (RFC 8452), XChaCha20-Poly1305
// (draft-irtf-cfrg-xchacha) and XAES-256-GCM (C2SP), all as [crypto/cipher.AEAD]. Nothing here
// chooses nonces: a caller draws them at random and counts messages, or uses encrypt.Keeper, which does.
// None of them commits to its key: name the key beside the ciphertext and never try several.
//
// # Test vectors
//
// testdata/aead.json holds vectors as they were published for each cipher, and each with known modifications.
// testdata/gcm.json holds cases of AES-GCM in the manner of Wycheproof (valid, invalid, acceptable, each with its reason):
// modified and cut tags, wrong and empty nonces, long associated data, edges of blocks. Those were made here by crypto/cipher
// with known modifications, and OpenSSL 3 opens and refuses the same.
//
// # Signatures
//
// The key decides: an RSA key makes and takes RSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes
// and nothing else, an Ed25519 key pure Ed25519 (RFC 8032). The signature does not name an algorithm, so none can be
// put in its place.
//
// # Errors
//
// [keys.ErrAlgorithm] for what is refused, [keys.ErrTampered] alone for every failed authentication, plain errors for
// wrong lengths and forms. No error holds a key or a text.
//
// # Concurrency
//
// All values are safe for concurrent use.
package algorithm

// Package oldtink opens what github.com/google/tink/go v1.7.0 and its sisters sealed, so that a system built on
// them can move its data to encrypt.Keeper. It seals nothing new, but for the equality search below.
//
// Use [Import] for a keyset that a KEK encrypted, then Open, OpenDeterministic, VerifyMAC or OpenStream, whichever the
// keyset is for, and seal the result again under the person's key. [OpenEnvelope] opens values of Tink's KMS envelope, which have no
// keyset. The bytes on the wire are the same in tink-go v2, which does the work here and is not
// seen outside; docs/adr/0011-tink-v2.md says why.
//
// # What opens
//
// AEAD: AES-GCM, AES-CTR-HMAC, ChaCha20-Poly1305, XChaCha20-Poly1305, AES-GCM-SIV. Deterministic AEAD:
// AES-SIV. MAC: HMAC, AES-CMAC. Streaming: AES-GCM-HKDF, AES-CTR-HMAC. Keysets with several keys, disabled ones among them, and every output
// prefix. Anything else, and any of these with SHA-1, is [keys.ErrAlgorithm].
//
// # Errors
//
// [keys.ErrTampered] for every failed authentication; [keys.ErrAlgorithm] for a keyset of another purpose
// or with an algorithm that is refused. Errors of the KEK and of readers are wrapped: an unreachable KEK is
// never taken for a forgery. No error holds a key or a text.
//
// # Limits
//
// Tink's raw ciphertexts and all its streams name no key: as in Tink itself, the keys of the keyset are
// tried in turn. None of Tink's ciphers commits to its key. That is one more reason to seal again.
//
// # Concurrency
//
// A Keyset is safe for concurrent use; a reader of OpenStream is not.
package oldtink

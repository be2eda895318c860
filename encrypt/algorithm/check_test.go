package algorithm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcmsiv"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt/algorithm"
	"github.com/crmguard/crmguard/encrypt/keys"
)

func TestCheckRefuses(t *testing.T) {
	for _, c := range []struct{ names, why string }{
		{"DES|des|DES-CBC|des_ecb|DES/CBC/PKCS5Padding|DESX|PBEWithMD5AndDES|des-40", "56 bits"},
		{"3DES|TripleDES|Triple-DES|DESede|des-ede3-cbc|DES-EDE|DESede/CBC/NoPadding|des3|3TDEA|TDES|tdea", "Sweet32"},
		{"RC4|rc4-40|ARCFOUR|arcfour256|ARC4|rc4-hmac-md5", "RFC 7465"},
		{"RC2|RC2-CBC|Blowfish|bf-cbc|CAST5|cast5-cbc|IDEA|idea-cfb", "64 bits"},
		{"AES/ECB/PKCS5Padding|aes-256-ecb|AES_128/ECB/NoPadding|ecb|Rijndael-ECB", "equal blocks"},
		{"AES-256-CBC|AES/CBC/PKCS5Padding|aes_128_cbc|AES-CBC-SHA256", "padding oracles"},
		{"CBC-HMAC-SHA256|AES-CBC-HMAC-SHA256|aes-256-cbc-hmac-sha256|A128CBC-HS256|A256CBC-HS512", "Lucky 13"},
		{"AES-CTR-KW|AES-GCM-CTR|AES-KW-SIV|AES-CCM-GCM", "several modes"},
		{"CTR-HMAC-SHA256|OFB-HS256", "names no cipher"},
		{"SHA-224|sha224|SHA-512/224|SHA3-224|SHA-2-224|HMAC-SHA-224|SHA224withRSA|ECDSA-with-SHA224|PBKDF2-HMAC-SHA224", "hash of 224 bits"},
		{"AES-CTR|aes-256-cfb8|AES-128-OFB|AES-256-XTS|Salsa20|XSalsa20", "flipped"},
		{"ChaCha20|XChaCha20|chacha", "flipped"},
		{"AES|AES-256|aes128|Rijndael|AES-HMAC-SHA256|PBEWithHmacSHA256AndAES_256", "names no mode"},
		{"MD5|md-5|HMAC-MD5|MD4|MD2|MD5withRSA", "RFC 6151"},
		{"SHA1|sha-1|SHA|HmacSHA1|hmac-sha-1-96|SHA1withRSA|RSA-OAEP-SHA1|ecdsa-with-SHA1|PBKDF1|RSA-PSS-SHA1", "SHA-1"},
		{"RIPEMD-160|RMD160|whirlpool", "old hash"},
		{"RSA/ECB/PKCS1Padding|RSAES-PKCS1-v1_5|RSASSA-PKCS1-v1_5|RS256|RS512|rsa-pkcs1v15-sha256|ssh-rsa", "PKCS#1 v1.5"},
		{"SHA256withRSA|sha512WithRSAEncryption|sha256-with-rsa-signature", "PKCS#1 v1.5"},
		{"RSA|rsaEncryption|RSA-SHA256", "names no padding"},
		{"RSA-OAEP|RSAES-OAEP|RSA/ECB/OAEPPadding", "means SHA-1"},
		{"RSA-1024|rsa512|RSA-1024-OAEP-SHA256|RSA_768|RSA-2047|RSA-PSS-1024", "2048 bits"},
		{"DSA|ssh-dss|DSS|SHA256withDSA|DSA-2048", "FIPS 186-5"},
		{"P-192|P-224|secp224r1|prime192v1|ECDSA-P-192|secp160k1|sect163k1|brainpoolP224r1|ECDH-P224", "128 bits of strength"},
		{"none|NULL|plaintext|XOR|base64|ROT13|CRC32|aes-null", "protects nothing"},
		{"AES-100-GCM|AES-512-GCM", "key size"},
		{"GCM|Poly1305", "part of an algorithm"},
		{"256|with|padding|PKCS5Padding", "says nothing"},
		{"|frobnicate|SM4-GCM-X|AES-256-GCM!!?é|shaq|aes-256-gcmx|-----BEGIN PRIVATE KEY-----", "unknown"},
		{strings.Repeat("aes", 1000) + "|" + strings.Repeat("1", 5000) + "|" + strings.Repeat("a1", 40), "unknown"},
	} {
		for _, name := range strings.Split(c.names, "|") {
			for _, name := range []string{name, strings.ToUpper(name), strings.ToLower(name), " " + name + "\n"} {
				err := algorithm.Check(name)
				if !errors.Is(err, keys.ErrAlgorithm) {
					t.Errorf("%.40q passed: %v", name, err)
					continue
				}
				if !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "; use ") {
					t.Errorf("%.40q: %v; want %q", name, err, c.why)
				}
				if _, err := algorithm.New(name, make([]byte, 32)); !errors.Is(err, keys.ErrAlgorithm) {
					t.Errorf("New(%.40q): %v", name, err)
				}
			}
		}
	}
}

// TestCheckPasses: each name that passes stands beside two near it that do not, and why.
func TestCheckPasses(t *testing.T) {
	for line := range strings.Lines(`AES-128-GCM|AES-128-CBC:padding oracles|AES-64-GCM:key size
AES-192-GCM|AES-192-ECB:equal blocks|AES-191-GCM:key size
AES-256-GCM|AES-256:names no mode|AES-256-GCMX:unknown
aes_256_gcm|aes_256_ctr:flipped|aes_256_gcm_kw:several modes
AES/GCM/NoPadding|AES/CBC/NoPadding:padding oracles|DES/GCM/NoPadding:56 bits
A256GCM|A256:names no mode|A256CBC:padding oracles
A256GCMKW|A256CTRKW:several modes|A256CBCKW:padding oracles
aes-256-gcm-siv|aes-256-gcm-siv-ccm:several modes|aes-255-gcm-siv:key size
AES-SIV|SIV:part of an algorithm|AES-SIV-GCM:several modes
AES-SIV-CMAC-256|AES-CMAC-GCM:several modes|AES-SIV-CMAC-ECB:equal blocks
AES-256-CCM|CCM:part of an algorithm|3DES-CCM:Sweet32
AES-KWP|KWP:part of an algorithm|AES-CTR-KWP:several modes
A256KW|AES-CTR-KW:several modes|AES-KW-GCM:several modes
AES-CMAC|CMAC:part of an algorithm|DES-CMAC:56 bits
AES-128-CTR-HMAC-SHA-256|CTR-HMAC-SHA256:names no cipher|AES-128-CTR-HMAC-SHA1:SHA-1
XChaCha20-Poly1305|XChaCha20:flipped|XChaCha20-HMAC-SHA256:flipped
chacha20_poly1305|chacha20:flipped|poly1305:part of an algorithm
xsalsa20-poly1305|xsalsa20:flipped|salsa20:flipped
XAES-256-GCM|XAES-256-CBC:unknown|XAES-256:unknown
RSA-OAEP-256|RSA-OAEP:means SHA-1|RSA-1024-OAEP-256:2048 bits
RSA-OAEP-SHA-256|RSA-OAEP-SHA-224:224 bits|RSA-OAEP-MD5:RFC 6151
RSA/ECB/OAEPWithSHA-256AndMGF1Padding|RSA/ECB/OAEPWithSHA-1AndMGF1Padding:SHA-1|RSA/ECB/PKCS1Padding:PKCS#1 v1.5
RSA-PSS|RSA-PSS-SHA1:SHA-1|RSA-PSS-1024:2048 bits
RSA-PSS-SHA-256|RSA-SHA-256:names no padding|RSA-PSS-SHA-224:224 bits
RSASSA-PSS|RSASSA-PKCS1-v1_5:PKCS#1 v1.5|RSASSA:names no padding
PS256|RS256:PKCS#1 v1.5|PS128:unknown
RSA-2048|RSA-2047:2048 bits|RSA:names no padding
RSA-3072|RSA-768:2048 bits|RSA-3072-PKCS1:PKCS#1 v1.5
rsa4096|rsa512:2048 bits|rsa4096-sha256:names no padding
RSA-3072-OAEP-SHA-256|RSA-3072-OAEP:means SHA-1|RSA-3072-SHA-256:names no padding
Ed25519|DSA:FIPS 186-5|Ed25518:unknown
EdDSA|SHA256withDSA:FIPS 186-5|EdDSA-SHA1:SHA-1
X25519|P-192:128 bits of strength|X25518:unknown
P-256|P-224:128 bits of strength|P-255:unknown
secp384r1|secp224r1:128 bits of strength|secp192k1:128 bits of strength
ES256|ES256-SHA1:SHA-1|ES128:unknown
ECDSA-P-256-SHA-256|ECDSA-P-192-SHA-256:128 bits of strength|ECDSA-P-256-SHA-1:SHA-1
SHA-256|SHA-1:SHA-1|SHA-224:224 bits
sha512|sha512/224:224 bits|sha1:SHA-1
SHA-384|SHA-2-224:224 bits|MD4:RFC 6151
SHA3-256|SHA3-224:224 bits|SHA-0:SHA-1
BLAKE2b|RIPEMD-160:old hash|whirlpool:old hash
HMAC-SHA-256|HMAC-SHA-224:224 bits|HMAC-SHA1:SHA-1
HmacSHA512|HmacMD5:RFC 6151|HmacSHA224:224 bits
HKDF-SHA-256|HKDF-SHA-1:SHA-1|HKDF-MD5:RFC 6151
PBKDF2-HMAC-SHA256|PBKDF2-HMAC-SHA1:SHA-1|PBEWithHmacSHA256AndAES_256:names no mode
argon2id|argon2:unknown|PBKDF1:SHA-1
ML-KEM-768|ML-KEM-767:unknown|Kyber768:unknown
HPKE|HPKE-DES:56 bits|HPKE-RC4:RFC 7465
X-Wing|X-Ring:unknown|X-Wing-3DES:Sweet32
`) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 3 {
			t.Fatal(line)
		}
		if err := algorithm.Check(cells[0]); err != nil {
			t.Errorf("%s: %v", cells[0], err)
		}
		for _, cell := range cells[1:] {
			name, why, _ := strings.Cut(cell, ":")
			if err := algorithm.Check(name); !errors.Is(err, keys.ErrAlgorithm) || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v; want %q", name, err, why)
			}
		}
	}
}

// TestErrorsShowNoSecret: a secret in the place of a name does not come back.
func TestErrorsShowNoSecret(t *testing.T) {
	for _, name := range []string{"hunter2-AES", "c2VjcmV0IGtleSBtYXRlcmlhbA==", "13800138000x", "张伟"} {
		if err := algorithm.Check(name); err == nil || strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestByLevel: each level of importance has a cipher of its own, with the reason and its bounds.
//
//crm:item 21
func TestByLevel(t *testing.T) {
	seen := map[string]bool{}
	for _, level := range []algorithm.Level{algorithm.Basic, algorithm.Standard, algorithm.High, algorithm.LongTerm} {
		c, err := algorithm.ByLevel(level)
		if err != nil {
			t.Fatal(err)
		}
		a, err := algorithm.New(c.Name, make([]byte, c.KeyBytes))
		if err != nil {
			t.Fatal(err)
		}
		if a.NonceSize() != c.NonceBytes || c.Reason == "" || c.Messages < 32 || seen[c.Name] {
			t.Errorf("%s: %+v", level, c)
		}
		seen[c.Name] = true
	}
	for _, level := range []algorithm.Level{"", "BASIC", "top"} {
		if _, err := algorithm.ByLevel(level); !errors.Is(err, keys.ErrAlgorithm) {
			t.Errorf("%q: %v", level, err)
		}
	}
}

func TestNew(t *testing.T) {
	for name, size := range map[string]int{
		algorithm.AES128GCM: 16, algorithm.AES192GCM: 24, algorithm.AES256GCM: 32, algorithm.AES128GCMSIV: 16, algorithm.AES256GCMSIV: 32,
		algorithm.XChaCha20Poly1305: 32, algorithm.XAES256GCM: 32,
	} {
		for n := range 70 {
			a, err := algorithm.New(strings.ToLower(name), make([]byte, n))
			if (err == nil) != (n == size) {
				t.Fatalf("%s with %d bytes: %v", name, n, err)
			}
			if err == nil && a.Overhead() != 16 {
				t.Fatalf("%s: overhead %d", name, a.Overhead())
			}
		}
	}
	for _, name := range []string{"AES-GCM", "AES-SIV", "chacha20-poly1305", "SHA-256", "RSA-PSS"} {
		if _, err := algorithm.New(name, make([]byte, 32)); !errors.Is(err, keys.ErrAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func handle(t *testing.T, k key.Key, err error) tink.AEAD {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	m := keyset.NewManager()
	id, err := m.AddKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	h, err := m.Handle()
	if err != nil {
		t.Fatal(err)
	}
	a, err := aead.New(h)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestTink: what Tink seals opens here and the other way round; Tink puts the nonce in front.
func TestTink(t *testing.T) {
	secret := func(n int) secretdata.Bytes {
		return secretdata.NewBytesFromData(bytes.Repeat([]byte{9}, n), insecuresecretdataaccess.Token{})
	}
	siv := func(n int) tink.AEAD {
		p, err := aesgcmsiv.NewParameters(n, aesgcmsiv.VariantNoPrefix)
		if err != nil {
			t.Fatal(err)
		}
		k, err := aesgcmsiv.NewKey(secret(n), 0, p)
		return handle(t, k, err)
	}
	xaes := func() tink.AEAD {
		p, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, 12)
		if err != nil {
			t.Fatal(err)
		}
		k, err := xaesgcm.NewKey(secret(32), 0, p)
		return handle(t, k, err)
	}
	for name, theirs := range map[string]tink.AEAD{
		algorithm.AES128GCMSIV: siv(16), algorithm.AES256GCMSIV: siv(32), algorithm.XAES256GCM: xaes(),
	} {
		size := 32
		if name == algorithm.AES128GCMSIV {
			size = 16
		}
		ours, err := algorithm.New(name, bytes.Repeat([]byte{9}, size))
		if err != nil {
			t.Fatal(err)
		}
		for n := range 70 {
			plain, ad := bytes.Repeat([]byte{3}, n), bytes.Repeat([]byte{4}, 69-n)
			sealed, err := theirs.Encrypt(plain, ad)
			if err != nil {
				t.Fatal(err)
			}
			nonce := sealed[:ours.NonceSize()]
			if got, err := ours.Open(nil, nonce, sealed[len(nonce):], ad); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s, %d bytes: we open Tink's: %v", name, n, err)
			}
			if got, err := theirs.Decrypt(ours.Seal(bytes.Clone(nonce), nonce, plain, ad), ad); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%s, %d bytes: Tink opens ours: %v", name, n, err)
			}
		}
	}
}

func TestSealPanicsAtNonce(t *testing.T) {
	for _, name := range []string{algorithm.AES256GCM, algorithm.AES256GCMSIV, algorithm.XAES256GCM, algorithm.XChaCha20Poly1305} {
		a, err := algorithm.New(name, make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s sealed with a short nonce", name)
				}
			}()
			a.Seal(nil, make([]byte, 3), nil, nil)
		}()
	}
}

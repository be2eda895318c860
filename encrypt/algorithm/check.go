package algorithm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/encrypt/keys"
)

func refuseText(err error, why, instead string) error {
	return fmt.Errorf("%w: %s; use %s", err, why, instead)
}

// refuse is the error of a refused name. The name is repeated only as far as it is one of ours, so that a
// secret that was typed into the wrong place does not reach a log.
func refuse(name, why, instead string) error {
	words, ok := split(fold(name))
	if !ok {
		return refuseText(keys.ErrAlgorithm, "this name is unknown", instead)
	}
	return refuseText(keys.ErrAlgorithm, strings.Join(words, "-")+" "+why, instead)
}

// trait is what a word of a name says about the algorithm.
type trait int

const (
	neutral trait = iota
	des
	tripleDES
	rc4
	smallBlock
	ecb
	cbc
	unauthenticated // a mode or stream that only hides
	md5
	sha1
	shortHash // SHA-2 and SHA-3 of 224 bits
	oldHash
	pkcs1
	dsa
	smallCurve
	nothing  // no protection at all
	withHash // "with" of "SHA256withRSA"
	aesWord
	rsaWord
	oaep
	pss
	chacha
	poly1305
	mode // an authenticated mode of AES
	mac
	hash2 // SHA-2 and later
	curve
	whole // sound by itself
)

// words is the vocabulary. A name is a sequence of these and of numbers, in any spelling.
var words = map[string]trait{
	"des": des, "desx": des, "des40": des, "des56": des, "dea": des,
	"3des": tripleDES, "des3": tripleDES, "tripledes": tripleDES, "tdes": tripleDES, "tdea": tripleDES,
	"3tdea": tripleDES, "2tdea": tripleDES, "desede": tripleDES, "desede3": tripleDES, "des3ede": tripleDES,
	"2des": tripleDES, "ede": neutral, "ede3": neutral,
	"rc4": rc4, "arc4": rc4, "arcfour": rc4, "arcfour128": rc4, "arcfour256": rc4, "rc4drop": rc4, "rc440": rc4, "rc456": rc4, "rc4128": rc4,
	"rc2": smallBlock, "rc5": smallBlock, "blowfish": smallBlock, "bf": smallBlock, "cast5": smallBlock,
	"cast": smallBlock, "idea": smallBlock, "gost": smallBlock, "skipjack": smallBlock, "tea": smallBlock, "xtea": smallBlock,
	"ecb": ecb, "cbc": cbc, "cts": cbc,
	"ctr": unauthenticated, "cfb": unauthenticated, "cfb1": unauthenticated, "cfb8": unauthenticated, "cfb128": unauthenticated,
	"ofb": unauthenticated, "xts": unauthenticated, "salsa20": unauthenticated, "xsalsa20": unauthenticated, "pcbc": unauthenticated,
	"md2": md5, "md4": md5, "md5": md5,
	"sha": sha1, "sha0": sha1, "sha1": sha1, "sha160": sha1, "hs1": sha1,
	"sha224": shortHash, "sha2224": shortHash, "sha512224": shortHash, "sha3224": shortHash,
	"ripemd": oldHash, "ripemd128": oldHash, "ripemd160": oldHash, "rmd160": oldHash, "whirlpool": oldHash,
	"tiger": oldHash, "crc32": nothing, "crc": nothing, "adler32": nothing,
	"pkcs1": pkcs1, "pkcs1v15": pkcs1, "pkcs1v1": pkcs1, "rs256": pkcs1, "rs384": pkcs1, "rs512": pkcs1, "rsassapkcs1": pkcs1, "rsaespkcs1": pkcs1,
	"dsa": dsa, "dss": dsa, "dsa1024": dsa, "dsa2048": dsa, "sshdss": dsa,
	"p192": smallCurve, "p224": smallCurve, "secp112r1": smallCurve, "secp128r1": smallCurve, "secp160k1": smallCurve, "secp160r1": smallCurve,
	"secp160r2": smallCurve, "secp192k1": smallCurve, "secp192r1": smallCurve, "secp224k1": smallCurve, "secp224r1": smallCurve,
	"prime192v1": smallCurve, "prime239v1": smallCurve, "brainpoolp160r1": smallCurve, "brainpoolp192r1": smallCurve,
	"brainpoolp224r1": smallCurve, "sect163k1": smallCurve, "sect163r2": smallCurve, "sect233k1": smallCurve, "sect233r1": smallCurve,
	"none": nothing, "null": nothing, "plain": nothing, "plaintext": nothing, "xor": nothing, "rot13": nothing, "base64": nothing,
	"aes": aesWord, "rijndael": aesWord, "a128": aesWord, "a192": aesWord, "a256": aesWord,
	"a128gcm": whole, "a192gcm": whole, "a256gcm": whole, "gcm": mode, "gcmsiv": mode, "siv": mode, "ccm": mode, "eax": mode,
	"ocb": mode, "kw": mode, "kwp": mode, "keywrap": mode, "cmac": mode, "gmac": mode,
	"xaes256gcm": whole, "xaesgcm": whole,
	"chacha20": chacha, "chacha": chacha, "xchacha20": chacha, "xchacha": chacha, "poly1305": poly1305,
	"rsa": rsaWord, "oaep": oaep, "pss": pss, "rsassa": rsaWord, "rsaes": rsaWord, "mgf1": neutral, "mgf": neutral, "sshrsa": pkcs1,
	"ps256": whole, "ps384": whole, "ps512": whole, "eddsa": whole, "ed25519": whole, "ed448": whole, "ecdsa": curve, "es256": whole,
	"es384": whole, "es512": whole, "ecdh": curve, "ecdhe": curve, "x25519": whole, "x448": whole, "curve25519": whole,
	"p256": whole, "p384": whole, "p521": whole, "secp256r1": whole, "secp256k1": whole, "secp384r1": whole, "secp521r1": whole, "prime256v1": whole,
	"hs256": mac, "hs384": mac, "hs512": mac, "hmac": mac, "kmac": whole, "kmac128": whole, "kmac256": whole,
	"sha2": neutral, "sha256": hash2, "sha384": hash2, "sha512": hash2, "sha3": hash2, "sha3256": hash2,
	"sha3384": hash2, "sha3512": hash2, "shake128": hash2, "shake256": hash2, "blake2b": hash2, "blake2s": hash2, "blake3": hash2, "sha512256": hash2,
	"hkdf": whole, "pbkdf2": mac, "pbkdf1": sha1, "pbe": neutral, "scrypt": whole, "bcrypt": whole, "argon2id": whole,
	"hpke": whole, "mlkem768": whole, "mlkem1024": whole, "mlkem768x25519": whole, "xwing": whole, "mldsa65": whole, "mldsa87": whole,
	"with": withHash, "and": neutral, "padding": neutral, "nopadding": neutral, "pkcs5": neutral, "pkcs7": neutral, "iso10126": neutral,
	"v15": neutral, "v1": neutral, "bit": neutral, "bits": neutral, "key": neutral, "nonce": neutral, "openssl": neutral, "libsodium": neutral, "encryption": neutral, "signature": neutral,
	"jce": neutral, "etm": neutral, "ieee": neutral, "cipher": neutral,
}

// fold keeps letters and digits, lower-case.
func fold(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteByte(c)
		case c >= 'A' && c <= 'Z':
			b.WriteByte(c + 'a' - 'A')
		case c >= 0x80:
			b.WriteByte('?') // no name of ours
		}
	}
	return b.String()
}

// maxName bounds what split looks at.
const maxName = 80

// split takes a folded name apart into words and numbers, longest word first.
func split(s string) ([]string, bool) {
	if s == "" || len(s) > maxName {
		return nil, false
	}
	dead := make([]bool, len(s)+1) // no way to the end from here
	var walk func(at int) ([]string, bool)
	walk = func(at int) ([]string, bool) {
		if at == len(s) {
			return nil, true
		}
		if dead[at] {
			return nil, false
		}
		for end := min(len(s), at+16); end > at; end-- {
			piece := s[at:end]
			_, known := words[piece]
			number := len(piece) <= 5 && strings.Trim(piece, "0123456789") == ""
			// A number is taken whole: "sha128" is not "sha1" and "28".
			if end < len(s) && digit(s[end]) && digit(s[end-1]) {
				continue
			}
			if !known && !number {
				continue
			}
			if rest, ok := walk(end); ok {
				return append([]string{piece}, rest...), true
			}
		}
		dead[at] = true
		return nil, false
	}
	return walk(0)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// Check says whether an algorithm may be used: nil, or an error that wraps keys.ErrAlgorithm and
// says which attack or standard speaks against it and what to use instead. It understands the spellings of OpenSSL, Java, JOSE
// and SSH ("des-ede3-cbc", "AES/ECB/PKCS5Padding", "RS256", "hmac-sha1"). What it does not know is refused. A name that passes
// is sound, but New may not have it.
func Check(name string) error {
	parts, ok := split(fold(name))
	if !ok {
		return refuse(name, "", AES256GCM)
	}
	has := make(map[trait]bool, len(parts))
	var numbers []int
	for _, p := range parts {
		if t, known := words[p]; known {
			has[t] = true
		} else if n, err := strconv.Atoi(p); err == nil {
			numbers = append(numbers, n)
		}
	}
	bad := func(why, instead string) error { return refuse(name, why, instead) }
	switch {
	case has[nothing]:
		return bad("protects nothing", AES256GCM)
	case has[tripleDES], has[des] && (slices.Contains(parts, "ede") || slices.Contains(parts, "ede3") || slices.Contains(numbers, 3)):
		return bad("has blocks of 64 bits, which collide after 32 GB (Sweet32, CVE-2016-2183); disallowed by SP 800-131A since 2024", AES256GCM)
	case has[des]:
		return bad("has keys of 56 bits, found by search within a day since 1999 (RFC 4772); FIPS 46-3 was withdrawn in 2005", AES256GCM)
	case has[rc4]:
		return bad("has a biased key stream that gives plaintext away (RFC 7465)", AES256GCM)
	case has[smallBlock]:
		return bad("has blocks of 64 bits, which collide after 32 GB (Sweet32, CVE-2016-2183)", AES256GCM)
	case has[md5]:
		return bad("has collisions that are found in seconds (RFC 6151)", "SHA-256")
	case has[sha1]:
		return bad("is SHA-1, whose collisions have been made (SHAttered 2017, Shambles 2020); NIST ends it by 2030", "SHA-256")
	case has[shortHash]:
		return bad("is a hash of 224 bits of the SHA-2 or SHA-3 family, with 112 bits of strength against collisions (SP 800-107), less than any cipher here", "SHA-256")
	case has[oldHash]:
		return bad("is an old hash of 160 bits or less, or one that nobody standardises any more", "SHA-256")
	case has[dsa]:
		return bad("gives its key away by one weak nonce and may sign nothing new (FIPS 186-5)", "Ed25519")
	case has[smallCurve]:
		return bad("has less than 128 bits of strength (SP 800-57)", "Ed25519, X25519 or P-256")
	case has[rsaWord] && slices.ContainsFunc(numbers, func(n int) bool { return n >= 256 && n < 2048 && !sizeOfHash(n, has) }):
		return bad("has less than 2048 bits; 829 bits were factored in 2020 (SP 800-131A)", "RSA of 3072 bits, or Ed25519")
	case has[pkcs1]:
		return bad("is PKCS#1 v1.5, which padding oracles open (Bleichenbacher 1998, ROBOT 2017, Marvin 2023) and lax verifiers let forge",
			"RSA-OAEP-SHA-256 to encrypt, RSA-PSS to sign")
	case has[rsaWord] && has[withHash] && !has[oaep] && !has[pss]:
		return bad("is a PKCS#1 v1.5 signature, which lax verifiers let forge (Bleichenbacher 2006, CVE-2014-1568)", "RSA-PSS")
	case has[rsaWord] && has[oaep] && !has[hash2] && !slices.Contains(numbers, 256) && !slices.Contains(numbers, 384) && !slices.Contains(numbers, 512):
		return bad("without a hash means SHA-1 in JOSE, Java and OpenSSL", "RSA-OAEP-SHA-256")
	case has[rsaWord] && (has[oaep] || has[pss]):
		return nil
	case has[rsaWord] && len(parts) == 2 && len(numbers) == 1 && numbers[0] >= 2048 && numbers[0] <= 16384:
		return nil
	case has[rsaWord]:
		return bad("names no padding, and what is taken then is PKCS#1 v1.5", "RSA-OAEP-SHA-256 to encrypt, RSA-PSS to sign")
	case has[ecb]:
		return bad("shows equal blocks as equal and authenticates nothing", AES256GCM)
	case has[cbc] && !has[mac]:
		return bad("without a MAC is opened by padding oracles (Vaudenay 2002, CVE-2014-3566)", AES256GCM)
	case has[cbc]:
		return bad("is CBC with a MAC beside it, which padding oracles open wherever the two are put together in the wrong order or compared in uneven time "+
			"(Lucky 13, CVE-2013-0169), and is not offered here", AES256GCM)
	case has[unauthenticated] && !has[mac] && !has[poly1305] && !has[mode]:
		return bad("authenticates nothing, so that bits of the text can be flipped", AES256GCM)
	case severalModes(parts, has):
		return bad("names several modes, so that nobody knows what is meant", AES256GCM)
	case has[unauthenticated] && has[mac] && !has[aesWord] && !slices.ContainsFunc(parts, func(p string) bool { return strings.HasSuffix(p, "salsa20") }):
		return bad("names no cipher", AES256GCM)
	case has[chacha] && !has[poly1305]:
		return bad("alone authenticates nothing, so that bits of the text can be flipped", XChaCha20Poly1305)
	case has[aesWord] && !has[mode] && !has[unauthenticated]:
		return bad("names no mode, and what is taken then is ECB (Java)", AES256GCM)
	case has[poly1305] && !has[chacha] && !has[unauthenticated], has[mode] && !has[aesWord] && !has[whole]:
		return bad("is a part of an algorithm, not one", AES256GCM)
	case has[aesWord] && slices.ContainsFunc(numbers, func(n int) bool { return n != 128 && n != 192 && n != 256 && !sizeOfHash(n, has) }):
		return bad("has a key size that AES has not", AES256GCM)
	case has[aesWord], has[chacha], has[unauthenticated], has[whole], has[mac], has[hash2], has[curve]:
		return nil
	}
	return refuse(name, "says nothing", AES256GCM)
}

// severalModes tells that a name has a mode that only hides beside one that authenticates, or several of these. AES-SIV-CMAC
// is one (RFC 5297), and so is a key wrapped by a mode (A256GCMKW).
func severalModes(parts []string, has map[trait]bool) bool {
	modes := slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return words[p] != mode || p == "cmac" && slices.Contains(parts, "siv") })
	modes = slices.Compact(slices.Sorted(slices.Values(modes)))
	return len(modes) > 1 || len(modes) == 1 && has[unauthenticated]
}

// sizeOfHash tells that a number of a name is a digest or key size beside a hash, not a size in bits of RSA.
func sizeOfHash(n int, has map[trait]bool) bool {
	return (n == 256 || n == 384 || n == 512) && (has[oaep] || has[pss] || has[hash2] || has[mac])
}

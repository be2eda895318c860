package algorithm

import "github.com/crmguard/crmguard/encrypt/keys"

// Level says how much protection is asked for.
type Level string

// The levels of ByLevel, rising.
const (
	Basic    Level = "basic"
	Standard Level = "standard"
	High     Level = "high"
	LongTerm Level = "long-term"
)

// Choice is an algorithm and why it was chosen.
type Choice struct {
	Name       string // for New
	KeyBytes   int
	NonceBytes int
	// Messages is how many may be sealed under one key with random nonces, as a power of two: 32 means 2^32, where the
	// chance that two nonces meet is still below 2^-32.
	Messages int
	Reason   string
}

var levels = map[Level]Choice{
	Basic: {AES128GCM, 16, 12, 32,
		"128-bit keys are out of reach of any known computer; the fastest; for internal data of short life"},
	Standard: {AES256GCM, 32, 12, 32,
		"256-bit keys keep 128 bits against quantum search; approved by SP 800-38D; for personal data under keys that are rotated"},
	High: {AES256GCMSIV, 32, 12, 32,
		"a nonce that repeats (cloned machine, restored snapshot) shows only that two messages are equal (RFC 8452); for sensitive and financial data"},
	LongTerm: {XAES256GCM, 32, 24, 80,
		"192-bit random nonces never meet, so a key may live for years and seal without being counted; built of AES-256-GCM and CMAC (C2SP); for keys and archives"},
}

// ByLevel returns the algorithm of a level and the reason. Error: keys.ErrAlgorithm for another level.
func ByLevel(level Level) (Choice, error) {
	c, ok := levels[level]
	if !ok {
		return Choice{}, refuseText(keys.ErrAlgorithm, "this protection level is unknown", "basic, standard, high or long-term")
	}
	return c, nil
}

package money

import (
	"math"
	"strconv"
	"strings"
)

// ISO 4217 currencies whose minor unit is not a hundredth.
var digits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
	"UYI": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// Digits returns how many decimals an amount of the currency has: 2 for CNY, 0 for JPY, 3 for KWD; 2 for an unknown one.
func Digits(currency string) int {
	if n, ok := digits[currency]; ok {
		return n
	}
	return 2
}

// Format writes an amount in minor units as a decimal of the currency, such as "1234.50", without its name and
// without grouping.
func Format(amount int64, currency string) string {
	n := Digits(currency)
	s := strconv.FormatUint(magnitude(amount), 10)
	if pad := n + 1 - len(s); pad > 0 {
		s = strings.Repeat("0", pad) + s
	}
	if n > 0 {
		s = s[:len(s)-n] + "." + s[len(s)-n:]
	}
	if amount < 0 {
		s = "-" + s
	}
	return s
}

// Parse reads a decimal of the currency as minor units: digits, at most one point, no more decimals than the currency has, a
// minus in front of a negative amount. Grouping, a plus and exponents are ErrSyntax, what an int64 does not hold is ErrOverflow.
func Parse(s, currency string) (int64, error) {
	text, negative := strings.CutPrefix(s, "-")
	whole, frac, point := strings.Cut(text, ".")
	n := Digits(currency)
	if whole == "" || point && frac == "" || len(frac) > n ||
		strings.ContainsFunc(whole+frac, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, ErrSyntax
	}
	u, err := strconv.ParseUint(whole+frac+strings.Repeat("0", n-len(frac)), 10, 64)
	if err != nil {
		return 0, ErrOverflow
	}
	if negative && u == -math.MinInt64 {
		return math.MinInt64, nil
	}
	return signed(u, negative, nil)
}

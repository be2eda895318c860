package normalize

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// extensionWords begin an extension, whatever follows.
var extensionWords = []string{"转", "轉", "接", "分机", "分機", "内线", "內線", "extension", "extn", "ext", "доб"}

const (
	extensionSigns  = "x#~＃～" // begin one between four digits or more and another digit
	beforeSign      = 4
	afterSign       = 8 // characters between a sign and the digit
	extensionDigits = 5 // of an extension behind a hyphen
)

// withoutExtension cuts a telephone number behind the last digit before its extension, which begins with a word or
// sign between which and that digit there is no letter, or with the second hyphen of a Chinese landline number.
func withoutExtension(s string) string {
	digits, end := 0, 0 // end: of the last digit, 0 once a letter followed
	for at, r := range s {
		switch {
		case r >= '0' && r <= '9':
			digits, end = digits+1, at+1
			continue
		case end == 0:
			continue
		case startsWord(s[at:]), digits >= beforeSign && strings.ContainsRune(extensionSigns, unicode.ToLower(r)) && leadsToDigit(s[at+utf8.RuneLen(r):]):
			return s[:end]
		case unicode.IsLetter(r):
			end = 0
		}
	}
	return withoutGroup(s)
}

// startsWord reports that s begins with a word of an extension, which goes on in no letter of its alphabet.
func startsWord(s string) bool {
	for _, w := range extensionWords {
		if len(s) < len(w) || !strings.EqualFold(s[:len(w)], w) {
			continue
		}
		r, _ := utf8.DecodeRuneInString(w)
		if next, _ := utf8.DecodeRuneInString(s[len(w):]); unicode.Is(unicode.Han, r) || !unicode.IsLetter(next) || unicode.Is(unicode.Han, next) {
			return true
		}
	}
	return false
}

// leadsToDigit reports a digit before any letter, close by.
func leadsToDigit(s string) bool {
	n := 0
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			return true
		case n == afterSign || unicode.IsLetter(r):
			return false
		}
		n++
	}
	return false
}

// withoutGroup cuts the extension of 0571-88881234-801.
func withoutGroup(s string) string {
	s = strings.TrimSpace(s)
	last := strings.LastIndexByte(s, '-')
	if last < 0 || len(s)-last-1 > extensionDigits || !allDigits(s[last+1:]) {
		return s
	}
	area, number, ok := strings.Cut(s[:last], "-")
	if ok && allDigits(area) && allDigits(number) && landline(area+number, len(area)) {
		return s[:last]
	}
	return s
}

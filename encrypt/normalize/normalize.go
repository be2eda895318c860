// Package normalize turns what people type into the terms that blind indexes find it by, and values
// into masks, and finds such values in free text. It knows phone numbers, e-mail addresses, names,
// companies and postal addresses, Chinese and Latin, and the numbers of Chinese documents: identity
// cards, unified social credit codes, bank cards, licence plates. It keeps nothing and logs nothing.
//
// # Choosing
//
// Use person for new fields with names (name keeps traditional characters apart), company and address
// for what they say, and pinyin as a second index beside person, for queries in Latin letters. text is
// for short free words. What does not parse is never refused: it is reduced to its digits or its folded
// text and stays findable; the functions that answer (string, bool) say so, for a warning.
//
// # Compatibility
//
// What a normaliser answers is part of the stored index: a changed answer is a new version, with a
// name such as "phone/2" beside "phone", which is version 1. Masks are named in the same way. The rules
// and test vectors are in docs/formats/normalize.md.
//
// # Limits
//
// A normaliser answers for the whole of a text of any length, in time linear in it, and never for a part:
// what is too long for an index is an error of encrypt. Only masks look at no more than the first 1,024
// bytes. A term is as personal as the value it came from. A mask hides from the eye, not from an attacker
// who knows the person.
package normalize

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

const (
	maxMasked = 1024 // bytes that a mask looks at
	maxDomain = 1024 // bytes of a domain that is converted; whatever is longer is none
)

// Normalizers returns version 1 of phone, email, name, text, person, pinyin, sound, company, address, numbers,
// idnumber, uscc, bankcard, plate and digits, for encrypt.CodecOptions. region is the ISO 3166 code of
// phone numbers without a country, such as "CN". Every one answers nothing for text without a letter
// or digit that it could use.
func Normalizers(region string) map[string]func(string) []string {
	one := func(f func(string) string) func(string) []string {
		return func(s string) []string {
			if t := f(s); t != "" {
				return []string{t}
			}
			return nil
		}
	}
	checked := func(f func(string) (string, bool)) func(string) []string {
		return one(func(s string) string { t, _ := f(s); return t })
	}
	return map[string]func(string) []string{
		"phone":    one(func(s string) string { return Phone(s, region) }),
		"email":    one(Email),
		"name":     one(Name),
		"text":     one(Name),
		"person":   one(Person),
		"pinyin":   Pinyin,
		"sound":    one(Sound),
		"company":  one(Company),
		"address":  one(Address),
		"numbers":  one(Numbers),
		"idnumber": checked(IDNumber),
		"uscc":     checked(USCC),
		"bankcard": checked(BankCard),
		"plate":    checked(Plate),
		"digits":   one(func(s string) string { return digits(withoutExtension(compat(s))) }),
	}
}

// Phone returns a number in E.164, without its extension (转 12, 分机 12, ext. 12, x12, #12):
// "+8613800138000". What does not parse is reduced to its digits; "" when it has none.
func Phone(typed, region string) string {
	if region == "CN" {
		if s, ok := chineseMobile(typed); ok {
			return s
		}
		if s, ok := chineseLandline(typed); ok {
			return s
		}
	}
	if s, ok := withCode(typed); ok {
		return s
	}
	return parsed(typed, region)
}

// parsed is Phone without the short ways.
func parsed(typed, region string) string {
	s := clean(typed)
	s = strings.TrimSpace(withoutExtension(norm.NFKC.String(s)))
	if strings.HasPrefix(s, "00") { // the international prefix of most countries; no national number begins so
		s = "+" + s[2:]
	}
	if n, err := phonenumbers.Parse(s, region); err == nil && phonenumbers.IsPossibleNumber(n) {
		return phonenumbers.Format(n, phonenumbers.E164)
	}
	return digits(s)
}

// chineseMobile answers as the rest of Phone does, much sooner, for eleven digits in groups from 13 to 18,
// 179 excepted, which begins the code of a carrier.
func chineseMobile(typed string) (string, bool) {
	buf := [14]byte{'+', '8', '6'}
	n := 3
	for i := range len(typed) {
		switch c := typed[i]; {
		case isDigit(c):
			if n == len(buf) {
				return "", false
			}
			buf[n] = c
			n++
		case (c == ' ' || c == '-') && i > 0 && i < len(typed)-1 && isDigit(typed[i-1]):
		default:
			return "", false
		}
	}
	if n < len(buf) || buf[3] != '1' || buf[4] < '3' || buf[4] > '8' || buf[4] == '7' && buf[5] == '9' {
		return "", false
	}
	return string(buf[:]), true
}

// chineseLandline answers as the rest of Phone does, much sooner, for an area code and a number of usual length with at most one space or hyphen
// between: 010-12345678, 0571 88881234.
func chineseLandline(typed string) (string, bool) {
	if len(typed) < 11 || len(typed) > 13 {
		return "", false
	}
	var buf [13]byte
	n, area := 0, 0
	for i := range len(typed) {
		switch c := typed[i]; {
		case isDigit(c):
			if n == len(buf)-1 {
				return "", false
			}
			buf[n] = c
			n++
		case (c == ' ' || c == '-') && area == 0 && (n == 3 || n == 4):
			area = n
		default:
			return "", false
		}
	}
	if n < 11 {
		return "", false
	}
	code := 4
	if buf[1] == '2' || buf[1] == '1' && buf[2] == '0' {
		code = 3
	}
	if area != 0 && area != code || !landline(string(buf[:n]), code) {
		return "", false
	}
	return "+86" + string(buf[1:n]), true
}

// withCode answers as the rest of Phone does, much sooner, for the numbers with a country code that this knows by their
// length and first digits: mainland China's mobile numbers, North America's, and Britain's of ten digits. Each has digits in groups,
// and none that a prefix of the country could be taken off.
func withCode(typed string) (string, bool) {
	if len(typed) < 12 || typed[0] != '+' {
		return "", false
	}
	var buf [16]byte
	n := copy(buf[:], "+")
	for i := 1; i < len(typed); i++ {
		switch c := typed[i]; {
		case isDigit(c):
			if n == len(buf) {
				return "", false
			}
			buf[n] = c
			n++
		case (c == ' ' || c == '-') && i < len(typed)-1 && isDigit(typed[i-1]):
		default:
			return "", false
		}
	}
	switch {
	case n == 14 && buf[1] == '8' && buf[2] == '6': // as chineseMobile
		if buf[3] != '1' || buf[4] < '3' || buf[4] > '8' || buf[4] == '7' && buf[5] == '9' {
			return "", false
		}
	case n == 12 && buf[1] == '1' && buf[2] >= '2' && buf[2] <= '9':
	case n == 13 && buf[1] == '4' && buf[2] == '4' && buf[3] != '0':
	default:
		return "", false
	}
	return string(buf[:n]), true
}

// Email returns the address in NFKC and lower case, with its domain in ASCII (IDNA). Dots and tags of
// the local part stay. What is not an address is folded as it is.
func Email(typed string) string {
	s := strings.ToLower(norm.NFKC.String(strings.TrimSpace(clean(typed))))
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	domain := s[at+1:]
	if len(domain) <= maxDomain {
		if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
			domain = ascii
		}
	}
	return s[:at] + "@" + strings.TrimSuffix(domain, ".")
}

// Name returns the name in NFKC, width and case folded, without spaces, punctuation dots and
// apostrophe variants, so that "Ａnna  Lee" meets "anna lee" and "买买提·艾力" meets "买买提艾力".
func Name(typed string) string {
	s := foldCase(typed)
	return norm.NFKC.String(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || strings.ContainsRune("·・•‧∙.'’`", r) {
			return -1
		}
		return r
	}, s))
}

// Person is Name with traditional Chinese characters folded to simplified ones, so that "張偉" meets
// "张伟". Characters whose traditional form is a name of its own (乾, 於, 昇, 著) stay.
func Person(typed string) string { return simplified(Name(typed)) }

// clean drops bytes that are not UTF-8 and what nobody sees: characters of format (category Cf), such as marks
// of direction that come along with a copied number, byte order marks and soft hyphens.
func clean(s string) string {
	if isASCII(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= 0xAD && unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// isASCII tells whether s has ASCII characters only: most of what is masked needs no more than that look.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// clip is clean of the first maxMasked bytes, for masks.
func clip(s string) string {
	if len(s) > maxMasked {
		s = s[:maxMasked]
	}
	return clean(s)
}

// compat cleans and folds full-width and other compatibility forms.
func compat(s string) string {
	if usual(s) {
		return s
	}
	return norm.NFKC.String(clean(s))
}

// usual tells whether s has only ASCII and the ideographs of the first block, which no folding but that of ASCII's case changes.
func usual(s string) bool {
	for _, r := range s {
		if r >= utf8.RuneSelf && (r < 0x4E00 || r > 0x9FFF) {
			return false
		}
	}
	return true
}

// foldCase is compat without letter case.
func foldCase(s string) string {
	if usual(s) {
		return strings.ToLower(s)
	}
	return strings.Map(cherokee, cases.Fold().String(width.Fold.String(compat(s))))
}

// cherokee folds small letters to capital ones, as Unicode's CaseFolding does for this script alone. Package cases makes small
// ones of capital ones and the other way round.
func cherokee(r rune) rune {
	switch {
	case r >= 0xAB70 && r <= 0xABBF:
		return r - 0xAB70 + 0x13A0
	case r >= 0x13F8 && r <= 0x13FD:
		return r - 8
	}
	return r
}

// digits keeps the ASCII digits.
func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// alnum keeps letters, marks on them and numbers.
func alnum(s string) string {
	return strings.Map(func(r rune) rune {
		if lettered(r) {
			return r
		}
		return -1
	}, s)
}

func lettered(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) }

// code is what a document's number is compared by: letters and digits in upper case.
func code(typed string) string {
	return norm.NFKC.String(alnum(strings.ToUpper(compat(typed))))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func allDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

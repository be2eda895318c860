// Package normalize turns what people type into the terms that blind indexes find it by, and
// values into masks. It knows phone numbers, e-mail addresses, names and postal addresses, Chinese and
// Latin. It keeps nothing and logs nothing.
//
// What a normaliser answers is part of the stored index: a changed answer is a new version, with a
// name such as "phone/2" beside "phone".
package normalize

import (
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

// maxInput bounds what is looked at; whatever is longer is no phone, address or name.
const maxInput = 1024

// Normalizers returns version 1 of phone, email, name and text, for encrypt.CodecOptions. region is
// the ISO 3166 code of phone numbers without a country, such as "CN".
func Normalizers(region string) map[string]func(string) []string {
	one := func(f func(string) string) func(string) []string {
		return func(s string) []string {
			if t := f(s); t != "" {
				return []string{t}
			}
			return nil
		}
	}
	return map[string]func(string) []string{
		"phone": one(func(s string) string { return Phone(s, region) }),
		"email": one(Email),
		"name":  one(Name),
		"text":  one(Name),
	}
}

// Phone returns a number in E.164, without its extension: "+8613800138000". What does not parse is
// reduced to its digits; "" when it has none.
func Phone(typed, region string) string {
	s := clip(norm.NFKC.String(clip(typed)))
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "00") { // the international prefix of most countries; no national number begins so
		s = "+" + s[2:]
	}
	if n, err := phonenumbers.Parse(s, region); err == nil && phonenumbers.IsPossibleNumber(n) {
		return phonenumbers.Format(n, phonenumbers.E164)
	}
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// Email returns the address in NFKC and lower case, with its domain in ASCII (IDNA). Dots and tags of
// the local part stay. What is not an address is folded as it is.
func Email(typed string) string {
	s := clip(strings.ToLower(norm.NFKC.String(strings.TrimSpace(clip(typed)))))
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	domain, err := idna.Lookup.ToASCII(s[at+1:])
	if err != nil {
		domain = s[at+1:]
	}
	return s[:at] + "@" + strings.TrimSuffix(domain, ".")
}

// Name returns the name in NFKC, width and case folded, without spaces, punctuation dots and
// apostrophe variants, so that "Ａnna  Lee" meets "anna lee" and "买买提·艾力" meets "买买提艾力".
func Name(typed string) string {
	s := cases.Fold().String(width.Fold.String(norm.NFKC.String(clip(typed))))
	return norm.NFKC.String(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || strings.ContainsRune("·・•‧∙.'’`", r) {
			return -1
		}
		return r
	}, s))
}

// clip cuts at maxInput bytes, at a character, and drops bytes that are not UTF-8.
func clip(s string) string {
	if len(s) > maxInput {
		s = s[:maxInput]
	}
	return strings.ToValidUTF8(s, "")
}

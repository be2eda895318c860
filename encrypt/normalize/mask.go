package normalize

import (
	"strings"
	"unicode"
)

// Masks returns version 1 of the masks, by the names phone, email, name, last4 and address, for
// encrypt.CodecOptions.
func Masks() map[string]func(string) string {
	return map[string]func(string) string{
		"phone": MaskPhone, "email": MaskEmail, "name": MaskName, "last4": MaskLast4, "address": MaskAddress,
	}
}

// MaskPhone keeps the first three and last four digits: 138****5678. A number of fewer than eleven
// digits keeps its last two only. Letters and what follows them (an extension) are dropped.
func MaskPhone(s string) string {
	s = clip(s)
	if i := strings.IndexFunc(s, unicode.IsLetter); i >= 0 {
		s = s[:i]
	}
	var d []rune
	for _, r := range s {
		if r >= '0' && r <= '9' {
			d = append(d, r)
		}
	}
	switch n := len(d); {
	case n >= 11:
		return string(d[:3]) + "****" + string(d[n-4:])
	case n >= 6:
		return "****" + string(d[n-2:])
	default:
		return "****"
	}
}

// MaskEmail keeps the first letter and the domain: z***@example.com.
func MaskEmail(s string) string {
	s = clip(s)
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "***"
	}
	first := ""
	for _, r := range s[:at] {
		first = string(r)
		break
	}
	return first + "***" + s[at:]
}

// MaskName keeps the surname of a Chinese name, 张*, and the first letter and the family name of a
// Latin one, H*** Callahan.
func MaskName(s string) string {
	words := strings.Fields(clip(s))
	if len(words) == 0 {
		return ""
	}
	first := []rune(words[0])
	if unicode.In(first[0], unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) {
		return string(first[:1]) + "*"
	}
	if len(words) == 1 {
		return string(first[:1]) + "***"
	}
	return string(first[:1]) + "*** " + words[len(words)-1]
}

// MaskLast4 keeps the last four letters or digits of eight or more.
func MaskLast4(s string) string {
	var d []rune
	for _, r := range clip(s) {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			d = append(d, r)
		}
	}
	if len(d) < 8 {
		return "****"
	}
	return "****" + string(d[len(d)-4:])
}

// MaskAddress keeps the region: up to the city or district of a Chinese address (浙江省杭州市***), the
// last part after a comma, without its numbers, of a Latin one.
func MaskAddress(s string) string {
	s = clip(s)
	if i := strings.IndexFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) }); i >= 0 {
		end, found := 0, 0
		for at, r := range s {
			if found < 2 && strings.ContainsRune("省市区县", r) && at < 60 {
				end, found = at+len(string(r)), found+1
			}
		}
		return s[:end] + "***"
	}
	at := strings.LastIndexByte(s, ',')
	if at < 0 {
		return "***"
	}
	region := strings.Join(strings.FieldsFunc(s[at+1:], func(r rune) bool { return !unicode.IsLetter(r) }), " ")
	if region == "" {
		return "***"
	}
	return "***, " + region
}

package normalize

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Masks returns version 1 of the masks, by the names phone, email, name, last4, address, company,
// idnumber, uscc, bankcard and plate, for encrypt.CodecOptions. They are versioned as normalisers are.
// No mask shows a word of one letter whole but a family name, and those of numbers (last4, idnumber, uscc, bankcard, plate) show
// at most half of its letters and digits; phone shows seven of eleven. The length of a value shows only
// where it is the same for all (idnumber, uscc).
func Masks() map[string]func(string) string {
	return map[string]func(string) string{
		"phone": MaskPhone, "email": MaskEmail, "name": MaskName, "last4": MaskLast4, "address": MaskAddress,
		"company": maskCompany, "idnumber": maskIDNumber, "uscc": maskUSCC, "bankcard": maskBankCard, "plate": maskPlate,
	}
}

// maxShown bounds, in characters, one part that a mask leaves readable.
const maxShown = 64

// MaskPhone keeps the first three and last four digits: 138****5678. A number of fewer than eleven
// digits keeps its last two only. Letters and what follows them (an extension) are dropped.
func MaskPhone(s string) string {
	s = withoutExtension(clip(s))
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

// MaskEmail keeps the first letter of two or more and the domain: z***@example.com.
func MaskEmail(s string) string {
	s = clip(s)
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "***"
	}
	first, domain := "", s[at:]
	if r, size := utf8.DecodeRuneInString(s); size < at {
		first = string(r)
	}
	if len(domain) > 254 { // no domain is so long
		domain = ""
	}
	return first + "***" + domain
}

// MaskName keeps the surname of a Chinese name, 张*, and the first letter and the family name of a
// Latin one, H*** Callahan. A word of one letter shows nothing.
func MaskName(s string) string {
	words := strings.Fields(clip(s))
	if len(words) == 0 {
		return ""
	}
	first := []rune(words[0])
	alone := len([]rune(alnum(words[0]))) < 2
	if unicode.In(first[0], unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) {
		if alone && len(words) == 1 {
			return "*"
		}
		return string(first[:1]) + "*"
	}
	hidden := string(first[:1]) + "***"
	if alone {
		hidden = "***"
	}
	if len(words) == 1 {
		return hidden
	}
	return hidden + " " + short(words[len(words)-1])
}

// short cuts what is longer than any name or region.
func short(s string) string {
	if r := []rune(s); len(r) > maxShown {
		return string(r[:maxShown])
	}
	return s
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
// last part after a comma, without its numbers, of a Latin one. A region without more shows its
// province or nothing.
func MaskAddress(s string) string {
	s = clip(s)
	if !isASCII(s) && strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf && unicode.Is(unicode.Han, r) }) {
		var ends []int
		for at, r := range s {
			if at >= 60 || len(ends) == 2 {
				break
			}
			switch r {
			case '省', '市', '区', '县':
				ends = append(ends, at+utf8.RuneLen(r))
			}
		}
		for len(ends) > 0 && !strings.ContainsFunc(s[ends[len(ends)-1]:], lettered) {
			ends = ends[:len(ends)-1]
		}
		if len(ends) == 0 {
			return "***"
		}
		return s[:ends[len(ends)-1]] + "***"
	}
	at := strings.LastIndexByte(s, ',')
	if at < 0 || !strings.ContainsFunc(s[:at], lettered) {
		return "***"
	}
	region := strings.Join(strings.FieldsFunc(s[at+1:], func(r rune) bool { return !unicode.IsLetter(r) }), " ")
	if region == "" {
		return "***"
	}
	return "***, " + short(region)
}

// maskIDNumber keeps the first three (the region) and the last four of 18 or 15 characters:
// 110***********1234. Any other number is masked as last4.
func maskIDNumber(s string) string {
	return ends(code(s), 3, 18, 15)
}

// maskUSCC keeps the first two (the registrar) and the last four of 18 characters. Anything else is masked
// as last4.
func maskUSCC(s string) string {
	return ends(code(s), 2, 18)
}

// ends shows the first head and the last four characters of an ASCII code of one of the lengths.
func ends(s string, head int, lengths ...int) string {
	for _, n := range lengths {
		if len(s) == n && utf8.RuneCountInString(s) == n {
			return s[:head] + strings.Repeat("*", n-head-4) + s[n-4:]
		}
	}
	return MaskLast4(s)
}

// maskBankCard keeps the last four letters or digits of eight or more: **** 7890.
func maskBankCard(s string) string { return MaskLast4(code(s)) }

// maskPlate keeps province, office letter and last character of a plate, 京A****5, and nothing of what has
// not its form.
func maskPlate(s string) string {
	s, ok := Plate(s)
	if !ok {
		return "****"
	}
	r := []rune(s)
	return string(r[:2]) + "****" + string(r[len(r)-1:])
}

// maskCompany keeps the first two letters of the name proper (one of three, none of fewer) and the
// legal form: 杭州****有限公司, Ac**** Co., Ltd. Brackets go.
func maskCompany(s string) string {
	core, form := splitLegal(strings.TrimSpace(clip(norm.NFKC.String(clip(s)))))
	first := []rune(alnum(core))
	switch n := len(first); {
	case n == 0:
		return "****"
	case n < 3:
		first = nil
	case n == 3:
		first = first[:1]
	default:
		first = first[:2]
	}
	form = strings.Map(func(r rune) rune {
		if r == '(' || r == ')' {
			return -1
		}
		return r
	}, form)
	form = strings.TrimLeft(form, " .,&-·、")
	if alnum(form) == "" || utf8.RuneCountInString(form) > maxShown {
		return string(first) + "****"
	}
	if form[0] < utf8.RuneSelf {
		form = " " + form
	}
	return string(first) + "****" + form
}

package normalize

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
)

// Found is one personal value in a text: bytes Start to End, of a kind that is also the name of its
// normaliser and its mask: phone, email, idnumber, bankcard, uscc or plate. It holds no part of the
// text, so it may be printed and logged.
type Found struct {
	Kind       string
	Start, End int
}

// String returns kind and range, "phone[3:14]".
func (f Found) String() string { return fmt.Sprintf("%s[%d:%d]", f.Kind, f.Start, f.End) }

// Find returns the values in a text in their order, none overlapping another: Chinese mobile numbers,
// Chinese landline numbers with an area code and a hyphen, international numbers with a plus sign,
// e-mail addresses, resident identity numbers (18 characters with a right check digit), payment card
// numbers (13 to 19 digits of a known issuer range that pass Luhn), unified social credit codes and
// Chinese licence plates. Full-width letters and digits count as their ASCII forms; numbers may be
// grouped by single spaces or hyphens in the usual ways. A number inside a longer word or number, after
// a decimal point or joined to another word by a hyphen is not found: order numbers, dates, versions,
// amounts. Find sees no meaning: one in ten random 16-digit numbers of an issuer range passes Luhn. Its
// time is linear in the text.
func Find(text string) []Found {
	var out []Found
	at := 0
	for _, mail := range findEmails(text) {
		out = findNumbers(out, text, at, mail.Start)
		out = append(out, mail)
		at = mail.End
	}
	return findNumbers(out, text, at, len(text))
}

// ascii decodes one character, full-width forms as ASCII. Anything beyond ASCII is 0x80 or more.
func ascii(s string) (r rune, size int) {
	r, size = utf8.DecodeRuneInString(s)
	switch {
	case r >= 0xFF01 && r <= 0xFF5E:
		r -= 0xFEE0
	case r == 0x3000:
		r = ' '
	}
	return r, size
}

func asciiBefore(s string) (r rune, size int) {
	_, size = utf8.DecodeLastRuneInString(s)
	r, _ = ascii(s[len(s)-size:])
	return r, size
}

func isAlnum(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// findEmails looks around every @: at most 64 characters of ASCII before it and the labels of a domain
// after it.
func findEmails(text string) []Found {
	var out []Found
	end := 0 // of what was looked at
	for at := 0; at < len(text); {
		r, size := ascii(text[at:])
		if r != '@' {
			at += size
			continue
		}
		start := at
		for n := 0; n < 64 && start > end; n++ {
			r, size := asciiBefore(text[end:start])
			if !isAlnum(r) && (r >= utf8.RuneSelf || !strings.ContainsRune("!#$%&'*+/=?^_`{|}~.-", r)) {
				break
			}
			start -= size
		}
		for start < at && strings.IndexByte(".'*/=`{|}", text[start]) >= 0 { // what stands around an address rather than in it
			start++
		}
		stop := domainEnd(text, at+size)
		if start < at && text[at-1] != '.' && stop > 0 {
			out = append(out, Found{"email", start, stop})
			at, end = stop, stop
			continue
		}
		at += size
		end = at
	}
	return out
}

// domainEnd returns the end of a domain of two labels or more, the last of letters; 0 for none.
// Labels in other scripts than Latin are not told from the sentence after them and do not count.
func domainEnd(text string, at int) int {
	end, labels, letters, length := 0, 0, true, 0
	last := rune('.')
	pos := at
	closeLabel := func() {
		if length > 0 && length <= 63 && last != '-' {
			if labels++; labels > 1 && letters && length > 1 {
				end = pos
			}
		}
	}
	for pos < len(text) && pos-at < 3*255 {
		r, size := ascii(text[pos:])
		switch {
		case isAlnum(r):
			length++
			letters = letters && (r < '0' || r > '9')
		case r == '-' && length > 0:
			length++
			letters = false
		case r == '.' && length > 0 && last != '-':
			closeLabel()
			length, letters = 0, true
		default:
			closeLabel()
			return end
		}
		last = r
		pos += size
	}
	closeLabel()
	return end
}

// group is a run of ASCII letters and digits, in upper case; of one longer than maxGroup only the
// beginning.
type group struct {
	text       string
	start, end int
}

const (
	maxGroup  = 20 // longer than any number
	maxGroups = 6  // of one number
)

func (g group) long() bool { return len(g.text) > maxGroup }

// lex reads the group that begins at a place.
func lex(text string, at, end int) group {
	var buf [maxGroup + 1]byte
	n := 0
	g := group{start: at, end: at}
	for g.end < end && n < len(buf) {
		r, size := ascii(text[g.end:end])
		if !isAlnum(r) {
			break
		}
		if r >= 'a' {
			r -= 'a' - 'A'
		}
		buf[n] = byte(r)
		n++
		g.end += size
	}
	g.text = string(buf[:n])
	return g
}

// findNumbers appends what it finds between two places that no e-mail address covers.
func findNumbers(out []Found, text string, at, end int) []Found {
	for at < end {
		r, size := ascii(text[at:end])
		var kind string
		stop := 0
		switch {
		case r == '+':
			kind, stop = "phone", international(text, at, at+size, end)
		case isAlnum(r):
			g := lex(text, at, end)
			if kind, stop = number(text, g, end); stop == 0 {
				for at = g.end; at < end; at += size { // the rest of a long one
					if r, size = ascii(text[at:end]); !isAlnum(r) {
						break
					}
				}
				continue
			}
		case unicode.Is(unicode.Han, r) && strings.ContainsRune(plateProvinces, r):
			kind, stop = "plate", plateEnd(text, at, end)
		}
		if stop > 0 {
			out = append(out, Found{kind, at, stop})
			at = stop
			continue
		}
		at += size
	}
	return out
}

// loose reports whether nothing joins the range to what stands around it: no letter, digit or
// underscore, no hyphen or decimal point with a letter or digit behind it.
func loose(text string, start, end int) bool {
	r, size := asciiBefore(text[:start])
	switch {
	case size == 0:
	case isAlnum(r) || r == '_':
		return false
	case r == '-':
		if b, n := asciiBefore(text[:start-size]); n > 0 && (isAlnum(b) || b == '-') {
			return false
		}
	case r == '.' || r == ',':
		if b, n := asciiBefore(text[:start-size]); n > 0 && b >= '0' && b <= '9' {
			return false
		}
	}
	r, size = ascii(text[end:])
	switch {
	case size == 0:
	case isAlnum(r) || r == '_':
		return false
	case r == '-':
		if b, n := ascii(text[end+size:]); n > 0 && (isAlnum(b) || b == '-') {
			return false
		}
	case r == '.' || r == ',':
		if b, n := ascii(text[end+size:]); n > 0 && b >= '0' && b <= '9' {
			return false
		}
	}
	return true
}

// number finds what begins with a group, the longest first; stop 0 when nothing does.
func number(text string, first group, end int) (kind string, stop int) {
	if first.long() {
		return "", 0
	}
	var groups [maxGroups]group
	groups[0] = first
	n := 1
	var sep rune
	for n < maxGroups { // groups joined by the same single space or hyphen
		last := groups[n-1]
		r, size := ascii(text[last.end:end])
		if size == 0 || r != ' ' && r != '-' || n > 1 && r != sep {
			break
		}
		g := lex(text, last.end+size, end)
		if g.text == "" || g.long() {
			break
		}
		sep = r
		groups[n] = g
		n++
	}
	var joined [maxGroups * maxGroup]byte
	lengths := make([]byte, 0, maxGroups)
	size := 0
	var sizes [maxGroups]int
	for i := range n {
		size += copy(joined[size:], groups[i].text)
		sizes[i] = size
		lengths = append(lengths, byte('0'+min(len(groups[i].text), 20)))
	}
	for i := n - 1; i >= 0; i-- {
		if sizes[i] < 11 || sizes[i] > 19 {
			continue
		}
		if kind := classify(string(joined[:sizes[i]]), string(lengths[:i+1]), sep); kind != "" && loose(text, first.start, groups[i].end) {
			return kind, groups[i].end
		}
	}
	return "", 0
}

// classify names what the characters of some groups are. lengths has one byte for each group, '0' and
// its length.
func classify(s, lengths string, sep rune) string {
	one := len(lengths) == 1
	switch {
	case len(s) == 18 && (one || lengths == "684" || lengths == "6444") && validID(s):
		return "idnumber"
	case one && validUSCC(s):
		return "uscc"
	case !allDigits(s):
		return ""
	case mobile(s, lengths):
		return "phone"
	case len(lengths) == 2 && sep == '-' && landline(s, int(lengths[0]-'0')):
		return "phone"
	case len(lengths) == 3 && sep == '-' && lengths[2] < '6' && landline(s[:len(s)-int(lengths[2]-'0')], int(lengths[0]-'0')):
		return "phone" // with an extension
	case cardGroups(s, lengths) && issuer(s) && luhn(s):
		return "bankcard"
	}
	return ""
}

// mobile reports a Chinese mobile number of eleven digits, with 86 or 0086 before it or not.
func mobile(s, lengths string) bool {
	for _, prefix := range []string{"0086", "86"} {
		if strings.HasPrefix(s, prefix) && len(s) == 11+len(prefix) {
			if lengths[0] == byte('0'+len(prefix)) {
				lengths = lengths[1:]
			} else {
				lengths = string(lengths[0]-byte(len(prefix))) + lengths[1:]
			}
			s = s[len(prefix):]
		}
	}
	if len(s) != 11 || s[0] != '1' || s[1] < '3' {
		return false
	}
	switch lengths {
	case string(rune('0' + 11)), "344", "38", "74", "443", "434", "335", "56":
		return true
	}
	return false
}

// landline reports area code and number of Chinese telephones, 0571-88881234.
func landline(s string, area int) bool {
	if s[0] != '0' || area < 3 || area >= len(s) {
		return false
	}
	big := s[1] == '1' && s[2] == '0' || s[1] == '2'
	if n := len(s) - area; big && (area != 3 || n != 8) || !big && (area != 4 || s[1] < '3' || n != 7 && n != 8) {
		return false
	}
	return s[area] >= '2' && s[area] <= '8'
}

// cardGroups reports whether a card number is written so.
func cardGroups(s, lengths string) bool {
	if len(s) < 13 || len(s) > 19 {
		return false
	}
	switch lengths {
	case "465", "464", "6" + string(rune('0'+13)), "6" + string(rune('0'+10)):
		return true
	}
	full := strings.TrimLeft(lengths, "4") // groups of four, the last shorter
	return len(lengths) == 1 || full == "" || len(full) == 1 && full[0] < '4' && len(lengths) > 3
}

// issuer reports a range of ISO/IEC 7812 that issues cards of that length.
func issuer(s string) bool {
	n := len(s)
	in := func(from, to string) bool { return s[:len(from)] >= from && s[:len(to)] <= to }
	switch {
	case s[0] == '4':
		return n == 13 || n == 16 || n == 19
	case in("51", "55"), in("2221", "2720"):
		return n == 16
	case in("34", "34"), in("37", "37"):
		return n == 15
	case in("3528", "3589"):
		return n >= 16
	case in("300", "305"), in("36", "36"), in("38", "39"):
		return n == 14 || n >= 16
	case in("50", "50"), in("56", "69"), in("81", "82"):
		return n >= 16
	case in("9558", "9558"), in("103", "103"):
		return n == 19 || n == 16
	}
	return false
}

// callingCodes has every country calling code of one to three digits.
var callingCodes = sync.OnceValue(phonenumbers.GetSupportedCallingCodes)

// international returns the end of a number that begins with a plus sign at start; 0 for none. It ends
// with the last group of digits that makes a length which the country has.
func international(text string, start, at, end int) int {
	if r, size := asciiBefore(text[:start]); size > 0 && (isAlnum(r) || r == '+') {
		return 0
	}
	var digits [15]byte
	n, stop := 0, 0
	open, gap := false, true // inside brackets; after a separator
	for pos := at; pos < end; {
		r, size := ascii(text[pos:end])
		switch {
		case r >= '0' && r <= '9':
			if n == len(digits) {
				return stop
			}
			digits[n] = byte(r)
			n++
			gap = false
			if next, left := ascii(text[pos+size:]); (left == 0 || !isAlnum(next) && next != '_') && !open && possible(digits[:n]) {
				stop = pos + size
			}
		case n == 0:
			return 0
		case r == '(' && !open:
			open, gap = true, true
		case r == ')' && open:
			open, gap = false, false
		case (r == ' ' || r == '-' || r == '.') && !gap:
			gap = true
		default:
			return stop
		}
		pos += size
	}
	return stop
}

// possible reports whether a country has numbers of that length; a Chinese number that begins as a
// mobile one has eleven digits.
func possible(digits []byte) bool {
	code := 0
	for n := range min(3, len(digits)-1) {
		if code = code*10 + int(digits[n]-'0'); !callingCodes()[code] {
			continue
		}
		rest := digits[n+1:]
		if code == 86 && rest[0] == '1' && len(rest) > 1 && rest[1] >= '3' {
			return len(rest) == 11
		}
		if len(digits) < 8 {
			return false
		}
		national, zeros := uint64(0), 0
		for i, d := range rest {
			if national = national*10 + uint64(d-'0'); national == 0 {
				zeros = i + 1
			}
		}
		country, lead, count := int32(code), zeros > 0, int32(zeros)
		return phonenumbers.IsPossibleNumber(&phonenumbers.PhoneNumber{
			CountryCode: &country, NationalNumber: &national, ItalianLeadingZero: &lead, NumberOfLeadingZeros: &count,
		})
	}
	return false
}

// plateEnd returns the end of the plate that begins with a province at start; 0 for none.
func plateEnd(text string, start, end int) int {
	var plate []rune
	stop := 0
	for pos := start; pos < end && len(plate) <= 8; {
		r, size := ascii(text[pos:end])
		switch {
		case isAlnum(r):
			plate = append(plate, unicode.ToUpper(r))
		case len(plate) == 0, len(plate) == 6 && strings.ContainsRune(plateSuffixes, r):
			plate = append(plate, r)
		case len(plate) == 2 && strings.ContainsRune(" ·•.-・", r):
			pos += size
			continue
		default:
			return stop
		}
		pos += size
		stop = 0
		if s := string(plate); len(plate) >= 7 && validPlate(s) {
			if r, n := ascii(text[pos:]); n == 0 || !isAlnum(r) && r != '_' {
				stop = pos
			}
		}
	}
	return stop
}

package normalize

import (
	"strings"
	"time"
)

// IDNumber returns a Chinese resident identity number (GB 11643) of 18 characters in upper case, and
// whether region, date of birth and check digit are right. A number of 15 digits is upgraded to 18 when
// its region and date are right. What is no such number, a passport for instance, is reduced to its
// letters and digits.
func IDNumber(typed string) (string, bool) {
	s := code(typed)
	switch {
	case len(s) == 18 && validID(s):
		return s, true
	case len(s) == 15 && allDigits(s):
		up := s[:6] + "19" + s[6:]
		up += string(idCheck(up))
		return pick(up, s, validID(up))
	}
	return s, false
}

// USCC returns a unified social credit code (GB 32100) of 18 characters in upper case, and whether its
// alphabet, registrar, region and check character are right. Anything else is reduced to its letters and
// digits.
func USCC(typed string) (string, bool) {
	s := code(typed)
	return s, validUSCC(s)
}

// BankCard returns the digits of a card number, and whether there are 13 to 19 that pass the Luhn check.
// An account number with letters, such as an IBAN, keeps them and is not ok.
func BankCard(typed string) (string, bool) {
	s := code(typed)
	return s, len(s) >= 13 && len(s) <= 19 && luhn(s)
}

// Plate returns a licence plate of mainland China without its separators, in upper case, and whether it
// has the form of a civil one (GA 36), new energy included: "京A12345", "粤B1234学", "沪AD12345".
// Anything else is reduced to its letters and digits.
func Plate(typed string) (string, bool) {
	s := simplified(code(typed))
	return s, validPlate(s)
}

func pick(a, b string, first bool) (string, bool) {
	if first {
		return a, true
	}
	return b, false
}

// province reports whether two digits are the province code of GB/T 2260, Hong Kong, Macao and Taiwan
// included (81, 82, 71 and 83 on residence permits).
func province(s string) bool {
	const codes = " 11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83 "
	return len(s) == 2 && strings.Contains(codes, " "+s+" ")
}

// validID checks 18 characters; the number of a foreigner's permanent residence card begins with 9,
// the province after it.
func validID(s string) bool {
	if len(s) != 18 || !allDigits(s[:17]) || s[17] != idCheck(s) {
		return false
	}
	at := 0
	if s[0] == '9' {
		at = 1
	}
	if !province(s[at : at+2]) {
		return false
	}
	year := s[6:10]
	if year < "1850" || year > "2099" {
		return false
	}
	_, err := time.Parse("20060102", s[6:14])
	return err == nil
}

// idCheck returns the check character of the first 17 digits: ISO 7064, MOD 11-2.
func idCheck(s string) byte {
	p := 0
	for i := range 17 {
		p = (p + int(s[i]-'0')) * 2 % 11
	}
	return "10X98765432"[p]
}

const usccAlphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"

func validUSCC(s string) bool {
	if len(s) != 18 || strings.IndexByte("123456789ANY", s[0]) < 0 || strings.IndexByte("123459", s[1]) < 0 {
		return false
	}
	if !allDigits(s[2:8]) || s[2:4] != "10" && !province(s[2:4]) { // 10: registered with the state itself
		return false
	}
	sum, weight := 0, 1
	for i := range 17 {
		v := strings.IndexByte(usccAlphabet, s[i])
		if v < 0 {
			return false
		}
		sum, weight = sum+v*weight, weight*3%31
	}
	return s[17] == usccAlphabet[(31-sum%31)%31]
}

// luhn checks ISO/IEC 7812-1; a row of one digit alone is no number.
func luhn(s string) bool {
	if !allDigits(s) || strings.Count(s, s[:1]) == len(s) {
		return false
	}
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

const (
	plateProvinces = "京津冀晋蒙辽吉黑沪苏浙皖闽赣鲁豫鄂湘粤桂琼渝川贵云藏陕甘青宁新"
	plateSuffixes  = "挂学警港澳领试"
)

// validPlate checks province, office letter and five characters of which two may be letters and the
// last a word of its kind, or six for new energy.
func validPlate(s string) bool {
	r := []rune(s)
	if len(r) < 7 || len(r) > 8 || !strings.ContainsRune(plateProvinces, r[0]) || r[1] < 'A' || r[1] > 'Z' || r[1] == 'I' {
		return false
	}
	rest := string(r[2:])
	if strings.ContainsRune(plateSuffixes, r[len(r)-1]) {
		rest = string(r[2 : len(r)-1])
		if len(rest) != 4 {
			return false
		}
	}
	letters := 0
	for i := range len(rest) {
		switch c := rest[i]; {
		case isDigit(c):
		case c >= 'A' && c <= 'Z' && c != 'I' && c != 'O':
			letters++
		default:
			return false
		}
	}
	if len(rest) != 6 {
		return letters <= 2
	}
	energy := func(c byte) bool { return c >= 'A' && c <= 'K' && c != 'I' }
	small := energy(rest[0]) && allDigits(rest[2:])
	large := energy(rest[5]) && allDigits(rest[:5])
	return small || large
}

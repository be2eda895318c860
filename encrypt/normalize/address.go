package normalize

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Numbers returns the runs of digits of Address(typed) with "-" between: "文三路1号3幢" and "Wensan Road 1-3" are "1-3". Together with
// a name they find one address that is written in two ways.
func Numbers(typed string) string {
	return strings.Join(strings.FieldsFunc(Address(typed), func(r rune) bool { return r < '0' || r > '9' }), "-")
}

// Address returns a postal address folded as Person does, without punctuation, so that ways of writing
// one number meet: 文三路1号3幢二单元501室, 文三路 1 號 3 栋 2 单元 501 and 文三路1-3-2-501 are one.
// Chinese numerals become digits only before such a word; 楼 after a number is 层; common English words
// are shortened (Street, Road, Floor). Nothing is left out: province, city and postcode must be typed
// alike.
func Address(typed string) string {
	s := simplified(foldCase(typed))
	var b strings.Builder
	gap := false // something between two numbers was dropped
	last := func() byte {
		if b.Len() == 0 {
			return 0
		}
		return b.String()[b.Len()-1]
	}
	put := func(t string) {
		if gap && isDigit(last()) && isDigit(t[0]) {
			b.WriteByte('-')
		}
		gap = false
		b.WriteString(t)
	}
	for s != "" {
		if word, size := latinWord(s); size > 0 {
			s = s[size:]
			if word == "no" && startsNumber(s) {
				continue
			}
			if short, ok := addressWords[word]; ok {
				word = short
			}
			put(word)
			continue
		}
		if n, size := chineseNumber(s); size > 0 {
			if unit, _ := addressUnit(s[size:]); unit > 0 {
				put(n)
				s = s[size:]
				continue
			}
		}
		if unit, keep := addressUnit(s); unit > 0 && !gap && latin(last()) {
			if b.WriteString(keep); keep == "" {
				gap = true
			}
			s = s[unit:]
			continue
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			put(s[:size])
		case unicode.IsMark(r):
			b.WriteString(s[:size])
		default:
			// A unit after a space, "1 号", still belongs to its number.
			if unit, _ := addressUnit(s[size:]); unit == 0 {
				gap = true
			}
		}
		s = s[size:]
	}
	return b.String()
}

// latin reports an ASCII letter or digit.
func latin(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'z' }

// latinWord returns the ASCII letters, or else the ASCII digits, that s begins with.
func latinWord(s string) (word string, size int) {
	for size < len(s) && s[size] >= 'a' && s[size] <= 'z' {
		size++
	}
	if size == 0 {
		for size < len(s) && isDigit(s[size]) {
			size++
		}
	}
	return s[:size], size
}

func startsNumber(s string) bool {
	s = strings.TrimLeft(s, " .:")
	return s != "" && isDigit(s[0])
}

// addressUnits are what follows a number; 层 alone is kept.
var addressUnits = []struct{ word, keep string }{
	{"号楼", ""}, {"单元", ""}, {"号", ""}, {"栋", ""}, {"幢", ""}, {"座", ""}, {"室", ""}, {"房", ""}, {"#", ""},
	{"楼", "层"}, {"层", "层"},
}

// addressUnit returns the length of the unit that s begins with, and what is kept of it.
func addressUnit(s string) (size int, keep string) {
	for _, u := range addressUnits {
		if strings.HasPrefix(s, u.word) {
			return len(u.word), u.keep
		}
	}
	return 0, ""
}

// chineseNumber reads up to eight Chinese numerals: 一百零二, 二十三, 一〇二.
func chineseNumber(s string) (digits string, size int) {
	const numerals = "零〇一二两三四五六七八九十百千"
	values := []int{0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9}
	var spelled strings.Builder // digit by digit
	sum, digit, placed, n := 0, -1, false, 0
	for _, r := range s {
		at := -1
		for i, c := range []rune(numerals) {
			if c == r {
				at = i
			}
		}
		if at < 0 {
			break
		}
		if n++; n > 8 {
			return "", 0
		}
		if at < len(values) {
			digit = values[at]
			spelled.WriteByte(byte('0' + digit))
		} else {
			placed = true
			place := []int{10, 100, 1000}[at-len(values)]
			if digit < 0 {
				digit = 1
			}
			sum, digit = sum+digit*place, -1
		}
		size += utf8.RuneLen(r)
	}
	if !placed {
		return spelled.String(), size
	}
	return strconv.Itoa(sum + max(digit, 0)), size
}

var addressWords = map[string]string{
	"street": "st", "road": "rd", "avenue": "ave", "boulevard": "blvd", "lane": "ln", "drive": "dr",
	"apartment": "apt", "suite": "ste", "building": "bldg", "floor": "fl", "room": "rm",
}

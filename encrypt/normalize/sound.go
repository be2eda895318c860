package normalize

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Sound returns a key of a name that stays when the name is heard instead of read and when its words change places: "Jon Smith", "SMYTH, John"
// and "John  Smith" are one, and so are 曾小明 and "Xiaoming Zeng". It is for finding duplicates: names that differ may have one key, as Jan and
// June do. The legal form of a company is no part of it. Vowels behind the first letter of a word are not heard, nor is what sounds alike in
// English told apart: docs/formats/normalize.md has the rules. "" for text without a letter or digit.
func Sound(typed string) string {
	core, _ := splitLegal(simplified(foldCase(typed)))
	var keys []string
	for _, w := range soundWords(core) {
		if k := soundKey(w); k != "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return strings.Join(keys, " ")
}

// soundWords divides a folded name into words: runs of letters and numbers, and runs of Han characters by their usual readings. A name of two to
// four Han characters and nothing else is a surname and a given name.
func soundWords(s string) []string {
	var words []string
	var run []rune // letters and numbers, or Han characters
	han := false
	only := true // nothing but one run of Han characters
	end := func() {
		if len(run) == 0 {
			return
		}
		if han {
			words = append(words, hanWord(run))
		} else {
			words = append(words, string(run))
		}
		run = run[:0]
	}
	var chars []rune
	for _, r := range norm.NFD.String(s) {
		switch {
		case unicode.Is(unicode.Han, r):
			if !han {
				end()
			}
			han, run, chars = true, append(run, r), append(chars, r)
		case unicode.IsMark(r), strings.ContainsRune("'’`.", r): // O'Brien and J.R. are one word
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			if han {
				end()
			}
			han, only, run = false, false, append(run, r)
		default: // 张 伟 is one name
			if !han {
				end()
			}
		}
	}
	end()
	if n := len(chars); only && n >= 2 && n <= 4 {
		surname := chars[:1]
		for k := n - 1; k > 1; k-- {
			if _, ok := compounds[string(chars[:k])]; ok {
				surname = chars[:k]
				break
			}
		}
		first := hanWord(surname)
		if s, ok := compounds[string(surname)]; ok {
			first = strings.Join(s, "")
		} else if s := surnames[surname[0]]; len(s) > 0 {
			first = s[0]
		}
		return []string{strings.ReplaceAll(first, "ü", "u"), hanWord(chars[len(surname):])}
	}
	return words
}

// hanWord reads Han characters as one word.
func hanWord(chars []rune) string {
	var b strings.Builder
	for _, r := range chars {
		b.WriteString(strings.ReplaceAll(readings(r)[0], "ü", "u"))
	}
	return b.String()
}

// soundKey reduces a word of ASCII letters to what is heard of it; digits and other scripts stay.
func soundKey(w string) string {
	for _, start := range []struct{ was, is string }{
		{"mac", "mk"}, {"mc", "mk"}, {"kn", "n"}, {"gn", "n"}, {"pn", "n"}, {"wr", "r"}, {"ps", "s"}, {"wh", "w"}, {"x", "s"},
	} {
		if len(w) > len(start.was) && strings.HasPrefix(w, start.was) {
			w = start.is + w[len(start.was):]
			break
		}
	}
	var b strings.Builder
	last := rune(0)
	put := func(rs ...rune) {
		for _, r := range rs {
			if r != last || unicode.IsNumber(r) {
				b.WriteRune(r)
			}
			last = r
		}
	}
	at := func(i int) byte {
		if i < 0 || i >= len(w) {
			return 0
		}
		return w[i]
	}
	vowel := func(c byte) bool { return c != 0 && strings.IndexByte("aeiouy", c) >= 0 }
	soft := func(c byte) bool { return c == 'e' || c == 'i' || c == 'y' }
	begun := false // something of the word is written
	skip := 0
	for i, r := range w {
		if skip > 0 {
			skip--
			continue
		}
		c, next := byte(0), byte(0)
		if r < 0x80 {
			c, next = byte(r), at(i+1)
		}
		switch c {
		case 0:
			put(r)
		case 'a', 'e', 'i', 'o', 'u', 'y':
			if !begun {
				put('a')
			} else { // what a vowel parts is heard twice
				last = 0
			}
		case 'h':
			if vowel(next) && !vowel(at(i-1)) && (i == 0 || at(i-1) > 0x7F) {
				put('h')
			}
		case 'w':
			if vowel(next) {
				put('w')
			}
		case 'p':
			if next == 'h' {
				put('f')
				skip = 1
			} else {
				put('p')
			}
		case 's':
			switch {
			case next == 'c' && at(i+2) == 'h':
				put('x')
				skip = 2
			case next == 'h':
				put('x')
				skip = 1
			default:
				put('s')
			}
		case 'c':
			switch {
			case next == 'h' && (at(i+2) == 'r' || at(i+2) == 'l'):
				put('k')
				skip = 1
			case next == 'h':
				put('x')
				skip = 1
			case next == 'k':
				put('k')
				skip = 1
			case soft(next):
				put('s')
			default:
				put('k')
			}
		case 't':
			put('t')
			if next == 'h' {
				skip = 1
			}
		case 'd':
			if next == 'g' && soft(at(i+2)) {
				put('j')
				skip = 1
			} else {
				put('t')
			}
		case 'g':
			switch {
			case next == 'h' && (at(i+2) == 0 || at(i+2) == 't'): // high, wright
				skip = 1
			case next == 'h':
				put('k')
				skip = 1
			case soft(next):
				put('j')
			default:
				put('k')
			}
		case 'z':
			put('s')
		case 'v':
			put('f')
		case 'q':
			put('k')
		case 'x':
			put('k', 's')
		default:
			put(r)
		}
		begun = true
	}
	return b.String()
}

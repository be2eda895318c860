package password

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxBytes bounds a password: bytes of UTF-8, as given and after normalisation. At least 256 characters always fit.
const MaxBytes = 1024

// The least lengths in characters, by NIST SP 800-63B-4.
const (
	minAlone      = 15
	minWithSecond = 8
)

// Reason says why a password may not be chosen. A page has a sentence for each.
type Reason string

// The reasons.
const (
	Short    Reason = "short"    // fewer characters than needed
	Long     Reason = "long"     // over MaxBytes
	Encoding Reason = "encoding" // not UTF-8, a NUL, or a code point that Unicode has not assigned
	Common   Reason = "common"   // on the list of common passwords, or close to one
	Context  Reason = "context"  // made of the person's own data, the company's or the product's name
	Pattern  Reason = "pattern"  // one thing repeated, or runs such as 12345678 and qwertyui
)

// WeakError refuses a password that was to be chosen.
type WeakError struct {
	Reason Reason
	Min    int // for Short: the least number of characters
}

// Error names the reason, and nothing of the password.
func (e *WeakError) Error() string {
	switch e.Reason {
	case Short:
		return "password: too short"
	case Long:
		return "password: too long"
	case Encoding:
		return "password: not text that every device can type again"
	case Common:
		return "password: common"
	case Context:
		return "password: made of names that belong to the account"
	case Pattern:
		return "password: a pattern"
	}
	return "password: refused"
}

// RulesOptions of NewRules.
type RulesOptions struct {
	// Alone is the least number of characters where the password is the only factor; 0 = 15, which is the least.
	Alone int
	// WithSecond is that where a second factor is always asked for too; 0 = 8, which is the least.
	WithSecond int
	// Words that nobody should build a password of: the company, the product, the site.
	Words []string
}

// Rules say which passwords may be chosen. They are safe for concurrent use.
type Rules struct {
	alone, withSecond int
	words             []string
	common            *blocklist
}

// NewRules reads the embedded list.
func NewRules(opts *RulesOptions) (*Rules, error) {
	var o RulesOptions
	if opts != nil {
		o = *opts
	}
	r := &Rules{alone: cmp.Or(o.Alone, minAlone), withSecond: cmp.Or(o.WithSecond, minWithSecond), words: contextWords(o.Words)}
	if r.alone < minAlone || r.withSecond < minWithSecond || r.alone > 64 || r.withSecond > 64 {
		return nil, errors.New("password: lengths from 15 (alone) and 8 (with a second factor) to 64")
	}
	var err error
	if r.common, err = parseBlocklist(commonList); err != nil {
		return nil, err
	}
	return r, nil
}

// Choice is what is known where a password is chosen.
type Choice struct {
	// SecondFactor tells that a second factor is asked for at every sign-in of this account; false asks for the longer
	// password.
	SecondFactor bool
	// Words of the person: names, e-mail addresses, the user name, birthdays. They are not kept.
	Words []string
}

// Check returns nil or a *[WeakError]. It is for choosing a password, never for signing in: rules that became stricter
// lock nobody out.
func (r *Rules) Check(password string, choice Choice) error {
	text, reason := prepare(password)
	if reason != "" {
		return &WeakError{Reason: reason}
	}
	defer clear(text)
	least := r.alone
	if choice.SecondFactor {
		least = r.withSecond
	}
	// A composed character counts once, and so do its parts: whichever way it was typed.
	if utf8.RuneCount(text) < least {
		return &WeakError{Reason: Short, Min: least}
	}
	folded := fold(string(text))
	unit := repeated(folded)
	switch {
	case r.isCommon(folded) || r.isCommon(unit):
		return &WeakError{Reason: Common}
	case built(folded, slices.Concat(r.words, contextWords(choice.Words))):
		return &WeakError{Reason: Context}
	case runeLen(unit) < minWithSecond || pattern(folded):
		return &WeakError{Reason: Pattern}
	}
	return nil
}

// prepare normalises, as it is done before hashing. The text is NFC by the process for stabilised strings.
func prepare(password string) (text []byte, reason Reason) {
	if len(password) > MaxBytes {
		return nil, Long
	}
	if !utf8.ValidString(password) {
		return nil, Encoding
	}
	for _, c := range password {
		if c == 0 || unicode.Is(unicode.Cn, c) {
			return nil, Encoding
		}
	}
	text = norm.NFC.Bytes([]byte(password))
	if len(text) > MaxBytes { // a few characters are longer in NFC
		return nil, Long
	}
	return text, ""
}

// fold makes what people take for variants of one word equal: compatibility forms, case.
func fold(s string) string {
	return strings.ToLower(norm.NFKC.String(strings.ToLower(s)))
}

func runeLen(s string) int { return utf8.RuneCountInString(s) }

// affix is how many digits and signs around a common word add nothing: a year, a date, "!", "123".
const affix = 8

// isCommon tells whether the folded text is on the list, or a word of the list in disguise.
func (r *Rules) isCommon(s string) bool {
	return slices.ContainsFunc(disguises(s), r.common.has)
}

// disguises returns s, s without digits and signs around it, and each with digits and signs read as letters.
func disguises(s string) []string {
	all := []string{s}
	add := func(s string) {
		if runeLen(s) >= minWord && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	notLetter := func(c rune) bool { return !unicode.IsLetter(c) }
	trim := func(f func(string, func(rune) bool) string, s string) string {
		if core := f(s, notLetter); runeLen(s)-runeLen(core) <= affix {
			return core
		}
		return s
	}
	end, both := trim(strings.TrimRightFunc, s), trim(strings.TrimFunc, s)
	for _, t := range []string{s, end, both} {
		add(t)
		for _, one := range []string{"l", "i"} {
			plain := strings.NewReplacer("0", "o", "1", one, "!", "i", "|", one, "3", "e", "€", "e", "4", "a", "@", "a",
				"5", "s", "$", "s", "7", "t", "+", "t", "8", "b", "9", "g").Replace(t)
			add(plain)
			add(strings.TrimFunc(plain, notLetter))
		}
	}
	return all
}

// repeated returns the shortest text whose repetition makes s, a begun repetition at the end included.
func repeated(s string) string {
	all := []rune(s)
	for n := 1; n <= len(all)/2; n++ {
		if periodic(all, n) {
			return string(all[:n])
		}
	}
	return s
}

func periodic(all []rune, n int) bool {
	for i := n; i < len(all); i++ {
		if all[i] != all[i-n] {
			return false
		}
	}
	return true
}

// minPieces is how many characters or runs a password has at least.
const minPieces = 6

// rows are the runs of keyboards.
var rows = [...]string{
	"1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop", "!@#$%^&*()",
	"1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm", "8ik", "9ol", "0p",
}

// pattern tells whether the text is hardly more than a few runs: a run of three or more counts once.
func pattern(s string) bool {
	all := []rune(s)
	pieces := 0
	for i := 0; i < len(all); {
		n := max(1, walk(all[i:]))
		if n < 3 {
			n = 1
		}
		pieces++
		i += n
	}
	return pieces < minPieces
}

// walk returns how many characters at the beginning are one run: the same, up or down by one, along a row of keys.
func walk(s []rune) int {
	most := 1
	for _, step := range []rune{0, 1, -1} {
		n := 1
		for n < len(s) && s[n]-s[n-1] == step {
			n++
		}
		most = max(most, n)
	}
	for _, row := range rows {
		for _, step := range []int{1, -1} {
			n := 1
			for at := strings.IndexRune(row, s[0]); at >= 0 && n < len(s); n++ {
				if at += step; at < 0 || at >= len(row) || rune(row[at]) != s[n] {
					break
				}
			}
			most = max(most, n)
		}
	}
	return most
}

// minWord is the length of the shortest word of letters that is looked for; words in Han characters may have two.
const minWord = 4

// contextWords returns the words in a text such as a name or an address, folded, and the whole of each without what is
// between them. The longest come first.
func contextWords(texts []string) []string {
	var out []string
	add := func(word string) {
		han := strings.ContainsFunc(word, func(c rune) bool { return unicode.Is(unicode.Han, c) })
		if n := runeLen(word); (n >= minWord || han && n >= 2) && n <= 64 && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	for _, text := range texts {
		if len(text) > MaxBytes {
			continue
		}
		parts := strings.FieldsFunc(fold(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
		for _, p := range parts {
			add(p)
		}
		add(strings.TrimSpace(fold(text)))
		add(strings.Join(parts, ""))
		for i := range len(parts) - 1 { // Zhang Wei, also as one word and the other way round
			add(parts[i] + parts[i+1])
			add(parts[i+1] + parts[i])
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
	return out
}

// built tells whether s is made of the words and too little besides: what remains without them, and without digits and
// signs around it, is shorter than the shortest password.
func built(s string, words []string) bool {
	for _, t := range disguises(s) {
		rest, found := t, false
		for _, w := range words {
			if strings.Contains(rest, w) {
				rest, found = strings.ReplaceAll(rest, w, " "), true
			}
		}
		if !found {
			continue
		}
		rest = strings.Map(func(c rune) rune {
			if unicode.IsSpace(c) {
				return -1
			}
			return c
		}, rest)
		core := strings.TrimFunc(rest, func(c rune) bool { return !unicode.IsLetter(c) })
		if runeLen(rest)-runeLen(core) > affix {
			core = rest
		}
		if runeLen(core) < minWithSecond {
			return true
		}
	}
	return false
}

package dedupe

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// comparatorNames are the words for Node.As.
var comparatorNames = []string{"exact", "normalised", "phonetic", "pinyin", "address", "edit", "jaro", "date"}

// mostRunes is how much of a text edit distance looks at; longer texts are only equal or not.
const mostRunes = 200

// terms makes the terms of values, by the normalisers of the indexes.
type terms map[string]func(string) []string

func (t terms) one(by, s string) string {
	if f := t[by]; f != nil {
		if all := f(s); len(all) > 0 {
			return all[0]
		}
	}
	return ""
}

// compare tells how alike two values are, 0 to 1; ok is false when one of them says nothing to the comparator.
func (t terms) compare(as, by string, x, y *value) (like float64, ok bool) {
	switch as {
	case "exact":
		a, b := strings.TrimSpace(x.text), strings.TrimSpace(y.text)
		return equal(a, b), a != "" && b != ""
	case "normalised":
		a, b := x.one(t, by), y.one(t, by)
		return equal(a, b), a != "" && b != ""
	case "phonetic":
		a, b := x.one(t, "sound"), y.one(t, "sound")
		if a == "" || b == "" {
			return 0, false
		}
		if a == b {
			return 1, true
		}
		return wordwise(x.soundWords(t), y.soundWords(t), equal), true
	case "pinyin":
		return pinyin(x.readings(t), y.readings(t))
	case "address":
		return t.address(x, y)
	case "edit":
		a, b := x.one(t, "person"), y.one(t, "person")
		if a == "" || b == "" {
			return 0, false
		}
		return edit(a, b), true
	case "jaro":
		v, w := x.words(t), y.words(t)
		if len(v) == 0 || len(w) == 0 {
			return 0, false
		}
		return wordwise(v, w, mistyped), true
	case "date":
		v, okX := day(x.text)
		w, okY := day(y.text)
		if !okX || !okY {
			return 0, false
		}
		return dates(v, w), true
	}
	return 0, false
}

// mistyped is the likeness of two words that may be one.
func mistyped(a, b string) float64 {
	if j := jaro(a, b); j >= 0.8 { // else two names of two people, not one mistyped
		return j
	}
	return 0
}

func equal(a, b string) float64 {
	if a == b {
		return 1
	}
	return 0
}

// words divides a name into folded words. A word of Han characters has one word for each character.
func (t terms) words(s string) []string {
	var out []string
	for _, w := range strings.FieldsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.IsMark(r) && r != '\'' && r != '’'
	}) {
		w = t.one("person", w)
		if w == "" {
			continue
		}
		if strings.ContainsFunc(w, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
			out = append(out, strings.Split(w, "")...)
		} else {
			out = append(out, w)
		}
	}
	return out
}

// wordwise pairs the words of two names, best first, in any order. A name with fewer words is like a longer one that has all of them, though
// not wholly.
func wordwise(a, b []string, like func(a, b string) float64) float64 {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b) > 50 {
		return equal(strings.Join(a, " "), strings.Join(b, " "))
	}
	type pair struct {
		i, j int
		like float64
	}
	var few [16]pair // most names have few words
	pairs := few[:0]
	for i := range a {
		for j := range b {
			if l := like(a[i], b[j]); l > 0 { // the others add nothing
				pairs = append(pairs, pair{i, j, l})
			}
		}
	}
	slices.SortStableFunc(pairs, func(p, q pair) int { return -cmpFloat(p.like, q.like) })
	var usedA, usedB [50]bool
	sum := 0.0
	for _, p := range pairs {
		if !usedA[p.i] && !usedB[p.j] {
			usedA[p.i], usedB[p.j] = true, true
			sum += p.like
		}
	}
	return (sum/float64(len(a)) + sum/float64(len(b))) / 2
}

func cmpFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// pinyin tells by their readings whether two names are read alike: 曾小明 and Zeng Xiaoming, also 曾小明 and 曾晓明. Initials and surnames alone say nothing.
func pinyin(x, y []string) (float64, bool) {
	if len(x) == 0 || len(y) == 0 {
		return 0, false
	}
	if slices.ContainsFunc(x, func(s string) bool { return slices.Contains(y, s) }) {
		return 1, true
	}
	return 0, true
}

// readings are the whole readings of a name; of one in Latin letters also with its last word first. Text without Han characters on both sides is not
// for pinyin, which the callers' any decides: it is compared all the same, as letters.
func (t terms) readings(s string) []string {
	f := t["pinyin"]
	if f == nil {
		return nil
	}
	all := f(s)
	if !strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
		if words := strings.Fields(s); len(words) > 1 {
			turned := append([]string{words[len(words)-1]}, words[:len(words)-1]...)
			all = append(slices.Clone(all), f(strings.Join(turned, " "))...)
		}
		return all
	}
	// The whole reading is what no other term continues.
	var out []string
	for _, term := range all {
		if !slices.ContainsFunc(all, func(o string) bool { return len(o) > len(term) && strings.HasPrefix(o, term) }) && len(term) > len([]rune(s)) {
			out = append(out, term)
		}
	}
	return out
}

// edit is 1 minus the Damerau–Levenshtein distance (optimal string alignment: neighbours change places at the cost of one) over the longer length.
func edit(a, b string) float64 {
	if a == b {
		return 1
	}
	x, y := []rune(a), []rune(b)
	n := max(len(x), len(y))
	if n == 0 || n > mostRunes {
		return 0
	}
	before, last, now := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		now[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		before, last, now = last, now, before
	}
	return 1 - float64(last[len(y)])/float64(n)
}

// jaro is the Jaro–Winkler likeness, with the usual 0.1 for each of up to four equal first characters.
func jaro(a, b string) float64 {
	if a == b {
		return 1
	}
	x, y := []rune(a), []rune(b)
	if len(x) == 0 || len(y) == 0 || max(len(x), len(y)) > mostRunes {
		return 0
	}
	window := max(max(len(x), len(y))/2-1, 0)
	usedX, usedY := make([]bool, len(x)), make([]bool, len(y))
	m := 0
	for i := range x {
		for j := max(0, i-window); j < min(len(y), i+window+1); j++ {
			if !usedY[j] && x[i] == y[j] {
				usedX[i], usedY[j] = true, true
				m++
				break
			}
		}
	}
	if m == 0 {
		return 0
	}
	turned, j := 0, 0
	for i := range x {
		if !usedX[i] {
			continue
		}
		for !usedY[j] {
			j++
		}
		if x[i] != y[j] {
			turned++
		}
		j++
	}
	f := float64(m)
	like := (f/float64(len(x)) + f/float64(len(y)) + (f-float64(turned)/2)/f) / 3
	front := 0
	for front < min(len(x), len(y), 4) && x[front] == y[front] {
		front++
	}
	return like + float64(front)*0.1*(1-like)
}

// day reads a date: 2006-01-02, with any marks or none between, the year first.
func day(s string) ([3]int, bool) {
	parts := strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsDigit(r) })
	if len(parts) == 1 && len(parts[0]) == 8 {
		parts = []string{s[strings.IndexFunc(s, unicode.IsDigit):][:4], parts[0][4:6], parts[0][6:]}
	}
	if len(parts) < 3 {
		return [3]int{}, false
	}
	var d [3]int
	for i := range d {
		var err error
		if d[i], err = strconv.Atoi(parts[i]); err != nil || d[i] < 1 {
			return d, false
		}
	}
	return d, d[0] > 999 && d[0] < 10_000 && d[1] < 100 && d[2] < 100
}

// dates tells how alike two days are: the same, day and month exchanged, one digit wrong, or the same but for one part.
func dates(a, b [3]int) float64 {
	if a == b {
		return 1
	}
	if a[0] == b[0] && a[1] == b[2] && a[2] == b[1] {
		return 0.95
	}
	write := func(d [3]int) string {
		return time.Date(d[0], 1, 1, 0, 0, 0, 0, time.UTC).Format("2006") + pad(d[1]) + pad(d[2])
	}
	if edit(write(a), write(b)) >= 1-1.0/8 {
		return 0.9
	}
	same := 0
	for i := range a {
		if a[i] == b[i] {
			same++
		}
	}
	if same == 2 {
		return 0.75
	}
	return 0
}

func pad(n int) string {
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// address compares postal addresses: their words in any order, numbers as they are, words with their typing errors; a Chinese one, which has no words, by pairs of characters.
func (t terms) address(a, b *value) (float64, bool) {
	x, y := a.place(t), b.place(t)
	if x.folded == "" || y.folded == "" {
		return 0, false
	}
	if x.folded == y.folded {
		return 1, true
	}
	if x.han || y.han {
		if len(x.numbers) > 0 && len(y.numbers) > 0 && !slices.Equal(x.numbers, y.numbers) {
			return 0.6 * dice(x.pairs, y.pairs), true // the same street, another door
		}
		return dice(x.pairs, y.pairs), true
	}
	if len(x.words) == 0 || len(y.words) == 0 || max(len(x.words), len(y.words)) > 50 {
		return 0, true
	}
	return wordwise(x.words, y.words, sameWord), true
}

// sameWord is the likeness of two words of addresses.
func sameWord(a, b string) float64 {
	if a == b {
		return 1
	}
	if unicode.IsDigit(rune(a[0])) || unicode.IsDigit(rune(b[0])) {
		if len(a) == len(b) && len(a) > 3 { // a postal code with a wrong digit
			return max(0, 2*edit(a, b)-1)
		}
		return 0
	}
	if j := jaro(a, b); j > 0.85 {
		return j
	}
	return 0
}

// streetWords are written in many ways.
var streetWords = map[string]string{
	"st": "street", "str": "street", "rd": "road", "ave": "avenue", "av": "avenue", "pl": "place", "ct": "court", "cres": "crescent", "crs": "crescent", "dr": "drive",
	"ln": "lane", "blvd": "boulevard", "cct": "circuit", "tce": "terrace", "hwy": "highway", "pde": "parade", "sq": "square", "apt": "apartment", "ste": "suite",
	"bldg": "building", "fl": "floor", "rm": "room", "no": "",
}

// addressWords are the words of an address in Latin letters.
func addressWords(s string) []string {
	var out []string
	for _, w := range strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) }) {
		if full, ok := streetWords[w]; ok {
			w = full
		}
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

// numbers are the runs of digits in a text.
func numbers(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// pairs are the pairs of neighbouring characters, in order.
func pairs(s string) []uint64 {
	out := make([]uint64, 0, len(s)/3)
	before := rune(-1)
	for _, r := range s {
		if before >= 0 {
			out = append(out, uint64(before)<<32|uint64(r))
		}
		before = r
	}
	slices.Sort(out)
	return out
}

// dice is twice what two ordered bags share over what they have.
func dice(a, b []uint64) float64 {
	both := 0
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] < b[j]:
			i++
		case a[i] > b[j]:
			j++
		default:
			both, i, j = both+1, i+1, j+1
		}
	}
	if len(a)+len(b) == 0 {
		return 0
	}
	return 2 * float64(both) / float64(len(a)+len(b))
}

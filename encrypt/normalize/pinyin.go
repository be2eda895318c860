package normalize

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	dict "github.com/mozillazg/go-pinyin"
	"golang.org/x/text/unicode/norm"
)

const (
	maxReadings  = 8    // of one name
	maxSyllables = 16   // what follows is not indexed by its sound
	maxSounds    = 1024 // bytes of syllables; nor is what follows these
)

// Pinyin returns the terms that a name is found by in Latin letters. For a name with Chinese characters
// they are, for each of its readings (at most 8: every reading of the surname and of a given name),
// the syllables from the first one on, and the initials from two on. 曾小明 gives zeng, zengxiao,
// zengxiaoming, zx, zxm, so it is found by whoever types "zeng", "Zeng Xiao", "ZXM"; not by "zen",
// "xiaoming" or the single letter "z". ü is written both v and u.
//
// Text without Chinese characters is folded and returned whole, without tone marks, spaces and
// punctuation, so the same function serves the query: "Zēng Xiǎomíng" gives zengxiaoming. A query in
// Chinese characters finds everyone who sounds alike, by surname alone too: search those with person.
func Pinyin(typed string) []string {
	var syllables [][]string // the readings of each, ü written so
	var chars []rune         // the Chinese characters at the front
	var run []byte           // the last of syllables, unless it is Chinese
	han, inRun := false, false
	end := func() {
		if inRun {
			syllables[len(syllables)-1][0] = string(run)
		}
		run, inRun = run[:0], false
	}
	for _, r := range norm.NFD.String(simplified(foldCase(typed))) {
		if len(syllables) > maxSyllables {
			break
		}
		switch {
		case unicode.Is(unicode.Han, r):
			end()
			if len(chars) == len(syllables) {
				chars = append(chars, r)
			}
			syllables, han = append(syllables, readings(r)), true
		case r == '\u0308' && inRun: // the dots of ü
			if bytes.HasSuffix(run, []byte("nu")) || bytes.HasSuffix(run, []byte("lu")) {
				run = append(run[:len(run)-1], "ü"...)
			}
		case unicode.IsMark(r):
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			if !inRun {
				syllables = append(syllables, []string{""})
			}
			run, inRun = utf8.AppendRune(run, r), true
		case han:
			end()
		}
	}
	end()
	syllables = syllables[:min(len(syllables), maxSyllables)]
	if len(syllables) == 0 {
		return nil
	}
	if !han {
		return spell(nil, syllables[0][0])
	}
	size := 0
	for i, s := range syllables {
		if size += len(s[0]); size > maxSounds {
			syllables, chars = syllables[:i], chars[:min(i, len(chars))]
			break
		}
	}
	if len(syllables) == 0 {
		return nil
	}
	var out []string
	for _, name := range combine(syllables, chars) {
		full, initials := "", ""
		for i, s := range name {
			first := []rune(s)
			full, initials = full+s, initials+string(first[:1])
			out = spell(out, full)
			if i > 0 {
				out = spell(out, initials)
			}
		}
	}
	return out
}

// spell appends a term with ü as v and as u, each once.
func spell(out []string, term string) []string {
	if isASCII(term) {
		if !slices.Contains(out, term) {
			out = append(out, term)
		}
		return out
	}
	for _, u := range []string{"v", "u"} {
		t := norm.NFC.String(strings.ReplaceAll(term, "ü", u))
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

// combine returns the readings of a whole name, those of the surname first.
func combine(syllables [][]string, chars []rune) [][]string {
	var out [][]string
	add := func(name []string) {
		if len(out) < maxReadings && !slices.ContainsFunc(out, func(o []string) bool { return slices.Equal(o, name) }) {
			out = append(out, name)
		}
	}
	plain := make([]string, len(syllables))
	for i, s := range syllables {
		plain[i] = s[0]
	}
	var starts [][]string // readings of the surname
	for n := 4; n > 1; n-- {
		if len(chars) >= n {
			if s, ok := compounds[string(chars[:n])]; ok {
				starts = append(starts, s)
			}
		}
	}
	if len(chars) > 0 {
		for _, s := range surnames[chars[0]] {
			starts = append(starts, []string{s})
		}
	}
	starts = append(starts, plain[:1])
	for _, s := range starts { // every surname with the usual given name
		add(append(slices.Clone(s), plain[len(s):]...))
	}
	for i := 1; i < len(syllables); i++ { // then other readings of one character
		for _, alt := range syllables[i][1:] {
			for _, s := range starts {
				if len(s) <= i {
					name := append(slices.Clone(s), plain[len(s):]...)
					name[i] = alt
					add(name)
				}
			}
		}
	}
	return out
}

// sound returns what the dictionary says of a character. It lacks the newest simplified ones: those are
// looked up by their traditional form.
func sound(r rune) string {
	if s, ok := dict.PinyinDict[int(r)]; ok || r < 0x20000 {
		return s
	}
	for old, simple := range traditional {
		if simple == r {
			return dict.PinyinDict[int(old)]
		}
	}
	return ""
}

// readings returns how a character is read, the usual reading first; itself when nobody knows.
func readings(r rune) []string {
	if r < firstCommon || r > lastCommon {
		return spellings(r)
	}
	known := &common[r-firstCommon]
	if out := known.Load(); out != nil {
		return *out
	}
	out := slices.Clip(spellings(r))
	known.Store(&out)
	return out
}

// The block of common ideographs, and what readings has found for them: the same for everybody.
const (
	firstCommon = 0x4E00
	lastCommon  = 0x9FFF
)

var common [lastCommon - firstCommon + 1]atomic.Pointer[[]string]

// spellings works out readings.
func spellings(r rune) []string {
	first, _, _ := strings.Cut(sound(r), ",")
	var b strings.Builder
	for _, c := range norm.NFD.String(first) {
		switch {
		case c == '\u0308' && b.Len() > 0: // u before it
			s := b.String()
			b.Reset()
			b.WriteString(s[:len(s)-1] + "ü")
		case !unicode.IsMark(c):
			b.WriteRune(c)
		}
	}
	out := []string{b.String()}
	if first == "" {
		out[0] = string(r)
	}
	for _, alt := range givenNames[r] {
		if !slices.Contains(out, alt) {
			out = append(out, alt)
		}
	}
	return out
}

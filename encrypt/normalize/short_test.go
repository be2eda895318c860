package normalize

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

// The short ways of Phone answer as the library does, or not at all.
func TestPhoneShort(t *testing.T) {
	n := 40_000
	if testing.Short() {
		n = 4000
	}
	r := rand.New(rand.NewPCG(1, 2))
	taken := map[string]int{}
	try := func(typed string) {
		t.Helper()
		for way, f := range map[string]func(string) (string, bool){"mobile": chineseMobile, "landline": chineseLandline, "with code": withCode} {
			if got, ok := f(typed); ok {
				taken[way]++
				region := "CN"
				if way == "with code" {
					region = []string{"CN", "US", "GB", "DE"}[r.IntN(4)]
				}
				if want := parsed(typed, region); got != want {
					t.Errorf("%s: %q is %q, by the library %q", way, typed, got, want)
				}
			}
		}
	}
	group := func(digits string) string { // as people write
		var b strings.Builder
		for i, c := range digits {
			if i > 0 && r.IntN(4) == 0 {
				b.WriteString([]string{" ", "-", "  ", ".", "(", "0"}[r.IntN(60)/10%6])
			}
			b.WriteRune(c)
		}
		return b.String()
	}
	for range n {
		code := []string{"", "+1", "+44", "+86", "+86 1", "+7", "+1 ", "+44 ", "+86-", "++1", "+"}[r.IntN(11)]
		digits := fmt.Sprintf("%012d", r.Int64N(1_000_000_000_000))[:7+r.IntN(6)]
		try(code + group(digits))
		try(group("1" + digits))
	}
	// Every beginning of four digits behind each code.
	for _, code := range []string{"+1", "+44", "+86"} {
		for head := range 10_000 {
			for _, tail := range []string{"530295", "5302950"} {
				try(fmt.Sprintf("%s %04d%s", code, head, tail))
			}
		}
	}
	// Every area code.
	for code := range 10_000 {
		for _, number := range []string{"2345678", "23456789", "88881234", "8123456", "50000000", "11111111", "91234567"} {
			s := fmt.Sprintf("0%d", code)
			try(s + []string{"-", " ", ""}[r.IntN(3)] + number)
		}
	}
	for _, typed := range []string{"021--23456789", "021-2345-6789", "(021)23456789", "021-23456789-801", "02-123456789", "0571-888812341", "0021-23456789", "021-23456789x1", "+021-23456789", "021-2345678"} {
		if got, ok := chineseLandline(typed); ok {
			t.Errorf("%q is taken for a landline: %q", typed, got)
		}
	}
	for _, way := range []string{"mobile", "landline", "with code"} {
		if taken[way] < 100 {
			t.Errorf("%s: only %d numbers", way, taken[way])
		}
	}
}

// What usual lets pass is changed by nothing but lower case.
func TestUsual(t *testing.T) {
	long := func(s string) string {
		return strings.Map(cherokee, cases.Fold().String(width.Fold.String(norm.NFKC.String(clean(s)))))
	}
	for r := rune(0); r < 0x30000; r++ {
		s := "aZ" + string(r) + "Q张"
		if !usual(s) {
			continue
		}
		if norm.NFKC.String(clean(s)) != s || foldCase(s) != long(s) {
			t.Fatalf("%U is not usual", r)
		}
	}
	for _, s := range []string{"Ａ", "\xff", "é", "ß", "龍\u200b", "\uF900", "ꭰ"} {
		if usual(s) {
			t.Errorf("%q is usual", s)
		}
	}
}

// What is remembered of a character is what is worked out anew, and nobody can append to it.
func TestReadingsRemembered(t *testing.T) {
	for r := rune(firstCommon - 10); r < lastCommon+10; r++ {
		readings(r)
		got := readings(r)
		if !slices.Equal(got, spellings(r)) || r >= firstCommon && r <= lastCommon && cap(got) != len(got) {
			t.Fatalf("%c: %q", r, got)
		}
	}
}

// The table of simplified characters says of each character what the list says.
func TestSimple(t *testing.T) {
	for r := rune(0); r < 0x40000; r++ {
		if simple(r) != traditional[r] {
			t.Fatalf("%c: %c, want %c", r, simple(r), traditional[r])
		}
	}
}

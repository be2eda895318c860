package layout

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// asvsLevels has the requirements of OWASP ASVS 5.0.0, chapters V6 to V8: section, and a digit for the level of each in turn.
var asvsLevels = []struct{ section, levels string }{
	{"6.1", "122"}, {"6.2", "111111112222"}, {"6.3", "11223333"}, {"6.4", "112233"}, {"6.5", "22222333"}, {"6.6", "2223"}, {"6.7", "33"}, {"6.8", "2222"},
	{"7.1", "222"}, {"7.2", "1111"}, {"7.3", "22"}, {"7.4", "11222"}, {"7.5", "223"}, {"7.6", "22"},
	{"8.1", "1233"}, {"8.2", "1123"}, {"8.3", "133"}, {"8.4", "23"},
}

var (
	asvsRow     = regexp.MustCompile(`^\| *[0-9]`)
	asvsVerdict = regexp.MustCompile(`^(met|partly|not ours|not)(: \S.*)?$`)
	asvsCode    = regexp.MustCompile("^`[^` ]+`(, `[^` ]+`)*$")
	asvsTests   = regexp.MustCompile("^`[^` ]+`: `Test[^` ]*`(, `Test[^` ]*`)*(; `[^` ]+`: `Test[^` ]*`(, `Test[^` ]*`)*)*$")
	quoted      = regexp.MustCompile("`([^`]+)`")
)

// asvsFaults returns what is wrong with docs/asvs.md, read as text, in a tree of files: each requirement stands once, in order, with its level and a verdict,
// what is named exists, and the sums are right.
func asvsFaults(text string, tree fs.FS) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var want, got []string
	levels := map[string]string{}
	for _, s := range asvsLevels {
		for i, level := range s.levels {
			number := s.section + "." + strconv.Itoa(i+1)
			want = append(want, number)
			levels[number] = string(level)
		}
	}
	sums := map[string]map[string]int{"1": {}, "2": {}, "3": {}}
	sources := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !asvsRow.MatchString(line) {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != 6 {
			fault("%.40q has %d cells, not 6", line, len(cells))
			continue
		}
		number, level, short, verdict, code, tests := cells[0], cells[1], cells[2], cells[3], cells[4], cells[5]
		if slices.Contains(got, number) {
			fault("%s stands twice", number)
		}
		got = append(got, number)
		if levels[number] != level {
			fault("%s is of level %q, not %q", number, levels[number], level)
		}
		if short == "" {
			fault("%s does not say what is wanted", number)
		}
		m := asvsVerdict.FindStringSubmatch(verdict)
		switch {
		case m == nil:
			fault("%s has no verdict: %q", number, verdict)
		case m[1] != "met" && m[2] == "":
			fault("%s does not say why it is %s", number, m[1])
		case m[1] == "met" && (code == "none" || tests == "none"):
			fault("%s is met by nothing", number)
		}
		if m != nil && sums[level] != nil {
			sums[level][m[1]]++
		}
		switch {
		case code == "none":
		case !asvsCode.MatchString(code):
			fault("%s: %q is no list of files and folders", number, code)
		default:
			for _, q := range quoted.FindAllStringSubmatch(code, -1) {
				if _, err := fs.Stat(tree, q[1]); err != nil {
					fault("%s: there is no %s", number, q[1])
				}
			}
		}
		switch {
		case tests == "none" || strings.HasPrefix(tests, "none: ") && !strings.Contains(tests, "`"):
		case !asvsTests.MatchString(tests):
			fault("%s: %q is no list of tests", number, tests)
		default:
			for _, part := range strings.Split(tests, "; ") {
				names := quoted.FindAllStringSubmatch(part, -1)
				dir := names[0][1]
				if _, read := sources[dir]; !read {
					sources[dir] = testSources(tree, dir)
				}
				for _, n := range names[1:] {
					if !strings.Contains(sources[dir], "\nfunc "+n[1]+"(") {
						fault("%s: there is no func %s( in the tests of %s", number, n[1], dir)
					}
				}
			}
		}
	}
	if faults == nil && !slices.Equal(got, want) {
		for _, number := range want {
			if !slices.Contains(got, number) {
				fault("%s is missing", number)
			}
		}
		if len(got) == len(want) {
			fault("the rows are not in the order of their numbers")
		}
	}
	for _, level := range []string{"1", "2", "3"} {
		n := sums[level]
		sum := fmt.Sprintf("\nOf level %s: %d met, %d partly, %d not, %d not ours.\n", level, n["met"], n["partly"], n["not"], n["not ours"])
		if !strings.Contains(text, sum) {
			fault("the document does not say %q", strings.TrimSpace(sum))
		}
	}
	return faults
}

// testSources is all that the test files of a folder hold.
func testSources(tree fs.FS, dir string) string {
	var b strings.Builder
	files, _ := fs.Glob(tree, path.Join(dir, "*_test.go")) // an error is one of the pattern
	for _, name := range files {
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			continue // its tests are not found
		}
		b.WriteString("\n")
		b.Write(src)
	}
	return b.String()
}

// TestASVS holds docs/asvs.md against the list of the standard and the files of the repository.
func TestASVS(t *testing.T) {
	tree := os.DirFS("../..")
	text, err := fs.ReadFile(tree, "docs/asvs.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range asvsFaults(string(text), tree) {
		t.Error(f)
	}
}

// TestASVSFaults plants one violation at a time into a document that has none.
func TestASVSFaults(t *testing.T) {
	tree := fstest.MapFS{
		"a/x.go":           {Data: []byte("package a\n\nfunc TestElsewhere(t *testing.T) {}\n")},
		"a/x_test.go":      {Data: []byte("package a\n\nfunc TestX(t *testing.T) {}\n\n// func TestGone(\n")},
		"a/deep/y_test.go": {Data: []byte("package deep\nfunc TestY(t *testing.T) {}")},
	}
	var b strings.Builder
	sums := map[rune]int{}
	for _, s := range asvsLevels {
		for i, level := range s.levels {
			fmt.Fprintf(&b, "| %s.%d | %c | in short | met | `a/x.go`, `a` | `a`: `TestX`; `a/deep`: `TestY` |\n", s.section, i+1, level)
			sums[level]++
		}
	}
	for _, level := range "123" {
		fmt.Fprintf(&b, "\nOf level %c: %d met, 0 partly, 0 not, 0 not ours.\n", level, sums[level])
	}
	good := b.String()
	if faults := asvsFaults(good, tree); faults != nil {
		t.Fatalf("%q", faults)
	}
	const row = "| 6.1.1 | 1 | in short | met | `a/x.go`, `a` | `a`: `TestX`; `a/deep`: `TestY` |\n"
	for what, c := range map[string]struct{ row, want string }{
		"no such test":            {"| 6.1.1 | 1 | in short | met | `a` | `a`: `TestX`, `TestGone` |\n", "6.1.1: there is no func TestGone( in the tests of a"},
		"the beginning of a name": {"| 6.1.1 | 1 | in short | met | `a` | `a`: `Test` |\n", "6.1.1: there is no func Test( in the tests of a"},
		"a test of another":       {"| 6.1.1 | 1 | in short | met | `a` | `a`: `TestY` |\n", "6.1.1: there is no func TestY( in the tests of a"},
		"not in a test file":      {"| 6.1.1 | 1 | in short | met | `a` | `a`: `TestElsewhere` |\n", "6.1.1: there is no func TestElsewhere( in the tests of a"},
		"no such folder":          {"| 6.1.1 | 1 | in short | met | `a` | `b`: `TestX` |\n", "6.1.1: there is no func TestX( in the tests of b"},
		"a test without a folder": {"| 6.1.1 | 1 | in short | met | `a` | `TestX` |\n", "6.1.1: \"`TestX`\" is no list of tests"},
		"no tests":                {"| 6.1.1 | 1 | in short | met | `a` | |\n", `6.1.1: "" is no list of tests`},
		"no such file":            {"| 6.1.1 | 1 | in short | met | `a/z.go` | `a`: `TestX` |\n", "6.1.1: there is no a/z.go"},
		"no verdict":              {"| 6.1.1 | 1 | in short | | `a` | `a`: `TestX` |\n", `6.1.1 has no verdict: ""`},
		"another word":            {"| 6.1.1 | 1 | in short | mostly: x | `a` | `a`: `TestX` |\n", `6.1.1 has no verdict: "mostly: x"`},
		"partly, and no reason":   {"| 6.1.1 | 1 | in short | partly | `a` | `a`: `TestX` |\n", "6.1.1 does not say why it is partly"},
		"not, and no reason":      {"| 6.1.1 | 1 | in short | not | none | none |\n", "6.1.1 does not say why it is not"},
		"met by nothing":          {"| 6.1.1 | 1 | in short | met | `a` | none |\n", "6.1.1 is met by nothing"},
		"not told":                {"| 6.1.1 | 1 | | met | `a` | `a`: `TestX` |\n", "6.1.1 does not say what is wanted"},
		"twice":                   {row + row, "6.1.1 stands twice"},
		"missing":                 {"", "6.1.1 is missing"},
		"another level":           {"| 6.1.1 | 2 | in short | met | `a` | `a`: `TestX` |\n", `6.1.1 is of level "1", not "2"`},
		"not of the standard":     {row + "| 6.1.4 | 2 | in short | met | `a` | `a`: `TestX` |\n", `6.1.4 is of level "", not "2"`},
		"a cell too few":          {"| 6.1.1 | 1 | in short | met | `a` |\n", "\"| 6.1.1 | 1 | in short | met | `a` |\" has 5 cells, not 6"},
		"a wrong sum":             {"| 6.1.1 | 1 | in short | not: x | none | none |\n", fmt.Sprintf("the document does not say %q", fmt.Sprintf("Of level 1: %d met, 0 partly, 1 not, 0 not ours.", sums['1']-1))},
	} {
		if faults := asvsFaults(strings.Replace(good, row, c.row, 1), tree); !slices.Contains(faults, c.want) {
			t.Errorf("%s: %q, want %q", what, faults, c.want)
		}
	}
	first, rest, _ := strings.Cut(good, "\n")
	if faults := asvsFaults(strings.Replace(rest, "| 6.2.1 ", first+"\n| 6.2.1 ", 1), tree); !slices.Contains(faults, "the rows are not in the order of their numbers") {
		t.Errorf("another order: %q", faults)
	}
}

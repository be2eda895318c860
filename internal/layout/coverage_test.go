package layout

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/coverage.md anew")

// item is one line of items.txt.
type item struct {
	number        int
	term, english string
}

// shown is a test that shows an item.
type shown struct {
	item             int
	dir, name, shows string
	partly           bool
}

// items reads the list of items, which are numbered from 1.
func items(text []byte) ([]item, error) {
	var all []item
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(parts) != 3 || parts[0] != strconv.Itoa(len(all)+1) {
			return nil, fmt.Errorf("line %q is not item %d", line, len(all)+1)
		}
		all = append(all, item{len(all) + 1, parts[1], parts[2]})
	}
	return all, nil
}

var (
	named     = regexp.MustCompile(`^TestItem([0-9]{2})[A-Z]`)
	directive = regexp.MustCompile(`^//crm:item ([0-9]{1,2})( partly)?$`)
)

// testsOf returns what the tests of a file show. A test shows an item by its name, TestItem36Words, or by a line
// "//crm:item 36" in its comment, with "partly" behind it where it shows a part only.
func testsOf(dir string, f *ast.File) ([]shown, error) {
	var all []shown
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil {
			continue
		}
		name := fn.Name.Name
		var found []shown
		if m := named.FindStringSubmatch(name); m != nil {
			n, _ := strconv.Atoi(m[1])
			found = append(found, shown{item: n})
		} else if strings.HasPrefix(name, "TestItem") && len(name) > 8 && name[8] <= '9' {
			return nil, fmt.Errorf("%s: a name is TestItem, two digits and words", name)
		}
		if fn.Doc != nil {
			for _, c := range fn.Doc.List {
				if !strings.HasPrefix(c.Text, "//crm:") {
					continue
				}
				m := directive.FindStringSubmatch(c.Text)
				if m == nil || !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") {
					return nil, fmt.Errorf("%s: %q is no directive of a test", name, c.Text)
				}
				n, _ := strconv.Atoi(m[1])
				found = append(found, shown{item: n, partly: m[2] != ""})
			}
		}
		for i := range found {
			found[i].dir, found[i].name = dir, name
			found[i].shows = sentence(name, fn.Doc.Text())
			if found[i].shows == "" {
				return nil, fmt.Errorf("%s shows item %d, and its comment does not say what", name, found[i].item)
			}
		}
		all = append(all, found...)
	}
	return all, nil
}

// sentence is the first one of a comment, without the name that it begins with.
func sentence(name, text string) string {
	s := strings.TrimPrefix(new(doc.Package).Synopsis(text), name)
	return strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(s, ":")), ".")
}

// coverage writes the table. An item beyond the list is an error.
func coverage(list []item, tests []shown) ([]byte, error) {
	slices.SortFunc(tests, func(a, b shown) int {
		return cmp.Or(cmp.Compare(a.item, b.item), cmp.Compare(a.dir, b.dir), cmp.Compare(a.name, b.name))
	})
	of := map[int][]shown{}
	for _, s := range tests {
		if s.item < 1 || s.item > len(list) {
			return nil, fmt.Errorf("%s: %s: there is no item %d", s.dir, s.name, s.item)
		}
		of[s.item] = append(of[s.item], s)
	}
	whole, partly := 0, 0
	for _, x := range list {
		switch {
		case slices.ContainsFunc(of[x.number], func(s shown) bool { return !s.partly }):
			whole++
		case len(of[x.number]) > 0:
			partly++
		}
	}
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Coverage\n\n"+
		"Which test shows which item of the checklist. Written by `go test ./internal/layout -run Coverage -update` from the names and comments of the tests; do\n"+
		"not edit it. A test shows what its line says and no more: that of a rule shows the rule, not a page that offers it. *Partly* stands where a test\n"+
		"shows a part of its item.\n\nOf %d items %d have a test, %d in part, %d not yet.\n\n", len(list), whole, partly, len(list)-whole-partly)
	b.WriteString("| item | words | 词 | package | test | shows |\n|---|---|---|---|---|---|\n")
	for _, x := range list {
		head := fmt.Sprintf("| %d | %s | %s |", x.number, cell(x.english), cell(x.term))
		if len(of[x.number]) == 0 {
			fmt.Fprintf(&b, "%s | | not yet |\n", head) // no package, no test
		}
		for _, s := range of[x.number] {
			shows := cell(s.shows)
			if s.partly {
				shows = "*partly:* " + shows
			}
			fmt.Fprintf(&b, "%s `%s` | `%s` | %s |\n", head, s.dir, s.name, shows)
			head = "| | | |"
		}
	}
	return b.Bytes(), nil
}

// TestCoverage holds docs/coverage.md against the tests of the repository, those of nested modules too.
func TestCoverage(t *testing.T) {
	text, err := os.ReadFile("items.txt")
	if err != nil {
		t.Fatal(err)
	}
	list, err := items(text)
	if err != nil {
		t.Fatal(err)
	}
	const root = "../.."
	var tests []shown
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !bytes.Contains(src, []byte("TestItem")) && !bytes.Contains(src, []byte("//crm:")) {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found, err := testsOf(path.Dir(rel), f)
		if err != nil {
			t.Errorf("%s: %v", rel, err)
		}
		tests = append(tests, found...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := coverage(list, tests)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "coverage.md")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/coverage.md is not what the tests say; go test ./internal/layout -run Coverage -update writes it, and the difference is reviewed")
	}
}

// TestCoverageOfAFile: what names and comments say, and what is refused.
func TestCoverageOfAFile(t *testing.T) {
	read := func(src string) ([]shown, error) {
		f, err := parser.ParseFile(token.NewFileSet(), "x_test.go", "package x\n"+src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		return testsOf("a/b", f)
	}
	got, err := read("// TestItem02Leads: one | two. And more.\nfunc TestItem02Leads() {}\n" +
		"// TestOther does this.\n//\n//crm:item 1\n//crm:item 3 partly\nfunc TestOther() {}\n// TestNone is of no item.\nfunc TestNone() {}\nfunc TestItems() {}\n")
	want := []shown{
		{2, "a/b", "TestItem02Leads", "one | two", false}, {1, "a/b", "TestOther", "does this", false}, {3, "a/b", "TestOther", "does this", true},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for what, src := range map[string]string{
		"no comment":     "func TestItem02Leads() {}",
		"only its name":  "// TestItem02Leads\nfunc TestItem02Leads() {}",
		"one digit":      "// TestItem2Leads does.\nfunc TestItem2Leads() {}",
		"another word":   "// TestX does.\n//\n//crm:item 1 mostly\nfunc TestX() {}",
		"another key":    "// TestX does.\n//\n//crm:items 1\nfunc TestX() {}",
		"not of a test":  "// x does.\n//\n//crm:item 1\nfunc x() {}",
		"too many items": "// TestX does.\n//\n//crm:item 100\nfunc TestX() {}",
	} {
		if got, err := read(src); err == nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
	list, err := items([]byte("# a comment\n1\t一\tone\n2\t二\ttwo\n3\t三\tthree\n4\t四\tfour\n"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := coverage(list, got)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Of 4 items 2 have a test, 1 in part, 1 not yet.",
		"| 1 | one | 一 | `a/b` | `TestOther` | does this |", `| 2 | two | 二 | ` + "`a/b` | `TestItem02Leads` | one \\| two |",
		"| 3 | three | 三 | `a/b` | `TestOther` | *partly:* does this |", "| 4 | four | 四 | | | not yet |",
	} {
		if !strings.Contains(string(table), line) {
			t.Errorf("the table lacks %q:\n%s", line, table)
		}
	}
	if _, err := coverage(list[:2], got); err == nil {
		t.Error("an item that is not in the list")
	}
	for _, text := range []string{"2\t二\ttwo\n", "1\tone\n", "1\ta\tb\tc\n", "1\ta\tb\n1\ta\tb\n"} {
		if _, err := items([]byte(text)); err == nil {
			t.Errorf("%q is a list", text)
		}
	}
}

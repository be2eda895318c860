package normalize_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/crmguard/crmguard/encrypt/normalize"
)

func TestPhone(t *testing.T) {
	for _, tc := range [][3]string{
		{"138 0013 8000", "CN", "+8613800138000"},
		{"+86-138-0013-8000", "US", "+8613800138000"},
		{"１３８００１３８０００", "CN", "+8613800138000"},
		{"(0571) 8888 1234", "CN", "+8657188881234"},
		{"001-530-295-7382x123", "CN", "+15302957382"},
		{"001-530-295-7382x123", "US", "+15302957382"},
		{"(530) 295-7382 ext. 9", "US", "+15302957382"},
		{"+1-677-555-0100", "CN", "+16775550100"},
		{"+44 20 7946 0958", "CN", "+442079460958"},
		{"12", "CN", "12"},
		{"call me", "CN", ""},
		{"", "CN", ""},
		{"+", "CN", ""},
		{"\xff\xfe", "CN", ""},
		{"99999999999999999999999999", "CN", "99999999999999999999999999"},
		{"13800138000", "nowhere", "13800138000"},
	} {
		if got := normalize.Phone(tc[0], tc[1]); got != tc[2] {
			t.Errorf("Phone(%q, %s) = %q, want %q", tc[0], tc[1], got, tc[2])
		}
	}
}

// The short way of Chinese mobile numbers answers as the long one, which a leading space selects.
func TestPhoneShortWay(t *testing.T) {
	for prefix := range 1000 {
		for _, rest := range []string{"00138000", "99999999"} {
			s := fmt.Sprintf("%03d%s", prefix, rest)
			for _, typed := range []string{s, s[:3] + "-" + s[3:7] + " " + s[7:]} {
				if short, long := normalize.Phone(typed, "CN"), normalize.Phone(" "+typed, "CN"); short != long {
					t.Fatalf("%q is %q, with a space %q", typed, short, long)
				}
			}
		}
	}
	for _, typed := range []string{"1380013800", "138001380000", "138  0013 8000", "-13800138000", "13800138000-", "138--00138000", "138- 00138000"} {
		if short, long := normalize.Phone(typed, "CN"), normalize.Phone(" "+typed, "CN"); short != long {
			t.Errorf("%q is %q, with a space %q", typed, short, long)
		}
	}
}

func TestEmail(t *testing.T) {
	for in, want := range map[string]string{
		" Li.Na+crm@Example.COM ": "li.na+crm@example.com",
		"ｌｉ＠example.com":          "li@example.com",
		"user@Bücher.example":     "user@xn--bcher-kva.example",
		"用户@例子.公司":                "用户@xn--fsqu00a.xn--55qx5d",
		"user@example.com.":       "user@example.com",
		"no address":              "no address",
		"a@b@example.com":         "a@b@example.com",
		"":                        "",
	} {
		if got := normalize.Email(in); got != want {
			t.Errorf("Email(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for _, same := range [][]string{
		{"Anna Lee", "ＡＮＮＡ　ＬＥＥ", "anna  lee", " Anna\tLEE"},
		{"张 伟", "张伟", "张\u3000伟"},
		{"买买提·艾力", "买买提艾力", "买买提・艾力", "买买提•艾力"},
		{"O'Brien", "O’Brien", "obrien"},
		{"Straße", "STRASSE"},
		{"Jose\u0301", "José"},
	} {
		for _, s := range same[1:] {
			if normalize.Name(s) != normalize.Name(same[0]) {
				t.Errorf("%q and %q differ: %q, %q", s, same[0], normalize.Name(s), normalize.Name(same[0]))
			}
		}
	}
	if normalize.Name("张伟") == normalize.Name("张炜") {
		t.Error("two names are one")
	}
}

func TestMasks(t *testing.T) {
	masks := normalize.Masks()
	for _, tc := range [][3]string{
		{"phone", "138 0013 5678", "138****5678"},
		{"phone", "001-530-295-7382x123", "001****7382"},
		{"phone", "555-1234", "****34"},
		{"phone", "12", "****"},
		{"phone", "", "****"},
		{"email", "zhang@example.com", "z***@example.com"},
		{"email", "张@例子.公司", "***@例子.公司"},
		{"email", "@example.com", "***@example.com"},
		{"email", "nobody", "***"},
		{"name", "张伟", "张*"},
		{"name", "欧阳娜娜", "欧*"},
		{"name", "Hugo Callahan", "H*** Callahan"},
		{"name", "Hugo van der Berg", "H*** Berg"},
		{"name", "Cher", "C***"},
		{"name", "  ", ""},
		{"last4", "6222 0212 3456 7890", "****7890"},
		{"last4", "1234567", "****"},
		{"address", "浙江省杭州市西湖区文三路1号", "浙江省杭州市***"},
		{"address", "北京市海淀区中关村大街5号", "北京市海淀区***"},
		{"address", "文三路1号", "***"},
		{"address", "12 Main St, Springfield, IL 62704", "***, IL"},
		{"address", "12 Main St", "***"},
		{"address", "", "***"},
	} {
		if got := masks[tc[0]](tc[1]); got != tc[2] {
			t.Errorf("%s mask of %q = %q, want %q", tc[0], tc[1], got, tc[2])
		}
	}
}

// The vectors of the format document hold, and every normaliser and mask has some.
func TestDocumentedVectors(t *testing.T) {
	doc, err := os.ReadFile("../../docs/formats/normalize.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "```vectors\n")
	block, _, _ = strings.Cut(block, "```")
	normalizers, masks := normalize.Normalizers("CN"), normalize.Masks()
	seen := map[string]bool{}
	for line := range strings.Lines(block) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var texts []string
		for rest != "" {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			text, _ := strconv.Unquote(quoted)
			texts = append(texts, text)
			rest = strings.TrimPrefix(rest[len(quoted):], " ")
		}
		var got []string
		if mask, ok := strings.CutPrefix(name, "mask:"); ok {
			got = []string{masks[mask](texts[0])}
		} else {
			got = normalizers[name](texts[0])
		}
		if !slices.Equal(got, texts[1:]) {
			t.Errorf("%s of %q is %q, documented as %q", name, texts[0], got, texts[1:])
		}
		seen[name] = true
	}
	for name := range normalizers {
		if !seen[name] {
			t.Errorf("no vector of %s", name)
		}
	}
	for name := range masks {
		if !seen["mask:"+name] {
			t.Errorf("no vector of mask %s", name)
		}
	}
}

// Whatever is typed: no panic, valid UTF-8, and normalising twice changes nothing.
func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"", "13800138000", "001-530-295-7382x123", "+1-677-555-0100", "a@b.com", "张伟", "ﬁ", "\xff", "浙江省杭州市", "İ", "ß", "1;ext=5", "tel:+1;phone-context=+86"} {
		f.Add(s)
	}
	masks := normalize.Masks()
	normalizers := normalize.Normalizers("CN")
	f.Fuzz(func(t *testing.T, s string) {
		for name, n := range normalizers {
			for _, term := range n(s) {
				if !utf8.ValidString(term) || term == "" {
					t.Fatalf("%s(%q) = %q", name, s, term)
				}
			}
		}
		for name, m := range masks {
			if got := m(s); !utf8.ValidString(got) {
				t.Fatalf("%s mask of %q = %q", name, s, got)
			}
		}
		if n := normalize.Name(s); len(s) < 200 && normalize.Name(n) != n {
			t.Fatalf("Name is not stable: %q, %q", n, normalize.Name(n))
		}
	})
}

func Example() {
	find := normalize.Normalizers("CN")["phone"]
	fmt.Println(find("138 0013 8000"), find("+86 138-0013-8000"))
	fmt.Println(normalize.MaskPhone("138 0013 8000"), normalize.MaskName("Hugo Callahan"), strings.ToUpper(normalize.MaskName("张伟")))
	// Output:
	// [+8613800138000] [+8613800138000]
	// 138****8000 H*** Callahan 张*
}

package normalize_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
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

// An extension is no part of a number, nor of its digits and its mask.
func TestExtension(t *testing.T) {
	normalizers := normalize.Normalizers("CN")
	for _, typed := range []string{
		"138 0013 5678 转 12", "13800135678转12", "138 0013 5678 轉12", "138 0013 5678…分机12", "138-0013-5678 分機 12", "138 0013 5678 转分机12",
		"138 0013 5678，内线：12", "138 0013 5678 ext. 12", "138 0013 5678 Ext12", "138 0013 5678 EXTENSION 12", "138 0013 5678 extn 12",
		"138 0013 5678;ext=12", "138 0013 5678 x12", "138 0013 5678x 12", "138 0013 5678 X.12", "138 0013 5678 ｘ１２", "138 0013 5678 #12",
		"138 0013 5678 ＃１２", "138 0013 5678~12", "138 0013 5678 доб. 12", "138 0013 5678 (转12)", "(138 0013 5678) 转12", "138 0013 5678 转王经理", "138 0013 5678 ext",
		"+86 138 0013 5678 转 12", "0086 138 0013 5678 x12", "1380013\u200b5678\u00ad转12", "138 0013 5678 转 139 0013 9999",
	} {
		if got := normalize.Phone(typed, "CN"); got != "+8613800135678" {
			t.Errorf("Phone(%q) = %q", typed, got)
		}
		if got := normalizers["digits"](typed); len(got) != 1 || !strings.HasSuffix(got[0], "13800135678") {
			t.Errorf("digits of %q are %q", typed, got)
		}
		if got := normalize.MaskPhone(typed); strings.HasPrefix(typed, "1") && got != "138****5678" {
			t.Errorf("MaskPhone(%q) = %q", typed, got)
		}
	}
	for typed, want := range map[string][2]string{
		"0571-88881234-801":     {"+8657188881234", "057188881234"},
		"010-62270958-80123":    {"+861062270958", "01062270958"},
		"0571-88881234 转 801":   {"+8657188881234", "057188881234"},
		"(0571) 8888 1234 x801": {"+8657188881234", "057188881234"},
		"8888 1234 转 8":         {"+8688881234", "88881234"},
		"5678转12":               {"5678", "5678"},
		"转 12":                  {"12", "12"},     // no number before it
		"3#501":                 {"3501", "3501"}, // a house and a room
		"12 text 5":             {"125", "125"},   // a letter of a word
		"1234 x":                {"1234", "1234"},
		"800-810-8888-1":        {"+8680081088881", "80081088881"},
		"call 12 times":         {"12", "12"},
	} {
		if got := normalize.Phone(typed, "CN"); got != want[0] {
			t.Errorf("Phone(%q) = %q, want %q", typed, got, want[0])
		}
		if got := normalizers["digits"](typed); !slices.Equal(got, []string{want[1]}) {
			t.Errorf("digits of %q are %q, want %q", typed, got, want[1])
		}
	}
}

// What nobody sees and copying brings along counts nowhere.
func TestFormatCharacters(t *testing.T) {
	normalizers, masks := normalize.Normalizers("CN"), normalize.Masks()
	for name, plain := range map[string]string{
		"phone": "138 0013 8000", "email": "Li.Na@Bücher.example", "name": "Anna Lee", "text": "买买提·艾力", "person": "張偉", "pinyin": "曾小明",
		"company": "华为技术有限公司", "address": "文三路1号3幢二单元501室", "idnumber": "11010519491231002X", "uscc": "91350100M000100Y43",
		"bankcard": "4111 1111 1111 1111", "plate": "京A·12345", "digits": "No. 12-34", "last4": "12345678",
	} {
		for _, hidden := range []string{"\u202a", "\u202c", "\u200b", "\ufeff", "\u00ad", "\u200e", "\u2066", "\U000e0041"} {
			typed := hidden
			for _, r := range plain {
				typed += string(r) + hidden
			}
			for _, typed := range []string{typed, hidden + plain, plain + hidden, " " + hidden + " " + plain} {
				if n := normalizers[name]; n != nil && !slices.Equal(n(typed), n(plain)) {
					t.Errorf("%s of %q is %q, of %q %q", name, typed, n(typed), plain, n(plain))
				}
				if m := masks[name]; m != nil && typed[0] != ' ' && m(typed) != m(plain) {
					t.Errorf("%s mask of %q is %q, of %q %q", name, typed, m(typed), plain, m(plain))
				}
			}
		}
	}
}

// A normaliser answers for the whole text, and in time that grows as the text does.
func TestWholeText(t *testing.T) {
	normalizers := normalize.Normalizers("CN")
	head := strings.Repeat("很长的备注，", 400)
	for name, tail := range map[string]string{
		"text": "末尾", "name": "末尾", "person": "末尾", "company": "末尾", "address": "末尾", "digits": "90210", "phone": "90210", "idnumber": "90210",
		"uscc": "90210", "bankcard": "90210", "plate": "90210", "email": "末尾", "pinyin": "",
	} {
		if got := normalizers[name](head + tail); len(got) == 0 || !strings.HasSuffix(got[0], tail) {
			t.Errorf("%s: the end of a long text is lost", name)
		}
	}
	for name, n := range normalizers {
		for _, piece := range []string{"a", "1", "公司", "ltd.", "(", " and ltd", "零", "1号", "#", "1x", "1~", "-1", "é", "e\u0301", "曾", "\u0301", "@", "@é.", "ext", "1转", "＋"} {
			long := strings.Repeat(piece, 1<<16/len(piece))
			start := time.Now()
			for _, term := range n("1" + long) {
				if len(term) > 4*len(long) {
					t.Errorf("%s of many %q: %d bytes of %d", name, piece, len(term), len(long))
				}
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s of many %q takes %v", name, piece, took)
			}
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
	for _, s := range []string{"", "13800138000", "001-530-295-7382x123", "+1-677-555-0100", "a@b.com", "张伟", "ﬁ", "\xff", "浙江省杭州市", "İ", "ß", "1;ext=5", "138 0013 5678 转 12", "1234#5", "\u202a138 0013 5678\u202c", "tel:+1;phone-context=+86"} {
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

// In Cherokee the capital letters are the folded ones.
func TestCherokee(t *testing.T) {
	for _, s := range []string{"\u13c6\u13e9", "\uab96\uabb9", "\u13c6\uabb9"} {
		if n := normalize.Name(s); n != "\u13c6\u13e9" || normalize.Name(n) != n {
			t.Errorf("%+q: %+q", s, n)
		}
	}
	for small, capital := range map[rune]rune{0xAB70: 0x13A0, 0xABBF: 0x13EF, 0x13F8: 0x13F0, 0x13FD: 0x13F5} {
		if a, b := normalize.Name(string(small)), normalize.Name(string(capital)); a != b {
			t.Errorf("%U and %U: %+q, %+q", small, capital, a, b)
		}
	}
}

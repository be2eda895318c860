package normalize_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard/encrypt/normalize"
)

func TestDocumentMasks(t *testing.T) {
	masks := normalize.Masks()
	for _, tc := range [][3]string{
		{"idnumber", "11010519491231002X", "110***********002X"},
		{"idnumber", "110105 19491231 002x", "110***********002X"},
		{"idnumber", "110105491231002", "110********1002"},
		{"idnumber", "E12345678", "****5678"},
		{"idnumber", "1234567", "****"},
		{"idnumber", "", "****"},
		{"uscc", "91350100m000100y43", "91************0Y43"},
		{"uscc", "91350100", "****0100"},
		{"uscc", "9135", "****"},
		{"bankcard", "6222 0212 3456 7890", "****7890"},
		{"bankcard", "６２２２０２１２３４５６７８９０", "****7890"},
		{"bankcard", "1234567", "****"},
		{"plate", "京A·12345", "京A****5"},
		{"plate", "沪ad12345", "沪A****5"},
		{"plate", "京A1234", "****"},
		{"plate", "A12345", "****"},
		{"plate", "", "****"},
		{"company", "杭州某某科技有限公司", "杭州****有限公司"},
		{"company", "华为技术（集团）有限公司", "华为****集团有限公司"},
		{"company", "華為技術有限公司", "華為****有限公司"},
		{"company", "百度公司", "****公司"},
		{"company", "小米通讯", "小米****"},
		{"company", "大公司", "****公司"},
		{"company", "Acme GmbH & Co. KG", "Ac**** GmbH & Co. KG"},
		{"company", "IBM Corp.", "I**** Corp."},
		{"company", "HP Inc", "**** Inc"},
		{"company", "", "****"},
		{"company", "。。", "****"},
		{"name", "张", "*"},
		{"name", "A", "***"},
		{"name", "A Callahan", "*** Callahan"},
		{"name", "张 伟", "张*"},
		{"email", "a@example.com", "***@example.com"},
		{"email", "ab@" + strings.Repeat("x", 300), "a***"},
		{"address", "浙江省", "***"},
		{"address", "浙江省杭州市", "浙江省***"},
		{"address", ", IL", "***"},
	} {
		if got := masks[tc[0]](tc[1]); got != tc[2] {
			t.Errorf("%s mask of %q = %q, want %q", tc[0], tc[1], got, tc[2])
		}
	}
}

// letters counts letters and numbers.
func letters(s string) int {
	n := 0
	for _, r := range s {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			n++
		}
	}
	return n
}

// halves are masks that show at most half of the letters and digits, after NFKC.
var halves = []string{"last4", "idnumber", "uscc", "bankcard", "plate"}

// checkMasks holds for any text: no panic, valid UTF-8, bounded length, never a whole value.
func checkMasks(t *testing.T, s string) {
	t.Helper()
	masks := normalize.Masks()
	for name, mask := range masks {
		got := mask(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%s mask of %q is not UTF-8", name, s)
		}
		if n := utf8.RuneCountInString(got); n > 300 {
			t.Fatalf("%s mask of %q has %d characters", name, s, n)
		}
		if strings.TrimSpace(s) != "" && !strings.Contains(got, "*") && got != "" {
			t.Fatalf("%s mask of %q hides nothing: %q", name, s, got)
		}
	}
	for _, name := range halves {
		// Compared with what the mask looked at: a compatibility character may stand for several.
		typed, _ := normalize.BankCard(s)
		if got := masks[name](typed); 2*letters(got) > letters(typed) {
			t.Fatalf("%s mask of %q shows %q", name, typed, got)
		}
	}
}

func TestMasksHideHalf(t *testing.T) {
	for n := range 40 {
		for _, unit := range []string{"1", "a", "张", "1a", "é", " 1", "京A12345", "11010519491231002X", "张 ", "a@b.", "省", ", x"} {
			s := strings.Repeat(unit, n)
			checkMasks(t, s)
			for cut := range min(len(s), 24) {
				checkMasks(t, s[:cut])
			}
		}
	}
}

func FuzzMasks(f *testing.F) {
	for _, s := range []string{"13800138000", "a@b.com", "张伟", "Hugo Callahan", "11010519491231002X", "京A12345", "浙江省杭州市西湖区", "Acme Ltd.", "\xff", "ﷺ"} {
		f.Add(s)
	}
	f.Fuzz(checkMasks)
}

func ExampleMasks() {
	masks := normalize.Masks()
	fmt.Println(masks["idnumber"]("11010519491231002X"))
	fmt.Println(masks["bankcard"]("6222 0212 3456 7890"))
	fmt.Println(masks["plate"]("京A·12345"))
	fmt.Println(masks["company"]("杭州某某科技有限公司"))
	// Output:
	// 110***********002X
	// ****7890
	// 京A****5
	// 杭州****有限公司
}

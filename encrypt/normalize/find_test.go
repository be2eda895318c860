package normalize_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard/encrypt/normalize"
)

func TestFind(t *testing.T) {
	for _, tc := range []struct{ text, want string }{ // want: kind=value, in order
		{"call 13800138000 today", "phone=13800138000"},
		{"电话13800138000，微信同号", "phone=13800138000"},
		{"电话：１３８００１３８０００。", "phone=１３８００１３８０００"},
		{"138 0013 8000 or 139-0013-9000", "phone=138 0013 8000 phone=139-0013-9000"},
		{"+86 138 0013 8000, 0086-13800138000, 8613800138000", "phone=+86 138 0013 8000 phone=0086-13800138000 phone=8613800138000"},
		{"+1 (530) 295-7382 ext. 9", "phone=+1 (530) 295-7382"},
		{"London +44 20 7946 0958. 12 apples", "phone=+44 20 7946 0958"},
		{"(+49 30 901820)", "phone=+49 30 901820"},
		{"+8613800138000 2024", "phone=+8613800138000"},
		{"0571-88881234 or 010-88881234-801", "phone=0571-88881234 phone=010-88881234-801"},
		{"13800138000/13900139000", "phone=13800138000 phone=13900139000"},
		{"mail Li.Na+crm@Example.COM.", "email=Li.Na+crm@Example.COM"},
		{"邮箱zhang@example.com.cn，请回复", "email=zhang@example.com.cn"},
		{"<13800138000@qq.com>", "email=13800138000@qq.com"},
		{"mailto:a@b.io?subject=x", "email=a@b.io"},
		{"x@a.com,y@b.com", "email=x@a.com email=y@b.com"},
		{"身份证11010519491231002X已核", "idnumber=11010519491231002X"},
		{"110105 19491231 002x", "idnumber=110105 19491231 002x"},
		{"card 4111 1111 1111 1111.", "bankcard=4111 1111 1111 1111"},
		{"卡号6222021234567890128已绑定", "bankcard=6222021234567890128"},
		{"378282246310005 and 3782-822463-10005", "bankcard=378282246310005 bankcard=3782-822463-10005"},
		{"税号91350100M000100Y43", "uscc=91350100M000100Y43"},
		{"车牌京A12345和沪AD12345", "plate=京A12345 plate=沪AD12345"},
		{"粤B·12D45, 京a-12345", "plate=粤B·12D45 plate=京a-12345"},
		{"粤B1234学在路上", "plate=粤B1234学"},
		{"王 13800138000 zhang@example.com 京A12345", "phone=13800138000 email=zhang@example.com plate=京A12345"},

		// What only looks alike.
		{"", ""},
		{"2024-05-01 12:30:00", ""},
		{"20240501123000", ""},
		{"20240501123000123", ""},
		{"order ORD-13800138000", ""},
		{"order 20240501-13800138000-01", ""},
		{"no. 1380013800012", ""},
		{"A13800138000", ""},
		{"v1.13800138000.2", ""},
		{"0.13800138000", ""},
		{"13800138000.50", ""},
		{"13,800,138,000.00", ""},
		{"v1.2.3-rc.4+20240501", ""},
		{"10.0.0.1:8080", ""},
		{"12345678901", ""},
		{"12800138000", ""},
		{"110105194912310021", ""},
		{"110105194902310026", ""},
		{"4111 1111 1111 1112", ""},
		{"1234567812345670", ""}, // passes Luhn, no issuer
		{"0000000000000000", ""},
		{"91350100M000100Y44", ""},
		{"profit +30000000", ""},
		{"C++11 12345678", ""},
		{"6222021234567890123", ""},
		{"+12", ""},
		{"+999 123 456 789", ""},
		{"user@localhost", ""},
		{"@example.com", ""},
		{"a@b", ""},
		{"a@1.2", ""},
		{"京A1234", ""},
		{"京A123456", ""},
		{"京I12345", ""},
		{"京AABC12", ""},
		{"xin A12345", ""},
		{"0000-1234567", ""},
		{"uuid 550e8400-e29b-41d4-a716-446655440000", ""},
		{"sha 4111111111111111a", ""},
		{"\xff\xfe13800138000\xff", "phone=13800138000"},
	} {
		var got []string
		for _, f := range normalize.Find(tc.text) {
			got = append(got, f.Kind+"="+tc.text[f.Start:f.End])
		}
		if g := strings.Join(got, " "); g != tc.want {
			t.Errorf("Find(%q) = %q, want %q", tc.text, g, tc.want)
		}
	}
}

// Each kind is the name of a normaliser and of a mask.
func TestFoundKinds(t *testing.T) {
	masks, normalizers := normalize.Masks(), normalize.Normalizers("CN")
	text := "13800138000 a@b.io 11010519491231002X 4111111111111111 91350100M000100Y43 京A12345"
	found := normalize.Find(text)
	if len(found) != 6 {
		t.Fatalf("found %v", found)
	}
	for _, f := range found {
		value := text[f.Start:f.End]
		if masks[f.Kind] == nil || normalizers[f.Kind] == nil {
			t.Errorf("no mask or normaliser for %s", f.Kind)
		}
		if s := fmt.Sprint(f) + fmt.Sprintf("%+v", f); strings.Contains(s, value) {
			t.Errorf("%s prints its value", f.Kind)
		}
	}
}

// Hostile text of 1 MiB takes no longer, by more than a small factor, than a harmless one.
func TestFindLinear(t *testing.T) {
	measure := func(unit string, size int) time.Duration {
		text := strings.Repeat(unit, size/len(unit)+1)
		start := time.Now()
		normalize.Find(text)
		return time.Since(start)
	}
	for _, unit := range []string{
		"1 ", "1-", "1234-", "+", "+86 ", "+44 20 7946 095", "a@", "a@b.", "京A1234", "+(", "４", "4111 1111 1111 111", "\xff", "86 ", "a@b.io ",
	} {
		small, large := measure(unit, 1<<17), measure(unit, 1<<20)
		if large > 40*small && large > 2*time.Second { // once more: another process may have been in the way
			small, large = measure(unit, 1<<17), measure(unit, 1<<20)
		}
		if large > 40*small && large > 2*time.Second { // 8 times the text; 64 times if it were quadratic
			t.Errorf("%q: %v for 128 KiB, %v for 1 MiB", unit, small, large)
		}
		if testing.Verbose() {
			t.Logf("%q: %v a MiB", unit, large)
		}
	}
}

// Ranges are inside the text, in order, at characters, and never overlap.
func FuzzFind(f *testing.F) {
	f.Add("call +86 138 0013 8000 or zhang@example.com, 京A12345, 4111 1111 1111 1111")
	f.Fuzz(func(t *testing.T, text string) {
		at := 0
		for _, found := range normalize.Find(text) {
			if found.Start < at || found.End <= found.Start || found.End > len(text) {
				t.Fatalf("%v of %q", found, text)
			}
			if value := text[found.Start:found.End]; utf8.ValidString(text) && !utf8.ValidString(value) {
				t.Fatalf("%v cuts a character of %q", found, text)
			} else if normalize.Normalizers("CN")[found.Kind](value) == nil {
				t.Fatalf("%v of %q has no term", found, text)
			}
			at = found.End
		}
	})
}

func BenchmarkFind(b *testing.B) {
	text := strings.Repeat("客户张伟来电，号码 138 0013 8000，邮箱 zhang@example.com，订单 20240501-0001，下周回访。", 20)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		normalize.Find(text)
	}
}

func ExampleFind() {
	note := "called 138 0013 8000, wrote to zhang@example.com about order 2024-05-01"
	masks := normalize.Masks()
	for _, f := range normalize.Find(note) {
		fmt.Println(f, masks[f.Kind](note[f.Start:f.End]))
	}
	// Output:
	// phone[7:20] 138****8000
	// email[31:48] z***@example.com
}

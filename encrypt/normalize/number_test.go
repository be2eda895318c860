package normalize_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt/normalize"
)

type vector struct {
	typed, want string
	ok          bool
}

func testVectors(t *testing.T, name string, f func(string) (string, bool), vectors []vector) {
	t.Helper()
	for _, v := range vectors {
		if got, ok := f(v.typed); got != v.want || ok != v.ok {
			t.Errorf("%s(%q) = %q, %v, want %q, %v", name, v.typed, got, ok, v.want, v.ok)
		}
		terms := normalize.Normalizers("CN")[strings.ToLower(name)](v.typed)
		if v.want == "" && terms != nil || v.want != "" && (len(terms) != 1 || terms[0] != v.want) {
			t.Errorf("the normaliser of %s answers %q for %q", name, terms, v.typed)
		}
	}
}

func TestIDNumber(t *testing.T) {
	testVectors(t, "IDNumber", normalize.IDNumber, []vector{
		{"11010519491231002X", "11010519491231002X", true},
		{" 110105 19491231 002x ", "11010519491231002X", true},
		{"１１０１０５１９４９１２３１００２Ｘ", "11010519491231002X", true},
		{"440524188001010014", "440524188001010014", true},
		{"110105491231002", "11010519491231002X", true}, // 15 digits
		{"110105-491231-002", "11010519491231002X", true},
		{"", "", false},
		{"---", "", false},
		{"110105194912310021", "110105194912310021", false}, // check digit
		{"11010519491231003X", "11010519491231003X", false},
		{"110105194902310026", "110105194902310026", false}, // 31 February
		{"110105194913310020", "110105194913310020", false},
		{"990105194912310021", "990105194912310021", false},
		{"010105194912310021", "010105194912310021", false},
		{"110105490231002", "110105490231002", false},
		{"990105491231002", "990105491231002", false},
		{"1X010519491231002X", "1X010519491231002X", false},
		{"11010519491231002Y", "11010519491231002Y", false},
		{"1101051949123100", "1101051949123100", false},
		{"11010519491231002XX", "11010519491231002XX", false},
		{"E12345678", "E12345678", false}, // a passport is kept
		{"h-1234567(8)", "H12345678", false},
		{"\xff", "", false},
	})
	// Every wrong check character of a valid number is refused, and so is every swap of neighbours that differ.
	const valid = "11010519491231002X"
	for _, c := range "0123456789" {
		if _, ok := normalize.IDNumber(valid[:17] + string(c)); ok {
			t.Errorf("check character %c passes", c)
		}
	}
	for i := range 16 {
		b := []byte(valid)
		if b[i], b[i+1] = b[i+1], b[i]; string(b) == valid {
			continue
		}
		if _, ok := normalize.IDNumber(string(b)); ok {
			t.Errorf("swap at %d passes", i)
		}
	}
}

func TestUSCC(t *testing.T) {
	testVectors(t, "USCC", normalize.USCC, []vector{
		{"91350100M000100Y43", "91350100M000100Y43", true}, // the example of GB 32100
		{"9135 0100 m000 100y 43", "91350100M000100Y43", true},
		{"９１３５０１００Ｍ０００１００Ｙ４３", "91350100M000100Y43", true},
		{"91350100M000100Y44", "91350100M000100Y44", false},
		{"91350100M0001O0Y43", "91350100M0001O0Y43", false}, // O is no character of it
		{"81350100M000100Y43", "81350100M000100Y43", false},
		{"91990100M000100Y43", "91990100M000100Y43", false},
		{"98350100M000100Y43", "98350100M000100Y43", false},
		{"91350100M000100Y4", "91350100M000100Y4", false},
		{"91350100M000100Y433", "91350100M000100Y433", false},
		{"9135010AM000100Y43", "9135010AM000100Y43", false},
		{"91350100张000100Y43", "91350100张000100Y43", false},
		{"", "", false},
		{" - ", "", false},
	})
	const valid = "91350100M000100Y43"
	for i := range valid {
		for _, c := range "0123456789ABCDEFGHJKLMNPQRTUWXY" {
			if typed := valid[:i] + string(c) + valid[i+1:]; typed != valid {
				if _, ok := normalize.USCC(typed); ok {
					t.Errorf("%c at %d passes", c, i)
				}
			}
		}
	}
}

func TestBankCard(t *testing.T) {
	testVectors(t, "BankCard", normalize.BankCard, []vector{
		{"4111 1111 1111 1111", "4111111111111111", true},
		{"4111-1111-1111-1111", "4111111111111111", true},
		{"６２２２０２１２３４５６７８９０１２８", "6222021234567890128", true},
		{"378282246310005", "378282246310005", true},
		{"4111111111111112", "4111111111111112", false},
		{"6222021234567890123", "6222021234567890123", false},
		{"0000000000000000", "0000000000000000", false},
		{"18", "18", false},
		{"41111111111111111111", "41111111111111111111", false},
		{"DE89 3704 0044 0532 0130 00", "DE89370400440532013000", false}, // an IBAN is kept
		{"card", "CARD", false},
		{"", "", false},
	})
}

func TestPlate(t *testing.T) {
	testVectors(t, "Plate", normalize.Plate, []vector{
		{"京A12345", "京A12345", true},
		{"京a·12345", "京A12345", true},
		{"京Ａ １２３４５", "京A12345", true},
		{"滬A·D12345", "沪AD12345", true}, // new energy, small
		{"粤B12345D", "粤B12345D", true},  // new energy, large
		{"沪A12D4E", "沪A12D4E", true},
		{"粤B1234学", "粤B1234学", true},
		{"粵Z1234港", "粤Z1234港", true},
		{"京O12345", "京O12345", true},
		{"京I12345", "京I12345", false},
		{"京A1234", "京A1234", false},
		{"京A123456", "京A123456", false},
		{"京AABC12", "京AABC12", false},
		{"京A1234I", "京A1234I", false},
		{"京A12O45", "京A12O45", false},
		{"沪AZ12345", "沪AZ12345", false},
		{"一A12345", "一A12345", false},
		{"A12345", "A12345", false},
		{"京112345", "京112345", false},
		{"粤B123学学", "粤B123学学", false},
		{"WJ京12345", "WJ京12345", false},
		{"B-AB 1234", "BAB1234", false}, // a foreign one is kept
		{"", "", false},
	})
}

func TestDigits(t *testing.T) {
	digits := normalize.Normalizers("CN")["digits"]
	for typed, want := range map[string]string{"No. 12-34": "[1234]", "１２": "[12]", "none": "[]", "": "[]"} {
		if got := fmt.Sprint(digits(typed)); got != want {
			t.Errorf("digits(%q) = %s, want %s", typed, got, want)
		}
	}
}

// A number that passes is its own normal form; any term is.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"110105491231002", "91350100M000100Y43", "4111 1111 1111 1111", "京A·12345"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func(string) (string, bool){
			"IDNumber": normalize.IDNumber, "USCC": normalize.USCC, "BankCard": normalize.BankCard, "Plate": normalize.Plate,
		} {
			once, ok := parse(s)
			twice, again := parse(once)
			if len(s) < 200 && (once != twice || ok != again) {
				t.Fatalf("%s(%q) = %q, %v, then %q, %v", name, s, once, ok, twice, again)
			}
		}
	})
}

func ExampleIDNumber() {
	number, ok := normalize.IDNumber("110105 491231 002")
	fmt.Println(number, ok)
	number, ok = normalize.IDNumber("passport E-1234567")
	fmt.Println(number, ok)
	// Output:
	// 11010519491231002X true
	// PASSPORTE1234567 false
}

func ExampleUSCC() {
	fmt.Println(normalize.USCC("91350100m000100y43"))
	fmt.Println(normalize.USCC("91350100m000100y44"))
	// Output:
	// 91350100M000100Y43 true
	// 91350100M000100Y44 false
}

func ExampleBankCard() {
	fmt.Println(normalize.BankCard("4111 1111 1111 1111"))
	// Output: 4111111111111111 true
}

func ExamplePlate() {
	fmt.Println(normalize.Plate("粵b·12d45"))
	// Output: 粤B12D45 true
}

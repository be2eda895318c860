package normalize_test

import (
	"testing"
	"unicode/utf8"

	"github.com/crmguard/crmguard/encrypt/normalize"
)

func TestSound(t *testing.T) {
	for _, same := range [][]string{
		{"John Smith", "SMYTH, Jon", "john  smith", "Jōhn Smith", "Smith John"},
		{"Catherine O'Brien", "Katherine OBrien", "Kathryn O’Brien", "o'brien catharine"},
		{"Stephen Wright", "Steven Right", "wright, stephen"},
		{"Philip MacDonald", "Filip McDonald"},
		{"曾小明", "曾 小明", "Xiaoming Zeng", "Zeng Xiaoming", "zeng xiaoming"},
		{"司馬懿", "司马懿", "Yi Sima"},
		{"单雄信", "Xiongxin Shan"},
		{"Acme Foods Ltd.", "ACME Foods Limited", "Foods Acme"},
		{"华宇科技有限公司", "華宇科技股份有限公司"},
		{"Schmidt", "Shmit"},
	} {
		for _, s := range same[1:] {
			if normalize.Sound(s) != normalize.Sound(same[0]) {
				t.Errorf("%q sounds %q, %q sounds %q", s, normalize.Sound(s), same[0], normalize.Sound(same[0]))
			}
		}
	}
	for _, differ := range [][2]string{
		{"John Smith", "John Jones"}, {"张伟", "张敏"}, {"Anna Lee", "Anna Kim"}, {"Acme 1", "Acme 2"}, {"Unit 101", "Unit 1001"}, {"Unit 101", "Unit 102"}, {"Мария", "Ольга"}, {"Bob", "Bo"},
	} {
		if normalize.Sound(differ[0]) == normalize.Sound(differ[1]) {
			t.Errorf("%q and %q both sound %q", differ[0], differ[1], normalize.Sound(differ[0]))
		}
	}
	for _, none := range []string{"", " ", "·", "-", "\xff"} {
		if got := normalize.Sound(none); got != "" {
			t.Errorf("%q sounds %q", none, got)
		}
	}
}

func FuzzSound(f *testing.F) {
	for _, s := range []string{"John Smith", "曾小明", "Acme GmbH & Co. KG", "wrh", "gh", "xx", "\u0301", "ü", "ﬀ", "ẞ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k := normalize.Sound(s)
		if !utf8.ValidString(k) {
			t.Fatalf("%q", k)
		}
		if normalize.Sound(" "+s+" ") != k {
			t.Fatalf("spaces around %q", s)
		}
	})
}

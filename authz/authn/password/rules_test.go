package password_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/password"
)

func rules(t testing.TB) *password.Rules {
	t.Helper()
	r, err := password.NewRules(&password.RulesOptions{Words: []string{"Acme Trading Co.", "CRM Guard"}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var me = []string{"Zhang Wei", "Li Na", "张伟", "zhang.wei@example.com", "Bob", "1990-01-01"}

func TestRules(t *testing.T) {
	r := rules(t)
	for _, c := range []struct {
		pw     string
		second bool
		want   password.Reason // "" = allowed
	}{
		{"correct horse battery staple", false, ""},
		{"kettle-Tuesday-91-brook", false, ""},
		{"aaaabbbbcccc wind on the hill", false, ""}, // runs in a long text
		{"xkqjvhzpwmtrlyc", false, ""},               // no digits, no capitals: no composition rules
		{"49305817264019358", false, ""},             // digits only
		{"床前明月光疑是地上霜举头望明月", false, ""},               // 15 code points
		{"🐢🎷🧭🪁🌵🍋🪐🛶🧶🥁🪡🦉🌋🧊🪵", false, ""},
		{"v9#Tq2!x", true, ""},
		{"zhang wei eats noodles on the roof", false, ""}, // own name in a long text
		{"acme moved to another harbour", false, ""},
		{"zhangwei48201749385", true, ""},                                         // digits enough to be a password
		{strings.Repeat("x9 Qm4-wv!", 1) + strings.Repeat("åß∂ƒ", 14), false, ""}, // 66 characters

		{"", false, password.Short},
		{"fourteen chars", false, password.Short},
		{"v9#Tq2!x", false, password.Short},
		{"v9#Tq2!", true, password.Short},
		{"床前明月光疑是", true, password.Short}, // seven, though 21 bytes
		{strings.Repeat("e\u0301", 7), true, password.Short},
		{"\ufdfa", true, password.Short}, // one character that NFKC makes 18 of
		{strings.Repeat("a b ", 257), false, password.Long},
		{strings.Repeat("\ufb2c", 300), false, password.Long}, // longer in NFC than as given
		{"\xffcorrect horse battery", false, password.Encoding},
		{"correct horse\x00battery", false, password.Encoding},
		{"correct horse \U000e0fff", false, password.Encoding},

		{"password", true, password.Common},
		{"PassWord", true, password.Common},
		{"ｐａｓｓｗｏｒｄ", true, password.Common}, // full width
		{"sunshine", true, password.Common},
		{"P@ssw0rd", true, password.Common},
		{"p4$$w0rd!", true, password.Common},
		{"password2026", true, password.Common},
		{"Sunshine2026!", true, password.Common},
		{"passwordpassword", false, password.Common},
		{"monkeymonkeymonkey", false, password.Common},
		{"letmeinletmeinle", false, password.Common},
		{"password1234567", false, password.Common},
		{"123password4567", false, password.Common},
		{"11112222iloveyou", false, password.Common},
		{"woaini1314", true, password.Common},
		{"qwertyuiop", true, password.Common},

		{"aaaaaaaaaaaaaaaa", false, password.Pattern},
		{"ababababababababab", false, password.Pattern},
		{"xk9xk9xk9xk9xk9xk9", false, password.Pattern},
		{"abcdefghijklmnopq", false, password.Pattern},
		{"98765432109876543210", false, password.Pattern},
		{"poiuytrewqlkjhgfdsa", false, password.Pattern},
		{"abcdefgh12345678", false, password.Pattern},
		{"aaaaaaaabbbbbbbb", false, password.Pattern},

		{"zhangwei", true, password.Context},
		{"ZhangWei1990", true, password.Context},
		{"weizhang1990!", true, password.Context},
		{"zhangwei19900101", true, password.Context},
		{"zhang20150607wei", true, password.Context},
		{"nali20261127", true, password.Context},
		{"zhang.wei@example.com", false, password.Context},
		{"Zh4ng-W3i-1990-01", false, password.Context},
		{"张伟张伟张伟张伟", true, password.Context},
		{"acmetrading2026", false, password.Context},
		{"AcmeTradingCo2026!", false, password.Context},
		{"crmguard crmguard!", false, password.Context},
		{"acme zhang example", false, password.Context},
	} {
		err := r.Check(c.pw, password.Choice{SecondFactor: c.second, Words: me})
		var weak *password.WeakError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.pw, err)
		case c.want != "" && (!errors.As(err, &weak) || weak.Reason != c.want):
			t.Errorf("%q: %v, want %s", c.pw, err, c.want)
		}
		if err != nil && len(c.pw) > 8 && strings.Contains(err.Error(), c.pw) {
			t.Errorf("%q is in the error", c.pw)
		}
	}
	var weak *password.WeakError
	if errors.As(r.Check("short", password.Choice{}), &weak); weak.Min != 15 {
		t.Errorf("%d", weak.Min)
	}
	if errors.As(r.Check("short", password.Choice{SecondFactor: true}), &weak); weak.Min != 8 {
		t.Errorf("%d", weak.Min)
	}
}

func TestRulesOptions(t *testing.T) {
	for what, o := range map[string]password.RulesOptions{
		"below NIST": {Alone: 14}, "below NIST with a second": {WithSecond: 7}, "negative": {Alone: -1}, "more than must be accepted": {Alone: 65},
	} {
		if _, err := password.NewRules(&o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	r, err := password.NewRules(&password.RulesOptions{Alone: 20, WithSecond: 12})
	if err != nil {
		t.Fatal(err)
	}
	var weak *password.WeakError
	if !errors.As(r.Check("nineteen characters", password.Choice{}), &weak) || weak.Min != 20 {
		t.Error(weak)
	}
}

// FuzzCheck: what the rules take can be hashed, and the errors say nothing of it.
func FuzzCheck(f *testing.F) {
	r := rules(f)
	h := hasher(f, ring(f, secret(1)), password.Options{})
	for _, s := range []string{"correct horse battery staple", "Zh4ng-W3i", "\ufb2c", "\xff", "aaaaaaaaaaaaaaaaaaaa", "e\u0301!1"} {
		f.Add(s, "Zhang Wei", true)
	}
	f.Fuzz(func(t *testing.T, pw, word string, second bool) {
		err := r.Check(pw, password.Choice{SecondFactor: second, Words: []string{word}})
		var weak *password.WeakError
		if err != nil {
			if !errors.As(err, &weak) || len(pw) > 60 && strings.Contains(err.Error(), pw) {
				t.Fatalf("%v", err)
			}
			return
		}
		record, err := h.Hash(t.Context(), "a", pw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Verify(t.Context(), "a", record, pw); err != nil {
			t.Fatal(err)
		}
	})
}

func ExampleRules() {
	rules, err := password.NewRules(&password.RulesOptions{Words: []string{"Acme"}})
	if err != nil {
		panic(err)
	}
	person := password.Choice{SecondFactor: true, Words: []string{"Zhang Wei", "zhang.wei@example.com"}}
	for _, pw := range []string{"Tr0ub4d", "P@ssw0rd2026", "weizhang-1990", "12345678abcdefgh", "tin kettle, blue"} {
		fmt.Println(rules.Check(pw, person))
	}
	// Output:
	// password: too short
	// password: common
	// password: made of names that belong to the account
	// password: a pattern
	// <nil>
}

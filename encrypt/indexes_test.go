package encrypt_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// carries tells whether a sealed record would be found by any one group of a query, as a store looks.
func carries(s encrypt.Sealed, q encrypt.Query) bool {
	for _, group := range q.Groups {
		if !slices.ContainsFunc(group, func(token int64) bool {
			return slices.ContainsFunc(s.Fields, func(f encrypt.SealedField) bool {
				return slices.ContainsFunc(f.Tokens, func(t encrypt.Token) bool { return t.Value == token })
			})
		}) {
			return false
		}
	}
	return len(q.Groups) > 0
}

// folded is a normaliser of one term: lower case, no spaces.
func folded(s string) []string {
	if t := strings.ToLower(strings.ReplaceAll(s, " ", "")); t != "" {
		return []string{t}
	}
	return nil
}

type indexed struct {
	Name  encrypt.Text `protect:"personal,index=exact:f,index=prefix3:f,index=suffix4:f:12,index=ngram:f,leaks=fragments"`
	Phone encrypt.Text `protect:"personal,unique=exact:f"`
	Plain encrypt.Text `protect:"personal"`
	Stage string       `protect:"internal"`
	_     struct{}     `protect:"index=exact:f,of=name+phone"`
}

func indexedCodec(t testing.TB, normalizers map[string]func(string) []string) *encrypt.Codec[*indexed] {
	t.Helper()
	c, err := encrypt.NewCodec[*indexed](&encrypt.CodecOptions{Normalizers: normalizers})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var onlyFolded = map[string]func(string) []string{"f": folded}

func tokensOf(s encrypt.Sealed, field string) []encrypt.Token {
	for _, f := range s.Fields {
		if f.Name == field {
			return f.Tokens
		}
	}
	return nil
}

func TestIndexQueries(t *testing.T) {
	c, k := indexedCodec(t, onlyFolded), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	v := &indexed{Name: encrypt.NewText("张伟民Alan 88"), Phone: encrypt.NewText("13800138000"), Plain: encrypt.NewText("x")}
	s, err := c.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field, kind string
		typed       []string
		hit         bool
	}{
		{"name", "exact", []string{"张伟民 ALAN88"}, true},
		{"name", "exact:f", []string{"张伟民alan88"}, true},
		{"name", "", []string{"张伟民alan88"}, true}, // the first index that is declared
		{"name", "exact", []string{"张伟民"}, false},
		{"name", "prefix3", []string{"张伟民"}, true},
		{"name", "prefix3", []string{"张伟民alan"}, true},
		{"name", "prefix3", []string{"张伟民bob"}, false}, // the same token: only Match can tell
		{"name", "prefix3", []string{"伟民a"}, false},
		{"name", "suffix4", []string{"an88"}, true},
		{"name", "suffix4", []string{"Alan 88"}, true},
		{"name", "suffix4", []string{"an89"}, false},
		{"name", "ngram", []string{"伟民"}, true},
		{"name", "ngram", []string{"张伟民"}, true},
		{"name", "ngram", []string{"lan"}, true},
		{"name", "ngram", []string{"民ala"}, true},
		{"name", "ngram", []string{"伟民a"}, true}, // found by its pair; the letter is checked by Match
		{"name", "ngram", []string{"伟民b"}, false},
		{"name", "ngram", []string{"民伟"}, false},
		{"name", "ngram", []string{"张民"}, false},
		{"phone", "exact", []string{"138 0013 8000"}, true},
		{"name+phone", "exact", []string{"张伟民Alan88", "13800138000"}, true},
		{"name+phone", "exact", []string{"张伟民Alan881", "3800138000"}, false}, // the parts do not run together
		{"name+phone", "exact", []string{"13800138000", "张伟民Alan88"}, false},
	} {
		q, err := c.Query(ctx, k, "acme", tc.field, tc.kind, tc.typed...)
		if err != nil {
			t.Errorf("%s %s %q: %v", tc.field, tc.kind, tc.typed, err)
			continue
		}
		if got := carries(s, q) && c.Match(q, v); got != tc.hit {
			t.Errorf("%s %s %q: hit %v (token %v, match %v)", tc.field, tc.kind, tc.typed, got, carries(s, q), c.Match(q, v))
		}
		if c.Match(q, v) != tc.hit {
			t.Errorf("%s %s %q: Match alone says %v", tc.field, tc.kind, tc.typed, !tc.hit)
		}
		if c.Match(q, &indexed{}) {
			t.Errorf("%s %s %q matches an empty record", tc.field, tc.kind, tc.typed)
		}
	}
	many := make([]rune, 2000)
	for i := range many {
		many[i] = rune(0x4e00 + i)
	}
	for _, tc := range []struct {
		field, kind string
		typed       []string
	}{
		{"name", "exact", []string{""}},
		{"name", "exact", []string{"  "}},
		{"name", "exact", nil},
		{"name", "exact", []string{"a", "b"}},
		{"name", "prefix3", []string{"张伟"}},
		{"name", "prefix3", []string{"a b"}},
		{"name", "prefix2", []string{"张伟民"}},
		{"name", "prefix", []string{"张伟民"}},
		{"name", "suffix4", []string{"n88"}},
		{"name", "suffix3", []string{"n88"}},
		{"name", "ngram", []string{"张"}},
		{"name", "ngram", []string{"al"}},
		{"name", "ngram", []string{"a张b"}}, // no run is long enough for a window
		{"name", "ngram", []string{"al张an"}},
		{"name", "ngram", []string{string(many)}}, // no value that long is indexed
		{"name", "exact:g", []string{"张伟民"}},
		{"name", "EXACT", []string{"张伟民"}},
		{"phone", "suffix4", []string{"8000"}},
		{"phone", "ngram", []string{"8000"}},
		{"plain", "exact", []string{"x"}},
		{"plain", "", []string{"x"}},
		{"stage", "exact", []string{"x"}},
		{"draft", "exact", []string{"x"}},
		{"", "", []string{"x"}},
		{"name+phone", "exact", []string{"张伟民Alan88"}},
		{"name+phone", "exact", []string{"张伟民Alan88", ""}},
		{"name+phone", "exact", []string{"", "13800138000"}},
		{"name+phone", "prefix3", []string{"张伟民Alan88", "13800138000"}},
		{"phone+name", "exact", []string{"13800138000", "张伟民Alan88"}},
		{"name+plain", "exact", []string{"张伟民Alan88", "x"}},
		{"name+", "exact", []string{"张伟民Alan88", "x"}},
	} {
		q, err := c.Query(ctx, k, "acme", tc.field, tc.kind, tc.typed...)
		if !errors.Is(err, encrypt.ErrUnsupported) || q.Groups != nil {
			t.Errorf("%s %q %.20q: %v, %v", tc.field, tc.kind, tc.typed, q.Groups, err)
		}
		for _, s := range tc.typed {
			if err != nil && len(s) > 3 && strings.Contains(err.Error(), s) {
				t.Errorf("the error shows what was typed: %v", err)
			}
		}
	}
}

func TestTokensOfAValue(t *testing.T) {
	c, k := indexedCodec(t, onlyFolded), newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	count := func(name, phone string) (names, phones int) {
		t.Helper()
		s, err := c.Seal(ctx, k, rec, &indexed{Name: encrypt.NewText(name), Phone: encrypt.NewText(phone)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(tokensOf(s, "name")), len(tokensOf(s, "phone"))
	}
	for _, tc := range []struct {
		name, phone   string
		names, phones int
	}{
		{"张", "", 1, 0},                      // exact
		{"张伟", "", 2, 0},                     // and a pair
		{"abc", "", 3, 0},                    // exact, prefix3, one triple
		{"abcabc", "", 1 + 1 + 1 + 3, 0},     // abc bca cab: each once
		{"张伟ab", "", 1 + 1 + 1 + 1, 0},       // exact, prefix3, suffix4, one pair
		{"", "1", 0, 1},                      // the compound needs both
		{"张", "1", 2, 1},                     // and lies with its first field
		{"   ", "1", 0, 1},                   // nothing to be found by
		{"aaaaaaaa", "", 1 + 1 + 1 + 1, 0},   // one triple
		{"\xff\xff\xff\xff", "", 1 + 3, 0},   // what is no UTF-8 has characters of one byte
		{"张\xff伟", "", 1 + 1, 0},             // which stand between the others
		{strings.Repeat("x", 514), "", 4, 0}, // 512 windows
	} {
		if n, p := count(tc.name, tc.phone); n != tc.names || p != tc.phones {
			t.Errorf("%.20q and %q: %d and %d tokens, want %d and %d", tc.name, tc.phone, n, p, tc.names, tc.phones)
		}
	}
	for _, long := range []string{strings.Repeat("x", 515), strings.Repeat("张", 514), strings.Repeat("secret", 1000)} {
		s, err := c.Seal(ctx, k, rec, &indexed{Name: encrypt.NewText(long)}, nil)
		if err == nil || s.Fields != nil || !strings.Contains(err.Error(), "too long for its index: field name") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%d bytes: %v", len(long), err)
		}
	}
	// A whole token is unique when its tag says so, and only then.
	s, err := c.Seal(ctx, k, rec, &indexed{Name: encrypt.NewText("abc"), Phone: encrypt.NewText("1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range tokensOf(s, "name") {
		if tok.Unique {
			t.Error("a token of name is unique")
		}
	}
	for _, tok := range tokensOf(s, "phone") {
		if !tok.Unique {
			t.Error("the token of phone is not unique")
		}
	}
}

// TestTokensAreApart: no two of tenant, type, field, kind, normaliser give a term the same token.
func TestTokensAreApart(t *testing.T) {
	type two struct {
		A encrypt.Text `protect:"personal,index=exact:f,index=exact:g,index=prefix1:f,index=suffix1:f"`
		B encrypt.Text `protect:"personal,index=exact:f"`
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	seen := map[int64]string{}
	for _, tenant := range []string{"acme", "globex"} {
		for _, typ := range []string{"lead", "contact"} {
			c, err := encrypt.NewCodec[*two](&encrypt.CodecOptions{Type: typ, Normalizers: map[string]func(string) []string{"f": folded, "g": folded, "f/2": folded}})
			if err != nil {
				t.Fatal(err)
			}
			r := rec
			r.Tenant = tenant
			s, err := c.Seal(ctx, k, r, &two{encrypt.NewText("x"), encrypt.NewText("x")}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range s.Fields {
				for i, tok := range f.Tokens {
					here := fmt.Sprint(tenant, typ, f.Name, i)
					if there := seen[tok.Value]; there != "" {
						t.Errorf("%s and %s share a token", here, there)
					}
					seen[tok.Value] = here
				}
			}
		}
	}
	if len(seen) != 4*(7+2) {
		t.Errorf("%d tokens", len(seen))
	}
}

func TestCutTokens(t *testing.T) {
	type cut struct {
		Pin encrypt.Text `protect:"personal,index=suffix4:f:8,index=exact:f:12"`
	}
	c, err := encrypt.NewCodec[*cut](&encrypt.CodecOptions{Normalizers: onlyFolded})
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	var recs []encrypt.Record
	var vs []*cut
	for i := range 3000 {
		recs = append(recs, encrypt.Record{Tenant: "acme", ID: [16]byte{byte(i), byte(i >> 8), 1}, Person: [16]byte{1}})
		vs = append(vs, &cut{encrypt.NewText(fmt.Sprintf("%08d", i*7919))})
	}
	all, err := c.SealAll(ctx, k, recs, vs)
	if err != nil {
		t.Fatal(err)
	}
	suffix, exact, high := map[int64]bool{}, map[int64]bool{}, map[int64]bool{}
	for _, s := range all {
		toks := tokensOf(s, "pin")
		if len(toks) != 2 {
			t.Fatalf("%d tokens", len(toks))
		}
		suffix[toks[0].Value], exact[toks[1].Value] = true, true
		high[toks[0].Value>>8], high[toks[1].Value>>12<<4] = true, true
	}
	if len(suffix) != 256 { // 3,000 values over 256 tokens
		t.Errorf("%d tokens of 8 bits", len(suffix))
	}
	if len(exact) < 1500 || len(exact) > 3000-300 {
		t.Errorf("%d tokens of 12 bits: they must meet", len(exact))
	}
	if len(high) != 2 {
		t.Errorf("%d beginnings; the tokens of an index share theirs, and no two indexes do", len(high))
	}
	q, err := c.Query(ctx, k, "acme", "pin", "suffix4", "7919")
	if err != nil {
		t.Fatal(err)
	}
	found, real := 0, 0
	for i, s := range all {
		if carries(s, q) {
			found++
			if c.Match(q, vs[i]) {
				real++
			}
		} else if strings.HasSuffix(vs[i].Pin.Expose(), "7919") {
			t.Error("not found")
		}
	}
	if real != 1 || found < 2 {
		t.Errorf("%d candidates, %d matches", found, real)
	}
}

func TestCompoundKept(t *testing.T) {
	c, k := indexedCodec(t, onlyFolded), newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Grace: -1})
	seal := func(v *indexed, prev []encrypt.SealedField, keep ...string) (encrypt.Sealed, error) {
		return c.Seal(ctx, k, rec, v, prev, keep...)
	}
	open := func(s encrypt.Sealed, names ...string) *indexed {
		t.Helper()
		var v indexed
		if _, err := c.Open(ctx, k, rec, s.Fields, &v, names...); err != nil {
			t.Fatal(err)
		}
		return &v
	}
	both, err := seal(&indexed{Name: encrypt.NewText("abc"), Phone: encrypt.NewText("123")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	only, err := seal(&indexed{Name: encrypt.NewText("abc")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	phone, err := seal(&indexed{Phone: encrypt.NewText("123")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// What is wrong: one part is written and the other one kept.
	for _, tc := range []struct {
		what  string
		v     *indexed
		prev  []encrypt.SealedField
		keep  []string
		field string
	}{
		{"name opened", open(both, "name"), both.Fields, nil, "phone"},
		{"phone opened", open(both, "phone"), both.Fields, nil, "name"},
		{"phone kept by name", open(both, "name", "phone"), both.Fields, []string{"phone"}, "phone"},
		{"name kept by name", open(both, "name", "phone"), both.Fields, []string{"name"}, "name"},
		{"name removed from beside a kept phone is fine, phone removed beside a kept name is not", func() *indexed {
			v := open(both)
			v.Phone = encrypt.Text{}
			return v
		}(), both.Fields, nil, "name"},
		{"phone added beside a kept name", func() *indexed {
			v := open(only)
			v.Phone = encrypt.NewText("9")
			return v
		}(), only.Fields, nil, "name"},
		{"name added beside a kept phone", func() *indexed {
			v := open(phone)
			v.Name = encrypt.NewText("n")
			return v
		}(), phone.Fields, nil, "phone"},
	} {
		_, err := seal(tc.v, tc.prev, tc.keep...)
		if !errors.Is(err, encrypt.ErrNotClear) || !strings.HasSuffix(err.Error(), "field "+tc.field) {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
	// What is right: both, or none, or one that has no other.
	for what, tc := range map[string]struct {
		s     encrypt.Sealed
		names []string
		hit   bool
	}{
		"nothing opened":                 {both, nil, true},
		"both opened":                    {both, []string{"name", "phone"}, true},
		"only a name, not opened":        {only, nil, false},
		"only a name, opened":            {only, []string{"name"}, false},
		"only a phone, not opened":       {phone, nil, false},
		"only a phone, opened":           {phone, []string{"phone"}, false},
		"only a name, the phone opened":  {only, []string{"phone"}, false},
		"only a phone, the name opened":  {phone, []string{"name"}, false},
		"only a name, everything opened": {only, c.SealedNames(), false},
	} {
		v := open(tc.s, tc.names...)
		v.Stage = "won"
		again, err := seal(v, tc.s.Fields)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		q, err := c.Query(ctx, k, "acme", "name+phone", "exact", "abc", "123")
		if err != nil || carries(again, q) != tc.hit {
			t.Errorf("%s: found %v, %v", what, carries(again, q), err)
		}
		if got := open(again, c.SealedNames()...); got.Name.Expose() != open(tc.s, "name").Name.Expose() {
			t.Errorf("%s: the name is %q", what, got.Name.Expose())
		}
	}
	// Removing the first field takes its compound along.
	v := open(both)
	v.Name = encrypt.Text{}
	gone, err := seal(v, both.Fields)
	if err != nil || len(gone.Fields) != 1 || len(tokensOf(gone, "phone")) != 1 {
		t.Errorf("name removed: %+v, %v", gone.Fields, err)
	}
}

// TestCompoundErased: a part that nobody can open any more does not stop the writing of the rest, even in
// types that remember no state.
func TestCompoundErased(t *testing.T) {
	type pair struct {
		Name  string   `protect:"personal"`
		Phone string   `protect:"personal,retention=contract"`
		_     struct{} `protect:"index=exact:f,of=name+phone"`
	}
	c, err := encrypt.NewCodec[*pair](&encrypt.CodecOptions{Normalizers: onlyFolded})
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range []keys.Retention{keys.Ordinary, keys.Contract} {
		k := newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Grace: -1})
		s, err := c.Seal(ctx, k, rec, &pair{Name: "abc", Phone: "123"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Erase(ctx, "acme", rec.Person, &encrypt.EraseOptions{Classes: []keys.Retention{class}}); err != nil {
			t.Fatal(err)
		}
		var v pair
		states, err := c.Open(ctx, k, rec, s.Fields, &v, c.SealedNames()...)
		if err != nil {
			t.Fatal(err)
		}
		var keep []string
		for _, name := range c.SealedNames() {
			if c.State(states, name) == encrypt.StateErased {
				keep = append(keep, name)
			}
		}
		if len(keep) != 1 {
			t.Fatalf("%s: erased %v", class, keep)
		}
		again, err := c.Seal(ctx, k, rec, &v, s.Fields, keep...)
		if err != nil || len(again.Fields) != 2 {
			t.Errorf("%s: %+v, %v", class, again.Fields, err)
		}
		if _, _, err := c.Reseal(ctx, k, rec, &pair{}, s.Fields); err != nil {
			t.Errorf("%s: reseal: %v", class, err)
		}
		// Keeping both, without knowing of the erasure, goes on too.
		if _, err := c.Seal(ctx, k, rec, &pair{}, s.Fields, c.SealedNames()...); err != nil {
			t.Errorf("%s: %v", class, err)
		}
	}
}

// TestCompoundNormalizers: a compound index may have a normaliser for each of its fields, in every combination of their versions.
func TestCompoundNormalizers(t *testing.T) {
	type pair struct {
		Name    encrypt.Text `protect:"personal"`
		Address encrypt.Text `protect:"personal"`
		_       struct{}     `protect:"index=exact:low+digits,of=name+address"`
	}
	low := func(s string) []string { return []string{strings.ToLower(s)} }
	digits := func(s string) []string {
		return []string{strings.Map(func(r rune) rune {
			if r < '0' || r > '9' {
				return -1
			}
			return r
		}, s)}
	}
	first := func(s string) []string { return []string{strings.ToLower(s[:1])} }
	c, err := encrypt.NewCodec[*pair](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"low": low, "low/2": first, "digits": digits}})
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	s, err := c.Seal(ctx, k, rec, &pair{Name: encrypt.NewText("Abc"), Address: encrypt.NewText("12 High Street, flat 3")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(tokensOf(s, "name")); n != 2 {
		t.Errorf("%d tokens for two versions", n)
	}
	for _, tc := range []struct {
		name, address string
		hit           bool
	}{
		{"ABC", "Flat 123", true}, {"abc", "1-2-3", true}, {"axe", "123", true}, // the second version
		{"abc", "12", false}, {"b", "123", false}, {"123", "abc", false},
	} {
		q, err := c.Query(ctx, k, "acme", "name+address", "exact:low+digits", tc.name, tc.address)
		if hit := err == nil && carries(s, q); hit != tc.hit {
			t.Errorf("%s at %s: found %v, %v", tc.name, tc.address, hit, err)
		}
	}
	all, err := c.QueryAll(ctx, k, "acme", []encrypt.Ask{{"name+address", "exact:low+digits", []string{"abc", "123"}}, {"name+address", "exact:low+digits", []string{"abc"}}})
	if err != nil || !carries(s, all[0]) || len(all[1].Groups) != 0 {
		t.Errorf("asked together: %v", err)
	}
	for what, make := range map[string]func() error{
		"one normaliser too many": func() error {
			type bad struct {
				A encrypt.Text `protect:"personal"`
				B encrypt.Text `protect:"personal"`
				_ struct{}     `protect:"index=exact:low+low+low,of=a+b"`
			}
			_, err := encrypt.NewCodec[*bad](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"low": low}})
			return err
		},
		"an unknown one": func() error {
			type bad struct {
				A encrypt.Text `protect:"personal"`
				B encrypt.Text `protect:"personal"`
				_ struct{}     `protect:"index=exact:low+loud,of=a+b"`
			}
			_, err := encrypt.NewCodec[*bad](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"low": low}})
			return err
		},
		"two for one field": func() error {
			type bad struct {
				A encrypt.Text `protect:"personal,index=exact:low+low,leaks=equality"`
			}
			_, err := encrypt.NewCodec[*bad](&encrypt.CodecOptions{Normalizers: map[string]func(string) []string{"low": low}})
			return err
		},
	} {
		if err := make(); err == nil || !strings.Contains(err.Error(), "unknown normaliser") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBeside: what Seal refuses for a kept part of a compound is what Beside names, and opened it is sealed.
func TestBeside(t *testing.T) {
	c, k := indexedCodec(t, onlyFolded), newKeeper(t, newKEK(t), keys.NewMemory(), &encrypt.Options{Grace: -1})
	both, err := c.Seal(ctx, k, rec, &indexed{Name: encrypt.NewText("abc"), Phone: encrypt.NewText("123")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what   string
		opened []string
		change func(v *indexed)
		keep   []string
		want   []string
	}{
		{"nothing opened", nil, func(*indexed) {}, nil, nil},
		{"both opened", []string{"name", "phone"}, func(*indexed) {}, nil, nil},
		{"both kept by name", []string{"name", "phone"}, func(*indexed) {}, []string{"name", "phone"}, nil},
		{"the name written", []string{"name"}, func(v *indexed) { v.Name = encrypt.NewText("def") }, nil, []string{"phone"}},
		{"the phone written", []string{"phone"}, func(v *indexed) { v.Phone = encrypt.NewText("9") }, nil, []string{"name"}},
		{"the phone taken away", nil, func(v *indexed) { v.Phone = encrypt.Text{} }, nil, []string{"name"}},
		{"the name kept by name", []string{"name", "phone"}, func(*indexed) {}, []string{"name"}, []string{"name"}},
	} {
		var v indexed
		if _, err := c.Open(ctx, k, rec, both.Fields, &v, tc.opened...); err != nil {
			t.Fatal(err)
		}
		tc.change(&v)
		names, err := c.Beside(rec, &v, both.Fields, tc.keep...)
		if err != nil || !slices.Equal(names, tc.want) {
			t.Errorf("%s: %v, %v", tc.what, names, err)
		}
		_, err = c.Seal(ctx, k, rec, &v, both.Fields, tc.keep...)
		if refused := errors.Is(err, encrypt.ErrNotClear); refused != (len(tc.want) > 0) {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
	if _, err := c.Beside(rec, &indexed{}, both.Fields, "nope"); err == nil {
		t.Error("an unknown field is kept")
	}
}

func TestNormalizerVersions(t *testing.T) {
	k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
	plain := func(s string) []string { return []string{s} }
	first := indexedCodec(t, map[string]func(string) []string{"f": plain})
	both := indexedCodec(t, map[string]func(string) []string{"f": plain, "f/2": folded, "g": plain, "f/x": nil, "f/-1": plain})
	last := indexedCodec(t, map[string]func(string) []string{"f/2": folded})
	v := &indexed{Name: encrypt.NewText("Li Na 12"), Phone: encrypt.NewText("A 1")}
	old, err := first.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := both.Seal(ctx, k, rec, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, m := len(tokensOf(old, "phone")), len(tokensOf(fresh, "phone")); n != 1 || m != 2 {
		t.Fatalf("%d and %d tokens", n, m)
	}
	hit := func(c *encrypt.Codec[*indexed], s encrypt.Sealed, field, kind string, typed ...string) bool {
		t.Helper()
		q, err := c.Query(ctx, k, "acme", field, kind, typed...)
		if err != nil {
			t.Fatal(err)
		}
		return carries(s, q) && c.Match(q, v)
	}
	for _, tc := range []struct {
		field, kind string
		typed       []string
	}{
		{"phone", "exact", []string{"A 1"}}, {"name", "prefix3", []string{"Li Na"}}, {"name", "suffix4", []string{"Na 12"}},
		{"name", "ngram", []string{"Li Na"}}, {"name+phone", "exact", []string{"Li Na 12", "A 1"}},
	} {
		for i, s := range []encrypt.Sealed{old, fresh} {
			if !hit(both, s, tc.field, tc.kind, tc.typed...) {
				t.Errorf("record %d is not found by %s of %s under both versions", i, tc.kind, tc.field)
			}
		}
		if !hit(first, fresh, tc.field, tc.kind, tc.typed...) || !hit(last, fresh, tc.field, tc.kind, tc.typed...) {
			t.Errorf("a record of both versions is not found by one of them: %s of %s", tc.kind, tc.field)
		}
		if hit(last, old, tc.field, tc.kind, tc.typed...) {
			t.Errorf("found by a version that it has no tokens of: %s of %s", tc.kind, tc.field)
		}
	}
	if hit(first, fresh, "phone", "exact", "a1") || !hit(both, fresh, "phone", "exact", "a1") {
		t.Error("the versions do not answer for themselves")
	}
	// A pass over the records gives them the tokens of the new version, and the last pass takes the old ones.
	moved, changed, err := both.Reseal(ctx, k, rec, &indexed{}, old.Fields)
	if err != nil || !changed || !hit(last, moved, "phone", "exact", "a1") {
		t.Fatalf("resealed: %v, %v", changed, err)
	}
	if _, changed, err = both.Reseal(ctx, k, rec, &indexed{}, moved.Fields); err != nil || changed {
		t.Fatalf("again: %v, %v", changed, err)
	}
	if moved, changed, err = last.Reseal(ctx, k, rec, &indexed{}, moved.Fields); err != nil || !changed || len(tokensOf(moved, "phone")) != 1 {
		t.Fatalf("the last pass: %v, %v", changed, err)
	}
	if _, changed, err = last.Reseal(ctx, k, rec, &indexed{}, moved.Fields); err != nil || changed {
		t.Fatalf("again: %v, %v", changed, err)
	}
	for _, given := range []map[string]func(string) []string{{"f": plain, "f/1": folded}, {"f/2": plain, "f/02": plain}} {
		if _, err := encrypt.NewCodec[*indexed](&encrypt.CodecOptions{Normalizers: given}); err == nil || !strings.Contains(err.Error(), "field Name") || !strings.Contains(err.Error(), "twice") {
			t.Errorf("one version given twice: %v", err)
		}
	}
}

// TestIndexAgreesWithScan: for random values and queries, everything that a plain scan finds is found by the
// tokens and passes Match, and nothing else passes.
func TestIndexAgreesWithScan(t *testing.T) {
	type human struct {
		Name encrypt.Text `protect:"personal,index=exact:f,index=prefix2:f:8,index=suffix3:f:8,index=ngram:f,index=exact:pinyin,index=prefix2:pinyin,leaks=fragments"`
		Town encrypt.Text `protect:"personal"`
		_    struct{}     `protect:"index=exact:f:8,of=name+town"`
	}
	upper := func(s string) []string { // a second version: it says the same in another way, of several terms
		var out []string
		for _, t := range folded(s) {
			out = append(out, strings.ToUpper(t), strings.ToUpper(t)+"!")
		}
		return out
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		alphabet := [][]rune{[]rune("张王李曾单伟娜"), []rune("abcAB "), []rune("张伟ab 1"), []rune("あアー한ㄅ中x")}[rnd.IntN(4)]
		out := make([]rune, 1+rnd.IntN(7))
		for i := range out {
			out[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(out)
	}
	for _, norms := range []map[string]func(string) []string{
		{"f": folded, "pinyin": normalize.Pinyin},
		{"f": folded, "f/2": upper, "pinyin": normalize.Pinyin},
	} {
		c, err := encrypt.NewCodec[*human](&encrypt.CodecOptions{Normalizers: norms})
		if err != nil {
			t.Fatal(err)
		}
		k := newKeeper(t, newKEK(t), keys.NewMemory(), nil)
		var vs []*human
		var all []encrypt.Sealed
		for i := range 80 {
			if i == 40 { // half of the records are of an older generation
				if _, err := k.Renew(ctx, "acme"); err != nil {
					t.Fatal(err)
				}
			}
			v := &human{Name: encrypt.NewText(word()), Town: encrypt.NewText(word())}
			s, err := c.Seal(ctx, k, encrypt.Record{Tenant: "acme", ID: [16]byte{byte(i), byte(i >> 8)}, Person: [16]byte{3}}, v, nil)
			if err != nil {
				t.Fatal(err)
			}
			vs, all = append(vs, v), append(all, s)
		}
		match := map[string]func(has, want string) bool{
			"exact:f": func(h, w string) bool { return h == w }, "exact:pinyin": func(h, w string) bool { return h == w },
			"prefix2:f": strings.HasPrefix, "prefix2:pinyin": strings.HasPrefix, "suffix3:f": strings.HasSuffix, "ngram:f": strings.Contains,
		}
		asked, refused, hits := 0, 0, 0
		for range 60 {
			typed := word()
			if rnd.IntN(2) == 0 { // a part of what is there
				r := []rune(vs[rnd.IntN(len(vs))].Name.Expose())
				from := rnd.IntN(len(r))
				typed = string(r[from : from+1+rnd.IntN(len(r)-from)])
			}
			for kind, is := range match {
				_, norm, _ := strings.Cut(kind, ":")
				q, err := c.Query(ctx, k, "acme", "name", kind, typed)
				if errors.Is(err, encrypt.ErrUnsupported) {
					refused++
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				asked++
				for i, v := range vs {
					want := false
					for key, f := range norms {
						if name, _, _ := strings.Cut(key, "/"); name != norm {
							continue
						}
						for _, w := range f(typed) {
							want = want || slices.ContainsFunc(f(v.Name.Expose()), func(h string) bool { return is(h, w) })
						}
					}
					if got := c.Match(q, v); got != want {
						t.Fatalf("%s of %q in %q: Match %v, scan %v", kind, typed, v.Name.Expose(), got, want)
					}
					if want && !carries(all[i], q) {
						t.Fatalf("%s of %q in %q: not found by its tokens", kind, typed, v.Name.Expose())
					}
					if want {
						hits++
					}
				}
			}
			of := vs[rnd.IntN(len(vs))]
			name, town := of.Name.Expose(), of.Town.Expose()
			q, err := c.Query(ctx, k, "acme", "name+town", "exact", name, town)
			if err != nil {
				continue // a blank one
			}
			for i, v := range vs {
				want := folded(v.Name.Expose()) != nil && folded(v.Town.Expose()) != nil &&
					folded(v.Name.Expose())[0] == folded(name)[0] && folded(v.Town.Expose())[0] == folded(town)[0]
				if c.Match(q, v) != want || want && !carries(all[i], q) {
					t.Fatalf("%q and %q in %q and %q", name, town, v.Name.Expose(), v.Town.Expose())
				}
			}
		}
		if asked < 60 || hits < 60 || refused < 20 {
			t.Errorf("the test is idle: %d queries, %d refused, %d hits", asked, refused, hits)
		}
	}
}

func TestIndexTagsRefused(t *testing.T) {
	opts := &encrypt.CodecOptions{Type: "x", Normalizers: onlyFolded}
	check := func(err error, want ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("compiled; want an error with %q", want)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
	_, err := encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact"`
	}](opts)
	check(err, "field Name", "KIND:NORMALISER")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f:12:1"`
	}](opts)
	check(err, "field Name", "KIND:NORMALISER")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index="`
	}](opts)
	check(err, "field Name")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:"`
	}](opts)
	check(err, "field Name", "normaliser")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=prefix0:f"`
	}](opts)
	check(err, "field Name", "prefix0")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=prefix17:f"`
	}](opts)
	check(err, "field Name", "prefix17")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=prefix03:f"`
	}](opts)
	check(err, "field Name", "prefix03")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=suffix-1:f"`
	}](opts)
	check(err, "field Name", "suffix-1")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=prefix:f"`
	}](opts)
	check(err, "field Name", "prefix")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f:3"`
	}](opts)
	check(err, "field Name", "4 to 32 bits")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f:33"`
	}](opts)
	check(err, "field Name", "4 to 32 bits")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f:x"`
	}](opts)
	check(err, "field Name", "4 to 32 bits")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,unique=exact:f:16"`
	}](opts)
	check(err, "field Name", "unique")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,unique=suffix4:f"`
	}](opts)
	check(err, "field Name", "unique")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,unique=ngram:f"`
	}](opts)
	check(err, "field Name", "unique")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f,unique=exact:f"`
	}](opts)
	check(err, "field Name", "twice")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f:8,index=exact:f:9"`
	}](opts)
	check(err, "field Name", "two indexes")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f,distinct=999"`
	}](opts)
	check(err, "field Name", "999")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f,distinct=1"`
	}](opts)
	check(err, "field Name", "distinct=1")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f,distinct=many"`
	}](opts)
	check(err, "field Name", "distinct=many")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,index=exact:f,leaks=all"`
	}](opts)
	check(err, "field Name", "unknown leak")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,leaks=equality"`
	}](opts)
	check(err, "field Name", "with an index")
	_, err = encrypt.NewCodec[*struct {
		Name string `protect:"personal,distinct=5000"`
	}](opts)
	check(err, "field Name", "with an index")
	_, err = encrypt.NewCodec[*struct {
		VIP bool `protect:"personal,index=exact:f"`
	}](opts)
	check(err, "field VIP", "text")
	_, err = encrypt.NewCodec[*struct {
		Age int `protect:"personal,index=exact:f"`
	}](opts)
	check(err, "field Age", "text")
	_, err = encrypt.NewCodec[*struct {
		Photo []byte `protect:"personal,index=exact:f"`
	}](opts)
	check(err, "field Photo", "text")
	_, err = encrypt.NewCodec[*struct {
		Names []encrypt.Text `protect:"personal,index=exact:f"`
	}](opts)
	check(err, "field Names", "text")
	_, err = encrypt.NewCodec[*struct {
		Stage string `protect:"internal,index=exact:f"`
	}](opts)
	check(err, "field Stage", "clear column")
	// Compound indexes.
	_, err = encrypt.NewCodec[*struct {
		Name, Phone string   `protect:"personal"`
		_           struct{} `protect:"index=exact:f,of=name"`
	}](opts)
	check(err, "field _", "two fields")
	_, err = encrypt.NewCodec[*struct {
		Name string   `protect:"personal"`
		_    struct{} `protect:"of=name+name"`
	}](opts)
	check(err, "field _")
	_, err = encrypt.NewCodec[*struct {
		Name, Phone string   `protect:"personal"`
		_           struct{} `protect:"index=suffix4:f,of=name+phone"`
	}](opts)
	check(err, "field _", "exact")
	_, err = encrypt.NewCodec[*struct {
		Name, Phone string   `protect:"personal"`
		_           struct{} `protect:"personal,index=exact:f,of=name+phone"`
	}](opts)
	check(err, "field _", "personal")
	_, err = encrypt.NewCodec[*struct {
		Name, Phone string   `protect:"personal"`
		_           struct{} `protect:"index=exact:f,index=exact:f,of=name+phone"`
	}](opts)
	check(err, "field _")
	_, err = encrypt.NewCodec[*struct {
		Name string   `protect:"personal"`
		_    struct{} `protect:"index=exact:f,of=name+name"`
	}](opts)
	check(err, "name+name", `"name"`)
	_, err = encrypt.NewCodec[*struct {
		Name string   `protect:"personal"`
		_    struct{} `protect:"index=exact:f,of=name+fax"`
	}](opts)
	check(err, "name+fax", `"fax"`)
	_, err = encrypt.NewCodec[*struct {
		Name string   `protect:"personal"`
		Age  int      `protect:"personal"`
		_    struct{} `protect:"index=exact:f,of=name+age"`
	}](opts)
	check(err, "name+age", `"age"`)
	_, err = encrypt.NewCodec[*struct {
		Name  string   `protect:"personal"`
		Stage string   `protect:"internal"`
		_     struct{} `protect:"index=exact:f,of=name+stage"`
	}](opts)
	check(err, "name+stage", `"stage"`, "clear column")
	_, err = encrypt.NewCodec[*struct {
		Name, Phone string   `protect:"personal"`
		_           struct{} `protect:"index=exact:nope,of=name+phone"`
	}](opts)
	check(err, "name+phone", "nope")
	_, err = encrypt.NewCodec[*struct {
		Name  string   `protect:"personal"`
		Phone string   `protect:"personal"`
		_     struct{} `protect:"index=exact:f,of=name+phone"`
		_     struct{} `protect:"unique=exact:f,of=name+phone"`
	}](opts)
	check(err, "name+phone", "twice")
	_, err = encrypt.NewCodec[*struct {
		Name  string   `protect:"personal"`
		Phone string   `protect:"personal"`
		_     struct{} `protect:"unique=exact:f:20,of=name+phone"`
	}](opts)
	check(err, "field _", "unique")
}

func TestPlan(t *testing.T) {
	type exact10 struct {
		V string `protect:"personal,index=exact:f:10"`
	}
	// The bounds as their sources give them, computed by hand. CipherSweet: 2 <= R/2^L < sqrt(R).
	// AWS: sqrt(X) < 2^N < X/2. With one index and as many values as records the tighter ones decide:
	// 2^N > sqrt(R), 2^N < R/2.
	plan10 := func(population int) error {
		c, err := encrypt.NewCodec[*exact10](&encrypt.CodecOptions{Normalizers: onlyFolded})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Plan(population)
		return err
	}
	for _, tc := range []struct {
		population int
		fits       bool
	}{
		{1, false}, {100, false},
		{2047, false}, // less than 2 records to a token
		{2048, false}, // exactly 2^N = X/2
		{2049, true},  // the smallest population for ten bits
		{100_000, true},
		{1_000_000, true},
		{1024*1024 - 1, true},
		{1024 * 1024, false}, // a token stands for sqrt(R) records
		{10_000_000, false},
	} {
		if err := plan10(tc.population); (err == nil) != tc.fits {
			t.Errorf("10 bits, %d records: %v", tc.population, err)
		} else if err != nil && !strings.Contains(err.Error(), "field v, index exact:f") {
			t.Errorf("the error does not name the index: %v", err)
		}
	}
	if err := plan10(0); err == nil {
		t.Error("a population of nobody")
	}
	plan := func(leaks []encrypt.Index, err error) ([]encrypt.Index, error) { return leaks, err }
	compile := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Ten thousand possible ends of a number, whatever the population.
	{
		type s9 struct {
			V string `protect:"personal,index=suffix4:f:9"`
		}
		type s10 struct {
			V string `protect:"personal,index=suffix4:f:10"`
		}
		type s12 struct {
			V string `protect:"personal,index=suffix4:f:12"`
		}
		type s13 struct {
			V string `protect:"personal,index=suffix4:f:13"`
		}
		opts := &encrypt.CodecOptions{Normalizers: onlyFolded}
		c9, err := encrypt.NewCodec[*s9](opts)
		compile(err)
		c10, err := encrypt.NewCodec[*s10](opts)
		compile(err)
		c12, err := encrypt.NewCodec[*s12](opts)
		compile(err)
		c13, err := encrypt.NewCodec[*s13](opts)
		compile(err)
		if _, err := c9.Plan(1_000_000); err == nil {
			t.Error("9 bits of a million: 1,953 records to a token")
		}
		for i, f := range []func(int) ([]encrypt.Index, error){c10.Plan, c12.Plan} {
			got, err := plan(f(1_000_000))
			if err != nil || len(got) != 1 || got[0].Values != 10_000 || got[0].Shows != "" || got[0].Kind+":"+got[0].Normalizer != "suffix4:f" {
				t.Errorf("%d: %+v, %v", i, got, err)
			}
		}
		if got, err := c10.Plan(1_000_000); err != nil || got[0].Candidates < 976 || got[0].Candidates > 977 {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := c13.Plan(1_000_000); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("13 bits of ten thousand values: %v", err)
		}
	}
	// The bits of all cut indexes of a field count together.
	{
		type two struct {
			V string `protect:"personal,index=exact:f:11,index=suffix4:f:9"`
		}
		c, err := encrypt.NewCodec[*two](&encrypt.CodecOptions{Normalizers: onlyFolded})
		compile(err)
		if _, err := c.Plan(1_000_000); err == nil || !strings.Contains(err.Error(), "20 bits together") {
			t.Errorf("two indexes of 20 bits: %v", err)
		}
		if _, err := c.Plan(3_000_000); err != nil { // 2.86 records to a token
			t.Error(err)
		}
	}
	// What is not cut must be admitted.
	{
		type silent struct {
			V string `protect:"personal,index=exact:f"`
		}
		type admitted struct {
			V string `protect:"personal,index=exact:f,leaks=equality"`
		}
		type repeating struct {
			V string `protect:"personal,index=exact:f,leaks=equality,distinct=4000"`
		}
		type ends struct {
			V string `protect:"personal,index=suffix4:f,leaks=equality"`
		}
		type pieces struct {
			V string `protect:"personal,index=ngram:f,leaks=equality"`
		}
		type named struct {
			V string `protect:"personal,index=ngram:f,index=exact:f,leaks=fragments"`
		}
		type joint struct {
			A string   `protect:"personal,leaks=equality"`
			B string   `protect:"personal"`
			_ struct{} `protect:"index=exact:f,of=a+b"`
		}
		type coarse struct {
			A string   `protect:"personal,index=exact:f:10,leaks=equality,distinct=4000"`
			B string   `protect:"personal"`
			_ struct{} `protect:"index=exact:f,of=a+b"`
		}
		opts := &encrypt.CodecOptions{Normalizers: onlyFolded}
		c1, err := encrypt.NewCodec[*silent](opts)
		compile(err)
		c2, err := encrypt.NewCodec[*admitted](opts)
		compile(err)
		c3, err := encrypt.NewCodec[*repeating](opts)
		compile(err)
		c4, err := encrypt.NewCodec[*ends](opts)
		compile(err)
		c5, err := encrypt.NewCodec[*pieces](opts)
		compile(err)
		c6, err := encrypt.NewCodec[*named](opts)
		compile(err)
		c7, err := encrypt.NewCodec[*joint](opts)
		compile(err)
		c8, err := encrypt.NewCodec[*coarse](opts)
		compile(err)
		for _, tc := range []struct {
			plan  func(int) ([]encrypt.Index, error)
			want  string // of the error; "" = it fits
			shows []string
		}{
			{c1.Plan, "say leaks=equality, or cut it", []string{"equality"}},
			{c2.Plan, "", []string{"equality"}},
			{c3.Plan, "values that repeat", []string{"equality"}},
			{c4.Plan, "values that repeat", []string{"equality"}},
			{c5.Plan, "say leaks=fragments", []string{"fragments"}},
			{c6.Plan, "", []string{"fragments", "equality"}},
			{c7.Plan, "", []string{"equality"}},
			{c8.Plan, "", []string{"", "equality"}}, // values of a+b hardly repeat, whatever those of a do
		} {
			got, err := tc.plan(100_000)
			var shows []string
			for _, l := range got {
				shows = append(shows, l.Shows)
			}
			if !slices.Equal(shows, tc.shows) || (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%+v, %v; want %q and %q", got, err, tc.shows, tc.want)
			}
		}
		if got, err := c2.Plan(1_000_000); err != nil || got[0].Candidates != 1 || got[0].Bits != 64 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

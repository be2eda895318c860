package recovery_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/records"
	"github.com/crmguard/crmguard/authz/authn/recovery"
)

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func open(t testing.TB, store recovery.Store, keys ...[]byte) *recovery.Codes {
	t.Helper()
	c, err := recovery.New(store, keys[0], keys[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func generate(t testing.TB, c *recovery.Codes, account string) []string {
	t.Helper()
	codes, err := c.Generate(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

func refused(t testing.TB, c *recovery.Codes, what, account, code string, want error) {
	t.Helper()
	if left, err := c.Use(t.Context(), account, code); !errors.Is(err, want) || left != 0 {
		t.Errorf("%s: %d, %v", what, left, err)
	} else if len(code) > 3 && strings.Contains(err.Error(), code) {
		t.Errorf("%s: the code is in the error", what)
	}
}

func TestOnce(t *testing.T) {
	store := records.Of(&records.Memory{}, "recovery")
	c := open(t, store, secret(1))
	refused(t, c, "none at all", "a", "0000-0000-0000-0000", recovery.ErrWrong)
	codes, shape := generate(t, c, "a"), regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){5}[0-9A-HJKMNP-TV-Z]{4}$`)
	stored, _ := store.Load(t.Context(), "a")
	seen := map[string]bool{}
	for _, code := range codes {
		if !shape.MatchString(code) || seen[code] || bytes.Contains(stored, []byte(strings.ReplaceAll(code, "-", ""))) {
			t.Errorf("%s", code)
		}
		seen[code] = true
		refused(t, c, "of another account", "b", code, recovery.ErrWrong)
	}
	if len(codes) != recovery.Count {
		t.Fatalf("%d codes", len(codes))
	}
	for i, code := range codes {
		switch i {
		case 1:
			code = strings.ToLower(code)
		case 2:
			code = strings.ReplaceAll(code, "-", "")
		case 3:
			code = " " + strings.ReplaceAll(strings.ReplaceAll(code, "0", "o"), "1", "l") + " "
		}
		if left, err := c.Use(t.Context(), "a", code); err != nil || left != recovery.Count-1-i {
			t.Errorf("%d: %d, %v", i, left, err)
		}
		for range 2 {
			refused(t, c, "used", "a", code, recovery.ErrWrong)
		}
		if left, err := c.Left(t.Context(), "a"); err != nil || left != recovery.Count-1-i {
			t.Errorf("%d, %v", left, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	c := open(t, records.Of(&records.Memory{}, "recovery"), secret(1))
	code := generate(t, c, "a")[0]
	for what, bad := range map[string]string{
		"empty": "", "short": code[:18], "long": code + "0", "another letter": "U" + code[1:], "not ASCII": "é" + code[1:],
		"huge": strings.Repeat(code, 100_000), "other": "\x00" + code, "changed": strings.Map(func(r rune) rune {
			if r == '-' {
				return r
			}
			return '7'
		}, code),
	} {
		refused(t, c, what, "a", bad, recovery.ErrWrong)
	}
	refused(t, c, "no account", "", code, recovery.ErrWrong)
	refused(t, c, "an account too long", strings.Repeat("a", 1025), code, recovery.ErrWrong)
	for _, account := range []string{"", strings.Repeat("a", 1025)} {
		if _, err := c.Generate(t.Context(), account); err == nil {
			t.Error("no account: no error")
		}
	}
	for what, keys := range map[string][][]byte{"short": {secret(1)[:31]}, "old": {secret(1), nil}} {
		if _, err := recovery.New(records.Of(&records.Memory{}, "r"), keys[0], keys[1:]...); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := recovery.New(nil, secret(1)); err == nil {
		t.Error("no store: no error")
	}
}

func TestReplaced(t *testing.T) {
	store := records.Of(&records.Memory{}, "recovery")
	c := open(t, store, secret(1))
	old := generate(t, c, "a")
	fresh := generate(t, c, "a")
	refused(t, c, "replaced", "a", old[0], recovery.ErrWrong)
	if _, err := open(t, store, secret(2), secret(1)).Use(t.Context(), "a", fresh[0]); err != nil {
		t.Errorf("under the older key: %v", err)
	}
	refused(t, open(t, store, secret(2)), "without its key", "a", fresh[1], recovery.ErrRecord)
	for range 2 {
		if err := c.Remove(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	refused(t, c, "removed", "a", fresh[1], recovery.ErrWrong)
}

// TestForged: a record that was moved opens nothing; one that was cut or written by hand is an error.
func TestForged(t *testing.T) {
	store := records.Of(&records.Memory{}, "recovery")
	c := open(t, store, secret(1))
	codes := generate(t, c, "a")
	stored, _ := store.Load(t.Context(), "a")
	more := append(bytes.Clone(stored), make([]byte, 32)...)
	more[5]++
	for account, r := range map[string][]byte{
		"cut": stored[:len(stored)-1], "longer": append(bytes.Clone(stored), 0), "head": stored[:3], "later": append([]byte{2}, stored[1:]...), "eleven": more,
	} {
		store.Swap(t.Context(), account, nil, r)
		refused(t, c, account, account, codes[0], recovery.ErrRecord)
		if _, err := c.Left(t.Context(), account); !errors.Is(err, recovery.ErrRecord) {
			t.Error(err)
		}
	}
	store.Swap(t.Context(), "moved", nil, stored)
	refused(t, c, "moved", "moved", codes[0], recovery.ErrWrong)
}

// TestParallel: of a hundred uses of one code one succeeds; of ten codes at once all do.
func TestParallel(t *testing.T) {
	store := records.Of(&records.Memory{}, "recovery")
	a, b := open(t, store, secret(1)), open(t, store, secret(1)) // as in two processes
	codes := generate(t, a, "a")
	var used atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if _, err := []*recovery.Codes{a, b}[i%2].Use(t.Context(), "a", codes[0]); err == nil {
				used.Add(1)
			} else if !errors.Is(err, recovery.ErrWrong) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if used.Load() != 1 {
		t.Errorf("%d uses", used.Load())
	}
	for _, code := range codes[1:] {
		all.Go(func() {
			if _, err := a.Use(t.Context(), "a", code); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if left, err := a.Left(t.Context(), "a"); left != 0 || err != nil {
		t.Error(left, err)
	}
}

// stubborn is a store whose records always change, or that is away.
type stubborn struct {
	recovery.Store
	err error
}

func (s stubborn) Swap(context.Context, string, []byte, []byte) (bool, error) { return false, s.err }

func TestStoreFails(t *testing.T) {
	store, away := records.Of(&records.Memory{}, "recovery"), errors.New("away")
	codes := generate(t, open(t, store, secret(1)), "a")
	for give, want := range map[error]error{away: away, nil: recovery.ErrConflict} {
		c := open(t, stubborn{store, give}, secret(1))
		refused(t, c, "use", "a", codes[0], want)
		if _, err := c.Generate(t.Context(), "a"); !errors.Is(err, want) {
			t.Error(err)
		}
		if err := c.Remove(t.Context(), "a"); !errors.Is(err, want) {
			t.Error(err)
		}
	}
}

// golden is a record of version 1, as it was when the version was fixed.
func golden(t testing.TB) (account string, key, record []byte, codes []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/record-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			lines[name] = value
		}
	}
	key, err = hex.DecodeString(lines["key"])
	if err != nil {
		t.Fatal(err)
	}
	if record, err = hex.DecodeString(lines["record"]); err != nil {
		t.Fatal(err)
	}
	return lines["account"], key, record, strings.Fields(lines["codes"])
}

// TestGolden: the golden record, of a set whose codes had 80 bits, is read as it was, with its first code used already.
func TestGolden(t *testing.T) {
	account, key, record, codes := golden(t)
	store := records.Of(&records.Memory{}, "recovery")
	if _, err := store.Swap(t.Context(), account, nil, record); err != nil {
		t.Fatal(err)
	}
	c := open(t, store, key)
	refused(t, c, "used", account, codes[0], recovery.ErrWrong)
	for i, code := range codes[1:] {
		if left, err := c.Use(t.Context(), account, code); err != nil || left != len(codes)-2-i {
			t.Errorf("%d: %d, %v", i, left, err)
		}
	}
}

// FuzzUse: nothing but a code of the record is taken, whatever is typed and stored.
func FuzzUse(f *testing.F) {
	account, key, stored, codes := golden(f)
	plain := func(s string) string {
		return strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(s))
	}
	f.Add(codes[1], stored)
	f.Add(strings.ToLower(plain(codes[2])), stored)
	f.Add("", []byte{1})
	f.Add("ooooiiiillllOOOO", stored[:7])
	f.Fuzz(func(t *testing.T, code string, record []byte) {
		if len(record) == 0 {
			return
		}
		store := records.Of(&records.Memory{}, "recovery")
		if _, err := store.Swap(t.Context(), account, nil, record); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, store, key).Use(t.Context(), account, code); err == nil && !slices.ContainsFunc(codes[1:], func(c string) bool { return plain(c) == plain(code) }) {
			t.Errorf("%q is taken", code)
		}
	})
}

func ExampleCodes() {
	ctx := context.Background()
	c, err := recovery.New(records.Of(&records.Memory{}, "recovery"), secret(7))
	if err != nil {
		panic(err)
	}
	codes, err := c.Generate(ctx, "01a2") // to be printed by the person
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Use(ctx, "01a2", codes[4]))
	fmt.Println(c.Use(ctx, "01a2", codes[4]))
	// Output:
	// 9 <nil>
	// 0 recovery: wrong code
}

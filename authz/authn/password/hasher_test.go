package password_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/keyring"
	"github.com/crmguard/crmguard/authz/authn/password"
)

const right = "correct horse battery staple"

// cheap hashes in well under a millisecond.
var cheap = password.Params{Memory: 64, Time: 1, Threads: 1}

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func ring(t testing.TB, keys ...[]byte) *keyring.Keyring {
	t.Helper()
	k, err := keyring.New(keys[0], keys[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func hasher(t testing.TB, s password.Sealer, o password.Options) *password.Hasher {
	t.Helper()
	if o.Params == (password.Params{}) {
		o.Params = cheap
	}
	o.InsecureParams = true
	h, err := password.New(t.Context(), s, &o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func hash(t testing.TB, h *password.Hasher, account, pw string) []byte {
	t.Helper()
	r, err := h.Hash(t.Context(), account, pw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerify(t *testing.T) {
	h := hasher(t, ring(t, secret(1)), password.Options{})
	record := hash(t, h, "a1", right)
	if again := hash(t, h, "a1", right); bytes.Equal(again, record) {
		t.Error("two hashes of one password are equal")
	}
	if renewed, err := h.Verify(t.Context(), "a1", record, right); err != nil || renewed != nil {
		t.Errorf("%x, %v", renewed, err)
	}
	changed := bytes.Clone(record)
	changed[len(changed)-1] ^= 1
	for what, c := range map[string]struct {
		account string
		record  []byte
		pw      string
		want    error
	}{
		"another password":     {"a1", record, right + "r", password.ErrWrong},
		"another case":         {"a1", record, strings.ToUpper(right), password.ErrWrong},
		"a space more":         {"a1", record, right + " ", password.ErrWrong},
		"empty":                {"a1", record, "", password.ErrWrong},
		"too long":             {"a1", record, strings.Repeat("a", password.MaxBytes+1), password.ErrWrong},
		"not UTF-8":            {"a1", record, "\xff" + right, password.ErrWrong},
		"unknown account":      {"a2", nil, right, password.ErrWrong},
		"no account, no hash":  {"", nil, right, password.ErrWrong},
		"no account":           {"", record, right, password.ErrWrong},
		"a moved hash":         {"a2", record, right, password.ErrRecord},
		"a changed hash":       {"a1", changed, right, password.ErrRecord},
		"a cut hash":           {"a1", record[:20], right, password.ErrRecord},
		"an empty hash":        {"a1", []byte{}, right, password.ErrRecord},
		"of a later version":   {"a1", append([]byte{2}, record[1:]...), right, password.ErrRecord},
		"something else":       {"a1", []byte("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"), right, password.ErrRecord},
		"an account too long":  {strings.Repeat("a", 1025), record, right, password.ErrWrong},
		"a hash without a key": {"a1", hash(t, hasher(t, ring(t, secret(9)), password.Options{}), "a1", right), right, password.ErrRecord},
	} {
		renewed, err := h.Verify(t.Context(), c.account, c.record, c.pw)
		if !errors.Is(err, c.want) || renewed != nil {
			t.Errorf("%s: %x, %v", what, renewed, err)
		}
		if err != nil && c.pw != "" && strings.Contains(err.Error(), c.pw) {
			t.Errorf("%s: the error holds the password", what)
		}
	}
	for what, c := range map[string]struct{ account, pw string }{
		"no account": {"", right}, "account too long": {strings.Repeat("a", 1025), right}, "not UTF-8": {"a1", "\xff"},
		"too long": {"a1", strings.Repeat("a", password.MaxBytes+1)}, "a NUL": {"a1", "a\x00b"}, "not assigned": {"a1", "a\U000e0fffb"},
	} {
		if r, err := h.Hash(t.Context(), c.account, c.pw); err == nil || r != nil || strings.Contains(err.Error(), c.pw) {
			t.Errorf("%s: %x, %v", what, r, err)
		}
	}
}

// TestNormalised: one password, typed on devices that compose characters or do not.
func TestNormalised(t *testing.T) {
	h := hasher(t, ring(t, secret(1)), password.Options{})
	record := hash(t, h, "a", "Zu\u0308rich, caf\u00e9 \u1100\u1161")
	if _, err := h.Verify(t.Context(), "a", record, "Z\u00fcrich, cafe\u0301 \uac00"); err != nil {
		t.Error(err)
	}
	for _, other := range []string{"Zurich, cafe \uac00", "\uff3a\u00fcrich, caf\u00e9 \uac00", "z\u00fcrich, caf\u00e9 \uac00"} { // NFKC and case do not count
		if _, err := h.Verify(t.Context(), "a", record, other); !errors.Is(err, password.ErrWrong) {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// TestRenewed: a record with old parameters or under an old key is replaced by one that verifies, and not replaced
// again.
func TestRenewed(t *testing.T) {
	dear := password.Params{Memory: 128, Time: 2, Threads: 1}
	old := hasher(t, ring(t, secret(1)), password.Options{})
	record := hash(t, old, "a", right)
	for what, h := range map[string]*password.Hasher{
		"parameters":          hasher(t, ring(t, secret(1)), password.Options{Params: dear, Old: []password.Params{cheap, cheap, dear}}),
		"parameters unlisted": hasher(t, ring(t, secret(1)), password.Options{Params: dear}),
		"key":                 hasher(t, ring(t, secret(2), secret(1)), password.Options{}),
		"both":                hasher(t, ring(t, secret(2), secret(1)), password.Options{Params: dear, Old: []password.Params{cheap}}),
	} {
		if renewed, err := h.Verify(t.Context(), "a", record, "wrong "+right); !errors.Is(err, password.ErrWrong) || renewed != nil {
			t.Errorf("%s: %x, %v", what, renewed, err)
		}
		renewed, err := h.Verify(t.Context(), "a", record, right)
		if err != nil || renewed == nil {
			t.Fatalf("%s: %x, %v", what, renewed, err)
		}
		if again, err := h.Verify(t.Context(), "a", renewed, right); err != nil || again != nil {
			t.Errorf("%s: %x, %v", what, again, err)
		}
		if _, err := h.Verify(t.Context(), "a", renewed, "wrong "+right); !errors.Is(err, password.ErrWrong) {
			t.Errorf("%s: %v", what, err)
		}
	}
	key := hasher(t, ring(t, secret(2), secret(1)), password.Options{})
	renewed, _ := key.Verify(t.Context(), "a", record, right)
	if _, err := hasher(t, ring(t, secret(2)), password.Options{}).Verify(t.Context(), "a", renewed, right); err != nil {
		t.Errorf("without the old key: %v", err)
	}
}

// faulty is a keyring that stops.
type faulty struct {
	*keyring.Keyring
	away  atomic.Bool
	opens atomic.Int64
}

var errAway = errors.New("away")

func (f *faulty) Seal(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if f.away.Load() {
		return nil, errAway
	}
	return f.Keyring.Seal(ctx, plaintext, ad)
}

func (f *faulty) Open(ctx context.Context, sealed, ad []byte) ([]byte, bool, error) {
	f.opens.Add(1)
	if f.away.Load() {
		return nil, false, errAway
	}
	return f.Keyring.Open(ctx, sealed, ad)
}

func TestSealerAway(t *testing.T) {
	f := &faulty{Keyring: ring(t, secret(1))}
	h := hasher(t, f, password.Options{})
	record := hash(t, h, "a", right)
	before := f.opens.Load()
	for _, r := range [][]byte{record, nil} { // one opening each: for an unknown account too
		h.Verify(t.Context(), "a", r, right)
	}
	if n := f.opens.Load() - before; n != 2 {
		t.Errorf("%d openings", n)
	}
	f.away.Store(true)
	if _, err := h.Verify(t.Context(), "a", record, right); !errors.Is(err, errAway) || errors.Is(err, password.ErrWrong) {
		t.Errorf("known: %v", err)
	}
	if _, err := h.Verify(t.Context(), "b", nil, right); !errors.Is(err, password.ErrWrong) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := h.Hash(t.Context(), "a", right); !errors.Is(err, errAway) {
		t.Error(err)
	}
	if _, err := password.New(t.Context(), f, nil); !errors.Is(err, errAway) {
		t.Error(err)
	}
	f.away.Store(false)
	if _, err := h.Verify(t.Context(), "a", record, right); err != nil {
		t.Error(err)
	}
}

// TestPatient: fifty at once through one place all get their turn.
func TestPatient(t *testing.T) {
	h := hasher(t, ring(t, secret(1)), password.Options{Concurrent: 1, Wait: time.Minute})
	record := hash(t, h, "a", right)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := h.Verify(t.Context(), "a", record, right); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestOptions(t *testing.T) {
	k := ring(t, secret(1))
	for what, o := range map[string]password.Options{
		"little memory":     {Params: password.Params{Memory: 19<<10 - 1, Time: 2, Threads: 1}},
		"one pass":          {Params: password.Params{Memory: 64 << 10, Time: 1, Threads: 1}},
		"no lane":           {Params: password.Params{Memory: 64 << 10, Time: 2}},
		"too much memory":   {Params: password.Params{Memory: 5 << 20, Time: 2, Threads: 1}},
		"too many passes":   {Params: password.Params{Memory: 64 << 10, Time: 65, Threads: 1}},
		"impossible":        {Params: password.Params{Memory: 7, Time: 2, Threads: 1}, InsecureParams: true},
		"old is impossible": {Old: []password.Params{{}}},
		"negative":          {Concurrent: -1},
		"negative wait":     {Wait: -1},
	} {
		if _, err := password.New(t.Context(), k, &o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := password.New(t.Context(), nil, nil); err == nil {
		t.Error("no sealer: no error")
	}
}

// TestGolden: a record of version 1, as it was when the version was fixed, still verifies.
func TestGolden(t *testing.T) {
	lines := golden(t, "testdata/record-v1.txt")
	record, err := hex.DecodeString(lines["record"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(lines["key"])
	if err != nil {
		t.Fatal(err)
	}
	h := hasher(t, ring(t, key), password.Options{Params: password.Floor()})
	if renewed, err := h.Verify(t.Context(), lines["account"], record, lines["password"]); err != nil || renewed != nil {
		t.Errorf("%x, %v", renewed, err)
	}
	if _, err := h.Verify(t.Context(), lines["account"]+"x", record, lines["password"]); !errors.Is(err, password.ErrRecord) {
		t.Error(err)
	}
	if _, err := h.Verify(t.Context(), lines["account"], record, lines["password"]+"x"); !errors.Is(err, password.ErrWrong) {
		t.Error(err)
	}
}

// golden reads lines of "name: value".
func golden(t testing.TB, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			lines[name] = value
		}
	}
	return lines
}

// FuzzRecord: no bytes but the record's verify, and none panic.
func FuzzRecord(f *testing.F) {
	lines := golden(f, "testdata/record-v1.txt")
	record, err := hex.DecodeString(lines["cheap"])
	if err != nil {
		f.Fatal(err)
	}
	key, err := hex.DecodeString(lines["key"])
	if err != nil {
		f.Fatal(err)
	}
	h := hasher(f, ring(f, key), password.Options{})
	if _, err := h.Verify(f.Context(), lines["account"], record, lines["password"]); err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte{1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := h.Verify(t.Context(), lines["account"], b, lines["password"]); err == nil && !bytes.Equal(b, record) {
			t.Errorf("%x verifies", b)
		}
	})
}

func ExampleHasher() {
	ctx := context.Background()
	keys, err := keyring.New(secret(7)) // from a file of mode 0600
	if err != nil {
		panic(err)
	}
	h, err := password.New(ctx, keys, nil)
	if err != nil {
		panic(err)
	}
	record, err := h.Hash(ctx, "01a2", "correct horse battery staple")
	if err != nil {
		panic(err)
	}
	_, err = h.Verify(ctx, "01a2", record, "correct horse battery staple")
	fmt.Println(err)
	_, err = h.Verify(ctx, "01a2", record, "Tr0ub4dor&3")
	fmt.Println(err)
	_, err = h.Verify(ctx, "nobody", nil, "correct horse battery staple") // as long, and the same answer
	fmt.Println(err)
	// Output:
	// <nil>
	// password: wrong
	// password: wrong
}

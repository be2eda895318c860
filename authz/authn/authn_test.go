package authn_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/authz/authn"
)

var all = []authn.Method{
	authn.Password, authn.TOTP, authn.Passkey, authn.Recovery, authn.SMS, authn.Email, authn.OIDC, authn.Certificate,
}

// TestLevels: a password with something held, or a passkey, is two factors; two of one kind are one.
//
//crm:item 28 partly
func TestLevels(t *testing.T) {
	type set = []authn.Method
	for _, c := range []struct {
		methods set
		want    authn.Level
	}{
		{nil, authn.NoLevel},
		{set{authn.Email}, authn.NoLevel},
		{set{"fingerprint", ""}, authn.NoLevel},
		{set{authn.Password}, authn.AAL1},
		{set{authn.Password, authn.Password}, authn.AAL1},
		{set{authn.Password, authn.Email}, authn.AAL1},
		{set{authn.Password, authn.OIDC}, authn.AAL1},
		{set{authn.Password, "TOTP"}, authn.AAL1},
		{set{authn.TOTP}, authn.AAL1},
		{set{authn.TOTP, authn.SMS, authn.Recovery, authn.Certificate}, authn.AAL1}, // all of one kind
		{set{authn.OIDC, authn.TOTP}, authn.AAL1},
		{set{authn.Certificate}, authn.AAL1},
		{set{authn.Password, authn.TOTP}, authn.AAL2},
		{set{authn.TOTP, authn.Password}, authn.AAL2},
		{set{authn.Password, authn.Recovery}, authn.AAL2},
		{set{authn.Password, authn.SMS}, authn.AAL2},
		{set{authn.Password, authn.Certificate}, authn.AAL2},
		{set{authn.Passkey}, authn.AAL2},
	} {
		if got := authn.LevelOf(c.methods...); got != c.want {
			t.Errorf("%v reach %v, want %v", c.methods, got, c.want)
		}
	}
	for level, want := range map[authn.Level]string{authn.NoLevel: "none", authn.AAL1: "AAL1", authn.AAL2: "AAL2", 3: "invalid"} {
		if level.String() != want {
			t.Errorf("%d is %q", level, level)
		}
	}
}

func TestMethods(t *testing.T) {
	for _, m := range all {
		if got, err := authn.ParseMethod(string(m)); err != nil || got != m {
			t.Errorf("%q: %q, %v", m, got, err)
		}
		if m.Weak() != (m == authn.SMS || m == authn.Email) {
			t.Errorf("%q: weak %v", m, m.Weak())
		}
	}
	for _, name := range []string{"", "Password", "password ", "magic-link"} {
		if m, err := authn.ParseMethod(name); err == nil || m != "" || name != "" && strings.Contains(err.Error(), name) {
			t.Errorf("%q: %q, %v", name, m, err)
		}
	}
}

// TestOneAnswer: however a refusal is printed, compared or wrapped, its reason does not show.
func TestOneAnswer(t *testing.T) {
	secret := errors.New("no account of that name")
	refused, other := authn.Refuse(secret), authn.Refuse(nil)
	for _, err := range []error{refused, other, authn.Refuse(refused), authn.Refuse(fmt.Errorf("sign in: %w", refused))} {
		if !errors.Is(err, authn.ErrRefused) || errors.Is(err, secret) || errors.Unwrap(err) != nil {
			t.Errorf("%v is not the one answer", err)
		}
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "err", err)
		for _, text := range []string{err.Error(), fmt.Sprintf("%v %+v %#v %s %q", err, err, err, err, err), log.String()} {
			if strings.Contains(text, "account") || !strings.Contains(text, "authn: refused") {
				t.Errorf("printed as %s", text)
			}
		}
	}
	for _, err := range []error{refused, authn.Refuse(refused), fmt.Errorf("wrapped: %w", refused)} {
		if !errors.Is(authn.Reason(err), secret) {
			t.Errorf("the reason of %v is %v", err, authn.Reason(err))
		}
	}
	for _, err := range []error{nil, secret, other, authn.ErrRefused} {
		if got := authn.Reason(err); !errors.Is(got, err) {
			t.Errorf("the reason of %v, which has none, is %v", err, got)
		}
	}
}

func ExampleRefuse() {
	err := authn.Refuse(errors.New("totp: code used before"))
	fmt.Println("answer:", err, errors.Is(err, authn.ErrRefused))
	fmt.Println("log:", authn.Reason(err))
	// Output:
	// answer: authn: refused true
	// log: totp: code used before
}

func ExampleLevelOf() {
	fmt.Println(authn.LevelOf(authn.Password), authn.LevelOf(authn.Password, authn.TOTP), authn.LevelOf(authn.Passkey))
	// Output: AAL1 AAL2 AAL2
}

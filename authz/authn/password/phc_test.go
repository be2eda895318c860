package password_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/crmguard/crmguard/authz/authn/keyring"
	"github.com/crmguard/crmguard/authz/authn/password"
)

func phc(text string, memory, passes uint32) string {
	salt := bytes.Repeat([]byte{7}, 16)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=1$%s$%s", memory, passes, b64.EncodeToString(salt),
		b64.EncodeToString(argon2.IDKey([]byte(text), salt, passes, memory, 1, 32)))
}

// TestImport: a hash of another program verifies, for its account only, and is renewed when its parameters are not today's.
func TestImport(t *testing.T) {
	ctx := t.Context()
	ring, err := keyring.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	h, err := password.New(ctx, ring, &password.Options{Params: password.Params{Memory: 64, Time: 1, Threads: 1}, InsecureParams: true})
	if err != nil {
		t.Fatal(err)
	}
	const text = "an old password of mine"
	for name, c := range map[string]struct {
		memory, passes uint32
		renewed        bool
	}{"same parameters": {64, 1, false}, "older ones": {128, 2, true}} {
		rec, err := h.Import(ctx, "a", phc(text, c.memory, c.passes))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		renewed, err := h.Verify(ctx, "a", rec, text)
		if err != nil || (renewed != nil) != c.renewed {
			t.Errorf("%s: renewed %v, %v", name, renewed != nil, err)
		}
		if _, err := h.Verify(ctx, "a", rec, text+"x"); !errors.Is(err, password.ErrWrong) {
			t.Errorf("%s, wrong: %v", name, err)
		}
		if _, err := h.Verify(ctx, "b", rec, text); !errors.Is(err, password.ErrRecord) {
			t.Errorf("%s, moved: %v", name, err)
		}
	}
}

// TestImportRefuses what is no such string, without repeating it.
func TestImportRefuses(t *testing.T) {
	ctx := t.Context()
	ring, err := keyring.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	h, err := password.New(ctx, ring, nil)
	if err != nil {
		t.Fatal(err)
	}
	good := phc("secret", 64, 1)
	for name, bad := range map[string]string{
		"empty": "", "bcrypt": "$2b$12$abcdefghijklmnopqrstuv", "argon2i": strings.Replace(good, "argon2id", "argon2i", 1),
		"version": strings.Replace(good, "v=19", "v=16", 1), "no passes": strings.Replace(good, "t=1", "t=0", 1),
		"too much memory": strings.Replace(good, "m=64", "m=4294967295", 1), "more fields": good + "$x",
		"a word behind": strings.Replace(good, "p=1", "p=1,x=2", 1), "short hash": good[:len(good)-4], "padding": good + "=",
		"sign": strings.Replace(good, "m=64", "m=+64", 1),
	} {
		_, err := h.Import(ctx, "a", bad)
		if !errors.Is(err, password.ErrPHC) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.Import(ctx, "", good); err == nil {
		t.Error("no account")
	}
}

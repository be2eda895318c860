package keyring_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/keyring"
)

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func open(t testing.TB, keys ...[]byte) *keyring.Keyring {
	t.Helper()
	k, err := keyring.New(keys[0], keys[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRotation(t *testing.T) {
	old, both, fresh := open(t, secret(1)), open(t, secret(2), secret(1)), open(t, secret(2))
	sealed, err := old.Seal(t.Context(), []byte("text"), []byte("a"))
	if err != nil || len(sealed) != len("text")+keyring.Overhead || bytes.Contains(sealed, []byte("text")) {
		t.Fatalf("%x, %v", sealed, err)
	}
	again, err := both.Seal(t.Context(), []byte("text"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		k      *keyring.Keyring
		sealed []byte
		stale  bool
		want   error
	}{
		{old, sealed, false, nil}, {both, sealed, true, nil}, {both, again, false, nil}, {fresh, again, false, nil},
		{fresh, sealed, false, keyring.ErrSealed}, {old, again, false, keyring.ErrSealed},
	} {
		text, stale, err := c.k.Open(t.Context(), c.sealed, []byte("a"))
		if !errors.Is(err, c.want) || stale != c.stale || (err == nil) != (string(text) == "text") {
			t.Errorf("%q, %v, %v; want %v, %v", text, stale, err, c.stale, c.want)
		}
	}
}

// TestChanged: no changed, cut or lengthened byte opens, nor other associated data.
func TestChanged(t *testing.T) {
	k := open(t, secret(1))
	sealed, err := k.Seal(t.Context(), []byte("text"), []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, sealed, ad []byte) {
		t.Helper()
		if text, stale, err := k.Open(t.Context(), sealed, ad); !errors.Is(err, keyring.ErrSealed) || text != nil || stale {
			t.Errorf("%s: %q, %v, %v", what, text, stale, err)
		}
	}
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		refused(fmt.Sprintf("byte %d", i), b, []byte("a"))
		refused(fmt.Sprintf("cut at %d", i), sealed[:i], []byte("a"))
	}
	refused("longer", append(bytes.Clone(sealed), 0), []byte("a"))
	refused("no data", sealed, nil)
	refused("other data", sealed, []byte("b"))
}

func TestKeys(t *testing.T) {
	for what, keys := range map[string][][]byte{
		"none": {nil}, "short": {secret(1)[:31]}, "long": {append(secret(1), 1)}, "16 bytes": {secret(1)[:16]},
		"an old one is short": {secret(1), secret(2)[:8]}, "twice": {secret(1), secret(2), secret(1)},
	} {
		if _, err := keyring.New(keys[0], keys[1:]...); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

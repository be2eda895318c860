package once_test

import (
	"testing"

	"github.com/crmguard/crmguard/authz/authn/once"
	"github.com/crmguard/crmguard/authz/authn/once/oncetest"
)

func TestMemory(t *testing.T) {
	oncetest.TestStore(t, func(testing.TB) once.Store { return &once.Memory{} })
}

func TestKey(t *testing.T) {
	seen := map[[32]byte]string{}
	for _, parts := range [][]string{nil, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}} {
		key := once.Key(parts...)
		if was, ok := seen[key]; ok {
			t.Errorf("%q has the key of %s", parts, was)
		}
		seen[key] = joined(parts)
	}
	if first, second := once.Key("a"), once.Key("a"); first != second {
		t.Error("two keys of one secret")
	}
}

func joined(parts []string) (s string) {
	for _, p := range parts {
		s += "/" + p
	}
	return s
}

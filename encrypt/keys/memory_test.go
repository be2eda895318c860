package keys_test

import (
	"testing"

	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
)

func TestMemory(t *testing.T) {
	encrypttest.TestKeyStore(t, func(testing.TB) keys.Store { return keys.NewMemory() })
}

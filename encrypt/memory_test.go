package encrypt_test

import (
	"testing"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

func TestMemoryKeys(t *testing.T) {
	encrypttest.TestKeyStore(t, func(testing.TB) encrypt.KeyStore { return encrypt.NewMemoryKeys() })
}

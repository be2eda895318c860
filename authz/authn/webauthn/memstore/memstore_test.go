package memstore_test

import (
	"testing"

	"github.com/crmguard/crmguard/authz/authn/webauthn"
	"github.com/crmguard/crmguard/authz/authn/webauthn/memstore"
	"github.com/crmguard/crmguard/authz/authn/webauthn/webauthntest"
)

func TestStore(t *testing.T) {
	webauthntest.TestStore(t, func(testing.TB) webauthn.Store { return memstore.New() })
}

package memstore_test

import (
	"testing"

	"github.com/crmguard/crmguard/authz/authn/token"
	"github.com/crmguard/crmguard/authz/authn/token/memstore"
	"github.com/crmguard/crmguard/authz/authn/token/tokentest"
)

func TestStore(t *testing.T) {
	tokentest.TestStore(t, func(testing.TB) token.Store { return memstore.New() })
}

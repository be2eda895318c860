package memstore_test

import (
	"testing"

	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/session/memstore"
	"github.com/crmguard/crmguard/authz/authn/session/sessiontest"
)

func TestStore(t *testing.T) {
	sessiontest.TestStore(t, func(testing.TB) session.Store { return memstore.New() })
}

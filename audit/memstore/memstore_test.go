package memstore_test

import (
	"testing"

	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/driver"
	"github.com/crmguard/crmguard/audit/memstore"
)

func TestStore(t *testing.T) {
	audittest.TestStore(t, func(testing.TB) (driver.Store, func() driver.Store) { return memstore.New(), nil })
}

func TestQueries(t *testing.T) {
	audittest.TestQueries(t, func(testing.TB) (driver.Store, func() driver.Store) { return memstore.New(), nil })
}

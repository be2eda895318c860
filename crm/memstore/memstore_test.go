package memstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/memstore"
)

func TestStore(t *testing.T) {
	crmtest.TestStore(t, func(testing.TB) crm.Store { return memstore.New() })
}

func Example() {
	ctx := context.Background()
	store := memstore.New()
	if err := store.Declare(ctx, crmtest.Schema()); err != nil {
		panic(err)
	}
	_, err := store.Apply(ctx, crm.Batch{Writes: []crm.Write{{Row: crmtest.Row("default", 1)}}})
	if err != nil {
		panic(err)
	}
	_, err = store.Apply(ctx, crm.Batch{Writes: []crm.Write{{Row: crmtest.Row("default", 1)}}})
	fmt.Println(err)
	// Output: crm: write 0: crm: changed in the meantime
}

package records_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/crmguard/crmguard/authz/authn/records"
	"github.com/crmguard/crmguard/authz/authn/records/recordstest"
)

func TestMemory(t *testing.T) {
	recordstest.TestStore(t, func(testing.TB) records.Store { return &records.Memory{} })
}

func ExampleOf() {
	passwords := records.Of(&records.Memory{}, "password")
	ctx := context.Background()
	fmt.Println(passwords.Swap(ctx, "01a2", nil, []byte("a record")))
	fmt.Println(passwords.Swap(ctx, "01a2", nil, []byte("another")))
	// Output:
	// true <nil>
	// false <nil>
}

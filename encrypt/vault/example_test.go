package vault_test

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/vault"
)

// In a pod: the service account logs in, and each customer has a Transit key of their own.
func Example() {
	ctx := context.Background()
	kek, err := vault.Open(ctx, vault.Config{
		Key: "crm", Address: "https://vault.internal:8200", CACert: "/etc/vault/ca.pem", KubernetesRole: "crm",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer kek.Close()
	keeper, err := encrypt.NewKeeper(kek, keys.NewMemory(), &encrypt.Options{
		KEKFor: func(_ context.Context, tenant string) (keys.KEK, error) { return kek.ForKey("crm-" + tenant) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(keeper.KEKID())
}

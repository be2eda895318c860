package once_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"time"

	"github.com/crmguard/crmguard/authz/authn/once"
)

func Example() {
	ctx, now := context.Background(), time.Now()
	var store once.Memory
	secret := rand.Text() + rand.Text()
	if err := store.Put(ctx, once.Key("invitation", secret), []byte("ann"), now, now.Add(time.Hour)); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		value, err := store.Take(ctx, once.Key("invitation", secret), now)
		fmt.Printf("%s %v\n", value, err)
	}
	// Output:
	// ann <nil>
	//  once: unknown, expired, or taken already
}

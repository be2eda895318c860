package keys_test

import (
	"context"
	"fmt"
	"log"

	"github.com/crmguard/crmguard/encrypt/keys"
)

func ExampleMemory() {
	ctx, store := context.Background(), keys.NewMemory()
	epoch := keys.Record{ID: keys.ID{1}, Kind: keys.EpochKey, Version: 1, Wrapped: []byte("wrapped by a KEK")}
	person := keys.Record{
		ID: keys.ID{2}, Kind: keys.PersonKey, Person: [16]byte{7}, Retention: keys.Ordinary,
		Epoch: epoch.ID, Wrapped: []byte("wrapped by the epoch key"),
	}
	if err := store.Add(ctx, "acme", []keys.Record{epoch, person}); err != nil {
		log.Fatal(err)
	}
	number, err := store.Erase(ctx, "acme", []keys.Record{{ID: person.ID, Kind: keys.Tombstone, Retention: keys.Ordinary}})
	if err != nil {
		log.Fatal(err)
	}
	left, err := store.Find(ctx, "acme", keys.Query{IDs: []keys.ID{person.ID}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(left[0].Kind, number)
	// Output: tombstone 2
}

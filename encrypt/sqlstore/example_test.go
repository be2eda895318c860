package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
)

func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// modernc.org/sqlite; what is deleted must be overwritten.
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "keys.db")+"?_pragma=journal_mode(WAL)&_pragma=secure_delete(1)&_pragma=busy_timeout(5000)")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // one writer
	store, err := sqlstore.Open(ctx, db, "sqlite", nil)
	if err != nil {
		log.Fatal(err)
	}
	kek, err := localkek.Open(filepath.Join(dir, "kek"), nil) // in earnest: encrypt/vault
	if err != nil {
		log.Fatal(err)
	}
	keeper, err := encrypt.NewKeeper(kek, store, &encrypt.Options{Grace: -1})
	if err != nil {
		log.Fatal(err)
	}

	person := [16]byte{1}
	sealed, err := keeper.SealFor(ctx, "acme", person, "file", nil, []byte("a contract"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = keeper.Erase(ctx, "acme", person, nil)
	if errors.Is(err, keys.ErrTraces) {
		err = store.Clean(ctx) // erased, but a reader kept the old bytes of the key: try again later
	}
	if err != nil {
		log.Fatal(err)
	}
	_, err = keeper.OpenFor(ctx, "acme", person, "file", nil, sealed)
	fmt.Println(errors.Is(err, encrypt.ErrErased))
	// Output: true
}

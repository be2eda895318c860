package localkek_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "localkek")
	defer os.RemoveAll(dir)
	kek, _ := localkek.Open(filepath.Join(dir, "kek"), nil)

	old, _ := kek.Wrap(ctx, []byte("an epoch key"), []byte("acme"))
	kek.Rotate(ctx)
	epoch, _ := kek.Unwrap(ctx, old, []byte("acme")) // versions before still unwrap
	living, _ := kek.Wrap(ctx, epoch, []byte("acme"))

	kek.Trim(ctx, [][]byte{living}) // until they are ended
	_, err := kek.Unwrap(ctx, old, []byte("acme"))
	fmt.Println(errors.Is(err, keys.ErrRetired))
	// Output: true
}

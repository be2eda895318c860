package intake_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/intake"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "intake")
	defer os.RemoveAll(dir)
	kek, _ := localkek.Open(filepath.Join(dir, "kek"), nil)
	keeper, _ := encrypt.NewKeeper(kek, keys.NewMemory(), nil)

	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	box, _ := intake.NewBox("default", keeper, &intake.Memory{}, &intake.Options{Now: func() time.Time { return now }})
	public, _ := box.Public(ctx)
	config := public.Marshal() // to the host of the web form

	// The host can seal and never open.
	onHost, _ := intake.ParsePublic(config)
	entry, _ := onHost.Seal(now, []byte("form/contact/3"), []byte("please call me"))

	// The CRM opens it and seals it again under the person's key.
	text, err := box.Open(ctx, []byte("form/contact/3"), entry)
	fmt.Printf("%s %v\n", text, err)

	now = now.AddDate(0, 0, 9)
	swept, _ := box.Sweep(ctx)
	_, err = box.Open(ctx, []byte("form/contact/3"), entry)
	fmt.Println(swept, errors.Is(err, keys.ErrRetired))
	// Output:
	// please call me <nil>
	// 1 true
}

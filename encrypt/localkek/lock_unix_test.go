//go:build unix

package localkek_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/crmguard/crmguard/encrypt/localkek"
)

func TestRotationLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	k, err := localkek.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := k.Wrap(context.Background(), []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := k.Rotate(context.Background()); !errors.Is(err, localkek.ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	if err := k.Trim(context.Background(), [][]byte{w}); !errors.Is(err, localkek.ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	// The lock ends with the process that had it, however it ended; the file may stay.
	other.Close()
	if err := k.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := k.Rotate(context.Background()); err != nil {
		t.Fatal(err)
	}
}
